//! The task of a session: follows the stream from where the session begins, has each stored fragment looked at, and ends
//! when enough video was done, or none comes any more.

use std::sync::Arc;

use base::ResourceName;
use storage::Catalog;
use tokio::sync::{OwnedSemaphorePermit, watch};
use video_streams::consumer::{ConsumerError, Event, StreamRef};

use super::control::Ending;
use super::fragment::{Gathered, Gatherer, Keep, Sampler};
use super::look::{Looker, Trouble};
use super::message::About;
use super::outbox::{self, Notification};
use super::session::{self, KeptSession};
use super::settings::LabelDetection;
use crate::limits::{LABEL_IDLE, LABEL_RATE_DEFAULT, RETRY_PAUSE};
use crate::ports::Feed;
use crate::processors::control::{self, Tuning};
use crate::processors::definition::{Definition, Work};
use crate::processors::metrics::RunMetrics;
use crate::processors::{Processors, pipeline};

/// A session to carry out.
pub(crate) struct LabelStart {
    pub(crate) key: ResourceName,
    pub(crate) definition: Definition,
    /// Taken already when a session begins; one that is resumed waits for it.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Why a session is not followed further.
enum Stop {
    /// It has come to its end, or cannot go on.
    Ended(Ending),
    /// It was stopped or deleted meanwhile.
    Superseded,
    /// For now: it goes on after a pause. In words for the log.
    Retry(String),
}

impl Stop {
    fn failed(message: String) -> Stop {
        Stop::Ended(Ending::Failed(message))
    }
}

/// Runs until the session has ended or is cancelled, which leaves it to be resumed or ended by who cancelled it.
pub(crate) async fn run(processors: Arc<Processors>, mut start: LabelStart, mut cancelled: watch::Receiver<bool>) {
    let ended = tokio::select! {
        biased;
        // An error means that nobody can stop this run any more: the server is ending.
        _ = cancelled.wait_for(|cancel| *cancel) => return,
        ended = carry_out(&processors, &mut start) => ended,
    };
    let (key, generation) = (&start.key, start.definition.generation);
    if let Some(ending) = ended {
        processors.end_session(key, Some(generation), &ending).await;
    }
    processors.forget_run(key, generation);
}

/// How the session ended; `None` if somebody else has ended it.
async fn carry_out(processors: &Arc<Processors>, start: &mut LabelStart) -> Option<Ending> {
    if start.permit.is_none() {
        // The semaphore is never closed.
        start.permit = processors.labels.permits.clone().acquire_owned().await.ok();
    }
    let Work::Labels(detection) = &start.definition.work else {
        return None;
    };
    let arn = control::arn(&start.key);
    let metrics = processors.metrics.of(&arn);
    let tuning = match Tuning::from_tags(&start.definition.tags) {
        Ok(tuning) => tuning,
        Err(error) => return Some(Ending::Failed(error.message)),
    };
    let mut run = Run {
        processors,
        key: &start.key,
        arn,
        definition: &start.definition,
        detection,
        sampler: Sampler::new(tuning.max_rate.unwrap_or(LABEL_RATE_DEFAULT), tuning.key_frames_only),
        metrics,
    };
    loop {
        match run.attempt().await {
            Stop::Ended(ending) => return Some(ending),
            Stop::Superseded => return None,
            Stop::Retry(detail) => {
                tracing::warn!(processor = %run.arn, %detail, "a label-detection session begins again after its last fragment");
                run.metrics.retried();
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

struct Run<'a> {
    processors: &'a Arc<Processors>,
    key: &'a ResourceName,
    arn: String,
    definition: &'a Definition,
    detection: &'a LabelDetection,
    sampler: Sampler,
    metrics: RunMetrics,
}

impl Run<'_> {
    fn catalog(&self) -> &dyn Catalog {
        &**self.processors.store.catalog()
    }

    fn looker(&self) -> Looker<'_> {
        Looker {
            processors: self.processors,
            key: self.key,
            detection: self.detection,
            metrics: &self.metrics,
        }
    }

    async fn attempt(&mut self) -> Stop {
        let mut kept = match session::read(self.catalog(), self.key).await {
            Ok(Some(kept)) => kept,
            Ok(None) => return Stop::Superseded,
            Err(error) => return Stop::Retry(error.to_string()),
        };
        if kept.session.is_done() {
            return Stop::Ended(Ending::of(&kept.session, COMPLETE));
        }
        match self.open(&kept).await {
            Ok(feed) => match self.follow(feed, &mut kept).await {
                Ok(words) => Stop::Ended(Ending::of(&kept.session, &words)),
                Err(stop) => stop,
            },
            Err(stop) => stop,
        }
    }

    async fn open(&self, kept: &KeptSession) -> Result<Box<dyn Feed>, Stop> {
        let stream = StreamRef {
            account: self.key.account,
            region: self.key.region.clone(),
            stream: self.definition.input_arn.clone(),
        };
        let opened = self.processors.video.open(&stream, kept.session.start_at()).await;
        opened.map_err(|error| self.of_consumer(error))
    }

    fn of_consumer(&self, error: ConsumerError) -> Stop {
        match error {
            ConsumerError::NotFound(_) => self.stream_gone(),
            other => Stop::Retry(other.to_string()),
        }
    }

    fn stream_gone(&self) -> Stop {
        match control::video_stream(&self.definition.input_arn) {
            Ok(stream) => Stop::failed(pipeline::stream_gone(&stream.name)),
            Err(error) => Stop::failed(error.message),
        }
    }

    fn keep(&self, kept: &KeptSession) -> Keep {
        match kept.session.open(&self.detection.wanted()).is_empty() {
            true => Keep::Time,
            false => Keep::Picture,
        }
    }

    /// Follows the stream; gives how the session has come to its end in words.
    async fn follow(&mut self, mut feed: Box<dyn Feed>, kept: &mut KeptSession) -> Result<String, Stop> {
        let mut gatherer = Gatherer::default();
        let mut keep = self.keep(kept);
        loop {
            let event = match tokio::time::timeout(LABEL_IDLE, feed.next()).await {
                Ok(event) => event.map_err(|error| self.of_consumer(error))?,
                Err(_) => {
                    let seconds = LABEL_IDLE.as_secs();
                    return Ok(format!("{COMPLETE} The stream sent nothing for {seconds} seconds."));
                }
            };
            match event {
                Event::FragmentStart(start) => gatherer.start(&start),
                Event::Frame(frame) => gatherer.frame(frame, keep),
                Event::FragmentEnd(end) => {
                    if let Some(fragment) = gatherer.end(end) {
                        self.fragment(&fragment, kept).await?;
                        keep = self.keep(kept);
                    }
                    if kept.session.is_done() {
                        return Ok(COMPLETE.to_owned());
                    }
                }
                Event::StreamDeleted => return Err(self.stream_gone()),
            }
        }
    }

    /// Looks at a fragment, and commits what was found in it together with the fact that it was done.
    async fn fragment(&mut self, fragment: &Gathered, kept: &mut KeptSession) -> Result<(), Stop> {
        let open = kept.session.open(&self.detection.wanted());
        let mut found = Vec::new();
        if fragment.format.is_none() {
            self.metrics.dropped("codec");
        } else if !open.is_empty() {
            if fragment.dropped > 0 {
                tracing::warn!(processor = %self.arn, fragment = %fragment.number, frames = fragment.dropped, "a fragment is too large to be looked at to its end");
            }
            let mut sampler = self.sampler.clone();
            match self.looker().look(&kept.session, fragment, &open, &mut sampler).await {
                Ok((labels, looked)) => {
                    found = labels;
                    kept.session.frames += looked;
                }
                Err(Trouble::Fragment(why)) => {
                    tracing::warn!(processor = %self.arn, fragment = %fragment.number, %why, "a fragment cannot be looked at");
                    self.metrics.dropped("failed");
                    kept.session.unseen += 1;
                }
                Err(Trouble::Session(why)) => return Err(Stop::failed(why)),
            }
            self.sampler = sampler;
        }
        let retry = |error: &dyn std::fmt::Display| Stop::Retry(error.to_string());
        let queue = outbox::queue(self.key, &kept.session.id);
        let (mut changes, known) = (Vec::new(), kept.session.found.len());
        for label in found {
            let about = About {
                name: &self.key.name,
                definition: self.definition,
                session: &kept.session,
            };
            if let Some(topic) = &self.detection.topic {
                let (message_id, message) = about.found(&label).map_err(|error| retry(&error))?;
                let notification = Notification {
                    processor: self.arn.clone(),
                    topic_arn: topic.clone(),
                    message_id,
                    message,
                };
                let change = outbox::added(&queue, kept.session.found.len(), &notification);
                changes.push(change.map_err(|error| retry(&error))?);
            }
            kept.session.found.push(label);
        }
        let told = !changes.is_empty();
        kept.session
            .advance(fragment.number, fragment.producer_ms, fragment.lasted_ms());
        changes.push(session::replaced(self.key, kept).map_err(|error| retry(&error))?);
        match self.catalog().commit(changes).await {
            Ok(version) => kept.version = version,
            Err(error) if error.is_conflict() => return Err(Stop::Superseded),
            Err(error) => return Err(retry(&error)),
        }
        let new = kept.session.found.iter().skip(known);
        new.for_each(|label| self.metrics.label(&label.name));
        if told {
            self.processors.labels.outbox.send(&queue);
        }
        Ok(())
    }
}

/// What is said of a session that has come to its end.
const COMPLETE: &str = "Stream processing has completed.";
