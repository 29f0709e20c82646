//! The number encodings of EBML (RFC 8794 §4 to §7): variable-size integers, and the plain ones of 0 to 8 bytes.

use crate::id::ElementId;

/// What the bytes at hand say about a variable-size integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VarInt<T> {
    /// The value and how many bytes it took.
    Read(T, usize),
    /// More bytes are needed: at least this many in all.
    Need(usize),
    /// No value begins with this byte.
    Invalid(u8),
}

/// The bytes that a variable-size integer takes, by its first byte; `None` for a zero byte.
fn len_of(first: u8) -> Option<usize> {
    (first != 0).then(|| first.leading_zeros() as usize + 1)
}

/// Reads an element id of 1 to 4 bytes. The ids whose value bits are all zeros or all ones are reserved.
#[must_use]
pub fn read_id(bytes: &[u8]) -> VarInt<ElementId> {
    let Some(&first) = bytes.first() else {
        return VarInt::Need(1);
    };
    let len = match len_of(first) {
        Some(len) if len <= 4 => len,
        _ => return VarInt::Invalid(first),
    };
    let Some(all) = bytes.get(..len) else {
        return VarInt::Need(len);
    };
    let id = all.iter().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
    let value_bits = (1u32 << (7 * len)) - 1;
    if id & value_bits == 0 || id & value_bits == value_bits {
        return VarInt::Invalid(first);
    }
    VarInt::Read(ElementId(id), len)
}

/// Reads a variable-size integer of 1 to 8 bytes, as in an element's size or a block's track number. All value bits set
/// mean "unknown", here `None`.
#[must_use]
pub fn read_varint(bytes: &[u8]) -> VarInt<Option<u64>> {
    let Some(&first) = bytes.first() else {
        return VarInt::Need(1);
    };
    let Some(len) = len_of(first) else {
        return VarInt::Invalid(first);
    };
    let Some(all) = bytes.get(..len) else {
        return VarInt::Need(len);
    };
    let raw = all.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let value_bits = (1u64 << (7 * len)) - 1;
    let value = raw & value_bits;
    VarInt::Read((value != value_bits).then_some(value), len)
}

/// A big-endian unsigned integer of 0 to 8 bytes; `None` if there are more. No bytes mean 0.
#[must_use]
pub fn read_unsigned(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
}

/// A big-endian two's complement integer of 0 to 8 bytes; `None` if there are more.
#[must_use]
pub fn read_signed(bytes: &[u8]) -> Option<i64> {
    let value = read_unsigned(bytes)?.cast_signed();
    match bytes.len() {
        0 => Some(0),
        len => {
            let unused = 64 - 8 * u32::try_from(len).ok()?;
            Some(value << unused >> unused)
        }
    }
}

/// A big-endian IEEE float of 0, 4 or 8 bytes; `None` for any other length.
#[must_use]
pub fn read_float(bytes: &[u8]) -> Option<f64> {
    match bytes.len() {
        0 => Some(0.0),
        4 => bytes.try_into().ok().map(|four| f64::from(f32::from_be_bytes(four))),
        8 => bytes.try_into().ok().map(f64::from_be_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_of_every_length_are_read_and_reserved_ones_refused() {
        assert_eq!(read_id(&[0xEC]), VarInt::Read(ElementId(0xEC), 1));
        assert_eq!(read_id(&[0x42, 0x86]), VarInt::Read(ElementId(0x4286), 2));
        assert_eq!(read_id(&[0x2A, 0xD7, 0xB1]), VarInt::Read(ElementId(0x2A_D7B1), 3));
        assert_eq!(read_id(&[0x1A, 0x45, 0xDF]), VarInt::Need(4));
        assert_eq!(read_id(&[]), VarInt::Need(1));
        for reserved in [
            &[0x80][..],
            &[0xFF],
            &[0x7F, 0xFF],
            &[0x40, 0],
            &[0x08, 0, 0, 0, 1],
            &[0],
        ] {
            assert!(matches!(read_id(reserved), VarInt::Invalid(_)), "{reserved:x?}");
        }
    }

    #[test]
    fn an_unknown_size_is_known_as_such_in_every_length() {
        for len in 1..=8u32 {
            let mut bytes = vec![0xFF; len as usize];
            bytes[0] = 0xFFu8 >> (len - 1);
            assert_eq!(read_varint(&bytes), VarInt::Read(None, len as usize));
        }
        assert_eq!(read_varint(&[0]), VarInt::Invalid(0));
        assert_eq!(read_varint(&[0x01, 0]), VarInt::Need(8));
    }

    #[test]
    fn signed_integers_of_1_2_7_and_8_bytes_keep_their_sign() {
        assert_eq!(read_signed(&[0xFF]), Some(-1));
        assert_eq!(read_signed(&[0xFE, 0xD4]), Some(-300));
        assert_eq!(read_signed(&[0x80, 0, 0, 0, 0, 0, 0]), Some(-(1 << 55)));
        assert_eq!(read_signed(&i64::MIN.to_be_bytes()), Some(i64::MIN));
        assert_eq!(read_signed(&[]), Some(0));
        assert_eq!(read_signed(&[0; 9]), None);
    }

    #[test]
    fn unsigned_integers_beyond_i64_are_kept() {
        assert_eq!(read_unsigned(&u64::MAX.to_be_bytes()), Some(u64::MAX));
        assert_eq!(read_unsigned(&[0; 9]), None);
        assert_eq!(read_float(&[0x40, 0xE7, 0x70, 0, 0, 0, 0, 0]), Some(48000.0));
        assert_eq!(read_float(&1.5f32.to_be_bytes()), Some(1.5));
        assert_eq!(read_float(&[1]), None);
    }

    proptest! {
        #[test]
        fn sizes_survive_the_writer_in_the_shortest_and_every_longer_form(value in 0u64..(1 << 56) - 1, more in 0usize..8) {
            let mut out = Vec::new();
            crate::writer::put_size(&mut out, value);
            prop_assert_eq!(read_varint(&out), VarInt::Read(Some(value), out.len()));
            let len = (out.len() + more).min(8);
            let mut longer = Vec::new();
            crate::writer::put_size_in(&mut longer, value, len);
            prop_assert_eq!(read_varint(&longer), VarInt::Read(Some(value), len));
            for cut in 0..len {
                prop_assert!(matches!(read_varint(&longer[..cut]), VarInt::Need(_)));
            }
        }

        #[test]
        fn integers_survive_any_padding(value: i64, pad in 0usize..8) {
            let bytes = value.to_be_bytes();
            prop_assert_eq!(read_signed(&bytes), Some(value));
            let short = value >> (8 * pad);
            prop_assert_eq!(read_signed(&short.to_be_bytes()[pad..]), Some(short));
            prop_assert_eq!(read_unsigned(&bytes[pad..]), Some(value.cast_unsigned() & (u64::MAX >> (8 * pad))));
        }
    }
}
