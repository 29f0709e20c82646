//! How a session is begun, ended and resumed.

use std::sync::Arc;

use base::{ApiError, ResourceName};
use bytes::Bytes;
use storage::{CatalogError, Change};
use tokio::sync::Semaphore;
use wire::rekognition as w;

use super::look::object_key;
use super::message::About;
use super::outbox::{self, Notification};
use super::run::{self, LabelStart};
use super::session::{self, Begin, Session};
use super::settings::LabelDetection;
use crate::processors::Processors;
use crate::processors::control;
use crate::processors::definition::{Definition, Transition, TransitionError, Work};
use crate::processors::status::Status;
use crate::{error, limits};

/// How a session ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    /// As it was meant to, in words for the topic.
    Complete(String),
    /// By StopStreamProcessor.
    Stopped,
    /// Because of this.
    Failed(String),
}

impl Ending {
    /// The end of a session that has come to it: one whose video could not be looked at has failed.
    pub(crate) fn of(session: &Session, words: &str) -> Ending {
        if session.frames > 0 || session.last.is_none() {
            return Ending::Complete(words.to_owned());
        }
        Ending::Failed(match session.unseen {
            0 => "No frame of the video can be decoded.".to_owned(),
            _ => "The video could not be analysed because of a failure of the server.".to_owned(),
        })
    }

    fn status(&self) -> Status {
        match self {
            Ending::Complete(_) | Ending::Stopped => Status::Stopped,
            Ending::Failed(_) => Status::Failed,
        }
    }

    fn status_message(&self) -> Option<&str> {
        match self {
            Ending::Failed(message) => Some(message),
            Ending::Complete(_) | Ending::Stopped => None,
        }
    }

    fn words(&self) -> String {
        match self {
            Ending::Complete(words) => words.clone(),
            Ending::Stopped => "Stream processing was stopped.".to_owned(),
            Ending::Failed(message) => format!("Stream processing has failed: {message}"),
        }
    }
}

/// Where a session begins and how much video it is to do; both must be said.
pub(crate) fn wanted(input: &w::StartStreamProcessorRequest) -> Result<(Begin, u32), ApiError> {
    let missing = |member: &str| error::invalid_parameter(format!("{member} is required to start label detection"));
    let begin = Begin::of(input.start_selector.as_ref())?;
    let begin = begin.ok_or_else(|| missing("StartSelector with ProducerTimestamp or FragmentNumber"))?;
    let stop = input.stop_selector.as_ref().ok_or_else(|| missing("StopSelector"))?;
    let seconds = stop
        .max_duration_in_seconds
        .unwrap_or(i64::from(limits::LABEL_SECONDS_DEFAULT));
    let seconds = u32::try_from(seconds)
        .ok()
        .filter(|seconds| (1..=limits::LABEL_SECONDS_MAX).contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        error::invalid_parameter(format!(
            "MaxDurationInSeconds must be from 1 to {}",
            limits::LABEL_SECONDS_MAX
        ))
    })?;
    Ok((begin, seconds))
}

fn throttled(why: &str) -> ApiError {
    ApiError::client("ThrottlingException", why.to_owned())
}

impl Processors {
    /// Begins a session of a label-detection processor and gives its id.
    pub(crate) async fn start_session(
        self: Arc<Self>,
        key: ResourceName,
        (begin, seconds): (Begin, u32),
    ) -> Result<String, ApiError> {
        if !self.vision.abilities().labels {
            return Err(error::invalid_parameter(
                "label detection is not available: this server's models were prepared without that of objects",
            ));
        }
        if self.labels.outbox.waiting() >= limits::LABEL_SESSIONS_UNTOLD_MAX {
            return Err(throttled(
                "too many notifications of earlier sessions were not taken yet",
            ));
        }
        let permit = Semaphore::try_acquire_owned(self.labels.permits.clone());
        let permit = permit.map_err(|_| throttled("too many label-detection sessions run; try again"))?;
        let session = Session::new(begin, seconds);
        let wanted = Transition {
            to: Status::Starting,
            message: None,
            generation: None,
            at: self.clock.now(),
        };
        let beside = |definition: &Definition| match &definition.work {
            Work::Labels(_) => Ok(Some(vec![session::created(&key, &session)?])),
            Work::FaceSearch(_) => Ok(None),
        };
        let started = self.store.transition_with(&key, &wanted, beside).await;
        let definition = started.map_err(|error| control::refused(error, &key))?;
        self.run_session(LabelStart {
            key,
            definition,
            permit: Some(permit),
        });
        Ok(session.id)
    }

    fn run_session(self: &Arc<Self>, start: LabelStart) {
        let (key, generation) = (start.key.clone(), start.definition.generation);
        self.spawn_task(key, generation, |cancelled| run::run(self.clone(), start, cancelled));
    }

