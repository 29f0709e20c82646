//! A server without HTTP, camera or model: the real collections and catalog, and fakes of vision, video and records whose
//! behaviour follows from their input alone.
#![allow(dead_code)]

pub mod labels;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::metrics::Metrics;
use base::{
    AccountId, ApiError, Authorizer, Caller, Clock, Handle, Operation, Request, RequestContext, ResourceName,
    SystemClock, Timestamp,
};
use bytes::Bytes;
use faces::{FaceStore, ModelVersion};
use labels::{FlakyBuckets, objects_in, wanted};
use matroska::{Track, TrackKind};
use objects::MemoryBuckets;
use parking_lot::Mutex;
use rekognition::ports::{
    Feed, Film, FrameSink, ObjectFailure, ObjectSource, OutcomeSource, RecordSink, SinkError, StoredFeed, VideoSource,
    Vision, VisionSession,
};
use rekognition::{Parts, Rekognition};
use storage::{Catalog, FragmentNumber, MemoryCatalog, StreamId};
use tokio::sync::{Notify, mpsc};
use video_streams::consumer::{
    ConsumerError, Event, FragmentEnd, FragmentStart, Frame as VideoFrame, Outcome, StartAt, StreamRef,
};
use video_streams::ports::{DeliveryError, StillCodec, TopicMessage, Topics};
use video_streams::stored::{StoredFragment, StoredFrame, StoredVideo, TimeAxis};
use vision::{
    Abilities, BoundingBox, Face, FilmError, FilmFault, FilmFrame, FilmInfo, FilmSource, Frame, FrameOutcome,
    FramesRequest, ImageAnalysis, ImageError, ImageOptions, LabelAnalysis, Mode, OpenError, SendReport, SessionClosed,
    SessionConfig, SkipReason, StillError, StillsError,
};

pub const MODEL: &str = "fake-1";
pub const REGION: &str = "us-west-2";

/// A picture for the fakes: `FACES` and for each face `who:left:width`, e.g. `FACES 7:0.1:0.2 9:0.5:0.1`.
pub fn picture(faces: &[(u64, f32, f32)]) -> Bytes {
    let parts: Vec<String> = faces
        .iter()
        .map(|(who, left, width)| format!("{who}:{left}:{width}"))
        .collect();
    format!("FACES {}", parts.join(" ")).into()
}

/// The same of one face that is followed, with its track.
pub fn tracked(who: u64, track: u64) -> Bytes {
    format!("FACES {who}:0.25:0.25:{track}").into()
}

/// The vector of person `who`. 7, 1007 and 2007 are pictures of the same person (cosine about 0.9).
pub fn vector_of(who: u64) -> Vec<f32> {
    let mut person = fastrand::Rng::with_seed(who % 1000);
    let mut looks = fastrand::Rng::with_seed(who + 77_777);
    let spread = |rng: &mut fastrand::Rng| rng.f32() * 2.0 - 1.0;
    (0..64)
        .map(|_| spread(&mut person) + 0.3 * spread(&mut looks))
        .collect()
}

fn faces_in(data: &[u8]) -> Option<Vec<Face>> {
    let text = std::str::from_utf8(data).ok()?.strip_prefix("FACES")?;
    let face = |part: &str| {
        let mut numbers = part.split(':');
        let who: u64 = numbers.next()?.parse().ok()?;
        let left: f32 = numbers.next()?.parse().ok()?;
        let width: f32 = numbers.next()?.parse().ok()?;
        let mut face = Face {
            bounding_box: BoundingBox {
                left,
                top: 0.1,
                width,
                height: width,
            },
            confidence: 99.0,
            embedding: Some(vector_of(who)),
            track_id: numbers.next().and_then(|track| track.parse().ok()),
            ..Face::default()
        };
        face.quality.brightness = 60.0;
        face.quality.sharpness = 60.0;
        Some(face)
    };
    text.split_whitespace().map(face).collect()
}

/// Sees what [`picture`] says, at once.
#[derive(Default)]
pub struct FakeVision {
    pub sessions: Mutex<Vec<SessionConfig>>,
    pub modes: Mutex<Vec<Mode>>,
    /// How many films were opened.
    pub films: AtomicUsize,
    /// So many films more break off at once.
    pub broken_films: AtomicUsize,
    /// The frames that were looked at for objects, question by question.
    pub looks: Mutex<Vec<Vec<String>>>,
    /// What the next looks at frames answer instead of what the frames show.
    pub look_failures: Mutex<VecDeque<StillsError>>,
    /// There is no model of objects.
    pub no_labels: AtomicBool,
}

