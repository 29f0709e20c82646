//! One worker process for the images of one account, apart from its video: a large image must not hold up a camera.

use std::sync::Arc;
use std::time::Duration;

use base::AccountId;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::limits::{IMAGE_TIMEOUT, MAX_IMAGE_PIXELS};
use crate::meters::Meters;
use crate::objects::LabelAnalysis;
use crate::process::{Failure, Launch, Process};
use crate::protocol::{FromWorker, ToWorker};
use crate::types::{Abilities, ImageAnalysis, ImageError, ImageOptions};

const KIND: [&str; 1] = ["image"];

type Reply<T> = oneshot::Sender<Result<T, ImageError>>;

/// What is looked for in an image, and where it goes.
pub(crate) enum Look {
    Faces(ImageOptions, Reply<ImageAnalysis>),
    Objects(Reply<LabelAnalysis>),
}

/// An image and what is looked for in it.
pub(crate) struct ImageRequest {
    pub(crate) image: Bytes,
    pub(crate) look: Look,
}

impl ImageRequest {
    fn needs(&self) -> Abilities {
        match &self.look {
            Look::Faces(options, _) => Abilities {
                attributes: options.attributes,
                labels: false,
            },
            Look::Objects(_) => Abilities {
                attributes: false,
                labels: true,
            },
        }
    }

    fn is_given_up(&self) -> bool {
        match &self.look {
            Look::Faces(_, reply) => reply.is_closed(),
            Look::Objects(reply) => reply.is_closed(),
        }
    }

    fn message(&self, request: u32) -> ToWorker {
        let data = self.image.clone();
        match &self.look {
            Look::Faces(options, _) => ToWorker::Image {
                request,
                embed: options.embed,
                attributes: options.attributes,
                max_pixels: options.max_pixels,
                data,
            },
            Look::Objects(_) => ToWorker::Labels {
                request,
                max_pixels: MAX_IMAGE_PIXELS,
                data,
            },
        }
    }

    fn answer(self, result: Result<Seen, ImageError>) {
        let other = || ImageError::Worker("the worker answered another question".to_owned());
        match self.look {
            Look::Faces(_, reply) => {
                let _ = reply.send(result.and_then(|seen| match seen {
                    Seen::Faces(faces) => Ok(faces),
                    Seen::Objects(_) => Err(other()),
                }));
            }
            Look::Objects(reply) => {
                let _ = reply.send(result.and_then(|seen| match seen {
                    Seen::Objects(objects) => Ok(objects),
                    Seen::Faces(_) => Err(other()),
                }));
            }
        }
    }
}

/// What a worker found.
enum Seen {
    Faces(ImageAnalysis),
    Objects(LabelAnalysis),
}

pub(crate) struct ImageHost {
    pub(crate) account: AccountId,
    pub(crate) launch: Arc<Launch>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) idle_retire: Duration,
    pub(crate) requests: mpsc::Receiver<ImageRequest>,
}

impl ImageHost {
    /// Serves requests, one after the other, until none came for a while or nobody can ask any more. `retire` takes the
    /// host off the pool's list; what was asked until then is still answered.
    pub(crate) async fn run(mut self, retire: impl Fn()) {
        let mut worker = None;
        let mut number = 0;
        loop {
            let request = match tokio::time::timeout(self.idle_retire, self.requests.recv()).await {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(_) => {
                    retire();
                    self.requests.close();
                    continue;
                }
            };
            if request.is_given_up() {
                continue;
            }
            number += 1;
            let result = self.analyse(&mut worker, number, &request).await;
            self.count(&result);
            request.answer(result);
        }
        if let Some(worker) = worker {
            self.end(worker).await;
        }
    }

    fn count(&self, result: &Result<Seen, ImageError>) {
        let label = match result {
            Ok(_) => "analysed",
            Err(ImageError::Worker(_) | ImageError::Busy) => "failed",
            Err(_) => "refused",
        };
        self.meters.images.with_label_values(&[label]).inc();
    }

    /// Asks the worker, and a second one if the first dies.
    async fn analyse(
        &self,
        worker: &mut Option<Process>,
        number: u32,
        request: &ImageRequest,
    ) -> Result<Seen, ImageError> {
        let mut last = Failure::Ended;
        for _ in 0..2 {
            let mut process = self
                .able(worker.take(), request.needs())
                .await
                .map_err(|failure| ImageError::Worker(failure.to_string()))?;
            let asked = tokio::time::timeout(IMAGE_TIMEOUT, ask(&mut process, number, request));
            match asked.await.unwrap_or(Err(Failure::Silent)) {
                Ok(result) => {
                    *worker = Some(process);
                    return result;
                }
                Err(failure) => {
                    self.meters.deaths.with_label_values(&KIND).inc();
                    tracing::warn!(account = %self.account, error = %failure, "vision worker lost over an image");
                    self.end(process).await;
                    last = failure;
                }
            }
        }
        Err(ImageError::Worker(last.to_string()))
    }

    /// The worker, if it has loaded what is needed; otherwise a new one that loads that too. A worker opens no file once
    /// it is ready, and most are never asked for more than faces.
    async fn able(&self, worker: Option<Process>, needs: Abilities) -> Result<Process, Failure> {
        let mut abilities = needs;
        if let Some(worker) = worker {
            if worker.abilities.and(needs) == worker.abilities {
                return Ok(worker);
            }
            abilities = worker.abilities.and(needs);
            self.end(worker).await;
        }
        Process::start(&self.launch, abilities).await.inspect(|_| {
            self.meters.workers.with_label_values(&KIND).inc();
        })
    }

    async fn end(&self, process: Process) {
        self.meters.workers.with_label_values(&KIND).dec();
        process.kill().await;
    }
}

async fn ask(process: &mut Process, number: u32, request: &ImageRequest) -> Result<Result<Seen, ImageError>, Failure> {
    process.outbox.send(&request.message(number)).await?;
    match process.inbox.next().await? {
        FromWorker::Image { request, result } if request == number => Ok(result.map(Seen::Faces)),
        FromWorker::Labels { request, result } if request == number => Ok(result.map(Seen::Objects)),
        _ => Err(Failure::OutOfTurn),
    }
}
