//! A process of `sql-worker application` that runs: started with nothing but its pipes, told [`Command`]s, and listened to
//! for its [`Event`]s. Which application runs when, and what follows on its end, is its callers' business.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::application::{Command, Event, JobSpec, LINE_BYTES_MAX, to_line};
use crate::pool::StartError;
use crate::process::pass_on_complaints;

/// The first argument of the program.
const MODE: &str = "application";
/// The second, where the statements are planned and nothing runs.
const CHECK: &str = "--check";

/// The program, which is there.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

/// Why a process is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It could not be started.
    #[error("cannot start {0}: {1}")]
    Start(PathBuf, std::io::Error),
    /// It, or the pipe to it, is gone.
    #[error("its pipe broke: {0}")]
    Pipe(#[from] std::io::Error),
    /// What it says is no event.
    #[error("it said what is no event: {0}")]
    Nonsense(#[from] serde_json::Error),
    /// It says too much at once.
    #[error("it said a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
}

/// Why statements were not found to be good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckFailed {
    /// They are not: why, for people.
    #[error("{0}")]
    Script(String),
    /// The program said nothing that was understood: it is not one that runs applications.
    #[error("{0} runs no applications: {1}")]
    Unable(PathBuf, String),
    /// The program could not tell.
    #[error("the program sql-worker failed: {0}")]
    Worker(String),
}

impl Program {
    /// The program at that path.
    pub fn find(program: PathBuf) -> Result<Program, StartError> {
        if !program.is_file() {
            return Err(StartError(program));
        }
        Ok(Program(std::path::absolute(&program).unwrap_or(program)))
    }

    /// Lets a process plan the statements.
    pub async fn check(&self, spec: &JobSpec, within: Duration) -> Result<(), CheckFailed> {
        let failed = |why: &dyn std::fmt::Display| CheckFailed::Worker(why.to_string());
        let unable = |why: &dyn std::fmt::Display| CheckFailed::Unable(self.0.clone(), why.to_string());
        let looked = async {
            let mut process = self.spawn(&[MODE, CHECK], spec).await.map_err(|e| unable(&e))?;
            let first = process.next().await.map_err(|e| unable(&e))?;
            let mut told = Some(first.ok_or_else(|| unable(&"it ended without a word"))?);
            loop {
                match told {
                    Some(Event::Failed { reason, retriable }) if !retriable => return Err(CheckFailed::Script(reason)),
                    Some(Event::Failed { reason, .. }) => return Err(failed(&reason)),
                    Some(Event::Stopped) => return Ok(()),
                    Some(_) => told = process.next().await.map_err(|e| failed(&e))?,
                    None => return Err(failed(&"it ended")),
                }
            }
        };
        let late = |_| CheckFailed::Worker(format!("it was not done within {within:?}"));
        tokio::time::timeout(within, looked).await.map_err(late)?
    }

    /// Starts a process. Its directory exists.
    pub async fn start(&self, spec: &JobSpec) -> Result<Running, Broken> {
        self.spawn(&[MODE], spec).await
    }

    /// It inherits no variable, no file but its three streams, and no working directory.
    async fn spawn(&self, arguments: &[&str], spec: &JobSpec) -> Result<Running, Broken> {
        let program: &Path = &self.0;
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Broken::Start(program.to_path_buf(), e))?;
        let no_pipe = || Broken::Pipe(std::io::ErrorKind::BrokenPipe.into());
        let stdin = child.stdin.take().ok_or_else(no_pipe)?;
        let stdout = child.stdout.take().ok_or_else(no_pipe)?;
        let stderr = child.stderr.take().ok_or_else(no_pipe)?;
        tokio::spawn(pass_on_complaints(stderr, child.id()));
        let mut running = Running {
            _child: child,
            stdin,
            stdout,
            bytes: BytesMut::new(),
            looked: 0,
        };
        let line = to_line(spec)?;
        running.stdin.write_all(&line).await?;
        Ok(running)
    }
}

/// A process. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    _child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    bytes: BytesMut,
    /// So many of the bytes have no end of a line.
    looked: usize,
}

impl Running {
    /// What it says next; `None` when it has ended. The future may be dropped and made anew.
    pub async fn next(&mut self) -> Result<Option<Event>, Broken> {
        loop {
            let fresh = self.bytes.get(self.looked..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = self.bytes.split_to(self.looked + end + 1);
                self.looked = 0;
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            self.looked = self.bytes.len();
            if self.looked > LINE_BYTES_MAX {
                return Err(Broken::TooLong);
            }
            self.bytes.reserve(16 * 1024);
            if self.stdout.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Tells it something.
    pub async fn send(&mut self, command: &Command) -> Result<(), Broken> {
        let line = to_line(command)?;
        Ok(self.stdin.write_all(&line).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::application::{Restore, StartPoint};

    fn spec() -> JobSpec {
        JobSpec {
            application_arn: "arn:aws:kinesisanalytics:eu-west-1:000000000000:application/doors".into(),
            version: 1,
            endpoint: String::new(),
            region: "eu-west-1".into(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            session_token: None,
            ca: None,
            script: "SELECT 1".into(),
            tables: Vec::new(),
            state_dir: PathBuf::new(),
            restore: Restore::Nothing,
            start: StartPoint::Now,
            checkpoint_interval_ms: 1000,
            memory_limit: 1 << 30,
            allow_non_restored: false,
            error_stream: None,
        }
    }

    async fn checked(said: &str) -> Result<(), CheckFailed> {
        let mut file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempfile()
            .unwrap();
        writeln!(file, "#!/bin/sh\nread line\nprintf '{said}'").unwrap();
        // What is open for writing cannot be run.
        let path = file.into_temp_path();
        let program = Program::find(path.to_path_buf()).unwrap();
        program.check(&spec(), Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn what_a_program_says_of_statements_is_told_apart() {
        assert_eq!(checked(r#"{"event":"stopped"}\n"#).await, Ok(()));
        let log = r#"{"event":"log","level":"INFO","text":"a"}\n"#;
        assert_eq!(checked(&format!(r#"{log}{{"event":"stopped"}}\n"#)).await, Ok(()));
        let bad = r#"{"event":"failed","reason":"line 1","retriable":false}\n"#;
        assert_eq!(checked(bad).await, Err(CheckFailed::Script("line 1".into())));
        let later = r#"{"event":"failed","reason":"away","retriable":true}\n"#;
        assert_eq!(checked(later).await, Err(CheckFailed::Worker("away".into())));
        assert_eq!(checked(log).await, Err(CheckFailed::Worker("it ended".into())));
        for no_event in ["", r"\001\002no event\n"] {
            let answer = checked(no_event).await;
            assert!(
                matches!(answer, Err(CheckFailed::Unable(..))),
                "{no_event:?}: {answer:?}"
            );
        }
    }
}
