//! A lease that this worker holds: what was handed out of its shard, what is checkpointed, and whether it may go on. All
//! writes of one lease happen one after the other, so that a renewal and a checkpoint never meet at its counter.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::lease::{Checkpoint, Lease, Pending};
use super::shared::Shared;
use super::store::{Outcome, StoreError};
use super::write::Write;
use crate::records::HashRange;

/// Times that a write is tried against a row that changed in a way that leaves the lease ours.
const ATTEMPTS: usize = 3;

/// How far a lease's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Records are fetched and handed out.
    Reading,
    /// No more are handed out; what was may be checkpointed.
    Draining,
    /// Nothing more.
    Over(Over),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Another worker has it, or may have it.
    Lost,
    /// It was let go.
    Released,
    /// The shard is done.
    Finished,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    /// When the last successful write of the lease began.
    renewed: Duration,
    handed_out: bool,
    delivered: Checkpoint,
    committed: Checkpoint,
    millis_behind: u64,
    bytes: u64,
    measured: Duration,
    kbps: Option<f64>,
    /// The heir waits for it.
    asked: bool,
    /// The last batch was dropped.
    dropped: bool,
}

/// A lease and its reading.
#[derive(Debug)]
pub(crate) struct Held {
    pub key: Arc<str>,
    /// The counter when it was taken: later holders have larger ones.
    pub token: u64,
    pub range: Option<HashRange>,
    pub start: Checkpoint,
    pub pending: Option<Pending>,
    pub slots: Arc<Semaphore>,
    lease: tokio::sync::Mutex<Lease>,
    progress: Mutex<Progress>,
    changed: Notify,
}

/// Why a write of a lease did not happen.
#[derive(Debug)]
pub(crate) enum Failure {
    Lost,
    Store(StoreError),
}

