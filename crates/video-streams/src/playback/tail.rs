//! The end of a stream as low-latency players see it: the fragment that arrives, in parts, and the parts of those before it
//! for as long as playlists tell them.
//!
//! One task for each stream that is watched, whoever watches: it follows the stream as any consumer does, and ends when
//! nobody has asked for half a minute. What it holds are copies that are lost with it; players go on with whole fragments.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base::Clock;
use bytes::Bytes;
use matroska::{Track, TrackKind};
use parking_lot::Mutex;
use storage::{FragmentNumber, StreamId};
use tokio::sync::watch;

use super::parts::{NotInParts, Part, TrackParts};
use super::timeline::Open;
use crate::consumer::{Consumer, Event, FragmentStart, Frame, Outcome};
use crate::ingest::fingerprint::fingerprint;
use crate::limits;

/// The tails that are followed now.
pub(super) struct Tails {
    clock: Arc<dyn Clock>,
    running: Mutex<HashMap<Key, Arc<Tail>>>,
    /// Bytes of all parts together.
    held: Arc<AtomicUsize>,
}

/// Sessions whose parts are equally long share a tail.
type Key = (StreamId, u16);

impl Tails {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Tails {
            clock,
            running: Mutex::default(),
            held: Arc::default(),
        }
    }

    /// The tail of a stream, if it is followed. It goes on being followed for a while.
    pub fn get(&self, stream: StreamId, part_ms: u16) -> Option<Arc<Tail>> {
        let tail = self.running.lock().get(&(stream, part_ms)).cloned()?;
        tail.asked.store(self.now(), Ordering::Relaxed);
        Some(tail)
    }

    /// Follows a stream with a consumer that was just opened. None where so many are followed that it must do without.
    pub fn start(
        self: &Arc<Self>,
        stream: StreamId,
        part_ms: u16,
        consumer: Consumer,
        commits: watch::Receiver<u64>,
    ) -> Option<Arc<Tail>> {
        let mut running = self.running.lock();
        if let Some(tail) = running.get(&(stream, part_ms)) {
            return Some(tail.clone());
        }
        if running.len() >= limits::TAILS {
            return None;
        }
        let commits_before = *commits.borrow();
        let tail = Arc::new(Tail {
            part_ms,
            asked: AtomicU64::new(self.now()),
            changes: watch::Sender::new(0),
            fragments: Mutex::default(),
            held: self.held.clone(),
            commits_before,
            commits,
        });
        running.insert((stream, part_ms), tail.clone());
        tokio::spawn(self.clone().follow((stream, part_ms), tail.clone(), consumer));
        Some(tail)
    }

    async fn follow(self: Arc<Self>, key: Key, tail: Arc<Tail>, mut consumer: Consumer) {
        let mut look = tokio::time::interval(limits::TAIL_IDLE / 4);
        loop {
            tokio::select! {
                event = consumer.next() => match event {
                    Ok(Event::StreamDeleted) | Err(_) => break,
                    Ok(event) => tail.take(event),
                },
                _ = look.tick() => {
                    // Under the lock, so that nobody who finds it finds it ending.
                    let mut running = self.running.lock();
                    let asked = tail.asked.load(Ordering::Relaxed);
                    if self.now().saturating_sub(asked) > limits::TAIL_IDLE.as_millis() as u64 {
                        running.remove(&key);
                        break;
                    }
                }
            }
        }
        self.running.lock().retain(|_, other| !Arc::ptr_eq(other, &tail));
        tail.end();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The newest fragments of a stream in parts.
pub(super) struct Tail {
    part_ms: u16,
    /// When it was last asked, in monotonic milliseconds.
    asked: AtomicU64,
    /// Counts changes.
    changes: watch::Sender<u64>,
    fragments: Mutex<Fragments>,
    held: Arc<AtomicUsize>,
    /// The stream's commits, and how many there were when it began to be followed.
    commits: watch::Receiver<u64>,
    commits_before: u64,
}

#[derive(Default)]
struct Fragments {
    newest: VecDeque<Arriving>,
    /// Whether the end of a fragment that was followed from its start is known. Until then one that began before may be on
    /// its way to storage, and the place of the next is not known before that is there.
    warm: bool,
}

/// A fragment that arrives or has arrived.
struct Arriving {
    open: Open,
    tracks_hash: u64,
    outcome: Option<Outcome>,
    /// Track 1 of playlists, and 2 where there is one.
    tracks: Vec<TrackParts>,
    /// Whether its parts are those of the whole fragment so far.
    in_parts: bool,
    held: usize,
}

/// A fragment that a session may show in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub open: Open,
    pub tracks_hash: u64,
    /// False where it arrives but is not shown in parts; what comes after it is not either, until it is stored.
    pub in_parts: bool,
}

