//! The stream as a consumer sees it: its shards, and their records page by page. [`KinesisSource`](super::KinesisSource)
//! asks a server; tests have their own.

use async_trait::async_trait;
use base::Timestamp;
use bytes::Bytes;

use crate::error::ClientError;
use crate::records::{HashRange, SequenceNumber};

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: String,
    /// The shards it came from: none, one by a split, two by a merge.
    pub parents: Vec<String>,
    /// Its part of the hash keys.
    pub range: HashRange,
    /// Whether it takes records.
    pub open: bool,
}

/// Where to begin in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest record.
    TrimHorizon,
    /// At what comes.
    Latest,
    /// At the first record that arrived then or later.
    Timestamp(Timestamp),
    /// At a record.
    At(SequenceNumber),
    /// Behind a record.
    After(SequenceNumber),
}

/// A record as the stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// Its number in the shard.
    pub sequence_number: SequenceNumber,
    /// Its partition key.
    pub partition_key: String,
    /// Its payload, perhaps many user records.
    pub data: Bytes,
    /// When it arrived.
    pub arrived: Timestamp,
}

/// A shard that came from the one that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildShard {
    /// Its id.
    pub id: String,
    /// The shards it came from.
    pub parents: Vec<String>,
    /// Its part of the hash keys.
    pub range: HashRange,
}

/// Some records of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub records: Vec<StreamRecord>,
    /// How to go on: an iterator, or for a subscription a sequence number. `None` when the shard is closed and this was
    /// the last of it.
    pub next: Option<String>,
    /// How far behind its newest record the shard is read now.
    pub millis_behind: u64,
    /// Known when it has ended.
    pub children: Vec<ChildShard>,
}

/// Reads a stream.
#[async_trait]
pub trait ShardSource: Send + Sync + 'static {
    /// All shards that the stream remembers, closed ones too.
    async fn shards(&self) -> Result<Vec<Shard>, ClientError>;

    /// An iterator for [`records`](Self::records).
    async fn iterator(&self, shard: &str, from: &StartAt) -> Result<String, ClientError>;

    /// At most so many records behind an iterator.
    async fn records(&self, iterator: &str, limit: u32) -> Result<Page, ClientError>;

    /// The ARN of the stream's consumer of this name, which is made if there is none, and can be subscribed with.
    async fn registered(&self, name: &str) -> Result<String, ClientError>;

    /// Subscribes to a shard.
    async fn subscribe(
        &self,
        consumer: &str,
        shard: &str,
        from: &StartAt,
    ) -> Result<Box<dyn Subscription>, ClientError>;
}

/// Pages as they come.
#[async_trait]
pub trait Subscription: Send {
    /// The next page; `None` when the subscription's time is over.
    async fn next(&mut self) -> Result<Option<Page>, ClientError>;
}
