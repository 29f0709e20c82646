//! Snapshots of what an application has computed so far: CreateApplicationSnapshot, DeleteApplicationSnapshot,
//! DescribeApplicationSnapshot and ListApplicationSnapshots. AWS has them for Flink applications alone; here SQL
//! applications have them too.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use sql::application::snapshot_directory;
use wire::kinesisanalyticsv2::{self as model, SnapshotDetails, SnapshotStatus, op};

use super::page;
use crate::engine::Ask;
use crate::error::{configuration, in_use, invalid, limit, missing};
use crate::limits;
use crate::service::{Analytics, AppState, Draft, busy};
use crate::stored::{Phase, RestoreFrom, SnapshotRecord, SnapshotState, VersionRecord};

/// Whether an application's snapshots are wanted: unless it was configured otherwise.
fn enabled(version: &VersionRecord) -> bool {
    let configured = version
        .configuration
        .application_snapshot_configuration_description
        .as_ref();
    configured.is_none_or(|configured| configured.snapshots_enabled)
}

fn record(draft: &Draft, version: &VersionRecord, name: String, system: bool) -> SnapshotRecord {
    SnapshotRecord {
        name,
        created_ms: draft.now_ms,
        version: version.version,
        runtime: version.runtime.clone(),
        state: SnapshotState::Creating,
        system,
    }
}

/// Notes a snapshot that the server takes by itself, of the version that runs until now; gives its name. None where
/// snapshots are not wanted or there are too many.
pub fn system_snapshot(current: &AppState, draft: &mut Draft, why: &str) -> Option<String> {
    if !enabled(&current.current) || draft.record.snapshots.len() >= limits::SNAPSHOTS_MAX {
        return None;
    }
    let name = format!("{why}-{}-{}", current.record.version, uuid::Uuid::new_v4().simple());
    let snapshot = record(draft, &current.current, name.clone(), true);
    draft.record.snapshots.push(snapshot);
    Some(name)
}

fn details(snapshot: &SnapshotRecord) -> SnapshotDetails {
    SnapshotDetails {
        application_encryption_configuration_description: None,
        application_version_id: i64::try_from(snapshot.version).unwrap_or(i64::MAX),
        runtime_environment: snapshot.runtime.parse().ok(),
        snapshot_creation_timestamp: Some(Timestamp::from_millis(snapshot.created_ms)),
        snapshot_name: snapshot.name.clone(),
        snapshot_status: match snapshot.state {
            SnapshotState::Creating => SnapshotStatus::Creating,
            SnapshotState::Ready => SnapshotStatus::Ready,
            SnapshotState::Failed => SnapshotStatus::Failed,
        },
    }
}

/// The snapshot of that name.
pub fn find<'a>(state: &'a AppState, name: &str) -> Result<&'a SnapshotRecord, ApiError> {
    let found = state.record.snapshots.iter().find(|snapshot| snapshot.name == name);
    found.ok_or_else(|| missing(format!("Application {} has no snapshot {name}.", state.arn)))
}

impl Handle<op::CreateApplicationSnapshot> for Analytics {
    async fn handle(
        &self,
        request: Request<model::CreateApplicationSnapshotRequest>,
    ) -> Result<Reply<model::CreateApplicationSnapshotResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let name = input.snapshot_name;
        if snapshot_directory(&self.folders.of(state.record.id), &name).is_none() {
            return Err(invalid(format!(
                "SnapshotName {name} cannot be the name of a snapshot."
            )));
        }
        self.alone(&state, move |this, current| async move {
            if !enabled(&current.current) {
                return Err(configuration(format!(
                    "Snapshots are not enabled for application {}.",
                    current.arn
                )));
            }
            if current.record.phase != Phase::Running {
                return Err(busy(&current));
            }
            if find(&current, &name).is_ok() {
                return Err(in_use(format!("Application {} has a snapshot {name}.", current.arn)));
            }
            if current.record.snapshots.len() >= limits::SNAPSHOTS_MAX {
                return Err(limit(format!(
                    "An application has at most {} snapshots.",
                    limits::SNAPSHOTS_MAX
                )));
            }
            let mut draft = this.draft(&current);
            let snapshot = record(&draft, &current.current, name.clone(), false);
            draft.record.snapshots.push(snapshot);
            let state = this.commit(&current, draft).await?;
            this.engine.ask(state.record.id, Ask::Snapshot(name));
            Ok(())
        })
        .await?;
        Ok(model::CreateApplicationSnapshotResponse {}.into())
    }
}

impl Handle<op::DeleteApplicationSnapshot> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DeleteApplicationSnapshotRequest>,
    ) -> Result<Reply<model::DeleteApplicationSnapshotResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        self.alone(&state, move |this, current| async move {
            let snapshot = find(&current, &input.snapshot_name)?;
            // Clients write times in whole seconds.
            let seen = input.snapshot_creation_timestamp.millis().div_euclid(1000);
            if seen != snapshot.created_ms.div_euclid(1000) {
                return Err(invalid("SnapshotCreationTimestamp is not that of the snapshot."));
            }
            let from = RestoreFrom::Snapshot(snapshot.name.clone());
            let needed = current
                .record
                .run
                .as_ref()
                .is_some_and(|run| run.restore == from && !run.began);
            if needed || snapshot.state == SnapshotState::Creating {
                return Err(in_use(format!("Snapshot {} is in use.", snapshot.name)));
            }
            let (id, name) = (current.record.id, snapshot.name.clone());
            let mut draft = this.draft(&current);
            draft.record.snapshots.retain(|snapshot| snapshot.name != name);
            this.commit(&current, draft).await?;
            let removed = this.folders.remove_snapshot(id, &name).await;
            removed.map_err(|e| ApiError::server("InternalFailure", "The snapshot could not be removed.", e))
        })
        .await?;
        Ok(model::DeleteApplicationSnapshotResponse {}.into())
    }
}

impl Handle<op::DescribeApplicationSnapshot> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DescribeApplicationSnapshotRequest>,
    ) -> Result<Reply<model::DescribeApplicationSnapshotResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let snapshot_details = details(find(&state, &input.snapshot_name)?);
        Ok(model::DescribeApplicationSnapshotResponse { snapshot_details }.into())
    }
}

impl Handle<op::ListApplicationSnapshots> for Analytics {
    async fn handle(
        &self,
        request: Request<model::ListApplicationSnapshotsRequest>,
    ) -> Result<Reply<model::ListApplicationSnapshotsResponse>, ApiError> {
        let input = request.input;
        // This operation declares no error for an application that is not there.
        let state = self.find(&request.context.caller, &input.application_name);
        let state = state.map_err(|error| invalid(error.message))?;
        let all: Vec<&SnapshotRecord> = state.record.snapshots.iter().collect();
        let key = |snapshot: &&SnapshotRecord| format!("{:015}-{}", snapshot.created_ms, snapshot.name);
        let (page, next_token) = page::newest(all, key, input.next_token.as_deref(), input.limit)?;
        Ok(model::ListApplicationSnapshotsResponse {
            next_token,
            snapshot_summaries: Some(page.into_iter().map(details).collect()),
        }
        .into())
    }
}
