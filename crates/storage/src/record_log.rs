//! [`RecordLog`] on the segment log.

use std::sync::Arc;

use async_trait::async_trait;
use base::Timestamp;
use tokio::sync::watch;

use crate::frame::Header;
use crate::lane_records::unpack_arrival;
use crate::payload::{ShardMade, take_records};
use crate::plan::Request;
use crate::queue::Queue;
use crate::records::{NewRecord, Position, ReadBatch, RecordLog, ShardId, StoredRecord};
use crate::state::{Shared, Signpost};
use crate::{Error, SequenceNumber, StreamId};

/// See the module.
pub(crate) struct LogRecordLog {
    shared: Arc<Shared>,
    lanes: Vec<Arc<Queue>>,
}

/// What a reader needs to know of a shard, copied out of the index.
struct View {
    created: Timestamp,
    gone_below: u64,
    next_index: u64,
    last_arrival: Option<Timestamp>,
    /// Signposts from the one that covers the wanted place on.
    stretches: Vec<Stretch>,
}

/// What one signpost covers: frames up to an offset, of records below an index. Both count: when a shard has changed its
/// lane, the rest of a segment may hold records that come after those of another one.
struct Stretch {
    post: Signpost,
    end: u64,
    below: u64,
}

/// Signposts copied for one read.
const STRETCHES: usize = 256;

impl LogRecordLog {
    pub fn new(shared: Arc<Shared>, lanes: Vec<Arc<Queue>>) -> Self {
        LogRecordLog { shared, lanes }
    }

    async fn set_closed(&self, stream: StreamId, shard: ShardId, closed: bool) -> Result<SequenceNumber, Error> {
        self.lane(stream)?
            .ask(|reply| Request::CloseShard {
                stream,
                shard,
                closed,
                reply,
            })
            .await
    }

    fn lane(&self, stream: StreamId) -> Result<&Arc<Queue>, Error> {
        let at = stream.0.checked_rem(self.lanes.len() as u64).unwrap_or(0);
        self.lanes.get(usize::try_from(at).unwrap_or(0)).ok_or(Error::Closed)
    }
}

fn view(
    shared: &Shared,
    stream: StreamId,
    shard: ShardId,
    first: impl Fn(&[Signpost], u64) -> usize,
) -> Result<View, Error> {
    let state = shared.state.lock();
    let control = state.control.shard(stream, shard).ok_or(Error::NotFound)?;
    let index = state.shards.get(&(stream, shard)).ok_or(Error::NotFound)?;
    let at = first(&index.signposts, control.gone_below);
    let posts = index.signposts.get(at..).unwrap_or_default();
    let stretches = posts.iter().enumerate().take(STRETCHES).map(|(n, post)| {
        let next = posts.get(n + 1);
        let end = next.filter(|next| next.segment == post.segment).map(|next| next.offset);
        let end = end.or_else(|| state.segments.get(&post.segment).map(|s| s.end));
        Stretch {
            post: *post,
            end: end.unwrap_or(0),
            below: next.map_or(index.next_index, |next| next.first_index),
        }
    });
    Ok(View {
        created: control.created,
        gone_below: control.gone_below,
        next_index: index.next_index,
        last_arrival: index.last_arrival,
        stretches: stretches.collect(),
    })
}

/// Shows the records of a view in order, until `see` says that it is enough. True if the view was exhausted.
fn walk(
    shared: &Shared,
    view: &View,
    (stream, shard): (StreamId, ShardId),
    from: u64,
    see: &mut dyn FnMut(u64, StoredRecord) -> bool,
) -> Result<bool, Error> {
    for stretch in &view.stretches {
        let mut enough = false;
        let mut each = |header: &Header, payload: bytes::Bytes| {
            let (_, count) = unpack_arrival(header.subject.b);
            let first = header.subject.a;
            if first >= stretch.below {
                return false;
            }
            // What follows belongs to other shards, up to the next signpost.
            let more = first + count < stretch.below;
            if first + count <= from {
                return more;
            }
            let records = take_records(&payload, usize::try_from(count).unwrap_or(0)).unwrap_or_default();
            for (nth, record) in records.into_iter().enumerate() {
                let index = first + nth as u64;
                let stored = StoredRecord {
                    sequence: SequenceNumber::new(view.created, shard.0, index),
                    partition_key: record.partition_key,
                    explicit_hash_key: record.explicit_hash_key,
                    data: record.data,
                    sealed: record.sealed,
                    arrival: record.arrival,
                };
                if index >= from && !see(index, stored) {
                    enough = true;
                    return false;
                }
            }
            more
        };
        let post = &stretch.post;
        shared.walk_records(post.segment, post.offset, stretch.end, (stream, shard.0), &mut each)?;
        if enough {
            return Ok(false);
        }
    }
    Ok(view.stretches.len() < STRETCHES)
}

