//! One runner: reads the source into a buffer, cuts the buffer when it is full or old, and lets jobs deliver what was cut.
//! It reads on while they work, up to a few of them; while one fails it cuts nothing, so that a destination that is away
//! costs no memory.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use storage::{ShardId, StreamId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use uuid::Uuid;

use super::budget::Held;
use super::buffer::Buffer;
use super::job::{Done, Job, New};
use super::rows::{Place, Plan, Progress, Rows};
use super::source::{Batch, Source, SourceError, SourceShard};
use super::status::Part;
use super::{Ground, Work, asked_to_stop, pause};
use crate::limits;

/// See the module.
pub struct Runner {
    ground: Arc<Ground>,
    work: Work,
    rows: Rows,
    stop: watch::Receiver<bool>,
}

/// Why a round ended.
enum Ended {
    Stopped,
    Failed(String),
}

impl Runner {
    pub fn new(ground: Arc<Ground>, work: Work, rows: Rows, stop: watch::Receiver<bool>) -> Self {
        Runner {
            ground,
            work,
            rows,
            stop,
        }
    }

    /// Runs until it is told to stop. What fails is begun again from what the catalog holds.
    pub async fn run(self) {
        let mut failures = 0;
        loop {
            match self.round().await {
                Ended::Stopped => return,
                Ended::Failed(why) => self.work.status.fails(Part::Runner, &why),
            }
            let mut stop = self.stop.clone();
            tokio::select! {
                () = asked_to_stop(&mut stop) => return,
                () = tokio::time::sleep(pause(failures)) => failures += 1,
            }
        }
    }

    async fn round(&self) -> Ended {
        let (progress, plans) = match self.rows.load().await {
            Ok(loaded) => loaded,
            Err(error) => return Ended::Failed(error.to_string()),
        };
        self.work.status.reset();
        let mut round = Round::new(self, progress, &plans);
        for (number, plan) in plans {
            round.redo(number, plan);
        }
        let ended = round.run().await;
        round.wind_up().await;
        ended
    }
}

/// What is read, and how far.
struct Reading {
    source: Arc<dyn Source>,
    stream: Option<StreamId>,
    places: BTreeMap<u32, Place>,
    /// Shards of which everything was read, until more is written.
    quiet: HashMap<u32, watch::Receiver<u64>>,
    /// The shard that was read last: the next one is next.
    last: u32,
    changes: watch::Receiver<u64>,
    failures: u32,
}

/// What a read gave.
struct Read {
    shard: SourceShard,
    from: Place,
    batch: Batch,
    held: Held,
    /// Seen before the read.
    tip: watch::Receiver<u64>,
}

/// What was found to be done next.
enum Found {
    Read(Box<Read>),
    /// Another stream has the source's name: it is read from its beginning.
    Other(StreamId),
    Failed(SourceError),
}

impl Reading {
    /// The next shard with something to read. Children wait until all of their parents was read.
    fn next(&mut self, shards: &[SourceShard]) -> Option<(SourceShard, Place)> {
        let place = |shard: &ShardId| self.places.get(&shard.0).copied();
        let listed = |shard: &ShardId| shards.iter().any(|s| s.shard == *shard);
        let open = |shard: &&SourceShard| {
            let parents = shard.parents.iter().all(|p| !listed(p) || place(p) == Some(Place::End));
            let quiet = self.quiet.get(&shard.shard.0);
            let news = quiet.is_none_or(|tip| shard.closed || tip.has_changed().unwrap_or(true));
            parents && news && place(&shard.shard) != Some(Place::End)
        };
        let behind = shards.iter().filter(|s| s.shard.0 > self.last).find(open);
        let shard = behind.or_else(|| shards.iter().find(open))?.clone();
        self.last = shard.shard.0;
        let from = place(&shard.shard).unwrap_or(Place::Begin);
        Some((shard, from))
    }

