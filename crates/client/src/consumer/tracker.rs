//! Which holders live. A lease's counter grows while its holder lives; how long it has stood still is measured on this
//! machine's own monotonic clock, so that nobody's wall clock matters. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lease::Lease;

#[derive(Debug)]
struct Seen {
    counter: u64,
    counter_since: Duration,
    owners: (Option<String>, Option<String>),
    owners_since: Duration,
}

/// Remembers when each lease was last seen to change.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    seen: BTreeMap<String, Seen>,
}

impl Tracker {
    /// Looks at the whole table.
    pub fn observe(&mut self, leases: &[Lease], now: Duration) {
        let mut seen = std::mem::take(&mut self.seen);
        for lease in leases {
            let owners = (lease.owner.clone(), lease.checkpoint_owner.clone());
            let entry = match seen.remove(&lease.key) {
                Some(old) => Seen {
                    counter_since: if old.counter == lease.counter {
                        old.counter_since
                    } else {
                        now
                    },
                    owners_since: if old.owners == owners { old.owners_since } else { now },
                    counter: lease.counter,
                    owners,
                },
                None => Seen {
                    counter: lease.counter,
                    counter_since: now,
                    owners,
                    owners_since: now,
                },
            };
            self.seen.insert(lease.key.clone(), entry);
        }
    }

    /// How long its counter has stood still.
    pub fn still_for(&self, key: &str, now: Duration) -> Duration {
        self.seen
            .get(key)
            .map_or(Duration::ZERO, |seen| now.saturating_sub(seen.counter_since))
    }

    /// How long its owners have been the same.
    pub fn owners_for(&self, key: &str, now: Duration) -> Duration {
        self.seen
            .get(key)
            .map_or(Duration::ZERO, |seen| now.saturating_sub(seen.owners_since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::lease::Checkpoint;

    #[test]
    fn only_growth_of_the_counter_says_that_a_holder_lives() {
        let mut tracker = Tracker::default();
        let seconds = Duration::from_secs;
        let mut lease = Lease::new("shard-0", Checkpoint::TrimHorizon);
        tracker.observe(std::slice::from_ref(&lease), seconds(5));
        tracker.observe(std::slice::from_ref(&lease), seconds(9));
        assert_eq!(tracker.still_for("shard-0", seconds(9)), seconds(4));
        lease.owner = Some("a".into());
        tracker.observe(std::slice::from_ref(&lease), seconds(10));
        assert_eq!(tracker.still_for("shard-0", seconds(10)), seconds(5));
        assert_eq!(tracker.owners_for("shard-0", seconds(11)), seconds(1));
        lease.counter += 1;
        tracker.observe(std::slice::from_ref(&lease), seconds(12));
        assert_eq!(tracker.still_for("shard-0", seconds(12)), Duration::ZERO);
        tracker.observe(&[], seconds(13));
        assert_eq!(
            tracker.still_for("shard-0", seconds(99)),
            Duration::ZERO,
            "gone is forgotten"
        );
    }
}