#[async_trait]
impl Vision for FakeVision {
    fn model(&self) -> ModelVersion {
        ModelVersion {
            id: MODEL.to_owned(),
            dimensions: 64,
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            attributes: false,
            labels: !self.no_labels.load(Ordering::Acquire),
        }
    }

    async fn frame_objects(
        &self,
        request: FramesRequest,
    ) -> Result<Vec<Result<LabelAnalysis, StillError>>, StillsError> {
        let failure = self.look_failures.lock().pop_front();
        failure.map_or(Ok(()), Err)?;
        assert!(request.packets.first().is_some_and(|packet| packet.fresh));
        let wanted: Vec<Bytes> = wanted(&request).collect();
        let text = |data: &Bytes| String::from_utf8_lossy(data).into_owned();
        self.looks.lock().push(wanted.iter().map(text).collect());
        let analysis = |data: &Bytes| {
            let objects = objects_in(data).ok_or(StillError::Undecodable)?;
            Ok(LabelAnalysis {
                width: 640,
                height: 360,
                objects,
            })
        };
        Ok(wanted.iter().map(analysis).collect())
    }

    async fn frame_parts(
        &self,
        request: FramesRequest,
        area: BoundingBox,
        _: u8,
    ) -> Result<Vec<Result<Bytes, StillError>>, StillsError> {
        let BoundingBox {
            left,
            top,
            width,
            height,
        } = area;
        let part = |data: Bytes| {
            let text = String::from_utf8_lossy(&data);
            Ok(format!("{left} {top} {width} {height} of {text}").into())
        };
        Ok(wanted(&request).map(part).collect())
    }

    async fn analyze_image(&self, _: AccountId, image: Bytes, _: ImageOptions) -> Result<ImageAnalysis, ImageError> {
        match &image[..] {
            b"GIF" => Err(ImageError::UnsupportedFormat),
            b"HUGE" => Err(ImageError::TooLarge {
                width: 20_000,
                height: 20_000,
            }),
            b"TINY" => Err(ImageError::TooSmall { width: 1, height: 1 }),
            data => Ok(ImageAnalysis {
                width: 1000,
                height: 1000,
                faces: faces_in(data).ok_or(ImageError::NotAnImage)?,
            }),
        }
    }

    fn open_session(&self, config: SessionConfig) -> Result<VisionSession, OpenError> {
        self.modes.lock().push(config.mode);
        self.sessions.lock().push(config);
        let (sender, receiver) = mpsc::channel(64);
        Ok((Box::new(FakeSink(sender)), Box::new(FakeOutcomes(receiver))))
    }

    async fn open_film(
        &self,
        _: AccountId,
        size: u64,
        source: Box<dyn FilmSource>,
    ) -> Result<Box<dyn Film>, FilmError> {
        self.films.fetch_add(1, Ordering::AcqRel);
        let broken = self
            .broken_films
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if broken.is_ok() {
            return Err(FilmError::Worker("it ended".to_owned()));
        }
        Ok(Box::new(FakeFilm::open(size, source).await?))
    }
}

struct FakeSink(mpsc::Sender<FrameOutcome>);

struct FakeOutcomes(mpsc::Receiver<FrameOutcome>);

#[async_trait]
impl FrameSink for FakeSink {
    async fn send(&mut self, frame: Frame) -> Result<SendReport, SessionClosed> {
        let outcome = match faces_in(&frame.data) {
            Some(faces) => FrameOutcome::Analysed {
                id: frame.id,
                time_ms: frame.time_ms,
                width: 640,
                height: 360,
                faces,
            },
            None => FrameOutcome::Skipped {
                id: frame.id,
                reason: SkipReason::Damaged,
            },
        };
        self.0.send(outcome).await.map_err(|_| SessionClosed)?;
        Ok(SendReport::default())
    }

    fn set_mode(&mut self, _: Mode) {}

    fn mark_gap(&mut self) {}
}

#[async_trait]
impl OutcomeSource for FakeOutcomes {
    async fn next(&mut self) -> Option<FrameOutcome> {
        self.0.recv().await
    }
}

/// A film for the fakes: for each frame its time in milliseconds and a [`picture`].
pub fn film(frames: &[(i64, Bytes)]) -> Bytes {
    let line = |(time, picture): &(i64, Bytes)| format!("{time} {}\n", std::str::from_utf8(picture).unwrap());
    format!("FILM\n{}", frames.iter().map(line).collect::<String>()).into()
}

