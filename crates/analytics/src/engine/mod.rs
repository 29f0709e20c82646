//! The supervision of workers: one process for each application that runs, begun again after a crash from its last
//! checkpoint, with a growing pause, and told to keep snapshots and to end. What a worker tells becomes the state of its
//! application in [`transitions`].

mod folders;
mod live;
mod supervisor;
mod transitions;
mod workers;

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use folders::Folders;
pub use live::{Live, Meters};
pub use workers::SqlWorkers;

use crate::limits;
use crate::service::{Analytics, AppState};

/// What a supervisor is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Keep a snapshot.
    Snapshot(String),
    /// End, keeping a snapshot before where one is named, and then be [`crate::stored::Phase::Ready`].
    Stop(Option<String>),
    /// End, keeping a snapshot before where one is named, and begin anew as the application is configured then.
    Again(Option<String>),
    /// End, and leave the application as one that runs: the server ends.
    Shutdown,
}

struct Supervisor {
    asks: mpsc::UnboundedSender<Ask>,
    task: JoinHandle<()>,
}

/// The supervisors by the numbers of their applications.
#[derive(Default)]
pub(crate) struct Engine {
    running: Mutex<HashMap<u64, Supervisor>>,
}

impl Engine {
    /// Sees to it that the application runs.
    pub fn start(&self, service: &Analytics, state: &AppState) {
        let (asks, asked) = mpsc::unbounded_channel();
        let (id, name) = (state.record.id, state.name.clone());
        let task = tokio::spawn(supervisor::supervise(service.weak(), name, id, asked));
        if let Some(old) = self.running.lock().insert(id, Supervisor { asks, task }) {
            old.task.abort();
        }
    }

    /// False if nobody sees to the application.
    pub fn ask(&self, id: u64, ask: Ask) -> bool {
        let running = self.running.lock();
        running
            .get(&id)
            .is_some_and(|supervisor| supervisor.asks.send(ask).is_ok())
    }

    /// Ends the application's worker at once.
    pub async fn abort(&self, id: u64) {
        let supervisor = self.running.lock().remove(&id);
        if let Some(supervisor) = supervisor {
            supervisor.task.abort();
            let _ = supervisor.task.await;
        }
    }

    /// Ends all workers, for a server that ends.
    pub async fn stop_all(&self) {
        let all: Vec<Supervisor> = self.running.lock().drain().map(|(_, supervisor)| supervisor).collect();
        for supervisor in &all {
            let _ = supervisor.asks.send(Ask::Shutdown);
        }
        let deadline = tokio::time::Instant::now() + limits::SHUTDOWN_WITHIN;
        for mut supervisor in all {
            if tokio::time::timeout_at(deadline, &mut supervisor.task).await.is_err() {
                supervisor.task.abort();
            }
        }
    }
}
