//! The records of signalling channels in the catalog; nothing of them is kept in memory.
//!
//! `ACCOUNT/REGION/video-channel/NAME` holds a channel. `ACCOUNT/REGION/video-channels` keeps how many there are and the
//! youngest creation time given out, so that two channels never share an ARN. `ACCOUNT/REGION/video-stream-channel/STREAM`
//! says which channel stores its media in a stream; it counts only while that channel says the same.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base::{ResourceName, Timestamp};
use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, page_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};

use crate::error::ControlError;
use crate::limits;
use crate::records::{TRIES, new_version};
use crate::streams::{Owner, StreamArn, parse_arn};

/// Entries of the catalog read at once.
const PAGE: usize = 1000;

/// The ARN of a signalling channel, `arn:aws:kinesisvideo:REGION:ACCOUNT:channel/NAME/CREATION_MS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelArn {
    /// Owner, region and name.
    pub name: ResourceName,
    /// Milliseconds since the epoch at which the channel was created; unique per account and region.
    pub created_ms: i64,
}

impl ChannelArn {
    /// The ARN of a channel, if the text is one.
    pub fn parse(text: &str) -> Option<Self> {
        parse_arn(text, "channel").map(|(name, created_ms)| ChannelArn { name, created_ms })
    }
}

impl fmt::Display for ChannelArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResourceName { account, region, name } = &self.name;
        let created = self.created_ms;
        write!(f, "arn:aws:kinesisvideo:{region}:{account}:channel/{name}/{created}")
    }
}

/// What kind of channel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topology {
    /// One master, many viewers.
    SingleMaster {
        /// How long an undelivered message is kept.
        message_ttl_seconds: i32,
    },
    /// Everybody talks to everybody.
    FullMesh,
}

/// A channel as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelRecord {
    /// When it was created, milliseconds since the epoch; part of the ARN.
    pub created_ms: i64,
    /// Changes with every update.
    pub version: String,
    /// Its kind.
    pub topology: Topology,
    /// The ARN of the stream in which its media is stored; none when it is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_in: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// What an account's channels in a region have in common.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ledger {
    /// How many there are.
    channels: usize,
    /// The youngest creation time given out.
    created_ms: i64,
}

/// The channel that stores its media in a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mapped {
    channel: String,
    created_ms: i64,
}

/// The records of all channels.
pub(crate) struct Channels {
    catalog: Arc<dyn Catalog>,
}

fn space(name: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(name.account, &name.region)
}

fn record_key(name: &ResourceName) -> CatalogKey {
    space(name).with("video-channel").with(&name.name)
}

fn ledger_key(name: &ResourceName) -> CatalogKey {
    space(name).with("video-channels")
}

fn mapped_key(stream: &StreamArn) -> CatalogKey {
    let stream_of = format!("{}/{}", stream.name.name, stream.created_ms);
    space(&stream.name).with("video-stream-channel").with(&stream_of)
}

fn conflict(key: CatalogKey) -> ControlError {
    CatalogError::Conflict { key: key.into() }.into()
}

