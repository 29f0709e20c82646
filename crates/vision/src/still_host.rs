//! One worker process for the still images of one account's video, apart from its sessions and its images: a long group of
//! pictures must hold up neither.

use std::sync::Arc;
use std::time::Duration;

use base::AccountId;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::limits::{MAX_FRAME_BYTES, STILLS_TIMEOUT};
use crate::meters::Meters;
use crate::process::{Failure, Inbox, Launch, Outbox, Process};
use crate::protocol::{FromWorker, OpenStills, StillFrame, ToWorker};
use crate::types::{Abilities, StillError, StillsError, StillsRequest};

const KIND: [&str; 1] = ["stills"];

/// The answers for the wanted packets, in their order.
pub(crate) type Stills = Vec<Result<Bytes, StillError>>;

/// A request and where its images go.
pub(crate) struct StillsJob {
    pub(crate) request: StillsRequest,
    pub(crate) reply: oneshot::Sender<Result<Stills, StillsError>>,
}

pub(crate) struct StillHost {
    pub(crate) account: AccountId,
    pub(crate) launch: Arc<Launch>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) idle_retire: Duration,
    pub(crate) jobs: mpsc::Receiver<StillsJob>,
}

impl StillHost {
    /// Serves requests, one after the other, until none came for a while or nobody can ask any more. `retire` takes the
    /// host off the pool's list; what was asked until then is still answered.
    pub(crate) async fn run(mut self, retire: impl Fn()) {
        let mut worker = None;
        let mut number = 0;
        loop {
            let job = match tokio::time::timeout(self.idle_retire, self.jobs.recv()).await {
                Ok(Some(job)) => job,
                Ok(None) => break,
                Err(_) => {
                    retire();
                    self.jobs.close();
                    continue;
                }
            };
            if job.reply.is_closed() {
                continue;
            }
            number += 1;
            let StillsJob { request, mut reply } = job;
            let made = tokio::select! {
                biased;
                made = self.make(&mut worker, number, &request) => made,
                () = reply.closed() => {
                    // Nobody waits for it any more. The worker may be in the middle of it, and cannot be told to stop.
                    if let Some(busy) = worker.take() {
                        self.end(busy).await;
                    }
                    continue;
                }
            };
            self.count(&made);
            let _ = reply.send(made);
        }
        if let Some(worker) = worker {
            self.end(worker).await;
        }
    }

    fn count(&self, result: &Result<Stills, StillsError>) {
        let count = |label: &str, many: usize| self.meters.stills.with_label_values(&[label]).inc_by(many as u64);
        match result {
            Ok(stills) => {
                let good = stills.iter().filter(|still| still.is_ok()).count();
                count("made", good);
                count("undecodable", stills.len() - good);
            }
            Err(_) => count("failed", 1),
        }
    }

    /// Asks the worker, and a second one if the first dies. When it is dropped, `worker` is the one that was asked.
    async fn make(
        &self,
        worker: &mut Option<Process>,
        number: u32,
        request: &StillsRequest,
    ) -> Result<Stills, StillsError> {
        let mut last = Failure::Ended;
        for _ in 0..2 {
            let process = match &mut *worker {
                Some(process) => process,
                none => {
                    let started = Process::start(&self.launch, Abilities::default()).await;
                    let started = started.map_err(|failure| StillsError::Worker(failure.to_string()))?;
                    self.meters.workers.with_label_values(&KIND).inc();
                    none.insert(started)
                }
            };
            let asked = tokio::time::timeout(STILLS_TIMEOUT, ask(process, number, request));
            match asked.await.unwrap_or(Err(Failure::Silent)) {
                Ok(stills) => return Ok(stills),
                Err(failure) => {
                    self.meters.deaths.with_label_values(&KIND).inc();
                    tracing::warn!(account = %self.account, error = %failure, "vision worker lost over still images");
                    if let Some(lost) = worker.take() {
                        self.end(lost).await;
                    }
                    // What took too long once takes too long again.
                    if matches!(failure, Failure::Silent) {
                        return Err(StillsError::Worker(failure.to_string()));
                    }
                    last = failure;
                }
            }
        }
        Err(StillsError::Worker(last.to_string()))
    }

    async fn end(&self, process: Process) {
        self.meters.workers.with_label_values(&KIND).dec();
        process.kill().await;
    }
}

/// Writes and reads at once: the worker answers while frames are still on their way.
async fn ask(process: &mut Process, number: u32, request: &StillsRequest) -> Result<Stills, Failure> {
    let told = tell(&mut process.outbox, number, request);
    let heard = hear(&mut process.inbox, number, request);
    let ((), stills) = tokio::try_join!(told, heard)?;
    Ok(stills)
}

async fn tell(outbox: &mut Outbox, number: u32, request: &StillsRequest) -> Result<(), Failure> {
    let open = OpenStills {
        request: number,
        codec: request.codec,
        format: request.format,
        width: request.width.unwrap_or(0),
        height: request.height.unwrap_or(0),
        codec_private: request.codec_private.clone(),
    };
    outbox.send(&ToWorker::Stills(open)).await?;
    for (index, packet) in request.packets.iter().enumerate() {
        // A frame that no message holds is missing to the decoder, which says so of those that refer to it.
        if packet.data.len() > MAX_FRAME_BYTES {
            continue;
        }
        let frame = StillFrame {
            request: number,
            number: u32::try_from(index).unwrap_or(u32::MAX),
            fresh: packet.fresh,
            wanted: packet.wanted,
            data: packet.data.clone(),
        };
        outbox.send(&ToWorker::StillPacket(frame)).await?;
    }
    outbox.send(&ToWorker::EndOfStills { request: number }).await
}

async fn hear(inbox: &mut Inbox, number: u32, request: &StillsRequest) -> Result<Stills, Failure> {
    let wanted = request.packets.iter().enumerate().filter(|(_, packet)| packet.wanted);
    let wanted: Vec<usize> = wanted.map(|(index, _)| index).collect();
    let mut stills: Stills = vec![Err(StillError::Undecodable); wanted.len()];
    loop {
        match inbox.next().await? {
            FromWorker::Still {
                request,
                number: frame,
                result,
            } if request == number => {
                let at = wanted
                    .binary_search(&(frame as usize))
                    .map_err(|_| Failure::OutOfTurn)?;
                if let Some(still) = stills.get_mut(at) {
                    *still = result;
                }
            }
            FromWorker::StillsDone { request } if request == number => return Ok(stills),
            _ => return Err(Failure::OutOfTurn),
        }
    }
}
