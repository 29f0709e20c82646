//! A lane: the one writer of its segments. [`LaneCore`] has no thread of its own: in a server one drives it, in the
//! simulation the test does, step by step. It takes what waits, lays it out, writes, syncs once, makes it visible, and
//! answers, in this order.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;

use base::{DiskFile, Timestamp};

use crate::buffer::ExtentBuffer;
use crate::control::RangeSet;
use crate::frame::{BLOCK, HEADER, Kind, Subject};
use crate::index::Entry;
use crate::payload::{Commit, Extent, Log, Numbers, Seal, SegmentStart, Trim, encode_checkpoints};
use crate::plan::{Effect, Plan, Reply, Request, Stamp, refuse};
use crate::state::{Place, Segment, Shared, slot_name};
use crate::{Error, FragmentInfo, FragmentNumber, FragmentSummary, LimitExceeded, StreamId};

/// Room at the end of a segment for its seal.
const SEAL_ROOM: u64 = BLOCK;
/// The reserve file is made again when so much is free.
pub(crate) const RESERVE_REFILL_FREE: u64 = 16 << 20;

/// The segment that is written.
pub(crate) struct Active {
    pub id: u64,
    pub salt: u32,
    pub file: Arc<dyn DiskFile>,
    pub name: String,
    /// Where the next batch begins.
    pub offset: u64,
    /// Everything below is durable.
    pub proven: u64,
    pub created: Timestamp,
}

/// A fragment that is being received.
pub(crate) struct OpenFragment {
    pub stream: StreamId,
    pub number: FragmentNumber,
    pub extents: Vec<Extent>,
    size: u64,
    checksum: u32,
    pub failed: Option<Error>,
}

/// See the module.
pub(crate) struct LaneCore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) lane: u16,
    pub(crate) active: Option<Active>,
    pub(crate) plan: Plan,
    /// Leftovers of a failed batch may lie behind the end: the next one needs a higher epoch.
    pub(crate) epoch: u64,
    pub(crate) open: HashMap<u64, OpenFragment>,
    /// Commit positions given out in the current batch.
    pub(crate) positions: HashMap<StreamId, u64>,
    /// Ends of number blocks laid out in the current batch.
    pub(crate) blocks: HashMap<StreamId, u64>,
    pub(crate) shard_tails: HashMap<(StreamId, crate::ShardId), crate::lane_records::ShardTail>,
    /// The sealed segment before, and where it ended.
    previous: (u64, u64),
    /// Segments that wait for a checkpoint behind them.
    pub(crate) owed: Vec<u64>,
    /// Requests of a batch that found the disk full, and that free space.
    pub(crate) retries: Vec<Request>,
    /// Batches that found the disk full.
    pub(crate) refused: u64,
    pub(crate) failed: Option<Error>,
    pub(crate) reserve_held: bool,
    /// For the test that shows that acknowledging before the sync is caught.
    #[cfg(test)]
    pub(crate) acks_early: bool,
}

impl LaneCore {
    /// A lane that goes on in `active`, or begins a new segment behind `previous` (a sealed segment and its end, or 0).
    pub fn new(shared: Arc<Shared>, log: Log, lane: u16, active: Option<Active>, previous: (u64, u64)) -> Self {
        let epoch = shared.state.lock().epoch;
        let mut core = LaneCore {
            shared,
            log,
            lane,
            active,
            plan: Plan::new(
                Stamp {
                    segment: 0,
                    salt: 0,
                    epoch,
                    proven: 0,
                },
                0,
            ),
            epoch,
            open: HashMap::new(),
            positions: HashMap::new(),
            blocks: HashMap::new(),
            shard_tails: HashMap::new(),
            previous,
            owed: Vec::new(),
            retries: Vec::new(),
            refused: 0,
            failed: None,
            reserve_held: false,
            #[cfg(test)]
            acks_early: false,
        };
        core.plan = core.fresh_plan();
        core
    }

    pub(crate) fn fresh_plan(&self) -> Plan {
        let (segment, salt, proven, start) = match &self.active {
            Some(a) => (a.id, a.salt, a.proven, a.offset),
            None => (0, 0, 0, 0),
        };
        let stamp = Stamp {
            segment,
            salt,
            epoch: self.epoch,
            proven,
        };
        Plan::new(stamp, start)
    }

