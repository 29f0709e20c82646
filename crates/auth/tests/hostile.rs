//! Malformed, altered and random heads: each gets AWS's code, none panics, none is let in, and a wrong signature costs a
//! bounded amount of work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use auth::{AuthError, PayloadHash, payload_hash, sign};
use base::Clock;
use common::*;
use proptest::prelude::*;

#[test]
fn malformed_and_missing_signatures_get_their_codes() {
    let house = house();
    let good = Req::new("POST", "/x", "", &[("host", "h")]).signed(&root(), "");
    let code = |req: &Req| {
        let error = req.tried(&house, "").unwrap_err();
        (error.code("kinesisvideo"), error.status())
    };
    let line = good.with(|head| {
        let found = head.headers.iter().find(|(n, _)| *n == "authorization").unwrap().1;
        String::from_utf8(found.to_vec()).unwrap()
    });
    assert_eq!(
        code(&good.clone().without("authorization")),
        ("MissingAuthenticationTokenException", 403)
    );
    for bad in [
        "",
        "Basic abc",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 ",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request",
        "AWS4-ECDSA-P256-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host, Signature=00",
    ] {
        assert_eq!(
            code(&good.clone().set("authorization", bad)),
            ("IncompleteSignatureException", 400),
            "{bad:?}"
        );
    }
    for (from, to, wanted) in [
        ("Credential=", "Credentia1=", ("IncompleteSignatureException", 400)),
        ("aws4_request", "aws5_request", ("IncompleteSignatureException", 400)),
        ("us-west-2/", "", ("IncompleteSignatureException", 400)),
        (
            "SignedHeaders=host;",
            "SignedHeaders=",
            ("IncompleteSignatureException", 400),
        ),
        (
            "SignedHeaders=host;",
            "SignedHeaders=host;host;",
            ("IncompleteSignatureException", 400),
        ),
        ("us-west-2", "US_WEST", ("IncompleteSignatureException", 400)),
        (ID, "AKIDNOBODY", ("UnrecognizedClientException", 403)),
        ("Signature=", "Signature=0", ("InvalidSignatureException", 403)),
    ] {
        let bent = line.replacen(from, to, 1);
        assert_ne!(bent, line);
        assert_eq!(
            code(&good.clone().set("authorization", &bent)),
            wanted,
            "{from} -> {to}"
        );
    }
    let mut twice = good.clone();
    twice.headers.push(("Authorization".into(), line.clone().into_bytes()));
    assert_eq!(code(&twice), ("IncompleteSignatureException", 400));
    let mut unsigned = good.clone();
    unsigned
        .headers
        .push(("X-Amz-Target".into(), b"Kinesis_20131202.DeleteStream".to_vec()));
    assert_eq!(
        code(&unsigned),
        ("IncompleteSignatureException", 400),
        "an operation may not be slipped in unsigned"
    );
    let tight = line.replace(", ", ",");
    assert!(
        good.clone().set("authorization", &tight).tried(&house, "").is_ok(),
        "spaces between fields are optional"
    );
    let huge = good
        .clone()
        .set("authorization", &format!("{line}{}", "x".repeat(9000)));
    assert_eq!(code(&huge), ("IncompleteSignatureException", 400));
    let error = good.clone().without("authorization").tried(&house, "").unwrap_err();
    assert_eq!(error.code("sts"), "MissingAuthenticationToken");
    assert_eq!(AuthError::UnknownKey.code("sts"), "InvalidClientTokenId");
    let text = format!("{:?} {error:?}", good.with(|head| house.gate.identify(head)).unwrap());
    assert!(!text.contains(SECRET));
}

