//! Reads a data stream as one of a fleet of workers, each shard by one of them at a time, each record at least once, in
//! order within its shard.
//!
//! The fleet agrees by a table of leases that has the KCL's form and keeps its rules, so that Java workers (KCL 2 and 3)
//! and these can share it. A worker that starts takes what is free, and asks the others for its share by load; who is asked
//! finishes what it has handed out, checkpoints it and lets go, so that a planned move repeats nothing. Who dies is missed
//! when the counters of its leases stand still for `lease_duration` by the others' own clocks. The shards that come from a
//! split or a merge are read when their parents are done.
//!
//! ```no_run
//! # async fn f(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use client::consumer::{Consumer, ConsumerConfig, DynamoLeaseStore, KinesisSource};
//! use futures_util::StreamExt as _;
//!
//! let store = Arc::new(DynamoLeaseStore::new(&client, "doors"));
//! let source = Arc::new(KinesisSource::new(client.clone(), "faces"));
//! let mut consumer = Consumer::start(source, store, Arc::clone(client.clock()), ConsumerConfig::default());
//! while let Some(batch) = consumer.next().await {
//!     let batch = batch?;
//!     for record in &batch.records {
//!         println!("{} {:?}", record.partition_key, record.data);
//!     }
//!     batch.checkpoint().await?; // the last batch of a shard is empty, and is checkpointed like the others
//! }
//! # Ok(()) }
//! ```

mod balance;
mod batch;
mod budget;
mod config;
mod dynamo;
mod error;
mod events;
mod held;
mod kinesis;
mod lease;
mod reader;
mod shards;
mod shared;
mod source;
mod stats;
mod store;
mod table;
mod tracker;
mod worker;
mod write;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use base::Clock;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use batch::{Batch, Checkpointer, Ending, FencingToken, Prepared, Record};
pub use config::{ConsumerConfig, Delivery, InitialPosition, Misplaced};
pub use dynamo::DynamoLeaseStore;
pub use error::{CheckpointError, ConsumerError};
pub use kinesis::KinesisSource;
pub use lease::{Checkpoint, Lease, Pending, Position};
pub use source::{ChildShard, Page, Shard, ShardSource, StartAt, StreamRecord, Subscription};
pub use stats::{ConsumerStats, ShardLag};
pub use store::{LeaseStore, MemoryLeaseStore, Outcome, StoreError};
pub use write::{Change, Condition, Expect, Field, Number, Write};

use held::Over;
use shared::{Item, Shared};

/// A worker of a fleet: a stream of batches.
///
/// [`Stopper::stop`] lets every lease go in good order, after which the stream ends. Dropping the consumer is like a crash:
/// its leases run out, and what was not checkpointed is read again by others.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    items: mpsc::UnboundedReceiver<Item>,
    ended: bool,
    worker: JoinHandle<()>,
}

impl Consumer {
    /// Starts a worker on the current Tokio runtime.
    pub fn start(
        source: Arc<dyn ShardSource>,
        store: Arc<dyn LeaseStore>,
        clock: Arc<dyn Clock>,
        config: ConsumerConfig,
    ) -> Self {
        let (shared, items) = Shared::new(source, store, clock, config);
        let worker = tokio::spawn(worker::run(Arc::clone(&shared)));
        Consumer {
            shared,
            items,
            ended: false,
            worker,
        }
    }

    /// Stops it from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared))
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> ConsumerStats {
        self.shared.stats()
    }

    /// Who it is among the workers.
    #[must_use]
    pub fn worker_id(&self) -> &str {
        &self.shared.config.worker_id
    }
}

impl Stream for Consumer {
    type Item = Result<Batch, ConsumerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            match ready!(self.items.poll_recv(context)) {
                Some(Item::Batch(mut batch)) => {
                    if batch.admit() {
                        return Poll::Ready(Some(Ok(*batch)));
                    }
                }
                Some(Item::Failed(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Item::End) | None => self.ended = true,
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.worker.abort();
        for held in self.shared.holding() {
            held.end(Over::Lost);
        }
    }
}

/// Stops a consumer in good order.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Shared>);

impl Stopper {
    /// No more is fetched; each shard that was handed out gets its last batch, and its lease is let go once that is
    /// checkpointed or dropped, or after `handoff_timeout`. Go on taking batches until the stream ends.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// As [`Consumer::stats`].
    #[must_use]
    pub fn stats(&self) -> ConsumerStats {
        self.0.stats()
    }
}
