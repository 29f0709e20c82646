//! FFmpeg's JPEG and PNG encoders, made safe to call. What they are given are our own decoder's pixels, not hostile bytes.
//!
//! FFmpeg's JPEG encoder knows no quality of 1 to 100; it is given the quantisation tables that the Independent JPEG
//! Group's scale means, for the coefficients that it lets one set (its DC step is always 8).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;

use ff::{AVCodecID, AVPixelFormat};
use ffmpeg_sys_the_third as ff;
use vision::StillFormat;

use crate::codec::{CodecError, Picture, Scaler, checked};

/// ITU-T T.81, table K.1, in rows.
const LUMA: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
];

/// ITU-T T.81, table K.2, in rows.
const CHROMA: [u16; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99,
];

/// With this scale FFmpeg takes a table as it is.
const UNIT_SCALE: c_int = 8;

/// A table at a quality of 1 to 100, as the Independent JPEG Group's library scales it.
fn scaled(table: &[u16; 64], quality: u8) -> [u16; 64] {
    let quality = u32::from(quality.clamp(1, 100));
    let percent = if quality < 50 {
        5000 / quality
    } else {
        200 - 2 * quality
    };
    table.map(|step| ((u32::from(step) * percent + 50) / 100).clamp(1, 255) as u16)
}

/// Makes a file of a picture, scaled to this size.
pub fn encode(
    picture: &Picture,
    scaler: &mut Scaler,
    format: StillFormat,
    width: u32,
    height: u32,
) -> Result<Vec<u8>, CodecError> {
    let pixels = match format {
        StillFormat::Jpeg { .. } => AVPixelFormat::YUVJ420P,
        StillFormat::Png => AVPixelFormat::RGB24,
    };
    let frame = Frame::new(pixels, width as c_int, height as c_int)?;
    // SAFETY: the frame is live, of the size and format that the scaler is told, and its rows end with FFmpeg's slack.
    unsafe { picture.scale_into(scaler, frame.0)? };
    let mut encoder = Encoder::open(format, pixels, width as c_int, height as c_int)?;
    encoder.encode(&frame)
}

struct Frame(*mut ff::AVFrame);

impl Frame {
    fn new(pixels: AVPixelFormat, width: c_int, height: c_int) -> Result<Frame, CodecError> {
        // SAFETY: null is checked; the frame is freed by Drop. av_frame_get_buffer allocates what format and size need,
        // with rows aligned and padded for the scaler's vector code.
        unsafe {
            let frame = Frame(ff::av_frame_alloc());
            if frame.0.is_null() {
                return Err(CodecError::OUT_OF_MEMORY);
            }
            let inner = &mut *frame.0;
            inner.format = pixels.0;
            inner.width = width;
            inner.height = height;
            inner.quality = UNIT_SCALE * ff::FF_QP2LAMBDA;
            inner.color_range = ff::AVColorRange::JPEG;
            checked(ff::av_frame_get_buffer(frame.0, 0))?;
            Ok(frame)
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: accepts null; frees what we own.
        unsafe { ff::av_frame_free(&raw mut self.0) };
    }
}

struct Encoder {
    context: *mut ff::AVCodecContext,
    packet: *mut ff::AVPacket,
}

impl Encoder {
    fn open(format: StillFormat, pixels: AVPixelFormat, width: c_int, height: c_int) -> Result<Encoder, CodecError> {
        let id = match format {
            StillFormat::Jpeg { .. } => AVCodecID::MJPEG,
            StillFormat::Png => AVCodecID::PNG,
        };
        // SAFETY: pointers are checked before use and freed by Drop. The tables are FFmpeg's own allocations of 64 numbers,
        // which are freed with the context.
        unsafe {
            let codec = ff::avcodec_find_encoder(id);
            let encoder = Encoder {
                context: ff::avcodec_alloc_context3(codec),
                packet: ff::av_packet_alloc(),
            };
            if codec.is_null() || encoder.context.is_null() || encoder.packet.is_null() {
                return Err(CodecError::OUT_OF_MEMORY);
            }
            let context = &mut *encoder.context;
            context.thread_count = 1;
            context.width = width;
            context.height = height;
            context.pix_fmt = pixels;
            context.color_range = ff::AVColorRange::JPEG;
            context.time_base = ff::AVRational { num: 1, den: 25 };
            // Only now and then does a better filter of PNG's rows pay for its time.
            context.compression_level = 3;
            if let StillFormat::Jpeg { quality } = format {
                context.flags |= ff::AV_CODEC_FLAG_QSCALE as c_int;
                context.global_quality = UNIT_SCALE * ff::FF_QP2LAMBDA;
                context.intra_matrix = table(&scaled(&LUMA, quality))?;
                context.chroma_intra_matrix = table(&scaled(&CHROMA, quality))?;
            }
            checked(ff::avcodec_open2(encoder.context, codec, ptr::null_mut()))?;
            Ok(encoder)
        }
    }

    fn encode(&mut self, frame: &Frame) -> Result<Vec<u8>, CodecError> {
        // SAFETY: all pointers are live; a null frame ends the input. A received packet holds `size` bytes at `data` until
        // it is unreferenced.
        unsafe {
            checked(ff::avcodec_send_frame(self.context, frame.0))?;
            checked(ff::avcodec_send_frame(self.context, ptr::null()))?;
            checked(ff::avcodec_receive_packet(self.context, self.packet))?;
            let packet = &*self.packet;
            let length = usize::try_from(packet.size).unwrap_or(0);
            let file = std::slice::from_raw_parts(packet.data, length).to_vec();
            ff::av_packet_unref(self.packet);
            Ok(file)
        }
    }
}

/// A table in memory that FFmpeg frees.
///
/// # Safety
/// The result must be given to a context, or freed by `av_free`.
unsafe fn table(steps: &[u16; 64]) -> Result<*mut u16, CodecError> {
    // SAFETY: the allocation has room for the 64 numbers that are copied.
    unsafe {
        let memory: *mut u16 = ff::av_malloc(std::mem::size_of_val(steps)).cast();
        if memory.is_null() {
            return Err(CodecError::OUT_OF_MEMORY);
        }
        ptr::copy_nonoverlapping(steps.as_ptr(), memory, steps.len());
        Ok(memory)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: both accept null, free what we own and null the fields.
        unsafe {
            ff::av_packet_free(&raw mut self.packet);
            ff::avcodec_free_context(&raw mut self.context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quality_scale_is_the_jpeg_groups() {
        assert_eq!(scaled(&LUMA, 50), LUMA);
        assert_eq!(scaled(&LUMA, 100), [1; 64]);
        assert_eq!(scaled(&LUMA, 80)[..4], [6, 4, 4, 6]);
        assert_eq!(scaled(&CHROMA, 1), [255; 64]);
    }
}