    /// Waits for something to read and reads it. Changes nothing that matters when it is dropped.
    async fn find(&mut self, ground: &Ground, max_bytes: usize) -> Found {
        loop {
            self.changes.mark_unchanged();
            let current = self.source.stream();
            let Some(stream) = current else {
                return Found::Failed(SourceError::Gone);
            };
            if self.stream != current {
                return Found::Other(stream);
            }
            let shards = match self.source.shards(stream) {
                Ok(shards) => shards,
                Err(error) => return Found::Failed(error),
            };
            let listed = |number: u32| shards.iter().any(|s| s.shard.0 == number);
            self.places.retain(|number, _| listed(*number));
            self.quiet.retain(|number, _| listed(*number));
            let Some((shard, from)) = self.next(&shards) else {
                self.wait().await;
                continue;
            };
            let place = (stream, shard.shard);
            let mut tip = match self.source.watch(place) {
                Ok(tip) => tip,
                Err(error) => return Found::Failed(error),
            };
            tip.mark_unchanged();
            let Some(position) = from.position() else { continue };
            let mut held = ground.budget.take(max_bytes).await;
            let read = self.source.read(place, position, limits::READ_RECORDS, max_bytes).await;
            let batch = match read {
                Ok(batch) => batch,
                Err(error) => return Found::Failed(error),
            };
            held.shrink_to(batch.records.iter().map(super::buffer::weight).sum());
            return Found::Read(Box::new(Read {
                shard,
                from,
                batch,
                held,
                tip,
            }));
        }
    }

    /// Until a shard has more, or there are other shards.
    async fn wait(&mut self) {
        let numbers: Vec<u32> = self.quiet.keys().copied().collect();
        let written = self.quiet.values_mut().map(|tip| Box::pin(tip.changed()));
        let written: Vec<_> = written.collect();
        if written.is_empty() {
            // Its sender lives as long as the source.
            let _ = self.changes.changed().await;
            return;
        }
        let written = tokio::select! {
            (_, at, _) = select_all(written) => numbers.get(at).copied(),
            _ = self.changes.changed() => None,
        };
        // Its change counts as seen now: it is not quiet any more until it is read.
        if let Some(number) = written {
            self.quiet.remove(&number);
        }
    }

    /// Takes over what a read says of its shard.
    fn passed(&mut self, read: &Read) {
        let number = read.shard.shard.0;
        let ended = read.batch.at_tip && read.shard.closed;
        let place = if ended {
            Place::End
        } else {
            Place::from(read.batch.next)
        };
        self.places.insert(number, place);
        match read.batch.at_tip && !ended {
            true => self.quiet.insert(number, read.tip.clone()),
            false => self.quiet.remove(&number),
        };
    }
}

/// A runner between two failures of its own.
struct Round<'a> {
    runner: &'a Runner,
    reading: Reading,
    next: u64,
    buffer: Buffer,
    /// When the buffer is old.
    old: Option<Pin<Box<Sleep>>>,
    jobs: JoinSet<Option<Done>>,
    /// What the next buffer's plan must wait for.
    planned: Option<oneshot::Receiver<()>>,
    shortage: watch::Receiver<u64>,
}

impl<'a> Round<'a> {
    fn new(runner: &'a Runner, progress: Option<Progress>, plans: &[(u64, Plan)]) -> Self {
        let source = Arc::clone(&runner.work.source);
        let behind = plans.iter().map(|(number, _)| number + 1).max().unwrap_or(0);
        let reading = Reading {
            stream: progress.as_ref().map(|p| StreamId(p.stream)),
            changes: source.changes(),
            source,
            quiet: HashMap::new(),
            last: 0,
            failures: 0,
            places: progress.as_ref().map(|p| p.shards.clone()).unwrap_or_default(),
        };
        Round {
            runner,
            reading,
            next: progress.map_or(0, |p| p.next).max(behind),
            buffer: Buffer::default(),
            old: None,
            jobs: JoinSet::new(),
            planned: None,
            shortage: runner.ground.budget.shortage(),
        }
    }

    fn redo(&mut self, number: u64, plan: Plan) {
        self.spawn(number, plan, None);
    }

    fn spawn(&mut self, number: u64, plan: Plan, new: Option<New>) {
        let runner = self.runner;
        let job = Job {
            ground: Arc::clone(&runner.ground),
            work: runner.work.clone(),
            rows: runner.rows.clone(),
            number,
            plan,
            written: new.is_none(),
            new,
            stop: runner.stop.clone(),
            tally: Vec::new(),
            refused: Vec::new(),
        };
        self.jobs.spawn(job.run());
    }

    /// True if another buffer may be cut.
    fn may_cut(&self) -> bool {
        self.jobs.len() < limits::JOBS_MAX && !self.runner.work.status.buffers_fail()
    }

