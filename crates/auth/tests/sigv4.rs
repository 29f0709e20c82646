//! Signatures of real clients are accepted: botocore's requests, the C producer's as recorded (host without port, token
//! added after signing, hop-by-hop headers signed), proxies in between, presigned requests; dates and bodies are held.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use auth::{AuthError, Credentials, PayloadHash, payload_hash, presign, sign};
use base::AccountId;
use common::*;
use sha2::{Digest, Sha256};

#[test]
fn requests_signed_by_botocore_are_accepted() {
    let vectors: Vec<serde_json::Value> = serde_json::from_str(include_str!("vectors/botocore.json")).unwrap();
    let house = house();
    assert!(vectors.len() >= 24);
    for vector in &vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let mut req = Req::new(text("method"), text("path"), text("query"), &[]);
        for pair in vector["headers"].as_array().unwrap() {
            req.headers.push((
                pair[0].as_str().unwrap().into(),
                pair[1].as_str().unwrap().as_bytes().to_vec(),
            ));
        }
        let claim = req.with(|head| house.gate.identify(head)).unwrap();
        assert_eq!(
            (claim.service(), claim.region().as_str()),
            (text("service"), "us-west-2")
        );
        assert_eq!(claim.access_key_id(), ID);
        let caller = claim.verify(&PayloadHash::of(text("body").as_bytes()));
        assert_eq!(caller.map(|c| c.account), Ok(AccountId::DEFAULT), "{}", text("name"));
        assert!(
            claim.verify(&PayloadHash::of(b"another body")).is_err(),
            "{}",
            text("name")
        );
    }
}

#[test]
fn the_c_producer_is_accepted_with_and_without_ports_and_a_late_token() {
    let house = house();
    for host in ["127.0.0.1", "127.0.0.1:4577"] {
        for sent in ["127.0.0.1", "127.0.0.1:4577"] {
            let req = producer(host, EMPTY).set("Host", sent);
            assert!(
                req.try_with(&house, PayloadHash::Streaming).is_ok(),
                "signed {host}, sent {sent}"
            );
        }
    }
    assert_eq!(
        producer("10.0.0.1", EMPTY)
            .try_with(&house, PayloadHash::Streaming)
            .unwrap_err(),
        AuthError::Mismatch
    );
    let session = session(&house, None);
    let body = Req::new("POST", "/putMedia", "", &[("host", "127.0.0.1")]);
    let unsigned = Credentials {
        session_token: None,
        ..session.clone()
    };
    let req = body
        .signed(&unsigned, "")
        .set("x-amz-security-token", session.session_token.as_ref().unwrap());
    let caller = req.try_with(&house, PayloadHash::Streaming).unwrap();
    assert_eq!(
        &*caller.principal_arn,
        "arn:aws:sts::000000000000:assumed-role/camera/door"
    );
}

#[test]
fn a_proxy_that_rewrites_hop_by_hop_headers_and_the_host_does_not_break_the_producer() {
    let house = house();
    let ok = |req: Req| req.try_with(&house, PayloadHash::Streaming).map(drop);
    let sent = producer("cam.example", EMPTY);
    for connection in [None, Some("close"), Some("upgrade")] {
        let mut req = sent
            .clone()
            .set("Host", "127.0.0.1:4577")
            .without("transfer-encoding")
            .set("content-length", "9");
        req.also = vec!["cam.example:8443"];
        req = match connection {
            Some(value) => req.set("connection", value),
            None => req.without("connection"),
        };
        assert_eq!(ok(req.clone()), Ok(()), "{connection:?}");
        req.also = vec![];
        assert_eq!(
            ok(req),
            Err(AuthError::Mismatch),
            "the name has to be one that the server is known by"
        );
    }
    // What belongs to the request and not to the hop stays covered.
    let mut bent = sent.set("x-amzn-stream-name", "cam2");
    bent.also = vec!["cam.example"];
    assert_eq!(ok(bent), Err(AuthError::Mismatch));
}

