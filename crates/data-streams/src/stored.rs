//! The records of streams in the catalog.
//!
//! Two keys for each stream: `ACCOUNT/REGION/data-stream/NAME` holds the record, and `-/-/data-stream-id/ID` says whose
//! number in the log it is, so that a server that starts finds every stream, and a creation or deletion that was cut off
//! is finished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{AccountId, Region, ResourceName, Timestamp};
use serde::{Deserialize, Serialize};
use storage::catalog::{Owned, Owners, get_json, next_id, put_json, update_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect, SequenceNumber, StreamId};

use crate::hash::{HashKey, divide};

/// The counter of stream ids; it is shared by all kinds of streams, since they share the log.
const STREAM_IDS: &str = "stream";

/// A stream as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its number in the log; never given to another stream.
    pub id: u64,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: i64,
    /// False until all its shards are made; only then is it shown.
    pub ready: bool,
    /// The number of its shards follows the load.
    pub on_demand: bool,
    /// How long records are kept.
    pub retention_hours: i32,
    /// Largest record, in KiB.
    pub max_record_kib: i32,
    /// Records without a partition key are spread over the shards.
    #[serde(default)]
    pub spread: bool,
    /// Throughput that the creator asked to be ready, in MiB a second; told back, of no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_mib: Option<i32>,
    /// Its shards by number, open, and closed as long as records of theirs may be kept.
    pub shards: Vec<ShardRecord>,
    /// No shard ever had this number or a higher one. Missing in records of older versions, whose shards all stay.
    #[serde(default)]
    pub next_shard: u32,
    /// A change of its shards that was begun: the stream is UPDATING until it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reshard: Option<Reshard>,
    /// When UpdateShardCount was called in the last 24 hours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scalings_ms: Vec<i64>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The shard-level metrics that were asked for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub monitoring: BTreeSet<String>,
    /// Its registered consumers in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<ConsumerRecord>,
    /// Its queues in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueRecord>,
    /// The second in which the last consumer was registered: no two have the same, so that no ARN comes back.
    #[serde(default)]
    pub last_consumer_s: i64,
    /// Its resource policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How its records are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionRecord>,
    /// The sealed key of its data; kept when encryption ends, as long as what it encrypted may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key: Option<String>,
}

/// A change of shards: what ends and what begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshard {
    /// Open shards that end, and when.
    pub closing: Vec<(u32, i64)>,
    /// Shards that begin. Some may end at once: UpdateShardCount goes by way of them.
    pub opening: Vec<ShardRecord>,
}

/// A registered consumer as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerRecord {
    /// Its name.
    pub name: String,
    /// When it was registered, in seconds since the epoch: the last part of its ARN.
    pub created_s: i64,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Its resource policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// Where a queue began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueStart {
    /// At the oldest record.
    TrimHorizon,
    /// Behind the newest record.
    Latest,
    /// At the first record of a time.
    AtTimestamp,
}

/// A queue as the catalog holds it, without its state of delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// Its number; never given to another queue.
    pub id: u64,
    /// What its ARN ends with.
    pub key: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_ms: i64,
    /// Where it began.
    pub start: QueueStart,
    /// The time that this came to.
    pub start_ms: i64,
    /// Seconds for which a delivered record is hidden from other receivers.
    pub visibility_s: i32,
    /// How often a record is delivered before it becomes a dead letter; never, where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_receives: Option<i32>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Its resource policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// What StartStreamEncryption was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionRecord {
    /// The key's name, as it was given.
    pub key_id: String,
}

/// A shard as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Its number; never used again in its stream.
    pub number: u32,
    /// First hash key of its range.
    pub first_key: HashKey,
    /// Last hash key of its range.
    pub last_key: HashKey,
    /// When it was made.
    pub created_ms: i64,
    /// When it was closed by a split or merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_ms: Option<i64>,
    /// Its last sequence number, once it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sequence: Option<String>,
    /// The shard it was split or merged from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// The other shard it was merged from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjacent_parent: Option<u32>,
}

impl ShardRecord {
    /// Below the number of its first record.
    pub fn first_sequence(&self) -> SequenceNumber {
        SequenceNumber::before(Timestamp::from_millis(self.created_ms), self.number, 0)
    }
}

