//! Random calls and restarts against a plain in-memory queue. `MODEL_SEED` runs one seed, `MODEL_SEEDS` so many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use common::{STREAM, Server, encode, text};
use fastrand::Rng;
use serde_json::{Value, json};

const CALLS: usize = 150;

/// What became of a record in a queue.
#[derive(Clone, Debug, PartialEq)]
enum State {
    New,
    Open(Open),
    Done,
}

#[derive(Clone, Debug, PartialEq)]
struct Open {
    count: i64,
    first_ms: i64,
    visible_ms: i64,
    /// It was received as a dead letter.
    marked: bool,
    /// Deliveries and restorations, which make older handles worthless.
    generation: usize,
}

#[derive(Clone, Debug)]
struct Record {
    data: String,
    arrival_ms: i64,
    state: State,
    id: Option<String>,
}

/// A handle that somebody holds.
#[derive(Clone, Debug)]
struct Held {
    handle: String,
    record: usize,
    generation: usize,
    dead: bool,
}

/// A queue as plain lists.
struct Queue {
    arn: String,
    visibility_ms: i64,
    max: Option<i64>,
    records: Vec<Record>,
    held: Vec<Held>,
}

struct Model {
    server: Server,
    random: Rng,
    queues: Vec<Queue>,
    written: usize,
}

impl Queue {
    fn is_dead(&self, open: &Open, now_ms: i64) -> bool {
        open.marked || (open.visible_ms <= now_ms && self.max.is_some_and(|max| open.count >= max))
    }

    /// The records that a receiver may get now.
    fn due(&self, dead: bool, now_ms: i64) -> Vec<usize> {
        let horizon = now_ms - 24 * 3_600_000;
        let due = |record: &Record| match &record.state {
            _ if record.arrival_ms < horizon => false,
            State::New => !dead,
            State::Open(open) => open.visible_ms <= now_ms && self.is_dead(open, now_ms) == dead,
            State::Done => false,
        };
        (0..self.records.len()).filter(|n| due(&self.records[*n])).collect()
    }

    /// What a call with a handle comes to; `None` where a record beyond its retention may be found or not.
    fn outcome(&self, held: &Held, dead: bool, now_ms: i64) -> Option<Result<(), &'static str>> {
        let record = &self.records[held.record];
        if held.dead != dead {
            return Some(Err("InvalidArgumentException"));
        }
        if record.arrival_ms < now_ms - 24 * 3_600_000 {
            return None;
        }
        Some(match &record.state {
            State::Open(open) if open.generation == held.generation && self.is_dead(open, now_ms) == dead => Ok(()),
            State::Open(_) => Err("InvalidArgumentException"),
            State::New | State::Done => Err("ResourceNotFoundException"),
        })
    }
}

fn attributes(visibility_ms: i64, max: Option<i64>) -> Value {
    let dead = match max {
        Some(max) => json!({"TargetType": "BUILT_IN", "MaxReceiveCount": max}),
        None => json!({"TargetType": "NONE"}),
    };
    json!({"VisibilityTimeoutSeconds": visibility_ms / 1000, "DeadLetterConfiguration": dead})
}

impl Model {
    async fn new(seed: u64) -> Model {
        let server = Server::start().await;
        let body = json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
        server.ok("CreateStream", body).await;
        let mut model = Model {
            server,
            random: Rng::with_seed(seed),
            queues: Vec::new(),
            written: 0,
        };
        model.make().await;
        model
    }

    fn now_ms(&self) -> i64 {
        (self.server.clock_seconds() * 1000.0).round() as i64
    }

    fn settings(&mut self) -> (i64, Option<i64>) {
        let max = self.random.bool().then(|| self.random.i64(1..4));
        (self.random.i64(0..30) * 1000, max)
    }

    /// A new queue that begins at the oldest or behind the newest record.
    async fn make(&mut self) {
        let (visibility_ms, max) = self.settings();
        let old = self.random.bool();
        let start = json!({"Type": if old { "TRIM_HORIZON" } else { "LATEST" }});
        let body = json!({
            "QueueName": format!("q{}", self.random.u64(..)), "QueueAttributes": attributes(visibility_ms, max),
            "StreamConfigurationList": [{"StreamARN": STREAM, "StartingPosition": start}]});
        let made = self.server.ok("CreateQueue", body).await;
        let of_stream = self.queues.first().map(|q| q.records.clone()).unwrap_or_default();
        let begin = |mut record: Record| {
            record.state = if old { State::New } else { State::Done };
            record
        };
        self.queues.push(Queue {
            arn: text(&made["QueueDescription"]["QueueARN"]),
            visibility_ms,
            max,
            records: of_stream.into_iter().map(begin).collect(),
            held: Vec::new(),
        });
    }

