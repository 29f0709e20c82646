//! One application's supervisor: a worker at a time, until the application is to end.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::ResourceName;
use sql::application::{Command, Event};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

use super::Ask;
use super::transitions::After;
use crate::limits;
use crate::ports::Worker;
use crate::service::Analytics;

/// Why a worker is no more.
#[derive(Debug)]
enum Ended {
    /// It was told to; the application ends.
    Stopped,
    /// It was told to; another begins at once.
    Again,
    /// It was told to, or the server is gone; nothing changes.
    Left,
    /// It could not go on.
    Failed { reason: String, retriable: bool },
}

/// Pauses between starts.
struct BackOff(Duration);

impl BackOff {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(limits::BACK_OFF_MAX);
        pause
    }
}

/// Runs an application until it is to end.
pub(super) async fn supervise(service: Weak<Analytics>, name: ResourceName, id: u64, asks: UnboundedReceiver<Ask>) {
    let mut supervisor = Supervisor {
        service,
        name,
        id,
        asks,
        version: 0,
        pending: BTreeSet::new(),
        back_off: BackOff(limits::BACK_OFF),
    };
    loop {
        let ended = supervisor.one_worker().await;
        let Some(service) = supervisor.service.upgrade() else {
            return;
        };
        supervisor
            .drop_snapshots(&service, "The worker ended before it was kept.")
            .await;
        match ended {
            Ended::Left => return,
            Ended::Stopped => return service.stopped(&supervisor.name, id).await,
            Ended::Again => {}
            Ended::Failed { reason, retriable } => {
                let after = service
                    .worker_failed(&supervisor.name, (id, supervisor.version), &reason, retriable)
                    .await;
                drop(service);
                if after == After::Nothing || !supervisor.pause().await {
                    return;
                }
            }
        }
    }
}

struct Supervisor {
    service: Weak<Analytics>,
    name: ResourceName,
    id: u64,
    asks: UnboundedReceiver<Ask>,
    /// The version that the worker runs.
    version: u64,
    /// Snapshots that the worker was asked for.
    pending: BTreeSet<String>,
    back_off: BackOff,
}

/// What a worker was told, and until when it is waited for.
struct Ending {
    then: Ended,
    deadline: Instant,
}

impl Supervisor {
    /// Starts a worker and listens to it until it ends.
    async fn one_worker(&mut self) -> Ended {
        let Some(service) = self.service.upgrade() else {
            return Ended::Left;
        };
        let failed = |reason: String| Ended::Failed {
            reason,
            retriable: true,
        };
        let Some(state) = service.current(&self.name, self.id) else {
            return Ended::Left;
        };
        self.version = state.record.version;
        let spec = match service.job(&self.name, self.id).await {
            Ok(Some(spec)) => spec,
            Ok(None) => return Ended::Left,
            Err(reason) => return failed(reason),
        };
        let workers = match service.workers(&state.current) {
            Ok(workers) => workers,
            Err(reason) => return failed(reason),
        };
        let worker = match workers.start(&spec).await {
            Ok(worker) => worker,
            Err(reason) => return failed(reason),
        };
        self.version = spec.version;
        state.live.started();
        drop((service, state));
        self.listen(worker).await
    }

    async fn listen(&mut self, mut worker: Box<dyn Worker>) -> Ended {
        let mut ending: Option<Ending> = None;
        let mut failure: Option<(String, bool)> = None;
        let renew = Instant::now() + limits::RENEW_AFTER;
        loop {
            let until = ending.as_ref().map_or(renew, |ending| ending.deadline);
            tokio::select! {
                event = worker.next() => match event {
                    Ok(Some(Event::Failed { reason, retriable })) => failure = Some((reason, retriable)),
                    Ok(Some(event)) => if !self.take(event).await {
                        return Ended::Left;
                    },
                    Ok(None) => return over(ending, failure),
                    Err(error) => return over(ending, failure.or(Some((error, true)))),
                },
                ask = self.asks.recv(), if ending.is_none() => {
                    let Some(ask) = ask else { return Ended::Left };
                    if let Some(then) = self.pass_on(&ask, &mut *worker).await {
                        ending = Some(then);
                    }
                }
                () = sleep_until(until) => match ending {
                    // It had its time. What it has not written is in its last checkpoint.
                    Some(ending) => return ending.then,
                    None => ending = self.tell_to_end(None, Ended::Again, &mut *worker).await,
                },
            }
        }
    }

