//! What an open log knows in memory: the control state, the indexes and the table of segments. Lanes change it after
//! their sync, readers look at it; it is rebuilt from the log at every open. No I/O happens under its lock, except that
//! a closed segment file is opened again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::metrics::{HistogramVec, IntCounterVec, MetricError, Metrics};
use base::{Clock, Disk, DiskFile, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::buffer::Buffers;
use crate::control::{Control, RangeSet};
use crate::frame::BLOCK;
use crate::index_db::IndexDb;
use crate::index_writer::Bell;
use crate::media_stream::MediaStream;
use crate::payload::{Extent, Log};
use crate::pool::Pool;
use crate::records::ShardId;
use crate::{Error, LogOptions, StreamId};

/// Segment files that are kept open.
const OPEN_FILES_MAX: usize = 256;

/// Where a fragment lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The commit frame; `len` is its payload's.
    pub commit: Extent,
    pub checksum: u32,
    pub extents: Box<[Extent]>,
}

/// Rows that the index on disk must lose.
#[derive(Debug)]
pub(crate) struct Purge {
    pub stream: StreamId,
    /// Their positions; `None` when the stream is deleted.
    pub gone: Option<RangeSet>,
    /// Fragments that went already.
    pub removed: u64,
    /// Who waits until they are gone.
    pub reply: Option<oneshot::Sender<Result<u64, Error>>>,
}

/// A place in a shard from which its frames can be found by walking forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signpost {
    pub first_index: u64,
    pub segment: u64,
    pub offset: u64,
    /// The newest arrival among the shard's records up to the next signpost, and all before.
    pub newest_arrival: Timestamp,
}

/// A signpost is put up only when the last one is so far behind.
const SIGNPOST_BYTES: u64 = 64 << 10;

/// One shard.
#[derive(Debug)]
pub(crate) struct ShardIndex {
    pub signposts: Vec<Signpost>,
    /// Index behind the newest record.
    pub next_index: u64,
    pub last_arrival: Option<Timestamp>,
    /// Takes no more records. Not in the log: who closed it knows.
    pub closed: bool,
    pub tip: watch::Sender<u64>,
}

impl ShardIndex {
    pub fn new(next_index: u64) -> Self {
        ShardIndex {
            signposts: Vec::new(),
            next_index,
            last_arrival: None,
            closed: false,
            tip: watch::Sender::new(next_index),
        }
    }

    /// Notes a frame of records behind all others.
    pub fn push(&mut self, frame: Signpost, count: u64) {
        let newest = self.signposts.last().map_or(frame.newest_arrival, |last| {
            last.newest_arrival.max(frame.newest_arrival)
        });
        match self.signposts.last_mut() {
            Some(last) if last.segment == frame.segment && frame.offset < last.offset + SIGNPOST_BYTES => {
                last.newest_arrival = newest;
            }
            _ => self.signposts.push(Signpost {
                newest_arrival: newest,
                ..frame
            }),
        }
        self.next_index = self.next_index.max(frame.first_index + count);
        self.last_arrival = Some(frame.newest_arrival);
    }

    /// Drops signposts whose records are all below `index`.
    pub fn trim(&mut self, index: u64) {
        let keep = self.signposts.partition_point(|s| s.first_index <= index);
        self.signposts.drain(..keep.saturating_sub(1));
        if self.next_index <= index {
            self.signposts.clear();
        }
    }
}

/// One segment in use.
#[derive(Debug)]
pub(crate) struct Segment {
    pub slot: u32,
    pub log: Log,
    pub lane: u16,
    pub salt: u32,
    pub file: Option<Arc<dyn DiskFile>>,
    /// Bytes that hold frames.
    pub end: u64,
    pub sealed: bool,
    /// A later, synced checkpoint holds all the control state in it.
    pub superseded: bool,
    /// Extents and commit frames that are needed.
    pub refs: u64,
    /// Dead extents that were not punched: offset and stride.
    pub dead: Vec<(u32, u32)>,
    pub dead_since: Option<Timestamp>,
    /// The highest index of each shard that has records here.
    pub newest: HashMap<(StreamId, ShardId), u64>,
    /// Damaged: never written over.
    pub quarantined: bool,
    /// Commits in it that the index on disk does not hold yet.
    pub fresh: u64,
    /// The index on disk says that an open need not read it.
    pub settled: bool,
}

/// The file of a slot.
pub(crate) fn slot_name(slot: u32) -> String {
    format!("segment-{slot:06}.log")
}

