//! Bytes to messages. Nothing that a worker says is trusted: it has met hostile bytes.

use bytes::Bytes;

use super::{
    FromWorker, MAX_EMBEDDING, OpenLook, OpenSession, OpenStills, Packet, ProtocolError, StillFrame, ToWorker,
};
use crate::frames::FrameLook;
use crate::limits::{MAX_FACES, MAX_OBJECTS, MAX_STILL_BYTES};
use crate::objects::{DetectedObject, LabelAnalysis, OBJECT_CLASSES};
use crate::types::{
    BoundingBox, Codec, Face, FaceAttributes, FaceMesh, ImageAnalysis, ImageError, Landmarks, MESH_LANDMARKS, Point,
    Pose, Quality, SkipReason, StillError, StillFormat,
};

impl ToWorker {
    /// Reads a message without its length prefix. Byte strings share `message`'s memory.
    pub fn decode(message: &Bytes) -> Result<ToWorker, ProtocolError> {
        let mut fields = Fields::new(message)?;
        let kind = fields.kind;
        let decoded = match kind {
            1 => {
                let session = fields.u32()?;
                let codec = fields.codec()?;
                let [live, key_frames_only, track_faces] = fields.flags()?;
                ToWorker::Open(OpenSession {
                    session,
                    codec,
                    live,
                    key_frames_only,
                    track_faces,
                    detector_side: fields.u16()?,
                    orientation: fields.u8()?,
                    attributes: fields.bool()?,
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
                attributes: fields.bool()?,
                max_pixels: fields.u32()?,
                data: fields.rest(message),
            },
            7 => ToWorker::Stills(OpenStills {
                request: fields.u32()?,
                codec: fields.codec()?,
                format: match fields.u8()? {
                    0 => StillFormat::Png,
                    quality @ 1..=100 => StillFormat::Jpeg { quality },
                    _ => return Err(ProtocolError::BadValue(kind)),
                },
                width: fields.u32()?,
                height: fields.u32()?,
                codec_private: fields.rest(message),
            }),
            8 => {
                let (request, number) = (fields.u32()?, fields.u32()?);
                let [fresh, wanted, _] = fields.flags()?;
                ToWorker::StillPacket(StillFrame {
                    request,
                    number,
                    fresh,
                    wanted,
                    data: fields.rest(message),
                })
            }
            9 => ToWorker::EndOfStills { request: fields.u32()? },
            10 => ToWorker::Labels {
                request: fields.u32()?,
                max_pixels: fields.u32()?,
                data: fields.rest(message),
            },
            40 => ToWorker::Film { size: fields.u64()? },
            41 => ToWorker::FilmBytes {
                data: fields.rest(message),
            },
            60 => ToWorker::Look(OpenLook {
                request: fields.u32()?,
                codec: fields.codec()?,
                look: fields.look()?,
                codec_private: fields.rest(message),
            }),
            other => return Err(ProtocolError::UnknownKind(other)),
        };
        fields.end(decoded)
    }
}

impl FromWorker {
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
            7 => FromWorker::Still {
                request: fields.u32()?,
                number: fields.u32()?,
                result: match fields.u8()? {
                    0 => Ok(fields.file()?),
                    code => Err(fields.still_error(code)?),
                },
            },
            8 => FromWorker::StillsDone { request: fields.u32()? },
            9 => FromWorker::Labels {
                request: fields.u32()?,
                result: fields.label_result()?,
            },
            40..=43 => super::film::decode(&mut fields)?,
            60 => FromWorker::Objects {
                request: fields.u32()?,
                number: fields.u32()?,
                result: match fields.u8()? {
                    0 => Ok(fields.objects()?),
                    code => Err(fields.still_error(code)?),
                },
            },
            other => return Err(ProtocolError::UnknownKind(other)),
        };
        fields.end(decoded)
    }
}

