//! A processor on the real streams, logs and catalog, in a process that is killed with SIGKILL again and again while a
//! camera sends: it is RUNNING again each time, and in the end every frame of every acknowledged fragment has its record,
//! with the fragment's number byte for byte and the frame's offset.
//!
//! The test starts itself as the process to be killed (`CHILD` names the data directory). Only vision is a fake: it reads
//! faces out of frames that spell them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use auth::KeyRing;
use base::metrics::Metrics;
use base::{ApiError, Clock, Handle, Operation, Request, StreamError, SystemClock, SystemDisk, Timestamp};
use bytes::{Bytes, BytesMut};
use common::{FakeObjects, FakeVision, Shared, context_of, picture, track};
use data_streams::DataStreams;
use faces::FaceStore;
use futures_util::StreamExt;
use matroska::TrackKind;
use matroska::writer::{Frame, Muxer, StreamInfo};
use rekognition::{Parts, Rekognition};
use serde_json::Value;
use storage::{Catalog, LogOptions, LogStore, MemoryMediaStore, MemoryOptions, SqliteCatalog, SqliteOptions};
use tokio::sync::mpsc;
use video_streams::{Dependencies, Settings, VideoStreams};
use wire::{
    kinesis, kinesisvideo, kinesisvideo_archived_media as archived, kinesisvideo_media as media, rekognition as w,
};

/// Tells the process that it is the one to be killed.
const CHILD: &str = "SIGHTGLASS_KILLED_TEST_DIRECTORY";

const FRAMES_PER_FRAGMENT: u64 = 5;
const FRAME_MS: u64 = 20;
const ACCOUNT: &str = "000000000000";

/// One life of the server.
struct Life {
    video: VideoStreams,
    records: Arc<DataStreams>,
    rekognition: Arc<Rekognition>,
    clock: Arc<SystemClock>,
    _log: LogStore,
}

async fn call<O: Operation, S: Handle<O>>(service: &S, input: O::Input) -> Result<O::Output, ApiError> {
    let request = Request {
        context: context_of(ACCOUNT),
        input,
        body: None,
    };
    service.handle(request).await.map(|reply| reply.output)
}

impl Life {
    async fn begin(directory: &Path) -> Life {
        let metrics = Metrics::new();
        let clock = Arc::new(SystemClock::new());
        let disk = SystemDisk::open(&directory.join("log")).unwrap();
        let log = LogStore::open(Arc::new(disk), clock.clone(), LogOptions::default(), &metrics).unwrap();
        let catalog = SqliteCatalog::open(&directory.join("catalog.db"), SqliteOptions::default()).unwrap();
        let catalog: Arc<dyn Catalog> = Arc::new(catalog);
        let memory = MemoryMediaStore::new(log.media(), clock.clone(), MemoryOptions::default());
        let video = VideoStreams::open(Dependencies {
            catalog: catalog.clone(),
            durable: log.media(),
            memory: Arc::new(memory),
            key_ring: Arc::new(KeyRing::ephemeral().unwrap()),
            clock: clock.clone(),
            metrics: &metrics,
            settings: Settings::default(),
            ports: Default::default(),
        });
        let video = video.await.unwrap();
        let records = DataStreams::open(data_streams::Parts {
            catalog: catalog.clone(),
            records: log.records(),
            clock: clock.clone(),
            key_ring: Arc::new(KeyRing::ephemeral().unwrap()),
            metrics: metrics.clone(),
            settings: Default::default(),
        });
        let records = records.await.unwrap();
        let rekognition = Rekognition::new(Parts {
            faces: Arc::new(FaceStore::open(&directory.join("faces.db"), clock.clone()).unwrap()),
            vision: Arc::new(FakeVision::default()),
            video: Arc::new(video.clone()),
            records: records.clone(),
            objects: Arc::new(Shared(Arc::<FakeObjects>::default())),
            buckets: Arc::new(objects::MemoryBuckets::new(clock.clone())),
            topics: Arc::new(video_streams::ports::Absent),
            catalog,
            clock: clock.clone(),
            metrics,
        });
        Life {
            video,
            records,
            rekognition: Arc::new(rekognition.unwrap()),
            clock,
            _log: log,
        }
    }

