//! How long to wait before the next attempt.

use std::time::Duration;

/// Waiting times that double from attempt to attempt, each drawn at random from its upper half, so that a thousand
/// cameras do not come back in the same moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait before the second attempt.
    pub first: Duration,
    /// Longest wait before any attempt.
    pub longest: Duration,
}

impl Default for Backoff {
    /// From 200 ms to 20 s.
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(20),
        }
    }
}

impl Backoff {
    /// The wait after this many failures in a row (from 1), for a random number from 0 up to 1.
    #[must_use]
    pub fn wait(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.longest);
        ceiling.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// The wait after this many failures in a row, drawn at random.
    #[must_use]
    pub fn draw(&self, failures: u32) -> Duration {
        self.wait(failures, fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_never_fall_below_half() {
        let backoff = Backoff::default();
        let waits = |random: f64| -> Vec<u128> {
            [1, 2, 3, 7, 8, 999]
                .map(|n| backoff.wait(n, random).as_millis())
                .to_vec()
        };
        assert_eq!(waits(0.0), [100, 200, 400, 6400, 10_000, 10_000]);
        assert_eq!(waits(1.0), [200, 400, 800, 12_800, 20_000, 20_000]);
    }
}
