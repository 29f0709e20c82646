//! What a reader gets for one fragment: a complete Matroska document. The producer's bytes stand in it verbatim (the size
//! of the segment alone becomes "unknown", since two `Tags` elements of ours are added); the layout and the four-byte
//! coding of our sizes are those of AWS's captured answers. Knows nothing of storage and connections.
//!
//! ```text
//! EBML header, Segment of unknown size, Info, Tracks, ...   the producer's
//! Tags: fragment number, server and producer timestamp      ours
//! Cluster and all up to the next cluster                    the producer's
//! Tags: how far behind now, continuation token              ours; left out when the fragment was refused
//! ```

use base::Timestamp;
use bytes::{BufMut, Bytes, BytesMut};
use matroska::writer;
use storage::FragmentNumber;

const ID_SEGMENT: [u8; 4] = [0x18, 0x53, 0x80, 0x67];
const ID_TRACKS: [u8; 4] = [0x16, 0x54, 0xAE, 0x6B];
const ID_TAGS: [u8; 4] = [0x12, 0x54, 0xC3, 0x67];
const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// Why a fragment of a list could not be returned; numbers and names are AWS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentError {
    /// The stream has no fragment of this number (any more).
    NotFound,
    /// Reading it failed.
    Internal,
}

impl FragmentError {
    const fn parts(self) -> (&'static str, u32) {
        match self {
            FragmentError::NotFound => ("FRAGMENT_NOT_FOUND", 4000),
            FragmentError::Internal => ("INTERNAL_ERROR", 5000),
        }
    }
}

/// What stands before a fragment's cluster: the producer's header and our tags.
pub fn start(header: &Bytes, number: FragmentNumber, server: Timestamp, producer: Timestamp) -> Bytes {
    let header = document_header(header);
    let tags = leading_tags(number, server, producer);
    let mut start = BytesMut::with_capacity(header.len() + tags.len());
    start.put_slice(&header);
    start.put_slice(&tags);
    start.freeze()
}

/// The tags between the producer's header and the cluster.
fn leading_tags(number: FragmentNumber, server: Timestamp, producer: Timestamp) -> Bytes {
    let millis = |time: Timestamp| u64::try_from(time.millis()).unwrap_or(0);
    writer::fragment_tags(&number.to_string(), millis(server), millis(producer))
}

/// The tags at the end of a fragment. `number` is the continuation token.
pub fn trailing_tags(number: FragmentNumber, millis_behind_now: i64) -> Bytes {
    let millis = u64::try_from(millis_behind_now).unwrap_or(0);
    writer::continuation_tags(millis, &number.to_string())
}

/// A whole document that says that a fragment cannot be returned. `number` is as the caller wrote it.
pub fn error_document(number: &str, error: FragmentError) -> Bytes {
    let (code, id) = error.parts();
    let mut document = BytesMut::new();
    document.put_slice(writer::EBML_HEADER);
    document.put_slice(writer::SEGMENT_HEAD_UNKNOWN_SIZE);
    document.put_slice(&writer::error_tags(number, code, id));
    document.freeze()
}

/// The producer's header as it stands in a document: the segment's size becomes unknown, all else is verbatim. A header
/// that is not understood comes back as it is.
pub fn document_header(producer: &Bytes) -> Bytes {
    let Some((start, end)) = segment_size_field(producer) else {
        return producer.clone();
    };
    let (before, after) = (producer.get(..start), producer.get(end..));
    let mut header = BytesMut::with_capacity(producer.len() + UNKNOWN_SIZE.len());
    header.put_slice(before.unwrap_or_default());
    header.put_slice(&UNKNOWN_SIZE);
    header.put_slice(after.unwrap_or_default());
    header.freeze()
}

/// Where the size of the first segment stands: the bytes from `.0` up to `.1`.
fn segment_size_field(header: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    loop {
        let (id_length, _) = vint(header, at)?;
        let id = header.get(at..at + id_length)?;
        let (size_length, size) = vint(header, at + id_length)?;
        let size_at = at + id_length;
        if id == ID_SEGMENT {
            return Some((size_at, size_at + size_length));
        }
        at = (size_at + size_length).checked_add(usize::try_from(size?).ok()?)?;
    }
}

