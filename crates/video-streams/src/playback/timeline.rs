//! The fragments of one session in the order in which its player sees them, with the numbers that playlists speak of.
//! Pure: what storage holds is handed in.
//!
//! The order. First what was stored when the session was made, in the order of the session's axis; of fragments with the
//! same producer time the one with the largest number. Then, where the session grows, what is committed later, in the
//! order of commits; on the producer's axis only what begins after everything before it. So a timeline is only ever added
//! to at its end, and one that is built anew (after a restart, or after it was forgotten) is the same.
//!
//! The numbers. A fragment's sequence number is its place in the session. A discontinuity belongs to the fragment that it
//! stands before; EXT-X-DISCONTINUITY-SEQUENCE is the number of those that left the playlist. Both follow from the
//! timeline alone, so that no reload can contradict another (RFC 8216, 6.2.2).

use std::collections::VecDeque;

use base::Timestamp;
use storage::{FragmentInfo, FragmentNumber, ListPlace};

use super::session::{Discontinuities, Mode, Session};
use crate::limits::{CODEC_CHANGES, DISCONTINUITY_MS, REPLAY_LEAD, TIMELINE_MARGIN};

/// One fragment in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub number: FragmentNumber,
    /// When its first byte arrived.
    pub server: Timestamp,
    /// When it was made, as the producer says.
    pub producer: Timestamp,
    /// Duration: FragmentLengthInMilliseconds, EXTINF.
    pub length_ms: u32,
    /// Bytes.
    pub size: u32,
    /// Whether a discontinuity stands before it.
    pub discontinuity: bool,
    /// Its initialisation segment: how often the codec changed before it in the session.
    pub map: u16,
    /// It was shown in parts and then refused: only its place is left.
    pub gap: bool,
    /// Start in a time line without gaps that begins with 0, milliseconds.
    pub media_ms: i64,
}

/// A codec set-up that the session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Map {
    tracks_hash: u64,
    /// The newest fragment that has it.
    newest: FragmentInfo,
}

/// A fragment that players see in parts while it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its number.
    pub number: FragmentNumber,
    /// When its first byte arrived.
    pub server: Timestamp,
    /// When it was made.
    pub producer: Timestamp,
}

/// The codec changed more often than a session may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyChanges;

/// A session's fragments.
#[derive(Clone, Debug)]
pub struct Timeline {
    session: Session,
    entries: VecDeque<Entry>,
    /// Sequence number of the first of `entries`.
    first: u64,
    /// Discontinuities before those of `entries`.
    discontinuities: u64,
    /// Milliseconds of media before `entries`.
    passed_ms: u64,
    maps: Vec<Map>,
    last: Option<FragmentInfo>,
    /// Greatest start on the session's axis.
    latest: Timestamp,
    /// Where the listing of what was stored goes on; `None` when all of it was taken.
    listing: Option<Option<ListPlace>>,
    /// Commits up to this position were taken.
    position: u64,
    /// Was taken before its turn by position.
    early: Vec<FragmentNumber>,
    /// Shown in parts.
    open: Option<Open>,
    /// The longest of those before `entries`.
    longest_passed_ms: u32,
    /// End of what a player could have at once.
    initial_ms: i64,
}

impl Timeline {
    /// A session's timeline before its first fragment.
    pub fn new(session: Session) -> Self {
        Timeline {
            session,
            entries: VecDeque::new(),
            first: 0,
            discontinuities: 0,
            passed_ms: 0,
            maps: Vec::new(),
            last: None,
            latest: Timestamp::from_millis(i64::MIN),
            listing: Some(None),
            position: session.position,
            early: Vec::new(),
            open: None,
            longest_passed_ms: 0,
            initial_ms: 0,
        }
    }

    /// Where to list on, while more of what was stored is wanted at `now`.
    pub fn wants(&self, now: Timestamp) -> Option<Option<ListPlace>> {
        let place = self.listing?;
        let wanted = match self.session.mode {
            Mode::Live | Mode::OnDemand => true,
            Mode::LiveReplay => self.released(now) >= self.next_sequence(),
        };
        wanted.then_some(place)
    }

