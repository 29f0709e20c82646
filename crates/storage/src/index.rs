//! The index of one stream's fragments, in memory, in the order of numbers. It knows no disk: `P` says where a
//! fragment's bytes lie.

use std::collections::VecDeque;

use base::Timestamp;

use crate::FragmentNumber;
use crate::control::RangeSet;
use crate::limits::{COVERAGE_FRAGMENTS_MAX, LIST_LIMIT_MAX};
use crate::media::{
    Coverage, CoverageQuery, Cursor, FragmentInfo, FragmentQuery, FragmentRange, Span, TimeAxis, Usage,
};

/// One fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<P> {
    pub info: FragmentInfo,
    pub place: P,
}

/// All fragments of a stream. Fragments come and go almost in order, so two sorted rings serve better than trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamIndex<P> {
    by_number: VecDeque<Entry<P>>,
    /// Commit position and number sequence.
    by_position: VecDeque<(u64, u64)>,
    bytes: u64,
    next_position: u64,
}

impl<P> Default for StreamIndex<P> {
    fn default() -> Self {
        StreamIndex {
            by_number: VecDeque::new(),
            by_position: VecDeque::new(),
            bytes: 0,
            next_position: 1,
        }
    }
}

impl<P: Clone> StreamIndex<P> {
    /// The position that the next commit gets.
    pub fn next_position(&self) -> u64 {
        self.next_position
    }

    /// Positions below `position` are never given out again.
    pub fn raise_position(&mut self, position: u64) {
        self.next_position = self.next_position.max(position);
    }

    /// Adds a fragment. False if its number or position is there already; then nothing changes.
    pub fn insert(&mut self, entry: Entry<P>) -> bool {
        let FragmentInfo {
            number, position, size, ..
        } = entry.info;
        let at = self.first_from(number.sequence());
        let place = self.by_position.partition_point(|(p, _)| *p < position);
        let taken = self
            .by_number
            .get(at)
            .is_some_and(|e| e.info.number.sequence() == number.sequence())
            || self.by_position.get(place).is_some_and(|(p, _)| *p == position);
        if taken {
            return false;
        }
        self.by_number.insert(at, entry);
        self.by_position.insert(place, (position, number.sequence()));
        self.bytes += u64::from(size);
        self.raise_position(position + 1);
        true
    }

    fn first_from(&self, sequence: u64) -> usize {
        self.by_number.partition_point(|e| e.info.number.sequence() < sequence)
    }

    pub fn get(&self, number: FragmentNumber) -> Option<&Entry<P>> {
        let entry = self.by_number.get(self.first_from(number.sequence()))?;
        (entry.info.number == number).then_some(entry)
    }

    pub fn list(&self, query: &FragmentQuery) -> Vec<FragmentInfo> {
        let range = query.range;
        let wanted = |info: &FragmentInfo| match range {
            FragmentRange::All => true,
            FragmentRange::Number(from, to) => (from..=to).contains(&info.number),
            FragmentRange::Time(axis, from, to) => (from..=to).contains(&info.start(axis)),
        };
        let behind = |info: &FragmentInfo| match query.after {
            None => true,
            Some(after) if query.newest_first => range.place_of(info) < after,
            Some(after) => range.place_of(info) > after,
        };
        let infos = self.by_number.iter().map(|e| e.info);
        let mut found: Vec<FragmentInfo> = infos.filter(|i| wanted(i) && behind(i)).collect();
        if matches!(range, FragmentRange::Time(..)) {
            found.sort_unstable_by_key(|info| range.place_of(info));
        }
        if query.newest_first {
            found.reverse();
        }
        found.truncate(query.limit.min(LIST_LIMIT_MAX));
        found
    }

