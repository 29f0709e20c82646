//! Receipt handles: sealed, so that nobody makes one, and good for one delivery of one record of one queue.

use auth::KeyRing;
use auth::seal::Form;
use base::{ApiError, Timestamp};

use crate::queues::book::Spot;
use crate::queues::failed;

const PURPOSE: &str = "queue-receipt";
/// First byte of a handle's plain text.
const VERSION: u8 = 1;

/// A delivery of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The record.
    pub spot: Spot,
    /// Which of its deliveries.
    pub generation: u32,
    /// It was delivered as a dead letter.
    pub dead: bool,
}

fn context(queue: u64) -> String {
    format!("queue/{queue}")
}

impl Receipt {
    /// The text that the receiver gets.
    pub fn seal(self, queue: u64, ring: &KeyRing) -> Result<String, ApiError> {
        let mut plain = vec![VERSION, u8::from(self.dead)];
        plain.extend_from_slice(&self.spot.shard.to_be_bytes());
        plain.extend_from_slice(&self.spot.index.to_be_bytes());
        plain.extend_from_slice(&self.generation.to_be_bytes());
        ring.seal(PURPOSE, &context(queue), None, &plain, Form::Base64)
            .map_err(|e| failed("No receipt handle could be made.", e))
    }

    /// Opens what [`Receipt::seal`] made for this queue; `None` for everything else.
    pub fn open(text: &str, queue: u64, ring: &KeyRing, now: Timestamp) -> Option<Self> {
        let plain = ring.open(PURPOSE, &context(queue), now, text, Form::Base64).ok()?;
        let (head, rest) = plain.split_first_chunk::<2>()?;
        let (shard, rest) = rest.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let [version, dead] = *head;
        (version == VERSION && dead <= 1 && rest.is_empty()).then_some(Receipt {
            spot: Spot {
                shard: u32::from_be_bytes(*shard),
                index: u64::from_be_bytes(*index),
            },
            generation: u32::from_be_bytes(*generation),
            dead: dead == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_opens_at_its_own_queue_alone() {
        let (ring, now) = (KeyRing::ephemeral().unwrap(), Timestamp::from_millis(1));
        let receipt = Receipt {
            spot: Spot {
                shard: 7,
                index: 1 << 40,
            },
            generation: 3,
            dead: true,
        };
        let text = receipt.seal(5, &ring).unwrap();
        assert!(text.len() <= 1024);
        assert_eq!(Receipt::open(&text, 5, &ring, now), Some(receipt));
        assert_eq!(Receipt::open(&text, 6, &ring, now), None);
        assert_ne!(receipt.seal(5, &ring).unwrap(), text);
        for forged in [
            "",
            "x",
            "AAAA",
            &text[..text.len() - 4],
            &text.replace(|c: char| c.is_ascii_digit(), "A"),
        ] {
            assert_eq!(Receipt::open(forged, 5, &ring, now), None, "{forged}");
        }
    }
}
