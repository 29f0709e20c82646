//! FFmpeg's demuxers, made safe to call: takes films apart, one after the other. A film's bytes come from the server, range
//! by range as the demuxer seeks, and its frames leave as they are. This module, `codec` and `encode` alone touch FFmpeg.
//! Nothing is decoded here but what FFmpeg needs of the first pictures to describe the video.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::io::{self, Read, Write};
use std::ptr;

use bytes::{Bytes, BytesMut};
use ff::{AVCodecID, AVColorRange, AVMediaType, AVPacketSideDataType, AVRational};
use ffmpeg_sys_the_third as ff;
use vision::limits::{
    MAX_CODEC_PRIVATE_BYTES, MAX_FILM_FRAMES, MAX_FILM_READ_BYTES, MAX_FILM_READS, MAX_FILM_TIME_MS, MAX_FRAME_BYTES,
};
use vision::protocol::{FromWorker, MAX_TO_WORKER, ToWorker, length};
use vision::{Codec, ColorRange, FilmFault, FilmFrame, FilmInfo};

use crate::codec::CodecError;
use crate::serve::ServeError;

/// What FFmpeg asks for at once. Larger pieces are wasted where sound and pictures lie apart.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes that may be read over, however short the film is.
const READS_ALLOWANCE: u64 = 64 * 1024 * 1024;

/// FFmpeg's names of the only demuxers that are used: MP4 and its kin, and Matroska.
const CONTAINERS: [&CStr; 2] = [c"mov,mp4,m4a,3gp,3g2,mj2", c"matroska,webm"];

/// How many bytes of a film may be looked at to find out what it is.
const PROBE_BYTES: u32 = 1024 * 1024;

/// The only decoders that may be opened to describe a video.
const DECODERS: &CStr = c"h264,hevc";

/// A track whose frames end so much before its index says has broken off.
const BROKEN_OFF_MS: i64 = 1_000;

const MILLISECONDS: AVRational = AVRational { num: 1, den: 1000 };
const MICROSECONDS: AVRational = AVRational { num: 1, den: 1_000_000 };

/// The other end of the pipe.
pub trait Server {
    /// One to so many bytes of the film from an offset on.
    fn ask(&mut self, offset: u64, bytes: usize) -> io::Result<Bytes>;

    /// Says something.
    fn say(&mut self, message: &FromWorker) -> io::Result<()>;
}

/// Serves until the input ends: one film after the other.
pub fn serve(input: &mut impl Read, output: &mut impl Write) -> Result<(), ServeError> {
    let mut pipe = Pipe {
        input,
        output,
        out: Vec::new(),
    };
    while let Some(message) = pipe.receive()? {
        // Bytes that nobody waits for any more are passed over.
        if let ToWorker::Film { size } = message {
            take_apart(&mut pipe, size)?;
        }
    }
    Ok(())
}

/// Tells the server all of a film.
pub fn take_apart(server: &mut dyn Server, size: u64) -> io::Result<()> {
    let mut film = Film::over(server, size);
    let end = film.tell();
    // A broken pipe looks like a damaged film to FFmpeg.
    film.source().broken.take().map_or(Ok(()), Err)?;
    let end = match end {
        Ok(()) => Ok(()),
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::Pipe(error)) => return Err(error),
    };
    film.source().server.say(&FromWorker::FilmEnd(end))
}

/// Why a film is not told further.
enum Stop {
    Fault(FilmFault),
    Pipe(io::Error),
}

impl From<FilmFault> for Stop {
    fn from(fault: FilmFault) -> Self {
        Stop::Fault(fault)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Pipe(error)
    }
}

impl From<CodecError> for Stop {
    fn from(_: CodecError) -> Self {
        Stop::Fault(FilmFault::Damaged)
    }
}

struct Pipe<'a, R, W> {
    input: &'a mut R,
    output: &'a mut W,
    out: Vec<u8>,
}

