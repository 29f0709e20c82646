//! The messages of a process that takes films apart, to bytes and back.

use super::read::Fields;
use super::write::{codec_code, flags, put_f32, put_u32, put_u64};
use super::{FromWorker, ProtocolError};
use crate::film::{ColorRange, FilmFault, FilmFrame, FilmInfo};
use crate::limits::{MAX_CODEC_PRIVATE_BYTES, MAX_FILM_TIME_MS, MAX_FRAME_BYTES};

/// Longest name of a container or a codec.
const NAME_BYTES_MAX: usize = 255;

/// Appends kind and body of a message about a film; of another message nothing.
pub(super) fn encode(message: &FromWorker, out: &mut Vec<u8>) {
    match message {
        FromWorker::FilmWants { offset, bytes } => {
            out.push(40);
            put_u64(out, *offset);
            put_u32(out, *bytes);
        }
        FromWorker::FilmOpened(info) => {
            out.push(41);
            out.push(codec_code(info.codec));
            put_u32(out, info.width);
            put_u32(out, info.height);
            put_u64(out, info.duration_ms);
            put_f32(out, info.frame_rate);
            out.push(match info.color_range {
                None => 0,
                Some(ColorRange::Limited) => 1,
                Some(ColorRange::Full) => 2,
            });
            out.push(info.orientation);
            let format = info.format.as_bytes();
            let format = format.get(..NAME_BYTES_MAX).unwrap_or(format);
            out.push(format.len() as u8);
            out.extend_from_slice(format);
            out.extend_from_slice(&info.codec_private);
        }
        FromWorker::FilmFrame(frame) => {
            out.push(42);
            put_u64(out, frame.time_ms.cast_unsigned());
            out.push(flags([frame.key, frame.shown, false]));
            out.extend_from_slice(&frame.data);
        }
        FromWorker::FilmEnd(end) => {
            out.push(43);
            match end {
                Ok(()) => out.push(0),
                Err(FilmFault::NotAFilm) => out.push(1),
                Err(FilmFault::NoVideo) => out.push(2),
                Err(FilmFault::Codec(name)) => {
                    out.push(3);
                    out.extend(name.bytes().take(NAME_BYTES_MAX));
                }
                Err(FilmFault::Damaged) => out.push(4),
                Err(FilmFault::TooLarge) => out.push(5),
            }
        }
        _ => {}
    }
}

/// Reads the body of a message of kind 40 to 43.
pub(super) fn decode(fields: &mut Fields<'_>) -> Result<FromWorker, ProtocolError> {
    let kind = fields.kind;
    let bad = ProtocolError::BadValue(kind);
    Ok(match kind {
        40 => FromWorker::FilmWants {
            offset: fields.u64()?,
            bytes: fields.u32()?,
        },
        41 => {
            let codec = fields.codec()?;
            let (width, height, duration_ms) = (fields.u32()?, fields.u32()?, fields.u64()?);
            let frame_rate = fields.finite()?;
            let color_range = match fields.u8()? {
                0 => None,
                1 => Some(ColorRange::Limited),
                2 => Some(ColorRange::Full),
                _ => return Err(bad),
            };
            let orientation = fields.u8()?;
            if !matches!(orientation, 1 | 3 | 6 | 8) {
                return Err(bad);
            }
            let length = usize::from(fields.u8()?);
            let format = String::from_utf8_lossy(fields.slice(length)?).into_owned();
            let codec_private = fields.copied();
            if codec_private.len() > MAX_CODEC_PRIVATE_BYTES {
                return Err(bad);
            }
            FromWorker::FilmOpened(FilmInfo {
                codec,
                codec_private,
                format,
                width,
                height,
                duration_ms,
                frame_rate,
                color_range,
                orientation,
            })
        }
        42 => {
            let time_ms = fields.u64()?.cast_signed();
            let [key, shown, _] = fields.flags()?;
            let data = fields.copied();
            if data.len() > MAX_FRAME_BYTES || time_ms.unsigned_abs() > MAX_FILM_TIME_MS.unsigned_abs() {
                return Err(bad);
            }
            FromWorker::FilmFrame(FilmFrame {
                time_ms,
                key,
                shown,
                data,
            })
        }
        _ => FromWorker::FilmEnd(match fields.u8()? {
            0 => Ok(()),
            1 => Err(FilmFault::NotAFilm),
            2 => Err(FilmFault::NoVideo),
            3 => Err(FilmFault::Codec(fields.text())),
            4 => Err(FilmFault::Damaged),
            5 => Err(FilmFault::TooLarge),
            _ => return Err(bad),
        }),
    })
}
