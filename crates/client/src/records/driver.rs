//! A record producer's own work: packing, calling, trying again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::sleep;

use super::aggregate::{Aggregator, UserRecord};
use super::map::ShardMap;
use super::producer::{Command, Order, PutError, RecordProducerConfig, RecordProducerStats};
use super::sink::{Entry, RecordSink, Stored};
use crate::error::ClientError;

/// A shard map that could not be had is asked for again after this.
const MAP_AGAIN: Duration = Duration::from_secs(1);

/// A record of the program and who waits for its fate.
pub(crate) struct Part {
    record: UserRecord,
    sent: Duration,
    reply: oneshot::Sender<Result<Stored, PutError>>,
    _room: OwnedSemaphorePermit,
}

impl Part {
    pub fn new(
        record: UserRecord,
        sent: Duration,
        reply: oneshot::Sender<Result<Stored, PutError>>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Part {
            record,
            sent,
            reply,
            _room: room,
        }
    }
}

/// A stream record to be put: one part as it is, or several packed.
struct Item {
    record: UserRecord,
    parts: Vec<Part>,
    /// Its partition keys: where they are kept in order, no other record with one of them is under way meanwhile.
    keys: BTreeSet<Arc<str>>,
    /// Where it was packed for.
    shard: Option<String>,
    attempts: u32,
    not_before: Duration,
    why: String,
}

impl Item {
    fn bytes(&self) -> usize {
        self.record.data.len() + self.record.partition_key.len()
    }

    fn oldest(&self) -> Duration {
        self.parts.iter().map(|part| part.sent).min().unwrap_or_default()
    }
}

/// Records of one shard that are being packed.
#[derive(Default)]
struct Open {
    aggregator: Aggregator,
    parts: Vec<Part>,
}

type Answered = (Vec<Item>, Result<Vec<Entry>, ClientError>);

struct Driver {
    sink: Arc<dyn RecordSink>,
    clock: Arc<dyn Clock>,
    config: RecordProducerConfig,
    stats: Arc<Mutex<RecordProducerStats>>,
    map: Option<ShardMap>,
    map_wanted: bool,
    map_again: Duration,
    open: BTreeMap<String, Open>,
    queue: VecDeque<Item>,
    queued_bytes: usize,
    /// Before that no item of the queue is worth a call, unless the queue is full.
    due: Duration,
    /// Aggregates that were stored in shards which the map does not know yet.
    undecided: Vec<(Item, Stored)>,
    busy: BTreeSet<Arc<str>>,
    flushes: Vec<oneshot::Sender<()>>,
    ended: bool,
}

