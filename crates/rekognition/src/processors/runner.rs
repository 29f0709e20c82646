//! A processor that runs: finds its resources, makes it RUNNING, and keeps a [`pipeline`](super::pipeline) going until it
//! is stopped or cannot go on.

use std::sync::Arc;

use base::ResourceName;
use tokio::sync::{oneshot, watch};
use video_streams::consumer::{ConsumerError, StartAt, StreamRef};

use super::Processors;
use super::control::{self, Tuning};
use super::definition::{Definition, FaceSearch, Transition, TransitionError, Work};
use super::pipeline::{self, End, Fragments, Pipeline, Resources};
use super::resume::{Position, Resume};
use super::search::Target;
use super::status::Status;
use super::unknown::{Destination, Keeper};
use crate::limits::RETRY_PAUSE;
use crate::ports::{Feed, SinkError};

/// What a run is started with.
pub(crate) struct Start {
    pub(crate) key: ResourceName,
    pub(crate) definition: Definition,
    /// Where to begin unless it is resumed.
    pub(crate) from: StartAt,
    pub(crate) resume: Option<Resume>,
    /// Told when the processor is RUNNING; dropped when it does not get so far.
    pub(crate) ready: Option<oneshot::Sender<()>>,
}

/// How a run came to its end.
enum Finish {
    /// It cannot go on, because of this.
    Failed(String),
    /// It was stopped or deleted meanwhile.
    Superseded,
}

/// The task of one start.
pub(crate) async fn run(processors: Arc<Processors>, start: Start, mut cancelled: watch::Receiver<bool>) {
    let (key, generation) = (start.key.clone(), start.definition.generation);
    let position = watch::Sender::new(None);
    let unknown = Arc::new(Keeper::new(processors.clock.clone()));
    let finish = tokio::select! {
        biased;
        // An error means that nobody can stop this run any more: the server is ending.
        _ = cancelled.wait_for(|cancel| *cancel) => None,
        finish = serve(&processors, start, &position, &unknown) => Some(finish),
    };
    unknown.finish(&processors.faces).await;
    let last: Option<Position> = position.borrow().clone();
    match finish {
        None => {
            let saved = match &last {
                Some(last) => processors.store.save_position(&key, last).await,
                None => Ok(()),
            };
            if let Err(error) = saved {
                tracing::warn!(processor = %key.name, %error, "the position cannot be saved");
            }
        }
        Some(finish) => {
            if let Finish::Failed(message) = finish {
                fail(&processors, &key, generation, &message).await;
            }
            processors.forget_run(&key, generation);
        }
    }
}

async fn fail(processors: &Processors, key: &ResourceName, generation: u64, message: &str) {
    tracing::warn!(processor = %key.name, account = %key.account, message, "a stream processor has failed");
    let wanted = Transition {
        to: Status::Failed,
        message: Some(message),
        generation: Some(generation),
        at: processors.clock.now(),
    };
    match processors.store.transition(key, &wanted).await {
        Ok(_) | Err(TransitionError::NotFound | TransitionError::Refused(_)) => {}
        Err(TransitionError::Catalog(error)) => {
            tracing::error!(processor = %key.name, %error, "the state FAILED cannot be kept");
        }
    }
}

