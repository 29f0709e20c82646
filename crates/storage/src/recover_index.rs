//! Recovery's half about the index on disk: which segments need not be read because it knows them, whether it fits the
//! log, and how it is built anew from a log of any size. The rules are in `docs/design/log.md`, "The index".

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use base::{DiskFile, Timestamp};

use crate::control::{Control, RangeSet};
use crate::frame::Kind;
use crate::index::Entry;
use crate::index_db::{Batch, SegmentRow};
use crate::payload::{Extent, Log, SegmentStart};
use crate::recover::{Found, drop_unborn, gather_control, merge_frame, whose};
use crate::scan::{Depth, Scan, head, place_of, scan};
use crate::state::{Place, Segment, Shared, State, slot_of};
use crate::{Error, StreamId};

/// Frames of segments that the index does not know, held in memory while the log is opened. Beyond that the index is
/// built anew, one segment at a time.
const FRAMES_HELD_MAX: usize = 500_000;
/// Fragments written in one transaction while the index is built.
const BUILD_BATCH: usize = 20_000;
/// Segments between two lines about the progress.
const PROGRESS_SEGMENTS: usize = 64;

/// A segment that is not looked at any further.
pub(crate) struct Known {
    pub id: u64,
    pub slot: u32,
    pub salt: u32,
    pub lane: u16,
    pub end: u64,
    /// As the index says; otherwise it was just read.
    pub settled: bool,
}

/// A piece of a fragment whose commit was not seen with it: it may be dead.
pub(crate) struct Orphan {
    pub stream: StreamId,
    pub sequence: u64,
    pub extent: Extent,
}

/// All segment files, as far as they had to be read.
#[derive(Default)]
pub(crate) struct Looked {
    pub found: Vec<Found>,
    /// Files without anything durable.
    pub blank: Vec<String>,
    pub known: Vec<Known>,
    /// First frames of those.
    pub starts: Vec<SegmentStart>,
    /// The highest epoch in those.
    pub epoch: u64,
    /// Control state of segments that were read and let go.
    pub control: Control,
    pub orphans: Vec<Orphan>,
    /// Segments that were read although the index calls them settled, and where they end: nothing was ever written behind
    /// that, nothing ever will be.
    pub settled: BTreeMap<u64, u64>,
    /// Those that the index calls unpunched.
    pub unpunched: BTreeSet<u64>,
}

struct Slot {
    slot: u32,
    name: String,
    start: Option<SegmentStart>,
    id: u64,
    salt: u32,
    epoch: u64,
}

/// Reads what must be read. `None` when the index knows too little of the log to be of use.
pub(crate) fn look(shared: &Shared) -> Result<Option<Looked>, Error> {
    let index = shared.index.segments()?;
    let builds = index.is_empty();
    let mut looked = Looked::default();
    let slots = heads(shared)?;
    let mut newest: HashMap<(Log, u16), u64> = HashMap::new();
    for slot in &slots {
        if let Some(start) = &slot.start {
            let last = newest.entry((start.log, start.lane)).or_default();
            *last = slot.id.max(*last);
        }
    }
    let mut later = Vec::new();
    let mut held = 0;
    for slot in slots {
        let row = index.get(&slot.id);
        let seat = row
            .and_then(|row| row.seat)
            .filter(|(s, salt, _)| (*s, *salt) == (slot.slot, slot.salt));
        let unpunched = row.is_some_and(|row| row.unpunched);
        let media = slot.start.filter(|start| start.log == Log::Media);
        let ends_lane = media.is_some_and(|start| newest.get(&(start.log, start.lane)) == Some(&slot.id));
        if let Some((_, _, end)) = seat.filter(|_| slot.start.is_some()) {
            looked.settled.insert(slot.id, end);
            if unpunched {
                looked.unpunched.insert(slot.id);
            }
        }
        match (media.filter(|_| !ends_lane), seat) {
            (Some(start), Some((_, _, end))) if !unpunched => {
                looked.settled.remove(&slot.id);
                looked.epoch = looked.epoch.max(slot.epoch);
                looked.starts.push(start);
                looked.known.push(known(&slot, start.lane, end, true));
            }
            (Some(_), _) => later.push(slot),
            (None, _) => looked.scan(shared, &slot)?,
        }
    }
    drop_unborn(&mut looked.found, &mut looked.blank);
    looked.control = gather_control(&looked.found);
    let all = later.len();
    for (n, slot) in later.iter().enumerate() {
        if !builds {
            looked.scan(shared, slot)?;
            held += looked.found.last().map_or(0, |f| f.scan.frames.len());
            if held > FRAMES_HELD_MAX {
                return Ok(None);
            }
            continue;
        }
        if n % PROGRESS_SEGMENTS == 0 && all > PROGRESS_SEGMENTS {
            tracing::info!(segment = n, of = all, "building the fragment index from the log");
        }
        looked.absorb(shared, slot)?;
    }
    looked.found.sort_by_key(|f| f.scan.id);
    Ok(Some(looked))
}

