//! Jobs over stored video: [`operations`] starts them and answers from their results, [`job`] and [`results`] are what is
//! kept, [`run`] carries one out over its [`footage`], [`tracks`] says whose face is whose, [`notify`] tells a topic.
//!
//! A job is durable before its id is answered. One that a crash or a failure breaks off begins again from its start, and
//! ends once. At most [`limits::STORED_JOBS_RUNNING`] are carried out at once, in worker processes that leave the processor
//! to live cameras; the others wait. It refuses to know HTTP, codecs and containers.

mod footage;
mod job;
mod notify;
mod operations;
mod results;
mod run;
mod tracks;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Clock, ResourceName};
use faces::FaceStore;
use objects::Buckets;
use parking_lot::Mutex;
use storage::CatalogError;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use video_streams::ports::Topics;

use crate::limits;
use crate::ports::{VideoSource, Vision};
use crate::service::Parts;
use job::{Ending, Job, JobKey, Status, Store};
use results::Results;
use run::Stop;

impl JobKey {
    /// A resource of the job's owner.
    fn named(&self, name: &str) -> ResourceName {
        ResourceName {
            account: self.account,
            region: self.region.clone(),
            name: name.to_owned(),
        }
    }
}

/// Every job of this server.
pub(crate) struct StoredVideo {
    pub(crate) faces: Arc<FaceStore>,
    pub(crate) vision: Arc<dyn Vision>,
    pub(crate) video: Arc<dyn VideoSource>,
    pub(crate) buckets: Arc<dyn Buckets>,
    pub(crate) topics: Arc<dyn Topics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Store,
    /// Held while a job is counted and added.
    starting: tokio::sync::Mutex<()>,
    running: Semaphore,
    tasks: Mutex<HashMap<JobKey, JoinHandle<()>>>,
    sweeper: Mutex<Option<JoinHandle<()>>>,
    ending: AtomicBool,
}

impl StoredVideo {
    pub(crate) fn new(parts: &Parts) -> Arc<Self> {
        Arc::new(StoredVideo {
            faces: parts.faces.clone(),
            vision: parts.vision.clone(),
            video: parts.video.clone(),
            buckets: parts.buckets.clone(),
            topics: parts.topics.clone(),
            clock: parts.clock.clone(),
            store: Store {
                catalog: parts.catalog.clone(),
            },
            starting: tokio::sync::Mutex::default(),
            running: Semaphore::new(limits::STORED_JOBS_RUNNING),
            tasks: Mutex::default(),
            sweeper: Mutex::default(),
            ending: AtomicBool::new(false),
        })
    }

    /// Goes on with every job that has not come to its end, and sweeps from now on.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<(), CatalogError> {
        for key in self.store.all().await? {
            self.spawn(key);
        }
        let stored = self.clone();
        let sweeper = tokio::spawn(async move {
            loop {
                if let Err(error) = stored.sweep().await {
                    tracing::warn!(%error, "results of stored video that are too old are still there");
                }
                tokio::time::sleep(limits::STORED_SWEEP_INTERVAL).await;
            }
        });
        *self.sweeper.lock() = Some(sweeper);
        Ok(())
    }

    /// Breaks every job off; they go on at the next start.
    pub(crate) async fn shutdown(&self) {
        self.ending.store(true, Ordering::Release);
        let sweeper = self.sweeper.lock().take();
        let tasks: Vec<JoinHandle<()>> = self.tasks.lock().drain().map(|(_, task)| task).collect();
        for task in tasks.into_iter().chain(sweeper) {
            task.abort();
            // An aborted task ends with an error, which says so.
            let _ = task.await;
        }
    }

    /// Starts the task of a job, whatever is left to do of it.
    fn spawn(self: &Arc<Self>, key: JobKey) {
        let mut tasks = self.tasks.lock();
        if self.ending.load(Ordering::Acquire) {
            return;
        }
        let stored = self.clone();
        let own = key.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = stored.carry_out(&own).await {
                tracing::error!(job = own.id, %error, "a job over stored video waits for the next start of the server");
            }
            stored.tasks.lock().remove(&own);
        });
        tasks.insert(key, task);
    }

    async fn carry_out(&self, key: &JobKey) -> Result<(), CatalogError> {
        let Some(mut job) = self.store.get(key).await? else {
            return Ok(());
        };
        if job.status == Status::InProgress {
            // The semaphore is never closed.
            let _permit = self.running.acquire().await;
            let ending = self.try_hard(key, &job).await;
            if ending.status == Status::Failed {
                Results::of(&self.store, key).clear().await?;
            }
            match self.store.end(key, &ending, self.clock.now()).await? {
                Some(ended) => job = ended,
                None => return Ok(()),
            }
            tracing::info!(job = key.id, account = %key.account, status = ?job.status, message = job.message, "a job over stored video has ended");
        }
        notify::tell(self, key, &job).await
    }

    /// Tries again what may pass.
    async fn try_hard(&self, key: &JobKey, job: &Job) -> Ending {
        let mut pause = limits::RETRY_PAUSE;
        let mut tried = 0;
        let message = loop {
            match run::attempt(self, key, job).await {
                Ok(ending) => return ending,
                Err(Stop::Failed(message)) => break message,
                Err(Stop::Again(detail)) => {
                    tried += 1;
                    tracing::warn!(job = key.id, account = %key.account, %detail, tried, "a job over stored video was broken off");
                    if tried >= limits::STORED_ATTEMPTS_MAX {
                        break "The video could not be analysed because of a failure of the server or of where the video is stored.".to_owned();
                    }
                    tokio::time::sleep(pause).await;
                    pause *= 4;
                }
            }
        };
        Ending {
            status: Status::Failed,
            message: Some(message),
            metadata: None,
            faces: 0,
        }
    }

    /// Whether a job's results are too old to be told.
    fn is_over(&self, job: &Job) -> bool {
        let kept_ms = i64::try_from(limits::STORED_RESULTS_KEPT.as_millis()).unwrap_or(i64::MAX);
        let ended_ms = job.ended_ms.unwrap_or(i64::MAX);
        self.clock.now().millis() >= ended_ms.saturating_add(kept_ms)
    }

    /// Removes the jobs whose results are too old.
    async fn sweep(&self) -> Result<(), CatalogError> {
        for key in self.store.all().await? {
            let Some(job) = self.store.get(&key).await? else {
                continue;
            };
            if self.is_over(&job) {
                let task = self.tasks.lock().remove(&key);
                if let Some(task) = task {
                    task.abort();
                }
                Results::of(&self.store, &key).clear().await?;
                self.store.remove(&key, &job).await?;
            }
        }
        Ok(())
    }
}
