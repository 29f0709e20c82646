//! Reading a stream from another room: whole batches, opened where they are encrypted, without tokens. Who reads so keeps
//! its own positions, and follows splits and merges by [`DataStreams::shards`].

use base::ResourceName;
use storage::{Position, ReadBatch, ShardId, StreamId};
use tokio::sync::watch;

use crate::records::open_record;
use crate::service::DataStreams;

/// A shard as a reader needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardView {
    /// Its id.
    pub shard: ShardId,
    /// The shards it was split or merged from; one that is not listed any more has nothing left to read.
    pub parents: Vec<ShardId>,
    /// It takes no more records. Asked before a read that reaches the tip, this says that nothing comes after it.
    pub closed: bool,
}

/// Why nothing could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such stream or shard any more.
    #[error("the data stream does not exist")]
    NotFound,
    /// A record is encrypted and its key cannot be had.
    #[error("a record cannot be decrypted: {0}")]
    Sealed(String),
    /// The log failed, in words for the server's log.
    #[error("{0}")]
    Failed(String),
}

impl From<storage::Error> for ReadError {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::NotFound => ReadError::NotFound,
            other => ReadError::Failed(other.to_string()),
        }
    }
}

impl DataStreams {
    /// The shards that hold records, open and closed, by their numbers: parents come before their children. `None` if the
    /// stream is gone.
    pub fn shards(&self, name: &ResourceName, id: StreamId) -> Option<Vec<ShardView>> {
        let stream = self.state(name).filter(|s| s.id == id)?;
        let view = |shard: &crate::stored::ShardRecord| ShardView {
            shard: ShardId(shard.number),
            parents: [shard.parent, shard.adjacent_parent]
                .into_iter()
                .flatten()
                .map(ShardId)
                .collect(),
            closed: shard.closed_ms.is_some(),
        };
        Some(stream.record.shards.iter().map(view).collect())
    }

    /// The place behind a shard's newest record.
    pub async fn tip(&self, id: StreamId, shard: ShardId) -> Result<Position, ReadError> {
        Ok(self.records.tip(id, shard).await?)
    }

    /// Records from a place on, at most so many and so many bytes (or one that is bigger), with their data as it was put.
    pub async fn read(
        &self,
        name: &ResourceName,
        (id, shard): (StreamId, ShardId),
        from: Position,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<ReadBatch, ReadError> {
        let stream = self.state(name).filter(|s| s.id == id).ok_or(ReadError::NotFound)?;
        let mut batch = self.records.read(id, shard, from, max_records, max_bytes).await?;
        for record in batch.records.iter_mut().filter(|r| r.sealed) {
            let (key, data) = open_record(&stream, record).map_err(|e| ReadError::Sealed(e.to_string()))?;
            (record.partition_key, record.data, record.sealed) = (key, data, false);
        }
        let bytes = batch.records.iter().map(|r| r.data.len()).sum();
        self.counters.count("out", batch.records.len(), bytes);
        Ok(batch)
    }

    /// Changes when something was written to a shard; closes when the stream is deleted.
    pub fn watch(&self, id: StreamId, shard: ShardId) -> Result<watch::Receiver<u64>, ReadError> {
        Ok(self.records.watch(id, shard)?)
    }

    /// Changes when any stream was made, changed or deleted.
    pub fn watch_streams(&self) -> watch::Receiver<u64> {
        self.changes()
    }
}
