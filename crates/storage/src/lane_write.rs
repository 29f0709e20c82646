//! The lane's second half: writing a batch, and what follows from it. See `lane.rs`.

use std::io::IoSlice;

use base::Timestamp;

use crate::Error;
use crate::lane::LaneCore;
use crate::payload::Log;
use crate::plan::{Effect, Request};
use crate::state::{Shared, State};

impl Log {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Log::Media => "media",
            Log::Records => "records",
        }
    }
}

impl LaneCore {
    /// Writes the plan, syncs if anything in it waits for that, makes it visible and answers. False if the disk was full
    /// (then requests that free space are in `retries`, all others were answered) or the device failed.
    pub(crate) fn write_plan(&mut self) -> bool {
        if self.plan.is_empty() {
            return true;
        }
        let fresh = self.fresh_plan();
        let mut plan = std::mem::replace(&mut self.plan, fresh);
        plan.seal();
        let Some(active) = &mut self.active else { return true };
        let effects = std::mem::take(&mut plan.effects);
        let pieces: Vec<IoSlice<'_>> = plan.bytes().map(IoSlice::new).collect();
        // A batch of control frames without effects is a checkpoint.
        let sync = effects.is_empty() || effects.iter().any(Effect::needs_sync);
        let began = self.shared.clock.monotonic();
        #[cfg(test)]
        let (effects, sync) = if self.acks_early {
            let mut state = self.shared.state.lock();
            let now = self.shared.now();
            for effect in effects {
                apply(&mut state, &mut self.open, effect, now);
            }
            (Vec::new(), sync)
        } else {
            (effects, sync)
        };
        let written = if sync {
            active.file.write_and_sync(&pieces, plan.start())
        } else {
            active.file.write_at(&pieces, plan.start()).map(Ok)
        };
        drop(pieces);
        match written {
            Ok(Ok(())) => {
                active.offset = plan.end();
                if sync {
                    active.proven = active.offset;
                    self.note_written(plan.end() - plan.start(), began);
                }
                self.make_visible(effects, sync);
                self.plan = self.fresh_plan();
                true
            }
            Ok(Err(error)) => {
                let name = active.name.clone();
                let error = self.poison("sync", &name, error);
                self.fail_effects(effects, &error);
                false
            }
            Err(error) => {
                let name = active.name.clone();
                let error = self.device_error("write", &name, error);
                // What was written of this batch must not be taken for part of a later one.
                self.epoch += 1;
                self.fail_effects(effects, &error);
                self.plan = self.fresh_plan();
                false
            }
        }
    }

    fn note_written(&self, bytes: u64, began: std::time::Duration) {
        let meters = &self.shared.meters;
        let label = &[self.log.name()];
        meters.bytes_written.with_label_values(label).inc_by(bytes);
        let took = self.shared.clock.monotonic().saturating_sub(began);
        meters.sync_seconds.with_label_values(label).observe(took.as_secs_f64());
    }

    fn make_visible(&mut self, effects: Vec<Effect>, synced: bool) {
        let now = self.shared.now();
        let mut state = self.shared.state.lock();
        if let Some(active) = &self.active {
            if synced {
                state.tails.insert(active.id, active.proven);
            }
            if let Some(segment) = state.segments.get_mut(&active.id) {
                segment.end = active.offset;
            }
        }
        for effect in effects {
            apply(&mut state, &mut self.open, effect, now);
        }
        let rings = state.fresh.len() >= crate::index_writer::BATCH || !state.purges.is_empty();
        drop(state);
        if rings {
            self.shared.bell.ring();
        }
        self.positions.clear();
        self.blocks.clear();
    }

    fn fail_effects(&mut self, effects: Vec<Effect>, error: &Error) {
        self.refused += 1;
        self.positions.clear();
        self.blocks.clear();
        for tail in self.shard_tails.values_mut() {
            tail.reserved_below = 0;
        }
        let label = &[self.log.name()];
        self.shared.meters.disk_full.with_label_values(label).inc();
        let now = self.shared.now();
        for effect in effects {
            match &effect {
                Effect::Extent { open, extent, .. } => {
                    if let Some(fragment) = self.open.get_mut(open) {
                        fragment.extents.retain(|e| e != extent);
                        fragment.failed = Some(error.clone());
                    }
                }
                Effect::Commit { open, .. } => {
                    let mut state = self.shared.state.lock();
                    if let Some(fragment) = self.open.remove(open) {
                        state.open.remove(&(fragment.stream, fragment.number.sequence()));
                        for extent in &fragment.extents {
                            state.release_extent(extent, now);
                        }
                    }
                }
                Effect::Superseded { segment } => self.owed.push(*segment),
                _ => {}
            }
            self.retries.extend(effect.fail(error));
        }
        if self.failed.is_some() {
            for request in std::mem::take(&mut self.retries) {
                crate::plan::refuse(request, error);
            }
        }
    }

