//! Signing: what a client does. Used by the CLI, the benches, the tests and the delivery to services of others.

use base::Timestamp;
use sha2::{Digest, Sha256};

use crate::canonical::{ALGORITHM, Signed, Slashes, TERMINATOR, encode, hex, signature, signing_key};
use crate::date::amz_date;
use crate::head::RequestHead;
use crate::keys::Credentials;

/// What a signature is valid for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The region.
    pub region: &'a str,
    /// The signing name, e.g. `kinesisvideo`.
    pub service: &'a str,
}

/// Hex SHA-256 of a body: the `payload_hash` of [`sign`] for an ordinary call, and of nothing for PutMedia.
pub fn payload_hash(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

/// The headers to add to a request: `x-amz-date`, `x-amz-security-token` where there is one, and `authorization`.
/// Every header of `head` is signed, but for `authorization`, `user-agent`, and those that belong to one hop; `host` must
/// be among them.
pub fn sign(
    head: &RequestHead<'_>,
    credentials: &Credentials,
    scope: Scope<'_>,
    at: Timestamp,
    payload_hash: &str,
) -> Vec<(String, String)> {
    let date = amz_date(at);
    let mut added = vec![("x-amz-date".to_owned(), date.clone())];
    if let Some(token) = &credentials.session_token {
        added.push(("x-amz-security-token".to_owned(), token.clone()));
    }
    let mut headers: Vec<(&str, &[u8])> = head.headers.to_vec();
    headers.extend(added.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let names = names_to_sign(&headers);
    let full = RequestHead {
        headers: &headers,
        ..plain(head)
    };
    let (mac, scope_text) = mac(&full, &names, credentials, scope, &date, payload_hash);
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope_text}, SignedHeaders={}, Signature={}",
        credentials.access_key_id,
        names.join(";"),
        hex(&mac)
    );
    added.push(("authorization".to_owned(), authorization));
    added
}

/// The query of a presigned request: that of `head`, followed by the `X-Amz-` parameters. Headers are signed as in [`sign`].
pub fn presign(
    head: &RequestHead<'_>,
    credentials: &Credentials,
    scope: Scope<'_>,
    at: Timestamp,
    expires_seconds: u64,
    payload_hash: &str,
) -> String {
    let date = amz_date(at);
    let names = names_to_sign(head.headers);
    let day = date.get(..8).unwrap_or_default();
    let credential = format!(
        "{}/{day}/{}/{}/{TERMINATOR}",
        credentials.access_key_id, scope.region, scope.service
    );
    let mut pairs = vec![
        ("X-Amz-Algorithm", ALGORITHM.to_owned()),
        ("X-Amz-Credential", credential),
        ("X-Amz-Date", date.clone()),
        ("X-Amz-Expires", expires_seconds.to_string()),
        ("X-Amz-SignedHeaders", names.join(";")),
    ];
    if let Some(token) = &credentials.session_token {
        pairs.push(("X-Amz-Security-Token", token.clone()));
    }
    let encoded = pairs
        .iter()
        .map(|(n, v)| format!("{n}={}", encode(v.as_bytes(), Slashes::Encoded)));
    let own = Some(head.query.to_owned()).filter(|query| !query.is_empty());
    let query = own.into_iter().chain(encoded).collect::<Vec<_>>().join("&");
    let full = RequestHead {
        query: &query,
        ..plain(head)
    };
    let (mac, _) = mac(&full, &names, credentials, scope, &date, payload_hash);
    format!("{query}&X-Amz-Signature={}", hex(&mac))
}

/// The head as the client sees it: it knows nothing of the server's ports and names.
fn plain<'a>(head: &RequestHead<'a>) -> RequestHead<'a> {
    RequestHead {
        local_port: None,
        also_hosts: &[],
        ..*head
    }
}

fn names_to_sign(headers: &[(&str, &[u8])]) -> Vec<String> {
    const SKIPPED: [&str; 9] = [
        "authorization",
        "user-agent",
        "connection",
        "transfer-encoding",
        "expect",
        "te",
        "keep-alive",
        "upgrade",
        "content-length",
    ];
    let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.retain(|name| !SKIPPED.contains(&name.as_str()));
    names.sort();
    names.dedup();
    names
}

fn mac(
    head: &RequestHead<'_>,
    names: &[String],
    credentials: &Credentials,
    scope: Scope<'_>,
    date: &str,
    payload_hash: &str,
) -> ([u8; 32], String) {
    let day = date.get(..8).unwrap_or_default();
    let text = format!("{day}/{}/{}/{TERMINATOR}", scope.region, scope.service);
    let key = signing_key(credentials.secret.reveal(), day, scope.region, scope.service);
    let mut made = [0; 32];
    // The first canonical request is the one that the rules give.
    Signed::of(head, names, &[]).any(&[payload_hash.to_owned()], |canonical| {
        made = signature(&key, date, &text, canonical);
        true
    });
    (made, text)
}