    /// Camera, output, collection with Ann (person 1), and a processor that runs.
    async fn create(&self) {
        let camera = kinesisvideo::CreateStreamInput {
            stream_name: "door".to_owned(),
            data_retention_in_hours: Some(1),
            ..Default::default()
        };
        let camera = call::<kinesisvideo::op::CreateStream, _>(&self.video, camera)
            .await
            .unwrap();
        let output = kinesis::CreateStreamInput {
            stream_name: "faces".to_owned(),
            shard_count: Some(1),
            ..Default::default()
        };
        call::<kinesis::op::CreateStream, _>(&*self.records, output)
            .await
            .unwrap();
        let collection = w::CreateCollectionRequest {
            collection_id: "staff".to_owned(),
            tags: None,
        };
        call::<w::op::CreateCollection, _>(&*self.rekognition, collection)
            .await
            .unwrap();
        let ann = w::IndexFacesRequest {
            collection_id: "staff".to_owned(),
            external_image_id: Some("Ann".to_owned()),
            image: w::Image {
                bytes: Some(picture(&[(1, 0.25, 0.5)])),
                s3_object: None,
            },
            ..Default::default()
        };
        call::<w::op::IndexFaces, _>(&*self.rekognition, ann).await.unwrap();
        let processor = w::CreateStreamProcessorRequest {
            name: "door".to_owned(),
            role_arn: "arn:aws:iam::000000000000:role/Rekognition".to_owned(),
            input: w::StreamProcessorInput {
                kinesis_video_stream: Some(w::KinesisVideoStream { arn: camera.stream_arn }),
            },
            output: w::StreamProcessorOutput {
                kinesis_data_stream: Some(w::KinesisDataStream {
                    arn: Some("arn:aws:kinesis:us-west-2:000000000000:stream/faces".to_owned()),
                }),
                s3_destination: None,
            },
            settings: w::StreamProcessorSettings {
                connected_home: None,
                face_search: Some(w::FaceSearchSettings {
                    collection_id: Some("staff".to_owned()),
                    face_match_threshold: None,
                }),
            },
            ..Default::default()
        };
        call::<w::op::CreateStreamProcessor, _>(&*self.rekognition, processor)
            .await
            .unwrap();
        let start = w::StartStreamProcessorRequest {
            name: "door".to_owned(),
            ..Default::default()
        };
        call::<w::op::StartStreamProcessor, _>(&*self.rekognition, start)
            .await
            .unwrap();
    }

    async fn check_running(&self) {
        let request = w::DescribeStreamProcessorRequest {
            name: "door".to_owned(),
        };
        let described = call::<w::op::DescribeStreamProcessor, _>(&*self.rekognition, request)
            .await
            .unwrap();
        assert_eq!(
            described.status,
            Some(w::StreamProcessorStatus::Running),
            "{:?}",
            described.status_message
        );
    }

