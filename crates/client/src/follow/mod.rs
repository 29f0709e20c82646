//! Reads every shard of a data stream from one place on, through splits and merges, for one reader that remembers nothing:
//! a person at a terminal, a test, a program that copies. Workers that share a stream and survive need leases and
//! checkpoints, which this module refuses to know.
//!
//! Records of a shard come in order, and those of its children after them. Nothing is promised between other shards.
//! No more than [`FOLLOW_CALLS_MAX`] answers are held at a time, and none is asked for while the last is not taken.

mod page;
mod plan;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::backoff::Backoff;
use crate::call::Client;
use crate::error::ClientError;
use crate::limits::{FOLLOW_CALLS_MAX, FOLLOW_IDLE_FIRST, FOLLOW_IDLE_MAX, FOLLOW_IDLE_PER_SHARD};
use crate::media::StreamName;
use page::{Page, Position};
use plan::Plan;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowFrom {
    /// With what is put from now on.
    Now,
    /// With the oldest record that is kept.
    Start,
    /// With what arrived at this time or later.
    Time(Timestamp),
}

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowTo {
    /// Nowhere.
    Never,
    /// In each shard where there is nothing more now.
    Tip,
    /// With what arrived at this time; waits for it if it is yet to come.
    Time(Timestamp),
}

/// What to read.
#[derive(Clone, Debug)]
pub struct FollowConfig {
    /// The stream.
    pub stream: StreamName,
    /// Where to begin.
    pub from: FollowFrom,
    /// Where to end.
    pub to: FollowTo,
    /// Waits between attempts while the server is away or busy.
    pub backoff: Backoff,
}

impl FollowConfig {
    /// What is put from now on, without an end.
    pub fn new(stream: StreamName) -> Self {
        FollowConfig {
            stream,
            from: FollowFrom::Now,
            to: FollowTo::Never,
            backoff: Backoff::default(),
        }
    }
}

/// One record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The shard's id.
    pub shard: Arc<str>,
    /// Its number, decimal.
    pub sequence_number: String,
    /// The key that chose the shard.
    pub partition_key: String,
    /// When it arrived at the server.
    pub arrived: Timestamp,
    /// What was put.
    pub data: Bytes,
}

/// What [`Follower::next`] tells.
#[derive(Debug)]
pub enum FollowEvent {
    /// Records of one shard, in order.
    Records(Vec<StoredRecord>),
    /// A shard was split, merged or, without children, forgotten; all of it has been read.
    ShardEnded {
        /// The shard.
        shard: Arc<str>,
        /// Those that go on in its place.
        children: Vec<String>,
    },
    /// A call failed and is made again.
    Trouble {
        /// Why.
        error: ClientError,
        /// When.
        retry_in: Duration,
    },
}

type Polling = Pin<Box<dyn Future<Output = Polled> + Send>>;

struct Polled {
    shard: Arc<str>,
    outcome: Result<Page, ClientError>,
}

/// See the module.
pub struct Follower {
    client: Client,
    config: FollowConfig,
    plan: Plan,
    reading: BTreeMap<Arc<str>, Reading>,
    polls: FuturesUnordered<Polling>,
    calls: Arc<Semaphore>,
    /// Told with the next call of `next`.
    pending: Option<FollowEvent>,
}

/// A shard that is read.
struct Reading {
    position: Position,
    failures: u32,
    idle: Duration,
}

impl Follower {
    /// Finds the shards. Fails when the stream is not there or may not be read.
    ///
    /// # Errors
    /// Those of ListShards.
    pub async fn start(client: Client, config: FollowConfig) -> Result<Self, ClientError> {
        let filter = match config.from {
            FollowFrom::Now => json!({ "Type": "AT_LATEST" }),
            FollowFrom::Start => json!({ "Type": "FROM_TRIM_HORIZON" }),
            FollowFrom::Time(time) => json!({ "Type": "FROM_TIMESTAMP", "Timestamp": time.seconds() }),
        };
        let plan = Plan::new(page::list_shards(&client, &config.stream, Some(&filter)).await?);
        let mut follower = Follower {
            client,
            config,
            plan,
            reading: BTreeMap::new(),
            polls: FuturesUnordered::new(),
            calls: Arc::new(Semaphore::new(FOLLOW_CALLS_MAX)),
            pending: None,
        };
        // Pinned now: an iterator of LATEST that is made later would leave out what comes meanwhile.
        for shard in follower.plan.ready() {
            let position = Position::from(follower.config.from);
            let position = match follower.config.from {
                FollowFrom::Now => page::pin(&follower.client, &follower.config.stream, &shard, position).await?,
                _ => position,
            };
            follower.begin(shard, position);
        }
        Ok(follower)
    }