struct FakeFilm {
    info: FilmInfo,
    frames: std::collections::VecDeque<FilmFrame>,
    /// Never comes to its end.
    endless: bool,
}

impl FakeFilm {
    async fn open(size: u64, mut source: Box<dyn FilmSource>) -> Result<FakeFilm, FilmError> {
        let bytes = source.read(0, size as usize).await.map_err(FilmError::Source)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| FilmFault::NotAFilm)?;
        let lines = text.strip_prefix("FILM").ok_or(FilmFault::NotAFilm)?.lines().skip(1);
        let frame = |line: &str| {
            let (time, picture) = line.split_once(' ')?;
            Some(FilmFrame {
                time_ms: time.parse().ok()?,
                key: true,
                shown: true,
                data: Bytes::copy_from_slice(picture.as_bytes()),
            })
        };
        Ok(FakeFilm {
            info: FilmInfo {
                codec: vision::Codec::H264,
                codec_private: Bytes::new(),
                format: "Fake".to_owned(),
                width: 640,
                height: 360,
                duration_ms: 4000,
                frame_rate: 25.0,
                color_range: Some(vision::ColorRange::Limited),
                orientation: 1,
            },
            frames: lines.filter_map(frame).collect(),
            endless: text.starts_with("FILM endless"),
        })
    }
}

#[async_trait]
impl Film for FakeFilm {
    fn info(&self) -> &FilmInfo {
        &self.info
    }

    async fn next(&mut self) -> Result<Option<FilmFrame>, FilmError> {
        match self.frames.pop_front() {
            None if self.endless => std::future::pending().await,
            next => Ok(next),
        }
    }
}

/// Takes what is published, unless it is told to fail first.
#[derive(Default)]
pub struct FakeTopics {
    pub published: Mutex<Vec<TopicMessage>>,
    pub failures: AtomicUsize,
}

pub const TOPIC: &str = "arn:aws:sns:us-west-2:000000000000:ended";

#[async_trait]
impl Topics for FakeTopics {
    fn knows(&self, topic_arn: &str) -> bool {
        topic_arn == TOPIC
    }

    async fn publish(&self, message: &TopicMessage) -> Result<(), DeliveryError> {
        let left = self
            .failures
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(DeliveryError::Failed("the receiver is away".to_owned()));
        }
        self.published.lock().push(message.clone());
        Ok(())
    }
}

/// A track without more than it must have.
pub fn track(number: u64, kind: TrackKind, codec_id: &str, codec_private: &str) -> Track {
    Track {
        number,
        uid: number,
        kind,
        codec_id: codec_id.to_owned(),
        codec_private: Bytes::copy_from_slice(codec_private.as_bytes()),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: None,
        audio: None,
    }
}

/// Streams as lists of events.
#[derive(Default)]
pub struct FakeVideo {
    streams: Mutex<HashMap<String, Vec<Event>>>,
    changed: Arc<Notify>,
    pub fragments: Mutex<u64>,
    /// Where readers began.
    pub opened: Mutex<Vec<StartAt>>,
}

impl FakeVideo {
    pub fn create(&self, arn: &str) {
        self.streams.lock().insert(arn.to_owned(), Vec::new());
    }

    pub fn delete(&self, arn: &str) {
        self.streams.lock().remove(arn);
        self.changed.notify_waiters();
    }

    fn push(&self, arn: &str, event: Event) {
        self.streams.lock().get_mut(arn).unwrap().push(event);
        self.changed.notify_waiters();
    }

    /// Begins a fragment of H.264 with the given CodecPrivate.
    pub fn begin(&self, arn: &str, codec_private: &str) -> FragmentNumber {
        let count = {
            let mut count = self.fragments.lock();
            *count += 1;
            *count
        };
        let start = Timestamp::from_millis(1_700_000_000_000 + count as i64 * 1000);
        let number = FragmentNumber::new(count, start.millis() as u64, 7);
        let audio = track(1, TrackKind::Audio, "A_AAC", codec_private);
        let video = track(2, TrackKind::Video, "V_MPEG4/ISO/AVC", codec_private);
        self.push(
            arn,
            Event::FragmentStart(FragmentStart {
                number,
                server_timestamp: start,
                producer_timestamp: start.plus_millis(-500),
                tracks: [audio, video].into(),
                timecode_scale_ns: 1_000_000,
                live: true,
            }),
        );
        number
    }

