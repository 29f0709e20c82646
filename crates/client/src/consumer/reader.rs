//! Reads one shard from where its lease stands to its end: by asking, or by subscribing where that can be had.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::batch::{Batch, Ending, Record};
use super::config::{InitialPosition, Misplaced};
use super::error::ConsumerError;
use super::held::Held;
use super::lease::{Checkpoint, Lease, Position};
use super::shards::{by_key, of_children};
use super::shared::Shared;
use super::source::{ChildShard, Page, StartAt, StreamRecord, Subscription};
use super::store::StoreError;
use crate::backoff::Backoff;
use crate::error::ClientError;
use crate::limits::{EVENT_RESERVE_BYTES, PAGE_BYTES_MAX};
use crate::records::SequenceNumber;
use crate::records::aggregate::deaggregate;

/// A shard that could not be subscribed to is asked for so long before it is tried again.
const POLL_BETWEEN: Duration = Duration::from_secs(60);

/// Subscriptions that fail one after the other before records are asked for.
const SUBSCRIPTION_FAILURES_MAX: u32 = 5;

/// Waits between attempts at a server.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
};

/// Reads a shard until its lease stops it, or to the end.
pub(crate) async fn read(shared: Arc<Shared>, held: Arc<Held>) {
    let mut reader = Reader {
        cursor: Cursor::new(&held.start, shared.config.initial),
        shared,
        held: Arc::clone(&held),
    };
    tokio::select! {
        biased;
        () = held.stopped() => {}
        () = reader.run() => {}
    }
}

/// How far a shard is fetched.
struct Cursor {
    from: StartAt,
    done: Checkpoint,
}

impl Cursor {
    fn new(start: &Checkpoint, initial: InitialPosition) -> Self {
        let from = match (start, initial) {
            (Checkpoint::At(position), _) => StartAt::At(position.sequence_number.clone()),
            (Checkpoint::Latest, _) => StartAt::Latest,
            (Checkpoint::AtTimestamp, InitialPosition::At(time)) => StartAt::Timestamp(time),
            // Another worker was told a time that this one was not: nothing is left out.
            _ => StartAt::TrimHorizon,
        };
        Cursor {
            from,
            done: start.clone(),
        }
    }

    fn move_to(&mut self, end: Option<Position>, next: Option<&str>) {
        if let Some(end) = end {
            self.from = StartAt::After(end.sequence_number.clone());
            self.done = Checkpoint::At(end);
        }
        if let Some(next) = next.and_then(|next| next.parse::<SequenceNumber>().ok()) {
            self.from = StartAt::After(next);
        }
    }
}

/// How a way of reading came to its end.
enum Way {
    /// The shard is closed, and these came from it.
    Ended(Vec<ChildShard>),
    /// It is time to try another.
    Other,
}

struct Reader {
    shared: Arc<Shared>,
    held: Arc<Held>,
    cursor: Cursor,
}

impl Reader {
    async fn run(&mut self) {
        loop {
            let way = match self.shared.subscriber().await {
                Some(consumer) => self.subscribe(&consumer).await,
                None => {
                    let fan_out = matches!(self.shared.config.delivery, super::config::Delivery::FanOut { .. });
                    if fan_out {
                        self.shared.stats.lock().fallbacks += 1;
                    }
                    self.poll(fan_out.then(|| self.shared.now() + POLL_BETWEEN)).await
                }
            };
            if let Way::Ended(children) = way {
                return self.finish(&children).await;
            }
        }
    }

