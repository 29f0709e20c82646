//! Fragmented MP4 (ISO/IEC 14496-12 §8.8) for HLS, DASH and Media Source Extensions: an initialisation segment for a set
//! of tracks, and for each stored fragment one media segment, a movie fragment and its data.
//!
//! A segment's decode times are absolute: the caller says which time its fragment's cluster has on the presentation's time
//! line, so that tracks fetched apart line up and segments follow each other.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::PackagingError;
use crate::boxes::{Put, boxed, brands, full, hdlr, mdhd, media_information, mvhd, patch_u32, stsd, tkhd};
use crate::limits::COPIED_BYTES_MAX;
use crate::timeline::{Sample, units_of_ms};
use crate::track::{MediaKind, TrackConfig};

/// Content type of initialisation and media segments with pictures, and of those with sound alone.
pub const CONTENT_TYPE_VIDEO: &str = "video/mp4";
/// See [`CONTENT_TYPE_VIDEO`].
pub const CONTENT_TYPE_AUDIO: &str = "audio/mp4";

/// Units of a second of the movie header; tracks have their own.
const MOVIE_TIMESCALE: u32 = 1000;

const TFHD_DEFAULT_FLAGS: u32 = 0x20;
const TFHD_DURATION_IS_EMPTY: u32 = 0x01_0000;
const TFHD_BASE_IS_MOOF: u32 = 0x02_0000;
const TRUN_DATA_OFFSET: u32 = 0x1;
const TRUN_DURATION: u32 = 0x100;
const TRUN_SIZE: u32 = 0x200;
const TRUN_FLAGS: u32 = 0x400;
const TRUN_COMPOSITION: u32 = 0x800;

const SAMPLE_IS_SYNC: u32 = 0x0200_0000;
const SAMPLE_IS_NOT_SYNC: u32 = 0x0101_0000;

/// One track's part of a fragment.
#[derive(Clone, Copy, Debug)]
pub struct TrackSamples<'a> {
    /// What it is.
    pub config: &'a TrackConfig,
    /// Its samples, possibly none.
    pub samples: &'a [Sample],
}

/// A segment: its head, and the media behind it as slices of what was read.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pieces: Vec<Bytes>,
    len: u64,
}

impl Segment {
    /// Bytes of the segment.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes in order.
    #[must_use]
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// The bytes as one piece: one more copy.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        if let [one] = self.pieces.as_slice() {
            return one.clone();
        }
        let whole: Vec<u8> = self.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        whole.into()
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len() as u64;
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }
}

/// The initialisation segment of these tracks.
#[must_use]
pub fn init_segment(tracks: &[&TrackConfig]) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    brands(&mut out, b"ftyp", b"iso6", &[b"iso6", b"mp41", b"dash", b"hlsf"]);
    boxed(&mut out, b"moov", |out| {
        let next = tracks
            .iter()
            .map(|track| track.id())
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        mvhd(out, MOVIE_TIMESCALE, 0, next);
        for track in tracks {
            boxed(out, b"trak", |out| {
                tkhd(out, track, 0);
                boxed(out, b"mdia", |out| {
                    mdhd(out, track, 0);
                    hdlr(out, track);
                    boxed(out, b"minf", |out| {
                        media_information(out, track);
                        empty_sample_table(out, track);
                    });
                });
            });
        }
        boxed(out, b"mvex", |out| {
            for track in tracks {
                full(out, b"trex", 0, 0, |out| {
                    [track.id(), 1, 0, 0, 0].iter().for_each(|value| out.u32(*value));
                });
            }
        });
    });
    out.into()
}

fn empty_sample_table(out: &mut Vec<u8>, track: &TrackConfig) {
    boxed(out, b"stbl", |out| {
        stsd(out, track);
        for table in [b"stts", b"stsc"] {
            full(out, table, 0, 0, |out| out.u32(0));
        }
        full(out, b"stsz", 0, 0, |out| out.u64(0));
        full(out, b"stco", 0, 0, |out| out.u32(0));
    });
}

