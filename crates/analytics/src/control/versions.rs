//! DescribeApplicationVersion, ListApplicationVersions, DescribeApplicationOperation and ListApplicationOperations.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use wire::kinesisanalyticsv2::{
    self as model, ApplicationOperationInfo, ApplicationOperationInfoDetails, ApplicationStatus,
    ApplicationVersionChangeDetails, ApplicationVersionSummary, ErrorInfo, OperationFailureDetails, OperationStatus,
    op,
};

use super::{describe, page};
use crate::error::{catalog_failure, missing};
use crate::limits;
use crate::service::{Analytics, AppState};
use crate::stored::{OperationRecord, OperationState, Phase, VersionRecord};

impl Analytics {
    /// A version of an application; the current one is in memory.
    pub(crate) async fn version(&self, state: &AppState, number: u64) -> Result<VersionRecord, ApiError> {
        if number == state.record.version {
            return Ok(VersionRecord::clone(&state.current));
        }
        let found = self.stored.version(&state.name, state.record.id, number).await;
        let found = found.map_err(catalog_failure)?;
        found.ok_or_else(|| missing(format!("Application {} has no version {number}.", state.arn)))
    }
}

/// How the application stood in a version.
fn status(state: &AppState, version: &VersionRecord) -> ApplicationStatus {
    match (version.version == state.record.version, version.rolled_back) {
        (true, _) => state.record.phase.status(),
        (false, true) => ApplicationStatus::RolledBack,
        (false, false) => version.left.unwrap_or(Phase::Ready).status(),
    }
}

impl Handle<op::DescribeApplicationVersion> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DescribeApplicationVersionRequest>,
    ) -> Result<Reply<model::DescribeApplicationVersionResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let number = u64::try_from(input.application_version_id).unwrap_or_default();
        let version = self.version(&state, number).await?;
        let status = status(&state, &version);
        Ok(model::DescribeApplicationVersionResponse {
            application_version_detail: Some(describe::of_version(&state, &version, status)),
        }
        .into())
    }
}

impl Handle<op::ListApplicationVersions> for Analytics {
    async fn handle(
        &self,
        request: Request<model::ListApplicationVersionsRequest>,
    ) -> Result<Reply<model::ListApplicationVersionsResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let oldest = state.record.version.saturating_sub(limits::VERSIONS_MAX - 1).max(1);
        let numbers: Vec<u64> = (oldest..=state.record.version).collect();
        let key = |number: &u64| format!("{number:09}");
        let (page, next_token) = page::newest(numbers, key, input.next_token.as_deref(), input.limit)?;
        let mut summaries = Vec::with_capacity(page.len());
        for number in page {
            let version = self.version(&state, number).await?;
            summaries.push(ApplicationVersionSummary {
                application_status: status(&state, &version),
                application_version_id: i64::try_from(number).unwrap_or(i64::MAX),
            });
        }
        Ok(model::ListApplicationVersionsResponse {
            application_version_summaries: Some(summaries),
            next_token,
        }
        .into())
    }
}

fn operation_status(state: OperationState) -> OperationStatus {
    match state {
        OperationState::InProgress => OperationStatus::InProgress,
        OperationState::Cancelled => OperationStatus::Cancelled,
        OperationState::Successful => OperationStatus::Successful,
        OperationState::Failed => OperationStatus::Failed,
    }
}

impl Handle<op::DescribeApplicationOperation> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DescribeApplicationOperationRequest>,
    ) -> Result<Reply<model::DescribeApplicationOperationResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let found = state.record.operations.iter().find(|o| o.id == input.operation_id);
        let found = found.ok_or_else(|| {
            missing(format!(
                "Application {} has no operation {}.",
                state.arn, input.operation_id
            ))
        })?;
        let number = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
        let details = ApplicationOperationInfoDetails {
            application_version_change_details: found.versions.map(|(from, to)| ApplicationVersionChangeDetails {
                application_version_updated_from: number(from),
                application_version_updated_to: number(to),
            }),
            // The model demands one; of what is under way it is when it was last looked at.
            end_time: found.ended_ms.map_or_else(|| self.clock.now(), Timestamp::from_millis),
            operation: found.name.clone(),
            operation_failure_details: found.error.clone().map(|error| OperationFailureDetails {
                error_info: Some(ErrorInfo {
                    error_string: Some(error),
                }),
                rollback_operation_id: None,
            }),
            operation_status: operation_status(found.state),
            start_time: Timestamp::from_millis(found.started_ms),
        };
        Ok(model::DescribeApplicationOperationResponse {
            application_operation_info_details: Some(details),
        }
        .into())
    }
}

impl Handle<op::ListApplicationOperations> for Analytics {
    async fn handle(
        &self,
        request: Request<model::ListApplicationOperationsRequest>,
    ) -> Result<Reply<model::ListApplicationOperationsResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        let wanted = |o: &OperationRecord| {
            input.operation.as_ref().is_none_or(|name| *name == o.name)
                && input
                    .operation_status
                    .is_none_or(|status| status == operation_status(o.state))
        };
        let all: Vec<&OperationRecord> = state.record.operations.iter().filter(|o| wanted(o)).collect();
        let key = |o: &&OperationRecord| format!("{:015}-{}", o.started_ms, o.id);
        let (page, next_token) = page::newest(all, key, input.next_token.as_deref(), input.limit)?;
        let info = |o: &OperationRecord| ApplicationOperationInfo {
            end_time: o.ended_ms.map(Timestamp::from_millis),
            operation: Some(o.name.clone()),
            operation_id: Some(o.id.clone()),
            operation_status: Some(operation_status(o.state)),
            start_time: Some(Timestamp::from_millis(o.started_ms)),
        };
        Ok(model::ListApplicationOperationsResponse {
            application_operation_info_list: Some(page.into_iter().map(info).collect()),
            next_token,
        }
        .into())
    }
}