    async fn put(&mut self) {
        let mut entries = Vec::new();
        for _ in 0..self.random.usize(1..25) {
            let data = encode(&format!("{}{}", self.written, "x".repeat(self.random.usize(0..40))));
            self.written += 1;
            entries.push(json!({"PartitionKey": self.random.u8(..).to_string(), "Data": data}));
        }
        self.server
            .ok("PutRecords", json!({"StreamName": "s", "Records": entries}))
            .await;
        let arrival_ms = self.now_ms();
        for queue in &mut self.queues {
            queue.records.extend(entries.iter().map(|entry| Record {
                data: text(&entry["Data"]),
                arrival_ms,
                state: State::New,
                id: None,
            }));
        }
    }

    async fn receive(&mut self, n: usize, dead: bool) -> usize {
        let now_ms = self.now_ms();
        let limit = self.random.usize(1..11);
        let own = self.random.bool().then(|| self.random.i64(0..20) * 1000);
        let operation = if dead {
            "ReceiveDeadLetterQueueRecords"
        } else {
            "ReceiveQueueRecords"
        };
        let mut body = json!({"QueueARN": self.queues[n].arn, "Limit": limit, "WaitTimeSeconds": 1});
        if let Some(own) = own {
            body["VisibilityTimeoutSeconds"] = json!(own / 1000);
        }
        let answer = self.server.ok(operation, body).await;
        let found = answer["QueueRecords"].as_array().unwrap();
        let queue = &mut self.queues[n];
        let due = queue.due(dead, now_ms);
        assert!(
            found.len() <= limit && found.is_empty() == due.is_empty(),
            "{} of {}",
            found.len(),
            due.len()
        );
        for got in found {
            let data = text(&got["Data"]);
            let at = queue.records.iter().position(|r| r.data == data).unwrap();
            assert!(due.contains(&at), "{:?} is not due at {now_ms}", queue.records[at]);
            let record = &mut queue.records[at];
            let before = match &record.state {
                State::Open(open) => Some(open.clone()),
                _ => None,
            };
            let open = Open {
                count: before.as_ref().map_or(0, |o| o.count) + 1,
                first_ms: before.as_ref().map_or(now_ms, |o| o.first_ms),
                visible_ms: now_ms + own.unwrap_or(queue.visibility_ms),
                marked: dead,
                generation: before.as_ref().map_or(0, |o| o.generation) + 1,
            };
            assert_eq!(got["ReceiveCount"], json!(open.count));
            let first_ms = (got["FirstReceiveTimestamp"].as_f64().unwrap() * 1000.0).round() as i64;
            let arrival_ms = (got["ApproximateArrivalTimestamp"].as_f64().unwrap() * 1000.0).round() as i64;
            assert_eq!((first_ms, arrival_ms), (open.first_ms, record.arrival_ms));
            let id = text(&got["RecordId"]);
            assert_eq!(record.id.get_or_insert_with(|| id.clone()), &id);
            queue.held.push(Held {
                handle: text(&got["ReceiptHandle"]),
                record: at,
                generation: open.generation,
                dead,
            });
            record.state = State::Open(open);
        }
        // Nothing goes to one receiver twice in one answer.
        let mut handles: Vec<usize> = queue.held.iter().rev().take(found.len()).map(|h| h.record).collect();
        handles.sort_unstable();
        handles.dedup();
        assert_eq!(handles.len(), found.len());
        found.len()
    }