impl StreamRecord {
    /// A stream whose `shards` divide the ring evenly.
    pub fn new(created: Timestamp, shards: usize) -> Self {
        let ranges = divide(shards).into_iter().zip(0u32..);
        StreamRecord {
            id: 0,
            created_ms: created.millis(),
            ready: false,
            on_demand: false,
            retention_hours: crate::limits::RETENTION_HOURS_DEFAULT,
            max_record_kib: (crate::limits::RECORD_BYTES_DEFAULT / 1024) as i32,
            spread: false,
            warm_mib: None,
            next_shard: u32::try_from(shards.max(1)).unwrap_or(u32::MAX),
            reshard: None,
            scalings_ms: Vec::new(),
            monitoring: BTreeSet::new(),
            consumers: Vec::new(),
            queues: Vec::new(),
            last_consumer_s: 0,
            policy: None,
            encryption: None,
            data_key: None,
            shards: ranges
                .map(|((first_key, last_key), number)| ShardRecord {
                    number,
                    first_key,
                    last_key,
                    created_ms: created.millis(),
                    closed_ms: None,
                    last_sequence: None,
                    parent: None,
                    adjacent_parent: None,
                })
                .collect(),
            tags: BTreeMap::new(),
        }
    }

    /// The shards that take records.
    pub fn open_shards(&self) -> impl Iterator<Item = &ShardRecord> {
        self.shards.iter().filter(|s| s.closed_ms.is_none())
    }

    /// A shard, open or closed.
    pub fn shard(&self, number: u32) -> Option<&ShardRecord> {
        let at = self.shards.binary_search_by_key(&number, |s| s.number).ok()?;
        self.shards.get(at)
    }

    /// The shards that followed one that is closed.
    pub fn children(&self, parent: u32) -> impl Iterator<Item = &ShardRecord> {
        let of = move |s: &&ShardRecord| s.parent == Some(parent) || s.adjacent_parent == Some(parent);
        self.shards.iter().filter(of)
    }

    /// The number of the next shard.
    pub fn next_shard(&self) -> u32 {
        let behind = self.shards.last().map_or(0, |last| last.number.saturating_add(1));
        behind.max(self.next_shard)
    }

    /// Carries the change of shards through: `ends` are the numbers behind the last records of those that end.
    pub fn complete_reshard(&mut self, ends: &[(u32, SequenceNumber)]) {
        let Some(reshard) = self.reshard.take() else { return };
        let end_of = |number: u32| ends.iter().find(|(n, _)| *n == number).map(|(_, end)| end.to_string());
        for (number, closed_ms) in reshard.closing {
            if let Some(shard) = self.shards.iter_mut().find(|s| s.number == number) {
                shard.closed_ms = Some(closed_ms);
                shard.last_sequence = end_of(number);
            }
        }
        for mut shard in reshard.opening {
            if shard.closed_ms.is_some() {
                shard.last_sequence = Some(shard.first_sequence().to_string());
            }
            self.shards.push(shard);
        }
        self.shards.sort_by_key(|s| s.number);
    }

    /// Forgets shards that were closed before `oldest`: none of their records is kept. True if there were any.
    pub fn forget_shards(&mut self, oldest: Timestamp) -> bool {
        let before = self.shards.len();
        self.next_shard = self.next_shard();
        self.shards
            .retain(|s| s.closed_ms.is_none_or(|closed| closed >= oldest.millis()));
        self.shards.len() != before
    }

    /// A registered consumer.
    pub fn consumer(&self, name: &str) -> Option<&ConsumerRecord> {
        self.consumers.iter().find(|c| c.name == name)
    }

    /// A queue by what its ARN ends with.
    pub fn queue(&self, key: &str) -> Option<&QueueRecord> {
        self.queues.iter().find(|q| q.key == key)
    }

    /// Registered consumers and queues: they share one limit.
    pub fn readers(&self) -> usize {
        self.consumers.len() + self.queues.len()
    }

    /// The beginning of what is kept.
    pub fn horizon(&self, now: Timestamp) -> Timestamp {
        now.plus_millis(-i64::from(self.retention_hours) * 3_600_000)
    }

    /// When it was created.
    pub fn created(&self) -> Timestamp {
        Timestamp::from_millis(self.created_ms)
    }

    /// Largest record in bytes, data and key together.
    pub fn record_bytes_max(&self) -> usize {
        usize::try_from(self.max_record_kib).unwrap_or(0).saturating_mul(1024)
    }
}

/// The settings of an account in a region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// The minimum throughput billing commitment is on.
    pub committed: bool,
    /// When it was last switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<i64>,
    /// When it was last switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
}

/// What the catalog knew when the server started.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The streams that exist, those included that are not ready yet.
    pub streams: Vec<(ResourceName, StreamRecord)>,
    /// Ids whose deletion was begun and not finished.
    pub deleting: Vec<StreamId>,
}