impl Channels {
    /// Channels in this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Channels { catalog }
    }

    /// The channel of that name.
    pub async fn by_name(&self, name: &ResourceName) -> Result<Option<(ChannelArn, ChannelRecord)>, ControlError> {
        let found = get_json::<ChannelRecord>(&*self.catalog, record_key(name)).await?;
        Ok(found.map(|entry| {
            let (name, created_ms) = (name.clone(), entry.value.created_ms);
            (ChannelArn { name, created_ms }, entry.value)
        }))
    }

    /// Makes a channel.
    pub async fn create(
        &self,
        name: &ResourceName,
        topology: Topology,
        tags: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<ChannelArn, ControlError> {
        let ledger_key = ledger_key(name);
        let mut record = ChannelRecord {
            created_ms: 0,
            version: new_version(),
            topology,
            stored_in: None,
            tags,
        };
        for _ in 0..TRIES {
            if self.catalog.get(record_key(name).as_str()).await?.is_some() {
                return Err(ControlError::ChannelNameTaken(name.name.clone()));
            }
            let ledger = get_json::<Ledger>(&*self.catalog, &ledger_key).await?;
            let expect = ledger
                .as_ref()
                .map_or(Expect::Absent, |entry| Expect::Version(entry.version));
            let (channels, youngest) =
                ledger.map_or((0, i64::MIN), |entry| (entry.value.channels, entry.value.created_ms));
            if channels >= limits::CHANNELS_PER_ACCOUNT {
                return Err(ControlError::TooManyChannels);
            }
            record.created_ms = now.millis().max(youngest.saturating_add(1));
            let ledger = Ledger {
                channels: channels + 1,
                created_ms: record.created_ms,
            };
            let commit = self.catalog.commit(vec![
                put_json(record_key(name), &record, Expect::Absent)?,
                put_json(&ledger_key, &ledger, expect)?,
            ]);
            match commit.await {
                Ok(_) => {
                    let (name, created_ms) = (name.clone(), record.created_ms);
                    return Ok(ChannelArn { name, created_ms });
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(conflict(ledger_key))
    }

    /// Changes a channel and gives it a new version. `change` may be called several times; it must not do anything else.
    pub async fn update(
        &self,
        arn: &ChannelArn,
        mut change: impl FnMut(&mut ChannelRecord) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let key = record_key(&arn.name);
        for _ in 0..TRIES {
            let (version, before) = self.current(arn).await?;
            let mut record = before.clone();
            change(&mut record)?;
            record.version = new_version();
            let mut commit = vec![put_json(&key, &record, Expect::Version(version))?];
            if before.stored_in != record.stored_in {
                commit.extend(before.stored_in.as_deref().and_then(forget));
                if let Some(stream) = record.stored_in.as_deref().and_then(|arn| arn.parse().ok()) {
                    commit.push(self.map(arn, &stream).await?);
                }
            }
            match self.catalog.commit(commit).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(conflict(key))
    }

    /// Deletes a channel. `check` may refuse.
    pub async fn delete(
        &self,
        arn: &ChannelArn,
        check: impl Fn(&ChannelRecord) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let (key, ledger_key) = (record_key(&arn.name), ledger_key(&arn.name));
        for _ in 0..TRIES {
            let (version, record) = self.current(arn).await?;
            check(&record)?;
            let mut commit = vec![Change::remove(&key, version)];
            if let Some(entry) = get_json::<Ledger>(&*self.catalog, &ledger_key).await? {
                let mut ledger = entry.value;
                ledger.channels = ledger.channels.saturating_sub(1);
                commit.push(put_json(&ledger_key, &ledger, Expect::Version(entry.version))?);
            }
            commit.extend(record.stored_in.as_deref().and_then(forget));
            match self.catalog.commit(commit).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(conflict(key))
    }

    /// Channels of one account and region whose names begin with `prefix` and come after `after`, in the order of their
    /// names, at most `limit`; and whether there are more.
    pub async fn page(
        &self,
        owner: &Owner,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(ChannelArn, ChannelRecord)>, bool), ControlError> {
        let all = CatalogKey::scoped(owner.account, &owner.region).with("video-channel");
        let prefix = format!("{}{prefix}", all.below());
        let mut after = after.map(|name| String::from(all.clone().with(name)));
        let mut found = Vec::new();
        loop {
            let wanted = (limit + 1 - found.len()).min(PAGE);
            let (page, next) = page_json::<ChannelRecord>(&*self.catalog, &prefix, after.as_deref(), wanted).await?;
            for (key, entry) in page {
                let name = owner.named(&all.child_of(&key).unwrap_or_default());
                let created_ms = entry.value.created_ms;
                found.push((ChannelArn { name, created_ms }, entry.value));
            }
            if next.is_none() || found.len() > limit {
                let more = found.len() > limit;
                found.truncate(limit);
                return Ok((found, more));
            }
            after = next;
        }
    }

    /// The channel that stores its media in a stream.
    pub async fn storing_in(&self, stream: &StreamArn) -> Result<Option<ChannelArn>, ControlError> {
        let mapped = get_json::<Mapped>(&*self.catalog, mapped_key(stream)).await?;
        let Some(mapped) = mapped.map(|entry| entry.value) else {
            return Ok(None);
        };
        let name = ResourceName {
            name: mapped.channel,
            ..stream.name.clone()
        };
        let channel = self.by_name(&name).await?;
        let text = stream.to_string();
        let stands = |(arn, record): &(ChannelArn, ChannelRecord)| {
            arn.created_ms == mapped.created_ms && record.stored_in.as_deref() == Some(&text)
        };
        Ok(channel.filter(stands).map(|(arn, _)| arn))
    }

    /// The change that maps a stream to a channel.
    async fn map(&self, channel: &ChannelArn, stream: &StreamArn) -> Result<Change, ControlError> {
        let key = mapped_key(stream);
        let there = self.catalog.get(key.as_str()).await?;
        let expect = there.map_or(Expect::Absent, |entry| Expect::Version(entry.version));
        if let Some(other) = self.storing_in(stream).await?.filter(|other| other != channel) {
            return Err(ControlError::InUse(format!(
                "The stream already stores the media of the channel {other}."
            )));
        }
        let mapped = Mapped {
            channel: channel.name.name.clone(),
            created_ms: channel.created_ms,
        };
        Ok(put_json(key, &mapped, expect)?)
    }

    async fn current(&self, arn: &ChannelArn) -> Result<(u64, ChannelRecord), ControlError> {
        let found = get_json::<ChannelRecord>(&*self.catalog, record_key(&arn.name)).await?;
        let found = found.filter(|entry| entry.value.created_ms == arn.created_ms);
        found
            .map(|entry| (entry.version, entry.value))
            .ok_or(ControlError::ChannelNotFound)
    }
}

/// The change that takes a stream's mapping away.
fn forget(stream: &str) -> Option<Change> {
    let stream: StreamArn = stream.parse().ok()?;
    let (key, expect) = (mapped_key(&stream).into(), Expect::Any);
    Some(Change::Delete { key, expect })
}
