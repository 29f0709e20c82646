//! Notifications and generated images of tagged fragments: configured, delivered, tried again, and resumed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, ApiError};
use bytes::Bytes;
use common::testing::Body;
use common::{STRANGER, Service, context_of};
use tokio::sync::mpsc;
use video_streams::ports::{
    DeliveryError, ImageObject, ImageSink, NotDecodable, Ports, Stills, StillsError, StillsJob, TopicMessage, Topics,
};
use wire::kinesisvideo::{
    ConfigurationStatus, DescribeImageGenerationConfigurationInput, DescribeNotificationConfigurationInput, Format,
    ImageGenerationConfiguration, ImageGenerationDestinationConfig, ImageSelectorType, NotificationConfiguration,
    NotificationDestinationConfig, UpdateImageGenerationConfigurationInput, UpdateNotificationConfigurationInput, op,
};

const TOPIC: &str = "arn:aws:sns:us-west-2:000000000000:door";

/// Takes messages and images; each try is told to the test, which says what comes of it.
struct Receiver {
    tries: mpsc::UnboundedSender<(Try, tokio::sync::oneshot::Sender<Result<(), DeliveryError>>)>,
}

#[derive(Debug)]
enum Try {
    Message(TopicMessage),
    Image(ImageObject),
}

impl Receiver {
    async fn ask(&self, what: Try) -> Result<(), DeliveryError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        // A test that has ended takes nothing more.
        if self.tries.send((what, reply)).is_err() {
            return Err(DeliveryError::Failed("the test is over".to_owned()));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(DeliveryError::Failed("cut off".to_owned())))
    }
}

#[async_trait]
impl Topics for Receiver {
    fn knows(&self, topic_arn: &str) -> bool {
        topic_arn == TOPIC
    }

    async fn publish(&self, message: &TopicMessage) -> Result<(), DeliveryError> {
        self.ask(Try::Message(message.clone())).await
    }
}

#[async_trait]
impl ImageSink for Receiver {
    async fn reachable(&self, _: AccountId, bucket: &str) -> Result<(), String> {
        if bucket == "there" {
            Ok(())
        } else {
            Err("no such bucket".to_owned())
        }
    }

    async fn put(&self, object: ImageObject) -> Result<(), DeliveryError> {
        self.ask(Try::Image(object)).await
    }
}

#[async_trait]
impl Stills for Receiver {
    async fn make(&self, job: StillsJob) -> Result<Vec<Result<Bytes, NotDecodable>>, StillsError> {
        Ok(job
            .packets
            .into_iter()
            .filter(|packet| packet.wanted)
            .map(|packet| Ok(packet.data))
            .collect())
    }
}

type Tries = mpsc::UnboundedReceiver<(Try, tokio::sync::oneshot::Sender<Result<(), DeliveryError>>)>;

struct Setup {
    service: Service,
    tries: Tries,
    task: tokio::task::JoinHandle<()>,
}

impl Setup {
    async fn new() -> Self {
        let (sender, tries) = mpsc::unbounded_channel();
        let receiver = Arc::new(Receiver { tries: sender });
        let ports = Ports {
            stills: receiver.clone(),
            image_sink: receiver.clone(),
            topics: receiver,
            ..Ports::default()
        };
        let service = Service::with_ports(ports).await;
        let task = run(&service);
        Setup { service, tries, task }
    }

    /// Cuts the server off: nothing is saved in good order.
    async fn crash(self) -> Self {
        self.task.abort();
        let _ = self.task.await;
        let service = self.service.restart().await;
        let task = run(&service);
        Setup {
            service,
            tries: self.tries,
            task,
        }
    }

    /// The next try, answered.
    async fn next(&mut self, answer: Result<(), DeliveryError>) -> Try {
        let (what, reply) = self.tries.recv().await.unwrap();
        let _ = reply.send(answer);
        what
    }

