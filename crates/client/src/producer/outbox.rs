//! What is not confirmed yet, and what of it a connection sends next. No I/O and no waiting: the driver and the caller
//! both work on it under one lock.
//!
//! Rules that are kept here:
//! - a connection carries fragments of one header, with rising sequence; whatever else must be sent goes to another
//!   connection, since a server refuses times that go back;
//! - a fragment leaves when it is confirmed, and then is never sent again; what a broken connection leaves unconfirmed
//!   waits to be sent again whole, in its old order;
//! - after a loss, sending goes on with a fragment that holds a key frame.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use bytes::Bytes;

use crate::ack::{Ack, EventType};
use crate::limits::LOST_NAMED_MAX;
use crate::media::TimecodeType;
use crate::producer::config::{Confirm, Overflow};
use crate::producer::event::{FragmentId, LossReason, LostFragment};
use crate::producer::stats::ProducerStats;

/// What all fragments of one recording share.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// From the EBML header up to the first cluster.
    pub header: Bytes,
    /// What timecodes count from.
    pub timecodes: TimecodeType,
    /// The producer's start.
    pub started: Timestamp,
    /// Nanoseconds of a unit of time.
    pub scale_ns: u64,
    /// Whether the clusters are ours, so that a tag of ours may end one.
    pub ours: bool,
}

impl Epoch {
    fn time_of(&self, timecode: u64) -> Timestamp {
        let millis = u128::from(timecode) * u128::from(self.scale_ns) / 1_000_000;
        let millis = i64::try_from(millis).unwrap_or(i64::MAX);
        match self.timecodes {
            TimecodeType::Absolute => Timestamp::from_millis(millis),
            TimecodeType::Relative => self.started.plus_millis(millis),
        }
    }
}

/// How far a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    On { connection: u64, level: Level },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Sent,
    Buffering,
    Received,
}

#[derive(Debug)]
struct Entry {
    id: FragmentId,
    epoch: Arc<Epoch>,
    pieces: Vec<Bytes>,
    bytes: usize,
    /// No piece will be added.
    ended: bool,
    /// Its end stands in its own bytes, so that the server needs no next cluster to see it.
    tagged: bool,
    key: bool,
    place: Place,
    /// A connection is in the midst of it.
    sending: bool,
    sent_before: bool,
    /// When the last piece was handed to a connection.
    handed_over: Option<Duration>,
    /// When the last piece was added.
    grown: Duration,
}

/// How far a connection is.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    epoch: Option<Arc<Epoch>>,
    header_sent: bool,
    /// The fragment in the midst of which it is, and its next piece.
    current: Option<(u64, usize)>,
    /// The last fragment that it began.
    last: Option<u64>,
}

impl Cursor {
    /// Of a connection that was opened for a recording.
    pub fn of(epoch: Arc<Epoch>) -> Self {
        Cursor {
            epoch: Some(epoch),
            ..Cursor::default()
        }
    }

    /// The recording that it carries.
    pub fn epoch(&self) -> Option<Arc<Epoch>> {
        self.epoch.clone()
    }

    /// Whether nothing is half sent.
    pub fn between_fragments(&self) -> bool {
        self.current.is_none()
    }
}

/// What a connection does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send this.
    Piece(Bytes),
    /// Everything is sent that is there.
    Nothing,
    /// What comes next needs another connection.
    Change,
    /// A fragment vanished half sent: the connection cannot be used on.
    Cut,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboxLimits {
    pub bytes_max: usize,
    pub time_max: Duration,
    pub overflow: Overflow,
    pub fragment_bytes_max: usize,
}

/// What an acknowledgement was about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub fragment: Option<FragmentId>,
    /// Since its last byte was handed over.
    pub after: Option<Duration>,
    /// Whether it left the outbox.
    pub confirmed: bool,
}

/// Whether a piece was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Taken,
    Full,
    TooLarge,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    limits: OutboxLimits,
    entries: VecDeque<Entry>,
    next_sequence: u64,
    confirm: Confirm,
    skip_to_key: bool,
    lost: Vec<LostFragment>,
    lost_count: u64,
    /// Losses that were not told yet.
    news: Vec<LostFragment>,
    pub stats: ProducerStats,
}

