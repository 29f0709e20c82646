//! Frames as they are stored become frames as players want them: Annex B becomes length-prefixed, ADTS heads fall off.

use std::ops::Range;

use bytes::BytesMut;
use matroska::codec::{AnnexB, LengthPrefixed, put_length_prefixed};

/// Whether bytes begin with a start code.
#[must_use]
pub fn is_annex_b(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, 0, 0, 1]) || bytes.starts_with(&[0, 0, 1])
}

/// Whether a frame's units stand behind start codes. The length of a unit of 256 to 511 bytes begins like a start code
/// (`00 00 01`), so that a frame which lengths divide without a rest is taken for one of lengths.
#[must_use]
pub fn is_annex_b_frame(frame: &[u8], length_size: usize) -> bool {
    is_annex_b(frame) && !has_whole_units(frame, length_size)
}

/// Whether lengths of so many bytes divide a frame without a rest.
#[must_use]
pub fn has_whole_units(frame: &[u8], length_size: usize) -> bool {
    let mut units = LengthPrefixed::new(frame, length_size);
    units.by_ref().for_each(drop);
    !units.is_broken()
}

/// Appends an Annex B frame with its units behind four-byte lengths; returns where it lies in `out`. `None`, with nothing
/// appended, where it has no unit.
pub fn put_annex_b_as_lengths(out: &mut BytesMut, frame: &[u8]) -> Option<Range<usize>> {
    let start = out.len();
    for nal in AnnexB::new(frame) {
        if !put_length_prefixed(out, nal) {
            out.truncate(start);
            return None;
        }
    }
    (out.len() > start).then(|| start..out.len())
}

/// What an ADTS head (ISO/IEC 14496-3 §1.A.2) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdtsHead {
    /// Bytes of the head: 7, or 9 with a checksum.
    pub head_len: usize,
    /// Bytes of the frame, head included.
    pub frame_len: usize,
    /// Audio object type, 2 for LC.
    pub object_type: u8,
    /// Index of the sampling frequency.
    pub frequency_index: u8,
    /// Channel configuration.
    pub channels: u8,
}

impl AdtsHead {
    /// Reads the head of a frame that is all of `bytes`; `None` where it is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[0xFF, sync, b2, b3, b4, b5, _] = bytes.first_chunk::<7>()? else {
            return None;
        };
        if sync & 0xF6 != 0xF0 {
            return None;
        }
        let head = AdtsHead {
            head_len: if sync & 1 == 1 { 7 } else { 9 },
            frame_len: usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5),
            object_type: (b2 >> 6) + 1,
            frequency_index: b2 >> 2 & 0xF,
            channels: (b2 & 1) << 2 | b3 >> 6,
        };
        (head.frame_len == bytes.len() && head.frame_len > head.head_len && head.frequency_index < 13).then_some(head)
    }

    /// The AudioSpecificConfig that says the same.
    #[must_use]
    pub fn audio_specific_config(&self) -> [u8; 2] {
        [
            self.object_type << 3 | self.frequency_index >> 1,
            self.frequency_index << 7 | self.channels << 3,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_looks_like_a_start_code_is_a_length() {
        for unit in [255_usize, 256, 300, 511, 512] {
            let mut frame = BytesMut::new();
            put_length_prefixed(&mut frame, &vec![0x41; unit]);
            assert!(!is_annex_b_frame(&frame, 4), "a unit of {unit} bytes");
        }
        assert!(is_annex_b_frame(&[0, 0, 1, 0x65, 7, 7, 0, 0, 1, 0x41, 9], 4));
        assert!(is_annex_b_frame(&[0, 0, 0, 1, 0x65, 7, 7], 4));
    }

    #[test]
    fn start_codes_become_lengths() {
        let mut out = BytesMut::from(&b"before"[..]);
        let frame = [0, 0, 0, 1, 0x65, 7, 7, 0, 0, 1, 0x41, 9];
        let range = put_annex_b_as_lengths(&mut out, &frame).unwrap();
        assert_eq!(out[range], [0, 0, 0, 3, 0x65, 7, 7, 0, 0, 0, 2, 0x41, 9]);
        assert_eq!(put_annex_b_as_lengths(&mut out, b"nothing here"), None);
        assert_eq!(out.len(), 6 + 13);
    }

    #[test]
    fn an_adts_head_says_what_codec_private_data_would() {
        // LC, 44.1 kHz, stereo, no checksum, a frame of 10 bytes.
        let frame = [0xFF, 0xF1, 0x50, 0x80, 0x01, 0x5F, 0xFC, 1, 2, 3];
        let head = AdtsHead::parse(&frame).unwrap();
        assert_eq!((head.head_len, head.frame_len, head.channels), (7, 10, 2));
        assert_eq!(head.audio_specific_config(), [0x12, 0x10]);
        assert_eq!(AdtsHead::parse(&frame[..9]), None);
        assert_eq!(AdtsHead::parse(&[0x21; 10]), None);
    }
}
