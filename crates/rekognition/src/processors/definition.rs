//! What is kept of a processor in the catalog, and how it is changed.
//!
//! Three keys: the definition with its status below its account and region; beside it the position (written about once a
//! second while it runs); and below the server's own space a marker for each processor that a restart has to start again.
//! Definition and marker change in one commit, so that they never disagree. Sessions of label detection are kept beside.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{AccountId, Region, ResourceName, Timestamp};
use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, page_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};

use super::labels::settings::LabelDetection;
use super::resume::Position;
use super::status::Status;

/// A processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) status: Status,
    pub(crate) status_message: Option<String>,
    /// How often it was started; tells the runs of different starts apart.
    pub(crate) generation: u64,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
    pub(crate) input_arn: String,
    pub(crate) role_arn: String,
    #[serde(flatten)]
    pub(crate) work: Work,
    pub(crate) data_sharing: Option<bool>,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
}

/// What a processor does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Work {
    /// Searches faces in a collection.
    FaceSearch(FaceSearch),
    /// Detects people and pets.
    Labels(LabelDetection),
}

/// A face-search processor beyond what every processor has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FaceSearch {
    pub(crate) output_arn: String,
    pub(crate) collection_id: String,
    /// As it is applied: at least 80.
    pub(crate) threshold: f32,
}

/// A definition and the commit that wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) definition: Definition,
    version: u64,
}

/// Why a state was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransitionError {
    /// There is no such processor.
    #[error("there is no such processor")]
    NotFound,
    /// It is in a state from which the wanted one cannot be reached, or belongs to a later start.
    #[error("the processor is {0:?}")]
    Refused(Status),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// A wanted change of state.
pub(crate) struct Transition<'a> {
    pub(crate) to: Status,
    pub(crate) message: Option<&'a str>,
    /// Only if the processor's last start is this one.
    pub(crate) generation: Option<u64>,
    pub(crate) at: Timestamp,
}

/// The marker of a processor that is to run.
#[derive(Serialize, Deserialize)]
struct Marker {
    account: String,
    region: String,
    name: String,
}

/// Processors in the catalog.
pub(crate) struct Store {
    catalog: Arc<dyn Catalog>,
}

/// How often a change is tried again when another commit came between.
const ATTEMPTS_MAX: usize = 16;

/// Markers read at once.
const PAGE: usize = 500;

fn processors(account: AccountId, region: &Region) -> CatalogKey {
    CatalogKey::scoped(account, region).with("stream-processor")
}

fn definition_key(key: &ResourceName) -> CatalogKey {
    processors(key.account, &key.region).with(&key.name)
}

fn position_key(key: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(key.account, &key.region)
        .with("stream-processor-position")
        .with(&key.name)
}

fn markers() -> CatalogKey {
    CatalogKey::server().with("stream-processor-running")
}

fn marker_key(key: &ResourceName) -> CatalogKey {
    let scope = markers().with(&key.account.to_string()).with(key.region.as_str());
    scope.with(&key.name)
}

impl Store {
    pub(crate) fn new(catalog: Arc<dyn Catalog>) -> Self {
        Store { catalog }
    }

    pub(crate) fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// Adds a processor; a conflict means that the name is taken.
    pub(crate) async fn create(&self, key: &ResourceName, definition: &Definition) -> Result<(), CatalogError> {
        let created = put_json(definition_key(key), definition, Expect::Absent)?;
        self.catalog.commit(vec![created]).await.map(drop)
    }

    pub(crate) async fn get(&self, key: &ResourceName) -> Result<Option<Kept>, CatalogError> {
        let found = get_json(&*self.catalog, definition_key(key)).await?;
        Ok(found.map(|entry| Kept {
            definition: entry.value,
            version: entry.version,
        }))
    }

