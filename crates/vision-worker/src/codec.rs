//! FFmpeg's decoders and scaler, made safe to call. This module and `encode` alone touch FFmpeg; they know nothing of faces.
//!
//! One thread, packets copied in, pictures borrowed out. A picture is seen as three planes of 8-bit YUV ([`View`]);
//! other formats (10 bits, palettes, RGB) are converted first.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use ff::{AVCodecID, AVPixelFormat};
use ffmpeg_sys_the_third as ff;

/// What can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Video.
    H264,
    /// Video.
    H265,
    /// A still image.
    Jpeg,
    /// A still image.
    Png,
}

/// FFmpeg refused; its error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("FFmpeg error {0}")]
pub struct CodecError(c_int);

const OUT_OF_MEMORY: CodecError = CodecError(ff::AVERROR(libc::ENOMEM));

impl CodecError {
    /// Nothing could be allocated.
    pub(crate) const OUT_OF_MEMORY: CodecError = OUT_OF_MEMORY;
}

pub(crate) fn checked(code: c_int) -> Result<c_int, CodecError> {
    if code < 0 { Err(CodecError(code)) } else { Ok(code) }
}

/// Beginnings of what FFmpeg says when a picture refers to one that it does not have. It conceals such gaps with copies
/// and flags neither the picture nor its frame, so its own words are the one sign (5.1: h264_slice.c, h264_refs.c,
/// hevc_refs.c). A test with a frame left out holds it.
const MISSING_REFERENCE: [&[u8]; 6] = [
    b"Frame num gap",
    b"reference picture missing",
    b"Missing reference picture",
    b"mmco: unref short failure",
    b"Could not find ref with POC",
    b"Error constructing the frame RPS",
];

/// How often FFmpeg has missed a reference, in this process.
static MISSED: AtomicU64 = AtomicU64::new(0);

#[cfg(target_arch = "x86_64")]
type LogArguments = *mut ff::__va_list_tag;
#[cfg(not(target_arch = "x86_64"))]
type LogArguments = ff::va_list;

/// Hears what FFmpeg says; the arguments are not looked at.
unsafe extern "C" fn listen(_: *mut c_void, _: c_int, text: *const c_char, _: LogArguments) {
    if text.is_null() {
        return;
    }
    // SAFETY: FFmpeg passes a C string that lives through the call.
    let text = unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes();
    if MISSING_REFERENCE.iter().any(|beginning| text.starts_with(beginning)) {
        MISSED.fetch_add(1, Ordering::Relaxed);
    }
}

/// FFmpeg writes nothing to the standard streams: its complaints about hostile bytes are counted as outcomes, and those
/// about missing references are heard. To be called before the first decoder is opened.
pub fn silence() {
    // SAFETY: `listen` has the type that FFmpeg calls, and touches nothing but an atomic.
    unsafe { ff::av_log_set_callback(Some(listen)) };
}

/// A decoder of one stream.
pub struct Decoder {
    context: *mut ff::AVCodecContext,
    packet: *mut ff::AVPacket,
}

impl Decoder {
    /// Opens a decoder. `extradata` is avcC, hvcC, Annex B or empty; pictures of more than `max_pixels` are refused.
    pub fn open(format: Format, extradata: &[u8], max_pixels: u32) -> Result<Decoder, CodecError> {
        let id = match format {
            Format::H264 => AVCodecID::H264,
            Format::H265 => AVCodecID::HEVC,
            Format::Jpeg => AVCodecID::MJPEG,
            Format::Png => AVCodecID::PNG,
        };
        // SAFETY: the pointers are checked before use; on every return they are owned by `decoder`, whose Drop frees them.
        // The extradata is allocated by FFmpeg with its padding, zeroed, and freed with the context.
        unsafe {
            let codec = ff::avcodec_find_decoder(id);
            let decoder = Decoder {
                context: ff::avcodec_alloc_context3(codec),
                packet: ff::av_packet_alloc(),
            };
            if codec.is_null() || decoder.context.is_null() || decoder.packet.is_null() {
                return Err(OUT_OF_MEMORY);
            }
            let context = &mut *decoder.context;
            context.thread_count = 1;
            context.max_pixels = i64::from(max_pixels);
            if !extradata.is_empty() {
                let padded = extradata.len() + ff::AV_INPUT_BUFFER_PADDING_SIZE as usize;
                context.extradata = ff::av_mallocz(padded).cast();
                if context.extradata.is_null() {
                    return Err(OUT_OF_MEMORY);
                }
                ptr::copy_nonoverlapping(extradata.as_ptr(), context.extradata, extradata.len());
                context.extradata_size = c_int::try_from(extradata.len()).map_err(|_| OUT_OF_MEMORY)?;
            }
            checked(ff::avcodec_open2(decoder.context, codec, ptr::null_mut()))?;
            Ok(decoder)
        }
    }

