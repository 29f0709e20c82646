//! The task of a queue: takes calls out of the inbox, finds records for receivers, commits, answers, and waits.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base::{ApiError, Timestamp};
use futures_util::future::{Either, pending, select_all};
use storage::{CatalogError, ShardId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{catalog_failure, log_failure, queue_not_found};
use crate::limits;
use crate::queues::book::Book;
use crate::queues::control::index;
use crate::queues::engine::{Action, Given, Receive, Refusal, Running, Settle, Work};
use crate::queues::receipt::Receipt;
use crate::queues::rows::{self, Delivery};
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::QueueRecord;

/// Records beyond their retention that one step of tidying forgets: each may be in a value of its own.
const TIDY_STEP: usize = 100;

/// See the module.
pub struct Worker {
    pub(super) service: Arc<DataStreams>,
    running: Running,
    pub(super) book: Book,
    parked: VecDeque<Receive>,
    pub(super) tips: Tips,
    /// Whether the next receiver gets records a second time before new ones: they take turns, so that neither starves.
    pub(super) again_first: bool,
}

/// The ends of a stream's shards.
pub struct Tips {
    of: Arc<StreamState>,
    pub(super) shards: Vec<Tip>,
    /// The shard that the next receiver begins with.
    pub(super) turn: usize,
}

/// The end of a shard.
pub struct Tip {
    pub(super) shard: u32,
    pub(super) created: Timestamp,
    /// The index of the shard's newest record plus one.
    pub(super) end: watch::Receiver<u64>,
}

/// What was done for a caller and is to be answered when it is written.
enum Done {
    Receive(Receive, Vec<Given>),
    Settle(Settle, Vec<Result<(), Refusal>>),
}

impl Tip {
    /// Whether it has records that were not delivered.
    pub fn is_beyond(&self, book: &Book) -> bool {
        *self.end.borrow() > book.next(self.shard)
    }
}

impl Tips {
    fn of(service: &DataStreams, stream: &Arc<StreamState>, turn: usize) -> Self {
        let tip = |shard: &crate::stored::ShardRecord| {
            Some(Tip {
                shard: shard.number,
                created: Timestamp::from_millis(shard.created_ms),
                end: service.records.watch(stream.id, ShardId(shard.number)).ok()?,
            })
        };
        Tips {
            of: Arc::clone(stream),
            shards: stream.record.shards.iter().filter_map(tip).collect(),
            turn,
        }
    }

    /// Waits until one of them moves.
    async fn moved(&mut self) {
        // A closed one is of a log that is being closed: it never moves again.
        let change = |tip| {
            let Tip { end, .. }: &mut Tip = tip;
            Box::pin(async move {
                if end.changed().await.is_err() {
                    pending::<()>().await;
                }
            })
        };
        match self.shards.is_empty() {
            true => pending().await,
            false => drop(select_all(self.shards.iter_mut().map(change)).await),
        }
    }
}

impl Worker {
    /// Works until nothing is left to do.
    pub async fn run(service: Arc<DataStreams>, running: Running, book: Option<Book>) {
        let engine = Arc::clone(&running.engine);
        let stream = service.state(&engine.stream).filter(|s| s.id == engine.stream_id);
        let Some(stream) = stream else {
            return refuse_all(engine.take(), &gone(&running));
        };
        let fresh = book.is_none();
        let book = match book {
            Some(book) => book,
            None => match rows::load(&*engine.catalog, engine.queue).await {
                Ok(loaded) => Book::new(engine.queue, loaded),
                Err(error) => return refuse_all(engine.take(), &catalog_failure(error)),
            },
        };
        let mut worker = Worker {
            tips: Tips::of(&service, &stream, 0),
            service,
            running,
            book,
            parked: VecDeque::new(),
            again_first: true,
        };
        if let Err(error) = worker.work(fresh).await {
            worker.refuse(&error);
        }
    }

    /// An error ends the task; what the book says is then read anew by the next one.
    async fn work(&mut self, fresh: bool) -> Result<(), ApiError> {
        let mut todo = VecDeque::new();
        if fresh {
            todo.push_back(Work::Tidy);
        }
        let mut changes = self.service.changes();
        loop {
            changes.mark_unchanged();
            let (stream, queue) = self.current()?;
            self.book
                .set_max_receives(queue.max_receives.and_then(|max| u32::try_from(max).ok()));
            todo.extend(self.running.engine.take());
            self.step(&stream, std::mem::take(&mut todo)).await?;
            self.dismiss();
            if self.parked.is_empty() {
                let mut book = Some(std::mem::replace(&mut self.book, Book::new(0, rows::Loaded::default())));
                if self.running.end(&mut book) {
                    return Ok(());
                }
                if let Some(book) = book {
                    self.book = book;
                }
                continue;
            }
            self.running.engine.set_parked(self.parked.len());
            self.wait(&mut changes).await;
        }
    }

    /// The stream and the queue as they are now.
    fn current(&mut self) -> Result<(Arc<StreamState>, QueueRecord), ApiError> {
        let engine = &self.running.engine;
        let stream = self.service.state(&engine.stream).filter(|s| s.id == engine.stream_id);
        let found = stream.and_then(|stream| {
            let queue = stream.record.queue(&engine.key).cloned()?;
            Some((stream, queue))
        });
        let (stream, queue) = found.ok_or_else(|| gone(&self.running))?;
        if !Arc::ptr_eq(&stream, &self.tips.of) {
            self.tips = Tips::of(&self.service, &stream, self.tips.turn);
        }
        Ok((stream, queue))
    }

    /// Tells everybody that nothing can be done.
    fn refuse(&mut self, error: &ApiError) {
        let mut work = self.running.engine.take();
        work.extend(self.parked.drain(..).map(Work::Receive));
        refuse_all(work, error);
    }

    /// Answers those whose time is over, and forgets those who have gone.
    fn dismiss(&mut self) {
        let now = Instant::now();
        for receive in std::mem::take(&mut self.parked) {
            if receive.until <= now {
                let _ = receive.reply.send(Ok(Vec::new()));
            } else if !receive.reply.is_closed() {
                self.parked.push_back(receive);
            }
        }
    }

    /// Does what can be done now, in commits that hold a limited part of it each.
    async fn step(&mut self, stream: &StreamState, work: VecDeque<Work>) -> Result<(), ApiError> {
        let mut todo = VecDeque::new();
        for work in work {
            match work {
                Work::Receive(receive) => self.parked.push_back(receive),
                other => todo.push_back(other),
            }
        }
        loop {
            let now = self.service.clock.now();
            self.book.ripen(now.millis());
            let mut done = Vec::new();
            let mut more = false;
            while self.book.dirty() < limits::QUEUE_COMMIT_VALUES
                && let Some(work) = todo.pop_front()
            {
                match work {
                    Work::Receive(receive) => self.parked.push_back(receive),
                    Work::Settle(settle) => {
                        let results = self.settle(&settle, now);
                        done.push(Done::Settle(settle, results));
                    }
                    Work::GiveBack(receipts) => self.give_back(&receipts, now),
                    Work::Tidy => {
                        if !self.tidy(stream, now).await? {
                            todo.push_back(Work::Tidy);
                            break;
                        }
                    }
                }
            }
            more |= self.serve(stream, now, &mut done).await;
            more |= !todo.is_empty();
            let unclaimed = self.commit(done).await?;
            more |= !unclaimed.is_empty();
            todo.extend(unclaimed);
            if !more {
                return Ok(());
            }
        }
    }

    /// Finds records for those who wait. True if there is more to find: a limit of the commit was met, or all that was found
    /// was gone.
    async fn serve(&mut self, stream: &StreamState, now: Timestamp, done: &mut Vec<Done>) -> bool {
        let (mut bytes, mut at, mut more) = (0, 0, false);
        while at < self.parked.len() {
            if self.book.dirty() >= limits::QUEUE_COMMIT_VALUES || bytes >= limits::QUEUE_COMMIT_BYTES {
                return true;
            }
            let anything = self.parked.get(at).is_some_and(|r| self.anything(r.dead, now));
            if !anything {
                at += 1;
                continue;
            }
            let Some(receive) = self.parked.remove(at) else { break };
            if receive.reply.is_closed() {
                continue;
            }
            let mark = self.book.mark();
            match self.find(stream, &receive, now).await {
                Ok(given) if given.is_empty() => {
                    more |= self.book.mark() > mark && self.anything(receive.dead, now);
                    self.parked.insert(at, receive);
                    at += 1;
                }
                Ok(given) => {
                    bytes += given.iter().map(|g| g.record.data.len()).sum::<usize>();
                    done.push(Done::Receive(receive, given));
                }
                Err(error) => {
                    self.book.roll_back(mark);
                    let _ = receive.reply.send(Err(error));
                }
            }
        }
        more
    }

    /// Whether there may be something for a receiver.
    fn anything(&self, dead: bool, now: Timestamp) -> bool {
        let again = self.book.visible(dead, now.millis()).next().is_some();
        let new = |tip: &Tip| tip.is_beyond(&self.book);
        again || (!dead && self.book.room() > 0 && self.tips.shards.iter().any(new))
    }

    /// Writes what was done and answers it. Gives back what nobody was there to take.
    async fn commit(&mut self, done: Vec<Done>) -> Result<Vec<Work>, ApiError> {
        let mut written = Ok(());
        if self.book.dirty() > 0 {
            written = match self.book.changes() {
                Ok(changes) => self.running.engine.catalog.commit(changes).await.map(drop),
                Err(error) => Err(error),
            };
        }
        if let Err(error) = written {
            self.book.roll_back(0);
            for done in done {
                match done {
                    Done::Receive(receive, _) => drop(receive.reply.send(Err(catalog_failure(error.clone())))),
                    Done::Settle(settle, _) => drop(settle.reply.send(Err(catalog_failure(error.clone())))),
                }
            }
            return match error {
                // Nothing happened.
                CatalogError::Full | CatalogError::Conflict { .. } | CatalogError::Invalid(_) => Ok(Vec::new()),
                unknown => Err(catalog_failure(unknown)),
            };
        }
        self.book.committed();
        let mut unclaimed = Vec::new();
        for done in done {
            match done {
                Done::Receive(receive, given) => {
                    if let Err(Ok(given)) = receive.reply.send(Ok(given)) {
                        let dead = receive.dead;
                        unclaimed.push(Work::GiveBack(given.iter().map(|g| g.receipt(dead)).collect()));
                    }
                }
                Done::Settle(settle, results) => drop(settle.reply.send(Ok(results))),
            }
        }
        Ok(unclaimed)
    }

    fn settle(&mut self, settle: &Settle, now: Timestamp) -> Vec<Result<(), Refusal>> {
        let each = settle.entries.iter();
        each.map(|(receipt, action)| self.settle_one(settle.dead, *receipt, *action, now))
            .collect()
    }

    fn settle_one(&mut self, dead: bool, receipt: Receipt, action: Action, now: Timestamp) -> Result<(), Refusal> {
        if receipt.dead != dead {
            return Err(Refusal::WrongKind);
        }
        let (delivery, is_dead) = self.book.get(receipt.spot).ok_or(Refusal::Gone)?;
        if delivery.generation != receipt.generation {
            return Err(Refusal::Outdated);
        }
        if is_dead != dead {
            return Err(Refusal::Dead);
        }
        let now_ms = now.millis();
        let after = match action {
            Action::Acknowledge => None,
            Action::Hide(millis) => Some(Delivery {
                visible_ms: now_ms.saturating_add(millis),
                ..delivery
            }),
            Action::Restore => Some(Delivery {
                visible_ms: now_ms,
                count: 0,
                generation: delivery.generation.wrapping_add(1),
                dead: false,
                ..delivery
            }),
        };
        self.book.set(receipt.spot, after);
        self.book.ripen(now_ms);
        Ok(())
    }

    fn give_back(&mut self, receipts: &[Receipt], now: Timestamp) {
        for receipt in receipts {
            let Some((delivery, _)) = self.book.get(receipt.spot) else {
                continue;
            };
            if delivery.generation == receipt.generation {
                let back = Delivery {
                    visible_ms: now.millis(),
                    count: delivery.count.saturating_sub(1),
                    ..delivery
                };
                self.book.set(receipt.spot, Some(back));
            }
        }
    }

    /// Forgets some records that the stream has forgotten. True when none is left.
    async fn tidy(&mut self, stream: &StreamState, now: Timestamp) -> Result<bool, ApiError> {
        let horizon = stream.record.horizon(now);
        for shard in self.book.shards() {
            let below = match stream.record.shard(shard) {
                None => u64::MAX,
                Some(_) => {
                    let place = self
                        .service
                        .records
                        .position_at_time(stream.id, ShardId(shard), horizon);
                    match place.await {
                        Ok(place) => index(place),
                        Err(storage::Error::NotFound) => u64::MAX,
                        Err(error) => return Err(log_failure(error, &stream.name.name, stream.name.account)),
                    }
                }
            };
            let old = self.book.below(shard, below, TIDY_STEP);
            for spot in &old {
                self.book.set(*spot, None);
            }
            if old.len() == TIDY_STEP {
                return Ok(false);
            }
            if stream.record.shard(shard).is_none() {
                self.book.drop_shard(shard);
            }
        }
        Ok(true)
    }

    /// Waits for whatever may bring records, ends a receiver's time, or asks for something.
    async fn wait(&mut self, changes: &mut watch::Receiver<u64>) {
        let now = self.service.clock.now();
        let end = self.parked.iter().map(|r| r.until).min();
        let visible = self.book.next_visible(now.millis()).map(|at| {
            let wait = u64::try_from(at.saturating_sub(now.millis())).unwrap_or(0);
            Instant::now() + Duration::from_millis(wait)
        });
        let timer = match end.into_iter().chain(visible).min() {
            Some(at) => Either::Left(tokio::time::sleep_until(at)),
            None => Either::Right(pending()),
        };
        let seen = Arc::clone(&self.tips.of);
        let new = match self.parked.iter().any(|r| !r.dead) && self.book.room() > 0 {
            true => Either::Left(self.tips.moved()),
            false => Either::Right(pending()),
        };
        let hung_up = select_all(self.parked.iter_mut().map(|r| Box::pin(r.reply.closed())));
        let (mut timer, mut new, mut hung_up) = (pin!(timer), pin!(new), hung_up);
        let engine = &self.running.engine;
        let called = engine.called();
        let mut called = pin!(called);
        loop {
            tokio::select! {
                () = called.as_mut() => return,
                () = timer.as_mut() => return,
                () = new.as_mut() => return,
                _ = &mut hung_up => return,
                changed = changes.changed() => {
                    let stream = self.service.state(&engine.stream);
                    // Mostly another stream's.
                    if changed.is_err() || !stream.is_some_and(|s| Arc::ptr_eq(&s, &seen)) {
                        return;
                    }
                }
            }
        }
    }
}

fn gone(running: &Running) -> ApiError {
    queue_not_found(&running.engine.key, running.engine.stream.account)
}

fn refuse_all(work: impl IntoIterator<Item = Work>, error: &ApiError) {
    for work in work {
        match work {
            Work::Receive(receive) => drop(receive.reply.send(Err(error.clone()))),
            Work::Settle(settle) => drop(settle.reply.send(Err(error.clone()))),
            Work::GiveBack(_) | Work::Tidy => {}
        }
    }
}