#[test]
fn every_flipped_bit_of_a_signed_head_is_refused() {
    let house = house();
    let body = r#"{"StreamName":"door"}"#;
    let good = Req::new(
        "POST",
        "/createStream",
        "a=1&b=x%20y",
        &[
            ("host", "cam.example"),
            ("content-type", "application/json"),
            ("x-amz-target", "T.Create"),
            ("x-other", "a b"),
        ],
    )
    .signed(&root(), body);
    assert!(good.tried(&house, body).is_ok());
    let mut flips = 0;
    let mut refused = |bent: &Req, what: String| {
        flips += 1;
        assert!(bent.tried(&house, body).is_err(), "{what}: {bent:?}");
    };
    let bend = |text: &str, bit: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        String::from_utf8(bytes).ok()
    };
    for (part, text) in [&good.method, &good.path, &good.query].into_iter().enumerate() {
        for bit in 0..text.len() * 8 {
            let Some(bent) = bend(text, bit) else { continue };
            let mut req = good.clone();
            *[&mut req.method, &mut req.path, &mut req.query][part] = bent;
            refused(&req, format!("part {part} bit {bit}"));
        }
    }
    for at in 0..good.headers.len() {
        let (name, value) = good.headers[at].clone();
        for bit in 0..name.len() * 8 {
            let Some(bent) = bend(&name, bit).filter(|bent| !bent.eq_ignore_ascii_case(&name)) else {
                continue;
            };
            let mut req = good.clone();
            req.headers[at].0 = bent;
            refused(&req, format!("name {name} bit {bit}"));
        }
        for bit in 0..value.len() * 8 {
            let mut req = good.clone();
            req.headers[at].1[bit / 8] ^= 1 << (bit % 8);
            // White space is folded, hex digits and names in SignedHeaders may have either case: the same request.
            let same =
                |a: u8, b: u8| (a.is_ascii_whitespace() && b.is_ascii_whitespace()) || a.eq_ignore_ascii_case(&b);
            let (old, new) = (value[bit / 8], req.headers[at].1[bit / 8]);
            let folds = old.is_ascii_whitespace() || (name == "authorization" && same(old, new));
            if folds && req.tried(&house, body).is_ok() {
                assert!(same(old, new), "{name} bit {bit}");
                continue;
            }
            refused(&req, format!("value of {name} bit {bit}"));
        }
        let mut req = good.clone();
        req.headers.remove(at);
        refused(&req, format!("{name} removed"));
    }
    assert!(flips > 2500, "{flips}");
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_.~ /%+=&é*-]{0,12}"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_signed_is_verified(
        path in "(/[a-zA-Z0-9_.~%-]{0,8}){0,4}",
        query in prop::collection::vec((token(), token()), 0..4),
        headers in prop::collection::vec(("x-[a-z]{1,6}", "[ -~]{0,20}"), 0..5),
        body in any::<Vec<u8>>(),
        port in prop::option::of(1u16..),
    ) {
        let house = house();
        let query: Vec<String> = query.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let mut req = Req::new("PUT", &path, &query.join("&"), &[("host", "cam.example:1")]);
        req.port = port;
        req.headers.extend(headers.into_iter().map(|(n, v)| (n, v.into_bytes())));
        let hash = payload_hash(&body);
        let added = req.with(|head| sign(head, &root(), SCOPE, NOW, &hash));
        req.headers.extend(added.into_iter().map(|(n, v)| (n, v.into_bytes())));
        prop_assert!(req.try_with(&house, PayloadHash::of(&body)).is_ok());
        let mut longer = body.clone();
        longer.push(0);
        prop_assert!(req.try_with(&house, PayloadHash::of(&longer)).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic_or_let_them_in(
        path in ".{0,40}",
        query in ".{0,80}",
        headers in prop::collection::vec(
            (prop_oneof![Just("authorization".to_owned()), Just("host".to_owned()), Just("x-amz-date".to_owned()),
                Just("x-amz-security-token".to_owned()), ".{0,12}"], prop::collection::vec(any::<u8>(), 0..120)), 0..8),
        fields in prop::collection::vec("(Credential|SignedHeaders|Signature|)=[ -~]{0,40}", 0..5),
    ) {
        let house = house();
        let mut req = Req::new("GET", &path, &query, &[]);
        req.headers = headers;
        let _ = req.tried(&house, "");
        req.headers.push(("authorization".into(), format!("AWS4-HMAC-SHA256 {}", fields.join(",")).into_bytes()));
        prop_assert!(req.tried(&house, "").is_err());
        req.query = format!("X-Amz-Algorithm=AWS4-HMAC-SHA256&{}", fields.join("&X-Amz-"));
        prop_assert!(req.tried(&house, "").is_err());
    }
}

#[test]
fn a_wrong_signature_costs_a_bounded_number_of_tries() {
    let house = house();
    let mut req = producer("127.0.0.1", EMPTY).set("x-amzn-stream-name", &"x".repeat(20_000));
    req.also = vec!["a.example", "b.example", "c.example:1"];
    let claim = req.with(|head| house.gate.identify(head)).unwrap();
    let clock = base::SystemClock::new();
    assert!(claim.verify(&PayloadHash::Streaming).is_err());
    assert!(clock.monotonic() < Duration::from_secs(2), "{:?}", clock.monotonic());
    let vast = producer("127.0.0.1", EMPTY).set("x-amzn-stream-name", &"x".repeat(70_000));
    assert!(matches!(
        vast.try_with(&house, PayloadHash::Streaming),
        Err(AuthError::Incomplete(_))
    ));
}
