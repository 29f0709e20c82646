//! Trying again: exponential back-off with jitter, for as long as a destination's retry options say.
//!
//! The time that counts is the time between the attempts. That is what AWS says of its own counter: it starts when the
//! first attempt has failed, and leaves out the time in which an answer is waited for. The last wait is cut so that it
//! ends with the counter; with a duration of 0 there is one attempt.

use std::time::Duration;

use super::limits::{BACKOFF_FIRST, BACKOFF_JITTER, BACKOFF_MAX, MESSAGE_BYTES_MAX};

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// AWS's code, for the error output.
    pub code: String,
    /// What happened.
    pub message: String,
    /// Whether another attempt may help.
    pub again: bool,
}

impl Trouble {
    /// Another attempt may help.
    pub fn passing(code: &str, message: impl Into<String>) -> Self {
        Trouble {
            again: true,
            ..Trouble::lasting(code, message)
        }
    }

    /// Another attempt would end the same way.
    pub fn lasting(code: &str, message: impl Into<String>) -> Self {
        Trouble {
            code: code.to_owned(),
            message: shortened(message.into()),
            again: false,
        }
    }
}

/// Text that is short enough to stand in many error records.
pub fn shortened(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
        text.push('…');
    }
    text
}

/// The attempts of one request.
#[derive(Debug)]
pub struct Attempts {
    made: u32,
    left: Duration,
}

impl Attempts {
    /// Attempts with so much time between them.
    pub fn new(budget: Duration) -> Self {
        Attempts { made: 0, left: budget }
    }

    /// How many were made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Counts an attempt that failed and waits for the next; false when there is none, which is so if another would not help.
    pub async fn another(&mut self, helps: bool) -> bool {
        let backoff = backoff(self.made, fastrand::f64());
        self.made += 1;
        if self.left.is_zero() || !helps {
            return false;
        }
        let wait = backoff.min(self.left);
        self.left -= wait;
        tokio::time::sleep(wait).await;
        true
    }
}

/// The wait behind the `retry`th attempt, counted from 0; `random` is 0 to 1.
fn backoff(retry: u32, random: f64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(2u32.saturating_pow(retry));
    doubled
        .min(BACKOFF_MAX)
        .mul_f64(1.0 - BACKOFF_JITTER + 2.0 * BACKOFF_JITTER * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_bounded() {
        let seconds = |retry, random| backoff(retry, random).as_secs_f64();
        assert!((seconds(0, 0.5) - 1.0).abs() < 1e-6);
        assert!((seconds(0, 0.0) - 0.85).abs() < 1e-6);
        assert!((seconds(3, 1.0) - 8.0 * 1.15).abs() < 1e-6);
        assert!((seconds(7, 0.5) - 120.0).abs() < 1e-6);
        assert!((seconds(u32::MAX, 0.5) - 120.0).abs() < 1e-6);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_between_attempts_is_what_was_configured() {
        let begun = tokio::time::Instant::now();
        let mut attempts = Attempts::new(Duration::from_secs(10));
        while attempts.another(true).await {}
        assert_eq!(begun.elapsed().as_secs(), 10);
        // After about 1, 3, 7 and 10 seconds.
        assert_eq!(attempts.made(), 5);
        let mut none = Attempts::new(Duration::ZERO);
        assert!(!none.another(true).await);
        assert_eq!(none.made(), 1);
        let mut helpless = Attempts::new(Duration::from_secs(10));
        assert!(!helpless.another(false).await);
        assert_eq!(helpless.made(), 1);
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let long = shortened("ä".repeat(MESSAGE_BYTES_MAX));
        assert!(long.len() <= MESSAGE_BYTES_MAX + 3 && long.ends_with("ä…"));
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
