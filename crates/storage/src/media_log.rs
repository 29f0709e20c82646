//! [`MediaStore`] on the segment log.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use base::Timestamp;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::buffer::ExtentBuffer;
use crate::control::RangeSet;
use crate::frame::{HEADER, Kind};
use crate::index::{CoverageFold, Entry};
use crate::limits::{FRAGMENT_BYTES_MAX, FRAMES_PER_FRAGMENT_MAX, LIST_LIMIT_MAX};
use crate::media::{
    Coverage, CoverageQuery, Cursor, FragmentInfo, FragmentQuery, FragmentRange, FragmentSink, FragmentSummary,
    FrameEntry, MediaStore, TimeAxis, Usage,
};
use crate::media_stream::MediaStream;
use crate::payload::{Commit, Extent};
use crate::plan::Request;
use crate::queue::Queue;
use crate::state::{Place, Shared};
use crate::{Corruption, Error, FragmentNumber, LimitExceeded, StreamId};

/// Fragments that one step of a trim takes: what one frame of the log and one wait for the index may hold.
const TRIM_STEP: usize = 5000;
/// Fragments of each stream that are looked at to find the oldest of all.
const TRIM_ALL_STEP: usize = 256;

/// Numbers that were reserved and not yet handed out.
#[derive(Default)]
struct Block {
    next: u64,
    last: u64,
}

struct Inner {
    shared: Arc<Shared>,
    lanes: Vec<Arc<Queue>>,
    blocks: Mutex<HashMap<StreamId, Arc<tokio::sync::Mutex<Block>>>>,
    next_open: AtomicU64,
}

/// See the module.
pub(crate) struct LogMediaStore {
    inner: Arc<Inner>,
}

impl LogMediaStore {
    pub fn new(shared: Arc<Shared>, lanes: Vec<Arc<Queue>>) -> Self {
        LogMediaStore {
            inner: Arc::new(Inner {
                shared,
                lanes,
                blocks: Mutex::default(),
                next_open: AtomicU64::new(1),
            }),
        }
    }

    /// Looks at a stream; `None` for an unknown one.
    fn look<T>(&self, stream: StreamId, f: impl FnOnce(&MediaStream) -> T) -> Option<T> {
        self.inner.shared.state.lock().media.get(&stream).map(f)
    }

    /// As [`Self::look`], with the positions of the stream that are gone.
    fn look_both<T>(&self, stream: StreamId, f: impl FnOnce(&MediaStream, &RangeSet) -> T) -> Option<T> {
        let state = self.inner.shared.state.lock();
        let gone = &state.control.streams.get(&stream)?.gone;
        state.media.get(&stream).map(|media| f(media, gone))
    }

    /// A stored fragment and its place.
    async fn entry(&self, stream: StreamId, number: FragmentNumber) -> Result<Entry<Place>, Error> {
        let found = self.look_both(stream, |media, gone| match media.window.get(number) {
            Some(entry) => Err(entry.clone()),
            None if media.is_whole() => Ok(None),
            None => Ok(Some(gone.clone())),
        });
        let gone = match found {
            Some(Err(entry)) => return Ok(entry),
            Some(Ok(Some(gone))) => gone,
            Some(Ok(None)) | None => return Err(Error::NotFound),
        };
        let row = self
            .inner
            .shared
            .blocking(move |shared| shared.index.get(stream, number.sequence()))
            .await?;
        row.filter(|row| row.info.number == number && !gone.contains(row.info.position))
            .ok_or(Error::NotFound)
    }

    async fn trim_positions(&self, stream: StreamId, gone: RangeSet) -> Result<u64, Error> {
        let lane = self.inner.lane(stream)?;
        lane.ask(|reply| Request::Trim { stream, gone, reply }).await
    }

