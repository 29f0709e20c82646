//! A stream, a lease table and a clock that exist only here: Tokio's paused time moves on when nothing else can, so that
//! minutes pass in milliseconds and a seed repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, Timestamp};
use bytes::Bytes;
use client::consumer::{
    Batch, ChildShard, Consumer, ConsumerConfig, Delivery, Lease, LeaseStore, MemoryLeaseStore, Outcome, Page, Record,
    Shard, ShardSource, StartAt, Stopper, StoreError, StreamRecord, Subscription, Write,
};
use client::records::{HashKey, HashRange, SequenceNumber};
use client::{Answer, ClientError};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Tokio's time as a clock.
pub struct SimClock(Instant);

impl SimClock {
    pub fn new() -> Arc<Self> {
        Arc::new(SimClock(Instant::now()))
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + self.monotonic().as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

struct SimShard {
    parents: Vec<String>,
    range: HashRange,
    children: Vec<String>,
    records: Vec<StreamRecord>,
    forgotten: bool,
}

impl SimShard {
    fn is_open(&self) -> bool {
        self.children.is_empty()
    }
}

#[derive(Default)]
struct Inner {
    shards: BTreeMap<String, SimShard>,
    number: u64,
    listings: u64,
    longest_page: usize,
}

/// A stream whose shards are split and merged, as a server has it.
pub struct SimStream {
    inner: Mutex<Inner>,
    changed: Notify,
    pub fan_out: Mutex<Result<(), &'static str>>,
    pub subscriptions: Mutex<Vec<StartAt>>,
}

impl SimStream {
    pub fn new(shards: u32) -> Arc<Self> {
        let stream = SimStream {
            inner: Mutex::default(),
            changed: Notify::new(),
            fan_out: Mutex::new(Ok(())),
            subscriptions: Mutex::default(),
        };
        let width = u128::MAX / u128::from(shards);
        for n in 0..shards {
            let first = width * u128::from(n);
            let last = if n + 1 == shards { u128::MAX } else { first + width - 1 };
            stream.add(
                Vec::new(),
                HashRange {
                    first: HashKey(first),
                    last: HashKey(last),
                },
            );
        }
        Arc::new(stream)
    }

    fn add(&self, parents: Vec<String>, range: HashRange) -> String {
        let mut inner = self.inner.lock();
        let id = format!("shardId-{:012}", inner.shards.len());
        let shard = SimShard {
            parents,
            range,
            children: Vec::new(),
            records: Vec::new(),
            forgotten: false,
        };
        inner.shards.insert(id.clone(), shard);
        id
    }

    pub fn put_data(&self, key: &str, data: impl Into<Bytes>) -> String {
        let mut inner = self.inner.lock();
        inner.number += 7;
        let number = inner.number;
        let hash = HashKey::of(key);
        let (id, shard) = inner
            .shards
            .iter_mut()
            .find(|(_, s)| s.is_open() && s.range.contains(hash))
            .unwrap();
        shard.records.push(StreamRecord {
            sequence_number: number.to_string().parse().unwrap(),
            partition_key: key.to_owned(),
            data: data.into(),
            arrived: Timestamp::from_millis(number as i64),
        });
        let id = id.clone();
        drop(inner);
        self.changed.notify_waiters();
        id
    }

    pub fn open(&self) -> Vec<String> {
        let inner = self.inner.lock();
        inner
            .shards
            .iter()
            .filter(|(_, s)| s.is_open())
            .map(|(id, _)| id.clone())
            .collect()
    }

    pub fn split(&self, id: &str) {
        let HashRange { first, last } = self.inner.lock().shards[id].range;
        let middle = first.0 + (last.0 - first.0) / 2;
        let parents = vec![id.to_owned()];
        let one = self.add(
            parents.clone(),
            HashRange {
                first,
                last: HashKey(middle),
            },
        );
        let other = self.add(
            parents,
            HashRange {
                first: HashKey(middle + 1),
                last,
            },
        );
        self.inner.lock().shards.get_mut(id).unwrap().children = vec![one, other];
        self.changed.notify_waiters();
    }

    /// Merges an open shard with its right neighbour, if it has one.
    pub fn merge(&self, id: &str) {
        let (range, neighbour) = {
            let inner = self.inner.lock();
            let range = inner.shards[id].range;
            let next = |s: &SimShard| s.is_open() && range.last.0.checked_add(1) == Some(s.range.first.0);
            let Some((neighbour, shard)) = inner.shards.iter().find(|(_, s)| next(s)) else {
                return;
            };
            (
                HashRange {
                    last: shard.range.last,
                    ..range
                },
                neighbour.clone(),
            )
        };
        let child = self.add(vec![id.to_owned(), neighbour.clone()], range);
        let mut inner = self.inner.lock();
        for parent in [id, &neighbour] {
            inner.shards.get_mut(parent).unwrap().children = vec![child.clone()];
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// As retention forgets a closed shard: its records, and what it would say at its end.
    #[allow(dead_code, reason = "the follower's tests use it")]
    pub fn forget(&self, id: &str) {
        let mut inner = self.inner.lock();
        let shard = inner.shards.get_mut(id).unwrap();
        assert!(!shard.is_open());
        shard.forgotten = true;
        shard.records.clear();
    }

    pub fn listings(&self) -> u64 {
        self.inner.lock().listings
    }

    fn index(&self, shard: &str, from: &StartAt) -> Result<usize, ClientError> {
        let inner = self.inner.lock();
        let shard = inner
            .shards
            .get(shard)
            .ok_or_else(|| refused("ResourceNotFoundException"))?;
        let first =
            |is_so: &dyn Fn(&StreamRecord) -> bool| shard.records.iter().position(is_so).unwrap_or(shard.records.len());
        Ok(match from {
            StartAt::TrimHorizon => 0,
            StartAt::Latest => shard.records.len(),
            StartAt::Timestamp(time) => first(&|r| r.arrived >= *time),
            StartAt::At(number) => first(&|r| r.sequence_number >= *number),
            StartAt::After(number) => first(&|r| r.sequence_number > *number),
        })
    }

    fn page(&self, id: &str, index: usize, limit: usize) -> (Page, usize) {
        let mut inner = self.inner.lock();
        let shard = &inner.shards[id];
        let index = index.min(shard.records.len());
        let end = (index + limit).min(shard.records.len());
        let records = shard.records[index..end].to_vec();
        let ended = !shard.is_open() && end == shard.records.len();
        let child = |id: &String| ChildShard {
            id: id.clone(),
            parents: inner.shards[id].parents.clone(),
            range: inner.shards[id].range,
        };
        let page = Page {
            next: (!ended).then(|| format!("{id}|{end}")),
            millis_behind: if end < shard.records.len() { 1000 } else { 0 },
            children: if ended && !shard.forgotten {
                shard.children.iter().map(child).collect()
            } else {
                Vec::new()
            },
            records,
        };
        inner.longest_page = inner.longest_page.max(page.records.len());
        (page, end)
    }
}

pub fn refused(code: &str) -> ClientError {
    ClientError::Refused(Answer {
        status: 400,
        code: code.to_owned(),
        message: "as the test wants it".to_owned(),
    })
}

/// What a process's calls go through: a paused process makes none.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<bool>, Notify)>);

impl Gate {
    pub fn new() -> Self {
        Gate(Arc::new((Mutex::new(true), Notify::new())))
    }

    pub fn pause(&self) {
        *self.0.0.lock() = false;
    }

    pub fn resume(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_waiters();
    }

    pub async fn open(&self) {
        let mut opened = std::pin::pin!(self.0.1.notified());
        opened.as_mut().enable();
        if !*self.0.0.lock() {
            opened.await;
        }
    }

    async fn pass(&self, random: &Mutex<fastrand::Rng>) {
        let wait = random.lock().u64(0..20);
        sleep(Duration::from_millis(wait)).await;
        self.open().await;
    }
}

/// A process's connection to the stream.
pub struct SimSource {
    pub stream: Arc<SimStream>,
    pub gate: Gate,
    pub random: Mutex<fastrand::Rng>,
    pub page: usize,
}

#[async_trait]
impl ShardSource for SimSource {
    async fn shards(&self) -> Result<Vec<Shard>, ClientError> {
        self.gate.pass(&self.random).await;
        let mut inner = self.stream.inner.lock();
        inner.listings += 1;
        let shard = |(id, s): (&String, &SimShard)| Shard {
            id: id.clone(),
            parents: s.parents.clone(),
            range: s.range,
            open: s.is_open(),
        };
        let there = inner.shards.iter().filter(|(_, s)| !s.forgotten);
        Ok(there.map(shard).collect())
    }

    async fn iterator(&self, shard: &str, from: &StartAt) -> Result<String, ClientError> {
        self.gate.pass(&self.random).await;
        Ok(format!("{shard}|{}", self.stream.index(shard, from)?))
    }

    async fn records(&self, iterator: &str, limit: u32) -> Result<Page, ClientError> {
        self.gate.pass(&self.random).await;
        let odd = self.random.lock().u32(0..200);
        match odd {
            0 => return Err(refused("ExpiredIteratorException")),
            1 => return Err(refused("ProvisionedThroughputExceededException")),
            _ => {}
        }
        let (shard, index) = iterator.split_once('|').unwrap();
        Ok(self
            .stream
            .page(shard, index.parse().unwrap(), self.page.min(limit as usize))
            .0)
    }

    async fn registered(&self, name: &str) -> Result<String, ClientError> {
        self.gate.pass(&self.random).await;
        let answer = *self.stream.fan_out.lock();
        answer.map(|()| format!("arn:{name}")).map_err(refused)
    }

    async fn subscribe(&self, _: &str, shard: &str, from: &StartAt) -> Result<Box<dyn Subscription>, ClientError> {
        self.gate.pass(&self.random).await;
        let answer = *self.stream.fan_out.lock();
        answer.map_err(refused)?;
        self.stream.subscriptions.lock().push(from.clone());
        Ok(Box::new(SimSubscription {
            stream: Arc::clone(&self.stream),
            shard: shard.to_owned(),
            index: self.stream.index(shard, from)?,
            until: Instant::now() + Duration::from_secs(300),
        }))
    }
}

struct SimSubscription {
    stream: Arc<SimStream>,
    shard: String,
    index: usize,
    until: Instant,
}

#[async_trait]
impl Subscription for SimSubscription {
    async fn next(&mut self) -> Result<Option<Page>, ClientError> {
        loop {
            let mut changed = std::pin::pin!(self.stream.changed.notified());
            changed.as_mut().enable();
            if Instant::now() >= self.until {
                return Ok(None);
            }
            let (mut page, end) = self.stream.page(&self.shard, self.index, 10);
            if !page.records.is_empty() || page.next.is_none() {
                self.index = end;
                let last = page.records.last().map(|r| r.sequence_number.to_string());
                page.next = page.next.and(Some(last.unwrap_or_else(|| "0".to_owned())));
                return Ok(Some(page));
            }
            let _ = tokio::time::timeout_at(self.until, changed).await;
        }
    }
}

/// A process's connection to the table.
pub struct SimStore {
    pub leases: Arc<MemoryLeaseStore>,
    pub gate: Gate,
    pub random: Mutex<fastrand::Rng>,
    /// Of a hundred writes so many are made, but their answers are lost.
    pub lost_answers: u32,
    pub away: Arc<Mutex<bool>>,
}

impl SimStore {
    async fn pass(&self) -> Result<(), StoreError> {
        self.gate.pass(&self.random).await;
        if *self.away.lock() { Err(failed()) } else { Ok(()) }
    }
}

fn failed() -> StoreError {
    StoreError::Call {
        table: "fleet".to_owned(),
        source: ClientError::Timeout(Duration::from_secs(1)),
    }
}

#[async_trait]
impl LeaseStore for SimStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.pass().await
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.pass().await?;
        self.leases.list().await
    }

    async fn get(&self, key: &str) -> Result<Option<Lease>, StoreError> {
        self.pass().await?;
        self.leases.get(key).await
    }

    async fn create(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.pass().await?;
        self.leases.create(lease).await
    }

    async fn write(&self, write: &Write) -> Result<Outcome, StoreError> {
        self.pass().await?;
        let done = self.leases.write(write).await;
        let lost = self.random.lock().u32(0..100) < self.lost_answers;
        if lost { Err(failed()) } else { done }
    }

    async fn delete_finished(&self, key: &str) -> Result<bool, StoreError> {
        self.pass().await?;
        self.leases.delete_finished(key).await
    }
}

/// Who saw which record when; records are `key n` with n from 0 for each key.
#[derive(Default)]
pub struct Ledger {
    pub seen: Mutex<Vec<(Instant, String, String, u64)>>,
}

impl Ledger {
    pub fn saw(&self, worker: &str, record: &Record) {
        let text = std::str::from_utf8(&record.data).unwrap();
        let (key, n) = text.split_once(' ').unwrap();
        assert_eq!(key, &*record.partition_key);
        self.seen
            .lock()
            .push((Instant::now(), worker.to_owned(), key.to_owned(), n.parse().unwrap()));
    }

    pub fn count(&self) -> usize {
        let seen = self.seen.lock();
        let records: BTreeSet<_> = seen.iter().map(|(_, _, key, n)| (key, n)).collect();
        records.len()
    }

    pub fn repeated(&self) -> usize {
        let all = self.seen.lock().len();
        all - self.count()
    }

    /// Nobody sees a record of a key before all older ones of that key were seen.
    pub fn assert_in_order(&self) {
        let mut next: BTreeMap<String, u64> = BTreeMap::new();
        for (_, worker, key, n) in self.seen.lock().iter() {
            let next = next.entry(key.clone()).or_default();
            assert!(*n <= *next, "{worker} saw {key} {n} before {key} {next}");
            *next = (*next).max(n + 1);
        }
    }
}

/// A fleet over one stream and one table.
pub struct Fleet {
    pub clock: Arc<SimClock>,
    pub stream: Arc<SimStream>,
    pub leases: Arc<MemoryLeaseStore>,
    pub ledger: Arc<Ledger>,
    pub random: fastrand::Rng,
    pub lost_answers: u32,
    pub delivery: Delivery,
    pub put: BTreeMap<String, u64>,
}

/// A worker of it and the program around it.
pub struct Process {
    pub gate: Gate,
    pub stopper: Stopper,
    pub away: Arc<Mutex<bool>>,
    pub program: JoinHandle<()>,
}

impl Process {
    /// As SIGKILL.
    pub fn kill(self) {
        self.program.abort();
    }

    pub async fn stop(self) {
        self.stopper.stop();
        self.program.await.unwrap();
    }
}

pub const LEASE: Duration = Duration::from_secs(10);

impl Fleet {
    pub fn new(shards: u32, seed: u64) -> Self {
        // Waits between attempts are drawn from the thread's own generator, and all of this runs on one thread.
        fastrand::seed(seed);
        Fleet {
            clock: SimClock::new(),
            stream: SimStream::new(shards),
            leases: Arc::new(MemoryLeaseStore::new()),
            ledger: Arc::default(),
            random: fastrand::Rng::with_seed(seed),
            lost_answers: 0,
            delivery: Delivery::Polling,
            put: BTreeMap::new(),
        }
    }

    pub fn config(&mut self, name: &str) -> ConsumerConfig {
        ConsumerConfig {
            worker_id: name.to_owned(),
            lease_duration: LEASE,
            delivery: self.delivery.clone(),
            seed: Some(self.random.u64(..)),
            ..ConsumerConfig::default()
        }
    }

    /// A consumer and its connections.
    pub fn consumer(&mut self, config: ConsumerConfig) -> (Consumer, Gate, Arc<Mutex<bool>>) {
        let (gate, away) = (Gate::new(), Arc::default());
        let source = SimSource {
            stream: Arc::clone(&self.stream),
            gate: gate.clone(),
            random: Mutex::new(self.random.fork()),
            page: 25,
        };
        let store = SimStore {
            leases: Arc::clone(&self.leases),
            gate: gate.clone(),
            random: Mutex::new(self.random.fork()),
            lost_answers: self.lost_answers,
            away: Arc::clone(&away),
        };
        let clock: Arc<dyn Clock> = self.clock.clone();
        (
            Consumer::start(Arc::new(source), Arc::new(store), clock, config),
            gate,
            away,
        )
    }

    /// A worker that notes what it sees and checkpoints each batch.
    pub fn start(&mut self, name: &str) -> Process {
        let config = self.config(name);
        self.start_with(config)
    }

    pub fn start_with(&mut self, config: ConsumerConfig) -> Process {
        let name = config.worker_id.clone();
        let (mut consumer, gate, away) = self.consumer(config);
        let stopper = consumer.stopper();
        let (ledger, mut random, paused) = (Arc::clone(&self.ledger), self.random.fork(), gate.clone());
        let program = tokio::spawn(async move {
            while let Some(batch) = consumer.next().await {
                let batch: Batch = batch.unwrap();
                for record in &batch.records {
                    ledger.saw(&name, record);
                }
                sleep(Duration::from_millis(random.u64(0..50))).await;
                paused.open().await;
                let _ = batch.checkpoint().await;
            }
        });
        Process {
            gate,
            stopper,
            away,
            program,
        }
    }

    /// Puts so many records of twenty keys.
    pub fn put(&mut self, count: usize) {
        for _ in 0..count {
            let key = format!("door-{}", self.random.u32(0..20));
            let n = self.put.entry(key.clone()).or_default();
            self.stream.put_data(&key, format!("{key} {n}"));
            *n += 1;
        }
    }

    pub fn total(&self) -> usize {
        self.put.values().sum::<u64>() as usize
    }

    /// Puts records for so long.
    pub async fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let count = self.random.usize(0..10);
            self.put(count);
            let wait = self.random.u64(10..300);
            sleep(Duration::from_millis(wait)).await;
        }
    }

