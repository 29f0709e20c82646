//! Decoding frames that were sent for the sake of some of them. One request at a time.

use std::collections::BTreeSet;

use bytes::Bytes;
use vision::Codec;
use vision::limits::MAX_VIDEO_PIXELS;
use vision::protocol::StillFrame;

use crate::codec::{Decoder, Format, Picture};

/// The frames of a request.
pub struct Frames {
    /// `None`: the codec private data is none that can be decoded with.
    decoder: Option<Decoder>,
    wanted: BTreeSet<u32>,
    /// From this frame on something that frames refer to is missing, until decoding begins anew.
    broken_from: Option<u32>,
}

impl Frames {
    /// Begins a request.
    pub fn open(codec: Codec, codec_private: &Bytes) -> Frames {
        let format = match codec {
            Codec::H264 => Format::H264,
            Codec::H265 => Format::H265,
        };
        Frames {
            decoder: Decoder::open(format, codec_private, MAX_VIDEO_PIXELS).ok(),
            wanted: BTreeSet::new(),
            broken_from: None,
        }
    }

    /// Takes the next frame. `take` gets the pictures of wanted frames as they come out, and `None` for those that cannot be
    /// decoded, each with the frame's number.
    pub fn frame(&mut self, frame: &StillFrame, take: &mut impl FnMut(u32, Option<&Picture>)) {
        if frame.fresh {
            self.flush(take);
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
        self.receive(take);
    }

    /// Takes what the decoder still holds; what is wanted and does not come cannot be decoded.
    pub fn flush(&mut self, take: &mut impl FnMut(u32, Option<&Picture>)) {
        if let Some(decoder) = &mut self.decoder {
            decoder.finish();
        }
        self.receive(take);
        for number in std::mem::take(&mut self.wanted) {
            take(number, None);
        }
    }

    fn receive(&mut self, take: &mut impl FnMut(u32, Option<&Picture>)) {
        // Each round takes a picture, or an error of a packet: there are no more of them than packets.
        while let Some(decoder) = &mut self.decoder {
            match decoder.receive() {
                Ok(Some(picture)) => self.picture(&picture, take),
                Ok(None) => return,
                Err(_) => {
                    self.broken_from.get_or_insert(u32::MAX);
                    return;
                }
            }
        }
    }

    fn picture(&mut self, picture: &Picture, take: &mut impl FnMut(u32, Option<&Picture>)) {
        let Ok(number) = u32::try_from(picture.id()) else {
            return;
        };
        if !self.wanted.remove(&number) {
            return;
        }
        let broken = picture.damaged() || self.broken_from.is_some_and(|from| number >= from);
        take(number, (!broken).then_some(picture));
    }
}
