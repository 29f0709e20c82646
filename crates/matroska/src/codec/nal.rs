//! NAL unit framing: length-prefixed as in MP4 and Matroska, start codes as in H.264 and H.265 annex B.

use bytes::{BufMut, BytesMut};

/// The NAL units of a length-prefixed frame.
#[derive(Clone, Debug)]
pub struct LengthPrefixed<'a> {
    rest: &'a [u8],
    length_size: usize,
    broken: bool,
}

impl<'a> LengthPrefixed<'a> {
    /// `length_size` is 1 to 4 bytes, as the codec private data says.
    #[must_use]
    pub fn new(frame: &'a [u8], length_size: usize) -> Self {
        LengthPrefixed {
            rest: frame,
            length_size,
            broken: false,
        }
    }

    /// Whether a length reached beyond the frame; known once the iteration has ended.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn take(&mut self) -> Option<&'a [u8]> {
        let length = self.rest.get(..self.length_size)?;
        let len = length.iter().fold(0usize, |len, byte| len << 8 | usize::from(*byte));
        let end = self.length_size.checked_add(len)?;
        let nal = self.rest.get(self.length_size..end)?;
        self.rest = self.rest.get(end..)?;
        Some(nal)
    }
}

impl<'a> Iterator for LengthPrefixed<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() && !self.broken {
            match self.take() {
                Some([]) => {}
                Some(nal) => return Some(nal),
                None => self.broken = true,
            }
        }
        None
    }
}

/// The NAL units between start codes. Bytes before the first start code are ignored.
#[derive(Clone, Debug)]
pub struct AnnexB<'a> {
    rest: &'a [u8],
}

impl<'a> AnnexB<'a> {
    /// The units of a byte stream.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let start = start_code(bytes).map_or(bytes.len(), |at| at + 3);
        AnnexB {
            rest: bytes.get(start..).unwrap_or_default(),
        }
    }
}

/// Where the next `00 00 01` lies.
fn start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|window| window == [0, 0, 1])
}

impl<'a> Iterator for AnnexB<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (nal, rest) = match start_code(self.rest) {
                Some(at) => (self.rest.get(..at)?, self.rest.get(at + 3..)?),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            // Zeros before a start code (its fourth byte, padding) are no part of a unit.
            let used = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            match nal.get(..used)? {
                [] => {}
                nal => return Some(nal),
            }
        }
        None
    }
}

/// Appends a NAL unit behind a start code.
pub fn put_annex_b(out: &mut BytesMut, nal: &[u8]) {
    out.put_slice(&[0, 0, 0, 1]);
    out.put_slice(nal);
}

/// Appends a NAL unit behind its length in four bytes. Returns false, with nothing appended, where it is longer than
/// four bytes can say.
pub fn put_length_prefixed(out: &mut BytesMut, nal: &[u8]) -> bool {
    let Ok(len) = u32::try_from(nal.len()) else {
        return false;
    };
    out.put_u32(len);
    out.put_slice(nal);
    true
}