impl Outbox {
    pub fn new(limits: OutboxLimits) -> Self {
        Outbox {
            limits,
            entries: VecDeque::new(),
            next_sequence: 0,
            confirm: Confirm::Persisted,
            skip_to_key: false,
            lost: Vec::new(),
            lost_count: 0,
            news: Vec::new(),
            stats: ProducerStats::default(),
        }
    }

    pub fn set_confirm(&mut self, confirm: Confirm) {
        self.confirm = confirm;
    }

    // What the caller does.

    /// Begins a fragment with its first piece, and ends the one before it.
    pub fn begin(&mut self, epoch: &Arc<Epoch>, timecode: u64, piece: Bytes, now: Duration) -> Put {
        let id = FragmentId {
            sequence: self.next_sequence,
            timecode,
            producer_timestamp: epoch.time_of(timecode),
        };
        self.end_open();
        if !self.make_room(piece.len(), Some(id.producer_timestamp)) {
            return Put::Full;
        }
        self.next_sequence += 1;
        self.stats.fragments += 1;
        self.entries.push_back(Entry {
            id,
            epoch: Arc::clone(epoch),
            pieces: Vec::new(),
            bytes: 0,
            ended: false,
            tagged: false,
            key: false,
            place: Place::Waiting,
            sending: false,
            sent_before: false,
            handed_over: None,
            grown: now,
        });
        self.add(piece, false, now);
        Put::Taken
    }

    /// Appends to the open fragment. Where it is gone (it was dropped, or ended for want of frames), the piece goes with it.
    pub fn append(&mut self, piece: &Bytes, key: bool, now: Duration) -> Put {
        let Some(open) = self.entries.back().filter(|entry| !entry.ended) else {
            return Put::Taken;
        };
        if open.bytes + piece.len() > self.limits.fragment_bytes_max {
            return Put::TooLarge;
        }
        if !self.make_room(piece.len(), None) {
            return Put::Full;
        }
        self.add(piece.clone(), key, now);
        Put::Taken
    }

    fn add(&mut self, piece: Bytes, key: bool, now: Duration) {
        let Some(open) = self.entries.back_mut() else { return };
        open.bytes += piece.len();
        open.key |= key;
        open.grown = now;
        self.stats.bytes += piece.len() as u64;
        self.stats.buffered_bytes += piece.len();
        self.stats.buffered_bytes_peak = self.stats.buffered_bytes_peak.max(self.stats.buffered_bytes);
        open.pieces.push(piece);
        self.stats.buffered_fragments = self.entries.len();
    }

    /// Ends the open fragment, if there is one.
    pub fn end_open(&mut self) {
        if let Some(open) = self.entries.back_mut() {
            open.ended = true;
        }
    }

    /// Ends the open fragment by its own bytes.
    pub fn end_open_with(&mut self, tag: Bytes, now: Duration) {
        if self.open().is_some() {
            self.add(tag, false, now);
            if let Some(open) = self.entries.back_mut() {
                open.ended = true;
                open.tagged = true;
            }
        }
    }

    /// Sequence of the open fragment.
    pub fn open(&self) -> Option<u64> {
        self.entries
            .back()
            .filter(|entry| !entry.ended)
            .map(|entry| entry.id.sequence)
    }

    /// Since when the open fragment waits for frames, if it is one that may be ended.
    pub fn idle_since(&self) -> Option<Duration> {
        self.entries
            .back()
            .filter(|entry| !entry.ended && entry.epoch.ours)
            .map(|entry| entry.grown)
    }

    /// True where there is room, or was made. A lone fragment always has room: only its end can free any.
    fn make_room(&mut self, len: usize, newest: Option<Timestamp>) -> bool {
        loop {
            let first = self.entries.front().map(|entry| entry.id.producer_timestamp);
            let newest = newest.or(self.entries.back().map(|entry| entry.id.producer_timestamp));
            let span_ms = first
                .zip(newest)
                .map_or(0, |(first, newest)| newest.millis_since(first));
            let long = u128::try_from(span_ms).unwrap_or(0) > self.limits.time_max.as_millis();
            if self.entries.len() <= 1 || !(long || self.stats.buffered_bytes + len > self.limits.bytes_max) {
                return true;
            }
            if self.limits.overflow == Overflow::Wait {
                return false;
            }
            let Some(oldest) = self.entries.iter().position(|entry| entry.ended && !entry.sending) else {
                return true;
            };
            self.lose(oldest, LossReason::BufferFull);
            self.skip_to_key = true;
        }
    }

