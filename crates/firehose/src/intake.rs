//! Records that are put directly: their durable way in, and the source that they are for the engine. They lie in the record
//! log under the delivery stream's own number, in one shard, until they are delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use auth::{DataKey, KeyRing, SealError};
use base::{ApiError, ResourceName, Timestamp};
use bytes::Bytes;
use parking_lot::RwLock;
use storage::{NewRecord, Position, RecordLog, SequenceNumber, ShardId, StreamId};
use tokio::sync::watch;

use crate::deliver::{Batch, Source, SourceError, SourceShard, Status};
use crate::error::{log_failure, not_found, unavailable};
use crate::limits;
use crate::types::{Record, Source as Origin};

/// The only shard.
pub const SHARD: ShardId = ShardId(0);

/// See the module.
pub struct Intake {
    log: Arc<dyn RecordLog>,
    id: StreamId,
    name: ResourceName,
    status: Arc<Status>,
    /// What opens sealed records, and whether new ones are sealed.
    key: RwLock<(Option<DataKey>, bool)>,
    /// Bytes of records that are not delivered.
    backlog: AtomicU64,
    /// Arrival of the newest delivered record.
    delivered_ms: AtomicI64,
    /// Something was delivered since the last sweep.
    busy: AtomicBool,
    changes: watch::Sender<u64>,
}

/// The owner of a delivery stream's key.
fn owner(id: u64) -> String {
    format!("delivery-stream/{id}")
}

/// A fresh key in its sealed form.
pub fn make_key(ring: &KeyRing, id: u64) -> Result<String, SealError> {
    DataKey::make(ring, &owner(id)).map(|(_, sealed)| sealed)
}

/// Opens a sealed key.
pub fn open_key(ring: &KeyRing, id: u64, now: Timestamp, sealed: &str) -> Result<DataKey, SealError> {
    DataKey::open(ring, &owner(id), now, sealed)
}

impl Intake {
    /// The intake of a delivery stream whose shard is there.
    pub fn new(log: Arc<dyn RecordLog>, id: StreamId, name: &ResourceName, status: Arc<Status>) -> Self {
        Intake {
            log,
            id,
            name: name.clone(),
            status,
            key: RwLock::new((None, false)),
            backlog: AtomicU64::new(0),
            delivered_ms: AtomicI64::new(i64::MIN),
            // What a server before this one delivered may still be there.
            busy: AtomicBool::new(true),
            changes: watch::Sender::new(0),
        }
    }

    /// Seals new records, or no more.
    pub fn set_key(&self, key: Option<DataKey>, seal: bool) {
        *self.key.write() = (key, seal);
    }

    /// Stores records; they are durable when it answers. True if they were encrypted.
    pub async fn put(&self, data: Vec<Bytes>, arrival: Timestamp) -> Result<(Vec<SequenceNumber>, bool), ApiError> {
        let (count, bytes) = (data.len(), data.iter().map(Bytes::len).sum::<usize>());
        let waiting = self.backlog.fetch_add(bytes as u64, Ordering::Relaxed);
        let stored = match waiting.saturating_add(bytes as u64) > limits::BACKLOG_BYTES_MAX {
            true => Err(unavailable()),
            false => self.append(data, arrival).await,
        };
        match &stored {
            Ok(_) => self.status.incoming(count, bytes),
            Err(_) => self.take_off(bytes as u64),
        }
        self.status.backlog(self.backlog.load(Ordering::Relaxed));
        stored
    }

    async fn append(&self, data: Vec<Bytes>, arrival: Timestamp) -> Result<(Vec<SequenceNumber>, bool), ApiError> {
        let (key, seal) = self.key.read().clone();
        let failed = |e: SealError| ApiError::server("InternalFailure", "The record could not be encrypted.", e);
        let mut records = Vec::with_capacity(data.len());
        for data in data {
            let data = match (&key, seal) {
                (Some(key), true) => key.seal(&self.id.0.to_be_bytes(), &data).map_err(failed)?.into(),
                (None, true) => return Err(failed(SealError::Unavailable)),
                (_, false) => data,
            };
            records.push(NewRecord {
                stream: self.id,
                shard: SHARD,
                partition_key: String::new(),
                explicit_hash_key: None,
                data,
                sealed: seal,
                arrival,
            });
        }
        let appended = self.log.append(records).await;
        let numbers = appended.map_err(|error| match error {
            // It was deleted meanwhile.
            storage::Error::NotFound => not_found(&self.name.name, self.name.account),
            other => log_failure(other),
        })?;
        Ok((numbers, seal))
    }

