//! The header of a frame: what makes a stretch of a segment believable. Layout in `docs/design/log.md`. It knows nothing
//! of payloads.

/// Bytes of a header.
pub(crate) const HEADER: usize = 96;
/// Frames begin at multiples of this.
pub(crate) const ALIGN: u64 = 64;
/// Batches and extents begin at multiples of this: the block of direct I/O and of hole punching.
pub(crate) const BLOCK: u64 = 4096;

const MAGIC: [u8; 6] = *b"SGLASS";
const VERSION: u8 = 1;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Segment = 1,
    Extent = 2,
    Commit = 3,
    Numbers = 4,
    Trim = 5,
    Delete = 6,
    Shard = 7,
    Records = 8,
    Checkpoint = 9,
    Seal = 10,
    Proof = 11,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::{Checkpoint, Commit, Delete, Extent, Numbers, Proof, Records, Seal, Segment, Shard, Trim};
        let all = [
            Segment, Extent, Commit, Numbers, Trim, Delete, Shard, Records, Checkpoint, Seal, Proof,
        ];
        all.get(usize::from(byte).checked_sub(1)?).copied()
    }

    /// True for frames whose payload is bulk data: a scan of durable data passes over it and reads verify it.
    pub fn is_bulk(self) -> bool {
        matches!(self, Kind::Extent | Kind::Records)
    }
}

/// What a frame is about beside its stream. For media frames: the fragment number's three parts. For records: first
/// index, newest arrival (48 bits) with the count (16 bits), shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    pub a: u64,
    pub b: u64,
    pub c: u32,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    pub salt: u32,
    pub payload_len: u32,
    pub stride: u32,
    pub payload_crc: u32,
    pub segment: u64,
    pub offset: u64,
    pub epoch: u64,
    pub proven: u64,
    pub stream: u64,
    pub subject: Subject,
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8; HEADER], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

impl Header {
    /// The header's bytes, sealed with their checksum.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0u8; HEADER];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
            at += part.len();
        };
        put(&MAGIC);
        put(&[VERSION, self.kind as u8]);
        put(&self.salt.to_le_bytes());
        put(&[0; 8]); // Cipher 0, reserved, key id 0.
        put(&self.payload_len.to_le_bytes());
        put(&self.stride.to_le_bytes());
        put(&self.payload_crc.to_le_bytes());
        put(&self.segment.to_le_bytes());
        put(&self.offset.to_le_bytes());
        put(&self.epoch.to_le_bytes());
        put(&self.proven.to_le_bytes());
        put(&self.stream.to_le_bytes());
        put(&self.subject.a.to_le_bytes());
        put(&self.subject.b.to_le_bytes());
        put(&self.subject.c.to_le_bytes());
        let crc = crc32c::crc32c(bytes.get(..HEADER - 4).unwrap_or_default());
        if let Some(place) = bytes.get_mut(HEADER - 4..) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Reads a header; `None` unless every field makes sense and the checksum fits. Whether it belongs where it was found
    /// is the caller's question.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        if bytes.get(..6) != Some(&MAGIC) || bytes.get(6) != Some(&VERSION) || bytes.get(12..20) != Some(&[0; 8]) {
            return None;
        }
        if crc32c::crc32c(bytes.get(..HEADER - 4)?) != u32_at(bytes, HEADER - 4) {
            return None;
        }
        let header = Header {
            kind: Kind::from_byte(*bytes.get(7)?)?,
            salt: u32_at(bytes, 8),
            payload_len: u32_at(bytes, 20),
            stride: u32_at(bytes, 24),
            payload_crc: u32_at(bytes, 28),
            segment: u64_at(bytes, 32),
            offset: u64_at(bytes, 40),
            epoch: u64_at(bytes, 48),
            proven: u64_at(bytes, 56),
            stream: u64_at(bytes, 64),
            subject: Subject {
                a: u64_at(bytes, 72),
                b: u64_at(bytes, 80),
                c: u32_at(bytes, 88),
            },
        };
        let whole = u64::from(header.stride) >= HEADER as u64 + u64::from(header.payload_len);
        (whole && u64::from(header.stride).is_multiple_of(ALIGN) && header.offset.is_multiple_of(ALIGN))
            .then_some(header)
    }

    /// Offset behind the frame.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.stride))
    }
}

/// The next multiple of `to`, a power of two.
pub(crate) const fn align_up(value: u64, to: u64) -> u64 {
    (value + to - 1) & !(to - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        let numbers = (any::<[u64; 7]>(), any::<[u32; 3]>(), 0u32..1 << 30, 1u8..=11);
        numbers.prop_map(|(long, short, payload_len, kind)| Header {
            kind: Kind::from_byte(kind).unwrap(),
            salt: short[0],
            payload_len,
            stride: align_up(HEADER as u64 + u64::from(payload_len), ALIGN) as u32,
            payload_crc: short[1],
            segment: long[0],
            offset: long[1] & !(ALIGN - 1),
            epoch: long[2],
            proven: long[3],
            stream: long[4],
            subject: Subject {
                a: long[5],
                b: long[6],
                c: short[2],
            },
        })
    }

    proptest! {
        #[test]
        fn a_header_survives_its_bytes_and_no_single_flip_goes_unseen(h in header(), at in 0..HEADER, bit in 0u8..8) {
            let mut bytes = h.encode();
            prop_assert_eq!(Header::decode(&bytes), Some(h));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Header::decode(&bytes), None);
        }

        #[test]
        fn arbitrary_bytes_are_no_header(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Header::decode(&bytes), None);
        }
    }
}
