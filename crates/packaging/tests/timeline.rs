//! Properties of sample times, whatever a producer sends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use bytes::Bytes;
use matroska::{Audio, Track, TrackKind, Video};
use packaging::fmp4::{TrackSamples, media_segment};
use packaging::mp4::Movie;
use packaging::{Frame, TrackConfig, timeline};
use proptest::prelude::*;

/// Parameter sets of x264 for 64x48.
const AVCC: &[u8] = &[
    1, 0x42, 0xC0, 0x0A, 0xFF, 0xE1, 0, 0x17, 0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0,
    3, 3, 0x20, 0xF1, 0x22, 0x64, 0x80, 1, 0, 5, 0x68, 0xCB, 0x83, 0xCB, 0x20,
];

fn video() -> TrackConfig {
    TrackConfig::from_matroska(&track("V_MPEG4/ISO/AVC", AVCC)).unwrap()
}

fn audio() -> TrackConfig {
    TrackConfig::from_matroska(&track("A_AAC", &[0x11, 0x90])).unwrap()
}

fn track(codec_id: &str, private: &[u8]) -> Track {
    let video = codec_id.starts_with('V');
    Track {
        number: if video { 1 } else { 2 },
        uid: 1,
        kind: if video { TrackKind::Video } else { TrackKind::Audio },
        codec_id: codec_id.to_owned(),
        codec_private: Bytes::copy_from_slice(private),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: video.then_some(Video { width: 64, height: 48 }),
        audio: (!video).then_some(Audio {
            sampling_hz: 48_000.0,
            channels: 2,
            bit_depth: None,
        }),
    }
}

fn frames(times: &[i64]) -> Vec<Frame> {
    let placed = times.iter().zip(0_usize..);
    placed
        .map(|(time, n)| Frame {
            data: 10 * n..10 * n + 7,
            time_ms: *time,
            key: n == 0,
        })
        .collect()
}

proptest! {
    #[test]
    fn decode_times_increase_and_durations_fill_them_whatever_is_sent(
        times in prop::collection::vec(-40_000_i64..40_000, 1..80), sound in any::<bool>(), end in prop::option::of(0_i64..60_000)
    ) {
        let config = if sound { audio() } else { video() };
        let samples = timeline::samples(&config, &frames(&times), end);
        prop_assert_eq!(samples.len(), times.len());
        for pair in samples.windows(2) {
            prop_assert_eq!(pair[0].end(), pair[1].decode_time);
            prop_assert!(pair[0].duration > 0);
        }
        if !sound {
            for (sample, time) in samples.iter().zip(&times) {
                let shown = sample.decode_time + i64::from(sample.composition_offset);
                prop_assert_eq!(shown, timeline::units_of_ms(*time, config.timescale()));
            }
        }
    }

    #[test]
    fn a_movie_and_a_segment_are_as_long_as_they_say(
        lists in prop::collection::vec(prop::collection::vec(0_i64..5_000, 1..30), 1..6), gap in 0_i64..100_000
    ) {
        let configs = [video(), audio()];
        let payload = Bytes::from(vec![9; 400]);
        let mut movie = Movie::new(&[&configs[0], &configs[1]]);
        let mut media = 0;
        for (times, n) in lists.iter().zip(0..) {
            let made = [&configs[0], &configs[1]].map(|config| timeline::samples(config, &frames(times), None));
            let tracks = [0, 1].map(|n| TrackSamples { config: &configs[n], samples: &made[n] });
            movie.push(n * gap, &tracks, 0..payload.len()).unwrap();
            media += payload.len() as u64;
            let segment = media_segment(1, n * gap, &tracks, &payload).unwrap();
            prop_assert_eq!(segment.len(), segment.to_bytes().len() as u64);
            prop_assert!(segment.to_bytes().ends_with(&[9; 7]));
        }
        prop_assert_eq!(movie.media_len(), media);
        let head = movie.head();
        let declared = u32::from_be_bytes(head[head.len() - 8..head.len() - 4].try_into().unwrap());
        prop_assert_eq!(u64::from(declared), media + 8);
        prop_assert!(movie.push(0, &[], 0..1).is_ok());
    }
}

#[test]
fn the_last_picture_lasts_as_long_as_the_fragment_says_or_as_the_others_on_average() {
    let config = video();
    let last = |end| {
        timeline::samples(&config, &frames(&[0, 33, 67, 100]), end)
            .last()
            .unwrap()
            .duration
    };
    assert_eq!(last(None), 33 * 30 + 10);
    assert_eq!(last(Some(150)), 50 * 30);
    // An end before the last frame is none.
    assert_eq!(last(Some(90)), 33 * 30 + 10);
}

#[test]
fn sound_goes_on_without_a_gap_while_times_are_only_rounded_and_waits_where_there_is_one() {
    let config = audio();
    let samples = timeline::samples(&config, &frames(&[0, 21, 43, 64, 500]), None);
    assert_eq!(
        samples.iter().map(|sample| sample.decode_time).collect::<Vec<_>>(),
        [0, 1024, 2048, 3072, 24_000]
    );
    assert_eq!(samples[3].duration, 24_000 - 3072);
    assert_eq!(samples[4].duration, 1024);
}
