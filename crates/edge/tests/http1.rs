//! HTTP/1.1 as bytes: what a client that writes them itself gets back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;
use edge::EdgeConfig;
use std::time::Duration;

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    let both = [describe("one").signed(), describe("two").signed()].concat();
    client.send(both).await;
    assert!(client.answer().await.text().contains("one"));
    assert!(client.answer().await.text().contains("two"));
}

#[tokio::test]
async fn a_buffered_operation_takes_a_chunked_body_cut_anywhere() {
    let server = serve(config()).await;
    let draft = describe("door");
    for piece in [1, 7, 1000] {
        let mut client = connect(&server).await;
        client.send(draft.signed_chunked(&[])).await;
        for bytes in draft.body.chunks(piece) {
            client.chunk(bytes).await;
        }
        client.send("0\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.text().contains("door")), (200, true));
    }
}

#[tokio::test]
async fn a_buffered_operation_answers_100_continue_when_the_head_is_good() {
    let server = serve(config()).await;
    let draft = describe("door");
    let mut client = connect(&server).await;
    client.send(draft.signed_chunked(&[("Expect", "100-continue")])).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.chunk(&draft.body).await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_the_refusal_alone() {
    let server = serve(config()).await;
    let mut stale = describe("door");
    stale.at = NOW.plus_millis(-360_000);
    let mut client = connect(&server).await;
    client.send(stale.signed_chunked(&[("Expect", "100-continue")])).await;
    assert_eq!(client.answer().await.status(), 403);
    let too_large = describe("door").header("Expect", "100-continue");
    let mut lines = too_large.signature();
    lines.push(("Content-Length".to_owned(), "1048577".to_owned()));
    let mut client = connect(&server).await;
    client.send(too_large.head_with(&lines)).await;
    assert_eq!(client.answer().await.status(), 413);
}

#[tokio::test]
async fn a_client_that_half_closes_after_its_request_still_gets_the_answer() {
    use tokio::io::AsyncWriteExt;
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(describe("door").signed()).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn get_data_endpoint_sees_the_callers_own_view_of_the_server() {
    let server = serve(config()).await;
    let port = server.running.local_addr().port();
    let answer = ask(&server, describe("door").signed()).await;
    assert!(
        answer.text().contains(&format!("http://127.0.0.1:{port}")),
        "{}",
        answer.text()
    );
    let public = serve(EdgeConfig {
        public_url: Some("https://video.example/".to_owned()),
        ..config()
    })
    .await;
    let answer = ask(&public, describe("door").signed()).await;
    assert!(answer.text().contains("\"https://video.example\""), "{}", answer.text());
}

#[tokio::test]
async fn a_head_that_trickles_or_never_comes_ends_the_connection() {
    let mut config = config();
    config.limits.head_timeout = Duration::from_millis(200);
    config.limits.handshake_timeout = Duration::from_millis(200);
    let server = serve(config).await;
    // Nothing; the beginning of both protocols; a head without its end; an idle connection after an answer.
    for start in ["", "PRI * HTT", "POST /describeStream HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = connect(&server).await;
        client.send(start).await;
        let rest = client.rest().await;
        assert!(
            !rest.starts_with(b"HTTP/1.1 200"),
            "{start:?}: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
    let mut client = connect(&server).await;
    client.send(describe("door").signed()).await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_408() {
    let mut config = config();
    config.limits.body_idle_timeout = Duration::from_millis(100);
    let server = serve(config).await;
    let mut client = connect(&server).await;
    client.send(describe("door").signed_chunked(&[])).await;
    client.chunk(b"{").await;
    assert_eq!(client.answer().await.status(), 408);
}

#[tokio::test]
async fn oversized_bodies_are_refused_without_being_held() {
    let server = serve(config()).await;
    // Declared: refused before a byte of it is read.
    let draft = describe("door");
    let mut lines = draft.signature();
    lines.push(("Content-Length".to_owned(), "999999999999".to_owned()));
    let mut client = connect(&server).await;
    client.send(draft.head_with(&lines)).await;
    assert_eq!(client.answer().await.status(), 413);
    // Chunked: refused when the limit is passed, and the client that goes on sending sees the answer.
    let mut client = connect(&server).await;
    client.send(draft.signed_chunked(&[])).await;
    let chunk = vec![b' '; 65_536];
    for _ in 0..24 {
        client.chunk(&chunk).await;
    }
    client.send("0\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status(), answer.header("x-amzn-errortype")),
        (413, Some("RequestEntityTooLarge"))
    );
}

#[tokio::test]
async fn a_record_of_ten_mebibytes_passes() {
    let server = serve(config()).await;
    let answer = ask(&server, put_record(13_981_012).signed()).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(
        answer.text().contains("\"SequenceNumber\":\"10485759\""),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn the_bodies_of_all_requests_together_have_a_limit() {
    let mut config = config();
    config.limits.buffered_bytes_max = 1000;
    let server = serve(config).await;
    let mut first = connect(&server).await;
    first.send(describe("door").signed_chunked(&[])).await;
    first.chunk(&[b' '; 900]).await;
    let mut second = connect(&server).await;
    let big = describe(&"d".repeat(256));
    loop {
        // The first body's bytes are counted when the server has read them.
        second.send(big.signed()).await;
        let answer = second.answer().await;
        if answer.status() == 503 {
            assert_eq!(answer.header("x-amzn-errortype"), Some("ServiceUnavailable"));
            break;
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_and_come_back() {
    let mut config = config();
    config.limits.connections_max = 1;
    let server = serve(config).await;
    let mut first = connect(&server).await;
    first.send(describe("one").signed()).await;
    assert_eq!(first.answer().await.status(), 200);
    let mut second = connect(&server).await;
    let refusal = second.rest().await;
    assert!(
        refusal.starts_with(b"HTTP/1.1 503 "),
        "{:?}",
        String::from_utf8_lossy(&refusal)
    );
    drop(first);
    loop {
        let mut third = connect(&server).await;
        third.send(describe("three").signed()).await;
        if third.head().await.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    let text = server.metrics.render().unwrap();
    assert!(text.contains("sightglass_http_connections_refused_total"), "{text}");
}

#[tokio::test]
async fn what_is_no_http_is_answered_or_closed_and_harms_nobody() {
    let server = serve(config()).await;
    let bad: [&[u8]; 8] = [
        b"\x16\x03\x01\x00\x05hello",
        b"GARBAGE\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x00",
    ];
    for bytes in bad {
        let mut client = connect(&server).await;
        client.send(bytes).await;
        use tokio::io::AsyncWriteExt;
        client.stream.shutdown().await.unwrap();
        let rest = client.rest().await;
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{bytes:?}");
    }
    let long_head = format!("POST / HTTP/1.1\r\nX: {}", "a".repeat(200 * 1024));
    let mut client = connect(&server).await;
    client.send(long_head).await;
    let rest = client.rest().await;
    assert!(
        rest.starts_with(b"HTTP/1.1 431") || rest.is_empty(),
        "{:?}",
        String::from_utf8_lossy(&rest)
    );
    assert_eq!(ask(&server, describe("door").signed()).await.status(), 200);
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_request_alone() {
    let server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(describe("panics").signed()).await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status(), answer.header("x-amzn-errortype")),
        (500, Some("InternalFailure"))
    );
    client.send(describe("door").signed()).await;
    assert_eq!(client.answer().await.status(), 200);
    let text = server.metrics.render().unwrap();
    assert!(text.contains("sightglass_http_panics_total 1"), "{text}");
}