    /// Gives the decoder a packet. `id` comes out with its picture. All pictures must have been received before.
    /// `Ok(false)`: it refers to pictures that the decoder does not have.
    pub fn send(&mut self, data: &[u8], id: i64, key: bool) -> Result<bool, CodecError> {
        let missed = MISSED.load(Ordering::Relaxed);
        let size = c_int::try_from(data.len()).map_err(|_| OUT_OF_MEMORY)?;
        // SAFETY: av_new_packet allocates `size` bytes and zeroed padding; the copy fills exactly these; the packet is
        // unreferenced on every path.
        unsafe {
            checked(ff::av_new_packet(self.packet, size))?;
            let packet = &mut *self.packet;
            ptr::copy_nonoverlapping(data.as_ptr(), packet.data, data.len());
            packet.pts = id;
            packet.flags = if key { ff::AV_PKT_FLAG_KEY } else { 0 };
            let code = ff::avcodec_send_packet(self.context, self.packet);
            ff::av_packet_unref(self.packet);
            checked(code).map(|_| MISSED.load(Ordering::Relaxed) == missed)
        }
    }

    /// The next picture, if one is ready.
    pub fn receive(&mut self) -> Result<Option<Picture>, CodecError> {
        let picture = Picture::new()?;
        // SAFETY: both pointers are live and owned by us.
        match unsafe { ff::avcodec_receive_frame(self.context, picture.frame) } {
            0 => Ok(Some(picture)),
            ff::AVERROR_EOF => Ok(None),
            code if code == ff::AVERROR(libc::EAGAIN) => Ok(None),
            code => Err(CodecError(code)),
        }
    }

    /// No more packets: the pictures still held come out by [`Decoder::receive`]. Then [`Decoder::reset`] before more packets.
    pub fn finish(&mut self) {
        // SAFETY: a null packet asks for draining. Failing means it drains already.
        unsafe { ff::avcodec_send_packet(self.context, ptr::null()) };
    }

    /// Forgets all pictures, as before a jump.
    pub fn reset(&mut self) {
        // SAFETY: the context is open.
        unsafe { ff::avcodec_flush_buffers(self.context) };
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: both accept null, free what we own and null the fields.
        unsafe {
            ff::av_packet_free(&raw mut self.packet);
            ff::avcodec_free_context(&raw mut self.context);
        }
    }
}

/// A decoded picture.
pub struct Picture {
    frame: *mut ff::AVFrame,
}

impl Picture {
    fn new() -> Result<Picture, CodecError> {
        // SAFETY: allocates; ownership goes to the value.
        let frame = unsafe { ff::av_frame_alloc() };
        if frame.is_null() {
            return Err(OUT_OF_MEMORY);
        }
        Ok(Picture { frame })
    }

    fn frame(&self) -> &ff::AVFrame {
        // SAFETY: not null by construction, and owned by us alone.
        unsafe { &*self.frame }
    }

    /// What was given to [`Decoder::send`].
    pub fn id(&self) -> i64 {
        self.frame().pts
    }

    /// Pixels.
    pub fn width(&self) -> u32 {
        u32::try_from(self.frame().width).unwrap_or(0)
    }

    /// Pixels.
    pub fn height(&self) -> u32 {
        u32::try_from(self.frame().height).unwrap_or(0)
    }

    /// The decoder knows that parts are missing or concealed.
    pub fn damaged(&self) -> bool {
        self.frame().decode_error_flags != 0 || self.frame().flags & ff::AV_FRAME_FLAG_CORRUPT != 0
    }