    fn lose(&mut self, index: usize, reason: LossReason) {
        if let Some(entry) = self.remove(index) {
            let lost = LostFragment {
                fragment: entry.id,
                reason,
            };
            self.stats.lost += 1;
            self.lost_count += 1;
            if self.lost.len() < LOST_NAMED_MAX {
                self.lost.push(lost.clone());
            }
            if self.news.len() < LOST_NAMED_MAX {
                self.news.push(lost);
            }
        }
    }

    fn remove(&mut self, index: usize) -> Option<Entry> {
        let entry = self.entries.remove(index)?;
        self.stats.buffered_bytes -= entry.bytes;
        self.stats.buffered_fragments = self.entries.len();
        Some(entry)
    }

    pub fn fragment_bytes_max(&self) -> usize {
        self.limits.fragment_bytes_max
    }

    // What the driver does.

    /// Whether something is there that no connection carries.
    pub fn has_waiting(&self) -> bool {
        self.entries.iter().any(|entry| entry.place == Place::Waiting)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The recording that the next connection is for.
    pub fn next_epoch(&self) -> Option<Arc<Epoch>> {
        let entry = self.entries.iter().find(|entry| entry.place == Place::Waiting)?;
        Some(Arc::clone(&entry.epoch))
    }

    /// What `connection` sends next. Where it may not begin another fragment, [`Next::Change`] instead of one.
    pub fn next(&mut self, connection: u64, cursor: &mut Cursor, may_begin: bool, now: Duration) -> Next {
        if let Some((sequence, piece)) = cursor.current {
            let Some(entry) = self.entries.iter_mut().find(|entry| entry.id.sequence == sequence) else {
                return Next::Cut;
            };
            if let Some(bytes) = entry.pieces.get(piece) {
                cursor.current = Some((sequence, piece + 1));
                entry.handed_over = Some(now);
                self.stats.bytes_sent += bytes.len() as u64;
                return Next::Piece(bytes.clone());
            }
            if !entry.ended {
                return Next::Nothing;
            }
            entry.sending = false;
            cursor.current = None;
        }
        self.skip_undecodable();
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.place == Place::Waiting) else {
            return Next::Nothing;
        };
        let sequence = entry.id.sequence;
        let other = cursor
            .epoch
            .as_ref()
            .is_some_and(|epoch| !Arc::ptr_eq(epoch, &entry.epoch));
        if other || !may_begin || cursor.last.is_some_and(|last| sequence < last) {
            return Next::Change;
        }
        if !cursor.header_sent {
            cursor.header_sent = true;
            cursor.epoch = Some(Arc::clone(&entry.epoch));
            self.stats.bytes_sent += entry.epoch.header.len() as u64;
            return Next::Piece(entry.epoch.header.clone());
        }
        entry.place = Place::On {
            connection,
            level: Level::Sent,
        };
        entry.sending = true;
        self.stats.resent += u64::from(entry.sent_before);
        entry.sent_before = true;
        cursor.current = Some((sequence, 0));
        cursor.last = Some(sequence);
        self.next(connection, cursor, may_begin, now)
    }

    /// Whether the last fragment that this connection sent is known to be whole only by what follows it.
    pub fn needs_end(&self, cursor: &Cursor) -> bool {
        let last = cursor
            .last
            .and_then(|last| self.entries.iter().find(|entry| entry.id.sequence == last));
        last.is_some_and(|entry| entry.ended && !entry.tagged)
    }

    /// After a loss, fragments that nobody can decode are lost too.
    fn skip_undecodable(&mut self) {
        while self.skip_to_key {
            let Some(index) = self.entries.iter().position(|entry| entry.place == Place::Waiting) else {
                return;
            };
            match self.entries.get(index) {
                Some(entry) if entry.ended && !entry.key => self.lose(index, LossReason::NoKeyFrame),
                _ => self.skip_to_key = false,
            }
        }
    }

    /// Whether the server owes a confirmation: of a fragment whose end it has been sent.
    pub fn awaits_confirmation(&self) -> bool {
        self.entries.len() > 1 || self.entries.back().is_some_and(|entry| entry.tagged)
    }

