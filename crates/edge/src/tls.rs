//! TLS by rustls with ring. The operator's certificate chain and key come in as PEM text; reading the files is not done here.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// A certificate chain, leaf first, and its private key (PKCS#8, PKCS#1 or SEC1), as PEM text.
#[derive(Clone)]
pub struct TlsPem {
    /// The chain.
    pub certificates: Vec<u8>,
    /// The key.
    pub private_key: Vec<u8>,
}

impl fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsPem")
    }
}

/// What a TLS client that offers both HTTP/2 and HTTP/1.1 is given. One that offers a single version gets that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1. The producer SDK's libcurl offers both, and is not made for HTTP/2: libcurl then hands it the acks of
    /// several frames in one piece, of which the SDK heeds the first alone, or none where they exceed 1024 bytes. With
    /// HTTP/1.1 each ack is a chunk, and libcurl hands over chunk by chunk. AWS's endpoints speak HTTP/1.1 too.
    #[default]
    Http1,
    /// HTTP/2, for browsers that have many players open and for players that insist on it.
    Http2,
}

impl HttpVersion {
    /// The protocols, the preferred first.
    fn alpn(self) -> Vec<Vec<u8>> {
        let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        match self {
            HttpVersion::Http1 => vec![http1, http2],
            HttpVersion::Http2 => vec![http2, http1],
        }
    }
}

/// The certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate, or one that is not PEM.
    #[error("the certificate file holds no readable PEM certificate{}", because(.0))]
    Certificate(Option<rustls::pki_types::pem::Error>),
    /// No key, or one that is not PEM.
    #[error("the key file holds no readable PEM private key: {0}")]
    Key(rustls::pki_types::pem::Error),
    /// They do not belong together, or are of a kind that is not supported.
    #[error("the certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
}

fn because(error: &Option<rustls::pki_types::pem::Error>) -> String {
    error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

/// An acceptor that takes HTTP/1.1 and HTTP/2, and chooses `preferred` where a client leaves the choice.
pub(crate) fn acceptor(pem: &TlsPem, preferred: HttpVersion) -> Result<TlsAcceptor, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&pem.certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Certificate(Some(error)))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate(None));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem.private_key).map_err(TlsError::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = preferred.alpn();
    Ok(TlsAcceptor::from(Arc::new(config)))
}