impl<R: Read, W: Write> Pipe<'_, R, W> {
    /// The next message; `None` when the server has closed the pipe.
    fn receive(&mut self) -> Result<Option<ToWorker>, ServeError> {
        let mut prefix = [0; 4];
        match self.input.read_exact(&mut prefix) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let mut message = BytesMut::zeroed(length(prefix, MAX_TO_WORKER)?);
        self.input.read_exact(&mut message)?;
        Ok(Some(ToWorker::decode(&message.freeze())?))
    }
}

impl<R: Read, W: Write> Server for Pipe<'_, R, W> {
    fn ask(&mut self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.say(&FromWorker::FilmWants { offset, bytes: wanted })?;
        match self.receive() {
            Ok(Some(ToWorker::FilmBytes { data })) => Ok(data),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn say(&mut self, message: &FromWorker) -> io::Result<()> {
        self.out.clear();
        message.encode(&mut self.out);
        self.output.write_all(&self.out)
    }
}

/// The film as FFmpeg reads it.
struct Source<'a> {
    server: &'a mut dyn Server,
    size: u64,
    position: u64,
    /// Bytes that may still be asked for.
    allowance: u64,
    broken: Option<io::Error>,
}

impl Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> c_int {
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = into.len().min(left).min(MAX_FILM_READ_BYTES);
        if wanted == 0 {
            return ff::AVERROR_EOF;
        }
        let Some(allowance) = self.allowance.checked_sub(wanted as u64) else {
            return ff::AVERROR(libc::EIO);
        };
        self.allowance = allowance;
        if self.broken.is_some() {
            return ff::AVERROR(libc::EIO);
        }
        let read = self.server.ask(self.position, wanted).and_then(|data| {
            let fits = !data.is_empty() && data.len() <= wanted;
            let place = into.get_mut(..data.len()).filter(|_| fits);
            place.ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(&data);
            Ok(data.len())
        });
        match read {
            Ok(read) => {
                self.position += read as u64;
                c_int::try_from(read).unwrap_or(c_int::MAX)
            }
            Err(error) => {
                self.broken = Some(error);
                ff::AVERROR(libc::EIO)
            }
        }
    }

    fn seek(&mut self, offset: i64, whence: c_int) -> i64 {
        let refused = i64::from(ff::AVERROR(libc::EINVAL));
        let size = i64::try_from(self.size).unwrap_or(i64::MAX);
        let from = match whence & !(ff::AVSEEK_FORCE as c_int) {
            way if way == ff::AVSEEK_SIZE as c_int => return size,
            libc::SEEK_SET => 0,
            libc::SEEK_CUR => i64::try_from(self.position).unwrap_or(i64::MAX),
            libc::SEEK_END => size,
            _ => return refused,
        };
        match from.checked_add(offset).map(u64::try_from) {
            Some(Ok(position)) => {
                self.position = position;
                position.cast_signed()
            }
            _ => refused,
        }
    }
}

/// FFmpeg's way to [`Source::read`].
unsafe extern "C" fn read(source: *mut c_void, into: *mut u8, bytes: c_int) -> c_int {
    let (Ok(bytes), false) = (usize::try_from(bytes), into.is_null()) else {
        return ff::AVERROR(libc::EINVAL);
    };
    // SAFETY: the pointer is the one that the AVIOContext was made with, a Source that outlives it and that nothing else
    // refers to while FFmpeg runs; FFmpeg's buffer has room for so many bytes, which it has initialised or will overwrite.
    let (source, into) = unsafe {
        (
            &mut *source.cast::<Source<'_>>(),
            std::slice::from_raw_parts_mut(into, bytes),
        )
    };
    source.read(into)
}

/// FFmpeg's way to [`Source::seek`].
unsafe extern "C" fn seek(source: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: as in `read`.
    unsafe { &mut *source.cast::<Source<'_>>() }.seek(offset, whence)
}

/// A film being taken apart. Everything that it points to it owns.
struct Film<'a> {
    source: *mut Source<'a>,
    io: *mut ff::AVIOContext,
    context: *mut ff::AVFormatContext,
    packet: *mut ff::AVPacket,
    /// When the last of the frames that were told ends.
    end_ms: i64,
}

