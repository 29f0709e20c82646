//! Decode times, durations and composition offsets out of presentation times in milliseconds.
//!
//! Video. Frames come in decoding order; the decode time of the n-th is the n-th smallest presentation time of its
//! fragment, so that decode times span the fragment's own time and go on in the next one; the composition offset is the
//! difference, and may be negative. A frame lasts until the decode time of the next one. The last one of a fragment lasts
//! as ingest counted it for the fragment's length (FragmentLengthInMilliseconds, EXTINF): the track's default duration,
//! else the mean distance of the fragment's frames. Where the track is alone in its fragment it ends with the fragment.
//!
//! Sound. A frame lasts as long as it has samples. It stands right behind the frame before it, unless its presentation
//! time differs from that by more than [`AUDIO_JITTER_MS`]: then it stands at its presentation time, and the frame before
//! it lasts until there.
//!
//! Decode times strictly increase within a fragment whatever the producer sent.

use std::ops::Range;

use crate::limits::AUDIO_JITTER_MS;
use crate::track::{MediaKind, TrackConfig};

/// A frame as the index of a fragment has it, in decoding order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where its bytes lie in the fragment's payload.
    pub data: Range<usize>,
    /// Presentation time from the cluster's timecode, in milliseconds.
    pub time_ms: i64,
    /// Flagged as decodable alone.
    pub key: bool,
}

/// A frame as a player gets it. Times are in units of the track's timescale and count from the cluster's timecode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where its bytes lie in the fragment's payload.
    pub data: Range<usize>,
    /// When it is decoded; may be negative where pictures before the cluster's time belong to it.
    pub decode_time: i64,
    /// How much later it is shown.
    pub composition_offset: i32,
    /// Until the next one; at least 1.
    pub duration: u32,
    /// Decodable alone. True for all sound.
    pub key: bool,
}

impl Sample {
    /// When the next one is decoded.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.decode_time + i64::from(self.duration)
    }
}

/// Milliseconds in units of a timescale, to the nearest.
#[must_use]
pub fn units_of_ms(ms: i64, timescale: u32) -> i64 {
    let units = (i128::from(ms) * i128::from(timescale) + 500).div_euclid(1000);
    i64::try_from(units).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

/// The samples of one track of a fragment. `ends_at_ms` is where the fragment ends, given where the track is alone in it.
#[must_use]
pub fn samples(track: &TrackConfig, frames: &[Frame], ends_at_ms: Option<i64>) -> Vec<Sample> {
    match track.kind() {
        MediaKind::Video => video(track, frames, ends_at_ms),
        MediaKind::Audio => audio(track, frames),
    }
}

fn video(track: &TrackConfig, frames: &[Frame], ends_at_ms: Option<i64>) -> Vec<Sample> {
    let scale = track.timescale();
    let mut sorted: Vec<i64> = frames.iter().map(|frame| units_of_ms(frame.time_ms, scale)).collect();
    let presentation = sorted.clone();
    sorted.sort_unstable();
    let (first, last) = (sorted.first().copied(), sorted.last().copied());
    let mut free = i64::MIN;
    for time in &mut sorted {
        *time = (*time).max(free);
        free = time.saturating_add(1);
    }
    let declared = track.default_duration_ns().map(|nanos| {
        let units = u128::from(nanos) * u128::from(scale) / 1_000_000_000;
        i64::try_from(units).unwrap_or(i64::MAX)
    });
    let steps = i64::try_from(frames.len()).unwrap_or(i64::MAX).saturating_sub(1);
    let mean = last.unwrap_or(0).saturating_sub(first.unwrap_or(0)).checked_div(steps);
    let rule = last.unwrap_or(0).saturating_add(declared.or(mean).unwrap_or(0));
    let end = ends_at_ms.map_or(rule, |ms| units_of_ms(ms, scale));
    let end = if end > last.unwrap_or(0) { end } else { rule };
    let ends = sorted.iter().skip(1).copied().chain([end.max(free)]);
    let times = presentation.into_iter().zip(sorted.iter().zip(ends));
    let made = frames
        .iter()
        .zip(times)
        .map(|(frame, (shown, (&decoded, end)))| Sample {
            data: frame.data.clone(),
            decode_time: decoded,
            composition_offset: clamp(shown.saturating_sub(decoded)),
            duration: duration(end.saturating_sub(decoded)),
            key: frame.key,
        });
    made.collect()
}

fn audio(track: &TrackConfig, frames: &[Frame]) -> Vec<Sample> {
    let scale = track.timescale();
    let jitter = units_of_ms(AUDIO_JITTER_MS, scale);
    let mut samples: Vec<Sample> = Vec::with_capacity(frames.len());
    for frame in frames {
        let told = units_of_ms(frame.time_ms, scale);
        let mut decode_time = told;
        if let Some(before) = samples.last_mut() {
            let follows = before.end();
            if told.saturating_sub(follows).abs() <= jitter {
                decode_time = follows;
            } else {
                decode_time = told.max(before.decode_time.saturating_add(1));
                before.duration = duration(decode_time.saturating_sub(before.decode_time));
            }
        }
        samples.push(Sample {
            data: frame.data.clone(),
            decode_time,
            composition_offset: 0,
            duration: track.audio_frame_duration(frame.data.len()).unwrap_or(1).max(1),
            key: true,
        });
    }
    samples
}

fn duration(units: i64) -> u32 {
    u32::try_from(units.max(1)).unwrap_or(u32::MAX)
}

fn clamp(units: i64) -> i32 {
    i32::try_from(units).unwrap_or(if units < 0 { i32::MIN } else { i32::MAX })
}