    /// The planes as they are, where the format is 8-bit planar YUV or grey.
    pub fn view(&self) -> Option<View<'_>> {
        let frame = self.frame();
        let (shift_x, shift_y, full) = match AVPixelFormat(frame.format) {
            AVPixelFormat::YUV420P => (1, 1, false),
            AVPixelFormat::YUVJ420P => (1, 1, true),
            AVPixelFormat::YUV422P => (1, 0, false),
            AVPixelFormat::YUVJ422P => (1, 0, true),
            AVPixelFormat::YUV444P => (0, 0, false),
            AVPixelFormat::YUVJ444P => (0, 0, true),
            _ => return None,
        };
        let (width, height) = (self.width() as usize, self.height() as usize);
        let chroma = (width.div_ceil(1 << shift_x), height.div_ceil(1 << shift_y));
        let planes = [
            self.plane(0, width, height)?,
            self.plane(1, chroma.0, chroma.1)?,
            self.plane(2, chroma.0, chroma.1)?,
        ];
        Some(View {
            planes,
            shift_x,
            shift_y,
            full_range: full || frame.color_range == ff::AVColorRange::JPEG,
            matrix: match frame.colorspace {
                ff::AVColorSpace::BT709 => Matrix::Bt709,
                _ => Matrix::Bt601,
            },
        })
    }

    fn plane(&self, index: usize, width: usize, height: usize) -> Option<Plane<'_>> {
        let frame = self.frame();
        let data = *frame.data.get(index)?;
        let stride = usize::try_from(*frame.linesize.get(index)?).ok()?;
        if data.is_null() || stride < width || height == 0 || width == 0 {
            return None;
        }
        // SAFETY: FFmpeg allocates `stride` bytes for each of `height` rows of a plane, and the picture keeps them alive.
        let data = unsafe { std::slice::from_raw_parts(data, stride * (height - 1) + width) };
        Some(Plane {
            data,
            stride,
            width,
            height,
        })
    }

    /// The picture as it is, whatever its format.
    fn source(&self) -> Source {
        let frame = self.frame();
        Source {
            data: [frame.data[0], frame.data[1], frame.data[2], frame.data[3]].map(<*mut u8>::cast_const),
            strides: [
                frame.linesize[0],
                frame.linesize[1],
                frame.linesize[2],
                frame.linesize[3],
            ],
            format: AVPixelFormat(frame.format),
            width: frame.width,
            height: frame.height,
            full_range: frame.color_range == ff::AVColorRange::JPEG,
            matrix: match frame.colorspace {
                ff::AVColorSpace::BT709 => Matrix::Bt709,
                _ => Matrix::Bt601,
            },
        }
    }

    /// Scales the picture into a frame of FFmpeg's, to that frame's size and format.
    ///
    /// # Safety
    /// `target` must be live, and its planes allocated by `av_frame_get_buffer` for its size and format.
    pub(crate) unsafe fn scale_into(&self, scaler: &mut Scaler, target: *mut ff::AVFrame) -> Result<(), CodecError> {
        // SAFETY: the caller's promise; the source is a whole picture of FFmpeg's. FFmpeg pads the rows of its own buffers
        // by more than the scaler writes beyond them.
        unsafe {
            let target = &*target;
            let [first, second, third, ..] = target.data;
            let [first_stride, second_stride, third_stride, ..] = target.linesize;
            scaler.convert(
                &self.source(),
                [first, second, third],
                [first_stride, second_stride, third_stride],
                (target.width, target.height),
                AVPixelFormat(target.format),
            )
        }
    }

    /// The part that begins `left` and `top` pixels from the corner and is `width` x `height` pixels large; it shares the
    /// picture's memory. `None` if it is not within the picture, or empty.
    pub fn part(&self, left: u32, top: u32, width: u32, height: u32) -> Option<Picture> {
        let right = self.width().checked_sub(left.checked_add(width)?)?;
        let bottom = self.height().checked_sub(top.checked_add(height)?)?;
        if width == 0 || height == 0 {
            return None;
        }
        // SAFETY: the clone holds a reference to the same planes, is checked for null, and is ours alone. FFmpeg moves its
        // pointers to within the planes, by numbers that were checked above.
        unsafe {
            let frame = ff::av_frame_clone(self.frame);
            if frame.is_null() {
                return None;
            }
            let part = Picture { frame };
            let inner = &mut *part.frame;
            inner.crop_left = left as usize;
            inner.crop_top = top as usize;
            inner.crop_right = right as usize;
            inner.crop_bottom = bottom as usize;
            let flags = ff::AV_FRAME_CROP_UNALIGNED.0 as c_int;
            (ff::av_frame_apply_cropping(part.frame, flags) >= 0).then_some(part)
        }
    }

    /// The picture as full-range 4:4:4 planes, whatever its format.
    pub fn to_planar(&self, scaler: &mut Scaler) -> Result<Planar, CodecError> {
        let frame = self.frame();
        let mut planar = Planar::new(self.width() as usize, self.height() as usize);
        let source = self.source();
        let size = (frame.width, frame.height);
        let targets = planar.planes.each_mut().map(|plane| plane.as_mut_ptr());
        let stride = frame.width;
        // SAFETY: the source is a whole picture of FFmpeg's; each target plane has width * height bytes and slack behind.
        unsafe { scaler.convert(&source, targets, [stride; 3], size, AVPixelFormat::YUVJ444P)? };
        Ok(planar)
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: frees what we own.
        unsafe { ff::av_frame_free(&raw mut self.frame) };
    }
}

