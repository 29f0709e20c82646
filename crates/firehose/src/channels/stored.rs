//! The records of channels in the catalog.
//!
//! `ACCOUNT/REGION/channel/NAME` holds the record; a list says which number is whose, so that a server that starts finds
//! every channel, and a deletion that was cut off is finished. What is under way is in the engine's rows, under the same
//! number.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ResourceName;
use serde::{Deserialize, Serialize};
use storage::catalog::{Owned, Owners, get_json, next_id, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};

/// The counter of numbers that the engine's rows lie under; all kinds of streams share it.
const NUMBERS: &str = "stream";

const OWNERS: Owners = Owners::new("channel-id");

/// A channel as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRecord {
    /// The number of its rows; never given to other work.
    pub number: u64,
    /// The id that its ARN ends with.
    pub id: String,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: i64,
    /// The role, told back.
    pub role_arn: String,
    /// The name of the stream, which is of the same account and region.
    pub stream: String,
    /// When the stream was created.
    pub stream_created_ms: i64,
    /// What its records are: a name of the model's.
    pub format: String,
    /// The most seconds that a record waits.
    pub freshness_s: i32,
    /// Where objects go.
    pub bucket: String,
    /// The template as it was given; none where it was not.
    pub template: Option<String>,
    /// The storage class; told back.
    pub storage_class: Option<String>,
    /// How objects are compressed: a name of the model's.
    pub compression: String,
    /// Where records go that cannot be delivered.
    pub error_bucket: String,
    /// What their names begin with.
    pub error_prefix: String,
    /// The key that objects are to be encrypted with; told back.
    pub key_id: Option<String>,
    /// What CloudWatch was to be told; told back.
    pub logging: Logging,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// CloudWatch Logs of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// Whether it was asked for.
    pub enabled: bool,
    /// The group.
    pub group: String,
    /// The stream in the group.
    pub stream: String,
}

/// The records of all channels.
pub struct Records {
    catalog: Arc<dyn Catalog>,
}

fn record_key(name: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(name.account, &name.region)
        .with("channel")
        .with(&name.name)
}

impl Records {
    /// Records in this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Records { catalog }
    }

    /// Every channel, and the numbers of those whose deletion was not finished.
    pub async fn load(&self) -> Result<(Vec<(ResourceName, ChannelRecord)>, Vec<u64>), CatalogError> {
        let (mut channels, mut deleting) = (Vec::new(), Vec::new());
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
            let record = get_json::<ChannelRecord>(&*self.catalog, record_key(&name)).await?;
            let record = record.map(|entry| entry.value).filter(|record| record.number == id);
            channels.push((name, record.ok_or_else(|| OWNERS.without_record(id))?));
        }
        Ok((channels, deleting))
    }

    /// A number for a new channel.
    pub async fn next_number(&self) -> Result<u64, CatalogError> {
        next_id(&*self.catalog, NUMBERS).await
    }

    /// Writes a new channel, together with where its reading begins. False if the name is taken.
    pub async fn create(
        &self,
        name: &ResourceName,
        record: &ChannelRecord,
        begin: Change,
    ) -> Result<bool, CatalogError> {
        let changes = vec![
            put_json(record_key(name), record, Expect::Absent)?,
            OWNERS.claim(record.number, name)?,
            begin,
        ];
        self.committed(changes).await
    }

    /// Replaces a record. False if the channel is gone, or another has its name.
    pub async fn replace(&self, name: &ResourceName, record: &ChannelRecord) -> Result<bool, CatalogError> {
        let Some(version) = self.version(name, record.number).await? else {
            return Ok(false);
        };
        self.committed(vec![put_json(record_key(name), record, Expect::Version(version))?])
            .await
    }

    /// Takes the name away. What lies under the number is deleted after this, then [`Records::deleted`] is called.
    pub async fn delete(&self, name: &ResourceName, number: u64) -> Result<bool, CatalogError> {
        let Some(version) = self.version(name, number).await? else {
            return Ok(false);
        };
        self.committed(vec![
            Change::remove(record_key(name), version),
            OWNERS.deleting(number, name)?,
        ])
        .await
    }

    /// Nothing is left under the number.
    pub async fn deleted(&self, number: u64) -> Result<(), CatalogError> {
        self.catalog.commit(vec![OWNERS.gone(number)]).await.map(drop)
    }

    async fn version(&self, name: &ResourceName, number: u64) -> Result<Option<u64>, CatalogError> {
        let found = get_json::<ChannelRecord>(&*self.catalog, record_key(name)).await?;
        Ok(found
            .filter(|entry| entry.value.number == number)
            .map(|entry| entry.version))
    }

    /// False where somebody else was first.
    async fn committed(&self, changes: Vec<Change>) -> Result<bool, CatalogError> {
        match self.catalog.commit(changes).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
