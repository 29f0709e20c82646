//! What one answer to a player shows: the window of its timeline and, in a low-latency session, the fragment that arrives.
//! An answer that says too little for what was asked is held back until it says enough (blocking reload).

use std::sync::Arc;
use std::time::Duration;

use base::{ApiError, Timestamp};
use bytes::Bytes;
use tokio::time::Instant;

use super::session::{Mode, Session};
use super::tail::{Candidate, Fate, PartState, Tail, ToldParts};
use super::timeline::{Entry, Open, Timeline, Window};
use super::{Player, no_fragment};
use crate::consumer::{Consumer, StartAt};
use crate::error::MediaError;
use crate::limits;
use crate::service::Inner;
use crate::state::{ConnectionKind, StreamState};

/// What a playlist shows.
pub(super) struct View {
    pub window: Window,
    /// Parts of the newest fragments of the window, in its order, up to its last entry.
    pub parts: Vec<ToldParts>,
    /// The fragment that arrives.
    pub open: Option<(Entry, ToldParts)>,
    /// False while storage has the newest fragment and its last part is not cut.
    settled: bool,
}

/// `_HLS_msn` and `_HLS_part`: what a playlist must hold before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub msn: Option<u64>,
    pub part: Option<u64>,
}

impl View {
    /// The number of the fragment that arrives.
    pub fn open_sequence(&self) -> u64 {
        self.window.first + self.window.entries.len() as u64
    }

    /// Whether it says what was asked. A part that its fragment turned out not to have means the first of the next one.
    fn satisfies(&self, wish: Wish) -> bool {
        let Some(msn) = wish.msn else { return self.settled };
        let open = self.open_sequence();
        let parts = self.open.as_ref().map_or(0, |(_, told)| told.parts.len() as u64);
        match (msn.checked_sub(open), wish.part) {
            (Some(0), Some(part)) => parts > part,
            (Some(_), _) => false,
            (None, Some(part)) if msn + 1 == open => {
                let last = self.parts.last().map_or(0, |told| told.parts.len() as u64);
                self.settled && (last == 0 || part < last || parts > 0)
            }
            (None, _) => self.settled,
        }
    }
}

/// How many of the newest entries are told with their parts: those within three target durations of the end.
fn with_parts(window: &Window, target_s: u16) -> usize {
    let reach_ms = u64::from(target_s).saturating_mul(3000);
    let mut passed_ms = 0;
    let newest = window.entries.iter().rev().take_while(|entry| {
        let within = passed_ms < reach_ms;
        passed_ms += u64::from(entry.length_ms);
        within
    });
    newest.count()
}

impl Inner {
    /// The tail of a session's stream, which begins to be followed. None where the session has no parts, or so many streams
    /// are watched that this one must do without.
    pub(super) async fn tail(&self, session: &Session, state: &Arc<StreamState>) -> Option<Arc<Tail>> {
        if session.part_ms == 0 || session.mode != Mode::Live {
            return None;
        }
        let tails = &self.playback.tails;
        if let Some(tail) = tails.get(state.id, session.part_ms) {
            return Some(tail);
        }
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        let consumer = Consumer::open(state.clone(), clock, metrics, StartAt::Now).await;
        let consumer = consumer.inspect_err(|error| tracing::warn!(%error, "a stream is not followed for its players"));
        let commits = state.stores().durable.subscribe(state.id);
        tails.start(state.id, session.part_ms, consumer.ok()?, commits)
    }

