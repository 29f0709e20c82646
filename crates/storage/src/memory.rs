//! Fragments of streams that keep nothing (retention 0): a ring in memory, so that live readers and processors have
//! something to work on. Numbers come from the durable allocator all the same, so that none is ever given twice.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use base::{Clock, Timestamp};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::index::{Entry, StreamIndex};
use crate::limits::FRAGMENT_BYTES_MAX;
use crate::media::{
    Coverage, CoverageQuery, Cursor, FragmentInfo, FragmentQuery, FragmentSink, FragmentSummary, FrameEntry,
    MediaStore, TimeAxis, Usage,
};
use crate::{Error, FragmentNumber, LimitExceeded, StreamId};

/// Bounds of a stream's ring.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOptions {
    /// Fragments older than this are dropped.
    pub max_age_ms: i64,
    /// The oldest fragments of a stream are dropped beyond this.
    pub max_bytes_per_stream: u64,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions {
            max_age_ms: 300_000,
            max_bytes_per_stream: 200 << 20,
        }
    }
}

/// A fragment in memory.
#[derive(Clone)]
struct Held {
    payload: Bytes,
    frames: Arc<[FrameEntry]>,
}

struct Ring {
    index: StreamIndex<Held>,
    committed: watch::Sender<u64>,
}

impl Ring {
    fn new() -> Self {
        Ring {
            index: StreamIndex::default(),
            committed: watch::Sender::new(0),
        }
    }
}

#[derive(Default)]
struct State {
    rings: HashMap<StreamId, Ring>,
    deleted: HashSet<StreamId>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    options: MemoryOptions,
    state: Mutex<State>,
}

/// The ring; see the module.
pub struct MemoryMediaStore {
    numbers: Arc<dyn MediaStore>,
    inner: Arc<Inner>,
}

impl MemoryMediaStore {
    /// A store without fragments; numbers are taken from `numbers`.
    pub fn new(numbers: Arc<dyn MediaStore>, clock: Arc<dyn Clock>, options: MemoryOptions) -> Self {
        MemoryMediaStore {
            numbers,
            inner: Arc::new(Inner {
                clock,
                options,
                state: Mutex::new(State::default()),
            }),
        }
    }
}

impl Inner {
    /// Runs `f` on a stream's index after dropping what has become too old.
    fn with<T>(&self, stream: StreamId, f: impl FnOnce(&mut StreamIndex<Held>) -> T) -> Option<T> {
        let oldest = self.clock.now().plus_millis(-self.options.max_age_ms);
        let mut state = self.state.lock();
        let ring = state.rings.get_mut(&stream)?;
        ring.index.remove_older(oldest);
        Some(f(&mut ring.index))
    }

    fn commit(
        &self,
        stream: StreamId,
        number: FragmentNumber,
        summary: &FragmentSummary,
        payload: Bytes,
    ) -> Option<FragmentInfo> {
        let mut state = self.state.lock();
        if state.deleted.contains(&stream) {
            return None;
        }
        let ring = state.rings.entry(stream).or_insert_with(Ring::new);
        let position = ring.index.next_position();
        let info = FragmentInfo {
            number,
            server_timestamp: summary.server_timestamp,
            producer_timestamp: summary.producer_timestamp,
            length_ms: summary.length_ms,
            size: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            header_len: summary.header_len,
            position,
            frame_count: u32::try_from(summary.frames.len()).unwrap_or(u32::MAX),
            tracks_hash: summary.tracks_hash,
        };
        let held = Held {
            payload,
            frames: summary.frames.as_slice().into(),
        };
        ring.index.insert(Entry { info, place: held });
        ring.index
            .remove_older(self.clock.now().plus_millis(-self.options.max_age_ms));
        ring.index.remove_down_to(self.options.max_bytes_per_stream);
        ring.committed.send_replace(position);
        Some(info)
    }
}

#[async_trait]
impl MediaStore for MemoryMediaStore {
    async fn allocate_number(&self, stream: StreamId, server: Timestamp) -> Result<FragmentNumber, Error> {
        self.numbers.allocate_number(stream, server).await
    }

    async fn begin(&self, stream: StreamId, number: FragmentNumber) -> Result<Box<dyn FragmentSink>, Error> {
        Ok(Box::new(MemorySink {
            inner: Arc::clone(&self.inner),
            stream,
            number,
            payload: BytesMut::new(),
        }))
    }

    async fn get(&self, stream: StreamId, number: FragmentNumber) -> Result<FragmentInfo, Error> {
        let found = self.inner.with(stream, |index| index.get(number).map(|e| e.info));
        found.flatten().ok_or(Error::NotFound)
    }

