//! The lane's part for records: numbering, framing, and what becomes visible. See `lane.rs`.

use std::collections::HashMap;

use base::Timestamp;

use crate::frame::{ALIGN, BLOCK, HEADER, Kind, Subject, align_up};
use crate::lane::LaneCore;
use crate::limits::{PARTITION_KEY_BYTES_MAX, RECORD_BYTES_MAX, RECORDS_PER_APPEND_MAX};
use crate::payload::{Numbers, RECORD_OVERHEAD, ShardMade, Trim, put_record};
use crate::plan::{Effect, Reply};
use crate::records::{NewRecord, ShardId};
use crate::state::{ShardIndex, Signpost, State};
use crate::{Error, LimitExceeded, SequenceNumber, StreamId};

/// Payload bytes at which a frame of records is closed.
const FRAME_BYTES: usize = 512 << 10;
/// Records in one frame; the header has 16 bits for it.
const FRAME_RECORDS: usize = 4096;
/// Indexes reserved at a time; a restart skips what is left of a block.
const SHARD_BLOCK: u64 = 65_536;

/// What a lane knows of a shard ahead of the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardTail {
    pub created: Timestamp,
    /// The next index; after a failed batch it has skipped some.
    pub next: u64,
    /// 0 when it must be looked up.
    pub reserved_below: u64,
}

/// Newest arrival and count as a frame's subject holds them.
pub(crate) fn pack_arrival(newest: Timestamp, count: usize) -> u64 {
    let millis = u64::try_from(newest.millis()).unwrap_or(0).min((1 << 48) - 1);
    (millis << 16) | (count as u64 & 0xffff)
}

/// The inverse of [`pack_arrival`].
pub(crate) fn unpack_arrival(b: u64) -> (Timestamp, u64) {
    let millis = i64::try_from(b >> 16).unwrap_or(i64::MAX);
    (Timestamp::from_millis(millis), b & 0xffff)
}

fn check_limits(records: &[NewRecord]) -> Result<(), Error> {
    let limit = |what, got: usize, limit: usize| {
        if got <= limit {
            return Ok(());
        }
        let (got, limit) = (got as u64, limit as u64);
        Err(Error::LimitExceeded(LimitExceeded { what, got, limit }))
    };
    limit("records of an append", records.len(), RECORDS_PER_APPEND_MAX)?;
    for record in records {
        limit(
            "bytes of a partition key",
            record.partition_key.len(),
            PARTITION_KEY_BYTES_MAX,
        )?;
        limit("bytes of a record", record.data.len(), RECORD_BYTES_MAX)?;
    }
    Ok(())
}

