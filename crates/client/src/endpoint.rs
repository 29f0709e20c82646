//! Where a server is.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use http::Uri;

/// The base URL of a server, `http://HOST[:PORT]` or `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As it goes into the Host header: without the scheme's own port.
    pub(crate) authority: String,
    /// Where the host was found, for who cannot look it up any more.
    pub(crate) address: Option<SocketAddr>,
}

impl Endpoint {
    /// Its host, a name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same server, which is reached at this address and not looked up.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Self {
        Endpoint {
            address: Some(address),
            ..self
        }
    }
}

/// The text is no base URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a URL such as http://127.0.0.1:4577")]
pub struct InvalidEndpoint(pub String);

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InvalidEndpoint(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (tls, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        let port = uri.port_u16().unwrap_or(default_port);
        let authority = if port == default_port {
            host.clone()
        } else {
            format!("{host}:{port}")
        };
        Ok(Endpoint {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority,
            address: None,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_keeps_its_port_unless_it_is_the_schemes_own() {
        let parse = |text: &str| text.parse::<Endpoint>();
        assert_eq!(
            parse("http://127.0.0.1:4577/").unwrap().to_string(),
            "http://127.0.0.1:4577"
        );
        assert_eq!(
            parse("https://cam.example:443").unwrap().to_string(),
            "https://cam.example"
        );
        assert_eq!(parse("http://[::1]:8080").unwrap().host, "::1");
        for bad in ["", "cam", "ftp://a", "http://", "http://a/b", "http://a/?q"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
