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

use bytes::Bytes;

use crate::limits::{MAX_FACES, MAX_FRAME_BYTES, MAX_IMAGE_BYTES};
use crate::types::{BoundingBox, Codec, Face, ImageAnalysis, ImageError, Landmarks, Point, Pose, Quality, SkipReason};

/// Raised when a message changes its meaning; a worker of another version is refused.
pub const VERSION: u32 = 1;

/// Longest message to a worker, without its length.
pub const MAX_TO_WORKER: usize = if MAX_FRAME_BYTES > MAX_IMAGE_BYTES {
    MAX_FRAME_BYTES + 64
} else {
    MAX_IMAGE_BYTES + 64
};

/// Longest message from a worker: 100 faces with vectors of 1,024 numbers.
pub const MAX_FROM_WORKER: usize = 1024 + MAX_FACES * (128 + 4 * MAX_EMBEDDING);

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
        /// Refuse larger ones.
        max_pixels: u32,
        /// The file.
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

impl ToWorker {
    /// Writes all but the trailing byte string into `head` (cleared first), and returns that string: two writes, no copy.
    pub fn encode<'a>(&'a self, head: &mut Vec<u8>) -> &'a [u8] {
        head.clear();
        head.extend_from_slice(&[0; 4]);
        let tail: &[u8] = match self {
            ToWorker::Open(open) => {
                head.push(1);
                put_u32(head, open.session);
                head.push(match open.codec {
                    Codec::H264 => 0,
                    Codec::H265 => 1,
                });
                head.push(flags([open.live, open.key_frames_only, open.track_faces]));
                head.extend_from_slice(&open.detector_side.to_le_bytes());
                put_f32(head, open.max_rate);
                &open.codec_private
            }
            ToWorker::Packet(packet) => {
                head.push(2);
                put_u32(head, packet.session);
                put_u64(head, packet.id);
                put_u64(head, packet.time_ms.cast_unsigned());
                head.push(flags([packet.key, packet.silent, false]));
                &packet.data
            }
            ToWorker::EndOfInput { session } => {
                head.push(3);
                put_u32(head, *session);
                &[]
            }
            ToWorker::SetLive { session, live } => {
                head.push(4);
                put_u32(head, *session);
                head.push(u8::from(*live));
                &[]
            }
            ToWorker::Close { session } => {
                head.push(5);
                put_u32(head, *session);
                &[]
            }
            ToWorker::Image {
                request,
                embed,
                max_pixels,
                data,
            } => {
                head.push(6);
                put_u32(head, *request);
                head.push(u8::from(*embed));
                put_u32(head, *max_pixels);
                data
            }
        };
        finish(head, tail.len());
        tail
    }

    /// Reads a message without its length prefix. Byte strings share `message`'s memory.
    pub fn decode(message: &Bytes) -> Result<ToWorker, ProtocolError> {
        let mut fields = Fields::new(message)?;
        let kind = fields.kind;
        let decoded = match kind {
            1 => {
                let session = fields.u32()?;
                let codec = match fields.u8()? {
                    0 => Codec::H264,
                    1 => Codec::H265,
                    _ => return Err(ProtocolError::BadValue(kind)),
                };
                let [live, key_frames_only, track_faces] = fields.flags()?;
                ToWorker::Open(OpenSession {
                    session,
                    codec,
                    live,
                    key_frames_only,
                    track_faces,
                    detector_side: fields.u16()?,
                    max_rate: fields.f32()?,
                    codec_private: fields.rest(message),
                })
            }
            2 => {
                let (session, id, time_ms) = (fields.u32()?, fields.u64()?, fields.u64()?.cast_signed());
                let [key, silent, _] = fields.flags()?;
                ToWorker::Packet(Packet {
                    session,
                    id,
                    time_ms,
                    key,
                    silent,
                    data: fields.rest(message),
                })
            }
            3 => ToWorker::EndOfInput { session: fields.u32()? },
            4 => ToWorker::SetLive {
                session: fields.u32()?,
                live: fields.bool()?,
            },
            5 => ToWorker::Close { session: fields.u32()? },
            6 => ToWorker::Image {
                request: fields.u32()?,
                embed: fields.bool()?,
                max_pixels: fields.u32()?,
                data: fields.rest(message),
            },
            other => return Err(ProtocolError::UnknownKind(other)),
        };
        fields.end(decoded)
    }
}