/// The slot of a file name.
pub(crate) fn slot_of(name: &str) -> Option<u32> {
    name.strip_prefix("segment-")?.strip_suffix(".log")?.parse().ok()
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub control: Control,
    pub media: HashMap<StreamId, MediaStream>,
    pub shards: HashMap<(StreamId, ShardId), ShardIndex>,
    pub segments: BTreeMap<u64, Segment>,
    /// Files of retired segments, to be written over.
    pub spares: Vec<(Log, u32)>,
    /// Slots whose files exist.
    pub slots: BTreeSet<u32>,
    /// How far each lane's open segment is durable.
    pub tails: BTreeMap<u64, u64>,
    pub next_segment: u64,
    pub epoch: u64,
    /// Numbers of fragments that are being received.
    pub open: HashSet<(StreamId, u64)>,
    /// Fragments that the index on disk does not hold yet, in the order of their commits; some may be gone since.
    pub fresh: VecDeque<(StreamId, u64)>,
    /// What the index on disk must lose.
    pub purges: VecDeque<Purge>,
    /// Media segments that are to be settled.
    pub unsettled: Vec<u64>,
    /// Media segments that were given up since the index on disk was last told.
    pub retired: Vec<u64>,
    /// Settled segments with dead extents that the index on disk does not know of.
    pub buried: BTreeSet<u64>,
    pub random: fastrand::Rng,
}

impl State {
    pub fn new(seed: u64) -> Self {
        State {
            control: Control::default(),
            media: HashMap::new(),
            shards: HashMap::new(),
            segments: BTreeMap::new(),
            spares: Vec::new(),
            slots: BTreeSet::new(),
            tails: BTreeMap::new(),
            next_segment: 1,
            epoch: 1,
            open: HashSet::new(),
            fresh: VecDeque::new(),
            purges: VecDeque::new(),
            unsettled: Vec::new(),
            retired: Vec::new(),
            buried: BTreeSet::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// A stream that is not deleted, made if missing.
    pub fn media_stream(&mut self, stream: StreamId) -> Option<&mut MediaStream> {
        let next = self.control.stream(stream)?.next_position;
        let media = self.media.entry(stream).or_insert_with(|| MediaStream::new(next));
        media.window.raise_position(next);
        Some(media)
    }

    /// The lowest slot without a file; it counts as taken from now on.
    pub fn new_slot(&mut self) -> u32 {
        let free = (0..).find(|slot| !self.slots.contains(slot)).unwrap_or(u32::MAX);
        self.slots.insert(free);
        free
    }

    /// An extent or commit frame is needed.
    pub fn hold(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.refs += 1;
        }
    }

    /// An extent is not needed any more.
    pub fn release_extent(&mut self, extent: &Extent, now: Timestamp) {
        if let Some(segment) = self.segments.get_mut(&extent.segment) {
            segment.refs = segment.refs.saturating_sub(1);
            segment.bury(extent, now);
            if segment.settled {
                self.buried.insert(extent.segment);
            }
        }
    }

    /// A fragment is not needed any more.
    pub fn release(&mut self, place: &Place, now: Timestamp) {
        for extent in &place.extents {
            self.release_extent(extent, now);
        }
        if let Some(segment) = self.segments.get_mut(&place.commit.segment) {
            segment.refs = segment.refs.saturating_sub(1);
        }
    }

    /// A fragment that is on disk is now in the window of its stream and in the queue of the index.
    pub fn note_fresh(&mut self, stream: StreamId, sequence: u64, place: &Place) {
        self.fresh.push_back((stream, sequence));
        if let Some(segment) = self.segments.get_mut(&place.commit.segment) {
            segment.fresh += 1;
        }
    }

    /// The index holds the fragment, or never will.
    pub fn unnote_fresh(&mut self, place: &Place) {
        if let Some(segment) = self.segments.get_mut(&place.commit.segment) {
            segment.fresh = segment.fresh.saturating_sub(1);
        }
    }

    /// Removes fragments that control says are gone. What the index on disk holds of them goes behind this; `reply` is
    /// answered then.
    pub fn drop_gone(
        &mut self,
        stream: StreamId,
        gone: RangeSet,
        reply: oneshot::Sender<Result<u64, Error>>,
        now: Timestamp,
    ) {
        let (unknown, rows) = match (self.control.streams.get(&stream), self.media.get_mut(&stream)) {
            (Some(control), Some(media)) => media.remove_gone(&control.gone),
            _ => (Vec::new(), false),
        };
        for entry in &unknown {
            self.unnote_fresh(&entry.place);
            self.release(&entry.place, now);
        }
        let removed = unknown.len() as u64;
        if !rows {
            let _ = reply.send(Ok(removed));
            return;
        }
        self.purges.push_back(Purge {
            stream,
            gone: Some(gone),
            removed,
            reply: Some(reply),
        });
    }

    /// Forgets a stream for ever.
    pub fn delete(&mut self, stream: StreamId, now: Timestamp) {
        self.control.delete(stream);
        self.shards.retain(|(s, _), _| *s != stream);
        let Some(media) = self.media.remove(&stream) else {
            return;
        };
        for entry in media.window.entries() {
            if media.fresh.contains(&entry.info.number.sequence()) {
                self.unnote_fresh(&entry.place);
                self.release(&entry.place, now);
            }
        }
        self.purges.push_back(Purge {
            stream,
            gone: None,
            removed: 0,
            reply: None,
        });
    }
}

impl Segment {
    /// Marks an extent as dead. The first block stays: it holds the header.
    pub fn bury(&mut self, extent: &Extent, now: Timestamp) {
        let stride = crate::frame::align_up(crate::frame::HEADER as u64 + u64::from(extent.len), BLOCK);
        if stride > BLOCK {
            self.dead
                .push((extent.offset, u32::try_from(stride).unwrap_or(u32::MAX)));
            self.dead_since.get_or_insert(now);
        }
    }

