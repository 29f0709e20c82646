//! The records of streams in the catalog.
//!
//! Two keys for each stream: `ACCOUNT/REGION/video-stream/NAME` holds the record, and `-/-/video-stream-id/ID` says whose
//! number in the log it is, so that a server that starts finds every stream, and a deletion that was cut off is finished.
//! A third, `ACCOUNT/REGION/video-stream-created`, keeps the youngest creation time given out, so that two streams of one
//! account and region never share an ARN, not even when a name is made, deleted and made again within a millisecond.
//! `-/-/video-stream-cursor/ID/KIND` holds how far deliveries have come ([`crate::deliver`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{AccountId, Region, ResourceName, Timestamp};
use serde::{Deserialize, Serialize};
use storage::catalog::{Owned, Owners, get_json, next_id, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect, StreamId};

use crate::deliver::Kind;
use crate::error::ControlError;
use crate::images::config::ImageGeneration;
use crate::notify::config::Notification;
use crate::streams::StreamArn;

/// Tries of a commit that others interfere with.
pub(crate) const TRIES: usize = 16;

/// The counter of stream ids; it is shared by all kinds of streams, since they share the log.
const STREAM_IDS: &str = "stream";

/// A stream as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its number in the log; never given to another stream.
    pub id: u64,
    /// When it was created, milliseconds since the epoch; part of the ARN.
    pub created_ms: i64,
    /// Changes with every update.
    pub version: String,
    /// How long fragments are kept; 0: not at all.
    pub retention_hours: i32,
    /// As the caller gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// As the caller gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// As the caller gave it; the default key where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// As the caller gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_tier: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Which images are made of tagged fragments, and where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_generation: Option<ImageGeneration>,
    /// Who is told of tagged fragments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
}

impl StreamRecord {
    /// The value of `sightglass:max_bytes`, the most bytes that the stream may hold.
    pub fn max_bytes(&self) -> Option<u64> {
        self.tags.get(MAX_BYTES_TAG)?.parse().ok()
    }

    /// Retention keeps what began to arrive from here on until it is archived. `None` where it waits for no archive. An
    /// archive that has not said yet how far it is has archived nothing.
    pub fn held_from(&self) -> Option<Timestamp> {
        let holds = match self.tags.get(ARCHIVE_HOLD_TAG) {
            Some(value) => value == "true",
            None => self.tags.contains_key(ARCHIVE_TAG),
        };
        let until = || wire::time::parse_iso8601(self.tags.get(ARCHIVED_UNTIL_TAG)?);
        holds.then(|| until().unwrap_or(Timestamp::from_millis(0)))
    }
}

/// Where and how the server archives the stream: `s3://bucket/prefix every=1h format=mkv`.
pub const ARCHIVE_TAG: &str = "sightglass:archive";

/// `true`: retention waits for the archive; `false`: it does not. Without it, it waits where the server archives.
pub const ARCHIVE_HOLD_TAG: &str = "sightglass:archive-hold";

/// All that began to arrive before is archived. Set by whoever archives the stream.
pub const ARCHIVED_UNTIL_TAG: &str = "sightglass:archived-until";

/// The tag that limits the bytes of a stream.
pub const MAX_BYTES_TAG: &str = "sightglass:max_bytes";

/// What the catalog knew when the server started.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The streams that exist.
    pub streams: Vec<(StreamArn, StreamRecord)>,
    /// Ids whose deletion was begun and not finished.
    pub deleting: Vec<StreamId>,
}

/// The records of all streams.
pub struct Records {
    catalog: Arc<dyn Catalog>,
}

fn record_key(name: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(name.account, &name.region)
        .with("video-stream")
        .with(&name.name)
}

fn created_key(account: AccountId, region: &Region) -> CatalogKey {
    CatalogKey::scoped(account, region).with("video-stream-created")
}

/// Who has which id.
const OWNERS: Owners = Owners::new("video-stream-id");

fn cursor_key(id: StreamId, kind: Kind) -> CatalogKey {
    let all = CatalogKey::server().with("video-stream-cursor");
    all.with(&format!("{:020}", id.0)).with(kind.as_str())
}

