//! What AWS's own tests and an independent walk say about captured streams, restated against this reader.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{FILES, data, in_chunks, in_random_chunks, run, whole};
use matroska::{Block, Event, Limits, Tag, Track, TrackKind};

/// The numbers of a stream: EBML headers, Segments, Tracks, clusters, SimpleBlocks, tag names.
#[derive(Debug, PartialEq)]
struct Counts(usize, usize, usize, usize, usize, usize);

fn count(events: &[Event]) -> Counts {
    let count = |want: fn(&Event) -> bool| events.iter().filter(|event| want(event)).count();
    Counts(
        count(|event| matches!(event, Event::EbmlHeader(_))),
        count(|event| matches!(event, Event::SegmentStart { .. })),
        count(|event| matches!(event, Event::Tracks(_))),
        count(|event| matches!(event, Event::ClusterStart { .. })),
        count(|event| matches!(event, Event::BlockEnd(_))),
        count(|event| matches!(event, Event::Tag(_))),
    )
}

fn timecodes(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| {
            if let Event::ClusterTimecode(time) = event {
                Some(*time)
            } else {
                None
            }
        })
        .collect()
}

fn tags(events: &[Event]) -> Vec<&Tag> {
    events
        .iter()
        .filter_map(|event| if let Event::Tag(tag) = event { Some(tag) } else { None })
        .collect()
}

fn blocks(events: &[Event]) -> Vec<&Block> {
    events
        .iter()
        .filter_map(|event| {
            if let Event::BlockEnd(block) = event {
                Some(block)
            } else {
                None
            }
        })
        .collect()
}

fn first_track(events: &[Event]) -> &Track {
    events
        .iter()
        .find_map(|event| {
            if let Event::Tracks(tracks) = event {
                Some(&tracks[0])
            } else {
                None
            }
        })
        .expect("a stream with tracks")
}

fn values(events: &[Event], name: &str) -> Vec<String> {
    let named = tags(events).into_iter().filter(|tag| tag.name == name);
    named.map(|tag| tag.as_str().expect("a string").to_owned()).collect()
}

/// The events from one document's header to the next.
fn documents(events: &[Event]) -> Vec<&[Event]> {
    let is_start = |event: &Event| matches!(event, Event::DocumentStart { .. });
    let starts: Vec<usize> = (0..events.len()).filter(|at| is_start(&events[*at])).collect();
    let ends = starts.iter().skip(1).copied().chain([events.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| &events[*start..end])
        .collect()
}

macro_rules! events_of {
    ($name:literal) => {{
        let Some(bytes) = data($name) else { return };
        let run = whole(&bytes);
        assert_eq!(run.error, None);
        run.events
    }};
}

#[test]
fn a_plain_producer_file_has_its_clusters_blocks_and_tag() {
    let events = events_of!("mkv/clusters.mkv");
    assert_eq!(count(&events), Counts(1, 1, 1, 8, 444, 4));
    assert_eq!(timecodes(&events), [0, 1999, 3999, 5998, 7998, 9998, 11997, 13997]);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::TagsEnd)).count(), 1);
    assert!(values(&events, "AWS_KINESISVIDEO_FRAGMENT_NUMBER").is_empty());
    let track = first_track(&events);
    assert_eq!(
        (track.codec_id.as_str(), track.kind),
        ("V_MPEG4/ISO/AVC", TrackKind::Video)
    );
    assert_eq!(track.video.map(|video| (video.width, video.height)), Some((640, 480)));
    assert_eq!(track.name, "kinesis_video");
}

#[test]
fn get_media_output_of_aws_has_its_numbers_tokens_and_producer_tags() {
    let events = events_of!("mkv/output_get_media.mkv");
    assert_eq!(count(&events), Counts(5, 5, 5, 5, 300, 60));
    let tokens = values(&events, "AWS_KINESISVIDEO_CONTINUATION_TOKEN");
    assert_eq!(
        tokens[..3],
        [
            "91343852333181432392682062607743920146159169392",
            "91343852333181432397633822764885441725874549018",
            "91343852333181432402585582922026963247510532162"
        ]
    );
    assert_eq!(tokens[4], "91343852333181432412489103236310005892133364608");
    let numbers = values(&events, "AWS_KINESISVIDEO_FRAGMENT_NUMBER");
    assert_eq!(numbers, tokens);
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "fragment numbers strictly increase"
    );
    for document in documents(&events) {
        let producer: Vec<(&str, &[u8])> = tags(document)
            .into_iter()
            .filter(|tag| !tag.name.starts_with("AWS_"))
            .map(|tag| match &tag.value {
                matroska::TagValue::String(value) => (tag.name.as_str(), &value[..]),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            producer,
            [
                ("COMPATIBLE_BRANDS", &b"isomavc1mp42"[..]),
                ("MAJOR_BRAND", b"M4V "),
                ("MINOR_VERSION", b"1"),
                ("ENCODER", b"Lavf57.71.100"),
                ("HANDLER_NAME", b"ETI ISO Video Media Handler"),
                ("ENCODER", b"Elemental H.264"),
                ("DURATION", b"00:00:10.000000000\0\0"),
            ]
        );
        assert_eq!(
            first_track(document).video.map(|video| (video.width, video.height)),
            Some((640, 360))
        );
        assert_eq!(first_track(document).codec_id, "V_MPEG4/ISO/AVC");
    }
    let handler = tags(&events)
        .into_iter()
        .find(|tag| tag.name == "HANDLER_NAME")
        .unwrap();
    assert_eq!(handler.track_uid, Some(1));
}

