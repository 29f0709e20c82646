//! One worker process: starting it with nothing but its pipes, and one job at a time over them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::job::{Job, Rejected};
use crate::limits::{CHUNK_BYTES, FROM_WORKER_BYTES_MAX, PIPE_BYTES, READY_TIMEOUT, STDERR_BYTES, STDERR_LINES};
use crate::protocol::{FromWorker, ProtocolError, ToWorker, VERSION, length, put_records};

/// Why a worker is no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot start {0}: {1}")]
    Start(PathBuf, std::io::Error),
    #[error("its pipe broke: {0}")]
    Pipe(#[from] std::io::Error),
    #[error("it ended")]
    Ended,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("it spoke out of turn")]
    OutOfTurn,
    #[error("protocol version {0} is not {VERSION}: server and worker are of different builds")]
    Version(u32),
    #[error("it was silent for too long")]
    Silent,
    #[error("it was not done within {0:?}")]
    Slow(Duration),
    #[error("it does not start: {0}")]
    Unready(Box<Failure>),
}

impl Failure {
    /// True where the worker was well before it was given the job.
    pub(crate) fn came_of_the_job(&self) -> bool {
        !matches!(self, Failure::Unready(_))
    }
}

/// What came of a job.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) file: Vec<Bytes>,
    pub(crate) rows: u64,
    pub(crate) rejected: Vec<Rejected>,
    /// The worker is well, and the job cannot be done.
    pub(crate) failed: Option<String>,
}

/// A worker that is ready. Dropping it kills the process.
pub(crate) struct Process {
    _child: Child,
    stdin: ChildStdin,
    inbox: Inbox,
}

impl Process {
    /// Starts a worker and waits until it has locked itself down. It inherits no variable, no file but its three
    /// streams, and no working directory; it drops root by itself.
    pub(crate) async fn start(worker: &Path) -> Result<Process, Failure> {
        let started = Process::begin(worker).await;
        started.map_err(|failure| Failure::Unready(Box::new(failure)))
    }

    async fn begin(worker: &Path) -> Result<Process, Failure> {
        let mut child = Command::new(worker)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Failure::Start(worker.to_path_buf(), e))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::Ended);
        };
        widen(&stdin);
        let pid = child.id();
        tokio::spawn(pass_on_complaints(stderr, pid));
        let mut process = Process {
            _child: child,
            stdin,
            inbox: Inbox {
                stdout,
                bytes: BytesMut::new(),
            },
        };
        let ready = tokio::time::timeout(READY_TIMEOUT, process.inbox.next()).await;
        match ready.map_err(|_| Failure::Silent)?? {
            FromWorker::Ready { version, .. } if version != VERSION => Err(Failure::Version(version)),
            FromWorker::Ready { lockdown, .. } => {
                tracing::debug!(pid, lockdown, "sql worker ready");
                Ok(process)
            }
            _ => Err(Failure::OutOfTurn),
        }
    }

    /// Does a job. After a failure the process is useless; so it is when the future was dropped.
    pub(crate) async fn run(&mut self, job: &Job, records: &[Bytes], within: Duration) -> Result<Outcome, Failure> {
        let Process { stdin, inbox, .. } = self;
        let both = async {
            let (_, outcome) = tokio::try_join!(send(stdin, job, records), receive(inbox, records.len()))?;
            Ok(outcome)
        };
        tokio::time::timeout(within, both)
            .await
            .map_err(|_| Failure::Slow(within))?
    }
}

async fn send(stdin: &mut ChildStdin, job: &Job, records: &[Bytes]) -> Result<(), Failure> {
    let mut message = Vec::new();
    ToWorker::Begin(Box::new(job.clone())).encode(&mut message);
    let mut rest = records;
    while !rest.is_empty() {
        let mut bytes = 0;
        let enough = |record: &Bytes| {
            bytes += record.len();
            bytes >= CHUNK_BYTES
        };
        let count = rest.iter().position(enough).map_or(rest.len(), |at| at + 1);
        let (chunk, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        put_records(&mut message, chunk);
        stdin.write_all(&message).await?;
        message.clear();
        rest = after;
    }
    ToWorker::End.encode(&mut message);
    stdin.write_all(&message).await?;
    Ok(())
}

async fn receive(inbox: &mut Inbox, records: usize) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    loop {
        match inbox.next().await? {
            FromWorker::Output(bytes) => outcome.file.push(bytes),
            FromWorker::Rejected(index, reason) => {
                let index = index as usize;
                if index >= records || outcome.rejected.len() >= records {
                    return Err(Failure::OutOfTurn);
                }
                outcome.rejected.push(Rejected { index, reason });
            }
            FromWorker::Done(rows) => {
                outcome.rows = rows;
                return Ok(outcome);
            }
            FromWorker::Failed(why) => {
                outcome.failed = Some(why);
                return Ok(outcome);
            }
            FromWorker::Ready { .. } => return Err(Failure::OutOfTurn),
        }
    }
}

/// Records are sent while others are converted. A system that does not allow a wider pipe makes it slower and nothing else.
fn widen(stdin: &ChildStdin) {
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(stdin, PIPE_BYTES) {
        tracing::debug!(%error, "the pipe to an sql worker stays small");
    }
}

/// A worker's complaints go to the log: a bounded number of them.
pub(crate) async fn pass_on_complaints(mut stderr: ChildStderr, pid: Option<u32>) {
    let mut lines = BufReader::new((&mut stderr).take(STDERR_BYTES)).lines();
    for _ in 0..STDERR_LINES {
        match lines.next_line().await {
            Ok(Some(line)) => tracing::warn!(pid, line, "sql worker"),
            _ => break,
        }
    }
    drop(lines);
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
}

/// The pipe from a worker.
struct Inbox {
    stdout: ChildStdout,
    bytes: BytesMut,
}

impl Inbox {
    async fn next(&mut self) -> Result<FromWorker, Failure> {
        loop {
            if let Some(prefix) = self.bytes.first_chunk::<4>() {
                let whole = 4 + length(*prefix, FROM_WORKER_BYTES_MAX)?;
                if self.bytes.len() >= whole {
                    let message = self.bytes.split_to(whole).freeze();
                    return Ok(FromWorker::decode(&message.slice(4..))?);
                }
                self.bytes.reserve(whole - self.bytes.len());
            }
            self.bytes.reserve(64 * 1024);
            if self.stdout.read_buf(&mut self.bytes).await? == 0 {
                return Err(Failure::Ended);
            }
        }
    }
}
