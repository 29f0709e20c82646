//! What a worker's news mean for its application. A change that fails is told to the log: the next news, or the next start
//! of the server, finds the application as it was.

use base::{ApiError, ResourceName};

use super::Ask;
use crate::limits;
use crate::service::{Analytics, AppState, Draft};
use crate::stored::{Phase, RestoreFrom, Run, SnapshotState};

/// What follows on a worker's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Another is started.
    Retry,
    /// The application ended.
    Nothing,
}

impl AppState {
    /// An application's messages go to the server's log, with the log stream that they were meant for.
    pub(crate) fn tell(&self, level: &str, text: &str) {
        let application = &*self.arn;
        let log_stream = self.current.logging.first().map_or("", |option| &*option.arn);
        match level {
            "ERROR" => tracing::error!(application, log_stream, text, "application"),
            "WARN" => tracing::warn!(application, log_stream, text, "application"),
            _ => tracing::info!(application, log_stream, text, "application"),
        }
    }
}

impl Analytics {
    /// Puts a worker's news into effect; nothing if the application is gone.
    async fn news(
        &self,
        name: &ResourceName,
        id: u64,
        change: impl FnOnce(&mut Draft) + Send + 'static,
    ) -> Option<std::sync::Arc<AppState>> {
        let state = self.current(name, id)?;
        let changed = self.change(&state, move |_, draft| {
            change(draft);
            Ok::<_, ApiError>(())
        });
        match changed.await {
            Ok(((), state)) => Some(state),
            Err(error) => {
                tracing::error!(%error, application = state.arn, "what its worker told could not be kept");
                None
            }
        }
    }

    /// The worker reads: the application runs.
    pub(super) async fn began(&self, name: &ResourceName, id: u64, version: u64) {
        let begun = move |draft: &mut Draft| {
            let now = draft.now_ms;
            if draft.record.version != version {
                return;
            }
            let Some(run) = &mut draft.record.run else { return };
            run.began = true;
            run.allow_non_restored = false;
            if !matches!(
                draft.record.phase,
                Phase::Starting | Phase::Updating | Phase::RollingBack
            ) {
                return;
            }
            draft.record.phase = Phase::Running;
            if let Some(operation) = run.operation.take() {
                draft.record.finish(&operation, now, Ok(()));
            }
        };
        if let Some(state) = self.news(name, id, begun).await {
            state.tell("INFO", "the application runs");
        }
    }

    /// The worker ended as it was told to: the application is ready.
    pub(super) async fn stopped(&self, name: &ResourceName, id: u64) {
        let ended = |draft: &mut Draft| {
            let now = draft.now_ms;
            draft.record.phase = Phase::Ready;
            let operation = draft.record.run.take().and_then(|run| run.operation);
            if let Some(operation) = operation {
                draft.record.finish(&operation, now, Ok(()));
            }
        };
        if let Some(state) = self.news(name, id, ended).await {
            state.tell("INFO", "the application was stopped");
        }
    }

    /// The worker could not go on. An application that was never seen to read, and that another try does not help, is
    /// ready again, and its operation tells why.
    pub(super) async fn worker_failed(
        &self,
        name: &ResourceName,
        (id, version): (u64, u64),
        reason: &str,
        retriable: bool,
    ) -> After {
        let Some(state) = self.current(name, id) else {
            return After::Nothing;
        };
        state.live.failed(reason);
        state.tell("ERROR", reason);
        self.meters.restarted(name);
        let why = reason.to_owned();
        let failed = move |draft: &mut Draft| {
            let now = draft.now_ms;
            let record = &mut draft.record;
            let Some(run) = &mut record.run else { return };
            if retriable || record.version != version {
                return;
            }
            // An update that cannot run stays one: it may be rolled back, or corrected by force.
            let operation = run.operation.take();
            if record.phase == Phase::Starting {
                (record.phase, record.run) = (Phase::Ready, None);
            }
            if let Some(operation) = operation {
                record.finish(&operation, now, Err(&why));
            }
        };
        match self.news(name, id, failed).await {
            Some(state) if state.record.run.is_some() => After::Retry,
            None if self.current(name, id).is_some() => After::Retry,
            _ => After::Nothing,
        }
    }

    /// A snapshot is there, or cannot be.
    pub(super) async fn snapshot_kept(&self, name: &ResourceName, id: u64, snapshot: &str, kept: Result<(), &str>) {
        if let (Err(why), Some(state)) = (kept, self.current(name, id)) {
            state.tell("WARN", &format!("snapshot {snapshot} was not kept: {why}"));
        }
        let (wanted, ready) = (snapshot.to_owned(), kept.is_ok());
        let settle = move |draft: &mut Draft| {
            let creating =
                |s: &&mut crate::stored::SnapshotRecord| s.name == wanted && s.state == SnapshotState::Creating;
            if let Some(snapshot) = draft.record.snapshots.iter_mut().find(creating) {
                snapshot.state = match ready {
                    true => SnapshotState::Ready,
                    false => SnapshotState::Failed,
                };
            }
        };
        self.news(name, id, settle).await;
        self.forget_old_snapshots(name, id).await;
    }

    /// Deletes snapshots that the server took itself, but for the last ones.
    async fn forget_old_snapshots(&self, name: &ResourceName, id: u64) {
        let Some(state) = self.current(name, id) else { return };
        let needed = |snapshot: &str| {
            let run = state.record.run.as_ref();
            run.is_some_and(|run| run.restore == RestoreFrom::Snapshot(snapshot.to_owned()))
        };
        let settled = state.record.snapshots.iter().rev();
        let old = settled
            .filter(|s| s.system && s.state != SnapshotState::Creating)
            .skip(limits::SYSTEM_SNAPSHOTS_MAX)
            .filter(|s| !needed(&s.name));
        let old: Vec<String> = old.map(|s| s.name.clone()).collect();
        if old.is_empty() {
            return;
        }
        let gone = old.clone();
        let forget = move |draft: &mut Draft| draft.record.snapshots.retain(|s| !gone.contains(&s.name));
        if self.news(name, id, forget).await.is_some() {
            for snapshot in old {
                if let Err(error) = self.folders.remove_snapshot(id, &snapshot).await {
                    tracing::warn!(%error, snapshot, application = id, "an old snapshot could not be deleted");
                }
            }
        }
    }

    /// Takes up an application as the catalog has it when the server starts.
    pub(crate) async fn take_up(&self, state: &std::sync::Arc<AppState>) -> Result<(), ApiError> {
        let ((), state) = self
            .change(state, |_, draft| {
                let now = draft.now_ms;
                for snapshot in &mut draft.record.snapshots {
                    if snapshot.state == SnapshotState::Creating {
                        snapshot.state = SnapshotState::Failed;
                    }
                }
                if draft.record.phase == Phase::Stopping {
                    draft.record.phase = Phase::Ready;
                    let operation = draft.record.run.take().and_then(|run: Run| run.operation);
                    if let Some(operation) = operation {
                        draft.record.finish(&operation, now, Ok(()));
                    }
                }
                Ok(())
            })
            .await?;
        if state.record.run.is_some() {
            self.engine.start(self, &state);
        }
        Ok(())
    }

    /// Lets a running application begin anew as it is configured now; `snapshot` is kept before.
    pub(crate) fn again(&self, state: &AppState, snapshot: Option<String>) {
        if !self.engine.ask(state.record.id, Ask::Again(snapshot)) {
            self.engine.start(self, state);
        }
    }
}