    /// What comes next; `None` when the end is reached. May be dropped and called again: nothing is lost by it.
    ///
    /// # Errors
    /// What will not pass: the stream was deleted, the key may not read it.
    pub async fn next(&mut self) -> Result<Option<FollowEvent>, ClientError> {
        loop {
            if let Some(event) = self.pending.take() {
                return Ok(Some(event));
            }
            let Some(polled) = self.polls.next().await else {
                return Ok(None);
            };
            let event = match polled.outcome {
                Ok(page) => self.take(polled.shard, page),
                Err(error) => Some(self.failed(polled.shard, error)?),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn begin(&mut self, shard: Arc<str>, position: Position) {
        let reading = Reading {
            position,
            failures: 0,
            idle: FOLLOW_IDLE_FIRST,
        };
        self.reading.insert(Arc::clone(&shard), reading);
        self.poll(shard, Duration::ZERO);
    }

    /// Asks the shard for its next records after a wait.
    fn poll(&mut self, shard: Arc<str>, wait: Duration) {
        let Some(reading) = self.reading.get(&shard) else {
            return;
        };
        let (client, stream, calls) = (self.client.clone(), self.config.stream.clone(), Arc::clone(&self.calls));
        let position = reading.position.clone();
        self.polls.push(Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            // Never closed.
            let _permit = calls.acquire_owned().await;
            let outcome = page::read(&client, &stream, &shard, &position).await;
            Polled { shard, outcome }
        }));
    }

    fn take(&mut self, shard: Arc<str>, page: Page) -> Option<FollowEvent> {
        let now = self.client.clock().now();
        let Page {
            mut records,
            position,
            behind_ms,
            children,
        } = page;
        let tip = behind_ms == 0;
        let mut over = false;
        match self.config.to {
            FollowTo::Never => {}
            FollowTo::Tip => over = tip && position.is_some(),
            FollowTo::Time(to) => {
                let before = records.len();
                records.retain(|record| record.arrived <= to);
                over = records.len() < before || tip && now > to;
            }
        }
        let wait = self.wait_after(&shard, records.is_empty(), tip);
        if over {
            self.reading.remove(&shard);
        } else if let Some(position) = position {
            if let Some(reading) = self.reading.get_mut(&shard) {
                reading.position = position;
                reading.failures = 0;
            }
            self.poll(shard, wait);
        } else {
            let ended = self.end(shard, children);
            if records.is_empty() {
                return Some(ended);
            }
            self.pending = Some(ended);
        }
        (!records.is_empty()).then_some(FollowEvent::Records(records))
    }

    /// A shard without news is asked less and less often, and many shards less often than one.
    fn wait_after(&mut self, shard: &str, empty: bool, tip: bool) -> Duration {
        let many = FOLLOW_IDLE_PER_SHARD * u32::try_from(self.reading.len()).unwrap_or(u32::MAX);
        let Some(reading) = self.reading.get_mut(shard) else {
            return Duration::ZERO;
        };
        if !tip {
            return Duration::ZERO;
        }
        let wait = reading.idle.max(many);
        reading.idle = if empty {
            (reading.idle * 2).min(FOLLOW_IDLE_MAX)
        } else {
            FOLLOW_IDLE_FIRST
        };
        wait
    }

    fn end(&mut self, shard: Arc<str>, children: Vec<plan::Shard>) -> FollowEvent {
        self.reading.remove(&shard);
        let names = children.iter().map(|child| child.id.to_string()).collect();
        for child in self.plan.ended(&shard, children) {
            self.begin(child, Position::Oldest);
        }
        FollowEvent::ShardEnded { shard, children: names }
    }

    fn failed(&mut self, shard: Arc<str>, error: ClientError) -> Result<FollowEvent, ClientError> {
        let expired = error.code() == Some("ExpiredIteratorException");
        if !(error.is_transient() || expired) {
            return Err(error);
        }
        let mut retry_in = Duration::ZERO;
        if let Some(reading) = self.reading.get_mut(&shard) {
            reading.failures += 1;
            retry_in = self.config.backoff.draw(reading.failures);
            if expired {
                reading.position = reading.position.without_iterator();
            }
        }
        self.poll(shard, retry_in);
        Ok(FollowEvent::Trouble { error, retry_in })
    }
}
