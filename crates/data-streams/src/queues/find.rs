//! Which records a receiver gets: those whose time is over again, and new ones, turn by turn; new ones of all shards, turn by
//! turn. A record beyond its retention is given to nobody, also while it is still in the log.

use base::{ApiError, Timestamp};
use storage::{Position, ReadBatch, SequenceNumber, ShardId, StoredRecord};

use crate::error::log_failure;
use crate::limits;
use crate::queues::book::Spot;
use crate::queues::control::index;
use crate::queues::engine::{Given, Receive};
use crate::queues::rows::Delivery;
use crate::queues::work::Worker;
use crate::state::StreamState;

/// How often it is looked again where all that was found is gone.
const LOOKS: usize = 8;

/// What a receiver gets, as it grows.
struct Answer<'a> {
    wanted: &'a Receive,
    now: Timestamp,
    horizon: Timestamp,
    given: Vec<Given>,
    bytes: usize,
    /// Something did not fit.
    full: bool,
}

impl Answer<'_> {
    fn room(&self) -> usize {
        match self.full {
            true => 0,
            false => self.wanted.limit.saturating_sub(self.given.len()),
        }
    }

    /// Bytes that may be read: at least 1, so that a record that is bigger than all others gets through alone.
    fn bytes_left(&self) -> usize {
        limits::READ_BYTES_MAX.saturating_sub(self.bytes).max(1)
    }

    /// Takes a record if it fits; the first one always does.
    fn take(&mut self, spot: Spot, record: StoredRecord, before: Option<Delivery>) -> Option<Delivery> {
        let bytes = self.bytes + record.data.len() + record.partition_key.len();
        if !self.given.is_empty() && bytes > limits::READ_BYTES_MAX {
            self.full = true;
            return None;
        }
        let now_ms = self.now.millis();
        let delivery = Delivery {
            first_ms: before.map_or(now_ms, |d| d.first_ms),
            visible_ms: now_ms.saturating_add(self.wanted.visibility_ms),
            count: before.map_or(0, |d| d.count).saturating_add(1),
            generation: before.map_or(0, |d| d.generation).wrapping_add(1),
            dead: self.wanted.dead,
        };
        self.bytes = bytes;
        self.given.push(Given { spot, record, delivery });
        Some(delivery)
    }
}

impl Worker {
    /// Gives a receiver what is there for it, and writes it into the book.
    pub async fn find(
        &mut self,
        stream: &StreamState,
        wanted: &Receive,
        now: Timestamp,
    ) -> Result<Vec<Given>, ApiError> {
        let mut answer = Answer {
            wanted,
            now,
            horizon: stream.record.horizon(now),
            given: Vec::new(),
            bytes: 0,
            full: false,
        };
        let again_first = wanted.dead || self.again_first;
        if again_first {
            self.again(stream, &mut answer).await?;
        }
        if !wanted.dead {
            self.again_first = !self.again_first;
            self.new_ones(stream, &mut answer).await?;
        }
        if !again_first {
            self.again(stream, &mut answer).await?;
        }
        Ok(answer.given)
    }

    async fn read(
        &self,
        stream: &StreamState,
        (created, from): (Timestamp, Spot),
        records: usize,
        bytes: usize,
    ) -> Result<ReadBatch, ApiError> {
        let place = Position::At(SequenceNumber::before(created, from.shard, from.index));
        let read = self
            .service
            .records
            .read(stream.id, ShardId(from.shard), place, records, bytes);
        read.await
            .map_err(|e| log_failure(e, &stream.name.name, stream.name.account))
    }

    /// Records that were delivered before.
    async fn again(&mut self, stream: &StreamState, answer: &mut Answer<'_>) -> Result<(), ApiError> {
        for _ in 0..LOOKS {
            let visible = self.book.visible(answer.wanted.dead, answer.now.millis());
            let mut spots: Vec<Spot> = visible.take(answer.room()).collect();
            spots.sort_unstable();
            if spots.is_empty() {
                return Ok(());
            }
            let next_to = |a: &Spot, b: &Spot| a.shard == b.shard && a.index.checked_add(1) == Some(b.index);
            for run in spots.chunk_by(next_to) {
                self.again_run(stream, run, answer).await?;
            }
            if !answer.given.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same for records that lie side by side.
    async fn again_run(&mut self, stream: &StreamState, run: &[Spot], answer: &mut Answer<'_>) -> Result<(), ApiError> {
        let Some(first) = run.first() else { return Ok(()) };
        let Some(shard) = stream.record.shard(first.shard) else {
            run.iter().for_each(|spot| self.book.set(*spot, None));
            return Ok(());
        };
        let created = Timestamp::from_millis(shard.created_ms);
        let batch = self
            .read(stream, (created, *first), run.len(), answer.bytes_left())
            .await?;
        let read_to = index(batch.next);
        let mut records = batch.records.into_iter().peekable();
        for spot in run {
            let found = records.next_if(|r| r.sequence.index() == spot.index);
            match found.filter(|r| r.arrival >= answer.horizon) {
                Some(record) => {
                    let before = self.book.get(*spot).map(|(delivery, _)| delivery);
                    match answer.take(*spot, record, before) {
                        Some(delivery) => self.book.set(*spot, Some(delivery)),
                        None => return Ok(()),
                    }
                }
                // It is gone, or did not fit.
                None if spot.index < read_to => self.book.set(*spot, None),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Records that were not delivered yet, of one shard after the other.
    async fn new_ones(&mut self, stream: &StreamState, answer: &mut Answer<'_>) -> Result<(), ApiError> {
        let count = self.tips.shards.len();
        let begin = self.tips.turn;
        for nth in 0..count {
            if answer.room().min(self.book.room()) == 0 {
                return Ok(());
            }
            let at = (begin + nth).checked_rem(count).unwrap_or(0);
            let given = answer.given.len();
            for _ in 0..LOOKS {
                let Some(tip) = self.tips.shards.get(at).filter(|tip| tip.is_beyond(&self.book)) else {
                    break;
                };
                let (shard, created) = (tip.shard, tip.created);
                self.new_of_shard(stream, (shard, created), answer).await?;
                if answer.given.len() > given || answer.room() == 0 {
                    self.tips.turn = at + 1;
                    break;
                }
            }
        }
        Ok(())
    }

    async fn new_of_shard(
        &mut self,
        stream: &StreamState,
        (shard, created): (u32, Timestamp),
        answer: &mut Answer<'_>,
    ) -> Result<(), ApiError> {
        let from = Spot {
            shard,
            index: self.book.next(shard),
        };
        let room = answer.room().min(self.book.room());
        let batch = self.read(stream, (created, from), room, answer.bytes_left()).await?;
        let read_to = index(batch.next);
        let mut old = false;
        for record in batch.records {
            let spot = Spot {
                shard,
                index: record.sequence.index(),
            };
            if record.arrival < answer.horizon {
                old = true;
            } else {
                match answer.take(spot, record, None) {
                    Some(delivery) => self.book.set(spot, Some(delivery)),
                    None => return Ok(()),
                }
            }
            self.book.advance(shard, spot.index.saturating_add(1));
        }
        self.book.advance(shard, read_to);
        if old {
            let place = self
                .service
                .records
                .position_at_time(stream.id, ShardId(shard), answer.horizon);
            let place = place.await;
            let place = place.map_err(|e| log_failure(e, &stream.name.name, stream.name.account))?;
            self.book.advance(shard, index(place));
        }
        Ok(())
    }
}