/// One plane of 8-bit samples.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
    /// Samples in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl<'a> Plane<'a> {
    /// A plane over `data`; `None` if it is too short.
    pub fn new(data: &'a [u8], stride: usize, width: usize, height: usize) -> Option<Plane<'a>> {
        let needed = stride.checked_mul(height.checked_sub(1)?)?.checked_add(width)?;
        (stride >= width && width > 0 && data.len() >= needed).then_some(Plane {
            data,
            stride,
            width,
            height,
        })
    }

    /// A row's samples; empty beyond the plane.
    pub fn row(&self, y: usize) -> &'a [u8] {
        let start = y.saturating_mul(self.stride);
        self.data
            .get(start..start.saturating_add(self.width))
            .unwrap_or_default()
    }

    /// The sample at the nearest place within the plane.
    pub fn clamped(&self, x: isize, y: isize) -> u8 {
        let x = x.clamp(0, self.width as isize - 1) as usize;
        let y = y.clamp(0, self.height as isize - 1) as usize;
        self.data.get(y * self.stride + x).copied().unwrap_or(0)
    }

    /// Bilinear between the four samples around; the edge continues outwards.
    #[inline]
    pub fn bilinear(&self, x: f32, y: f32) -> f32 {
        if x >= 0.0 && y >= 0.0 {
            let (ix, iy) = (x as usize, y as usize);
            let at = iy * self.stride + ix;
            let pairs = (self.pair(at), self.pair(at + self.stride));
            if let (true, (Some([a, b]), Some([c, d]))) = (ix + 1 < self.width, pairs) {
                return mix([a, b, c, d], x - ix as f32, y - iy as f32);
            }
        }
        let (left, top) = (x.floor(), y.floor());
        let (ix, iy) = (left as isize, top as isize);
        let around = [
            self.clamped(ix, iy),
            self.clamped(ix + 1, iy),
            self.clamped(ix, iy + 1),
            self.clamped(ix + 1, iy + 1),
        ];
        mix(around, x - left, y - top)
    }

    #[inline]
    fn pair(&self, at: usize) -> Option<[u8; 2]> {
        self.data.get(at..at + 2)?.try_into().ok()
    }
}

#[inline]
fn mix([a, b, c, d]: [u8; 4], x: f32, y: f32) -> f32 {
    let across = |a: u8, b: u8| f32::from(a) + (f32::from(b) - f32::from(a)) * x;
    let (top, bottom) = (across(a, b), across(c, d));
    top + (bottom - top) * y
}

/// How luma and chroma make colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// Standard definition, JPEG, and whatever does not say.
    Bt601,
    /// High definition.
    Bt709,
}

/// A picture as three planes of 8-bit YUV.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Luma and the two chroma planes.
    pub planes: [Plane<'a>; 3],
    /// Chroma has half of the width (1) or all (0).
    pub shift_x: u8,
    /// Chroma has half of the height (1) or all (0).
    pub shift_y: u8,
    /// Luma spans 0..255, not 16..235.
    pub full_range: bool,
    /// The colour matrix.
    pub matrix: Matrix,
}

impl View<'_> {
    /// Pixels.
    pub fn width(&self) -> usize {
        self.planes[0].width
    }

    /// Pixels.
    pub fn height(&self) -> usize {
        self.planes[0].height
    }

    fn source(&self) -> Source {
        let [y, u, v] = self.planes;
        Source {
            data: [y.data.as_ptr(), u.data.as_ptr(), v.data.as_ptr(), ptr::null()],
            strides: [y.stride as c_int, u.stride as c_int, v.stride as c_int, 0],
            format: match (self.shift_x, self.shift_y) {
                (0, _) => AVPixelFormat::YUV444P,
                (_, 0) => AVPixelFormat::YUV422P,
                _ => AVPixelFormat::YUV420P,
            },
            width: y.width as c_int,
            height: y.height as c_int,
            full_range: self.full_range,
            matrix: self.matrix,
        }
    }
}

