//! Opening a log: from bytes that may have been through a power cut to the state that lanes go on with. The rules are in
//! `docs/design/log.md`, "Recovery". Everything here may be cut off at any point and begun again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::sync::Arc;

use base::{Disk, DiskFile, Timestamp};

use crate::control::Control;
use crate::frame::{BLOCK, HEADER, Header, Kind, Subject, align_up};
use crate::lane::Active;
use crate::lane_records::{add_records, make_shard, unpack_arrival};
use crate::payload::{Log, Numbers, Seal, ShardMade, Trim, decode_checkpoint};
use crate::records::ShardId;
use crate::recover_index::{Looked, Orphan, bury_orphans, fit, is_stored, look};
use crate::scan::{Depth, Frame, Scan, place_of, scan, verify};
use crate::state::{Segment, Shared, Signpost, State, slot_of};
use crate::store::{DamagedRange, RecoveryReport};
use crate::{Error, StreamId};

/// Most that is saved of a torn tail.
const TORN_SAVED_MAX: u64 = 16 << 20;
/// Bytes that are written again at a time.
const REWRITE_STEP: usize = 1 << 20;
/// How far commit positions jump after damage, so that no lost position is given out again.
const POSITION_JUMP: u64 = 1 << 20;

/// A segment's file and what it holds.
pub(crate) struct Found {
    pub slot: u32,
    pub name: String,
    pub file: Arc<dyn DiskFile>,
    pub scan: Scan,
    pub log: Log,
    pub lane: u16,
}

/// Where a lane goes on.
#[derive(Default)]
pub(crate) struct Tail {
    pub active: Option<Active>,
    pub previous: (u64, u64),
}

/// What recovery hands over.
pub(crate) struct Recovered {
    pub report: RecoveryReport,
    pub tails: HashMap<(Log, u16), Tail>,
    /// Segments that the index on disk calls unpunched.
    pub unpunched: BTreeSet<u64>,
}

/// Recovers the log into `shared`.
pub(crate) fn recover(shared: &Shared) -> Result<Recovered, Error> {
    let mut report = RecoveryReport::default();
    if let Some(recovered) = attempt(shared, &mut report)? {
        return Ok(recovered);
    }
    tracing::warn!("the fragment index does not fit the log and is built anew");
    shared.index.wipe()?;
    *shared.state.lock() = State::new(shared.options.seed);
    report.quarantined.clear();
    report.index_rebuilt = true;
    let recovered = attempt(shared, &mut report)?;
    // An empty index fits every log.
    recovered.ok_or(Error::Closed)
}

/// Recovers the log with the help of the index on disk; `None` if that does not fit.
fn attempt(shared: &Shared, report: &mut RecoveryReport) -> Result<Option<Recovered>, Error> {
    let Some(looked) = look(shared)? else {
        return Ok(None);
    };
    let Looked {
        mut found,
        blank,
        known,
        starts,
        epoch,
        control,
        orphans,
        settled,
        unpunched,
    } = looked;
    for name in blank {
        shared.disk.remove(&name).map_err(|e| Error::io("remove", &name, e))?;
    }
    report.segments = (found.len() + known.len()) as u64;
    report.segments_read = report.segments - known.iter().filter(|k| k.settled).count() as u64;
    let mut proven = proven_ends(&found);
    for start in starts {
        let end = proven.entry(start.previous).or_default();
        *end = start.previous_end.max(*end);
    }
    for (id, end) in &settled {
        let known = proven.entry(*id).or_default();
        *known = (*end).max(*known);
    }
    let epochs = found.iter().flat_map(|f| &f.scan.frames).map(|f| f.header.epoch);
    let epoch = epochs.max().unwrap_or(0).max(epoch) + 1;
    let mut damaged_control = false;
    for segment in &mut found {
        let last = proven.get(&segment.scan.id).copied();
        let end = settle(shared, segment, last, report).map_err(|e| Error::io("recover", &segment.name, e))?;
        damaged_control |= !report.quarantined.is_empty();
        segment.scan.frames.retain(|f| f.header.end() <= end);
        segment.scan.end = end;
    }
    // What the last process created, cut or saved aside becomes durable before anything is built on it.
    shared
        .disk
        .sync_dir()
        .map_err(|e| Error::io("sync directory of", "the log", e))?;

    let mut state = shared.state.lock();
    let state = &mut *state;
    state.slots.extend(found.iter().map(|f| f.slot));
    state.slots.extend(known.iter().map(|k| k.slot));
    state.control.merge(control);
    state.control.merge(gather_control(&found));
    state.epoch = state.epoch.max(epoch);
    state.segments.extend(known.iter().map(|k| (k.id, k.seat())));
    let tails = seat_segments(state, &found, report, &settled, shared)?;
    for id in settled.keys() {
        if let Some(segment) = state.segments.get_mut(id).filter(|s| !s.quarantined) {
            (segment.settled, segment.superseded) = (true, true);
        }
    }
    if !fit(shared, state, &found)? {
        return Ok(None);
    }
    build_indexes(shared, state, &found, orphans)?;
    if damaged_control {
        jump_positions(state);
    }
    report.fragments = state.media.values().map(|m| m.usage().fragments).sum();
    Ok(Some(Recovered {
        report: report.clone(),
        tails,
        unpunched,
    }))
}