    pub fn coverage(&self, query: &CoverageQuery) -> Coverage {
        let (axis, range) = (
            query.axis,
            FragmentRange::Time(query.axis, Timestamp::from_millis(i64::MIN), query.to),
        );
        let touches = |info: &FragmentInfo| {
            info.start(axis) <= query.to && (info.start(axis) >= query.from || info.end(axis) > query.from)
        };
        let behind = |info: &FragmentInfo| query.after.is_none_or(|after| range.place_of(info) > after);
        let infos = self.by_number.iter().map(|e| e.info);
        let mut found: Vec<FragmentInfo> = infos.filter(|i| touches(i) && behind(i)).collect();
        found.sort_unstable_by_key(|info| range.place_of(info));
        let mut coverage = Coverage::default();
        let mut last = None;
        for (n, info) in found.iter().enumerate() {
            let span = Span {
                start: info.start(axis),
                end: info.end(axis),
                fragments: 1,
                bytes: u64::from(info.size),
            };
            if n >= COVERAGE_FRAGMENTS_MAX || !coverage.add(span, query.gap_ms, query.limit.max(1)) {
                coverage.next = last;
                break;
            }
            last = Some(range.place_of(info));
        }
        coverage
    }

    pub fn latest(&self) -> Option<FragmentInfo> {
        self.by_number.back().map(|e| e.info)
    }

    pub fn earliest(&self) -> Option<FragmentInfo> {
        self.by_number.front().map(|e| e.info)
    }

    pub fn find_containing(&self, axis: TimeAxis, at: Timestamp) -> Option<FragmentInfo> {
        let mut next: Option<FragmentInfo> = None;
        for info in self.by_number.iter().map(|e| e.info) {
            let start = info.start(axis);
            if start <= at && at < start.plus_millis(i64::from(info.length_ms)) {
                return Some(info);
            }
            if start >= at && next.is_none_or(|n| start < n.start(axis)) {
                next = Some(info);
            }
        }
        next
    }

    pub fn next_after(&self, cursor: Cursor) -> Option<FragmentInfo> {
        let at = match cursor {
            Cursor::Number(number) => self.by_number.partition_point(|e| e.info.number <= number),
            Cursor::Position(position) => {
                let at = self.by_position.partition_point(|(p, _)| *p <= position);
                let (_, sequence) = self.by_position.get(at)?;
                self.first_from(*sequence)
            }
        };
        self.by_number.get(at).map(|e| e.info)
    }

    pub fn usage(&self) -> Usage {
        Usage {
            fragments: self.by_number.len() as u64,
            bytes: self.bytes,
        }
    }

