//! The control state of the log: what is ordered against it and outlives the data (invariant 11). All of it only grows,
//! so the order in which frames are merged does not matter.

use std::collections::{BTreeMap, BTreeSet};

use base::Timestamp;

use crate::records::ShardId;
use crate::{FragmentNumber, StreamId};

/// A set of u64 as disjoint, non-adjacent half-open ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds `from..to`.
    pub fn insert(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        if let Some((&start, &end)) = self.0.range(..=from).next_back()
            && end >= from
        {
            from = start;
            to = to.max(end);
        }
        while let Some((&start, &end)) = self.0.range(from..=to).next() {
            to = to.max(end);
            self.0.remove(&start);
        }
        self.0.insert(from, to);
    }

    pub fn contains(&self, value: u64) -> bool {
        self.0.range(..=value).next_back().is_some_and(|(_, end)| value < *end)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(from, to)| (*from, *to))
    }

    pub fn merge(&mut self, other: &RangeSet) {
        for (from, to) in other.iter() {
            self.insert(from, to);
        }
    }
}

/// Control state of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardControl {
    pub created: Timestamp,
    /// Indexes below this one are reserved; the others were never used.
    pub reserved_below: u64,
    /// Records below this index are gone.
    pub gone_below: u64,
}

/// Control state of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamControl {
    /// Fragment sequences up to this one are reserved.
    pub numbers_through: u64,
    /// The lowest commit position that was surely not given out.
    pub next_position: u64,
    /// Commit positions that are trimmed.
    pub gone: RangeSet,
    pub shards: BTreeMap<ShardId, ShardControl>,
}

impl StreamControl {
    /// A fragment was committed.
    pub fn pass(&mut self, number: FragmentNumber, position: u64) {
        self.next_position = self.next_position.max(position.saturating_add(1));
        self.numbers_through = self.numbers_through.max(number.sequence());
    }
}

/// Control state of the whole log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub streams: BTreeMap<StreamId, StreamControl>,
    /// Ids are never used again, so this only grows: eight bytes for each deleted stream.
    pub deleted: BTreeSet<StreamId>,
}

impl Control {
    /// The state of a stream that is not deleted, made if missing.
    pub fn stream(&mut self, stream: StreamId) -> Option<&mut StreamControl> {
        if self.deleted.contains(&stream) {
            return None;
        }
        Some(self.streams.entry(stream).or_default())
    }

    pub fn shard(&self, stream: StreamId, shard: ShardId) -> Option<&ShardControl> {
        self.streams.get(&stream)?.shards.get(&shard)
    }

    pub fn merge_stream(&mut self, stream: StreamId, other: StreamControl) {
        let Some(state) = self.stream(stream) else { return };
        state.numbers_through = state.numbers_through.max(other.numbers_through);
        state.next_position = state.next_position.max(other.next_position);
        state.gone.merge(&other.gone);
        for (shard, s) in other.shards {
            self.merge_shard(stream, shard, s);
        }
    }

    pub fn merge_shard(&mut self, stream: StreamId, shard: ShardId, other: ShardControl) {
        let Some(state) = self.stream(stream) else { return };
        let known = state.shards.entry(shard).or_insert(other);
        known.created = known.created.max(other.created);
        known.reserved_below = known.reserved_below.max(other.reserved_below);
        known.gone_below = known.gone_below.max(other.gone_below);
    }

    pub fn delete(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        self.deleted.insert(stream);
    }

    pub fn merge(&mut self, other: Control) {
        for stream in other.deleted {
            self.delete(stream);
        }
        for (stream, state) in other.streams {
            self.merge_stream(stream, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_set_holds_what_was_put_in_and_nothing_else(ranges in proptest::collection::vec((0u64..60, 0u64..12), 0..20)) {
            let mut set = RangeSet::default();
            let mut plain = BTreeSet::new();
            for (from, len) in ranges {
                set.insert(from, from + len);
                plain.extend(from..from + len);
            }
            for value in 0..80 {
                prop_assert_eq!(set.contains(value), plain.contains(&value));
            }
            let flat: Vec<(u64, u64)> = set.iter().collect();
            prop_assert!(flat.windows(2).all(|w| w[0].1 < w[1].0), "{:?}", flat);
        }
    }
}