#[test]
fn get_media_output_read_twice_over_counts_twice() {
    let Some(bytes) = data("mkv/output_get_media.mkv") else {
        return;
    };
    let doubled = run(Limits::default(), [bytes.clone(), bytes]);
    assert_eq!(doubled.error, None);
    assert_eq!(count(&doubled.events), Counts(10, 10, 10, 10, 600, 120));
}

#[test]
fn sparse_fragments_keep_the_times_at_which_they_were_cut_out() {
    let events = events_of!("mkv/output_get_media_sparse_fragments.mkv");
    assert_eq!(count(&events), Counts(3, 3, 3, 3, 180, 36));
    assert_eq!(timecodes(&events), [0, 4000, 8000]);
    let merged = events_of!("mkv/output_get_media_sparse_fragments_merged.mkv");
    assert_eq!(count(&merged), Counts(1, 1, 1, 3, 180, 36));
    assert_eq!(timecodes(&merged), [0, 2000, 4000]);
}

#[test]
fn fragments_of_equal_timecode_are_two_documents() {
    let Some(bytes) = data("mkv/output-get-media-equal-timecode.mkv") else {
        return;
    };
    let run = whole(&bytes);
    // The capture itself was cut off within its last frame.
    assert_eq!(run.error.unwrap().kind, matroska::ErrorKind::Truncated);
    let events = run.events;
    let counts = count(&events);
    assert_eq!((counts.0, counts.3, counts.4), (2, 2, 239));
    assert!(matches!(events.last(), Some(Event::BlockStart(_))));
    assert_eq!(timecodes(&events), [0, 0]);
    let first = documents(&events)[0];
    assert_eq!((blocks(first).len(), tags(first).len()), (120, 12));
}

#[test]
fn two_tracks_are_told_apart_block_by_block() {
    let events = events_of!("mkv/vogels_330.mkv");
    let counts = count(&events);
    assert_eq!((counts.0, counts.3, counts.4), (1, 9, 2334));
    assert_eq!(blocks(&events).iter().filter(|block| block.track == 1).count(), 909);
    assert_eq!(blocks(&events).iter().filter(|block| block.track == 2).count(), 1425);
    assert_eq!(timecodes(&events).last(), Some(&28821));
    let Some(Event::Info(info)) = events.iter().find(|event| matches!(event, Event::Info(_))) else {
        panic!()
    };
    assert_eq!(info.timecode_scale_ns, 1_000_000);
    let Some(Event::Tracks(tracks)) = events.iter().find(|event| matches!(event, Event::Tracks(_))) else {
        panic!()
    };
    let audio = tracks[1].audio.unwrap();
    assert_eq!(
        (tracks[1].codec_id.as_str(), audio.sampling_hz, audio.channels),
        ("A_AAC", 48_000.0, 2)
    );
}

#[test]
fn clusters_need_not_begin_with_a_key_frame_nor_last() {
    let events = events_of!("mkv/bezos_vogels.mkv");
    let counts = count(&events);
    assert_eq!((counts.0, counts.3, counts.4), (1, 5, 546));
    assert_eq!(timecodes(&events), [834, 5839, 5873, 10878, 14214]);
    assert!(events.iter().any(|event| matches!(
        event,
        Event::SegmentStart {
            size: Some(2_267_397),
            ..
        }
    )));
}

