//! A real `sightglass serve` in a process of its own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use auth::{Credentials, Secret};
use base::SystemClock;
use client::{Client, ClientConfig, ClientError, Service};
use serde_json::{Value, json};

use crate::Failure;

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    endpoint: String,
}

/// The region of the requests.
pub const REGION: &str = "us-west-2";

/// The root key that the child is given.
pub fn credentials() -> Credentials {
    Credentials {
        access_key_id: "AKIABENCHBENCHBENCH1".to_owned(),
        secret: Secret::new("bench-bench-bench-bench-bench-bench-1234"),
        session_token: None,
    }
}

/// A command that serves `data_dir` on a free port; `log` takes its stderr.
fn command(binary: &Path, data_dir: &Path, log: &Path) -> Result<Command, Failure> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--listen", "127.0.0.1:0"])
        .env("SIGHTGLASS_ACCESS_KEY_ID", credentials().access_key_id)
        .env("SIGHTGLASS_SECRET_ACCESS_KEY", credentials().secret.reveal())
        .env(
            "RUST_LOG",
            std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // Ctrl-C is for this program, which ends the server itself.
        .process_group(0);
    Ok(command)
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub fn start(binary: &Path, data_dir: &Path, log: &Path) -> Result<Server, Failure> {
        Self::ready(command(binary, data_dir, log)?, log)
    }

    /// The same with a configuration file.
    pub fn start_configured(binary: &Path, data_dir: &Path, log: &Path, config: &Path) -> Result<Server, Failure> {
        let mut command = command(binary, data_dir, log)?;
        command.arg("--config").arg(config);
        Self::ready(command, log)
    }

    fn ready(mut command: Command, log: &Path) -> Result<Server, Failure> {
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("the server has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(endpoint) = line.trim().strip_prefix("sightglass ready ") else {
            let status = child.wait()?;
            return Err(format!("the server did not start ({status}); its log is {}", log.display()).into());
        };
        Ok(Server {
            endpoint: endpoint.to_owned(),
            child,
        })
    }

    /// Starts a server and kills it after `delay`, wherever it is in its recovery.
    pub fn kill_while_starting(binary: &Path, data_dir: &Path, log: &Path, delay: Duration) -> Result<(), Failure> {
        let mut child = command(binary, data_dir, log)?.spawn()?;
        std::thread::sleep(delay);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A client that signs with the root key.
    pub fn client(&self) -> Result<Client, Failure> {
        let config = ClientConfig::new(self.endpoint.parse()?, REGION.parse()?, credentials());
        Ok(Client::new(config, Arc::new(SystemClock::new()))?)
    }

    /// SIGKILL, and the end awaited.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the end awaited; an error if the server does not exit 0.
    #[allow(unsafe_code, reason = "kill(2) of our own child")]
    pub fn stop(mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: the child is ours and not waited for yet, so the pid is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {status}").into())
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls an operation that may have been done in an earlier life of the data directory.
pub async fn create(client: &Client, service: Service, operation: &str, input: &Value) -> Result<(), Failure> {
    match client.call(service, operation, input).await {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(answer)) if answer.code == "ResourceInUseException" => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A video stream that keeps what it gets.
pub async fn create_video_stream(client: &Client, name: &str) -> Result<(), Failure> {
    let input = json!({ "StreamName": name, "DataRetentionInHours": 24, "MediaType": "video/h264" });
    create(client, Service::KinesisVideo, "CreateStream", &input).await
}
