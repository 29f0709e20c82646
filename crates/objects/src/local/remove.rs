//! What is gone gives its space back: files of objects at once, the parts of an upload behind the answer, and after a crash
//! whatever no row names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::AccountId;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use storage::catalog::{get_json, page_json};
use storage::{Catalog, Change, Expect};
use tokio::task::spawn_blocking;

use super::{Shared, Store};
use crate::ObjectError;
use crate::limits::{LIST_MAX, ORPHANS_AT_ONCE};
use crate::row::{self, Body, GoneRow, Id, ObjectRow, PartRow};

/// How often removals that failed are tried again.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// Part rows that go in one commit.
const ROWS_AT_ONCE: usize = 200;

/// Uploads whose parts are being read: they stay until the last reader is done.
#[derive(Default)]
pub(crate) struct Pins(Mutex<HashMap<Id, usize>>);

impl Pins {
    pub fn is_pinned(&self, id: Id) -> bool {
        self.0.lock().contains_key(&id)
    }
}

/// Keeps the parts of an upload while they are read.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    account: AccountId,
    id: Id,
}

impl Pin {
    pub fn new(shared: &Arc<Shared>, account: AccountId, id: Id) -> Self {
        *shared.pins.0.lock().entry(id).or_insert(0) += 1;
        let shared = Arc::clone(shared);
        Pin { shared, account, id }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.0.lock();
        if let Some(count) = pins.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.id);
                // It may have become nobody's while it was read. Who receives this looks that up.
                let _ = self.shared.gone.send((self.account, self.id));
            }
        }
    }
}

impl Shared {
    /// Gives back the space of a body that no row names any more.
    pub async fn release(&self, account: AccountId, body: &Body) {
        match body {
            Body::Empty => {}
            Body::File { id, .. } => self.remove_files(vec![*id]).await,
            Body::Parts { upload, .. } => {
                let _ = self.gone.send((account, *upload));
            }
        }
    }

    pub async fn remove_files(&self, ids: Vec<Id>) {
        let files = Arc::clone(&self.files);
        if let Err(error) = spawn_blocking(move || files.remove(&ids)).await {
            tracing::warn!(%error, "files of deleted objects stay until the next start");
        }
    }

