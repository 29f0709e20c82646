//! How far the deliveries of a stream have come, in memory; [`crate::records`] keeps it.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Kind;

/// The commit position of the last fragment that is done with.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    at: Mutex<At>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct At {
    /// `None`: nothing is wanted.
    position: Option<u64>,
    /// Raised by each [`Cursor::set`], so that a delivery begun before it does not move what it set.
    generation: u64,
    dirty: bool,
}

/// A cursor as it was when a follower looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The commit position.
    pub position: u64,
    generation: u64,
}

impl Cursor {
    /// Where it stands, if anything is wanted.
    pub fn get(&self) -> Option<Seen> {
        let at = *self.at.lock();
        let generation = at.generation;
        at.position.map(|position| Seen { position, generation })
    }

    /// Sets it as the catalog has it.
    pub fn set(&self, position: Option<u64>) {
        {
            let mut at = self.at.lock();
            at.position = position;
            at.generation += 1;
            at.dirty = false;
        }
        self.changed.notify_waiters();
    }

    /// The fragment at `to` is done with. False when the cursor was set meanwhile.
    pub fn advance(&self, seen: Seen, to: u64) -> bool {
        let mut at = self.at.lock();
        let same = at.generation == seen.generation && at.position.is_some();
        if same {
            at.position = Some(to);
            at.dirty = true;
        }
        same
    }

    /// Whether it is as it was seen.
    pub fn is(&self, seen: Seen) -> bool {
        self.at.lock().generation == seen.generation
    }

    /// The position that the catalog does not have yet; it is taken to have it from now on.
    pub fn take_dirty(&self) -> Option<u64> {
        let mut at = self.at.lock();
        let dirty = std::mem::take(&mut at.dirty);
        at.position.filter(|_| dirty)
    }

    /// The catalog did not take the position.
    pub fn mark_dirty(&self) {
        self.at.lock().dirty = true;
    }

    /// Completes at the next [`Cursor::set`].
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

/// The cursors of a stream.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    notifications: Cursor,
    images: Cursor,
}

impl Cursors {
    /// The cursor of a kind.
    pub fn of(&self, kind: Kind) -> &Cursor {
        match kind {
            Kind::Notifications => &self.notifications,
            Kind::Images => &self.images,
        }
    }

    /// Whether anything is wanted.
    pub fn any(&self) -> bool {
        Kind::ALL.into_iter().any(|kind| self.of(kind).get().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_was_begun_before_a_change_does_not_move_what_the_change_set() {
        let cursor = Cursor::default();
        assert_eq!(cursor.get(), None);
        cursor.set(Some(3));
        let seen = cursor.get().unwrap();
        assert!(cursor.advance(seen, 4));
        assert_eq!((cursor.take_dirty(), cursor.take_dirty()), (Some(4), None));
        cursor.set(None);
        cursor.set(Some(9));
        assert!(!cursor.is(seen) && !cursor.advance(seen, 5));
        assert_eq!(cursor.get().unwrap().position, 9);
        assert_eq!(cursor.take_dirty(), None);
    }
}
