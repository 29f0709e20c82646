//! What a camera's owner can have a stream take by tagging it, and what is measured and shown meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use base::ApiError;
use bytes::{Bytes, BytesMut};
use common::testing::Body;
use common::{Service, absolute, fragment};
use wire::kinesisvideo::{CreateStreamInput, TagStreamInput, UntagStreamInput, op};

async fn tag(service: &Service, key: &str, value: &str) -> Result<(), ApiError> {
    let input = TagStreamInput {
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
        tags: BTreeMap::from([(key.to_owned(), value.to_owned())]),
    };
    service.call::<op::TagStream>(input).await.map(drop)
}

async fn put(service: &Service, body: Body) -> Vec<String> {
    service.put("cam", &body.bytes(), &[usize::MAX]).await
}

fn counted(service: &Service, line: &str) -> bool {
    let page = service.metrics.render().unwrap();
    assert!(page.contains("sightglass_video_lenient_total"));
    page.lines().any(|found| found == line)
}

/// A line of the metrics page about the stream.
fn of(metric: &str, value: i64) -> String {
    let stream = "account=\"000000000000\",region=\"us-west-2\",stream=\"cam\"";
    format!("sightglass_video_{metric}_milliseconds{{{stream}}} {value}")
}

#[tokio::test]
async fn a_tag_lets_the_next_connection_send_longer_fragments() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let long = || {
        Body::new(&[1])
            .cluster(1000)
            .frame(1, 0)
            .frame(1, 25_000)
            .end_of_fragment()
    };
    let key = "sightglass:max_fragment_duration_ms";
    assert_eq!(put(&service, long()).await.pop().unwrap(), "ERROR 4002 1000");
    for metric in ["fragment_duration", "key_frame_interval"] {
        assert!(counted(&service, &of(metric, 25_000)), "what was refused is shown");
    }
    tag(&service, key, "30000").await.unwrap();
    assert_eq!(put(&service, long()).await.pop().unwrap(), "PERSISTED 1000");
    assert!(counted(
        &service,
        "sightglass_video_lenient_total{kind=\"fragment_duration\"} 1"
    ));
    tag(&service, key, "10000").await.unwrap();
    let eleven = Body::new(&[1]).cluster(1000).frame(1, 0).frame(1, 11_000);
    assert_eq!(put(&service, eleven).await.pop().unwrap(), "ERROR 4002 1000", "strict");
    let untag = UntagStreamInput {
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
        tag_key_list: vec![key.to_owned()],
    };
    service.call::<op::UntagStream>(untag).await.unwrap();
    assert_eq!(put(&service, long()).await.pop().unwrap(), "ERROR 4002 1000");
    assert_eq!(service.list("cam").await.len(), 1);
}

#[tokio::test]
async fn a_tag_that_means_nothing_is_refused_when_it_is_set() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    for (key, value) in [
        ("sightglass:max_fragment_duration_ms", "500"),
        ("sightglass:allow_missing_tracks", "perhaps"),
        ("sightglass:non_monotonic_timecodes", "yes"),
        ("sightglass:derive_codec_private", "2"),
        ("sightglass:newest_connection_wins", ""),
    ] {
        let refused = tag(&service, key, value).await.err().unwrap();
        assert_eq!(refused.code, "InvalidArgumentException");
        assert!(refused.message.contains(key), "{}", refused.message);
        let create = CreateStreamInput {
            stream_name: "other".to_owned(),
            tags: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
            ..Default::default()
        };
        let refused = service.call::<op::CreateStream>(create).await.err().unwrap();
        assert_eq!(refused.code, "InvalidArgumentException");
    }
}

#[tokio::test]
async fn a_camera_that_stops_sending_sound_goes_on() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let body = || {
        Body::new(&[1, 2])
            .cluster(1000)
            .frame(1, 0)
            .frame(2, 10)
            .cluster(2000)
            .frame(1, 0)
            .frame(1, 40)
            .cluster(3000)
            .frame(1, 0)
            .frame(2, 10)
    };
    assert_eq!(put(&service, body()).await.pop().unwrap(), "ERROR 4011 2000");
    tag(&service, "sightglass:allow_missing_tracks", "true").await.unwrap();
    let acks = put(&service, body()).await;
    assert_eq!(
        acks.iter().filter(|ack| ack.starts_with("PERSISTED")).count(),
        3,
        "{acks:?}"
    );
    assert!(counted(
        &service,
        "sightglass_video_lenient_total{kind=\"missing_tracks\"} 1"
    ));
}