    /// Removes the parts of an upload that is gone, but those that an object needs.
    async fn reap(&self, account: AccountId, id: Id) -> Result<(), ObjectError> {
        let key = row::gone().with(&id.to_string());
        let Some(gone) = get_json::<GoneRow>(&*self.catalog, &key).await? else {
            return Ok(());
        };
        if self.pins.is_pinned(id) {
            return Ok(());
        }
        let (prefix, mut after) = (row::parts(account, id), None::<String>);
        loop {
            let (rows, next) = page_json::<PartRow>(&*self.catalog, &prefix, after.as_deref(), ROWS_AT_ONCE).await?;
            let mut changes = Vec::new();
            let mut files = Vec::new();
            for (key, entry) in rows {
                let number = key.strip_prefix(&prefix).and_then(|number| number.parse().ok());
                let number: u16 = number.ok_or_else(|| row::damaged(&key))?;
                if row::is_within(&gone.value.but, number) {
                    continue;
                }
                files.extend(entry.value.file);
                changes.push(Change::Delete {
                    key,
                    expect: Expect::Any,
                });
            }
            if !changes.is_empty() {
                self.catalog.commit(changes).await?;
                self.remove_files(files).await;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        let done = Change::Delete {
            key: key.into(),
            expect: Expect::Version(gone.version),
        };
        match self.catalog.commit(vec![done]).await {
            // Changed meanwhile: the object that needed the rest is gone too, and has said so.
            Err(error) if !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Collects orphans of an earlier life, then removes what becomes nobody's. Ends only by being dropped; may be run once.
    pub async fn run(self) {
        let mut gone = self.gone.lock().await;
        if let Err(error) = self.recover_now().await {
            tracing::warn!(%error, "files that no object needs stay until the next start");
        }
        let mut ticks = tokio::time::interval(RETRY_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((account, id)) = gone.recv() => {
                    if let Err(error) = self.shared.reap(account, id).await {
                        tracing::warn!(upload = %id, %error, "parts that nobody needs stay until the next start");
                    }
                }
                _ = ticks.tick() => {
                    let files = Arc::clone(&self.shared.files);
                    if let Err(error) = spawn_blocking(move || files.retry()).await {
                        tracing::warn!(%error, "files of deleted objects stay until the next start");
                    }
                }
            }
        }
    }

    /// What [`Self::run`] begins with: removes the parts that are marked as gone, and every file that no row names.
    pub async fn recover_now(&self) -> Result<(), ObjectError> {
        let space = row::gone();
        let mut after = None::<String>;
        loop {
            let (rows, next) =
                page_json::<GoneRow>(&*self.shared.catalog, &space.below(), after.as_deref(), LIST_MAX).await?;
            for (key, entry) in rows {
                let id = space.child_of(&key).and_then(|id| id.parse().ok());
                let account = entry.value.account.parse().ok();
                let (Some(id), Some(account)) = (id, account) else {
                    return Err(row::damaged(&key));
                };
                self.shared.reap(account, id).await?;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        let removed = self.collect_orphans().await?;
        if removed > 0 {
            tracing::info!(removed, "removed files that a crash had left behind");
        }
        Ok(())
    }

    /// Removes every file that no row names. Gives their number. Objects may be put and deleted meanwhile.
    pub async fn collect_orphans(&self) -> Result<usize, ObjectError> {
        let (mut removed, mut candidates) = (0, HashSet::new());
        for byte in 0..=u8::MAX {
            let files = Arc::clone(&self.shared.files);
            let listed = spawn_blocking(move || files.list(byte)).await;
            candidates.extend(listed.map_err(|error| ObjectError::Storage(error.to_string()))??);
            if candidates.len() < ORPHANS_AT_ONCE && byte < u8::MAX {
                continue;
            }
            if candidates.is_empty() {
                continue;
            }
            each_file(&*self.shared.catalog, |id| {
                candidates.remove(&id);
            })
            .await?;
            removed += candidates.len();
            self.shared.remove_files(candidates.drain().collect()).await;
        }
        Ok(removed)
    }
}

/// Tells every file that a row names.
async fn each_file(catalog: &dyn Catalog, mut tell: impl FnMut(Id)) -> Result<(), ObjectError> {
    for account in accounts(catalog).await? {
        each_row::<ObjectRow>(catalog, &row::all_objects(account), |_, row| {
            if let Body::File { id, .. } = row.body {
                tell(id);
            }
        })
        .await?;
        each_row::<PartRow>(catalog, &row::all_parts(account), |_, row| {
            row.file.into_iter().for_each(&mut tell);
        })
        .await?;
    }
    Ok(())
}

/// Tells every row below a prefix, with the rest of its key.
pub(crate) async fn each_row<T: DeserializeOwned>(
    catalog: &dyn Catalog,
    prefix: &str,
    mut tell: impl FnMut(&str, T),
) -> Result<(), ObjectError> {
    let mut after = None::<String>;
    loop {
        let (rows, next) = page_json::<T>(catalog, prefix, after.as_deref(), LIST_MAX).await?;
        for (key, entry) in rows {
            tell(key.strip_prefix(prefix).unwrap_or_default(), entry.value);
        }
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// The accounts that have anything in the catalog: found by leaping from one to the next.
pub(crate) async fn accounts(catalog: &dyn Catalog) -> Result<Vec<AccountId>, ObjectError> {
    let (mut out, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = catalog.page("", after.as_deref(), 1).await?;
        let Some((key, _)) = page.entries.first() else {
            return Ok(out);
        };
        let first = key.split('/').next().unwrap_or_default();
        out.extend(first.parse::<AccountId>().ok());
        // The character behind '/': above every key of this account, and at most equal to the next one's first.
        after = Some(format!("{first}0"));
    }
}
