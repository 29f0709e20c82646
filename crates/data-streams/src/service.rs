//! The service: its parts, the streams it holds in memory, and the Rust API for the rooms above.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use auth::KeyRing;
use base::metrics::{IntCounterVec, MetricError, Metrics};
use base::{AccountId, ApiError, Caller, Clock, Region, ResourceName, Timestamp};
use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::{Mutex, RwLock};
use storage::{Catalog, CatalogError, NewRecord, RecordLog, SequenceNumber, ShardId, StreamId};
use tokio::sync::broadcast;
use wire::{Registry, kinesis};

use crate::arn::parse_stream_arn;
use crate::error::{PutError, catalog_failure, invalid, log_failure, stream_not_found};
use crate::hash::HashKey;
use crate::limits;
use crate::records::{Records, StreamRecord};
use crate::state::StreamState;

/// What the service is built on.
#[derive(Clone)]
pub struct Parts {
    /// Keeps the streams.
    pub catalog: Arc<dyn Catalog>,
    /// Keeps the records.
    pub records: Arc<dyn RecordLog>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Seals iterators and page tokens.
    pub key_ring: Arc<KeyRing>,
    /// Where counters are registered.
    pub metrics: Metrics,
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The streams could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A creation that had been cut off could not be finished.
    #[error("data stream {name}: {source}")]
    Log {
        /// The stream.
        name: String,
        /// What the log said.
        #[source]
        source: storage::Error,
    },
    /// Two services count under one name.
    #[error(transparent)]
    Metrics(#[from] MetricError),
}

/// A stream was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamDeleted {
    /// Its owner, region and name.
    pub name: ResourceName,
    /// Its number; a stream made anew has another.
    pub id: StreamId,
}

type Streams = HashMap<(AccountId, Region), BTreeMap<String, Arc<StreamState>>>;

/// Kinesis Data Streams. Cheap to share: always behind an [`Arc`].
pub struct DataStreams {
    pub(crate) records: Arc<dyn RecordLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) key_ring: Arc<KeyRing>,
    pub(crate) counters: Counters,
    stored: Records,
    streams: RwLock<Streams>,
    deletions: broadcast::Sender<StreamDeleted>,
    /// Deleted streams whose records are still there.
    unfinished: Mutex<Vec<StreamId>>,
    /// For the work that goes on when its caller has gone.
    this: Weak<DataStreams>,
}

/// What went in and out.
pub(crate) struct Counters {
    records: IntCounterVec,
    bytes: IntCounterVec,
}

impl Counters {
    fn new(metrics: &Metrics) -> Result<Self, MetricError> {
        Ok(Counters {
            records: metrics.counter("data_streams_records_total", "Records put and read.", &["direction"])?,
            bytes: metrics.counter(
                "data_streams_bytes_total",
                "Bytes of data put and read.",
                &["direction"],
            )?,
        })
    }

    pub(crate) fn count(&self, direction: &str, records: usize, bytes: usize) {
        self.records.with_label_values(&[direction]).inc_by(records as u64);
        self.bytes.with_label_values(&[direction]).inc_by(bytes as u64);
    }
}

impl std::fmt::Debug for DataStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataStreams")
    }
}

impl DataStreams {
    /// Reads the streams of the catalog, and finishes creations that were cut off.
    pub async fn open(parts: Parts) -> Result<Arc<Self>, StartError> {
        let counters = Counters::new(&parts.metrics)?;
        let service = Arc::new_cyclic(|this| DataStreams {
            records: parts.records,
            clock: parts.clock,
            key_ring: parts.key_ring,
            counters,
            stored: Records::new(parts.catalog),
            streams: RwLock::default(),
            deletions: broadcast::channel(limits::DELETIONS_KEPT).0,
            unfinished: Mutex::default(),
            this: this.clone(),
        });
        let loaded = service.stored.load().await?;
        *service.unfinished.lock() = loaded.deleting;
        for (name, mut record) in loaded.streams {
            if !record.ready {
                let made = service.make_shards(&record).await;
                made.map_err(|source| StartError::Log {
                    name: name.name.clone(),
                    source,
                })?;
                record = service.stored.make_ready(&name, record).await?;
            }
            service.remember(name, record);
        }
        Ok(service)
    }