    /// Waits until every record was seen.
    pub async fn catch_up(&mut self, within: Duration) {
        self.catch_up_to(self.total(), within).await;
    }

    /// Waits until so many records were seen.
    pub async fn catch_up_to(&self, total: usize, within: Duration) {
        let end = Instant::now() + within;
        while self.ledger.count() < total {
            let seen = self.ledger.count();
            assert!(
                Instant::now() < end,
                "{seen} of {total} records seen\n{:#?}",
                self.table().await
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn table(&self) -> Vec<String> {
        let lease = |l: Lease| {
            format!(
                "{} {:?}<-{:?} {} #{}",
                l.key, l.owner, l.checkpoint_owner, l.checkpoint, l.counter
            )
        };
        self.leases.list().await.unwrap().into_iter().map(lease).collect()
    }

    /// What flows to the workers, and the most that flows through one lease.
    pub async fn loads(&self) -> (BTreeMap<String, f64>, f64) {
        let mut loads = BTreeMap::new();
        let mut heaviest = 0.0_f64;
        for lease in self.leases.list().await.unwrap() {
            let kbps = lease.throughput_kbps.unwrap_or(0.0);
            *loads.entry(lease.owner.unwrap_or_default()).or_default() += kbps;
            heaviest = heaviest.max(kbps);
        }
        (loads, heaviest)
    }

    /// Open shards by owner.
    pub async fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for lease in self.leases.list().await.unwrap() {
            if !lease.is_finished() && lease.checkpoint_owner.is_none() {
                *shares.entry(lease.owner.unwrap_or_default()).or_default() += 1;
            }
        }
        shares
    }
}

pub fn number(n: u64) -> SequenceNumber {
    n.to_string().parse().unwrap()
}