/// Scans every segment file, in the order of ids. Beside them, the names of files without anything durable: created by a
/// lane that did not come so far as to sync a header.
pub(crate) fn find_segments(disk: &Arc<dyn Disk>, depth: Depth) -> Result<(Vec<Found>, Vec<String>), Error> {
    let names = disk.list().map_err(|e| Error::io("list", "the log", e))?;
    let mut slots: Vec<(u32, String)> = names.into_iter().filter_map(|n| slot_of(&n).map(|s| (s, n))).collect();
    slots.sort_unstable();
    let mut found: Vec<Found> = Vec::new();
    let mut blank = Vec::new();
    for (slot, name) in slots {
        let file = disk.open(&name).map_err(|e| Error::io("open", &name, e))?;
        match scan(&file, depth).map_err(|e| Error::io("read", &name, e))? {
            Some(scan) => {
                let (log, lane) = whose(&scan);
                found.push(Found {
                    slot,
                    name,
                    file,
                    scan,
                    log,
                    lane,
                });
            }
            None => blank.push(name),
        }
    }
    found.sort_by_key(|f| f.scan.id);
    drop_unborn(&mut found, &mut blank);
    Ok((found, blank))
}

/// A retired slot whose new header was torn before its sync still holds frames of the segment before, all of them dead.
/// The seal that ordered it proves that nothing durable is in it.
pub(crate) fn drop_unborn(found: &mut Vec<Found>, blank: &mut Vec<String>) {
    let mut ordered: HashMap<u32, u64> = HashMap::new();
    for seal in found
        .iter()
        .flat_map(|f| &f.scan.frames)
        .filter(|f| f.header.kind == Kind::Seal)
    {
        if let Some(seal) = seal.payload.as_ref().and_then(|p| Seal::decode(p)) {
            let newest = ordered.entry(seal.next_slot).or_insert(seal.next_segment);
            *newest = seal.next_segment.max(*newest);
        }
    }
    let unborn = |f: &Found| f.scan.start.is_none() && ordered.get(&f.slot).is_some_and(|next| *next > f.scan.id);
    blank.extend(found.iter().filter(|f| unborn(f)).map(|f| f.name.clone()));
    found.retain(|f| !unborn(f));
}

/// Log and lane of a segment whose first frame may be lost: then its frames tell the log, and no lane goes on in it.
pub(crate) fn whose(scan: &Scan) -> (Log, u16) {
    if let Some(start) = &scan.start {
        return (start.log, start.lane);
    }
    let records = scan
        .frames
        .iter()
        .any(|f| matches!(f.header.kind, Kind::Records | Kind::Shard));
    (if records { Log::Records } else { Log::Media }, u16::MAX)
}

/// Up to where each segment is proven durable, by any witness: its own frames, the segment that follows in its lane, and
/// checkpoints. `u64::MAX` where a successor proves all of it without naming the end.
pub(crate) fn proven_ends(found: &[Found]) -> HashMap<u64, u64> {
    let mut proven: HashMap<u64, u64> = HashMap::new();
    let mut raise = |segment: u64, end: u64| {
        let known = proven.entry(segment).or_default();
        *known = end.max(*known);
    };
    let mut newest: HashMap<(Log, u16), u64> = HashMap::new();
    for f in found {
        raise(f.scan.id, f.scan.proven);
        if let Some(start) = &f.scan.start {
            raise(start.previous, start.previous_end);
        }
        for frame in f.scan.frames.iter().filter(|f| f.header.kind == Kind::Checkpoint) {
            let tails = frame
                .payload
                .as_ref()
                .and_then(|p| decode_checkpoint(p))
                .map(|(_, tails)| tails);
            for (segment, end) in tails.unwrap_or_default() {
                raise(segment, end);
            }
        }
        let last = newest.entry((f.log, f.lane)).or_default();
        *last = f.scan.id.max(*last);
    }
    for f in found {
        let superseded = newest.get(&(f.log, f.lane)).is_some_and(|last| *last > f.scan.id);
        if superseded || f.lane == u16::MAX {
            // Frames are believed as far as they go.
            raise(f.scan.id, f.scan.end);
        }
    }
    proven
}

