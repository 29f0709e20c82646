//! StartApplication, StopApplication and RollbackApplication, and what a worker is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, ResourceName};
use data_streams::parse_stream_arn;
use sql::application::{JobSpec, Restore, StartPoint};
use wire::kinesisanalyticsv2::{
    self as model, ApplicationRestoreConfiguration, ApplicationRestoreType, InputStartingPosition, RunConfiguration,
    RuntimeEnvironment, op,
};

use super::snapshots::{find, system_snapshot};
use super::{Seen, describe};
use crate::engine::Ask;
use crate::error::{catalog_failure, configuration, in_use, invalid, invalid_request, unsupported};
use crate::ports::{CheckError, Workers};
use crate::service::{Analytics, AppState, busy};
use crate::stored::{Phase, RestoreFrom, Run, SnapshotState, VersionRecord};
use crate::tables::tables;

impl Handle<op::StartApplication> for Analytics {
    async fn handle(
        &self,
        request: Request<model::StartApplicationRequest>,
    ) -> Result<Reply<model::StartApplicationResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let given = input.run_configuration.unwrap_or_default();
        let operation = self
            .alone(&state, move |this, current| async move {
                if current.record.phase != Phase::Ready {
                    return Err(busy(&current));
                }
                let run = run(&current, given)?;
                this.check_runs(&current, &run).await?;
                if this.running() >= this.settings.running_max {
                    return Err(in_use(format!(
                        "The server runs {} applications, as many as its setting analytics.max_running allows.",
                        this.settings.running_max
                    )));
                }
                let mut draft = this.draft(&current);
                let id = draft.record.begin("StartApplication", draft.now_ms, None);
                draft.record.phase = Phase::Starting;
                draft.record.run = Some(Run {
                    operation: Some(id.clone()),
                    ..run
                });
                let state = this.commit(&current, draft).await?;
                this.engine.start(&this, &state);
                Ok(id)
            })
            .await?;
        Ok(model::StartApplicationResponse {
            operation_id: Some(operation),
        }
        .into())
    }
}

/// What a run configuration means. Without one an application goes on where it stood, and begins with what comes.
fn run(state: &AppState, given: RunConfiguration) -> Result<Run, ApiError> {
    let allow = given
        .flink_run_configuration
        .and_then(|flink| flink.allow_non_restored_state);
    let mut run = Run {
        allow_non_restored: allow == Some(true),
        ..Run::default()
    };
    let sql = state
        .current
        .configuration
        .sql_application_configuration_description
        .as_ref();
    let inputs = sql
        .and_then(|sql| sql.input_descriptions.as_deref())
        .unwrap_or_default();
    let mut resumes = None;
    for position in given.sql_run_configurations.unwrap_or_default() {
        if !inputs
            .iter()
            .any(|input| input.input_id.as_ref() == Some(&position.input_id))
        {
            return Err(invalid(format!("The application has no input {}.", position.input_id)));
        }
        let from = position.input_starting_position_configuration.input_starting_position;
        let from = from.unwrap_or(InputStartingPosition::Now);
        resumes = Some(resumes == Some(true) || from == InputStartingPosition::LastStoppedPoint);
        if run
            .positions
            .insert(position.input_id.clone(), from.to_string())
            .is_some()
        {
            return Err(invalid(format!("Input {} is named twice.", position.input_id)));
        }
    }
    // Where no input goes on, nothing that was computed of earlier records is of use.
    if resumes == Some(false) {
        run.restore = RestoreFrom::Nothing;
    }
    if let Some(restore) = given.application_restore_configuration {
        run.restore = restore_from(state, &restore)?;
        run.told = Some((restore.application_restore_type.to_string(), restore.snapshot_name));
    }
    Ok(run)
}

fn restore_from(state: &AppState, given: &ApplicationRestoreConfiguration) -> Result<RestoreFrom, ApiError> {
    if given.snapshot_arn.is_some() {
        return Err(invalid(
            "SnapshotArn belongs to enhanced snapshots, which are not here; give SnapshotName.",
        ));
    }
    match (given.application_restore_type, &given.snapshot_name) {
        (ApplicationRestoreType::RestoreFromCustomSnapshot, Some(name)) => {
            let snapshot = find(state, name).map_err(|error| invalid(error.message))?;
            match snapshot.state {
                SnapshotState::Ready => Ok(RestoreFrom::Snapshot(name.clone())),
                _ => Err(invalid(format!("Snapshot {name} is not READY."))),
            }
        }
        (ApplicationRestoreType::RestoreFromCustomSnapshot, None) => {
            Err(invalid("SnapshotName must be given with RESTORE_FROM_CUSTOM_SNAPSHOT."))
        }
        (_, Some(_)) => Err(invalid("SnapshotName belongs to RESTORE_FROM_CUSTOM_SNAPSHOT.")),
        (ApplicationRestoreType::SkipRestoreFromSnapshot, None) => Ok(RestoreFrom::Nothing),
        (ApplicationRestoreType::RestoreFromLatestSnapshot, None) => {
            let newest = state.record.newest_snapshot(|_| true);
            Ok(newest.map_or(RestoreFrom::Latest, |snapshot| {
                RestoreFrom::Snapshot(snapshot.name.clone())
            }))
        }
    }
}

