//! Under which URL a caller reaches this server: what GetDataEndpoint and session URLs return.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::header::{HOST, HeaderMap};
use http::uri::{Authority, Uri};

/// A network whose hosts may say for whom they speak, such as `127.0.0.1` or `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy {
    address: IpAddr,
    prefix_bits: u8,
}

/// The text is no address and no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IP address or a network such as 10.0.0.0/8")]
pub struct InvalidNetwork(pub String);

impl FromStr for TrustedProxy {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InvalidNetwork(text.to_owned());
        let (address, bits) = text
            .split_once('/')
            .map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.map_or(Ok(bits_max), |bits| bits.parse().map_err(|_| wrong()))?;
        if prefix_bits > bits_max {
            return Err(wrong());
        }
        Ok(TrustedProxy { address, prefix_bits })
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl TrustedProxy {
    /// Whether `peer` lies in the network. An IPv4 peer of a dual-stack listener counts as IPv4.
    pub fn contains(&self, peer: IpAddr) -> bool {
        let same_prefix = |a: u128, b: u128, width: u32| {
            let shift = width.saturating_sub(u32::from(self.prefix_bits));
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same_prefix(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same_prefix(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

/// What is known of the connection that a request came on.
pub(crate) struct Arrival {
    pub(crate) peer: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) tls: bool,
}

/// The rule of the public contract: `--public-url`, else scheme and Host of the request, plus the listener's port where
/// Host has none (the C producer sends none). Forwarded headers count only from a trusted proxy, and a forwarded host
/// without a port means the scheme's own.
pub(crate) fn base_url(
    public_url: Option<&Arc<str>>,
    trusted: &[TrustedProxy],
    arrival: &Arrival,
    uri: &Uri,
    headers: &HeaderMap,
) -> Arc<str> {
    if let Some(url) = public_url {
        return Arc::clone(url);
    }
    let scheme = match forwarded(trusted, arrival, headers, "x-forwarded-proto") {
        Some("https") => "https",
        Some("http") => "http",
        _ if arrival.tls => "https",
        _ => "http",
    };
    if let Some(host) = forwarded_host(trusted, arrival, headers).and_then(authority) {
        return format!("{scheme}://{host}").into();
    }
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .and_then(authority)
        .or_else(|| uri.authority().cloned());
    let port = arrival.local_port;
    let default_port = if scheme == "https" { 443 } else { 80 };
    match host {
        Some(host) if host.port().is_some() || port == default_port => format!("{scheme}://{host}").into(),
        Some(host) => format!("{scheme}://{host}:{port}").into(),
        None => format!("{scheme}://127.0.0.1:{port}").into(),
    }
}

/// The host that a trusted proxy says the client asked.
pub(crate) fn forwarded_host<'a>(
    trusted: &[TrustedProxy],
    arrival: &Arrival,
    headers: &'a HeaderMap,
) -> Option<&'a str> {
    forwarded(trusted, arrival, headers, "x-forwarded-host")
}

/// Whether a program on this machine asks, and for itself: no proxy says that it hands a request on.
pub(crate) fn is_from_here(arrival: &Arrival, headers: &HeaderMap) -> bool {
    let handed_on = ["forwarded", "x-forwarded-for", "x-forwarded-host", "via"];
    arrival.peer.to_canonical().is_loopback() && !handed_on.iter().any(|name| headers.contains_key(*name))
}

/// The first element of a header that only a trusted proxy may set.
fn forwarded<'a>(trusted: &[TrustedProxy], arrival: &Arrival, headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    if !trusted.iter().any(|network| network.contains(arrival.peer)) {
        return None;
    }
    let value = headers.get(name)?.to_str().ok()?;
    value.split(',').next().map(str::trim).filter(|first| !first.is_empty())
}

/// A host with an optional port and nothing else: no user, no path.
fn authority(text: &str) -> Option<Authority> {
    text.parse()
        .ok()
        .filter(|host: &Authority| !host.as_str().contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(peer: &str, headers: &[(&'static str, &str)], tls: bool) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let arrival = Arrival {
            peer: peer.parse().unwrap(),
            local_port: 4577,
            tls,
        };
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        base_url(None, &trusted, &arrival, &Uri::from_static("/"), &headers).to_string()
    }

    #[test]
    fn the_producer_that_sends_host_without_port_gets_the_listeners_port() {
        assert_eq!(url("127.0.0.1", &[("host", "10.1.2.3")], false), "http://10.1.2.3:4577");
        assert_eq!(
            url("127.0.0.1", &[("host", "cam.example:80")], false),
            "http://cam.example:80"
        );
        assert_eq!(
            url("127.0.0.1", &[("host", "cam.example")], true),
            "https://cam.example:4577"
        );
        assert_eq!(url("127.0.0.1", &[("host", "[::1]")], false), "http://[::1]:4577");
    }

    #[test]
    fn only_a_program_on_this_machine_that_asks_for_itself_is_from_here() {
        let from_here = |peer: &str, header: Option<&'static str>| {
            let arrival = Arrival {
                peer: peer.parse().unwrap(),
                local_port: 4577,
                tls: false,
            };
            let headers = header.map(|name| (http::HeaderName::from_static(name), "a".parse().unwrap()));
            is_from_here(&arrival, &headers.into_iter().collect())
        };
        assert!(from_here("127.0.0.1", None) && from_here("::1", None) && from_here("::ffff:127.0.0.1", None));
        assert!(!from_here("10.0.0.1", None) && !from_here("2001:db8::1", None));
        assert!(!from_here("127.0.0.1", Some("x-forwarded-for")), "a proxy hands it on");
    }

    #[test]
    fn a_malformed_host_never_reaches_an_answer() {
        for bad in ["a b", "user@evil", "evil/path", ""] {
            assert_eq!(
                url("127.0.0.1", &[("host", bad)], false),
                "http://127.0.0.1:4577",
                "{bad:?}"
            );
        }
    }

    #[test]
    fn forwarded_headers_count_only_from_a_trusted_proxy() {
        let headers = [
            ("host", "inner:4577"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "video.example"),
        ];
        assert_eq!(url("10.9.9.9", &headers, false), "https://video.example");
        assert_eq!(url("::ffff:10.9.9.9", &headers, false), "https://video.example");
        assert_eq!(url("192.168.0.1", &headers, false), "http://inner:4577");
    }

    #[test]
    fn networks_are_parsed_and_matched_by_prefix() {
        let all: TrustedProxy = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("8.8.8.8".parse().unwrap()));
        let v6: TrustedProxy = "fd00::/8".parse().unwrap();
        assert!(v6.contains("fdff::1".parse().unwrap()) && !v6.contains("fe80::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "a/8", "::/129"] {
            assert!(bad.parse::<TrustedProxy>().is_err(), "{bad}");
        }
    }
}