    pub fn frame(&self, arn: &str, fragment: FragmentNumber, offset_ms: f64, data: Bytes, arrived: Duration) {
        for (track, data) in [(1, Bytes::from_static(b"sound")), (2, data)] {
            let frame = VideoFrame {
                fragment,
                track,
                offset_ms,
                key: offset_ms == 0.0,
                laced: false,
                data,
                arrived,
            };
            self.push(arn, Event::Frame(frame));
        }
    }

    pub fn end(&self, arn: &str, number: FragmentNumber, outcome: Outcome) {
        self.push(arn, Event::FragmentEnd(FragmentEnd { number, outcome }));
    }

    /// When each fragment was filmed.
    pub fn starts(&self, arn: &str) -> Vec<Timestamp> {
        let start = |event: &Event| match event {
            Event::FragmentStart(start) => Some(start.producer_timestamp),
            _ => None,
        };
        self.streams.lock()[arn].iter().filter_map(start).collect()
    }

    /// A whole stored fragment of frames 100 ms apart.
    pub fn fragment(&self, arn: &str, frames: &[Bytes]) -> FragmentNumber {
        let number = self.begin(arn, "avcC");
        for (index, data) in frames.iter().enumerate() {
            self.frame(arn, number, index as f64 * 100.0, data.clone(), Duration::ZERO);
        }
        self.end(arn, number, Outcome::Stored { position: 1 });
        number
    }
}

/// So that a test can hold what the server has.
pub struct Shared<T>(pub Arc<T>);

#[async_trait]
impl VideoSource for Shared<FakeVideo> {
    async fn open(&self, stream: &StreamRef, start: StartAt) -> Result<Box<dyn Feed>, ConsumerError> {
        let streams = self.0.streams.lock();
        let Some(events) = streams.get(&stream.stream) else {
            return Err(ConsumerError::NotFound(stream.stream.clone()));
        };
        let begins = |from: FragmentNumber| {
            let starts = |event: &Event| matches!(event, Event::FragmentStart(start) if start.number >= from);
            events.iter().position(starts).unwrap_or(events.len())
        };
        self.0.opened.lock().push(start);
        let of_time = |at: Timestamp| {
            let spans = |event: &Event| match event {
                Event::FragmentStart(start) => start.producer_timestamp.plus_millis(1000) > at,
                _ => false,
            };
            events.iter().position(spans).unwrap_or(events.len())
        };
        let next = match start {
            StartAt::Fragment(number) => begins(number),
            StartAt::AfterFragment(number) => begins(FragmentNumber::new(number.sequence() + 1, 0, 0)),
            StartAt::Time(TimeAxis::Producer, at) => of_time(at),
            _ => events.len(),
        };
        Ok(Box::new(FakeFeed {
            video: self.0.clone(),
            arn: stream.stream.clone(),
            next,
            stored: events.len(),
        }))
    }

    async fn stored(
        &self,
        stream: &StreamRef,
        axis: TimeAxis,
        range: Range<Timestamp>,
    ) -> Result<Box<dyn StoredFeed>, ConsumerError> {
        let streams = self.0.streams.lock();
        let events = streams
            .get(&stream.stream)
            .ok_or_else(|| ConsumerError::NotFound(stream.stream.clone()))?;
        let mut fragments: Vec<StoredFragment> = Vec::new();
        for event in events {
            match event {
                Event::FragmentStart(start) => fragments.push(StoredFragment {
                    start: match axis {
                        TimeAxis::Producer => start.producer_timestamp,
                        TimeAxis::Server => start.server_timestamp,
                    },
                    length_ms: 0,
                    video: Some(StoredVideo {
                        codec: StillCodec::H264,
                        codec_private: Bytes::from_static(b"avcC"),
                        frames: Vec::new(),
                    }),
                }),
                Event::Frame(frame) => {
                    let fragment = fragments.last_mut().unwrap();
                    fragment.length_ms = frame.offset_ms as i64 + 100;
                    fragment.video.as_mut().unwrap().frames.push(StoredFrame {
                        time_ms: frame.offset_ms as i64,
                        key: frame.key,
                        data: frame.data.clone(),
                    });
                }
                Event::FragmentEnd(_) | Event::StreamDeleted => {}
            }
        }
        fragments.retain(|fragment| {
            fragment.start < range.end && fragment.start.plus_millis(fragment.length_ms) > range.start
        });
        Ok(Box::new(FakeStored(fragments.into())))
    }