/// What became of a fragment that was shown in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is arriving, or stored.
    Pending,
    /// It was refused after so much of it was shown.
    Refused { shown_ms: u32 },
    /// Nothing is known of it here.
    Unknown,
}

/// A part that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PartState {
    /// It is here.
    Ready(Bytes),
    /// It is the next one.
    Coming,
    /// It is not here and will not be.
    Gone,
}

/// What a playlist tells of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub duration_ms: u32,
    pub independent: bool,
}

/// What a playlist tells of a fragment's parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ToldParts {
    pub parts: Vec<Told>,
    /// Whether they are all that the fragment has.
    pub complete: bool,
    /// Whether another one is to be expected.
    pub more: bool,
    /// How many the other track has, where there is one.
    pub beside: Option<usize>,
}

impl Tail {
    /// Tells of every change from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The oldest fragment of which it is not known what becomes of it.
    pub fn candidate(&self) -> Option<Candidate> {
        let fragments = self.fragments.lock();
        if !fragments.warm && *self.commits.borrow() == self.commits_before {
            return None;
        }
        let oldest = fragments.newest.iter().find(|fragment| fragment.outcome.is_none())?;
        Some(Candidate {
            open: oldest.open,
            tracks_hash: oldest.tracks_hash,
            in_parts: oldest.in_parts && oldest.tracks.iter().any(|track| !track.parts().is_empty()),
        })
    }

    /// Whether it has not come to a fragment yet that could be shown.
    pub fn is_cold(&self) -> bool {
        !self.fragments.lock().warm
    }

    /// What became of a fragment.
    pub fn fate(&self, number: FragmentNumber) -> Fate {
        self.with(number, |fragment| match fragment.outcome {
            None | Some(Outcome::Stored { .. }) => Fate::Pending,
            Some(Outcome::Rejected) => Fate::Refused {
                shown_ms: fragment.shown_ms(),
            },
        })
        .unwrap_or(Fate::Unknown)
    }

    /// The parts of a fragment's track.
    pub fn told(&self, number: FragmentNumber, track: i32) -> Option<ToldParts> {
        self.with(number, |fragment| fragment.told(track))
    }

    /// One part.
    pub fn part(&self, number: FragmentNumber, track: i32, part: u64) -> PartState {
        let found = self.with(number, |fragment| {
            let asked = fragment.track(track)?;
            let part = usize::try_from(part).ok()?;
            match asked.parts().get(part) {
                Some(part) => Some(PartState::Ready(part.bytes.clone())),
                None if fragment.has_more() && part == asked.parts().len() => Some(PartState::Coming),
                None => None,
            }
        });
        found.flatten().unwrap_or(PartState::Gone)
    }

    fn with<T>(&self, number: FragmentNumber, then: impl FnOnce(&Arriving) -> T) -> Option<T> {
        let fragments = self.fragments.lock();
        let found = fragments.newest.iter().find(|fragment| fragment.open.number == number);
        found.map(then)
    }

