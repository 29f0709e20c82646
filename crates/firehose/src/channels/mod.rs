//! The channels of Kinesis Data Streams: each reads one data stream, from the moment it is made, and delivers it to S3 by
//! the same engine as a delivery stream: exactly one object for each buffer, over a crash.
//!
//! The channels are held in memory as the catalog has them. A stream that has some is not deleted: the port
//! [`data_streams::ports::Channels`] tells data streams of them, and a channel is made while its stream is pinned.

mod body;
mod control;
pub mod limits;
mod stored;
mod template;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use auth::KeyRing;
use base::{AccountId, ApiError, Caller, Clock, Region, ResourceName};
use data_streams::ports::{TagChange, Tags};
use data_streams::{DataStreams, Pinned};
use parking_lot::{Mutex, RwLock};
use storage::{Catalog, CatalogError};
use wire::Registry;
use wire::kinesis::{RecordFormatType, S3CompressionType, op};

pub use body::Body;
pub use stored::{ChannelRecord, Logging};
pub use template::{Fixed, Template};

use crate::deliver::{ChannelObjects, Engine, KinesisSource, Place, Status, Target, Work};
use crate::error::catalog_failure;
use crate::service::Firehose;
use crate::types::{About, Refused};
use stored::Records;

/// What the service is built on.
pub struct Parts {
    /// Keeps the channels.
    pub catalog: Arc<dyn Catalog>,
    /// The data streams that are read.
    pub streams: Arc<DataStreams>,
    /// Whose engine delivers.
    pub firehose: Arc<Firehose>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Seals page tokens.
    pub key_ring: Arc<KeyRing>,
}

/// A channel that exists, as it is between two changes.
pub(crate) struct ChannelState {
    pub name: ResourceName,
    pub record: ChannelRecord,
    pub status: Arc<Status>,
    /// Held by whoever changes it: one change at a time.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl ChannelState {
    pub fn arn(&self) -> String {
        channel_arn(&self.name, &self.record.id)
    }

    pub fn stream(&self) -> ResourceName {
        ResourceName {
            name: self.record.stream.clone(),
            ..self.name.clone()
        }
    }
}

/// `arn:aws:kinesis:REGION:ACCOUNT:channel/ID`
fn channel_arn(name: &ResourceName, id: &str) -> String {
    format!("arn:aws:kinesis:{}:{}:channel/{id}", name.region, name.account)
}

type Held = HashMap<(AccountId, Region), BTreeMap<String, Arc<ChannelState>>>;

/// The channels. Always behind an [`Arc`].
pub struct Channels {
    streams: Arc<DataStreams>,
    firehose: Arc<Firehose>,
    clock: Arc<dyn Clock>,
    key_ring: Arc<KeyRing>,
    stored: Records,
    held: RwLock<Held>,
    /// Numbers of deleted channels of which something is left.
    unfinished: Mutex<Vec<u64>>,
    /// For the work that goes on when its caller has gone.
    this: Weak<Channels>,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channels")
    }
}

impl Channels {
    /// Reads the channels of the catalog, goes on with what was under way, and finishes deletions that were cut off.
    pub async fn open(parts: Parts) -> Result<Arc<Self>, CatalogError> {
        let service = Arc::new_cyclic(|this: &Weak<Channels>| Channels {
            streams: parts.streams,
            firehose: parts.firehose,
            clock: parts.clock,
            key_ring: parts.key_ring,
            stored: Records::new(parts.catalog),
            held: RwLock::default(),
            unfinished: Mutex::default(),
            this: this.clone(),
        });
        let (channels, deleting) = service.stored.load().await?;
        for (name, record) in channels {
            let state = service.state_of(name, record, None);
            service.keep(&state);
            service.start(&state);
        }
        for number in deleting {
            service.finish_deletion(number).await;
        }
        let port: Weak<dyn data_streams::ports::Channels> = service.this.clone();
        service.streams.attach(port);
        Ok(service)
    }

