//! PutMedia connections when not all goes well: too many of them, silence, a full disk, a client that leaves, bytes that
//! are no video.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::Timestamp;
use bytes::{Bytes, BytesMut};
use common::testing::Body;
use common::{Service, absolute, data, fragment};
use storage::{
    Coverage, CoverageQuery, Cursor, Error, FragmentInfo, FragmentNumber, FragmentQuery, FragmentSink, FragmentSummary,
    FrameEntry, MediaStore, StreamId, TimeAxis, Usage,
};
use tokio::sync::watch;
use video_streams::Settings;
use wire::kinesisvideo_media::{FragmentTimecodeType, PutMediaInput};

fn nothing() -> Body {
    Body(BytesMut::new())
}

#[tokio::test]
async fn the_sixth_connection_is_refused_until_one_ends() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(service.open_put(absolute("cam")).await.unwrap());
    }
    let refused = service.open_put(absolute("cam")).await.err().unwrap();
    assert_eq!(refused.code, "ConnectionLimitExceededException");
    open.pop().unwrap().finish().await;
    let another = service.open_put(absolute("cam")).await.unwrap();
    assert!(
        service
            .metrics
            .render()
            .unwrap()
            .contains("sightglass_video_connections{operation=\"PutMedia\"} 5")
    );
    drop((open, another));
}

#[tokio::test]
async fn what_can_be_refused_before_the_body_is() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    assert_eq!(
        service.open_put(absolute("none")).await.err().unwrap().code,
        "ResourceNotFoundException"
    );
    let unnamed = PutMediaInput {
        stream_name: None,
        ..absolute("cam")
    };
    assert_eq!(
        service.open_put(unnamed).await.err().unwrap().code,
        "InvalidArgumentException"
    );
    let relative = |start| PutMediaInput {
        fragment_timecode_type: FragmentTimecodeType::Relative,
        producer_start_timestamp: start,
        ..absolute("cam")
    };
    assert_eq!(
        service.open_put(relative(None)).await.err().unwrap().code,
        "InvalidArgumentException"
    );
    let put = service
        .open_put(relative(Some(Timestamp::from_millis(5000))))
        .await
        .unwrap();
    put.send(&fragment(Body::new(&[1]), 1500).bytes()).await;
    assert_eq!(
        put.finish().await,
        ["BUFFERING 1500", "RECEIVED 1500", "PERSISTED 1500"],
        "timecodes as sent"
    );
    assert_eq!(
        service.list("cam").await[0].producer_timestamp,
        Some(Timestamp::from_millis(6500))
    );
}

#[tokio::test]
async fn a_producer_that_wants_no_acks_gets_none() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let input = PutMediaInput {
        fragment_acknowledgment_required: Some(false),
        ..absolute("cam")
    };
    let put = service.open_put(input).await.unwrap();
    put.send(&fragment(Body::new(&[1]), 1000).bytes()).await;
    assert!(put.finish().await.is_empty());
    assert_eq!(service.list("cam").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_and_ends_the_connection_after_thirty_seconds() {
    let service = Service::start().await;
    service.create("cam", 0).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    let began = tokio::time::Instant::now();
    put.send(&fragment(Body::new(&[1]), 1000).cluster(2000).frame(1, 0).bytes())
        .await;
    let mut acks = Vec::new();
    while let Some(ack) = put.ack().await {
        acks.push(ack);
    }
    assert_eq!(acks[..3], ["BUFFERING 1000", "RECEIVED 1000", "BUFFERING 2000"]);
    assert!(acks[3..].iter().all(|ack| ack == "IDLE 2000"), "{acks:?}");
    assert_eq!(acks.len(), 3 + 5);
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(
        service.list("cam").await.len(),
        1,
        "the fragment that was not whole is discarded"
    );
}

#[tokio::test]
async fn a_connection_ends_after_forty_five_minutes_where_a_fragment_begins() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    put.send(&Body::new(&[1]).cluster(1000).frame(1, 0).bytes()).await;
    put.wait_for("BUFFERING 1000").await;
    service.clock.advance(Duration::from_secs(45 * 60 + 1));
    put.send(&nothing().frame(1, 40).end_of_fragment().bytes()).await;
    put.wait_for("PERSISTED 1000").await;
    put.send(&nothing().cluster(2000).frame(1, 0).bytes()).await;
    assert_eq!(put.finish().await, ["ERROR 4003 2000"]);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_connection_and_leaves_its_whole_fragments() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let mut put = service.open_put(absolute("cam")).await.unwrap();
    put.send(&fragment(Body::new(&[1]), 1000).cluster(2000).frame(1, 0).bytes())
        .await;
    put.wait_for("BUFFERING 2000").await;
    let common::Put { body, acks } = put;
    drop(acks);
    body.unwrap().closed().await;
    while service.list("cam").await.is_empty() {
        tokio::task::yield_now().await;
    }
    while !service
        .metrics
        .render()
        .unwrap()
        .contains("sightglass_video_connections{operation=\"PutMedia\"} 0")
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.list("cam").await.len(), 1);
}

