//! Still images of video frames: decode what was sent, encode what is wanted. One request at a time.

use std::collections::BTreeSet;

use bytes::Bytes;
use vision::limits::{MAX_STILL_BYTES, MAX_STILL_HEIGHT, MAX_STILL_WIDTH, MAX_VIDEO_PIXELS};
use vision::protocol::{FromWorker, OpenStills, StillFrame};
use vision::{Codec, StillError};

use crate::codec::{Decoder, Format, Picture, Scaler};
use crate::encode::encode;

/// A request under way.
pub struct Stills {
    open: OpenStills,
    /// `None`: the codec private data is none that can be decoded with.
    decoder: Option<Decoder>,
    scaler: Scaler,
    wanted: BTreeSet<u32>,
    /// From this frame on something that frames refer to is missing, until decoding begins anew.
    broken_from: Option<u32>,
}

impl Stills {
    /// Begins a request.
    pub fn open(open: OpenStills) -> Stills {
        let format = match open.codec {
            Codec::H264 => Format::H264,
            Codec::H265 => Format::H265,
        };
        Stills {
            decoder: Decoder::open(format, &open.codec_private, MAX_VIDEO_PIXELS).ok(),
            open,
            scaler: Scaler::new(),
            wanted: BTreeSet::new(),
            broken_from: None,
        }
    }

    /// Whether it is the request of that number.
    pub fn is(&self, request: u32) -> bool {
        self.open.request == request
    }

    /// Takes the next frame.
    pub fn frame(&mut self, frame: &StillFrame, say: &mut impl FnMut(&FromWorker)) {
        if frame.fresh {
            self.flush(say);
            if let Some(decoder) = &mut self.decoder {
                decoder.reset();
            }
            self.broken_from = None;
        }
        if frame.wanted {
            self.wanted.insert(frame.number);
        }
        let sent = match &mut self.decoder {
            Some(decoder) => decoder.send(&frame.data, i64::from(frame.number), frame.fresh),
            None => return,
        };
        match sent {
            Ok(true) => {}
            // A first frame refers to nothing, whatever the decoder misses before it.
            Ok(false) if frame.fresh => {}
            Ok(false) | Err(_) => {
                self.broken_from.get_or_insert(frame.number);
            }
        }
        self.receive(say);
    }

    /// No more frames.
    pub fn end(mut self, say: &mut impl FnMut(&FromWorker)) {
        self.flush(say);
        let request = self.open.request;
        say(&FromWorker::StillsDone { request });
    }

    /// Takes what the decoder still holds; what is wanted and does not come cannot be decoded.
    fn flush(&mut self, say: &mut impl FnMut(&FromWorker)) {
        if let Some(decoder) = &mut self.decoder {
            decoder.finish();
        }
        self.receive(say);
        for number in std::mem::take(&mut self.wanted) {
            self.answer(number, Err(StillError::Undecodable), say);
        }
    }

    fn receive(&mut self, say: &mut impl FnMut(&FromWorker)) {
        // Each round takes a picture, or an error of a packet: there are no more of them than packets.
        while let Some(decoder) = &mut self.decoder {
            match decoder.receive() {
                Ok(Some(picture)) => self.picture(&picture, say),
                Ok(None) => return,
                Err(_) => {
                    self.broken_from.get_or_insert(u32::MAX);
                    return;
                }
            }
        }
    }

    fn picture(&mut self, picture: &Picture, say: &mut impl FnMut(&FromWorker)) {
        let Ok(number) = u32::try_from(picture.id()) else {
            return;
        };
        if !self.wanted.remove(&number) {
            return;
        }
        let broken = picture.damaged() || self.broken_from.is_some_and(|from| number >= from);
        let result = if broken {
            Err(StillError::Undecodable)
        } else {
            self.encoded(picture)
        };
        self.answer(number, result, say);
    }

    fn encoded(&mut self, picture: &Picture) -> Result<Bytes, StillError> {
        let (width, height) = size(picture.width(), picture.height(), self.open.width, self.open.height);
        let file = encode(picture, &mut self.scaler, self.open.format, width, height);
        let file = file.map_err(|_| StillError::Undecodable)?;
        if file.len() > MAX_STILL_BYTES {
            return Err(StillError::TooLarge);
        }
        Ok(file.into())
    }

    fn answer(&self, number: u32, result: Result<Bytes, StillError>, say: &mut impl FnMut(&FromWorker)) {
        let request = self.open.request;
        say(&FromWorker::Still {
            request,
            number,
            result,
        });
    }
}

/// The size of the image: as wanted, where 0 stands for "as the other side and the picture's proportions say".
fn size(width: u32, height: u32, wanted_width: u32, wanted_height: u32) -> (u32, u32) {
    let proportional = |side: u32, other: u32, wanted_other: u32, most: u32| {
        let exact = u64::from(side) * u64::from(wanted_other) + u64::from(other) / 2;
        let side = exact / u64::from(other.max(1));
        u32::try_from(side).unwrap_or(most).clamp(1, most)
    };
    match (wanted_width.min(MAX_STILL_WIDTH), wanted_height.min(MAX_STILL_HEIGHT)) {
        (0, 0) => (width, height),
        (0, high) => (proportional(width, height, high, MAX_STILL_WIDTH), high),
        (wide, 0) => (wide, proportional(height, width, wide, MAX_STILL_HEIGHT)),
        both => both,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_alone_keeps_the_proportions_and_both_stretch() {
        for (wanted, expected) in [
            ((0, 0), (1280, 720)),
            ((0, 360), (640, 360)),
            ((320, 0), (320, 180)),
            ((100, 100), (100, 100)),
            ((0, 1), (2, 1)),
            ((1, 0), (1, 1)),
            ((0, 2160), (3840, 2160)),
        ] {
            assert_eq!(size(1280, 720, wanted.0, wanted.1), expected, "{wanted:?}");
        }
        assert_eq!(size(10_000, 10, 0, 2160), (3840, 2160));
    }
}