    fn arn(&self, stream: &StreamRef) -> Option<String> {
        self.0
            .streams
            .lock()
            .contains_key(&stream.stream)
            .then(|| stream.stream.clone())
    }
}

struct FakeStored(std::collections::VecDeque<StoredFragment>);

#[async_trait]
impl StoredFeed for FakeStored {
    async fn next(&mut self) -> Result<Option<StoredFragment>, ConsumerError> {
        Ok(self.0.pop_front())
    }
}

struct FakeFeed {
    video: Arc<FakeVideo>,
    arn: String,
    next: usize,
    stored: usize,
}

#[async_trait]
impl Feed for FakeFeed {
    async fn next(&mut self) -> Result<Event, ConsumerError> {
        loop {
            let changed = self.video.changed.clone();
            let changed = changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let streams = self.video.streams.lock();
                let Some(events) = streams.get(&self.arn) else {
                    return Ok(Event::StreamDeleted);
                };
                if let Some(event) = events.get(self.next) {
                    let live = self.next >= self.stored;
                    self.next += 1;
                    return Ok(match event.clone() {
                        Event::FragmentStart(start) => Event::FragmentStart(FragmentStart { live, ..start }),
                        other => other,
                    });
                }
            }
            changed.await;
        }
    }
}

/// Partition key and data.
type Stored = Vec<(String, Bytes)>;

/// Data streams as lists of records.
pub struct FakeRecords {
    streams: Mutex<HashMap<ResourceName, (u64, Stored)>>,
    created: Mutex<u64>,
    changed: Notify,
    /// So many puts fail before the next one succeeds.
    pub failures: Mutex<usize>,
    pub record_bytes_max: AtomicUsize,
}

impl Default for FakeRecords {
    fn default() -> Self {
        FakeRecords {
            streams: Mutex::default(),
            created: Mutex::default(),
            changed: Notify::new(),
            failures: Mutex::default(),
            record_bytes_max: AtomicUsize::new(1 << 20),
        }
    }
}

impl FakeRecords {
    pub fn create(&self, name: &str) {
        let id = {
            let mut created = self.created.lock();
            *created += 1;
            *created
        };
        self.streams.lock().insert(key(name), (id, Vec::new()));
    }

    pub fn delete(&self, name: &str) {
        self.streams.lock().remove(&key(name));
    }

    pub fn all(&self, name: &str) -> Vec<(String, serde_json::Value)> {
        let streams = self.streams.lock();
        let parse = |(key, data): &(String, Bytes)| (key.clone(), serde_json::from_slice(data).unwrap());
        streams[&key(name)].1.iter().map(parse).collect()
    }

    /// Waits until there are so many records.
    pub async fn wait(&self, name: &str, count: usize) -> Vec<serde_json::Value> {
        let enough = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let all = self.all(name);
                if all.len() >= count {
                    return all.into_iter().map(|(_, record)| record).collect();
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), enough).await;
        waited.unwrap_or_else(|_| panic!("{} of {count} records came", self.all(name).len()))
    }
}

#[async_trait]
impl RecordSink for Shared<FakeRecords> {
    async fn find(&self, stream: &ResourceName) -> Result<Option<StreamId>, SinkError> {
        Ok(self.0.streams.lock().get(stream).map(|(id, _)| StreamId(*id)))
    }

    async fn put(
        &self,
        stream: &ResourceName,
        id: StreamId,
        partition_key: &str,
        records: Vec<Bytes>,
    ) -> Result<(), SinkError> {
        {
            let mut failures = self.0.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(SinkError::Failed("the disk is full".to_owned()));
            }
        }
        if records
            .iter()
            .any(|record| record.len() > self.0.record_bytes_max.load(Ordering::Relaxed))
        {
            return Err(SinkError::Refused("a record is too large".to_owned()));
        }
        let mut streams = self.0.streams.lock();
        let found = streams.get_mut(stream).filter(|(found, _)| *found == id.0);
        let (_, stored) = found.ok_or(SinkError::StreamGone)?;
        stored.extend(records.into_iter().map(|data| (partition_key.to_owned(), data)));
        self.0.changed.notify_waiters();
        Ok(())
    }
}

/// Objects by bucket and key, all of the default account.
#[derive(Default)]
pub struct FakeObjects(pub Mutex<HashMap<(String, String), Bytes>>);

