//! Sends bodies to addresses by HTTP POST: the one place outside of `edge`, `client` and the S3 libraries that speaks HTTP,
//! for whom the operator or an account has named (topics, functions, the endpoints of delivery streams). It refuses to know
//! what it sends and why. It is the [`HttpCaller`] of Firehose.
//!
//! Connections are kept for the next request to the same host. No redirects, no proxies; a bounded time for everything from
//! the connection to the last byte of the answer, and a bounded answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use firehose::ports::{Answer, Call, CallError, HttpCaller};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use hyper::http::request::Builder;
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
    Unanswered(#[from] CallError),
}

/// A sender.
#[derive(Clone)]
pub struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    secure: bool,
    longest: Option<Duration>,
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
        Ok(Webhook {
            client,
            secure,
            longest: None,
        })
    }

    /// The same with no call longer than `longest`, whatever the caller allows.
    pub fn at_most(self, longest: Option<Duration>) -> Self {
        Webhook { longest, ..self }
    }

    /// Sends a body to the receiver of a topic. It has been taken when this answers: the status was 2xx.
    pub async fn post(&self, to: &Address, headers: &[(&str, &str)], body: Bytes) -> Result<(), WebhookError> {
        let mut request = Request::post(to.uri.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.exchange(to, request, body, (WITHIN, TOPIC_ANSWER_MAX)).await?;
        match StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => Err(WebhookError::Later(status)),
            status if status.is_client_error() => Err(WebhookError::Refused(status)),
            status => Err(WebhookError::Later(status)),
        }
    }

    /// Sends a body and reads the whole answer, within a time and a number of bytes.
    async fn exchange(
        &self,
        to: &Address,
        request: Builder,
        body: Bytes,
        (within, answer_max): (Duration, usize),
    ) -> Result<Answer, CallError> {
        if to.is_secure() && !self.secure {
            let why = "https needs webhook_ca, the certificates to trust";
            return Err(CallError::Untrusted(format!("{}: {why}", to.authority())));
        }
        let request = request.header(USER_AGENT, NAME).body(Full::new(body));
        let request = request.map_err(|error| CallError::Refused(format!("{}: {error}", to.authority())))?;
        let within = self.longest.map_or(within, |longest| longest.min(within));
        let answered = tokio::time::timeout(within, self.send(to, request, answer_max)).await;
        answered.map_err(|_| CallError::TimedOut(within))?
    }

    async fn send(&self, to: &Address, request: Request<Full<Bytes>>, max: usize) -> Result<Answer, CallError> {
        let sent = self.client.request(request).await;
        let (head, body) = sent.map_err(|error| unsent(to, &error))?.into_parts();
        let body = Limited::new(body, max).collect().await.map_err(|error| {
            match error.downcast_ref::<LengthLimitError>() {
                Some(_) => CallError::TooLarge(max),
                None => CallError::Broken(format!("{}: {}", to.authority(), whole(&*error))),
            }
        })?;
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            let value = value.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        };
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers.iter().filter_map(text).collect(),
            body: body.to_bytes(),
        })
    }
}

#[async_trait]
impl HttpCaller for Webhook {
    async fn post(&self, call: Call) -> Result<Answer, CallError> {
        let to: Address = call.url.parse().map_err(CallError::Refused)?;
        let mut request = Request::post(to.uri.clone());
        for (name, value) in &call.headers {
            // What an account has configured need not be ASCII.
            let value = HeaderValue::from_bytes(value.as_bytes());
            let value = value.map_err(|_| CallError::Refused(format!("{name} has a value that no header can have")))?;
            request = request.header(name, value);
        }
        let bounds = (call.within, call.answer_bytes_max);
        self.exchange(&to, request, call.body, bounds).await
    }
}