fn known(slot: &Slot, lane: u16, end: u64, settled: bool) -> Known {
    Known {
        id: slot.id,
        slot: slot.slot,
        salt: slot.salt,
        lane,
        end,
        settled,
    }
}

/// The first frame of every segment file, in the order of segments; those without a good one come first.
fn heads(shared: &Shared) -> Result<Vec<Slot>, Error> {
    let names = shared.disk.list().map_err(|e| Error::io("list", "the log", e))?;
    let mut slots = Vec::new();
    for name in names {
        let Some(slot) = slot_of(&name) else { continue };
        let file = shared.disk.open(&name).map_err(|e| Error::io("open", &name, e))?;
        let found = head(&file).map_err(|e| Error::io("read", &name, e))?;
        let (id, salt, epoch) = found.as_ref().map_or((0, 0, 0), |(h, _)| (h.segment, h.salt, h.epoch));
        slots.push(Slot {
            slot,
            name,
            start: found.map(|(_, start)| start),
            id,
            salt,
            epoch,
        });
    }
    slots.sort_by_key(|s| (s.id, s.slot));
    Ok(slots)
}

fn read(shared: &Shared, slot: &Slot) -> Result<(Arc<dyn DiskFile>, Option<Scan>), Error> {
    let file = shared
        .disk
        .open(&slot.name)
        .map_err(|e| Error::io("open", &slot.name, e))?;
    let scan = scan(&file, Depth::Control).map_err(|e| Error::io("read", &slot.name, e))?;
    Ok((file, scan))
}

impl Looked {
    fn scan(&mut self, shared: &Shared, slot: &Slot) -> Result<(), Error> {
        let (file, scan) = read(shared, slot)?;
        self.take(slot, file, scan);
        Ok(())
    }

    fn take(&mut self, slot: &Slot, file: Arc<dyn DiskFile>, scan: Option<Scan>) {
        let Some(scan) = scan else {
            self.blank.push(slot.name.clone());
            return;
        };
        let (log, lane) = whose(&scan);
        self.found.push(Found {
            slot: slot.slot,
            name: slot.name.clone(),
            file,
            scan,
            log,
            lane,
        });
    }

    /// Reads a segment into the index and lets it go, unless something is wrong with it.
    fn absorb(&mut self, shared: &Shared, slot: &Slot) -> Result<(), Error> {
        let (file, scan) = read(shared, slot)?;
        let whole = |s: &Scan| {
            let sealed = s.frames.last().is_some_and(|f| f.header.kind == Kind::Seal);
            sealed && s.gaps.is_empty() && s.frames.iter().all(|f| f.sound)
        };
        let (Some(start), Some(scan)) = (&slot.start, scan.as_ref().filter(|s| whole(s))) else {
            self.take(slot, file, scan);
            return Ok(());
        };
        let mut batch = Batch::default();
        let mut committed: HashSet<(u64, u64)> = HashSet::new();
        let mut extents = Vec::new();
        for frame in &scan.frames {
            let (header, stream) = (&frame.header, StreamId(frame.header.stream));
            self.epoch = self.epoch.max(header.epoch);
            if let Some(entry) = frame.commit.as_deref() {
                let Some(control) = self.control.stream(stream) else {
                    continue;
                };
                control.pass(entry.info.number, entry.info.position);
                if !control.gone.contains(entry.info.position) {
                    committed.insert((stream.0, entry.info.number.sequence()));
                    batch.entries.push((stream, entry.clone()));
                }
                if batch.entries.len() >= BUILD_BATCH {
                    shared.index.write(&std::mem::take(&mut batch))?;
                }
            } else if header.kind == Kind::Extent {
                extents.push((header.subject.a, stream, place_of(header)));
            } else if header.kind == Kind::Delete {
                self.control.delete(stream);
            } else if let Some(payload) = &frame.payload {
                merge_frame(&mut self.control, header.kind, stream, payload);
            }
        }
        shared.index.write(&batch)?;
        for (sequence, stream, extent) in extents {
            if !committed.contains(&(stream.0, sequence)) {
                self.orphans.push(Orphan {
                    stream,
                    sequence,
                    extent,
                });
            }
        }
        self.starts.push(*start);
        self.known.push(known(slot, start.lane, scan.end, false));
        Ok(())
    }
}

