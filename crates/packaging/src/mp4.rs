//! Plain MP4: every header first, then one `mdat`; or the headers last, where a film is written before its end is known. The headers need the places and times of all samples and none of their
//! bytes, so that a clip's size is known before its media is read, and its media can be streamed.
//!
//! What stands in `mdat` for a fragment is a piece of the fragment's payload as it is, from its first frame to its last:
//! the few bytes of Matroska between frames stay where they are, and chunk offsets lead past them. So media is sent as it
//! was read, without a copy. (Copying frames together would save about seven bytes a frame.)
//!
//! Time. The caller says which time each fragment's cluster has. Within a track samples follow each other: the last one of
//! a fragment lasts until the first one of the next, so that a gap between fragments shows the last picture for as long
//! as the gap was. Tracks that begin later than others are delayed by an edit list.

use std::ops::Range;

use bytes::Bytes;

use crate::boxes::{Put, boxed, brands, full, hdlr, mdhd, media_information, mvhd, stsd, tkhd};
use crate::fmp4::TrackSamples;
use crate::limits::{AUDIO_JITTER_MS, VIDEO_TIMESCALE};
use crate::timeline::units_of_ms;
use crate::track::{MediaKind, TrackConfig};

/// Content type.
pub const CONTENT_TYPE: &str = "video/mp4";

/// Units of a second of the movie header and of edit lists.
const MOVIE_TIMESCALE: u32 = VIDEO_TIMESCALE;

/// Gathers samples, fragment by fragment; then writes the headers. Memory: about 16 bytes a sample.
#[derive(Clone, Debug)]
pub struct Movie {
    tracks: Vec<Table>,
    media_len: u64,
}

/// A fragment's samples are not those of the movie's tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sample of a fragment is of no track of the movie, or lies outside of the piece that is sent")]
pub struct ForeignSample;

/// The tables of one track.
#[derive(Clone, Debug)]
struct Table {
    config: TrackConfig,
    /// Decode time of the first sample on the movie's time line, in units of the track.
    start: Option<i64>,
    /// Decode time and duration of the last sample, which is not in `durations` yet.
    last: Option<(i64, u32)>,
    durations: Runs<u32>,
    compositions: Runs<i32>,
    sizes: Vec<u32>,
    /// Offsets in the media.
    offsets: Vec<u64>,
    keys: Vec<u32>,
}

/// Equal neighbours, counted.
#[derive(Clone, Debug)]
struct Runs<T>(Vec<(u32, T)>);

impl<T: PartialEq> Runs<T> {
    fn push(&mut self, value: T) {
        match self.0.last_mut() {
            Some((count, last)) if *last == value && *count < u32::MAX => *count += 1,
            _ => self.0.push((1, value)),
        }
    }
}

impl Movie {
    /// A movie of these tracks, empty.
    #[must_use]
    pub fn new(tracks: &[&TrackConfig]) -> Self {
        let table = |config: &&TrackConfig| Table {
            config: (*config).clone(),
            start: None,
            last: None,
            durations: Runs(Vec::new()),
            compositions: Runs(Vec::new()),
            sizes: Vec::new(),
            offsets: Vec::new(),
            keys: Vec::new(),
        };
        Movie {
            tracks: tracks.iter().map(table).collect(),
            media_len: 0,
        }
    }

    /// Adds a fragment. `base_ms` is its cluster's time on the movie's time line; `piece` is the part of its payload that
    /// will be sent, which holds all its samples. Fragments come in the order of their media.
    ///
    /// # Errors
    /// The movie is then not to be used.
    pub fn push(
        &mut self,
        base_ms: i64,
        fragment: &[TrackSamples<'_>],
        piece: Range<usize>,
    ) -> Result<(), ForeignSample> {
        for part in fragment {
            let number = part.config.number();
            let table = self.tracks.iter_mut().find(|table| table.config.number() == number);
            let table = table.ok_or(ForeignSample)?;
            table.push(base_ms, part, &piece, self.media_len)?;
        }
        self.media_len += piece.len() as u64;
        Ok(())
    }

    /// Samples of all tracks.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.tracks.iter().map(|table| table.sizes.len()).sum()
    }

    /// Bytes of media that follow the head.
    #[must_use]
    pub fn media_len(&self) -> u64 {
        self.media_len
    }