    /// An error of the device: a full disk is the requester's, everything else ends the log.
    pub(crate) fn device_error(&mut self, op: &'static str, file: &str, source: std::io::Error) -> Error {
        match Error::io(op, file, source) {
            Error::DiskFull => Error::DiskFull,
            error => self.end(error),
        }
    }

    /// After a failed sync nobody knows what is stored: the log ends, recovery decides.
    pub(crate) fn poison(&mut self, op: &'static str, file: &str, source: std::io::Error) -> Error {
        let failure = crate::IoFailure {
            op,
            file: file.to_owned(),
            source: std::sync::Arc::new(source),
        };
        self.end(Error::Io(failure))
    }

    fn end(&mut self, error: Error) -> Error {
        self.failed.get_or_insert_with(|| error.clone());
        if self.shared.close() {
            (self.shared.options.on_fatal)(&error);
        }
        error
    }

    fn reserve_name(&self) -> String {
        format!("reserve-{}-{}.bin", self.log.name(), self.lane)
    }

    /// Sets blocks aside for trims and deletions on a full disk. Without room for it the lane does without.
    pub(crate) fn fill_reserve(&mut self) {
        let wanted = self.shared.options.reserve_bytes;
        if self.reserve_held || wanted == 0 {
            return;
        }
        let name = self.reserve_name();
        let disk = &self.shared.disk;
        let made = disk.open(&name).or_else(|_| disk.create(&name)).and_then(|file| {
            if file.len()? < wanted {
                let block = vec![0xa5u8; usize::try_from(wanted).unwrap_or(0)];
                file.write_at(&[IoSlice::new(&block)], 0)?;
                file.sync_data()?;
            }
            Ok(())
        });
        match made {
            Ok(()) => self.reserve_held = true,
            Err(error) => {
                tracing::warn!(%name, %error, "no room for the reserve of deletions");
                let _ = disk.remove(&name);
            }
        }
    }

    /// Gives the reserve and the spare files back to the file system.
    pub(crate) fn release_reserve(&mut self) {
        if self.reserve_held && self.shared.disk.remove(&self.reserve_name()).is_ok() {
            self.reserve_held = false;
        }
        // One spare stays: the next segment may be needed for the very deletions that are to make room.
        self.release_spares(1);
    }

    /// Gives all spare files but `keep` back to the file system.
    pub(crate) fn release_spares(&self, keep: usize) {
        let disk = &self.shared.disk;
        let dropped = {
            let mut state = self.shared.state.lock();
            let keep = state.spares.len().min(keep);
            let dropped = state.spares.split_off(keep);
            for (_, slot) in &dropped {
                state.slots.remove(slot);
            }
            dropped
        };
        for (_, slot) in dropped {
            let _ = disk.remove(&crate::state::slot_name(slot));
        }
        let _ = disk.sync_dir();
    }

    /// Asks again for what freed no space the first time; see [`Self::flush`].
    pub(crate) fn take_retries(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.retries)
    }
}

type OpenFragments = std::collections::HashMap<u64, crate::lane::OpenFragment>;

/// Makes one thing true in memory that is true on disk.
fn apply(state: &mut State, open: &mut OpenFragments, effect: Effect, now: Timestamp) {
    match effect {
        Effect::Reserved {
            stream,
            first,
            last,
            reply,
        } => {
            let answer = match state.control.stream(stream) {
                Some(control) => {
                    control.numbers_through = control.numbers_through.max(last);
                    Ok((first, last))
                }
                None => Err(Error::NotFound),
            };
            let _ = reply.send(answer);
        }
        Effect::Extent { extent, reply, .. } => {
            state.hold(extent.segment);
            let _ = reply.map(|r| r.send(Ok(())));
        }
        Effect::Commit {
            open: id,
            stream,
            entry,
            reply,
        } => {
            open.remove(&id);
            state.open.remove(&(stream, entry.info.number.sequence()));
            let answer = commit(state, stream, entry, now);
            let _ = reply.send(answer);
        }
        Effect::Trim { stream, gone, reply } => {
            if let Some(control) = state.control.stream(stream) {
                control.gone.merge(&gone);
            }
            state.drop_gone(stream, gone, reply, now);
        }
        Effect::Delete { stream, reply } => {
            state.delete(stream, now);
            let _ = reply.send(Ok(()));
        }
        Effect::Superseded { segment } => {
            if let Some(known) = state.segments.get_mut(&segment) {
                known.superseded = true;
                if known.log == Log::Media && !known.settled {
                    state.unsettled.push(segment);
                }
            }
        }
        Effect::Sealed => {}
        Effect::Closed { reply } => drop(reply.send(Ok(()))),
        records @ (Effect::Shard { .. }
        | Effect::ShardReserved { .. }
        | Effect::Records { .. }
        | Effect::Appended { .. }
        | Effect::TrimShard { .. }) => crate::lane_records::apply(state, records),
    }
}