    /// A camera: sends fragments until the process dies, and says which were acknowledged.
    async fn film(&self) {
        let (body, pieces) = mpsc::channel::<Result<Bytes, StreamError>>(4);
        let pieces = futures_util::stream::unfold(pieces, |mut pieces| async move {
            pieces.recv().await.map(|piece| (piece, pieces))
        });
        let request = Request {
            context: context_of(ACCOUNT),
            input: media::PutMediaInput {
                fragment_acknowledgment_required: None,
                fragment_timecode_type: media::FragmentTimecodeType::Absolute,
                producer_start_timestamp: None,
                stream_arn: None,
                stream_name: Some("door".to_owned()),
            },
            body: Some(Box::pin(pieces)),
        };
        let reply = Handle::<media::op::PutMedia>::handle(&self.video, request)
            .await
            .unwrap();
        let mut acks = reply.stream.unwrap();
        tokio::spawn(async move {
            while let Some(ack) = acks.next().await {
                let ack: Value = serde_json::from_slice(&ack.unwrap()).unwrap();
                assert_ne!(ack["EventType"], "ERROR", "{ack}");
                if ack["EventType"] == "PERSISTED" {
                    println!("PERSISTED {}", ack["FragmentNumber"].as_str().unwrap());
                }
            }
        });
        let tracks = [track(1, TrackKind::Video, "V_MPEG4/ISO/AVC", "avcC")];
        let mut muxer = Muxer::new(&StreamInfo::default(), &tracks);
        body.send(Ok(muxer.header())).await.unwrap();
        let start = u64::try_from(self.clock.now().millis()).unwrap();
        for index in 0.. {
            let payload = picture(&[(1, 0.25, 0.5)]);
            let frame = Frame {
                track: 1,
                time: start + index * FRAME_MS,
                key: index % FRAMES_PER_FRAGMENT == 0,
                payload: &payload,
            };
            let mut out = BytesMut::new();
            muxer.put_frame(&mut out, &frame);
            body.send(Ok(out.freeze())).await.unwrap();
            // The pace of a camera, so that a kill falls anywhere between frame, fsync and record.
            tokio::time::sleep(Duration::from_millis(FRAME_MS)).await;
        }
    }

    async fn stored_fragments(&self) -> Vec<String> {
        let (mut numbers, mut next_token) = (Vec::new(), None);
        let selector = archived::FragmentSelector {
            fragment_selector_type: archived::FragmentSelectorType::ServerTimestamp,
            timestamp_range: archived::TimestampRange {
                start_timestamp: Timestamp::from_millis(0),
                end_timestamp: self.clock.now(),
            },
        };
        loop {
            let request = archived::ListFragmentsInput {
                fragment_selector: Some(selector.clone()),
                max_results: Some(1000),
                next_token,
                stream_arn: None,
                stream_name: Some("door".to_owned()),
            };
            let page = call::<archived::op::ListFragments, _>(&self.video, request)
                .await
                .unwrap();
            numbers.extend(
                page.fragments
                    .unwrap()
                    .into_iter()
                    .map(|fragment| fragment.fragment_number.unwrap()),
            );
            next_token = page.next_token;
            if next_token.is_none() {
                numbers.sort();
                return numbers;
            }
        }
    }

    async fn all_records(&self) -> Vec<Value> {
        let iterator = kinesis::GetShardIteratorInput {
            dry_run: None,
            shard_id: "shardId-000000000000".to_owned(),
            shard_iterator_type: kinesis::ShardIteratorType::TrimHorizon,
            starting_sequence_number: None,
            stream_arn: None,
            stream_id: None,
            stream_name: Some("faces".to_owned()),
            timestamp: None,
        };
        let answer = call::<kinesis::op::GetShardIterator, _>(&*self.records, iterator)
            .await
            .unwrap();
        let mut iterator = answer.shard_iterator;
        let mut records = Vec::new();
        while let Some(shard_iterator) = iterator.take() {
            let request = kinesis::GetRecordsInput {
                dry_run: None,
                limit: None,
                shard_iterator,
                stream_arn: None,
                stream_id: None,
            };
            let page = call::<kinesis::op::GetRecords, _>(&*self.records, request)
                .await
                .unwrap();
            if page.records.is_empty() {
                break;
            }
            records.extend(
                page.records
                    .iter()
                    .map(|record| serde_json::from_slice(&record.data).unwrap()),
            );
            iterator = page.next_shard_iterator;
        }
        records
    }