/// Why a request was not answered.
fn unsent(to: &Address, error: &hyper_util::client::legacy::Error) -> CallError {
    let why = format!("{}: {}", to.authority(), whole(error));
    match error.is_connect() {
        true if has_cause::<tokio_rustls::rustls::Error>(error) => CallError::Untrusted(why),
        true => CallError::Unreachable(why),
        false => CallError::Broken(why),
    }
}

/// Whether an error of this type is among the causes, also inside an I/O error.
fn has_cause<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<E>() {
            return true;
        }
        // What an I/O error was made of is not among its sources.
        let inside = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => cause.source(),
        };
    }
    false
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

    /// A receiver that answers each connection with bytes, and stays silent behind them if it is told to.
    async fn raw(answer: &'static [u8], silent: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut some = [0; 1024];
                let _ = stream.read(&mut some).await;
                let _ = stream.write_all(answer).await;
                if silent {
                    kept.push(stream);
                }
            }
        });
        url
    }

    fn call(url: &str) -> Call {
        Call {
            url: url.to_owned(),
            headers: vec![("x-key".to_owned(), "schlüssel".to_owned())],
            body: Bytes::from_static(b"{}"),
            within: Duration::from_millis(200),
            answer_bytes_max: 16,
        }
    }

    #[tokio::test]
    async fn a_call_ends_whatever_the_receiver_does() {
        let caller = Webhook::new(None).unwrap();
        let post = async |url: String| HttpCaller::post(&caller, call(&url)).await;
        let answer = post(
            raw(
                b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: 2\r\n\r\nok",
                false,
            )
            .await,
        )
        .await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        assert_eq!(answer.header("content-type"), Some("a/b"));
        // A redirection is an answer like any other.
        let elsewhere = raw(
            b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            false,
        );
        assert_eq!(post(elsewhere.await).await.unwrap().status, 307);
        let huge = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n01234567890123456", false);
        assert_eq!(post(huge.await).await, Err(CallError::TooLarge(16)));
        let endless = raw(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\n01234567890123456789012345678901",
            true,
        );
        assert_eq!(post(endless.await).await, Err(CallError::TooLarge(16)));
        let slow = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", true);
        let limit = Duration::from_millis(200);
        assert_eq!(post(slow.await).await, Err(CallError::TimedOut(limit)));
        for half in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no"[..],
            b"",
            b"nonsense\r\n\r\n",
        ] {
            assert!(
                matches!(post(raw(half, false).await).await, Err(CallError::Broken(_))),
                "{half:?}"
            );
        }
        let bad = HttpCaller::post(&caller, call("gopher://127.0.0.1/")).await;
        assert!(matches!(bad, Err(CallError::Refused(_))));
        let mut split = call("http://127.0.0.1:1/");
        split.headers = vec![("x-key".to_owned(), "a\r\nx-other: b".to_owned())];
        let split = HttpCaller::post(&caller, split).await;
        assert!(matches!(split, Err(CallError::Refused(_))));
        let shorter = caller.clone().at_most(Some(Duration::from_millis(50)));
        let silent = HttpCaller::post(&shorter, call(&raw(b"", true).await)).await;
        assert_eq!(silent, Err(CallError::TimedOut(Duration::from_millis(50))));
    }

    #[tokio::test]
    async fn connections_are_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            // One connection answers twice; nobody accepts another.
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let mut got = Vec::new();
                while !got.ends_with(b"{}") {
                    let mut some = [0; 1024];
                    let n = stream.read(&mut some).await.unwrap();
                    got.extend_from_slice(&some[..n]);
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .unwrap();
            }
        });
        let caller = Webhook::new(None).unwrap();
        for _ in 0..2 {
            let mut call = call(&url);
            call.within = Duration::from_secs(10);
            assert_eq!(HttpCaller::post(&caller, call).await.unwrap().status, 200);
        }
        serving.await.unwrap();
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
            Err(WebhookError::Unanswered(CallError::Unreachable(_)))
        ));
        let secure = "https://127.0.0.1:1/".parse().unwrap();
        assert!(webhook.post(&secure, &[], Bytes::new()).await.is_err());
    }
}
