//! Moves the index from memory to disk, behind the acks: nobody who stores a fragment waits for it. [`IndexCore`] has no
//! thread of its own, as [`crate::lane::LaneCore`] has none.
//!
//! It writes only what the log has proven: a fragment is handed over after the sync of its commit. Trims come to it after
//! their own sync; the space of a fragment with a row is given back after the row is deleted.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::control::RangeSet;
use crate::index::Entry;
use crate::index_db::{Batch, PURGE_ROWS};
use crate::state::{Place, Purge, Shared};
use crate::{Error, StreamId};

/// Fragments that are written in one transaction.
pub(crate) const BATCH: usize = 1024;
/// How long fragments wait for others to be written with.
const PAUSE: Duration = Duration::from_secs(2);
/// Fragments of one stream that stay in memory although they have rows: at least, and at most.
const WINDOW: (usize, usize) = (4, 256);

#[derive(Default)]
struct Rung {
    rung: bool,
    closed: bool,
}

/// Wakes the writer of the index.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    ready: Condvar,
}

impl Bell {
    /// There is something to do at once.
    pub fn ring(&self) {
        self.rung.lock().rung = true;
        self.ready.notify_one();
    }

    /// The writer is to end when everything is written.
    pub fn close(&self) {
        self.rung.lock().closed = true;
        self.ready.notify_one();
    }

    /// Waits for the bell, at most a [`PAUSE`]. False when the writer is to end.
    fn wait(&self) -> bool {
        let mut state = self.rung.lock();
        if !state.rung && !state.closed {
            self.ready.wait_for(&mut state, PAUSE);
        }
        state.rung = false;
        !state.closed
    }
}

/// See the module.
pub(crate) struct IndexCore {
    shared: Arc<Shared>,
    /// A batch that found the disk full; it goes before everything else.
    waiting: Option<Batch>,
    /// Rows that could not be deleted for lack of space. Nobody sees them and their space is given back.
    stale: Vec<(StreamId, Option<RangeSet>)>,
    /// Segments that the index calls unpunched.
    unpunched: BTreeSet<u64>,
    said_full: bool,
}

impl IndexCore {
    pub fn new(shared: Arc<Shared>, unpunched: BTreeSet<u64>) -> Self {
        IndexCore {
            shared,
            waiting: None,
            stale: Vec::new(),
            unpunched,
            said_full: false,
        }
    }

