//! The service: its parts, the delivery streams it holds in memory, and the work that it gives to the engine.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use auth::{Form, KeyRing};
use base::metrics::{MetricError, Metrics};
use base::{AccountId, ApiError, Caller, Clock, Region, ResourceName, Timestamp};
use data_streams::DataStreams;
use parking_lot::{Mutex, RwLock};
use storage::{Catalog, CatalogError, RecordLog, StreamId};
use wire::Registry;
use wire::firehose::op;

use crate::deliver::{Engine, KinesisSource, Meters, Place, Source, Status, Target, Work};
use crate::endpoints::Secrets;
use crate::error::{catalog_failure, in_use, log_failure, not_found};
use crate::intake::{self, Intake, SHARD};
use crate::limits;
use crate::ports::Ports;
use crate::stored::{Records, StreamRecord};
use crate::types::{About, Refused};

/// What the service is built on.
pub struct Parts {
    /// Keeps the delivery streams.
    pub catalog: Arc<dyn Catalog>,
    /// Keeps records that are put directly.
    pub records: Arc<dyn RecordLog>,
    /// The data streams that are read.
    pub streams: Arc<DataStreams>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Seals keys and secrets.
    pub key_ring: Arc<KeyRing>,
    /// Where counters are registered.
    pub metrics: Metrics,
    /// Buckets, endpoints, functions, conversion.
    pub ports: Ports,
    /// What the operator chose.
    pub settings: Settings,
}

/// What the operator chose.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of records that all delivery streams together hold in memory.
    pub memory_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            memory_bytes: limits::MEMORY_BYTES_DEFAULT,
        }
    }
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The delivery streams could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// What a delivery stream keeps could not be opened.
    #[error("delivery stream {name}: {why}")]
    Stream {
        /// The delivery stream.
        name: String,
        /// What went wrong.
        why: String,
    },
    /// Two services count under one name.
    #[error(transparent)]
    Metrics(#[from] MetricError),
}

/// A delivery stream that exists, as it is between two changes.
pub(crate) struct StreamState {
    pub name: ResourceName,
    pub arn: String,
    pub record: StreamRecord,
    pub status: Arc<Status>,
    /// Where records are put; none where a data stream is read.
    pub intake: Option<Arc<Intake>>,
    /// Held by whoever changes it: one change at a time.
    gate: Arc<tokio::sync::Mutex<()>>,
}

type Streams = HashMap<(AccountId, Region), BTreeMap<String, Arc<StreamState>>>;

/// Delivery streams. Always behind an [`Arc`].
pub struct Firehose {
    pub(crate) log: Arc<dyn RecordLog>,
    pub(crate) streams: Arc<DataStreams>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) key_ring: Arc<KeyRing>,
    pub(crate) ports: Ports,
    meters: Meters,
    stored: Records,
    engine: Engine,
    held: RwLock<Streams>,
    /// Numbers of deleted delivery streams of which something is left.
    unfinished: Mutex<Vec<u64>>,
    /// For the work that goes on when its caller has gone.
    this: Weak<Firehose>,
}

impl std::fmt::Debug for Firehose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Firehose")
    }
}

/// `arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME`
pub fn delivery_stream_arn(name: &ResourceName) -> String {
    let ResourceName { account, region, name } = name;
    format!("arn:aws:firehose:{region}:{account}:deliverystream/{name}")
}

impl Firehose {
    /// Reads the delivery streams of the catalog, and goes on with what was under way.
    pub async fn open(parts: Parts) -> Result<Arc<Self>, StartError> {
        let meters = Meters::new(&parts.metrics)?;
        let memory = parts.settings.memory_bytes;
        let engine = Engine::new(parts.catalog.clone(), parts.clock.clone(), parts.ports.clone(), memory);
        let service = Arc::new_cyclic(|this| Firehose {
            log: parts.records,
            streams: parts.streams,
            clock: parts.clock,
            key_ring: parts.key_ring,
            ports: parts.ports,
            meters,
            stored: Records::new(parts.catalog),
            engine,
            held: RwLock::default(),
            unfinished: Mutex::default(),
            this: this.clone(),
        });
        let (streams, deleting) = service.stored.load().await?;
        *service.unfinished.lock() = deleting;
        for (name, record) in streams {
            let failed = |why: String| StartError::Stream {
                name: name.name.clone(),
                why,
            };
            let state = service.state_of(name.clone(), record, None);
            if state.intake.is_some() {
                service.resume_intake(&state).await.map_err(failed)?;
            }
            service.keep(&state);
            service.start(&state);
        }
        Ok(service)
    }