fn read(
    shared: &Shared,
    key: (StreamId, ShardId),
    from: Position,
    max_records: usize,
    max_bytes: usize,
) -> Result<ReadBatch, Error> {
    let wanted = |gone: u64| match from {
        Position::Trim => gone,
        Position::At(sequence) => sequence.index().max(gone),
        Position::After(sequence) => sequence.next_index().max(gone),
    };
    let view = view(shared, key.0, key.1, |posts, gone| {
        posts
            .partition_point(|p| p.first_index <= wanted(gone))
            .saturating_sub(1)
    })?;
    let start = wanted(view.gone_below);
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut next = start;
    let exhausted = walk(shared, &view, key, start, &mut |index, record| {
        bytes += record.data.len() + record.partition_key.len();
        if records.len() >= max_records || (bytes > max_bytes && !records.is_empty()) {
            return false;
        }
        next = index + 1;
        records.push(record);
        true
    })?;
    // Behind the last record of an exhausted view there is nothing but skipped indexes.
    let at_tip = next >= view.next_index || exhausted;
    if at_tip {
        next = next.max(view.next_index);
    } else if records.is_empty() {
        next = passed_over(&view, next);
    }
    Ok(ReadBatch {
        records,
        next: Position::At(SequenceNumber::before(view.created, key.1.0, next)),
        last_arrival: view.last_arrival,
        at_tip,
    })
}

/// Where to go on when all stretches of a view were damaged or gone.
fn passed_over(view: &View, next: u64) -> u64 {
    view.stretches.last().map_or(next, |s| next.max(s.below))
}

/// Index of the first record that arrived at `at` or later; the next index if there is none.
fn index_at_time(shared: &Shared, key: (StreamId, ShardId), at: Timestamp) -> Result<(Timestamp, u64), Error> {
    let view = view(shared, key.0, key.1, |posts, _| {
        posts.partition_point(|p| p.newest_arrival < at)
    })?;
    let mut found = None;
    walk(shared, &view, key, view.gone_below, &mut |index, record| {
        if record.arrival >= at {
            found = Some(index);
        }
        found.is_none()
    })?;
    Ok((view.created, found.unwrap_or(view.next_index)))
}

#[async_trait]
impl RecordLog for LogRecordLog {
    async fn create_shard(&self, stream: StreamId, shard: ShardId, created: Timestamp) -> Result<(), Error> {
        let made = ShardMade { shard, created };
        self.lane(stream)?
            .ask(|reply| Request::Shard { stream, made, reply })
            .await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<SequenceNumber>, Error> {
        let Some(first) = records.first().map(|r| r.stream) else {
            return Ok(Vec::new());
        };
        if records.iter().all(|r| r.stream == first) {
            return self.lane(first)?.ask(|reply| Request::Append { records, reply }).await;
        }
        // Streams may lie in different lanes.
        let mut sequences: Vec<Option<SequenceNumber>> = vec![None; records.len()];
        let mut groups: Vec<(StreamId, Vec<usize>, Vec<NewRecord>)> = Vec::new();
        for (at, record) in records.into_iter().enumerate() {
            match groups.iter_mut().find(|(stream, ..)| *stream == record.stream) {
                Some((_, places, group)) => {
                    places.push(at);
                    group.push(record);
                }
                None => groups.push((record.stream, vec![at], vec![record])),
            }
        }
        for (stream, places, records) in groups {
            let numbers = self
                .lane(stream)?
                .ask(|reply| Request::Append { records, reply })
                .await?;
            for (at, number) in places.into_iter().zip(numbers) {
                if let Some(place) = sequences.get_mut(at) {
                    *place = Some(number);
                }
            }
        }
        Ok(sequences.into_iter().flatten().collect())
    }

    async fn close_shard(&self, stream: StreamId, shard: ShardId) -> Result<SequenceNumber, Error> {
        self.set_closed(stream, shard, true).await
    }

    async fn reopen_shard(&self, stream: StreamId, shard: ShardId) -> Result<(), Error> {
        self.set_closed(stream, shard, false).await.map(drop)
    }

    async fn read(
        &self,
        stream: StreamId,
        shard: ShardId,
        from: Position,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<ReadBatch, Error> {
        let key = (stream, shard);
        self.shared
            .blocking(move |shared| read(shared, key, from, max_records, max_bytes))
            .await
    }

    async fn tip(&self, stream: StreamId, shard: ShardId) -> Result<Position, Error> {
        let view = view(&self.shared, stream, shard, |posts, _| posts.len())?;
        Ok(Position::At(SequenceNumber::before(
            view.created,
            shard.0,
            view.next_index,
        )))
    }

    async fn position_at_time(&self, stream: StreamId, shard: ShardId, at: Timestamp) -> Result<Position, Error> {
        let key = (stream, shard);
        let (created, index) = self
            .shared
            .blocking(move |shared| index_at_time(shared, key, at))
            .await?;
        Ok(Position::At(SequenceNumber::before(created, shard.0, index)))
    }

    fn watch(&self, stream: StreamId, shard: ShardId) -> Result<watch::Receiver<u64>, Error> {
        let state = self.shared.state.lock();
        state
            .shards
            .get(&(stream, shard))
            .map(|s| s.tip.subscribe())
            .ok_or(Error::NotFound)
    }

    async fn trim_before(&self, stream: StreamId, shard: ShardId, older_than: Timestamp) -> Result<(), Error> {
        let key = (stream, shard);
        let (_, below) = self
            .shared
            .blocking(move |shared| index_at_time(shared, key, older_than))
            .await?;
        let known = {
            let state = self.shared.state.lock();
            state.control.shard(stream, shard).map(|s| s.gone_below)
        };
        if known.ok_or(Error::NotFound)? >= below {
            return Ok(());
        }
        let lane = self.lane(stream)?;
        lane.ask(|reply| Request::TrimShard {
            stream,
            shard,
            below,
            reply,
        })
        .await
    }

    async fn delete_stream(&self, stream: StreamId) -> Result<(), Error> {
        self.lane(stream)?.ask(|reply| Request::Delete { stream, reply }).await
    }
}
