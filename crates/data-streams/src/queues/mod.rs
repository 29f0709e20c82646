//! Queues: each hands out the records of one stream, one receiver at a time, until they are acknowledged.
//!
//! The records stay in the stream's log. A queue keeps, for each shard, the place up to which it has delivered and the
//! records before it that were not acknowledged ([`book::Book`]); everything else before the place is done. What changes is
//! in the catalog before it is answered. One task at a time works for a queue ([`engine::Engine`]), and none while nobody
//! asks. Nothing here knows what is in a record.

mod book;
mod control;
mod engine;
mod find;
mod list;
mod receipt;
mod receive;
mod rows;
mod settle;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::{AccountId, ApiError, Region, ResourceName};
use parking_lot::{Mutex, RwLock};
use storage::{Catalog, CatalogError};

use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::QueueRecord;
use engine::Engine;

/// A queue in the index: what its ARN ends with, and its stream.
#[derive(Clone, Debug)]
struct Known {
    key: String,
    stream: ResourceName,
}

/// Where the queues of all streams are found. What it says of a queue is checked against the stream's record.
#[derive(Default)]
struct Index {
    streams: HashMap<String, ResourceName>,
    names: HashMap<(AccountId, Region), BTreeMap<String, Known>>,
}

/// The queues of all streams.
pub struct Queues {
    catalog: Arc<dyn Catalog>,
    index: RwLock<Index>,
    /// Those that were used lately.
    engines: Mutex<HashMap<u64, Arc<Engine>>>,
    /// Deleted queues whose state of delivery is still there.
    unfinished: Mutex<Vec<u64>>,
    /// The same for those that were deleted since the last sweep: something may still be written for them.
    fresh: Mutex<Vec<u64>>,
}

impl Queues {
    /// None yet.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Queues {
            catalog,
            index: RwLock::default(),
            engines: Mutex::default(),
            unfinished: Mutex::default(),
            fresh: Mutex::default(),
        }
    }

    /// Finds the deletions that were cut off.
    pub async fn load(&self) -> Result<(), CatalogError> {
        *self.unfinished.lock() = rows::deleting(&*self.catalog).await?;
        Ok(())
    }

    /// Takes a stream's queues into the index.
    pub fn know(&self, stream: &StreamState) {
        if stream.record.queues.is_empty() {
            return;
        }
        let name = &stream.name;
        let mut index = self.index.write();
        for queue in &stream.record.queues {
            index.streams.insert(queue.key.clone(), name.clone());
            let own = index.names.entry((name.account, name.region.clone())).or_default();
            let (key, stream) = (queue.key.clone(), name.clone());
            own.insert(queue.name.clone(), Known { key, stream });
        }
    }

    fn forget(&self, stream: &ResourceName, queue: &QueueRecord) {
        let mut index = self.index.write();
        index.streams.remove(&queue.key);
        if let Some(own) = index.names.get_mut(&(stream.account, stream.region.clone())) {
            own.remove(&queue.name);
        }
        drop(index);
        if let Some(engine) = self.engines.lock().remove(&queue.id) {
            engine.wake();
        }
    }

    /// The stream of the queue whose ARN ends with `key`.
    pub fn stream_of(&self, key: &str) -> Option<ResourceName> {
        self.index.read().streams.get(key).cloned()
    }

    /// Takes a name, so that no other queue of the account gets it. False if one has it.
    fn take_name(&self, stream: &ResourceName, name: &str, key: &str) -> bool {
        let mut index = self.index.write();
        let own = index.names.entry((stream.account, stream.region.clone())).or_default();
        if own.contains_key(name) {
            return false;
        }
        let (key, stream) = (key.to_owned(), stream.clone());
        own.insert(name.to_owned(), Known { key, stream });
        true
    }

    /// The queues of an account in the order of their names, behind `after`.
    fn of_account(&self, account: AccountId, region: &Region, after: Option<&str>) -> Vec<(String, Known)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let index = self.index.read();
        let Some(own) = index.names.get(&(account, region.clone())) else {
            return Vec::new();
        };
        let behind = own.range::<str, _>((after.map_or(Unbounded, Excluded), Unbounded));
        behind.map(|(name, known)| (name.clone(), known.clone())).collect()
    }

    /// What works for a queue.
    fn engine(&self, stream: &StreamState, queue: &QueueRecord) -> Arc<Engine> {
        let mut engines = self.engines.lock();
        let engine = engines.entry(queue.id).or_insert_with(|| {
            let catalog = Arc::clone(&self.catalog);
            Arc::new(Engine::new(catalog, stream, queue))
        });
        Arc::clone(engine)
    }

    /// Deletes what deleted queues have left. A failure is tried again by the next sweep.
    pub async fn finish_deletions(&self) {
        let unfinished = std::mem::take(&mut *self.unfinished.lock());
        self.unfinished.lock().append(&mut self.fresh.lock());
        for id in unfinished {
            if let Err(error) = rows::delete(&*self.catalog, id).await {
                tracing::warn!(%error, queue = id, "the state of a deleted queue is still there");
                self.unfinished.lock().push(id);
            }
        }
    }
}

impl DataStreams {
    /// Lets the queues that are in use forget what is beyond its retention, and puts those away that nobody used since
    /// the last time: all they know is in the catalog.
    pub(crate) fn tidy_queues(&self) {
        let Ok(this) = self.shared() else { return };
        let mut engines = self.queues.engines.lock();
        engines.retain(|_, engine| Arc::strong_count(engine) > 1 || engine.take_used());
        for engine in engines.values() {
            engine.tidy(&this);
        }
    }
}

fn failed(what: &str, error: impl std::fmt::Display) -> ApiError {
    ApiError::server("InternalFailureException", what.to_owned(), error)
}
