//! Still images of video frames, and looks at frames: decode what was sent, answer what is wanted. One request at a time.

use bytes::Bytes;
use vision::limits::{MAX_STILL_BYTES, MAX_STILL_HEIGHT, MAX_STILL_WIDTH};
use vision::protocol::{FromWorker, OpenLook, OpenStills, StillFrame};
use vision::{BoundingBox, FrameLook, LabelAnalysis, StillError, StillFormat};

use crate::analyse::Analyser;
use crate::codec::{Picture, Scaler};
use crate::encode::encode;
use crate::engine::EngineError;
use crate::frames::Frames;

/// A request under way.
pub struct Stills {
    request: u32,
    frames: Frames,
    maker: Maker,
}

/// Makes an answer of a picture.
struct Maker {
    request: u32,
    work: Work,
    scaler: Scaler,
}

/// What is made.
enum Work {
    Image {
        format: StillFormat,
        width: u32,
        height: u32,
    },
    Look(FrameLook),
}

impl Stills {
    /// Begins a request for still images.
    pub fn open(open: &OpenStills) -> Stills {
        let work = Work::Image {
            format: open.format,
            width: open.width,
            height: open.height,
        };
        Stills::begin(open.request, Frames::open(open.codec, &open.codec_private), work)
    }

    /// Begins a look at frames.
    pub fn look(open: &OpenLook) -> Stills {
        let frames = Frames::open(open.codec, &open.codec_private);
        Stills::begin(open.request, frames, Work::Look(open.look))
    }

    fn begin(request: u32, frames: Frames, work: Work) -> Stills {
        let scaler = Scaler::new();
        Stills {
            request,
            frames,
            maker: Maker { request, work, scaler },
        }
    }

    /// Whether it is the request of that number.
    pub fn is(&self, request: u32) -> bool {
        self.request == request
    }

    /// Takes the next frame.
    pub fn frame(
        &mut self,
        frame: &StillFrame,
        analyser: &mut Analyser,
        say: &mut impl FnMut(&FromWorker),
    ) -> Result<(), EngineError> {
        let (frames, maker) = (&mut self.frames, &mut self.maker);
        let mut made = Ok(());
        frames.frame(frame, &mut |number, picture| {
            if made.is_ok() {
                made = maker.answer(number, picture, analyser, say);
            }
        });
        made
    }

    /// No more frames.
    pub fn end(mut self, analyser: &mut Analyser, say: &mut impl FnMut(&FromWorker)) -> Result<(), EngineError> {
        let (frames, maker) = (&mut self.frames, &mut self.maker);
        let mut made = Ok(());
        frames.flush(&mut |number, picture| {
            if made.is_ok() {
                made = maker.answer(number, picture, analyser, say);
            }
        });
        made?;
        let request = self.request;
        say(&FromWorker::StillsDone { request });
        Ok(())
    }
}

impl Maker {
    /// Answers for a wanted frame; without a picture it cannot be decoded.
    fn answer(
        &mut self,
        number: u32,
        picture: Option<&Picture>,
        analyser: &mut Analyser,
        say: &mut impl FnMut(&FromWorker),
    ) -> Result<(), EngineError> {
        let request = self.request;
        let answer = match self.work {
            Work::Look(FrameLook::Objects) => FromWorker::Objects {
                request,
                number,
                result: match picture {
                    Some(picture) => self.objects(picture, analyser)?,
                    None => Err(StillError::Undecodable),
                },
            },
            Work::Look(FrameLook::Part { area, quality }) => FromWorker::Still {
                request,
                number,
                result: picture.ok_or(StillError::Undecodable).and_then(|picture| {
                    let part = part(picture, &area).ok_or(StillError::Undecodable)?;
                    self.encoded(&part, StillFormat::Jpeg { quality }, (0, 0))
                }),
            },
            Work::Image { format, width, height } => FromWorker::Still {
                request,
                number,
                result: picture
                    .ok_or(StillError::Undecodable)
                    .and_then(|picture| self.encoded(picture, format, (width, height))),
            },
        };
        say(&answer);
        Ok(())
    }

    fn encoded(&mut self, picture: &Picture, format: StillFormat, wanted: (u32, u32)) -> Result<Bytes, StillError> {
        let (width, height) = size(picture.width(), picture.height(), wanted.0, wanted.1);
        let file = encode(picture, &mut self.scaler, format, width, height);
        let file = file.map_err(|_| StillError::Undecodable)?;
        if file.len() > MAX_STILL_BYTES {
            return Err(StillError::TooLarge);
        }
        Ok(file.into())
    }

    fn objects(
        &mut self,
        picture: &Picture,
        analyser: &mut Analyser,
    ) -> Result<Result<LabelAnalysis, StillError>, EngineError> {
        let converted;
        let view = match picture.view() {
            Some(view) => Some(view),
            None => {
                converted = picture.to_planar(&mut self.scaler).ok();
                converted.as_ref().and_then(|planar| planar.view())
            }
        };
        let Some(view) = view else {
            return Ok(Err(StillError::Undecodable));
        };
        let objects = analyser.objects(&view)?;
        Ok(Ok(LabelAnalysis {
            width: picture.width(),
            height: picture.height(),
            objects,
        }))
    }
}

/// The part of a picture in whole pixels, beginning at an even one where colours are halved; `None` where nothing is left.
fn part(picture: &Picture, area: &BoundingBox) -> Option<Picture> {
    let (width, height) = (picture.width(), picture.height());
    let (left, right) = span(area.left, area.width, width);
    let (top, bottom) = span(area.top, area.height, height);
    picture.part(left, top, right.checked_sub(left)?, bottom.checked_sub(top)?)
}

/// From the even pixel at or before the beginning to the end of the last pixel that is touched, within `side` pixels.
fn span(start: f32, length: f32, side: u32) -> (u32, u32) {
    let pixels = |ratio: f32| ratio.clamp(0.0, 1.0) * side as f32;
    // What is no number becomes 0.
    (pixels(start) as u32 & !1, pixels(start + length).ceil() as u32)
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
    #[test]
    fn a_part_holds_its_area_and_lies_within_the_picture() {
        for ((start, length), expected) in [
            ((0.0, 1.0), (0, 1280)),
            ((0.25, 0.5), (320, 960)),
            ((0.251, 0.001), (320, 323)),
            ((-0.5, 2.0), (0, 1280)),
            ((0.999, 0.5), (1278, 1280)),
            ((2.0, 1.0), (1280, 1280)),
            ((f32::NAN, 1.0), (0, 0)),
        ] {
            assert_eq!(span(start, length, 1280), expected, "{start} {length}");
        }
    }
}
