//! What the tests of label-detection processors share: requests, a processor, and what its topic and bucket got.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, ApiError};
use bytes::Bytes;
use futures_util::TryStreamExt;
use objects::{Bucket, Buckets, MemoryBuckets, ObjectError};
use serde_json::Value;
use storage::{Catalog, CatalogKey, FragmentNumber};
use vision::{BoundingBox, DetectedObject, FramesRequest, OBJECT_CLASSES};
use wire::rekognition::{self as w, StreamProcessorStatus as Status, op};

use super::{Server, TOPIC, World};

pub const CAMERA: &str = "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1551533115453";
pub const BUCKET: &str = "home-images";
pub const NOBODY: [(&str, f32, f32); 0] = [];

pub fn create_request() -> w::CreateStreamProcessorRequest {
    w::CreateStreamProcessorRequest {
        name: "home".to_owned(),
        role_arn: "arn:aws:iam::000000000000:role/Rekognition".to_owned(),
        input: w::StreamProcessorInput {
            kinesis_video_stream: Some(w::KinesisVideoStream {
                arn: Some(CAMERA.to_owned()),
            }),
        },
        output: w::StreamProcessorOutput {
            kinesis_data_stream: None,
            s3_destination: Some(w::S3Destination {
                bucket: Some(BUCKET.to_owned()),
                key_prefix: Some("found".to_owned()),
            }),
        },
        settings: w::StreamProcessorSettings {
            connected_home: Some(w::ConnectedHomeSettings {
                labels: vec!["ALL".to_owned()],
                min_confidence: None,
            }),
            face_search: None,
        },
        notification_channel: Some(w::StreamProcessorNotificationChannel {
            sns_topic_arn: TOPIC.to_owned(),
        }),
        ..w::CreateStreamProcessorRequest::default()
    }
}

pub fn start_request(
    begin: w::KinesisVideoStreamStartSelector,
    seconds: Option<i64>,
) -> w::StartStreamProcessorRequest {
    w::StartStreamProcessorRequest {
        name: "home".to_owned(),
        start_selector: Some(w::StreamProcessingStartSelector {
            kvs_stream_start_selector: Some(begin),
        }),
        stop_selector: Some(w::StreamProcessingStopSelector {
            max_duration_in_seconds: seconds,
        }),
    }
}

pub fn at_time(millis: i64) -> w::KinesisVideoStreamStartSelector {
    w::KinesisVideoStreamStartSelector {
        fragment_number: None,
        producer_timestamp: Some(millis),
    }
}

pub fn at_fragment(number: &str) -> w::KinesisVideoStreamStartSelector {
    w::KinesisVideoStreamStartSelector {
        fragment_number: Some(number.to_owned()),
        producer_timestamp: None,
    }
}

/// A camera, a bucket, and a processor as this changes the request.
pub async fn set_up(world: &World, change: impl FnOnce(&mut w::CreateStreamProcessorRequest)) -> Server {
    world.video.create(CAMERA);
    world.buckets.create(AccountId::DEFAULT, BUCKET);
    let server = world.server();
    let mut request = create_request();
    change(&mut request);
    server.call::<op::CreateStreamProcessor>(request).await.unwrap();
    server
}

pub async fn start_at(server: &Server, begin: w::KinesisVideoStreamStartSelector, seconds: i64) -> String {
    let request = start_request(begin, Some(seconds));
    let started = server.call::<op::StartStreamProcessor>(request).await.unwrap();
    started.session_id.unwrap()
}

/// Starts a session at the camera's next fragment and gives its id.
pub async fn start(world: &World, server: &Server, seconds: i64) -> String {
    let next = FragmentNumber::new(*world.video.fragments.lock() + 1, 0, 0);
    start_at(server, at_fragment(&next.to_string()), seconds).await
}

pub async fn stop(server: &Server) -> Result<w::StopStreamProcessorResponse, ApiError> {
    let name = "home".to_owned();
    let request = w::StopStreamProcessorRequest { name };
    server.call::<op::StopStreamProcessor>(request).await
}

pub async fn describe(server: &Server) -> w::DescribeStreamProcessorResponse {
    let name = "home".to_owned();
    let request = w::DescribeStreamProcessorRequest { name };
    server.call::<op::DescribeStreamProcessor>(request).await.unwrap()
}

pub fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    result.unwrap_err().code.into_owned()
}

pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(120), looking).await;
    found.unwrap_or_else(|_| panic!("{what} did not happen"))
}

pub async fn until_status(server: &Server, status: Status) -> Option<String> {
    until(status.as_str(), async || {
        let described = describe(server).await;
        (described.status == Some(status)).then_some(described.status_message)
    })
    .await
}

