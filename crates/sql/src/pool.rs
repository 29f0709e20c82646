//! The pool: worker processes of all accounts, and the conversions they do. A record on which workers end is found and left
//! out, so that it does not keep the others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::AccountId;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::job::{Job, Reason, Rejected};
use crate::limits::{FATAL_RECORDS_MAX, IDLE_RETIRE, JOB_ATTEMPTS, JOB_BYTES_PER_SECOND, JOB_TIMEOUT};
use crate::process::{Failure, Outcome, Process};

/// What the pool needs to know.
#[derive(Clone, Debug)]
pub struct SqlConfig {
    /// The program `sql-worker`.
    pub worker: PathBuf,
    /// Processes that work at once, of all accounts together.
    pub workers_max: usize,
    /// A worker that has nothing to do is ended after this.
    pub idle_retire: Duration,
    /// For a job, beside a second for each MiB of its records.
    pub job_timeout: Duration,
}

impl SqlConfig {
    /// Two processes, which is what two cores do.
    pub fn new(worker: PathBuf) -> Self {
        SqlConfig {
            worker,
            workers_max: std::thread::available_parallelism().map_or(2, usize::from).max(2),
            idle_retire: IDLE_RETIRE,
            job_timeout: JOB_TIMEOUT,
        }
    }
}

/// There is no such program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no program {}: build it with `make sql`", .0.display())]
pub struct StartError(pub PathBuf);

/// A file of columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// The file; empty when no record was taken.
    pub file: Bytes,
    /// How many rows it has.
    pub rows: u64,
    /// Records that are not in it, in their order.
    pub rejected: Vec<Rejected>,
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The worker cannot do this job, whoever asks.
    #[error("{0}")]
    Refused(String),
    /// The worker died or hung, and so did the next one.
    #[error("the program sql-worker failed: {0}")]
    Worker(String),
}

/// The worker processes of all accounts. Cheap to clone; when the last clone is gone, idle workers are ended.
#[derive(Clone)]
pub struct SqlPool {
    inner: Arc<Inner>,
}

struct Inner {
    config: SqlConfig,
    permits: Semaphore,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    next: u64,
    processes: Vec<(u64, AccountId, Process)>,
}