    /// Lets the registry call this service.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry
            .register::<op::CreateChannel, _>(self)
            .register::<op::DeleteChannel, _>(self)
            .register::<op::DescribeChannel, _>(self)
            .register::<op::ListChannels, _>(self)
            .register::<op::UpdateChannel, _>(self);
    }

    /// The work behind the calls, for ever: finishes deletions that met an error.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(crate::limits::SWEEP_INTERVAL_MS)).await;
            let unfinished = std::mem::take(&mut *self.unfinished.lock());
            for number in unfinished {
                self.finish_deletion(number).await;
            }
        }
    }

    /// The channel of an ARN, if it is the caller's.
    fn find(&self, caller: &Caller, arn: &str) -> Result<Arc<ChannelState>, ApiError> {
        let held = self.held.read();
        let own = held.get(&(caller.account, caller.region.clone()));
        let found = own.and_then(|own| own.values().find(|state| state.arn() == arn).cloned());
        found.ok_or_else(|| {
            let message = format!("Channel {arn} under account {} not found.", caller.account);
            ApiError::client("ResourceNotFoundException", message)
        })
    }

    /// The caller's channels behind `after` that `wanted` accepts, at most `limit`, and whether there are more.
    fn list(
        &self,
        caller: &Caller,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&ChannelState) -> bool,
    ) -> (Vec<Arc<ChannelState>>, bool) {
        let held = self.held.read();
        let Some(own) = held.get(&(caller.account, caller.region.clone())) else {
            return (Vec::new(), false);
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = own.range::<str, _>((start, Bound::Unbounded));
        let mut found = range.map(|(_, state)| state).filter(|state| wanted(state)).cloned();
        let page: Vec<_> = found.by_ref().take(limit).collect();
        (page, found.next().is_some())
    }

    /// Where reading begins: behind what the stream has now. Nothing is delivered that was there before.
    async fn tips(&self, stream: &ResourceName, pinned: &Pinned) -> Result<Vec<(u32, Place)>, ApiError> {
        let failed =
            |e: &dyn std::fmt::Display| ApiError::server("InternalFailureException", "The stream cannot be read.", e);
        let mut places = Vec::new();
        for shard in self.streams.shards(stream, pinned.id).unwrap_or_default() {
            let place = match shard.closed {
                true => Place::End,
                false => Place::from(self.streams.tip(pinned.id, shard.shard).await.map_err(|e| failed(&e))?),
            };
            places.push((shard.shard.0, place));
        }
        Ok(places)
    }

    /// Makes a channel. Goes on when the caller has gone.
    async fn create(
        &self,
        name: ResourceName,
        mut record: ChannelRecord,
        pinned: Pinned,
    ) -> Result<Arc<ChannelState>, ApiError> {
        let this = self.shared()?;
        let task = tokio::spawn(async move {
            let stream = ResourceName {
                name: record.stream.clone(),
                ..name.clone()
            };
            let places = this.tips(&stream, &pinned).await?;
            record.number = this.stored.next_number().await.map_err(catalog_failure)?;
            let begin = Engine::begin(record.number, pinned.id.0, places).map_err(catalog_failure)?;
            if !this
                .stored
                .create(&name, &record, begin)
                .await
                .map_err(catalog_failure)?
            {
                return Err(control::name_taken(&name));
            }
            let state = this.state_of(name, record, None);
            this.keep(&state);
            this.start(&state);
            drop(pinned);
            Ok(state)
        });
        joined(task).await
    }

    /// Deletes a channel: nothing more is delivered when this answers.
    async fn delete(&self, state: &Arc<ChannelState>) -> Result<(), ApiError> {
        self.alone(state, |this, state| async move {
            let number = state.record.number;
            if !this.stored.delete(&state.name, number).await.map_err(catalog_failure)? {
                return Err(control::gone(&state));
            }
            if let Some(own) = this
                .held
                .write()
                .get_mut(&(state.name.account, state.name.region.clone()))
            {
                own.remove(&state.name.name);
            }
            this.finish_deletion(number).await;
            state.status.forget();
            Ok(())
        })
        .await
    }

    /// Deletes what lies under the number of a channel that is gone. A failure is tried again by the next sweep.
    async fn finish_deletion(&self, number: u64) {
        let engine = self.firehose.engine();
        engine.stop(number).await;
        let gone = match engine.forget(number).await {
            Ok(()) => self.stored.deleted(number).await,
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            tracing::warn!(%error, channel = number, "something of a deleted channel is still there");
            self.unfinished.lock().push(number);
        }
    }

    /// Changes a record as `change` decides; an error of it leaves all as it was. Delivery goes on by what was changed.
    async fn change(
        &self,
        state: &Arc<ChannelState>,
        change: impl FnOnce(&mut ChannelRecord) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<Arc<ChannelState>, ApiError> {
        self.alone(state, |this, state| async move {
            let mut record = state.record.clone();
            change(&mut record)?;
            if record == state.record {
                return Ok(state);
            }
            if !this
                .stored
                .replace(&state.name, &record)
                .await
                .map_err(catalog_failure)?
            {
                return Err(control::gone(&state));
            }
            let anew = record.freshness_s != state.record.freshness_s;
            let changed = this.state_of(state.name.clone(), record, Some(&state));
            this.keep(&changed);
            if anew {
                this.firehose.engine().stop(changed.record.number).await;
                this.start(&changed);
            }
            Ok(changed)
        })
        .await
    }

    /// Does something to a channel while nobody else changes it; goes on when the caller has gone.
    async fn alone<T: Send + 'static, F: Future<Output = Result<T, ApiError>> + Send + 'static>(
        &self,
        state: &Arc<ChannelState>,
        work: impl FnOnce(Arc<Self>, Arc<ChannelState>) -> F + Send + 'static,
    ) -> Result<T, ApiError> {
        let (this, state) = (self.shared()?, Arc::clone(state));
        joined(tokio::spawn(async move {
            let _alone = Arc::clone(&state.gate).lock_owned().await;
            let current = {
                let held = this.held.read();
                let own = held.get(&(state.name.account, state.name.region.clone()));
                own.and_then(|own| own.get(&state.name.name).cloned())
            };
            let current = current.filter(|current| current.record.number == state.record.number);
            work(Arc::clone(&this), current.ok_or_else(|| control::gone(&state))?).await
        }))
        .await
    }

    fn shared(&self) -> Result<Arc<Self>, ApiError> {
        let stopped = || ApiError::server("InternalFailure", "The server is stopping.", "the service was dropped");
        self.this.upgrade().ok_or_else(stopped)
    }

    fn state_of(&self, name: ResourceName, record: ChannelRecord, old: Option<&ChannelState>) -> Arc<ChannelState> {
        let fresh = || Status::new(self.firehose.meters(), &channel_arn(&name, &record.id));
        Arc::new(ChannelState {
            status: old.map_or_else(fresh, |old| Arc::clone(&old.status)),
            gate: old.map(|old| Arc::clone(&old.gate)).unwrap_or_default(),
            name,
            record,
        })
    }

    fn keep(&self, state: &Arc<ChannelState>) {
        let mut held = self.held.write();
        let own = held.entry((state.name.account, state.name.region.clone())).or_default();
        own.insert(state.name.name.clone(), Arc::clone(state));
    }

    /// Lets the engine deliver.
    fn start(&self, state: &ChannelState) {
        match target(state) {
            Ok(target) => self.firehose.engine().start(Work {
                id: state.record.number,
                source: Arc::new(KinesisSource::new(Arc::clone(&self.streams), state.stream())),
                target: Arc::new(target),
                status: Arc::clone(&state.status),
            }),
            // Its record was checked when it was made.
            Err(Refused(why)) => state.status.cannot(&why),
        }
    }
}

/// Where a channel delivers to. Also asked when it is made, so that what cannot be carried out is refused then.
fn target(state: &ChannelState) -> Result<Target, Refused> {
    let record = &state.record;
    let unknown = |what: &str| Refused(format!("The channel has an unknown {what}."));
    let format: RecordFormatType = record.format.parse().map_err(|_| unknown("record format"))?;
    let compression: S3CompressionType = record.compression.parse().map_err(|_| unknown("compression"))?;
    let fixed = Fixed {
        channel: &state.name.name,
        id: &record.id,
        stream: &record.stream,
        extension: body::extension(compression),
    };
    let stream_arn = data_streams::stream_arn(&state.stream());
    let about = About {
        account: state.name.account,
        region: state.name.region.clone(),
        name: state.name.name.clone(),
        arn: state.arn(),
        source_arn: Some(stream_arn.clone()),
    };
    Ok(Target::channel(
        ChannelObjects {
            bucket: record.bucket.clone(),
            template: Template::parse(record.template.as_deref().unwrap_or(template::DEFAULT), fixed)?,
            body: Body {
                records: format,
                compression,
                stream_arn,
            },
            error_bucket: record.error_bucket.clone(),
            error_prefix: record.error_prefix.clone(),
        },
        limits::buffering(record.freshness_s),
        about,
    ))
}

#[async_trait]
impl data_streams::ports::Channels for Channels {
    fn of_stream(&self, stream: &ResourceName) -> usize {
        let held = self.held.read();
        let own = held.get(&(stream.account, stream.region.clone()));
        own.map_or(0, |own| {
            own.values().filter(|state| state.record.stream == stream.name).count()
        })
    }

    fn of_account(&self, account: AccountId, region: &Region) -> (usize, usize) {
        let held = self.held.read();
        let own = held.get(&(account, region.clone())).map_or(0, BTreeMap::len);
        (own, limits::CHANNELS_PER_ACCOUNT_MAX)
    }

    fn tags(&self, caller: &Caller, arn: &str) -> Result<Tags, ApiError> {
        Ok(self.find(caller, arn)?.record.tags.clone())
    }

    async fn change_tags(&self, caller: &Caller, arn: &str, change: TagChange) -> Result<(), ApiError> {
        let state = self.find(caller, arn)?;
        self.change(&state, move |record| change(&mut record.tags))
            .await
            .map(drop)
    }
}

/// The answer of a task that outlives its caller.
async fn joined<T>(task: tokio::task::JoinHandle<Result<T, ApiError>>) -> Result<T, ApiError> {
    let ended = task.await;
    ended.unwrap_or_else(|error| Err(ApiError::server("InternalFailure", "The request was cut off.", error)))
}
