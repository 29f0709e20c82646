//! Random calls and restarts against a plain in-memory Kinesis. `MODEL_SEED` runs one seed, `MODEL_SEEDS` so many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use common::{Server, encode, text};
use data_streams::HashKey;
use fastrand::Rng;
use serde_json::{Value, json};

const CALLS: usize = 120;

#[derive(Clone, Debug)]
struct Record {
    sequence: String,
    key: String,
    data: String,
    arrival_ms: i64,
}

#[derive(Clone, Debug)]
struct Shard {
    id: String,
    first: u128,
    last: u128,
    parents: Vec<String>,
    /// When it was closed.
    closed_ms: Option<i64>,
    records: Vec<Record>,
}

impl Shard {
    fn number(&self) -> u128 {
        self.id[8..].parse().unwrap()
    }
}

/// An iterator that somebody holds: where it is in its shard's records, from the oldest one ever.
struct Held {
    shard: String,
    token: String,
    /// The last number that it has passed; empty at the beginning.
    passed: u128,
    made_ms: i64,
}

struct Model {
    server: Server,
    random: Rng,
    shards: Vec<Shard>,
    held: Vec<Held>,
    written: usize,
}

fn number(sequence: &str) -> u128 {
    match sequence {
        "" => 0,
        text => text.parse().unwrap(),
    }
}

impl Model {
    async fn new(seed: u64) -> Model {
        let server = Server::start().await;
        let mut random = Rng::with_seed(seed);
        let count = random.u32(1..4);
        server
            .ok("CreateStream", json!({"StreamName": "s", "ShardCount": count}))
            .await;
        let mut model = Model {
            server,
            random,
            shards: Vec::new(),
            held: Vec::new(),
            written: 0,
        };
        model.learn().await;
        model
    }

    fn now_ms(&self) -> i64 {
        (self.server.clock_seconds() * 1000.0).round() as i64
    }

    fn open(&self) -> Vec<usize> {
        let mut open: Vec<usize> = (0..self.shards.len())
            .filter(|n| self.shards[*n].closed_ms.is_none())
            .collect();
        open.sort_by_key(|n| self.shards[*n].first);
        open
    }

    /// Takes new shards over from a listing, and checks it against what is known.
    async fn learn(&mut self) {
        let answer = self.server.ok("ListShards", json!({"StreamName": "s"})).await;
        let now_ms = self.now_ms();
        let listed = answer["Shards"].as_array().unwrap();
        for shard in listed {
            let id = text(&shard["ShardId"]);
            let keys = &shard["HashKeyRange"];
            let (first, last) = (
                number(&text(&keys["StartingHashKey"])),
                number(&text(&keys["EndingHashKey"])),
            );
            let end = shard["SequenceNumberRange"]["EndingSequenceNumber"].as_str();
            let start = number(&text(&shard["SequenceNumberRange"]["StartingSequenceNumber"]));
            let parents = [&shard["ParentShardId"], &shard["AdjacentParentShardId"]];
            let parents: Vec<String> = parents
                .into_iter()
                .filter_map(|p| p.as_str())
                .map(str::to_owned)
                .collect();
            for parent in listed.iter().filter(|s| parents.contains(&text(&s["ShardId"]))) {
                let end = number(&text(&parent["SequenceNumberRange"]["EndingSequenceNumber"]));
                assert!(end < start, "{id} begins before {parent} ends");
            }
            match self.shards.iter_mut().find(|s| s.id == id) {
                Some(known) => {
                    assert_eq!(
                        (known.first, known.last, &known.parents),
                        (first, last, &parents),
                        "{id} has changed"
                    );
                    assert!(known.closed_ms.is_none() || end.is_some(), "{id} is open again");
                    let newest = known.records.last().map_or(0, |r| number(&r.sequence));
                    assert!(end.is_none_or(|end| newest < number(end)));
                    if end.is_some() && known.closed_ms.is_none() {
                        known.closed_ms = Some(now_ms);
                    }
                }
                None => self.shards.push(Shard {
                    id,
                    first,
                    last,
                    parents,
                    closed_ms: end.map(|_| now_ms),
                    records: Vec::new(),
                }),
            }
        }
        let gone = |s: &Shard| !listed.iter().any(|l| l["ShardId"] == json!(s.id));
        for shard in self.shards.iter().filter(|s| gone(s)) {
            assert!(
                shard.closed_ms.is_some() && shard.records.is_empty(),
                "{} is gone too early",
                shard.id
            );
        }
        self.shards.retain(|s| !gone(s));
        let open: Vec<(u128, u128)> = self
            .open()
            .iter()
            .map(|n| (self.shards[*n].first, self.shards[*n].last))
            .collect();
        assert_eq!((open[0].0, open[open.len() - 1].1), (0, u128::MAX));
        assert!(open.windows(2).all(|w| w[0].1 + 1 == w[1].0), "{open:?}");
    }