    /// What must be gone so that `positions` are: they, and where they were the lowest ones, all below what is left.
    async fn trim_of(&self, stream: StreamId, mut positions: Vec<u64>) -> Result<RangeSet, Error> {
        positions.sort_unstable();
        let found = self.look_both(stream, |media, already| {
            (
                media.window.lowest_kept(&positions),
                media.window.next_position(),
                already.clone(),
            )
        });
        let (window, next, already) = found.ok_or(Error::NotFound)?;
        let mut gone = RangeSet::default();
        for position in &positions {
            gone.insert(*position, position.saturating_add(1));
        }
        let rows = self
            .inner
            .shared
            .blocking(move |shared| shared.index.lowest_kept(stream, &positions, &already))
            .await?;
        gone.insert(0, window.into_iter().chain(rows).min().unwrap_or(next));
        Ok(gone)
    }

    /// The fragments with the lowest numbers, and whether there are more.
    async fn first(&self, stream: StreamId, count: usize) -> Result<(Vec<FragmentInfo>, bool), Error> {
        let query = FragmentQuery::first(FragmentRange::All, count);
        let found = self.list(stream, &query).await?;
        let more = found.len() >= count.min(LIST_LIMIT_MAX);
        Ok((found, more))
    }

    /// The oldest fragments of all streams that are beyond `max_bytes`, and whether there may be more.
    async fn beyond(&self, max_bytes: u64) -> Result<(Vec<(StreamId, Vec<u64>)>, bool), Error> {
        let (streams, total) = {
            let state = self.inner.shared.state.lock();
            let total: u64 = state.media.values().map(|m| m.usage().bytes).sum();
            (state.media.keys().copied().collect::<Vec<_>>(), total)
        };
        let mut excess = total.saturating_sub(max_bytes);
        if excess == 0 {
            return Ok((Vec::new(), false));
        }
        let mut heads = HashMap::new();
        let mut heap = BinaryHeap::new();
        for stream in streams {
            let (found, more) = self.first(stream, TRIM_ALL_STEP).await?;
            heap.extend(found.first().map(|i| Reverse((i.server_timestamp, stream, 0usize))));
            heads.insert(stream, (found, more));
        }
        let mut positions: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
        while excess > 0
            && let Some(Reverse((_, stream, n))) = heap.pop()
        {
            let Some((found, more)) = heads.get(&stream) else {
                continue;
            };
            let Some(info) = found.get(n) else { continue };
            excess = excess.saturating_sub(u64::from(info.size));
            positions.entry(stream).or_default().push(info.position);
            match found.get(n + 1) {
                Some(next) => heap.push(Reverse((next.server_timestamp, stream, n + 1))),
                // What follows in this stream is not known: these go first.
                None if *more => break,
                None => {}
            }
        }
        Ok((positions.into_iter().collect(), excess > 0))
    }
}

impl Inner {
    fn lane(&self, stream: StreamId) -> Result<&Arc<Queue>, Error> {
        let at = stream.0.checked_rem(self.lanes.len() as u64).unwrap_or(0);
        self.lanes.get(usize::try_from(at).unwrap_or(0)).ok_or(Error::Closed)
    }
}

#[async_trait]
impl MediaStore for LogMediaStore {
    async fn allocate_number(&self, stream: StreamId, server: Timestamp) -> Result<FragmentNumber, Error> {
        if self.inner.shared.is_closed() {
            return Err(Error::Closed);
        }
        let block = Arc::clone(self.inner.blocks.lock().entry(stream).or_default());
        let mut block = block.lock().await;
        if block.next > block.last || block.next == 0 {
            let lane = self.inner.lane(stream)?;
            let (next, last) = match lane.ask(|reply| Request::Reserve { stream, reply }).await {
                Err(Error::NotFound) => {
                    self.inner.blocks.lock().remove(&stream);
                    return Err(Error::NotFound);
                }
                other => other?,
            };
            *block = Block { next, last };
        }
        let sequence = block.next;
        block.next += 1;
        let random = self.inner.shared.state.lock().random.u32(..);
        Ok(FragmentNumber::new(
            sequence,
            u64::try_from(server.millis()).unwrap_or(0),
            random,
        ))
    }