    /// Tells the worker what is asked. A pipe that is broken shows as the worker's end.
    async fn pass_on(&mut self, ask: &Ask, worker: &mut dyn Worker) -> Option<Ending> {
        match ask {
            Ask::Snapshot(name) => {
                self.pending.insert(name.clone());
                let _ = worker.send(&Command::Snapshot { name: name.clone() }).await;
                None
            }
            Ask::Stop(snapshot) => self.tell_to_end(snapshot.clone(), Ended::Stopped, worker).await,
            Ask::Again(snapshot) => self.tell_to_end(snapshot.clone(), Ended::Again, worker).await,
            Ask::Shutdown => self.tell_to_end(None, Ended::Left, worker).await,
        }
    }

    async fn tell_to_end(&mut self, snapshot: Option<String>, then: Ended, worker: &mut dyn Worker) -> Option<Ending> {
        self.pending.extend(snapshot.clone());
        let _ = worker.send(&Command::Stop { snapshot }).await;
        let deadline = Instant::now() + limits::STOP_WITHIN;
        Some(Ending { then, deadline })
    }

    /// Takes over what the worker tells. False if the server is gone.
    async fn take(&mut self, event: Event) -> bool {
        let Some(service) = self.service.upgrade() else {
            return false;
        };
        let Some(state) = service.current(&self.name, self.id) else {
            return false;
        };
        state.live.note(&event, &self.name, &service.meters);
        match event {
            Event::Running => service.began(&self.name, self.id, self.version).await,
            Event::Checkpoint { .. } => self.back_off = BackOff(limits::BACK_OFF),
            Event::Snapshot { name, .. } => {
                self.pending.remove(&name);
                service.snapshot_kept(&self.name, self.id, &name, Ok(())).await;
            }
            Event::SnapshotFailed { name, reason } => {
                self.pending.remove(&name);
                service.snapshot_kept(&self.name, self.id, &name, Err(&reason)).await;
            }
            Event::Log { level, text } => state.tell(&level, &text),
            Event::Progress { .. } | Event::Rows { .. } | Event::Failed { .. } | Event::Stopped => {}
        }
        true
    }

    /// Waits before the next start. False if the application is not to run any more.
    async fn pause(&mut self) -> bool {
        let until = Instant::now() + self.back_off.next();
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                ask = self.asks.recv() => {
                    let Some(service) = self.service.upgrade() else { return false };
                    match ask {
                        Some(Ask::Snapshot(name)) => {
                            self.pending.insert(name);
                            self.drop_snapshots(&service, "No worker runs at the moment.").await;
                        }
                        Some(Ask::Stop(snapshot)) => {
                            self.pending.extend(snapshot);
                            self.drop_snapshots(&service, "No worker ran when the application was stopped.").await;
                            service.stopped(&self.name, self.id).await;
                            return false;
                        }
                        Some(Ask::Again(snapshot)) => {
                            self.pending.extend(snapshot);
                            self.drop_snapshots(&service, "No worker ran when the application was updated.").await;
                            return true;
                        }
                        Some(Ask::Shutdown) | None => return false,
                    }
                }
            }
        }
    }

    async fn drop_snapshots(&mut self, service: &Arc<Analytics>, why: &str) {
        for name in std::mem::take(&mut self.pending) {
            service.snapshot_kept(&self.name, self.id, &name, Err(why)).await;
        }
    }
}

/// A worker's end: as it was told to, or because of what it said last.
fn over(ending: Option<Ending>, failure: Option<(String, bool)>) -> Ended {
    match (ending, failure) {
        (Some(ending), _) => ending.then,
        (None, Some((reason, retriable))) => Ended::Failed { reason, retriable },
        (None, None) => Ended::Failed {
            reason: "the worker ended".to_owned(),
            retriable: true,
        },
    }
}
