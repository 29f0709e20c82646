//! From the events of a stream to whole fragments, and which of a fragment's frames are looked at. A fragment counts when it
//! is stored; its frames wait until then, within a bound.

use std::collections::BTreeMap;

use bytes::Bytes;
use storage::FragmentNumber;
use video_streams::consumer::{FragmentEnd, FragmentStart, Frame, Outcome};
use vision::StillPacket;

use super::super::session::{TrackFormat, video_track};
use crate::limits::{LABEL_FRAGMENT_BYTES_MAX, LABEL_FRAGMENTS_OPEN_MAX, LOOK_FRAMES_MAX};

/// A frame of the video track.
pub(crate) struct GatheredFrame {
    pub(crate) offset_ms: f64,
    pub(crate) key: bool,
    pub(crate) data: Bytes,
}

/// A fragment.
pub(crate) struct Gathered {
    pub(crate) number: FragmentNumber,
    pub(crate) server_ms: i64,
    pub(crate) producer_ms: i64,
    /// `None`: there is no video that can be decoded.
    pub(crate) format: Option<TrackFormat>,
    /// In decoding order; without those that are too much.
    pub(crate) frames: Vec<GatheredFrame>,
    /// Frames of the video track, or of all tracks where there is none, and the latest time of one.
    count: u32,
    latest_ms: f64,
    track: Option<u64>,
    frame_ms: Option<f64>,
    bytes: usize,
    /// Frames that were not kept.
    pub(crate) dropped: u32,
}

impl Gathered {
    fn new(start: &FragmentStart) -> Self {
        let track = video_track(&start.tracks);
        let duration = |number: u64| {
            let track = start.tracks.iter().find(|track| track.number == number);
            track.and_then(|track| track.default_duration_ns)
        };
        Gathered {
            number: start.number,
            server_ms: start.server_timestamp.millis(),
            producer_ms: start.producer_timestamp.millis(),
            frames: Vec::new(),
            count: 0,
            latest_ms: 0.0,
            frame_ms: track
                .as_ref()
                .and_then(|(number, _)| duration(*number))
                .map(|nanos| nanos as f64 / 1e6),
            track: track.as_ref().map(|(number, _)| *number),
            format: track.map(|(_, format)| format),
            bytes: 0,
            dropped: 0,
        }
    }

    fn push(&mut self, frame: Frame, keep: Keep) {
        if self.track.is_some_and(|track| track != frame.track) {
            return;
        }
        self.count = self.count.saturating_add(1);
        self.latest_ms = self.latest_ms.max(frame.offset_ms);
        if self.track.is_none() || keep == Keep::Time {
            return;
        }
        // What follows a frame that is missing cannot be decoded either.
        if self.dropped > 0 || self.bytes + frame.data.len() > LABEL_FRAGMENT_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.bytes += frame.data.len();
        self.frames.push(GatheredFrame {
            offset_ms: frame.offset_ms,
            key: frame.key,
            data: frame.data,
        });
    }

    /// How long it lasts, as its frames say: the last one as long as the others in the mean. `None` for a single frame
    /// without a duration.
    pub(crate) fn lasted_ms(&self) -> Option<i64> {
        let last_ms = match self.count {
            0 | 1 => self.frame_ms?,
            count => self.latest_ms / f64::from(count - 1),
        };
        Some((self.latest_ms + last_ms).round() as i64)
    }

    /// The packets that are needed for some frames: from the first key frame to the last of them; or the frames alone, where
    /// each is a key frame.
    pub(crate) fn packets(&self, wanted: &[usize]) -> Vec<StillPacket> {
        let keys_only = wanted
            .iter()
            .all(|index| self.frames.get(*index).is_some_and(|frame| frame.key));
        let first_wanted = wanted.iter().min().copied().unwrap_or(0);
        let before = self.frames.iter().take(first_wanted + 1);
        let first = before.enumerate().rev().find(|(_, frame)| frame.key);
        let first = first.map_or(0, |(index, _)| index);
        let last = wanted.iter().max().map_or(0, |last| last + 1);
        let packet = |(index, frame): (usize, &GatheredFrame)| {
            let is_wanted = wanted.contains(&index);
            (is_wanted || !keys_only).then(|| StillPacket {
                data: frame.data.clone(),
                fresh: keys_only || index == first,
                wanted: is_wanted,
            })
        };
        let needed = self.frames.iter().enumerate().take(last).skip(first);
        needed.filter_map(packet).collect()
    }
}

/// What of a frame is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Its bytes too.
    Picture,
    /// When it is shown: nothing is looked for any more.
    Time,
}

/// Fragments that arrive.
#[derive(Default)]
pub(crate) struct Gatherer {
    open: BTreeMap<FragmentNumber, Gathered>,
}

impl Gatherer {
    pub(crate) fn start(&mut self, start: &FragmentStart) {
        self.open.insert(start.number, Gathered::new(start));
        while self.open.len() > LABEL_FRAGMENTS_OPEN_MAX {
            self.open.pop_first();
        }
    }

    pub(crate) fn frame(&mut self, frame: Frame, keep: Keep) {
        if let Some(fragment) = self.open.get_mut(&frame.fragment) {
            fragment.push(frame, keep);
        }
    }

