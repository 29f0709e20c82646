//! What this service needs of the world beside storage, as small traits: a decoder for still images, a place for generated
//! images, topics for notifications. The composition implements them (workers, HTTP, S3); tests use fakes.
//!
//! Every port has an absent form, so that a server without it says in plain words what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::AccountId;
use bytes::Bytes;

/// The ports of a server.
#[derive(Clone)]
pub struct Ports {
    /// Decodes frames to images.
    pub stills: Arc<dyn Stills>,
    /// Takes generated images.
    pub image_sink: Arc<dyn ImageSink>,
    /// Takes notifications.
    pub topics: Arc<dyn Topics>,
    /// Judges the value of the tag [`ARCHIVE_TAG`](crate::records::ARCHIVE_TAG), in words for the caller.
    pub archive_rule: fn(&str) -> Result<(), String>,
}

impl Default for Ports {
    fn default() -> Self {
        Ports {
            stills: Arc::new(Absent),
            image_sink: Arc::new(Absent),
            topics: Arc::new(Absent),
            archive_rule: |_| Err("this server archives nothing".to_owned()),
        }
    }
}

/// The form of every port that is not there.
#[derive(Clone, Copy, Debug)]
pub struct Absent;

/// A video codec whose frames can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StillCodec {
    /// `V_MPEG4/ISO/AVC`.
    H264,
    /// `V_MPEGH/ISO/HEVC`.
    H265,
}

/// How images are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StillFormat {
    /// JPEG of this quality, 1 to 100.
    Jpeg(u8),
    /// PNG.
    Png,
}

/// How large images are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StillSize {
    /// Pixels; without it, as the height and the picture's own proportions say.
    pub width: Option<u32>,
    /// Pixels; without it, as the width and the picture's own proportions say.
    pub height: Option<u32>,
}

/// One encoded frame for the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StillPacket {
    /// The frame as it stands in its block.
    pub data: Bytes,
    /// A key frame that does not follow on the packet before it: the decoder begins anew.
    pub fresh: bool,
    /// An image of it is wanted; the others are decoded for its sake.
    pub wanted: bool,
}

/// Some frames of one track, of which images are wanted.
#[derive(Clone, Debug)]
pub struct StillsJob {
    /// Whose video it is.
    pub account: AccountId,
    /// Its codec.
    pub codec: StillCodec,
    /// Matroska's CodecPrivate.
    pub codec_private: Bytes,
    /// How the images are encoded.
    pub format: StillFormat,
    /// How large they are made.
    pub size: StillSize,
    /// In decoding order; the first is a key frame.
    pub packets: Vec<StillPacket>,
}

/// No image could be made of a frame: it is damaged, refers to frames that are not there, or is too large when encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no image can be made of the frame")]
pub struct NotDecodable;

/// Why a job was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StillsError {
    /// This server cannot decode; in words for the caller.
    #[error("{0}")]
    Absent(String),
    /// As much is being decoded as may be; worth another try.
    #[error("As many images are being made as this server makes at once. Try again.")]
    Busy,
    /// The decoder failed; in words for the log.
    #[error("{0}")]
    Failed(String),
}

/// Makes images of frames, in a process that holds neither keys nor data.
#[async_trait]
pub trait Stills: Send + Sync + 'static {
    /// One answer for each wanted packet, in the order of the packets. Dropping the future gives the job up.
    async fn make(&self, job: StillsJob) -> Result<Vec<Result<Bytes, NotDecodable>>, StillsError>;
}

#[async_trait]
impl Stills for Absent {
    async fn make(&self, _: StillsJob) -> Result<Vec<Result<Bytes, NotDecodable>>, StillsError> {
        Err(StillsError::Absent(
            "This server has no vision worker, which decodes video.".to_owned(),
        ))
    }
}

/// An image on its way to its bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageObject {
    /// Whose stream it is of.
    pub account: AccountId,
    /// The bucket of the configuration's `s3://` address.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// `image/jpeg` or `image/png`.
    pub content_type: &'static str,
    /// The producer's tags, for the object's metadata.
    pub metadata: BTreeMap<String, String>,
    /// The image.
    pub content: Bytes,
}

/// Why a delivery was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// It will never be taken: nobody is there to take it, or it was refused. In words.
    #[error("{0}")]
    Refused(String),
    /// It may be taken later. In words for the log.
    #[error("{0}")]
    Failed(String),
}

/// Where generated images go.
#[async_trait]
pub trait ImageSink: Send + Sync + 'static {
    /// Whether a bucket can be delivered to; if not, in words for the caller.
    async fn reachable(&self, account: AccountId, bucket: &str) -> Result<(), String>;

    /// Delivers; the object is durable when this answers. Delivering the same key twice is harmless.
    async fn put(&self, object: ImageObject) -> Result<(), DeliveryError>;
}

const NO_S3: &str = "No S3 is configured for this server, so that no bucket can be reached.";

#[async_trait]
impl ImageSink for Absent {
    async fn reachable(&self, _: AccountId, _: &str) -> Result<(), String> {
        Err(NO_S3.to_owned())
    }

    async fn put(&self, _: ImageObject) -> Result<(), DeliveryError> {
        Err(DeliveryError::Refused(NO_S3.to_owned()))
    }
}

/// One message for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMessage {
    /// The topic's ARN.
    pub topic_arn: String,
    /// The same for every delivery of the same message, so that a receiver can tell a repetition.
    pub message_id: String,
    /// The subject.
    pub subject: &'static str,
    /// The message.
    pub message: String,
}

/// The topics that the operator has given an address.
#[async_trait]
pub trait Topics: Send + Sync + 'static {
    /// Whether the topic has an address.
    fn knows(&self, topic_arn: &str) -> bool;

    /// Sends one message; it has been taken when this answers.
    async fn publish(&self, message: &TopicMessage) -> Result<(), DeliveryError>;
}

#[async_trait]
impl Topics for Absent {
    fn knows(&self, _: &str) -> bool {
        false
    }

    async fn publish(&self, _: &TopicMessage) -> Result<(), DeliveryError> {
        Err(DeliveryError::Refused("No topic is configured.".to_owned()))
    }
}
