//! Blocks that hold several frames (RFC 9559 §10.3).
//!
//! The reader reports lacing and hands the payload on as it is. Who needs the frames themselves divides it here; cameras
//! do not lace, audio from general muxers may be.

use std::ops::Range;

use crate::event::Lacing;
use crate::number::{VarInt, read_varint};

/// The frames of a laced payload, as ranges in it; `None` where the lace contradicts the payload's length.
#[must_use]
pub fn frames(payload: &[u8], lacing: Lacing) -> Option<Vec<Range<usize>>> {
    if lacing == Lacing::None {
        return Some(std::iter::once(0..payload.len()).collect());
    }
    let (&last, mut rest) = payload.split_first()?;
    let count = usize::from(last) + 1;
    let mut sizes = Vec::with_capacity(count);
    match lacing {
        Lacing::None => {}
        Lacing::Fixed => {
            if rest.len() % count != 0 {
                return None;
            }
            sizes.resize(count - 1, rest.len() / count);
        }
        Lacing::Xiph => {
            while sizes.len() + 1 < count {
                let full = rest.iter().take_while(|byte| **byte == 255).count();
                sizes.push(full * 255 + usize::from(*rest.get(full)?));
                rest = rest.get(full + 1..)?;
            }
        }
        Lacing::Ebml => {
            let mut size = 0i64;
            while sizes.len() + 1 < count {
                let VarInt::Read(value, len) = read_varint(rest) else {
                    return None;
                };
                let value = i64::try_from(value?).ok()?;
                // After the first, sizes are differences with a bias of half the range of their length.
                let bias = if sizes.is_empty() {
                    0
                } else {
                    (1i64 << (7 * len - 1)) - 1
                };
                size = size.checked_add(value - bias)?;
                sizes.push(usize::try_from(size).ok()?);
                rest = rest.get(len..)?;
            }
        }
    }
    let mut at = payload.len() - rest.len();
    let mut frames = Vec::with_capacity(count);
    for size in sizes {
        let end = at.checked_add(size).filter(|end| *end <= payload.len())?;
        frames.push(at..end);
        at = end;
    }
    frames.push(at..payload.len());
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_lacing_yields_its_frames() {
        assert_eq!(
            frames(b"abc", Lacing::None).unwrap().as_slice(),
            std::slice::from_ref(&(0..3))
        );
        assert_eq!(frames(b"\x02aabbcc", Lacing::Fixed), Some(vec![1..3, 3..5, 5..7]));
        // The specification's own example: 800, 500 and 1000 bytes.
        let mut xiph = vec![2, 255, 255, 255, 35, 255, 245];
        xiph.resize(7 + 2300, 0);
        assert_eq!(frames(&xiph, Lacing::Xiph), Some(vec![7..807, 807..1307, 1307..2307]));
        let mut ebml = vec![2, 0x43, 0x20, 0x5E, 0xD3];
        ebml.resize(5 + 2300, 0);
        assert_eq!(frames(&ebml, Lacing::Ebml), Some(vec![5..805, 805..1305, 1305..2305]));
    }

    #[test]
    fn a_lace_that_lies_about_its_sizes_is_refused() {
        assert_eq!(frames(b"", Lacing::Fixed), None);
        assert_eq!(frames(b"\x01abc", Lacing::Fixed), None);
        assert_eq!(frames(b"\x01\xFF", Lacing::Xiph), None);
        assert_eq!(frames(b"\x01\x05ab", Lacing::Xiph), None);
        assert_eq!(frames(b"\x01\x00", Lacing::Ebml), None);
        assert_eq!(frames(b"\x02\x81\x80abc", Lacing::Ebml), None);
    }
}
