//! Viewers and consumers: what is stored and then what arrives, without a gap, without a repetition, and without ever
//! slowing the producer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use common::testing::Body;
use common::{Service, absolute, context, fragment, selector};
use video_streams::consumer::{Consumer, Event, Outcome, StartAt, StreamRef};
use wire::kinesisvideo_media::{StartSelector, StartSelectorType};

fn nothing() -> Body {
    Body(BytesMut::new())
}

fn now() -> StartSelector {
    selector(StartSelectorType::Now)
}

fn earliest() -> StartSelector {
    selector(StartSelectorType::Earliest)
}

async fn consume(service: &Service, name: &str, start: StartAt) -> Consumer {
    let caller = context().caller;
    let stream = StreamRef {
        account: caller.account,
        region: caller.region,
        stream: name.to_owned(),
    };
    service.video.open_consumer(&stream, start).await.unwrap()
}

/// An event in words.
fn word(event: Event) -> String {
    match event {
        Event::FragmentStart(start) => {
            assert_eq!(start.tracks[0].codec_id, "V_MPEG4/ISO/AVC");
            let kind = if start.live { "live" } else { "stored" };
            format!("start {} {kind}", start.producer_timestamp)
        }
        Event::Frame(frame) => {
            let text = String::from_utf8_lossy(&frame.data).into_owned();
            format!("{text} +{}{}", frame.offset_ms, if frame.key { " key" } else { "" })
        }
        Event::FragmentEnd(end) => match end.outcome {
            Outcome::Stored { position } => format!("stored {position}"),
            Outcome::Rejected => "rejected".to_owned(),
        },
        Event::StreamDeleted => "deleted".to_owned(),
    }
}

/// The next events in words.
async fn told_so_far(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        told.push(word(consumer.next().await.unwrap()));
    }
    told
}

