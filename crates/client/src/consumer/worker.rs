//! A consumer's own work: renewing what it holds, looking at the table, taking, asking for and handing over leases, and
//! making the leases of shards that have none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::balance::{self, Candidate, Policy};
use super::batch::Ending;
use super::error::ConsumerError;
use super::held::{Failure, Held, Over, Phase};
use super::lease::Lease;
use super::reader;
use super::shards::{self, Leases, by_key};
use super::shared::{Item, Shared};
use super::store::{Outcome, StoreError};
use super::tracker::Tracker;
use crate::backoff::Backoff;
use crate::limits::LEASE_WRITES_MAX;

/// Waits between attempts at the table or the stream.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
};

pub(crate) struct Worker {
    shared: Arc<Shared>,
    tracker: Tracker,
    random: fastrand::Rng,
    /// No leases are asked for before.
    balance_after: Duration,
    sync_after: Duration,
    /// Leases that were done with at the last look, and since when.
    done_with: BTreeMap<String, Duration>,
}

/// Runs a consumer until it is told to stop.
pub(crate) async fn run(shared: Arc<Shared>) {
    let seed = shared.config.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut worker = Worker {
        tracker: Tracker::default(),
        random: fastrand::Rng::with_seed(seed),
        balance_after: Duration::ZERO,
        sync_after: Duration::ZERO,
        done_with: BTreeMap::new(),
        shared: Arc::clone(&shared),
    };
    let mut stopping = shared.stopping.subscribe();
    let renewing =
        Renewing(tokio::spawn(renew(Arc::clone(&shared), fastrand::Rng::with_seed(seed ^ 1))).abort_handle());
    let failed = tokio::select! {
        biased;
        _ = stopping.wait_for(|stop| *stop) => None,
        failed = worker.work() => Some(failed),
    };
    let all: FuturesUnordered<_> = shared.holding().into_iter().map(|held| leave(&shared, held)).collect();
    all.collect::<()>().await;
    drop(renewing);
    let _ = shared.queue.send(failed.map_or(Item::End, Item::Failed));
}

/// Hands a shard over, or waits for that where it is under way.
async fn leave(shared: &Arc<Shared>, held: Arc<Held>) {
    hand_over(Arc::clone(shared), Arc::clone(&held)).await;
    let _ = timeout(shared.config.handoff_timeout, held.over()).await;
}

/// Ends the renewing when its worker does, however that ends.
struct Renewing(AbortHandle);

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews all leases, three times in a lease's duration.
async fn renew(shared: Arc<Shared>, mut random: fastrand::Rng) {
    loop {
        sleep(jittered(shared.config.tick(), &mut random)).await;
        stream::iter(shared.holding())
            .for_each_concurrent(LEASE_WRITES_MAX, |held| renew_one(&shared, held))
            .await;
    }
}

/// From nine tenths of it to the whole.
fn jittered(wait: Duration, random: &mut fastrand::Rng) -> Duration {
    wait.mul_f64(0.9 + 0.1 * random.f64())
}

async fn renew_one(shared: &Arc<Shared>, held: Arc<Held>) {
    let duration = shared.config.lease_duration;
    let renewed = match timeout(duration / 3, held.renew(shared)).await {
        Ok(renewed) => renewed,
        Err(_) => Ok(()),
    };
    if let Err(Failure::Store(error)) = &renewed {
        tracing::warn!(shard = %held.key, %error, "the lease is not renewed");
    }
    if held.is_overdue(shared.now(), duration) && held.end(Over::Lost) {
        tracing::warn!(shard = %held.key, "the lease ran out, others may have it");
        shared.stats.lock().lost += 1;
    }
    if held.phase() == Phase::Over(Over::Lost) {
        lose(shared, &held);
    } else if held.asked() && held.phase() == Phase::Reading {
        tokio::spawn(hand_over(Arc::clone(shared), held));
    }
}

/// Another worker has it: the program is told, if it was given anything.
fn lose(shared: &Arc<Shared>, held: &Arc<Held>) {
    // Told before the shard can be taken again, so that no batch of its next life comes before.
    if held.handed_out() {
        shared.say_last(held, Ending::Lost);
    }
    shared.forget(held);
}

/// Finishes a shard and lets its lease go: no more is handed out, what was is checkpointed, then the lease goes.
async fn hand_over(shared: Arc<Shared>, held: Arc<Held>) {
    if !held.stop_reading() {
        return;
    }
    if held.handed_out() {
        shared.say_last(&held, Ending::Leaving);
    }
    let in_time = timeout(shared.config.handoff_timeout, held.settled()).await.is_ok() && held.is_settled();
    let mut failures = 0;
    loop {
        match held.release(&shared).await {
            Ok(()) => break,
            Err(Failure::Lost) => {
                // Finished meanwhile, or lost.
                if held.phase() == Phase::Over(Over::Lost) {
                    lose(&shared, &held);
                }
                return;
            }
            Err(Failure::Store(error)) => {
                failures += 1;
                if held.is_overdue(shared.now(), shared.config.lease_duration) {
                    tracing::warn!(shard = %held.key, %error, "the lease was not let go, it runs out");
                    held.end(Over::Lost);
                    return lose(&shared, &held);
                }
                sleep(RETRY.draw(failures)).await;
            }
        }
    }
    shared.forget(&held);
    let mut stats = shared.stats.lock();
    if in_time {
        stats.handed_over += 1;
    } else {
        stats.cut_off += 1;
        tracing::warn!(shard = %held.key, "the shard was let go before everything was checkpointed, some of it will be read again");
    }
}

