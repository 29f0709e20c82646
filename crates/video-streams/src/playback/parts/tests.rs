//! Parts against the segment that the same frames make when they are stored.

use matroska::{Audio, TrackKind};
use proptest::prelude::*;

use super::*;

/// Parameter sets of 64x48 behind start codes.
const SETS: &[u8] = &[
    0, 0, 0, 1, 0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 3, 0x20, 0xF1, 0x22, 0x64,
    0x80, 0, 0, 0, 1, 0x68, 0xCB, 0x83, 0xCB, 0x20,
];
const BASE_MS: i64 = 1_700_000_000_123;

fn video() -> Track {
    Track {
        codec_private: Bytes::new(),
        ..crate::testing::track(1)
    }
}

fn sound() -> Track {
    Track {
        kind: TrackKind::Audio,
        codec_id: "A_AAC".to_owned(),
        codec_private: Bytes::from_static(&[0x14, 0x08]),
        video: None,
        audio: Some(Audio {
            sampling_hz: 16_000.0,
            channels: 1,
            bit_depth: None,
        }),
        ..crate::testing::track(2)
    }
}

/// A frame behind a start code, the first one with parameter sets.
fn picture(index: usize, size: usize) -> Vec<u8> {
    let (sets, head) = if index == 0 { (SETS, 0x65) } else { (&[][..], 0x41) };
    let body = [&[0, 0, 0, 1, head][..], &vec![index as u8 | 1; size.max(1)]].concat();
    [sets, &body].concat()
}

fn parts(track: Track, part_ms: u16, frames: &[(i64, Vec<u8>)]) -> Result<Vec<Part>, NotInParts> {
    let mut cutter = TrackParts::new(track, BASE_MS, part_ms);
    for (index, (time, data)) in frames.iter().enumerate() {
        cutter.push(*time, index == 0, data)?;
    }
    cutter.finish()?;
    assert_eq!(
        cutter.held(),
        cutter.parts().iter().map(|part| part.bytes.len()).sum::<usize>()
    );
    Ok(cutter.parts().to_vec())
}

/// What is behind a box's name, which is written only once in what is looked at.
fn after<'a>(segment: &'a [u8], name: &[u8; 4]) -> &'a [u8] {
    let at = segment.windows(4).position(|four| four == name).unwrap();
    &segment[at + 4..]
}

/// Decode time of a segment's first sample and its samples' (duration, size), and the media itself.
fn read(segment: &[u8]) -> (u64, Vec<(u32, u32)>, Vec<u8>) {
    let u32_at = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let start = u64::from_be_bytes(after(segment, b"tfdt")[4..12].try_into().unwrap());
    let run = after(segment, b"trun");
    let (flags, count) = (u32_at(run, 0) & 0xFF_FFFF, u32_at(run, 4) as usize);
    let width = if flags & 0x400 != 0 { 16 } else { 8 };
    let samples = (0..count).map(|n| (u32_at(run, 12 + n * width), u32_at(run, 16 + n * width)));
    (start, samples.collect(), after(segment, b"mdat").to_vec())
}

proptest! {
    #[test]
    fn parts_together_are_the_segment(
        steps in prop::collection::vec((15..90_i64, 1..400_usize), 1..60), part_ms in 100..400_u16, with_pictures: bool
    ) {
        let mut time = 0;
        let frames: Vec<_> = steps.iter().enumerate().map(|(index, (step, size))| {
            let data = if with_pictures { picture(index, *size) } else { vec![index as u8; *size] };
            let at = time;
            time += if with_pictures { *step } else { 64 };
            (at, data)
        }).collect();
        let track = if with_pictures { video() } else { sound() };
        let whole = parts(track.clone(), u16::MAX, &frames).unwrap();
        prop_assert_eq!(whole.len(), 1);
        let (start, samples, media) = read(&whole[0].bytes);
        let cut = parts(track, part_ms, &frames).unwrap();
        let (mut at, mut all, mut bytes) = (start, Vec::new(), Vec::new());
        for part in &cut {
            let (start, samples, media) = read(&part.bytes);
            prop_assert_eq!(start, at, "a part begins where the one before it ends");
            at += samples.iter().map(|(duration, _)| u64::from(*duration)).sum::<u64>();
            all.extend(samples);
            bytes.extend(media);
        }
        prop_assert_eq!(all, samples);
        prop_assert_eq!(bytes, media);
        let told: u32 = cut.iter().map(|part| part.duration_ms).sum();
        prop_assert!(told.abs_diff(whole[0].duration_ms) <= 1);
        prop_assert!(cut.first().unwrap().independent);
    }

    #[test]
    fn a_camera_with_jitter_stays_below_the_target(jitter in prop::collection::vec(-3..4_i64, 90)) {
        // 30 pictures a second, parts as a session foresees them.
        let frames: Vec<_> = jitter.iter().enumerate().map(|(n, off)| ((n as i64 * 1000 / 30 + off).max(0), picture(n, 50))).collect();
        let cut = parts(video(), 218, &frames).unwrap();
        for part in &cut {
            prop_assert!(part.duration_ms <= 218, "{}", part.duration_ms);
        }
        // One or two at the end may be short.
        for part in &cut[..cut.len() - 2] {
            prop_assert!(part.duration_ms >= 150, "{}", part.duration_ms);
        }
    }
}

#[test]
fn pictures_out_of_order_and_broken_frames_are_not_shown_in_parts() {
    let frames = [(0, picture(0, 9)), (120, picture(1, 9)), (40, picture(2, 9))];
    assert_eq!(parts(video(), 200, &frames), Err(NotInParts));
    assert_eq!(parts(video(), 200, &[(0, b"no start code".to_vec())]), Err(NotInParts));
}

#[test]
fn a_camera_that_pauses_makes_a_long_part_and_goes_on() {
    let frames: Vec<_> = [0, 40, 80, 1500, 1540]
        .iter()
        .enumerate()
        .map(|(n, at)| (*at, picture(n, 5)))
        .collect();
    let cut = parts(video(), 220, &frames).unwrap();
    let durations: Vec<_> = cut.iter().map(|part| part.duration_ms).collect();
    assert_eq!(durations[..2], [80, 1420], "its last picture stands until the next one");
}