#[tokio::test]
async fn a_clock_that_starts_again_is_taken_as_it_is_or_carried_on() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let body = || [5000, 6000, 0, 1000].into_iter().fold(Body::new(&[1]), fragment);
    assert_eq!(put(&service, body()).await.pop().unwrap(), "ERROR 4004 0");
    let stored = |from: usize| {
        let service = &service;
        async move {
            let mut stored = service.list("cam").await;
            stored.sort_by(|a, b| a.fragment_number.cmp(&b.fragment_number));
            let of = |at: &wire::kinesisvideo_archived_media::Fragment| at.producer_timestamp.unwrap().millis();
            stored[from..].iter().map(of).collect::<Vec<_>>()
        }
    };
    assert_eq!(stored(0).await, [5000, 6000]);
    tag(&service, "sightglass:non_monotonic_timecodes", "accept")
        .await
        .unwrap();
    assert_eq!(
        put(&service, body()).await.pop().unwrap(),
        "PERSISTED 1000",
        "timecodes as sent"
    );
    assert_eq!(stored(2).await, [5000, 6000, 0, 1000]);
    tag(&service, "sightglass:non_monotonic_timecodes", "continue")
        .await
        .unwrap();
    assert_eq!(put(&service, body()).await.pop().unwrap(), "PERSISTED 1000");
    assert_eq!(stored(6).await, [5000, 6000, 6080, 7080]);
    assert!(counted(
        &service,
        "sightglass_video_lenient_total{kind=\"timecodes\"} 2"
    ));
}

#[tokio::test]
async fn where_the_newest_connection_wins_the_ones_before_it_end() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let nothing = || Body(BytesMut::new());
    let mut shared = service.open_put(absolute("cam")).await.unwrap();
    shared.send(&fragment(Body::new(&[1]), 1000).bytes()).await;
    shared.wait_for("PERSISTED 1000").await;
    tag(&service, "sightglass:newest_connection_wins", "true")
        .await
        .unwrap();
    shared.send(&nothing().cluster(2000).frame(1, 0).bytes()).await;
    shared.wait_for("BUFFERING 2000").await;
    let mut newest = service.open_put(absolute("cam")).await.unwrap();
    assert_eq!(shared.ack().await, None, "it ends without an error");
    newest.send(&fragment(Body::new(&[1]), 3000).bytes()).await;
    newest.wait_for("PERSISTED 3000").await;
    let last = service.open_put(absolute("cam")).await.unwrap();
    assert_eq!(newest.ack().await, None);
    last.send(&fragment(Body::new(&[1]), 4000).bytes()).await;
    assert_eq!(last.finish().await.pop().unwrap(), "PERSISTED 4000");
    let times: Vec<_> = service
        .list("cam")
        .await
        .iter()
        .map(|f| f.producer_timestamp.unwrap().millis())
        .collect();
    assert_eq!(times, [1000, 3000, 4000], "what was not whole is gone");
}

#[tokio::test]
async fn a_stream_s_measures_are_shown_until_it_is_deleted() {
    let service = Service::start().await;
    let arn = service.create("cam", 1).await;
    let body = Body::new(&[1])
        .cluster(1000)
        .frame(1, 0)
        .frame(1, 500)
        .cluster(3000)
        .frame(1, 0)
        .frame(1, 40);
    put(&service, body).await;
    assert!(
        counted(&service, &of("fragment_duration", 80)),
        "{}",
        service.metrics.render().unwrap()
    );
    assert!(counted(&service, &of("key_frame_interval", 2000)));
    service.delete(&arn).await;
    assert!(!service.metrics.render().unwrap().contains("stream=\"cam\""));
}

#[tokio::test]
async fn bytes_without_codec_private_data_are_stored_as_they_are() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut bare = common::testing::track(1);
    bare.codec_private = Bytes::new();
    let header = matroska::writer::header(&matroska::writer::StreamInfo::default(), &[bare]);
    let frame = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 4];
    let mut body = Body(BytesMut::from(&header[..])).cluster(1000);
    matroska::writer::put_simple_block_head(&mut body.0, 1, 0, true, frame.len());
    let body = body.raw(&frame).end_of_fragment();
    let sent = body.0.len();
    assert_eq!(put(&service, body).await.pop().unwrap(), "PERSISTED 1000");
    assert!(counted(
        &service,
        "sightglass_video_lenient_total{kind=\"codec_private\"} 1"
    ));
    let stored = service.list("cam").await[0].fragment_size_in_bytes.unwrap();
    assert_eq!(stored, sent as i64, "nothing is added to what was sent");
}