impl std::fmt::Debug for SqlPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlPool")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl SqlPool {
    /// A pool. Starts no process: workers are started when they are first needed.
    pub fn start(config: SqlConfig) -> Result<SqlPool, StartError> {
        if !config.worker.is_file() {
            return Err(StartError(config.worker));
        }
        let worker = std::path::absolute(&config.worker).unwrap_or_else(|_| config.worker.clone());
        let permits = Semaphore::new(config.workers_max.max(1));
        let inner = Inner {
            config: SqlConfig { worker, ..config },
            permits,
            idle: Mutex::default(),
        };
        Ok(SqlPool { inner: Arc::new(inner) })
    }

    /// Converts records to a file, in a process that serves no other account. Waits while all processes work. Dropping the
    /// future gives the job up.
    pub async fn convert(&self, account: AccountId, job: &Job, records: &[Bytes]) -> Result<Converted, ConvertError> {
        let gone = |_| ConvertError::Worker("the pool was shut down".to_owned());
        let _permit = self.inner.permits.acquire().await.map_err(gone)?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.attempt(account, job, records, attempt == 1).await {
                Ok(Outcome { failed: Some(why), .. }) => return Err(ConvertError::Refused(why)),
                Ok(outcome) => return Ok(converted(outcome)),
                Err(failure) => {
                    tracing::warn!(%account, attempt, error = %failure, "sql worker failed");
                    match attempt < JOB_ATTEMPTS {
                        true => {}
                        false if failure.came_of_the_job() => {
                            return self.without_fatal(account, job, records, failure).await;
                        }
                        false => return Err(ConvertError::Worker(failure.to_string())),
                    }
                }
            }
        }
    }

    /// Converts records of which some end workers: each of them is the last of the shortest beginning that ends one.
    async fn without_fatal(
        &self,
        account: AccountId,
        job: &Job,
        records: &[Bytes],
        mut failure: Failure,
    ) -> Result<Converted, ConvertError> {
        let worker = |failure: Failure| ConvertError::Worker(failure.to_string());
        // A worker that ends on the simplest record ends on all: that is not the records' fault.
        let probe = [Bytes::from_static(b"{}")];
        self.attempt(account, job, &probe, false).await.map_err(worker)?;
        let mut left: Vec<(usize, Bytes)> = records.iter().cloned().enumerate().collect();
        let (mut good, mut fatal) = (0, Vec::new());
        loop {
            let out = match fatal.len() < FATAL_RECORDS_MAX {
                true => {
                    let (mut low, mut high) = (good, left.len());
                    while high - low > 1 {
                        let middle = low + (high - low) / 2;
                        match self.beginning(account, job, &left, middle).await {
                            Ok(_) => low = middle,
                            Err(other) if other.came_of_the_job() => (high, failure) = (middle, other),
                            Err(other) => return Err(worker(other)),
                        }
                    }
                    good = low;
                    low..high
                }
                false => good..left.len(),
            };
            let why = format!("The program sql-worker failed on it: {failure}.");
            let reject = |(index, _)| Rejected {
                index,
                reason: Reason::Fatal(why.clone()),
            };
            tracing::warn!(%account, records = out.len(), error = %failure, "records are left out of a conversion");
            fatal.extend(left.drain(out).map(reject));
            match self.beginning(account, job, &left, left.len()).await {
                Ok(Outcome { failed: Some(why), .. }) => return Err(ConvertError::Refused(why)),
                Ok(mut outcome) => {
                    for rejected in &mut outcome.rejected {
                        rejected.index = left.get(rejected.index).map_or(rejected.index, |(index, _)| *index);
                    }
                    outcome.rejected.extend(fatal);
                    return Ok(converted(outcome));
                }
                Err(other) if other.came_of_the_job() && good < left.len() => failure = other,
                Err(other) => return Err(worker(other)),
            }
        }
    }

    /// The first so many of the records.
    async fn beginning(
        &self,
        account: AccountId,
        job: &Job,
        left: &[(usize, Bytes)],
        count: usize,
    ) -> Result<Outcome, Failure> {
        let records: Vec<Bytes> = left.iter().take(count).map(|(_, record)| record.clone()).collect();
        self.attempt(account, job, &records, true).await
    }

    /// A process that failed is not seen again.
    async fn attempt(&self, account: AccountId, job: &Job, records: &[Bytes], used: bool) -> Result<Outcome, Failure> {
        let config = &self.inner.config;
        let bytes: usize = records.iter().map(Bytes::len).sum();
        let within = config.job_timeout + Duration::from_secs(bytes as u64) / JOB_BYTES_PER_SECOND;
        let mut process = match self.inner.take(account).filter(|_| used) {
            Some(process) => process,
            None => Process::start(&config.worker).await?,
        };
        let outcome = process.run(job, records, within).await?;
        self.keep(account, process);
        Ok(outcome)
    }

    fn keep(&self, account: AccountId, process: Process) {
        let id = self.inner.put(account, process);
        let (pool, after) = (Arc::downgrade(&self.inner), self.inner.config.idle_retire);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(inner) = pool.upgrade() {
                inner.idle.lock().processes.retain(|(other, ..)| *other != id);
            }
        });
    }
}

fn converted(outcome: Outcome) -> Converted {
    let Outcome {
        mut file,
        rows,
        mut rejected,
        ..
    } = outcome;
    rejected.sort_by_key(|rejected| rejected.index);
    let file = match (rows, file.len()) {
        (0, _) => Bytes::new(),
        (_, 1) => file.pop().unwrap_or_default(),
        _ => {
            let mut whole = BytesMut::with_capacity(file.iter().map(Bytes::len).sum());
            file.iter().for_each(|part| whole.extend_from_slice(part));
            whole.freeze()
        }
    };
    Converted { file, rows, rejected }
}

impl Inner {
    /// A process of this account that waits. Without one, the longest idle of another account is ended, so that those that
    /// wait and those that work are never more than twice the limit.
    fn take(&self, account: AccountId) -> Option<Process> {
        let mut idle = self.idle.lock();
        let own = idle.processes.iter().rposition(|(_, other, _)| *other == account);
        if let Some(place) = own {
            return Some(idle.processes.remove(place).2);
        }
        if idle.processes.len() >= self.config.workers_max {
            idle.processes.remove(0);
        }
        None
    }

    fn put(&self, account: AccountId, process: Process) -> u64 {
        let mut idle = self.idle.lock();
        idle.next += 1;
        let id = idle.next;
        idle.processes.push((id, account, process));
        id
    }
}
