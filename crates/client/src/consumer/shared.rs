//! What the tasks of one consumer share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::Clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use super::batch::{Batch, Ending};
use super::budget::Budget;
use super::config::{ConsumerConfig, Delivery};
use super::error::ConsumerError;
use super::held::{Held, Over};
use super::shards::{self, Leases};
use super::source::{Shard, ShardSource};
use super::stats::{ConsumerStats, ShardLag};
use super::store::LeaseStore;
use crate::limits::LAGS_NAMED_MAX;

/// After fan-out could not be had, it is tried again so much later.
const FAN_OUT_AGAIN: Duration = Duration::from_secs(300);

/// What comes to the program.
#[derive(Debug)]
pub(crate) enum Item {
    Batch(Box<Batch>),
    Failed(ConsumerError),
    End,
}

#[derive(Debug)]
enum FanOut {
    Unknown,
    Registered(String),
    Refused(Duration),
}

pub(crate) struct Shared {
    pub clock: Arc<dyn Clock>,
    pub store: Arc<dyn LeaseStore>,
    pub source: Arc<dyn ShardSource>,
    pub config: ConsumerConfig,
    pub budget: Arc<Budget>,
    pub stats: Mutex<ConsumerStats>,
    pub held: Mutex<BTreeMap<String, Arc<Held>>>,
    pub queue: mpsc::UnboundedSender<Item>,
    /// There is something to look at in the table.
    pub wake: Notify,
    pub stopping: watch::Sender<bool>,
    sync_wanted: AtomicBool,
    started: Duration,
    fan_out: tokio::sync::Mutex<FanOut>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(
        source: Arc<dyn ShardSource>,
        store: Arc<dyn LeaseStore>,
        clock: Arc<dyn Clock>,
        config: ConsumerConfig,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Item>) {
        let (queue, items) = mpsc::unbounded_channel();
        let shared = Shared {
            started: clock.monotonic(),
            budget: Budget::new(config.buffer_bytes_max),
            clock,
            store,
            source,
            config,
            stats: Mutex::default(),
            held: Mutex::default(),
            queue,
            wake: Notify::new(),
            stopping: watch::channel(false).0,
            sync_wanted: AtomicBool::new(false),
            fan_out: tokio::sync::Mutex::new(FanOut::Unknown),
        };
        (Arc::new(shared), items)
    }

    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub fn holding(&self) -> Vec<Arc<Held>> {
        self.held.lock().values().cloned().collect()
    }

    /// Forgets a lease, unless another of the same shard has taken its place.
    pub fn forget(&self, held: &Arc<Held>) {
        let mut all = self.held.lock();
        if all.get(&*held.key).is_some_and(|other| Arc::ptr_eq(other, held)) {
            all.remove(&*held.key);
        }
    }

    /// The shard is done, and that is written.
    pub fn finished(self: &Arc<Self>, held: &Arc<Held>) {
        if held.end(Over::Finished) {
            self.stats.lock().finished += 1;
        }
        self.forget(held);
        self.wake.notify_one();
    }

    /// A last batch for who was given others.
    pub fn say_last(self: &Arc<Self>, held: &Arc<Held>, ending: Ending) {
        let batch = Batch::last(self, held, ending);
        let _ = self.queue.send(Item::Batch(Box::new(batch)));
    }

    pub fn handed_out(&self, records: usize, bytes: usize) {
        let mut stats = self.stats.lock();
        stats.batches += 1;
        stats.records += records as u64;
        stats.bytes += bytes as u64;
        if stats.first_batch_after.is_none() {
            stats.first_batch_after = Some(self.now().saturating_sub(self.started));
        }
    }

    /// Lists the stream's shards and makes the leases that are missing among these, which must have been read before. Gives
    /// the shards.
    pub async fn make_missing(&self, leases: &Leases) -> Result<Vec<Shard>, ConsumerError> {
        let shards = self.source.shards().await.map_err(ConsumerError::Stream)?;
        self.stats.lock().listings += 1;
        let missing = shards::missing(&shards, leases, &self.config.initial);
        for lease in &missing {
            self.store.create(lease).await.map_err(ConsumerError::Store)?;
        }
        if !missing.is_empty() {
            self.wake.notify_one();
        }
        Ok(shards)
    }

    pub fn want_sync(&self) {
        self.sync_wanted.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub fn take_sync_wanted(&self) -> bool {
        self.sync_wanted.swap(false, Ordering::AcqRel)
    }

    pub fn stats(&self) -> ConsumerStats {
        let mut stats = self.stats.lock().clone();
        let held = self.holding();
        stats.shards = held.len();
        stats.lags = held
            .iter()
            .map(|held| ShardLag {
                shard: held.key.to_string(),
                millis_behind: held.millis_behind(),
            })
            .collect();
        stats.lags.sort_by(|a, b| {
            b.millis_behind
                .cmp(&a.millis_behind)
                .then_with(|| a.shard.cmp(&b.shard))
        });
        stats.lags.truncate(LAGS_NAMED_MAX);
        (stats.buffered_bytes, stats.buffered_bytes_peak) = self.budget.used();
        stats
    }

    /// The ARN to subscribe with; `None` where records are to be asked for.
    pub async fn subscriber(&self) -> Option<String> {
        let Delivery::FanOut { name } = &self.config.delivery else {
            return None;
        };
        let mut state = self.fan_out.lock().await;
        match &*state {
            FanOut::Registered(arn) => return Some(arn.clone()),
            FanOut::Refused(until) if self.now() < *until => return None,
            _ => {}
        }
        match self.source.registered(name).await {
            Ok(arn) => {
                *state = FanOut::Registered(arn.clone());
                Some(arn)
            }
            Err(error) => {
                tracing::warn!(consumer = %name, %error, "no fan-out, records are asked for; it is tried again in five minutes");
                *state = FanOut::Refused(self.now() + FAN_OUT_AGAIN);
                None
            }
        }
    }

    /// The consumer could not be subscribed with: for a while records are asked for.
    pub async fn refuse_fan_out(&self, error: &crate::ClientError) {
        tracing::warn!(%error, "no fan-out, records are asked for; it is tried again in five minutes");
        *self.fan_out.lock().await = FanOut::Refused(self.now() + FAN_OUT_AGAIN);
    }
}
