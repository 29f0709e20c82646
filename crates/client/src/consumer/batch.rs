//! What a program gets: records of one shard, and the means to say that they are done.

use std::sync::Arc;

use base::Timestamp;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::budget::Reservation;
use super::error::CheckpointError;
use super::held::{Failure, Held};
use super::lease::{Checkpoint, Pending, Position};
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::records::{HashKey, SequenceNumber};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The number of the stream's record.
    pub sequence_number: SequenceNumber,
    /// This record's place in it; 0 where it was not packed.
    pub sub_sequence_number: u64,
    /// Whether it was packed with others.
    pub aggregated: bool,
    /// Its partition key.
    pub partition_key: Arc<str>,
    /// Its explicit hash key, which only packed records still know.
    pub explicit_hash_key: Option<HashKey>,
    /// Its payload.
    pub data: Bytes,
    /// When it arrived at the stream.
    pub arrived: Timestamp,
}

impl Record {
    /// Its place in the shard.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            sequence_number: self.sequence_number.clone(),
            sub_sequence_number: self.sub_sequence_number,
        }
    }
}

/// Why a batch is the last of its shard for this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The shard is closed and all of it was handed out. Checkpoint this batch: only then the shards that came from it are
    /// read.
    ShardEnd,
    /// The shard goes to another worker, or the consumer stops. Checkpoint this batch once everything before it is done, so
    /// that nothing is read twice; there is time for it, `handoff_timeout` in all.
    Leaving,
    /// Another worker has the shard already. Forget what you hold of it.
    Lost,
}

/// Lets a sink refuse a worker that lost its shard: grows with each change of holder. Keep the largest you saw for a
/// shard, and refuse what comes with a smaller one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken {
    /// The shard.
    pub shard: Arc<str>,
    /// The lease's counter when its holder took it.
    pub counter: u64,
}

/// Records of one shard, in order, behind those of the batch before.
#[derive(Debug)]
pub struct Batch {
    /// The records; none in the last batch of a shard.
    pub records: Vec<Record>,
    /// Whether, and why, this is the last.
    pub ending: Option<Ending>,
    /// How far behind the shard's newest record these were read.
    pub millis_behind: u64,
    checkpointer: Checkpointer,
    pending: Option<Pending>,
    _reservation: Option<Reservation>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Batch {
    pub(crate) fn records(
        shared: &Arc<Shared>,
        held: &Arc<Held>,
        records: Vec<Record>,
        end: Position,
        memory: (Reservation, OwnedSemaphorePermit),
    ) -> Self {
        Batch {
            records,
            ending: None,
            millis_behind: held.millis_behind(),
            checkpointer: Checkpointer::new(shared, held, Checkpoint::At(end), None),
            pending: None,
            _reservation: Some(memory.0),
            slot: Some(memory.1),
        }
    }

    pub(crate) fn last(shared: &Arc<Shared>, held: &Arc<Held>, ending: Ending) -> Self {
        let (end, guard) = match ending {
            Ending::ShardEnd => (Checkpoint::ShardEnd, None),
            Ending::Leaving => (held.delivered(), Some(Arc::new(LastGuard(Arc::clone(held))))),
            Ending::Lost => (held.delivered(), None),
        };
        Batch {
            records: Vec::new(),
            ending: Some(ending),
            millis_behind: held.millis_behind(),
            checkpointer: Checkpointer::new(shared, held, end, guard),
            pending: None,
            _reservation: None,
            slot: None,
        }
    }

    /// Whether it may be handed out now.
    pub(crate) fn admit(&mut self) -> bool {
        let Checkpointer { held, shared, end, .. } = &self.checkpointer;
        let ours = match self.ending {
            None | Some(Ending::ShardEnd) => {
                let first = !held.handed_out();
                let ours = held.deliver(end, shared.clock.monotonic(), shared.config.lease_duration);
                if first {
                    self.pending.clone_from(&held.pending);
                }
                ours
            }
            Some(Ending::Leaving | Ending::Lost) => true,
        };
        self.slot = None;
        if ours {
            shared.handed_out(
                self.records.len(),
                self.records.iter().map(|record| record.data.len()).sum(),
            );
        }
        ours
    }

    /// The shard.
    #[must_use]
    pub fn shard_id(&self) -> &str {
        &self.checkpointer.held.key
    }

    /// For a sink that must not listen to a worker that lost its shard.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.checkpointer.fencing_token()
    }