/// Events in words, until `count` fragments have ended.
async fn told(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let is_end = |line: &&String| line.starts_with("stored") || *line == "rejected";
    let mut told: Vec<String> = Vec::new();
    while told.iter().filter(is_end).count() < count {
        told.extend(told_so_far(consumer, 1).await);
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sees_a_frame_before_its_fragment_ends() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut viewer = service.view("cam", now()).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    put.send(&Body::new(&[1]).cluster(1000).frame(1, 0).bytes()).await;
    viewer
        .until(|seen| seen.iter().any(|fragment| fragment.frames == ["frame 1 0"]))
        .await;
    assert_eq!(put.ack().await.unwrap(), "BUFFERING 1000");
    assert_eq!(viewer.seen[0].token, None, "the fragment is not whole");
    put.send(&nothing().frame(1, 40).end_of_fragment().bytes()).await;
    viewer.until_complete(1).await;
    assert_eq!(viewer.seen[0].frames, ["frame 1 0", "frame 1 40"]);
    assert_eq!(viewer.seen[0].token.as_ref(), Some(&viewer.seen[0].number));
    assert_eq!(
        service.list("cam").await[0].fragment_number.as_ref(),
        Some(&viewer.seen[0].number)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_viewers_sees_every_frame_before_the_fragment_ends_though_frames_go_out_in_pairs() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut viewers = Vec::new();
    for _ in 0..=video_streams::limits::CROWD_READERS {
        viewers.push(service.view("cam", now()).await);
    }
    let put = service.open_put(absolute("cam")).await.unwrap();
    put.send(&Body::new(&[1]).cluster(1000).frame(1, 0).bytes()).await;
    // The pace of a camera, so that frames are paired, and long enough that one waits when the camera falls silent.
    for time in 1..=12 {
        tokio::time::sleep(Duration::from_millis(12)).await;
        put.send(&nothing().frame(1, time).bytes()).await;
    }
    let frames: Vec<String> = (0..=12).map(|time| format!("frame 1 {time}")).collect();
    for viewer in &mut viewers {
        viewer
            .until(|seen| seen.iter().any(|fragment| fragment.frames == frames))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_of_a_refused_fragment_has_no_token_and_the_next_one_follows() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut viewer = service.view("cam", now()).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    put.send(&fragment(Body::new(&[1]), 1000).cluster(2000).frame(1, 0).bytes())
        .await;
    viewer.until(|seen| seen.len() == 2).await;
    put.wait_for("PERSISTED 1000").await;
    put.send(&nothing().frame(1, 25_000).bytes()).await;
    assert_eq!(put.finish().await.pop().unwrap(), "ERROR 4002 2000");
    service
        .put("cam", &fragment(Body::new(&[1]), 3000).bytes(), &[usize::MAX])
        .await;
    viewer.until_complete(2).await;
    assert_eq!(viewer.complete(), [1000, 3000]);
    assert_eq!(
        viewer.seen.iter().map(|f| f.timecode.unwrap()).collect::<Vec<_>>(),
        [1000, 2000, 3000]
    );
    assert_eq!(
        service.list("cam").await.len(),
        2,
        "the refused fragment is never listed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_earliest_fragment_into_the_live_tail_each_fragment_comes_once() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    let mut body = Body::new(&[1]);
    for n in 1..=20 {
        body = fragment(body, n * 1000);
    }
    put.send(&body.bytes()).await;
    put.wait_for("PERSISTED 20000").await;
    let mut viewer = service.view("cam", earliest()).await;
    viewer.until_complete(5).await;
    for n in 21..=40 {
        put.send(&fragment(nothing(), n * 1000).bytes()).await;
    }
    viewer.until_complete(40).await;
    assert_eq!(viewer.complete(), (1..=40).map(|n| n * 1000).collect::<Vec<_>>());
    assert!(
        viewer
            .seen
            .iter()
            .all(|fragment| fragment.frames == ["frame 1 0", "frame 1 40"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_does_not_read_stops_nobody_and_misses_nothing() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut slow = service.view("cam", now()).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    put.send(&Body::new(&[1]).cluster(1000).frame(1, 0).bytes()).await;
    slow.until(|seen| !seen.is_empty()).await;
    // Far more than a reader's queue holds, in the middle of a fragment and over many.
    for n in 1..=40 {
        put.send(&nothing().big_frame(1, n * 40, 100_000).bytes()).await;
    }
    put.send(&nothing().end_of_fragment().bytes()).await;
    for n in 2..=10 {
        put.send(
            &nothing()
                .cluster(n * 1000)
                .big_frame(1, 0, 400_000)
                .end_of_fragment()
                .bytes(),
        )
        .await;
    }
    put.wait_for("PERSISTED 10000").await;
    slow.until_complete(10).await;
    assert_eq!(slow.complete(), (1..=10).map(|n| n * 1000).collect::<Vec<_>>());
    assert_eq!(slow.seen[0].frames.len(), 41);
    assert!(slow.seen[0].frames[1..].iter().all(|frame| frame.len() == 100_000));
    let counted = service.metrics.render().unwrap();
    assert!(
        !counted.contains("sightglass_video_dropped_behind_total 0"),
        "{counted}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_stream_ends_its_producers_and_its_viewers() {
    let service = Service::start().await;
    let arn = service.create("cam", 1).await;
    let mut viewer = service.view("cam", now()).await;
    let mut consumer = consume(&service, &arn, StartAt::Now).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    put.send(&fragment(Body::new(&[1]), 1000).cluster(2000).frame(1, 0).bytes())
        .await;
    put.wait_for("BUFFERING 2000").await;
    put.wait_for("PERSISTED 1000").await;
    service.delete(&arn).await;
    assert_eq!(put.finish().await, ["ERROR 4008 2000"]);
    while viewer.step().await {}
    while !matches!(consumer.next().await.unwrap(), Event::StreamDeleted) {}
    assert_eq!(
        service.open_get("cam", now()).await.err().unwrap().code,
        "ResourceNotFoundException"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_gets_each_frame_when_its_last_byte_is_here() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut consumer = consume(&service, "cam", StartAt::Now).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    let mut body = Body::new(&[1])
        .cluster(1000)
        .frame(1, 0)
        .big_frame(1, 40, 300_000)
        .bytes();
    let tail = body.split_off(body.len() - 1);
    put.send(&body).await;
    put.wait_for("BUFFERING 1000").await;
    assert!(matches!(consumer.next().await.unwrap(), Event::FragmentStart(start) if start.live));
    assert!(matches!(consumer.next().await.unwrap(), Event::Frame(frame) if frame.key && frame.data == "frame 1 0"));
    let early = tokio::time::timeout(Duration::from_millis(50), consumer.next()).await;
    assert!(early.is_err(), "the second frame is not whole");
    service.clock.advance(Duration::from_secs(3));
    put.send(&tail).await;
    let Event::Frame(frame) = consumer.next().await.unwrap() else {
        panic!("no frame")
    };
    assert_eq!((frame.data.len(), frame.offset_ms, frame.key), (300_000, 40.0, false));
    assert!(frame.data.iter().all(|byte| *byte == 7));
    assert_eq!(frame.arrived, Duration::from_secs(3));
    put.send(&nothing().end_of_fragment().bytes()).await;
    put.wait_for("PERSISTED 1000").await;
    let Event::FragmentEnd(end) = consumer.next().await.unwrap() else {
        panic!("no end")
    };
    assert_eq!(end.outcome, Outcome::Stored { position: 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_goes_on_where_it_stopped() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let body = (1..=3).fold(Body::new(&[1]), |body, n| fragment(body, n * 1000));
    service.put("cam", &body.bytes(), &[50]).await;
    let all = told(&mut consume(&service, "cam", StartAt::Earliest).await, 3).await;
    let one = ["start 1.000 stored", "frame 1 0 +0 key", "frame 1 40 +40", "stored 1"];
    assert_eq!(all[..4], one);
    assert_eq!(all[4], "start 2.000 stored");
    let mut second = consume(&service, "cam", StartAt::AfterPosition(1)).await;
    assert_eq!(told(&mut second, 2).await, all[4..]);
    assert_eq!((second.position(), second.lag().fragments), (3, 0));
    let number = service.list("cam").await[1]
        .fragment_number
        .clone()
        .unwrap()
        .parse()
        .unwrap();
    let mut again = consume(&service, "cam", StartAt::Fragment(number)).await;
    assert_eq!(again.lag().fragments, 2);
    assert_eq!(told(&mut again, 2).await, all[4..]);
    let mut after = consume(&service, "cam", StartAt::AfterFragment(number)).await;
    assert_eq!(told(&mut after, 1).await, all[8..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_told_of_a_refused_fragment() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut consumer = consume(&service, "cam", StartAt::Now).await;
    let body = fragment(Body::new(&[1]), 1000).cluster(500).frame(1, 0).bytes();
    let acks = service.put("cam", &body, &[usize::MAX]).await;
    assert_eq!(acks.last().unwrap(), "ERROR 4004 500");
    let put = service.open_put(absolute("cam")).await.unwrap();
    let mut all = told(&mut consumer, 1).await;
    put.send(&Body::new(&[1]).cluster(600).frame(1, 0).bytes()).await;
    all.extend(told_so_far(&mut consumer, 2).await);
    put.send(&nothing().frame(2, 0).bytes()).await;
    assert_eq!(put.finish().await, ["BUFFERING 600", "ERROR 4010 600"]);
    all.extend(told(&mut consumer, 1).await);
    // What was stored before the consumer looked comes from storage; either is right.
    all.iter_mut()
        .for_each(|line| *line = line.replace("1.000 stored", "1.000 live"));
    let wanted = [
        "start 1.000 live",
        "frame 1 0 +0 key",
        "frame 1 40 +40",
        "stored 1",
        "start 0.600 live",
        "frame 1 0 +0 key",
        // What breaks the rule came in the same piece as the news of it.
        "frame 2 0 +0 key",
        "rejected",
    ];
    assert_eq!(all, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_of_overlapping_connections_all_come_and_each_once() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut viewer = service.view("cam", now()).await;
    let mut consumer = consume(&service, "cam", StartAt::Now).await;
    let mut old = service.open_put(absolute("cam")).await.unwrap();
    let mut new = service.open_put(absolute("cam")).await.unwrap();
    old.send(&Body::new(&[1]).cluster(1000).frame(1, 0).bytes()).await;
    old.wait_for("BUFFERING 1000").await;
    // The new connection's fragments begin later and are stored earlier.
    new.send(&fragment(fragment(Body::new(&[1]), 2000), 3000).bytes()).await;
    new.wait_for("PERSISTED 3000").await;
    old.send(&nothing().frame(1, 40).end_of_fragment().bytes()).await;
    old.wait_for("PERSISTED 1000").await;
    new.send(&fragment(nothing(), 4000).bytes()).await;
    viewer.until_complete(4).await;
    let mut complete = viewer.complete();
    complete.sort_unstable();
    assert_eq!(complete, [1000, 2000, 3000, 4000]);
    let told = told(&mut consumer, 4).await;
    let mut starts: Vec<_> = told.iter().filter(|line| line.starts_with("start")).cloned().collect();
    starts.sort();
    starts.iter_mut().for_each(|line| line.truncate("start 1.000".len()));
    assert_eq!(starts, ["start 1.000", "start 2.000", "start 3.000", "start 4.000"]);
    assert_eq!(told.iter().filter(|line| line.starts_with("frame")).count(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_retention_there_is_no_persisted_ack_but_a_live_buffer() {
    let service = Service::start().await;
    service.create("cam", 0).await;
    let mut viewer = service.view("cam", now()).await;
    let body = fragment(fragment(Body::new(&[1]), 1000), 2000).bytes();
    let acks = service.put("cam", &body, &[usize::MAX]).await;
    assert_eq!(
        acks,
        ["BUFFERING 1000", "RECEIVED 1000", "BUFFERING 2000", "RECEIVED 2000"]
    );
    viewer.until_complete(2).await;
    let mut late = service.view("cam", earliest()).await;
    late.until_complete(2).await;
    let buffered = told(&mut consume(&service, "cam", StartAt::Earliest).await, 2).await;
    assert_eq!(buffered[0], "start 1.000 stored");
    assert_eq!(
        service.durable.usage(stream_id(&service)).await.unwrap().fragments,
        0,
        "nothing is written to disk"
    );
    service.clock.advance(Duration::from_secs(301));
    service
        .put("cam", &fragment(Body::new(&[1]), 9000).bytes(), &[usize::MAX])
        .await;
    let mut later = service.view("cam", earliest()).await;
    later.until_complete(1).await;
    assert_eq!(later.complete(), [9000], "the buffer holds five minutes");
}

/// The first stream of a service has the first id.
fn stream_id(_: &Service) -> storage::StreamId {
    storage::StreamId(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_start_selector_starts_where_it_says() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    put.send(&Body::new(&[1]).bytes()).await;
    for n in 1..=5 {
        // Ten seconds of the server's time from fragment to fragment, one second of the producer's.
        let body = nothing()
            .cluster(n * 1000)
            .frame(1, 0)
            .frame(1, 500)
            .end_of_fragment()
            .bytes();
        put.send(&body).await;
        put.wait_for(&format!("PERSISTED {}", n * 1000)).await;
        service.clock.advance(Duration::from_secs(10));
    }
    let fragments = service.list("cam").await;
    let number = |n: usize| fragments[n - 1].fragment_number.clone();
    let first = |selector: StartSelector| {
        let service = &service;
        async move {
            let mut viewer = service.view("cam", selector).await;
            viewer.until_complete(1).await;
            viewer.complete()[0]
        }
    };
    let at = |kind, millis| StartSelector {
        start_timestamp: Some(Timestamp::from_millis(millis)),
        ..selector(kind)
    };
    assert_eq!(first(earliest()).await, 1000);
    let after = StartSelector {
        after_fragment_number: number(2),
        ..selector(StartSelectorType::FragmentNumber)
    };
    assert_eq!(first(after).await, 3000);
    let token = StartSelector {
        continuation_token: number(4),
        ..selector(StartSelectorType::ContinuationToken)
    };
    assert_eq!(first(token).await, 5000);
    let start = common::START.millis();
    assert_eq!(
        first(at(StartSelectorType::ServerTimestamp, start + 20_000)).await,
        3000
    );
    assert_eq!(
        first(at(StartSelectorType::ServerTimestamp, start + 20_400)).await,
        3000,
        "the one that spans it"
    );
    assert_eq!(
        first(at(StartSelectorType::ServerTimestamp, start + 25_000)).await,
        4000,
        "else the next"
    );
    assert_eq!(first(at(StartSelectorType::ProducerTimestamp, 4100)).await, 4000);
    assert_eq!(first(at(StartSelectorType::ProducerTimestamp, 0)).await, 1000);
    // NOW shows nothing old.
    let mut live = service.view("cam", now()).await;
    put.send(&fragment(nothing(), 6000).bytes()).await;
    live.until_complete(1).await;
    assert_eq!(live.complete(), [6000]);
    let bad = StartSelector {
        continuation_token: Some("abc".to_owned()),
        ..selector(StartSelectorType::ContinuationToken)
    };
    assert_eq!(
        service.open_get("cam", bad).await.err().unwrap().code,
        "InvalidArgumentException"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_follows_a_stream_that_gets_retention() {
    let service = Service::start().await;
    service.create("cam", 0).await;
    let mut viewer = service.view("cam", now()).await;
    let body = |timecode| -> Bytes { fragment(Body::new(&[1]), timecode).bytes() };
    service.put("cam", &body(1000), &[usize::MAX]).await;
    viewer.until_complete(1).await;
    let version = service.describe("cam").await.unwrap().version.unwrap();
    let input = wire::kinesisvideo::UpdateDataRetentionInput {
        current_version: version,
        data_retention_change_in_hours: 24,
        operation: wire::kinesisvideo::UpdateDataRetentionOperation::IncreaseDataRetention,
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
    };
    service
        .call::<wire::kinesisvideo::op::UpdateDataRetention>(input)
        .await
        .unwrap();
    let acks = service.put("cam", &body(2000), &[usize::MAX]).await;
    assert_eq!(acks, ["BUFFERING 2000", "RECEIVED 2000", "PERSISTED 2000"]);
    viewer.until_complete(2).await;
    service.put("cam", &body(3000), &[usize::MAX]).await;
    viewer.until_complete(3).await;
    assert_eq!(viewer.complete(), [1000, 2000, 3000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_remembers_a_position_of_before_a_restart_gets_all_that_came_after_it() {
    let service = Service::start().await;
    service.create("cam", 0).await;
    let body = (1..=5).fold(Body::new(&[1]), |body, n| fragment(body, n * 1000));
    service.put("cam", &body.bytes(), &[usize::MAX]).await;
    let mut before = consume(&service, "cam", StartAt::Earliest).await;
    told(&mut before, 5).await;
    let position = before.position();
    drop(before);
    let service = service.restart().await;
    service
        .put("cam", &fragment(Body::new(&[1]), 9000).bytes(), &[usize::MAX])
        .await;
    let mut after = consume(&service, "cam", StartAt::AfterPosition(position)).await;
    assert_eq!(told(&mut after, 1).await[0], "start 9.000 stored");
}

/// Plays fragments of random sizes into a stream over one connection.
async fn produce(put: common::Put, first: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut put = put;
    put.send(&Body::new(&[1]).bytes()).await;
    for n in 0..12 {
        let timecode = first + n * 100;
        put.send(&nothing().cluster(timecode).frame(1, 0).bytes()).await;
        for time in 1..random.i16(2..30) {
            put.send(&nothing().big_frame(1, time, random.usize(1..120_000)).bytes())
                .await;
            if random.u8(..4) == 0 {
                tokio::task::yield_now().await;
            }
        }
        put.send(&nothing().end_of_fragment().bytes()).await;
        if random.bool() {
            put.wait_for(&format!("RECEIVED {timecode}")).await;
        }
    }
    put.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_timing_every_fragment_comes_to_every_reader_once_and_whole() {
    for seed in 0..6_u64 {
        let service = Service::start().await;
        service.create("cam", if seed % 3 == 0 { 0 } else { 1 }).await;
        let mut viewer = service.view("cam", earliest()).await;
        let mut consumer = consume(&service, "cam", StartAt::Earliest).await;
        let mut wanted = Vec::new();
        let mut producers = Vec::new();
        for producer in 0..3_u64 {
            let put = service.open_put(absolute("cam")).await.unwrap();
            let first = (producer + 1) * 1_000_000;
            wanted.extend((0..12).map(|n| first + n * 100));
            producers.push(tokio::spawn(produce(put, first, seed * 10 + producer)));
        }
        let consuming = tokio::spawn(async move {
            let (mut frames, mut ends) = (0, 0);
            while ends < 36 {
                match consumer.next().await.unwrap() {
                    Event::Frame(_) => frames += 1,
                    Event::FragmentEnd(end) => {
                        assert!(matches!(end.outcome, Outcome::Stored { .. }));
                        ends += 1;
                    }
                    Event::FragmentStart(_) | Event::StreamDeleted => {}
                }
            }
            frames
        });
        viewer.until_complete(36).await;
        for producer in producers {
            producer.await.unwrap();
        }
        let mut complete = viewer.complete();
        complete.sort_unstable();
        assert_eq!(complete, wanted, "seed {seed}");
        let frames: usize = viewer.seen.iter().map(|fragment| fragment.frames.len()).sum();
        assert_eq!(consuming.await.unwrap(), frames, "seed {seed}");
        let mut numbers: Vec<_> = service
            .list("cam")
            .await
            .into_iter()
            .map(|f| f.fragment_number.unwrap())
            .collect();
        let mut seen: Vec<_> = viewer.seen.iter().map(|fragment| fragment.number.clone()).collect();
        numbers.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, numbers, "seed {seed}");
    }
}
