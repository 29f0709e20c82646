//! What server and worker say to each other over two pipes. A message is
//!
//! ```text
//! u32 length of what follows | u8 kind | body
//! ```
//!
//! all numbers little-endian, floats as IEEE 754 bits; byte strings fill the rest of their message. Both directions are
//! bounded, so that neither side can make the other hold more than one message: [`MAX_TO_WORKER`], [`MAX_FROM_WORKER`].
//!
//! The worker first says [`FromWorker::Ready`], and reads nothing before it has locked itself down. A session begins with
//! [`ToWorker::Open`]; the server may then have `CREDIT_FRAMES` frames under way, and gains one for each
//! [`FromWorker::Taken`], which the worker sends before it decodes that frame: after the worker's death the last frame
//! taken is the one that killed it. Each frame not sent as [`Packet::silent`] gets one [`FromWorker::Analysed`] or
//! [`FromWorker::Skipped`]. Sessions and requests are told apart by numbers that the server chooses.
//!
//! Still images of frames are a request in many messages: [`ToWorker::Stills`], a [`ToWorker::StillPacket`] for each
//! frame, [`ToWorker::EndOfStills`]. The worker decodes each packet as it comes, and says [`FromWorker::Still`] for each
//! wanted one when its picture is out, in no promised order, then [`FromWorker::StillsDone`]. A look at frames begins with
//! [`ToWorker::Look`] instead, and goes on in the same way; where it is for objects, the answers are [`FromWorker::Objects`].
//!
//! A film is taken apart by a process that does nothing else (`--film`): after [`ToWorker::Film`] it asks for bytes with
//! [`FromWorker::FilmWants`], each time waiting for one [`ToWorker::FilmBytes`], and says [`FromWorker::FilmOpened`], a
//! [`FromWorker::FilmFrame`] for each frame, and [`FromWorker::FilmEnd`].

use bytes::Bytes;

use crate::film::{FilmFault, FilmFrame, FilmInfo};
use crate::frames::FrameLook;
use crate::limits::{MAX_FACES, MAX_FRAME_BYTES, MAX_IMAGE_BYTES, MAX_STILL_BYTES};
use crate::objects::LabelAnalysis;
use crate::types::{Codec, ImageAnalysis, ImageError, SkipReason, StillError, StillFormat};

mod film;
mod read;
mod write;

/// Raised when a message changes its meaning; a worker of another version is refused.
pub const VERSION: u32 = 4;

/// Longest message to a worker, without its length.
pub const MAX_TO_WORKER: usize = if MAX_FRAME_BYTES > MAX_IMAGE_BYTES {
    MAX_FRAME_BYTES + 64
} else {
    MAX_IMAGE_BYTES + 64
};

/// Longest picture of a message: 100 faces with attributes and vectors of 1,024 numbers.
const MAX_PICTURE: usize = 1024 + MAX_FACES * (512 + 4 * MAX_EMBEDDING);

/// Longest message from a worker.
pub const MAX_FROM_WORKER: usize = {
    let file = if MAX_FRAME_BYTES > MAX_STILL_BYTES {
        MAX_FRAME_BYTES + 64
    } else {
        MAX_STILL_BYTES + 64
    };
    if MAX_PICTURE > file { MAX_PICTURE } else { file }
};

/// Longest vector of any embedding model.
pub const MAX_EMBEDDING: usize = 1024;

/// A session as the worker sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSession {
    /// The server's number for it.
    pub session: u32,
    /// The decoder.
    pub codec: Codec,
    /// Newest wins; otherwise every picture is analysed.
    pub live: bool,
    /// Each packet is a key frame, to be decoded on its own.
    pub key_frames_only: bool,
    /// Link faces into tracks.
    pub track_faces: bool,
    /// The longer side of the detector's input.
    pub detector_side: u16,
    /// As in [`crate::SessionConfig`].
    pub orientation: u8,
    /// As in [`crate::SessionConfig`].
    pub attributes: bool,
    /// Pictures per second of video time; infinite for all.
    pub max_rate: f32,
    /// Extradata.
    pub codec_private: Bytes,
}

/// One encoded frame on its way to the decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// The session.
    pub session: u32,
    /// The caller's number.
    pub id: u64,
    /// Presentation time in milliseconds.
    pub time_ms: i64,
    /// Decoding can begin here.
    pub key: bool,
    /// Decoded for the sake of later frames; has no outcome.
    pub silent: bool,
    /// The frame.
    pub data: Bytes,
}

/// A request for still images as the worker sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenStills {
    /// The server's number for it.
    pub request: u32,
    /// The decoder.
    pub codec: Codec,
    /// How images are encoded.
    pub format: StillFormat,
    /// Pixels; 0: as the height and the picture's proportions say.
    pub width: u32,
    /// Pixels; 0: as the width and the picture's proportions say.
    pub height: u32,
    /// Extradata.
    pub codec_private: Bytes,
}

/// A look at frames as the worker sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenLook {
    /// The server's number for it.
    pub request: u32,
    /// The decoder.
    pub codec: Codec,
    /// What is asked; the worker was started with the model of objects.
    pub look: FrameLook,
    /// Extradata.
    pub codec_private: Bytes,
}

