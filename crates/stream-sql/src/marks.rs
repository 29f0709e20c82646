//! How far event time has come: of each partition of a source, and of the sources together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::operator::Millis;

/// Where event time is, to the steps behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nobody knows yet.
    Unknown,
    /// So far.
    At(Millis),
    /// Nothing is to be expected, so nothing is held back.
    Idle,
}

impl Mark {
    /// What two inputs are together.
    pub fn least(self, other: Mark) -> Mark {
        match (self, other) {
            (Mark::Idle, other) | (other, Mark::Idle) => other,
            (Mark::Unknown, _) | (_, Mark::Unknown) => Mark::Unknown,
            (Mark::At(a), Mark::At(b)) => Mark::At(a.min(b)),
        }
    }
}

/// The partitions of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partitions {
    /// By their numbers.
    open: BTreeMap<u32, Partition>,
    /// The greatest mark of those that were closed, for when none is left.
    closed: Option<Millis>,
    /// The input has ended.
    ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Partition {
    greatest: Option<Millis>,
    idle: bool,
}

impl Partitions {
    pub fn open(&mut self, partition: u32) {
        self.open.entry(partition).or_default();
    }

    pub fn close(&mut self, partition: u32) {
        if let Some(closed) = self.open.remove(&partition) {
            self.closed = self.closed.max(closed.greatest);
        }
    }

    pub fn saw(&mut self, partition: u32, greatest: Option<Millis>) {
        let partition = self.open.entry(partition).or_default();
        partition.greatest = partition.greatest.max(greatest);
        partition.idle = false;
    }

    pub fn set_idle(&mut self, partition: u32, idle: bool) {
        self.open.entry(partition).or_default().idle = idle;
    }

    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The least of all partitions that are not idle: the greatest time seen, less the delay, less 1 ms.
    pub fn mark(&self, delay: Millis) -> Mark {
        if self.ended {
            return Mark::At(Millis::MAX);
        }
        let of = |greatest: Millis| Mark::At(greatest.saturating_sub(delay).saturating_sub(1));
        if self.open.is_empty() {
            return self.closed.map_or(Mark::Unknown, of);
        }
        let marks = self
            .open
            .values()
            .map(|partition| match (partition.idle, partition.greatest) {
                (true, _) => Mark::Idle,
                (false, None) => Mark::Unknown,
                (false, Some(greatest)) => of(greatest),
            });
        marks.fold(Mark::Idle, Mark::least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_partition_counts_unless_it_is_idle() {
        let mut source = Partitions::default();
        assert_eq!(source.mark(0), Mark::Unknown);
        source.saw(0, Some(100));
        assert_eq!(source.mark(10), Mark::At(89));
        source.open(1);
        assert_eq!(source.mark(10), Mark::Unknown);
        source.saw(1, Some(50));
        assert_eq!(source.mark(10), Mark::At(39));
        source.set_idle(1, true);
        assert_eq!(source.mark(10), Mark::At(89));
        source.set_idle(0, true);
        assert_eq!(source.mark(10), Mark::Idle);
        source.saw(1, Some(20));
        assert_eq!(source.mark(10), Mark::At(39));
        source.close(1);
        assert_eq!(source.mark(10), Mark::Idle);
        source.close(0);
        assert_eq!(source.mark(10), Mark::At(89));
        source.end();
        assert_eq!(source.mark(10), Mark::At(Millis::MAX));
    }
}