    async fn begin(&self, stream: StreamId, number: FragmentNumber) -> Result<Box<dyn FragmentSink>, Error> {
        let inner = &self.inner;
        {
            let mut state = inner.shared.state.lock();
            let media = state.media_stream(stream).ok_or(Error::NotFound)?;
            let stored = media.window.get(number).is_some();
            if stored || !state.open.insert((stream, number.sequence())) {
                return Err(Error::LimitExceeded(LimitExceeded {
                    what: "fragments of one number",
                    got: 2,
                    limit: 1,
                }));
            }
        }
        let open = inner.next_open.fetch_add(1, Ordering::Relaxed);
        inner.lane(stream)?.push(Request::Begin { open, stream, number })?;
        Ok(Box::new(LogSink {
            inner: Arc::clone(inner),
            stream,
            number,
            open,
            buffer: ExtentBuffer::new(&inner.shared.buffers),
            size: 0,
            spilled: None,
            ended: false,
        }))
    }

    async fn get(&self, stream: StreamId, number: FragmentNumber) -> Result<FragmentInfo, Error> {
        Ok(self.entry(stream, number).await?.info)
    }

    async fn list(&self, stream: StreamId, query: &FragmentQuery) -> Result<Vec<FragmentInfo>, Error> {
        let query = *query;
        let looked = self.look_both(stream, |media, gone| {
            let found = media.window.list(&query);
            let rest = (!media.answers(&query, &found)).then(|| gone.clone());
            (found, rest)
        });
        let (mut found, rest) = looked.unwrap_or_default();
        let Some(gone) = rest else { return Ok(found) };
        let rows = self
            .inner
            .shared
            .blocking(move |shared| shared.index.list(stream, &query, &gone))
            .await?;
        found.extend(rows);
        found.sort_unstable_by_key(|info| query.range.place_of(info));
        found.dedup_by_key(|info| info.number);
        if query.newest_first {
            found.reverse();
        }
        found.truncate(query.limit.min(LIST_LIMIT_MAX));
        Ok(found)
    }

    async fn coverage(&self, stream: StreamId, query: &CoverageQuery) -> Result<Coverage, Error> {
        let query = *query;
        let looked = self.look_both(stream, |media, gone| {
            let rows = (!media.is_whole()).then(|| (media.evicted.longest_ms, gone.clone()));
            (media.window.pieces(&query), rows)
        });
        let Some((window, rows)) = looked else {
            return Ok(Coverage::default());
        };
        let mut fold = CoverageFold::new(&query);
        let Some((longest_ms, gone)) = rows else {
            window.into_iter().all(|piece| fold.take(piece));
            return Ok(fold.finish());
        };
        let walk = move |shared: &Shared| {
            let mut window = window.into_iter().peekable();
            let from = query.from.plus_millis(-i64::from(longest_ms));
            let after = query
                .after
                .map_or((from, 0), |place| (place.time, place.number.sequence()));
            shared
                .index
                .walk(stream, query.axis, (from, query.to), after, &mut |piece| {
                    while let Some(newer) = window.next_if(|w| w.place() < piece.place()) {
                        if !fold.take(newer) {
                            return false;
                        }
                    }
                    // In the window too: what the row says is the same.
                    window.next_if(|w| w.place() == piece.place());
                    gone.contains(piece.position) || fold.take(piece)
                })?;
            window.all(|piece| fold.take(piece));
            Ok(fold.finish())
        };
        self.inner.shared.blocking(walk).await
    }

    async fn latest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error> {
        let query = FragmentQuery {
            newest_first: true,
            ..FragmentQuery::first(FragmentRange::All, 1)
        };
        Ok(self.list(stream, &query).await?.pop())
    }

    async fn earliest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error> {
        Ok(self.first(stream, 1).await?.0.pop())
    }