    /// The fragment that has ended, if it was stored.
    pub(crate) fn end(&mut self, end: FragmentEnd) -> Option<Gathered> {
        let fragment = self.open.remove(&end.number);
        fragment.filter(|_| end.outcome != Outcome::Rejected)
    }
}

/// Chooses frames evenly over video time, from fragment to fragment.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    interval_ms: f64,
    keys_only: bool,
    due_ms: Option<f64>,
}

impl Sampler {
    /// At most so many frames a second.
    pub(crate) fn new(rate: f32, keys_only: bool) -> Self {
        Sampler {
            interval_ms: 1000.0 / f64::from(rate),
            keys_only,
            due_ms: None,
        }
    }

    /// Frames to look at, in decoding order. None before the first key frame.
    pub(crate) fn choose(&mut self, fragment: &Gathered) -> Vec<usize> {
        let decodable = fragment.frames.iter().enumerate().skip_while(|(_, frame)| !frame.key);
        let candidates = decodable.filter(|(_, frame)| frame.key || !self.keys_only);
        let mut in_time: Vec<(usize, f64)> = candidates.map(|(index, frame)| (index, frame.offset_ms)).collect();
        in_time.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut chosen: Vec<usize> = Vec::new();
        for (index, offset_ms) in in_time {
            if self.is_due(fragment.producer_ms as f64 + offset_ms) {
                chosen.push(index);
            }
        }
        // More than one question may ask for is thinned out evenly.
        let step = chosen.len().div_ceil(LOOK_FRAMES_MAX).max(1);
        let mut chosen: Vec<usize> = chosen.into_iter().step_by(step).collect();
        chosen.sort_unstable();
        chosen
    }

    /// Keeps to the rate; a jump of the time begins anew.
    fn is_due(&mut self, time_ms: f64) -> bool {
        let due = self.due_ms.unwrap_or(time_ms);
        // Frame times are rounded to milliseconds.
        if time_ms + 1.0 < due && due - time_ms <= 2.0 * self.interval_ms {
            return false;
        }
        let on_time = (time_ms - due).abs() < self.interval_ms;
        self.due_ms = Some(if on_time { due } else { time_ms } + self.interval_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use vision::Codec;

    use super::*;

    /// A fragment of frames so many milliseconds apart, `k` for a key frame.
    fn fragment(producer_ms: i64, apart_ms: f64, kinds: &str) -> Gathered {
        let frame = |(index, kind): (usize, char)| GatheredFrame {
            offset_ms: index as f64 * apart_ms,
            key: kind == 'k',
            data: Bytes::from(vec![index as u8]),
        };
        let frames: Vec<_> = kinds.chars().enumerate().map(frame).collect();
        Gathered {
            number: FragmentNumber::new(1, 1, 1),
            server_ms: 0,
            producer_ms,
            format: Some(TrackFormat {
                codec: Codec::H264,
                codec_private: Bytes::new(),
            }),
            count: frames.len() as u32,
            latest_ms: frames.last().map_or(0.0, |last| last.offset_ms),
            track: Some(1),
            frame_ms: None,
            bytes: 0,
            dropped: 0,
            frames,
        }
    }

    fn shown(packets: &[StillPacket]) -> String {
        let one = |packet: &StillPacket| {
            let fresh = if packet.fresh { "!" } else { "" };
            let wanted = if packet.wanted { "?" } else { "" };
            format!("{fresh}{}{wanted}", packet.data[0])
        };
        packets.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn frames_are_chosen_by_rate_across_fragments() {
        let mut twice = Sampler::new(2.0, false);
        assert_eq!(twice.choose(&fragment(0, 100.0, "kppppppppp")), [0, 5]);
        // The next fragment begins 100 ms before its point.
        assert_eq!(twice.choose(&fragment(900, 100.0, "kppppppppp")), [1, 6]);
        // Before the first key frame nothing can be decoded.
        assert_eq!(twice.choose(&fragment(1_900, 100.0, "ppkppppppp")), [2, 6]);
        // The producer's clock was set back.
        assert_eq!(twice.choose(&fragment(0, 100.0, "kppp")), [0]);
        let mut keys = Sampler::new(2.0, true);
        assert_eq!(keys.choose(&fragment(0, 100.0, "kpppppkppkp")), [0, 6]);
        let mut all = Sampler::new(1000.0, false);
        let many = all.choose(&fragment(0, 10.0, &format!("k{}", "p".repeat(299))));
        assert_eq!((many.len(), many[0], many[1]), (60, 0, 5));
    }

    #[test]
    fn packets_begin_with_the_key_frame_that_is_needed() {
        let film = fragment(0, 100.0, "kppkppp");
        assert_eq!(shown(&film.packets(&[1, 5])), "!0 1? 2 3 4 5?");
        assert_eq!(shown(&film.packets(&[5])), "!3 4 5?");
        assert_eq!(shown(&film.packets(&[0, 3])), "!0? !3?");
        assert_eq!(shown(&film.packets(&[3])), "!3?");
    }

    #[test]
    fn a_fragment_lasts_as_long_as_its_frames() {
        assert_eq!(fragment(0, 100.0, "kppppppppp").lasted_ms(), Some(1_000));
        let mut single = fragment(0, 100.0, "k");
        assert_eq!(single.lasted_ms(), None);
        single.frame_ms = Some(40.0);
        assert_eq!(single.lasted_ms(), Some(40));
    }
}
