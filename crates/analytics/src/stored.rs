//! The records of applications in the catalog.
//!
//! `ACCOUNT/REGION/analytics-application/NAME` holds the record; `ACCOUNT/REGION/analytics-version/ID/VERSION` holds what
//! each version was configured to be, the current one included; and `-/-/analytics-application-id/ID` says whose number it
//! is, so that a server that starts finds every application, and a deletion that was cut off is finished.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ResourceName;
use serde::{Deserialize, Serialize};
use storage::catalog::{Owned, Owners, get_json, next_id, page_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};
use wire::kinesisanalyticsv2::{ApplicationConfigurationDescription, ApplicationStatus, RuntimeEnvironment};

use crate::limits;

/// The counter of application ids.
const IDS: &str = "analytics-application";

/// Who has which id.
const OWNERS: Owners = Owners::new("analytics-application-id");

/// Where an application stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// It does not run.
    Ready,
    /// It is to run and was not seen to read yet.
    Starting,
    /// It runs.
    Running,
    /// It is to end, and writes what is finished.
    Stopping,
    /// Its next version is to run and was not seen to read yet.
    Updating,
    /// The same with the configuration of an older version.
    RollingBack,
}

impl Phase {
    /// The API's word.
    pub fn status(self) -> ApplicationStatus {
        match self {
            Phase::Ready => ApplicationStatus::Ready,
            Phase::Starting => ApplicationStatus::Starting,
            Phase::Running => ApplicationStatus::Running,
            Phase::Stopping => ApplicationStatus::Stopping,
            Phase::Updating => ApplicationStatus::Updating,
            Phase::RollingBack => ApplicationStatus::RollingBack,
        }
    }
}

/// Which state a run begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreFrom {
    /// That of the last checkpoint.
    #[default]
    Latest,
    /// None.
    Nothing,
    /// That of a snapshot.
    Snapshot(String),
}

/// A run that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Which state it begins with.
    pub restore: RestoreFrom,
    /// Where inputs are read from that the state says nothing of: the API's words by the ids of inputs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub positions: BTreeMap<String, String>,
    /// A state that does not fit is left out.
    #[serde(default)]
    pub allow_non_restored: bool,
    /// It was seen to read: from now on its own checkpoints count.
    #[serde(default)]
    pub began: bool,
    /// The operation that is done when it begins, or when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// What StartApplication was told of snapshots: the API's word and the snapshot's name, told back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<(String, Option<String>)>,
}

/// How an operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationState {
    /// Not done yet.
    InProgress,
    /// Another one came between.
    Cancelled,
    /// Done.
    Successful,
    /// Not done.
    Failed,
}

/// An operation that is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Its id.
    pub id: String,
    /// Its name, e.g. `StartApplication`.
    pub name: String,
    /// When it was asked for.
    pub started_ms: i64,
    /// When it was done, or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
    /// How it went.
    pub state: OperationState,
    /// The versions before and behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<(u64, u64)>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a snapshot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SnapshotState {
    /// The worker was asked for it.
    Creating,
    /// It is there.
    Ready,
    /// It could not be made.
    Failed,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Its name.
    pub name: String,
    /// When it was asked for.
    pub created_ms: i64,
    /// The version that it was taken of.
    pub version: u64,
    /// That version's runtime.
    pub runtime: String,
    /// How it stands.
    pub state: SnapshotState,
    /// The server took it, by itself.
    #[serde(default)]
    pub system: bool,
}

/// An application as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplicationRecord {
    /// Its number; never given to another application.
    pub id: u64,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: i64,
    /// When its configuration was last changed.
    pub updated_ms: i64,
    /// Its current version.
    pub version: u64,
    /// Where it stands.
    pub phase: Phase,
    /// The run that was asked for; none while it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What was said of its mode, told back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// When its maintenance begins, told back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    /// The version before the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_from: Option<u64>,
    /// The version that was current when it was rolled back, and the one whose configuration it then had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<(u64, u64)>,
    /// Its last operations, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationRecord>,
    /// Its snapshots, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotRecord>,
}

impl ApplicationRecord {
    /// Notes an operation that was begun, and gives its id.
    pub fn begin(&mut self, name: &str, now_ms: i64, versions: Option<(u64, u64)>) -> String {
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.operations.push(OperationRecord {
            id: id.clone(),
            name: name.to_owned(),
            started_ms: now_ms,
            ended_ms: None,
            state: OperationState::InProgress,
            versions,
            error: None,
        });
        let more = self.operations.len().saturating_sub(limits::OPERATIONS_MAX);
        self.operations.drain(..more);
        id
    }

