//! What a change of shards makes of them: pure, so that the rules are seen at a glance. A parent ends in the millisecond
//! in which its child begins, and a child begins after its parents did: so its sequence numbers are above theirs.

use base::Timestamp;

use crate::hash::{HashKey, divide};
use crate::stored::{Reshard, ShardRecord, StreamRecord};

/// A change of shards in the making.
#[derive(Debug)]
pub struct Plan {
    now_ms: i64,
    next: u32,
    reshard: Reshard,
    /// The shards that will be open, in the order of their keys.
    open: Vec<Open>,
}

/// A shard that is open at this point of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its number.
    pub number: u32,
    /// First hash key of its range.
    pub first_key: HashKey,
    /// Last hash key of its range.
    pub last_key: HashKey,
    created_ms: i64,
}

impl Plan {
    /// A plan that changes nothing yet.
    pub fn new(record: &StreamRecord, now: Timestamp) -> Self {
        let mut open: Vec<Open> = record
            .open_shards()
            .map(|s| Open {
                number: s.number,
                first_key: s.first_key,
                last_key: s.last_key,
                created_ms: s.created_ms,
            })
            .collect();
        open.sort_by_key(|s| s.first_key);
        Plan {
            now_ms: now.millis(),
            next: record.next_shard(),
            reshard: Reshard::default(),
            open,
        }
    }

    /// The change, and the number behind the last one that it gave.
    pub fn finish(self) -> (Reshard, u32) {
        (self.reshard, self.next)
    }

    /// Shards that will be open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Splits an open shard; `at` begins the second child and lies behind the first key.
    pub fn split(&mut self, shard: Open, at: HashKey) {
        let Some(place) = self.open.iter().position(|s| *s == shard) else {
            return;
        };
        let created_ms = self.now_ms.max(shard.created_ms.saturating_add(1));
        self.end(shard.number, created_ms);
        let parents = (Some(shard.number), None);
        let low = self.begin((shard.first_key, HashKey(at.0.saturating_sub(1))), created_ms, parents);
        let high = self.begin((at, shard.last_key), created_ms, parents);
        self.open.splice(place..=place, [low, high]);
    }

    /// Merges two open shards that lie side by side; the first is the one that the caller named first.
    pub fn merge(&mut self, shard: Open, adjacent: Open) {
        let (low, high) = match shard.first_key < adjacent.first_key {
            true => (shard, adjacent),
            false => (adjacent, shard),
        };
        let Some(place) = self.open.windows(2).position(|two| two == [low, high]) else {
            return;
        };
        let latest = shard.created_ms.max(adjacent.created_ms);
        let created_ms = self.now_ms.max(latest.saturating_add(1));
        self.end(shard.number, created_ms);
        self.end(adjacent.number, created_ms);
        let parents = (Some(shard.number), Some(adjacent.number));
        let child = self.begin((low.first_key, high.last_key), created_ms, parents);
        self.open.splice(place..=place + 1, [child]);
    }

    /// Splits and merges until `count` shards divide the ring evenly. Shards that lie right already stay.
    pub fn even_out(&mut self, count: usize) {
        let wanted = divide(count);
        for (first, _) in &wanted {
            let holds = |s: &&Open| s.first_key < *first && *first <= s.last_key;
            if let Some(shard) = self.open.iter().find(holds).copied() {
                self.split(shard, *first);
            }
        }
        for (first, last) in &wanted {
            loop {
                let within = |s: &&Open| s.first_key >= *first && s.last_key <= *last;
                let mut pieces = self.open.iter().filter(within).copied();
                let (Some(one), Some(two)) = (pieces.next(), pieces.next()) else {
                    break;
                };
                self.merge(one, two);
            }
        }
    }

    /// An open shard by its number.
    pub fn shard(&self, number: u32) -> Option<Open> {
        self.open.iter().find(|s| s.number == number).copied()
    }

    fn end(&mut self, number: u32, at_ms: i64) {
        match self.reshard.opening.iter_mut().find(|s| s.number == number) {
            Some(own) => own.closed_ms = Some(at_ms),
            None => self.reshard.closing.push((number, at_ms)),
        }
    }