    async fn run(&mut self) -> Ended {
        let buffering = self.runner.work.target.buffering;
        let mut stop = self.runner.stop.clone();
        loop {
            let full = self.buffer.bytes() >= buffering.bytes;
            if full && self.may_cut() {
                self.cut();
                continue;
            }
            let may_cut = self.may_cut() && !self.buffer.is_empty();
            let failing = self.runner.work.status.buffers_fail();
            let room = buffering
                .bytes
                .saturating_sub(self.buffer.bytes())
                .clamp(1, limits::READ_BYTES);
            tokio::select! {
                biased;
                () = asked_to_stop(&mut stop) => return Ended::Stopped,
                Some(job) = self.jobs.join_next(), if !self.jobs.is_empty() => match job {
                    Ok(Some(_)) => {}
                    Ok(None) if *self.runner.stop.borrow() => return Ended::Stopped,
                    Ok(None) => return Ended::Failed("a delivery was given up".to_owned()),
                    Err(error) => return Ended::Failed(error.to_string()),
                },
                () = until(&mut self.old), if may_cut => self.cut(),
                Ok(()) = self.shortage.changed(), if may_cut || (failing && !self.buffer.is_empty()) => self.relieve(),
                found = self.reading.find(&self.runner.ground, room), if !full && !failing => match found {
                    Found::Read(read) => self.take(*read),
                    Found::Other(stream) => self.turn_to(stream),
                    Found::Failed(error) => self.source_failed(&error).await,
                },
            }
        }
    }

    fn take(&mut self, read: Read) {
        let work = &self.runner.work;
        work.status.works(Part::Source);
        self.reading.failures = 0;
        self.reading.passed(&read);
        let Read {
            shard,
            from,
            batch,
            held,
            ..
        } = read;
        if batch.records.is_empty() {
            return;
        }
        let bytes = batch.records.iter().map(super::buffer::weight).sum();
        work.status.read(batch.records.len(), bytes);
        if self.buffer.is_empty() {
            let wait = u64::try_from(work.target.buffering.interval_ms).unwrap_or(0);
            self.old = Some(Box::pin(tokio::time::sleep(Duration::from_millis(wait))));
        }
        self.buffer.add(shard.shard, from, batch.records, held);
    }

    /// The source is another stream than before.
    fn turn_to(&mut self, stream: StreamId) {
        if self.reading.stream.is_some() && !self.buffer.is_empty() {
            // What was read of the old one can still be delivered, under its own number.
            self.cut();
        }
        self.reading.stream = Some(stream);
        self.reading.places.clear();
        self.reading.quiet.clear();
    }

    async fn source_failed(&mut self, error: &SourceError) {
        let status = &self.runner.work.status;
        status.fails(Part::Source, &format!("{}: {error}", self.reading.source.name()));
        let wait = pause(self.reading.failures);
        self.reading.failures = self.reading.failures.saturating_add(1);
        let mut stop = self.runner.stop.clone();
        tokio::select! {
            () = asked_to_stop(&mut stop) => {}
            () = tokio::time::sleep(wait) => {}
            _ = self.reading.changes.changed() => {}
        }
    }

    /// Somebody needs memory.
    fn relieve(&mut self) {
        if self.may_cut() {
            self.cut();
        } else if self.runner.work.status.buffers_fail() {
            // Nothing goes out: it is read again when it does.
            let cut = self.buffer.cut();
            for range in &cut.ranges {
                self.reading.places.insert(range.shard, range.from);
            }
            self.reading.quiet.clear();
            self.old = None;
        }
    }

    fn cut(&mut self) {
        self.old = None;
        let Some(stream) = self.reading.stream else { return };
        if self.buffer.is_empty() {
            return;
        }
        let number = self.next;
        self.next += 1;
        let cut = self.buffer.cut();
        let (planned, after) = oneshot::channel();
        let new = New {
            records: cut.records,
            held: cut.held,
            progress: Progress {
                stream: stream.0,
                next: self.next,
                shards: self.reading.places.clone(),
            },
            before: self.planned.replace(after),
            planned,
        };
        let plan = Plan {
            seed: Uuid::new_v4(),
            stream: stream.0,
            ranges: cut.ranges,
            bytes: cut.bytes as u64,
            objects: Default::default(),
        };
        self.spawn(number, plan, Some(new));
    }

    /// Lets what is under way come to its end, for a while.
    async fn wind_up(mut self) {
        if *self.runner.stop.borrow() {
            let within = Duration::from_millis(limits::STOP_WITHIN_MS);
            let all = async { while self.jobs.join_next().await.is_some() {} };
            // What is left is ended below.
            let _ = tokio::time::timeout(within, all).await;
        }
        self.jobs.shutdown().await;
    }
}

async fn until(old: &mut Option<Pin<Box<Sleep>>>) {
    match old {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}