    async fn message(&mut self, answer: Result<(), DeliveryError>) -> (TopicMessage, serde_json::Value) {
        match self.next(answer).await {
            Try::Message(message) => {
                let json = serde_json::from_str(&message.message).unwrap();
                (message, json)
            }
            Try::Image(object) => panic!("{object:?}"),
        }
    }

    async fn image(&mut self, answer: Result<(), DeliveryError>) -> ImageObject {
        match self.next(answer).await {
            Try::Image(object) => object,
            Try::Message(message) => panic!("{message:?}"),
        }
    }

    async fn notify(&self, name: &str, wanted: Option<NotificationConfiguration>) -> Result<(), ApiError> {
        let input = UpdateNotificationConfigurationInput {
            notification_configuration: wanted,
            stream_arn: None,
            stream_name: Some(name.to_owned()),
        };
        self.service
            .call::<op::UpdateNotificationConfiguration>(input)
            .await
            .map(drop)
    }

    async fn generate(&self, name: &str, wanted: Option<ImageGenerationConfiguration>) -> Result<(), ApiError> {
        let input = UpdateImageGenerationConfigurationInput {
            image_generation_configuration: wanted,
            stream_arn: None,
            stream_name: Some(name.to_owned()),
        };
        self.service
            .call::<op::UpdateImageGenerationConfiguration>(input)
            .await
            .map(drop)
    }

    async fn notification(&self, name: &str) -> Option<NotificationConfiguration> {
        let input = DescribeNotificationConfigurationInput {
            stream_arn: None,
            stream_name: Some(name.to_owned()),
        };
        let described = self
            .service
            .call::<op::DescribeNotificationConfiguration>(input)
            .await
            .unwrap();
        described.notification_configuration
    }

    async fn generation(&self, name: &str) -> Option<ImageGenerationConfiguration> {
        let input = DescribeImageGenerationConfigurationInput {
            stream_arn: None,
            stream_name: Some(name.to_owned()),
        };
        let described = self
            .service
            .call::<op::DescribeImageGenerationConfiguration>(input)
            .await
            .unwrap();
        described.image_generation_configuration
    }

    async fn put(&self, name: &str, body: Body) {
        let acks = self.service.put(name, &body.bytes(), &[1000]).await;
        assert!(acks.last().unwrap().starts_with("PERSISTED"), "{acks:?}");
    }
}

fn run(service: &Service) -> tokio::task::JoinHandle<()> {
    let video = service.video.clone();
    tokio::spawn(async move { video.run_deliveries().await })
}

fn to(topic: &str, status: ConfigurationStatus) -> Option<NotificationConfiguration> {
    let destination_config = NotificationDestinationConfig { uri: topic.to_owned() };
    Some(NotificationConfiguration {
        destination_config,
        status,
    })
}

fn images(uri: &str, status: ConfigurationStatus) -> ImageGenerationConfiguration {
    ImageGenerationConfiguration {
        destination_config: ImageGenerationDestinationConfig {
            destination_region: "us-west-2".to_owned(),
            uri: uri.to_owned(),
        },
        format: Format::Png,
        format_config: None,
        height_pixels: None,
        image_selector_type: ImageSelectorType::ProducerTimestamp,
        sampling_interval: 400,
        status,
        width_pixels: Some(64),
    }
}

/// A fragment of a second with these tags.
fn fragment(body: Body, at: u64, tags: &[(&str, &str)]) -> Body {
    let body = body.cluster(at).frame(1, 0).frame(1, 500).frame(1, 900);
    let tagged = tags.iter().fold(body, |body, (name, value)| body.tag(name, value));
    tagged.end_of_fragment()
}

const NOTIFY: (&str, &str) = ("AWS_KINESISVIDEO_NOTIFICATION", "");
const IMAGE: (&str, &str) = ("AWS_KINESISVIDEO_IMAGE_GENERATION", "");
use ConfigurationStatus::{Disabled, Enabled};

fn code(result: Result<(), ApiError>) -> String {
    result.expect_err("an error").code.into_owned()
}