    async fn list(&self, stream: StreamId, query: &FragmentQuery) -> Result<Vec<FragmentInfo>, Error> {
        Ok(self.inner.with(stream, |index| index.list(query)).unwrap_or_default())
    }

    async fn coverage(&self, stream: StreamId, query: &CoverageQuery) -> Result<Coverage, Error> {
        Ok(self
            .inner
            .with(stream, |index| index.coverage(query))
            .unwrap_or_default())
    }

    async fn latest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error> {
        Ok(self.inner.with(stream, |index| index.latest()).flatten())
    }

    async fn earliest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error> {
        Ok(self.inner.with(stream, |index| index.earliest()).flatten())
    }

    async fn find_containing(
        &self,
        stream: StreamId,
        axis: TimeAxis,
        at: Timestamp,
    ) -> Result<Option<FragmentInfo>, Error> {
        Ok(self
            .inner
            .with(stream, |index| index.find_containing(axis, at))
            .flatten())
    }

    async fn next_after(&self, stream: StreamId, cursor: Cursor) -> Result<Option<FragmentInfo>, Error> {
        Ok(self.inner.with(stream, |index| index.next_after(cursor)).flatten())
    }

    async fn frames(&self, stream: StreamId, number: FragmentNumber) -> Result<Vec<FrameEntry>, Error> {
        let found = self
            .inner
            .with(stream, |index| index.get(number).map(|e| e.place.frames.to_vec()));
        found.flatten().ok_or(Error::NotFound)
    }

    async fn read(&self, stream: StreamId, number: FragmentNumber, range: Range<u32>) -> Result<Bytes, Error> {
        let found = self
            .inner
            .with(stream, |index| index.get(number).map(|e| e.place.payload.clone()));
        let payload = found.flatten().ok_or(Error::NotFound)?;
        let end = (range.end as usize).min(payload.len());
        Ok(payload.slice((range.start as usize).min(end)..end))
    }

    async fn trim(&self, stream: StreamId, older_than: Timestamp) -> Result<u64, Error> {
        Ok(self
            .inner
            .with(stream, |index| index.remove_older(older_than))
            .unwrap_or(0))
    }

    async fn trim_to_size(&self, stream: StreamId, max_bytes: u64) -> Result<u64, Error> {
        Ok(self
            .inner
            .with(stream, |index| index.remove_down_to(max_bytes))
            .unwrap_or(0))
    }

    async fn trim_all_to_size(&self, max_bytes: u64) -> Result<u64, Error> {
        let mut state = self.inner.state.lock();
        let mut removed = 0;
        loop {
            let total: u64 = state.rings.values().map(|r| r.index.usage().bytes).sum();
            let oldest = state.rings.values_mut().filter(|r| r.index.usage().fragments > 0);
            let oldest = oldest.min_by_key(|r| r.index.earliest().map(|i| i.server_timestamp));
            match oldest {
                Some(ring) if total > max_bytes => removed += ring.index.remove_first(1),
                _ => return Ok(removed),
            }
        }
    }

    async fn delete_stream(&self, stream: StreamId) -> Result<(), Error> {
        let mut state = self.inner.state.lock();
        state.deleted.insert(stream);
        state.rings.remove(&stream);
        Ok(())
    }

    async fn usage(&self, stream: StreamId) -> Result<Usage, Error> {
        Ok(self.inner.with(stream, |index| index.usage()).unwrap_or_default())
    }

    fn subscribe(&self, stream: StreamId) -> watch::Receiver<u64> {
        let mut state = self.inner.state.lock();
        if state.deleted.contains(&stream) {
            return watch::Sender::new(0).subscribe();
        }
        state
            .rings
            .entry(stream)
            .or_insert_with(Ring::new)
            .committed
            .subscribe()
    }
}

struct MemorySink {
    inner: Arc<Inner>,
    stream: StreamId,
    number: FragmentNumber,
    payload: BytesMut,
}

#[async_trait]
impl FragmentSink for MemorySink {
    fn number(&self) -> FragmentNumber {
        self.number
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let size = self.payload.len() as u64 + bytes.len() as u64;
        if size > FRAGMENT_BYTES_MAX {
            return Err(LimitExceeded {
                what: "bytes of a fragment",
                got: size,
                limit: FRAGMENT_BYTES_MAX,
            }
            .into());
        }
        self.payload.extend_from_slice(&bytes);
        Ok(())
    }

    async fn commit(self: Box<Self>, summary: FragmentSummary) -> Result<FragmentInfo, Error> {
        let MemorySink {
            inner,
            stream,
            number,
            payload,
        } = *self;
        inner
            .commit(stream, number, &summary, payload.freeze())
            .ok_or(Error::NotFound)
    }
}