impl<'a> Film<'a> {
    fn over(server: &'a mut dyn Server, size: u64) -> Film<'a> {
        let source = Box::new(Source {
            server,
            size,
            position: 0,
            allowance: size.saturating_mul(MAX_FILM_READS).saturating_add(READS_ALLOWANCE),
            broken: None,
        });
        Film {
            source: Box::into_raw(source),
            io: ptr::null_mut(),
            context: ptr::null_mut(),
            packet: ptr::null_mut(),
            end_ms: 0,
        }
    }

    /// The source, between two calls of FFmpeg's.
    fn source(&mut self) -> &mut Source<'a> {
        // SAFETY: made from a Box, freed in Drop alone, and FFmpeg uses it only within its calls, which borrow `self`.
        unsafe { &mut *self.source }
    }

    fn tell(&mut self) -> Result<(), Stop> {
        self.open()?;
        let track = self.track()?;
        let info = self.describe(&track)?;
        self.source().server.say(&FromWorker::FilmOpened(info))?;
        let (mut frames, mut last_ms) = (0, 0);
        while let Some(frame) = self.next(&track, last_ms)? {
            frames += 1;
            if frames > MAX_FILM_FRAMES || frame.data.len() > MAX_FRAME_BYTES {
                return Err(FilmFault::TooLarge.into());
            }
            last_ms = frame.time_ms;
            self.source().server.say(&FromWorker::FilmFrame(frame))?;
        }
        // FFmpeg ends where the bytes end, as if nothing were missing.
        if self.end_ms.saturating_add(BROKEN_OFF_MS) < track.length_ms {
            return Err(FilmFault::Damaged.into());
        }
        Ok(())
    }

    /// Reads the container's head.
    fn open(&mut self) -> Result<(), Stop> {
        // SAFETY: every allocation is checked. The buffer belongs to the AVIOContext, which with the other two is freed in
        // Drop; avformat_open_input frees the format context by itself where it fails and nulls our pointer. The options
        // are copied. The callbacks get our Source, which lives as long.
        unsafe {
            let buffer: *mut u8 = ff::av_malloc(BUFFER_BYTES).cast();
            if buffer.is_null() {
                return Err(FilmFault::Damaged.into());
            }
            let size = BUFFER_BYTES as c_int;
            self.io = ff::avio_alloc_context(buffer, size, 0, self.source.cast(), Some(read), None, Some(seek));
            if self.io.is_null() {
                ff::av_free(buffer.cast());
                return Err(FilmFault::Damaged.into());
            }
            self.packet = ff::av_packet_alloc();
            self.context = ff::avformat_alloc_context();
            if self.packet.is_null() || self.context.is_null() {
                return Err(FilmFault::Damaged.into());
            }
            (*self.context).pb = self.io;
            let mut format = ptr::null();
            let probed =
                ff::av_probe_input_buffer2(self.io, &raw mut format, c"".as_ptr(), ptr::null_mut(), 0, PROBE_BYTES);
            if probed < 0 || format.is_null() || !CONTAINERS.contains(&CStr::from_ptr((*format).name)) {
                return Err(FilmFault::NotAFilm.into());
            }
            let mut options = ptr::null_mut();
            ff::av_dict_set(&raw mut options, c"codec_whitelist".as_ptr(), DECODERS.as_ptr(), 0);
            let opened = ff::avformat_open_input(&raw mut self.context, c"".as_ptr(), format, &raw mut options);
            ff::av_dict_free(&raw mut options);
            if opened < 0 {
                return Err(FilmFault::Damaged.into());
            }
            if ff::avformat_find_stream_info(self.context, ptr::null_mut()) < 0 {
                return Err(FilmFault::Damaged.into());
            }
        }
        Ok(())
    }

    /// The streams of the container.
    fn streams(&self) -> &[*mut ff::AVStream] {
        // SAFETY: the context is open; FFmpeg keeps so many valid pointers there until a call changes them, which borrows
        // `self` mutably.
        unsafe {
            let context = &*self.context;
            match context.nb_streams as usize {
                0 => &[],
                count => std::slice::from_raw_parts(context.streams, count),
            }
        }
    }