/// Runs until the program is gone and everything is done.
pub(crate) async fn run(
    sink: Arc<dyn RecordSink>,
    clock: Arc<dyn Clock>,
    config: RecordProducerConfig,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    stats: Arc<Mutex<RecordProducerStats>>,
) {
    let mut driver = Driver {
        map_wanted: config.aggregate_bytes_max.is_some(),
        sink,
        clock,
        config,
        stats,
        map: None,
        map_again: Duration::ZERO,
        open: BTreeMap::new(),
        queue: VecDeque::new(),
        queued_bytes: 0,
        due: Duration::MAX,
        undecided: Vec::new(),
        busy: BTreeSet::new(),
        flushes: Vec::new(),
        ended: false,
    };
    let mut calls = FuturesUnordered::new();
    loop {
        driver.refresh_map().await;
        driver.close_old();
        while calls.len() < driver.config.calls_max {
            let Some(items) = driver.next_call() else { break };
            let sink = Arc::clone(&driver.sink);
            calls.push(async move {
                let records: Vec<UserRecord> = items.iter().map(|item| item.record.clone()).collect();
                let answer = sink.put(&records).await;
                (items, answer)
            });
        }
        if calls.is_empty() && driver.is_idle() {
            for done in std::mem::take(&mut driver.flushes) {
                let _ = done.send(());
            }
            if driver.ended {
                return;
            }
        }
        let wait = driver.wait();
        tokio::select! {
            biased;
            Some(answered) = calls.next() => driver.answered(answered),
            command = inbox.recv(), if !driver.ended => driver.take(command),
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
        // What came together is packed together.
        while let Ok(command) = inbox.try_recv() {
            driver.take(Some(command));
        }
    }
}

impl Driver {
    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.open.is_empty() && self.undecided.is_empty()
    }

    fn hurry(&self) -> bool {
        !self.flushes.is_empty() || self.ended
    }

    fn take(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Put(part)) => self.add(part),
            Some(Command::Flush(done)) => self.flushes.push(done),
            None => self.ended = true,
        }
    }

    async fn refresh_map(&mut self) {
        if !self.map_wanted || self.now() < self.map_again {
            return;
        }
        match self.sink.shards().await {
            Ok(shards) => {
                self.map = Some(ShardMap::new(shards));
                self.map_wanted = false;
                self.decide();
            }
            Err(error) => {
                tracing::warn!(%error, "the stream's shards are not known, records are not packed");
                self.map = None;
                // Records that wait for it wait no longer than any.
                let old = |(item, _): &(Item, Stored)| self.now() >= item.oldest() + self.config.give_up_after;
                if self.undecided.iter().any(old) {
                    self.decide();
                }
            }
        }
        self.map_again = self.now() + MAP_AGAIN;
    }

    /// Packs a record with others of its shard, or queues it as it is.
    fn add(&mut self, part: Part) {
        let shard = self.map.as_ref().and_then(|map| map.shard(part.record.hash_key()));
        let (Some(max), Some(shard)) = (self.config.aggregate_bytes_max, shard) else {
            return self.queue_alone(part);
        };
        let shard = shard.to_owned();
        let open = self.open.entry(shard.clone()).or_default();
        if !open.parts.is_empty() && open.aggregator.bytes() + open.aggregator.growth(&part.record) > max {
            self.close(&shard);
        }
        let open = self.open.entry(shard).or_default();
        open.aggregator.push(&part.record);
        open.parts.push(part);
    }

    fn queue_alone(&mut self, part: Part) {
        let keys = BTreeSet::from([Arc::clone(&part.record.partition_key)]);
        self.push_back(Item {
            record: part.record.clone(),
            parts: vec![part],
            keys,
            shard: None,
            attempts: 0,
            not_before: Duration::ZERO,
            why: String::new(),
        });
    }

    fn push_back(&mut self, item: Item) {
        self.queued(&item);
        self.queue.push_back(item);
    }

    fn queued(&mut self, item: &Item) {
        self.queued_bytes += item.bytes();
        self.due = self.due.min(self.due_of(item));
    }

    /// When it is worth a call.
    fn due_of(&self, item: &Item) -> Duration {
        let fresh = item.attempts == 0 && item.shard.is_none();
        let due = if fresh {
            item.oldest() + self.config.linger
        } else {
            Duration::ZERO
        };
        due.max(item.not_before)
    }

    fn close(&mut self, shard: &str) {
        let Some(mut open) = self.open.remove(shard) else {
            return;
        };
        let packed = open.aggregator.finish();
        // One alone needs no packing.
        let record = match (open.parts.as_slice(), packed) {
            ([only], _) => only.record.clone(),
            (_, Some(packed)) => packed,
            (_, None) => return,
        };
        self.push_back(Item {
            record,
            keys: open
                .parts
                .iter()
                .map(|part| Arc::clone(&part.record.partition_key))
                .collect(),
            parts: open.parts,
            shard: Some(shard.to_owned()),
            attempts: 0,
            not_before: Duration::ZERO,
            why: String::new(),
        });
    }

    /// Closes aggregates whose oldest record has waited long enough.
    fn close_old(&mut self) {
        let (now, hurry) = (self.now(), self.hurry());
        let due = |open: &Open| {
            open.parts
                .first()
                .is_some_and(|part| hurry || now >= part.sent + self.config.linger)
        };
        let due: Vec<String> = self
            .open
            .iter()
            .filter(|(_, open)| due(open))
            .map(|(shard, _)| shard.clone())
            .collect();
        for shard in due {
            self.close(&shard);
        }
    }

    /// The items of the next call, if one is worth making.
    fn next_call(&mut self) -> Option<Vec<Item>> {
        let now = self.now();
        let (records_max, bytes_max) = (self.config.call_records_max, self.config.call_bytes_max);
        let full = self.queue.len() >= records_max || self.queued_bytes >= bytes_max;
        if self.queue.is_empty() || (now < self.due && !full && !self.hurry()) {
            return None;
        }
        self.give_up_old(now);
        let ordered = self.config.order == Order::PerKey;
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        let mut passed: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut kept = VecDeque::with_capacity(self.queue.len());
        let mut due = Duration::MAX;
        let mut waiting = std::mem::take(&mut self.queue).into_iter();
        while let Some(item) = waiting.next() {
            if items.len() >= records_max {
                // The rest is looked at for the next call.
                due = now;
                kept.push_back(item);
                kept.extend(waiting);
                break;
            }
            let blocked = ordered && !(self.busy.is_disjoint(&item.keys) && passed.is_disjoint(&item.keys));
            let fits = items.is_empty() || bytes + item.bytes() <= bytes_max;
            if blocked || !fits || now < item.not_before {
                // What waits for an answer is looked at when that comes.
                due = due.min(if blocked { Duration::MAX } else { self.due_of(&item) });
                if ordered {
                    passed.extend(item.keys.iter().cloned());
                }
                kept.push_back(item);
                continue;
            }
            bytes += item.bytes();
            if ordered {
                self.busy.extend(item.keys.iter().cloned());
            }
            items.push(item);
        }
        self.queue = kept;
        self.queued_bytes -= bytes;
        self.due = due;
        if items.is_empty() {
            return None;
        }
        let mut stats = self.stats.lock();
        stats.calls += 1;
        stats.retried += items.iter().filter(|item| item.attempts > 0).count() as u64;
        stats.packed += items.iter().filter(|item| item.attempts == 0).count() as u64;
        Some(items)
    }

    fn give_up_old(&mut self, now: Duration) {
        let old = |item: &Item| item.attempts > 0 && now >= item.oldest() + self.config.give_up_after;
        if !self.queue.iter().any(old) {
            return;
        }
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.queue).into_iter().partition(old);
        self.queue = kept;
        for item in gone {
            self.queued_bytes -= item.bytes();
            self.fail(item);
        }
    }

    fn fail(&self, item: Item) {
        let mut stats = self.stats.lock();
        for part in item.parts {
            stats.failed += 1;
            stats.buffered -= 1;
            let (attempts, why) = (item.attempts, item.why.clone());
            let _ = part.reply.send(Err(PutError::Refused { attempts, why }));
        }
    }

    /// How long until there is something to do without being told; `None` for as long as nothing comes.
    fn wait(&self) -> Option<Duration> {
        let linger = self.config.linger;
        let packing = self
            .open
            .values()
            .filter_map(|open| open.parts.first())
            .map(|part| part.sent + linger);
        let queued = (!self.queue.is_empty() && self.due < Duration::MAX).then_some(self.due);
        let map = (self.map_wanted && !self.undecided.is_empty()).then_some(self.map_again);
        let at = packing.chain(queued).chain(map).min()?;
        // At least a little: where all calls are under way, their answers come first.
        Some(at.saturating_sub(self.now()).max(Duration::from_millis(1)))
    }

    fn answered(&mut self, (items, answer): Answered) {
        self.unblock(&items);
        let entries = match answer {
            Ok(entries) => entries,
            Err(error) => return self.call_failed(items, &error),
        };
        let mut again = Vec::new();
        for (mut item, entry) in items.into_iter().zip(entries) {
            item.attempts += 1;
            match entry {
                Entry::Stored(stored) => again.extend(self.stored(item, &stored)),
                Entry::Failed { code, message } => {
                    item.why = format!("{code}: {message}");
                    item.not_before = self.now() + self.config.backoff.draw(item.attempts);
                    again.push(item);
                }
            }
        }
        self.put_back(again);
    }

    fn call_failed(&mut self, items: Vec<Item>, error: &ClientError) {
        let advice = error.advice().map(|advice| format!(" ({advice})")).unwrap_or_default();
        let now = self.now();
        let mut again = Vec::new();
        for mut item in items {
            item.attempts += 1;
            item.why = format!("{error}{advice}");
            item.not_before = now + self.config.backoff.draw(item.attempts);
            if error.is_transient() {
                again.push(item);
            } else {
                self.fail(item);
            }
        }
        self.put_back(again);
    }

    fn unblock(&mut self, items: &[Item]) {
        for key in items.iter().flat_map(|item| &item.keys) {
            self.busy.remove(key);
        }
        let free = self.queue.iter().filter(|item| self.busy.is_disjoint(&item.keys));
        self.due = free.map(|item| self.due_of(item)).min().unwrap_or(Duration::MAX);
    }

    /// What is tried again keeps its place before what came later.
    fn put_back(&mut self, again: Vec<Item>) {
        for item in again.into_iter().rev() {
            self.queued(&item);
            self.queue.push_front(item);
        }
    }

    /// Tells who waits. Records that came to lie in a shard that is not theirs, because the shards changed since they were
    /// packed, are given back: consumers leave them out there, so they are put again.
    fn stored(&mut self, item: Item, stored: &Stored) -> Vec<Item> {
        let elsewhere = item.parts.len() > 1 && item.shard.as_deref() != Some(stored.shard.as_str());
        if elsewhere && self.map.as_ref().is_none_or(|map| map.range(&stored.shard).is_none()) {
            self.map_wanted = true;
            self.map_again = Duration::ZERO;
            if self.config.order == Order::PerKey {
                self.busy.extend(item.keys.iter().cloned());
            }
            self.undecided.push((item, stored.clone()));
            return Vec::new();
        }
        self.settle(item, stored, elsewhere)
    }

    /// The map is as good as it gets.
    fn decide(&mut self) {
        for (item, stored) in std::mem::take(&mut self.undecided) {
            self.unblock(std::slice::from_ref(&item));
            let again = self.settle(item, &stored, true);
            self.put_back(again);
        }
    }

    fn settle(&self, item: Item, stored: &Stored, elsewhere: bool) -> Vec<Item> {
        let first = item.record.hash_key();
        let range = self.map.as_ref().and_then(|map| map.range(&stored.shard));
        let (now, attempts) = (self.now(), item.attempts);
        let mut again = Vec::new();
        let mut stats = self.stats.lock();
        for part in item.parts {
            let key = part.record.hash_key();
            // Of a shard that cannot be known nothing is known but that it has the first record's key.
            if elsewhere && !range.map_or(key == first, |range| range.contains(key)) {
                stats.misplaced += 1;
                again.push(Item {
                    record: part.record.clone(),
                    keys: BTreeSet::from([Arc::clone(&part.record.partition_key)]),
                    parts: vec![part],
                    shard: None,
                    attempts,
                    not_before: Duration::ZERO,
                    why: "the stream's shards changed".to_owned(),
                });
                continue;
            }
            stats.stored += 1;
            stats.buffered -= 1;
            stats.stored_after.add(now.saturating_sub(part.sent));
            let _ = part.reply.send(Ok(stored.clone()));
        }
        again
    }
}
