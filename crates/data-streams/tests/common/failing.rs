//! A record log that can be made to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use base::Timestamp;
use storage::{Error, NewRecord, Position, ReadBatch, RecordLog, SequenceNumber, ShardId, StreamId};
use tokio::sync::watch;

const FULL: u8 = 1;
const STUCK: u8 = 2;

/// How a log fails now; shared with the test.
#[derive(Clone, Default)]
pub struct Failure(Arc<AtomicU8>);

impl Failure {
    /// From now on nothing can be written.
    pub fn fill_disk(&self) {
        self.0.store(FULL, Ordering::SeqCst);
    }

    /// From now on no write ends, as if the process were killed in the middle of it.
    pub fn stop_writes(&self) {
        self.0.store(STUCK, Ordering::SeqCst);
    }

    /// From now on everything works.
    pub fn end(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    async fn write(&self) -> Result<(), Error> {
        match self.0.load(Ordering::SeqCst) {
            FULL => Err(Error::DiskFull),
            STUCK => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

/// A log that fails as it is told.
pub struct FailingLog {
    log: Arc<dyn RecordLog>,
    failure: Failure,
}

impl FailingLog {
    pub fn over(log: Arc<dyn RecordLog>, failure: &Failure) -> Arc<dyn RecordLog> {
        let failure = failure.clone();
        Arc::new(FailingLog { log, failure })
    }
}

#[async_trait]
impl RecordLog for FailingLog {
    async fn create_shard(&self, stream: StreamId, shard: ShardId, created: Timestamp) -> Result<(), Error> {
        self.failure.write().await?;
        self.log.create_shard(stream, shard, created).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<SequenceNumber>, Error> {
        self.failure.write().await?;
        self.log.append(records).await
    }

    async fn close_shard(&self, stream: StreamId, shard: ShardId) -> Result<SequenceNumber, Error> {
        self.log.close_shard(stream, shard).await
    }

    async fn reopen_shard(&self, stream: StreamId, shard: ShardId) -> Result<(), Error> {
        self.log.reopen_shard(stream, shard).await
    }

    async fn read(
        &self,
        s: StreamId,
        h: ShardId,
        from: Position,
        most: usize,
        bytes: usize,
    ) -> Result<ReadBatch, Error> {
        self.log.read(s, h, from, most, bytes).await
    }

    async fn tip(&self, stream: StreamId, shard: ShardId) -> Result<Position, Error> {
        self.log.tip(stream, shard).await
    }

    async fn position_at_time(&self, stream: StreamId, shard: ShardId, at: Timestamp) -> Result<Position, Error> {
        self.log.position_at_time(stream, shard, at).await
    }

    fn watch(&self, stream: StreamId, shard: ShardId) -> Result<watch::Receiver<u64>, Error> {
        self.log.watch(stream, shard)
    }

    async fn trim_before(&self, stream: StreamId, shard: ShardId, older_than: Timestamp) -> Result<(), Error> {
        self.log.trim_before(stream, shard, older_than).await
    }

    async fn delete_stream(&self, stream: StreamId) -> Result<(), Error> {
        self.failure.write().await?;
        self.log.delete_stream(stream).await
    }
}