impl LaneCore {
    pub(crate) fn stage_shard(&mut self, stream: StreamId, made: ShardMade, reply: Reply<()>) {
        let known = {
            let state = self.shared.state.lock();
            (state.control.deleted.contains(&stream))
                .then_some(Err(Error::NotFound))
                .or_else(|| state.control.shard(stream, made.shard).map(|_| Ok(())))
        };
        let staged = match known {
            Some(answer) => {
                let _ = reply.send(answer);
                return;
            }
            None => self.ensure_room(BLOCK),
        };
        match staged {
            Ok(()) => {
                let mut payload = Vec::new();
                made.encode(&mut payload);
                self.plan.small(Kind::Shard, stream.0, Subject::default(), &payload);
                self.plan.effects.push(Effect::Shard { stream, made, reply });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Nothing is written: the closing is the catalog's to remember. What is laid out is made visible first, so that who
    /// hears that the shard is closed sees all of it.
    pub(crate) fn stage_close_shard(&mut self, key: (StreamId, ShardId), closed: bool, reply: Reply<SequenceNumber>) {
        self.flush();
        if let Some(index) = self.shared.state.lock().shards.get_mut(&key) {
            index.closed = closed;
        }
        let next = self.shard_place(key);
        let _ = reply.send(next.map(|tail| SequenceNumber::before(tail.created, key.1.0, tail.next)));
    }

    pub(crate) fn stage_trim_shard(&mut self, stream: StreamId, shard: ShardId, below: u64, reply: Reply<()>) {
        if let Err(error) = self.ensure_room(BLOCK) {
            let _ = reply.send(Err(error));
            return;
        }
        let mut trim = Trim {
            shard: Some(shard),
            gone: Default::default(),
        };
        trim.gone.insert(0, below);
        let mut payload = Vec::new();
        trim.encode(&mut payload);
        self.plan.small(Kind::Trim, stream.0, Subject::default(), &payload);
        self.plan.effects.push(Effect::TrimShard {
            stream,
            shard,
            below,
            reply,
        });
    }

    pub(crate) fn stage_append(&mut self, records: &[NewRecord], reply: Reply<Vec<SequenceNumber>>) {
        let refused = self.refused;
        let staged = check_limits(records).and_then(|()| self.lay_append(records));
        match staged {
            // An earlier part of it met a full disk.
            Ok(_) if self.refused != refused => drop(reply.send(Err(Error::DiskFull))),
            Ok(sequences) => self.plan.effects.push(Effect::Appended { sequences, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn lay_append(&mut self, records: &[NewRecord]) -> Result<Vec<SequenceNumber>, Error> {
        let mut by_shard: Vec<((StreamId, ShardId), Vec<usize>)> = Vec::new();
        let mut places: HashMap<(StreamId, ShardId), usize> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            let key = (record.stream, record.shard);
            let place = *places.entry(key).or_insert(by_shard.len());
            if place == by_shard.len() {
                self.shard_tail(key)?;
                by_shard.push((key, Vec::new()));
            }
            if let Some((_, list)) = by_shard.get_mut(place) {
                list.push(index);
            }
        }
        let mut sequences = vec![None; records.len()];
        for (key, list) in by_shard {
            let mut rest = list.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(frame_records(records, rest));
                self.lay_records(key, records, now, &mut sequences)?;
                rest = later;
            }
        }
        Ok(sequences.into_iter().flatten().collect())
    }

    /// Lays out one frame of records of one shard.
    fn lay_records(
        &mut self,
        key: (StreamId, ShardId),
        records: &[NewRecord],
        which: &[usize],
        sequences: &mut [Option<SequenceNumber>],
    ) -> Result<(), Error> {
        let (stream, shard) = key;
        let mut payload = Vec::new();
        let mut newest = Timestamp::from_millis(i64::MIN);
        for record in which.iter().filter_map(|at| records.get(*at)) {
            put_record(&mut payload, record);
            newest = newest.max(record.arrival);
        }
        self.ensure_room(align_up((HEADER + payload.len()) as u64, ALIGN) + BLOCK)?;
        let count = which.len() as u64;
        let mut tail = self.shard_tail(key)?;
        if tail.next + count > tail.reserved_below {
            let end = tail.next + count + SHARD_BLOCK;
            let mut block = Vec::new();
            Numbers {
                shard: Some(shard),
                end,
            }
            .encode(&mut block);
            self.plan.small(Kind::Numbers, stream.0, Subject::default(), &block);
            self.plan.effects.push(Effect::ShardReserved {
                stream,
                shard,
                through: end,
            });
            tail.reserved_below = end;
        }
        let first_index = tail.next;
        tail.next += count;
        self.shard_tails.insert(key, tail);
        for (nth, at) in which.iter().enumerate() {
            if let Some(place) = sequences.get_mut(*at) {
                *place = Some(SequenceNumber::new(tail.created, shard.0, first_index + nth as u64));
            }
        }
        let subject = Subject {
            a: first_index,
            b: pack_arrival(newest, which.len()),
            c: shard.0,
        };
        let offset = self.plan.small(Kind::Records, stream.0, subject, &payload);
        let frame = Signpost {
            first_index,
            segment: self.active.as_ref().map_or(0, |a| a.id),
            offset,
            newest_arrival: newest,
        };
        self.plan.effects.push(Effect::Records {
            stream,
            shard,
            frame,
            count,
        });
        Ok(())
    }

    /// Where the next record of an open shard goes.
    fn shard_tail(&mut self, key: (StreamId, ShardId)) -> Result<ShardTail, Error> {
        let closed = self.shared.state.lock().shards.get(&key).is_some_and(|s| s.closed);
        if closed {
            Err(Error::ShardClosed)
        } else {
            self.shard_place(key)
        }
    }

    fn shard_place(&mut self, key: (StreamId, ShardId)) -> Result<ShardTail, Error> {
        let state = self.shared.state.lock();
        let Some(control) = state.control.shard(key.0, key.1) else {
            drop(state);
            self.shard_tails.remove(&key);
            return Err(Error::NotFound);
        };
        // Where this process begins with a shard it skips what is left of the block before.
        let tail = self.shard_tails.entry(key).or_insert(ShardTail {
            created: control.created,
            next: control.reserved_below,
            reserved_below: 0,
        });
        tail.reserved_below = tail.reserved_below.max(control.reserved_below);
        Ok(*tail)
    }
}

/// How many of the records fit into one frame; at least one.
fn frame_records(records: &[NewRecord], which: &[usize]) -> usize {
    let mut bytes = 0;
    let fits = which.iter().filter_map(|at| records.get(*at)).take_while(|r| {
        let first = bytes == 0;
        bytes += RECORD_OVERHEAD + r.partition_key.len() + r.data.len();
        first || bytes <= FRAME_BYTES
    });
    fits.take(FRAME_RECORDS).count().max(1)
}

/// Makes one thing about records true in memory that is true on disk.
pub(crate) fn apply(state: &mut State, effect: Effect) {
    match effect {
        Effect::Shard { stream, made, reply } => {
            let answer = make_shard(state, stream, made).ok_or(Error::NotFound);
            let _ = reply.send(answer);
        }
        Effect::ShardReserved { stream, shard, through } => {
            if let Some(s) = state.control.stream(stream).and_then(|c| c.shards.get_mut(&shard)) {
                s.reserved_below = s.reserved_below.max(through);
            }
        }
        Effect::Records {
            stream,
            shard,
            frame,
            count,
        } => add_records(state, stream, shard, frame, count),
        Effect::Appended { sequences, reply } => drop(reply.send(Ok(sequences))),
        Effect::TrimShard {
            stream,
            shard,
            below,
            reply,
        } => {
            if let Some(s) = state.control.stream(stream).and_then(|c| c.shards.get_mut(&shard)) {
                s.gone_below = s.gone_below.max(below);
            }
            if let Some(index) = state.shards.get_mut(&(stream, shard)) {
                index.trim(below);
            }
            let _ = reply.send(Ok(()));
        }
        _ => {}
    }
}

/// Makes a shard known; `None` if its stream is deleted.
pub(crate) fn make_shard(state: &mut State, stream: StreamId, made: ShardMade) -> Option<()> {
    let control = state.control.stream(stream)?;
    let shard = control
        .shards
        .entry(made.shard)
        .or_insert(crate::control::ShardControl {
            created: made.created,
            reserved_below: 0,
            gone_below: 0,
        });
    let next = shard.gone_below;
    let index = state.shards.entry((stream, made.shard));
    index.or_insert_with(|| ShardIndex::new(next));
    Some(())
}

/// Makes a frame of records visible.
pub(crate) fn add_records(state: &mut State, stream: StreamId, shard: ShardId, frame: Signpost, count: u64) {
    let Some(control) = state.control.shard(stream, shard) else {
        return;
    };
    let last = (frame.first_index + count).saturating_sub(1);
    if last < control.gone_below {
        return;
    }
    let Some(index) = state.shards.get_mut(&(stream, shard)) else {
        return;
    };
    index.push(frame, count);
    index.tip.send_replace(index.next_index);
    if let Some(segment) = state.segments.get_mut(&frame.segment) {
        let newest = segment.newest.entry((stream, shard)).or_insert(last);
        *newest = last.max(*newest);
    }
}
