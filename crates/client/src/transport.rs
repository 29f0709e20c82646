//! One HTTP/1.1 connection, plain or TLS.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::endpoint::Endpoint;
use crate::error::ClientError;

/// A request's body, whatever makes it.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// The sending half; the connection runs in the background and ends when this is dropped.
pub(crate) type Sender = SendRequest<RequestBody>;

/// A connector that trusts the certificates of a PEM file.
pub(crate) fn trust(ca_pem: &[u8]) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        roots
            .add(certificate.map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Opens a connection.
pub(crate) async fn connect(endpoint: &Endpoint, tls: Option<&TlsConnector>) -> Result<Sender, ClientError> {
    let failed = |source| ClientError::Connect {
        authority: endpoint.authority.clone(),
        source,
    };
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    if !endpoint.tls {
        return speak(stream).await;
    }
    let connector = tls.ok_or_else(|| failed(io::Error::other("https needs the certificates to trust")))?;
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
    speak(connector.connect(name, stream).await.map_err(failed)?).await
}

async fn speak<I>(io: I) -> Result<Sender, ClientError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(sender)
}