    async fn put(&mut self) {
        let count = self.random.usize(1..20);
        let mut entries = Vec::new();
        for _ in 0..count {
            let key = format!("k{}", self.random.u8(0..12));
            let data = encode(&format!("{}{}", self.written, "x".repeat(self.random.usize(0..40))));
            self.written += 1;
            let explicit = self.random.bool().then(|| self.random.u128(..));
            let mut entry = json!({"PartitionKey": key, "Data": data});
            if let Some(explicit) = explicit {
                entry["ExplicitHashKey"] = json!(explicit.to_string());
            }
            entries.push((entry, explicit.unwrap_or(HashKey::of_partition_key(&key).0), key, data));
        }
        let records: Vec<&Value> = entries.iter().map(|(entry, ..)| entry).collect();
        let answer = self
            .server
            .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
            .await;
        let arrival_ms = self.now_ms();
        for ((_, hash, key, data), result) in entries.into_iter().zip(answer["Records"].as_array().unwrap()) {
            let sequence = text(&result["SequenceNumber"]);
            let shard = self
                .shards
                .iter_mut()
                .find(|s| s.closed_ms.is_none() && s.first <= hash && hash <= s.last)
                .unwrap();
            assert_eq!(result["ShardId"], json!(shard.id), "{hash} belongs elsewhere");
            let newest = shard.records.last().map_or(0, |r| number(&r.sequence));
            assert!(newest < number(&sequence));
            shard.records.push(Record {
                sequence,
                key,
                data,
                arrival_ms,
            });
        }
    }

    async fn reshard(&mut self) {
        let open = self.open();
        let (n, kind) = (self.random.usize(0..open.len()), self.random.u8(0..3));
        let one = self.shards[open[n]].clone();
        let (operation, body, legal) = match kind {
            0 => {
                let at = self.random.u128(one.first..=one.last);
                let body = json!({"StreamName": "s", "ShardToSplit": one.id, "NewStartingHashKey": at.to_string()});
                ("SplitShard", body, at > one.first + 1 && at < one.last)
            }
            1 => {
                let two = self.shards[self.random.usize(0..self.shards.len())].clone();
                let beside = one.last.checked_add(1) == Some(two.first) || two.last.checked_add(1) == Some(one.first);
                let body = json!({"StreamName": "s", "ShardToMerge": one.id, "AdjacentShardToMerge": two.id});
                ("MergeShards", body, beside && two.closed_ms.is_none())
            }
            _ => {
                let target = self.random.usize(1..9);
                let body = json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
                ("UpdateShardCount", body, true)
            }
        };
        let answer = self.server.call(operation, body.clone()).await;
        assert_eq!(answer.is_ok(), legal, "{operation} {body}: {answer:?}");
        let before = self.open().len();
        self.learn().await;
        let after = self.open().len();
        let grown = match (operation, legal) {
            (_, false) => Some(before),
            ("SplitShard", true) => Some(before + 1),
            ("MergeShards", true) => Some(before - 1),
            _ => body["TargetShardCount"].as_u64().map(|n| n as usize),
        };
        assert_eq!(Some(after), grown);
    }

    /// A new iterator of any kind.
    async fn hold(&mut self) {
        let shard = self.shards[self.random.usize(0..self.shards.len())].clone();
        let mut body = json!({"StreamName": "s", "ShardId": shard.id});
        let some = match shard.records.is_empty() {
            true => None,
            false => Some(shard.records[self.random.usize(0..shard.records.len())].clone()),
        };
        let below = |wanted: u128| {
            let passed = shard
                .records
                .iter()
                .map(|r| number(&r.sequence))
                .filter(|n| *n < wanted);
            passed.max().unwrap_or(0)
        };
        let (kind, passed) = match (self.random.u8(0..5), some) {
            (0, Some(record)) => {
                body["StartingSequenceNumber"] = json!(record.sequence);
                ("AT_SEQUENCE_NUMBER", below(number(&record.sequence)))
            }
            (1, Some(record)) => {
                body["StartingSequenceNumber"] = json!(record.sequence);
                ("AFTER_SEQUENCE_NUMBER", number(&record.sequence))
            }
            (2, Some(record)) => {
                body["Timestamp"] = json!(record.arrival_ms as f64 / 1000.0);
                let earlier = shard.records.iter().filter(|r| r.arrival_ms < record.arrival_ms);
                ("AT_TIMESTAMP", earlier.map(|r| number(&r.sequence)).max().unwrap_or(0))
            }
            (3, _) => ("LATEST", below(u128::MAX)),
            _ => ("TRIM_HORIZON", 0),
        };
        body["ShardIteratorType"] = json!(kind);
        let token = text(&self.server.ok("GetShardIterator", body).await["ShardIterator"]);
        self.held.push(Held {
            shard: shard.id,
            token,
            passed,
            made_ms: self.now_ms(),
        });
        if self.held.len() > 6 {
            self.held.remove(0);
        }
    }

