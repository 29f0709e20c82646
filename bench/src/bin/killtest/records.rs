//! The load on data streams: producers in JSON and in CBOR, shards that are split and merged under them, encryption that
//! comes and goes, and readers, who must see nothing that a kill takes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bench::Failure;
use bench::fragment::{Sha, noise, sha256};
use bench::server::create;
use client::consumer::{KinesisSource, ShardSource, StartAt, StreamRecord};
use client::follow::{FollowConfig, FollowEvent, Follower};
use client::{Client, ClientError, Service};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::text;
use crate::wire::{self, Connection};
use crate::world::{Shard, list_shards};

/// Each stream: the second one's records are sealed, or not, from moment to moment.
pub const STREAMS: [&str; 2] = ["killtest-plain", "killtest-sealed"];

/// How each producer of a stream puts.
#[derive(Clone, Copy)]
enum Way {
    One,
    Batch,
    Cbor,
}

const WAYS: [Way; 3] = [Way::One, Way::Batch, Way::Cbor];
pub const PRODUCERS: usize = STREAMS.len() * WAYS.len();

/// Partition keys of a producer.
const KEYS: usize = 5;
const BATCH_MAX: usize = 40;
const DATA_BYTES_MAX: usize = 4_000;
const OPEN_SHARDS_MAX: usize = 8;
const CONSUMER: &str = "subscriber";

/// A record, but for its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub shard: String,
    pub key: String,
    pub sha: Sha,
}

/// What one life of the server acknowledged and showed, by stream and sequence number.
#[derive(Default)]
pub struct Ledger {
    pub acknowledged: BTreeMap<(usize, u128), Stored>,
    pub seen: BTreeMap<(usize, u128), Stored>,
    /// Changes of shards that were answered.
    pub changes: usize,
}

pub type Shared = Arc<Mutex<Ledger>>;

/// How many records each producer has made in all lives; a record says its own.
pub type Counters = Arc<[AtomicU64; PRODUCERS]>;

pub async fn prepare(client: &Client) -> Result<(), Failure> {
    for stream in STREAMS {
        let input = json!({ "StreamName": stream, "ShardCount": 2 });
        create(client, Service::Kinesis, "CreateStream", &input).await?;
    }
    Ok(())
}

async fn describe(client: &Client, stream: &str) -> Result<Value, ClientError> {
    let input = json!({ "StreamName": stream });
    let mut answer = client.call(Service::Kinesis, "DescribeStreamSummary", &input).await?;
    Ok(answer["StreamDescriptionSummary"].take())
}

/// Starts everybody; each ends when the server is gone.
pub fn load(
    work: &mut JoinSet<Result<(), Failure>>,
    client: &Client,
    random: &mut fastrand::Rng,
    counters: &Counters,
    ledger: &Shared,
) {
    for stream in 0..STREAMS.len() {
        for (place, way) in WAYS.into_iter().enumerate() {
            let producer = Producer {
                client: client.clone(),
                stream,
                number: stream * WAYS.len() + place,
                counters: Arc::clone(counters),
                ledger: Arc::clone(ledger),
                random: random.fork(),
            };
            work.spawn(until_gone(producer.run(way)));
        }
        let change = change_shards(client.clone(), stream, random.fork(), Arc::clone(ledger));
        work.spawn(until_gone(change));
        work.spawn(until_gone(follow(client.clone(), stream, Arc::clone(ledger))));
        work.spawn(until_gone(subscribe(client.clone(), stream, Arc::clone(ledger))));
    }
}

/// A server that is gone is what everybody waits for; what it refuses is a failure.
async fn until_gone(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    match work.await {
        Err(error) => match error.downcast_ref::<ClientError>() {
            Some(ClientError::Refused(_)) | None => Err(error),
            Some(_killed) => Ok(()),
        },
        ended => ended,
    }
}

struct Producer {
    client: Client,
    stream: usize,
    number: usize,
    counters: Counters,
    ledger: Shared,
    random: fastrand::Rng,
}

