//! One worker process for the images of one account, apart from its video: a large image must not hold up a camera.

use std::sync::Arc;
use std::time::Duration;

use base::AccountId;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::limits::IMAGE_TIMEOUT;
use crate::meters::Meters;
use crate::process::{Failure, Launch, Process};
use crate::protocol::{FromWorker, ToWorker};
use crate::types::{ImageAnalysis, ImageError, ImageOptions};

const KIND: [&str; 1] = ["image"];

/// An image and where its faces go.
pub(crate) struct ImageRequest {
    pub(crate) image: Bytes,
    pub(crate) options: ImageOptions,
    pub(crate) reply: oneshot::Sender<Result<ImageAnalysis, ImageError>>,
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
            if request.reply.is_closed() {
                continue;
            }
            number += 1;
            let result = self.analyse(&mut worker, number, &request).await;
            self.count(&result);
            let _ = request.reply.send(result);
        }
        if let Some(worker) = worker {
            self.end(worker).await;
        }
    }

    fn count(&self, result: &Result<ImageAnalysis, ImageError>) {
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
    ) -> Result<ImageAnalysis, ImageError> {
        let mut last = Failure::Ended;
        for _ in 0..2 {
            let process = match worker.take() {
                Some(process) => Ok(process),
                None => Process::start(&self.launch).await.inspect(|_| {
                    self.meters.workers.with_label_values(&KIND).inc();
                }),
            };
            let mut process = process.map_err(|failure| ImageError::Worker(failure.to_string()))?;
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

    async fn end(&self, process: Process) {
        self.meters.workers.with_label_values(&KIND).dec();
        process.kill().await;
    }
}

async fn ask(
    process: &mut Process,
    number: u32,
    request: &ImageRequest,
) -> Result<Result<ImageAnalysis, ImageError>, Failure> {
    let message = ToWorker::Image {
        request: number,
        embed: request.options.embed,
        max_pixels: request.options.max_pixels,
        data: request.image.clone(),
    };
    process.outbox.send(&message).await?;
    match process.inbox.next().await? {
        FromWorker::Image { request, result } if request == number => Ok(result),
        _ => Err(Failure::OutOfTurn),
    }
}
