//! Which shard takes which hash key, as far as is known. Pure.

use std::collections::BTreeMap;

use crate::consumer::Shard;
use crate::records::{HashKey, HashRange};

/// The open shards of a stream by their ranges, and the ranges of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardMap {
    shards: Vec<(HashRange, String)>,
    ranges: BTreeMap<String, HashRange>,
}

impl ShardMap {
    /// From a listing.
    pub fn new(shards: Vec<Shard>) -> Self {
        let ranges = shards.iter().map(|shard| (shard.id.clone(), shard.range)).collect();
        let open = shards.into_iter().filter(|shard| shard.open);
        let mut shards: Vec<_> = open.map(|shard| (shard.range, shard.id)).collect();
        shards.sort();
        ShardMap { shards, ranges }
    }

    /// Where a record will go.
    pub fn shard(&self, key: HashKey) -> Option<&str> {
        let after = self.shards.partition_point(|(range, _)| range.first <= key);
        let (range, id) = self.shards.get(after.checked_sub(1)?)?;
        range.contains(key).then_some(id.as_str())
    }

    /// The range of a shard, open or not.
    pub fn range(&self, id: &str) -> Option<HashRange> {
        self.ranges.get(id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_the_open_shard_whose_range_has_it() {
        let shard = |id: &str, first: u128, last: u128, open: bool| Shard {
            id: id.to_owned(),
            parents: Vec::new(),
            range: HashRange {
                first: HashKey(first),
                last: HashKey(last),
            },
            open,
        };
        let map = ShardMap::new(vec![
            shard("b", 50, 99, true),
            shard("old", 0, 99, false),
            shard("a", 0, 49, true),
        ]);
        let at = |key| map.shard(HashKey(key));
        assert_eq!(
            (at(0), at(49), at(50), at(99), at(100)),
            (Some("a"), Some("a"), Some("b"), Some("b"), None)
        );
        assert_eq!((map.range("a").unwrap().last, map.range("new")), (HashKey(49), None));
    }
}