    fn take(&self, event: Event) {
        let changed = {
            let mut fragments = self.fragments.lock();
            match event {
                // What comes from storage has its place in every timeline already.
                Event::FragmentStart(start) if start.live => {
                    fragments.newest.push_back(Arriving::new(&start, self.part_ms));
                    self.forget(&mut fragments.newest);
                    false
                }
                Event::Frame(frame) => {
                    let full = self.held.load(Ordering::Relaxed) > limits::TAILS_BYTES;
                    fragments.find(frame.fragment).is_some_and(|fragment| {
                        let changed = fragment.frame(&frame, full);
                        fragment.count(&self.held);
                        changed
                    })
                }
                Event::FragmentEnd(end) => {
                    let ended = fragments.find(end.number).map(|fragment| {
                        fragment.end(end.outcome);
                        fragment.count(&self.held);
                    });
                    fragments.warm |= ended.is_some();
                    ended.is_some()
                }
                Event::FragmentStart(_) | Event::StreamDeleted => false,
            }
        };
        if changed {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Forgets the oldest of those whose end is known.
    fn forget(&self, newest: &mut VecDeque<Arriving>) {
        while newest.len() > limits::TAIL_FRAGMENTS
            && let Some(at) = newest.iter().position(|fragment| fragment.outcome.is_some())
        {
            if let Some(gone) = newest.remove(at) {
                self.held.fetch_sub(gone.held, Ordering::Relaxed);
            }
        }
    }

    /// Nothing follows.
    fn end(&self) {
        let mut fragments = self.fragments.lock();
        let held: usize = fragments.newest.drain(..).map(|fragment| fragment.held).sum();
        self.held.fetch_sub(held, Ordering::Relaxed);
        drop(fragments);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Fragments {
    fn find(&mut self, number: FragmentNumber) -> Option<&mut Arriving> {
        // The newest first: it is nearly always the one.
        self.newest
            .iter_mut()
            .rev()
            .find(|fragment| fragment.open.number == number)
    }
}

impl Arriving {
    fn new(start: &FragmentStart, part_ms: u16) -> Self {
        let first = |kind: TrackKind| start.tracks.iter().find(|track| track.kind == kind);
        let track = |track: &Track| TrackParts::new(track.clone(), start.producer_timestamp.millis(), part_ms);
        let tracks = [first(TrackKind::Video), first(TrackKind::Audio)];
        Arriving {
            open: Open {
                number: start.number,
                server: start.server_timestamp,
                producer: start.producer_timestamp,
            },
            tracks_hash: fingerprint(&start.tracks),
            outcome: None,
            tracks: tracks.into_iter().flatten().map(track).collect(),
            in_parts: true,
            held: 0,
        }
    }

    /// True where a part is ready with it.
    fn frame(&mut self, frame: &Frame, full: bool) -> bool {
        let found = self.tracks.iter_mut().find(|track| track.number() == frame.track);
        let (true, Some(track)) = (self.in_parts, found) else {
            return false;
        };
        let before = track.parts().len();
        let pushed = match frame.laced || full {
            true => Err(NotInParts),
            false => track.push(frame.offset_ms as i64, frame.key, &frame.data),
        };
        self.in_parts = pushed.is_ok();
        track.parts().len() > before || pushed.is_err()
    }

    fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        let stored = matches!(outcome, Outcome::Stored { .. });
        self.in_parts = self.in_parts && stored && self.tracks.iter_mut().all(|track| track.finish().is_ok());
    }

    fn count(&mut self, all: &AtomicUsize) {
        let held = self.tracks.iter().map(TrackParts::held).sum();
        let before = std::mem::replace(&mut self.held, held);
        all.fetch_add(held, Ordering::Relaxed);
        all.fetch_sub(before, Ordering::Relaxed);
    }

    fn has_more(&self) -> bool {
        self.in_parts && self.outcome.is_none()
    }

    fn track(&self, number: i32) -> Option<&TrackParts> {
        self.tracks.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    fn told(&self, track: i32) -> ToldParts {
        let tell = |part: &Part| Told {
            duration_ms: part.duration_ms,
            independent: part.independent,
        };
        let of = |track| self.track(track).map(TrackParts::parts);
        ToldParts {
            parts: of(track).unwrap_or_default().iter().map(tell).collect(),
            complete: self.in_parts && self.outcome.is_some(),
            more: self.has_more(),
            beside: of(3 - track).map(<[Part]>::len),
        }
    }

    fn shown_ms(&self) -> u32 {
        let longest = self
            .tracks
            .iter()
            .map(|track| track.parts().iter().map(|part| part.duration_ms).sum());
        longest.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
