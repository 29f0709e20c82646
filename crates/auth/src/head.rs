//! The view of a request that authentication needs, free of any HTTP crate.

use sha2::{Digest, Sha256};

/// The head of a request as it came over the wire.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The path as sent, still percent-encoded, without the query.
    pub path: &'a str,
    /// The query as sent, without `?`; empty when there is none.
    pub query: &'a str,
    /// All headers in the order of arrival, repeated ones repeated. Names in any case. For HTTP/2 the `:authority` is to
    /// be given as `host`.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The port on which the connection arrived: some clients sign the host with it, some without.
    pub local_port: Option<u16>,
    /// Other names under which the client may have signed the host: that of the public URL, and `X-Forwarded-Host` from
    /// a trusted proxy.
    pub also_hosts: &'a [&'a str],
}

impl<'a> RequestHead<'a> {
    /// The values of a header, in order.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let wanted = name.to_owned();
        self.headers
            .iter()
            .filter(move |(have, _)| have.eq_ignore_ascii_case(&wanted))
            .map(|(_, value)| *value)
    }

    /// The first value of a header when it is ASCII text.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        let value = std::str::from_utf8(self.values(name).next()?).ok()?;
        Some(value.trim_matches([' ', '\t']))
    }
}

/// What is known of the body when the signature is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadHash {
    /// The SHA-256 of the whole body as received. A sent `x-amz-content-sha256` must equal it.
    Sha256([u8; 32]),
    /// The same, or the client declared `UNSIGNED-PAYLOAD`; for operations that allow an unsigned body.
    Sha256OrUnsigned([u8; 32]),
    /// The body is still to come (PutMedia). The signature may name the value of a sent `x-amz-content-sha256`, the hash
    /// of an empty body, `STREAMING-AWS4-HMAC-SHA256-PAYLOAD` or `UNSIGNED-PAYLOAD`; the body is never de-chunked.
    Streaming,
}

impl PayloadHash {
    /// The hash of a body that is at hand.
    pub fn of(body: &[u8]) -> Self {
        PayloadHash::Sha256(Sha256::digest(body).into())
    }
}