    /// Asks for records, until then or to the end.
    async fn poll(&mut self, until: Option<Duration>) -> Way {
        let (shared, held) = (Arc::clone(&self.shared), Arc::clone(&self.held));
        let mut iterator: Option<String> = None;
        let mut failures = 0;
        loop {
            if until.is_some_and(|until| shared.now() >= until) {
                return Way::Other;
            }
            let Ok(slot) = Arc::clone(&held.slots).acquire_owned().await else {
                return Way::Other;
            };
            let memory = shared.budget.reserve(shared.budget.share(PAGE_BYTES_MAX)).await;
            match self.ask(iterator.take()).await {
                Ok(page) => {
                    failures = 0;
                    let behind = page.millis_behind > 0;
                    let Page { next, children, .. } = self.take_in(page, memory, slot);
                    iterator = next;
                    if iterator.is_none() {
                        return Way::Ended(children);
                    }
                    if !behind {
                        sleep(shared.config.poll_every).await;
                    }
                }
                Err(error) if error.code() == Some("ExpiredIteratorException") => {}
                Err(error) if error.code() == Some("ResourceNotFoundException") => {
                    tracing::warn!(shard = %held.key, %error, "the shard is gone");
                    return Way::Ended(Vec::new());
                }
                Err(error) => {
                    drop((slot, memory));
                    failures += 1;
                    self.wait(&error, failures).await;
                }
            }
        }
    }

    async fn ask(&self, iterator: Option<String>) -> Result<Page, ClientError> {
        let source = &self.shared.source;
        let iterator = match iterator {
            Some(iterator) => iterator,
            None => source.iterator(&self.held.key, &self.cursor.from).await?,
        };
        source.records(&iterator, self.shared.config.page_records_max).await
    }

    async fn wait(&self, error: &ClientError, failures: u32) {
        if failures > 3 {
            tracing::warn!(shard = %self.held.key, %error, advice = error.advice(), "the shard cannot be read, trying again");
        }
        sleep(RETRY.draw(failures)).await;
    }

    /// Has records sent, until that fails or to the end.
    async fn subscribe(&mut self, consumer: &str) -> Way {
        let mut failures = 0;
        loop {
            let opened = self
                .shared
                .source
                .subscribe(consumer, &self.held.key, &self.cursor.from)
                .await;
            let result = match opened {
                Ok(subscription) => self.listen(subscription, &mut failures).await,
                Err(error) => Err(error),
            };
            let error = match result {
                Ok(Some(children)) => return Way::Ended(children),
                Ok(None) => continue,
                Err(error) => error,
            };
            failures += 1;
            let busy = matches!(error.code(), Some("ResourceInUseException" | "LimitExceededException"));
            if !busy && (!error.is_transient() || failures >= SUBSCRIPTION_FAILURES_MAX) {
                self.shared.refuse_fan_out(&error).await;
                return Way::Other;
            }
            // Within five seconds of the last subscription of a shard a new one is refused.
            self.wait(&error, if busy { failures.max(4) } else { failures }).await;
        }
    }

    /// Takes what one subscription sends. The children when the shard ended, `None` when the subscription did.
    async fn listen(
        &mut self,
        mut subscription: Box<dyn Subscription>,
        failures: &mut u32,
    ) -> Result<Option<Vec<ChildShard>>, ClientError> {
        loop {
            let Ok(slot) = Arc::clone(&self.held.slots).acquire_owned().await else {
                return Ok(None);
            };
            let memory = self
                .shared
                .budget
                .reserve(self.shared.budget.share(EVENT_RESERVE_BYTES))
                .await;
            let Some(page) = subscription.next().await? else {
                return Ok(None);
            };
            *failures = 0;
            let Page { next, children, .. } = self.take_in(page, memory, slot);
            self.cursor.move_to(None, next.as_deref());
            if next.is_none() {
                return Ok(Some(children));
            }
        }
    }

    /// Queues a page's records for the program; gives the page back without them.
    fn take_in(
        &mut self,
        mut page: Page,
        mut memory: super::budget::Reservation,
        slot: tokio::sync::OwnedSemaphorePermit,
    ) -> Page {
        let fetched = std::mem::take(&mut page.records);
        let bytes = fetched.iter().map(|record| record.data.len()).sum();
        self.held.fetched(bytes, page.millis_behind);
        let Some(unpacked) = self.unpack(fetched) else {
            return page;
        };
        let overhead: usize = unpacked
            .records
            .iter()
            .map(|r| size_of::<Record>() + r.partition_key.len())
            .sum();
        memory.resize(bytes + overhead);
        self.shared.stats.lock().misplaced += unpacked.misplaced;
        if !unpacked.records.is_empty() {
            let memory = (memory, slot);
            let batch = Batch::records(&self.shared, &self.held, unpacked.records, unpacked.end.clone(), memory);
            let _ = self.shared.queue.send(super::shared::Item::Batch(Box::new(batch)));
        }
        self.cursor.move_to(Some(unpacked.end), None);
        page
    }

