//! DescribeApplication and ListApplications, and the description that other operations answer with.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest, Md5};
use wire::kinesisanalyticsv2::{
    self as model, ApplicationDetail, ApplicationRestoreConfiguration, ApplicationStatus, ApplicationSummary,
    CloudWatchLoggingOptionDescription, InputStartingPositionConfiguration, RunConfigurationDescription, op,
};

use super::page;
use crate::service::{Analytics, AppState};
use crate::stored::{LoggingRecord, VersionRecord};

/// Changes with every change of the application that a caller may overlook.
pub fn conditional_token(state: &AppState) -> String {
    let text = format!(
        "{}/{}/{}",
        state.record.id, state.record.version, state.record.updated_ms
    );
    URL_SAFE_NO_PAD.encode(Md5::digest(text))
}

/// Logging options as they are told.
pub fn logging(options: &[LoggingRecord]) -> Vec<CloudWatchLoggingOptionDescription> {
    let one = |option: &LoggingRecord| CloudWatchLoggingOptionDescription {
        cloud_watch_logging_option_id: Some(option.id.clone()),
        log_stream_arn: option.arn.clone(),
        role_arn: None,
    };
    options.iter().map(one).collect()
}

/// The application as it is.
pub fn detail(state: &AppState) -> ApplicationDetail {
    let mut told = of_version(state, &state.current, state.record.phase.status());
    let record = &state.record;
    let number = |version: u64| i64::try_from(version).ok();
    told.conditional_token = Some(conditional_token(state));
    told.application_version_updated_from = record.updated_from.and_then(number);
    told.application_version_rolled_back_from = record.rolled_back.and_then(|(from, _)| number(from));
    told.application_version_rolled_back_to = record.rolled_back.and_then(|(_, to)| number(to));
    let Some(configuration) = &mut told.application_configuration_description else {
        return told;
    };
    let Some(run) = &record.run else { return told };
    if let Some((restore, snapshot)) = &run.told {
        configuration.run_configuration_description = Some(RunConfigurationDescription {
            application_restore_configuration_description: restore.parse().ok().map(|restore| {
                ApplicationRestoreConfiguration {
                    application_restore_type: restore,
                    snapshot_arn: None,
                    snapshot_name: snapshot.clone(),
                }
            }),
            flink_run_configuration_description: None,
        });
    }
    let described = configuration.sql_application_configuration_description.as_mut();
    for input in described
        .into_iter()
        .flat_map(|sql| sql.input_descriptions.iter_mut().flatten())
    {
        let position = input
            .input_id
            .as_ref()
            .and_then(|id| run.positions.get(id)?.parse().ok());
        input.input_starting_position_configuration = position.map(|position| InputStartingPositionConfiguration {
            input_starting_position: Some(position),
        });
    }
    told
}

/// The application as a version of it was.
pub fn of_version(state: &AppState, version: &VersionRecord, status: ApplicationStatus) -> ApplicationDetail {
    let record = &state.record;
    let at = |ms: i64| Some(Timestamp::from_millis(ms));
    ApplicationDetail {
        application_arn: state.arn.clone(),
        application_configuration_description: Some(version.configuration.clone()),
        application_description: record.description.clone(),
        application_maintenance_configuration_description: super::other::maintenance(record),
        application_mode: record.mode.as_ref().and_then(|mode| mode.parse().ok()),
        application_name: state.name.name.clone(),
        application_status: status,
        application_version_create_timestamp: at(version.created_ms),
        application_version_id: i64::try_from(version.version).unwrap_or(i64::MAX),
        application_version_rolled_back_from: None,
        application_version_rolled_back_to: None,
        application_version_updated_from: None,
        cloud_watch_logging_option_descriptions: Some(logging(&version.logging)),
        conditional_token: None,
        create_timestamp: at(record.created_ms),
        last_update_timestamp: at(record.updated_ms),
        runtime_environment: version.runtime(),
        service_execution_role: Some(version.role.clone()),
    }
}

impl Handle<op::DescribeApplication> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DescribeApplicationRequest>,
    ) -> Result<Reply<model::DescribeApplicationResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let mut detail = detail(&state);
        let configuration = detail.application_configuration_description.as_mut();
        if let (Some(true), Some(configuration)) = (input.include_additional_details, configuration) {
            // The one member of the description that is free text for whoever wants to know more.
            let plan = serde_json::json!({ "running": state.record.run.is_some(), "worker": state.live.told() });
            let flink = &mut configuration.flink_application_configuration_description;
            flink.get_or_insert_default().job_plan_description = Some(plan.to_string());
        }
        Ok(model::DescribeApplicationResponse {
            application_detail: detail,
        }
        .into())
    }
}

impl Handle<op::ListApplications> for Analytics {
    async fn handle(
        &self,
        request: Request<model::ListApplicationsRequest>,
    ) -> Result<Reply<model::ListApplicationsResponse>, ApiError> {
        let input = request.input;
        let limit = page::limit(input.limit);
        let (states, more) = self.list(&request.context.caller, input.next_token.as_deref(), limit);
        let summary = |state: &std::sync::Arc<AppState>| ApplicationSummary {
            application_arn: state.arn.clone(),
            application_mode: state.record.mode.as_ref().and_then(|mode| mode.parse().ok()),
            application_name: state.name.name.clone(),
            application_status: state.record.phase.status(),
            application_version_id: i64::try_from(state.record.version).unwrap_or(i64::MAX),
            runtime_environment: state.current.runtime(),
        };
        Ok(model::ListApplicationsResponse {
            // The model makes the token a name.
            next_token: states.last().filter(|_| more).map(|state| state.name.name.clone()),
            application_summaries: states.iter().map(summary).collect(),
        }
        .into())
    }
}