    async fn settle(&mut self, n: usize) {
        let now_ms = self.now_ms();
        let count = self.random.usize(1..11);
        let queue = &self.queues[n];
        if queue.held.is_empty() {
            return;
        }
        let seconds = self.random.i64(0..20);
        let dead = self.random.u8(0..4) == 0;
        let kind = self.random.u8(0..3);
        let operation = match (kind, dead) {
            (0, false) => "UpdateQueueRecordsVisibility",
            (0, true) => "UpdateDeadLetterQueueRecordsVisibility",
            (1, true) => "RestoreDeadLetterQueueRecords",
            (_, false) => "AcknowledgeQueueRecords",
            (_, true) => "AcknowledgeDeadLetterQueueRecords",
        };
        // Mostly the newest ones.
        let newest = queue.held.len().saturating_sub(30);
        let chosen: Vec<Held> = (0..count)
            .map(|_| queue.held[self.random.usize(newest..queue.held.len())].clone())
            .collect();
        let entry = |held: &Held| match kind {
            0 => json!({"ReceiptHandle": held.handle, "VisibilityTimeoutSeconds": seconds}),
            _ => json!({"ReceiptHandle": held.handle}),
        };
        let entries: Vec<Value> = chosen.iter().map(entry).collect();
        let answer = self
            .server
            .ok(operation, json!({"QueueARN": queue.arn, "Entries": entries}))
            .await;
        let handles = |name: &str| {
            answer[name]
                .as_array()
                .unwrap()
                .iter()
                .map(|a| text(&a["ReceiptHandle"]))
        };
        let codes = answer["Failed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| text(&f["ErrorCode"]));
        let (mut good, mut bad) = (handles("Successful"), handles("Failed").zip(codes));
        let queue = &mut self.queues[n];
        for held in &chosen {
            let wanted = queue.outcome(held, dead, now_ms);
            match wanted {
                Some(Ok(())) => assert_eq!(good.next().as_ref(), Some(&held.handle), "{operation}"),
                Some(Err(code)) => assert_eq!(bad.next(), Some((held.handle.clone(), code.to_owned())), "{operation}"),
                None => {
                    // It may be gone or not, and nobody will ever see a difference: it is delivered no more.
                    let mut rest = good.clone();
                    match rest.next().as_ref() == Some(&held.handle) {
                        true => good = rest,
                        false => drop(bad.next().unwrap()),
                    }
                }
            }
            if wanted != Some(Ok(())) {
                continue;
            }
            let State::Open(open) = &mut queue.records[held.record].state else {
                panic!()
            };
            match (kind, dead) {
                (0, _) => open.visible_ms = now_ms + seconds * 1000,
                (1, true) => {
                    (open.count, open.visible_ms, open.marked) = (0, now_ms, false);
                    open.generation += 1;
                }
                _ => queue.records[held.record].state = State::Done,
            }
        }
    }

    async fn step(mut self) -> Model {
        self.server
            .clock
            .advance(Duration::from_millis(self.random.u64(0..3000)));
        let n = self.random.usize(0..self.queues.len());
        match self.random.u8(0..100) {
            0..18 => self.put().await,
            18..50 => drop(self.receive(n, false).await),
            50..58 => drop(self.receive(n, true).await),
            58..82 => self.settle(n).await,
            82..85 => {
                let (visibility_ms, max) = self.settings();
                let body = json!({"QueueARN": self.queues[n].arn, "QueueAttributes": attributes(visibility_ms, max)});
                self.server.ok("UpdateQueue", body).await;
                (self.queues[n].visibility_ms, self.queues[n].max) = (visibility_ms, max);
            }
            85..88 if self.queues.len() < 3 => self.make().await,
            88..90 => {
                let mib = self.random.usize(1..16);
                let body = json!({"StreamARN": STREAM, "WarmThroughputMiBps": mib});
                self.server.ok("UpdateStreamWarmThroughput", body).await;
            }
            90..93 => {
                let hours = self.random.u64(1..25);
                self.server.clock.advance(Duration::from_secs(hours * 3600));
                if self.random.bool() {
                    self.server.service.sweep().await;
                }
            }
            93..97 => self.server = self.server.restart().await,
            _ => self.server.clock.advance(Duration::from_secs(30)),
        }
        self
    }

    /// What nobody has acknowledged comes in the end, and nothing else.
    async fn drain(&mut self) {
        for n in 0..self.queues.len() {
            self.server.clock.advance(Duration::from_secs(60));
            for dead in [true, false] {
                let body =
                    json!({"QueueARN": self.queues[n].arn, "QueueAttributes": attributes(40_000_000, Some(1000))});
                self.server.ok("UpdateQueue", body).await;
                (self.queues[n].visibility_ms, self.queues[n].max) = (40_000_000, Some(1000));
                let due = self.queues[n].due(dead, self.now_ms());
                let mut found = 0;
                // A receiver that hides nothing would get the same ones again.
                while found < due.len() {
                    let body = json!({"QueueARN": self.queues[n].arn, "WaitTimeSeconds": 1});
                    let operation = if dead {
                        "ReceiveDeadLetterQueueRecords"
                    } else {
                        "ReceiveQueueRecords"
                    };
                    let answer = self.server.ok(operation, body).await;
                    let records = answer["QueueRecords"].as_array().unwrap();
                    assert!(!records.is_empty(), "{found} of {} came", due.len());
                    for record in records {
                        let at = self.queues[n]
                            .records
                            .iter()
                            .position(|r| r.data == text(&record["Data"]))
                            .unwrap();
                        assert!(due.contains(&at));
                        found += 1;
                    }
                }
                let body = json!({"QueueARN": self.queues[n].arn, "WaitTimeSeconds": 1});
                let operation = if dead {
                    "ReceiveDeadLetterQueueRecords"
                } else {
                    "ReceiveQueueRecords"
                };
                assert_eq!(self.server.ok(operation, body).await["QueueRecords"], json!([]));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_answers_as_a_plain_list_of_records_would() {
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
        model.drain().await;
    }
}
