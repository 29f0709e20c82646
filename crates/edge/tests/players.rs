//! Players: programs in the pages of any origin, let in by a token alone. And what is given up when its caller leaves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;

const MANIFEST: &str = "/dash/v1/getDASHManifest.mpd";

async fn player(server: &TestServer, method: &str, target: &str) -> Answer {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://page.example\r\n\r\n");
    ask(server, head).await
}

fn origin(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[tokio::test]
async fn a_page_of_any_origin_may_read_what_a_player_is_answered() {
    let server = serve(config()).await;
    let good = player(&server, "GET", &format!("{MANIFEST}?SessionToken=good")).await;
    assert_eq!((good.status(), good.text().as_str()), (200, "<MPD/>"));
    assert_eq!(good.header("content-type"), Some("application/dash+xml"));
    // Refusals too, or the page would be told of a network failure.
    let bad = player(&server, "GET", &format!("{MANIFEST}?SessionToken=bad")).await;
    let none = player(&server, "GET", MANIFEST).await;
    assert_eq!((bad.status(), none.status()), (404, 400));
    for answer in [&good, &bad, &none] {
        assert_eq!(origin(answer), Some("*"), "{}", answer.head);
        assert_eq!(answer.header("access-control-expose-headers"), Some("*"));
        // A page is never let in by what the browser holds of its user.
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_token_and_for_players_alone() {
    let mut server = serve(config()).await;
    let allowed = player(&server, "OPTIONS", MANIFEST).await;
    assert_eq!((allowed.status(), origin(&allowed)), (204, Some("*")));
    assert_eq!(
        allowed.header("access-control-allow-methods"),
        Some("GET, HEAD, OPTIONS")
    );
    assert!(
        allowed
            .header("access-control-allow-headers")
            .unwrap()
            .contains("Range")
    );
    assert!(allowed.header("access-control-max-age").is_some());
    for (method, target) in [
        ("OPTIONS", "/describeStream"),
        ("OPTIONS", "/getDASHManifest.mpd"),
        ("GET", "/health"),
    ] {
        let answer = player(&server, method, target).await;
        assert_eq!(origin(&answer), None, "{method} {target}: {}", answer.head);
    }
    let signed = ask(&server, describe("door").signed()).await;
    assert_eq!((signed.status(), origin(&signed)), (200, None));
    assert!(server.events.try_recv().is_err());
}

fn get_images() -> Draft {
    let body = br#"{"StreamName":"door","ImageSelectorType":"PRODUCER_TIMESTAMP","StartTimestamp":1,"EndTimestamp":2,"Format":"PNG"}"#;
    Draft::new("kinesisvideo", "/getImages", body)
}

#[tokio::test]
async fn images_are_given_up_when_their_client_hangs_up() {
    let mut server = serve(config()).await;
    let mut leaving = connect(&server).await;
    leaving.send(get_images().signed()).await;
    assert_eq!(soon(server.events.recv()).await.unwrap(), "GetImages begun");
    drop(leaving);
    assert_eq!(soon(server.events.recv()).await.unwrap(), "GetImages over");
    // One that waits is answered.
    let mut waiting = connect(&server).await;
    waiting.send(get_images().signed()).await;
    assert_eq!(soon(server.events.recv()).await.unwrap(), "GetImages begun");
    server.service.go.add_permits(1);
    assert_eq!(waiting.answer().await.status(), 200);
}
