//! Buckets of the data directory: rows in the catalog, bytes in files.
//!
//! An object becomes visible by one commit of the catalog, made after its file is durable; nobody ever sees half of one.
//! What a commit leaves without a row is removed behind it, and after a crash at the next start ([`Store::run`]).

mod bucket;
mod copy;
#[cfg(test)]
mod crash;
mod list;
mod multipart;
mod object;
mod remove;
// The lossy disk of the log's own simulation.
#[cfg(test)]
#[allow(dead_code, reason = "the log's simulation uses more of it")]
#[path = "../../../storage/src/sim/disk.rs"]
mod simulated;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, Clock, Disk, Region, Timestamp};
use futures_util::future::join_all;
use storage::catalog::{get_json, page_json, put_json};
use storage::{Catalog, Change, Entry, Expect};
use tokio::sync::{RwLock, mpsc};

pub use bucket::LocalBucket;
pub use list::{ListQuery, Listing};
pub use multipart::{CompletedPart, PartInfo, PartWriter, PartsPage, UploadInfo, UploadStart, UploadsPage};
pub use object::{Conditions, Expected, NewObject, ObjectWriter};
use remove::Pins;
pub(crate) use remove::{accounts, each_row};

use crate::files::{Files, OnFatal, Permit};
use crate::limits::{BUCKET_TAGS_MAX, BUCKETS_MAX, LIST_MAX};
use crate::names::{check_tags, is_bucket_name};
use crate::row::{self, BucketRow, GoneRow, Id};
use crate::{Bucket, Buckets, ObjectError};

/// What buckets stand on.
pub struct Parts {
    /// Where the rows are.
    pub catalog: Arc<dyn Catalog>,
    /// The folder of the objects' files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Asked before files are removed.
    pub permit: Permit,
    /// Called when a file could not be made durable.
    pub on_fatal: OnFatal,
}

/// A bucket as its owner sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketInfo {
    /// Its name.
    pub name: String,
    /// The region it was made in.
    pub region: String,
    /// When that was.
    pub created: Timestamp,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// Locks, so that two changes that must not meet do not. Which one a bucket or an upload has follows from its id.
pub(crate) struct Locks([RwLock<()>; 64]);

impl Locks {
    fn of(&self, id: Id) -> &RwLock<()> {
        let Locks(locks) = self;
        let [first, ..] = locks;
        locks.get(usize::from(id.first_byte() % 64)).unwrap_or(first)
    }
}

impl Default for Locks {
    fn default() -> Self {
        Locks(std::array::from_fn(|_| RwLock::new(())))
    }
}

pub(crate) struct Shared {
    pub catalog: Arc<dyn Catalog>,
    pub files: Arc<Files>,
    pub clock: Arc<dyn Clock>,
    /// Read by commits into a bucket, written by its deletion.
    pub buckets: Locks,
    /// Read by uploads of parts, written by completion and abortion.
    pub uploads: Locks,
    pub pins: Pins,
    /// Leads to [`Store::run`]: uploads whose parts are to be removed.
    pub gone: mpsc::UnboundedSender<(AccountId, Id)>,
}

/// All buckets of the data directory.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    gone: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<(AccountId, Id)>>>,
}