    /// Goes on with an iterator that somebody holds.
    async fn read(&mut self) {
        if self.held.is_empty() {
            return self.hold().await;
        }
        let mut held = self.held.swap_remove(self.random.usize(0..self.held.len()));
        let limit = self.random.usize(1..30);
        let answer = self
            .server
            .call("GetRecords", json!({"ShardIterator": held.token, "Limit": limit}))
            .await;
        let Some(shard) = self.shards.iter().find(|s| s.id == held.shard) else {
            let code = answer.unwrap_err().code;
            assert!(
                matches!(&*code, "ResourceNotFoundException" | "ExpiredIteratorException"),
                "{code}"
            );
            return;
        };
        if self.now_ms() - held.made_ms > 300_000 {
            assert_eq!(answer.unwrap_err().code, "ExpiredIteratorException");
            return;
        }
        let answer = answer.unwrap();
        let rest: Vec<&Record> = shard
            .records
            .iter()
            .filter(|r| number(&r.sequence) > held.passed)
            .collect();
        let found = answer["Records"].as_array().unwrap();
        assert_eq!(
            found.len(),
            rest.len().min(limit),
            "{} behind {}",
            held.shard,
            held.passed
        );
        for (found, wanted) in found.iter().zip(&rest) {
            let (key, data) = (text(&found["PartitionKey"]), text(&found["Data"]));
            assert_eq!(
                (text(&found["SequenceNumber"]), key, data),
                (wanted.sequence.clone(), wanted.key.clone(), wanted.data.clone())
            );
            held.passed = number(&wanted.sequence);
        }
        let at_tip = rest.len() <= limit;
        assert_eq!(answer["MillisBehindLatest"] == json!(0), at_tip);
        assert_eq!(
            answer["NextShardIterator"].is_null(),
            at_tip && shard.closed_ms.is_some()
        );
        match answer["NextShardIterator"].as_str() {
            Some(next) => {
                (held.token, held.made_ms) = (next.to_owned(), self.now_ms());
                self.held.push(held);
            }
            None => {
                let children: Vec<String> = answer["ChildShards"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|c| text(&c["ShardId"]))
                    .collect();
                let wanted: Vec<&Shard> = self.shards.iter().filter(|s| s.parents.contains(&held.shard)).collect();
                assert_eq!(children, wanted.iter().map(|s| s.id.clone()).collect::<Vec<_>>());
                assert!(!children.is_empty());
            }
        }
    }

    /// Time passes; sometimes so much that everything is beyond its retention.
    async fn wait(&mut self) {
        let seconds = match self.random.u8(0..20) {
            0 => 25 * 3600,
            1..4 => 301,
            _ => 2,
        };
        self.server.clock.advance(Duration::from_secs(seconds));
        if seconds > 3600 {
            self.server.service.sweep().await;
            let horizon = self.now_ms() - 24 * 3_600_000;
            for shard in &mut self.shards {
                shard.records.retain(|r| r.arrival_ms >= horizon);
            }
            self.learn().await;
        }
    }

    async fn step(mut self) -> Model {
        self.server.clock.advance(Duration::from_millis(self.random.u64(0..20)));
        match self.random.u8(0..100) {
            0..35 => self.put().await,
            35..45 => self.reshard().await,
            45..60 => self.hold().await,
            60..90 => self.read().await,
            90..96 => self.wait().await,
            _ => {
                self.server = self.server.restart().await;
                self.learn().await;
            }
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_answers_as_a_plain_list_of_records_would() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match setting("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + setting("MODEL_SEEDS").unwrap_or(12),
    };
    for seed in seeds {
        println!("seed {seed}");
        let mut model = Model::new(seed).await;
        for _ in 0..CALLS {
            model = model.step().await;
        }
        model.shards.sort_by_key(Shard::number);
        for shard in model.shards.clone() {
            let found = model
                .server
                .read(model.server.iterator("s", shard.number() as u32, "TRIM_HORIZON").await)
                .await;
            let found: Vec<(String, u128)> = found.into_iter().map(|(_, data, number)| (data, number)).collect();
            let wanted: Vec<(String, u128)> = shard
                .records
                .iter()
                .map(|r| (r.data.clone(), number(&r.sequence)))
                .collect();
            assert_eq!(found, wanted, "{}", shard.id);
        }
    }
}
