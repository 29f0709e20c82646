//! What is written: byte for byte as AWS writes it, and read back as it was meant.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{data, whole};
use matroska::writer::{
    Frame, Muxer, StreamInfo, continuation_tags, end_of_fragment, error_tags, fragment_tags, put_cluster_head,
    put_element, put_simple_block_head,
};
use matroska::{Audio, Event, Track, TrackKind, Video, id};

fn find(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    (0..=haystack.len() - needle.len())
        .filter(|at| haystack[*at..].starts_with(needle))
        .collect()
}

#[test]
fn fragment_tags_are_those_of_aws_to_the_byte() {
    let Some(captured) = data("mkv/output_get_media.mkv") else {
        return;
    };
    let number = "91343852333181432392682062607743920146159169392";
    let tags = fragment_tags(number, 1_511_852_109_126, 1_511_852_108_513);
    assert_eq!(find(&captured[..4096], &tags), [916]);
    let last = continuation_tags(12_093, "91343852333181432412489103236310005892133364608");
    assert!(captured.ends_with(&last));
    let zero = fragment_tags("1", 5, 0);
    assert!(zero.windows(5).any(|window| window == b"0.005") && zero.ends_with(b"0.000"));
}

#[test]
fn the_header_of_a_captured_get_media_segment_is_what_replaces_a_producers() {
    let Some(captured) = data("mkv/output_get_media.mkv") else {
        return;
    };
    assert_eq!(captured[47..59], *matroska::writer::SEGMENT_HEAD_UNKNOWN_SIZE);
}

#[test]
fn tags_read_back_as_written() {
    let bytes: Bytes = [
        matroska::writer::EBML_HEADER,
        matroska::writer::SEGMENT_HEAD_UNKNOWN_SIZE,
        &error_tags("42", "INTERNAL_ERROR", 5000),
        &end_of_fragment(),
    ]
    .concat()
    .into();
    let run = whole(&bytes);
    assert_eq!(run.error, None);
    let told: Vec<String> = run
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Tag(tag) => Some(format!("{}={}", tag.name, tag.as_str().unwrap())),
            Event::TagsEnd => Some("end".to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            "AWS_KINESISVIDEO_FRAGMENT_NUMBER=42",
            "AWS_KINESISVIDEO_ERROR_CODE=INTERNAL_ERROR",
            "AWS_KINESISVIDEO_ERROR_ID=5000",
            "end",
            "AWS_KINESISVIDEO_END_OF_FRAGMENT=",
            "end"
        ]
    );
}

fn track(number: u64, kind: TrackKind) -> Track {
    let video = (kind == TrackKind::Video).then_some(Video {
        width: 1280,
        height: 720,
    });
    let audio = (kind == TrackKind::Audio).then_some(Audio {
        sampling_hz: 48_000.0,
        channels: 2,
        bit_depth: Some(16),
    });
    Track {
        number,
        uid: number << 40,
        kind,
        codec_id: "V_TEST".to_owned(),
        codec_private: Bytes::from_static(b"private"),
        name: "camera".to_owned(),
        language: "eng".to_owned(),
        default_duration_ns: Some(40_000_000),
        encoded: false,
        video,
        audio,
    }
}

#[test]
fn muxed_frames_read_back_in_clusters_that_begin_at_key_frames() {
    let tracks = [track(1, TrackKind::Video), track(300, TrackKind::Audio)];
    let mut muxer = Muxer::new(
        &StreamInfo {
            title: "test",
            ..StreamInfo::default()
        },
        &tracks,
    );
    let mut out = BytesMut::from(&muxer.header()[..]);
    let start = 1_795_347_223_436;
    // The audio's far-off time fits no running cluster.
    let times = [
        (1, 0, true),
        (300, 5, true),
        (1, 40, false),
        (1, 80, true),
        (300, 90, true),
        (300, 50_000, true),
    ];
    for (track, time, key) in times {
        muxer.put_frame(
            &mut out,
            &Frame {
                track,
                time: start + time,
                key,
                payload: &[7; 300],
            },
        );
    }
    let run = whole(&out.freeze());
    assert_eq!(run.error, None);
    let Some(Event::Tracks(read)) = run.events.iter().find(|event| matches!(event, Event::Tracks(_))) else {
        panic!()
    };
    assert_eq!(read[..], tracks);
    let clusters: Vec<u64> = run
        .events
        .iter()
        .filter_map(|event| {
            if let Event::ClusterTimecode(time) = event {
                Some(*time - start)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(clusters, [0, 80, 50_000]);
    let blocks: Vec<(u64, u64, bool)> = run
        .events
        .iter()
        .filter_map(|event| match event {
            Event::BlockEnd(block) => Some((block.track, block.time.cast_unsigned() - start, block.key)),
            _ => None,
        })
        .collect();
    assert_eq!(blocks, times);
}

#[test]
fn a_block_group_tells_key_and_duration_at_its_end() {
    let mut out = BytesMut::from(&Muxer::new(&StreamInfo::default(), &[]).header()[..]);
    put_cluster_head(&mut out, 1000);
    for reference in [false, true] {
        let mut group = BytesMut::new();
        put_element(&mut group, id::BLOCK, &[0x81, 0xFF, 0xF6, 0, 1, 2, 3]);
        put_element(&mut group, id::BLOCK_DURATION, &[40]);
        if reference {
            put_element(&mut group, id::REFERENCE_BLOCK, &[0xD8]);
        }
        put_element(&mut out, id::BLOCK_GROUP, &group);
    }
    put_simple_block_head(&mut out, 1, 0, false, 0);
    let run = whole(&out.freeze());
    assert_eq!(run.error, None);
    let told: Vec<(bool, Option<u64>, i64, u64)> = run
        .events
        .iter()
        .filter_map(|event| match event {
            Event::BlockEnd(block) => Some((block.key, block.duration, block.time, block.payload_len)),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            (true, Some(40), 990, 3),
            (false, Some(40), 990, 3),
            (false, None, 1000, 0)
        ]
    );
}