fn timestamp(json: &serde_json::Value) -> i64 {
    json["FragmentStartProducerTimestamp"].as_i64().unwrap()
}

#[tokio::test]
async fn configurations_are_kept_described_and_deleted() {
    let setup = Setup::new().await;
    setup.service.create("cam", 1).await;
    assert_eq!(
        (setup.notification("cam").await, setup.generation("cam").await),
        (None, None)
    );
    let before = setup.service.describe("cam").await.unwrap().version;
    setup.notify("cam", to(TOPIC, Enabled)).await.unwrap();
    let quality = BTreeMap::from([("JPEGQuality".to_owned(), "55".to_owned())]);
    let wanted = ImageGenerationConfiguration {
        format: Format::Jpeg,
        format_config: Some(quality),
        height_pixels: Some(36),
        ..images("s3://nowhere/path", Disabled)
    };
    setup.generate("cam", Some(wanted.clone())).await.unwrap();
    assert_ne!(setup.service.describe("cam").await.unwrap().version, before);
    let setup = setup.crash().await;
    assert_eq!(setup.notification("cam").await, to(TOPIC, Enabled));
    assert_eq!(setup.generation("cam").await, Some(wanted));
    setup.notify("cam", None).await.unwrap();
    setup.generate("cam", None).await.unwrap();
    assert_eq!(
        (setup.notification("cam").await, setup.generation("cam").await),
        (None, None)
    );
}

#[tokio::test]
async fn what_cannot_be_configured_is_a_declared_error() {
    let setup = Setup::new().await;
    setup.service.create("cam", 1).await;
    setup.service.create("live", 0).await;
    let invalid = "InvalidArgumentException";
    let other = TOPIC.replace("door", "other");
    for topic in [
        &other,
        "arn:aws:sns:us-west-2:000000000000:door.fifo",
        "https://receiver.example",
    ] {
        assert_eq!(code(setup.notify("cam", to(topic, Disabled)).await), invalid, "{topic}");
    }
    let said = setup.notify("cam", to(&other, Enabled)).await.unwrap_err().message;
    assert!(said.contains("[topics]") && said.contains(&other), "{said}");
    assert_eq!(
        code(setup.notify("live", to(TOPIC, Enabled)).await),
        "NoDataRetentionException"
    );
    assert_eq!(code(setup.notify("nowhere", None).await), "ResourceNotFoundException");
    let quality = |text: &str| Some(BTreeMap::from([("JPEGQuality".to_owned(), text.to_owned())]));
    let good = images("s3://there", Enabled);
    for (what, bad) in [
        (
            "interval",
            ImageGenerationConfiguration {
                sampling_interval: 199,
                ..good.clone()
            },
        ),
        (
            "quality",
            ImageGenerationConfiguration {
                format_config: quality("101"),
                ..good.clone()
            },
        ),
        ("scheme", images("http://there", Disabled)),
        ("bucket", images("s3://No_Bucket", Disabled)),
        ("unreachable", images("s3://elsewhere", Enabled)),
    ] {
        assert_eq!(code(setup.generate("cam", Some(bad)).await), invalid, "{what}");
    }
    let mut away = good.clone();
    away.destination_config.destination_region = "eu-west-1".to_owned();
    assert_eq!(code(setup.generate("cam", Some(away)).await), invalid);
    assert_eq!(
        code(setup.generate("live", Some(good.clone())).await),
        "NoDataRetentionException"
    );
    assert_eq!(setup.generation("cam").await, None);
    setup.generate("cam", Some(good)).await.unwrap();
    let input = DescribeNotificationConfigurationInput {
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
    };
    let theirs = setup
        .service
        .call_as::<op::DescribeNotificationConfiguration>(context_of(STRANGER), input)
        .await;
    assert_eq!(code(theirs.map(drop)), "ResourceNotFoundException");
}