    fn take_off(&self, bytes: u64) {
        let less = |waiting: u64| Some(waiting.saturating_sub(bytes));
        // It always gives a value.
        let _ = self.backlog.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Counts what waits from a place up to another; for a server that starts.
    pub async fn count(&self, from: Position, until: Position) -> Result<(), SourceError> {
        let end = |position: Position| match position {
            Position::At(number) | Position::After(number) => number.next_index(),
            Position::Trim => 0,
        };
        let (mut at, mut bytes) = (from, 0);
        loop {
            let batch = self
                .read((self.id, SHARD), at, limits::READ_RECORDS, limits::READ_BYTES)
                .await?;
            let older = batch.records.iter().filter(|r| r.source.sequence.index() < end(until));
            bytes += older.map(|r| r.data.len() as u64).sum::<u64>();
            if batch.at_tip || end(batch.next) >= end(until) {
                break;
            }
            at = batch.next;
        }
        let all = self.backlog.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.status.backlog(all);
        Ok(())
    }

    /// The place behind the newest record.
    pub async fn tip(&self) -> Result<Position, storage::Error> {
        self.log.tip(self.id, SHARD).await
    }

    /// True if something was delivered, or may have become too old, since it was asked last.
    pub fn is_busy(&self) -> bool {
        self.busy.swap(false, Ordering::Relaxed) || self.backlog.load(Ordering::Relaxed) > 0
    }

    /// Forgets what was delivered, and what arrived before `horizon`. `undelivered` is the place of the first record that
    /// was not delivered.
    pub async fn trim(&self, undelivered: Position, horizon: Timestamp) -> Result<(), SourceError> {
        let first = self.read((self.id, SHARD), undelivered, 1, 1).await?;
        let first = first.records.first();
        let delivered = Timestamp::from_millis(self.delivered_ms.load(Ordering::Relaxed));
        // The log forgets what lies in front of the first record of a time, so nothing behind the undelivered one goes.
        let before = first.map_or(delivered, |record| record.arrival);
        let expired = first.filter(|record| record.arrival < horizon);
        let trimmed = self.log.trim_before(self.id, SHARD, before.max(horizon)).await;
        trimmed.map_err(source_error)?;
        if expired.is_some() {
            tracing::warn!(
                delivery_stream = self.name.name,
                "records that could not be delivered for 24 hours were given up"
            );
            self.backlog.store(0, Ordering::Relaxed);
            let tip = self.tip().await.map_err(source_error)?;
            self.count(undelivered, tip).await?;
        }
        Ok(())
    }

    fn open(&self, stored: storage::StoredRecord) -> Result<Record, SourceError> {
        let data = match stored.sealed {
            false => stored.data,
            true => {
                let key = self.key.read().0.clone();
                let key = key.ok_or_else(|| SourceError::Failed("the key of its records is not there".to_owned()))?;
                let opened = key.unseal(&self.id.0.to_be_bytes(), &stored.data);
                opened.map_err(|e| SourceError::Failed(e.to_string()))?.into()
            }
        };
        Ok(Record {
            data,
            arrival: stored.arrival,
            source: Origin {
                shard: SHARD,
                sequence: stored.sequence,
                partition_key: stored.partition_key,
            },
        })
    }
}

fn source_error(error: storage::Error) -> SourceError {
    match error {
        storage::Error::NotFound => SourceError::Gone,
        other => SourceError::Failed(other.to_string()),
    }
}

#[async_trait]
impl Source for Intake {
    fn stream(&self) -> Option<StreamId> {
        Some(self.id)
    }

    fn shards(&self, _: StreamId) -> Result<Vec<SourceShard>, SourceError> {
        Ok(vec![SourceShard {
            shard: SHARD,
            parents: Vec::new(),
            closed: false,
        }])
    }

    async fn read(
        &self,
        place: (StreamId, ShardId),
        from: Position,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch, SourceError> {
        let read = self.log.read(place.0, place.1, from, max_records, max_bytes).await;
        let read = read.map_err(source_error)?;
        Ok(Batch {
            records: read
                .records
                .into_iter()
                .map(|r| self.open(r))
                .collect::<Result<_, _>>()?,
            next: read.next,
            at_tip: read.at_tip,
        })
    }

    fn watch(&self, place: (StreamId, ShardId)) -> Result<watch::Receiver<u64>, SourceError> {
        self.log.watch(place.0, place.1).map_err(source_error)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn delivered(&self, bytes: u64, newest: Option<Timestamp>) {
        self.take_off(bytes);
        self.status.backlog(self.backlog.load(Ordering::Relaxed));
        if let Some(newest) = newest {
            self.delivered_ms.fetch_max(newest.millis(), Ordering::Relaxed);
        }
        self.busy.store(true, Ordering::Relaxed);
    }

    fn name(&self) -> String {
        format!("the records of {}", self.name.name)
    }
}
