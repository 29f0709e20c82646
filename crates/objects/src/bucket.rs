//! The trait through which a bucket is reached, wherever it lies.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, Timestamp};
use bytes::Bytes;
use futures_util::Stream;

use crate::ObjectError;

/// All buckets that there are.
#[async_trait]
pub trait Buckets: Send + Sync + 'static {
    /// The account's bucket of that name. A bucket that is opened may be gone at its next call.
    async fn open(&self, account: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError>;
}

/// The bytes of an object as they are read. Dropping it ends the reading.
pub type ObjectStream = Pin<Box<dyn Stream<Item = Result<Bytes, ObjectError>> + Send>>;

/// One bucket. Keys are 1 to 1024 bytes of UTF-8.
#[async_trait]
pub trait Bucket: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &str;

    /// Puts an object, replacing the one of that key. It is durable and visible as a whole when this returns; until then
    /// the old one is.
    async fn put(&self, key: &str, options: PutOptions, body: Bytes) -> Result<ObjectInfo, ObjectError>;

    /// Begins an object whose bytes come little by little, of any number, in constant memory. Nothing is visible before
    /// [`Upload::finish`] returns.
    async fn begin(&self, key: &str, options: PutOptions) -> Result<Box<dyn Upload>, ObjectError>;

    /// An object and its bytes, or a part of them. The facts are those of the whole object; the bytes are those that it
    /// had when this returned, whatever is put or deleted meanwhile.
    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<(ObjectInfo, ObjectStream), ObjectError>;

    /// What is known of an object without its bytes.
    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError>;

    /// Objects whose key begins with `prefix` and is above `after`, in bytewise order, at most `limit` (1 to 1000). The
    /// infos of a listing hold key, size, ETag and time alone.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ObjectPage, ObjectError>;

    /// Removes an object; well if there is none. It is gone and its space free when this returns.
    async fn delete(&self, key: &str) -> Result<(), ObjectError>;
}

/// An object that is being written. Dropping it is [`Upload::abort`] without waiting for it.
#[async_trait]
pub trait Upload: Send {
    /// Takes the next bytes; returns when there is room for more.
    async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError>;

    /// Makes the object durable and visible.
    async fn finish(self: Box<Self>) -> Result<ObjectInfo, ObjectError>;

    /// Gives it up; nothing of it stays.
    async fn abort(self: Box<Self>) -> Result<(), ObjectError>;
}

/// What is said of an object when it is put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// `Content-Type`; `binary/octet-stream` without, as in S3.
    pub content_type: Option<String>,
    /// `Content-Encoding`, e.g. `gzip`.
    pub content_encoding: Option<String>,
    /// The user's own names and values (`x-amz-meta-…`), names in lower case and without that prefix.
    pub metadata: BTreeMap<String, String>,
    /// Put only if there is no object of that key, else [`ObjectError::PreconditionFailed`] (`If-None-Match: *`).
    pub if_none_match: bool,
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag without quotes: the MD5 of the bytes, or with `-N` behind it that of the MD5s of N parts.
    pub etag: String,
    /// When it became visible.
    pub modified: Timestamp,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// The user's own names and values.
    pub metadata: BTreeMap<String, String>,
}

/// A part of an object, as HTTP names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From this byte to the end.
    From(u64),
    /// From the first to the last, both included; a last one behind the end means the end.
    Between(u64, u64),
    /// So many bytes at the end, or all if there are fewer.
    Last(u64),
}

impl ByteRange {
    /// First byte and number of bytes within an object of `size` bytes.
    pub fn within(self, size: u64) -> Result<(u64, u64), ObjectError> {
        let (first, end) = match self {
            ByteRange::From(first) => (first, size),
            ByteRange::Between(first, last) => (first, last.saturating_add(1).min(size)),
            ByteRange::Last(0) => return Err(ObjectError::RangeNotSatisfiable(size)),
            ByteRange::Last(bytes) => (size.saturating_sub(bytes), size),
        };
        if first >= size || end <= first {
            return Err(ObjectError::RangeNotSatisfiable(size));
        }
        Ok((first, end - first))
    }
}

/// Objects in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectPage {
    /// The objects.
    pub objects: Vec<ObjectInfo>,
    /// `after` of the next page; `None` when this was the last. A page may hold fewer objects than asked for and still
    /// have a next one.
    pub next: Option<String>,
}