#[tokio::test]
async fn a_server_without_buckets_refuses_to_enable_and_keeps_what_is_disabled() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let update = |status| UpdateImageGenerationConfigurationInput {
        image_generation_configuration: Some(images("s3://bucket", status)),
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
    };
    let refused = service
        .call::<op::UpdateImageGenerationConfiguration>(update(Enabled))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "InvalidArgumentException");
    assert!(refused.message.contains("No S3 is configured"), "{refused}");
    service
        .call::<op::UpdateImageGenerationConfiguration>(update(Disabled))
        .await
        .unwrap();
}

#[tokio::test]
async fn tagged_fragments_are_told_with_their_tags_and_no_others() {
    let mut setup = Setup::new().await;
    let arn = setup.service.create("cam", 1).await;
    let body = fragment(Body::new(&[1]), 1000, &[NOTIFY, ("when", "before")]);
    setup.put("cam", body).await;
    setup.notify("cam", to(TOPIC, Enabled)).await.unwrap();
    let body = fragment(Body::new(&[1]), 2000, &[("untagged", "x")]);
    let body = fragment(
        body,
        3000,
        &[NOTIFY, ("door", "front"), ("AWS_KINESISVIDEO_IMAGE_PREFIX", "p")],
    );
    // Between an end-of-fragment tag and the next cluster: it belongs to the next fragment.
    let body = fragment(body.tag(NOTIFY.0, NOTIFY.1), 4000, &[]);
    let body = fragment(body, 5000, &[IMAGE]);
    setup.put("cam", body).await;
    let (message, json) = setup.message(Ok(())).await;
    assert_eq!(
        (message.topic_arn.as_str(), message.subject),
        (TOPIC, "Kinesis Video Streams Notification")
    );
    let stored = setup.service.list("cam").await;
    let of = |at| {
        stored
            .iter()
            .find(|f| f.producer_timestamp.unwrap().millis() == at)
            .unwrap()
    };
    let expected = serde_json::json!({
        "StreamArn": arn, "FragmentNumber": of(3000).fragment_number,
        "FragmentStartProducerTimestamp": 3000, "FragmentStartServerTimestamp": of(3000).server_timestamp.unwrap().millis(),
        "NotificationType": "PERSISTED", "NotificationPayload": {"door": "front"},
    });
    assert_eq!(json, expected);
    let (second, json) = setup.message(Ok(())).await;
    assert_eq!(timestamp(&json), 4000);
    assert_ne!(second.message_id, message.message_id);
    // What was told is told no more, and what is disabled is not told.
    setup.notify("cam", to(TOPIC, Disabled)).await.unwrap();
    setup.put("cam", fragment(Body::new(&[1]), 6000, &[NOTIFY])).await;
    setup.notify("cam", to(TOPIC, Enabled)).await.unwrap();
    setup.put("cam", fragment(Body::new(&[1]), 7000, &[NOTIFY])).await;
    assert_eq!(timestamp(&setup.message(Ok(())).await.1), 7000);
}