impl FromWorker {
    /// Appends the whole message, length prefix included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        match self {
            FromWorker::Ready {
                version,
                embedding_len,
                lockdown,
            } => {
                out.push(1);
                put_u32(out, *version);
                put_u32(out, *embedding_len);
                out.extend(lockdown.bytes().take(512));
            }
            FromWorker::Taken { session, id } => {
                out.push(2);
                put_u32(out, *session);
                put_u64(out, *id);
            }
            FromWorker::Analysed {
                session,
                id,
                time_ms,
                picture,
            } => {
                out.push(3);
                put_u32(out, *session);
                put_u64(out, *id);
                put_u64(out, time_ms.cast_unsigned());
                put_picture(out, picture);
            }
            FromWorker::Skipped { session, id, reason } => {
                out.push(4);
                put_u32(out, *session);
                put_u64(out, *id);
                out.push(reason_code(*reason));
            }
            FromWorker::Drained { session } => {
                out.push(5);
                put_u32(out, *session);
            }
            FromWorker::Image { request, result } => {
                out.push(6);
                put_u32(out, *request);
                put_image_result(out, result);
            }
        }
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(prefix) = out.get_mut(start..start + 4) {
            prefix.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Reads a message without its length prefix. Nothing in it is trusted: the worker has met hostile bytes.
    pub fn decode(message: &[u8]) -> Result<FromWorker, ProtocolError> {
        let mut fields = Fields::new(message)?;
        let kind = fields.kind;
        let decoded = match kind {
            1 => FromWorker::Ready {
                version: fields.u32()?,
                embedding_len: fields.u32()?,
                lockdown: fields.text(),
            },
            2 => FromWorker::Taken {
                session: fields.u32()?,
                id: fields.u64()?,
            },
            3 => FromWorker::Analysed {
                session: fields.u32()?,
                id: fields.u64()?,
                time_ms: fields.u64()?.cast_signed(),
                picture: fields.picture()?,
            },
            4 => FromWorker::Skipped {
                session: fields.u32()?,
                id: fields.u64()?,
                reason: fields.reason()?,
            },
            5 => FromWorker::Drained { session: fields.u32()? },
            6 => FromWorker::Image {
                request: fields.u32()?,
                result: fields.image_result()?,
            },
            other => return Err(ProtocolError::UnknownKind(other)),
        };
        fields.end(decoded)
    }
}