    /// The fragment with the n-th lowest number.
    pub fn nth(&self, n: usize) -> Option<&FragmentInfo> {
        self.by_number.get(n).map(|e| &e.info)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry<P>> {
        self.by_number.iter()
    }

    /// Positions of the fragments received before `older_than`.
    pub fn older(&self, older_than: Timestamp) -> Vec<u64> {
        let old = self.by_number.iter().filter(|e| e.info.server_timestamp < older_than);
        old.map(|e| e.info.position).collect()
    }

    /// Positions of the fragments that must go so that at most `max_bytes` are left; lowest numbers first.
    pub fn beyond(&self, max_bytes: u64) -> Vec<u64> {
        let mut left = self.bytes;
        let mut positions = Vec::new();
        for entry in &self.by_number {
            if left <= max_bytes {
                break;
            }
            left -= u64::from(entry.info.size);
            positions.push(entry.info.position);
        }
        positions
    }

    /// What must be gone so that `positions` are: they, and where they were the lowest ones, all below what is left.
    pub fn trim_of(&self, positions: &[u64]) -> RangeSet {
        let mut sorted = positions.to_vec();
        sorted.sort_unstable();
        let mut gone = RangeSet::default();
        for position in &sorted {
            gone.insert(*position, position + 1);
        }
        let kept = self
            .by_position
            .iter()
            .map(|(p, _)| *p)
            .find(|p| sorted.binary_search(p).is_err());
        gone.insert(0, kept.unwrap_or(self.next_position));
        gone
    }

    /// Removes the fragments at the given positions and returns them.
    pub fn remove_positions(&mut self, positions: &[u64]) -> Vec<Entry<P>> {
        let mut sorted = positions.to_vec();
        sorted.sort_unstable();
        self.remove_where(|info| sorted.binary_search(&info.position).is_ok())
    }

    /// Removes the fragments whose positions are in `gone`.
    pub fn remove_gone(&mut self, gone: &RangeSet) -> Vec<Entry<P>> {
        self.remove_where(|info| gone.contains(info.position))
    }

    pub fn remove_older(&mut self, older_than: Timestamp) -> u64 {
        if self.by_number.iter().all(|e| e.info.server_timestamp >= older_than) {
            return 0;
        }
        self.remove_where(|info| info.server_timestamp < older_than).len() as u64
    }

    pub fn remove_down_to(&mut self, max_bytes: u64) -> u64 {
        if self.bytes <= max_bytes {
            return 0;
        }
        self.remove_positions(&self.beyond(max_bytes)).len() as u64
    }

    /// Removes the fragments with the lowest numbers.
    pub fn remove_first(&mut self, count: usize) -> u64 {
        let positions: Vec<u64> = self.by_number.iter().take(count).map(|e| e.info.position).collect();
        self.remove_positions(&positions).len() as u64
    }

    fn remove_where(&mut self, gone: impl Fn(&FragmentInfo) -> bool) -> Vec<Entry<P>> {
        let mut removed = Vec::new();
        // The usual case: the front goes.
        while self.by_number.front().is_some_and(|e| gone(&e.info)) {
            removed.extend(self.by_number.pop_front());
        }
        if self.by_number.iter().any(|e| gone(&e.info)) {
            removed.extend(self.by_number.iter().filter(|e| gone(&e.info)).cloned());
            self.by_number.retain(|e| !gone(&e.info));
        }
        if !removed.is_empty() {
            let mut positions: Vec<u64> = removed.iter().map(|e| e.info.position).collect();
            positions.sort_unstable();
            self.by_position.retain(|(p, _)| positions.binary_search(p).is_err());
            self.bytes -= removed.iter().map(|e| u64::from(e.info.size)).sum::<u64>();
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64, position: u64, start: i64, size: u32) -> Entry<()> {
        Entry {
            info: FragmentInfo {
                number: FragmentNumber::new(sequence, start as u64, 7),
                server_timestamp: Timestamp::from_millis(start),
                producer_timestamp: Timestamp::from_millis(start - 1_000_000),
                length_ms: 1000,
                size,
                header_len: 0,
                position,
                frame_count: 0,
                tracks_hash: 0,
            },
            place: (),
        }
    }

    /// Three fragments; the second began before the third but was committed after it.
    fn three() -> StreamIndex<()> {
        let mut index = StreamIndex::default();
        assert!(index.insert(entry(1, 1, 10_000, 5)));
        assert!(index.insert(entry(3, 2, 12_000, 7)));
        assert!(index.insert(entry(2, 3, 11_000, 6)));
        assert!(!index.insert(entry(2, 9, 11_000, 6)) && !index.insert(entry(9, 3, 11_000, 6)));
        index
    }

    fn sequences(found: &[FragmentInfo]) -> Vec<u64> {
        found.iter().map(|i| i.number.sequence()).collect()
    }

    #[test]
    fn going_on_by_position_misses_no_fragment_that_was_committed_late() {
        let index = three();
        let mut position = 0;
        let mut seen = Vec::new();
        while let Some(info) = index.next_after(Cursor::Position(position)) {
            position = info.position;
            seen.push(info.number.sequence());
        }
        assert_eq!(seen, [1, 3, 2]);
        assert_eq!(index.next_position(), 4);
    }

    #[test]
    fn listings_are_inclusive_pages_in_the_order_of_numbers() {
        let index = three();
        let mut query = FragmentQuery::first(FragmentRange::All, 2);
        let page = index.list(&query);
        assert_eq!(sequences(&page), [1, 2]);
        query.after = page.last().map(|i| query.range.place_of(i));
        assert_eq!(sequences(&index.list(&query)), [3]);
        (query.after, query.newest_first) = (None, true);
        let newest = index.list(&query);
        assert_eq!(sequences(&newest), [3, 2]);
        query.after = newest.last().map(|i| query.range.place_of(i));
        assert_eq!(sequences(&index.list(&query)), [1]);
        let at = Timestamp::from_millis;
        query = FragmentQuery::first(FragmentRange::Time(TimeAxis::Server, at(11_000), at(12_000)), 10);
        assert_eq!(sequences(&index.list(&query)), [2, 3]);
        query.range = FragmentRange::Time(TimeAxis::Producer, at(-990_000), at(-989_000));
        assert_eq!(sequences(&index.list(&query)), [1, 2]);
        query.range = FragmentRange::Number(page[1].number, page[0].number);
        assert!(index.list(&query).is_empty());
    }

    #[test]
    fn what_is_stored_melts_into_spans_and_goes_on_where_an_answer_ended() {
        let mut index = three();
        assert!(index.insert(entry(4, 4, 14_500, 1)));
        let at = Timestamp::from_millis;
        let mut query = CoverageQuery {
            axis: TimeAxis::Server,
            from: at(0),
            to: at(20_000),
            gap_ms: 1000,
            after: None,
            limit: 10,
        };
        let span = |start, end, fragments, bytes| Span {
            start: at(start),
            end: at(end),
            fragments,
            bytes,
        };
        let both = [span(10_000, 13_000, 3, 18), span(14_500, 15_500, 1, 1)];
        assert_eq!(
            (&index.coverage(&query).spans[..], index.coverage(&query).next),
            (&both[..], None)
        );
        query.limit = 1;
        let mut whole = index.coverage(&query);
        assert_eq!(whole.spans, both[..1]);
        query.after = whole.next;
        whole.extend(index.coverage(&query), query.gap_ms);
        assert_eq!((&whole.spans[..], whole.next), (&both[..], None));
        (query.after, query.limit, query.gap_ms) = (None, 10, 1500);
        assert_eq!(index.coverage(&query).spans, [span(10_000, 15_500, 4, 19)]);
        (query.from, query.to) = (at(10_500), at(11_500));
        assert_eq!(
            index.coverage(&query).spans,
            [span(10_000, 12_000, 2, 11)],
            "one has begun before the range"
        );
        (query.from, query.to) = (at(13_000), at(14_000));
        assert_eq!(index.coverage(&query), Coverage::default());
    }

    #[test]
    fn a_time_finds_the_fragment_that_holds_it_or_the_next_one() {
        let index = three();
        let find = |millis| {
            let found = index.find_containing(TimeAxis::Server, Timestamp::from_millis(millis));
            found.map(|i| i.number.sequence())
        };
        assert_eq!(
            (find(0), find(11_500), find(12_000), find(12_999)),
            (Some(1), Some(2), Some(3), Some(3))
        );
        assert_eq!(find(13_000), None);
    }

    #[test]
    fn removing_keeps_both_orders_and_the_sum_of_bytes() {
        let mut index = three();
        assert_eq!(index.beyond(8), [1, 3]);
        assert_eq!(index.remove_down_to(8), 2);
        assert_eq!(index.usage(), Usage { fragments: 1, bytes: 7 });
        assert_eq!(index.next_after(Cursor::Position(0)).map(|i| i.position), Some(2));
        assert_eq!(index.next_position(), 4);
        let index = three();
        assert_eq!(index.trim_of(&[1, 3]).iter().collect::<Vec<_>>(), [(0, 2), (3, 4)]);
        assert_eq!(index.trim_of(&[1, 2, 3]).iter().collect::<Vec<_>>(), [(0, 4)]);
        let mut index = three();
        let mut gone = RangeSet::default();
        gone.insert(2, 3);
        assert_eq!(index.remove_gone(&gone).len(), 1);
        assert_eq!(index.usage().bytes, 11);
    }
}