    /// The user records that are not done yet; `None` where all are.
    fn unpack(&self, fetched: Vec<StreamRecord>) -> Option<Unpacked> {
        let mut records = Vec::with_capacity(fetched.len());
        let mut misplaced = 0;
        let mut end: Option<Position> = None;
        let drop_from = (self.shared.config.misplaced == Misplaced::Drop)
            .then_some(self.held.range)
            .flatten();
        for record in fetched {
            let packed = if self.shared.config.deaggregate {
                deaggregate(&record.data)
            } else {
                None
            };
            let at = |sub_sequence_number| Position {
                sequence_number: record.sequence_number.clone(),
                sub_sequence_number,
            };
            let Some(packed) = packed.filter(|packed| !packed.is_empty()) else {
                if !self.cursor.done.covers(&at(0)) {
                    end = Some(at(0));
                    records.push(Record {
                        sequence_number: record.sequence_number,
                        sub_sequence_number: 0,
                        aggregated: false,
                        partition_key: record.partition_key.into(),
                        explicit_hash_key: None,
                        data: record.data,
                        arrived: record.arrived,
                    });
                }
                continue;
            };
            for (sub, user) in (0..).zip(packed) {
                if self.cursor.done.covers(&at(sub)) {
                    continue;
                }
                end = Some(at(sub));
                if drop_from.is_some_and(|range| !range.contains(user.hash_key())) {
                    misplaced += 1;
                    continue;
                }
                records.push(Record {
                    sequence_number: record.sequence_number.clone(),
                    sub_sequence_number: sub,
                    aggregated: true,
                    partition_key: user.partition_key,
                    explicit_hash_key: user.explicit_hash_key,
                    data: user.data,
                    arrived: record.arrived,
                });
            }
        }
        end.map(|end| Unpacked {
            records,
            misplaced,
            end,
        })
    }

    /// Makes the leases of the shards that follow, then tells the program that this one ended.
    async fn finish(&self, children: &[ChildShard]) {
        if children.is_empty() {
            self.shared.want_sync();
        }
        let mut failures = 0;
        while let Err(error) = self.follow_on(children).await {
            failures += 1;
            tracing::warn!(shard = %self.held.key, %error, "the leases of the shards that follow cannot be made, trying again");
            sleep(RETRY.draw(failures)).await;
        }
        self.shared.say_last(&self.held, Ending::ShardEnd);
    }

    async fn follow_on(&self, children: &[ChildShard]) -> Result<(), ConsumerError> {
        let store = &self.shared.store;
        for lease in of_children(children) {
            if self.is_early(&lease).await.map_err(ConsumerError::Store)? {
                let leases = store.list().await.map_err(ConsumerError::Store)?;
                self.shared.make_missing(&by_key(leases)).await?;
            }
            store.create(&lease).await.map_err(ConsumerError::Store)?;
        }
        if !children.is_empty() {
            let ids = children.iter().map(|child| child.id.clone()).collect();
            let write = Lease::new(&*self.held.key, Checkpoint::TrimHorizon).parted(ids);
            store.write(&write).await.map_err(ConsumerError::Store)?;
        }
        Ok(())
    }

    /// Whether the other parent of a merged shard has no lease yet, because the shard that it came from is not read to its
    /// end. A lease of the child alone would pass for one whose parents are done with; all are made, parents first.
    async fn is_early(&self, child: &Lease) -> Result<bool, StoreError> {
        let others = child.parents.iter().filter(|parent| **parent != *self.held.key);
        for parent in others {
            if self.shared.store.get(parent).await?.is_none() {
                return Ok(self.shared.store.get(&child.key).await?.is_none());
            }
        }
        Ok(false)
    }
}

struct Unpacked {
    records: Vec<Record>,
    misplaced: u64,
    end: Position,
}