    /// In the first batch of a shard: the checkpoint that an earlier holder prepared and did not commit.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// Says that this batch and everything before it in its shard is done: no worker reads it again.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.checkpointer.checkpoint().await
    }

    /// Says that everything up to and with this record is done.
    pub async fn checkpoint_at(&self, record: &Record) -> Result<(), CheckpointError> {
        self.checkpointer.commit(&Checkpoint::At(record.position())).await
    }

    /// Begins a checkpoint in two phases, for sinks that commit: prepare with what the sink needs to find its transaction
    /// again, commit the sink, commit here. After a crash in between, the next holder's first batch has it as
    /// [`pending`](Self::pending), and can ask the sink whether it was committed.
    pub async fn prepare(&self, state: &[u8]) -> Result<Prepared, CheckpointError> {
        self.checkpointer.prepare(state).await
    }

    /// The means to checkpoint this batch later, when the records are gone; cheap to clone.
    #[must_use]
    pub fn checkpointer(&self) -> Checkpointer {
        self.checkpointer.clone()
    }
}

/// Tells a lease that waits for its last checkpoint that there will be none.
#[derive(Debug)]
struct LastGuard(Arc<Held>);

impl Drop for LastGuard {
    fn drop(&mut self) {
        self.0.drop_last();
    }
}

/// A write of a checkpoint.
enum Step {
    Commit(Checkpoint),
    Prepare(Pending),
}

/// Checkpoints one batch, whenever it is done.
#[derive(Clone, Debug)]
pub struct Checkpointer {
    held: Arc<Held>,
    shared: Arc<Shared>,
    end: Checkpoint,
    _last: Option<Arc<LastGuard>>,
}

impl Checkpointer {
    fn new(shared: &Arc<Shared>, held: &Arc<Held>, end: Checkpoint, last: Option<Arc<LastGuard>>) -> Self {
        Checkpointer {
            held: Arc::clone(held),
            shared: Arc::clone(shared),
            end,
            _last: last,
        }
    }

    /// As [`Batch::fencing_token`].
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        FencingToken {
            shard: Arc::clone(&self.held.key),
            counter: self.held.token,
        }
    }

    /// As [`Batch::checkpoint`].
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.commit(&self.end).await
    }

    /// As [`Batch::prepare`].
    pub async fn prepare(&self, state: &[u8]) -> Result<Prepared, CheckpointError> {
        let pending = Pending {
            checkpoint: self.end.clone(),
            state: state.to_vec(),
        };
        self.insist(&Step::Prepare(pending)).await?;
        Ok(Prepared(self.clone()))
    }

    async fn commit(&self, to: &Checkpoint) -> Result<(), CheckpointError> {
        if *to > self.held.delivered() {
            return Err(CheckpointError::NotDelivered {
                shard: self.held.key.to_string(),
                to: to.to_string(),
            });
        }
        if *to <= self.held.committed() || !to.has_begun() {
            return Ok(());
        }
        self.insist(&Step::Commit(to.clone())).await?;
        self.shared.stats.lock().checkpoints += 1;
        if *to == Checkpoint::ShardEnd {
            self.shared.finished(&self.held);
        }
        Ok(())
    }

    /// Tries again while the store is away, until the lease is not surely ours any more.
    async fn insist(&self, step: &Step) -> Result<(), CheckpointError> {
        let shard = || self.held.key.to_string();
        let mut failures = 0;
        loop {
            let done = match step {
                Step::Commit(to) => self.held.commit(&self.shared, to).await,
                Step::Prepare(pending) => self.held.prepare(&self.shared, pending).await,
            };
            let source = match done {
                Ok(()) => return Ok(()),
                Err(Failure::Lost) => return Err(CheckpointError::Lost { shard: shard() }),
                Err(Failure::Store(source)) => source,
            };
            let overdue = self
                .held
                .is_overdue(self.shared.clock.monotonic(), self.shared.config.lease_duration);
            if overdue || !source.is_transient() {
                return Err(CheckpointError::Store { shard: shard(), source });
            }
            failures += 1;
            sleep(Backoff::default().draw(failures)).await;
        }
    }
}

/// A checkpoint whose first phase is done.
#[derive(Debug)]
#[must_use = "a prepared checkpoint is committed or prepared again"]
pub struct Prepared(Checkpointer);

impl Prepared {
    /// The second phase.
    pub async fn commit(self) -> Result<(), CheckpointError> {
        self.0.checkpoint().await
    }
}