#[test]
fn a_streaming_body_takes_the_payload_hashes_of_known_producers() {
    let house = house();
    for hash in [EMPTY, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "UNSIGNED-PAYLOAD"] {
        assert!(
            producer("127.0.0.1", hash)
                .try_with(&house, PayloadHash::Streaming)
                .is_ok(),
            "{hash}"
        );
    }
    let declared = payload_hash(b"the whole file");
    let req = producer("127.0.0.1", &declared);
    assert_eq!(
        req.try_with(&house, PayloadHash::Streaming).unwrap_err(),
        AuthError::Mismatch
    );
    assert!(
        req.set("x-amz-content-sha256", &declared)
            .try_with(&house, PayloadHash::Streaming)
            .is_ok()
    );
    assert!(
        producer("127.0.0.1", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
            .tried(&house, "")
            .is_err()
    );
}

#[test]
fn a_body_other_than_the_signed_one_is_refused() {
    let house = house();
    let plain = Req::new(
        "POST",
        "/createStream",
        "",
        &[("host", "h"), ("content-type", "application/json")],
    );
    let req = plain.clone().signed(&root(), "{}");
    assert!(req.tried(&house, "{}").is_ok());
    assert_eq!(req.tried(&house, "{ }").unwrap_err(), AuthError::Mismatch);
    let declared = plain
        .clone()
        .set("x-amz-content-sha256", &payload_hash(b"{}"))
        .signed(&root(), "{}");
    assert!(declared.tried(&house, "{}").is_ok());
    assert!(matches!(declared.tried(&house, "{ }"), Err(AuthError::BadPayload(_))));
    // Signed by hand over the literal.
    let mut unsigned = plain.set("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    let added = unsigned.with(|head| sign(head, &root(), SCOPE, NOW, "UNSIGNED-PAYLOAD"));
    unsigned
        .headers
        .extend(added.into_iter().map(|(n, v)| (n, v.into_bytes())));
    assert!(matches!(unsigned.tried(&house, "{}"), Err(AuthError::BadPayload(_))));
    let hash = Sha256::digest(b"{}").into();
    assert!(unsigned.try_with(&house, PayloadHash::Sha256OrUnsigned(hash)).is_ok());
}

#[test]
fn presigned_requests_are_good_until_they_expire() {
    let house = house();
    let mut req = Req::new(
        "POST",
        "/putMedia",
        "",
        &[("host", "127.0.0.1"), ("x-amzn-stream-name", "cam1")],
    );
    req.query = req.with(|head| presign(head, &root(), SCOPE, NOW, 600, EMPTY));
    assert!(req.try_with(&house, PayloadHash::Streaming).is_ok());
    assert!(req.tried(&house, "").is_ok());
    house.clock.advance(Duration::from_secs(600));
    assert!(req.tried(&house, "").is_ok());
    house.clock.advance(Duration::from_secs(1));
    let error = req.tried(&house, "").unwrap_err().to_string();
    assert_eq!(
        error,
        "Signature expired: 20261122T113343Z is now earlier than 20261122T113344Z (20261122T114344Z - 10 min.)"
    );
    house.clock.set_wall(NOW);
    for (from, to, what) in [
        ("X-Amz-Expires=600", "X-Amz-Expires=601", "longer life"),
        (
            "X-Amz-Date=20261122T113343Z",
            "X-Amz-Date=20261122T113344Z",
            "another date",
        ),
        ("us-west-2", "us-east-1", "another region"),
    ] {
        let mut bent = req.clone();
        bent.query = bent.query.replace(from, to);
        assert_ne!(bent.query, req.query);
        assert_eq!(bent.tried(&house, "").unwrap_err(), AuthError::Mismatch, "{what}");
    }
    let mut bent = req.clone();
    bent.query += "&StreamName=other";
    assert_eq!(bent.tried(&house, "").unwrap_err(), AuthError::Mismatch);
    bent.query = req.query.replace("X-Amz-Expires=600", "X-Amz-Expires=604801");
    assert!(matches!(bent.tried(&house, ""), Err(AuthError::Incomplete(_))));
    // A session's token in the query, signed or added afterwards.
    let session = session(&house, None);
    let mut req = Req::new("GET", "/x", "a=b", &[("host", "127.0.0.1")]);
    req.query = req.with(|head| presign(head, &session, SCOPE, NOW, 600, EMPTY));
    assert!(req.tried(&house, "").is_ok());
    let bare = Credentials {
        session_token: None,
        ..session.clone()
    };
    let mut late = Req::new("GET", "/x", "a=b", &[("host", "127.0.0.1")]);
    late.query = late.with(|head| presign(head, &bare, SCOPE, NOW, 600, EMPTY));
    let token = session
        .session_token
        .unwrap()
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    late.query += &format!("&X-Amz-Security-Token={token}");
    assert!(late.tried(&house, "").is_ok());
}

#[test]
fn dates_beyond_the_skew_are_told_apart_in_awss_words() {
    let house = house();
    let req = Req::new("POST", "/x", "", &[("host", "h")]).signed(&root(), "");
    house.clock.set_wall(NOW.plus_millis(300_999));
    assert!(req.tried(&house, "").is_ok(), "five minutes are within");
    house.clock.set_wall(NOW.plus_millis(900_000));
    let error = req.tried(&house, "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "Signature expired: 20261122T113343Z is now earlier than 20261122T114343Z (20261122T114843Z - 5 min.)"
    );
    assert_eq!(
        (error.code("kinesisvideo"), error.status()),
        ("InvalidSignatureException", 403)
    );
    house.clock.set_wall(NOW.plus_millis(-300_000));
    assert!(req.tried(&house, "").is_ok());
    house.clock.set_wall(NOW.plus_millis(-600_000));
    assert_eq!(
        req.tried(&house, "").unwrap_err().to_string(),
        "Signature not yet current: 20261122T113343Z is still later than 20261122T112843Z (20261122T112343Z + 5 min.)"
    );
    let lax = house.gate.clone().with_skew_ms(3_600_000);
    assert!(req.with(|head| lax.identify(head)).is_ok());
    house.clock.set_wall(NOW);
    let bent = req.clone().set("x-amz-date", "20261121T113343Z");
    assert!(
        bent.tried(&house, "")
            .unwrap_err()
            .to_string()
            .starts_with("Date in Credential scope does not match")
    );
    let bent = req.set("x-amz-date", "yesterday");
    assert!(matches!(bent.tried(&house, ""), Err(AuthError::Incomplete(_))));
}
