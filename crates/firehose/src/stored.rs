//! The records of delivery streams in the catalog.
//!
//! `ACCOUNT/REGION/delivery-stream/NAME` holds the record, and `-/-/delivery-stream-id/ID` says whose number in the log it
//! is, so that a server that starts finds every delivery stream, and a deletion that was cut off is finished. What is under
//! way is in rows of the engine's, under the same number.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ResourceName;
use serde::{Deserialize, Serialize};
use storage::catalog::{Owned, Owners, get_json, next_id, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};
use wire::firehose::DestinationDescription;

/// The counter of stream ids; it is shared by all kinds of streams, since they share the log.
const STREAM_IDS: &str = "stream";

/// Who has which id.
const OWNERS: Owners = Owners::new("delivery-stream-id");

/// A delivery stream as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its number; never given to another stream.
    pub id: u64,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: i64,
    /// When its destination was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_ms: Option<i64>,
    /// Rises with each change of the destination.
    pub version: u64,
    /// The data stream that it reads; none where records are put directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<KinesisRecord>,
    /// The throughput that the creator expects, in MB a second; told back, of no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput_hint: Option<i32>,
    /// The destination as it is described.
    #[serde(with = "as_json")]
    pub destination: DestinationDescription,
    /// What the destination knows and no description tells, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How new records are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionRecord>,
    /// The sealed key of its records; kept when encryption ends, as long as what it encrypted may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key: Option<String>,
}

/// The data stream that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KinesisRecord {
    /// Its ARN.
    pub stream_arn: String,
    /// The role, told back.
    pub role_arn: String,
    /// Since when it is read.
    pub start_ms: i64,
}

/// What StartDeliveryStreamEncryption was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionRecord {
    /// The customer's key, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_arn: Option<String>,
}

/// A shape of the wire as the JSON that it is on the wire.
mod as_json {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use wire::firehose::DestinationDescription;

    pub fn serialize<S: Serializer>(shape: &DestinationDescription, to: S) -> Result<S::Ok, S::Error> {
        let text = wire::codec::encode_input(shape);
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(serde::ser::Error::custom)?;
        value.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DestinationDescription, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        wire::codec::decode_output(value.to_string().as_bytes()).map_err(|e| D::Error::custom(e.0))
    }
}

/// The records of all delivery streams.
pub struct Records {
    catalog: Arc<dyn Catalog>,
}

fn record_key(name: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(name.account, &name.region)
        .with("delivery-stream")
        .with(&name.name)
}

impl Records {
    /// Records in this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Records { catalog }
    }

    /// Every delivery stream, and the numbers of those whose deletion was not finished.
    pub async fn load(&self) -> Result<(Vec<(ResourceName, StreamRecord)>, Vec<u64>), CatalogError> {
        let (mut streams, mut deleting) = (Vec::new(), Vec::new());
        for Owned {
            id,
            name,
            deleting: gone,
        } in OWNERS.load(&*self.catalog).await?
        {
            if gone {
                deleting.push(id);
                continue;
            }
            let record = get_json::<StreamRecord>(&*self.catalog, record_key(&name)).await?;
            let record = record.map(|entry| entry.value).filter(|record| record.id == id);
            streams.push((name, record.ok_or_else(|| OWNERS.without_record(id))?));
        }
        Ok((streams, deleting))
    }

    /// A number for a new delivery stream.
    pub async fn next_id(&self) -> Result<u64, CatalogError> {
        next_id(&*self.catalog, STREAM_IDS).await
    }

    /// Writes a new delivery stream, together with what belongs to it. False if the name is taken.
    pub async fn create(&self, name: &ResourceName, record: &StreamRecord, more: Change) -> Result<bool, CatalogError> {
        let commit = self.catalog.commit(vec![
            put_json(record_key(name), record, Expect::Absent)?,
            OWNERS.claim(record.id, name)?,
            more,
        ]);
        match commit.await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Replaces a record. False if the delivery stream is gone, or another has its name.
    pub async fn replace(&self, name: &ResourceName, record: &StreamRecord) -> Result<bool, CatalogError> {
        let key = record_key(name);
        let found = get_json::<StreamRecord>(&*self.catalog, &key).await?;
        let Some(found) = found.filter(|entry| entry.value.id == record.id) else {
            return Ok(false);
        };
        let change = put_json(&key, record, Expect::Version(found.version))?;
        match self.catalog.commit(vec![change]).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the name away. What lies under the number is deleted after this, then [`Records::deleted`] is called.
    pub async fn delete(&self, name: &ResourceName, id: u64) -> Result<bool, CatalogError> {
        let key = record_key(name);
        let found = get_json::<StreamRecord>(&*self.catalog, &key).await?;
        let Some(found) = found.filter(|entry| entry.value.id == id) else {
            return Ok(false);
        };
        let changes = vec![Change::remove(&key, found.version), OWNERS.deleting(id, name)?];
        match self.catalog.commit(changes).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Nothing is left under the number.
    pub async fn deleted(&self, id: u64) -> Result<(), CatalogError> {
        self.catalog.commit(vec![OWNERS.gone(id)]).await.map(drop)
    }
}
