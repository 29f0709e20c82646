//! Hash keys: decimal numbers that are compared as numbers.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};

/// A place in the space of 128 bits that a stream's shards divide among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashKey(pub u128);

/// The text is no hash key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no hash key: a decimal number below 2^128")]
pub struct InvalidHashKey(pub String);

impl HashKey {
    /// Where records with this partition key go: the MD5 of its UTF-8.
    #[must_use]
    pub fn of(partition_key: &str) -> Self {
        HashKey(u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into()))
    }
}

impl FromStr for HashKey {
    type Err = InvalidHashKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InvalidHashKey(text.chars().take(64).collect());
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        text.parse().map(HashKey).map_err(|_| wrong())
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
