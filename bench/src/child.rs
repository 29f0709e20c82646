//! A real `sightglass serve` as a child process with a data directory of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use auth::{Credentials, Secret};
use base::SystemClock;
use client::{Client, ClientConfig, Endpoint};
use serde_json::Value;

/// Why a measurement could not be made, or missed its figure.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The running server. Killed, and its data removed, when dropped.
pub struct Child {
    process: std::process::Child,
    endpoint: Endpoint,
    credentials: Credentials,
    binary: PathBuf,
    folder: tempfile::TempDir,
}

impl Child {
    /// Starts the server on a free port and waits until it is ready. `args` go to `serve`. `SIGHTGLASS_BENCH_DIR` chooses
    /// the disk that is measured; the system's temporary folder otherwise.
    pub fn start(binary: &Path, args: &[&str]) -> Result<Self, Failure> {
        let place = std::env::var_os("SIGHTGLASS_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = tempfile::Builder::new().prefix("sightglass-bench-").tempdir_in(place)?;
        let data = folder.path().join("data");
        let (process, endpoint) = spawn(binary, &data, args)?;
        let credentials = credentials(binary, &data)?;
        Ok(Child {
            process,
            endpoint,
            credentials,
            binary: binary.to_owned(),
            folder,
        })
    }

    /// Kills the server with SIGKILL and starts it again over the same data.
    pub fn kill_and_restart(&mut self, args: &[&str]) -> Result<(), Failure> {
        self.kill()?;
        (self.process, self.endpoint) = spawn(&self.binary, &self.data_dir(), args)?;
        Ok(())
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// A client that signs with the root key.
    pub fn client(&self) -> Result<Client, Failure> {
        let config = ClientConfig {
            endpoint: self.endpoint.clone(),
            region: "us-east-1".parse()?,
            credentials: self.credentials.clone(),
            ca_pem: None,
            timeout: Duration::from_secs(30),
        };
        Ok(Client::new(config, Arc::new(SystemClock::new()))?)
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory of the server in KiB.
    pub fn rss_kib(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .ok_or("no VmRSS line")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// CPU seconds that the server has used, user and system.
    pub fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .ok_or("no command in stat")?
            .1
            .split_whitespace()
            .collect();
        let ticks = |index: usize| {
            fields
                .get(index)
                .and_then(|text| text.parse::<f64>().ok())
                .ok_or("short stat line")
        };
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.process.kill().is_ok() {
            let _ = self.process.wait();
        }
    }
}

fn spawn(binary: &Path, data: &Path, args: &[&str]) -> Result<(std::process::Child, Endpoint), Failure> {
    let mut process = Command::new(binary)
        .arg("serve")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen", "127.0.0.1:0"])
        .args(args)
        .env(
            "RUST_LOG",
            std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()),
        )
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    let stdout = process.stdout.take().ok_or("the child has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let url = line
        .trim()
        .strip_prefix("sightglass ready ")
        .ok_or("the server did not become ready; its log is above")?;
    Ok((process, url.parse()?))
}

fn credentials(binary: &Path, data: &Path) -> Result<Credentials, Failure> {
    let said = Command::new(binary)
        .args(["env", "--json", "--data-dir"])
        .arg(data)
        .output()?;
    let environment: Value = serde_json::from_slice(&said.stdout)?;
    let value = |name: &str| {
        environment[name]
            .as_str()
            .map(str::to_owned)
            .ok_or(format!("env does not name {name}"))
    };
    Ok(Credentials {
        access_key_id: value("AWS_ACCESS_KEY_ID")?,
        secret: Secret::new(value("AWS_SECRET_ACCESS_KEY")?),
        session_token: None,
    })
}
