//! Who asks: the head of a request, its signature, and policies.

use std::sync::{Arc, OnceLock};

use auth::{Authenticator, Credentials, KeyRing, KeyStore, MemoryKeyTable, PayloadHash, Policy, RequestHead, Secret};
use base::{Authorizer, ManualClock, Timestamp};

/// The key that the seeds are signed with.
pub const ACCESS_KEY_ID: &str = "AKIDFUZZ";
/// Its secret; it opens nothing.
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// The server's time: 2026-11-22T11:33:43Z.
pub const NOW_MS: i64 = 1_795_347_223_000;

fn authenticator() -> &'static Authenticator {
    static MADE: OnceLock<Authenticator> = OnceLock::new();
    MADE.get_or_init(|| {
        let clock = ManualClock::at(Timestamp::from_millis(NOW_MS));
        let ring = Arc::new(KeyRing::ephemeral().expect("random bytes"));
        let root = Credentials {
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret: Secret::new(SECRET),
            session_token: None,
        };
        let account = "000000000000".parse().expect("an account id");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let table = Arc::new(MemoryKeyTable::default());
        let keys = runtime
            .block_on(KeyStore::open(ring, table, clock.clone(), root, account))
            .expect("a key store");
        Authenticator::new(Arc::new(keys), clock)
    })
}

/// A request as text: `METHOD PATH[?QUERY]`, header lines, an empty line, the body. Promise: an identified caller is one
/// whose signature holds, and everything else is refused in words.
pub fn sigv4(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let (method, target) = lines
        .next()
        .and_then(|line| line.split_once(' '))
        .unwrap_or(("GET", "/"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(&str, &[u8])> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim().as_bytes()))
        .collect();
    let head = RequestHead {
        method,
        path,
        query,
        headers: &headers,
        local_port: Some(4577),
        also_hosts: &["cams.example"],
    };
    match authenticator().identify(&head) {
        Ok(claim) => {
            for payload in [PayloadHash::of(body.as_bytes()), PayloadHash::Streaming] {
                match claim.verify(&payload) {
                    Ok(caller) => assert_eq!(&*caller.access_key_id, ACCESS_KEY_ID),
                    Err(error) => assert!((400..500).contains(&error.status()), "{error}"),
                }
            }
        }
        Err(error) => {
            assert!((400..500).contains(&error.status()), "{error}");
            assert!(!error.to_string().contains(SECRET));
        }
    }
}

/// A policy document. Promises: what is parsed can be asked, and its text is that which was given.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(policy) = Policy::parse(text) {
        assert_eq!(policy.text(), text);
        let stream = "arn:aws:kinesisvideo:eu-west-1:000000000000:stream/door/1795347223000";
        for (action, resource) in [("kinesisvideo:PutMedia", stream), ("kinesis:PutRecord", "*"), ("", "")] {
            let _ = policy.allows(action, resource);
        }
    }
}