/// The media segment of a fragment. `base_ms` is the time of the fragment's cluster on the presentation's time line;
/// `sequence` counts movie fragments; `payload` is what the samples' ranges mean. A track without samples says so, which
/// players take for a gap.
///
/// # Errors
/// `InvalidFrame` where a sample lies outside the payload.
pub fn media_segment(
    sequence: u32,
    base_ms: i64,
    tracks: &[TrackSamples<'_>],
    payload: &Bytes,
) -> Result<Segment, PackagingError> {
    let samples: usize = tracks.iter().map(|track| track.samples.len()).sum();
    let mut out = Vec::with_capacity(256 * (tracks.len() + 1) + 16 * samples);
    brands(&mut out, b"styp", b"msdh", &[b"msdh", b"msix"]);
    let moof = out.len();
    let mut offsets = Vec::with_capacity(tracks.len());
    boxed(&mut out, b"moof", |out| {
        full(out, b"mfhd", 0, 0, |out| out.u32(sequence));
        for track in tracks {
            boxed(out, b"traf", |out| offsets.push(traf(out, base_ms, track)));
        }
    });
    let mut media = Gather::new(payload);
    let data = out.len() - moof + 8;
    for (track, offset) in tracks.iter().zip(offsets) {
        if let Some(at) = offset {
            patch_u32(&mut out, at, data + media.len);
        }
        for sample in track.samples {
            let inside = media.take(&sample.data);
            inside.ok_or_else(|| outside(track.config, sample))?;
        }
    }
    let size = u32::try_from(media.len + 8).unwrap_or(u32::MAX);
    out.u32(size);
    out.raw(b"mdat");
    let mut segment = Segment::default();
    segment.push(out.into());
    media.finish().into_iter().for_each(|piece| segment.push(piece));
    Ok(segment)
}

fn outside(track: &TrackConfig, sample: &Sample) -> PackagingError {
    PackagingError::InvalidFrame {
        track: track.number(),
        time_ms: sample.decode_time.saturating_mul(1000) / i64::from(track.timescale().max(1)),
        why: "it lies outside of its fragment",
    }
}

/// Returns where the offset of its data must be written.
fn traf(out: &mut Vec<u8>, base_ms: i64, track: &TrackSamples<'_>) -> Option<usize> {
    let (config, samples) = (track.config, track.samples);
    let video = config.kind() == MediaKind::Video;
    let flags = TFHD_BASE_IS_MOOF
        | if samples.is_empty() {
            TFHD_DURATION_IS_EMPTY
        } else {
            TFHD_DEFAULT_FLAGS
        };
    full(out, b"tfhd", 0, flags, |out| {
        out.u32(config.id());
        if !samples.is_empty() {
            out.u32(if video { SAMPLE_IS_NOT_SYNC } else { SAMPLE_IS_SYNC });
        }
    });
    let first = samples.first().map_or(0, |sample| sample.decode_time);
    let start = units_of_ms(base_ms, config.timescale()).saturating_add(first);
    full(out, b"tfdt", 1, 0, |out| out.u64(u64::try_from(start).unwrap_or(0)));
    if samples.is_empty() {
        return None;
    }
    let fields = if video { TRUN_FLAGS | TRUN_COMPOSITION } else { 0 };
    let mut offset = 0;
    full(
        out,
        b"trun",
        1,
        TRUN_DATA_OFFSET | TRUN_DURATION | TRUN_SIZE | fields,
        |out| {
            out.u32(u32::try_from(samples.len()).unwrap_or(u32::MAX));
            offset = out.len();
            out.u32(0);
            for sample in samples {
                out.u32(sample.duration);
                out.u32(u32::try_from(sample.data.len()).unwrap_or(u32::MAX));
                if video {
                    out.u32(if sample.key { SAMPLE_IS_SYNC } else { SAMPLE_IS_NOT_SYNC });
                    out.u32(sample.composition_offset.cast_unsigned());
                }
            }
        },
    );
    Some(offset)
}

/// Collects ranges of a payload: neighbours become one slice, small ones are copied together, large ones are slices.
struct Gather<'a> {
    payload: &'a Bytes,
    pieces: Vec<Bytes>,
    pending: Range<usize>,
    small: BytesMut,
    len: usize,
}

impl<'a> Gather<'a> {
    fn new(payload: &'a Bytes) -> Self {
        Gather {
            payload,
            pieces: Vec::new(),
            pending: 0..0,
            small: BytesMut::new(),
            len: 0,
        }
    }

    fn take(&mut self, range: &Range<usize>) -> Option<()> {
        self.payload.get(range.clone())?;
        self.len += range.len();
        if self.pending.end == range.start {
            self.pending.end = range.end;
        } else {
            self.flush();
            self.pending = range.clone();
        }
        Some(())
    }

    fn flush(&mut self) {
        let range = std::mem::replace(&mut self.pending, 0..0);
        if range.len() <= COPIED_BYTES_MAX {
            self.small
                .extend_from_slice(self.payload.get(range).unwrap_or_default());
            return;
        }
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).freeze());
        }
        self.pieces.push(self.payload.slice(range));
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        if !self.small.is_empty() {
            self.pieces.push(self.small.freeze());
        }
        self.pieces
    }
}