#[tokio::test]
async fn a_message_that_was_not_taken_is_tried_again_and_a_refused_one_is_given_up() {
    let mut setup = Setup::new().await;
    setup.service.create("cam", 1).await;
    setup.notify("cam", to(TOPIC, Enabled)).await.unwrap();
    let body = fragment(Body::new(&[1]), 1000, &[NOTIFY]);
    setup.put("cam", fragment(body, 2000, &[NOTIFY])).await;
    let away = || Err(DeliveryError::Failed("nobody listens".to_owned()));
    let first = setup.message(away()).await.0;
    let again = setup.message(Err(DeliveryError::Refused("410".to_owned()))).await.0;
    assert_eq!(first, again, "the same message with the same id");
    assert_eq!(timestamp(&setup.message(Ok(())).await.1), 2000);
    // The metric is counted before the next fragment begins.
    setup.put("cam", fragment(Body::new(&[1]), 3000, &[NOTIFY])).await;
    assert_eq!(timestamp(&setup.message(Ok(())).await.1), 3000);
    let text = setup.service.metrics.render().unwrap();
    for (result, count) in [("retried", 1), ("refused", 1)] {
        let line = format!("sightglass_video_deliveries_total{{kind=\"notifications\",result=\"{result}\"}} {count}");
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn after_a_crash_deliveries_go_on_and_nothing_is_missed() {
    let mut setup = Setup::new().await;
    setup.service.create("cam", 1).await;
    setup.notify("cam", to(TOPIC, Enabled)).await.unwrap();
    let body = fragment(Body::new(&[1]), 1000, &[NOTIFY]);
    setup.put("cam", fragment(body, 2000, &[NOTIFY])).await;
    let first = setup.message(Ok(())).await.0;
    // The second is under way, and dies with the server.
    let (under_way, _unanswered) = setup.tries.recv().await.unwrap();
    setup.service.video.save_deliveries().await;
    let mut setup = setup.crash().await;
    let (again, json) = setup.message(Ok(())).await;
    assert_eq!(timestamp(&json), 2000);
    let Try::Message(under_way) = under_way else { panic!() };
    assert_eq!(again, under_way);
    // Without a save the first is repeated, with its old id.
    let mut setup = setup.crash().await;
    let repeated = setup.message(Ok(())).await.0;
    assert!(repeated == first || repeated == again, "{repeated:?}");
}

#[tokio::test]
async fn a_stream_made_anew_is_told_nothing_of_the_old_one() {
    let mut setup = Setup::new().await;
    let arn = setup.service.create("cam", 1).await;
    setup.notify("cam", to(TOPIC, Enabled)).await.unwrap();
    setup.service.delete(&arn).await;
    let anew = setup.service.create("cam", 1).await;
    assert_eq!(setup.notification("cam").await, None);
    setup.notify("cam", to(TOPIC, Enabled)).await.unwrap();
    setup.put("cam", fragment(Body::new(&[1]), 1000, &[NOTIFY])).await;
    assert_eq!(setup.message(Ok(())).await.1["StreamArn"], *anew);
}

#[tokio::test]
async fn images_of_tagged_fragments_go_to_the_bucket_at_the_interval() {
    let mut setup = Setup::new().await;
    setup.service.create("cam", 1).await;
    setup
        .generate("cam", Some(images("s3://there/shots", Enabled)))
        .await
        .unwrap();
    let body = fragment(Body::new(&[1]), 1000, &[NOTIFY]);
    let tags = [IMAGE, ("AWS_KINESISVIDEO_IMAGE_PREFIX", "alarm"), ("door", "front")];
    setup.put("cam", fragment(body, 2000, &tags)).await;
    // Points 2000, 2400, 2800; frames 2000, 2500, 2900.
    for (time, frame) in [(2000, "frame 1 0"), (2500, "frame 1 500"), (2900, "frame 1 900")] {
        let object = setup.image(Ok(())).await;
        let begins = format!("shots/alarm_000000000000_cam_{time}_");
        assert!(
            object.key.starts_with(&begins) && object.key.ends_with(".png"),
            "{}",
            object.key
        );
        assert_eq!((object.bucket.as_str(), object.content_type), ("there", "image/png"));
        assert_eq!(
            object.metadata,
            BTreeMap::from([("door".to_owned(), "front".to_owned())])
        );
        assert_eq!(object.content, frame.as_bytes());
    }
    // Points go on at 3200 and 3600; a failed delivery is repeated whole, under the same keys.
    setup.put("cam", fragment(Body::new(&[1]), 3000, &[IMAGE])).await;
    let first = setup.image(Ok(())).await;
    assert!(first.key.contains("_cam_3500_"), "{}", first.key);
    let failed = setup.image(Err(DeliveryError::Failed("full".to_owned()))).await;
    assert_eq!(setup.image(Ok(())).await, first);
    assert_eq!(setup.image(Ok(())).await, failed);
}
