//! Objects of buckets, for programs that read tables from them and write results to them: GetObject, PutObject and
//! ListObjectsV2, buckets in the path. Large uploads, versions and everything else S3 can do are for S3's own clients.

use std::fmt::Write as _;

use auth::payload_hash;
use bytes::Bytes;
use http::Method;

use crate::call::{Client, Target};
use crate::error::ClientError;

/// Pages of a listing that are read at most. Ours: a million objects.
const PAGES_MAX: usize = 1000;

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Changes with what is in it.
    pub etag: String,
    /// Its bytes.
    pub size: u64,
}

impl Client {
    /// The whole of an object. One larger than [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX) is refused.
    pub async fn get_object(&self, bucket: &str, key: &str) -> Result<Bytes, ClientError> {
        let path = format!("/{}/{}", encoded(bucket, false), encoded(key, true));
        self.s3(Method::GET, &path, "", Bytes::new()).await
    }

    /// Writes an object of this content, in the place of one of the same key.
    pub async fn put_object(&self, bucket: &str, key: &str, body: Bytes) -> Result<(), ClientError> {
        let path = format!("/{}/{}", encoded(bucket, false), encoded(key, true));
        self.s3(Method::PUT, &path, "", body).await.map(drop)
    }

    /// The objects whose keys begin so, in their order.
    pub async fn list_objects(&self, bucket: &str, prefix: &str) -> Result<Vec<Object>, ClientError> {
        let path = format!("/{}", encoded(bucket, false));
        let mut objects = Vec::new();
        let mut token = String::new();
        for _ in 0..PAGES_MAX {
            let mut query = String::new();
            if !token.is_empty() {
                let _ = write!(query, "continuation-token={}&", encoded(&token, false));
            }
            let prefix = encoded(prefix, false);
            let _ = write!(query, "encoding-type=url&list-type=2&prefix={prefix}");
            let answer = self.s3(Method::GET, &path, &query, Bytes::new()).await?;
            let text = String::from_utf8_lossy(&answer);
            objects.extend(elements(&text, "Contents").map(|found| Object {
                key: decoded(element(found, "Key").unwrap_or_default()),
                etag: element(found, "ETag").unwrap_or_default().to_owned(),
                size: element(found, "Size").and_then(|size| size.parse().ok()).unwrap_or(0),
            }));
            match element(&text, "NextContinuationToken") {
                Some(next) => token = unescaped(next),
                None => return Ok(objects),
            }
        }
        Err(ClientError::Protocol(format!(
            "more than a million objects below {prefix:?}"
        )))
    }

    async fn s3(&self, method: Method, path: &str, query: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let hash = payload_hash(&body);
        let headers = vec![("x-amz-content-sha256".to_owned(), hash.clone())];
        let target = Target {
            method,
            service: "s3",
            path,
            query,
        };
        let answer = self.answered(async {
            let head = self.signed_for(&target, headers, &hash).await?;
            self.send_signed(head, body).await
        });
        answer.await.map_err(named)
    }
}

/// Errors of S3 are XML.
fn named(error: ClientError) -> ClientError {
    match error {
        ClientError::Refused(mut answer) => {
            if let Some(code) = element(&answer.message, "Code") {
                answer.code = code.to_owned();
            }
            if let Some(message) = element(&answer.message, "Message") {
                answer.message = unescaped(message);
            }
            ClientError::Refused(answer)
        }
        other => other,
    }
}

/// What stands between the first two tags of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (first, last) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(first.as_str())?;
        let (inside, behind) = behind.split_once(last.as_str())?;
        rest = behind;
        Some(inside)
    })
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&apos;", "'").replace("&amp;", "&")
}

/// With `%` before every byte that is not a letter, a digit, `-`, `.`, `_` or `~`, as signatures want it.
fn encoded(text: &str, keep_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slashes => out.push('/'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut rest = bytes.clone();
        let digit = |byte: Option<u8>| char::from(byte.unwrap_or(b'x')).to_digit(16);
        match (byte, digit(rest.next()), digit(rest.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = rest;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_into_a_path_and_come_out_of_a_listing() {
        let key = "a b/\u{e9}+&.json";
        assert_eq!(encoded(key, true), "a%20b/%C3%A9%2B%26.json");
        assert_eq!(decoded(&encoded(key, false)), key);
        assert_eq!(decoded("a+b%"), "a b%");
    }

    #[test]
    fn a_listing_is_read_object_by_object() {
        let text = "<R><Contents><Key>a</Key><ETag>&quot;1&quot;</ETag><Size>3</Size></Contents><Contents><Key>b%2F</Key></Contents></R>";
        let keys: Vec<_> = elements(text, "Contents")
            .map(|found| element(found, "Key").unwrap())
            .collect();
        assert_eq!(keys, ["a", "b%2F"]);
        assert_eq!(element(text, "NextContinuationToken"), None);
    }
}
