//! One worker process: starting it with nothing but its pipes, and talking over them.

use std::path::PathBuf;
use std::process::Stdio;

use bytes::BytesMut;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::limits::{PIPE_BYTES, READY_TIMEOUT, STDERR_LINES};
use crate::protocol::{FromWorker, MAX_FROM_WORKER, ProtocolError, ToWorker, VERSION, length};
use crate::schedule::UnknownFrame;
use crate::types::Abilities;

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
    #[error(transparent)]
    UnknownFrame(#[from] UnknownFrame),
    #[error("it spoke out of turn")]
    OutOfTurn,
    #[error("protocol version {0} is not {VERSION}: server and worker are of different builds")]
    Version(u32),
    #[error("its vectors have {0} numbers, the manifest says {1}")]
    EmbeddingLength(u32, usize),
    #[error("it was silent for too long")]
    Silent,
}

/// How workers are started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) worker: PathBuf,
    pub(crate) models: PathBuf,
    pub(crate) embedder: String,
    pub(crate) embedding_len: usize,
    /// Leave most of a busy processor to others.
    pub(crate) background: bool,
    /// What workers of video load beside the models of faces.
    pub(crate) video_abilities: Abilities,
}

/// A worker that is ready. Dropping it kills the process.
pub(crate) struct Process {
    child: Child,
    /// What it has loaded beside the models of faces.
    pub(crate) abilities: Abilities,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
}

impl Process {
    /// Starts a worker and waits until it has locked itself down. It inherits no variable, no file but its three
    /// streams, and no working directory; it drops root by itself once it has read its models.
    pub(crate) async fn start(launch: &Launch, abilities: Abilities) -> Result<Process, Failure> {
        let mut command = Command::new(&launch.worker);
        if launch.background {
            command.arg("--background");
        }
        command.arg(&launch.models).arg(&launch.embedder);
        command.args(abilities.attributes.then_some("--attributes"));
        command.args(abilities.labels.then_some("--labels"));
        Process::run(launch, command, abilities, launch.embedding_len).await
    }

    /// Starts a worker that takes films apart: it loads no models and goes after everything else.
    pub(crate) async fn start_demuxer(launch: &Launch) -> Result<Process, Failure> {
        let mut command = Command::new(&launch.worker);
        command.args(["--background", "--film"]);
        Process::run(launch, command, Abilities::default(), 0).await
    }

    async fn run(
        launch: &Launch,
        mut command: Command,
        abilities: Abilities,
        expected_len: usize,
    ) -> Result<Process, Failure> {
        let mut child = command
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Failure::Start(launch.worker.clone(), e))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::Ended);
        };
        widen(&stdin);
        tokio::spawn(pass_on_complaints(stderr, child.id()));
        let mut process = Process {
            child,
            abilities,
            outbox: Outbox {
                stdin,
                head: Vec::new(),
            },
            inbox: Inbox {
                stdout,
                bytes: BytesMut::new(),
            },
        };
        let ready = tokio::time::timeout(READY_TIMEOUT, process.inbox.next()).await;
        match ready.map_err(|_| Failure::Silent)?? {
            FromWorker::Ready { version, .. } if version != VERSION => Err(Failure::Version(version)),
            FromWorker::Ready { embedding_len, .. } if embedding_len as usize != expected_len => {
                Err(Failure::EmbeddingLength(embedding_len, expected_len))
            }
            FromWorker::Ready { lockdown, .. } => {
                tracing::debug!(pid = process.child.id(), lockdown, "vision worker ready");
                Ok(process)
            }
            _ => Err(Failure::OutOfTurn),
        }
    }

    /// Ends the process and waits for it, so that it leaves no zombie.
    pub(crate) async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "vision worker could not be killed");
        }
    }
}

/// A worker reads between two rounds of analysis. With the 64 KiB that a pipe has, it finds no more than that of what its
/// cameras have sent meanwhile, and falls behind. A system that does not allow it makes it slower and nothing else.
fn widen(stdin: &ChildStdin) {
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(stdin, PIPE_BYTES) {
        tracing::debug!(%error, "the pipe to a vision worker stays small");
    }
}

/// A worker's complaints go to the log: a bounded number of them.
async fn pass_on_complaints(mut stderr: ChildStderr, pid: Option<u32>) {
    let mut lines = BufReader::new((&mut stderr).take(16 * 1024)).lines();
    for _ in 0..STDERR_LINES {
        match lines.next_line().await {
            Ok(Some(line)) => tracing::warn!(pid, line, "vision worker"),
            _ => break,
        }
    }
    drop(lines);
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
}

/// The pipe to a worker.
pub(crate) struct Outbox {
    stdin: ChildStdin,
    head: Vec<u8>,
}

impl Outbox {
    /// Writes a message. Not cancel safe: a message cut short makes the pipe useless.
    pub(crate) async fn send(&mut self, message: &ToWorker) -> Result<(), Failure> {
        let tail = message.encode(&mut self.head);
        self.stdin.write_all(&self.head).await?;
        self.stdin.write_all(tail).await?;
        Ok(())
    }
}

/// The pipe from a worker.
pub(crate) struct Inbox {
    stdout: ChildStdout,
    bytes: BytesMut,
}

impl Inbox {
    /// The next message. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<FromWorker, Failure> {
        loop {
            if let Some(prefix) = self.bytes.first_chunk::<4>() {
                let whole = 4 + length(*prefix, MAX_FROM_WORKER)?;
                if self.bytes.len() >= whole {
                    let message = self.bytes.split_to(whole);
                    return Ok(FromWorker::decode(message.get(4..).unwrap_or_default())?);
                }
                self.bytes.reserve(whole - self.bytes.len());
            }
            self.bytes.reserve(4096);
            if self.stdout.read_buf(&mut self.bytes).await? == 0 {
                return Err(Failure::Ended);
            }
        }
    }
}