impl Analytics {
    /// Refuses to start what cannot run.
    async fn check_runs(&self, state: &AppState, run: &Run) -> Result<(), ApiError> {
        let version = &state.current;
        if version.script().is_none() {
            return Err(configuration("The application has no code."));
        }
        let tables = tables(version, &run.positions).map_err(configuration)?;
        let options = |table: &sql::application::TableSpec| table.options.get("stream.arn").cloned();
        for arn in tables
            .tables
            .iter()
            .filter_map(options)
            .chain(tables.error_stream.clone())
        {
            if parse_stream_arn(&arn)
                .and_then(|name| self.streams.find(&name))
                .is_none()
            {
                return Err(configuration(format!("The data stream {arn} does not exist.")));
            }
        }
        let spec = self.plan_spec(&state.name, version, tables);
        let workers = self.workers(version).map_err(unsupported)?;
        match workers.check(&spec).await {
            Ok(()) => Ok(()),
            Err(CheckError::Script(why)) => Err(configuration(why)),
            Err(CheckError::Missing(why)) => Err(unsupported(format!("No application runs here: {why}."))),
            Err(CheckError::Failed(why)) => Err(ApiError::server(
                "InternalFailure",
                "The statements could not be looked at.",
                why,
            )),
        }
    }

    /// Who runs an application of that runtime.
    pub(crate) fn workers(&self, version: &VersionRecord) -> Result<&Arc<dyn Workers>, String> {
        match (version.runtime(), &self.ports.flink) {
            (RuntimeEnvironment::Sql10, _) => Ok(&self.ports.workers),
            (_, Some(flink)) => Ok(flink),
            (runtime, None) => Err(format!(
                "{runtime}: no cluster of Apache Flink can be configured for this server yet."
            )),
        }
    }

    /// What the worker of an application is told; none if it is not to run. An error is tried again.
    pub(crate) async fn job(&self, name: &ResourceName, id: u64) -> Result<Option<JobSpec>, String> {
        let Some(state) = self.current(name, id) else {
            return Ok(None);
        };
        let Some(run) = &state.record.run else {
            return Ok(None);
        };
        let tables = tables(&state.current, &run.positions)?;
        let session = self.ports.access.session(name.account, &name.region)?;
        let state_dir = self.folders.make(id).await;
        let state_dir = state_dir.map_err(|error| format!("its folder cannot be made: {error}"))?;
        let restore = match &run.restore {
            // Once it was seen to read, its own checkpoints are what a crash goes back to.
            _ if run.began => Restore::Latest,
            RestoreFrom::Latest => Restore::Latest,
            RestoreFrom::Nothing => Restore::Nothing,
            RestoreFrom::Snapshot(snapshot) => Restore::Snapshot(snapshot.clone()),
        };
        Ok(Some(JobSpec {
            endpoint: session.endpoint,
            access_key_id: session.access_key_id,
            secret_access_key: session.secret_access_key,
            session_token: session.session_token,
            state_dir,
            restore,
            start: start_point(&run.positions),
            allow_non_restored: run.allow_non_restored,
            ..self.plan_spec(name, &state.current, tables)
        }))
    }

    /// The configuration that an application is rolled back to.
    async fn previous(&self, state: &AppState) -> Result<VersionRecord, ApiError> {
        let Some(number) = state.record.updated_from else {
            return Err(invalid_request(format!(
                "Application {} was never updated; there is nothing to roll back to.",
                state.arn
            )));
        };
        let found = self.stored.version(&state.name, state.record.id, number).await;
        found
            .map_err(catalog_failure)?
            .ok_or_else(|| invalid_request(format!("Version {number} is forgotten.")))
    }
}

/// Where reading begins of streams that neither the state nor the run says anything of.
fn start_point(positions: &BTreeMap<String, String>) -> StartPoint {
    match positions
        .values()
        .any(|position| position == InputStartingPosition::LastStoppedPoint.as_str())
    {
        true => StartPoint::LastStoppedPoint,
        false => StartPoint::Now,
    }
}