/// Decides where a segment ends. Damage below `proven` is reported and stays; the tail above the first damage behind it is
/// saved aside and cut. Returns the end.
fn settle(shared: &Shared, found: &Found, proven: Option<u64>, report: &mut RecoveryReport) -> io::Result<u64> {
    let proven = proven.unwrap_or(0);
    let scan = &found.scan;
    let range = |from: u64, to: u64| DamagedRange {
        file: found.name.clone(),
        segment: scan.id,
        offset: from,
        len: to.saturating_sub(from),
    };
    let mut torn_at = None;
    for gap in &scan.gaps {
        if gap.from < proven {
            report.quarantined.push(range(gap.from, gap.to));
        } else {
            torn_at = Some(gap.from);
            break;
        }
    }
    for frame in &scan.frames {
        let (from, to) = (frame.header.offset, frame.header.end());
        if torn_at.is_some_and(|at| from >= at) {
            break;
        }
        if from < proven {
            if !frame.sound {
                report.quarantined.push(range(from, to));
            }
        } else if !frame.sound || (frame.header.kind.is_bulk() && !verify(&found.file, &frame.header)?) {
            torn_at = Some(from);
            break;
        }
    }
    let end = torn_at.unwrap_or(scan.end);
    if end < proven && scan.end < proven && torn_at.is_none() {
        // The proven end lies behind the last believable frame.
        report.quarantined.push(range(scan.end, proven));
    }
    if let Some(at) = torn_at {
        save_aside(shared, found, at, scan.end)?;
        report.torn.push(range(at, scan.end));
        found.file.set_len(at)?;
    }
    if proven < scan.end || torn_at.is_some() {
        rewrite(&found.file, proven.min(end), end)?;
        found.file.sync_data()?;
    }
    Ok(end)
}