    /// Whether the server has numbered every fragment that these connections carry.
    pub fn all_numbered(&self, on: impl Fn(u64) -> bool) -> bool {
        !self.entries.iter().any(|entry| match entry.place {
            Place::On { connection, level } => level == Level::Sent && on(connection),
            Place::Waiting => false,
        })
    }

    /// Takes an acknowledgement. Gives the fragment that it is about, and how long ago its last byte was handed over.
    pub fn acknowledge(&mut self, on: u64, ack: &Ack, now: Duration) -> Acknowledged {
        let timecode = ack.fragment_timecode.and_then(|time| u64::try_from(time).ok());
        let index = self.entries.iter().position(|entry| {
            matches!(entry.place, Place::On { connection, .. } if connection == on)
                && Some(entry.id.timecode) == timecode
        });
        let Some((index, entry)) = index.and_then(|index| Some((index, self.entries.get_mut(index)?))) else {
            return Acknowledged::default();
        };
        let (id, bytes) = (entry.id, entry.bytes);
        let after = entry.handed_over.map(|at| now.saturating_sub(at));
        let level = match ack.event {
            EventType::Buffering => Level::Buffering,
            EventType::Received => Level::Received,
            EventType::Persisted | EventType::Error | EventType::Idle => match entry.place {
                Place::On { level, .. } => level,
                Place::Waiting => Level::Sent,
            },
        };
        entry.place = Place::On { connection: on, level };
        match (ack.event, after) {
            (EventType::Received, Some(after)) => self.stats.received_after.add(after),
            (EventType::Persisted, Some(after)) => self.stats.persisted_after.add(after),
            _ => {}
        }
        let confirmed = ack.event == EventType::Persisted
            || (ack.event == EventType::Received && self.confirm == Confirm::Received);
        if confirmed && self.remove(index).is_some() {
            self.stats.confirmed += 1;
            self.stats.bytes_confirmed += bytes as u64;
        }
        Acknowledged {
            fragment: Some(id),
            after,
            confirmed,
        }
    }

    /// The server refuses the content of a fragment. Where it does not say of which, it is the oldest that has not
    /// arrived. False where there is none: the header is refused.
    pub fn refuse(&mut self, on: u64, ack: &Ack) -> bool {
        let timecode = ack.fragment_timecode.and_then(|time| u64::try_from(time).ok());
        let carried = |entry: &Entry| match entry.place {
            Place::On { connection, level } if connection == on => Some(level),
            _ => None,
        };
        let named = self
            .entries
            .iter()
            .position(|entry| carried(entry).is_some() && Some(entry.id.timecode) == timecode);
        let index = named.or_else(|| {
            let unreceived = |entry: &Entry| carried(entry).is_some_and(|level| level < Level::Received);
            self.entries.iter().position(unreceived)
        });
        let Some(index) = index else { return false };
        let reason = LossReason::Refused {
            id: ack.error_id.unwrap_or(0),
            code: ack.error_code.clone().unwrap_or_default(),
        };
        // What of it is still to come goes with it.
        self.lose(index, reason);
        self.skip_to_key = true;
        true
    }

    /// A connection ended: what it carried and is not confirmed waits again. Gives how many fragments.
    pub fn release(&mut self, ended: u64) -> usize {
        let mut released = 0;
        for entry in &mut self.entries {
            if matches!(entry.place, Place::On { connection, .. } if connection == ended) {
                entry.place = Place::Waiting;
                entry.sending = false;
                released += 1;
            }
        }
        released
    }

    /// Losses that were not told yet.
    pub fn take_news(&mut self) -> Vec<LostFragment> {
        std::mem::take(&mut self.news)
    }

    /// Losses since the last report.
    pub fn take_lost(&mut self) -> (Vec<LostFragment>, u64) {
        (std::mem::take(&mut self.lost), std::mem::take(&mut self.lost_count))
    }

    /// What is neither confirmed nor lost.
    pub fn unconfirmed(&self) -> Vec<FragmentId> {
        self.entries.iter().map(|entry| entry.id).collect()
    }

    /// Sequence that the next fragment gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Whether a fragment below this sequence is not confirmed.
    pub fn holds_before(&self, sequence: u64) -> bool {
        self.entries.front().is_some_and(|entry| entry.id.sequence < sequence)
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
