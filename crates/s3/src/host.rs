//! Buckets in host names: `bucket.localhost`, or a bucket before the host of the public URL.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

/// The hosts that buckets may stand before.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    pub fn new(public_host: Option<&str>) -> Self {
        let public = public_host.map(|host| without_port(host).to_ascii_lowercase());
        let mut hosts = vec!["localhost".to_owned()];
        hosts.extend(public.filter(|host| host != "localhost" && host.parse::<std::net::IpAddr>().is_err()));
        Hosts(hosts)
    }

    /// The bucket in a host, if there is one.
    pub fn bucket(&self, host: &str) -> Option<String> {
        let host = without_port(host).to_ascii_lowercase();
        self.0.iter().find_map(|base| {
            let bucket = host.strip_suffix(base.as_str())?.strip_suffix('.')?;
            Some(bucket.to_owned()).filter(|bucket| !bucket.is_empty())
        })
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let parsed = VirtualHost::new(host);
        Ok(match self.bucket(host) {
            Some(bucket) => parsed.with_bucket(bucket),
            None => parsed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_may_stand_before_localhost_and_the_public_host() {
        let hosts = Hosts::new(Some("s3.example.org:4577"));
        for (host, bucket) in [
            ("door.localhost:4577", Some("door")),
            ("my.door.LOCALHOST", Some("my.door")),
            ("localhost:4577", None),
            ("127.0.0.1:4577", None),
            ("door.s3.example.org", Some("door")),
            ("s3.example.org", None),
            (".localhost", None),
            ("doorlocalhost", None),
            ("door.example.org", None),
        ] {
            assert_eq!(hosts.bucket(host).as_deref(), bucket, "{host}");
        }
        assert_eq!(Hosts::new(Some("127.0.0.1:1")).bucket("door.127.0.0.1"), None);
    }
}
