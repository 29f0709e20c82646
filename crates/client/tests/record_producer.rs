//! A record producer against a stream that throttles, changes its shards and goes away, in simulated time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, Timestamp};
use client::consumer::Shard;
use client::records::aggregate::deaggregate;
use client::records::{
    Entry, HashKey, HashRange, Order, PutError, RecordProducer, RecordProducerConfig, RecordSink, Stored, UserRecord,
};
use client::{Answer, ClientError};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

struct SimClock(Instant);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Default)]
struct State {
    /// Split points: one more shard than these.
    points: Vec<u128>,
    generation: usize,
    stored: Vec<(String, UserRecord)>,
    calls: Vec<usize>,
    throttle_percent: u32,
    error: Option<fn() -> ClientError>,
    listings: usize,
}

impl State {
    fn shards(&self) -> Vec<Shard> {
        let firsts: Vec<u128> = std::iter::once(0).chain(self.points.iter().copied()).collect();
        let lasts = self.points.iter().map(|point| point - 1).chain([u128::MAX]);
        let shard = |(n, (first, last)): (usize, (&u128, u128))| Shard {
            id: format!("{}-{n}", self.generation),
            parents: Vec::new(),
            range: HashRange {
                first: HashKey(*first),
                last: HashKey(last),
            },
            open: true,
        };
        firsts.iter().zip(lasts).enumerate().map(shard).collect()
    }
}

/// A stream in memory.
struct Stream {
    state: Mutex<State>,
    random: Mutex<fastrand::Rng>,
}

impl Stream {
    fn new(throttle_percent: u32) -> Arc<Self> {
        let state = State {
            points: vec![u128::MAX / 2],
            throttle_percent,
            ..State::default()
        };
        Arc::new(Stream {
            state: Mutex::new(state),
            random: Mutex::new(fastrand::Rng::with_seed(4)),
        })
    }

    fn reshard(&self, points: Vec<u128>) {
        let mut state = self.state.lock();
        state.points = points;
        state.generation += 1;
    }

    /// What a consumer gets, which leaves packed records of other shards out: the numbers of each key in their order.
    fn read(&self) -> BTreeMap<String, Vec<u64>> {
        let state = self.state.lock();
        let mut read: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (_, record) in &state.stored {
            let users = deaggregate(&record.data);
            let home = |state: &State| {
                state
                    .shards()
                    .into_iter()
                    .find(|s| s.range.contains(record.hash_key()))
                    .unwrap()
            };
            for user in users.clone().unwrap_or_else(|| vec![record.clone()]) {
                if users.is_none() || home(&state).range.contains(user.hash_key()) {
                    let n = std::str::from_utf8(&user.data).unwrap().parse().unwrap();
                    read.entry(user.partition_key.to_string()).or_default().push(n);
                }
            }
        }
        read
    }
}

#[async_trait]
impl RecordSink for Stream {
    async fn put(&self, records: &[UserRecord]) -> Result<Vec<Entry>, ClientError> {
        let wait = self.random.lock().u64(1..30);
        sleep(Duration::from_millis(wait)).await;
        let mut state = self.state.lock();
        state.calls.push(records.len());
        if let Some(error) = state.error {
            return Err(error());
        }
        let shards = state.shards();
        let entry = |record: &UserRecord| {
            if self.random.lock().u32(0..100) < state.throttle_percent {
                let code = "ProvisionedThroughputExceededException".to_owned();
                return Entry::Failed {
                    code,
                    message: "slow down".to_owned(),
                };
            }
            let shard = shards
                .iter()
                .find(|shard| shard.range.contains(record.hash_key()))
                .unwrap()
                .id
                .clone();
            state.stored.push((shard.clone(), record.clone()));
            let sequence_number = state.stored.len().to_string().parse().unwrap();
            Entry::Stored(Stored { shard, sequence_number })
        };
        Ok(records.iter().map(entry).collect())
    }

    async fn shards(&self) -> Result<Vec<Shard>, ClientError> {
        let mut state = self.state.lock();
        state.listings += 1;
        Ok(state.shards())
    }
}

fn producer(stream: &Arc<Stream>, config: RecordProducerConfig) -> RecordProducer {
    let sink: Arc<dyn RecordSink> = Arc::clone(stream) as _;
    RecordProducer::start(sink, Arc::new(SimClock(Instant::now())), config)
}

async fn send(producer: &RecordProducer, from: u64, to: u64) {
    for n in from..to {
        let record = UserRecord::new(format!("door-{}", n % 17), n.to_string());
        drop(producer.send(record).await.unwrap());
        if n % 10 == 0 {
            sleep(Duration::from_millis(3)).await;
        }
    }
}

fn assert_whole(read: &BTreeMap<String, Vec<u64>>, total: u64, in_order: bool) {
    for (key, numbers) in read {
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let door: u64 = key.trim_start_matches("door-").parse().unwrap();
        let all: Vec<u64> = (0..total).filter(|n| n % 17 == door).collect();
        assert_eq!(sorted, all, "{key}");
        assert!(!in_order || *numbers == all, "{key} {numbers:?}");
    }
    assert_eq!(read.len(), 17);
}

