//! TLS and HTTP/2 on the one port.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::*;
use edge::{EdgeConfig, HttpVersion, TlsError, TlsPem};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const CERTIFICATE: &[u8] = include_bytes!("tls/cert.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

type Sent = UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn with_tls() -> EdgeConfig {
    EdgeConfig {
        tls: Some(TlsPem {
            certificates: CERTIFICATE.to_vec(),
            private_key: KEY.to_vec(),
        }),
        ..config()
    }
}

async fn tls(server: &TestServer, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = connect(server).await.stream;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

async fn h2<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: I) -> SendRequest<Sent> {
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn request(draft: &Draft, scheme: &str, body: Sent) -> http::Request<Sent> {
    let host = &draft.headers[0].1;
    let mut request = http::Request::post(format!("{scheme}://{host}{}", draft.path));
    for (name, value) in draft.headers[1..].iter().chain(&draft.signature()) {
        request = request.header(name, value);
    }
    request.body(body).unwrap()
}

fn whole(draft: &Draft) -> Sent {
    Full::new(Bytes::from(draft.body.clone())).boxed_unsync()
}

async fn text(response: http::Response<Incoming>) -> String {
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn plain_http1_h2c_tls_http1_and_tls_h2_share_the_port() {
    let server = serve(with_tls()).await;
    let port = server.running.local_addr().port();
    let plain = ask(&server, describe("door").signed()).await.text();
    assert!(plain.contains(&format!("http://127.0.0.1:{port}")), "{plain}");

    let mut over_tls = Raw {
        stream: tls(&server, &[b"http/1.1"]).await,
        unread: Vec::new(),
    };
    over_tls.send(describe("door").signed()).await;
    let secure = over_tls.answer().await.text();
    assert!(secure.contains(&format!("https://127.0.0.1:{port}")), "{secure}");

    let mut h2c = h2(connect(&server).await.stream).await;
    let draft = describe("door");
    let response = soon(h2c.send_request(request(&draft, "http", whole(&draft))))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, http::Version::HTTP_2)
    );
    assert!(text(response).await.contains(&format!("http://127.0.0.1:{port}")));

    let stream = tls(&server, &[b"h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut h2_tls = h2(stream).await;
    let response = soon(h2_tls.send_request(request(&draft, "https", whole(&draft))))
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert!(text(response).await.contains(&format!("https://127.0.0.1:{port}")));
}

/// libcurl offers both in this order; the producer SDK, which is built on it, loses acks over HTTP/2.
#[tokio::test]
async fn a_client_that_offers_both_versions_is_answered_in_the_preferred_one() {
    for (preferred_version, alpn) in [(HttpVersion::Http1, &b"http/1.1"[..]), (HttpVersion::Http2, b"h2")] {
        let server = serve(EdgeConfig {
            preferred_version,
            ..with_tls()
        })
        .await;
        let stream = tls(&server, &[b"h2", b"http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
    }
    assert_eq!(with_tls().preferred_version, HttpVersion::Http1);
}

#[tokio::test]
async fn put_media_is_full_duplex_over_h2() {
    let server = serve(with_tls()).await;
    let mut client = h2(tls(&server, &[b"h2"]).await).await;
    let (pieces, queue) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::unfold(queue, |mut queue| async move {
        let piece = queue.recv().await?;
        Some((Ok(Frame::data(piece)), queue))
    });
    let draft = put_media("cam");
    let response = client.send_request(request(&draft, "https", StreamBody::new(stream).boxed_unsync()));
    let mut acks = soon(response).await.unwrap().into_body();
    for (size, line) in [(3, "got 3\n"), (4, "got 7\n")] {
        pieces.send(Bytes::from(vec![7; size])).await.unwrap();
        let frame = soon(acks.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), line);
    }
    drop(pieces);
    assert_eq!(
        soon(acks.frame()).await.unwrap().unwrap().into_data().unwrap(),
        "end 7\n"
    );
}

#[tokio::test]
async fn a_viewer_that_resets_its_h2_stream_is_noticed() {
    let mut server = serve(config()).await;
    let mut client = h2(connect(&server).await.stream).await;
    let draft = get_media("cam");
    let mut response = soon(client.send_request(request(&draft, "http", whole(&draft))))
        .await
        .unwrap();
    assert_eq!(
        soon(response.body_mut().frame())
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap(),
        "media"
    );
    drop(response);
    assert_eq!(soon(server.events.recv()).await.unwrap(), "GetMedia dropped");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_at_start() {
    let start = |certificates: &[u8], private_key: &[u8]| {
        let config = EdgeConfig {
            tls: Some(TlsPem {
                certificates: certificates.to_vec(),
                private_key: private_key.to_vec(),
            }),
            ..config()
        };
        try_serve(config)
    };
    assert!(matches!(
        start(b"", KEY).await,
        Err(edge::StartError::Tls(TlsError::Certificate(None)))
    ));
    assert!(matches!(
        start(CERTIFICATE, CERTIFICATE).await,
        Err(edge::StartError::Tls(TlsError::Key(_)))
    ));
    assert!(start(CERTIFICATE, KEY).await.is_ok());
}

#[tokio::test]
async fn a_tls_client_on_a_plain_server_is_closed_at_once() {
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(b"\x16\x03\x01\x02\x00\x01").await;
    assert_eq!(client.rest().await, b"");
}