    /// Notes how an operation went, unless that is known.
    pub fn finish(&mut self, id: &str, now_ms: i64, outcome: Result<(), &str>) {
        let under_way = |o: &&mut OperationRecord| o.id == id && o.state == OperationState::InProgress;
        if let Some(operation) = self.operations.iter_mut().find(under_way) {
            operation.ended_ms = Some(now_ms);
            operation.state = match outcome {
                Ok(()) => OperationState::Successful,
                Err(_) => OperationState::Failed,
            };
            let short = |why: &str| why.chars().take(limits::ERROR_CHARACTERS_MAX).collect();
            operation.error = outcome.err().map(short);
        }
    }

    /// What is still under way when another operation takes its place.
    pub fn cancel_operations(&mut self, now_ms: i64) {
        for operation in self.operations.iter_mut() {
            if operation.state == OperationState::InProgress {
                (operation.state, operation.ended_ms) = (OperationState::Cancelled, Some(now_ms));
            }
        }
    }

    /// The newest snapshot that can be restored and that `wanted` accepts.
    pub fn newest_snapshot(&self, wanted: impl Fn(&SnapshotRecord) -> bool) -> Option<&SnapshotRecord> {
        let ready = |s: &&SnapshotRecord| s.state == SnapshotState::Ready && wanted(s);
        self.snapshots.iter().rev().find(ready)
    }
}

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggingRecord {
    /// Its id.
    pub id: String,
    /// The log stream.
    pub arn: String,
}

/// What a version was configured to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Its number.
    pub version: u64,
    /// Since when it is.
    pub created_ms: i64,
    /// The runtime, in the API's words.
    pub runtime: String,
    /// The role, told back.
    pub role: String,
    /// The configuration as it is described.
    #[serde(with = "as_json")]
    pub configuration: ApplicationConfigurationDescription,
    /// Where messages go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logging: Vec<LoggingRecord>,
    /// The code, where the description tells only where it lay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How the application stood when the next version took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Phase>,
    /// The application was rolled back from it.
    #[serde(default)]
    pub rolled_back: bool,
}

impl VersionRecord {
    /// The runtime.
    pub fn runtime(&self) -> RuntimeEnvironment {
        self.runtime.parse().unwrap_or(RuntimeEnvironment::Sql10)
    }

    /// The statements; none where no code was given.
    pub fn script(&self) -> Option<&str> {
        if let Some(code) = &self.code {
            return Some(code);
        }
        let code = self.configuration.application_code_configuration_description.as_ref()?;
        let text = code.code_content_description.as_ref()?.text_content.as_deref()?;
        Some(text).filter(|text| !text.trim().is_empty())
    }
}

/// A shape of the wire as the JSON that it is on the wire.
mod as_json {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use wire::kinesisanalyticsv2::ApplicationConfigurationDescription;

    pub fn serialize<S: Serializer>(shape: &ApplicationConfigurationDescription, to: S) -> Result<S::Ok, S::Error> {
        let text = wire::codec::encode_input(shape);
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(serde::ser::Error::custom)?;
        value.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ApplicationConfigurationDescription, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        wire::codec::decode_output(value.to_string().as_bytes()).map_err(|e| D::Error::custom(e.0))
    }
}

/// An application with its current version.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its name.
    pub name: ResourceName,
    /// Its record.
    pub record: ApplicationRecord,
    /// What it is configured to be.
    pub current: VersionRecord,
}

/// The records of all applications.
pub struct Records {
    catalog: Arc<dyn Catalog>,
}

fn record_key(name: &ResourceName) -> CatalogKey {
    let key = CatalogKey::scoped(name.account, &name.region);
    key.with("analytics-application").with(&name.name)
}

fn versions_key(name: &ResourceName, id: u64) -> CatalogKey {
    let key = CatalogKey::scoped(name.account, &name.region);
    key.with("analytics-version").with(&id.to_string())
}

fn version_key(name: &ResourceName, id: u64, version: u64) -> CatalogKey {
    versions_key(name, id).with(&format!("{version:09}"))
}

