//! Finds the labels of a fragment and puts their pictures into the processor's bucket: the frame as it is, and of each label
//! the part of it that shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use base::ResourceName;
use bytes::Bytes;
use objects::ObjectError;
use vision::{BoundingBox, DetectedObject, FramesRequest, LabelAnalysis, StillError, StillsError};

use super::fragment::{Gathered, Sampler};
use super::message::{FoundLabel, KinesisVideoMapping, LabelBox, VideoMapping, event_id};
use super::session::Session;
use super::settings::{HomeLabel, LabelDetection};
use crate::limits::{LABEL_JPEG_QUALITY, LABEL_PUT_TRIES_MAX, RETRY_PAUSE};
use crate::processors::Processors;
use crate::processors::metrics::RunMetrics;

/// All of a picture.
const WHOLE: BoundingBox = BoundingBox {
    left: 0.0,
    top: 0.0,
    width: 1.0,
    height: 1.0,
};

/// Why a fragment was not done.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The frames of this fragment cannot be looked at, in words for the log; those of the next one may.
    Fragment(String),
    /// The session cannot go on, in words for the caller.
    Session(String),
}

/// Who looks for what.
pub(crate) struct Looker<'a> {
    pub(crate) processors: &'a Processors,
    pub(crate) key: &'a ResourceName,
    pub(crate) detection: &'a LabelDetection,
    pub(crate) metrics: &'a RunMetrics,
}

/// A label that a frame shows.
struct Sight {
    label: HomeLabel,
    frame: usize,
    object: DetectedObject,
}

/// The names of a session's objects in its bucket.
pub(crate) fn object_key(prefix: Option<&str>, name: &str, session: &str, object: &str) -> String {
    let folder = match prefix {
        Some(prefix) if prefix.ends_with('/') => prefix.to_owned(),
        Some(prefix) => format!("{prefix}/"),
        None => String::new(),
    };
    format!("{folder}{name}/{session}/{object}")
}

