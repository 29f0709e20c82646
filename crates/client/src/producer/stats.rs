//! What a producer counts.

use std::time::Duration;

/// Buckets of a [`Latency`]: the first ends at 1 ms, each of the others at the double of the one before.
const BUCKETS: usize = 24;

/// How long something took, over many times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    count: u64,
    total: Duration,
    longest: Duration,
    buckets: [u64; BUCKETS],
}

impl Latency {
    pub(crate) fn add(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
        self.longest = self.longest.max(took);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - millis.leading_zeros()) as usize;
        if let Some(count) = self.buckets.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
        }
    }

    /// How many times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean; zero where there is none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        u32::try_from(self.count)
            .ok()
            .and_then(|count| self.total.checked_div(count))
            .unwrap_or_default()
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// A time that this share of all (0 to 1) did not exceed, to the next power of two in milliseconds.
    #[must_use]
    pub fn at_most(&self, share: f64) -> Duration {
        let wanted = (self.count as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_millis(1 << bucket).min(self.longest);
            }
        }
        self.longest
    }
}

/// What a producer has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Fragments that were begun.
    pub fragments: u64,
    /// Fragments that were confirmed.
    pub confirmed: u64,
    /// Fragments that were given up.
    pub lost: u64,
    /// Fragments that were begun a second time, on another connection.
    pub resent: u64,
    /// Media bytes that the caller handed over.
    pub bytes: u64,
    /// Media bytes that went into connections, those of a second time and headers included.
    pub bytes_sent: u64,
    /// Bytes of confirmed fragments.
    pub bytes_confirmed: u64,
    /// Fragments in the buffer.
    pub buffered_fragments: usize,
    /// Bytes in the buffer.
    pub buffered_bytes: usize,
    /// Most bytes that were in the buffer.
    pub buffered_bytes_peak: usize,
    /// Connections that were opened.
    pub connections: u64,
    /// Attempts and connections that failed.
    pub failures: u64,
    /// From a fragment's last byte handed to the connection to RECEIVED.
    pub received_after: Latency,
    /// From a fragment's last byte handed to the connection to PERSISTED.
    pub persisted_after: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_says_what_most_did_not_exceed() {
        let mut latency = Latency::default();
        assert_eq!(latency.at_most(0.5), Duration::ZERO);
        for millis in [0, 1, 3, 3, 3, 3, 3, 3, 3, 900] {
            latency.add(Duration::from_millis(millis));
        }
        assert_eq!(latency.at_most(0.5), Duration::from_millis(4));
        assert_eq!(latency.at_most(1.0), Duration::from_millis(900));
        assert_eq!((latency.count(), latency.mean().as_micros()), (10, 92_200));
    }
}
