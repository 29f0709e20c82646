//! Sends bodies to addresses by HTTP POST: the one place outside of `edge`, `client` and the S3 libraries that speaks HTTP,
//! for whom the operator or an account has named (topics, functions, the endpoints of delivery streams). It refuses to know
//! what it sends and why.
//!
//! Connections are kept for the next request to the same host. No redirects, no proxies; a bounded time for everything from
//! the connection to the last byte of the answer, and a bounded answer.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a delivery to a topic may take from the connection to the answer; SNS gives an endpoint 15 s too.
const WITHIN: Duration = Duration::from_secs(15);
/// The answer of a topic's receiver is its status; of the rest, no more than this is read.
const TOPIC_ANSWER_MAX: usize = 64 << 10;
/// A connection that nobody needs is kept for so long, and so many of them to one host.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_MAX: usize = 8;

/// What the receiver sees as our name.
const NAME: &str = "sightglass";

/// Where to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
}

impl Address {
    /// Whether it is reached over TLS.
    pub fn is_secure(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Host and port, for the log: what follows may be secret.
    fn authority(&self) -> &str {
        self.uri.authority().map_or("", Authority::as_str)
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not an address like https://receiver.example/path");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let named = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        match (uri.scheme_str(), named) {
            (Some("http" | "https"), Some(_)) => Ok(Address { uri }),
            _ => Err(wrong()),
        }
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
    /// There was no answer.
    #[error("{0}")]
    Unanswered(#[from] Unanswered),
}

/// A sender.
#[derive(Clone)]
pub struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    secure: bool,
}

impl Webhook {
    /// A sender that trusts the certificates of a PEM file; without one it sends to `http` addresses alone.
    pub fn new(ca_pem: Option<&[u8]>) -> io::Result<Self> {
        let roots = ca_pem.map(roots).transpose()?;
        let secure = roots.is_some();
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots.unwrap_or_else(RootCertStore::empty))
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .build(connector.https_or_http().enable_http1().build());
        Ok(Webhook { client, secure })
    }

    /// Sends a body to the receiver of a topic. It has been taken when this answers: the status was 2xx.
    pub async fn post(&self, to: &Address, headers: &[(&str, &str)], body: Bytes) -> Result<(), WebhookError> {
        let answer = self.exchange(to, headers, body, WITHIN, TOPIC_ANSWER_MAX).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => Err(WebhookError::Later(status)),
            status if status.is_client_error() => Err(WebhookError::Refused(status)),
            status => Err(WebhookError::Later(status)),
        }
    }

    /// Sends a body and reads the whole answer, of at most `answer_max` bytes, within `within`.
    pub async fn exchange(
        &self,
        to: &Address,
        headers: &[(&str, &str)],
        body: Bytes,
        within: Duration,
        answer_max: usize,
    ) -> Result<Answer, Unanswered> {
        if to.is_secure() && !self.secure {
            let why = "https needs webhook_ca, the certificates to trust";
            return Err(Unanswered::Unreachable(format!("{}: {why}", to.authority())));
        }
        let mut request = Request::post(to.uri.clone()).header(USER_AGENT, NAME);
        for (name, value) in headers {
            // What an account has configured may be anything but a line break; not ASCII alone.
            let name = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_bytes(value.as_bytes());
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Unanswered::Unsendable);
            };
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| Unanswered::Unsendable)?;
        match tokio::time::timeout(within, self.send(to, request, answer_max)).await {
            Ok(answered) => answered,
            Err(_) => Err(Unanswered::TimedOut(to.authority().to_owned(), within.as_secs())),
        }
    }

    async fn send(&self, to: &Address, request: Request<Full<Bytes>>, max: usize) -> Result<Answer, Unanswered> {
        let unreachable =
            |error: &dyn std::error::Error| Unanswered::Unreachable(format!("{}: {}", to.authority(), whole(error)));
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| unreachable(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, max).collect().await.map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                return Unanswered::TooLong(to.authority().to_owned(), max);
            }
            unreachable(&*error)
        })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

/// What a receiver answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

impl Answer {
    /// The content type, without its parameters, in lower case; empty without one.
    pub fn content_type(&self) -> String {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let named = value.and_then(|value| value.split(';').next()).unwrap_or_default();
        named.trim().to_ascii_lowercase()
    }

    /// Whether the body is encoded.
    pub fn is_encoded(&self) -> bool {
        let value = self.headers.get(CONTENT_ENCODING);
        value.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It could not be reached, or the connection ended before the answer did.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long.
    #[error("{0}: no answer within {1} s")]
    TimedOut(String, u64),
    /// The answer is too big.
    #[error("{0}: the answer is bigger than {1} bytes")]
    TooLong(String, usize),
    /// A header has bytes that no header can have.
    #[error("a header of the request has a character that no header can have")]
    Unsendable,
}

/// An error and what caused it, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn roots(ca_pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        // A bundle may hold one that this library does not take; the others still count.
        let _ = roots.add(certificate.map_err(io::Error::other)?);
    }
    match roots.is_empty() {
        true => Err(io::Error::other("no usable certificate in it")),
        false => Ok(roots),
    }
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
        assert!(address.is_secure());
        assert_eq!(address.authority(), "receiver.example");
        assert_eq!(read("http://127.0.0.1:8080").unwrap().uri.path(), "/");
        assert_eq!(read("http://[::1]:8080/x").unwrap().authority(), "[::1]:8080");
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
        assert!(matches!(
            unreachable,
            Err(WebhookError::Unanswered(Unanswered::Unreachable(_)))
        ));
        let secure = "https://127.0.0.1:1/".parse().unwrap();
        assert!(webhook.post(&secure, &[], Bytes::new()).await.is_err());
    }
}