impl Looker<'_> {
    /// The first sight of each of these labels in a fragment, with its pictures in the bucket; and how many frames were
    /// looked at.
    pub(crate) async fn look(
        &self,
        session: &Session,
        fragment: &Gathered,
        open: &[HomeLabel],
        sampler: &mut Sampler,
    ) -> Result<(Vec<FoundLabel>, u64), Trouble> {
        let chosen = sampler.choose(fragment);
        let Some(request) = self.request(fragment, &chosen).filter(|_| !chosen.is_empty()) else {
            return Ok((Vec::new(), 0));
        };
        let answers = self.objects(request).await?;
        let (sights, looked) = self.sights(fragment, &chosen, answers, open);
        let mut found = Vec::new();
        let mut frames: BTreeMap<usize, String> = BTreeMap::new();
        for sight in sights {
            if let Some(label) = self.picture(session, fragment, &sight, &mut frames).await? {
                found.push(label);
            }
        }
        Ok((found, looked))
    }

    fn request(&self, fragment: &Gathered, wanted: &[usize]) -> Option<FramesRequest> {
        let format = fragment.format.as_ref()?;
        Some(FramesRequest {
            account: self.key.account,
            codec: format.codec,
            codec_private: format.codec_private.clone(),
            packets: fragment.packets(wanted),
        })
    }

    /// Asks again while no worker is free.
    async fn objects(&self, request: FramesRequest) -> Result<Vec<Result<LabelAnalysis, StillError>>, Trouble> {
        loop {
            match self.processors.vision.frame_objects(request.clone()).await {
                Ok(answers) => return Ok(answers),
                Err(StillsError::Busy) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(StillsError::Worker(why)) => return Err(Trouble::Fragment(why)),
            }
        }
    }

    /// The first frame that shows each label, in the order of time; and how many frames could be looked at.
    fn sights(
        &self,
        fragment: &Gathered,
        chosen: &[usize],
        answers: Vec<Result<LabelAnalysis, StillError>>,
        open: &[HomeLabel],
    ) -> (Vec<Sight>, u64) {
        let mut looked = 0;
        let mut in_time = Vec::with_capacity(answers.len());
        for (frame, answer) in chosen.iter().zip(answers) {
            match answer {
                Ok(analysis) => {
                    looked += 1;
                    self.metrics.analysed();
                    let offset_ms = fragment.frames.get(*frame).map_or(0.0, |frame| frame.offset_ms);
                    in_time.push((offset_ms, *frame, analysis));
                }
                Err(_) => self.metrics.dropped("damaged"),
            }
        }
        in_time.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut sights: Vec<Sight> = Vec::new();
        for (_, frame, analysis) in in_time {
            for label in open {
                let known = sights.iter().any(|sight| sight.label == *label);
                if let Some(object) = self.detection.best(*label, &analysis.objects).filter(|_| !known) {
                    sights.push(Sight {
                        label: *label,
                        frame,
                        object: *object,
                    });
                }
            }
        }
        (sights, looked)
    }

    /// Puts the pictures of a sight into the bucket. `frames` are those whose whole picture is there already. `None` if no
    /// picture can be made, which leaves the label to a later frame.
    async fn picture(
        &self,
        session: &Session,
        fragment: &Gathered,
        sight: &Sight,
        frames: &mut BTreeMap<usize, String>,
    ) -> Result<Option<FoundLabel>, Trouble> {
        let offset_ms = fragment.frames.get(sight.frame).map_or(0.0, |frame| frame.offset_ms);
        let frame_offset_millis = offset_ms.round() as i64;
        let place = format!("{}_{frame_offset_millis}", fragment.number);
        let Some(part) = self.part(fragment, sight.frame, sight.object.bounding_box).await? else {
            return Ok(None);
        };
        let frame_image_uri = match frames.get(&sight.frame) {
            Some(uri) => uri.clone(),
            None => {
                let Some(whole) = self.part(fragment, sight.frame, WHOLE).await? else {
                    return Ok(None);
                };
                let uri = self.put(session, &format!("{place}_FRAME.jpg"), whole).await?;
                frames.insert(sight.frame, uri.clone());
                uri
            }
        };
        let name = sight.label.as_str();
        let cropped_image_uri = self.put(session, &format!("{place}_{name}.jpg"), part).await?;
        Ok(Some(FoundLabel {
            id: event_id(session, &format!("{name}/{place}")),
            name: name.to_owned(),
            confidence: sight.object.confidence,
            frame_image_uri,
            cropped_image_uri,
            video_mapping: VideoMapping {
                kinesis_video_mapping: KinesisVideoMapping {
                    fragment_number: fragment.number.to_string(),
                    server_timestamp: fragment.server_ms,
                    producer_timestamp: fragment.producer_ms,
                    frame_offset_millis,
                },
            },
            bounding_box: LabelBox::from(sight.object.bounding_box),
        }))
    }

    /// A JPEG of a part of a frame.
    async fn part(&self, fragment: &Gathered, frame: usize, area: BoundingBox) -> Result<Option<Bytes>, Trouble> {
        let Some(request) = self.request(fragment, &[frame]) else {
            return Ok(None);
        };
        loop {
            let made = self
                .processors
                .vision
                .frame_parts(request.clone(), area, LABEL_JPEG_QUALITY);
            match made.await {
                Ok(mut answers) => return Ok(answers.pop().and_then(Result::ok)),
                Err(StillsError::Busy) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(StillsError::Worker(why)) => return Err(Trouble::Fragment(why)),
            }
        }
    }

    /// Puts an image below the session's folder and gives its address. The same name takes the place of the first.
    async fn put(&self, session: &Session, name: &str, image: Bytes) -> Result<String, Trouble> {
        let (account, bucket) = (self.key.account, &self.detection.bucket);
        let key = object_key(self.detection.key_prefix.as_deref(), &self.key.name, &session.id, name);
        let uri = format!("s3://{bucket}/{key}");
        let mut pause = RETRY_PAUSE;
        for tried in 0.. {
            let content = ("image/jpeg", image.clone());
            let Err(why) = self.processors.labels.put(account, bucket, &key, content).await else {
                break;
            };
            if !why.is_retryable() || tried >= LABEL_PUT_TRIES_MAX {
                tracing::warn!(processor = %self.key.name, %account, uri, %why, "an image cannot be written");
                let said = match why {
                    // Which is for the log.
                    ObjectError::Storage(_) => "storage failed".to_owned(),
                    other => other.to_string(),
                };
                return Err(Trouble::Session(format!(
                    "S3 bucket {bucket} cannot be written: {said}"
                )));
            }
            tracing::warn!(processor = %self.key.name, %account, uri, %why, "an image cannot be written; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PUT_PAUSE_MAX);
        }
        Ok(uri)
    }
}

/// The longest pause between two tries to write an object.
const PUT_PAUSE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LABEL_KEY_PREFIX_BYTES_MAX;

    #[test]
    fn keys_lie_below_prefix_processor_and_session_and_have_room() {
        let key = |prefix| object_key(prefix, "door", "5f", "1_0_FRAME.jpg");
        assert_eq!(key(None), "door/5f/1_0_FRAME.jpg");
        assert_eq!(key(Some("home")), "home/door/5f/1_0_FRAME.jpg");
        assert_eq!(key(Some("home/")), "home/door/5f/1_0_FRAME.jpg");
        let prefix = "p".repeat(LABEL_KEY_PREFIX_BYTES_MAX);
        let session = uuid::Uuid::nil().to_string();
        let fragment = storage::FragmentNumber::new(u64::MAX, u64::MAX, u32::MAX);
        let object = format!("{fragment}_{}_PACKAGE.jpg", i64::MIN);
        let longest = object_key(Some(&prefix), &"n".repeat(128), &session, &object);
        assert!(longest.len() <= 1024, "{}", longest.len());
    }
}
