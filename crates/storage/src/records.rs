//! What a store of records promises: shards of ordered records, numbered by the store.

use async_trait::async_trait;
use base::Timestamp;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{Error, SequenceNumber, StreamId};

/// Names a shard within its stream; never used again within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u32);

/// A record to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The stream.
    pub stream: StreamId,
    /// The shard that its hash key falls in.
    pub shard: ShardId,
    /// Its partition key.
    pub partition_key: String,
    /// The hash key that the producer gave instead of the partition key's.
    pub explicit_hash_key: Option<u128>,
    /// Its bytes.
    pub data: Bytes,
    /// Its bytes are for nobody without a key: kept, and told back.
    pub sealed: bool,
    /// When it arrived.
    pub arrival: Timestamp,
}

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number.
    pub sequence: SequenceNumber,
    /// Its partition key.
    pub partition_key: String,
    /// The hash key that the producer gave.
    pub explicit_hash_key: Option<u128>,
    /// Its bytes.
    pub data: Bytes,
    /// Its bytes are for nobody without a key: kept, and told back.
    pub sealed: bool,
    /// When it arrived.
    pub arrival: Timestamp,
}

/// A place in a shard. It is plain data: it can be put into an iterator token and used after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// The oldest record that is kept.
    Trim,
    /// The record with this number, or the next one that is kept.
    At(SequenceNumber),
    /// The record behind this number.
    After(SequenceNumber),
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadBatch {
    /// Records in order; may be empty.
    pub records: Vec<StoredRecord>,
    /// Where to go on.
    pub next: Position,
    /// Arrival of the shard's newest record, for "milliseconds behind latest".
    pub last_arrival: Option<Timestamp>,
    /// True when nothing was left behind the returned records at the time of the read.
    pub at_tip: bool,
}

/// Stores records. Every method that changes something answers after the change is durable.
#[async_trait]
pub trait RecordLog: Send + Sync + 'static {
    /// Makes a shard; its numbers begin above those of every shard created at an earlier millisecond. Repeating the call
    /// is harmless.
    async fn create_shard(&self, stream: StreamId, shard: ShardId, created: Timestamp) -> Result<(), Error>;

    /// Appends records and returns their numbers in the order given. All are durable when it answers; after an error some
    /// may nevertheless be found later. [`Error::NotFound`] when one names a shard that is not there, and
    /// [`Error::ShardClosed`] when one is closed: then none is stored.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<SequenceNumber>, Error>;

    /// Lets a shard take no more records, until [`RecordLog::reopen_shard`] or the end of the process: who closed it keeps
    /// that in mind. Answers when everything appended before can be read, with the number that the next record would
    /// have had. Repeating the call is harmless.
    async fn close_shard(&self, stream: StreamId, shard: ShardId) -> Result<SequenceNumber, Error>;

    /// Takes a closing back that did not come to its end.
    async fn reopen_shard(&self, stream: StreamId, shard: ShardId) -> Result<(), Error>;

    /// Records from a place on: at most `max_records`, and no more than `max_bytes` of data and keys unless the first one
    /// alone is bigger.
    async fn read(
        &self,
        stream: StreamId,
        shard: ShardId,
        from: Position,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<ReadBatch, Error>;

    /// The place behind the shard's newest record.
    async fn tip(&self, stream: StreamId, shard: ShardId) -> Result<Position, Error>;

    /// The place of the first record that arrived at `at` or later.
    async fn position_at_time(&self, stream: StreamId, shard: ShardId, at: Timestamp) -> Result<Position, Error>;

    /// The index of the newest record plus one (0 before the first), now and at each change. Closes when the stream is
    /// deleted or the log is closed.
    fn watch(&self, stream: StreamId, shard: ShardId) -> Result<watch::Receiver<u64>, Error>;

    /// Forgets the records in front of the first one that arrived at `older_than` or later.
    async fn trim_before(&self, stream: StreamId, shard: ShardId, older_than: Timestamp) -> Result<(), Error>;

    /// Deletes a stream's shards and records, for ever: its id takes no more.
    async fn delete_stream(&self, stream: StreamId) -> Result<(), Error>;
}