    /// Makes the shard of an intake, should its creation have been cut off, and counts what waits.
    async fn resume_intake(&self, state: &StreamState) -> Result<(), String> {
        let Some(intake) = state.intake.clone() else {
            return Ok(());
        };
        let id = state.record.id;
        let created = Timestamp::from_millis(state.record.created_ms);
        let shard = self.log.create_shard(StreamId(id), SHARD, created).await;
        shard.map_err(|e| e.to_string())?;
        let tip = intake.tip().await.map_err(|e| e.to_string())?;
        let from = self.engine.undelivered(id, SHARD).await.map_err(|e| e.to_string())?;
        let Some(from) = from else { return Ok(()) };
        let name = state.name.name.clone();
        tokio::spawn(async move {
            if let Err(error) = intake.count(from, tip).await {
                tracing::warn!(%error, delivery_stream = name, "what waits for delivery could not be counted");
            }
        });
        Ok(())
    }

    /// Lets the registry call this service.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry
            .register::<op::CreateDeliveryStream, _>(self)
            .register::<op::DeleteDeliveryStream, _>(self)
            .register::<op::DescribeDeliveryStream, _>(self)
            .register::<op::ListDeliveryStreams, _>(self)
            .register::<op::ListTagsForDeliveryStream, _>(self)
            .register::<op::PutRecord, _>(self)
            .register::<op::PutRecordBatch, _>(self)
            .register::<op::StartDeliveryStreamEncryption, _>(self)
            .register::<op::StopDeliveryStreamEncryption, _>(self)
            .register::<op::TagDeliveryStream, _>(self)
            .register::<op::UntagDeliveryStream, _>(self)
            .register::<op::UpdateDestination, _>(self);
    }

    /// The engine, for others who have work for it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The counters, for others who have work for the engine.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// The work behind the calls, for ever: forgets delivered records and those that are too old, and finishes deletions
    /// that were cut off.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.sweep().await;
            tokio::time::sleep(Duration::from_millis(limits::SWEEP_INTERVAL_MS)).await;
        }
    }

    /// One round of [`Firehose::run`].
    pub async fn sweep(&self) {
        let unfinished = std::mem::take(&mut *self.unfinished.lock());
        for id in unfinished {
            self.finish_deletion(id).await;
        }
        let horizon = self.clock.now().plus_millis(-limits::RETENTION_MS);
        for state in self.all() {
            let Some(intake) = state.intake.as_ref().filter(|intake| intake.is_busy()) else {
                continue;
            };
            let trimmed = match self.engine.undelivered(state.record.id, SHARD).await {
                Ok(Some(from)) => intake.trim(from, horizon).await.map_err(|e| e.to_string()),
                Ok(None) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = trimmed {
                tracing::warn!(
                    error,
                    delivery_stream = state.arn,
                    "delivered records could not be forgotten"
                );
            }
        }
    }

    /// Ends all deliveries, for a server that ends. What is under way is finished if that takes not too long.
    pub async fn stop(&self) {
        self.engine.stop_all().await;
    }

    fn all(&self) -> Vec<Arc<StreamState>> {
        let held = self.held.read();
        held.values().flat_map(|own| own.values().cloned()).collect()
    }

    pub(crate) fn find(&self, caller: &Caller, name: &str) -> Result<Arc<StreamState>, ApiError> {
        let name = ResourceName {
            account: caller.account,
            region: caller.region.clone(),
            name: name.to_owned(),
        };
        self.state(&name).ok_or_else(|| not_found(&name.name, name.account))
    }

    pub(crate) fn state(&self, name: &ResourceName) -> Option<Arc<StreamState>> {
        let held = self.held.read();
        held.get(&(name.account, name.region.clone()))?.get(&name.name).cloned()
    }

    /// The caller's delivery streams behind `after` that `wanted` accepts, at most `limit`, and whether there are more.
    pub(crate) fn list(
        &self,
        caller: &Caller,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&StreamState) -> bool,
    ) -> (Vec<String>, bool) {
        let held = self.held.read();
        let Some(own) = held.get(&(caller.account, caller.region.clone())) else {
            return (Vec::new(), false);
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = own.range::<str, _>((start, Bound::Unbounded));
        let mut found = range.filter(|(_, state)| wanted(state)).map(|(name, _)| name.clone());
        let page: Vec<String> = found.by_ref().take(limit).collect();
        (page, found.next().is_some())
    }

    /// How many delivery streams an account has in a region.
    pub(crate) fn count(&self, account: AccountId, region: &Region) -> usize {
        let held = self.held.read();
        held.get(&(account, region.clone())).map_or(0, BTreeMap::len)
    }

    /// What the modules are told of a delivery stream.
    pub(crate) fn about(name: &ResourceName, source_arn: Option<&str>) -> About {
        About {
            account: name.account,
            region: name.region.clone(),
            name: name.name.clone(),
            arn: delivery_stream_arn(name),
            source_arn: source_arn.map(str::to_owned),
        }
    }

    /// Makes a delivery stream. Goes on when the caller has gone.
    pub(crate) async fn create(
        &self,
        name: ResourceName,
        mut record: StreamRecord,
        secrets: Secrets,
        (encrypted, source, places): (bool, StreamId, Vec<(u32, Place)>),
    ) -> Result<(), ApiError> {
        let this = self.shared()?;
        let task = tokio::spawn(async move {
            record.id = this.stored.next_id().await.map_err(catalog_failure)?;
            record.secrets = this.seal_secrets(record.id, &secrets)?;
            if encrypted {
                let key = intake::make_key(&this.key_ring, record.id);
                record.data_key =
                    Some(key.map_err(|e| ApiError::server("InternalFailure", "No key could be made.", e))?);
            }
            let direct = record.source.is_none();
            // The row of a data stream names that; a delivery stream's own log has its own number.
            let read = if direct { record.id } else { source.0 };
            let begin = Engine::begin(record.id, read, places).map_err(catalog_failure)?;
            if !this
                .stored
                .create(&name, &record, begin)
                .await
                .map_err(catalog_failure)?
            {
                return Err(in_use(&name.name, name.account));
            }
            if direct {
                let made = Timestamp::from_millis(record.created_ms);
                let shard = this.log.create_shard(StreamId(record.id), SHARD, made).await;
                if let Err(error) = shard {
                    this.stored.delete(&name, record.id).await.map_err(catalog_failure)?;
                    this.finish_deletion(record.id).await;
                    return Err(log_failure(error));
                }
            }
            let state = this.state_of(name, record, None);
            this.keep(&state);
            this.start(&state);
            Ok(())
        });
        joined(task).await
    }

    /// Deletes a delivery stream: its name is free and nothing more is delivered when this answers.
    pub(crate) async fn delete(&self, state: &Arc<StreamState>) -> Result<(), ApiError> {
        let (name, id) = (state.name.clone(), state.record.id);
        self.alone(state, move |this, state| async move {
            if !this.stored.delete(&name, id).await.map_err(catalog_failure)? {
                return Err(not_found(&name.name, name.account));
            }
            {
                let mut held = this.held.write();
                if let Some(own) = held.get_mut(&(name.account, name.region.clone())) {
                    own.remove(&name.name);
                }
            }
            this.finish_deletion(id).await;
            state.status.forget();
            Ok(())
        })
        .await
    }

    /// Deletes what lies under the number of a delivery stream that is gone. A failure is tried again by the next sweep.
    async fn finish_deletion(&self, id: u64) {
        self.engine.stop(id).await;
        let rows = self.engine.forget(id).await.map_err(|e| e.to_string());
        let log = match self.log.delete_stream(StreamId(id)).await {
            Ok(()) | Err(storage::Error::NotFound) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let gone = match rows.and(log) {
            Ok(()) => self.stored.deleted(id).await.map_err(|e| e.to_string()),
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            tracing::warn!(
                error,
                stream = id,
                "something of a deleted delivery stream is still there"
            );
            self.unfinished.lock().push(id);
        }
    }

    /// Changes a record as `change` decides; an error of it leaves all as it was.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        state: &Arc<StreamState>,
        change: impl FnOnce(&Firehose, &mut StreamRecord) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.alone(state, move |this, current| async move {
            let mut record = current.record.clone();
            let answer = change(&this, &mut record)?;
            if record == current.record {
                return Ok(answer);
            }
            if !this
                .stored
                .replace(&current.name, &record)
                .await
                .map_err(catalog_failure)?
            {
                return Err(not_found(&current.name.name, current.name.account));
            }
            let anew = record.version != current.record.version;
            let id = record.id;
            let changed = this.state_of(current.name.clone(), record, Some(&current));
            this.keep(&changed);
            if anew {
                this.engine.stop(id).await;
                this.start(&changed);
            }
            Ok(answer)
        })
        .await
    }

    /// Does something to a delivery stream while nobody else changes it; goes on when the caller has gone.
    async fn alone<T: Send + 'static, F: Future<Output = Result<T, ApiError>> + Send + 'static>(
        &self,
        state: &Arc<StreamState>,
        work: impl FnOnce(Arc<Self>, Arc<StreamState>) -> F + Send + 'static,
    ) -> Result<T, ApiError> {
        let this = self.shared()?;
        let (gate, name, id) = (Arc::clone(&state.gate), state.name.clone(), state.record.id);
        joined(tokio::spawn(async move {
            let _alone = gate.lock_owned().await;
            let current = this.state(&name).filter(|s| s.record.id == id);
            let current = current.ok_or_else(|| not_found(&name.name, name.account))?;
            work(this, current).await
        }))
        .await
    }

    fn shared(&self) -> Result<Arc<Self>, ApiError> {
        let stopped = || ApiError::server("InternalFailure", "The server is stopping.", "the service was dropped");
        self.this.upgrade().ok_or_else(stopped)
    }

    /// The state of a record; `old` is what it was before a change.
    fn state_of(&self, name: ResourceName, record: StreamRecord, old: Option<&StreamState>) -> Arc<StreamState> {
        let arn = delivery_stream_arn(&name);
        let status = old.map_or_else(|| Status::new(&self.meters, &arn), |old| Arc::clone(&old.status));
        let intake = record.source.is_none().then(|| {
            let intake = old.and_then(|old| old.intake.clone());
            let fresh = || Arc::new(Intake::new(self.log.clone(), StreamId(record.id), &name, status.clone()));
            let intake = intake.unwrap_or_else(fresh);
            let key = record.data_key.as_deref().and_then(|sealed| {
                let opened = intake::open_key(&self.key_ring, record.id, self.clock.now(), sealed);
                let told = |e: &auth::SealError| tracing::error!(error = %e, delivery_stream = arn, "its key cannot be opened");
                opened.inspect_err(told).ok()
            });
            intake.set_key(key, record.encryption.is_some());
            intake
        });
        Arc::new(StreamState {
            arn,
            status,
            intake,
            gate: old.map(|old| Arc::clone(&old.gate)).unwrap_or_default(),
            name,
            record,
        })
    }

    fn keep(&self, state: &Arc<StreamState>) {
        let mut held = self.held.write();
        let own = held.entry((state.name.account, state.name.region.clone())).or_default();
        own.insert(state.name.name.clone(), Arc::clone(state));
    }

    /// Lets the engine deliver. A destination that cannot be made ready any more (its schema or its worker is gone from the
    /// configuration) is told of by DescribeDeliveryStream.
    fn start(&self, state: &StreamState) {
        let record = &state.record;
        let source_arn = record.source.as_ref().map(|s| s.stream_arn.as_str());
        let about = Firehose::about(&state.name, source_arn);
        let secrets = self.open_secrets(record);
        let target = Target::open(&record.destination, &secrets, &about, record.version, &self.ports);
        let target = match target {
            Ok(target) => Arc::new(target),
            Err(Refused(why)) => {
                state.status.cannot(&why);
                return;
            }
        };
        let source: Arc<dyn Source> = match (&state.intake, source_arn.and_then(data_streams::parse_stream_arn)) {
            (Some(intake), _) => Arc::clone(intake) as Arc<dyn Source>,
            (None, Some(name)) => Arc::new(KinesisSource::new(self.streams.clone(), name)),
            (None, None) => {
                state.status.cannot("its source is no data stream");
                return;
            }
        };
        self.engine.start(Work {
            id: record.id,
            source,
            target,
            status: Arc::clone(&state.status),
        });
    }

    /// What a destination hides, sealed for its record.
    pub(crate) fn seal_secrets(&self, id: u64, secrets: &Secrets) -> Result<Option<String>, ApiError> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let failed = |e: &dyn std::fmt::Display| ApiError::server("InternalFailure", "A secret could not be kept.", e);
        let plain = serde_json::to_vec(secrets).map_err(|e| failed(&e))?;
        let sealed = self.key_ring.seal(SECRETS, &id.to_string(), None, &plain, Form::Base64);
        sealed.map(Some).map_err(|e| failed(&e))
    }

    /// What a destination hides.
    pub(crate) fn open_secrets(&self, record: &StreamRecord) -> Secrets {
        let Some(sealed) = &record.secrets else {
            return Secrets::new();
        };
        let (id, now) = (record.id.to_string(), self.clock.now());
        let opened = self.key_ring.open(SECRETS, &id, now, sealed, Form::Base64);
        let secrets = opened.ok().and_then(|plain| serde_json::from_slice(&plain).ok());
        secrets.unwrap_or_else(|| {
            tracing::error!(stream = record.id, "the secrets of a destination cannot be opened");
            Secrets::new()
        })
    }
}

/// What secrets are sealed for.
const SECRETS: &str = "delivery-stream-secrets";

/// The answer of a task that outlives its caller.
async fn joined<T>(task: tokio::task::JoinHandle<Result<T, ApiError>>) -> Result<T, ApiError> {
    let ended = task.await;
    ended.unwrap_or_else(|error| Err(ApiError::server("InternalFailure", "The request was cut off.", error)))
}
