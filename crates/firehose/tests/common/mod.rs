//! The engine over fakes that can fail, hang for ever, or do what they were asked and then hang, at any one of their steps.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::needless_pass_by_value, reason = "json!(...) stands in the calls")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::metrics::Metrics;
use base::{AccountId, Clock, ManualClock, Timestamp};
use bytes::Bytes;
use firehose::deliver::{Batch, Engine, Meters, Place, Source, SourceError, SourceShard, Status, Target, Work};
use firehose::endpoints::Secrets;
use firehose::ports::Ports;
use firehose::types::{About, Record, Source as Origin};
use futures_util::StreamExt;
use objects::{
    Bucket, Buckets, ByteRange, MemoryBuckets, ObjectError, ObjectInfo, ObjectPage, ObjectStream, PutOptions, Upload,
};
use parking_lot::Mutex;
use storage::{
    Catalog, CatalogError, Change, MemoryCatalog, Page, Position, SequenceNumber, ShardId, StreamId, Versioned,
};
use tokio::sync::watch;
use wire::firehose::DestinationDescription;

pub const START: Timestamp = Timestamp::from_millis(1_767_323_045_678);
pub const ID: u64 = 7;

/// What happens at the step that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends before it.
    CrashBefore,
    /// The process ends after it, before anybody is told.
    CrashAfter,
    /// It fails, and those after it do not.
    Error,
    /// It happens, and is told to have failed.
    ErrorAfter,
}

/// Counts steps and knows which one fails.
#[derive(Debug)]
pub struct Steps {
    next: AtomicU64,
    at: u64,
    fault: Fault,
    hung: watch::Sender<bool>,
}

impl Steps {
    pub fn new(at: u64, fault: Fault) -> Arc<Self> {
        Arc::new(Steps {
            next: AtomicU64::new(0),
            at,
            fault,
            hung: watch::Sender::new(false),
        })
    }

    pub fn never() -> Arc<Self> {
        Steps::new(u64::MAX, Fault::Error)
    }

    /// True once the chosen step was reached.
    pub fn reached(&self) -> bool {
        self.next.load(Ordering::SeqCst) > self.at
    }

    pub async fn crashed(&self) {
        let _ = self.hung.subscribe().wait_for(|hung| *hung).await;
    }

    async fn hang<T>(&self) -> T {
        self.hung.send_replace(true);
        std::future::pending().await
    }

    /// One step of the world: `what` happens, unless.
    async fn step<T, E>(&self, failed: E, what: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        if *self.hung.borrow() {
            return self.hang().await;
        }
        let here = self.next.fetch_add(1, Ordering::SeqCst) == self.at;
        match (here, self.fault) {
            (false, _) => what.await,
            (true, Fault::CrashBefore) => self.hang().await,
            (true, Fault::Error) => Err(failed),
            (true, Fault::CrashAfter) => {
                let _ = what.await;
                self.hang().await
            }
            (true, Fault::ErrorAfter) => {
                let _ = what.await;
                Err(failed)
            }
        }
    }
}

pub struct FailingCatalog(pub MemoryCatalog, pub Arc<Steps>);

#[async_trait]
impl Catalog for FailingCatalog {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, CatalogError> {
        self.0.get(key).await
    }

    async fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, CatalogError> {
        self.0.page(prefix, after, limit).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<u64, CatalogError> {
        let failed = CatalogError::Engine("it failed".to_owned());
        self.1.step(failed, self.0.commit(changes)).await
    }
}

pub struct FailingBuckets(pub Arc<MemoryBuckets>, pub Arc<Steps>);

#[async_trait]
impl Buckets for FailingBuckets {
    async fn open(&self, account: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError> {
        let bucket = self.0.open(account, name).await?;
        Ok(Arc::new(FailingBucket(bucket, Arc::clone(&self.1))))
    }
}

struct FailingBucket(Arc<dyn Bucket>, Arc<Steps>);

fn away() -> ObjectError {
    ObjectError::Unreachable("it is away".to_owned())
}

#[async_trait]
impl Bucket for FailingBucket {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn put(&self, key: &str, options: PutOptions, body: Bytes) -> Result<ObjectInfo, ObjectError> {
        self.1.step(away(), self.0.put(key, options, body)).await
    }