/// The records of all streams.
pub struct Records {
    catalog: Arc<dyn Catalog>,
}

fn record_key(name: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(name.account, &name.region)
        .with("data-stream")
        .with(&name.name)
}

fn account_key(account: AccountId, region: &Region) -> CatalogKey {
    CatalogKey::scoped(account, region).with("data-stream-account")
}

/// Who has which id.
const OWNERS: Owners = Owners::new("data-stream-id");

impl Records {
    /// Records in this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Records { catalog }
    }

    /// Everything, for a server that starts.
    pub async fn load(&self) -> Result<Loaded, CatalogError> {
        let mut loaded = Loaded::default();
        for Owned { id, name, deleting } in OWNERS.load(&*self.catalog).await? {
            if deleting {
                loaded.deleting.push(StreamId(id));
                continue;
            }
            let record = get_json::<StreamRecord>(&*self.catalog, record_key(&name)).await?;
            let record = record.map(|entry| entry.value).filter(|record| record.id == id);
            loaded
                .streams
                .push((name, record.ok_or_else(|| OWNERS.without_record(id))?));
        }
        Ok(loaded)
    }

    /// Writes a stream that is not ready yet, and gives it its id. `None` if the name is taken.
    pub async fn create(
        &self,
        name: &ResourceName,
        wanted: StreamRecord,
    ) -> Result<Option<StreamRecord>, CatalogError> {
        if self.catalog.get(record_key(name).as_str()).await?.is_some() {
            return Ok(None);
        }
        let id = StreamId(next_id(&*self.catalog, STREAM_IDS).await?);
        let record = StreamRecord {
            id: id.0,
            ready: false,
            ..wanted
        };
        let commit = self.catalog.commit(vec![
            put_json(record_key(name), &record, Expect::Absent)?,
            OWNERS.claim(id.0, name)?,
        ]);
        match commit.await {
            Ok(_) => Ok(Some(record)),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a stream's record. False if the stream is gone, or another has its name.
    pub async fn replace(&self, name: &ResourceName, record: &StreamRecord) -> Result<bool, CatalogError> {
        self.replace_with(name, record, Vec::new()).await
    }

    /// The same in one commit with what belongs to it.
    pub async fn replace_with(
        &self,
        name: &ResourceName,
        record: &StreamRecord,
        mut changes: Vec<Change>,
    ) -> Result<bool, CatalogError> {
        let key = record_key(name);
        let found = get_json::<StreamRecord>(&*self.catalog, &key).await?;
        let Some(found) = found.filter(|entry| entry.value.id == record.id) else {
            return Ok(false);
        };
        changes.push(put_json(&key, record, Expect::Version(found.version))?);
        match self.catalog.commit(changes).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the stream's name away. Its records are deleted after this, then [`Records::deleted`] is called. False if it
    /// is gone already, or another has its name.
    pub async fn delete(&self, name: &ResourceName, id: StreamId) -> Result<bool, CatalogError> {
        let key = record_key(name);
        let found = get_json::<StreamRecord>(&*self.catalog, &key).await?;
        let Some(found) = found.filter(|entry| entry.value.id == id.0) else {
            return Ok(false);
        };
        let commit = self
            .catalog
            .commit(vec![Change::remove(&key, found.version), OWNERS.deleting(id.0, name)?]);
        match commit.await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next number of a counter, never given twice.
    pub async fn next_id(&self, counter: &str) -> Result<u64, CatalogError> {
        next_id(&*self.catalog, counter).await
    }

    /// The settings of an account in a region.
    pub async fn account(&self, account: AccountId, region: &Region) -> Result<AccountRecord, CatalogError> {
        let found = get_json::<AccountRecord>(&*self.catalog, account_key(account, region)).await?;
        Ok(found.map(|entry| entry.value).unwrap_or_default())
    }

    /// Changes the settings of an account in a region.
    pub async fn change_account(
        &self,
        account: AccountId,
        region: &Region,
        mut change: impl FnMut(&mut AccountRecord),
    ) -> Result<AccountRecord, CatalogError> {
        let changed = update_json(
            &*self.catalog,
            account_key(account, region),
            |old: Option<AccountRecord>| {
                let mut settings = old.unwrap_or_default();
                change(&mut settings);
                Ok::<_, CatalogError>(Some(settings))
            },
        );
        Ok(changed.await?.unwrap_or_default())
    }

    /// The records of a deleted stream are gone.
    pub async fn deleted(&self, id: StreamId) -> Result<(), CatalogError> {
        self.catalog.commit(vec![OWNERS.gone(id.0)]).await.map(drop)
    }
}
