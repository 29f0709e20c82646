//! The end of a server: what is under way is finished, what never ends is told to, and nothing waits for ever.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use common::*;
use edge::Drained;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_request_under_way_is_answered_and_no_new_connection_is_taken() {
    let mut server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(describe("slow").signed()).await;
    assert_eq!(soon(server.events.recv()).await.unwrap(), "slow begun");
    let idle = connect(&server).await;
    let (address, service) = (server.running.local_addr(), server.service.clone());
    let drain = tokio::spawn(server.running.shutdown(LONG));
    // The listener is closed before the drain waits for anything.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    service.go.add_permits(1);
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(soon(drain).await.unwrap(), Drained { connections_cut: 0 });
    drop(idle);
}

#[tokio::test]
async fn a_producer_is_told_to_end_and_a_viewer_is_broken_off() {
    let mut server = serve(config()).await;
    let mut producer = connect(&server).await;
    producer.send(put_media("cam").signed_chunked(&[])).await;
    producer.head().await;
    let mut viewer = connect(&server).await;
    viewer.send(get_media("cam").signed()).await;
    viewer.head().await;
    assert_eq!(viewer.read_chunk().await, b"media");
    let drain = tokio::spawn(server.running.shutdown(LONG));
    assert_eq!(producer.read_chunk().await, b"broke 0\n");
    assert_eq!(producer.read_chunk().await, b"");
    assert_eq!(
        soon(server.events.recv()).await.unwrap(),
        "upload broke: the server is shutting down"
    );
    assert_eq!(viewer.rest().await, b"");
    drop(producer);
    assert_eq!(soon(drain).await.unwrap(), Drained { connections_cut: 0 });
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let mut server = serve(config()).await;
    let mut client = connect(&server).await;
    client.send(describe("slow").signed()).await;
    assert_eq!(soon(server.events.recv()).await.unwrap(), "slow begun");
    let drained = soon(server.running.shutdown(Duration::from_millis(100))).await;
    assert_eq!(drained, Drained { connections_cut: 1 });
    assert_eq!(client.rest().await, b"");
}
