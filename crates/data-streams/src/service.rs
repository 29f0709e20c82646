//! The service: its parts, the streams it holds in memory, and the Rust API for the rooms above.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use auth::{KeyRing, ResourcePolicy, Verdict};
use base::metrics::{IntCounterVec, MetricError, Metrics};
use base::{AccountId, ApiError, Caller, Clock, Region, ResourceName, Timestamp};
use futures_util::future::try_join_all;
use parking_lot::{Mutex, RwLock};
use storage::{Catalog, CatalogError, Change, RecordLog, ShardId, StreamId};
use tokio::sync::{OwnedMutexGuard, broadcast, watch};
use wire::{Registry, WireOperation, kinesis};

use crate::arn::parse_stream_arn;
use crate::consumers::Subscriptions;
use crate::error::{catalog_failure, has_channels, has_queues, invalid, log_failure, stream_not_found};
use crate::limits;
use crate::ports::Channels;
use crate::queues::Queues;
use crate::records::cipher::DataKey;
use crate::records::throttle::Throttle;
use crate::state::{Lasting, StreamState};
use crate::stored::{Records, ShardRecord, StreamRecord};

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
    /// What the operator chose.
    pub settings: Settings,
}

/// What the operator chose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Keep AWS's limits of a shard, and of UpdateShardCount, and answer their errors.
    pub shard_limits: bool,
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The streams could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A change of shards that had been cut off could not be finished.
    #[error("data stream {name}: {why}")]
    Reshard {
        /// The stream.
        name: String,
        /// What went wrong.
        why: String,
    },
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