    /// True when nothing in it is needed.
    pub fn is_dead(&self, control: &Control) -> bool {
        let gone = |(stream, shard): &(StreamId, ShardId), newest: &u64| {
            control.deleted.contains(stream) || control.shard(*stream, *shard).is_none_or(|s| s.gone_below > *newest)
        };
        self.sealed
            && self.superseded
            && !self.quarantined
            && self.refs == 0
            && self.newest.iter().all(|(key, newest)| gone(key, newest))
    }
}

/// Counters of the log.
pub(crate) struct Meters {
    pub bytes_written: IntCounterVec,
    pub sync_seconds: HistogramVec,
    pub disk_full: IntCounterVec,
}

impl Meters {
    fn new(metrics: &Metrics) -> Result<Self, MetricError> {
        let log = &["log"];
        Ok(Meters {
            bytes_written: metrics.counter("sightglass_log_written_bytes_total", "Bytes written to segments.", log)?,
            sync_seconds: metrics.latency("sightglass_log_write_sync_seconds", "Duration of a group commit.", log)?,
            disk_full: metrics.counter(
                "sightglass_log_disk_full_total",
                "Batches refused for lack of space.",
                log,
            )?,
        })
    }
}

/// What lanes and readers share.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub options: LogOptions,
    pub meters: Meters,
    pub buffers: Arc<Buffers>,
    /// Memory that large frames are read into.
    pub reads: Pool,
    pub state: Mutex<State>,
    /// What of the index is not in memory. Never used under the lock of the state.
    pub index: IndexDb,
    /// Wakes its writer.
    pub bell: Bell,
    closed: AtomicBool,
}

impl Shared {
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, Error> {
        let wrap = |error: MetricError| Error::io("register metrics for", "log", std::io::Error::other(error));
        Ok(Arc::new(Shared {
            disk,
            clock,
            meters: Meters::new(metrics).map_err(wrap)?,
            index: IndexDb::open(&options.index)?,
            bell: Bell::default(),
            buffers: Buffers::new(options.buffer_bytes),
            reads: Pool::default(),
            state: Mutex::new(State::new(options.seed)),
            options,
            closed: AtomicBool::new(false),
        }))
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// True once the log was closed or has ended itself.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nothing is accepted from now on. True for the first caller.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// A segment's file and salt. `NotFound` if the segment is not there any more.
    pub fn segment_file(&self, id: u64) -> Result<(Arc<dyn DiskFile>, u32), Error> {
        let mut state = self.state.lock();
        let open = state.segments.values().filter(|s| s.file.is_some()).count();
        if open > OPEN_FILES_MAX
            && let Some((_, oldest)) = state
                .segments
                .iter_mut()
                .find(|(n, s)| **n != id && s.file.is_some() && s.sealed)
        {
            oldest.file = None;
        }
        let segment = state.segments.get_mut(&id).ok_or(Error::NotFound)?;
        if let Some(file) = &segment.file {
            return Ok((Arc::clone(file), segment.salt));
        }
        let name = slot_name(segment.slot);
        let file = self.disk.open(&name).map_err(|e| Error::io("open", &name, e))?;
        segment.file = Some(Arc::clone(&file));
        Ok((file, segment.salt))
    }
}