impl Worker {
    /// Works until something cannot be mended.
    async fn work(&mut self) -> ConsumerError {
        if let Err(error) = self.start().await {
            return error;
        }
        let mut failures = 0;
        loop {
            let wait = match self.round().await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "the lease table cannot be read, trying again");
                    RETRY.draw(failures).min(self.shared.config.tick())
                }
            };
            let shared = Arc::clone(&self.shared);
            // Many calls to look at once are one; and nobody looks without a pause.
            sleep((shared.config.tick() / 16).min(wait)).await;
            let _ = timeout(wait, shared.wake.notified()).await;
        }
    }

    /// Makes the table and, where it is empty, the leases.
    async fn start(&mut self) -> Result<(), ConsumerError> {
        let mut failures = 0;
        loop {
            let error = match self.shared.store.prepare().await {
                Ok(()) => break,
                Err(error) => error,
            };
            failures += 1;
            if !error.is_transient() {
                return Err(ConsumerError::Store(error));
            }
            tracing::warn!(%error, "the lease table cannot be made, trying again");
            sleep(RETRY.draw(failures)).await;
        }
        loop {
            let error = match self.first_sync().await {
                Ok(()) => break,
                Err(error) => error,
            };
            failures += 1;
            let transient = match &error {
                ConsumerError::Stream(error) => error.is_transient(),
                ConsumerError::Store(error) => error.is_transient(),
            };
            if !transient {
                return Err(error);
            }
            tracing::warn!(%error, "trying again");
            sleep(RETRY.draw(failures)).await;
        }
        self.sync_after = self.next_sync();
        Ok(())
    }

    async fn first_sync(&mut self) -> Result<(), ConsumerError> {
        let leases = self.shared.store.list().await.map_err(ConsumerError::Store)?;
        if leases.iter().any(|lease| !lease.is_finished()) {
            return Ok(());
        }
        self.sync(&by_key(leases)).await
    }

    fn next_sync(&mut self) -> Duration {
        let spread = 0.8 + 0.4 * self.random.f64();
        self.shared.now() + self.shared.config.sync_every.mul_f64(spread)
    }

    /// Compares the leases with the stream's shards. The leases must have been read before the shards are.
    async fn sync(&mut self, leases: &Leases) -> Result<(), ConsumerError> {
        let shards = self.shared.make_missing(leases).await?;
        self.clean(leases, Some(&shards)).await;
        Ok(())
    }

    /// Deletes leases that have been done with for some time. Not at once: who read the table before would make them anew.
    async fn clean(&mut self, leases: &Leases, shards: Option<&[super::source::Shard]>) {
        let now = self.shared.now();
        let before = std::mem::take(&mut self.done_with);
        for key in shards::done_with(leases, shards) {
            let since = before.get(key).copied().unwrap_or(now);
            if now < since + self.shared.config.lease_duration * 2 {
                self.done_with.insert(key.to_owned(), since);
            } else if let Err(error) = self.shared.store.delete_finished(key).await {
                tracing::debug!(%error, key, "a finished lease is not deleted");
            }
        }
    }

    /// Looks at the table once and does what there is to do. How long until the next time.
    async fn round(&mut self) -> Result<Duration, StoreError> {
        let listed = timeout(self.shared.config.lease_duration, self.shared.store.list());
        let leases = match listed.await {
            Ok(leases) => leases?,
            Err(_) => return Ok(Duration::ZERO),
        };
        let now = self.shared.now();
        self.tracker.observe(&leases, now);
        let leases = by_key(leases);
        let taken_wanted = self.plan(&leases, now);
        let waiting = self.carry_out(&leases, taken_wanted).await;
        self.look_after(&leases, now).await;
        let tick = self.shared.config.tick();
        // While others finish what was asked for, it is looked at more often.
        Ok(if waiting {
            tick / 4
        } else {
            jittered(tick, &mut self.random)
        })
    }

    /// Whether nobody lives who has it.
    fn is_free(&self, lease: &Lease, now: Duration) -> bool {
        let config = &self.shared.config;
        let me = config.worker_id.as_str();
        let still = self.tracker.still_for(&lease.key, now);
        match lease.holder() {
            None => true,
            Some(holder) if holder == me => false,
            // A worker that was asked by us and neither finishes nor dies does not know what it was asked.
            Some(_) if lease.owner.as_deref() == Some(me) => {
                still >= config.lease_duration
                    || self.tracker.owners_for(&lease.key, now) >= config.handoff_timeout + config.lease_duration
            }
            Some(_) => still >= config.lease_duration,
        }
    }

    /// What to take and what to ask for.
    fn plan(&mut self, leases: &Leases, now: Duration) -> Wanted {
        let shared = Arc::clone(&self.shared);
        let config = &shared.config;
        let me = config.worker_id.as_str();
        let held = shared.held.lock().clone();
        let mut wanted = Wanted::default();
        let mut candidates = Vec::new();
        for lease in leases
            .values()
            .filter(|l| !l.is_finished() && shards::is_ready(l, leases))
        {
            let free = self.is_free(lease, now);
            if !held.contains_key(&lease.key) && lease.holder() == Some(me) {
                // It was handed to us, or is from an earlier life under this name.
                wanted.take.push(lease.key.clone());
            }
            candidates.push(Candidate {
                key: &lease.key,
                owner: if free { None } else { lease.owner.as_deref() },
                moving: lease.checkpoint_owner.is_some(),
                throughput_kbps: lease.throughput_kbps,
                abandoned: free && self.tracker.still_for(&lease.key, now) >= config.lease_duration * 2,
            });
            wanted.waiting |= lease.owner.as_deref() == Some(me) && lease.checkpoint_owner.is_some();
        }
        let policy = Policy {
            leases_max: config.leases_max,
            asks_max: if now >= self.balance_after { config.asks_max } else { 0 },
            imbalance: config.imbalance,
        };
        let random = &mut self.random;
        let plan = balance::plan(me, &candidates, policy, |order| random.shuffle(order));
        shared.stats.lock().beyond_max = plan.beyond_max;
        wanted.take.extend(plan.take);
        wanted.ask = plan.ask;
        wanted
    }

    /// Takes and asks. Whether leases are to come that others have yet to finish.
    async fn carry_out(&mut self, leases: &Leases, wanted: Wanted) -> bool {
        let shared = &self.shared;
        let take = wanted.take.iter().filter_map(|key| leases.get(key));
        stream::iter(take)
            .for_each_concurrent(LEASE_WRITES_MAX, |lease| take_one(shared, lease))
            .await;
        let mut asked = 0;
        for (key, holder) in &wanted.ask {
            let Some(lease) = leases.get(key) else { continue };
            match shared
                .store
                .write(&lease.hand_off(holder, &shared.config.worker_id))
                .await
            {
                Ok(Outcome::Done) => asked += 1,
                Ok(Outcome::Refused(_)) => {}
                Err(error) => tracing::warn!(%error, key, "a lease is not asked for"),
            }
        }
        if asked > 0 {
            tracing::info!(asked, "asked other workers for leases");
            shared.stats.lock().asked += asked;
            self.balance_after = shared.now() + shared.config.balance_every;
        }
        wanted.waiting || asked > 0
    }

    /// Leases that are held and were asked for, shards without leases, and leases that are done with.
    async fn look_after(&mut self, leases: &Leases, now: Duration) {
        let me = self.shared.config.worker_id.clone();
        for held in self.shared.holding() {
            let asked = leases
                .get(&*held.key)
                .is_some_and(|row| row.checkpoint_owner.as_deref() == Some(me.as_str()));
            if asked && held.phase() == Phase::Reading {
                renew_one(&self.shared, held).await;
            }
        }
        // One worker looks after the whole table: who has the first lease whose holder lives.
        let first = leases
            .values()
            .find(|lease| !lease.is_finished() && !self.is_free(lease, now));
        let leads = first.is_some_and(|lease| lease.holder() == Some(me.as_str()));
        let wanted = self.shared.take_sync_wanted();
        let nothing_left = leases.values().all(Lease::is_finished);
        if wanted || ((leads || nothing_left) && now >= self.sync_after) {
            self.sync_after = self.next_sync();
            if let Err(error) = self.sync(leases).await {
                tracing::warn!(%error, "the shards are not compared with the leases, trying again");
                self.sync_after = now + self.shared.config.tick();
                if wanted {
                    self.shared.want_sync();
                }
            }
        } else if leads {
            self.clean(leases, None).await;
        }
    }
}

/// What a look at the table showed is to be done.
#[derive(Default)]
struct Wanted {
    take: Vec<String>,
    ask: Vec<(String, String)>,
    /// Some are to come that others have yet to finish.
    waiting: bool,
}

/// Takes a lease as it was seen, and begins to read.
async fn take_one(shared: &Arc<Shared>, lease: &Lease) {
    let began = shared.now();
    let write = lease.take(&shared.config.worker_id);
    match shared.store.write(&write).await {
        Ok(Outcome::Done) => {}
        Ok(Outcome::Refused(_)) => return,
        Err(error) => {
            tracing::warn!(%error, key = lease.key, "a lease is not taken");
            return;
        }
    }
    let mut lease = lease.clone();
    write.change.apply(&mut lease);
    tracing::info!(shard = lease.key, counter = lease.counter, "reading");
    let held = Held::new(lease, began, shared.config.prefetch);
    let before = shared.held.lock().insert(held.key.to_string(), Arc::clone(&held));
    if let Some(before) = before {
        before.end(Over::Lost);
    }
    shared.stats.lock().taken += 1;
    tokio::spawn(reader::read(Arc::clone(shared), held));
}
