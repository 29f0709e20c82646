//! Stream processors. [`control`] carries out their seven operations, [`definition`] is what is kept of them, and
//! [`status`] says which state may follow which. A processor that runs is a [`runner`]: it sends the frames of a video
//! stream to vision, searches each face in the collection and writes one [`record`] for each analysed frame.
//! [`resume`] remembers how far it has come, and [`unknown`] keeps faces that nobody resembles, where that is wanted.
//! Processors that detect labels have [`labels`] of their own.

mod control;
mod definition;
mod labels;
mod metrics;
mod pipeline;
pub(crate) mod record;
mod resume;
mod runner;
pub(crate) mod search;
mod session;
mod status;
mod unknown;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::metrics::MetricError;
use base::{Clock, ResourceName};
use faces::FaceStore;
use parking_lot::Mutex;
use storage::{Catalog, CatalogError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ports::{RecordSink, VideoSource, Vision};
use crate::service::Parts;
use definition::Store;
use labels::Labels;
use metrics::ProcessorMetrics;

/// How long a run may take to end after it was told to, before it is ended by force.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Every processor of this server.
pub(crate) struct Processors {
    pub(crate) faces: Arc<FaceStore>,
    pub(crate) vision: Arc<dyn Vision>,
    pub(crate) video: Arc<dyn VideoSource>,
    pub(crate) records: Arc<dyn RecordSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Store,
    pub(crate) metrics: ProcessorMetrics,
    pub(crate) labels: Labels,
    runs: Mutex<HashMap<ResourceName, Run>>,
    ending: AtomicBool,
}

/// A task that runs a processor.
struct Run {
    /// Which start of the processor it belongs to.
    generation: u64,
    /// Set to true to end it.
    cancel: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Processors {
    pub(crate) fn new(parts: Parts) -> Result<Arc<Self>, MetricError> {
        let catalog: Arc<dyn Catalog> = parts.catalog;
        let metrics = ProcessorMetrics::new(&parts.metrics)?;
        let labels = Labels::new(parts.buckets, parts.topics, catalog.clone(), metrics.clone());
        Ok(Arc::new(Processors {
            faces: parts.faces,
            vision: parts.vision,
            video: parts.video,
            records: parts.records,
            store: Store::new(catalog),
            metrics,
            labels,
            clock: parts.clock,
            runs: Mutex::new(HashMap::new()),
            ending: AtomicBool::new(false),
        }))
    }

    pub(crate) async fn resume_all(self: &Arc<Self>) -> Result<(), CatalogError> {
        for key in self.store.running().await? {
            self.resume_one(key).await?;
        }
        self.labels.resume().await
    }

    /// Starts the task of one start of a processor, unless the server is ending.
    fn spawn(self: &Arc<Self>, start: runner::Start) {
        let (key, generation) = (start.key.clone(), start.definition.generation);
        self.spawn_task(key, generation, |cancelled| runner::run(self.clone(), start, cancelled));
    }

    fn spawn_task<T: Future<Output = ()> + Send + 'static>(
        &self,
        key: ResourceName,
        generation: u64,
        task: impl FnOnce(watch::Receiver<bool>) -> T,
    ) {
        if self.ending.load(Ordering::Acquire) {
            return;
        }
        let (cancel, cancelled) = watch::channel(false);
        let task = tokio::spawn(task(cancelled));
        let run = Run {
            generation,
            cancel,
            task,
        };
        self.runs.lock().insert(key, run);
    }

    /// Ends the task of this processor and waits until it has ended.
    async fn end_run(&self, key: &ResourceName) {
        let run = self.runs.lock().remove(key);
        if let Some(run) = run {
            run.end().await;
        }
    }

    /// Forgets the task of a start that has ended by itself.
    fn forget_run(&self, key: &ResourceName, generation: u64) {
        let mut runs = self.runs.lock();
        if runs.get(key).is_some_and(|run| run.generation == generation) {
            runs.remove(key);
        }
    }

    pub(crate) async fn shutdown(&self) {
        self.ending.store(true, Ordering::Release);
        let runs: Vec<Run> = self.runs.lock().drain().map(|(_, run)| run).collect();
        for run in &runs {
            run.cancel.send_replace(true);
        }
        for run in runs {
            run.end().await;
        }
        self.labels.shutdown().await;
    }
}

impl Run {
    async fn end(mut self) {
        self.cancel.send_replace(true);
        if tokio::time::timeout(END_TIMEOUT, &mut self.task).await.is_err() {
            tracing::warn!("a stream processor did not end in time and is ended by force");
            self.task.abort();
        }
    }
}