    /// Processors by name, beginning after `after`, at most `limit`, and whether there are more.
    pub(crate) async fn list(
        &self,
        account: AccountId,
        region: &Region,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, Definition)>, bool), CatalogError> {
        let space = processors(account, region);
        let mut after = after.map(|name| String::from(space.clone().with(name)));
        let mut found = Vec::new();
        while found.len() <= limit {
            let wanted = (limit + 1 - found.len()).min(PAGE);
            let (entries, next) =
                page_json::<Definition>(&*self.catalog, &space.below(), after.as_deref(), wanted).await?;
            let named = entries
                .into_iter()
                .filter_map(|(key, entry)| Some((space.child_of(&key)?, entry.value)));
            found.extend(named);
            after = next;
            if after.is_none() {
                break;
            }
        }
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    /// The processors that ran when the server ended.
    pub(crate) async fn running(&self) -> Result<Vec<ResourceName>, CatalogError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (entries, next) =
                page_json::<Marker>(&*self.catalog, &markers().below(), after.as_deref(), PAGE).await?;
            for (key, entry) in entries {
                let marker = entry.value;
                match (marker.account.parse(), marker.region.parse()) {
                    (Ok(account), Ok(region)) => found.push(ResourceName {
                        account,
                        region,
                        name: marker.name,
                    }),
                    _ => tracing::error!(%key, "a stream processor cannot be started again: its marker is unreadable"),
                }
            }
            after = next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Changes the state if it may be changed so, and gives the definition as it is afterwards. A processor that is
    /// stopped or has failed has no position: the next start is a new one.
    pub(crate) async fn transition(
        &self,
        key: &ResourceName,
        wanted: &Transition<'_>,
    ) -> Result<Definition, TransitionError> {
        self.transition_with(key, wanted, |_| Ok(Some(Vec::new()))).await
    }

    /// The same, with further changes in the commit that depend on the definition as it will be; `None` refuses the change.
    pub(crate) async fn transition_with(
        &self,
        key: &ResourceName,
        wanted: &Transition<'_>,
        beside: impl Fn(&Definition) -> Result<Option<Vec<Change>>, CatalogError>,
    ) -> Result<Definition, TransitionError> {
        for _ in 0..ATTEMPTS_MAX {
            let kept = self.get(key).await?.ok_or(TransitionError::NotFound)?;
            let (mut definition, version) = (kept.definition, kept.version);
            let same_start = wanted
                .generation
                .is_none_or(|generation| generation == definition.generation);
            if !same_start || !definition.status.may_become(wanted.to) {
                return Err(TransitionError::Refused(definition.status));
            }
            let kept_status = definition.status;
            definition.status = wanted.to;
            definition.status_message = wanted.message.map(str::to_owned);
            definition.updated_ms = wanted.at.millis();
            if wanted.to == Status::Starting {
                definition.generation += 1;
            }
            let Some(mut changes) = beside(&definition)? else {
                return Err(TransitionError::Refused(kept_status));
            };
            changes.push(put_json(definition_key(key), &definition, Expect::Version(version))?);
            if wanted.to == Status::Starting {
                let marker = Marker {
                    account: key.account.to_string(),
                    region: key.region.to_string(),
                    name: key.name.clone(),
                };
                changes.push(put_json(marker_key(key), &marker, Expect::Any)?);
            } else if !wanted.to.is_active() {
                changes.extend([delete(marker_key(key)), delete(position_key(key))]);
            }
            match self.catalog.commit(changes).await {
                Ok(_) => return Ok(definition),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let conflict = CatalogError::Conflict {
            key: definition_key(key).into(),
        };
        Err(conflict.into())
    }

    /// Replaces a definition that has not changed since it was read.
    pub(crate) async fn replace(&self, key: &ResourceName, kept: &Kept) -> Result<(), CatalogError> {
        let change = put_json(definition_key(key), &kept.definition, Expect::Version(kept.version))?;
        self.catalog.commit(vec![change]).await.map(drop)
    }

    /// Removes a processor that has not changed since it was read.
    pub(crate) async fn remove(&self, key: &ResourceName, kept: &Kept) -> Result<(), CatalogError> {
        let definition = Change::remove(definition_key(key), kept.version);
        let changes = vec![definition, delete(marker_key(key)), delete(position_key(key))];
        self.catalog.commit(changes).await.map(drop)
    }

    pub(crate) async fn position(&self, key: &ResourceName) -> Result<Option<Position>, CatalogError> {
        let found = get_json(&*self.catalog, position_key(key)).await?;
        Ok(found.map(|entry| entry.value))
    }

    pub(crate) async fn save_position(&self, key: &ResourceName, position: &Position) -> Result<(), CatalogError> {
        let change = put_json(position_key(key), position, Expect::Any)?;
        self.catalog.commit(vec![change]).await.map(drop)
    }
}

fn delete(key: CatalogKey) -> Change {
    Change::Delete {
        key: key.into(),
        expect: Expect::Any,
    }
}
