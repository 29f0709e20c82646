//! What a producer promises, against a real server that is killed and a wire that is cut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use bytes::Bytes;
use client::producer::{
    EncodedFrame, FeedOptions, FrameOptions, LossReason, Overflow, Pace, Producer, ProducerConfig, ProducerError,
    ProducerEvent,
};
use client::reader::{BatchOptions, Fragment, TimeAxis, TimeRange};
use client::{Backoff, Client, EventType, TimecodeType};
use futures_util::StreamExt;
use matroska::{Track, TrackKind, writer};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use support::{Server, Wire, stream};

type Sha = [u8; 32];

fn sha(bytes: &[u8]) -> Sha {
    Sha256::digest(bytes).into()
}

fn video() -> Track {
    Track {
        number: 1,
        uid: 1,
        kind: TrackKind::Video,
        codec_id: "V_MPEG4/ISO/AVC".to_owned(),
        codec_private: Bytes::from_static(b"avcC"),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: None,
        audio: None,
    }
}

fn quick(config: &mut ProducerConfig) {
    config.backoff = Backoff {
        first: Duration::from_millis(20),
        longest: Duration::from_millis(200),
    };
    config.give_up_after = Some(Duration::from_secs(30));
}

/// Bytes that are the same for the same seed.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// What the acknowledgements said: by fragment number, the timecode.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<String, u64>>>);

impl Ledger {
    fn hook(&self) -> client::producer::EventHook {
        let ledger = self.0.clone();
        Arc::new(move |event: &ProducerEvent| {
            if let ProducerEvent::Ack {
                fragment: Some(fragment),
                ack,
                ..
            } = event
                && ack.event == EventType::Persisted
            {
                let before = ledger
                    .lock()
                    .insert(ack.fragment_number.clone().unwrap(), fragment.timecode);
                assert_eq!(before, None, "a number is reported once");
            }
        })
    }
}

async fn stored(client: &Client) -> Vec<Fragment> {
    let range = TimeRange {
        axis: TimeAxis::Server,
        from: Timestamp::from_millis(0),
        to: Timestamp::from_millis(4_000_000_000_000),
    };
    let listed = client.list_fragments(&stream(), &range).await.unwrap();
    let read = client.read_fragments(
        &stream(),
        &listed,
        BatchOptions {
            fragments_max: 7,
            ..BatchOptions::default()
        },
    );
    let fragments: Vec<Fragment> = read.map(Result::unwrap).collect().await;
    let numbers: Vec<_> = fragments
        .iter()
        .map(|fragment| fragment.number().unwrap().clone())
        .collect();
    let listed: Vec<_> = listed.into_iter().map(|info| info.number).collect();
    assert_eq!(numbers, listed, "what is listed is read, in its order");
    fragments
}

/// Every fragment that was reported is there once, with its bytes; and everything that was sent is there.
fn check(ledger: &Ledger, sent: &BTreeMap<u64, Vec<Sha>>, fragments: &[Fragment]) {
    let mut by_number = BTreeMap::new();
    for fragment in fragments {
        let frames: Vec<Sha> = fragment.frames.iter().map(|frame| sha(&frame.data)).collect();
        assert_eq!(
            sent.get(&fragment.start.timecode),
            Some(&frames),
            "the frames of {}",
            fragment.start.timecode
        );
        let number = fragment.number().unwrap().to_string();
        assert_eq!(by_number.insert(number, fragment.start.timecode), None, "listed once");
    }
    let reported = ledger.0.lock();
    for (number, timecode) in reported.iter() {
        assert_eq!(by_number.get(number), Some(timecode), "reported as PERSISTED");
    }
    let mut timecodes: Vec<u64> = reported.values().copied().collect();
    timecodes.sort_unstable();
    let wanted: Vec<u64> = sent.keys().copied().collect();
    assert_eq!(timecodes, wanted, "every fragment is reported once");
}

