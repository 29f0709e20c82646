//! A catalog in memory that keeps the promises of a durable one across simulated power cuts.
//!
//! [`MemoryCatalog`] is a handle to a disk that survives it: [`MemoryCatalog::power_cut`] kills the handle and gives a new
//! one over what was durable. With [`MemoryCatalog::hold`] commits wait un-synced, so that a cut can fall between a commit
//! and its answer: some of the waiting ones are then durable, in order, and none of them was answered.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::limits::CATALOG_PAGE_BYTES_MAX;
use super::{Catalog, CatalogError, Change, Expect, Page, Versioned, check_commit, check_key, check_page};

type Answer = oneshot::Sender<Result<u64, CatalogError>>;

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Versioned>,
    last_version: u64,
    holding: bool,
    waiting: VecDeque<(Vec<Change>, Answer)>,
    /// Counts power cuts; a handle of an earlier life is dead.
    life: u64,
    /// Set to let the next commits fail for lack of space.
    full: bool,
}

/// See the module's text.
#[derive(Clone)]
pub struct MemoryCatalog {
    state: Arc<Mutex<State>>,
    life: u64,
}

impl Default for MemoryCatalog {
    fn default() -> Self {
        Self::new()
    }
}

fn dead() -> CatalogError {
    CatalogError::Closed("the power was cut".to_owned())
}

impl State {
    fn apply(&mut self, changes: Vec<Change>) -> Result<u64, CatalogError> {
        for change in &changes {
            let have = self.entries.get(change.key()).map(|entry| entry.version);
            let holds = match change.expect() {
                Expect::Any => true,
                Expect::Absent => have.is_none(),
                Expect::Version(version) => have == Some(version),
            };
            if !holds {
                let key = change.key().to_owned();
                return Err(CatalogError::Conflict { key });
            }
        }
        if self.full && changes.iter().any(|change| matches!(change, Change::Put { .. })) {
            return Err(CatalogError::Full);
        }
        self.last_version += 1;
        let version = self.last_version;
        for change in changes {
            match change {
                Change::Put { key, value, .. } => drop(self.entries.insert(key, Versioned { version, value })),
                Change::Delete { key, .. } => drop(self.entries.remove(&key)),
                Change::Check { .. } => {}
            }
        }
        Ok(version)
    }
}

impl MemoryCatalog {
    /// An empty catalog.
    pub fn new() -> Self {
        MemoryCatalog {
            state: Arc::default(),
            life: 0,
        }
    }

    /// From now on commits wait, un-synced and unanswered, until [`Self::release`] or a power cut.
    pub fn hold(&self) {
        self.state.lock().holding = true;
    }

    /// Syncs and answers everything that waits, and holds no more.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.holding = false;
        while let Some((changes, answer)) = state.waiting.pop_front() {
            let result = state.apply(changes);
            let _ = answer.send(result);
        }
    }

    /// How many commits wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// While set, commits that write fail with [`CatalogError::Full`].
    pub fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// Cuts the power: this handle and its clones are dead. Of the waiting commits the first `survive` reached the disk,
    /// the rest did not; nobody was answered. Gives the catalog as it is after the restart.
    #[must_use]
    pub fn power_cut(&self, survive: usize) -> MemoryCatalog {
        let mut state = self.state.lock();
        let waiting: Vec<_> = state.waiting.drain(..).collect();
        for (index, (changes, answer)) in waiting.into_iter().enumerate() {
            if index < survive {
                let _ = state.apply(changes);
            }
            let _ = answer.send(Err(dead()));
        }
        state.holding = false;
        state.life += 1;
        MemoryCatalog {
            state: Arc::clone(&self.state),
            life: state.life,
        }
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, CatalogError> {
        check_key(key)?;
        let state = self.state.lock();
        if state.life != self.life {
            return Err(dead());
        }
        Ok(state.entries.get(key).cloned())
    }

    async fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, CatalogError> {
        check_page(prefix, limit)?;
        let state = self.state.lock();
        if state.life != self.life {
            return Err(dead());
        }
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page::default();
        let mut bytes = 0;
        let range = state.entries.range::<str, _>((from, Bound::Unbounded));
        for (key, found) in range.take_while(|(key, _)| key.starts_with(prefix)) {
            if page.entries.len() == limit || bytes >= CATALOG_PAGE_BYTES_MAX {
                page.next = page.entries.last().map(|(key, _)| key.clone());
                break;
            }
            bytes += key.len() + found.value.len();
            page.entries.push((key.clone(), found.clone()));
        }
        Ok(page)
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<u64, CatalogError> {
        check_commit(&changes)?;
        let answer = {
            let mut state = self.state.lock();
            if state.life != self.life {
                return Err(dead());
            }
            if !state.holding {
                return state.apply(changes);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back((changes, sender));
            receiver
        };
        answer.await.unwrap_or_else(|_| Err(dead()))
    }
}
