//! The index of one stream's fragments, in memory, in the order of numbers. It knows no disk: `P` says where a
//! fragment's bytes lie.

use std::collections::VecDeque;

use base::Timestamp;

use crate::FragmentNumber;
use crate::control::RangeSet;
use crate::index_db::Piece;
use crate::limits::{COVERAGE_FRAGMENTS_MAX, LIST_LIMIT_MAX};
use crate::media::{
    Coverage, CoverageQuery, Cursor, FragmentInfo, FragmentQuery, FragmentRange, ListPlace, Span, TimeAxis, Usage,
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

    /// The fragment of a sequence.
    pub fn get_sequence(&self, sequence: u64) -> Option<&Entry<P>> {
        let entry = self.by_number.get(self.first_from(sequence))?;
        (entry.info.number.sequence() == sequence).then_some(entry)
    }

    pub fn list(&self, query: &FragmentQuery) -> Vec<FragmentInfo> {
        let range = query.range;
        let infos = self.by_number.iter().map(|e| e.info);
        let mut found: Vec<FragmentInfo> = infos.filter(|info| query.wants(info)).collect();
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
        let mut fold = CoverageFold::new(query);
        self.pieces(query).into_iter().all(|piece| fold.take(piece));
        fold.finish()
    }

    /// What coverage needs of the fragments that may touch the range, in the order of time.
    pub fn pieces(&self, query: &CoverageQuery) -> Vec<Piece> {
        let infos = self.by_number.iter().map(|e| &e.info);
        let touching = infos.filter(|i| i.start(query.axis) <= query.to && i.end(query.axis) >= query.from);
        let mut pieces: Vec<Piece> = touching
            .map(|info| Piece {
                start: info.start(query.axis),
                sequence: info.number.sequence(),
                length_ms: info.length_ms,
                size: info.size,
                position: info.position,
            })
            .collect();
        pieces.sort_unstable_by_key(Piece::place);
        pieces
    }

    pub fn latest(&self) -> Option<FragmentInfo> {
        self.by_number.back().map(|e| e.info)
    }

    pub fn earliest(&self) -> Option<FragmentInfo> {
        self.by_number.front().map(|e| e.info)
    }

    pub fn find_containing(&self, axis: TimeAxis, at: Timestamp) -> Option<FragmentInfo> {
        let [holds, follows] = self.around(axis, at);
        holds.or(follows)
    }

    /// Of the fragments that hold `at`, the one with the lowest number, and the first one that starts at or after it.
    pub fn around(&self, axis: TimeAxis, at: Timestamp) -> [Option<FragmentInfo>; 2] {
        let [mut holds, mut follows]: [Option<FragmentInfo>; 2] = [None, None];
        for info in self.by_number.iter().map(|e| e.info) {
            let start = info.start(axis);
            if holds.is_none() && start <= at && at < info.end(axis) {
                holds = Some(info);
            }
            if start >= at && follows.is_none_or(|next| start < next.start(axis)) {
                follows = Some(info);
            }
        }
        [holds, follows]
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

    pub fn len(&self) -> usize {
        self.by_number.len()
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

    /// The lowest position that is not among `sorted`.
    pub fn lowest_kept(&self, sorted: &[u64]) -> Option<u64> {
        let mut positions = self.by_position.iter().map(|(p, _)| *p);
        positions.find(|p| sorted.binary_search(p).is_err())
    }

    /// Removes the fragments at the given positions and returns them.
    pub fn remove_positions(&mut self, positions: &[u64]) -> Vec<Entry<P>> {
        let mut sorted = positions.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        self.remove_where(sorted.len(), |info| sorted.binary_search(&info.position).is_ok())
    }

    /// Removes the fragments whose positions are in `gone`.
    pub fn remove_gone(&mut self, gone: &RangeSet) -> Vec<Entry<P>> {
        self.remove_where(usize::MAX, |info| gone.contains(info.position))
    }

    pub fn remove_older(&mut self, older_than: Timestamp) -> u64 {
        if self.by_number.iter().all(|e| e.info.server_timestamp >= older_than) {
            return 0;
        }
        self.remove_where(usize::MAX, |info| info.server_timestamp < older_than)
            .len() as u64
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

    /// Removes at most `most` fragments. What goes from the front costs nothing of what stays, however much that is.
    fn remove_where(&mut self, most: usize, gone: impl Fn(&FragmentInfo) -> bool) -> Vec<Entry<P>> {
        let mut removed = Vec::new();
        // The usual case: the front goes.
        while removed.len() < most && self.by_number.front().is_some_and(|e| gone(&e.info)) {
            removed.extend(self.by_number.pop_front());
        }
        if removed.len() < most && self.by_number.iter().any(|e| gone(&e.info)) {
            removed.extend(self.by_number.iter().filter(|e| gone(&e.info)).cloned());
            self.by_number.retain(|e| !gone(&e.info));
        }
        self.bytes -= removed.iter().map(|e| u64::from(e.info.size)).sum::<u64>();
        let mut positions: Vec<u64> = removed.iter().map(|e| e.info.position).collect();
        positions.sort_unstable();
        let is_removed = |position: &u64| positions.binary_search(position).is_ok();
        let mut left = positions.len();
        while left > 0 && self.by_position.front().is_some_and(|(p, _)| is_removed(p)) {
            self.by_position.pop_front();
            left -= 1;
        }
        if left > 0 {
            self.by_position.retain(|(p, _)| !is_removed(p));
        }
        removed
    }
}

/// Melts pieces of coverage, which come in the order of time, into spans.
pub(crate) struct CoverageFold {
    query: CoverageQuery,
    coverage: Coverage,
    last: Option<ListPlace>,
    looked_at: usize,
}

impl CoverageFold {
    pub fn new(query: &CoverageQuery) -> Self {
        CoverageFold {
            query: *query,
            coverage: Coverage::default(),
            last: None,
            looked_at: 0,
        }
    }

    /// Takes the next piece. False when the answer is full.
    pub fn take(&mut self, piece: Piece) -> bool {
        let query = &self.query;
        let end = piece.start.plus_millis(i64::from(piece.length_ms));
        let behind = |place: ListPlace| piece.place() > (place.time, place.number.sequence());
        let touches = piece.start <= query.to && (piece.start >= query.from || end > query.from);
        if !touches || !query.after.is_none_or(behind) {
            return true;
        }
        let span = Span {
            start: piece.start,
            end,
            fragments: 1,
            bytes: u64::from(piece.size),
        };
        let full = self.looked_at >= COVERAGE_FRAGMENTS_MAX;
        if full || !self.coverage.add(span, query.gap_ms, query.limit.max(1)) {
            self.coverage.next = self.last;
            return false;
        }
        self.looked_at += 1;
        self.last = Some(ListPlace {
            time: piece.start,
            // Behind everything of this sequence.
            number: FragmentNumber::new(piece.sequence, u64::MAX, u32::MAX),
        });
        true
    }

    pub fn finish(self) -> Coverage {
        self.coverage
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
        assert_eq!(
            (index.lowest_kept(&[1, 3]), index.lowest_kept(&[1, 2, 3])),
            (Some(2), None)
        );
        let mut index = three();
        let mut gone = RangeSet::default();
        gone.insert(2, 3);
        assert_eq!(index.remove_gone(&gone).len(), 1);
        assert_eq!(index.usage().bytes, 11);
    }
}
