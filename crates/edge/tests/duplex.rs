//! Streams in both directions: PutMedia answers while it takes, GetMedia flows until somebody has enough.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;

#[tokio::test]
async fn acks_flow_while_the_body_is_still_being_sent() {
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(put_media("cam").signed_chunked(&[])).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut sent = 0;
    for size in [1, 100, 65_000] {
        client.chunk(&vec![7; size]).await;
        sent += size;
        let mut seen = 0;
        while seen < sent {
            let line = String::from_utf8(client.read_chunk().await).unwrap();
            seen = line.strip_prefix("got ").unwrap().trim().parse().unwrap();
        }
        assert_eq!(seen, sent);
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.read_chunk().await, b"end 65101\n");
    assert_eq!(client.read_chunk().await, b"");
}

#[tokio::test]
async fn a_producer_that_waits_for_100_gets_it_and_the_200_at_once() {
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    client
        .send(put_media("cam").signed_chunked(&[("Expect", "100-continue")]))
        .await;
    let interim = client.head().await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.to_ascii_lowercase().contains("transfer-encoding: chunked"),
        "{head}"
    );
    client.chunk(b"abc").await;
    assert_eq!(client.read_chunk().await, b"got 3\n");
}

#[tokio::test]
async fn a_producer_that_is_refused_gets_no_100() {
    let server = serve(config()).await;
    let mut wrong = put_media("cam").signed_chunked(&[("Expect", "100-continue")]);
    let signature = wrong.windows(10).position(|w| w == b"Signature=").unwrap() + 10;
    wrong[signature] = if wrong[signature] == b'0' { b'1' } else { b'0' };
    let missing = put_media("missing").signed_chunked(&[("Expect", "100-continue")]);
    for (request, status, code) in [
        (wrong, 403, "InvalidSignatureException"),
        (missing, 404, "ResourceNotFoundException"),
    ] {
        let mut client = connect(&server).await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.header("x-amzn-errortype")),
            (status, Some(code))
        );
    }
}

#[tokio::test]
async fn a_producer_that_sends_without_waiting_sees_why_it_is_refused() {
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(put_media("missing").signed_chunked(&[])).await;
    for _ in 0..32 {
        client.chunk(&[7; 65_536]).await;
    }
    assert_eq!(client.answer().await.status(), 404);
}

#[tokio::test]
async fn javas_literal_payload_hash_is_taken_and_the_body_is_not_de_chunked() {
    let server = serve(config()).await;
    let mut draft = put_media("cam").header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let head = {
        let pairs: Vec<(&str, &[u8])> = draft.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let head = auth::RequestHead {
            method: draft.method,
            path: &draft.path,
            query: "",
            headers: &pairs,
            local_port: None,
            also_hosts: &[],
        };
        let scope = auth::Scope {
            region: REGION,
            service: "kinesisvideo",
        };
        auth::sign(&head, &credentials(), scope, NOW, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    };
    draft.headers.extend(head);
    draft
        .headers
        .push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
    let mut client = connect(&server).await;
    client.send(draft.head_with(&[])).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    let body = b"5;chunk-signature=00\r\nhello\r\n";
    client.chunk(body).await;
    assert_eq!(client.read_chunk().await, format!("got {}\n", body.len()).into_bytes());
}

#[tokio::test]
async fn a_producer_that_half_closes_after_its_last_chunk_loses_no_ack() {
    use tokio::io::AsyncWriteExt;
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(put_media("cam").signed_chunked(&[])).await;
    client.chunk(b"abc").await;
    client.send("0\r\n\r\n").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.answer().await.text(), "got 3\nend 3\n");
}

#[tokio::test]
async fn a_camera_that_vanishes_in_mid_chunk_is_noticed() {
    let mut server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(put_media("cam").signed_chunked(&[])).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    client.send("ff\r\nonly the beginning").await;
    drop(client);
    let event = soon(server.events.recv()).await.unwrap();
    assert_eq!(event, "upload broke: the connection was closed before the body ended");
}

#[tokio::test]
async fn a_viewer_that_leaves_a_quiet_stream_is_noticed() {
    let mut server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(get_media("cam").signed()).await;
    let head = client.head().await;
    assert!(head.contains("video/webm"), "{head}");
    assert_eq!(client.read_chunk().await, b"media");
    drop(client);
    assert_eq!(soon(server.events.recv()).await.unwrap(), "GetMedia dropped");
}

#[tokio::test]
async fn a_live_answer_that_ends_has_a_proper_end_and_leaves_its_connection_to_the_next() {
    let server = serve(config()).await;
    let mut viewer = connect(&server).await;
    for _ in 0..3 {
        viewer.send(get_media("ends").signed()).await;
        assert_eq!(viewer.answer().await.body, b"media");
        viewer.send(describe("cam").signed()).await;
        assert_eq!(viewer.answer().await.status(), 200);
    }
}

#[tokio::test]
async fn a_viewer_that_takes_nothing_holds_up_nobody_of_its_crowd() {
    let server = serve(config()).await;
    let mut slow = connect(&server).await;
    slow.send(get_media("flood").signed()).await;
    slow.head().await;
    for _ in 0..20 {
        let mut viewer = connect(&server).await;
        viewer.send(get_media("ends").signed()).await;
        assert_eq!(viewer.answer().await.body, b"media");
    }
    // The slow one has lost nothing.
    for _ in 0..50 {
        let chunk = slow.read_chunk().await;
        assert!(!chunk.is_empty() && chunk.len() % 65_536 == 0 && chunk.iter().all(|byte| *byte == 7));
    }
}

#[tokio::test]
async fn a_viewer_that_takes_nothing_is_dropped() {
    let mut config = config();
    config.limits.write_stall_timeout = std::time::Duration::from_millis(200);
    let mut server = serve(config).await;
    let mut client = connect(&server).await;
    client.send(get_media("flood").signed()).await;
    assert_eq!(soon(server.events.recv()).await.unwrap(), "GetMedia dropped");
    drop(client);
}

#[tokio::test]
async fn a_stream_that_panics_breaks_off_without_a_proper_end() {
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(get_media("panics").signed()).await;
    client.head().await;
    assert_eq!(client.read_chunk().await, b"media");
    assert_eq!(client.rest().await, b"");
    assert!(
        server
            .metrics
            .render()
            .unwrap()
            .contains("sightglass_http_panics_total 1")
    );
}