/// The header for the fragments after the first, when it is another: without the `Tags` that stand before `Tracks`.
/// `None` when it is the same, or not understood.
pub fn repeated_header(producer: &Bytes) -> Option<Bytes> {
    let (_, mut at) = segment_size_field(producer)?;
    let mut dropped = Vec::new();
    loop {
        let (id_length, _) = vint(producer, at)?;
        let id = producer.get(at..at + id_length)?;
        let (size_length, size) = vint(producer, at + id_length)?;
        let end = (at + id_length + size_length).checked_add(usize::try_from(size?).ok()?)?;
        match id {
            _ if id == ID_TRACKS => break,
            _ if id == ID_TAGS => dropped.push(at..end),
            _ => {}
        }
        at = end;
    }
    let mut header = BytesMut::with_capacity(producer.len());
    let mut from = 0;
    for range in &dropped {
        header.put_slice(producer.get(from..range.start)?);
        from = range.end;
    }
    header.put_slice(producer.get(from..)?);
    (!dropped.is_empty()).then(|| header.freeze())
}

/// Length and value of the variable-length integer at `at`; the value is `None` when all its bits are ones (unknown).
fn vint(bytes: &[u8], at: usize) -> Option<(usize, Option<u64>)> {
    let first = *bytes.get(at)?;
    let length = first.leading_zeros() as usize + 1;
    let field = bytes.get(at..at.checked_add(length)?).filter(|_| length <= 8)?;
    let ones = (1_u64 << (7 * length)) - 1;
    let value = field.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte)) & ones;
    Some((length, (value != ones).then_some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_tags_are_aws_s_byte_for_byte() {
        let number: FragmentNumber = "91343852333181432392682062607743920146159169392".parse().unwrap();
        let leading = leading_tags(
            number,
            Timestamp::from_millis(1_511_852_109_126),
            Timestamp::from_millis(1_511_852_108_513),
        );
        let trailing = trailing_tags(number, 15858);
        // The lengths and first bytes of the captured answer; the whole comparison is in tests/aws_captures.rs.
        assert_eq!((leading.len(), trailing.len()), (243, 171));
        assert_eq!(
            leading[..20],
            [
                0x12, 0x54, 0xC3, 0x67, 0x10, 0, 0, 0xEB, 0x73, 0x73, 0x10, 0, 0, 0xE5, 0x67, 0xC8, 0x10, 0, 0, 0x5B
            ]
        );
        assert!(trailing.ends_with(b"91343852333181432392682062607743920146159169392"));
    }

    #[test]
    fn only_the_segment_s_size_changes_in_a_header() {
        let ebml = [0x1A, 0x45, 0xDF, 0xA3, 0x82, 0x42, 0xF7];
        for size in [&[0xFF][..], &UNKNOWN_SIZE[..], &[0x40, 0x02][..]] {
            let given = [&ebml[..], &ID_SEGMENT, size, b"rest"].concat();
            let wanted = [&ebml[..], &ID_SEGMENT, &UNKNOWN_SIZE, b"rest"].concat();
            assert_eq!(document_header(&Bytes::from(given)), wanted);
        }
        for odd in [&b""[..], b"\x1A", b"no matroska at all", &[0; 32]] {
            assert_eq!(document_header(&Bytes::copy_from_slice(odd)), odd);
        }
    }

    #[test]
    fn tags_before_the_tracks_are_not_repeated() {
        let head = [&[0x1A, 0x45, 0xDF, 0xA3, 0x80][..], &ID_SEGMENT, &[0xFF]].concat();
        let (tags, info) = ([&ID_TAGS[..], &[0x81, 1]].concat(), [0x15, 0x49, 0xA9, 0x66, 0x80]);
        let tracks = [&ID_TRACKS[..], &[0x82, 2, 2]].concat();
        let given = [&head[..], &tags, &tags, &info, &tags, &tracks, &tags].concat();
        let wanted = [&head[..], &info, &tracks, &tags].concat();
        assert_eq!(repeated_header(&Bytes::from(given)).unwrap(), wanted);
        assert_eq!(repeated_header(&Bytes::from(wanted)), None);
        assert_eq!(repeated_header(&Bytes::from_static(b"\x1A\x45")), None);
    }

    #[test]
    fn no_behind_now_is_negative_when_the_clock_was_set_back() {
        let number = crate::testing::number(5);
        assert_eq!(trailing_tags(number, -70), trailing_tags(number, 0));
    }
}
