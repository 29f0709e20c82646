//! Tells a job's topic that it has ended, in the words in which AWS publishes it.

use serde::Serialize;
use storage::CatalogError;
use video_streams::ports::TopicMessage;

use super::StoredVideo;
use super::job::{Footage, Job, JobKey, Status};
use crate::publish::publish;

const SUBJECT: &str = "Rekognition Video";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message<'a> {
    job_id: &'a str,
    status: &'static str,
    #[serde(rename = "API")]
    api: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_tag: Option<&'a str>,
    /// Milliseconds since the epoch.
    timestamp: i64,
    video: Video<'a>,
}

/// Where the video is: AWS's two members, or ours.
#[derive(Default, Serialize)]
struct Video<'a> {
    #[serde(rename = "S3ObjectName", skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "S3Bucket", skip_serializing_if = "Option::is_none")]
    bucket: Option<&'a str>,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
}

fn message(key: &JobKey, job: &Job) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Message {
        job_id: &key.id,
        status: match job.status {
            Status::InProgress => "IN_PROGRESS",
            Status::Succeeded => "SUCCEEDED",
            Status::Failed => "FAILED",
        },
        api: &job.api,
        job_tag: job.tag.as_deref(),
        timestamp: job.ended_ms.unwrap_or(job.created_ms),
        video: match &job.footage {
            Footage::Object { bucket, name, .. } => Video {
                name: Some(name),
                bucket: Some(bucket),
                stream: None,
            },
            Footage::Stream { arn, .. } => Video {
                stream: Some(arn),
                ..Video::default()
            },
        },
    })
}

/// Publishes until the topic has taken it or never will; gives up after some hours. The message's id is the job's, so that
/// a receiver can tell a repetition after a crash.
pub(crate) async fn tell(stored: &StoredVideo, key: &JobKey, job: &Job) -> Result<(), CatalogError> {
    let Some(topic) = job.topic.as_ref().filter(|_| !job.notified) else {
        return Ok(());
    };
    let message = match message(key, job) {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(job = key.id, %error, "a notification cannot be written");
            return Ok(());
        }
    };
    let message = TopicMessage {
        topic_arn: topic.clone(),
        message_id: key.id.clone(),
        subject: SUBJECT,
        message,
    };
    publish(&*stored.topics, &message).await;
    stored.store.note_notified(key).await.map(drop)
}

#[cfg(test)]
mod tests {
    use base::AccountId;

    use super::super::job::Kind;
    use super::*;

    #[test]
    fn a_consumer_of_awss_messages_finds_their_members() {
        let key = JobKey {
            account: AccountId::DEFAULT,
            region: "us-west-2".parse().unwrap(),
            id: "5f".repeat(32),
        };
        let job = Job {
            api: "StartFaceDetection".to_owned(),
            kind: Kind::Detection { attributes: false },
            footage: Footage::Object {
                bucket: "films".to_owned(),
                name: "door.mp4".to_owned(),
                etag: String::new(),
                size: 1,
            },
            token: None,
            tag: Some("monday".to_owned()),
            topic: None,
            created_ms: 1,
            status: Status::Succeeded,
            message: None,
            ended_ms: Some(1_502_230_160_926),
            metadata: None,
            faces: 0,
            notified: false,
        };
        let expected = serde_json::json!({
            "JobId": key.id, "Status": "SUCCEEDED", "API": "StartFaceDetection", "JobTag": "monday",
            "Timestamp": 1_502_230_160_926_i64, "Video": {"S3ObjectName": "door.mp4", "S3Bucket": "films"},
        });
        let told: serde_json::Value = serde_json::from_str(&message(&key, &job).unwrap()).unwrap();
        assert_eq!(told, expected);
    }
}
