//! What a reader promises, against a real server and a wire that is cut; and the expectations that the parser library of
//! AWS has of its own recordings, restated.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use client::producer::{FeedOptions, Pace, Producer, ProducerConfig};
use client::reader::{
    Counts, Fragment, FragmentAssembler, FragmentEvent, FragmentParser, LiveReader, Merge, MergeOptions, ReaderConfig,
    StartAt,
};
use client::{Backoff, Client, TimecodeType};
use matroska::{Track, TrackKind, writer};
use support::{Server, Wire, stream};

fn test_data(file: &str) -> Option<Bytes> {
    let named = std::env::var_os("SIGHTGLASS_TEST_DATA").map(PathBuf::from);
    let above = || {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        here.ancestors()
            .map(|folder| folder.join("shared/data"))
            .find(|folder| folder.is_dir())
    };
    let read = named
        .or_else(above)
        .and_then(|folder| std::fs::read(folder.join("mkv").join(file)).ok());
    if read.is_none() {
        println!("skipped: no test data ({file})");
    }
    read.map(Bytes::from)
}

fn fragments(file: &Bytes) -> (Vec<Fragment>, Counts, Vec<u8>) {
    let mut parser = FragmentParser::default();
    let mut assembler = FragmentAssembler::default();
    let (mut fragments, mut counts, mut bytes, mut current) = (Vec::new(), Counts::default(), Vec::new(), None);
    let mut take = |event: FragmentEvent| {
        if let FragmentEvent::Data { bytes: data, .. } = &event {
            bytes.extend_from_slice(data);
        }
        assert!(event.visit(&mut current, &mut counts).is_continue());
        fragments.extend(assembler.take(event).map(Result::unwrap));
    };
    for chunk in file.chunks(4096) {
        parser.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = parser.next().unwrap() {
            take(event);
        }
    }
    parser.finish();
    // Some recordings were cut off in the midst of a frame.
    while let Ok(Some(event)) = parser.next() {
        take(event);
    }
    if let Some(event) = parser.end() {
        take(event);
    }
    while let Some(event) = parser.end() {
        take(event);
    }
    (fragments, counts, bytes)
}

#[test]
fn aws_s_recording_of_get_media_is_read_as_aws_reads_it() {
    let Some(file) = test_data("output_get_media.mkv") else {
        return;
    };
    let (fragments, counts, bytes) = fragments(&file);
    assert!(bytes == file, "every byte is handed on");
    assert_eq!((counts.fragments, counts.frames[&1], counts.failed), (5, 300, 0));
    let numbers: Vec<_> = fragments.iter().map(|fragment| fragment.number().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "fragment numbers strictly increase");
    let tokens = [
        "432392682062607743920146159169392",
        "432397633822764885441725874549018",
        "432402585582922026963247510532162",
    ];
    for (fragment, token) in fragments.iter().zip(tokens) {
        let expected = format!("91343852333181{token}");
        assert_eq!(fragment.end.continuation_token.as_ref().unwrap().as_str(), expected);
        assert_eq!(fragment.number(), fragment.end.continuation_token.as_ref());
    }
    assert!(numbers[4].as_str().ends_with("432412489103236310005892133364608"));
    let producer = [
        "COMPATIBLE_BRANDS",
        "MAJOR_BRAND",
        "MINOR_VERSION",
        "ENCODER",
        "HANDLER_NAME",
        "ENCODER",
        "DURATION",
    ];
    for fragment in &fragments {
        let mut names: Vec<&str> = fragment.tags.iter().map(|tag| tag.name.as_str()).collect();
        let mut expected = producer.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        let track = fragment.start.video().unwrap();
        assert_eq!(track.codec_id, "V_MPEG4/ISO/AVC");
        assert_eq!(track.video.map(|video| (video.width, video.height)), Some((640, 360)));
        assert!(!track.codec_private.is_empty());
    }
    assert_eq!(fragments[0].end.millis_behind_now, Some(15858));
}

