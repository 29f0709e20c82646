//! The numbers of the logs: fragments and records. Their text forms are part of AWS's wire.

use std::fmt;
use std::str::FromStr;

use base::Timestamp;

/// Names a stream in the log, for ever: the catalog hands each id out once, and a stream made anew under an old name has
/// a new one (invariant 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// A Kinesis Video Streams fragment number: `2^156 | sequence << 92 | server milliseconds << 28 | random`, written as 47
/// decimal digits (48 from sequence 2^60 on, which no stream reaches). The order of numbers is the order in which fragments began to arrive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FragmentNumber {
    sequence: u64,
    server_millis: u64,
    random: u32,
}

/// The text is not a fragment number that this server could have issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a fragment number")]
pub struct InvalidFragmentNumber(pub String);

/// 10^16: the digits that one division step takes off.
const STEP: u64 = 10_000_000_000_000_000;

impl FragmentNumber {
    /// Below every number that is issued; a start for paging.
    pub const MIN: FragmentNumber = FragmentNumber {
        sequence: 0,
        server_millis: 0,
        random: 0,
    };

    /// Puts a number together; of `random` the low 28 bits count.
    pub const fn new(sequence: u64, server_millis: u64, random: u32) -> Self {
        FragmentNumber {
            sequence,
            server_millis,
            random: random & 0x0fff_ffff,
        }
    }

    /// What orders the numbers of one stream; no two fragments of a stream share it.
    pub const fn sequence(self) -> u64 {
        self.sequence
    }

    /// Milliseconds since the epoch at which the server began to receive the fragment.
    pub const fn server_millis(self) -> u64 {
        self.server_millis
    }

    /// [`Self::server_millis`] as a time.
    pub fn server_timestamp(self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.server_millis).unwrap_or(i64::MAX))
    }

    /// The low 28 bits.
    pub const fn random(self) -> u32 {
        self.random
    }

    /// The high 92 bits and the low 92 bits of the number with 2^156 set.
    fn limbs(self) -> [u32; 5] {
        let low = (u128::from(self.server_millis) << 28) | u128::from(self.random);
        // Bits 0..92 are `low`, 92..156 the sequence, 156 the marker.
        let low128 = low | (u128::from(self.sequence) << 92);
        let high = (self.sequence >> 36) as u32 | (1 << 28);
        [
            high,
            (low128 >> 96) as u32,
            (low128 >> 64) as u32,
            (low128 >> 32) as u32,
            low128 as u32,
        ]
    }
}

impl fmt::Display for FragmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = self.limbs();
        let mut parts = [0u64; 3];
        for part in parts.iter_mut().rev() {
            let mut rest: u128 = 0;
            for limb in &mut limbs {
                let value = (rest << 32) | u128::from(*limb);
                *limb = (value / u128::from(STEP)) as u32;
                rest = value % u128::from(STEP);
            }
            *part = rest as u64;
        }
        let [high, middle, low] = parts;
        f.pad_integral(true, "", &format!("{high}{middle:016}{low:016}"))
    }
}

impl fmt::Debug for FragmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FragmentNumber {
    type Err = InvalidFragmentNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || InvalidFragmentNumber(text.chars().take(128).collect());
        let digits = text.trim_start_matches('0');
        if !matches!(digits.len(), 47 | 48) || text.len() > 128 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let mut limbs = [0u32; 5];
        for digit in digits.bytes() {
            let mut carry = u64::from(digit - b'0');
            for limb in limbs.iter_mut().rev() {
                let value = u64::from(*limb) * 10 + carry;
                *limb = value as u32;
                carry = value >> 32;
            }
        }
        let [high, a, b, c, d] = limbs;
        if high >> 28 != 1 {
            return Err(bad());
        }
        let low128 = (u128::from(a) << 96) | (u128::from(b) << 64) | (u128::from(c) << 32) | u128::from(d);
        let sequence = (u64::from(high & 0x0fff_ffff) << 36) | (low128 >> 92) as u64;
        let server_millis = (low128 >> 28) as u64;
        Ok(FragmentNumber::new(sequence, server_millis, low128 as u32))
    }
}

/// A record's number, or a place between two: 39 decimal digits, strictly increasing within a shard. It holds the
/// millisecond of the shard's creation (so a child's numbers are above its parents'), the record's index in the shard,
/// whether it is that record's or the place before it, and the shard's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceNumber(u128);

