//! Where an archive is kept, as a small trait: a bucket behind S3 ([`crate::S3Store`]), or whatever else can put whole
//! objects and list keys in order.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

/// Why a bucket did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It will not: no such bucket, no right to it.
    #[error("{0}")]
    Refused(String),
    /// It did not now, and may later.
    #[error("{0}")]
    Failed(String),
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is stored.
    Stored,
    /// Nothing was stored, since there is an object of this key, and only a new one was wanted.
    Exists,
}

/// What an object is besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// `Content-Type`.
    pub content_type: String,
    /// The user's own names and values.
    pub metadata: BTreeMap<String, String>,
}

/// A bucket. What is put is durable, checked against a checksum that was sent with it, and visible as a whole when the call
/// returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// A small object; `None` where there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// An object's bytes.
    async fn read(&self, key: &str) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError>;

    /// Puts an object. `only_new` leaves one that is there as it is.
    async fn put(&self, key: &str, kind: &Kind, body: Bytes, only_new: bool) -> Result<Put, StoreError>;

    /// Begins an object of several parts; gives the upload's name.
    async fn begin(&self, key: &str, kind: &Kind) -> Result<String, StoreError>;

    /// Puts a part, counted from 0, in any order; gives what [`Store::complete`] wants to hear of it.
    async fn part(&self, key: &str, upload: &str, number: usize, body: Bytes) -> Result<String, StoreError>;

    /// Makes the object of its parts.
    async fn complete(&self, key: &str, upload: &str, parts: Vec<String>) -> Result<(), StoreError>;

    /// Gives an upload up; well if there is none.
    async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreError>;

    /// Keys that begin with `prefix` and are above `after`, in order, at most `limit` of them.
    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, StoreError>;
}