impl Store {
    /// Over what the parts hold. [`Self::run`] is to be spawned beside it.
    pub fn new(parts: Parts) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let files = Files::new(parts.disk, parts.permit, parts.on_fatal);
        let shared = Shared {
            catalog: parts.catalog,
            files,
            clock: parts.clock,
            buckets: Locks::default(),
            uploads: Locks::default(),
            pins: Pins::default(),
            gone: sender,
        };
        Store {
            shared: Arc::new(shared),
            gone: Arc::new(tokio::sync::Mutex::new(receiver)),
        }
    }

    /// Makes a bucket; [`ObjectError::BucketExists`] if the account has one of that name.
    pub async fn create_bucket(
        &self,
        account: AccountId,
        name: &str,
        region: &Region,
        tags: BTreeMap<String, String>,
    ) -> Result<(), ObjectError> {
        if !is_bucket_name(name) {
            return Err(ObjectError::Invalid(format!("{name:?} is not the name of a bucket")));
        }
        check_tags(&tags, BUCKET_TAGS_MAX)?;
        if self.count(account).await? >= BUCKETS_MAX {
            return Err(ObjectError::TooLarge {
                what: "the number of buckets",
                limit: BUCKETS_MAX as u64,
            });
        }
        let made = BucketRow {
            id: Id::random(),
            region: region.to_string(),
            created_ms: self.shared.clock.now().millis(),
            tags,
        };
        let change = put_json(row::bucket(account, name), &made, Expect::Absent)?;
        match self.shared.catalog.commit(vec![change]).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(ObjectError::BucketExists(name.to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    async fn count(&self, account: AccountId) -> Result<usize, ObjectError> {
        let (prefix, mut after, mut count) = (row::buckets(account).below(), None::<String>, 0);
        loop {
            let page = self.shared.catalog.page(&prefix, after.as_deref(), LIST_MAX).await?;
            count += page.entries.len();
            after = page.next;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Buckets whose name begins with `prefix` and is above `after`, at most `limit`, and `after` of the next page.
    pub async fn buckets(
        &self,
        account: AccountId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<BucketInfo>, Option<String>), ObjectError> {
        let space = row::buckets(account);
        let below = format!("{}{prefix}", space.below());
        let mut after: Option<String> = after.map(|name| row::bucket(account, name));
        let (mut out, limit) = (Vec::new(), limit.clamp(1, LIST_MAX));
        loop {
            let (rows, next) =
                page_json::<BucketRow>(&*self.shared.catalog, &below, after.as_deref(), limit - out.len()).await?;
            for (key, entry) in rows {
                let name = space.child_of(&key).ok_or_else(|| row::damaged(&key))?;
                out.push(info(name, entry.value));
            }
            after = next;
            if after.is_none() || out.len() == limit {
                let last = out.last().map(|bucket: &BucketInfo| bucket.name.clone());
                return Ok((out, after.and(last)));
            }
        }
    }

    /// The account's bucket of that name.
    pub async fn bucket(&self, account: AccountId, name: &str) -> Result<Arc<LocalBucket>, ObjectError> {
        let found = self.row(account, name).await?;
        let found = found.ok_or_else(|| ObjectError::NoSuchBucket(name.to_owned()))?;
        Ok(Arc::new(LocalBucket::new(
            Arc::clone(&self.shared),
            account,
            name,
            &found,
        )))
    }

    async fn row(&self, account: AccountId, name: &str) -> Result<Option<Entry<BucketRow>>, ObjectError> {
        if !is_bucket_name(name) {
            return Ok(None);
        }
        Ok(get_json(&*self.shared.catalog, row::bucket(account, name)).await?)
    }

    /// Removes a bucket without objects. Uploads that were begun in it are given up, as AWS does.
    pub async fn delete_bucket(&self, account: AccountId, name: &str) -> Result<(), ObjectError> {
        let found = self.row(account, name).await?;
        let found = found.ok_or_else(|| ObjectError::NoSuchBucket(name.to_owned()))?;
        let id = found.value.id;
        let _alone = self.shared.buckets.of(id).write().await;
        let objects = self.shared.catalog.page(&row::objects(account, id), None, 1).await?;
        if !objects.entries.is_empty() {
            return Err(ObjectError::BucketNotEmpty(name.to_owned()));
        }
        self.drop_uploads(account, id).await?;
        let change = Change::Delete {
            key: row::bucket(account, name),
            expect: Expect::Any,
        };
        self.shared.catalog.commit(vec![change]).await?;
        Ok(())
    }

    async fn drop_uploads(&self, account: AccountId, bucket: Id) -> Result<(), ObjectError> {
        let prefix = row::uploads(account, bucket);
        loop {
            let page = self.shared.catalog.page(&prefix, None, 100).await?;
            if page.entries.is_empty() {
                return Ok(());
            }
            let drop_one = |(key, _): (String, _)| async move {
                let rest = key.strip_prefix(&row::uploads(account, bucket));
                let (_, id) = rest.and_then(row::upload_of).ok_or_else(|| row::damaged(&key))?;
                self.shared.drop_upload(account, key, id).await
            };
            for outcome in join_all(page.entries.into_iter().map(drop_one)).await {
                outcome?;
            }
        }
    }

    /// Sets the tags of a bucket.
    pub async fn tag_bucket(
        &self,
        account: AccountId,
        name: &str,
        tags: BTreeMap<String, String>,
    ) -> Result<(), ObjectError> {
        check_tags(&tags, BUCKET_TAGS_MAX)?;
        let missing = || ObjectError::NoSuchBucket(name.to_owned());
        let found = self.row(account, name).await?.ok_or_else(missing)?;
        let _alone = self.shared.buckets.of(found.value.id).write().await;
        let found = self.row(account, name).await?.ok_or_else(missing)?;
        let new = BucketRow { tags, ..found.value };
        let change = put_json(row::bucket(account, name), &new, Expect::Version(found.version))?;
        self.shared.catalog.commit(vec![change]).await?;
        Ok(())
    }
}

fn info(name: String, row: BucketRow) -> BucketInfo {
    BucketInfo {
        name,
        region: row.region,
        created: Timestamp::from_millis(row.created_ms),
        tags: row.tags,
    }
}

impl Shared {
    /// Removes the row of an upload, and lets its parts go.
    async fn drop_upload(&self, account: AccountId, key: String, id: Id) -> Result<(), ObjectError> {
        let _alone = self.uploads.of(id).write().await;
        let gone = GoneRow {
            account: account.to_string(),
            but: Vec::new(),
        };
        let changes = vec![
            Change::Delete {
                key,
                expect: Expect::Any,
            },
            put_json(row::gone().with(&id.to_string()), &gone, Expect::Any)?,
        ];
        self.catalog.commit(changes).await?;
        let _ = self.gone.send((account, id));
        Ok(())
    }
}

#[async_trait]
impl Buckets for Store {
    async fn open(&self, account: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError> {
        Ok(self.bucket(account, name).await?)
    }
}