impl Producer {
    async fn run(mut self, way: Way) -> Result<(), Failure> {
        let mut connection = match way {
            Way::Cbor => match Connection::open(&authority(&self.client)).await {
                Some(connection) => Some(connection),
                None => return Ok(()),
            },
            _ => None,
        };
        loop {
            let count = if matches!(way, Way::One) {
                1
            } else {
                self.random.usize(1..=BATCH_MAX)
            };
            let records: Vec<(String, Vec<u8>)> = (0..count).map(|_| self.record()).collect();
            let taken = match &mut connection {
                None => self.put_json(way, &records).await?,
                Some(connection) => {
                    let body = wire::put_records(self.name(), &records)?;
                    match connection.call("PutRecords", &body).await? {
                        Some(answer) => wire::taken(&answer)?,
                        None => return Ok(()),
                    }
                }
            };
            self.acknowledge(&records, taken)?;
            tokio::time::sleep(Duration::from_millis(self.random.u64(0..10))).await;
        }
    }

    fn name(&self) -> &'static str {
        STREAMS.get(self.stream).copied().unwrap_or_default()
    }

    /// A record that says which of its producer's it is.
    fn record(&mut self) -> (String, Vec<u8>) {
        let count = self
            .counters
            .get(self.number)
            .map_or(0, |counter| counter.fetch_add(1, Ordering::Relaxed));
        let mut data = format!("{count}:").into_bytes();
        data.extend_from_slice(&noise(self.random.usize(0..DATA_BYTES_MAX), self.random.u64(..)));
        (format!("producer-{}-{}", self.number, self.random.usize(0..KEYS)), data)
    }

    async fn put_json(&self, way: Way, records: &[(String, Vec<u8>)]) -> Result<Vec<(String, String)>, Failure> {
        let taken = |entry: &Value| Ok((text(entry, "ShardId")?, text(entry, "SequenceNumber")?));
        let entry = |(key, data): &(String, Vec<u8>)| json!({ "PartitionKey": key, "Data": STANDARD.encode(data) });
        if let (Way::One, [record]) = (way, records) {
            let mut input = entry(record);
            input["StreamName"] = json!(self.name());
            let answer = self.client.call(Service::Kinesis, "PutRecord", &input).await?;
            return Ok(vec![taken(&answer)?]);
        }
        let entries: Vec<Value> = records.iter().map(entry).collect();
        let input = json!({ "StreamName": self.name(), "Records": entries });
        let answer = self.client.call(Service::Kinesis, "PutRecords", &input).await?;
        answer["Records"]
            .as_array()
            .ok_or("no Records")?
            .iter()
            .map(taken)
            .collect()
    }

    fn acknowledge(&self, records: &[(String, Vec<u8>)], taken: Vec<(String, String)>) -> Result<(), Failure> {
        if taken.len() != records.len() {
            return Err(format!("{} of {} records were answered", taken.len(), records.len()).into());
        }
        let mut ledger = self.ledger.lock().map_err(|_| "poisoned")?;
        for ((key, data), (shard, number)) in records.iter().zip(taken) {
            let stored = Stored {
                shard,
                key: key.clone(),
                sha: sha256(data),
            };
            if ledger
                .acknowledged
                .insert((self.stream, number.parse()?), stored)
                .is_some()
            {
                return Err(format!("{}: sequence number {number} was given twice", self.name()).into());
            }
        }
        Ok(())
    }
}

fn authority(client: &Client) -> String {
    client.endpoint().to_string().trim_start_matches("http://").to_owned()
}

/// Splits and merges, scales, and lets encryption begin and end.
async fn change_shards(
    client: Client,
    stream: usize,
    mut random: fastrand::Rng,
    ledger: Shared,
) -> Result<(), Failure> {
    let name = STREAMS.get(stream).copied().unwrap_or_default();
    loop {
        let mut open: Vec<Shard> = list_shards(&client, name).await?;
        open.retain(|shard| shard.end.is_none());
        open.sort_by_key(|shard| shard.from);
        let (operation, input) = match random.u32(0..12) {
            0 => {
                let target = random.usize(2..6);
                let input = json!({ "StreamName": name, "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING" });
                ("UpdateShardCount", input)
            }
            1 if stream == 1 => {
                let sealed = describe(&client, name).await?["EncryptionType"] == "KMS";
                let input = json!({ "StreamName": name, "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis" });
                (
                    if sealed {
                        "StopStreamEncryption"
                    } else {
                        "StartStreamEncryption"
                    },
                    input,
                )
            }
            choice => {
                let place = random.usize(..open.len().max(1));
                let (shard, next) = (open.get(place).ok_or("no open shard")?, open.get(place + 1));
                match next {
                    Some(next) if choice % 2 == 0 || open.len() >= OPEN_SHARDS_MAX => {
                        let input =
                            json!({ "StreamName": name, "ShardToMerge": shard.id, "AdjacentShardToMerge": next.id });
                        ("MergeShards", input)
                    }
                    _ if shard.to - shard.from > 1 => {
                        let at = random.u128(shard.from + 1..=shard.to);
                        let input = json!({ "StreamName": name, "ShardToSplit": shard.id, "NewStartingHashKey": at.to_string() });
                        ("SplitShard", input)
                    }
                    _ => continue,
                }
            }
        };
        client.call(Service::Kinesis, operation, &input).await?;
        ledger.lock().map_err(|_| "poisoned")?.changes += 1;
        tokio::time::sleep(Duration::from_millis(random.u64(10..100))).await;
    }
}