    async fn begin(&self, key: &str, options: PutOptions) -> Result<Box<dyn Upload>, ObjectError> {
        self.0.begin(key, options).await
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<(ObjectInfo, ObjectStream), ObjectError> {
        self.0.get(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        self.0.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ObjectPage, ObjectError> {
        self.0.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.1.step(away(), self.0.delete(key)).await
    }
}

/// A shard of a source in memory.
#[derive(Debug, Default)]
pub struct FakeShard {
    pub parents: Vec<u32>,
    pub closed: bool,
    pub records: Vec<(Bytes, Timestamp)>,
}

/// A source in memory.
pub struct FakeSource {
    pub stream: Mutex<Option<u64>>,
    pub shards: Mutex<BTreeMap<u32, FakeShard>>,
    pub tips: Mutex<BTreeMap<u32, watch::Sender<u64>>>,
    pub changes: watch::Sender<u64>,
}

impl FakeSource {
    pub fn new() -> Arc<Self> {
        Arc::new(FakeSource {
            stream: Mutex::new(Some(1)),
            shards: Mutex::default(),
            tips: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }

    pub fn open_shard(&self, number: u32, parents: &[u32]) {
        let mut shards = self.shards.lock();
        for parent in parents {
            if let Some(parent) = shards.get_mut(parent) {
                parent.closed = true;
            }
        }
        let shard = FakeShard {
            parents: parents.to_vec(),
            ..FakeShard::default()
        };
        shards.insert(number, shard);
        self.tips.lock().insert(number, watch::Sender::new(0));
        drop(shards);
        self.changes.send_modify(|n| *n += 1);
    }

    pub fn put(&self, number: u32, text: &str) {
        let mut shards = self.shards.lock();
        let shard = shards.get_mut(&number).unwrap();
        assert!(!shard.closed);
        shard.records.push((Bytes::from(format!("{text}\n")), START));
        drop(shards);
        self.tips.lock()[&number].send_modify(|n| *n += 1);
    }
}

#[async_trait]
impl Source for FakeSource {
    fn stream(&self) -> Option<StreamId> {
        self.stream.lock().map(StreamId)
    }

    fn shards(&self, _: StreamId) -> Result<Vec<SourceShard>, SourceError> {
        let shards = self.shards.lock();
        let view = |(number, shard): (&u32, &FakeShard)| SourceShard {
            shard: ShardId(*number),
            parents: shard.parents.iter().map(|n| ShardId(*n)).collect(),
            closed: shard.closed,
        };
        Ok(shards.iter().map(view).collect())
    }

    async fn read(
        &self,
        (_, shard): (StreamId, ShardId),
        from: Position,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch, SourceError> {
        let shards = self.shards.lock();
        let all = &shards.get(&shard.0).ok_or(SourceError::Gone)?.records;
        let first = match from {
            Position::Trim => 0,
            Position::At(number) | Position::After(number) => number.next_index() as usize,
        };
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (index, (data, arrival)) in all.iter().enumerate().skip(first).take(max_records) {
            bytes += data.len();
            if bytes > max_bytes && !records.is_empty() {
                break;
            }
            records.push(Record {
                data: data.clone(),
                arrival: *arrival,
                source: Origin {
                    shard,
                    sequence: SequenceNumber::new(START, shard.0, index as u64),
                    partition_key: String::new(),
                },
            });
        }
        let next = first + records.len();
        Ok(Batch {
            at_tip: next == all.len(),
            next: Position::At(SequenceNumber::before(START, shard.0, next as u64)),
            records,
        })
    }

    fn watch(&self, (_, shard): (StreamId, ShardId)) -> Result<watch::Receiver<u64>, SourceError> {
        let tips = self.tips.lock();
        tips.get(&shard.0)
            .map(watch::Sender::subscribe)
            .ok_or(SourceError::Gone)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn delivered(&self, _: u64, _: Option<Timestamp>) {}

    fn name(&self) -> String {
        "the fake".to_owned()
    }
}

/// What outlives a process.
pub struct World {
    pub catalog: MemoryCatalog,
    pub buckets: Arc<MemoryBuckets>,
    pub clock: Arc<ManualClock>,
    pub source: Arc<FakeSource>,
}

pub fn account() -> AccountId {
    AccountId::DEFAULT
}

pub fn about() -> About {
    About {
        account: account(),
        region: "us-west-2".parse().unwrap(),
        name: "door".to_owned(),
        arn: "arn:aws:firehose:us-west-2:000000000000:deliverystream/door".to_owned(),
        source_arn: None,
    }
}

/// A description of S3, with more in it.
pub fn description(more: serde_json::Value) -> DestinationDescription {
    let mut s3 = serde_json::json!({
        "BucketARN": "arn:aws:s3:::b", "RoleARN": "arn:aws:iam::000000000000:role/r", "CompressionFormat": "UNCOMPRESSED",
        "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 60}, "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"},
    });
    let members = s3.as_object_mut().unwrap();
    let serde_json::Value::Object(more) = more else {
        panic!("an object")
    };
    members.extend(more);
    let whole =
        serde_json::json!({"DestinationId": "destinationId-000000000001", "ExtendedS3DestinationDescription": s3});
    wire::codec::decode_output(whole.to_string().as_bytes()).unwrap_or_else(|e| panic!("{}", e.0))
}

impl World {
    pub async fn new() -> World {
        let clock = ManualClock::at(START);
        let world = World {
            catalog: MemoryCatalog::new(),
            buckets: Arc::new(MemoryBuckets::new(clock.clone())),
            clock,
            source: FakeSource::new(),
        };
        world.buckets.create(account(), "b");
        world
            .catalog
            .commit(vec![Engine::begin(ID, 1, []).unwrap()])
            .await
            .unwrap();
        world
    }

    /// A process that delivers with buffers of so many bytes.
    pub fn process(&self, steps: &Arc<Steps>, bytes: usize, more: serde_json::Value) -> (Engine, Arc<Status>) {
        let catalog = Arc::new(FailingCatalog(self.catalog.clone(), Arc::clone(steps)));
        let ports = Ports {
            buckets: Arc::new(FailingBuckets(Arc::clone(&self.buckets), Arc::clone(steps))),
            ..Ports::default()
        };
        let mut target = Target::open(&description(more), &Secrets::new(), &about(), 3, &ports).unwrap();
        target.buffering.bytes = bytes;
        let clock: Arc<dyn Clock> = self.clock.clone();
        let engine = Engine::new(catalog, clock, ports, 64 << 20);
        let status = Status::new(&Meters::new(&Metrics::new()).unwrap(), "arn");
        engine.start(Work {
            id: ID,
            source: self.source.clone(),
            target: Arc::new(target),
            status: status.clone(),
        });
        (engine, status)
    }

    /// Names and bodies of all objects of a bucket.
    pub async fn objects(&self, bucket: &str) -> BTreeMap<String, String> {
        let bucket = self.buckets.open(account(), bucket).await.unwrap();
        let mut found = BTreeMap::new();
        for info in bucket.list("", None, 1000).await.unwrap().objects {
            let (_, mut body) = bucket.get(&info.key, None).await.unwrap();
            let mut bytes = Vec::new();
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece.unwrap());
            }
            found.insert(info.key, String::from_utf8(bytes).unwrap());
        }
        found
    }

    /// Every line of every object.
    pub async fn lines(&self, bucket: &str) -> Vec<String> {
        let objects = self.objects(bucket).await;
        let mut lines: Vec<String> = objects
            .values()
            .flat_map(|body| body.lines().map(str::to_owned))
            .collect();
        lines.sort();
        lines
    }

    /// Buffers under way.
    pub async fn plans(&self) -> usize {
        let prefix = format!("-/-/delivery/{ID:020}/plan/");
        self.catalog.page(&prefix, None, 100).await.unwrap().entries.len()
    }

    /// Waits, in the time of the test, until every one of `records` lines is in the bucket and nothing is under way.
    pub async fn delivered(&self, records: usize) -> Vec<String> {
        for _ in 0..20_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let lines = self.lines("b").await;
            if lines.len() >= records && self.plans().await == 0 {
                return lines;
            }
        }
        panic!(
            "not delivered: {} of {records}, {} plans",
            self.lines("b").await.len(),
            self.plans().await
        )
    }
}

pub fn place(index: u64) -> Place {
    Place::At(SequenceNumber::before(START, 0, index))
}