#[tokio::test(start_paused = true)]
async fn small_records_are_packed_and_each_is_stored_once() {
    fastrand::seed(1);
    let stream = Stream::new(0);
    let producer = producer(&stream, RecordProducerConfig::default());
    send(&producer, 0, 3000).await;
    let stats = producer.finish().await;
    assert_eq!((stats.stored, stats.failed, stats.buffered), (3000, 0, 0));
    assert!(stats.packed < 100, "{stats:?}");
    assert_whole(&stream.read(), 3000, true);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_shards_loses_and_repeats_nothing_for_consumers_that_leave_strays_out() {
    fastrand::seed(2);
    for order in [Order::None, Order::PerKey] {
        let stream = Stream::new(20);
        let producer = producer(
            &stream,
            RecordProducerConfig {
                order,
                ..RecordProducerConfig::default()
            },
        );
        send(&producer, 0, 2000).await;
        producer.flush().await;
        let before = stream.read();
        stream.state.lock().stored.clear();
        stream.reshard((1..8).map(|n| u128::MAX / 8 * n).collect());
        send(&producer, 2000, 4000).await;
        let stats = producer.finish().await;
        assert!(stats.misplaced > 0 && stats.retried > 0, "{stats:?}");
        let mut read = before;
        for (key, numbers) in stream.read() {
            read.entry(key).or_default().extend(numbers);
        }
        assert_whole(&read, 4000, order == Order::PerKey);
        assert!(stream.state.lock().listings <= 5);
    }
}

#[tokio::test(start_paused = true)]
async fn order_per_key_is_kept_through_throttling_and_without_it_it_is_not() {
    fastrand::seed(3);
    for (order, aggregate_bytes_max) in [(Order::PerKey, None), (Order::PerKey, Some(200)), (Order::None, None)] {
        let stream = Stream::new(30);
        let config = RecordProducerConfig {
            order,
            aggregate_bytes_max,
            ..RecordProducerConfig::default()
        };
        let producer = producer(&stream, config);
        send(&producer, 0, 800).await;
        let stats = producer.finish().await;
        assert_eq!((stats.stored, stats.failed), (800, 0));
        let read = stream.read();
        assert_whole(&read, 800, order == Order::PerKey);
        let disorder = read.values().any(|numbers| !numbers.is_sorted());
        assert_eq!(disorder, order == Order::None, "the test would see it");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_keep_to_their_limits_and_a_lone_record_waits_no_longer_than_it_was_told() {
    let stream = Stream::new(0);
    let config = RecordProducerConfig {
        aggregate_bytes_max: None,
        call_records_max: 100,
        ..RecordProducerConfig::default()
    };
    let producer = producer(&stream, config);
    let began = Instant::now();
    let stored = producer
        .send(UserRecord::new("door-0", "0"))
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(stored.sequence_number.as_str(), "1");
    assert!(
        (100..200).contains(&began.elapsed().as_millis()),
        "{:?}",
        began.elapsed()
    );
    for n in 0..1000 {
        drop(producer.send(UserRecord::new("door-0", n.to_string())).await.unwrap());
    }
    producer.flush().await;
    assert_eq!(stream.state.lock().calls.iter().max(), Some(&100));
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_makes_the_sender_wait_and_what_cannot_be_stored_is_given_up_with_a_reason() {
    let stream = Stream::new(0);
    let away = || ClientError::Timeout(Duration::from_secs(1));
    stream.state.lock().error = Some(away);
    let config = RecordProducerConfig {
        buffer_bytes_max: 10_000,
        ..RecordProducerConfig::default()
    };
    let producer = producer(&stream, config);
    let mut receipts = Vec::new();
    let refused = loop {
        match producer.try_send(UserRecord::new("door-0", vec![b'1'; 1000])) {
            Ok(receipt) => receipts.push(receipt.unwrap()),
            Err(record) => break record,
        }
    };
    assert_eq!(receipts.len(), 7);
    let began = Instant::now();
    let waited = producer.send(refused).await.unwrap();
    assert!(
        (30..33).contains(&began.elapsed().as_secs()),
        "until the first are given up"
    );
    for receipt in receipts {
        let Err(PutError::Refused { attempts, why }) = receipt.await else {
            panic!("stored")
        };
        assert!(attempts > 10 && why.contains("no answer"), "{attempts} {why}");
    }
    stream.state.lock().error = None;
    waited.await.unwrap();
    // What the server refuses for a reason of the caller's is not tried again.
    stream.state.lock().error = Some(|| {
        let code = "ResourceNotFoundException".to_owned();
        ClientError::Refused(Answer {
            status: 400,
            code,
            message: "no stream".to_owned(),
        })
    });
    let failed = producer
        .send(UserRecord::new("door-0", "1"))
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert!(
        failed.to_string().contains("after 1 attempts") && failed.to_string().contains("make the stream first"),
        "{failed}"
    );
    assert_eq!(
        producer.send(UserRecord::new("", "1")).await.unwrap_err(),
        PutError::PartitionKey
    );
    assert!(matches!(
        producer.send(UserRecord::new("a", vec![0; 11 << 20])).await,
        Err(PutError::TooLarge { .. })
    ));
}
