//! Sends a body to an address by HTTP POST: the one place outside of `edge` and `client` that speaks HTTP, for what the
//! operator has configured to be told (topics today). It refuses to know what it sends and why.
//!
//! One connection for each request, no redirects, no proxies, a bounded time. The receiver's answer is its status alone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a delivery may take from the connection to the answer; SNS gives an endpoint 15 s too.
const WITHIN: Duration = Duration::from_secs(15);

/// What the receiver sees as our name.
const NAME: &str = "sightglass";

/// Where to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Address {
    /// Whether it is reached over TLS.
    pub fn is_secure(&self) -> bool {
        self.tls
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not an address like https://receiver.example/path");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Address {
            tls,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: path.to_owned(),
        })
    }
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The receiver will not take it: a 4xx other than 408 and 429, which SNS does not try again either.
    #[error("the receiver refused with status {0}")]
    Refused(StatusCode),
    /// The receiver may take it later.
    #[error("the receiver answered with status {0}")]
    Later(StatusCode),
    /// It could not be reached.
    #[error("{0}")]
    Unreachable(String),
}

/// A sender.
#[derive(Clone)]
pub struct Webhook {
    tls: Option<TlsConnector>,
}

impl Webhook {
    /// A sender that trusts the certificates of a PEM file; without one it sends to `http` addresses alone.
    pub fn new(ca_pem: Option<&[u8]>) -> io::Result<Self> {
        Ok(Webhook {
            tls: ca_pem.map(trust).transpose()?,
        })
    }

    /// Sends a body. It has been taken when this answers: the status was 2xx.
    pub async fn post(&self, to: &Address, headers: &[(&str, &str)], body: Bytes) -> Result<(), WebhookError> {
        let unreachable = |why: String| WebhookError::Unreachable(format!("{}: {why}", to.authority));
        let sent = tokio::time::timeout(WITHIN, self.send(to, headers, body)).await;
        let status = sent.map_err(|_| unreachable(format!("no answer within {} s", WITHIN.as_secs())))?;
        match status.map_err(|error| unreachable(error.to_string()))? {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => Err(WebhookError::Later(status)),
            status if status.is_client_error() => Err(WebhookError::Refused(status)),
            status => Err(WebhookError::Later(status)),
        }
    }

    async fn send(&self, to: &Address, headers: &[(&str, &str)], body: Bytes) -> io::Result<StatusCode> {
        let mut request = Request::post(to.path.as_str())
            .header(HOST, to.authority.as_str())
            .header(USER_AGENT, NAME)
            .header(CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
        stream.set_nodelay(true)?;
        let mut sender = if to.tls {
            let tls = self.tls.as_ref();
            let tls = tls.ok_or_else(|| io::Error::other("https needs webhook_ca, the certificates to trust"))?;
            let name = ServerName::try_from(to.host.clone()).map_err(io::Error::other)?;
            speak(tls.connect(name, stream).await?).await?
        } else {
            speak(stream).await?
        };
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok(answer.status())
    }
}

async fn speak<I>(io: I) -> io::Result<SendRequest<Full<Bytes>>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    // Ends when the sender is dropped.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn trust(ca_pem: &[u8]) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        // A bundle may hold one that this library does not take; the others still count.
        let _ = roots.add(certificate.map_err(io::Error::other)?);
    }
    if roots.is_empty() {
        return Err(io::Error::other("no usable certificate in it"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_read_or_refused_in_words() {
        let read = |text: &str| text.parse::<Address>();
        let address = read("https://receiver.example/a/b?c=d").unwrap();
        assert_eq!(
            (address.tls, address.host.as_str(), address.port),
            (true, "receiver.example", 443)
        );
        assert_eq!(address.path, "/a/b?c=d");
        assert_eq!(read("http://127.0.0.1:8080").unwrap().path, "/");
        assert_eq!(read("http://[::1]:8080/x").unwrap().host, "::1");
        for bad in [
            "",
            "receiver.example",
            "ftp://receiver.example/",
            "/path",
            "http://user:secret@receiver.example/",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    /// One answer of a receiver, and what it got.
    async fn answer(status: &str) -> (Result<(), WebhookError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/in", listener.local_addr().unwrap()).parse().unwrap();
        let status = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let receiving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"{}") {
                let mut some = [0; 1024];
                let n = stream.read(&mut some).await.unwrap();
                got.extend_from_slice(&some[..n]);
            }
            stream.write_all(status.as_bytes()).await.unwrap();
            String::from_utf8(got).unwrap()
        };
        let webhook = Webhook::new(None).unwrap();
        let body = Bytes::from_static(b"{}");
        tokio::join!(webhook.post(&address, &[("x-kind", "test")], body), receiving)
    }

    #[tokio::test]
    async fn a_status_says_whether_another_try_is_worth_it() {
        let (taken, got) = answer("204 No Content").await;
        assert!(taken.is_ok());
        assert!(
            got.starts_with("POST /in HTTP/1.1\r\n") && got.contains("x-kind: test\r\n"),
            "{got}"
        );
        assert!(matches!(answer("410 Gone").await.0, Err(WebhookError::Refused(_))));
        for later in ["429 Too Many Requests", "503 Service Unavailable", "302 Found"] {
            assert!(matches!(answer(later).await.0, Err(WebhookError::Later(_))), "{later}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", nobody.local_addr().unwrap()).parse().unwrap();
        drop(nobody);
        let webhook = Webhook::new(None).unwrap();
        let unreachable = webhook.post(&address, &[], Bytes::new()).await;
        assert!(matches!(unreachable, Err(WebhookError::Unreachable(_))));
        let secure = "https://127.0.0.1:1/".parse().unwrap();
        assert!(webhook.post(&secure, &[], Bytes::new()).await.is_err());
    }
}