/// What the topic was told so far.
pub fn told(world: &World) -> Vec<Value> {
    let published = world.topics.published.lock();
    published
        .iter()
        .map(|message| {
            assert_eq!(
                (message.topic_arn.as_str(), message.subject),
                (TOPIC, "Rekognition Stream Processing Event")
            );
            let told: Value = serde_json::from_str(&message.message).unwrap();
            assert_eq!(told["eventId"], message.message_id.as_str());
            told
        })
        .collect()
}

/// `PERSON 100` for a label that was found at that frame, and the names of other messages.
pub fn shown(told: &[Value]) -> Vec<String> {
    let one = |message: &Value| match message["labels"].as_array() {
        Some(labels) => {
            assert_eq!(labels.len(), 1);
            let mapping = &labels[0]["videoMapping"]["kinesisVideoMapping"];
            format!(
                "{} {}",
                labels[0]["name"].as_str().unwrap(),
                mapping["frameOffsetMillis"]
            )
        }
        None => message["eventNamespace"]["type"].as_str().unwrap().to_owned(),
    };
    told.iter().map(one).collect()
}

pub async fn until_told(world: &World, count: usize) -> Vec<Value> {
    until("a notification", async || {
        Some(told(world)).filter(|told| told.len() >= count)
    })
    .await
}

pub async fn object(world: &World, key: &str) -> (Option<String>, Bytes) {
    let bucket = world.buckets.open(AccountId::DEFAULT, BUCKET).await.unwrap();
    let (info, bytes) = bucket.get(key, None).await.unwrap();
    let parts: Vec<Bytes> = bytes.try_collect().await.unwrap();
    (info.content_type, parts.concat().into())
}

pub async fn keys(world: &World) -> Vec<String> {
    let bucket = world.buckets.open(AccountId::DEFAULT, BUCKET).await.unwrap();
    let page = bucket.list("", None, 1000).await.unwrap();
    page.objects.into_iter().map(|info| info.key).collect()
}

/// Waits until the server knows that everything was taken.
pub async fn until_acknowledged(world: &World) {
    let space = CatalogKey::server().with("stream-processor-notification").below();
    until("the acknowledgement", async || {
        let page = world.catalog.page(&space, None, 1).await.unwrap();
        page.entries.is_empty().then_some(())
    })
    .await;
}

/// Ten frames 100 ms apart.
pub fn second(frames: &[Bytes]) -> Vec<Bytes> {
    let empty = std::iter::repeat_n(scene(&NOBODY), 10 - frames.len());
    frames.iter().cloned().chain(empty).collect()
}

/// A picture of objects for the fakes: `OBJECTS` and for each one `class:confidence:left`, 0.25 of the picture wide and high,
/// in the middle of its height.
pub fn scene(objects: &[(&str, f32, f32)]) -> Bytes {
    let parts: Vec<String> = objects
        .iter()
        .map(|(class, confidence, left)| format!("{class}:{confidence}:{left}"))
        .collect();
    format!("OBJECTS {}", parts.join(" ")).into()
}

pub fn objects_in(data: &[u8]) -> Option<Vec<DetectedObject>> {
    let text = std::str::from_utf8(data).ok()?.strip_prefix("OBJECTS")?;
    let object = |part: &str| {
        let mut words = part.split(':');
        let class = words.next()?;
        let class = OBJECT_CLASSES.iter().position(|name| *name == class)?;
        Some(DetectedObject {
            class: class as u8,
            confidence: words.next()?.parse().ok()?,
            bounding_box: BoundingBox {
                left: words.next()?.parse().ok()?,
                top: 0.25,
                width: 0.25,
                height: 0.25,
            },
        })
    };
    text.split_whitespace().map(object).collect()
}

/// The frames that are to be looked at.
pub fn wanted(request: &FramesRequest) -> impl Iterator<Item = Bytes> + '_ {
    let wanted = request.packets.iter().filter(|packet| packet.wanted);
    wanted.map(|packet| packet.data.clone())
}

/// Buckets that cannot be opened so many times.
pub struct FlakyBuckets(pub Arc<MemoryBuckets>, pub Arc<AtomicUsize>);

#[async_trait]
impl Buckets for FlakyBuckets {
    async fn open(&self, account: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError> {
        let failures = &self.1;
        let failing = failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        match failing {
            Ok(_) => Err(ObjectError::Unreachable("the other S3 is away".to_owned())),
            Err(_) => self.0.open(account, name).await,
        }
    }
}