    fn segment_bytes(&self) -> u64 {
        match self.log {
            Log::Media => self.shared.options.media_segment_bytes,
            Log::Records => self.shared.options.record_segment_bytes,
        }
    }

    /// The lane's first act: the control state goes into the log once more, so that older segments hold data only. A full
    /// disk is no error: it is made up for by the first batch that finds room.
    pub fn start(&mut self) -> Result<(), Error> {
        self.fill_reserve();
        let sealed = {
            let state = self.shared.state.lock();
            let sealed = state.segments.iter().filter(|(_, s)| s.sealed && !s.superseded);
            sealed.map(|(id, _)| *id).collect()
        };
        self.owed = sealed;
        if self.ensure_room(BLOCK).is_ok() {
            self.stage_checkpoint_owed();
            self.flush();
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Does everything in `requests`, in order, with as few syncs as the segment's end allows.
    pub fn process(&mut self, requests: Vec<Request>) {
        for request in requests {
            if self.failed.is_some() {
                refuse(request, &Error::Closed);
                continue;
            }
            self.stage(request);
        }
        self.flush();
    }

    fn stage(&mut self, request: Request) {
        match request {
            Request::Reserve { stream, reply } => self.stage_reserve(stream, reply),
            Request::Begin { open, stream, number } => {
                let fragment = OpenFragment {
                    stream,
                    number,
                    extents: Vec::new(),
                    size: 0,
                    checksum: 0,
                    failed: None,
                };
                self.open.insert(open, fragment);
            }
            Request::Extent { open, buffer, reply } => match self.stage_extent(open, buffer) {
                Ok(extent) => self.plan.effects.push(Effect::Extent {
                    open,
                    extent,
                    reply: Some(reply),
                }),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Commit {
                open,
                last,
                summary,
                reply,
            } => self.stage_commit(open, last, &summary, reply),
            Request::Abort { open } => self.abandon(open),
            Request::Trim { stream, gone, reply } => self.stage_trim(stream, gone, reply),
            Request::Delete { stream, reply } => match self.ensure_room(BLOCK) {
                Ok(()) => {
                    self.plan.small(Kind::Delete, stream.0, Subject::default(), &[]);
                    self.plan.effects.push(Effect::Delete { stream, reply });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Shard { stream, made, reply } => self.stage_shard(stream, made, reply),
            Request::Append { records, reply } => self.stage_append(&records, reply),
            Request::CloseShard {
                stream,
                shard,
                closed,
                reply,
            } => self.stage_close_shard((stream, shard), closed, reply),
            Request::TrimShard {
                stream,
                shard,
                below,
                reply,
            } => self.stage_trim_shard(stream, shard, below, reply),
            Request::Tick => self.tick(),
            Request::Close { reply } => self.stage_close(reply),
        }
    }

    fn stage_close(&mut self, reply: Reply<()>) {
        if self.active.is_none() {
            let _ = reply.send(Ok(()));
            return;
        }
        self.flush();
        match self.ensure_room(BLOCK) {
            Ok(()) => {
                self.plan.small(Kind::Proof, 0, Subject::default(), &[]);
                self.plan.effects.push(Effect::Closed { reply });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn stage_reserve(&mut self, stream: StreamId, reply: Reply<(u64, u64)>) {
        let known = {
            let mut state = self.shared.state.lock();
            state.control.stream(stream).map(|s| s.numbers_through)
        };
        let Some(known) = known else {
            let _ = reply.send(Err(Error::NotFound));
            return;
        };
        if let Err(error) = self.ensure_room(BLOCK) {
            let _ = reply.send(Err(error));
            return;
        }
        let through = self.blocks.get(&stream).copied().unwrap_or(0).max(known);
        let block = self.shared.options.number_block.max(1);
        let last = (through / block + 1).saturating_mul(block);
        let mut payload = Vec::new();
        Numbers { shard: None, end: last }.encode(&mut payload);
        self.plan.small(Kind::Numbers, stream.0, Subject::default(), &payload);
        self.blocks.insert(stream, last);
        let first = through + 1;
        self.plan.effects.push(Effect::Reserved {
            stream,
            first,
            last,
            reply,
        });
    }

    fn stage_extent(&mut self, open: u64, buffer: ExtentBuffer) -> Result<Extent, Error> {
        if let Some(error) = self.open.get(&open).ok_or(Error::NotFound)?.failed.clone() {
            return Err(error);
        }
        let (len, crc) = (buffer.len(), buffer.crc());
        self.ensure_room(buffer.stride() + BLOCK).inspect_err(|error| {
            if let Some(fragment) = self.open.get_mut(&open) {
                fragment.failed = Some(error.clone());
            }
        })?;
        let fragment = self.open.get_mut(&open).ok_or(Error::NotFound)?;
        let offset = self.plan.extent(buffer, fragment.stream.0, subject(fragment.number));
        let extent = Extent {
            segment: self.active.as_ref().map_or(0, |a| a.id),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            len: u32::try_from(len).unwrap_or(u32::MAX),
        };
        fragment.extents.push(extent);
        fragment.checksum = crc32c::crc32c_combine(fragment.checksum, crc, len);
        fragment.size += len as u64;
        Ok(extent)
    }

    fn stage_commit(
        &mut self,
        open: u64,
        last: Option<ExtentBuffer>,
        summary: &FragmentSummary,
        reply: Reply<FragmentInfo>,
    ) {
        match self.lay_commit(open, last, summary) {
            Ok((stream, entry)) => self.plan.effects.push(Effect::Commit {
                open,
                stream,
                entry,
                reply,
            }),
            Err(error) => {
                self.abandon(open);
                let _ = reply.send(Err(error));
            }
        }
    }

    fn lay_commit(
        &mut self,
        open: u64,
        last: Option<ExtentBuffer>,
        summary: &FragmentSummary,
    ) -> Result<(StreamId, Entry<Place>), Error> {
        if let Some(buffer) = last.filter(|b| b.len() > 0) {
            let extent = self.stage_extent(open, buffer)?;
            self.plan.effects.push(Effect::Extent {
                open,
                extent,
                reply: None,
            });
        }
        let mut commit = Commit {
            position: 0,
            server_timestamp: summary.server_timestamp,
            producer_timestamp: summary.producer_timestamp,
            length_ms: summary.length_ms,
            size: 0,
            header_len: summary.header_len,
            checksum: 0,
            extents: Vec::new(),
            frames: summary.frames.clone(),
            tracks_hash: summary.tracks_hash,
        };
        let mut payload = Vec::new();
        let fragments = self.open.get(&open).map_or(0, |f| f.extents.len());
        commit.encode(&mut payload);
        // The flush that this may cause comes before the fragment's state is looked at.
        self.ensure_room((HEADER + payload.len() + 16 * fragments) as u64 + BLOCK)?;
        let fragment = self.open.get(&open).ok_or(Error::NotFound)?;
        if let Some(error) = &fragment.failed {
            return Err(error.clone());
        }
        let (stream, number) = (fragment.stream, fragment.number);
        let next = {
            let mut state = self.shared.state.lock();
            state
                .media_stream(stream)
                .map(|m| m.window.next_position())
                .ok_or(Error::NotFound)?
        };
        commit.position = self.positions.get(&stream).copied().unwrap_or(0).max(next);
        self.positions.insert(stream, commit.position + 1);
        commit.size = u32::try_from(fragment.size).unwrap_or(u32::MAX);
        commit.checksum = fragment.checksum;
        commit.extents.clone_from(&fragment.extents);
        payload.clear();
        commit.encode(&mut payload);
        let offset = self.plan.small(Kind::Commit, stream.0, subject(number), &payload);
        let place = Extent {
            segment: self.active.as_ref().map_or(0, |a| a.id),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        };
        Ok((stream, entry_of(number, &commit, place)))
    }

    /// A fragment will not be committed: what was written of it is dead.
    fn abandon(&mut self, open: u64) {
        let Some(fragment) = self.open.get_mut(&open) else {
            return;
        };
        // Extents in the batch are not accounted for yet; the batch's own effect must come first.
        let in_plan = |e: &Effect| matches!(e, Effect::Extent { open: o, .. } if *o == open);
        if self.plan.effects.iter().any(in_plan) {
            fragment.failed.get_or_insert(Error::Closed);
            self.flush();
        }
        let Some(fragment) = self.open.remove(&open) else {
            return;
        };
        let now = self.shared.now();
        let mut state = self.shared.state.lock();
        state.open.remove(&(fragment.stream, fragment.number.sequence()));
        for extent in &fragment.extents {
            state.release_extent(extent, now);
        }
    }

    fn stage_trim(&mut self, stream: StreamId, gone: RangeSet, reply: Reply<u64>) {
        if let Err(error) = self.ensure_room(2 * BLOCK + 16 * gone.iter().count() as u64) {
            let _ = reply.send(Err(error));
            return;
        }
        let mut payload = Vec::new();
        let trim = Trim { shard: None, gone };
        trim.encode(&mut payload);
        self.plan.small(Kind::Trim, stream.0, Subject::default(), &payload);
        self.plan.effects.push(Effect::Trim {
            stream,
            gone: trim.gone,
            reply,
        });
    }

    /// Makes sure that `bytes` more fit into the open segment behind the plan; otherwise writes the plan and rolls.
    pub(crate) fn ensure_room(&mut self, bytes: u64) -> Result<(), Error> {
        let limit = self.segment_bytes();
        if bytes + 4 * BLOCK + SEAL_ROOM > limit {
            return Err(Error::LimitExceeded(LimitExceeded {
                what: "bytes of one write",
                got: bytes,
                limit,
            }));
        }
        if self.plan.is_empty() && self.active.is_some() && !self.owed.is_empty() {
            self.stage_checkpoint_owed();
        }
        if self.active.is_some() && self.plan.end() + bytes + SEAL_ROOM <= limit {
            return Ok(());
        }
        self.flush();
        self.check()?;
        self.roll()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.failed.is_some() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Closes the open segment and opens the next one. The next one is prepared first, so that a full disk is found out
    /// while the lane still has a segment; it becomes valid only with the sync of its header, after the seal's.
    pub(crate) fn roll(&mut self) -> Result<(), Error> {
        let (id, salt, slot, spare) = {
            let mut state = self.shared.state.lock();
            let id = state.next_segment;
            state.next_segment += 1;
            let salt = state.random.u32(..);
            let spare = state.spares.iter().position(|(log, _)| *log == self.log);
            let spare = spare.map(|at| state.spares.swap_remove(at).1);
            let slot = spare.unwrap_or_else(|| state.new_slot());
            (id, salt, slot, spare.is_some())
        };
        let name = slot_name(slot);
        let opened = if spare {
            self.shared.disk.open(&name)
        } else {
            self.shared.disk.create_sized(&name, self.segment_bytes())
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                self.give_back_slot(slot, spare);
                return Err(self.device_error("create", &name, error));
            }
        };
        if let Err(error) = self.seal_active(slot, id) {
            self.give_back_slot(slot, spare);
            return Err(error);
        }
        let (previous, previous_end) = self.previous;
        let created = self.shared.now();
        let start = SegmentStart {
            log: self.log,
            lane: self.lane,
            created,
            previous,
            previous_end,
        };
        let mut payload = Vec::new();
        start.encode(&mut payload);
        let stamp = Stamp {
            segment: id,
            salt,
            epoch: self.epoch,
            proven: 0,
        };
        let mut head = Plan::new(stamp, 0);
        head.small(Kind::Segment, 0, Subject::default(), &payload);
        head.seal();
        let pieces: Vec<IoSlice<'_>> = head.bytes().map(IoSlice::new).collect();
        if let Err(error) = file.write_at(&pieces, 0) {
            self.give_back_slot(slot, spare);
            return Err(self.device_error("write", &name, error));
        }
        if let Err(error) = file.sync_data() {
            return Err(self.poison("sync", &name, error));
        }
        if !spare && let Err(error) = self.shared.disk.sync_dir() {
            return Err(self.poison("sync directory of", &name, error));
        }
        self.adopt(
            Active {
                id,
                salt,
                file,
                name,
                offset: BLOCK,
                proven: BLOCK,
                created,
            },
            slot,
        );
        if previous != 0 {
            self.owed.push(previous);
        }
        self.stage_checkpoint_owed();
        Ok(())
    }

    /// The slot was not made into a segment: nobody was told of anything in it.
    fn give_back_slot(&self, slot: u32, spare: bool) {
        let mut state = self.shared.state.lock();
        if spare {
            state.spares.push((self.log, slot));
            return;
        }
        state.slots.remove(&slot);
        drop(state);
        let _ = self.shared.disk.remove(&slot_name(slot));
    }

    fn adopt(&mut self, active: Active, slot: u32) {
        let segment = Segment {
            slot,
            log: self.log,
            lane: self.lane,
            salt: active.salt,
            file: Some(Arc::clone(&active.file)),
            end: BLOCK,
            sealed: false,
            superseded: false,
            refs: 0,
            dead: Vec::new(),
            dead_since: None,
            newest: HashMap::new(),
            quarantined: false,
            fresh: 0,
            settled: false,
        };
        let mut state = self.shared.state.lock();
        state.segments.insert(active.id, segment);
        state.tails.remove(&self.previous.0);
        state.tails.insert(active.id, BLOCK);
        drop(state);
        self.active = Some(active);
        self.plan = self.fresh_plan();
    }

    /// Ends the open segment, if there is one, in good order.
    fn seal_active(&mut self, next_slot: u32, next_segment: u64) -> Result<(), Error> {
        let Some(id) = self.active.as_ref().map(|a| a.id) else {
            return Ok(());
        };
        let mut payload = Vec::new();
        Seal {
            next_slot,
            next_segment,
        }
        .encode(&mut payload);
        self.plan.small(Kind::Seal, 0, Subject::default(), &payload);
        self.plan.effects.push(Effect::Sealed);
        if !self.write_plan() {
            self.check()?;
            return Err(Error::DiskFull);
        }
        let end = self.active.take().map_or(0, |a| a.offset);
        self.previous = (id, end);
        if let Some(segment) = self.shared.state.lock().segments.get_mut(&id) {
            segment.sealed = true;
        }
        Ok(())
    }

    /// Puts the whole control state at the head of the plan, which supersedes that in older segments.
    fn stage_checkpoint_owed(&mut self) {
        let limit = self.segment_bytes();
        let part_bytes = usize::try_from(limit / 8).unwrap_or(1 << 20).min(1 << 20);
        let parts = {
            let state = self.shared.state.lock();
            encode_checkpoints(&state.control, &state.tails, part_bytes)
        };
        let needed: usize = parts.iter().map(|p| HEADER + p.len() + 64).sum();
        if self.plan.end() + needed as u64 + 2 * SEAL_ROOM > limit {
            // The next segment will have room.
            return;
        }
        for part in parts {
            self.plan.small(Kind::Checkpoint, 0, Subject::default(), &part);
        }
        for segment in self.owed.drain(..) {
            self.plan.effects.push(Effect::Superseded { segment });
        }
    }

    /// Writes what is planned. On a full disk, requests that free space are tried once more out of the reserve.
    pub(crate) fn flush(&mut self) {
        if self.write_plan() || self.failed.is_some() {
            return;
        }
        let again = self.take_retries();
        if again.is_empty() {
            // What was deleted may be held as spare segments; whoever asks next finds that space.
            self.release_spares(0);
            return;
        }
        self.release_reserve();
        for request in again {
            self.stage(request);
        }
        if !self.write_plan() {
            for request in self.take_retries() {
                refuse(request, &Error::DiskFull);
            }
        }
    }
}

/// A fragment number as a frame's subject.
pub(crate) fn subject(number: FragmentNumber) -> Subject {
    Subject {
        a: number.sequence(),
        b: number.server_millis(),
        c: number.random(),
    }
}

/// The index entry of a commit frame at `place`.
pub(crate) fn entry_of(number: FragmentNumber, commit: &Commit, place: Extent) -> Entry<Place> {
    Entry {
        info: FragmentInfo {
            number,
            server_timestamp: commit.server_timestamp,
            producer_timestamp: commit.producer_timestamp,
            length_ms: commit.length_ms,
            size: commit.size,
            header_len: commit.header_len,
            position: commit.position,
            frame_count: u32::try_from(commit.frames.len()).unwrap_or(u32::MAX),
            tracks_hash: commit.tracks_hash,
        },
        place: Place {
            commit: place,
            checksum: commit.checksum,
            extents: commit.extents.as_slice().into(),
        },
    }
}
