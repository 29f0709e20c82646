//! What a topic is told, in the words in which AWS publishes it (guide: label detection operations for streaming video
//! events), and the report that lies beside the images.
//!
//! Times are milliseconds since the epoch. Beyond what the guide shows, a label says how sure it is, as AWS's do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vision::BoundingBox;

use super::session::{Begin, Session};
use crate::processors::definition::Definition;

/// The subject of every message.
pub(crate) const SUBJECT: &str = "Rekognition Stream Processing Event";

/// A label that was found, as messages and sessions hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FoundLabel {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) confidence: f32,
    pub(crate) frame_image_uri: String,
    pub(crate) cropped_image_uri: String,
    pub(crate) video_mapping: VideoMapping,
    pub(crate) bounding_box: LabelBox,
}

/// Where in the video it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VideoMapping {
    pub(crate) kinesis_video_mapping: KinesisVideoMapping,
}

/// See [`VideoMapping`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KinesisVideoMapping {
    pub(crate) fragment_number: String,
    pub(crate) server_timestamp: i64,
    pub(crate) producer_timestamp: i64,
    /// From the beginning of the fragment.
    pub(crate) frame_offset_millis: i64,
}

/// Where in the picture, as ratios of its width and height.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LabelBox {
    left: f32,
    top: f32,
    height: f32,
    width: f32,
}

impl From<BoundingBox> for LabelBox {
    fn from(from: BoundingBox) -> Self {
        LabelBox {
            left: from.left,
            top: from.top,
            height: from.height,
            width: from.width,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    input_information: InputInformation<'a>,
    event_namespace: EventNamespace,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [FoundLabel]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_processing_results: Option<Results<'a>>,
    event_id: String,
    tags: &'a BTreeMap<String, String>,
    session_id: &'a str,
    start_stream_processor_request: StartRequest<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InputInformation<'a> {
    kinesis_video: KinesisVideo<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KinesisVideo<'a> {
    stream_arn: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    processed_video_duration_millis: Option<i64>,
}

#[derive(Serialize)]
struct EventNamespace {
    r#type: &'static str,
}

#[derive(Serialize)]
struct Results<'a> {
    message: &'a str,
}

/// The request that began the session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartRequest<'a> {
    name: &'a str,
    start_selector: StartSelector<'a>,
    stop_selector: StopSelector,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartSelector<'a> {
    kvs_stream_start_selector: KvsStreamStartSelector<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KvsStreamStartSelector<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    producer_timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment_number: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StopSelector {
    max_duration_in_seconds: u32,
}

/// An id that depends on the session and the event alone, so that a message that is sent again is known again.
pub(crate) fn event_id(session: &Session, event: &str) -> String {
    let namespace = Uuid::try_parse(&session.id).unwrap_or(Uuid::NAMESPACE_OID);
    Uuid::new_v5(&namespace, event.as_bytes()).to_string()
}

/// About one processor's session.
pub(crate) struct About<'a> {
    pub(crate) name: &'a str,
    pub(crate) definition: &'a Definition,
    pub(crate) session: &'a Session,
}

impl<'a> About<'a> {
    fn message(&self, r#type: &'static str, event: &str) -> Message<'a> {
        let (producer_timestamp, fragment_number) = match &self.session.begin {
            Begin::Fragment(number) => (None, Some(number.as_str())),
            Begin::ProducerTime(millis) => (Some(*millis), None),
        };
        Message {
            input_information: InputInformation {
                kinesis_video: KinesisVideo {
                    stream_arn: &self.definition.input_arn,
                    processed_video_duration_millis: None,
                },
            },
            event_namespace: EventNamespace { r#type },
            labels: None,
            stream_processing_results: None,
            event_id: event_id(self.session, event),
            tags: &self.definition.tags,
            session_id: &self.session.id,
            start_stream_processor_request: StartRequest {
                name: self.name,
                start_selector: StartSelector {
                    kvs_stream_start_selector: KvsStreamStartSelector {
                        producer_timestamp,
                        fragment_number,
                    },
                },
                stop_selector: StopSelector {
                    max_duration_in_seconds: self.session.max_seconds,
                },
            },
        }
    }

    fn end(&self, words: &'a str) -> Message<'a> {
        let mut message = self.message(COMPLETE, COMPLETE);
        message.input_information.kinesis_video.processed_video_duration_millis = Some(self.session.processed_ms);
        message.stream_processing_results = Some(Results { message: words });
        message
    }

    /// A label was found for the first time: the message and its id.
    pub(crate) fn found(&self, label: &FoundLabel) -> Result<(String, String), serde_json::Error> {
        let mut message = self.message("LABEL_DETECTED", &label.name);
        message.labels = Some(std::slice::from_ref(label));
        let text = serde_json::to_string(&message)?;
        Ok((message.event_id, text))
    }

    /// The session has ended: the message and its id.
    pub(crate) fn complete(&self, words: &str) -> Result<(String, String), serde_json::Error> {
        let message = self.end(words);
        let text = serde_json::to_string(&message)?;
        Ok((message.event_id, text))
    }

    /// The report of the session: what its last message says, with every label that was found.
    pub(crate) fn report(&self, words: &str) -> Result<Vec<u8>, serde_json::Error> {
        let mut message = self.end(words);
        message.labels = Some(&self.session.found);
        serde_json::to_vec(&message)
    }
}

const COMPLETE: &str = "STREAM_PROCESSING_COMPLETE";