#[test]
fn tags_between_clusters_stay_with_the_cluster_before_them() {
    let events = events_of!("mkv/test_mixed_tags.mkv");
    assert_eq!(count(&events), Counts(10, 10, 10, 10, 100, 105));
    assert_eq!(timecodes(&events), (0..10).map(|n| n * 5000).collect::<Vec<u64>>());
    for (n, document) in documents(&events).into_iter().enumerate() {
        let own: Vec<&str> = tags(document)
            .into_iter()
            .filter(|tag| !tag.name.starts_with("AWS_"))
            .map(|tag| tag.name.as_str())
            .collect();
        let once = ["testTag_0", "testTag_1", "testTag_2", "testTag_3", "testTag_4"];
        let want = if n == 0 { [once, once].concat() } else { once.to_vec() };
        assert_eq!(own, want, "in document {n}");
    }
    let track = first_track(&events);
    assert_eq!(
        (track.codec_id.as_str(), track.name.as_str()),
        ("V_MS/VFW/FOURCC", "test track")
    );
}

#[test]
fn streams_without_a_cluster_still_tell_their_tags() {
    let events = events_of!("mkv/test_tags_empty_cluster.mkv");
    assert_eq!(count(&events), Counts(1, 1, 0, 0, 0, 5));
    let Event::EbmlHeader(header) = &events[1] else {
        panic!("{:?}", events[1])
    };
    assert_eq!(header.doc_type, "matroska", "a trailing NUL is no part of the name");
    let events = events_of!("mkv/empty-mkv-with-tags.mkv");
    assert_eq!(count(&events), Counts(1, 1, 1, 0, 0, 3));
    assert_eq!(
        values(&events, "AWS_KINESISVIDEO_FRAGMENT_NUMBER"),
        ["91343852338378294813695855977007281634605393997"]
    );
}

#[test]
fn a_producer_ends_each_fragment_by_its_tag_right_before_the_next_cluster() {
    let events = events_of!("putmedia/c-sample-video-metadata3.mkv");
    let counts = count(&events);
    assert_eq!((counts.0, counts.1, counts.2), (1, 1, 1));
    let ends = events
        .iter()
        .enumerate()
        .filter(|(_, event)| matches!(event, Event::Tag(tag) if tag.is_end_of_fragment()))
        .map(|(at, _)| at)
        .collect::<Vec<_>>();
    assert_eq!(ends.len(), counts.3, "one for each cluster");
    for end in ends {
        assert_eq!(events[end + 1], Event::TagsEnd);
        assert!(matches!(events.get(end + 2), None | Some(Event::ClusterStart { .. })));
    }
    assert!(blocks(&events).iter().all(|block| block.time >= 1_795_348_069_610));
}

#[test]
fn an_upload_broken_off_within_a_frame_says_so_after_its_last_byte() {
    let Some(bytes) = data("putmedia/kvssink-aborted-after-4002.mkv") else {
        return;
    };
    let run = whole(&bytes);
    assert_eq!(run.data, bytes);
    assert_eq!(
        timecodes(&run.events),
        [1_795_347_318_338, 1_795_347_320_338, 1_795_347_322_338]
    );
    if let Some(error) = run.error {
        assert_eq!(error.kind, matroska::ErrorKind::Truncated);
    }
}

#[test]
fn the_same_events_and_bytes_come_out_whatever_the_pieces_they_came_in() {
    for name in FILES {
        let Some(bytes) = data(name) else { return };
        let expected = whole(&bytes);
        assert_eq!(expected.data, bytes, "{name}");
        // Single bytes are slow; the head of a big file has every kind of element.
        let head = bytes.slice(..bytes.len().min(60_000));
        let expected_head = whole(&head);
        for len in [1, 2, 3, 7] {
            let got = run(Limits::default(), in_chunks(&head, len));
            assert_eq!(got.events, expected_head.events, "{name} in pieces of {len}");
            assert_eq!(got.error, expected_head.error);
            assert_eq!(got.data, head);
        }
        for seed in 0..8 {
            let got = run(Limits::default(), in_random_chunks(&bytes, seed));
            assert_eq!(got.events, expected.events, "{name} in pieces by seed {seed}");
            assert_eq!(got.error, expected.error);
            assert_eq!(got.data, bytes);
        }
    }
}

#[test]
fn block_offsets_lead_to_the_payloads_in_their_section() {
    for name in FILES {
        let Some(bytes) = data(name) else { return };
        let mut section = 0;
        for event in whole(&bytes).events {
            match event {
                Event::DocumentStart { offset } | Event::ClusterStart { offset, .. } => section = offset,
                Event::BlockEnd(block) => {
                    let start = usize::try_from(section + block.payload_offset).unwrap();
                    // Track numbers here are below 128: one byte, then two of time and one of flags.
                    assert_eq!(u64::from(bytes[start - 4] & 0x7F), block.track, "{name}");
                    assert_eq!(bytes[start - 3..start - 1], block.relative_time.to_be_bytes());
                    assert!(start as u64 + block.payload_len <= bytes.len() as u64);
                }
                _ => {}
            }
        }
    }
}
