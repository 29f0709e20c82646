//! Messages to bytes.

use super::{FromWorker, MAX_EMBEDDING, ToWorker};
use crate::frames::FrameLook;
use crate::limits::{MAX_FACES, MAX_OBJECTS};
use crate::objects::LabelAnalysis;
use crate::types::{Codec, Face, FaceAttributes, ImageAnalysis, ImageError, SkipReason, StillError, StillFormat};

impl ToWorker {
    /// Writes all but the trailing byte string into `head` (cleared first), and returns that string: two writes, no copy.
    pub fn encode<'a>(&'a self, head: &mut Vec<u8>) -> &'a [u8] {
        head.clear();
        head.extend_from_slice(&[0; 4]);
        let tail: &[u8] = match self {
            ToWorker::Open(open) => {
                head.push(1);
                put_u32(head, open.session);
                head.push(codec_code(open.codec));
                head.push(flags([open.live, open.key_frames_only, open.track_faces]));
                head.extend_from_slice(&open.detector_side.to_le_bytes());
                head.push(open.orientation);
                head.push(u8::from(open.attributes));
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
                attributes,
                max_pixels,
                data,
            } => {
                head.push(6);
                put_u32(head, *request);
                head.push(u8::from(*embed));
                head.push(u8::from(*attributes));
                put_u32(head, *max_pixels);
                data
            }
            ToWorker::Stills(open) => {
                head.push(7);
                put_u32(head, open.request);
                head.push(codec_code(open.codec));
                // PNG has no quality, and JPEG's begins at 1.
                head.push(match open.format {
                    StillFormat::Jpeg { quality } => quality.max(1),
                    StillFormat::Png => 0,
                });
                put_u32(head, open.width);
                put_u32(head, open.height);
                &open.codec_private
            }
            ToWorker::Look(open) => {
                head.push(60);
                put_u32(head, open.request);
                head.push(codec_code(open.codec));
                put_look(head, open.look);
                &open.codec_private
            }
            ToWorker::StillPacket(frame) => {
                head.push(8);
                put_u32(head, frame.request);
                put_u32(head, frame.number);
                head.push(flags([frame.fresh, frame.wanted, false]));
                &frame.data
            }
            ToWorker::Labels {
                request,
                max_pixels,
                data,
            } => {
                head.push(10);
                put_u32(head, *request);
                put_u32(head, *max_pixels);
                data
            }
            ToWorker::EndOfStills { request } => {
                head.push(9);
                put_u32(head, *request);
                &[]
            }
            ToWorker::Film { size } => {
                head.push(40);
                put_u64(head, *size);
                &[]
            }
            ToWorker::FilmBytes { data } => {
                head.push(41);
                data
            }
        };
        finish(head, tail.len());
        tail
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
                match result {
                    Ok(picture) => {
                        out.push(0);
                        put_picture(out, picture);
                    }
                    Err(error) => put_image_error(out, error),
                }
            }
            FromWorker::Labels { request, result } => {
                out.push(9);
                put_u32(out, *request);
                match result {
                    Ok(analysis) => {
                        out.push(0);
                        put_objects(out, analysis);
                    }
                    Err(error) => put_image_error(out, error),
                }
            }
            FromWorker::Still {
                request,
                number,
                result,
            } => {
                out.push(7);
                put_u32(out, *request);
                put_u32(out, *number);
                match result {
                    Ok(file) => {
                        out.push(0);
                        out.extend_from_slice(file);
                    }
                    Err(error) => out.push(still_code(*error)),
                }
            }
            FromWorker::Objects {
                request,
                number,
                result,
            } => {
                out.push(60);
                put_u32(out, *request);
                put_u32(out, *number);
                match result {
                    Ok(analysis) => {
                        out.push(0);
                        put_objects(out, analysis);
                    }
                    Err(error) => out.push(still_code(*error)),
                }
            }
            FromWorker::StillsDone { request } => {
                out.push(8);
                put_u32(out, *request);
            }
            FromWorker::FilmWants { .. }
            | FromWorker::FilmOpened(_)
            | FromWorker::FilmFrame(_)
            | FromWorker::FilmEnd(_) => super::film::encode(self, out),
        }
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(prefix) = out.get_mut(start..start + 4) {
            prefix.copy_from_slice(&length.to_le_bytes());
        }
    }
}

fn finish(head: &mut [u8], tail: usize) {
    let length = u32::try_from(head.len() - 4 + tail).unwrap_or(u32::MAX);
    if let Some(prefix) = head.get_mut(..4) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
}

fn put_look(out: &mut Vec<u8>, look: FrameLook) {
    match look {
        FrameLook::Objects => out.push(0),
        FrameLook::Part { area, quality } => {
            out.push(quality.clamp(1, 100));
            for value in [area.left, area.top, area.width, area.height] {
                put_f32(out, value);
            }
        }
    }
}

fn still_code(error: StillError) -> u8 {
    match error {
        StillError::Undecodable => 1,
        StillError::TooLarge => 2,
    }
}

pub(super) fn codec_code(codec: Codec) -> u8 {
    match codec {
        Codec::H264 => 0,
        Codec::H265 => 1,
    }
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_f32(out: &mut Vec<u8>, value: f32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn flags(bits: [bool; 3]) -> u8 {
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
    put_attributes(out, face.attributes.as_deref());
}

fn put_attributes(out: &mut Vec<u8>, attributes: Option<&FaceAttributes>) {
    let mesh = attributes.and_then(|attributes| attributes.mesh.as_ref());
    out.push(flags([attributes.is_some(), mesh.is_some(), false]));
    let Some(attributes) = attributes else { return };
    put_f32(out, attributes.age);
    put_f32(out, attributes.male);
    for share in attributes.emotions {
        put_f32(out, share);
    }
    let Some(mesh) = mesh else { return };
    for point in mesh.points {
        put_f32(out, point.x);
        put_f32(out, point.y);
    }
    put_f32(out, mesh.eyes_open);
    put_f32(out, mesh.mouth_open);
}

fn put_objects(out: &mut Vec<u8>, analysis: &LabelAnalysis) {
    put_u32(out, analysis.width);
    put_u32(out, analysis.height);
    let objects = analysis.objects.get(..MAX_OBJECTS).unwrap_or(&analysis.objects);
    out.push(objects.len() as u8);
    for object in objects {
        out.push(object.class);
        let b = object.bounding_box;
        for value in [object.confidence, b.left, b.top, b.width, b.height] {
            put_f32(out, value);
        }
    }
}

fn put_image_error(out: &mut Vec<u8>, error: &ImageError) {
    let (code, width, height) = match error {
        ImageError::NotAnImage => (1, 0, 0),
        ImageError::UnsupportedFormat => (2, 0, 0),
        ImageError::TooLarge { width, height } => (3, *width, *height),
        ImageError::TooSmall { width, height } => (4, *width, *height),
        ImageError::Busy => (5, 0, 0),
        ImageError::Worker(text) => {
            out.push(6);
            return out.extend(text.bytes().take(512));
        }
    };
    out.push(code);
    put_u32(out, width);
    put_u32(out, height);
}
