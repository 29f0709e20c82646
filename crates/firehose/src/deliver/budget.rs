//! The memory that records may take in the whole server. Who has none left waits, and while somebody waits all others give
//! their buffers away before they are full.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Memory is counted in units of this many bytes, because a semaphore counts to 2^29.
const UNIT: u64 = 1024;

/// See the module.
pub struct Budget {
    units: Arc<Semaphore>,
    all: u32,
    /// Counts those who had to wait.
    short: watch::Sender<u64>,
}

/// Memory that is taken until this is dropped.
#[derive(Debug)]
pub struct Held(OwnedSemaphorePermit);

impl Held {
    /// Adds what another holds.
    pub fn merge(&mut self, other: Held) {
        self.0.merge(other.0);
    }

    /// Gives back all but so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        let spare = self.0.num_permits().saturating_sub(units(bytes as u64) as usize);
        drop(self.0.split(spare));
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        let all = units(bytes).clamp(1, 1 << 28);
        Budget {
            units: Arc::new(Semaphore::new(all as usize)),
            all,
            short: watch::Sender::new(0),
        }
    }

    /// Takes so many bytes, or all there are where more are asked for. Waits until they are free, and asks the others to
    /// give up what they can.
    pub async fn take(&self, bytes: usize) -> Held {
        let wanted = units(bytes as u64).min(self.all);
        if let Ok(held) = Arc::clone(&self.units).try_acquire_many_owned(wanted) {
            return Held(held);
        }
        self.short.send_modify(|count| *count = count.wrapping_add(1));
        match Arc::clone(&self.units).acquire_many_owned(wanted).await {
            Ok(held) => Held(held),
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Changes when somebody has to wait.
    pub fn shortage(&self) -> watch::Receiver<u64> {
        self.short.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_memory_is_heard_and_gets_what_is_given_back() {
        let budget = Arc::new(Budget::new(10 << 10));
        let mut heard = budget.shortage();
        let mut first = budget.take(8 << 10).await;
        first.merge(budget.take(1 << 10).await);
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.take(1 << 20).await.0.num_permits() }
        });
        heard.changed().await.unwrap();
        first.shrink_to(1);
        assert_eq!(first.0.num_permits(), 1);
        drop(first);
        assert_eq!(waiting.await.unwrap(), 10, "more than there is means all");
    }
}