/// A stream that is neither changed nor deleted while this lives.
pub struct Pinned {
    /// Its number.
    pub id: StreamId,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it scales by itself.
    pub on_demand: bool,
    _gate: OwnedMutexGuard<()>,
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
    pub(crate) settings: Settings,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) stored: Records,
    pub(crate) queues: Queues,
    streams: RwLock<Streams>,
    /// Counts the changes of all streams.
    changes: watch::Sender<u64>,
    deletions: broadcast::Sender<StreamDeleted>,
    /// What another room hangs on streams.
    channels: OnceLock<Weak<dyn Channels>>,
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
            settings: parts.settings,
            throttle: parts.settings.shard_limits.then(Throttle::default),
            subscriptions: Subscriptions::default(),
            stored: Records::new(Arc::clone(&parts.catalog)),
            queues: Queues::new(parts.catalog),
            streams: RwLock::default(),
            changes: watch::Sender::new(0),
            deletions: broadcast::channel(limits::DELETIONS_KEPT).0,
            channels: OnceLock::new(),
            unfinished: Mutex::default(),
            this: this.clone(),
        });
        let loaded = service.stored.load().await?;
        service.queues.load().await?;
        *service.unfinished.lock() = loaded.deleting;
        for (name, mut record) in loaded.streams {
            if !record.ready {
                let made = service.make_shards(StreamId(record.id), &record.shards).await;
                made.map_err(|source| StartError::Log {
                    name: name.name.clone(),
                    source,
                })?;
                record.ready = true;
                service.stored.replace(&name, &record).await?;
            }
            let stream = service.remember(name, record, Arc::default());
            let finished = service.finish_reshard(&stream).await;
            finished.map_err(|why| StartError::Reshard {
                name: stream.name.name.clone(),
                why: why.to_string(),
            })?;
        }
        Ok(service)
    }

    /// Lets the registry call this service.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        use kinesis::op;
        registry
            .register::<op::AcknowledgeDeadLetterQueueRecords, _>(self)
            .register::<op::AcknowledgeQueueRecords, _>(self)
            .register::<op::AddTagsToStream, _>(self)
            .register::<op::CreateQueue, _>(self)
            .register::<op::CreateStream, _>(self)
            .register::<op::DecreaseStreamRetentionPeriod, _>(self)
            .register::<op::DeleteQueue, _>(self)
            .register::<op::DeleteResourcePolicy, _>(self)
            .register::<op::DeleteStream, _>(self)
            .register::<op::DeregisterStreamConsumer, _>(self)
            .register::<op::DescribeAccountSettings, _>(self)
            .register::<op::DescribeLimits, _>(self)
            .register::<op::DescribeQueue, _>(self)
            .register::<op::DescribeStream, _>(self)
            .register::<op::DescribeStreamConsumer, _>(self)
            .register::<op::DescribeStreamSummary, _>(self)
            .register::<op::DisableEnhancedMonitoring, _>(self)
            .register::<op::EnableEnhancedMonitoring, _>(self)
            .register::<op::GetRecords, _>(self)
            .register::<op::GetResourcePolicy, _>(self)
            .register::<op::GetShardIterator, _>(self)
            .register::<op::IncreaseStreamRetentionPeriod, _>(self)
            .register::<op::ListQueues, _>(self)
            .register::<op::ListShards, _>(self)
            .register::<op::ListStreamConsumers, _>(self)
            .register::<op::ListStreams, _>(self)
            .register::<op::ListTagsForResource, _>(self)
            .register::<op::ListTagsForStream, _>(self)
            .register::<op::MergeShards, _>(self)
            .register::<op::PutRecord, _>(self)
            .register::<op::PutRecords, _>(self)
            .register::<op::PutResourcePolicy, _>(self)
            .register::<op::ReceiveDeadLetterQueueRecords, _>(self)
            .register::<op::ReceiveQueueRecords, _>(self)
            .register::<op::RegisterStreamConsumer, _>(self)
            .register::<op::RemoveTagsFromStream, _>(self)
            .register::<op::RestoreDeadLetterQueueRecords, _>(self)
            .register::<op::SplitShard, _>(self)
            .register::<op::StartStreamEncryption, _>(self)
            .register::<op::StopStreamEncryption, _>(self)
            .register::<op::SubscribeToShard, _>(self)
            .register::<op::TagResource, _>(self)
            .register::<op::UntagResource, _>(self)
            .register::<op::UpdateAccountSettings, _>(self)
            .register::<op::UpdateDeadLetterQueueRecordsVisibility, _>(self)
            .register::<op::UpdateMaxRecordSize, _>(self)
            .register::<op::UpdateQueue, _>(self)
            .register::<op::UpdateQueueRecordsVisibility, _>(self)
            .register::<op::UpdateShardCount, _>(self)
            .register::<op::UpdateStreamMode, _>(self)
            .register::<op::UpdateStreamRecordDistributionStrategy, _>(self)
            .register::<op::UpdateStreamWarmThroughput, _>(self);
    }

    /// The work behind the calls, for ever: forgets records beyond their stream's retention, finishes what was cut off, and
    /// lets on-demand streams follow their load.
    pub async fn run(self: Arc<Self>) {
        let (every, scale_every) = (limits::SWEEP_INTERVAL_MS, limits::SCALE_INTERVAL_MS);
        let mut since_sweep = every;
        loop {
            if since_sweep >= every {
                self.sweep().await;
                since_sweep = 0;
            }
            let began = self.clock.monotonic();
            tokio::time::sleep(Duration::from_millis(scale_every)).await;
            let took = self.clock.monotonic().saturating_sub(began);
            self.scale(i64::try_from(took.as_millis()).unwrap_or(i64::MAX)).await;
            since_sweep += scale_every;
        }
    }

    /// Forgets what is beyond its retention, and finishes deletions and changes of shards that were cut off.
    pub async fn sweep(&self) {
        let unfinished = std::mem::take(&mut *self.unfinished.lock());
        for id in unfinished {
            self.finish_deletion(id).await;
        }
        self.queues.finish_deletions().await;
        for stream in self.all() {
            self.trim(&stream, stream.record.horizon(self.clock.now())).await;
            if let Err(error) = self.tidy(&stream).await {
                tracing::warn!(%error, stream = stream.arn, "a stream could not be tidied up");
            }
        }
        self.tidy_queues();
        self.subscriptions.forget_ended(self.clock.monotonic());
        if let Some(throttle) = &self.throttle {
            throttle.forget_idle(self.clock.monotonic());
        }
    }

    /// Forgets a stream's records that arrived before `oldest`.
    pub(crate) async fn trim(&self, stream: &StreamState, oldest: Timestamp) {
        for shard in &stream.record.shards {
            let trimmed = self.records.trim_before(stream.id, ShardId(shard.number), oldest).await;
            match trimmed {
                // Not found: it was deleted meanwhile.
                Ok(()) | Err(storage::Error::NotFound) => {}
                Err(error) => tracing::warn!(%error, stream = stream.arn, "records could not be trimmed"),
            }
        }
    }

    /// Finishes a change of shards that met an error, and forgets closed shards of which nothing is kept.
    async fn tidy(&self, stream: &StreamState) -> Result<(), ApiError> {
        let horizon = stream.record.horizon(self.clock.now());
        let mut shards = stream.record.shards.iter();
        let expired = shards.any(|s| s.closed_ms.is_some_and(|closed| closed < horizon.millis()));
        if stream.record.reshard.is_none() && !expired {
            return Ok(());
        }
        let (name, id) = (stream.name.clone(), stream.id);
        self.detached(stream, move |this| async move {
            let current = this.current(&name, id)?;
            this.finish_reshard(&current).await?;
            let current = this.current(&name, id)?;
            let mut record = current.record.clone();
            if record.forget_shards(horizon) {
                this.write(&current, record).await?;
            }
            Ok(())
        })
        .await
    }

    /// Every stream of every account.
    pub(crate) fn all(&self) -> Vec<Arc<StreamState>> {
        let streams = self.streams.read();
        streams.values().flat_map(|own| own.values().cloned()).collect()
    }

    /// Finds a stream; `None` if there is none of this name.
    pub fn find(&self, name: &ResourceName) -> Option<StreamId> {
        self.state(name).map(|stream| stream.id)
    }

    /// Keeps a stream as it is; `None` if there is none of this name.
    pub async fn pin(&self, name: &ResourceName) -> Option<Pinned> {
        let gate = Arc::clone(&self.state(name)?.lasting.gate).lock_owned().await;
        let stream = self.state(name)?;
        Some(Pinned {
            id: stream.id,
            created: stream.record.created(),
            on_demand: stream.record.on_demand,
            _gate: gate,
        })
    }

    /// Names the room that keeps the channels. Only the first one counts.
    pub fn attach(&self, channels: Weak<dyn Channels>) {
        // A second one would be an error of the composition, and there is none to tell.
        let _ = self.channels.set(channels);
    }

    pub(crate) fn channels(&self) -> Option<Arc<dyn Channels>> {
        self.channels.get()?.upgrade()
    }

    /// Tells of every deletion from now on. A listener that lags behind is told so and asks [`DataStreams::find`].
    pub fn deletions(&self) -> broadcast::Receiver<StreamDeleted> {
        self.deletions.subscribe()
    }

    /// The stream that a request names by name, by ARN, or by both, if the caller may do with it what the request is for.
    /// A stream of another account is there for those whom its policy lets in.
    pub(crate) fn resolve<O: WireOperation>(
        &self,
        caller: &Caller,
        (name, arn): (Option<&str>, Option<&str>),
    ) -> Result<Arc<StreamState>, ApiError> {
        let wanted = match (name, arn) {
            (_, Some(arn)) => parse_stream_arn(arn).ok_or_else(|| invalid("StreamARN is not the ARN of a stream."))?,
            (Some(name), None) => ResourceName {
                account: caller.account,
                region: caller.region.clone(),
                name: name.to_owned(),
            },
            (None, None) => return Err(invalid("Either StreamName or StreamARN must be given.")),
        };
        if name.is_some_and(|name| name != wanted.name) {
            return Err(invalid("StreamName and StreamARN name different streams."));
        }
        let stream = self.state(&wanted);
        let stream = stream.ok_or_else(|| stream_not_found(&wanted.name, wanted.account))?;
        self.admit::<O>(caller, &stream, stream.policy.as_ref(), &stream.arn)?;
        Ok(stream)
    }

    /// What the registry does for other operations: asks the caller's policy too, for a stream that a token names.
    pub(crate) fn permit<O: WireOperation>(&self, caller: &Caller, stream: &StreamState) -> Result<(), ApiError> {
        self.admit::<O>(caller, stream, stream.policy.as_ref(), &stream.arn)?;
        match caller.authorizer.allows(O::INFO.action, &stream.arn) {
            true => Ok(()),
            false => Err(wire::denied(O::INFO, caller, &stream.arn)),
        }
    }

    /// Lets a caller of the stream's own account pass unless `policy` shuts it out, and one of another account only if
    /// `policy` lets it in.
    pub(crate) fn admit<O: WireOperation>(
        &self,
        caller: &Caller,
        stream: &StreamState,
        policy: Option<&ResourcePolicy>,
        resource: &str,
    ) -> Result<(), ApiError> {
        let own = stream.name.account == caller.account && stream.name.region == caller.region;
        let verdict = policy.map_or(Verdict::Silent, |p| p.verdict(caller, O::INFO.action, resource));
        match (verdict, own) {
            (Verdict::Denied, true) => Err(wire::denied(O::INFO, caller, resource)),
            (Verdict::Silent, true) => Ok(()),
            (Verdict::Allowed, _) if stream.name.region == caller.region => Ok(()),
            (_, _) => Err(stream_not_found(&stream.name.name, stream.name.account)),
        }
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
            let Some(mut record) = this.stored.create(&name, wanted).await.map_err(catalog_failure)? else {
                return Ok(None);
            };
            let id = StreamId(record.id);
            if let Err(error) = this.make_shards(id, &record.shards).await {
                this.stored.delete(&name, id).await.map_err(catalog_failure)?;
                this.finish_deletion(id).await;
                return Err(log_failure(error, &name.name, name.account));
            }
            record.ready = true;
            this.stored.replace(&name, &record).await.map_err(catalog_failure)?;
            this.remember(name, record, Arc::default());
            Ok(Some(()))
        }))
        .await
    }

    /// Deletes a stream: its name is free and its records unreachable when this answers.
    pub(crate) async fn delete(&self, stream: &StreamState) -> Result<(), ApiError> {
        let (name, id) = (stream.name.clone(), stream.id);
        self.detached(stream, move |this| async move {
            let current = this.current(&name, id)?;
            has_queues(&current.record, &name)?;
            has_channels(this.channels().map_or(0, |channels| channels.of_stream(&name)), &name)?;
            if !this.stored.delete(&name, id).await.map_err(catalog_failure)? {
                return Err(stream_not_found(&name.name, name.account));
            }
            this.forget(&current);
            // Nobody may be listening.
            let _ = this.deletions.send(StreamDeleted { name, id });
            this.finish_deletion(id).await;
            Ok(())
        })
        .await
    }

    /// Changes a stream's record as `change` decides; an error of it leaves all as it was.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        stream: &StreamState,
        change: impl FnOnce(&mut StreamRecord) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (name, id) = (stream.name.clone(), stream.id);
        self.detached(stream, move |this| async move {
            let current = this.current(&name, id)?;
            let mut record = current.record.clone();
            let answer = change(&mut record)?;
            if record != current.record {
                this.write(&current, record).await?;
            }
            Ok(answer)
        })
        .await
    }

    /// Does something to a stream while nobody else changes it; goes on when the caller has gone.
    pub(crate) async fn detached<T: Send + 'static, F: Future<Output = Result<T, ApiError>> + Send + 'static>(
        &self,
        stream: &StreamState,
        work: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) -> Result<T, ApiError> {
        let this = self.shared()?;
        let gate = Arc::clone(&stream.lasting.gate);
        joined(tokio::spawn(async move {
            let _alone = gate.lock_owned().await;
            work(this).await
        }))
        .await
    }

    /// A stream as it is now, if it is still the same one.
    pub(crate) fn current(&self, name: &ResourceName, id: StreamId) -> Result<Arc<StreamState>, ApiError> {
        let current = self.state(name).filter(|s| s.id == id);
        current.ok_or_else(|| stream_not_found(&name.name, name.account))
    }

    /// Writes a stream's record and lets it hold from now on. Called with the stream's gate held.
    pub(crate) async fn write(&self, stream: &StreamState, record: StreamRecord) -> Result<Arc<StreamState>, ApiError> {
        self.write_with(stream, record, Vec::new()).await
    }

    /// The same in one commit with what belongs to it.
    pub(crate) async fn write_with(
        &self,
        stream: &StreamState,
        record: StreamRecord,
        more: Vec<Change>,
    ) -> Result<Arc<StreamState>, ApiError> {
        let written = self
            .stored
            .replace_with(&stream.name, &record, more)
            .await
            .map_err(catalog_failure)?;
        if !written {
            return Err(stream_not_found(&stream.name.name, stream.name.account));
        }
        Ok(self.remember(stream.name.clone(), record, Arc::clone(&stream.lasting)))
    }

    /// Tells of every change of a stream from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Wakes those who wait for a change.
    pub(crate) fn announce(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn shared(&self) -> Result<Arc<Self>, ApiError> {
        let stopped = || ApiError::server("InternalFailure", "The server is stopping.", "the service was dropped");
        self.this.upgrade().ok_or_else(stopped)
    }

    pub(crate) async fn make_shards(&self, id: StreamId, shards: &[ShardRecord]) -> Result<(), storage::Error> {
        let make = |shard: &ShardRecord| {
            let created = Timestamp::from_millis(shard.created_ms);
            self.records.create_shard(id, ShardId(shard.number), created)
        };
        try_join_all(shards.iter().map(make)).await.map(drop)
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

    fn remember(&self, name: ResourceName, record: StreamRecord, lasting: Arc<Lasting>) -> Arc<StreamState> {
        let data_key = record.data_key.as_deref().and_then(|sealed| {
            let opened = DataKey::open(sealed, record.id, &self.key_ring, self.clock.now());
            opened
                .inspect_err(
                    |error| tracing::error!(%error, stream = name.name, "a stream's data key cannot be opened"),
                )
                .ok()
        });
        let stream = Arc::new(StreamState::new(name.clone(), record, lasting, data_key));
        self.queues.know(&stream);
        let mut streams = self.streams.write();
        let own = streams.entry((name.account, name.region)).or_default();
        own.insert(name.name, Arc::clone(&stream));
        drop(streams);
        self.announce();
        stream
    }

    fn forget(&self, stream: &StreamState) {
        let mut streams = self.streams.write();
        let name = &stream.name;
        if let Some(own) = streams.get_mut(&(name.account, name.region.clone()))
            && own.get(&name.name).is_some_and(|s| s.id == stream.id)
        {
            own.remove(&name.name);
        }
        drop(streams);
        self.announce();
    }
}

/// The answer of a task that outlives its caller.
async fn joined<T>(task: tokio::task::JoinHandle<Result<T, ApiError>>) -> Result<T, ApiError> {
    let ended = task.await;
    ended.unwrap_or_else(|error| Err(ApiError::server("InternalFailure", "The request was cut off.", error)))
}
