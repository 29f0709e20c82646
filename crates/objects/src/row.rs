//! What the catalog holds of buckets, objects and uploads, and under which keys.
//!
//! | key | holds |
//! |---|---|
//! | `ACCOUNT/-/s3-bucket/NAME` | a bucket: its number, region, tags |
//! | `ACCOUNT/-/s3-object/BUCKET/KEY` | an object; the key stands as it is, so that the catalog's order is S3's |
//! | `ACCOUNT/-/s3-upload/BUCKET/KEY 0x01 ID` | an upload in parts that was begun |
//! | `ACCOUNT/-/s3-part/ID/NUMBER` | a part, of an upload or of the object that the upload became |
//! | `-/-/s3-gone/ID` | parts that nobody needs any more and that are being removed |

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base::{AccountId, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use storage::CatalogKey;

use crate::digest::{Algorithm, Checksum, ChecksumKind, hex};
use crate::{ObjectError, ObjectInfo};

/// The number of a file, an upload or a bucket: 128 random bits, 32 hex digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u128);

impl Id {
    pub(crate) fn random() -> Self {
        Id(fastrand::u128(..))
    }

    /// The first byte: which of 256 folders a file lies in, which of the locks is meant.
    pub(crate) fn first_byte(self) -> u8 {
        let [first, ..] = self.0.to_be_bytes();
        first
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(legal) {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Id).map_err(drop)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("not 32 hex digits"))
    }
}

/// Headers that are kept with an object and sent with its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// `Content-Type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// `Content-Disposition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// `Cache-Control`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// `Expires`, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl Headers {
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        [
            &self.content_type,
            &self.content_encoding,
            &self.content_language,
            &self.content_disposition,
            &self.cache_control,
            &self.expires,
        ]
        .into_iter()
        .flatten()
    }
}

/// What is said of an object beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Standard headers.
    pub headers: Headers,
    /// `x-amz-meta-…`, without that prefix and in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// All that is known of an object of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag without quotes.
    pub etag: String,
    /// When it became visible.
    pub modified: Timestamp,
    /// What was said of it.
    pub facts: Facts,
    /// The checksum that its client chose, else CRC64NVME of all bytes.
    pub checksum: Checksum,
    /// Its parts, if it was uploaded in parts.
    pub parts: Option<u16>,
}

impl From<Object> for ObjectInfo {
    fn from(object: Object) -> Self {
        ObjectInfo {
            key: object.key,
            size: object.size,
            etag: object.etag,
            modified: object.modified,
            content_type: object.facts.headers.content_type,
            content_encoding: object.facts.headers.content_encoding,
            metadata: object.facts.metadata,
        }
    }
}

/// Where the bytes of an object are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// There are none.
    #[serde(rename = "e")]
    Empty,
    /// In one file.
    #[serde(rename = "f")]
    File { id: Id, crc64: u64 },
    /// In the files of the parts of these numbers, first and last of each stretch.
    #[serde(rename = "p")]
    Parts {
        upload: Id,
        numbers: Vec<(u16, u16)>,
        count: u16,
    },
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRow {
    pub size: u64,
    pub etag: String,
    pub modified_ms: i64,
    pub body: Body,
    #[serde(default)]
    pub facts: Facts,
    pub checksum: Checksum,
}

