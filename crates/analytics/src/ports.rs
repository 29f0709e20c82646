//! What applications need of the world and must not know how to do: processes, credentials, buckets, a cluster of Flink.
//! A server without one of them hands in the absent form, which says in plain words what is missing.

use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, Region};
use objects::{Bucket, Buckets, ObjectError};
use sql::application::{Command, Event, JobSpec};

/// Why a script cannot run, or that it could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The script is wrong: what, with line and column where they are known.
    #[error("{0}")]
    Script(String),
    /// There is no program that could look at it: how to get one.
    #[error("{0}")]
    Missing(String),
    /// The program failed; trying again may help.
    #[error("{0}")]
    Failed(String),
}

/// The programs that run applications.
#[async_trait]
pub trait Workers: Send + Sync + 'static {
    /// Plans the script and runs nothing. Fails with [`CheckError::Missing`] where nothing can run here.
    async fn check(&self, spec: &JobSpec) -> Result<(), CheckError>;

    /// Starts a worker. Its directory exists.
    async fn start(&self, spec: &JobSpec) -> Result<Box<dyn Worker>, String>;
}

/// A worker that was started. Dropping it ends it at once.
#[async_trait]
pub trait Worker: Send {
    /// What it tells next; `None` when it has ended. May be dropped and called again.
    async fn next(&mut self) -> Result<Option<Event>, String>;

    /// Tells it something.
    async fn send(&mut self, command: &Command) -> Result<(), String>;
}

/// How a worker reaches the server, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// `http://HOST:PORT`
    pub endpoint: String,
    /// A key of the account, for a day and a half.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Its token.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} at {})", self.access_key_id, self.endpoint)
    }
}

/// Mints what workers sign with.
pub trait Access: Send + Sync + 'static {
    /// A session of the account's; else why there is none.
    fn session(&self, account: AccountId, region: &Region) -> Result<Session, String>;
}

/// Everything.
#[derive(Clone)]
pub struct Ports {
    /// Buckets, wherever they lie.
    pub buckets: Arc<dyn Buckets>,
    /// Programs that run applications.
    pub workers: Arc<dyn Workers>,
    /// A cluster of Apache Flink, which runs the applications of its runtimes; none where none is configured.
    pub flink: Option<Arc<dyn Workers>>,
    /// What they sign with.
    pub access: Arc<dyn Access>,
}

impl Default for Ports {
    fn default() -> Self {
        Ports {
            buckets: Arc::new(Absent),
            workers: Arc::new(Absent),
            flink: None,
            access: Arc::new(Absent),
        }
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports")
    }
}

/// The absent form of every port.
#[derive(Clone, Copy, Debug)]
pub struct Absent;

const NO_WORKER: &str = "this server was started without the program sql-worker, so it runs no application";

#[async_trait]
impl Workers for Absent {
    async fn check(&self, _: &JobSpec) -> Result<(), CheckError> {
        Err(CheckError::Missing(NO_WORKER.to_owned()))
    }

    async fn start(&self, _: &JobSpec) -> Result<Box<dyn Worker>, String> {
        Err(NO_WORKER.to_owned())
    }
}

impl Access for Absent {
    fn session(&self, account: AccountId, _: &Region) -> Result<Session, String> {
        Err(format!("account {account} has no key to sign with"))
    }
}

#[async_trait]
impl Buckets for Absent {
    async fn open(&self, _: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError> {
        Err(ObjectError::NoSuchBucket(name.to_owned()))
    }
}