fn finish(head: &mut [u8], tail: usize) {
    let length = u32::try_from(head.len() - 4 + tail).unwrap_or(u32::MAX);
    if let Some(prefix) = head.get_mut(..4) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_f32(out: &mut Vec<u8>, value: f32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn flags(bits: [bool; 3]) -> u8 {
    bits.iter().rev().fold(0, |all, bit| all << 1 | u8::from(*bit))
}

fn reason_code(reason: SkipReason) -> u8 {
    SkipReason::ALL
        .iter()
        .position(|r| *r == reason)
        .map_or(u8::MAX, |i| i as u8)
}

fn put_picture(out: &mut Vec<u8>, picture: &ImageAnalysis) {
    put_u32(out, picture.width);
    put_u32(out, picture.height);
    let faces = picture.faces.get(..MAX_FACES).unwrap_or(&picture.faces);
    out.push(faces.len() as u8);
    for face in faces {
        put_face(out, face);
    }
}

fn put_face(out: &mut Vec<u8>, face: &Face) {
    let b = face.bounding_box;
    for value in [b.left, b.top, b.width, b.height, face.confidence] {
        put_f32(out, value);
    }
    for (_, point) in face.landmarks.named() {
        put_f32(out, point.x);
        put_f32(out, point.y);
    }
    let (pose, quality) = (face.pose, face.quality);
    for value in [pose.pitch, pose.roll, pose.yaw, quality.brightness, quality.sharpness] {
        put_f32(out, value);
    }
    put_u64(out, face.track_id.unwrap_or(0));
    put_u32(out, face.embedding_revision);
    let embedding = face.embedding.as_deref().unwrap_or_default();
    let embedding = embedding.get(..MAX_EMBEDDING).unwrap_or(embedding);
    out.extend_from_slice(&(embedding.len() as u16).to_le_bytes());
    for value in embedding {
        put_f32(out, *value);
    }
}

fn put_image_result(out: &mut Vec<u8>, result: &Result<ImageAnalysis, ImageError>) {
    let (code, width, height) = match result {
        Ok(picture) => {
            out.push(0);
            return put_picture(out, picture);
        }
        Err(ImageError::NotAnImage) => (1, 0, 0),
        Err(ImageError::UnsupportedFormat) => (2, 0, 0),
        Err(ImageError::TooLarge { width, height }) => (3, *width, *height),
        Err(ImageError::TooSmall { width, height }) => (4, *width, *height),
        Err(ImageError::Busy) => (5, 0, 0),
        Err(ImageError::Worker(text)) => {
            out.push(6);
            return out.extend(text.bytes().take(512));
        }
    };
    out.push(code);
    put_u32(out, width);
    put_u32(out, height);
}

/// A message being read.
struct Fields<'a> {
    kind: u8,
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(message: &'a [u8]) -> Result<Self, ProtocolError> {
        let (kind, left) = message.split_first().ok_or(ProtocolError::WrongLength(0))?;
        Ok(Fields { kind: *kind, left })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (taken, left) = self
            .left
            .split_first_chunk()
            .ok_or(ProtocolError::WrongLength(self.kind))?;
        self.left = left;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.take().map(u64::from_le_bytes)
    }

    fn f32(&mut self) -> Result<f32, ProtocolError> {
        self.take().map(f32::from_le_bytes)
    }

    /// A float that reaches records and comparisons: no NaN, no infinity.
    fn finite(&mut self) -> Result<f32, ProtocolError> {
        let value = self.f32()?;
        value
            .is_finite()
            .then_some(value)
            .ok_or(ProtocolError::BadValue(self.kind))
    }

    fn bool(&mut self) -> Result<bool, ProtocolError> {
        self.u8().map(|byte| byte != 0)
    }

    fn flags(&mut self) -> Result<[bool; 3], ProtocolError> {
        self.u8().map(|byte| [byte & 1 != 0, byte & 2 != 0, byte & 4 != 0])
    }

    fn rest(&mut self, message: &Bytes) -> Bytes {
        let rest = message.slice(message.len() - self.left.len()..);
        self.left = &[];
        rest
    }

    fn text(&mut self) -> String {
        let text = String::from_utf8_lossy(self.left).into_owned();
        self.left = &[];
        text
    }

    fn end<T>(self, decoded: T) -> Result<T, ProtocolError> {
        if self.left.is_empty() {
            return Ok(decoded);
        }
        Err(ProtocolError::WrongLength(self.kind))
    }

    fn reason(&mut self) -> Result<SkipReason, ProtocolError> {
        let code = usize::from(self.u8()?);
        SkipReason::ALL
            .get(code)
            .copied()
            .ok_or(ProtocolError::BadValue(self.kind))
    }

    fn picture(&mut self) -> Result<ImageAnalysis, ProtocolError> {
        let (width, height, count) = (self.u32()?, self.u32()?, usize::from(self.u8()?));
        if count > MAX_FACES {
            return Err(ProtocolError::BadValue(self.kind));
        }
        let faces = (0..count).map(|_| self.face()).collect::<Result<_, _>>()?;
        Ok(ImageAnalysis { width, height, faces })
    }

    fn point(&mut self) -> Result<Point, ProtocolError> {
        Ok(Point {
            x: self.finite()?,
            y: self.finite()?,
        })
    }

    fn face(&mut self) -> Result<Face, ProtocolError> {
        let bounding_box = BoundingBox {
            left: self.finite()?,
            top: self.finite()?,
            width: self.finite()?,
            height: self.finite()?,
        };
        let confidence = self.finite()?;
        let landmarks = Landmarks {
            eye_left: self.point()?,
            eye_right: self.point()?,
            nose: self.point()?,
            mouth_left: self.point()?,
            mouth_right: self.point()?,
        };
        let pose = Pose {
            pitch: self.finite()?,
            roll: self.finite()?,
            yaw: self.finite()?,
        };
        let quality = Quality {
            brightness: self.finite()?,
            sharpness: self.finite()?,
        };
        let track_id = Some(self.u64()?).filter(|id| *id != 0);
        let embedding_revision = self.u32()?;
        let length = usize::from(self.u16()?);
        if length > MAX_EMBEDDING {
            return Err(ProtocolError::BadValue(self.kind));
        }
        let embedding = (0..length).map(|_| self.finite()).collect::<Result<Vec<f32>, _>>()?;
        Ok(Face {
            bounding_box,
            confidence,
            landmarks,
            pose,
            quality,
            track_id,
            embedding_revision,
            embedding: Some(embedding).filter(|e| !e.is_empty()),
        })
    }

    fn image_result(&mut self) -> Result<Result<ImageAnalysis, ImageError>, ProtocolError> {
        let code = self.u8()?;
        if code == 0 {
            return self.picture().map(Ok);
        }
        if code == 6 {
            return Ok(Err(ImageError::Worker(self.text())));
        }
        let (width, height) = (self.u32()?, self.u32()?);
        Ok(Err(match code {
            1 => ImageError::NotAnImage,
            2 => ImageError::UnsupportedFormat,
            3 => ImageError::TooLarge { width, height },
            4 => ImageError::TooSmall { width, height },
            5 => ImageError::Busy,
            _ => return Err(ProtocolError::BadValue(self.kind)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(message: &ToWorker) -> Bytes {
        let mut head = Vec::new();
        let tail = message.encode(&mut head).to_vec();
        head.extend_from_slice(&tail);
        let (prefix, body) = head.split_first_chunk::<4>().unwrap();
        assert_eq!(length(*prefix, MAX_TO_WORKER).unwrap(), body.len());
        Bytes::copy_from_slice(body)
    }

    fn answered(message: &FromWorker) -> Vec<u8> {
        let mut out = vec![7, 7];
        message.encode(&mut out);
        let (prefix, body) = out.split_at(2).1.split_first_chunk::<4>().unwrap();
        assert_eq!(length(*prefix, MAX_FROM_WORKER).unwrap(), body.len());
        body.to_vec()
    }

    fn any_face() -> impl Strategy<Value = Face> {
        let numbers = proptest::collection::vec(-2.0f32..2.0, 20);
        let embedding = proptest::option::of(proptest::collection::vec(-1.0f32..1.0, 1..200));
        (numbers, embedding, proptest::option::of(1u64..), any::<u32>()).prop_map(
            |(n, embedding, track_id, revision)| {
                let point = |i: usize| Point { x: n[i], y: n[i + 1] };
                Face {
                    bounding_box: BoundingBox {
                        left: n[0],
                        top: n[1],
                        width: n[2],
                        height: n[3],
                    },
                    confidence: n[4],
                    landmarks: Landmarks {
                        eye_left: point(5),
                        eye_right: point(7),
                        nose: point(9),
                        mouth_left: point(11),
                        mouth_right: point(13),
                    },
                    pose: Pose {
                        pitch: n[15],
                        roll: n[16],
                        yaw: n[17],
                    },
                    quality: Quality {
                        brightness: n[18],
                        sharpness: n[19],
                    },
                    track_id,
                    embedding_revision: revision,
                    embedding,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_frame_reaches_the_worker_as_it_was_sent(
            session: u32, id: u64, time_ms: i64, key: bool, silent: bool, data in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let message = ToWorker::Packet(Packet { session, id, time_ms, key, silent, data: data.into() });
            prop_assert_eq!(ToWorker::decode(&sent(&message)), Ok(message));
        }

        #[test]
        fn a_session_reaches_the_worker_as_it_was_opened(
            session: u32, live: bool, key_frames_only: bool, track_faces: bool, detector_side: u16, max_rate in 0.1f32..60.0,
            private in proptest::collection::vec(any::<u8>(), 0..60)
        ) {
            let message = ToWorker::Open(OpenSession {
                session, codec: Codec::H265, live, key_frames_only, track_faces, detector_side, max_rate,
                codec_private: private.into(),
            });
            prop_assert_eq!(ToWorker::decode(&sent(&message)), Ok(message));
        }

        #[test]
        fn faces_reach_the_server_as_they_were_found(
            session: u32, id: u64, time_ms: i64, width: u32, height: u32, faces in proptest::collection::vec(any_face(), 0..4)
        ) {
            let picture = ImageAnalysis { width, height, faces };
            let message = FromWorker::Analysed { session, id, time_ms, picture };
            prop_assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = FromWorker::decode(&bytes);
            let _ = ToWorker::decode(&Bytes::from(bytes));
        }

        #[test]
        fn a_message_cut_short_is_refused(face in any_face(), cut in 1usize..100) {
            let picture = ImageAnalysis { width: 1, height: 1, faces: vec![face] };
            let body = answered(&FromWorker::Image { request: 1, result: Ok(picture) });
            let kept = body.len().saturating_sub(cut);
            prop_assert!(FromWorker::decode(&body[..kept]).is_err());
        }
    }

    #[test]
    fn the_largest_answer_stays_within_the_bound() {
        let face = Face {
            embedding: Some(vec![0.5; MAX_EMBEDDING]),
            ..Face::default()
        };
        let picture = ImageAnalysis {
            width: 1,
            height: 1,
            faces: vec![face; MAX_FACES],
        };
        answered(&FromWorker::Analysed {
            session: 1,
            id: 1,
            time_ms: 1,
            picture,
        });
    }

    #[test]
    fn every_image_error_and_reason_arrives() {
        let sizes = (10_000, 3);
        for error in [
            ImageError::NotAnImage,
            ImageError::UnsupportedFormat,
            ImageError::TooLarge {
                width: sizes.0,
                height: sizes.1,
            },
            ImageError::TooSmall {
                width: sizes.0,
                height: sizes.1,
            },
            ImageError::Busy,
            ImageError::Worker("out of memory".to_owned()),
        ] {
            let message = FromWorker::Image {
                request: 9,
                result: Err(error),
            };
            assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
        }
        for reason in SkipReason::ALL {
            let message = FromWorker::Skipped {
                session: 1,
                id: 2,
                reason,
            };
            assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
        }
    }

    #[test]
    fn a_vector_of_a_compromised_worker_with_nan_is_refused() {
        let face = Face {
            embedding: Some(vec![f32::NAN]),
            ..Face::default()
        };
        let picture = ImageAnalysis {
            width: 1,
            height: 1,
            faces: vec![face],
        };
        let body = answered(&FromWorker::Image {
            request: 1,
            result: Ok(picture),
        });
        assert_eq!(FromWorker::decode(&body), Err(ProtocolError::BadValue(6)));
    }
}
