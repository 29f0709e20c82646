//! The records of streams in the catalog.
//!
//! Two keys for each stream: `ACCOUNT/REGION/data-stream/NAME` holds the record, and `-/-/data-stream-id/ID` says whose
//! number in the log it is, so that a server that starts finds every stream, and a creation or deletion that was cut off
//! is finished.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ResourceName, Timestamp};
use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, next_id, page_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect, SequenceNumber, StreamId};

use crate::hash::{HashKey, divide};

/// Records read at once when the server starts.
const PAGE: usize = 1000;

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
    /// Its shards, open and closed, by number.
    pub shards: Vec<ShardRecord>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
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
    /// Below or equal to the number of its first record.
    pub fn first_sequence(&self) -> SequenceNumber {
        SequenceNumber::new(Timestamp::from_millis(self.created_ms), self.number, 0)
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

    /// When it was created.
    pub fn created(&self) -> Timestamp {
        Timestamp::from_millis(self.created_ms)
    }

    /// Largest record in bytes, data and key together.
    pub fn record_bytes_max(&self) -> usize {
        usize::try_from(self.max_record_kib).unwrap_or(0).saturating_mul(1024)
    }
}

/// Whose number an id is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Owner {
    account: String,
    region: String,
    name: String,
    /// The stream's record is gone and its records are going.
    deleting: bool,
}

impl Owner {
    fn new(name: &ResourceName, deleting: bool) -> Self {
        Owner {
            account: name.account.to_string(),
            region: name.region.to_string(),
            name: name.name.clone(),
            deleting,
        }
    }
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

fn owners() -> CatalogKey {
    CatalogKey::server().with("data-stream-id")
}

fn owner_key(id: StreamId) -> CatalogKey {
    owners().with(&format!("{:020}", id.0))
}

impl Records {
    /// Records in this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Records { catalog }
    }

    /// Everything, for a server that starts.
    pub async fn load(&self) -> Result<Loaded, CatalogError> {
        let mut loaded = Loaded::default();
        let (prefix, mut after) = (owners().below(), None);
        loop {
            let (page, next) = page_json::<Owner>(&*self.catalog, &prefix, after.as_deref(), PAGE).await?;
            for (key, entry) in page {
                let unreadable = || CatalogError::Unreadable {
                    key: key.clone(),
                    why: "it names no stream".to_owned(),
                };
                let id = owners().child_of(&key).and_then(|id| id.parse().ok()).map(StreamId);
                let (id, owner) = (id.ok_or_else(unreadable)?, entry.value);
                if owner.deleting {
                    loaded.deleting.push(id);
                    continue;
                }
                let name = ResourceName {
                    account: owner.account.parse().map_err(|_| unreadable())?,
                    region: owner.region.parse().map_err(|_| unreadable())?,
                    name: owner.name,
                };
                let record = get_json::<StreamRecord>(&*self.catalog, record_key(&name)).await?;
                let record = record.map(|entry| entry.value).filter(|r| r.id == id.0);
                loaded.streams.push((name, record.ok_or_else(unreadable)?));
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(loaded),
            }
        }
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
            put_json(owner_key(id), &Owner::new(name, false), Expect::Absent)?,
        ]);
        match commit.await {
            Ok(_) => Ok(Some(record)),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says that all shards of a stream are made.
    pub async fn make_ready(
        &self,
        name: &ResourceName,
        mut record: StreamRecord,
    ) -> Result<StreamRecord, CatalogError> {
        record.ready = true;
        let put = put_json(record_key(name), &record, Expect::Any)?;
        self.catalog.commit(vec![put]).await?;
        Ok(record)
    }

    /// Takes the stream's name away. Its records are deleted after this, then [`Records::deleted`] is called. False if it
    /// is gone already, or another has its name.
    pub async fn delete(&self, name: &ResourceName, id: StreamId) -> Result<bool, CatalogError> {
        let key = record_key(name);
        let found = get_json::<StreamRecord>(&*self.catalog, &key).await?;
        let Some(found) = found.filter(|entry| entry.value.id == id.0) else {
            return Ok(false);
        };
        let commit = self.catalog.commit(vec![
            Change::remove(&key, found.version),
            put_json(owner_key(id), &Owner::new(name, true), Expect::Any)?,
        ]);
        match commit.await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The records of a deleted stream are gone.
    pub async fn deleted(&self, id: StreamId) -> Result<(), CatalogError> {
        let (key, expect) = (owner_key(id).into(), Expect::Any);
        self.catalog
            .commit(vec![Change::Delete { key, expect }])
            .await
            .map(drop)
    }
}