/// A store whose disk is full when told so.
struct Full {
    inner: Arc<dyn MediaStore>,
    full: Arc<AtomicBool>,
}

struct FullSink {
    inner: Box<dyn FragmentSink>,
    full: Arc<AtomicBool>,
}

#[async_trait]
impl FragmentSink for FullSink {
    fn number(&self) -> FragmentNumber {
        self.inner.number()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.inner.write(bytes).await
    }

    async fn commit(self: Box<Self>, summary: FragmentSummary) -> Result<FragmentInfo, Error> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(Error::DiskFull),
            false => self.inner.commit(summary).await,
        }
    }
}

#[async_trait]
impl MediaStore for Full {
    async fn allocate_number(&self, stream: StreamId, server: Timestamp) -> Result<FragmentNumber, Error> {
        self.inner.allocate_number(stream, server).await
    }
    async fn begin(&self, stream: StreamId, number: FragmentNumber) -> Result<Box<dyn FragmentSink>, Error> {
        Ok(Box::new(FullSink {
            inner: self.inner.begin(stream, number).await?,
            full: self.full.clone(),
        }))
    }
    async fn get(&self, stream: StreamId, number: FragmentNumber) -> Result<FragmentInfo, Error> {
        self.inner.get(stream, number).await
    }
    async fn list(&self, stream: StreamId, query: &FragmentQuery) -> Result<Vec<FragmentInfo>, Error> {
        self.inner.list(stream, query).await
    }
    async fn coverage(&self, stream: StreamId, query: &CoverageQuery) -> Result<Coverage, Error> {
        self.inner.coverage(stream, query).await
    }
    async fn latest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error> {
        self.inner.latest(stream).await
    }
    async fn earliest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error> {
        self.inner.earliest(stream).await
    }
    async fn find_containing(&self, s: StreamId, axis: TimeAxis, at: Timestamp) -> Result<Option<FragmentInfo>, Error> {
        self.inner.find_containing(s, axis, at).await
    }
    async fn next_after(&self, stream: StreamId, cursor: Cursor) -> Result<Option<FragmentInfo>, Error> {
        self.inner.next_after(stream, cursor).await
    }
    async fn frames(&self, stream: StreamId, number: FragmentNumber) -> Result<Vec<FrameEntry>, Error> {
        self.inner.frames(stream, number).await
    }
    async fn read(&self, stream: StreamId, number: FragmentNumber, range: Range<u32>) -> Result<Bytes, Error> {
        self.inner.read(stream, number, range).await
    }
    async fn trim(&self, stream: StreamId, older_than: Timestamp) -> Result<u64, Error> {
        self.inner.trim(stream, older_than).await
    }
    async fn trim_to_size(&self, stream: StreamId, max_bytes: u64) -> Result<u64, Error> {
        self.inner.trim_to_size(stream, max_bytes).await
    }
    async fn trim_all_to_size(&self, max_bytes: u64) -> Result<u64, Error> {
        self.inner.trim_all_to_size(max_bytes).await
    }
    async fn delete_stream(&self, stream: StreamId) -> Result<(), Error> {
        self.inner.delete_stream(stream).await
    }
    async fn usage(&self, stream: StreamId) -> Result<Usage, Error> {
        self.inner.usage(stream).await
    }
    fn subscribe(&self, stream: StreamId) -> watch::Receiver<u64> {
        self.inner.subscribe(stream)
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_ingest_goes_on_when_space_returns() {
    let full = Arc::new(AtomicBool::new(false));
    let wrapped = full.clone();
    let wrap = move |inner| Arc::new(Full { inner, full: wrapped }) as Arc<dyn MediaStore>;
    let service = Service::with(Settings::default(), wrap).await;
    service.create("cam", 1).await;
    let mut viewer = service
        .view(
            "cam",
            common::selector(wire::kinesisvideo_media::StartSelectorType::Now),
        )
        .await;
    let body = |timecode| fragment(Body::new(&[1]), timecode).bytes();
    assert_eq!(
        service.put("cam", &body(1000), &[9]).await.last().unwrap(),
        "PERSISTED 1000"
    );
    full.store(true, Ordering::SeqCst);
    let acks = service.put("cam", &body(2000), &[9]).await;
    assert_eq!(acks, ["BUFFERING 2000", "RECEIVED 2000", "ERROR 5001 2000"]);
    assert_eq!(service.list("cam").await.len(), 1, "reads go on");
    full.store(false, Ordering::SeqCst);
    assert_eq!(
        service.put("cam", &body(3000), &[9]).await.last().unwrap(),
        "PERSISTED 3000"
    );
    viewer.until_complete(2).await;
    assert_eq!(viewer.complete(), [1000, 3000], "no token for what is not stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragment_of_51_megabytes_is_refused() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let put = service.open_put(absolute("cam")).await.unwrap();
    let send = async {
        put.send(&Body::new(&[1]).cluster(1000).bytes()).await;
        for n in 0..51 {
            put.send(&nothing().big_frame(1, n, 1_000_000).bytes()).await;
        }
        put.finish().await
    };
    assert_eq!(send.await, ["BUFFERING 1000", "ERROR 4001 1000"]);
    assert!(service.list("cam").await.is_empty());
}

/// A copy of `body` with something wrong in it, drawn from `random`.
fn mutate(body: &Bytes, random: &mut fastrand::Rng) -> Bytes {
    let mut bytes = body.to_vec();
    // Most of the structure is near the front; damage there is worth more.
    let end = if random.bool() {
        bytes.len()
    } else {
        bytes.len().min(2000)
    };
    let at = random.usize(..end);
    match random.u8(..6) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << random.u8(..8),
        2 => bytes[at] = random.u8(..),
        3 => drop(bytes.drain(at..(at + random.usize(1..400)).min(body.len()))),
        4 => {
            let length = random.usize(1..400);
            let insert: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            drop(bytes.splice(at..at, insert));
        }
        _ => {
            let from = random.usize(..bytes.len());
            let copy = bytes[from..(from + 5000).min(bytes.len())].to_vec();
            drop(bytes.splice(at..at, copy));
        }
    }
    Bytes::from(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_bodies_end_with_a_declared_error_or_cleanly_and_cost_nothing_that_was_acknowledged() {
    let service = Service::start().await;
    let mut random = fastrand::Rng::with_seed(4577);
    let codes = [4001, 4002, 4004, 4006, 4007, 4009, 4010, 4011, 4012];
    for folder in ["putmedia", "mkv"] {
        for (file, body) in data(folder) {
            for round in 0..6 {
                let name = format!("{file}-{round}");
                service.create(&name, 1).await;
                let broken = mutate(&body, &mut random);
                let acks = service.put(&name, &broken, &[64 * 1024, 100]).await;
                let errors: Vec<_> = acks.iter().filter(|ack| ack.starts_with("ERROR")).collect();
                assert!(errors.len() <= 1, "{acks:?}");
                if let Some(error) = errors.first() {
                    assert_eq!(acks.last(), Some(*error), "nothing follows an error");
                    assert!(
                        codes.iter().any(|code| error.starts_with(&format!("ERROR {code}"))),
                        "{error}"
                    );
                }
                let persisted = acks.iter().filter(|ack| ack.starts_with("PERSISTED")).count();
                assert_eq!(service.list(&name).await.len(), persisted, "{name}: {acks:?}");
            }
        }
    }
}
