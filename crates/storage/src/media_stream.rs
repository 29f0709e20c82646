//! One video stream of an open log: its newest fragments in memory, and what is known of the others, which lie in the
//! index on disk alone.

use std::collections::HashSet;

use tokio::sync::watch;

use crate::control::RangeSet;
use crate::index::{Entry, StreamIndex};
use crate::index_db::StreamRow;
use crate::media::{Cursor, FragmentInfo, FragmentQuery, FragmentRange, ListPlace, TimeAxis, Usage};
use crate::state::Place;

/// See the module.
#[derive(Debug)]
pub(crate) struct MediaStream {
    /// Those that were committed last: all that the index on disk does not hold yet, and some that it does.
    pub window: StreamIndex<Place>,
    /// Sequences of the window that were not handed to the writer of the index yet.
    pub fresh: HashSet<u64>,
    /// Those on disk and not in the window: how many, and bounds for them. A question whose answer lies above the bounds
    /// needs no look at the disk.
    pub evicted: StreamRow,
    pub committed: watch::Sender<u64>,
}

impl MediaStream {
    pub fn new(next_position: u64) -> Self {
        MediaStream {
            window: StreamIndex::default(),
            fresh: HashSet::new(),
            evicted: StreamRow::empty(),
            committed: watch::Sender::new(next_position.saturating_sub(1)),
        }
    }

    /// Adds a fragment that the index on disk does not hold.
    pub fn insert(&mut self, entry: Entry<Place>) -> bool {
        let sequence = entry.info.number.sequence();
        let inserted = self.window.insert(entry);
        if inserted {
            self.fresh.insert(sequence);
        }
        inserted
    }

    pub fn usage(&self) -> Usage {
        let (window, evicted) = (self.window.usage(), self.evicted.usage());
        Usage {
            fragments: window.fragments + evicted.fragments,
            bytes: window.bytes + evicted.bytes,
        }
    }

    /// True when there is nothing outside the window.
    pub fn is_whole(&self) -> bool {
        self.evicted.fragments == 0
    }

    /// Takes fragments out of the window, the lowest numbers first, until `keep` of those that are on disk are left. Costs
    /// nothing of what waits for the writer of the index, so that a writer that is behind can catch up.
    pub fn evict(&mut self, keep: usize) {
        let surplus = self.window.len().saturating_sub(self.fresh.len()).saturating_sub(keep);
        let stored = self
            .window
            .entries()
            .filter(|e| !self.fresh.contains(&e.info.number.sequence()));
        let positions: Vec<u64> = stored.take(surplus).map(|e| e.info.position).collect();
        for entry in self.window.remove_positions(&positions) {
            self.evicted.add(&entry.info);
        }
    }

    /// Removes what is gone from the window. Returns the fragments that no one but the window knew, and whether rows on
    /// disk must go too.
    pub fn remove_gone(&mut self, gone: &RangeSet) -> (Vec<Entry<Place>>, bool) {
        let mut unknown = Vec::new();
        for entry in self.window.remove_gone(gone) {
            if self.fresh.remove(&entry.info.number.sequence()) {
                unknown.push(entry);
            } else {
                // Its row is counted until it is deleted.
                self.evicted.add(&entry.info);
            }
        }
        (unknown, !self.is_whole())
    }

    fn start_bound(&self, axis: TimeAxis) -> ListPlace {
        let [server, producer] = self.evicted.starts;
        let time = match axis {
            TimeAxis::Server => server,
            TimeAxis::Producer => producer,
        };
        bound(time.millis(), u64::MAX)
    }

    /// True when what lies on disk alone can add nothing to `found`, the window's answer to the query.
    pub fn answers(&self, query: &FragmentQuery, found: &[FragmentInfo]) -> bool {
        if self.is_whole() {
            return true;
        }
        let highest = match query.range {
            FragmentRange::All | FragmentRange::Number(..) => bound(0, self.evicted.sequence),
            FragmentRange::Time(axis, ..) => self.start_bound(axis),
        };
        let lowest_wanted = match query.range {
            FragmentRange::All => None,
            FragmentRange::Number(from, _) => Some(bound_below(0, from.sequence())),
            FragmentRange::Time(_, from, _) => Some(bound_below(from.millis(), 0)),
        };
        if lowest_wanted.is_some_and(|lowest| lowest > highest) {
            return true;
        }
        match query.newest_first {
            false => query.after.is_some_and(|after| after >= highest),
            true => found.len() >= query.limit && found.last().is_some_and(|last| query.range.place_of(last) > highest),
        }
    }

    /// True when the window alone tells what follows.
    pub fn answers_after(&self, cursor: Cursor) -> bool {
        self.is_whole()
            || match cursor {
                Cursor::Number(number) => number.sequence() > self.evicted.sequence,
                Cursor::Position(position) => position >= self.evicted.position,
            }
    }

    /// True when nothing on disk alone reaches `at` or starts behind it.
    pub fn answers_at(&self, axis: TimeAxis, at: base::Timestamp) -> bool {
        let [server, producer] = self.evicted.ends;
        let end = match axis {
            TimeAxis::Server => server,
            TimeAxis::Producer => producer,
        };
        self.is_whole() || (at >= end && at > self.start_bound(axis).time)
    }
}

fn bound(millis: i64, sequence: u64) -> ListPlace {
    ListPlace {
        time: base::Timestamp::from_millis(millis),
        number: crate::FragmentNumber::new(sequence, u64::MAX, u32::MAX),
    }
}

fn bound_below(millis: i64, sequence: u64) -> ListPlace {
    ListPlace {
        time: base::Timestamp::from_millis(millis),
        number: crate::FragmentNumber::new(sequence, 0, 0),
    }
}
