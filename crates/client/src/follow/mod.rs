//! Reads every shard of a data stream from one place on, through splits and merges, for one reader that remembers nothing:
//! a person at a terminal, a test, a program that copies. Workers that share a stream and survive need leases and
//! checkpoints, which this module refuses to know.
//!
//! Records of a shard come in order, and those of its children after them. Nothing is promised between other shards.
//! No more than [`FOLLOW_CALLS_MAX`] answers are held at a time, and none is asked for while the last is not taken.

mod plan;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Timestamp};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::backoff::Backoff;
use crate::consumer::{Page, Shard, ShardSource, StartAt, StreamRecord};
use crate::error::ClientError;
use crate::limits::{
    FOLLOW_CALLS_MAX, FOLLOW_IDLE_FIRST, FOLLOW_IDLE_MAX, FOLLOW_IDLE_PER_SHARD, FOLLOW_LIST_AFTER, FOLLOW_RECORDS_MAX,
};
use plan::{Plan, Planned};

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
    /// Where to begin.
    pub from: FollowFrom,
    /// Where to end.
    pub to: FollowTo,
    /// Waits between attempts while the server is away or busy.
    pub backoff: Backoff,
}

impl Default for FollowConfig {
    /// What is put from now on, without an end.
    fn default() -> Self {
        FollowConfig {
            from: FollowFrom::Now,
            to: FollowTo::Never,
            backoff: Backoff::default(),
        }
    }
}

/// What [`Follower::next`] tells.
#[derive(Debug)]
pub enum FollowEvent {
    /// Records of one shard, in order.
    Records {
        /// The shard.
        shard: Arc<str>,
        /// At least one.
        records: Vec<StreamRecord>,
    },
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

enum Polled {
    Shard {
        shard: Arc<str>,
        outcome: Result<Page, ClientError>,
    },
    /// The shards that the stream has.
    List(Result<Vec<Planned>, ClientError>),
}

/// Where in a shard the next records are.
#[derive(Clone, Debug)]
struct Position {
    /// Made when it is needed; expires.
    iterator: Option<String>,
    /// The same place without an iterator.
    place: StartAt,
}

/// See the module.
pub struct Follower {
    source: Arc<dyn ShardSource>,
    clock: Arc<dyn Clock>,
    config: FollowConfig,
    plan: Plan,
    reading: BTreeMap<Arc<str>, Reading>,
    polls: FuturesUnordered<Polling>,
    calls: Arc<Semaphore>,
    /// Told with the next call of `next`.
    pending: Option<FollowEvent>,
    /// A shard ended without children: it was forgotten, and cannot name them any more.
    orphans: bool,
    /// Whether the stream's shards are being asked for.
    listing: bool,
}

/// A shard that is read.
struct Reading {
    position: Position,
    failures: u32,
    idle: Duration,
}

impl Follower {
    /// Finds the shards, and where to begin in them.
    ///
    /// # Errors
    /// Those of ListShards and GetShardIterator: the stream is not there, or may not be read.
    pub async fn start(
        source: Arc<dyn ShardSource>,
        clock: Arc<dyn Clock>,
        config: FollowConfig,
    ) -> Result<Self, ClientError> {
        let shards = source.shards().await?;
        let asked_for = |shard: &Shard| shard.open || config.from != FollowFrom::Now;
        let (shards, over): (Vec<Shard>, Vec<Shard>) = shards.into_iter().partition(asked_for);
        let over = over.iter().map(|shard| shard.id.as_str().into());
        let mut follower = Follower {
            plan: Plan::new(planned(&shards), over.collect()),
            source,
            clock,
            config,
            reading: BTreeMap::new(),
            polls: FuturesUnordered::new(),
            calls: Arc::new(Semaphore::new(FOLLOW_CALLS_MAX)),
            pending: None,
            orphans: false,
            listing: false,
        };
        for shard in follower.plan.ready() {
            let position = follower.first_position(&shard).await?;
            follower.begin(shard, position);
        }
        Ok(follower)
    }