/// A version as AWS writes them: 20 letters and digits.
pub(crate) fn new_version() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(20).collect()
}

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
            let record = record.ok_or_else(|| OWNERS.without_record(id))?;
            let created_ms = record.created_ms;
            loaded.streams.push((StreamArn { name, created_ms }, record));
        }
        Ok(loaded)
    }

    /// Makes a stream. Of `wanted`, the id, the creation time and the version are given here.
    pub async fn create(
        &self,
        name: &ResourceName,
        wanted: &StreamRecord,
        now: Timestamp,
    ) -> Result<(StreamArn, StreamRecord), ControlError> {
        let id = StreamId(next_id(&*self.catalog, STREAM_IDS).await?);
        let created_key = created_key(name.account, &name.region);
        for _ in 0..TRIES {
            if self.catalog.get(record_key(name).as_str()).await?.is_some() {
                return Err(ControlError::NameTaken(name.name.clone()));
            }
            let youngest = get_json::<i64>(&*self.catalog, &created_key).await?;
            let expect = youngest
                .as_ref()
                .map_or(Expect::Absent, |entry| Expect::Version(entry.version));
            let created_ms = youngest.map_or(now.millis(), |entry| now.millis().max(entry.value.saturating_add(1)));
            let record = StreamRecord {
                id: id.0,
                created_ms,
                version: new_version(),
                ..wanted.clone()
            };
            let commit = self.catalog.commit(vec![
                put_json(record_key(name), &record, Expect::Absent)?,
                OWNERS.claim(id.0, name)?,
                put_json(&created_key, &created_ms, expect)?,
            ]);
            match commit.await {
                Ok(_) => {
                    let name = name.clone();
                    return Ok((StreamArn { name, created_ms }, record));
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CatalogError::Conflict {
            key: created_key.into(),
        }
        .into())
    }

    /// Changes a stream and gives it a new version. `change` may be called several times; it must not do anything else.
    pub async fn update(
        &self,
        arn: &StreamArn,
        change: impl FnMut(&mut StreamRecord) -> Result<(), ControlError>,
    ) -> Result<StreamRecord, ControlError> {
        self.update_with(arn, change, |_, _| Ok(None)).await
    }

    /// Changes a stream like [`Records::update`], and with it the cursor of what is delivered: what is newly wanted begins
    /// after `newest`.
    pub(crate) async fn update_delivery(
        &self,
        arn: &StreamArn,
        kind: Kind,
        newest: u64,
        change: impl FnMut(&mut StreamRecord) -> Result<(), ControlError>,
    ) -> Result<StreamRecord, ControlError> {
        let cursor = |before: &StreamRecord, after: &StreamRecord| {
            let key: String = cursor_key(StreamId(after.id), kind).into();
            Ok(match (kind.wanted(before), kind.wanted(after)) {
                (false, true) => Some(put_json(key, &newest, Expect::Any)?),
                (true, false) => Some(Change::Delete {
                    key,
                    expect: Expect::Any,
                }),
                _ => None,
            })
        };
        self.update_with(arn, change, cursor).await
    }

    async fn update_with(
        &self,
        arn: &StreamArn,
        mut change: impl FnMut(&mut StreamRecord) -> Result<(), ControlError>,
        also: impl Fn(&StreamRecord, &StreamRecord) -> Result<Option<Change>, CatalogError>,
    ) -> Result<StreamRecord, ControlError> {
        let key = record_key(&arn.name);
        for _ in 0..TRIES {
            let (version, before) = self.current(arn).await?;
            let mut record = before.clone();
            change(&mut record)?;
            record.version = new_version();
            let mut commit = vec![put_json(&key, &record, Expect::Version(version))?];
            commit.extend(also(&before, &record)?);
            match self.catalog.commit(commit).await {
                Ok(_) => return Ok(record),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CatalogError::Conflict { key: key.into() }.into())
    }

    /// Takes the stream's name away. `check` may refuse. The fragments are deleted after this, then
    /// [`Records::deleted`] is called.
    pub async fn delete(
        &self,
        arn: &StreamArn,
        check: impl Fn(&StreamRecord) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let key = record_key(&arn.name);
        for _ in 0..TRIES {
            let (version, record) = self.current(arn).await?;
            check(&record)?;
            let commit = vec![Change::remove(&key, version), OWNERS.deleting(record.id, &arn.name)?];
            match self.catalog.commit(commit).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CatalogError::Conflict { key: key.into() }.into())
    }

    /// The fragments of a deleted stream are gone.
    pub async fn deleted(&self, id: StreamId) -> Result<(), CatalogError> {
        let cursors = Kind::ALL.map(|kind| Change::Delete {
            key: cursor_key(id, kind).into(),
            expect: Expect::Any,
        });
        let gone = cursors.into_iter().chain([OWNERS.gone(id.0)]).collect();
        self.catalog.commit(gone).await.map(drop)
    }

    /// How far a delivery has come.
    pub(crate) async fn cursor(&self, id: StreamId, kind: Kind) -> Result<Option<u64>, CatalogError> {
        let found = get_json::<u64>(&*self.catalog, cursor_key(id, kind)).await?;
        Ok(found.map(|entry| entry.value))
    }

    /// Keeps how far deliveries have come.
    pub(crate) async fn save_cursors(
        &self,
        positions: impl Iterator<Item = (StreamId, Kind, u64)>,
    ) -> Result<(), CatalogError> {
        let put = |(id, kind, position)| put_json(cursor_key(id, kind), &position, Expect::Any);
        let commit = positions.map(put).collect::<Result<Vec<_>, _>>()?;
        self.catalog.commit(commit).await.map(drop)
    }

    async fn current(&self, arn: &StreamArn) -> Result<(u64, StreamRecord), ControlError> {
        let found = get_json::<StreamRecord>(&*self.catalog, record_key(&arn.name)).await?;
        let found = found.filter(|entry| entry.value.created_ms == arn.created_ms);
        found
            .map(|entry| (entry.version, entry.value))
            .ok_or(ControlError::NotFound)
    }
}