    /// Takes a page of the listing from the session's start. `more` says that it does not end here.
    pub fn take_page(&mut self, page: &[FragmentInfo], more: bool) -> Result<(), TooManyChanges> {
        let axis = self.session.axis();
        let range = storage::FragmentRange::Time(axis, self.session.start, self.session.end);
        let mut page = page;
        if let (true, Some(last)) = (more, page.last()) {
            // Those that begin with the last one may go on in the next page, and only one of them counts.
            let whole = page.partition_point(|info| info.start(axis) < last.start(axis));
            page = match page.get(..whole) {
                Some(cut) if !cut.is_empty() => cut,
                _ => page,
            };
            self.listing = Some(page.last().map(|last| range.place_of(last)));
        } else {
            self.listing = None;
        }
        let position = self.session.position;
        let mut stored = page.iter().filter(|info| info.position <= position).peekable();
        while let Some(info) = stored.next() {
            let newer = stored.peek().is_some_and(|next| next.start(axis) == info.start(axis));
            if self.session.producer_time && newer {
                continue;
            }
            self.push(info)?;
            if self.session.mode != Mode::LiveReplay || self.next_sequence() <= REPLAY_LEAD {
                self.initial_ms = self.media_end();
            }
            if self.is_filled() {
                self.listing = None;
                break;
            }
        }
        Ok(())
    }

    /// Whether all was taken of what was stored when the session was made, without looking further.
    fn is_filled(&self) -> bool {
        let taken = self.entries.len() as u64;
        match self.session.mode {
            Mode::Live => self.first == 0 && taken >= u64::from(self.session.initial),
            Mode::OnDemand => taken >= u64::from(self.session.fragments_max),
            Mode::LiveReplay => false,
        }
    }

    /// Takes a fragment that was committed after the session was made. In the order of positions, except for one that was
    /// shown in parts.
    pub fn take_commit(&mut self, info: &FragmentInfo) -> Result<(), TooManyChanges> {
        self.position = self.position.max(info.position);
        if let Some(at) = self.early.iter().position(|number| *number == info.number) {
            self.early.swap_remove(at);
            return Ok(());
        }
        let start = info.start(self.session.axis());
        let belongs = (self.session.start..=self.session.end).contains(&start);
        if belongs && (!self.session.producer_time || start > self.latest) {
            self.push(info)?;
        }
        Ok(())
    }

    /// The fragment that was shown in parts is stored: it takes its place before others that were committed earlier.
    pub fn settle_stored(&mut self, info: &FragmentInfo) -> Result<(), TooManyChanges> {
        self.open = None;
        if info.position > self.position {
            self.early.push(info.number);
            self.push(info)?;
        }
        Ok(())
    }

    /// The fragment that was shown in parts was refused: a gap as long as what was shown keeps its number.
    pub fn settle_refused(&mut self, shown_ms: u32) {
        let Some(open) = self.open.take() else { return };
        let map = self.last_map();
        self.append(Entry {
            number: open.number,
            server: open.server,
            producer: open.producer,
            length_ms: shown_ms.max(1),
            size: 0,
            discontinuity: self.is_discontinuity(open.producer),
            map,
            gap: true,
            media_ms: self.media_end(),
        });
        self.last = None;
    }

    fn push(&mut self, info: &FragmentInfo) -> Result<(), TooManyChanges> {
        if self.maps.is_empty() && self.next_sequence() == 0 && self.session.grows() {
            // What retention has taken meanwhile keeps its numbers.
            self.first = info.position.saturating_sub(self.session.first_position);
            if self.session.discontinuities == Discontinuities::Always {
                self.discontinuities = self.first;
            }
        }
        let changed = self.changes_codec(info.tracks_hash);
        let discontinuity = changed || self.is_discontinuity(info.producer_timestamp);
        let full = self.maps.len() > CODEC_CHANGES;
        match self.maps.last_mut() {
            Some(map) if !changed => {
                map.newest = *info;
                if map.tracks_hash == 0 {
                    map.tracks_hash = info.tracks_hash;
                }
            }
            _ if full => return Err(TooManyChanges),
            _ => self.maps.push(Map {
                tracks_hash: info.tracks_hash,
                newest: *info,
            }),
        }
        // Where the producer's time goes on, it is followed to the millisecond; a jump is left out.
        let end = self.media_end();
        let media_ms = match (self.last, self.entries.back()) {
            (Some(last), Some(before)) if goes_on(&last, info.producer_timestamp) => before
                .media_ms
                .saturating_add(info.producer_timestamp.millis_since(last.producer_timestamp).max(1)),
            _ => end,
        };
        self.append(Entry {
            number: info.number,
            server: info.server_timestamp,
            producer: info.producer_timestamp,
            length_ms: info.length_ms.max(1),
            size: info.size,
            discontinuity,
            map: self.last_map(),
            gap: false,
            media_ms,
        });
        self.last = Some(*info);
        self.latest = self.latest.max(info.start(self.session.axis()));
        Ok(())
    }