impl Handle<op::StopApplication> for Analytics {
    async fn handle(
        &self,
        request: Request<model::StopApplicationRequest>,
    ) -> Result<Reply<model::StopApplicationResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let force = input.force == Some(true);
        let operation = self
            .alone(&state, move |this, current| async move {
                match force {
                    true => this.force_stop(&current).await,
                    false => this.begin_to_stop(&current).await,
                }
            })
            .await?;
        Ok(model::StopApplicationResponse {
            operation_id: Some(operation),
        }
        .into())
    }
}

impl Analytics {
    async fn begin_to_stop(&self, current: &Arc<AppState>) -> Result<String, ApiError> {
        if current.record.phase != Phase::Running {
            return Err(busy(current));
        }
        let mut draft = self.draft(current);
        let operation = draft.record.begin("StopApplication", draft.now_ms, None);
        let snapshot = system_snapshot(current, &mut draft, "stop");
        draft.record.phase = Phase::Stopping;
        if let Some(run) = &mut draft.record.run {
            run.operation = Some(operation.clone());
        }
        let state = self.commit(current, draft).await?;
        if !self.engine.ask(state.record.id, Ask::Stop(snapshot.clone())) {
            // Nobody sees to it, so nobody has anything to write.
            self.engine.start(self, &state);
            self.engine.ask(state.record.id, Ask::Stop(snapshot));
        }
        Ok(operation)
    }

    /// Ends the worker at once: what it has not written is in its last checkpoint.
    async fn force_stop(&self, current: &Arc<AppState>) -> Result<String, ApiError> {
        if current.record.phase == Phase::Ready {
            return Err(busy(current));
        }
        self.engine.abort(current.record.id).await;
        let mut draft = self.draft(current);
        let now = draft.now_ms;
        draft.record.cancel_operations(now);
        let operation = draft.record.begin("StopApplication", now, None);
        draft.record.finish(&operation, now, Ok(()));
        (draft.record.phase, draft.record.run) = (Phase::Ready, None);
        for snapshot in &mut draft.record.snapshots {
            if snapshot.state == SnapshotState::Creating {
                snapshot.state = SnapshotState::Failed;
            }
        }
        self.commit(current, draft).await?;
        Ok(operation)
    }
}

impl Handle<op::RollbackApplication> for Analytics {
    async fn handle(
        &self,
        request: Request<model::RollbackApplicationRequest>,
    ) -> Result<Reply<model::RollbackApplicationResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let seen = Seen::version(input.current_application_version_id);
        let (operation, state) = self
            .alone(&state, move |this, current| async move {
                seen.check(&current)?;
                if !matches!(current.record.phase, Phase::Running | Phase::Updating) {
                    return Err(busy(&current));
                }
                let previous = this.previous(&current).await?;
                let of_it = |number: u64| number <= previous.version;
                let snapshot = current.record.newest_snapshot(|snapshot| of_it(snapshot.version));
                let Some(snapshot) = snapshot.map(|snapshot| snapshot.name.clone()) else {
                    return Err(invalid_request(format!(
                        "Application {} has no snapshot of version {} or before to go back to.",
                        current.arn, previous.version
                    )));
                };
                this.roll_back(&current, previous, snapshot).await
            })
            .await?;
        Ok(model::RollbackApplicationResponse {
            application_detail: describe::detail(&state),
            operation_id: Some(operation),
        }
        .into())
    }
}

impl Analytics {
    async fn roll_back(
        &self,
        current: &Arc<AppState>,
        previous: VersionRecord,
        snapshot: String,
    ) -> Result<(String, Arc<AppState>), ApiError> {
        let mut draft = self.draft(current);
        let (from, to, now) = (current.record.version, previous.version, draft.now_ms);
        draft.version = previous;
        draft.next_version();
        draft.record.rolled_back = Some((from, to));
        draft.record.cancel_operations(now);
        let versions = Some((from, draft.record.version));
        let operation = draft.record.begin("RollbackApplication", now, versions);
        draft.record.phase = Phase::RollingBack;
        let positions = draft.record.run.take().map(|run| run.positions).unwrap_or_default();
        draft.record.run = Some(Run {
            restore: RestoreFrom::Snapshot(snapshot),
            positions,
            operation: Some(operation.clone()),
            ..Run::default()
        });
        // Its state is not needed any more: it goes back to that of the snapshot.
        self.engine.abort(current.record.id).await;
        let state = self.commit(current, draft).await?;
        self.engine.start(self, &state);
        Ok((operation, state))
    }
}