#[test]
fn a_producers_own_file_has_frames_but_no_fragment_metadata() {
    let Some(file) = test_data("clusters.mkv") else { return };
    let (fragments, counts, bytes) = fragments(&file);
    assert!(bytes == file);
    assert_eq!((counts.fragments, counts.frames[&1], counts.complete), (8, 444, 0));
    let timecodes: Vec<u64> = fragments.iter().map(|fragment| fragment.start.timecode).collect();
    assert_eq!(timecodes, [0, 1999, 3999, 5998, 7998, 9998, 11997, 13997]);
    assert!(fragments.iter().all(|fragment| fragment.number().is_none()));
}

#[test]
fn metadata_tags_belong_to_the_fragment_that_they_follow() {
    let Some(file) = test_data("test_mixed_tags.mkv") else {
        return;
    };
    let (fragments, _, _) = fragments(&file);
    let tags: Vec<usize> = fragments
        .iter()
        .map(|fragment| fragment.tags.iter().filter(|t| t.name.starts_with("testTag_")).count())
        .collect();
    assert_eq!(tags, [10, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
    let names: Vec<&str> = fragments[3].tags.iter().map(|tag| tag.name.as_str()).collect();
    assert_eq!(names, ["testTag_0", "testTag_1", "testTag_2", "testTag_3", "testTag_4"]);
}

#[test]
fn documents_without_a_cluster_still_say_what_they_know() {
    if let Some(file) = test_data("empty-mkv-with-tags.mkv") {
        let (fragments, _, _) = fragments(&file);
        let number = fragments[0].number().unwrap().as_str();
        assert_eq!(number, "91343852338378294813695855977007281634605393997");
        assert!(fragments[0].frames.is_empty());
    }
    if let Some(file) = test_data("test_tags_empty_cluster.mkv") {
        assert_eq!(fragments(&file).1.tags, 5);
    }
}

#[test]
fn video_and_audio_come_by_track() {
    let Some(file) = test_data("vogels_330.mkv") else {
        return;
    };
    let (fragments, counts, _) = fragments(&file);
    assert_eq!((counts.frames[&1], counts.frames[&2]), (909, 1425));
    assert_eq!(fragments.last().unwrap().start.timecode, 28821);
    assert_eq!(fragments[0].start.track(2).unwrap().codec_id, "A_AAC");
}

#[test]
fn fragments_whose_times_do_not_rise_still_make_one_file() {
    for (name, count, frames) in [
        ("output_get_media_sparse_fragments.mkv", 3, 180),
        // Its 240th frame is cut off.
        ("output-get-media-equal-timecode.mkv", 2, 239),
        ("output-get-media-non-increasing-timecode.mkv", 12, 359),
    ] {
        let Some(file) = test_data(name) else { return };
        let mut merge = Merge::new(MergeOptions { close_gaps: true });
        let merged: Vec<u8> = fragments(&file)
            .0
            .iter()
            .flat_map(|fragment| merge.push(fragment).unwrap().concat())
            .collect();
        let (merged, counts, _) = fragments(&Bytes::from(merged));
        assert_eq!((counts.fragments, counts.frames[&1]), (count, frames), "{name}");
        assert!(
            merged.is_sorted_by(|a, b| a.start.timecode < b.start.timecode),
            "{name}"
        );
        assert_eq!(merged[0].start.timecode, 0);
    }
}

async fn feed(client: &Client, fragments: u64) {
    let track = Track {
        number: 1,
        uid: 1,
        kind: TrackKind::Video,
        codec_id: "V_MPEG4/ISO/AVC".to_owned(),
        codec_private: Bytes::new(),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: None,
        audio: None,
    };
    let mut file = writer::header(&writer::StreamInfo::default(), &[track]).to_vec();
    for count in 0..fragments {
        let mut cluster = bytes::BytesMut::new();
        writer::put_cluster_head(&mut cluster, count * 1000);
        for frame in 0..10_i16 {
            let payload = format!("frame {count} {frame} {}", "x".repeat(3000));
            writer::put_simple_block_head(&mut cluster, 1, frame * 40, frame == 0, payload.len());
            cluster.extend_from_slice(payload.as_bytes());
        }
        file.extend_from_slice(&cluster);
    }
    let mut producer = Producer::start(client.clone(), ProducerConfig::new(stream()));
    let options = FeedOptions {
        pace: Pace::Fast,
        timecodes: TimecodeType::Relative,
        started: client.clock().now(),
    };
    producer.feed(file.as_slice(), &options).await.unwrap();
    producer.finish().await.unwrap();
}

fn reader(wire: &Wire, start: StartAt) -> LiveReader {
    let mut config = ReaderConfig::new(stream(), start);
    config.backoff = Backoff {
        first: Duration::from_millis(5),
        longest: Duration::from_millis(50),
    };
    config.give_up_after = Some(Duration::from_secs(20));
    LiveReader::new(support::client_at(&wire.address), config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_wire_is_cut_loses_no_fragment_and_tells_none_twice() {
    let Some(server) = Server::with_stream(24).await else {
        return;
    };
    feed(&server.client(), 100).await;
    let wire = Wire::to(server.address.clone()).await;
    let mut reader = reader(&wire, StartAt::Earliest);
    let mut timecodes = Vec::new();
    while timecodes.len() < 100 {
        let fragment = reader.next_fragment().await.unwrap().expect("the stream is there");
        assert_eq!((fragment.frames.len(), fragment.is_complete()), (10, true));
        timecodes.push(fragment.start.timecode);
        if timecodes.len() % 13 == 0 {
            wire.cut();
        }
    }
    let wanted: Vec<u64> = (0..100).map(|count| count * 1000).collect();
    assert_eq!(timecodes, wanted);
    // A reader of another process goes on where this one stopped.
    let token = reader.continuation_token().unwrap().clone();
    feed(&server.client(), 1).await;
    let mut next = self::reader(&wire, StartAt::After(token.clone()));
    let fragment = next.next_fragment().await.unwrap().unwrap();
    assert!(fragment.number().unwrap() > &token);
    assert_eq!(fragment.start.timecode, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_go_on_with_the_next_one_after_a_cut_within_a_fragment() {
    let Some(server) = Server::with_stream(24).await else {
        return;
    };
    feed(&server.client(), 40).await;
    let wire = Wire::to(server.address.clone()).await;
    let mut reader = reader(&wire, StartAt::Earliest);
    let (mut seen, mut ends, mut since_cut) = (Vec::new(), 0, 0);
    while ends < 40 {
        match reader.next_event().await.unwrap().expect("the stream is there") {
            FragmentEvent::Frame(frame) => {
                seen.push(String::from_utf8_lossy(&frame.data[..10]).trim().to_owned());
                since_cut += 1;
                if since_cut == 37 {
                    wire.cut();
                    since_cut = 0;
                }
            }
            FragmentEvent::End(end) => ends += u32::from(end.continuation_token.is_some()),
            _ => {}
        }
    }
    let wanted: Vec<String> = (0..400)
        .map(|n| {
            format!("frame {} {} xxxxxxxxxx", n / 10, n % 10)[..10]
                .trim()
                .to_owned()
        })
        .collect();
    assert_eq!(seen, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_ends_when_its_stream_is_deleted() {
    let Some(server) = Server::with_stream(24).await else {
        return;
    };
    let client = server.client();
    feed(&client, 3).await;
    let wire = Wire::to(server.address.clone()).await;
    let mut reader = reader(&wire, StartAt::Earliest);
    for _ in 0..3 {
        assert!(reader.next_fragment().await.unwrap().is_some());
    }
    let described = client
        .call(
            client::Service::KinesisVideo,
            "DescribeStream",
            &serde_json::json!({ "StreamName": support::STREAM }),
        )
        .await;
    let arn = described.unwrap()["StreamInfo"]["StreamARN"].clone();
    client
        .call(
            client::Service::KinesisVideo,
            "DeleteStream",
            &serde_json::json!({ "StreamARN": arn }),
        )
        .await
        .unwrap();
    let last = tokio::time::timeout(Duration::from_secs(20), reader.next_fragment())
        .await
        .unwrap();
    assert!(last.unwrap().is_none());
}
