//! The edge configurations of streams in the catalog.
//!
//! `ACCOUNT/REGION/video-edge/STREAM` holds a configuration and of which stream of that name it is, and
//! `ACCOUNT/REGION/video-edge-hub/HUB-DEVICE-ARN/STREAM` says that it belongs to that device. A configuration whose stream
//! is gone counts as none.

use std::sync::Arc;

use base::ResourceName;
use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, page_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};

use crate::error::ControlError;
use crate::records::TRIES;
use crate::streams::{Owner, StreamArn};

/// A configuration as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EdgeRecord {
    /// When its stream was created, milliseconds since the epoch.
    pub stream_created_ms: i64,
    /// When the stream got its first configuration.
    pub created_ms: i64,
    /// When it was changed last.
    pub updated_ms: i64,
    /// The device it is for.
    pub hub_device_arn: String,
    /// The EdgeConfig, as on the wire.
    pub config: serde_json::Value,
}

/// All configurations.
pub(crate) struct EdgeConfigs {
    catalog: Arc<dyn Catalog>,
}

fn record_key(name: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(name.account, &name.region)
        .with("video-edge")
        .with(&name.name)
}

fn hub(owner: &Owner, hub_device_arn: &str) -> CatalogKey {
    CatalogKey::scoped(owner.account, &owner.region)
        .with("video-edge-hub")
        .with(hub_device_arn)
}

fn hub_key(name: &ResourceName, hub_device_arn: &str) -> CatalogKey {
    let owner = Owner {
        account: name.account,
        region: name.region.clone(),
    };
    hub(&owner, hub_device_arn).with(&name.name)
}

impl EdgeConfigs {
    /// Configurations in this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        EdgeConfigs { catalog }
    }

    /// A stream's configuration.
    pub async fn get(&self, stream: &StreamArn) -> Result<Option<EdgeRecord>, ControlError> {
        let found = get_json::<EdgeRecord>(&*self.catalog, record_key(&stream.name)).await?;
        let record = found.map(|entry| entry.value);
        Ok(record.filter(|record| record.stream_created_ms == stream.created_ms))
    }

    /// Changes a stream's configuration: `change` sees what there is and gives what there shall be. It may be called
    /// several times; it must not do anything else.
    pub async fn change(
        &self,
        stream: &StreamArn,
        change: impl Fn(Option<EdgeRecord>) -> Result<Option<EdgeRecord>, ControlError>,
    ) -> Result<Option<EdgeRecord>, ControlError> {
        let key = record_key(&stream.name);
        for _ in 0..TRIES {
            let found = get_json::<EdgeRecord>(&*self.catalog, &key).await?;
            let expect = found
                .as_ref()
                .map_or(Expect::Absent, |entry| Expect::Version(entry.version));
            let stored = found.map(|entry| entry.value);
            let current = stored
                .clone()
                .filter(|record| record.stream_created_ms == stream.created_ms);
            let wanted = change(current)?;
            let commit = changes(&stream.name, stored.as_ref(), wanted.as_ref(), expect)?;
            if commit.is_empty() {
                return Ok(wanted);
            }
            match self.catalog.commit(commit).await {
                Ok(_) => return Ok(wanted),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CatalogError::Conflict { key: key.into() }.into())
    }

    /// Configurations of one device in the order of their streams' names, after `after`, at most `limit`; and whether
    /// there may be more. Those of streams that are gone are among them.
    pub async fn page(
        &self,
        owner: &Owner,
        hub_device_arn: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(ResourceName, EdgeRecord)>, bool), ControlError> {
        let hub = hub(owner, hub_device_arn);
        let after = after.map(|name| String::from(hub.clone().with(name)));
        let (page, next) = page_json::<()>(&*self.catalog, &hub.below(), after.as_deref(), limit).await?;
        let mut found = Vec::new();
        for (key, _) in page {
            let name = owner.named(&hub.child_of(&key).unwrap_or_default());
            if let Some(entry) = get_json::<EdgeRecord>(&*self.catalog, record_key(&name)).await? {
                found.push((name, entry.value));
            }
        }
        Ok((found, next.is_some()))
    }
}

/// What turns the stored record and its place in the list of its device into the wanted ones.
fn changes(
    name: &ResourceName,
    stored: Option<&EdgeRecord>,
    wanted: Option<&EdgeRecord>,
    expect: Expect,
) -> Result<Vec<Change>, CatalogError> {
    let mut commit = Vec::new();
    let device = |record: Option<&EdgeRecord>| record.map(|record| record.hub_device_arn.clone());
    let stale = device(stored).filter(|stale| device(wanted).as_ref() != Some(stale));
    let stale = stale.map(|device| hub_key(name, &device));
    commit.extend(stale.map(|key| Change::Delete {
        key: key.into(),
        expect: Expect::Any,
    }));
    match (wanted, stored.is_some()) {
        (Some(record), _) => {
            commit.push(put_json(record_key(name), record, expect)?);
            commit.push(put_json(hub_key(name, &record.hub_device_arn), &(), Expect::Any)?);
        }
        (None, true) => commit.push(Change::Delete {
            key: record_key(name).into(),
            expect,
        }),
        (None, false) => {}
    }
    Ok(commit)
}