impl Known {
    pub fn seat(&self) -> Segment {
        Segment {
            slot: self.slot,
            log: Log::Media,
            lane: self.lane,
            salt: self.salt,
            file: None,
            end: self.end,
            sealed: true,
            superseded: self.settled,
            refs: 0,
            dead: Vec::new(),
            dead_since: None,
            newest: HashMap::new(),
            quarantined: false,
            fresh: 0,
            settled: self.settled,
        }
    }
}

/// Brings the index to what control says is gone, and holds it against the log. False when it does not fit. What fits is
/// counted into `state`.
pub(crate) fn fit(shared: &Shared, state: &mut State, found: &[Found]) -> Result<bool, Error> {
    for stream in shared.index.streams()?.into_keys() {
        if state.control.deleted.contains(&stream) {
            let mut all = RangeSet::default();
            all.insert(0, u64::MAX);
            tracing::info!(stream = stream.0, "forgetting the fragments of a deleted stream");
            shared.index.purge_gone(stream, &all, &mut |_| {})?;
            shared.index.forget_stream(stream)?;
        } else if let Some(control) = state.control.streams.get(&stream) {
            shared.index.purge_gone(stream, &control.gone, &mut |_| {})?;
        } else {
            return Ok(false);
        }
    }
    let rows = shared.index.segments()?;
    if !holds(shared, state, found, &rows)? {
        return Ok(false);
    }
    let mut batch = Batch::default();
    for (id, row) in &rows {
        match state.segments.get_mut(id) {
            Some(segment) => segment.refs += row.refs,
            None => batch.retired.push(*id),
        }
    }
    shared.index.write(&batch)?;
    for (stream, row) in shared.index.streams()? {
        if let Some(control) = state.control.stream(stream) {
            control.next_position = control.next_position.max(row.position + 1);
            control.numbers_through = control.numbers_through.max(row.sequence);
        }
        if let Some(media) = state.media_stream(stream) {
            media.evicted = row;
        }
    }
    Ok(true)
}

/// Every row points into a segment that is there, and the rows of the segments that were read are the commits in them.
fn holds(shared: &Shared, state: &State, found: &[Found], rows: &HashMap<u64, SegmentRow>) -> Result<bool, Error> {
    let mut missing = rows
        .iter()
        .filter(|(id, row)| (row.refs > 0 || row.commits > 0) && !state.segments.contains_key(id));
    if missing.next().is_some() {
        return Ok(false);
    }
    for f in found {
        let mut same = 0;
        for frame in &f.scan.frames {
            if let Some(entry) = frame.commit.as_deref()
                && is_stored(shared, StreamId(frame.header.stream), entry)?
            {
                same += 1;
            }
        }
        if same != rows.get(&f.scan.id).map_or(0, |row| row.commits) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True if the index holds exactly this.
pub(crate) fn is_stored(shared: &Shared, stream: StreamId, entry: &Entry<Place>) -> Result<bool, Error> {
    let row = shared.index.get(stream, entry.info.number.sequence())?;
    Ok(row.is_some_and(|row| row == *entry))
}

/// Extents that no fragment needs are dead: of trimmed fragments, and of those that were never committed.
pub(crate) fn bury_orphans(
    shared: &Shared,
    state: &mut State,
    orphans: Vec<Orphan>,
    now: Timestamp,
) -> Result<(), Error> {
    let mut needed: BTreeMap<(StreamId, u64), Option<Box<[Extent]>>> = BTreeMap::new();
    for Orphan {
        stream,
        sequence,
        extent,
    } in orphans
    {
        let known = match needed.entry((stream, sequence)) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                let window = state.media.get(&stream).and_then(|m| m.window.get_sequence(sequence));
                let extents = match window {
                    Some(entry) => Some(entry.place.extents.clone()),
                    None if state.control.deleted.contains(&stream) => None,
                    None => shared.index.get(stream, sequence)?.map(|row| row.place.extents),
                };
                new.insert(extents)
            }
        };
        let is_needed = known.as_ref().is_some_and(|extents| extents.contains(&extent));
        if !is_needed && let Some(segment) = state.segments.get_mut(&extent.segment) {
            segment.bury(&extent, now);
        }
    }
    Ok(())
}