    fn append(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        // Fragments that a replay has not released yet are all still wanted.
        if self.session.mode == Mode::Live {
            self.forget(self.next_sequence());
        }
    }

    /// Forgets what lies before every playlist that can still be asked for, `shown` being the end of the newest.
    fn forget(&mut self, shown: u64) {
        let keep = u64::from(self.session.fragments_max) + TIMELINE_MARGIN;
        while self.first + keep < shown {
            let Some(entry) = self.entries.pop_front() else { break };
            self.first += 1;
            self.discontinuities += u64::from(entry.discontinuity);
            self.passed_ms += u64::from(entry.length_ms);
            self.longest_passed_ms = self.longest_passed_ms.max(entry.length_ms);
        }
    }

    fn changes_codec(&self, tracks_hash: u64) -> bool {
        let known = self.maps.last().map_or(0, |map| map.tracks_hash);
        known != 0 && tracks_hash != 0 && known != tracks_hash
    }

    fn last_map(&self) -> u16 {
        u16::try_from(self.maps.len().saturating_sub(1)).unwrap_or(u16::MAX)
    }

    fn media_end(&self) -> i64 {
        self.entries
            .back()
            .map_or(0, |last| last.media_ms.saturating_add(i64::from(last.length_ms)))
    }

    /// Whether a discontinuity stands before a fragment of this time and the same codec, if it came next.
    pub fn is_discontinuity(&self, producer: Timestamp) -> bool {
        let after_gap = self.entries.back().is_some_and(|last| last.gap);
        match self.session.discontinuities {
            Discontinuities::Always => true,
            Discontinuities::Never => after_gap,
            Discontinuities::OnDiscontinuity => after_gap || self.last.is_some_and(|last| jumps(&last, producer)),
        }
    }

    /// Whether a fragment with these tracks would need an initialisation segment of its own.
    fn is_other_codec(&self, tracks_hash: u64) -> bool {
        self.maps.is_empty() || self.changes_codec(tracks_hash)
    }

    /// Whether a fragment that is arriving can be shown in parts, under the number that comes next: it will belong to the
    /// session, and it needs no initialisation segment that only a stored fragment has.
    pub fn can_show(&self, open: &Open, tracks_hash: u64) -> bool {
        let start = match self.session.producer_time {
            true => open.producer,
            false => open.server,
        };
        let belongs = (self.session.start..=self.session.end).contains(&start);
        let known = self.entries.iter().rev().any(|entry| entry.number == open.number);
        let in_order = !self.session.producer_time || start > self.latest;
        self.open.is_none() && self.is_listed() && belongs && in_order && !known && !self.is_other_codec(tracks_hash)
    }

    /// What a playlist says of the fragment that is shown in parts.
    pub fn open_entry(&self) -> Option<Entry> {
        let open = self.open?;
        Some(Entry {
            number: open.number,
            server: open.server,
            producer: open.producer,
            length_ms: 0,
            size: 0,
            discontinuity: self.is_discontinuity(open.producer),
            map: self.last_map(),
            gap: false,
            media_ms: self.media_end(),
        })
    }

    /// Notes that players see a fragment in parts, under the number that comes next.
    pub fn show(&mut self, open: Open) {
        self.open = Some(open);
    }

    /// The fragment that is shown in parts.
    pub fn shown(&self) -> Option<Open> {
        self.open
    }