fn see(ledger: &Shared, stream: usize, shard: &str, records: Vec<StreamRecord>) -> Result<(), Failure> {
    for record in records {
        let stored = Stored {
            shard: shard.to_owned(),
            key: record.partition_key,
            sha: sha256(&record.data),
        };
        let number: u128 = record.sequence_number.as_str().parse()?;
        let mut ledger = ledger.lock().map_err(|_| "poisoned")?;
        let before = ledger.seen.insert((stream, number), stored.clone());
        if before.is_some_and(|before| before != stored) {
            return Err(format!("two readers saw record {number} differently").into());
        }
    }
    Ok(())
}

fn source(client: &Client, stream: usize) -> Arc<KinesisSource> {
    let name = STREAMS.get(stream).copied().unwrap_or_default();
    Arc::new(KinesisSource::new(client.clone(), name))
}

/// Reads what comes by GetRecords.
async fn follow(client: Client, stream: usize, ledger: Shared) -> Result<(), Failure> {
    let source = source(&client, stream);
    let mut follower = Follower::start(source, Arc::clone(client.clock()), FollowConfig::default()).await?;
    while let Some(event) = follower.next().await? {
        match event {
            FollowEvent::Records { shard, records } => see(&ledger, stream, &shard, records)?,
            FollowEvent::Trouble { error, .. } => return Err(error.into()),
            FollowEvent::ShardEnded { .. } => {}
        }
    }
    Err("a reader without an end has ended".into())
}

/// Is pushed what comes, from every open shard and those that come of them.
async fn subscribe(client: Client, stream: usize, ledger: Shared) -> Result<(), Failure> {
    let source = source(&client, stream);
    let consumer = source.registered(CONSUMER).await?;
    let mut known = BTreeSet::new();
    let mut reading: JoinSet<Result<Vec<String>, Failure>> = JoinSet::new();
    let begin = |reading: &mut JoinSet<_>, shard: String, from: StartAt| {
        let (source, consumer, ledger) = (Arc::clone(&source), consumer.clone(), Arc::clone(&ledger));
        reading.spawn(async move { subscribe_one(&source, &consumer, stream, &shard, from, &ledger).await });
    };
    for shard in source.shards().await? {
        if shard.open && known.insert(shard.id.clone()) {
            begin(&mut reading, shard.id, StartAt::Latest);
        }
    }
    while let Some(ended) = reading.join_next().await {
        for child in ended?? {
            if known.insert(child.clone()) {
                begin(&mut reading, child, StartAt::TrimHorizon);
            }
        }
    }
    Ok(())
}

/// One shard to its end; gives its children.
async fn subscribe_one(
    source: &KinesisSource,
    consumer: &str,
    stream: usize,
    shard: &str,
    from: StartAt,
    ledger: &Shared,
) -> Result<Vec<String>, Failure> {
    let mut subscription = source.subscribe(consumer, shard, &from).await?;
    let mut last = None;
    while let Some(page) = subscription.next().await? {
        for record in &page.records {
            let number = Some(record.sequence_number.clone());
            if number <= last {
                return Err(format!("{shard}: a subscriber got {number:?} after {last:?}").into());
            }
            last = number;
        }
        see(ledger, stream, shard, page.records)?;
        if !page.children.is_empty() {
            return Ok(page.children.into_iter().map(|child| child.id).collect());
        }
    }
    Ok(Vec::new())
}