    /// Chooses the first video that can be decoded, and tells FFmpeg to pass over everything else.
    fn track(&mut self) -> Result<Track, FilmFault> {
        let mut other = None;
        let mut chosen = None;
        for stream in self.streams() {
            // SAFETY: a live stream of ours, with its parameters.
            let (stream, parameters) = unsafe { (&mut **stream, &*(**stream).codecpar) };
            stream.discard = ff::AVDiscard::ALL;
            let picture = stream.disposition & ff::AV_DISPOSITION_ATTACHED_PIC as c_int != 0;
            if parameters.codec_type != AVMediaType::VIDEO || picture || chosen.is_some() {
                continue;
            }
            let codec = match parameters.codec_id {
                AVCodecID::H264 => Codec::H264,
                AVCodecID::HEVC => Codec::H265,
                id => {
                    // SAFETY: a static string for every id.
                    let name = unsafe { CStr::from_ptr(ff::avcodec_get_name(id)) };
                    other.get_or_insert_with(|| name.to_string_lossy().into_owned());
                    continue;
                }
            };
            stream.discard = ff::AVDiscard::DEFAULT;
            chosen = Some(Track {
                index: stream.index,
                codec,
                time_base: stream.time_base,
                start_ms: 0,
                length_ms: match stream.duration {
                    ff::AV_NOPTS_VALUE => 0,
                    length => rescale(length, stream.time_base),
                },
            });
        }
        let mut track = chosen.ok_or_else(|| other.map_or(FilmFault::NoVideo, FilmFault::Codec))?;
        // SAFETY: the context is open.
        let start = unsafe { (*self.context).start_time };
        if start != ff::AV_NOPTS_VALUE {
            track.start_ms = rescale(start, MICROSECONDS);
        }
        Ok(track)
    }

    fn describe(&self, track: &Track) -> Result<FilmInfo, FilmFault> {
        let stream = usize::try_from(track.index)
            .ok()
            .and_then(|index| self.streams().get(index));
        let stream = *stream.ok_or(FilmFault::Damaged)?;
        // SAFETY: a live stream of ours with its parameters; extradata has the size that they say; the format's names are
        // static strings.
        unsafe {
            let (stream, context) = (&*stream, &*self.context);
            let parameters = &*stream.codecpar;
            let size = usize::try_from(parameters.extradata_size).unwrap_or(0);
            if size > MAX_CODEC_PRIVATE_BYTES {
                return Err(FilmFault::TooLarge);
            }
            let codec_private = match size {
                0 => Bytes::new(),
                size => Bytes::copy_from_slice(std::slice::from_raw_parts(parameters.extradata, size)),
            };
            let name = (*context.iformat).long_name;
            let format = match name.is_null() {
                true => String::new(),
                false => CStr::from_ptr(name).to_string_lossy().into_owned(),
            };
            let length = [(stream.duration, stream.time_base), (context.duration, MICROSECONDS)];
            let known = length.into_iter().find(|(length, _)| *length > 0);
            let rates = [stream.avg_frame_rate, stream.r_frame_rate].map(ratio);
            let orientation = orientation(stream);
            let (mut width, mut height) = (parameters.width, parameters.height);
            if matches!(orientation, 6 | 8) {
                (width, height) = (height, width);
            }
            Ok(FilmInfo {
                codec: track.codec,
                codec_private,
                format,
                width: u32::try_from(width).unwrap_or(0),
                height: u32::try_from(height).unwrap_or(0),
                duration_ms: known.map_or(0, |(length, base)| u64::try_from(rescale(length, base)).unwrap_or(0)),
                frame_rate: rates.into_iter().find(|rate| *rate > 0.0).unwrap_or(0.0),
                color_range: match parameters.color_range {
                    AVColorRange::MPEG => Some(ColorRange::Limited),
                    AVColorRange::JPEG => Some(ColorRange::Full),
                    _ => None,
                },
                orientation,
            })
        }
    }

