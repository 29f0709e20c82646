//! Where records are read: a data stream, or the delivery stream's own log. Shards are named by numbers that rise from
//! parents to children.

use std::sync::Arc;

use async_trait::async_trait;
use base::{ResourceName, Timestamp};
use data_streams::{DataStreams, ReadError};
use storage::{Position, ShardId, StoredRecord, StreamId};
use tokio::sync::watch;

use crate::types::{Record, Source as Origin};

pub use data_streams::ShardView as SourceShard;

/// Why nothing can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is nothing to read any more: it was deleted.
    #[error("the source does not exist")]
    Gone,
    /// It may pass.
    #[error("the source cannot be read: {0}")]
    Failed(String),
}

/// What a read gave.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Records in order; may be none.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next: Position,
    /// Nothing was left behind them.
    pub at_tip: bool,
}

/// A stream of shards of records.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The number of the stream that it is now; `None` while there is none. One that was made anew has another number.
    fn stream(&self) -> Option<StreamId>;

    /// Its shards, parents before children.
    fn shards(&self, stream: StreamId) -> Result<Vec<SourceShard>, SourceError>;

    /// Records from a place on, at most so many and so many bytes, or one that is bigger.
    async fn read(
        &self,
        place: (StreamId, ShardId),
        from: Position,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch, SourceError>;

    /// Changes when something was written to a shard.
    fn watch(&self, place: (StreamId, ShardId)) -> Result<watch::Receiver<u64>, SourceError>;

    /// Changes when the stream was made, deleted or has other shards.
    fn changes(&self) -> watch::Receiver<u64>;

    /// A buffer of so many bytes was delivered; its newest record arrived then, if it still had any.
    fn delivered(&self, bytes: u64, newest: Option<Timestamp>);

    /// What the source is called in messages.
    fn name(&self) -> String;
}

/// A data stream.
pub struct KinesisSource {
    streams: Arc<DataStreams>,
    name: ResourceName,
}

impl KinesisSource {
    /// The data stream of that name, whenever it was made.
    pub fn new(streams: Arc<DataStreams>, name: ResourceName) -> Self {
        KinesisSource { streams, name }
    }
}

impl From<ReadError> for SourceError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => SourceError::Gone,
            other => SourceError::Failed(other.to_string()),
        }
    }
}

/// A record as the processors get it.
pub fn record_of(shard: ShardId, stored: StoredRecord) -> Record {
    Record {
        data: stored.data,
        arrival: stored.arrival,
        source: Origin {
            shard,
            sequence: stored.sequence,
            partition_key: stored.partition_key,
        },
    }
}

#[async_trait]
impl Source for KinesisSource {
    fn stream(&self) -> Option<StreamId> {
        self.streams.find(&self.name)
    }

    fn shards(&self, stream: StreamId) -> Result<Vec<SourceShard>, SourceError> {
        self.streams.shards(&self.name, stream).ok_or(SourceError::Gone)
    }

    async fn read(
        &self,
        place: (StreamId, ShardId),
        from: Position,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch, SourceError> {
        let read = self
            .streams
            .read(&self.name, place, from, max_records, max_bytes)
            .await?;
        Ok(Batch {
            records: read.records.into_iter().map(|r| record_of(place.1, r)).collect(),
            next: read.next,
            at_tip: read.at_tip,
        })
    }

    fn watch(&self, place: (StreamId, ShardId)) -> Result<watch::Receiver<u64>, SourceError> {
        Ok(self.streams.watch(place.0, place.1)?)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.streams.watch_streams()
    }

    fn delivered(&self, _: u64, _: Option<Timestamp>) {}

    fn name(&self) -> String {
        format!("the data stream {}", self.name.name)
    }
}