/// Sends fragments of frames until told to stop; gives what was sent, by timecode.
async fn send(
    producer: &mut Producer,
    fragments: u64,
    started: Timestamp,
    frame_len: usize,
    pause: Duration,
) -> BTreeMap<u64, Vec<Sha>> {
    let mut writer = producer.frames(&[video()], FrameOptions::new(started)).unwrap();
    let mut sent: BTreeMap<u64, Vec<Sha>> = BTreeMap::new();
    for count in 0..fragments {
        for frame in 0..4_u64 {
            let data = noise(frame_len, count * 4 + frame);
            let begin = u64::try_from(started.millis()).unwrap() + count * 1000;
            sent.entry(begin).or_default().push(sha(&data));
            let time = Duration::from_millis(count * 1000 + frame * 40);
            writer
                .send(EncodedFrame {
                    track: 1,
                    time,
                    key: frame == 0,
                    data,
                })
                .await
                .unwrap();
            tokio::time::sleep(pause).await;
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_persisted_is_lost_when_the_server_is_killed_and_started_again() {
    let Some(mut server) = Server::with_stream(24).await else {
        return;
    };
    let ledger = Ledger::default();
    let mut config = ProducerConfig::new(stream());
    quick(&mut config);
    config.on_event = Some(ledger.hook());
    let client = server.client();
    let mut producer = Producer::start(client.clone(), config);
    let started = client.clock().now();
    let sending = tokio::spawn(async move {
        let sent = send(&mut producer, 120, started, 4000, Duration::from_millis(2)).await;
        (sent, producer.finish().await)
    });
    for _ in 0..2 {
        let reported = ledger.0.lock().len();
        // Kills it in the midst: when a few more were confirmed.
        while ledger.0.lock().len() < reported + 15 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            server.restart();
            server
        })
        .await
        .unwrap();
    }
    let (sent, finished) = sending.await.unwrap();
    let stats = finished.unwrap();
    assert!(stats.connections >= 3 && stats.confirmed == 120, "{stats:?}");
    check(&ledger, &sent, &stored(&client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_is_cut_again_and_again_costs_no_fragment() {
    let Some(server) = Server::with_stream(24).await else {
        return;
    };
    let wire = Wire::to(server.address.clone()).await;
    let ledger = Ledger::default();
    let mut config = ProducerConfig::new(stream());
    quick(&mut config);
    config.on_event = Some(ledger.hook());
    let client = support::client_at(&wire.address);
    let mut producer = Producer::start(client.clone(), config);
    let started = client.clock().now();
    let sending = tokio::spawn(async move {
        let sent = send(&mut producer, 60, started, 20_000, Duration::from_millis(3)).await;
        (sent, producer.finish().await)
    });
    for cut in 1..=6 {
        while ledger.0.lock().len() < cut * 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        wire.cut();
    }
    let (sent, finished) = sending.await.unwrap();
    let stats = finished.unwrap();
    assert!(stats.connections >= 6 && stats.resent > 0, "{stats:?}");
    check(&ledger, &sent, &stored(&server.client()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_stored_byte_by_byte_and_faster_than_it_plays() {
    let Some(server) = Server::with_stream(24).await else {
        return;
    };
    let mut file = writer::header(&writer::StreamInfo::default(), &[video()]).to_vec();
    let mut clusters = Vec::new();
    for count in 0..50_u64 {
        let mut cluster = bytes::BytesMut::new();
        writer::put_cluster_head(&mut cluster, count * 2000);
        writer::put_simple_block_head(&mut cluster, 1, 0, true, 100_000);
        cluster.extend_from_slice(&noise(100_000, count));
        clusters.push(cluster.freeze());
    }
    clusters.iter().for_each(|cluster| file.extend_from_slice(cluster));
    let mut config = ProducerConfig::new(stream());
    quick(&mut config);
    config.buffer_bytes_max = 1 << 20;
    let client = server.client();
    let mut producer = Producer::start(client.clone(), config);
    let started = client.clock().now();
    let options = FeedOptions {
        pace: Pace::Fast,
        timecodes: TimecodeType::Relative,
        started,
    };
    let fed = producer.feed(file.as_slice(), &options).await.unwrap();
    assert_eq!((fed.fragments, fed.bytes), (50, file.len() as u64));
    producer.flush().await.unwrap();
    let peak = producer.stats().buffered_bytes_peak;
    assert!(peak < (1 << 20) + 64 * 1024, "the buffer keeps its bound: {peak}");
    // After a flush the same producer goes on, with another recording.
    producer
        .feed(
            file.as_slice(),
            &FeedOptions {
                started: started.plus_millis(100_000),
                ..options
            },
        )
        .await
        .unwrap();
    producer.finish().await.unwrap();
    let fragments = stored(&client).await;
    assert_eq!(fragments.len(), 100);
    for (index, fragment) in fragments.iter().enumerate() {
        assert!(fragment.body().starts_with(&clusters[index % 50]), "fragment {index}");
        let wanted = started.plus_millis(i64::try_from(index).unwrap() * 2000);
        assert_eq!(fragment.start.producer_timestamp, Some(wanted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_fragment_is_told_by_its_error_and_the_rest_is_stored() {
    let Some(server) = Server::with_stream(24).await else {
        return;
    };
    let mut file = writer::header(&writer::StreamInfo::default(), &[video()]).to_vec();
    // The third goes back in time.
    for timecode in [0_u64, 2000, 1000, 4000, 6000] {
        let mut cluster = bytes::BytesMut::new();
        writer::put_cluster_head(&mut cluster, timecode);
        writer::put_simple_block_head(&mut cluster, 1, 0, true, 5);
        cluster.extend_from_slice(b"frame");
        file.extend_from_slice(&cluster);
    }
    let mut config = ProducerConfig::new(stream());
    quick(&mut config);
    let client = server.client();
    let mut producer = Producer::start(client.clone(), config);
    let mut events = producer.events();
    let options = FeedOptions {
        pace: Pace::Fast,
        timecodes: TimecodeType::Relative,
        started: client.clock().now(),
    };
    producer.feed(file.as_slice(), &options).await.unwrap();
    let undelivered = producer.finish().await.unwrap_err();
    assert_eq!((undelivered.lost_count, undelivered.unconfirmed.len()), (1, 0));
    assert_eq!(undelivered.lost[0].fragment.timecode, 1000);
    assert!(
        matches!(&undelivered.lost[0].reason, LossReason::Refused { id: 4004, .. }),
        "{undelivered}"
    );
    let mut errors = Vec::new();
    while let Some(event) = events.next().await {
        if let ProducerEvent::Ack { ack, .. } = event
            && ack.event == EventType::Error
        {
            errors.push(ack.error_code.unwrap());
        }
    }
    assert_eq!(errors, ["FRAGMENT_TIMECODE_LESSER_THAN_PREVIOUS"]);
    let mut timecodes: Vec<u64> = stored(&client)
        .await
        .iter()
        .map(|fragment| fragment.start.timecode)
        .collect();
    timecodes.sort_unstable();
    assert_eq!(timecodes, [0, 2000, 4000, 6000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_without_a_server_keeps_the_newest_within_its_bound() {
    let Some(mut server) = Server::with_stream(24).await else {
        return;
    };
    let client = server.client();
    server.kill();
    let mut config = ProducerConfig::new(stream());
    quick(&mut config);
    config.overflow = Overflow::DropOldest;
    config.buffer_bytes_max = 200_000;
    let ledger = Ledger::default();
    config.on_event = Some(ledger.hook());
    let mut producer = Producer::start(client.clone(), config);
    let started = client.clock().now();
    let mut sent = send(&mut producer, 50, started, 5000, Duration::ZERO).await;
    let stats = producer.stats();
    assert!(stats.buffered_bytes_peak <= 200_000 && stats.lost >= 40, "{stats:?}");
    let kept = stats.buffered_fragments;
    tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .map(drop_later)
    .unwrap()
    .finish(producer, &client, &ledger, &mut sent, kept)
    .await;
}

/// Keeps the server until what was kept is stored.
struct Later(Server);

fn drop_later(server: Server) -> Later {
    Later(server)
}

impl Later {
    async fn finish(
        self,
        producer: Producer,
        client: &Client,
        ledger: &Ledger,
        sent: &mut BTreeMap<u64, Vec<Sha>>,
        kept: usize,
    ) {
        let undelivered = producer.finish().await.unwrap_err();
        assert!(
            undelivered.unconfirmed.is_empty() && undelivered.lost_count > 0,
            "{undelivered}"
        );
        let newest: Vec<u64> = sent.keys().rev().take(kept).copied().collect();
        sent.retain(|timecode, _| newest.contains(timecode));
        check(ledger, sent, &stored(client).await);
        drop(self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_retention_confirms_what_it_received_and_a_missing_one_says_what_to_do() {
    let Some(server) = Server::with_stream(0).await else {
        return;
    };
    let mut config = ProducerConfig::new(stream());
    quick(&mut config);
    let client = server.client();
    let mut producer = Producer::start(client.clone(), config.clone());
    send(&mut producer, 3, client.clock().now(), 100, Duration::ZERO).await;
    assert_eq!(producer.finish().await.unwrap().confirmed, 3);

    config.stream = client::StreamName::Name("window".to_owned());
    let mut producer = Producer::start(client.clone(), config);
    let mut writer = producer
        .frames(&[video()], FrameOptions::new(client.clock().now()))
        .unwrap();
    let frame = EncodedFrame {
        track: 1,
        time: Duration::ZERO,
        key: true,
        data: noise(100, 0),
    };
    writer.send(frame).await.unwrap();
    let undelivered = producer.finish().await.unwrap_err();
    assert_eq!(undelivered.unconfirmed.len(), 1);
    let error = undelivered.error.clone().unwrap();
    assert!(matches!(&*error, ProducerError::Refused(_)), "{error}");
    assert!(error.to_string().contains("make the stream first"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_relieved_by_another_at_a_fragments_end() {
    let Some(server) = Server::with_stream(24).await else {
        return;
    };
    let ledger = Ledger::default();
    let mut config = ProducerConfig::new(stream());
    quick(&mut config);
    config.connection_age_max = Duration::from_millis(200);
    config.on_event = Some(ledger.hook());
    let client = server.client();
    let mut producer = Producer::start(client.clone(), config);
    let started = client.clock().now();
    let sent = send(&mut producer, 60, started, 1000, Duration::from_millis(4)).await;
    let stats = producer.finish().await.unwrap();
    assert!(stats.connections >= 3, "{stats:?}");
    assert_eq!(
        (stats.failures, stats.resent),
        (0, 0),
        "a relief loses nothing and repeats nothing"
    );
    let fragments = stored(&client).await;
    assert_eq!(fragments.len(), 60);
    let order: Vec<u64> = fragments.iter().map(|fragment| fragment.start.timecode).collect();
    assert!(
        order.is_sorted(),
        "numbers keep the order of the fragments over connections"
    );
    check(&ledger, &sent, &fragments);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_falls_silent_keeps_its_last_seconds() {
    let Some(server) = Server::with_stream(24).await else {
        return;
    };
    let ledger = Ledger::default();
    let mut config = ProducerConfig::new(stream());
    quick(&mut config);
    config.end_idle_after = Duration::from_millis(100);
    config.on_event = Some(ledger.hook());
    let client = server.client();
    let mut producer = Producer::start(client.clone(), config);
    send(&mut producer, 1, client.clock().now(), 100, Duration::ZERO).await;
    // Nobody ends the fragment or the producer.
    let waiting = async {
        while ledger.0.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("PERSISTED");
    assert_eq!(stored(&client).await.len(), 1);
}
