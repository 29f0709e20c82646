//! Memory that all shards share: who wants to fetch reserves first, and waits while others hold too much.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that may be in memory at once.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    used: Mutex<Used>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Used {
    now: usize,
    peak: usize,
}

impl Budget {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Budget {
            max,
            used: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Bytes held now, and the most that were.
    pub fn used(&self) -> (usize, usize) {
        let used = self.used.lock();
        (used.now, used.peak)
    }

    /// The most that one fetch may ask for: a quarter, so that some can fetch at once.
    pub fn share(&self, wanted: usize) -> usize {
        wanted.min(self.max / 4).max(1)
    }

    /// Waits until so much is free; one that wants more than there is gets it when nothing else is held.
    pub async fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let mut used = self.used.lock();
                if used.now == 0 || used.now + bytes <= self.max {
                    used.add(bytes);
                    return Reservation {
                        budget: Arc::clone(self),
                        bytes,
                    };
                }
            }
            freed.await;
        }
    }
}

impl Used {
    fn add(&mut self, bytes: usize) {
        self.now += bytes;
        self.peak = self.peak.max(self.now);
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// What came was so large after all.
    pub fn resize(&mut self, bytes: usize) {
        {
            let mut used = self.budget.used.lock();
            used.now -= self.bytes;
            used.add(bytes);
        }
        self.bytes = bytes;
        self.budget.freed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.lock().now -= self.bytes;
        self.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    #[tokio::test(start_paused = true)]
    async fn who_wants_more_than_is_left_waits_for_it() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(80).await;
        let soon = |bytes| timeout(Duration::from_secs(1), budget.reserve(bytes));
        assert!(soon(30).await.is_err());
        first.resize(70);
        let second = soon(30).await.unwrap();
        assert_eq!(budget.used(), (100, 100));
        assert!(soon(1).await.is_err());
        drop((first, second));
        assert!(
            soon(1000).await.is_ok(),
            "more than there is, when nothing else is held"
        );
    }
}