impl Records {
    /// Records in this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Records { catalog }
    }

    /// Every application, and those whose deletion was not finished.
    pub async fn load(&self) -> Result<(Vec<Loaded>, Vec<(ResourceName, u64)>), CatalogError> {
        let (mut applications, mut deleting) = (Vec::new(), Vec::new());
        for Owned {
            id,
            name,
            deleting: gone,
        } in OWNERS.load(&*self.catalog).await?
        {
            if gone {
                deleting.push((name, id));
                continue;
            }
            let record = get_json::<ApplicationRecord>(&*self.catalog, record_key(&name)).await?;
            let record = record.map(|entry| entry.value).filter(|record| record.id == id);
            let record = record.ok_or_else(|| OWNERS.without_record(id))?;
            let current = self.version(&name, id, record.version).await?;
            applications.push(Loaded {
                name,
                current: current.ok_or_else(|| OWNERS.without_record(id))?,
                record,
            });
        }
        Ok((applications, deleting))
    }

    /// A number for a new application.
    pub async fn next_id(&self) -> Result<u64, CatalogError> {
        next_id(&*self.catalog, IDS).await
    }

    /// What a version was configured to be; none if it never was or is forgotten.
    pub async fn version(
        &self,
        name: &ResourceName,
        id: u64,
        version: u64,
    ) -> Result<Option<VersionRecord>, CatalogError> {
        let found = get_json::<VersionRecord>(&*self.catalog, version_key(name, id, version)).await?;
        Ok(found.map(|entry| entry.value))
    }

    /// Writes a new application. False if the name is taken.
    pub async fn create(
        &self,
        name: &ResourceName,
        record: &ApplicationRecord,
        version: &VersionRecord,
    ) -> Result<bool, CatalogError> {
        let commit = self.catalog.commit(vec![
            put_json(record_key(name), record, Expect::Absent)?,
            put_json(version_key(name, record.id, version.version), version, Expect::Absent)?,
            OWNERS.claim(record.id, name)?,
        ]);
        settled(commit.await)
    }

    /// Replaces a record, and writes versions with it: the one that is left and the one that is new. False if the
    /// application is gone, or another has its name.
    pub async fn replace(
        &self,
        name: &ResourceName,
        record: &ApplicationRecord,
        versions: &[&VersionRecord],
    ) -> Result<bool, CatalogError> {
        let key = record_key(name);
        let found = get_json::<ApplicationRecord>(&*self.catalog, &key).await?;
        let Some(found) = found.filter(|entry| entry.value.id == record.id) else {
            return Ok(false);
        };
        let mut changes = vec![put_json(&key, record, Expect::Version(found.version))?];
        for version in versions {
            changes.push(put_json(
                version_key(name, record.id, version.version),
                version,
                Expect::Any,
            )?);
        }
        if let Some(old) = record.version.checked_sub(limits::VERSIONS_MAX).filter(|old| *old > 0) {
            changes.push(Change::Delete {
                key: version_key(name, record.id, old).into(),
                expect: Expect::Any,
            });
        }
        settled(self.catalog.commit(changes).await)
    }

    /// Takes the name away. What lies under the number is deleted after this, then [`Records::deleted`] is called.
    pub async fn delete(&self, name: &ResourceName, id: u64) -> Result<bool, CatalogError> {
        let key = record_key(name);
        let found = get_json::<ApplicationRecord>(&*self.catalog, &key).await?;
        let Some(found) = found.filter(|entry| entry.value.id == id) else {
            return Ok(false);
        };
        let changes = vec![Change::remove(&key, found.version), OWNERS.deleting(id, name)?];
        settled(self.catalog.commit(changes).await)
    }

    /// Forgets the versions under a number, then the number.
    pub async fn deleted(&self, name: &ResourceName, id: u64) -> Result<(), CatalogError> {
        let below = versions_key(name, id).below();
        loop {
            let (page, _) = page_json::<serde_json::Value>(&*self.catalog, &below, None, 100).await?;
            if page.is_empty() {
                break;
            }
            let gone = page.into_iter().map(|(key, _)| Change::Delete {
                key,
                expect: Expect::Any,
            });
            self.catalog.commit(gone.collect()).await?;
        }
        self.catalog.commit(vec![OWNERS.gone(id)]).await.map(drop)
    }
}

fn settled(commit: Result<u64, CatalogError>) -> Result<bool, CatalogError> {
    match commit {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}