/// Begins again after what may pass, and ends with what does not.
async fn serve(
    processors: &Arc<Processors>,
    mut start: Start,
    position: &watch::Sender<Option<Position>>,
    unknown: &Arc<Keeper>,
) -> Finish {
    let arn = control::arn(&start.key);
    let metrics = processors.metrics.of(&arn);
    let tuning = match Tuning::from_tags(&start.definition.tags) {
        Ok(tuning) => tuning,
        Err(error) => return Finish::Failed(error.message),
    };
    let mut resources: Option<Resources> = None;
    loop {
        let attempt = async {
            let found = match &resources {
                Some(found) => found.clone(),
                None => find(processors, &start).await?,
            };
            let feed = open(processors, &start, &found).await?;
            resources = Some(found.clone());
            if let Some(ready) = start.ready.take() {
                mark_running(processors, &start).await?;
                // Whoever started it may have gone.
                let _ = ready.send(());
            }
            if let Some(hours) = tuning.keep_unknown {
                unknown.begin(Destination {
                    processor: start.key.clone(),
                    stream_arn: found.stream_arn.clone(),
                    target: found.target.clone(),
                    hours,
                });
            }
            let pipeline = Pipeline {
                processors: processors.clone(),
                key: start.key.clone(),
                arn: arn.clone(),
                resources: found,
                tuning: tuning.clone(),
                resume: start.resume,
                position: position.clone(),
                metrics: metrics.clone(),
                fragments: Fragments::default(),
                unknown: unknown.clone(),
            };
            Err(match pipeline::run(Arc::new(pipeline), feed).await {
                End::Failed(message) => Stop::Failed(message),
                End::Retry(detail) => Stop::Retry(detail),
            })
        };
        let stopped: Result<std::convert::Infallible, Stop> = attempt.await;
        match stopped {
            Ok(never) => match never {},
            Err(Stop::Failed(message)) => return Finish::Failed(message),
            Err(Stop::Superseded) => return Finish::Superseded,
            Err(Stop::Retry(detail)) => {
                tracing::warn!(processor = %arn, %detail, "a stream processor begins again");
                metrics.retried();
                let recorded = position.borrow().as_ref().and_then(Position::resume);
                start.resume = recorded.or(start.resume);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

enum Stop {
    Failed(String),
    Retry(String),
    Superseded,
}

/// Finds the collection and the output.
async fn find(processors: &Processors, start: &Start) -> Result<Resources, Stop> {
    let definition = &start.definition;
    let input = control::video_stream(&definition.input_arn).map_err(|error| Stop::Failed(error.message))?;
    let Work::FaceSearch(FaceSearch {
        output_arn,
        collection_id,
        threshold,
    }) = &definition.work
    else {
        // It was made anew under its name since it was started.
        return Err(Stop::Superseded);
    };
    let output = control::data_stream(output_arn).map_err(|error| Stop::Failed(error.message))?;
    let collection = ResourceName {
        name: collection_id.clone(),
        ..start.key.clone()
    };
    let info = processors.faces.describe(&collection);
    let info = info.map_err(|_| Stop::Failed(pipeline::COLLECTION_GONE.to_owned()))?;
    let model = processors.vision.model();
    if info.model != model {
        return Err(Stop::Failed(format!(
            "Collection holds faces of model version {}, this server reads faces with version {}",
            info.model.id, model.id
        )));
    }
    let output_id = match processors.records.find(&output).await {
        Ok(Some(id)) => id,
        Ok(None) | Err(SinkError::StreamGone) => return Err(Stop::Failed(pipeline::output_gone(&output))),
        Err(SinkError::Failed(detail) | SinkError::Refused(detail)) => return Err(Stop::Retry(detail)),
    };
    Ok(Resources {
        stream_arn: definition.input_arn.clone(),
        stream_name: input.name,
        target: Target {
            collection,
            collection_id: info.id,
            model: model.id,
            threshold: *threshold,
        },
        output,
        output_id,
    })
}

async fn open(processors: &Processors, start: &Start, found: &Resources) -> Result<Box<dyn Feed>, Stop> {
    let stream = StreamRef {
        account: start.key.account,
        region: start.key.region.clone(),
        stream: found.stream_arn.clone(),
    };
    let from = start.resume.map_or(start.from, Resume::start);
    match processors.video.open(&stream, from).await {
        Ok(feed) => Ok(feed),
        Err(ConsumerError::NotFound(_)) => Err(Stop::Failed(pipeline::stream_gone(&found.stream_name))),
        Err(other) => Err(Stop::Retry(other.to_string())),
    }
}

/// STARTING becomes RUNNING, unless somebody stopped it meanwhile. One that was RUNNING before a restart stays so.
async fn mark_running(processors: &Processors, start: &Start) -> Result<(), Stop> {
    if start.definition.status == Status::Running {
        return Ok(());
    }
    let wanted = Transition {
        to: Status::Running,
        message: None,
        generation: Some(start.definition.generation),
        at: processors.clock.now(),
    };
    match processors.store.transition(&start.key, &wanted).await {
        Ok(_) => Ok(()),
        Err(TransitionError::Refused(_) | TransitionError::NotFound) => Err(Stop::Superseded),
        Err(TransitionError::Catalog(error)) => Err(Stop::Retry(error.to_string())),
    }
}
