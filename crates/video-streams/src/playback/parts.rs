//! Cuts one track of a fragment into the parts of a low-latency playlist while the fragment arrives. Pure.
//!
//! The parts together hold exactly the samples of the segment that the fragment becomes when it is stored: same bytes, same
//! times. A part ends when one more frame, which is expected to last as long as the one before it, would make it longer
//! than the target; how long its last frame lasts is known when the next frame is here. Pictures that come in another order than they are shown cannot be cut this way, since their
//! decode times depend on pictures that have not come yet: such a fragment is not shown in parts.

use bytes::{Bytes, BytesMut};
use matroska::Track;
use packaging::fmp4::{self, TrackSamples};
use packaging::frame::{AdtsHead, has_whole_units, put_annex_b_as_lengths};
use packaging::{Frame, Framing, MediaKind, Sample, TrackConfig, timeline};

/// A part, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// A movie fragment and its data.
    pub bytes: Bytes,
    /// Milliseconds.
    pub duration_ms: u32,
    /// Whether it begins with a frame that can be decoded alone.
    pub independent: bool,
}

/// The fragment cannot be shown in parts, or no further ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotInParts;

/// One track of a fragment that is arriving.
#[derive(Debug)]
pub struct TrackParts {
    track: Track,
    /// Time of the fragment's cluster, milliseconds.
    base_ms: i64,
    /// Longest part, milliseconds.
    part_ms: i64,
    config: Option<TrackConfig>,
    /// All frames so far; their ranges count from the fragment's first byte of this track.
    frames: Vec<Frame>,
    /// Frames that are in parts, and their bytes.
    cut: usize,
    cut_bytes: usize,
    /// The bytes of the other frames.
    rest: BytesMut,
    parts: Vec<Part>,
}

impl TrackParts {
    /// A track of a fragment whose cluster has this time.
    pub fn new(track: Track, base_ms: i64, part_ms: u16) -> Self {
        TrackParts {
            track,
            base_ms,
            part_ms: i64::from(part_ms),
            config: None,
            frames: Vec::new(),
            cut: 0,
            cut_bytes: 0,
            rest: BytesMut::new(),
            parts: Vec::new(),
        }
    }

    /// Number by which blocks name it.
    pub fn number(&self) -> u64 {
        self.track.number
    }

    /// The parts so far.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        let parts: usize = self.parts.iter().map(|part| part.bytes.len()).sum();
        parts + self.rest.len()
    }

    /// Takes the next frame, in the order in which it was sent. `time_ms` counts from the cluster's time.
    pub fn push(&mut self, time_ms: i64, key: bool, data: &[u8]) -> Result<(), NotInParts> {
        let config = match self.config.take() {
            Some(config) => config,
            None => TrackConfig::from_frame(&self.track, data).map_err(|_| NotInParts)?,
        };
        let start = self.cut_bytes + self.rest.len();
        append(&mut self.rest, &config, data)?;
        let before = self.frames.last().map_or(time_ms, |before| before.time_ms);
        if time_ms < before && config.kind() == MediaKind::Video {
            return Err(NotInParts);
        }
        let upto = self.frames.len();
        self.frames.push(Frame {
            data: start..self.cut_bytes + self.rest.len(),
            time_ms,
            key,
        });
        // Longer than was expected of its last frame, which then goes into the next part.
        if upto > self.cut + 1 && self.open_ms(time_ms) > self.part_ms {
            self.cut(&config, upto - 1)?;
        }
        let lasts = time_ms.saturating_sub(before).max(0);
        if upto > self.cut && self.open_ms(time_ms).saturating_add(lasts) > self.part_ms {
            self.cut(&config, upto)?;
        }
        self.config = Some(config);
        Ok(())
    }

    /// The fragment has ended: the frames that are left are its last part.
    pub fn finish(&mut self) -> Result<(), NotInParts> {
        let Some(config) = self.config.take() else {
            return Ok(());
        };
        let whole = self.frames.len();
        let end = timeline::samples(&config, &self.frames, None)
            .last()
            .map_or(0, Sample::end);
        if whole > self.cut + 1 && self.open_ms(millis(end, &config)) > self.part_ms {
            self.cut(&config, whole - 1)?;
        }
        self.cut(&config, whole)
    }

    /// How long the open part is when it ends at this time.
    fn open_ms(&self, time_ms: i64) -> i64 {
        let first = self.frames.get(self.cut);
        first.map_or(0, |first| time_ms.saturating_sub(first.time_ms))
    }

    /// Makes a part of the frames up to that one.
    fn cut(&mut self, config: &TrackConfig, upto: usize) -> Result<(), NotInParts> {
        let samples = timeline::samples(config, &self.frames, None);
        let samples = samples.get(self.cut..upto).unwrap_or_default();
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Ok(());
        };
        let taken = last.data.end.saturating_sub(self.cut_bytes).min(self.rest.len());
        let payload = self.rest.split_to(taken).freeze();
        let moved: Vec<Sample> = samples.iter().map(|sample| moved(sample, self.cut_bytes)).collect();
        let track = TrackSamples {
            config,
            samples: &moved,
        };
        let sequence = u32::try_from(self.parts.len() + 1).unwrap_or(u32::MAX);
        let segment = fmp4::media_segment(sequence, self.base_ms, &[track], &payload).map_err(|_| NotInParts)?;
        let (start_ms, end_ms) = (millis(first.decode_time, config), millis(last.end(), config));
        self.parts.push(Part {
            bytes: segment.to_bytes(),
            duration_ms: u32::try_from(end_ms.saturating_sub(start_ms)).unwrap_or(0).max(1),
            independent: first.key,
        });
        self.cut_bytes += taken;
        self.cut = upto;
        Ok(())
    }
}

/// Appends a frame as it stands in a segment.
fn append(out: &mut BytesMut, config: &TrackConfig, data: &[u8]) -> Result<(), NotInParts> {
    match config.framing() {
        Framing::AnnexB => put_annex_b_as_lengths(out, data).map(|_| ()).ok_or(NotInParts)?,
        Framing::Adts => {
            let head = AdtsHead::parse(data).ok_or(NotInParts)?;
            out.extend_from_slice(data.get(head.head_len..).ok_or(NotInParts)?);
        }
        Framing::Plain if config.nal_length_size() > 0 && !has_whole_units(data, config.nal_length_size()) => {
            return Err(NotInParts);
        }
        Framing::Plain => out.extend_from_slice(data),
    }
    Ok(())
}

fn moved(sample: &Sample, by: usize) -> Sample {
    Sample {
        data: sample.data.start.saturating_sub(by)..sample.data.end.saturating_sub(by),
        ..sample.clone()
    }
}

/// Units of the track's timescale in milliseconds, to the nearest.
fn millis(units: i64, config: &TrackConfig) -> i64 {
    let scale = i64::from(config.timescale().max(1));
    units.saturating_mul(1000).saturating_add(scale / 2).div_euclid(scale)
}

#[cfg(test)]
mod tests;