#[async_trait]
impl ObjectSource for Shared<FakeObjects> {
    async fn read(
        &self,
        account: AccountId,
        bucket: &str,
        key: &str,
        bytes_max: usize,
    ) -> Result<Bytes, ObjectFailure> {
        let objects = self.0.0.lock();
        let found = objects.get(&(bucket.to_owned(), key.to_owned()));
        let found = found.filter(|_| account == AccountId::DEFAULT);
        let found = found.ok_or(ObjectFailure::Absent)?.clone();
        if found.len() > bytes_max {
            return Err(ObjectFailure::TooLarge(found.len() as u64));
        }
        Ok(found)
    }
}

#[derive(Debug)]
struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

/// The context of a request from an account.
pub fn context_of(account: &str) -> RequestContext {
    RequestContext {
        caller: Caller {
            account: account.parse().unwrap(),
            region: REGION.parse().unwrap(),
            access_key_id: "AKIATEST".into(),
            principal_arn: format!("arn:aws:iam::{account}:root").into(),
            authorizer: Arc::new(Everything),
        },
        request_id: "request".into(),
        base_url: "http://127.0.0.1:4577".into(),
        received_at: Timestamp::from_millis(0),
    }
}

pub fn key(name: &str) -> ResourceName {
    ResourceName {
        account: AccountId::DEFAULT,
        region: REGION.parse().unwrap(),
        name: name.to_owned(),
    }
}

/// The world around a server; it outlives the server's restarts.
#[derive(Clone)]
pub struct World {
    pub vision: Arc<FakeVision>,
    pub video: Arc<FakeVideo>,
    pub records: Arc<FakeRecords>,
    pub objects: Arc<FakeObjects>,
    pub catalog: Arc<MemoryCatalog>,
    pub buckets: Arc<MemoryBuckets>,
    /// So often a bucket cannot be opened before it can.
    pub bucket_failures: Arc<AtomicUsize>,
    pub topics: Arc<FakeTopics>,
    pub clock: Arc<SystemClock>,
    pub directory: Arc<tempfile::TempDir>,
}

impl World {
    pub fn new() -> Self {
        World {
            vision: Arc::default(),
            video: Arc::default(),
            records: Arc::default(),
            objects: Arc::default(),
            catalog: Arc::new(MemoryCatalog::new()),
            buckets: Arc::new(MemoryBuckets::new(Arc::new(SystemClock::new()))),
            bucket_failures: Arc::default(),
            topics: Arc::default(),
            clock: Arc::new(SystemClock::new()),
            directory: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a server.
    pub fn server(&self) -> Server {
        let metrics = Metrics::new();
        let catalog: Arc<dyn Catalog> = self.catalog.clone();
        let parts = Parts {
            faces: Arc::new(FaceStore::open(&self.path().join("faces.db"), self.clock.clone()).unwrap()),
            vision: self.vision.clone() as Arc<dyn Vision>,
            video: Arc::new(Shared(self.video.clone())),
            records: Arc::new(Shared(self.records.clone())),
            objects: Arc::new(Shared(self.objects.clone())),
            buckets: Arc::new(FlakyBuckets(self.buckets.clone(), self.bucket_failures.clone())),
            topics: self.topics.clone(),
            catalog,
            clock: self.clock.clone(),
            metrics: metrics.clone(),
        };
        Server {
            service: Arc::new(Rekognition::new(parts).unwrap()),
            metrics,
            _directory: self.directory.clone(),
        }
    }

    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}

pub struct Server {
    pub service: Arc<Rekognition>,
    pub metrics: Metrics,
    _directory: Arc<tempfile::TempDir>,
}

impl Server {
    /// Calls an operation as an account.
    pub async fn call_as<O>(&self, account: &str, input: O::Input) -> Result<O::Output, ApiError>
    where
        O: Operation,
        Rekognition: Handle<O>,
    {
        let context = context_of(account);
        let request = Request {
            context,
            input,
            body: None,
        };
        Handle::<O>::handle(&*self.service, request)
            .await
            .map(|reply| reply.output)
    }

    /// Calls an operation as the default account.
    pub async fn call<O>(&self, input: O::Input) -> Result<O::Output, ApiError>
    where
        O: Operation,
        Rekognition: Handle<O>,
    {
        self.call_as::<O>("000000000000", input).await
    }

    /// The value of a metric whose line starts so.
    pub fn metric(&self, start: &str) -> Option<f64> {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find(|line| line.starts_with(start))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}