    async fn find_containing(
        &self,
        stream: StreamId,
        axis: TimeAxis,
        at: Timestamp,
    ) -> Result<Option<FragmentInfo>, Error> {
        let looked = self.look_both(stream, |media, gone| {
            let rows = (!media.answers_at(axis, at)).then(|| (media.evicted.longest_ms, gone.clone()));
            (media.window.around(axis, at), rows)
        });
        let Some(([mut holds, mut follows], rows)) = looked else {
            return Ok(None);
        };
        if let Some((longest_ms, gone)) = rows {
            let around = move |shared: &Shared| shared.index.around(stream, axis, at, longest_ms, &gone);
            let [held, followed] = self.inner.shared.blocking(around).await?;
            holds = holds.into_iter().chain(held).min_by_key(|info| info.number);
            follows = follows
                .into_iter()
                .chain(followed)
                .min_by_key(|info| (info.start(axis), info.number));
        }
        Ok(holds.or(follows))
    }

    async fn next_after(&self, stream: StreamId, cursor: Cursor) -> Result<Option<FragmentInfo>, Error> {
        let looked = self.look_both(stream, |media, gone| {
            let rows = (!media.answers_after(cursor)).then(|| gone.clone());
            (media.window.next_after(cursor), rows)
        });
        let Some((window, rows)) = looked else { return Ok(None) };
        let Some(gone) = rows else { return Ok(window) };
        let next = move |shared: &Shared| match cursor {
            Cursor::Position(position) => shared.index.after_position(stream, position, &gone),
            Cursor::Number(number) => {
                let range = FragmentRange::All;
                let query = FragmentQuery {
                    after: Some(range.place_at(number)),
                    ..FragmentQuery::first(range, 1)
                };
                Ok(shared.index.list(stream, &query, &gone)?.pop())
            }
        };
        let row = self.inner.shared.blocking(next).await?;
        let found = window.into_iter().chain(row);
        Ok(match cursor {
            Cursor::Number(_) => found.min_by_key(|info| info.number),
            Cursor::Position(_) => found.min_by_key(|info| info.position),
        })
    }

    async fn frames(&self, stream: StreamId, number: FragmentNumber) -> Result<Vec<FrameEntry>, Error> {
        let place = self.entry(stream, number).await?.place.commit;
        let now = self.inner.shared.read_frame_now(Kind::Commit, stream, &place);
        let now_is_read = now.is_some();
        let read = move |shared: &Shared| {
            let payload = match now {
                Some(payload) => payload,
                None => shared.read_frame(Kind::Commit, stream, &place)?,
            };
            let commit = Commit::decode(&payload).ok_or(Error::Corrupt(Corruption {
                stream: Some(stream),
                what: "commit frame",
                segment: place.segment,
                offset: u64::from(place.offset),
            }))?;
            Ok(commit.frames)
        };
        let answer = match now_is_read {
            true => read(&self.inner.shared),
            false => self.inner.shared.blocking(read).await,
        };
        self.gone_or(stream, number, answer).await
    }

    async fn read(&self, stream: StreamId, number: FragmentNumber, range: Range<u32>) -> Result<Bytes, Error> {
        let extents = self.entry(stream, number).await?.place.extents;
        if let Some(bytes) = read_range_now(&self.inner.shared, stream, &extents, &range) {
            return Ok(bytes);
        }
        let answer = self
            .inner
            .shared
            .blocking(move |shared| read_range(shared, stream, &extents, range))
            .await;
        self.gone_or(stream, number, answer).await
    }

    async fn extents(&self, stream: StreamId, number: FragmentNumber) -> Result<Vec<u32>, Error> {
        let extents = self.entry(stream, number).await?.place.extents;
        Ok(extents.iter().map(|extent| extent.len).collect())
    }