/// An owned full-range 4:4:4 picture.
pub struct Planar {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Each `width * height` samples, and [`SLACK`] more.
    pub planes: [Vec<u8>; 3],
}

/// The scaler's vector code may write this far beyond the last sample.
const SLACK: usize = 128;

impl Planar {
    fn new(width: usize, height: usize) -> Planar {
        let plane = || vec![0; width * height + SLACK];
        Planar {
            width,
            height,
            planes: [plane(), plane(), plane()],
        }
    }

    /// The picture after the turn that an EXIF orientation of 2 to 8 asks for; any other leaves it as it is.
    pub fn oriented(self, orientation: u8) -> Planar {
        let (width, height) = (self.width, self.height);
        let swapped = (5..=8).contains(&orientation);
        if !(2..=8).contains(&orientation) {
            return self;
        }
        let size = if swapped { (height, width) } else { (width, height) };
        let mut turned = Planar::new(size.0, size.1);
        for (from, to) in self.planes.iter().zip(&mut turned.planes) {
            for (y, row) in to.chunks_exact_mut(size.0).take(size.1).enumerate() {
                for (x, sample) in row.iter_mut().enumerate() {
                    let (sx, sy) = match orientation {
                        2 => (width - 1 - x, y),
                        3 => (width - 1 - x, height - 1 - y),
                        4 => (x, height - 1 - y),
                        5 => (y, x),
                        6 => (y, height - 1 - x),
                        7 => (width - 1 - y, height - 1 - x),
                        _ => (width - 1 - y, x),
                    };
                    *sample = from.get(sy * width + sx).copied().unwrap_or(0);
                }
            }
        }
        turned
    }

    /// The planes.
    pub fn view(&self) -> Option<View<'_>> {
        let plane = |data| Plane::new(data, self.width, self.width, self.height);
        let [y, u, v] = &self.planes;
        Some(View {
            planes: [plane(y)?, plane(u)?, plane(v)?],
            shift_x: 0,
            shift_y: 0,
            full_range: true,
            matrix: Matrix::Bt601,
        })
    }
}

struct Source {
    data: [*const u8; 4],
    strides: [c_int; 4],
    format: AVPixelFormat,
    width: c_int,
    height: c_int,
    full_range: bool,
    matrix: Matrix,
}

/// What a scaler is set up for: source and target sizes and formats, range and matrix.
type Details = (c_int, c_int, AVPixelFormat, c_int, c_int, AVPixelFormat, bool, Matrix);

/// FFmpeg's scaler, set up anew only when sizes or formats change.
pub struct Scaler {
    context: *mut ff::SwsContext,
    details: Option<Details>,
}

impl Scaler {
    /// A scaler without a set-up.
    pub fn new() -> Scaler {
        Scaler {
            context: ptr::null_mut(),
            details: None,
        }
    }

    /// Scales a picture to `width` x `height` in packed BGR without padding between rows.
    pub fn to_bgr(
        &mut self,
        view: &View<'_>,
        width: usize,
        height: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        out.resize(width * height * 3 + SLACK, 0);
        let size = (width as c_int, height as c_int);
        let targets = [out.as_mut_ptr(), ptr::null_mut(), ptr::null_mut()];
        // SAFETY: a view's planes hold what its sizes say; the target has width * height * 3 bytes and slack behind.
        unsafe { self.convert(&view.source(), targets, [size.0 * 3, 0, 0], size, AVPixelFormat::BGR24)? };
        out.truncate(width * height * 3);
        Ok(())
    }