    /// Everything in front of the media: ftyp, moov and the head of mdat. The file is this and the pieces in order.
    #[must_use]
    pub fn head(&self) -> Bytes {
        // The sizes of tables do not depend on the offsets in them, so that a first writing tells where media begins.
        let wide = self.media_len + 64 * self.samples() as u64 + (1 << 20) > u64::from(u32::MAX);
        let len = self.write(0, wide).len();
        self.write(len as u64, wide).into()
    }

    fn write(&self, media_at: u64, wide: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096 + 16 * self.samples());
        brands(&mut out, b"ftyp", b"isom", BRANDS);
        self.moov(&mut out, media_at, wide);
        if wide {
            out.u32(1);
            out.raw(b"mdat");
            out.u64(self.media_len + 16);
        } else {
            out.u32(u32::try_from(self.media_len + 8).unwrap_or(u32::MAX));
            out.raw(b"mdat");
        }
        out
    }

    fn moov(&self, out: &mut Vec<u8>, media_at: u64, wide: bool) {
        let filled: Vec<&Table> = self.tracks.iter().filter(|table| !table.sizes.is_empty()).collect();
        let origin = filled.iter().map(|table| table.start_in_movie()).min().unwrap_or(0);
        boxed(out, b"moov", |out| {
            let duration = filled.iter().map(|table| table.delay(origin) + table.shown()).max();
            let next = filled
                .iter()
                .map(|table| table.config.id())
                .max()
                .unwrap_or(0)
                .saturating_add(1);
            mvhd(out, MOVIE_TIMESCALE, duration.unwrap_or(0), next);
            filled.iter().for_each(|table| table.trak(out, origin, media_at, wide));
        });
    }

    /// What stands before the media of a movie that is written before its end is known: ftyp and the head of mdat, which
    /// has no size yet. The file is this, the pieces in order, and the [`tail`](Self::tail).
    #[must_use]
    pub fn open_head() -> Bytes {
        let mut out = Vec::with_capacity(64);
        brands(&mut out, b"ftyp", b"isom", BRANDS);
        out.u32(1);
        out.raw(b"mdat");
        out.u64(16);
        out.into()
    }

    /// What follows the media of such a movie, and the eight bytes that its [`open_head`](Self::open_head) must end with.
    #[must_use]
    pub fn tail(&self) -> (Bytes, [u8; 8]) {
        let mut out = Vec::with_capacity(4096 + 24 * self.samples());
        let media_at = Self::open_head().len() as u64;
        let wide = media_at + self.media_len > u64::from(u32::MAX);
        self.moov(&mut out, media_at, wide);
        (out.into(), (self.media_len + 16).to_be_bytes())
    }
}

/// The brands of ftyp.
const BRANDS: &[&[u8; 4]] = &[b"isom", b"iso4", b"mp41"];

impl Table {
    fn push(
        &mut self,
        base_ms: i64,
        part: &TrackSamples<'_>,
        piece: &Range<usize>,
        media_len: u64,
    ) -> Result<(), ForeignSample> {
        let scale = self.config.timescale();
        let base = units_of_ms(base_ms, scale);
        let jitter = match self.config.kind() {
            MediaKind::Audio => units_of_ms(AUDIO_JITTER_MS, scale),
            MediaKind::Video => 0,
        };
        // Sound that follows within the rounding of the producer's times goes on without a gap.
        let mut shift = 0;
        if let (Some((decoded, lasts)), Some(first)) = (self.last, part.samples.first()) {
            let follows = decoded + i64::from(lasts);
            let told = base.saturating_add(first.decode_time);
            if told.saturating_sub(follows).abs() <= jitter {
                shift = follows.saturating_sub(told);
            }
        }
        for sample in part.samples {
            let offset = sample.data.start.checked_sub(piece.start).ok_or(ForeignSample)?;
            if sample.data.end > piece.end {
                return Err(ForeignSample);
            }
            let told = base.saturating_add(sample.decode_time).saturating_add(shift);
            let shown = told.saturating_add(i64::from(sample.composition_offset));
            let mut decoded = told;
            if let Some((before, _)) = self.last {
                decoded = told.max(before.saturating_add(1));
                let lasts = u32::try_from(decoded - before).unwrap_or(u32::MAX);
                self.durations.push(lasts);
            }
            self.start.get_or_insert(decoded);
            self.last = Some((decoded, sample.duration));
            let offset_shown = shown.saturating_sub(decoded);
            self.compositions
                .push(i32::try_from(offset_shown).unwrap_or(if offset_shown < 0 { i32::MIN } else { i32::MAX }));
            self.sizes
                .push(u32::try_from(sample.data.len()).map_err(|_| ForeignSample)?);
            self.offsets.push(media_len + offset as u64);
            if sample.key {
                self.keys
                    .push(u32::try_from(self.sizes.len()).map_err(|_| ForeignSample)?);
            }
        }
        Ok(())
    }

