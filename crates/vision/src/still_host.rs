//! One worker process for frames of one account's stored video, apart from its sessions and its images: a long group of
//! pictures must hold up neither. An account has one for still images and another one, which goes after everything else,
//! for the objects of frames.

use std::sync::Arc;
use std::time::Duration;

use base::AccountId;
use tokio::sync::{mpsc, oneshot};

use crate::frames::{Answers, FrameLook, FramesRequest, Made};
use crate::limits::{LOOK_TIMEOUT, MAX_FRAME_BYTES, STILLS_TIMEOUT};
use crate::meters::Meters;
use crate::process::{Failure, Inbox, Launch, Outbox, Process};
use crate::protocol::{FromWorker, OpenLook, OpenStills, StillFrame, ToWorker};
use crate::types::{Abilities, StillError, StillPacket, StillsError, StillsRequest};

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FrameKind {
    /// Still images.
    Stills,
    /// Objects of frames, and pictures of them.
    Looks,
}

impl FrameKind {
    fn label(self) -> [&'static str; 1] {
        match self {
            FrameKind::Stills => ["stills"],
            FrameKind::Looks => ["labels"],
        }
    }

    fn abilities(self) -> Abilities {
        Abilities {
            attributes: false,
            labels: self == FrameKind::Looks,
        }
    }

    fn timeout(self) -> Duration {
        match self {
            FrameKind::Stills => STILLS_TIMEOUT,
            FrameKind::Looks => LOOK_TIMEOUT,
        }
    }
}

/// What is asked about frames.
pub(crate) enum Question {
    Stills(StillsRequest),
    Look(FramesRequest, FrameLook),
}

impl Question {
    fn packets(&self) -> &[StillPacket] {
        match self {
            Question::Stills(request) => &request.packets,
            Question::Look(request, _) => &request.packets,
        }
    }

    fn open(&self, number: u32) -> ToWorker {
        match self {
            Question::Stills(request) => ToWorker::Stills(OpenStills {
                request: number,
                codec: request.codec,
                format: request.format,
                width: request.width.unwrap_or(0),
                height: request.height.unwrap_or(0),
                codec_private: request.codec_private.clone(),
            }),
            Question::Look(request, look) => ToWorker::Look(OpenLook {
                request: number,
                codec: request.codec,
                look: *look,
                codec_private: request.codec_private.clone(),
            }),
        }
    }

    /// Whether the answer is of the kind that was asked for.
    fn is_answered_by(&self, made: &Made) -> bool {
        let objects = matches!(self, Question::Look(_, FrameLook::Objects));
        objects == matches!(made, Made::Objects(_))
    }
}

/// A question and where its answers go.
pub(crate) struct FramesJob {
    pub(crate) question: Question,
    pub(crate) reply: oneshot::Sender<Result<Answers, StillsError>>,
}

pub(crate) struct StillHost {
    pub(crate) account: AccountId,
    pub(crate) kind: FrameKind,
    pub(crate) launch: Arc<Launch>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) idle_retire: Duration,
    pub(crate) jobs: mpsc::Receiver<FramesJob>,
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
            let FramesJob { question, mut reply } = job;
            let made = tokio::select! {
                biased;
                made = self.make(&mut worker, number, &question) => made,
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

    fn count(&self, result: &Result<Answers, StillsError>) {
        if self.kind != FrameKind::Stills {
            return; // Who asks counts what became of the frames.
        }
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
        question: &Question,
    ) -> Result<Answers, StillsError> {
        let mut last = Failure::Ended;
        for _ in 0..2 {
            let process = match &mut *worker {
                Some(process) => process,
                none => {
                    let started = Process::start(&self.launch, self.kind.abilities()).await;
                    let started = started.map_err(|failure| StillsError::Worker(failure.to_string()))?;
                    self.meters.workers.with_label_values(&self.kind.label()).inc();
                    none.insert(started)
                }
            };
            let asked = tokio::time::timeout(self.kind.timeout(), ask(process, number, question));
            match asked.await.unwrap_or(Err(Failure::Silent)) {
                Ok(answers) => return Ok(answers),
                Err(failure) => {
                    self.meters.deaths.with_label_values(&self.kind.label()).inc();
                    tracing::warn!(account = %self.account, error = %failure, "vision worker lost over stored frames");
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
        self.meters.workers.with_label_values(&self.kind.label()).dec();
        process.kill().await;
    }
}

/// Writes and reads at once: the worker answers while frames are still on their way.
async fn ask(process: &mut Process, number: u32, question: &Question) -> Result<Answers, Failure> {
    let told = tell(&mut process.outbox, number, question);
    let heard = hear(&mut process.inbox, number, question);
    let ((), answers) = tokio::try_join!(told, heard)?;
    Ok(answers)
}

async fn tell(outbox: &mut Outbox, number: u32, question: &Question) -> Result<(), Failure> {
    outbox.send(&question.open(number)).await?;
    for (index, packet) in question.packets().iter().enumerate() {
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

async fn hear(inbox: &mut Inbox, number: u32, question: &Question) -> Result<Answers, Failure> {
    let packets = question.packets().iter().enumerate();
    let wanted: Vec<usize> = packets
        .filter(|(_, packet)| packet.wanted)
        .map(|(index, _)| index)
        .collect();
    let mut answers: Answers = vec![Err(StillError::Undecodable); wanted.len()];
    loop {
        let (frame, answer) = match inbox.next().await? {
            FromWorker::Still {
                request,
                number: frame,
                result,
            } if request == number => (frame, result.map(Made::File)),
            FromWorker::Objects {
                request,
                number: frame,
                result,
            } if request == number => (frame, result.map(Made::Objects)),
            FromWorker::StillsDone { request } if request == number => return Ok(answers),
            _ => return Err(Failure::OutOfTurn),
        };
        if answer.as_ref().is_ok_and(|made| !question.is_answered_by(made)) {
            return Err(Failure::OutOfTurn);
        }
        let at = wanted
            .binary_search(&(frame as usize))
            .map_err(|_| Failure::OutOfTurn)?;
        if let Some(place) = answers.get_mut(at) {
            *place = answer;
        }
    }
}