impl Held {
    /// A lease that was just taken, by a write that began then.
    pub fn new(lease: Lease, taken: Duration, prefetch: usize) -> Arc<Self> {
        Arc::new(Held {
            key: lease.key.as_str().into(),
            token: lease.counter,
            range: lease.range,
            start: lease.checkpoint.clone(),
            pending: lease.pending.clone(),
            slots: Arc::new(Semaphore::new(prefetch.max(1))),
            progress: Mutex::new(Progress {
                phase: Phase::Reading,
                renewed: taken,
                handed_out: false,
                delivered: lease.checkpoint.clone(),
                committed: lease.checkpoint.clone(),
                millis_behind: 0,
                bytes: 0,
                measured: taken,
                kbps: lease.throughput_kbps,
                asked: false,
                dropped: false,
            }),
            lease: tokio::sync::Mutex::new(lease),
            changed: Notify::new(),
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        let changed = change(&mut self.progress.lock());
        self.changed.notify_waiters();
        changed
    }

    pub fn phase(&self) -> Phase {
        self.progress.lock().phase
    }

    /// Ends it; false if it had ended already.
    pub fn end(&self, over: Over) -> bool {
        self.change(|progress| {
            let first = !matches!(progress.phase, Phase::Over(_));
            if first {
                progress.phase = Phase::Over(over);
            }
            first
        })
    }

    /// No more is handed out from now on; false if that was so already.
    pub fn stop_reading(&self) -> bool {
        self.change(|progress| {
            let first = progress.phase == Phase::Reading;
            if first {
                progress.phase = Phase::Draining;
            }
            first
        })
    }

    /// Whether an heir waits for it.
    pub fn asked(&self) -> bool {
        self.progress.lock().asked
    }

    /// Whether anything of it was ever handed out.
    pub fn handed_out(&self) -> bool {
        self.progress.lock().handed_out
    }

    /// Whether all that was handed out is checkpointed.
    pub fn is_settled(&self) -> bool {
        let progress = self.progress.lock();
        progress.committed >= progress.delivered
    }

    /// The last batch went without a checkpoint.
    pub fn drop_last(&self) {
        self.change(|progress| progress.dropped = true);
    }

    /// Hands a batch out that ends there: only while the lease is surely ours.
    pub fn deliver(&self, end: &Checkpoint, now: Duration, lease_duration: Duration) -> bool {
        self.change(|progress| {
            let ours = progress.phase == Phase::Reading && now < progress.renewed + lease_duration;
            if ours {
                progress.handed_out = true;
                progress.delivered = end.clone();
            }
            ours
        })
    }

    /// Whether it ran out on our own clock.
    pub fn is_overdue(&self, now: Duration, lease_duration: Duration) -> bool {
        now >= self.progress.lock().renewed + lease_duration
    }

    pub fn delivered(&self) -> Checkpoint {
        self.progress.lock().delivered.clone()
    }

    pub fn fetched(&self, bytes: usize, millis_behind: u64) {
        let mut progress = self.progress.lock();
        progress.bytes += bytes as u64;
        progress.millis_behind = millis_behind;
    }

    pub fn millis_behind(&self) -> u64 {
        self.progress.lock().millis_behind
    }

    /// What flows, averaged over some renewals, for the next one.
    pub fn measure(&self, now: Duration) -> Option<f64> {
        let mut progress = self.progress.lock();
        let elapsed = now.saturating_sub(progress.measured).as_secs_f64();
        if elapsed > 0.1 {
            let fresh = progress.bytes as f64 / 1024.0 / elapsed;
            progress.kbps = Some(progress.kbps.map_or(fresh, |old| old.mul_add(0.5, fresh * 0.5)));
            progress.bytes = 0;
            progress.measured = now;
        }
        // Six decimals: what a table stores exactly.
        progress.kbps.map(|kbps| (kbps * 1e6).round() / 1e6)
    }

    /// Waits until something is so; true at once if it is.
    async fn until(&self, is_so: impl Fn(&Progress) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if is_so(&self.progress.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until no more is to be fetched.
    pub async fn stopped(&self) {
        self.until(|progress| progress.phase != Phase::Reading).await;
    }

    /// Waits until it has ended.
    pub async fn over(&self) {
        self.until(|progress| matches!(progress.phase, Phase::Over(_))).await;
    }

    /// Waits until everything that was handed out is checkpointed, or never will be.
    pub async fn settled(&self) {
        self.until(|p| p.committed >= p.delivered || p.dropped || matches!(p.phase, Phase::Over(_)))
            .await;
    }

    /// Makes one write of the lease as it is then; `None` where there is nothing to write.
    async fn write(&self, shared: &Shared, build: impl Fn(&Lease) -> Option<Write>) -> Result<(), Failure> {
        let mut lease = self.lease.lock().await;
        for _ in 0..ATTEMPTS {
            if matches!(self.phase(), Phase::Over(_)) {
                return Err(Failure::Lost);
            }
            let began = shared.clock.monotonic();
            let Some(write) = build(&lease) else { return Ok(()) };
            match shared.store.write(&write).await.map_err(Failure::Store)? {
                Outcome::Done => {
                    write.change.apply(&mut lease);
                    self.progress.lock().renewed = began;
                    return Ok(());
                }
                Outcome::Refused(Some(row)) if is_still_ours(&lease, &row, &shared.config.worker_id) => {
                    // An earlier write of ours whose answer was lost, or somebody who asks for the lease.
                    lease.counter = row.counter;
                    lease.owner = row.owner;
                    lease.checkpoint_owner = row.checkpoint_owner;
                    if lease.checkpoint_owner.is_some() {
                        self.change(|progress| progress.asked = true);
                    }
                }
                Outcome::Refused(_) => break,
            }
        }
        if self.end(Over::Lost) {
            shared.stats.lock().lost += 1;
        }
        Err(Failure::Lost)
    }

    /// Says that the holder lives.
    pub async fn renew(&self, shared: &Shared) -> Result<(), Failure> {
        let kbps = self.measure(shared.clock.monotonic());
        self.write(shared, |lease| Some(lease.renewal(kbps))).await
    }

    /// Lets it go.
    pub async fn release(&self, shared: &Shared) -> Result<(), Failure> {
        self.write(shared, |lease| Some(lease.release())).await?;
        self.end(Over::Released);
        Ok(())
    }

    /// Makes a checkpoint.
    pub async fn commit(&self, shared: &Shared, to: &Checkpoint) -> Result<(), Failure> {
        self.write(shared, |lease| {
            // Two that are made at once may come in either order; what is done stays done.
            let ahead = lease.checkpoint < *to || (lease.checkpoint == *to && lease.pending.is_some());
            ahead.then(|| lease.checkpointed(to))
        })
        .await?;
        self.change(|progress| progress.committed = to.clone().max(progress.committed.clone()));
        Ok(())
    }

    /// Prepares a checkpoint.
    pub async fn prepare(&self, shared: &Shared, pending: &Pending) -> Result<(), Failure> {
        self.write(shared, |lease| Some(lease.prepared(pending.clone()))).await
    }

    /// What is checkpointed.
    pub fn committed(&self) -> Checkpoint {
        self.progress.lock().committed.clone()
    }
}

/// Whether a row that is not as we left it is ours nevertheless. Nobody else can have had it meanwhile: who takes it puts
/// another owner there.
fn is_still_ours(lease: &Lease, row: &Lease, me: &str) -> bool {
    let grown = row.counter.checked_sub(lease.counter);
    row.holder() == Some(me) && grown.is_some_and(|grown| grown <= 1)
}
