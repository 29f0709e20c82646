//! What a notification says: the JSON that Kinesis Video Streams gives to SNS.

use std::collections::BTreeMap;

use matroska::Tag;
use serde::Serialize;
use storage::FragmentInfo;
use uuid::Uuid;

use crate::ports::TopicMessage;
use crate::streams::StreamArn;

/// The subject of every notification.
const SUBJECT: &str = "Kinesis Video Streams Notification";

/// Names of the tags that speak to the service; they are not part of a payload.
const RESERVED: &str = "AWS_";

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    stream_arn: String,
    fragment_number: String,
    /// Milliseconds since the epoch, like the next.
    fragment_start_producer_timestamp: i64,
    fragment_start_server_timestamp: i64,
    notification_type: &'static str,
    notification_payload: BTreeMap<String, String>,
}

/// The producer's own tags of a fragment: its metadata.
pub(crate) fn metadata(tags: &[Tag]) -> BTreeMap<String, String> {
    let own = tags.iter().filter(|tag| !tag.name.starts_with(RESERVED));
    own.map(|tag| (tag.name.clone(), tag.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// The notification of a stored fragment. Its id depends on stream and fragment alone, so that a receiver can tell when it
/// is delivered again.
pub(crate) fn persisted(topic_arn: &str, stream: &StreamArn, info: &FragmentInfo, tags: &[Tag]) -> TopicMessage {
    let (stream_arn, fragment_number) = (stream.to_string(), info.number.to_string());
    let message_id = Uuid::new_v5(
        &Uuid::NAMESPACE_URL,
        format!("{stream_arn}/{fragment_number}").as_bytes(),
    );
    let message = Message {
        stream_arn,
        fragment_number,
        fragment_start_producer_timestamp: info.producer_timestamp.millis(),
        fragment_start_server_timestamp: info.server_timestamp.millis(),
        notification_type: "PERSISTED",
        notification_payload: metadata(tags),
    };
    TopicMessage {
        topic_arn: topic_arn.to_owned(),
        message_id: message_id.to_string(),
        subject: SUBJECT,
        message: serde_json::to_string(&message).unwrap_or_default(),
    }
}