/// A message being read.
pub(super) struct Fields<'a> {
    pub(super) kind: u8,
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

    pub(super) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.take().map(u64::from_le_bytes)
    }

    fn f32(&mut self) -> Result<f32, ProtocolError> {
        self.take().map(f32::from_le_bytes)
    }

    /// A float that reaches records and comparisons: no NaN, no infinity.
    pub(super) fn finite(&mut self) -> Result<f32, ProtocolError> {
        let value = self.f32()?;
        value
            .is_finite()
            .then_some(value)
            .ok_or(ProtocolError::BadValue(self.kind))
    }

    fn bool(&mut self) -> Result<bool, ProtocolError> {
        self.u8().map(|byte| byte != 0)
    }

    pub(super) fn flags(&mut self) -> Result<[bool; 3], ProtocolError> {
        self.u8().map(|byte| [byte & 1 != 0, byte & 2 != 0, byte & 4 != 0])
    }

    /// So many of the bytes that are left.
    pub(super) fn slice(&mut self, bytes: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, left) = self
            .left
            .split_at_checked(bytes)
            .ok_or(ProtocolError::WrongLength(self.kind))?;
        self.left = left;
        Ok(taken)
    }

    /// All that is left, without sharing the message's memory.
    pub(super) fn copied(&mut self) -> Bytes {
        Bytes::copy_from_slice(std::mem::take(&mut self.left))
    }

    fn rest(&mut self, message: &Bytes) -> Bytes {
        let rest = message.slice(message.len() - self.left.len()..);
        self.left = &[];
        rest
    }

    pub(super) fn codec(&mut self) -> Result<Codec, ProtocolError> {
        match self.u8()? {
            0 => Ok(Codec::H264),
            1 => Ok(Codec::H265),
            _ => Err(ProtocolError::BadValue(self.kind)),
        }
    }

    fn look(&mut self) -> Result<FrameLook, ProtocolError> {
        match self.u8()? {
            0 => Ok(FrameLook::Objects),
            quality @ 1..=100 => Ok(FrameLook::Part {
                quality,
                area: self.bounding_box()?,
            }),
            _ => Err(ProtocolError::BadValue(self.kind)),
        }
    }

    fn still_error(&self, code: u8) -> Result<StillError, ProtocolError> {
        match code {
            1 => Ok(StillError::Undecodable),
            2 => Ok(StillError::TooLarge),
            _ => Err(ProtocolError::BadValue(self.kind)),
        }
    }

    /// An encoded image.
    fn file(&mut self) -> Result<Bytes, ProtocolError> {
        let file = std::mem::take(&mut self.left);
        if file.is_empty() || file.len() > MAX_STILL_BYTES {
            return Err(ProtocolError::BadValue(self.kind));
        }
        Ok(Bytes::copy_from_slice(file))
    }

    pub(super) fn text(&mut self) -> String {
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

    fn bounding_box(&mut self) -> Result<BoundingBox, ProtocolError> {
        Ok(BoundingBox {
            left: self.finite()?,
            top: self.finite()?,
            width: self.finite()?,
            height: self.finite()?,
        })
    }

    fn face(&mut self) -> Result<Face, ProtocolError> {
        let bounding_box = self.bounding_box()?;
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
        let attributes = self.attributes()?;
        Ok(Face {
            bounding_box,
            confidence,
            landmarks,
            pose,
            quality,
            track_id,
            embedding_revision,
            embedding: Some(embedding).filter(|e| !e.is_empty()),
            attributes,
        })
    }

    fn attributes(&mut self) -> Result<Option<Box<FaceAttributes>>, ProtocolError> {
        let [told, meshed, _] = self.flags()?;
        if !told {
            return Ok(None);
        }
        let (age, male) = (self.finite()?, self.finite()?);
        let mut emotions = [0.0; 7];
        for share in &mut emotions {
            *share = self.finite()?;
        }
        let mesh = if meshed { Some(self.mesh()?) } else { None };
        Ok(Some(Box::new(FaceAttributes {
            age,
            male,
            emotions,
            mesh,
        })))
    }

    fn mesh(&mut self) -> Result<FaceMesh, ProtocolError> {
        let mut points = [Point::default(); MESH_LANDMARKS.len()];
        for point in &mut points {
            *point = self.point()?;
        }
        Ok(FaceMesh {
            points,
            eyes_open: self.finite()?,
            mouth_open: self.finite()?,
        })
    }

    fn image_result(&mut self) -> Result<Result<ImageAnalysis, ImageError>, ProtocolError> {
        match self.u8()? {
            0 => self.picture().map(Ok),
            code => self.image_error(code).map(Err),
        }
    }

    fn label_result(&mut self) -> Result<Result<LabelAnalysis, ImageError>, ProtocolError> {
        match self.u8()? {
            0 => self.objects().map(Ok),
            code => self.image_error(code).map(Err),
        }
    }

    fn objects(&mut self) -> Result<LabelAnalysis, ProtocolError> {
        let (width, height, count) = (self.u32()?, self.u32()?, usize::from(self.u8()?));
        if count > MAX_OBJECTS {
            return Err(ProtocolError::BadValue(self.kind));
        }
        let objects = (0..count).map(|_| self.object()).collect::<Result<_, _>>()?;
        Ok(LabelAnalysis { width, height, objects })
    }

    fn object(&mut self) -> Result<DetectedObject, ProtocolError> {
        let class = self.u8()?;
        if usize::from(class) >= OBJECT_CLASSES.len() {
            return Err(ProtocolError::BadValue(self.kind));
        }
        Ok(DetectedObject {
            class,
            confidence: self.finite()?,
            bounding_box: self.bounding_box()?,
        })
    }

    fn image_error(&mut self, code: u8) -> Result<ImageError, ProtocolError> {
        if code == 6 {
            return Ok(ImageError::Worker(self.text()));
        }
        let (width, height) = (self.u32()?, self.u32()?);
        Ok(match code {
            1 => ImageError::NotAnImage,
            2 => ImageError::UnsupportedFormat,
            3 => ImageError::TooLarge { width, height },
            4 => ImageError::TooSmall { width, height },
            5 => ImageError::Busy,
            _ => return Err(ProtocolError::BadValue(self.kind)),
        })
    }
}
