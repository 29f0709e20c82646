//! Payloads that can be told apart and checked: a number, noise, and a checksum of both.

use std::collections::HashMap;

use crate::Failure;

/// Bytes of a payload, as the figures are given.
pub const BYTES: usize = 1024;

/// The payload of a number.
pub fn make(number: u64) -> Vec<u8> {
    let mut noise = fastrand::Rng::with_seed(number);
    let mut payload = vec![0; BYTES - 4];
    noise.fill(&mut payload);
    payload[..8].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c::crc32c(&payload);
    payload.extend_from_slice(&sum.to_le_bytes());
    payload
}

/// The number of a payload; an error if a byte of it is not as it was sent.
pub fn check(payload: &[u8]) -> Result<u64, Failure> {
    let (body, sum) = payload.split_last_chunk::<4>().ok_or("a payload is too short")?;
    let (number, _) = body.split_first_chunk::<8>().ok_or("a payload is too short")?;
    if payload.len() != BYTES || crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return Err(format!("a payload of {} bytes is not as it was sent", payload.len()).into());
    }
    Ok(u64::from_le_bytes(*number))
}

/// How often each number was acknowledged, or read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(HashMap<u64, u32>);

impl Tally {
    pub fn count(&mut self, number: u64) {
        *self.0.entry(number).or_default() += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        for (number, times) in &other.0 {
            *self.0.entry(*number).or_default() += times;
        }
    }

    pub fn total(&self) -> u64 {
        self.0.values().map(|times| u64::from(*times)).sum()
    }

    /// Records of `self` that `read` lacks, and those it has too often.
    pub fn differences(&self, read: &Tally) -> (u64, u64) {
        let beyond = |one: &Tally, other: &Tally| -> u64 {
            let more = one.0.iter().map(|(number, times)| {
                let found = other.0.get(number).copied().unwrap_or(0);
                u64::from(times.saturating_sub(found))
            });
            more.sum()
        };
        (beyond(self, read), beyond(read, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_gives_its_number_back_and_a_changed_one_does_not() {
        let mut payload = make(77);
        assert_eq!(payload.len(), BYTES);
        assert_eq!(check(&payload).ok(), Some(77));
        payload[500] ^= 1;
        assert!(check(&payload).is_err());
    }

    #[test]
    fn tallies_tell_what_is_missing_and_what_is_double() {
        let (mut sent, mut read) = (Tally::default(), Tally::default());
        for number in [1, 2, 2, 3] {
            sent.count(number);
        }
        for number in [1, 1, 2, 4] {
            read.count(number);
        }
        assert_eq!(sent.differences(&read), (2, 2));
    }
}