/// The text is not a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sequence number")]
pub struct InvalidSequenceNumber(pub String);

/// Set in the number of a record.
const RECORD: u128 = 1 << 16;

impl SequenceNumber {
    /// Number of the record with `index` in a shard created at `created`. Of the creation time 47 bits count (until the
    /// year 6429), of the index 63, of the shard 16.
    pub fn new(created: Timestamp, shard: u32, index: u64) -> Self {
        SequenceNumber(SequenceNumber::before(created, shard, index).0 | RECORD)
    }

    /// The place before that record: above the numbers of all earlier records, and below its own. No record has it, so
    /// "at" and "after" it mean the same.
    pub fn before(created: Timestamp, shard: u32, index: u64) -> Self {
        let millis = u128::try_from(created.millis().max(0)).unwrap_or(0) & ((1 << 47) - 1);
        let index = u128::from(index & (u64::MAX >> 1));
        SequenceNumber((1 << 127) | (millis << 80) | (index << 17) | u128::from(shard & 0xffff))
    }

    /// Index of the record within its shard.
    pub const fn index(self) -> u64 {
        (self.0 >> 17) as u64 & (u64::MAX >> 1)
    }

    /// Index of the first record behind this number.
    pub const fn next_index(self) -> u64 {
        if self.0 & RECORD == 0 {
            self.index()
        } else {
            self.index().saturating_add(1)
        }
    }

    /// When the shard was created, as the number says it.
    pub const fn created(self) -> Timestamp {
        Timestamp::from_millis(((self.0 >> 80) & ((1 << 47) - 1)) as i64)
    }

    /// The shard, as the number says it: the low 16 bits of its number.
    pub const fn shard(self) -> u32 {
        (self.0 & 0xffff) as u32
    }

    /// The number as an integer.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || InvalidSequenceNumber(text.chars().take(128).collect());
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        text.parse()
            .ok()
            .filter(|n: &u128| n >> 127 == 1)
            .map(SequenceNumber)
            .ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_captured_from_aws_is_taken_apart_and_written_back() {
        let text = "91343852338176208490308672115616860505404839548";
        let number: FragmentNumber = text.parse().unwrap();
        assert_eq!(number.to_string(), text);
        assert_eq!(number.to_string().len(), 47);
        // The acknowledgement it came in has timecode 1565810137603.
        assert!(
            number.server_millis().abs_diff(1_565_810_137_603) < 60_000,
            "{}",
            number.server_millis()
        );
    }

    #[test]
    fn text_that_is_no_fragment_number_is_refused() {
        let big = "2".repeat(48);
        for bad in [
            "",
            "1",
            "-1",
            "abc",
            &"1".repeat(46),
            &big,
            &"1".repeat(129),
            "9134385233817620849030867211561686050540483954x",
        ] {
            assert!(bad.parse::<FragmentNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sequence_numbers_have_39_digits_and_children_follow_parents() {
        let made = Timestamp::from_millis(1000);
        let parent = SequenceNumber::new(made, 0, u64::MAX >> 1);
        let child = SequenceNumber::before(Timestamp::from_millis(1001), 1, 0);
        assert!(parent < child && child < SequenceNumber::new(Timestamp::from_millis(1001), 1, 0));
        assert_eq!(parent.to_string().len(), 39);
        assert_eq!(
            (parent.index(), parent.shard(), parent.created()),
            (u64::MAX >> 1, 0, made)
        );
        let (record, place) = (SequenceNumber::new(made, 9, 4), SequenceNumber::before(made, 9, 5));
        assert!(record < place && place < SequenceNumber::new(made, 9, 5));
        assert_eq!((record.next_index(), place.next_index(), place.index()), (5, 5, 5));
        assert_eq!(child.to_string().parse(), Ok(child));
        for bad in ["", "12", "x", "+170141183460469231731687303715884105728"] {
            assert!(bad.parse::<SequenceNumber>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_fragment_number_survives_its_text_and_keeps_its_order(
            a in (0..1u64 << 60, any::<u64>(), any::<u32>()), b in (0..1u64 << 60, any::<u64>(), any::<u32>())
        ) {
            let (a, b) = (FragmentNumber::new(a.0, a.1, a.2), FragmentNumber::new(b.0, b.1, b.2));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.to_string().len(), 47);
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
