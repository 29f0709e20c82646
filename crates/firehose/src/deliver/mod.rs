//! The engine: one runner for each source and destination reads, fills buffers, and delivers each as exactly one set of
//! objects, whatever breaks off. docs/design/firehose.md says how.
//!
//! It serves delivery streams, and whoever else has a source, a destination and a number for its rows in the catalog.

mod budget;
mod buffer;
mod job;
mod rows;
mod runner;
mod source;
mod status;
mod target;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Timestamp};
use parking_lot::Mutex;
use storage::{Catalog, CatalogError, Change, Position, ShardId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use budget::Budget;
pub use rows::Place;
pub use source::{Batch, KinesisSource, Source, SourceError, SourceShard};
pub use status::{Meters, Status};
pub use target::{ChannelObjects, Target, bucket_of};

use crate::limits;
use crate::ports::Ports;
use rows::{Progress, Rows};
use runner::Runner;

/// What is delivered from where to where.
#[derive(Clone)]
pub struct Work {
    /// The number of its rows in the catalog; never given to other work.
    pub id: u64,
    /// What is read.
    pub source: Arc<dyn Source>,
    /// Where it goes, and how.
    pub target: Arc<Target>,
    /// How it goes.
    pub status: Arc<Status>,
}

/// What all runners share.
pub(crate) struct Ground {
    pub catalog: Arc<dyn Catalog>,
    pub clock: Arc<dyn Clock>,
    pub ports: Ports,
    pub budget: Budget,
}

/// Work that is being done.
struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Runs all work.
pub struct Engine {
    ground: Arc<Ground>,
    running: Mutex<HashMap<u64, Running>>,
    /// Held while a commit of a number's rows is under way, so that whoever follows sees what came of it.
    gates: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<()>>>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// An engine that does nothing yet. `memory` bounds the bytes of records that all work holds.
    pub fn new(catalog: Arc<dyn Catalog>, clock: Arc<dyn Clock>, ports: Ports, memory: u64) -> Self {
        Engine {
            ground: Arc::new(Ground {
                catalog,
                clock,
                ports,
                budget: Budget::new(memory),
            }),
            running: Mutex::default(),
            gates: Mutex::default(),
        }
    }

    /// The row to commit together with what creates the work: where its reading begins. `stream` is the number of the
    /// source's stream; a shard that is not named is read from its first record on.
    pub fn begin(id: u64, stream: u64, places: impl IntoIterator<Item = (u32, Place)>) -> Result<Change, CatalogError> {
        rows::progress_row(id, &Progress::new(stream, places))
    }

    /// Begins or goes on. Work that is under way under the number must have been stopped.
    pub fn start(&self, work: Work) {
        let (stop, stopped) = watch::channel(false);
        let id = work.id;
        let rows = Rows::new(id, Arc::clone(&self.ground.catalog), self.gate(id));
        let runner = Runner::new(Arc::clone(&self.ground), work, rows, stopped);
        let task = tokio::spawn(runner.run());
        self.running.lock().insert(id, Running { stop, task });
    }

    /// Ends work. What was under way is finished if that takes not too long; the rest is done again by the next start.
    pub async fn stop(&self, id: u64) {
        let running = self.running.lock().remove(&id);
        let Some(Running { stop, task }) = running else { return };
        // The runner may have ended.
        let _ = stop.send(true);
        if let Err(error) = task.await {
            tracing::error!(%error, work = id, "a delivery ended in an unforeseen way");
        }
    }

    /// Ends all work, for a server that ends.
    pub async fn stop_all(&self) {
        let ids: Vec<u64> = self.running.lock().keys().copied().collect();
        for id in &ids {
            if let Some(running) = self.running.lock().get(id) {
                let _ = running.stop.send(true);
            }
        }
        for id in ids {
            self.stop(id).await;
        }
    }

    /// Forgets the rows of work that was stopped for ever.
    pub async fn forget(&self, id: u64) -> Result<(), CatalogError> {
        let rows = Rows::new(id, Arc::clone(&self.ground.catalog), self.gate(id));
        rows.forget().await?;
        self.gates.lock().remove(&id);
        Ok(())
    }

    /// Where the oldest undelivered record of a shard is: what is before it can be forgotten.
    pub async fn undelivered(&self, id: u64, shard: ShardId) -> Result<Option<Position>, CatalogError> {
        let rows = Rows::new(id, Arc::clone(&self.ground.catalog), self.gate(id));
        rows.undelivered(shard).await
    }

    fn gate(&self, id: u64) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.gates.lock().entry(id).or_default())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for running in self.running.lock().values() {
            running.task.abort();
        }
    }
}

/// How long to wait before something is tried for the `nth` time again: doubled each time, with a part left to chance so
/// that not all come back at once.
pub(crate) fn pause(nth: u32) -> Duration {
    let doubled = limits::RETRY_MS.saturating_mul(1 << nth.min(16));
    let longest = doubled.min(limits::RETRY_MS_MAX);
    Duration::from_millis(longest / 2 + fastrand::u64(0..=longest / 2))
}

/// Waits until the end of the work is asked for.
pub(crate) async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    // Without its sender nobody wants the work any more.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The age of something, in seconds.
pub(crate) fn age_s(now: Timestamp, at: Timestamp) -> i64 {
    now.millis_since(at).max(0) / 1000
}