    /// Waits until every frame of every stored fragment has a record, and checks what the records say.
    async fn check_complete(&self) {
        let fragments = self.stored_fragments().await;
        let frames = fragments
            .iter()
            .flat_map(|number| (0..FRAMES_PER_FRAGMENT).map(move |frame| format!("{number} {}", frame * FRAME_MS)));
        let wanted: Vec<String> = frames.collect();
        for attempt in 0.. {
            let mut seen: HashMap<String, usize> = HashMap::new();
            let mut first_seen = Vec::new();
            for record in self.all_records().await {
                let video = &record["InputInformation"]["KinesisVideo"];
                let offset_ms = video["FrameOffsetInSeconds"].as_f64().unwrap() * 1000.0;
                let frame = format!("{} {}", video["FragmentNumber"].as_str().unwrap(), offset_ms.round());
                let matched = &record["FaceSearchResponse"][0]["MatchedFaces"][0]["Face"]["ExternalImageId"];
                assert_eq!(matched, "Ann");
                let times = seen.entry(frame.clone()).or_default();
                *times += 1;
                if *times == 1 {
                    first_seen.push(frame);
                }
            }
            let missing: Vec<_> = wanted.iter().filter(|frame| !seen.contains_key(*frame)).collect();
            if missing.is_empty() {
                let stored: Vec<_> = first_seen.into_iter().filter(|frame| wanted.contains(frame)).collect();
                assert_eq!(stored, wanted, "records come in the order of time");
                let twice = seen.values().filter(|times| **times > 1).count();
                println!(
                    "COMPLETE {} frames, {twice} of them recorded more than once",
                    wanted.len()
                );
                return;
            }
            assert!(
                attempt < 1000,
                "no record of {} frames of {}: {missing:?}",
                missing.len(),
                wanted.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn child(directory: &Path) {
    let life = Life::begin(directory).await;
    match std::env::var("SIGHTGLASS_KILLED_TEST_PART").unwrap().as_str() {
        "first" => life.create().await,
        _ => life.rekognition.resume().await.unwrap(),
    }
    life.check_running().await;
    println!("READY");
    if std::env::var("SIGHTGLASS_KILLED_TEST_PART").unwrap() == "last" {
        life.check_complete().await;
        life.rekognition.shutdown().await;
        return;
    }
    life.film().await;
}

/// Runs this test's own program on the directory; kills it after so many acknowledged fragments. Gives what it printed.
fn run_child(directory: &Path, part: &str, kill_after: Option<usize>, pause: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_killed_server_misses_no_frame_of_an_acknowledged_fragment",
            "--nocapture",
        ])
        .env(CHILD, directory)
        .env("SIGHTGLASS_KILLED_TEST_PART", part)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut lines, mut persisted) = (Vec::new(), 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        persisted += usize::from(line.starts_with("PERSISTED"));
        lines.push(line);
        if kill_after.is_some_and(|count| persisted >= count) {
            std::thread::sleep(pause);
            child.kill().unwrap();
            break;
        }
    }
    let status = child.wait().unwrap();
    assert!(
        kill_after.is_some() || status.success(),
        "the last life ended badly: {lines:?}"
    );
    lines
}

#[test]
fn a_killed_server_misses_no_frame_of_an_acknowledged_fragment() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(child(&PathBuf::from(directory)));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut acknowledged = 0;
    for part in ["first", "next", "next", "next"] {
        let pause = Duration::from_millis(rng.u64(0..60));
        let lines = run_child(directory.path(), part, Some(rng.usize(3..12)), pause);
        assert!(lines.iter().any(|line| line.contains("READY")), "{lines:?}");
        acknowledged += lines.iter().filter(|line| line.starts_with("PERSISTED")).count();
    }
    let lines = run_child(directory.path(), "last", None, Duration::ZERO);
    let complete = lines
        .iter()
        .find_map(|line| line.strip_prefix("COMPLETE "))
        .expect("the last life says so");
    println!("{complete}");
    let frames: usize = complete.split(' ').next().unwrap().parse().unwrap();
    assert!(frames >= acknowledged * FRAMES_PER_FRAGMENT as usize);
}