    /// The newest place is pinned: an iterator that is made later would leave out what comes meanwhile. Where nothing was
    /// read yet there is no number to go back to when it expires, only the time.
    async fn first_position(&mut self, shard: &str) -> Result<Position, ClientError> {
        let place = match self.config.from {
            FollowFrom::Now => StartAt::Timestamp(self.clock.now()),
            FollowFrom::Start => StartAt::TrimHorizon,
            FollowFrom::Time(time) => StartAt::Timestamp(time),
        };
        let iterator = match self.config.from {
            FollowFrom::Now => Some(self.source.iterator(shard, &StartAt::Latest).await?),
            _ => None,
        };
        Ok(Position { iterator, place })
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
            let event = match polled {
                Polled::Shard {
                    shard,
                    outcome: Ok(page),
                } => self.take(shard, page),
                Polled::Shard {
                    shard,
                    outcome: Err(error),
                } => Some(self.failed(shard, error)?),
                Polled::List(listed) => self.listed(listed)?,
            };
            self.look_for_strangers();
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
        let (source, calls) = (Arc::clone(&self.source), Arc::clone(&self.calls));
        let position = reading.position.clone();
        self.polls.push(Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            // Never closed.
            let _permit = calls.acquire_owned().await;
            let outcome = read(&*source, &shard, position).await;
            Polled::Shard { shard, outcome }
        }));
    }

    /// A reader that is a retention behind comes to shards that were forgotten, with all they would have said: who their
    /// children are, for which others may wait. The list of shards tells.
    fn look_for_strangers(&mut self) {
        if self.listing || !(self.orphans || self.plan.waits_for_strangers()) {
            return;
        }
        (self.listing, self.orphans) = (true, false);
        let source = Arc::clone(&self.source);
        self.polls.push(Box::pin(async move {
            tokio::time::sleep(FOLLOW_LIST_AFTER).await;
            let shards = source.shards().await;
            Polled::List(shards.map(|shards| planned(&shards)))
        }));
    }

    fn listed(&mut self, listed: Result<Vec<Planned>, ClientError>) -> Result<Option<FollowEvent>, ClientError> {
        self.listing = false;
        match listed {
            Ok(there) => {
                let ready = self.plan.listed(there);
                self.begin_all(ready);
                Ok(None)
            }
            Err(error) if error.is_transient() => {
                self.orphans = true;
                let retry_in = FOLLOW_LIST_AFTER;
                Ok(Some(FollowEvent::Trouble { error, retry_in }))
            }
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, shard: Arc<str>, page: Page) -> Option<FollowEvent> {
        let Page {
            mut records,
            next,
            millis_behind,
            children,
        } = page;
        let place = records.last().map(|last| StartAt::After(last.sequence_number.clone()));
        let tip = millis_behind == 0;
        let over = match self.config.to {
            FollowTo::Never => false,
            FollowTo::Tip => tip && next.is_some(),
            FollowTo::Time(to) => {
                let before = records.len();
                records.retain(|record| record.arrived <= to);
                records.len() < before || tip && next.is_some() && self.clock.now() > to
            }
        };
        let wait = self.wait_after(&shard, records.is_empty(), tip);
        if over {
            self.reading.remove(&shard);
        } else if next.is_some() {
            if let Some(reading) = self.reading.get_mut(&shard) {
                reading.position.iterator = next;
                reading.position.place = place.unwrap_or_else(|| reading.position.place.clone());
                reading.failures = 0;
            }
            self.poll(Arc::clone(&shard), wait);
        } else {
            let children = children.iter().map(|child| Planned::new(&child.id, &child.parents));
            let ended = self.end(Arc::clone(&shard), children.collect());
            if records.is_empty() {
                return Some(ended);
            }
            self.pending = Some(ended);
        }
        (!records.is_empty()).then_some(FollowEvent::Records { shard, records })
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

    fn end(&mut self, shard: Arc<str>, children: Vec<Planned>) -> FollowEvent {
        self.reading.remove(&shard);
        self.orphans |= children.is_empty();
        let names = children.iter().map(|child| child.id.to_string()).collect();
        let ready = self.plan.ended(&shard, children);
        self.begin_all(ready);
        FollowEvent::ShardEnded { shard, children: names }
    }

    fn begin_all(&mut self, children: Vec<Arc<str>>) {
        for child in children {
            // A family that ended long ago is passed over.
            let place = match self.config.from {
                FollowFrom::Time(time) => StartAt::Timestamp(time),
                FollowFrom::Now | FollowFrom::Start => StartAt::TrimHorizon,
            };
            self.begin(child, Position { iterator: None, place });
        }
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
                reading.position.iterator = None;
            }
        }
        self.poll(shard, retry_in);
        Ok(FollowEvent::Trouble { error, retry_in })
    }
}

fn planned(shards: &[Shard]) -> Vec<Planned> {
    let planned = shards.iter().map(|shard| Planned::new(&shard.id, &shard.parents));
    planned.collect()
}

async fn read(source: &dyn ShardSource, shard: &str, position: Position) -> Result<Page, ClientError> {
    let iterator = match position.iterator {
        Some(iterator) => iterator,
        None => source.iterator(shard, &position.place).await?,
    };
    source.records(&iterator, FOLLOW_RECORDS_MAX).await
}
