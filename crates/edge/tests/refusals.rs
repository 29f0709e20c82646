//! Who is refused, in which order of reasons, and the exact bytes of each refusal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![allow(clippy::disallowed_methods, reason = "golden files are read as files")]

mod common;

use common::*;

/// The answer with the request id replaced, as it is kept in `tests/golden`.
fn normal(answer: &Answer) -> String {
    let id = answer
        .header("x-amzn-requestid")
        .expect("every answer has a request id")
        .to_owned();
    assert_eq!(answer.header("x-amz-requestid"), Some(id.as_str()));
    assert_eq!(answer.header("x-amz-request-id"), Some(id.as_str()));
    let text = format!("{}{}\n", answer.head, answer.text());
    text.replace(&id, "REQUEST-ID").replace('\r', "")
}

fn compare(name: &str, answer: &Answer) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let actual = normal(answer);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{path} (UPDATE_GOLDEN=1 rewrites it)");
}

fn unsigned(draft: &Draft) -> Vec<u8> {
    let mut bytes = draft
        .head_with(&[("Content-Length".to_owned(), draft.body.len().to_string())])
        .into_bytes();
    bytes.extend_from_slice(&draft.body);
    bytes
}

#[tokio::test]
async fn every_refusal_has_its_exact_shape() {
    let server = serve(config()).await;
    let wrong = |draft: &Draft| {
        let text = String::from_utf8(draft.signed()).unwrap();
        let at = text.find("Signature=").unwrap() + 10;
        let digit = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
        format!("{}{digit}{}", &text[..at], &text[at + 1..]).into_bytes()
    };
    let stale = |mut draft: Draft| {
        draft.at = NOW.plus_millis(-301_000);
        draft
    };
    let nowhere = Draft::new("kinesisvideo", "/noSuchThing", b"{}");
    let no_target = put_record(4).header("X", "y");
    let unknown_target = Draft::new("kinesis", "/", b"{}").header("X-Amz-Target", "Kinesis_20131202.Fly");
    let sts = Draft::new("sts", "/", b"Action=Fly&Version=2011-06-15")
        .header("Content-Type", "application/x-www-form-urlencoded");
    let mut bad_json = describe("door");
    bad_json.body = b"{\"StreamName\":".to_vec();
    let cases = [
        ("missing-token-video", unsigned(&describe("door"))),
        ("missing-token-kinesis", unsigned(&put_record(4))),
        ("missing-token-sts", unsigned(&sts)),
        ("wrong-signature", wrong(&describe("door"))),
        ("stale", stale(describe("door")).signed()),
        ("stale-kinesis", stale(put_record(4)).signed()),
        ("unknown-path", nowhere.signed()),
        ("unknown-operation", unknown_target.signed()),
        ("unknown-action", sts.signed()),
        ("no-such-stream", describe("missing").signed()),
        ("server-fault", describe("broken").signed()),
        ("bad-json", bad_json.signed()),
        (
            "not-implemented",
            Draft::new("kinesisvideo", "/describeEdgeConfiguration", b"{}").signed(),
        ),
    ];
    drop(no_target);
    for (name, request) in cases {
        compare(name, &ask(&server, request).await);
    }
}

#[tokio::test]
async fn nothing_is_told_of_what_exists_before_the_signature_is_good() {
    let server = serve(config()).await;
    let known = ask(&server, unsigned(&describe("door"))).await;
    let unknown = ask(&server, unsigned(&Draft::new("kinesisvideo", "/noSuchThing", b"{}"))).await;
    let missing = ask(&server, unsigned(&describe("missing"))).await;
    assert_eq!(normal(&known), normal(&unknown));
    assert_eq!(normal(&known), normal(&missing));
}

#[tokio::test]
async fn a_stale_signature_tells_the_servers_time() {
    let server = serve(config()).await;
    let mut draft = describe("door");
    draft.at = NOW.plus_millis(-301_000);
    let answer = ask(&server, draft.signed()).await;
    assert_eq!(answer.header("date"), Some("Sun, 22 Nov 2026 11:33:43 GMT"));
    assert!(
        answer
            .text()
            .contains("Signature expired: 20261122T112842Z is now earlier than"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_presigned_request_is_let_in() {
    let server = serve(config()).await;
    let mut draft = describe("door");
    let pairs: Vec<(&str, &[u8])> = draft.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    let head = auth::RequestHead {
        method: "POST",
        path: "/describeStream",
        query: "",
        headers: &pairs,
        local_port: None,
        also_hosts: &[],
    };
    let scope = auth::Scope {
        region: REGION,
        service: "kinesisvideo",
    };
    let hash = auth::sign::payload_hash(&draft.body);
    draft.query = auth::presign(&head, &credentials(), scope, NOW, 300, &hash);
    assert_eq!(ask(&server, unsigned(&draft)).await.status(), 200);
    draft.body = b"{\"StreamName\":\"other\"}".to_vec();
    assert_eq!(ask(&server, unsigned(&draft)).await.status(), 403);
}

#[tokio::test]
async fn the_pages_need_no_signature_and_show_no_more_than_they_should() {
    let server = serve(config()).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let health = ask(&server, get("/health")).await;
    assert_eq!(
        (health.status(), health.header("content-type")),
        (200, Some("application/json"))
    );
    assert!(
        health.text().contains("\"storage\":{\"detail\":\"\",\"ok\":true}"),
        "{}",
        health.text()
    );
    ask(&server, describe("door").signed()).await;
    let metrics = ask(&server, get("/metrics")).await.text();
    let counted =
        "sightglass_http_requests_total{operation=\"DescribeStream\",service=\"kinesisvideo\",status=\"200\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(ask(&server, get("/console/")).await.status(), 404);
    assert_eq!(ask(&server, get("/metricsx")).await.status(), 403);
    assert_eq!(ask(&server, get("/")).await.status(), 403);
    let post = "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(&server, post).await.status(), 405);
}