fn commit(
    state: &mut State,
    stream: crate::StreamId,
    entry: crate::index::Entry<crate::state::Place>,
    now: Timestamp,
) -> Result<crate::FragmentInfo, Error> {
    let info = entry.info;
    state.hold(entry.place.commit.segment);
    let place = entry.place.clone();
    let inserted = state.media_stream(stream).is_some_and(|media| media.insert(entry));
    if !inserted {
        // The stream was deleted while the fragment was under way.
        state.release(&place, now);
        return Err(Error::NotFound);
    }
    if let Some(control) = state.control.stream(stream) {
        control.next_position = control.next_position.max(info.position + 1);
    }
    state.note_fresh(stream, info.number.sequence(), &place);
    if let Some(media) = state.media.get(&stream) {
        media.committed.send_replace(info.position);
    }
    Ok(info)
}

/// Frees what is dead: whole segments become spares or go, single extents are punched out.
pub(crate) fn reclaim(shared: &Shared, log: Log, lane: u16, lanes: u16, at_once: bool) {
    let now = shared.now();
    let mine = |s: &crate::state::Segment| s.log == log && (s.lane == lane || (lane == 0 && s.lane >= lanes));
    let mut removed = Vec::new();
    let mut punches = Vec::new();
    {
        let mut state = shared.state.lock();
        let State {
            segments,
            control,
            spares,
            slots,
            tails,
            retired,
            ..
        } = &mut *state;
        let dead: Vec<u64> = segments
            .iter()
            .filter(|(_, s)| mine(s) && s.is_dead(control))
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            let Some(segment) = segments.remove(&id) else { continue };
            tails.remove(&id);
            if log == Log::Media {
                retired.push(id);
            }
            let whole = match log {
                Log::Media => shared.options.media_segment_bytes,
                Log::Records => shared.options.record_segment_bytes,
            };
            let spare = spares.iter().filter(|(l, _)| *l == log).count();
            let wanted = spare < shared.options.spare_segments * usize::from(lanes);
            if wanted && !at_once && segment.end >= whole / 2 {
                spares.push((log, segment.slot));
            } else {
                slots.remove(&segment.slot);
                removed.push(segment.slot);
            }
        }
        for (id, segment) in segments.iter_mut().filter(|(_, s)| mine(s) && s.sealed) {
            let due = segment
                .dead_since
                .is_some_and(|t| now.millis_since(t) >= shared.options.punch_delay_ms);
            if due || at_once {
                segment.dead_since = None;
                punches.push((*id, std::mem::take(&mut segment.dead)));
            }
        }
    }
    for slot in removed {
        let name = crate::state::slot_name(slot);
        if let Err(error) = shared.disk.remove(&name) {
            tracing::warn!(%name, %error, "a dead segment could not be removed");
        }
    }
    for (id, dead) in punches {
        punch(shared, id, &dead);
    }
}

/// Punches the extents out, except for their first blocks.
fn punch(shared: &Shared, segment: u64, dead: &[(u32, u32)]) {
    use crate::frame::BLOCK;
    let Ok((file, _)) = shared.segment_file(segment) else {
        return;
    };
    for (offset, stride) in dead {
        let (from, len) = (u64::from(*offset) + BLOCK, u64::from(*stride).saturating_sub(BLOCK));
        if let Err(error) = file.punch_hole(from, len) {
            tracing::debug!(segment, %error, "no hole was punched");
            return;
        }
    }
}

impl LaneCore {
    /// Once a second: gives back space, refills the reserve, closes a record segment that has grown old.
    pub(crate) fn tick(&mut self) {
        let lanes = match self.log {
            Log::Media => self.shared.options.media_lanes,
            Log::Records => self.shared.options.record_lanes,
        };
        self.flush();
        reclaim(&self.shared, self.log, self.lane, lanes, false);
        if !self.reserve_held
            && self.shared.options.reserve_bytes > 0
            && self
                .shared
                .disk
                .free_bytes()
                .is_ok_and(|free| free > crate::lane::RESERVE_REFILL_FREE)
        {
            self.fill_reserve();
        }
        let now = self.shared.now();
        let old = |created| now.millis_since(created) >= self.shared.options.record_segment_ms;
        if self.log == Log::Records
            && self.failed.is_none()
            && self.active.as_ref().is_some_and(|a| old(a.created))
            && self.holds_records()
        {
            let _ = self.roll();
            self.flush();
        }
    }

    fn holds_records(&self) -> bool {
        let state = self.shared.state.lock();
        let segment = self.active.as_ref().and_then(|a| state.segments.get(&a.id));
        segment.is_some_and(|s| !s.newest.is_empty())
    }
}