    /// The next frame of the track; `None` at the film's end.
    fn next(&mut self, track: &Track, last_ms: i64) -> Result<Option<FilmFrame>, Stop> {
        loop {
            // SAFETY: context and packet are live; what av_read_frame puts into the packet is unreferenced before the next.
            let frame = unsafe {
                ff::av_packet_unref(self.packet);
                match ff::av_read_frame(self.context, self.packet) {
                    ff::AVERROR_EOF => return Ok(None),
                    code if code < 0 => return Err(FilmFault::Damaged.into()),
                    _ => {}
                }
                let packet = &*self.packet;
                let size = usize::try_from(packet.size).unwrap_or(0);
                if packet.stream_index != track.index || size == 0 || packet.data.is_null() {
                    continue;
                }
                let times = [packet.pts, packet.dts];
                let time = times.into_iter().find(|time| *time != ff::AV_NOPTS_VALUE);
                let time_ms = time.map(|time| rescale(time, track.time_base).saturating_sub(track.start_ms));
                let time_ms = time_ms.unwrap_or(last_ms.saturating_add(1));
                if time_ms.unsigned_abs() > MAX_FILM_TIME_MS.unsigned_abs() {
                    return Err(FilmFault::Damaged.into());
                }
                let end_ms = time_ms.saturating_add(rescale(packet.duration, track.time_base));
                self.end_ms = self.end_ms.max(end_ms);
                FilmFrame {
                    time_ms,
                    key: packet.flags & ff::AV_PKT_FLAG_KEY as c_int != 0,
                    shown: packet.flags & ff::AV_PKT_FLAG_DISCARD as c_int == 0,
                    data: Bytes::copy_from_slice(std::slice::from_raw_parts(packet.data, size)),
                }
            };
            return Ok(Some(frame));
        }
    }
}

impl Drop for Film<'_> {
    fn drop(&mut self) {
        // SAFETY: each of these accepts null and frees what we own: first what uses the AVIOContext, then that with the
        // buffer that it has now, then what it pointed to.
        unsafe {
            ff::av_packet_free(&raw mut self.packet);
            ff::avformat_close_input(&raw mut self.context);
            if !self.io.is_null() {
                ff::av_freep((&raw mut (*self.io).buffer).cast());
            }
            ff::avio_context_free(&raw mut self.io);
            drop(Box::from_raw(self.source));
        }
    }
}

/// The video that frames are taken of.
struct Track {
    index: c_int,
    codec: Codec,
    time_base: AVRational,
    /// When the film begins, in its own time.
    start_ms: i64,
    /// As the container's index says; 0 where it does not.
    length_ms: i64,
}

fn rescale(time: i64, base: AVRational) -> i64 {
    if base.num <= 0 || base.den <= 0 {
        return 0;
    }
    // SAFETY: plain numbers, denominators above 0.
    unsafe { ff::av_rescale_q(time, base, MILLISECONDS) }
}

fn ratio(rate: AVRational) -> f32 {
    if rate.den > 0 {
        rate.num as f32 / rate.den as f32
    } else {
        0.0
    }
}

/// EXIF's orientation for the turn by quarters that a stream's display matrix asks for.
///
/// # Safety
/// The stream must be live.
unsafe fn orientation(stream: &ff::AVStream) -> u8 {
    // SAFETY: FFmpeg gives a pointer to `size` bytes of a live stream's side data, or null.
    let turn = unsafe {
        let mut size = 0;
        let matrix = ff::av_stream_get_side_data(stream, AVPacketSideDataType::DISPLAYMATRIX, &raw mut size);
        if matrix.is_null() || size < 9 * 4 {
            return 1;
        }
        // Degrees against the clock.
        ff::av_display_rotation_get(matrix.cast())
    };
    if !turn.is_finite() {
        return 1;
    }
    match ((-turn / 90.0).round() as i64).rem_euclid(4) {
        1 => 6,
        2 => 3,
        3 => 8,
        _ => 1,
    }
}