    /// Lets the registry call this service.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        use kinesis::op;
        registry
            .register::<op::CreateStream, _>(self)
            .register::<op::DeleteStream, _>(self)
            .register::<op::DescribeStream, _>(self)
            .register::<op::DescribeStreamSummary, _>(self)
            .register::<op::ListStreams, _>(self)
            .register::<op::ListShards, _>(self)
            .register::<op::PutRecord, _>(self)
            .register::<op::PutRecords, _>(self)
            .register::<op::GetShardIterator, _>(self)
            .register::<op::GetRecords, _>(self);
    }

    /// The work behind the calls, for ever: forgets records beyond their stream's retention, and finishes deletions.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.sweep().await;
            tokio::time::sleep(Duration::from_millis(limits::SWEEP_INTERVAL_MS)).await;
        }
    }

    /// One round of [`DataStreams::run`].
    pub async fn sweep(&self) {
        let unfinished = std::mem::take(&mut *self.unfinished.lock());
        for id in unfinished {
            self.finish_deletion(id).await;
        }
        let all: Vec<_> = self
            .streams
            .read()
            .values()
            .flat_map(|streams| streams.values().cloned())
            .collect();
        for stream in all {
            let kept_ms = i64::from(stream.record.retention_hours) * 3_600_000;
            let oldest = self.clock.now().plus_millis(-kept_ms);
            for shard in &stream.record.shards {
                let trimmed = self.records.trim_before(stream.id, ShardId(shard.number), oldest).await;
                match trimmed {
                    // Not found: it was deleted meanwhile.
                    Ok(()) | Err(storage::Error::NotFound) => {}
                    Err(error) => tracing::warn!(%error, stream = stream.arn, "records could not be trimmed"),
                }
            }
        }
    }

    /// Finds a stream; `None` if there is none of this name.
    pub fn find(&self, name: &ResourceName) -> Option<StreamId> {
        self.state(name).map(|stream| stream.id)
    }

    /// Writes records under one partition key, in their order, and answers with their numbers when they are durable and
    /// can be read. `id` is what [`DataStreams::find`] gave: a stream made anew under the name is not written to.
    pub async fn put(
        &self,
        name: &ResourceName,
        id: StreamId,
        partition_key: &str,
        data: Vec<Bytes>,
    ) -> Result<Vec<SequenceNumber>, PutError> {
        let stream = self
            .state(name)
            .filter(|s| s.id == id)
            .ok_or(PutError::StreamNotFound)?;
        let max = stream.record.record_bytes_max();
        if let Some(bytes) = data
            .iter()
            .map(|d| d.len() + partition_key.len())
            .find(|bytes| *bytes > max)
        {
            return Err(PutError::RecordTooLarge { bytes, max });
        }
        let (records, bytes) = (data.len(), data.iter().map(Bytes::len).sum());
        let shard = stream.shard_of(HashKey::of_partition_key(partition_key));
        let arrival = self.clock.now();
        let new = data.into_iter().map(|data| NewRecord {
            stream: id,
            shard,
            partition_key: partition_key.to_owned(),
            explicit_hash_key: None,
            data,
            arrival,
        });
        let numbers = self.records.append(new.collect()).await?;
        self.counters.count("in", records, bytes);
        Ok(numbers)
    }

    /// Tells of every deletion from now on. A listener that lags behind is told so and asks [`DataStreams::find`].
    pub fn deletions(&self) -> broadcast::Receiver<StreamDeleted> {
        self.deletions.subscribe()
    }

    /// The stream that a request names by name, by ARN, or by both.
    pub(crate) fn resolve(
        &self,
        caller: &Caller,
        name: Option<&str>,
        arn: Option<&str>,
    ) -> Result<Arc<StreamState>, ApiError> {
        let named = |name: &str| ResourceName {
            account: caller.account,
            region: caller.region.clone(),
            name: name.to_owned(),
        };
        let wanted = match (name, arn) {
            (_, Some(arn)) => parse_stream_arn(arn).ok_or_else(|| invalid("StreamARN is not the ARN of a stream."))?,
            (Some(name), None) => named(name),
            (None, None) => return Err(invalid("Either StreamName or StreamARN must be given.")),
        };
        if name.is_some_and(|name| name != wanted.name) {
            return Err(invalid("StreamName and StreamARN name different streams."));
        }
        let own = wanted.account == caller.account && wanted.region == caller.region;
        let found = self.state(&wanted).filter(|_| own);
        found.ok_or_else(|| stream_not_found(&wanted.name, wanted.account))
    }

    pub(crate) fn state(&self, name: &ResourceName) -> Option<Arc<StreamState>> {
        let streams = self.streams.read();
        streams
            .get(&(name.account, name.region.clone()))?
            .get(&name.name)
            .cloned()
    }

    /// The caller's streams behind `after` in the order of their names, at most `limit`, and whether there are more.
    pub(crate) fn list(&self, caller: &Caller, after: Option<&str>, limit: usize) -> (Vec<Arc<StreamState>>, bool) {
        let streams = self.streams.read();
        let Some(own) = streams.get(&(caller.account, caller.region.clone())) else {
            return (Vec::new(), false);
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = own
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, stream)| stream.clone());
        let page: Vec<_> = found.by_ref().take(limit).collect();
        (page, found.next().is_some())
    }

    /// Number of streams and of open shards that an account has in a region.
    pub(crate) fn usage(&self, account: AccountId, region: &Region) -> (usize, usize) {
        let streams = self.streams.read();
        let own = streams.get(&(account, region.clone()));
        own.map_or((0, 0), |own| (own.len(), own.values().map(|s| s.open_shards()).sum()))
    }

    /// Makes a stream. Goes on when the caller has gone, so that no name is left half taken.
    pub(crate) async fn create(&self, name: ResourceName, wanted: StreamRecord) -> Result<Option<()>, ApiError> {
        let this = self.shared()?;
        joined(tokio::spawn(async move {
            let Some(record) = this.stored.create(&name, wanted).await.map_err(catalog_failure)? else {
                return Ok(None);
            };
            if let Err(error) = this.make_shards(&record).await {
                let id = StreamId(record.id);
                this.stored.delete(&name, id).await.map_err(catalog_failure)?;
                this.finish_deletion(id).await;
                return Err(log_failure(error, &name.name, name.account));
            }
            let record = this.stored.make_ready(&name, record).await.map_err(catalog_failure)?;
            this.remember(name, record);
            Ok(Some(()))
        }))
        .await
    }

    /// Deletes a stream: its name is free and its records unreachable when this answers.
    pub(crate) async fn delete(&self, stream: Arc<StreamState>) -> Result<(), ApiError> {
        let this = self.shared()?;
        joined(tokio::spawn(async move {
            let name = &stream.name;
            if !this.stored.delete(name, stream.id).await.map_err(catalog_failure)? {
                return Err(stream_not_found(&name.name, name.account));
            }
            this.forget(&stream);
            let id = stream.id;
            // Nobody may be listening.
            let _ = this.deletions.send(StreamDeleted { name: name.clone(), id });
            this.finish_deletion(id).await;
            Ok(())
        }))
        .await
    }

    fn shared(&self) -> Result<Arc<Self>, ApiError> {
        let stopped = || ApiError::server("InternalFailure", "The server is stopping.", "the service was dropped");
        self.this.upgrade().ok_or_else(stopped)
    }

    async fn make_shards(&self, record: &StreamRecord) -> Result<(), storage::Error> {
        let id = StreamId(record.id);
        let make = |shard: &crate::records::ShardRecord| {
            let created = Timestamp::from_millis(shard.created_ms);
            self.records.create_shard(id, ShardId(shard.number), created)
        };
        try_join_all(record.shards.iter().map(make)).await.map(drop)
    }

    /// Deletes the records of a stream whose name is gone. A failure is tried again by the next sweep.
    async fn finish_deletion(&self, id: StreamId) {
        let gone = match self.records.delete_stream(id).await {
            Ok(()) | Err(storage::Error::NotFound) => self.stored.deleted(id).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = gone {
            tracing::warn!(error, stream = id.0, "the records of a deleted stream are still there");
            self.unfinished.lock().push(id);
        }
    }

    fn remember(&self, name: ResourceName, record: StreamRecord) {
        let stream = Arc::new(StreamState::new(name.clone(), record));
        let mut streams = self.streams.write();
        let own = streams.entry((name.account, name.region)).or_default();
        own.insert(name.name, stream);
    }

    fn forget(&self, stream: &StreamState) {
        let mut streams = self.streams.write();
        let name = &stream.name;
        if let Some(own) = streams.get_mut(&(name.account, name.region.clone()))
            && own.get(&name.name).is_some_and(|s| s.id == stream.id)
        {
            own.remove(&name.name);
        }
    }
}

/// The answer of a task that outlives its caller.
async fn joined<T>(task: tokio::task::JoinHandle<Result<T, ApiError>>) -> Result<T, ApiError> {
    let ended = task.await;
    ended.unwrap_or_else(|error| Err(ApiError::server("InternalFailure", "The request was cut off.", error)))
}
