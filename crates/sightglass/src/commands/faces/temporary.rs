//! A server of the command's own, on a free port of loopback, in a directory that goes with it.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base::SystemClock;
use client::{Client, ClientConfig};
use storage::datadir::DataDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use vision::manifest::Manifest;

use super::super::Failure;

/// Longest start.
const START_WITHIN: Duration = Duration::from_secs(60);
/// What the server says when it is ready, before its URL.
const READY: &str = "sightglass ready ";

/// See the module. Dropping it kills the server and deletes its data.
pub struct Temporary {
    _child: Child,
    _folder: tempfile::TempDir,
    pub client: Client,
}

impl Temporary {
    /// Starts this same program as a server with a folder of models, and one of its embedders where one is named.
    pub async fn start(models: &Path, embedder: Option<&str>, region: &str) -> Result<Temporary, Failure> {
        Manifest::read(models, embedder).map_err(|why| format!("{}: {why}", Manifest::path(models).display()))?;
        let folder = tempfile::Builder::new().prefix("sightglass-eval-").tempdir()?;
        let mut vision = toml::Table::new();
        let models = std::path::absolute(models)?;
        let models = models.to_str().ok_or("the models' folder has no Unicode name")?;
        vision.insert("models".to_owned(), models.into());
        if let Some(embedder) = embedder {
            vision.insert("embedder".to_owned(), embedder.into());
        }
        let config = toml::Table::from_iter([("vision".to_owned(), toml::Value::Table(vision))]);
        let config_path = folder.path().join("config.toml");
        tokio::fs::write(&config_path, config.to_string()).await?;
        let data = folder.path().join("data");
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config_path)
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .env("RUST_LOG", "warn")
            // An interrupt at the terminal is the command's, which ends the server when it is done.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the server has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::time::timeout(START_WITHIN, lines.next_line()).await;
        let line = ready.map_err(|_| "the server did not become ready")??;
        let line = line.ok_or("the server ended at its start")?;
        let url = line
            .strip_prefix(READY)
            .ok_or("the server did not say where it listens")?;
        let key = super::super::root_key(&DataDir::peek(&data)?)?;
        let config = ClientConfig::new(url.trim().parse()?, region.parse()?, key);
        Ok(Temporary {
            client: Client::new(config, Arc::new(SystemClock::new()))?,
            _child: child,
            _folder: folder,
        })
    }
}