    /// Commits up to this position were taken.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether all that was stored was taken, so that commits may follow.
    pub fn is_listed(&self) -> bool {
        self.listing.is_none()
    }

    /// The number that the next fragment gets.
    pub fn next_sequence(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// How many fragments it holds in memory.
    pub fn held(&self) -> usize {
        self.entries.len()
    }

    /// The number at which the released fragments end: a replay releases the first few at once and then one whenever as
    /// much media has passed as one of them lasts.
    fn released(&self, now: Timestamp) -> u64 {
        if self.session.mode != Mode::LiveReplay {
            return self.next_sequence();
        }
        let passed = u64::try_from(now.millis_since(self.session.created)).unwrap_or(0);
        let mut end = self.passed_ms;
        let mut over = self.first;
        for entry in &self.entries {
            end += u64::from(entry.length_ms);
            if end > passed {
                break;
            }
            over += 1;
        }
        over + REPLAY_LEAD
    }

    /// What a playlist shows at `now`.
    pub fn window(&mut self, now: Timestamp) -> Window {
        let end = self.released(now).min(self.next_sequence());
        self.forget(end);
        let most = u64::from(self.session.fragments_max.max(1));
        let first = self.first.max(end.saturating_sub(most));
        let skip = usize::try_from(first - self.first).unwrap_or(usize::MAX);
        let take = usize::try_from(end.saturating_sub(first)).unwrap_or(0);
        let before = self
            .entries
            .iter()
            .take(skip)
            .filter(|entry| entry.discontinuity)
            .count();
        let shown = self.entries.iter().take(skip.saturating_add(take));
        let longest_ms = shown.map(|entry| entry.length_ms).max().unwrap_or(0);
        Window {
            first,
            discontinuities: self.discontinuities + before as u64,
            entries: self.entries.iter().skip(skip).take(take).copied().collect(),
            ended: self.has_ended(end, now),
            longest_ms: longest_ms.max(self.longest_passed_ms),
        }
    }

    /// A replay with an end is over when its last fragment was released and no other can come.
    fn has_ended(&self, released: u64, now: Timestamp) -> bool {
        let over = || released == self.next_sequence() && self.is_listed();
        match self.session.mode {
            Mode::Live => false,
            Mode::OnDemand => true,
            Mode::LiveReplay => {
                let grace_ms = crate::limits::FRAGMENT_DURATION_MS.saturating_mul(2);
                over() && now > self.session.end.plus_millis(grace_ms)
            }
        }
    }

    /// The fragment of a sequence number.
    pub fn get(&self, sequence: u64) -> Option<&Entry> {
        let at = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.entries.get(at)
    }

    /// A fragment that has the initialisation segment of that number.
    pub fn of_map(&self, map: u64) -> Option<&FragmentInfo> {
        let at = usize::try_from(map).ok()?;
        self.maps.get(at).map(|map| &map.newest)
    }

    /// How much media a player could have when the session was made, in the time line without gaps, milliseconds.
    pub fn initial_ms(&self) -> i64 {
        self.initial_ms
    }

    /// How many codec set-ups it came to.
    pub fn maps(&self) -> usize {
        self.maps.len()
    }
}

fn jumps(last: &FragmentInfo, producer: Timestamp) -> bool {
    producer.millis_since(last.producer_end()).abs() > DISCONTINUITY_MS
}

/// Whether the media's time goes on with the producer's. So it does where sound that was sent ahead of its pictures makes a
/// fragment end after the next begins: to move that one behind it would make gaps in both tracks, and there are none.
fn goes_on(last: &FragmentInfo, producer: Timestamp) -> bool {
    let overlap_ms = last.producer_end().millis_since(producer);
    !jumps(last, producer) || (1..=i64::from(last.length_ms) / 2).contains(&overlap_ms)
}

/// What a playlist shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Sequence number of the first entry.
    pub first: u64,
    /// Discontinuities before that of the first entry.
    pub discontinuities: u64,
    /// The fragments.
    pub entries: Vec<Entry>,
    /// Nothing follows any more.
    pub ended: bool,
    /// The longest fragment so far in the session.
    pub longest_ms: u32,
}

#[cfg(test)]
mod tests;