    /// Units of the track in units of the movie.
    fn in_movie(&self, units: i64) -> i64 {
        let scaled = i128::from(units) * i128::from(MOVIE_TIMESCALE);
        i64::try_from(scaled / i128::from(self.config.timescale().max(1))).unwrap_or(i64::MAX)
    }

    fn start_in_movie(&self) -> i64 {
        self.in_movie(self.start.unwrap_or(0))
    }

    fn delay(&self, origin: i64) -> u64 {
        u64::try_from(self.start_in_movie().saturating_sub(origin)).unwrap_or(0)
    }

    /// Duration in units of the track.
    fn duration(&self) -> u64 {
        let end = self.last.map_or(0, |(decoded, lasts)| decoded + i64::from(lasts));
        u64::try_from(end.saturating_sub(self.start.unwrap_or(0))).unwrap_or(0)
    }

    /// Duration in units of the movie.
    fn shown(&self) -> u64 {
        let duration = i64::try_from(self.duration()).unwrap_or(i64::MAX);
        u64::try_from(self.in_movie(duration)).unwrap_or(0)
    }

    fn trak(&self, out: &mut Vec<u8>, origin: i64, media_at: u64, wide: bool) {
        let (config, delay) = (&self.config, self.delay(origin));
        boxed(out, b"trak", |out| {
            tkhd(out, config, delay + self.shown());
            if delay > 0 {
                boxed(out, b"edts", |out| self.edit_list(out, delay));
            }
            boxed(out, b"mdia", |out| {
                mdhd(out, config, self.duration());
                hdlr(out, config);
                boxed(out, b"minf", |out| {
                    media_information(out, config);
                    boxed(out, b"stbl", |out| self.sample_table(out, media_at, wide));
                });
            });
        });
    }

    /// Nothing for as long as the delay, then all of the media.
    fn edit_list(&self, out: &mut Vec<u8>, delay: u64) {
        full(out, b"elst", 1, 0, |out| {
            out.u32(2);
            for (duration, media_time) in [(delay, u64::MAX), (self.shown(), 0)] {
                out.u64(duration);
                out.u64(media_time);
                out.u32(0x1_0000);
            }
        });
    }

    fn sample_table(&self, out: &mut Vec<u8>, media_at: u64, wide: bool) {
        let count = u32::try_from(self.sizes.len()).unwrap_or(u32::MAX);
        stsd(out, &self.config);
        let mut durations = self.durations.clone();
        durations.push(self.last.map_or(1, |(_, lasts)| lasts));
        full(out, b"stts", 0, 0, |out| {
            table(out, durations.0.len());
            for (count, duration) in &durations.0 {
                out.u32(*count);
                out.u32(*duration);
            }
        });
        if self.compositions.0.iter().any(|(_, offset)| *offset != 0) {
            full(out, b"ctts", 1, 0, |out| {
                table(out, self.compositions.0.len());
                for (count, offset) in &self.compositions.0 {
                    out.u32(*count);
                    out.u32(offset.cast_unsigned());
                }
            });
        }
        if self.keys.len() < self.sizes.len() {
            full(out, b"stss", 0, 0, |out| {
                table(out, self.keys.len());
                self.keys.iter().for_each(|number| out.u32(*number));
            });
        }
        // One sample a chunk.
        full(out, b"stsc", 0, 0, |out| {
            [1, 1, 1, 1].iter().for_each(|value| out.u32(*value));
        });
        full(out, b"stsz", 0, 0, |out| {
            out.u32(0);
            out.u32(count);
            self.sizes.iter().for_each(|size| out.u32(*size));
        });
        full(out, if wide { b"co64" } else { b"stco" }, 0, 0, |out| {
            out.u32(count);
            for offset in self.offsets.iter().map(|offset| media_at + offset) {
                match wide {
                    true => out.u64(offset),
                    false => out.u32(u32::try_from(offset).unwrap_or(u32::MAX)),
                }
            }
        });
    }
}

fn table(out: &mut Vec<u8>, entries: usize) {
    out.u32(u32::try_from(entries).unwrap_or(u32::MAX));
}