/// One frame of a request for still images.
#[derive(Clone, Debug, PartialEq)]
pub struct StillFrame {
    /// Of which request.
    pub request: u32,
    /// The server's number for the frame; they ascend.
    pub number: u32,
    /// Decoding begins here, with a key frame.
    pub fresh: bool,
    /// Its image is wanted.
    pub wanted: bool,
    /// The frame.
    pub data: Bytes,
}

/// From the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// A session begins.
    Open(OpenSession),
    /// A frame.
    Packet(Packet),
    /// No more frames: pictures still in the decoder come out, then [`FromWorker::Drained`].
    EndOfInput {
        /// Which.
        session: u32,
    },
    /// Switch between live and catching up.
    SetLive {
        /// Which.
        session: u32,
        /// The new mode.
        live: bool,
    },
    /// Forget the session and all it holds. Nothing more is said of it, but for messages under way.
    Close {
        /// Which.
        session: u32,
    },
    /// Find the faces of an image.
    Image {
        /// The server's number for the request.
        request: u32,
        /// With vectors.
        embed: bool,
        /// With attributes; the worker was started with their models.
        attributes: bool,
        /// Refuse larger ones.
        max_pixels: u32,
        /// The file.
        data: Bytes,
    },
    /// Find the objects of an image; the worker was started with their model.
    Labels {
        /// The server's number for the request.
        request: u32,
        /// Refuse larger ones.
        max_pixels: u32,
        /// The file.
        data: Bytes,
    },
    /// A request for still images begins; one is under way at a time.
    Stills(OpenStills),
    /// A look at frames begins, in place of a request for still images.
    Look(OpenLook),
    /// A frame of it.
    StillPacket(StillFrame),
    /// No more frames: what is wanted and still in the decoder comes out, then [`FromWorker::StillsDone`].
    EndOfStills {
        /// Which.
        request: u32,
    },
    /// Take a film of so many bytes apart.
    Film {
        /// Its length.
        size: u64,
    },
    /// The answer to [`FromWorker::FilmWants`]: at least one byte, and no more than were asked for.
    FilmBytes {
        /// The bytes.
        data: Bytes,
    },
}

/// From the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// Locked down, models loaded.
    Ready {
        /// Must equal [`VERSION`].
        version: u32,
        /// Numbers in a vector.
        embedding_len: u32,
        /// Which of the locks hold, in words for the log.
        lockdown: String,
    },
    /// The frame leaves the worker's queue for the decoder.
    Taken {
        /// Of which session.
        session: u32,
        /// The frame.
        id: u64,
    },
    /// A picture's faces.
    Analysed {
        /// Of which session.
        session: u32,
        /// The frame.
        id: u64,
        /// Its time.
        time_ms: i64,
        /// Its picture.
        picture: ImageAnalysis,
    },
    /// No faces were looked for.
    Skipped {
        /// Of which session.
        session: u32,
        /// The frame.
        id: u64,
        /// Why.
        reason: SkipReason,
    },
    /// After [`ToWorker::EndOfInput`], when every frame has had its outcome.
    Drained {
        /// Which.
        session: u32,
    },
    /// The answer to [`ToWorker::Image`].
    Image {
        /// Which.
        request: u32,
        /// The faces, or what is wrong with the image.
        result: Result<ImageAnalysis, ImageError>,
    },
    /// The answer to [`ToWorker::Labels`].
    Labels {
        /// Which.
        request: u32,
        /// The objects, or what is wrong with the image.
        result: Result<LabelAnalysis, ImageError>,
    },
    /// The image of a [`StillFrame::wanted`] frame.
    Still {
        /// Of which request.
        request: u32,
        /// The frame.
        number: u32,
        /// The file, or why there is none.
        result: Result<Bytes, StillError>,
    },
    /// The objects of a [`StillFrame::wanted`] frame.
    Objects {
        /// Of which request.
        request: u32,
        /// The frame.
        number: u32,
        /// What it shows, or why that is not known.
        result: Result<LabelAnalysis, StillError>,
    },
    /// After [`ToWorker::EndOfStills`], when every wanted frame has had its answer.
    StillsDone {
        /// Which.
        request: u32,
    },
    /// Bytes of the film are needed.
    FilmWants {
        /// Before the film's end.
        offset: u64,
        /// 1 to [`crate::limits::MAX_FILM_READ_BYTES`].
        bytes: u32,
    },
    /// The film's container was read so far that frames can follow.
    FilmOpened(FilmInfo),
    /// The next frame.
    FilmFrame(FilmFrame),
    /// Nothing follows: the film is at its end, or cannot be read further.
    FilmEnd(Result<(), FilmFault>),
}

/// The other side broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A length beyond the bound.
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    /// The message ends before its fields, or has bytes beyond them.
    #[error("a message of kind {0} has a wrong length")]
    WrongLength(u8),
    /// No such message.
    #[error("kind {0} is no message")]
    UnknownKind(u8),
    /// A field has a value that it must not have.
    #[error("a message of kind {0} has an impossible value")]
    BadValue(u8),
}

/// Reads a message's length prefix.
pub fn length(prefix: [u8; 4], max: usize) -> Result<usize, ProtocolError> {
    let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(ProtocolError::WrongLength(0));
    }
    if length > max {
        return Err(ProtocolError::TooLong(length));
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
