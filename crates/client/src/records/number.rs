//! Sequence numbers and hash keys: decimal numbers that are compared as numbers.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use kpl::{HashKey, InvalidHashKey};

/// Digits of a sequence number. AWS's model: 129.
const DIGITS_MAX: usize = 129;

/// The number of a record in its shard, as the server wrote it. Ordered as a number; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Arc<str>);

/// The text is no sequence number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no sequence number: decimal digits without leading zeros, at most 129")]
pub struct InvalidSequenceNumber(pub String);

impl SequenceNumber {
    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.len() <= DIGITS_MAX && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || (text.len() > 1 && text.starts_with('0')) {
            let start: String = text.chars().take(DIGITS_MAX + 1).collect();
            return Err(InvalidSequenceNumber(start));
        }
        Ok(SequenceNumber(text.into()))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The part of the space that a shard has; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashRange {
    /// The first.
    pub first: HashKey,
    /// The last.
    pub last: HashKey,
}

impl HashRange {
    /// All of it.
    pub const WHOLE: HashRange = HashRange {
        first: HashKey(0),
        last: HashKey(u128::MAX),
    };

    /// Whether the key lies in it.
    #[must_use]
    pub fn contains(&self, key: HashKey) -> bool {
        self.first <= key && key <= self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        let number = |text: &str| text.parse::<SequenceNumber>().unwrap();
        assert!(number("9") < number("10"));
        assert!(number("49546986683135544286507457936321625675700192471156785154") > number("99"));
        for bad in ["", "-1", "01", "1x", &"9".repeat(130)] {
            assert!(bad.parse::<SequenceNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hash_key_is_the_md5_of_the_partition_key() {
        assert_eq!(HashKey::of("a").to_string(), "16955237001963240173058271559858726497");
        assert!("340282366920938463463374607431768211456".parse::<HashKey>().is_err());
        assert!("+1".parse::<HashKey>().is_err());
        assert!(HashRange::WHOLE.contains("340282366920938463463374607431768211455".parse().unwrap()));
    }
}
