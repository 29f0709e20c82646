//! Hash keys: where a record belongs.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point of the ring that the shards of a stream divide among them: 0 to 2^128-1, written in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashKey(pub u128);

/// The text is not a number from 0 to 2^128-1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a hash key")]
pub struct InvalidHashKey(pub String);

impl HashKey {
    /// The hash key of a partition key: the MD5 of its UTF-8 bytes, read as a big-endian number.
    pub fn of_partition_key(key: &str) -> Self {
        HashKey(u128::from_be_bytes(Md5::digest(key.as_bytes()).into()))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for HashKey {
    type Err = InvalidHashKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number
            .map(HashKey)
            .ok_or_else(|| InvalidHashKey(text.chars().take(64).collect()))
    }
}

/// As text: JSON numbers do not hold 128 bits.
impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Divides the ring evenly: the first and last key of each part, in order, without gaps.
pub fn divide(parts: usize) -> Vec<(HashKey, HashKey)> {
    let count = parts.max(1) as u128;
    // 2^128 / count without 2^128: count divides 2^128 exactly where the remainder of 2^128-1 is count-1.
    let (whole, rest) = (u128::MAX / count, u128::MAX % count);
    let width = if rest == count - 1 {
        whole.wrapping_add(1)
    } else {
        whole
    };
    (0..count)
        .map(|i| {
            let start = width.wrapping_mul(i);
            let end = if i + 1 == count {
                u128::MAX
            } else {
                width.wrapping_mul(i + 1) - 1
            };
            (HashKey(start), HashKey(end))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_key_hashes_as_aws_documents_it() {
        // MD5("a") = 0cc175b9c0f1b6a831c399e269772661.
        assert_eq!(
            HashKey::of_partition_key("a"),
            HashKey(0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661)
        );
        assert_eq!(
            "340282366920938463463374607431768211455".parse(),
            Ok(HashKey(u128::MAX))
        );
        for bad in ["", "-1", "+1", "340282366920938463463374607431768211456", "1.0", "x"] {
            assert!(bad.parse::<HashKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_of_the_ring_have_the_bounds_that_aws_gives_them_and_leave_no_gap() {
        assert_eq!(divide(1), [(HashKey(0), HashKey(u128::MAX))]);
        let two = divide(2);
        assert_eq!(two[0].1.to_string(), "170141183460469231731687303715884105727");
        assert_eq!(two[1].0.to_string(), "170141183460469231731687303715884105728");
        let three = divide(3);
        assert_eq!(three[0].1.to_string(), "113427455640312821154458202477256070484");
        for parts in [1, 2, 3, 4, 5, 7, 64, 999, 1000] {
            let ring = divide(parts);
            assert_eq!((ring.len(), ring[0].0.0, ring[parts - 1].1.0), (parts, 0, u128::MAX));
            assert!(ring.windows(2).all(|w| w[0].1.0 + 1 == w[1].0.0), "{parts}");
        }
    }
}