impl ObjectRow {
    pub fn object(&self, key: &str) -> Object {
        Object {
            key: key.to_owned(),
            size: self.size,
            etag: self.etag.clone(),
            modified: Timestamp::from_millis(self.modified_ms),
            facts: self.facts.clone(),
            checksum: self.checksum.clone(),
            parts: match self.body {
                Body::Parts { count, .. } => Some(count),
                Body::Empty | Body::File { .. } => None,
            },
        }
    }
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BucketRow {
    pub id: Id,
    pub region: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// An upload in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadRow {
    pub begun_ms: i64,
    pub facts: Facts,
    /// What its client checks parts and object with.
    pub checksum: Option<(Algorithm, ChecksumKind)>,
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRow {
    /// None if it is empty.
    pub file: Option<Id>,
    pub size: u64,
    /// What its ETag says: see [`crate::digest::TagOf`].
    #[serde(rename = "md5")]
    pub tag: [u8; 16],
    pub crc64: u64,
    pub modified_ms: i64,
    /// The value of the upload's checksum.
    pub checksum: Option<(Algorithm, Vec<u8>)>,
}

impl PartRow {
    pub fn etag(&self) -> String {
        hex(&self.tag)
    }
}

/// Parts that are being removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GoneRow {
    pub account: String,
    /// Of an object that was completed, the parts that it needs and that stay.
    #[serde(default)]
    pub but: Vec<(u16, u16)>,
}

/// What separates the key from the id in the key of an upload.
const UPLOAD_MARK: char = '\u{1}';

pub(crate) const GONE: &str = "s3-gone";

fn space(account: AccountId, kind: &str) -> CatalogKey {
    CatalogKey::account(account).with(kind)
}

pub(crate) fn buckets(account: AccountId) -> CatalogKey {
    space(account, "s3-bucket")
}

pub(crate) fn bucket(account: AccountId, name: &str) -> String {
    buckets(account).with(name).into()
}

/// The prefix of all objects of an account.
pub(crate) fn all_objects(account: AccountId) -> String {
    space(account, "s3-object").below()
}

/// The prefix of all parts of an account.
pub(crate) fn all_parts(account: AccountId) -> String {
    space(account, "s3-part").below()
}

pub(crate) fn objects(account: AccountId, bucket: Id) -> String {
    space(account, "s3-object").with(&bucket.to_string()).below()
}

pub(crate) fn uploads(account: AccountId, bucket: Id) -> String {
    space(account, "s3-upload").with(&bucket.to_string()).below()
}

pub(crate) fn upload(account: AccountId, bucket: Id, key: &str, id: Id) -> String {
    format!("{}{key}{UPLOAD_MARK}{id}", uploads(account, bucket))
}

/// Key and id of an upload, from what follows the prefix of its bucket's uploads.
pub(crate) fn upload_of(rest: &str) -> Option<(String, Id)> {
    let (key, id) = rest.rsplit_once(UPLOAD_MARK)?;
    Some((key.to_owned(), id.parse().ok()?))
}

pub(crate) fn parts(account: AccountId, upload: Id) -> String {
    space(account, "s3-part").with(&upload.to_string()).below()
}

pub(crate) fn part(account: AccountId, upload: Id, number: u16) -> String {
    format!("{}{number:05}", parts(account, upload))
}

/// Upload and number of a part, from what follows the prefix of its account's parts.
pub(crate) fn part_of(rest: &str) -> Option<(Id, u16)> {
    let (id, number) = rest.split_once('/')?;
    Some((id.parse().ok()?, number.parse().ok()?))
}

pub(crate) fn gone() -> CatalogKey {
    CatalogKey::server().with(GONE)
}

/// The numbers as stretches.
pub(crate) fn stretches(numbers: impl Iterator<Item = u16>) -> Vec<(u16, u16)> {
    let mut out: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match out.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => out.push((number, number)),
        }
    }
    out
}

pub(crate) fn is_within(stretches: &[(u16, u16)], number: u16) -> bool {
    let at = stretches.partition_point(|(_, last)| *last < number);
    stretches.get(at).is_some_and(|(first, _)| *first <= number)
}

/// Refuses a row that contradicts itself, as damage.
pub(crate) fn damaged(what: impl fmt::Display) -> ObjectError {
    ObjectError::Storage(format!("the catalog contradicts itself: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_catalog_can_be_taken_apart_again() {
        let (account, bucket) = (AccountId::DEFAULT, Id::random());
        for key in ["a", "a/b", "a\u{1}b", "é %2F", "\u{10FFFF}"] {
            let id = Id::random();
            let text = upload(account, bucket, key, id);
            let rest = text.strip_prefix(&uploads(account, bucket)).unwrap();
            assert_eq!(upload_of(rest), Some((key.to_owned(), id)));
        }
        let text = part(account, bucket, 77);
        assert_eq!(
            part_of(text.strip_prefix(&all_parts(account)).unwrap()),
            Some((bucket, 77))
        );
        assert_eq!(bucket.to_string().parse(), Ok(bucket));
        for bad in ["", "xyz", &"A".repeat(32), &"+".repeat(32)] {
            assert_eq!(bad.parse::<Id>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn numbers_of_parts_are_kept_as_stretches() {
        let numbers = [1, 2, 3, 7, 9, 10, 10_000];
        let kept = stretches(numbers.into_iter());
        assert_eq!(kept, [(1, 3), (7, 7), (9, 10), (10_000, 10_000)]);
        for number in 1..=10_000 {
            assert_eq!(is_within(&kept, number), numbers.contains(&number), "{number}");
        }
    }
}