    /// Goes on with a session that ran when the server ended, or ends one that was being stopped.
    pub(crate) async fn resume_session(
        self: &Arc<Self>,
        key: ResourceName,
        definition: Definition,
    ) -> Result<(), CatalogError> {
        if definition.status == Status::Stopping {
            self.end_session(&key, None, &Ending::Stopped).await;
            return Ok(());
        }
        self.run_session(LabelStart {
            key,
            definition,
            permit: None,
        });
        Ok(())
    }

    /// Ends the session of a processor: writes its report, makes the processor STOPPED or FAILED, and tells the topic. Of
    /// one that somebody else has ended, nothing is done.
    pub(crate) async fn end_session(&self, key: &ResourceName, generation: Option<u64>, ending: &Ending) {
        loop {
            match self.try_to_end(key, generation, ending).await {
                Ok(()) | Err(TransitionError::NotFound | TransitionError::Refused(_)) => return,
                Err(TransitionError::Catalog(error)) => {
                    tracing::error!(processor = %key.name, account = %key.account, %error, "the end of a label-detection session cannot be kept; trying again");
                    tokio::time::sleep(limits::RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn try_to_end(
        &self,
        key: &ResourceName,
        generation: Option<u64>,
        ending: &Ending,
    ) -> Result<(), TransitionError> {
        let kept = self.store.get(key).await?.ok_or(TransitionError::NotFound)?;
        let session = session::read(&**self.store.catalog(), key).await?;
        let words = ending.words();
        let mut told = None;
        if let (Some(kept_session), Work::Labels(detection)) = (&session, &kept.definition.work) {
            let about = About {
                name: &key.name,
                definition: &kept.definition,
                session: &kept_session.session,
            };
            self.report(key, detection, &about, &words).await;
            told = self.last_notification(key, detection, &about, &words)?;
        }
        let wanted = Transition {
            to: ending.status(),
            message: ending.status_message(),
            generation,
            at: self.clock.now(),
        };
        let beside = |_: &Definition| {
            let told = told.iter().map(|(_, change)| change.clone());
            Ok(Some(std::iter::once(session::removed(key)).chain(told).collect()))
        };
        self.store.transition_with(key, &wanted, beside).await?;
        if let Some((queue, _)) = &told {
            self.labels.outbox.send(queue);
        }
        match ending {
            Ending::Failed(message) => {
                tracing::warn!(processor = %key.name, account = %key.account, message, "a label-detection session has failed");
            }
            Ending::Complete(_) | Ending::Stopped => {
                tracing::debug!(processor = %key.name, account = %key.account, words, "a label-detection session has ended");
            }
        }
        Ok(())
    }

    fn last_notification(
        &self,
        key: &ResourceName,
        detection: &LabelDetection,
        about: &About<'_>,
        words: &str,
    ) -> Result<Option<(storage::CatalogKey, Change)>, CatalogError> {
        let Some(topic) = &detection.topic else {
            return Ok(None);
        };
        let invalid = |error: serde_json::Error| CatalogError::Invalid(error.to_string());
        let (message_id, message) = about.complete(words).map_err(invalid)?;
        let notification = Notification {
            processor: control::arn(key),
            topic_arn: topic.clone(),
            message_id,
            message,
        };
        let queue = outbox::queue(key, &about.session.id);
        let change = outbox::added(&queue, about.session.found.len(), &notification)?;
        Ok(Some((queue, change)))
    }

    /// The report lies beside the images. Everything in it was also told to the topic, so that a session ends without it
    /// where it cannot be written.
    async fn report(&self, key: &ResourceName, detection: &LabelDetection, about: &About<'_>, words: &str) {
        let content = match about.report(words) {
            Ok(content) => Bytes::from(content),
            Err(error) => {
                tracing::error!(processor = %key.name, %error, "the report of a session cannot be written");
                return;
            }
        };
        let (account, bucket) = (key.account, &detection.bucket);
        let name = object_key(
            detection.key_prefix.as_deref(),
            &key.name,
            &about.session.id,
            "report.json",
        );
        let put = self.labels.put(account, bucket, &name, ("application/json", content));
        if let Err(error) = put.await {
            tracing::warn!(processor = %key.name, %account, bucket, %error, "the report of a session cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_whose_video_could_not_be_looked_at_has_failed() {
        let mut session = Session::new(Begin::ProducerTime(0), 10);
        assert_eq!(
            Ending::of(&session, "Done.").status(),
            Status::Stopped,
            "there was no video"
        );
        session.last = Some("1".to_owned());
        let failed = Ending::of(&session, "Done.");
        let message = "No frame of the video can be decoded.";
        assert_eq!(
            (failed.status(), failed.status_message()),
            (Status::Failed, Some(message))
        );
        session.unseen = 1;
        let message = "The video could not be analysed because of a failure of the server.";
        assert_eq!(Ending::of(&session, "Done."), Ending::Failed(message.to_owned()));
        session.frames = 1;
        assert_eq!(Ending::of(&session, "Done."), Ending::Complete("Done.".to_owned()));
    }
}
