//! Who is subscribed to which shard: one subscription for each consumer and shard, and a later one takes over.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use storage::{ShardId, StreamId};
use tokio::sync::oneshot;

use crate::limits::SUBSCRIPTION_HELD_MS;

/// A consumer (its stream and the second of its registration) and a shard.
pub type Place = (StreamId, i64, ShardId);

#[derive(Debug)]
struct Held {
    since: Duration,
    take_over: oneshot::Sender<()>,
}

/// The last subscription of each place.
#[derive(Debug, Default)]
pub struct Subscriptions(Mutex<HashMap<Place, Held>>);

/// The place was subscribed to a moment ago.
#[derive(Debug, PartialEq, Eq)]
pub struct InUse;

impl Subscriptions {
    /// Takes a place, from who has it if that was not just now. The receiver gets a message when another takes it.
    pub fn take(&self, place: Place, now: Duration) -> Result<oneshot::Receiver<()>, InUse> {
        let mut held = self.0.lock();
        if held.get(&place).is_some_and(|held| !is_old(held, now)) {
            return Err(InUse);
        }
        let (take_over, taken) = oneshot::channel();
        if let Some(before) = held.insert(place, Held { since: now, take_over }) {
            // It may have ended.
            let _ = before.take_over.send(());
        }
        Ok(taken)
    }

    /// Forgets subscriptions that have ended and hold nobody up any more.
    pub fn forget_ended(&self, now: Duration) {
        self.0
            .lock()
            .retain(|_, held| !held.take_over.is_closed() || !is_old(held, now));
    }
}

fn is_old(held: &Held, now: Duration) -> bool {
    now.saturating_sub(held.since) >= Duration::from_millis(SUBSCRIPTION_HELD_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_held_for_five_seconds_and_then_the_later_takes_over() {
        let all = Subscriptions::default();
        let place = (StreamId(1), 7, ShardId(0));
        let ms = Duration::from_millis;
        let mut first = all.take(place, ms(0)).unwrap();
        assert_eq!(all.take(place, ms(4_999)).unwrap_err(), InUse);
        let other = all.take((StreamId(1), 8, ShardId(0)), ms(10)).unwrap();
        assert!(first.try_recv().is_err());
        let second = all.take(place, ms(5_000)).unwrap();
        assert_eq!(first.try_recv(), Ok(()));
        drop(second);
        assert!(all.take(place, ms(6_000)).is_err(), "also when it has ended");
        all.forget_ended(ms(6_000));
        assert_eq!(all.0.lock().len(), 2);
        all.forget_ended(ms(10_000));
        assert_eq!(all.0.lock().len(), 1, "the other one is still there");
        drop(other);
        all.forget_ended(ms(10_000));
        assert!(all.0.lock().is_empty());
    }
}