    /// What a playlist shows, as soon as it holds what is asked; or what there is, where the wait gets long.
    pub(super) async fn view(&self, player: &Player, track: i32, wish: Wish) -> Result<View, MediaError> {
        let tail = self.tail(&player.session, &player.state).await;
        let mut commits = player.store.subscribe(player.state.id);
        let mut changes = tail.as_ref().map(|tail| tail.changes());
        // A player that is told where it shall start before there are parts runs dry until there are.
        let arriving = player.state.connections(ConnectionKind::Put) > 0;
        let cold = wish.msn.is_none() && arriving && tail.as_ref().is_some_and(|tail| tail.is_cold());
        let patience = match wish.msn {
            Some(_) => patience(player),
            None if cold => Duration::from_secs(u64::from(player.session.target_s)).min(limits::PART_COLD),
            None => limits::PART_SETTLE,
        };
        let until = Instant::now() + patience;
        loop {
            commits.mark_unchanged();
            if let Some(changes) = &mut changes {
                changes.mark_unchanged();
            }
            let view = self.look(player, tail.as_deref(), track).await?;
            let Some(changes) = &mut changes else { return Ok(view) };
            if wish.msn.is_some_and(|msn| msn > view.open_sequence() + 1) {
                let why = format!(
                    "_HLS_msn is {}, and the session's next fragment is {}.",
                    wish.msn.unwrap_or(0),
                    view.open_sequence()
                );
                return Err(MediaError::InvalidArgument(why));
            }
            if view.satisfies(wish) && (!cold || view.open.is_some()) {
                return Ok(view);
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return Ok(view) },
                changed = commits.changed() => if changed.is_err() { return Ok(view) },
                () = player.state.hub.closed() => return Err(MediaError::NotFound),
                () = tokio::time::sleep_until(until) => return Ok(view),
            }
        }
    }

    /// The window of a session's timeline, with the fragment that arrives, if it can be shown.
    async fn window(&self, player: &Player, tail: Option<&Tail>) -> Result<(Window, Option<Entry>), MediaError> {
        let now = self.clock.now();
        // Asked before storage: what is known to be stored here is in the timeline afterwards.
        let candidate = tail.and_then(Tail::candidate);
        self.with_timeline(player, |timeline| {
            if let Some(Candidate {
                open,
                tracks_hash,
                in_parts: true,
            }) = candidate
                && timeline.can_show(&open, tracks_hash)
            {
                timeline.show(open);
            }
            (timeline.window(now), timeline.open_entry())
        })
        .await
    }

    /// One part, by the number of its fragment in the session. The one that comes next is waited for.
    pub(super) async fn part(&self, player: &Player, track: i32, sequence: u64, part: u64) -> Result<Bytes, ApiError> {
        let tail = self
            .tail(&player.session, &player.state)
            .await
            .ok_or_else(no_fragment)?;
        let (mut changes, mut commits) = (tail.changes(), player.store.subscribe(player.state.id));
        let until = Instant::now() + patience(player);
        loop {
            changes.mark_unchanged();
            commits.mark_unchanged();
            let (window, open) = self.window(player, Some(&tail)).await?;
            let place = sequence.checked_sub(window.first).ok_or_else(no_fragment)?;
            let place = usize::try_from(place).map_err(|_| no_fragment())?;
            let open = open.filter(|_| place == window.entries.len());
            let state = match window.entries.get(place).or(open.as_ref()) {
                Some(entry) => tail.part(entry.number, track, part),
                None if place == window.entries.len() && part == 0 => PartState::Coming,
                None => PartState::Gone,
            };
            match state {
                PartState::Ready(bytes) => return Ok(bytes),
                PartState::Gone => return Err(no_fragment()),
                PartState::Coming => {}
            }
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| no_fragment())?,
                changed = commits.changed() => changed.map_err(|_| no_fragment())?,
                () = player.state.hub.closed() => return Err(MediaError::NotFound.into()),
                () = tokio::time::sleep_until(until) => return Err(no_fragment()),
            }
        }
    }

    async fn look(&self, player: &Player, tail: Option<&Tail>, track: i32) -> Result<View, MediaError> {
        let (window, open) = self.window(player, tail).await?;
        let told = |entry: &Entry| tail.and_then(|tail| tail.told(entry.number, track));
        let skip = window.entries.len() - with_parts(&window, player.session.target_s);
        let newest = window.entries.last().and_then(told);
        let parts = window.entries.iter().skip(skip);
        Ok(View {
            settled: newest.is_none_or(|told| !told.more),
            parts: parts
                .map(|entry| told(entry).filter(|told| told.complete).unwrap_or_default())
                .collect(),
            open: open.map(|entry| (entry, told(&entry).unwrap_or_default())),
            window,
        })
    }

    /// Gives the fragment that was shown in parts its place. True while it is not known which.
    pub(super) async fn settle(
        &self,
        player: &Player,
        timeline: &mut Timeline,
        now: Timestamp,
    ) -> Result<bool, MediaError> {
        let Some(open) = timeline.shown() else {
            return Ok(false);
        };
        // Asked before storage: a fragment that is refused afterwards is not stored either.
        let fate = self.fate(player, &open);
        match player.store.get(player.state.id, open.number).await {
            Ok(info) => {
                timeline.settle_stored(&info)?;
                return Ok(false);
            }
            Err(storage::Error::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
        let given_up = now.millis_since(open.server) > limits::OPEN_FRAGMENT_MS;
        match fate {
            Fate::Refused { shown_ms } => timeline.settle_refused(shown_ms),
            Fate::Unknown if given_up => timeline.settle_refused(0),
            Fate::Pending | Fate::Unknown => return Ok(true),
        }
        Ok(false)
    }

    fn fate(&self, player: &Player, open: &Open) -> Fate {
        let tail = self.playback.tails.get(player.state.id, player.session.part_ms);
        tail.map_or(Fate::Unknown, |tail| tail.fate(open.number))
    }
}

/// How long a player waits for what was promised it. hls.js waits for three parts, or for 0.8 target durations where that is
/// longer, and gives up after some tries; what a silent camera has not sent by then is answered with what there is.
fn patience(player: &Player) -> Duration {
    let session = &player.session;
    let waits_ms = (u64::from(session.part_ms) * 3).max(u64::from(session.target_s) * 800);
    Duration::from_millis(waits_ms * 3 / 4).min(limits::PART_WAIT_MAX)
}