    fn begin(
        &mut self,
        (first_key, last_key): (HashKey, HashKey),
        created_ms: i64,
        (parent, adjacent_parent): (Option<u32>, Option<u32>),
    ) -> Open {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.reshard.opening.push(ShardRecord {
            number,
            first_key,
            last_key,
            created_ms,
            closed_ms: None,
            last_sequence: None,
            parent,
            adjacent_parent,
        });
        Open {
            number,
            first_key,
            last_key,
            created_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// The record after a plan, as if it had been carried out.
    fn after(record: &StreamRecord, plan: Plan) -> StreamRecord {
        let mut record = record.clone();
        let (reshard, next) = plan.finish();
        let ends: Vec<_> = reshard
            .closing
            .iter()
            .map(|(number, _)| (*number, record.shard(*number).unwrap().first_sequence()))
            .collect();
        (record.reshard, record.next_shard) = (Some(reshard), next);
        record.complete_reshard(&ends);
        record
    }

    fn check(record: &StreamRecord) {
        let mut open: Vec<_> = record.open_shards().map(|s| (s.first_key, s.last_key)).collect();
        open.sort_unstable();
        assert_eq!(open.first().unwrap().0, HashKey(0));
        assert_eq!(open.last().unwrap().1, HashKey(u128::MAX));
        assert!(open.windows(2).all(|w| w[0].1.0 + 1 == w[1].0.0), "{open:?}");
        for shard in &record.shards {
            assert!(shard.first_key <= shard.last_key);
            assert_eq!(shard.closed_ms.is_some(), shard.last_sequence.is_some());
            let parents = [shard.parent, shard.adjacent_parent];
            for parent in parents.into_iter().flatten().filter_map(|n| record.shard(n)) {
                assert_eq!(
                    parent.closed_ms,
                    Some(shard.created_ms),
                    "no gap and no overlap in time"
                );
                assert!(
                    parent.created_ms < shard.created_ms,
                    "numbers of a child are above its parents'"
                );
                assert!(parent.number < shard.number);
            }
            let children = record.children(shard.number).count();
            assert_eq!(children > 0, shard.closed_ms.is_some());
        }
        assert!(record.shards.windows(2).all(|w| w[0].number < w[1].number));
    }

    #[test]
    fn a_split_and_a_merge_have_the_family_that_aws_gives_them() {
        let record = StreamRecord::new(at(1000), 2);
        let mut plan = Plan::new(&record, at(1000));
        let first = plan.shard(0).unwrap();
        plan.split(first, HashKey(1 << 100));
        let record = after(&record, plan);
        check(&record);
        let family: Vec<_> = record
            .shards
            .iter()
            .map(|s| (s.number, s.parent, s.closed_ms))
            .collect();
        assert_eq!(
            family,
            [
                (0, None, Some(1001)),
                (1, None, None),
                (2, Some(0), None),
                (3, Some(0), None)
            ],
            "a child of the same millisecond waits for the next"
        );
        assert_eq!(record.shards[3].first_key, HashKey(1 << 100));
        let mut plan = Plan::new(&record, at(5000));
        let (one, three) = (plan.shard(1).unwrap(), plan.shard(3).unwrap());
        plan.merge(one, three);
        let record = after(&record, plan);
        check(&record);
        let child = record.shards.last().unwrap();
        assert_eq!(
            (child.number, child.parent, child.adjacent_parent),
            (4, Some(1), Some(3))
        );
        assert_eq!(
            (child.first_key, child.last_key),
            (HashKey(1 << 100), HashKey(u128::MAX))
        );
    }

    #[test]
    fn doubling_and_halving_go_without_detours() {
        let record = StreamRecord::new(at(1), 4);
        let mut plan = Plan::new(&record, at(2));
        plan.even_out(8);
        let doubled = after(&record, plan);
        check(&doubled);
        assert_eq!((doubled.shards.len(), doubled.open_shards().count()), (12, 8));
        let mut plan = Plan::new(&doubled, at(3));
        plan.even_out(4);
        let halved = after(&doubled, plan);
        check(&halved);
        assert_eq!((halved.shards.len(), halved.open_shards().count()), (16, 4));
        let mut plan = Plan::new(&halved, at(4));
        plan.even_out(4);
        assert_eq!(plan.finish().0, Reshard::default(), "nothing to do");
    }

    proptest! {
        #[test]
        fn after_any_changes_the_open_shards_divide_the_ring(
            start in 1usize..6, counts in proptest::collection::vec(1usize..40, 1..6), keys in proptest::collection::vec(any::<u128>(), 0..4)
        ) {
            let mut record = StreamRecord::new(at(10), start);
            for (n, count) in counts.iter().enumerate() {
                let mut plan = Plan::new(&record, at(10 + n as i64));
                for key in &keys {
                    let shard = plan.open.iter().find(|s| s.first_key.0 < *key && *key <= s.last_key.0).copied();
                    if let Some(shard) = shard {
                        plan.split(shard, HashKey(*key));
                    }
                }
                plan.even_out(*count);
                record = after(&record, plan);
                check(&record);
                prop_assert_eq!(record.open_shards().map(|s| (s.first_key, s.last_key)).collect::<std::collections::BTreeSet<_>>(),
                    divide(*count).into_iter().collect::<std::collections::BTreeSet<_>>());
            }
        }
    }
}