    /// Does all that there is to do. An error means that the index on disk is of no use any more.
    pub fn step(&mut self) -> Result<(), Error> {
        while let Some(batch) = self.waiting.take().or_else(|| self.gather()) {
            match self.shared.index.write(&batch) {
                Ok(()) => self.adopt(&batch),
                Err(Error::DiskFull) => {
                    self.say_full();
                    self.waiting = Some(batch);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        loop {
            let next = self.shared.state.lock().purges.pop_front();
            let Some(purge) = next else { break };
            self.purge(purge)?;
        }
        self.sweep()
    }

    fn say_full(&mut self) {
        if !std::mem::replace(&mut self.said_full, true) {
            tracing::warn!("no space for the fragment index; it is written later");
        }
    }

    /// What is to be written next.
    fn gather(&mut self) -> Option<Batch> {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        let mut batch = Batch::default();
        while batch.entries.len() < BATCH
            && let Some((stream, sequence)) = state.fresh.pop_front()
        {
            let Some(media) = state.media.get_mut(&stream) else {
                continue;
            };
            if media.fresh.remove(&sequence)
                && let Some(entry) = media.window.get_sequence(sequence)
            {
                batch.entries.push((stream, entry.clone()));
            }
        }
        let segments = &mut state.segments;
        state.unsettled.retain(|id| {
            let Some(segment) = segments.get_mut(id) else {
                return false;
            };
            if segment.quarantined {
                return false;
            }
            if segment.fresh > 0 {
                return true;
            }
            segment.settled = true;
            batch.settled.push((*id, segment.slot, segment.salt, segment.end));
            if !segment.dead.is_empty() {
                state.buried.insert(*id);
            }
            false
        });
        for id in std::mem::take(&mut state.buried) {
            if self.unpunched.insert(id) {
                batch.unpunched.push(id);
            }
        }
        self.unpunched.retain(|id| {
            let still = segments.get(id).is_some_and(|s| !s.dead.is_empty());
            if !still && !batch.unpunched.contains(id) {
                batch.punched.push(*id);
            }
            still || batch.unpunched.contains(id)
        });
        batch.retired = std::mem::take(&mut state.retired);
        (!batch.is_empty()).then_some(batch)
    }

    /// The batch is in the index: memory need not hold all of it.
    fn adopt(&mut self, batch: &Batch) {
        self.said_full = false;
        let mut state = self.shared.state.lock();
        for (_, entry) in &batch.entries {
            state.unnote_fresh(&entry.place);
        }
        let streams: HashSet<StreamId> = batch.entries.iter().map(|(stream, _)| *stream).collect();
        let share = self
            .shared
            .options
            .index_window
            .checked_div(state.media.len())
            .unwrap_or(0);
        let keep = share.clamp(WINDOW.0, WINDOW.1).min(self.shared.options.index_window);
        for stream in streams {
            if let Some(media) = state.media.get_mut(&stream) {
                media.evict(keep);
            }
        }
    }

    fn purge(&mut self, mut purge: Purge) -> Result<(), Error> {
        self.forget_waiting(&mut purge);
        let everything = || {
            let mut all = RangeSet::default();
            all.insert(0, u64::MAX);
            all
        };
        let gone = purge.gone.clone().unwrap_or_else(everything);
        for (from, to) in gone.iter() {
            loop {
                let removed = match self.shared.index.purge(purge.stream, from, to, PURGE_ROWS) {
                    Ok(removed) => removed,
                    Err(Error::DiskFull) => {
                        self.say_full();
                        self.give_up_rows(&mut purge, &gone)?;
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                };
                let done = removed.len() < PURGE_ROWS;
                self.released(&mut purge, &removed, true);
                if done {
                    break;
                }
            }
        }
        if purge.gone.is_none() {
            match self.shared.index.forget_stream(purge.stream) {
                Err(Error::DiskFull) => self.stale.push((purge.stream, None)),
                other => other?,
            }
        }
        let _ = purge.reply.take().map(|reply| reply.send(Ok(purge.removed)));
        Ok(())
    }

    /// Entries of a batch that could not be written yet need no row any more.
    fn forget_waiting(&mut self, purge: &mut Purge) {
        let Some(batch) = &mut self.waiting else { return };
        let mut dropped = Vec::new();
        batch.entries.retain(|(stream, entry)| {
            let gone = *stream == purge.stream
                && purge
                    .gone
                    .as_ref()
                    .is_none_or(|gone| gone.contains(entry.info.position));
            if gone {
                dropped.push(entry.clone());
            }
            !gone
        });
        let mut state = self.shared.state.lock();
        for entry in &dropped {
            state.unnote_fresh(&entry.place);
        }
        drop(state);
        self.released(purge, &dropped, false);
    }

    /// Rows are gone: so is what they stood for.
    fn released(&mut self, purge: &mut Purge, removed: &[Entry<Place>], had_rows: bool) {
        purge.removed += removed.len() as u64;
        let now = self.shared.now();
        let mut state = self.shared.state.lock();
        for entry in removed {
            if let Some(media) = state.media.get_mut(&purge.stream) {
                media.evicted.remove(&entry.info);
            }
            state.release(&entry.place, now);
        }
        if had_rows {
            // The transaction that deleted them has said so of their segments.
            let extents = removed.iter().flat_map(|entry| &entry.place.extents);
            let segments: BTreeSet<u64> = extents.map(|extent| extent.segment).collect();
            for segment in segments {
                state.buried.remove(&segment);
                self.unpunched.insert(segment);
            }
        }
    }

    /// Without space to delete rows, what they stand for is given back all the same, since that makes space; the rows are
    /// deleted later. The log says that they are gone, so nobody is shown them, not after a restart either.
    fn give_up_rows(&mut self, purge: &mut Purge, gone: &RangeSet) -> Result<(), Error> {
        for (from, to) in gone.iter() {
            let mut from = from;
            loop {
                let rows = self.shared.index.rows(purge.stream, from, to, PURGE_ROWS)?;
                let Some(last) = rows.last() else { break };
                from = last.info.position + 1;
                self.released(purge, &rows, false);
            }
        }
        self.stale.push((purge.stream, purge.gone.clone()));
        let _ = purge.reply.take().map(|reply| reply.send(Ok(purge.removed)));
        Ok(())
    }

    /// Deletes rows that there was no space to delete.
    fn sweep(&mut self) -> Result<(), Error> {
        while let Some((stream, gone)) = self.stale.pop() {
            let mut all = RangeSet::default();
            all.insert(0, u64::MAX);
            let swept = self
                .shared
                .index
                .purge_gone(stream, gone.as_ref().unwrap_or(&all), &mut |_| {})
                .and_then(|()| match gone {
                    None => self.shared.index.forget_stream(stream),
                    Some(_) => Ok(()),
                });
            match swept {
                Err(Error::DiskFull) => {
                    self.stale.push((stream, gone));
                    return Ok(());
                }
                other => other?,
            }
        }
        Ok(())
    }
}

/// Ends the log when its thread dies: an index that is not written would fill the memory.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() && self.0.close() {
            (self.0.options.on_fatal)(&Error::Closed);
        }
    }
}

/// Starts the thread of the writer. It ends when the bell is closed, or with the log when the index cannot be used.
pub(crate) fn spawn(mut core: IndexCore) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("fragment-index".to_owned()).spawn(move || {
        let shared = Arc::clone(&core.shared);
        let guard = Guard(Arc::clone(&shared));
        loop {
            let goes_on = shared.bell.wait();
            if let Err(error) = core.step() {
                tracing::error!(%error, "the fragment index is damaged; the next start builds it again from the log");
                shared.index.condemn();
                if shared.close() {
                    (shared.options.on_fatal)(&error);
                }
                break;
            }
            if !goes_on {
                break;
            }
        }
        // Whoever waits for a trim is told that it is not known to be done.
        shared.state.lock().purges.clear();
        drop(guard);
    })
}
