//! One HTTP/1.1 connection, plain or TLS.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::endpoint::Endpoint;
use crate::error::ClientError;

/// A silent peer is probed after this, and so often.
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// A request's body, whatever makes it.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, Aborted>;

/// The body was broken off by whoever made it.
#[derive(Debug, thiserror::Error)]
#[error("the sender broke the request off")]
pub(crate) struct Aborted;

/// The sending half; the connection runs in the background and ends when this is dropped.
pub(crate) type Sender = SendRequest<RequestBody>;

/// Which certificates an `https` server may show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that the machine trusts: its store, or the files that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    #[default]
    Platform,
    /// Those of this PEM file and no others.
    Pem(Vec<u8>),
}

/// Makes TLS connections. The machine's certificates are read at the first of them.
pub(crate) struct Tls {
    connector: OnceLock<TlsConnector>,
}

impl Tls {
    pub fn new(trust: Trust) -> io::Result<Self> {
        let connector = OnceLock::new();
        if let Trust::Pem(pem) = trust {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(io::Error::other)?;
                roots.add(certificate).map_err(io::Error::other)?;
            }
            if roots.is_empty() {
                return Err(io::Error::other("the PEM file holds no certificate"));
            }
            let _ = connector.set(trusting(roots)?);
        }
        Ok(Tls { connector })
    }

    fn connector(&self) -> io::Result<TlsConnector> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector.clone());
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _unreadable) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
            return Err(io::Error::other(format!(
                "this machine trusts no certificate {why}; name the server's own (--ca FILE, Trust::Pem)"
            )));
        }
        let connector = trusting(roots)?;
        Ok(self.connector.get_or_init(|| connector).clone())
    }
}

fn trusting(roots: RootCertStore) -> io::Result<TlsConnector> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Opens a connection. A peer that vanished without a word is noticed by the system's probes.
pub(crate) async fn connect(endpoint: &Endpoint, tls: &Tls) -> Result<Sender, ClientError> {
    let failed = |source| unreachable(endpoint, source);
    let stream = reach(endpoint).await?;
    if !endpoint.tls {
        return speak(stream).await;
    }
    let connector = tls.connector().map_err(failed)?;
    speak(secure(endpoint, &connector, stream).await?).await
}

fn unreachable(endpoint: &Endpoint, source: io::Error) -> ClientError {
    ClientError::Connect {
        authority: endpoint.authority.clone(),
        source,
    }
}

async fn reach(endpoint: &Endpoint) -> Result<TcpStream, ClientError> {
    let failed = |source| unreachable(endpoint, source);
    let connected = match endpoint.address {
        Some(address) => TcpStream::connect(address).await,
        None => TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await,
    };
    let stream = connected.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let probes = TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY);
    SockRef::from(&stream).set_tcp_keepalive(&probes).map_err(failed)?;
    Ok(stream)
}

async fn secure(
    endpoint: &Endpoint,
    connector: &TlsConnector,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let failed = |source| unreachable(endpoint, source);
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
    connector.connect(name, stream).await.map_err(failed)
}

/// The sending half of a connection for one long answer, in whichever version of HTTP the two agreed on. Dropping it cuts
/// the connection.
pub(crate) enum StreamSender {
    /// HTTP/1.1.
    One(Sender),
    /// HTTP/2, in which alone AWS answers with events.
    Two(http2::SendRequest<RequestBody>),
}

/// Opens a connection of its own: HTTP/2 where TLS has a word for that and the server has it, else HTTP/1.1.
pub(crate) async fn connect_stream(endpoint: &Endpoint, tls: &Tls) -> Result<StreamSender, ClientError> {
    let stream = reach(endpoint).await?;
    if !endpoint.tls {
        return speak(stream).await.map(StreamSender::One);
    }
    let connector = tls.connector().map_err(|source| unreachable(endpoint, source))?;
    let mut config = ClientConfig::clone(connector.config());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = secure(endpoint, &TlsConnector::from(Arc::new(config)), stream).await?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return speak(stream).await.map(StreamSender::One);
    }
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    run(connection);
    Ok(StreamSender::Two(sender))
}

async fn speak<I>(io: I) -> Result<Sender, ClientError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(io)).await?;
    run(connection);
    Ok(sender)
}

fn run(connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
}
