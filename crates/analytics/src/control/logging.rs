//! Logging options: AddApplicationCloudWatchLoggingOption and its opposite. There are no log streams here: an application's
//! messages go to the server's log, each with the ARN that they were meant for.

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisanalyticsv2::{self as model, CloudWatchLoggingOption, CloudWatchLoggingOptionUpdate, op};

use super::{Change, Seen, describe, next_id};
use crate::error::{invalid, missing};
use crate::limits;
use crate::service::Analytics;
use crate::stored::{LoggingRecord, VersionRecord};

fn check(arn: &str) -> Result<(), ApiError> {
    match arn.contains(":logs:") && arn.contains(":log-stream:") {
        true => Ok(()),
        false => Err(invalid(format!("LogStreamARN {arn} is not the ARN of a log stream."))),
    }
}

/// Adds an option to a version.
pub fn add(version: &mut VersionRecord, given: &CloudWatchLoggingOption) -> Result<(), ApiError> {
    check(&given.log_stream_arn)?;
    if version.logging.len() >= limits::LOGGING_OPTIONS_MAX {
        return Err(invalid(format!(
            "An application has at most {} CloudWatch logging option.",
            limits::LOGGING_OPTIONS_MAX
        )));
    }
    let id = next_id(version.version, version.logging.iter().map(|option| &*option.id));
    version.logging.push(LoggingRecord {
        id,
        arn: given.log_stream_arn.clone(),
    });
    Ok(())
}

/// Changes what an update names.
pub fn update(version: &mut VersionRecord, given: CloudWatchLoggingOptionUpdate) -> Result<(), ApiError> {
    let id = &given.cloud_watch_logging_option_id;
    let found = version.logging.iter_mut().find(|option| option.id == *id);
    let option = found.ok_or_else(|| missing(format!("The application has no CloudWatch logging option {id}.")))?;
    if let Some(arn) = given.log_stream_arn_update {
        check(&arn)?;
        option.arn = arn;
    }
    Ok(())
}

impl Handle<op::AddApplicationCloudWatchLoggingOption> for Analytics {
    async fn handle(
        &self,
        request: Request<model::AddApplicationCloudWatchLoggingOptionRequest>,
    ) -> Result<Reply<model::AddApplicationCloudWatchLoggingOptionResponse>, ApiError> {
        let input = request.input;
        let seen = Seen::either(input.current_application_version_id, input.conditional_token);
        let change = Change::of_description(seen, "AddApplicationCloudWatchLoggingOption");
        let given = input.cloud_watch_logging_option;
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                add(&mut draft.version, &given)?;
                Ok(describe::logging(&draft.version.logging))
            })
            .await?;
        Ok(model::AddApplicationCloudWatchLoggingOptionResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
            cloud_watch_logging_option_descriptions: Some(changed.answer),
            operation_id: changed.operation,
        }
        .into())
    }
}

impl Handle<op::DeleteApplicationCloudWatchLoggingOption> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DeleteApplicationCloudWatchLoggingOptionRequest>,
    ) -> Result<Reply<model::DeleteApplicationCloudWatchLoggingOptionResponse>, ApiError> {
        let input = request.input;
        let seen = Seen::either(input.current_application_version_id, input.conditional_token);
        let change = Change::of_description(seen, "DeleteApplicationCloudWatchLoggingOption");
        let id = input.cloud_watch_logging_option_id;
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                let before = draft.version.logging.len();
                draft.version.logging.retain(|option| option.id != id);
                match draft.version.logging.len() < before {
                    true => Ok(describe::logging(&draft.version.logging)),
                    false => Err(missing(format!(
                        "The application has no CloudWatch logging option {id}."
                    ))),
                }
            })
            .await?;
        Ok(model::DeleteApplicationCloudWatchLoggingOptionResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
            cloud_watch_logging_option_descriptions: Some(changed.answer),
            operation_id: changed.operation,
        }
        .into())
    }
}