    /// # Safety
    /// `source` must describe readable planes, and `targets` writable ones for the size and format, with [`SLACK`].
    unsafe fn convert(
        &mut self,
        source: &Source,
        targets: [*mut u8; 3],
        target_strides: [c_int; 3],
        (width, height): (c_int, c_int),
        format: AVPixelFormat,
    ) -> Result<(), CodecError> {
        let full = source.full_range;
        let details = (
            source.width,
            source.height,
            source.format,
            width,
            height,
            format,
            full,
            source.matrix,
        );
        // SAFETY: the scaler owns its context, which sws_getCachedContext frees when it makes another; null is checked.
        // Coefficient tables are static. The arrays have the four entries that FFmpeg reads.
        unsafe {
            if self.details != Some(details) {
                self.details = None;
                self.context = ff::sws_getCachedContext(
                    self.context,
                    source.width,
                    source.height,
                    source.format,
                    width,
                    height,
                    format,
                    ff::SWS_BILINEAR,
                    ptr::null_mut(),
                    ptr::null_mut(),
                    ptr::null(),
                );
                if self.context.is_null() {
                    return Err(CodecError(ff::AVERROR(libc::EINVAL)));
                }
                let table = |matrix| ff::sws_getCoefficients(if matrix == Matrix::Bt709 { 1 } else { 5 });
                let target_full = c_int::from(matches!(format, AVPixelFormat::YUVJ444P | AVPixelFormat::YUVJ420P));
                let (from, to) = (table(source.matrix), table(Matrix::Bt601));
                // Refused for RGB sources, which need no matrix.
                ff::sws_setColorspaceDetails(
                    self.context,
                    from,
                    c_int::from(full),
                    to,
                    target_full,
                    0,
                    1 << 16,
                    1 << 16,
                );
                self.details = Some(details);
            }
            let targets = [targets[0], targets[1], targets[2], ptr::null_mut()];
            let strides = [target_strides[0], target_strides[1], target_strides[2], 0];
            let done = ff::sws_scale(
                self.context,
                source.data.as_ptr(),
                source.strides.as_ptr(),
                0,
                source.height,
                targets.as_ptr(),
                strides.as_ptr(),
            );
            checked(done).map(|_| ())
        }
    }
}

impl Default for Scaler {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // SAFETY: accepts null; frees what we own.
        unsafe { ff::sws_freeContext(self.context) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered() -> Planar {
        let mut planar = Planar::new(3, 2);
        for plane in &mut planar.planes {
            plane[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        }
        planar
    }

    #[test]
    fn an_image_taken_sideways_is_turned_upright() {
        // Where the samples 1..6 of a 3 x 2 image must end for each orientation (EXIF 2.32, tag 0x0112).
        for (orientation, width, wanted) in [
            (1, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [3, 2, 1, 6, 5, 4]),
            (3, 3, [6, 5, 4, 3, 2, 1]),
            (4, 3, [4, 5, 6, 1, 2, 3]),
            (5, 2, [1, 4, 2, 5, 3, 6]),
            (6, 2, [4, 1, 5, 2, 6, 3]),
            (7, 2, [6, 3, 5, 2, 4, 1]),
            (8, 2, [3, 6, 2, 5, 1, 4]),
        ] {
            let turned = numbered().oriented(orientation);
            assert_eq!(
                (turned.width, &turned.planes[2][..6]),
                (width, &wanted[..]),
                "{orientation}"
            );
        }
    }

    #[test]
    fn sampling_between_and_beyond_samples() {
        let data = [0, 10, 20, 30];
        let plane = Plane::new(&data, 2, 2, 2).unwrap();
        assert_eq!(plane.bilinear(0.5, 0.5), 15.0);
        assert_eq!(plane.bilinear(-5.0, 0.0), 0.0);
        assert_eq!(plane.bilinear(9.0, 9.0), 30.0);
        assert!(Plane::new(&data, 2, 2, 3).is_none());
    }

    #[test]
    fn scaling_grey_gives_grey() {
        let mut planar = Planar::new(64, 48);
        planar.planes.iter_mut().for_each(|plane| plane.fill(128));
        let mut out = Vec::new();
        Scaler::new().to_bgr(&planar.view().unwrap(), 32, 24, &mut out).unwrap();
        assert_eq!(out.len(), 32 * 24 * 3);
        assert!(out.iter().all(|value| value.abs_diff(128) <= 1), "{:?}", &out[..6]);
    }

    #[test]
    fn bytes_that_are_no_video_are_an_error_or_no_picture() {
        silence();
        let mut rng = fastrand::Rng::with_seed(7);
        for format in [Format::H264, Format::H265, Format::Jpeg, Format::Png] {
            let mut decoder = Decoder::open(format, &[], 1 << 24).unwrap();
            for id in 0..50 {
                let noise: Vec<u8> = (0..rng.usize(1..4000)).map(|_| rng.u8(..)).collect();
                let _ = decoder.send(&noise, id, true);
                while let Ok(Some(_)) = decoder.receive() {}
            }
        }
    }
}