/// Writes the same bytes again. What is believed from here on must not depend on the page cache of the process that died:
/// after a failed fdatasync the cache shows pages that were never written and count as clean, so that another sync alone
/// would write nothing.
fn rewrite(file: &Arc<dyn DiskFile>, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    let mut bytes = vec![0; REWRITE_STEP];
    while at < to {
        let len = usize::try_from(to - at).unwrap_or(REWRITE_STEP).min(REWRITE_STEP);
        let step = bytes.get_mut(..len).unwrap_or_default();
        let got = file.read_at(step, at)?;
        let Some(read) = step.get(..got).filter(|r| !r.is_empty()) else {
            return Ok(());
        };
        match file.write_at(&[IoSlice::new(read)], at) {
            Ok(()) => at += got as u64,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Keeps what is cut off, for whoever wants to know. A full disk is no reason not to open.
fn save_aside(shared: &Shared, found: &Found, from: u64, to: u64) -> io::Result<()> {
    let name = format!("torn-{:06}-{from}.bin", found.scan.id);
    let mut bytes = vec![0; usize::try_from((to - from).min(TORN_SAVED_MAX)).unwrap_or(0)];
    let got = found.file.read_at(&mut bytes, from)?;
    bytes.truncate(got);
    let saved = shared
        .disk
        .create(&name)
        .or_else(|_| shared.disk.open(&name))
        .and_then(|file| {
            file.write_at(&[IoSlice::new(&bytes)], 0)?;
            file.sync_data()
        });
    if let Err(error) = saved {
        tracing::warn!(%name, %error, "a torn tail could not be saved aside");
    }
    Ok(())
}

/// The union of all control frames.
pub(crate) fn gather_control(found: &[Found]) -> Control {
    let mut control = Control::default();
    for frame in found.iter().flat_map(|f| &f.scan.frames) {
        let stream = StreamId(frame.header.stream);
        let Some(payload) = frame.payload.as_deref() else {
            if frame.header.kind == Kind::Delete && frame.sound {
                control.delete(stream);
            }
            continue;
        };
        merge_frame(&mut control, frame.header.kind, stream, payload);
    }
    control
}

pub(crate) fn merge_frame(control: &mut Control, kind: Kind, stream: StreamId, payload: &[u8]) {
    match kind {
        Kind::Delete => control.delete(stream),
        Kind::Checkpoint => {
            if let Some((part, _)) = decode_checkpoint(payload) {
                control.merge(part);
            }
        }
        Kind::Shard => {
            if let Some(made) = ShardMade::decode(payload) {
                control.merge_shard(stream, made.shard, shard_state(made.created, 0, 0));
            }
        }
        Kind::Numbers => match Numbers::decode(payload) {
            Some(Numbers { shard: None, end }) => {
                if let Some(state) = control.stream(stream) {
                    state.numbers_through = state.numbers_through.max(end);
                }
            }
            Some(Numbers {
                shard: Some(shard),
                end,
            }) => {
                control.merge_shard(stream, shard, shard_state(Timestamp::default(), end, 0));
            }
            None => {}
        },
        Kind::Trim => match Trim::decode(payload) {
            Some(Trim { shard: None, gone }) => {
                if let Some(state) = control.stream(stream) {
                    state.gone.merge(&gone);
                }
            }
            Some(Trim {
                shard: Some(shard),
                gone,
            }) => {
                let below = gone.iter().map(|(_, to)| to).max().unwrap_or(0);
                control.merge_shard(stream, shard, shard_state(Timestamp::default(), 0, below));
            }
            None => {}
        },
        _ => {}
    }
}

fn shard_state(created: Timestamp, reserved_below: u64, gone_below: u64) -> crate::control::ShardControl {
    crate::control::ShardControl {
        created,
        reserved_below,
        gone_below,
    }
}

/// Puts the segments into the table and finds where each lane goes on.
fn seat_segments(
    state: &mut State,
    found: &[Found],
    report: &RecoveryReport,
    settled: &BTreeMap<u64, u64>,
    shared: &Shared,
) -> Result<HashMap<(Log, u16), Tail>, Error> {
    let damaged: BTreeMap<u64, ()> = report.quarantined.iter().map(|d| (d.segment, ())).collect();
    let mut tails: HashMap<(Log, u16), Tail> = HashMap::new();
    for f in found {
        let limit = match f.log {
            Log::Media => shared.options.media_segment_bytes,
            Log::Records => shared.options.record_segment_bytes,
        };
        state.next_segment = state.next_segment.max(f.scan.id + 1);
        // Found in the order of ids, so the last one of a lane wins.
        let tail = tails.entry((f.log, f.lane)).or_default();
        tail.previous = (f.scan.id, f.scan.end);
        let has_seal = f.scan.frames.last().is_some_and(|f| f.header.kind == Kind::Seal);
        let goes_on = !has_seal
            && !settled.contains_key(&f.scan.id)
            && f.scan.start.is_some()
            && !damaged.contains_key(&f.scan.id)
            && f.scan.end >= BLOCK
            && f.scan.end + 8 * BLOCK <= limit;
        tail.active = goes_on.then(|| Active {
            id: f.scan.id,
            salt: f.scan.salt,
            file: Arc::clone(&f.file),
            name: f.name.clone(),
            offset: f.scan.end,
            proven: f.scan.end,
            created: f.scan.start.map_or(shared.now(), |s| s.created),
        });
        state
            .segments
            .insert(f.scan.id, seat(f, damaged.contains_key(&f.scan.id)));
    }
    for ((log, lane), tail) in &mut tails {
        let lanes = match log {
            Log::Media => shared.options.media_lanes,
            Log::Records => shared.options.record_lanes,
        };
        let (id, end) = tail.previous;
        state.tails.insert(id, end);
        let active = tail.active.take().filter(|_| *lane < lanes);
        tail.active = match active {
            Some(active) => fill_block(active, state.epoch)?,
            None => None,
        };
        if let Some(active) = &tail.active
            && let Some(segment) = state.segments.get_mut(&active.id)
        {
            segment.sealed = false;
            segment.end = active.offset;
            state.tails.insert(id, active.offset);
        }
    }
    Ok(tails)
}

/// Batches begin at whole blocks; where a cut left the end within one, an empty frame bridges the rest, so that the row of
/// frames has no gap. On a full disk the lane begins another segment instead.
fn fill_block(active: Active, epoch: u64) -> Result<Option<Active>, Error> {
    if active.offset.is_multiple_of(BLOCK) {
        return Ok(Some(active));
    }
    let end = align_up(active.offset + HEADER as u64, BLOCK);
    let header = Header {
        kind: Kind::Proof,
        salt: active.salt,
        payload_len: 0,
        stride: u32::try_from(end - active.offset).unwrap_or(u32::MAX),
        payload_crc: 0,
        segment: active.id,
        offset: active.offset,
        epoch,
        proven: active.proven,
        stream: 0,
        subject: Subject::default(),
    };
    let mut bytes = header.encode().to_vec();
    bytes.resize(usize::try_from(end - active.offset).unwrap_or(HEADER), 0);
    let wrap = |op, e| Error::io(op, &active.name, e);
    let written = active
        .file
        .write_at(&[IoSlice::new(&bytes)], active.offset)
        .map_err(|e| wrap("write", e));
    match written.and_then(|()| active.file.sync_data().map_err(|e| wrap("sync", e))) {
        Ok(()) => Ok(Some(Active {
            offset: end,
            proven: end,
            ..active
        })),
        Err(Error::DiskFull) => Ok(None),
        Err(error) => Err(error),
    }
}

fn seat(f: &Found, damaged: bool) -> Segment {
    Segment {
        slot: f.slot,
        log: f.log,
        lane: f.lane,
        salt: f.scan.salt,
        file: Some(Arc::clone(&f.file)),
        end: f.scan.end,
        sealed: true,
        superseded: false,
        refs: 0,
        dead: Vec::new(),
        dead_since: None,
        newest: HashMap::new(),
        quarantined: damaged,
        fresh: 0,
        settled: false,
    }
}

/// Indexes everything that control does not say is gone and the index on disk does not hold.
fn build_indexes(shared: &Shared, state: &mut State, found: &[Found], mut orphans: Vec<Orphan>) -> Result<(), Error> {
    let streams: Vec<(StreamId, Vec<ShardId>)> = {
        let streams = state.control.streams.iter();
        streams
            .map(|(id, s)| (*id, s.shards.keys().copied().collect()))
            .collect()
    };
    for (stream, shards) in streams {
        state.media_stream(stream);
        for shard in shards {
            let created = state
                .control
                .shard(stream, shard)
                .map_or(Timestamp::default(), |s| s.created);
            make_shard(state, stream, ShardMade { shard, created });
        }
    }
    let mut records: Vec<(StreamId, ShardId, Signpost, u64)> = Vec::new();
    for frame in found.iter().flat_map(|f| &f.scan.frames) {
        let header = &frame.header;
        match header.kind {
            Kind::Extent => orphans.push(Orphan {
                stream: StreamId(header.stream),
                sequence: header.subject.a,
                extent: place_of(header),
            }),
            Kind::Records => records.push(signpost_of(header)),
            Kind::Commit => index_commit(shared, state, frame)?,
            _ => {}
        }
    }
    // With another number of lanes than before, the order of segments is not that of indexes.
    records.sort_by_key(|(stream, shard, frame, _)| (*stream, *shard, frame.first_index));
    for (stream, shard, frame, count) in records {
        add_records(state, stream, shard, frame, count);
    }
    bury_orphans(shared, state, orphans, shared.now())?;
    for media in state.media.values() {
        media
            .committed
            .send_replace(media.window.next_position().saturating_sub(1));
    }
    Ok(())
}

fn signpost_of(header: &Header) -> (StreamId, ShardId, Signpost, u64) {
    let (newest_arrival, count) = unpack_arrival(header.subject.b);
    let signpost = Signpost {
        first_index: header.subject.a,
        segment: header.segment,
        offset: header.offset,
        newest_arrival,
    };
    (StreamId(header.stream), ShardId(header.subject.c), signpost, count)
}

fn index_commit(shared: &Shared, state: &mut State, frame: &Frame) -> Result<(), Error> {
    let Some(entry) = frame.commit.as_deref() else {
        return Ok(());
    };
    let stream = StreamId(frame.header.stream);
    let Some(control) = state.control.stream(stream) else {
        return Ok(());
    };
    control.pass(entry.info.number, entry.info.position);
    let gone = control.gone.contains(entry.info.position);
    let Some(media) = state.media_stream(stream) else {
        return Ok(());
    };
    let unknown = media.is_whole() || !is_stored(shared, stream, entry)?;
    if !gone && unknown && media.insert(entry.clone()) {
        state.hold(entry.place.commit.segment);
        for extent in &entry.place.extents {
            state.hold(extent.segment);
        }
        state.note_fresh(stream, entry.info.number.sequence(), &entry.place);
    }
    Ok(())
}

/// After damage a commit may be lost that someone has already gone past by its position.
fn jump_positions(state: &mut State) {
    let streams: Vec<StreamId> = state.control.streams.keys().copied().collect();
    for stream in streams {
        if let Some(control) = state.control.stream(stream) {
            control.next_position += POSITION_JUMP;
        }
        state.media_stream(stream);
    }
}
