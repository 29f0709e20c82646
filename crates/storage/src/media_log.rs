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
use crate::index::StreamIndex;
use crate::limits::{FRAGMENT_BYTES_MAX, FRAMES_PER_FRAGMENT_MAX};
use crate::media::{
    Coverage, CoverageQuery, Cursor, FragmentInfo, FragmentQuery, FragmentSink, FragmentSummary, FrameEntry,
    MediaStore, TimeAxis, Usage,
};
use crate::payload::{Commit, Extent};
use crate::plan::Request;
use crate::queue::Queue;
use crate::state::{Place, Shared};
use crate::{Corruption, Error, FragmentNumber, LimitExceeded, StreamId};

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

    /// Looks at a stream's index; `None` for an unknown one.
    fn look<T>(&self, stream: StreamId, f: impl FnOnce(&StreamIndex<Place>) -> T) -> Option<T> {
        self.inner.shared.state.lock().media.get(&stream).map(|m| f(&m.index))
    }

    async fn trim_positions(&self, stream: StreamId, gone: Option<RangeSet>) -> Result<u64, Error> {
        let Some(gone) = gone else { return Ok(0) };
        let lane = self.inner.lane(stream)?;
        lane.ask(|reply| Request::Trim { stream, gone, reply }).await
    }

    /// The oldest fragments of all streams that are beyond `max_bytes`.
    fn beyond(&self, max_bytes: u64) -> Vec<(StreamId, RangeSet)> {
        let state = self.inner.shared.state.lock();
        let total: u64 = state.media.values().map(|m| m.index.usage().bytes).sum();
        let mut excess = total.saturating_sub(max_bytes);
        let mut heap = BinaryHeap::new();
        for (stream, media) in &state.media {
            heap.extend(
                media
                    .index
                    .nth(0)
                    .map(|i| Reverse((i.server_timestamp, *stream, 0usize))),
            );
        }
        let mut positions: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
        while excess > 0
            && let Some(Reverse((_, stream, n))) = heap.pop()
        {
            let Some(media) = state.media.get(&stream) else {
                continue;
            };
            let Some(info) = media.index.nth(n) else { continue };
            excess = excess.saturating_sub(u64::from(info.size));
            positions.entry(stream).or_default().push(info.position);
            heap.extend(
                media
                    .index
                    .nth(n + 1)
                    .map(|i| Reverse((i.server_timestamp, stream, n + 1))),
            );
        }
        let gone = positions.into_iter().filter_map(|(stream, list)| {
            let media = state.media.get(&stream)?;
            Some((stream, media.index.trim_of(&list)))
        });
        gone.collect()
    }
}

impl Inner {
    fn lane(&self, stream: StreamId) -> Result<&Arc<Queue>, Error> {
        let at = stream.0.checked_rem(self.lanes.len() as u64).unwrap_or(0);
        self.lanes.get(usize::try_from(at).unwrap_or(0)).ok_or(Error::Closed)
    }
}

/// What must be gone so that `positions` are; `None` when there is nothing to do.
fn gone(index: &StreamIndex<Place>, positions: &[u64]) -> Option<RangeSet> {
    (!positions.is_empty()).then(|| index.trim_of(positions))
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
            let stored = media.index.get(number).is_some();
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
        let found = self.look(stream, |index| index.get(number).map(|e| e.info));
        found.flatten().ok_or(Error::NotFound)
    }

    async fn list(&self, stream: StreamId, query: &FragmentQuery) -> Result<Vec<FragmentInfo>, Error> {
        Ok(self.look(stream, |index| index.list(query)).unwrap_or_default())
    }

    async fn coverage(&self, stream: StreamId, query: &CoverageQuery) -> Result<Coverage, Error> {
        Ok(self.look(stream, |index| index.coverage(query)).unwrap_or_default())
    }

    async fn latest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error> {
        Ok(self.look(stream, StreamIndex::latest).flatten())
    }

    async fn earliest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error> {
        Ok(self.look(stream, StreamIndex::earliest).flatten())
    }

    async fn find_containing(
        &self,
        stream: StreamId,
        axis: TimeAxis,
        at: Timestamp,
    ) -> Result<Option<FragmentInfo>, Error> {
        Ok(self.look(stream, |index| index.find_containing(axis, at)).flatten())
    }

    async fn next_after(&self, stream: StreamId, cursor: Cursor) -> Result<Option<FragmentInfo>, Error> {
        Ok(self.look(stream, |index| index.next_after(cursor)).flatten())
    }

    async fn frames(&self, stream: StreamId, number: FragmentNumber) -> Result<Vec<FrameEntry>, Error> {
        let found = self.look(stream, |index| index.get(number).map(|e| e.place.commit));
        let place = found.flatten().ok_or(Error::NotFound)?;
        let read = move |shared: &Shared| {
            let payload = shared.read_frame(Kind::Commit, stream, &place)?;
            let commit = Commit::decode(&payload).ok_or(Error::Corrupt(Corruption {
                stream: Some(stream),
                what: "commit frame",
                segment: place.segment,
                offset: u64::from(place.offset),
            }))?;
            Ok(commit.frames)
        };
        let answer = self.inner.shared.blocking(read).await;
        self.gone_or(stream, number, answer)
    }

    async fn read(&self, stream: StreamId, number: FragmentNumber, range: Range<u32>) -> Result<Bytes, Error> {
        let found = self.look(stream, |index| index.get(number).map(|e| e.place.extents.clone()));
        let extents = found.flatten().ok_or(Error::NotFound)?;
        let answer = self
            .inner
            .shared
            .blocking(move |shared| read_range(shared, stream, &extents, range))
            .await;
        self.gone_or(stream, number, answer)
    }

    async fn extents(&self, stream: StreamId, number: FragmentNumber) -> Result<Vec<u32>, Error> {
        let lens = |extents: &[Extent]| extents.iter().map(|extent| extent.len).collect();
        let found = self.look(stream, |index| index.get(number).map(|e| lens(&e.place.extents)));
        found.flatten().ok_or(Error::NotFound)
    }

    async fn trim(&self, stream: StreamId, older_than: Timestamp) -> Result<u64, Error> {
        let gone = self
            .look(stream, |index| gone(index, &index.older(older_than)))
            .flatten();
        self.trim_positions(stream, gone).await
    }

    async fn trim_to_size(&self, stream: StreamId, max_bytes: u64) -> Result<u64, Error> {
        let gone = self
            .look(stream, |index| gone(index, &index.beyond(max_bytes)))
            .flatten();
        self.trim_positions(stream, gone).await
    }

    async fn trim_all_to_size(&self, max_bytes: u64) -> Result<u64, Error> {
        let mut removed = 0;
        for (stream, gone) in self.beyond(max_bytes) {
            removed += self.trim_positions(stream, Some(gone)).await?;
        }
        Ok(removed)
    }

    async fn delete_stream(&self, stream: StreamId) -> Result<(), Error> {
        self.inner.blocks.lock().remove(&stream);
        let lane = self.inner.lane(stream)?;
        lane.ask(|reply| Request::Delete { stream, reply }).await
    }

    async fn usage(&self, stream: StreamId) -> Result<Usage, Error> {
        Ok(self.look(stream, StreamIndex::usage).unwrap_or_default())
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
    fn gone_or<T>(&self, stream: StreamId, number: FragmentNumber, answer: Result<T, Error>) -> Result<T, Error> {
        let there = || self.look(stream, |index| index.get(number).is_some()) == Some(true);
        match answer {
            Err(Error::Corrupt(_) | Error::Io(_) | Error::NotFound) if !there() => Err(Error::NotFound),
            other => other,
        }
    }
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