    /// In steps of at most [`TRIM_STEP`] fragments, so that neither memory nor the log sees all of a large trim at once.
    async fn trim(&self, stream: StreamId, older_than: Timestamp) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            let looked = self.look_both(stream, |media, gone| {
                let rows = (!media.is_whole()).then(|| gone.clone());
                (media.window.older(older_than), rows)
            });
            let Some((mut positions, rows)) = looked else {
                return Ok(removed);
            };
            let mut more = false;
            if let Some(gone) = rows {
                let older = move |shared: &Shared| shared.index.older(stream, older_than, TRIM_STEP, &gone);
                let rows = self.inner.shared.blocking(older).await?;
                more = rows.len() >= TRIM_STEP;
                positions.extend(rows);
            }
            if positions.is_empty() {
                return Ok(removed);
            }
            let gone = self.trim_of(stream, positions).await?;
            removed += self.trim_positions(stream, gone).await?;
            if !more {
                return Ok(removed);
            }
        }
    }

    async fn trim_to_size(&self, stream: StreamId, max_bytes: u64) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            let left = self.usage(stream).await?.bytes;
            if left <= max_bytes {
                return Ok(removed);
            }
            let (found, more) = self.first(stream, TRIM_STEP).await?;
            let mut excess = left - max_bytes;
            let mut positions = Vec::new();
            for info in &found {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(u64::from(info.size));
                positions.push(info.position);
            }
            if positions.is_empty() {
                return Ok(removed);
            }
            let gone = self.trim_of(stream, positions).await?;
            removed += self.trim_positions(stream, gone).await?;
            if excess == 0 || !more {
                return Ok(removed);
            }
        }
    }

    async fn trim_all_to_size(&self, max_bytes: u64) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            let (beyond, more) = self.beyond(max_bytes).await?;
            for (stream, positions) in beyond {
                let gone = match self.trim_of(stream, positions).await {
                    // It was deleted meanwhile.
                    Err(Error::NotFound) => continue,
                    other => other?,
                };
                removed += self.trim_positions(stream, gone).await?;
            }
            if !more {
                return Ok(removed);
            }
        }
    }

    async fn delete_stream(&self, stream: StreamId) -> Result<(), Error> {
        self.inner.blocks.lock().remove(&stream);
        let lane = self.inner.lane(stream)?;
        lane.ask(|reply| Request::Delete { stream, reply }).await
    }

    async fn usage(&self, stream: StreamId) -> Result<Usage, Error> {
        Ok(self.look(stream, MediaStream::usage).unwrap_or_default())
    }

    fn subscribe(&self, stream: StreamId) -> watch::Receiver<u64> {
        let mut state = self.inner.shared.state.lock();
        match state.media_stream(stream) {
            Some(media) => media.committed.subscribe(),
            None => watch::Sender::new(0).subscribe(),
        }
    }
}

impl LogMediaStore {
    /// A failed read of a fragment that was trimmed meanwhile (its place may hold another segment by now) is `NotFound`.
    async fn gone_or<T>(&self, stream: StreamId, number: FragmentNumber, answer: Result<T, Error>) -> Result<T, Error> {
        match answer {
            Err(Error::Corrupt(_) | Error::Io(_) | Error::NotFound) if self.entry(stream, number).await.is_err() => {
                Err(Error::NotFound)
            }
            other => other,
        }
    }
}

/// The bytes of a range of one extent that is in memory.
fn read_range_now(shared: &Shared, stream: StreamId, extents: &[Extent], range: &Range<u32>) -> Option<Bytes> {
    let mut start = 0u32;
    for extent in extents {
        let end = start.saturating_add(extent.len);
        if start <= range.start && range.start < end {
            // A range beyond the end is cut to it, where this is the end.
            let last = extents.last() == Some(extent);
            let to = range.end.min(if last { end } else { range.end });
            if to > end {
                return None;
            }
            let payload = shared.read_frame_now(Kind::Extent, stream, extent)?;
            return payload
                .get((range.start - start) as usize..(to.max(range.start) - start) as usize)
                .map(|part| payload.slice_ref(part));
        }
        start = end;
    }
    None
}

/// The bytes of a range, out of the extents it touches. An extent that lies in it whole is read into its place.
fn read_range(shared: &Shared, stream: StreamId, extents: &[Extent], range: Range<u32>) -> Result<Bytes, Error> {
    let mut touched = Vec::new();
    let mut start = 0u32;
    for extent in extents {
        let end = start.saturating_add(extent.len);
        if start < range.end && range.start < end {
            let from = range.start.saturating_sub(start) as usize;
            let to = (range.end.min(end) - start) as usize;
            touched.push((extent, from..to));
        }
        start = end;
    }
    if let [(extent, part)] = touched.as_slice() {
        return Ok(shared.read_frame(Kind::Extent, stream, extent)?.slice(part.clone()));
    }
    let mut whole = shared.reads.take(touched.iter().map(|(_, part)| part.len()).sum());
    let mut rest = whole.as_mut();
    for (extent, part) in touched {
        let (place, after) = rest.split_at_mut_checked(part.len()).unwrap_or_default();
        if part.len() == extent.len as usize {
            shared.read_payload(Kind::Extent, stream, extent, place)?;
        } else {
            let payload = shared.read_frame(Kind::Extent, stream, extent)?;
            if let Some(bytes) = payload.get(part).filter(|bytes| bytes.len() == place.len()) {
                place.copy_from_slice(bytes);
            }
        }
        rest = after;
    }
    Ok(whole.freeze())
}

struct LogSink {
    inner: Arc<Inner>,
    stream: StreamId,
    number: FragmentNumber,
    open: u64,
    buffer: ExtentBuffer,
    size: u64,
    /// The answer for the last extent that was handed to the lane.
    spilled: Option<oneshot::Receiver<Result<(), Error>>>,
    ended: bool,
}

impl LogSink {
    /// Hands what has gathered to the lane. At most one extent is on its way.
    async fn spill(&mut self) -> Result<(), Error> {
        self.settle().await?;
        let fresh = ExtentBuffer::new(&self.inner.shared.buffers);
        let buffer = std::mem::replace(&mut self.buffer, fresh);
        let (reply, answer) = oneshot::channel();
        let request = Request::Extent {
            open: self.open,
            buffer,
            reply,
        };
        self.inner.lane(self.stream)?.push(request)?;
        self.spilled = Some(answer);
        Ok(())
    }

    /// Waits until the last extent is written.
    async fn settle(&mut self) -> Result<(), Error> {
        match self.spilled.take() {
            Some(answer) => answer.await.unwrap_or(Err(Error::Closed)),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl FragmentSink for LogSink {
    fn number(&self) -> FragmentNumber {
        self.number
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let extent_max = self
            .inner
            .shared
            .options
            .extent_bytes
            .saturating_sub(HEADER)
            .max(HEADER);
        let size = self.size + bytes.len() as u64;
        limit("bytes of a fragment", size, FRAGMENT_BYTES_MAX)?;
        self.size = size;
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            let taken = self.buffer.fill(rest, extent_max);
            rest = rest.get(taken..).unwrap_or_default();
            if taken > 0 {
                continue;
            }
            if self.buffer.len() >= extent_max {
                self.spill().await?;
            } else if !self.buffer.grow() {
                // The budget is used up: what is here goes out, and its memory comes back before more is taken.
                self.spill().await?;
                self.settle().await?;
            }
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, summary: FragmentSummary) -> Result<FragmentInfo, Error> {
        limit(
            "frames of a fragment",
            summary.frames.len() as u64,
            FRAMES_PER_FRAGMENT_MAX as u64,
        )?;
        limit("header bytes of a fragment", u64::from(summary.header_len), self.size)?;
        self.settle().await?;
        let fresh = ExtentBuffer::new(&self.inner.shared.buffers);
        let last = Some(std::mem::replace(&mut self.buffer, fresh));
        self.ended = true;
        let open = self.open;
        let inner = Arc::clone(&self.inner);
        let lane = inner.lane(self.stream)?;
        lane.ask(|reply| Request::Commit {
            open,
            last,
            summary,
            reply,
        })
        .await
    }
}

impl Drop for LogSink {
    fn drop(&mut self) {
        if !self.ended
            && let Ok(lane) = self.inner.lane(self.stream)
        {
            let _ = lane.push(Request::Abort { open: self.open });
        }
    }
}

fn limit(what: &'static str, got: u64, limit: u64) -> Result<(), Error> {
    if got <= limit {
        return Ok(());
    }
    Err(Error::LimitExceeded(LimitExceeded { what, got, limit }))
}
