//! Edge configurations: what an agent on a device near the cameras would record and upload. They are kept, checked and
//! listed; no agent of this server's own fetches them. So a configuration is SYNCING for the quarter of an hour that an
//! agent has to acknowledge it, and SYNC_FAILED after; since nothing was recorded at the edge, a deletion is done at once.

pub(crate) mod record;

use base::{ApiError, Handle, Reply, Request, RequestContext, Timestamp};
use wire::codec::{decode_output, encode_input};
use wire::kinesisvideo::{
    DeleteEdgeConfigurationInput, DeleteEdgeConfigurationOutput, DescribeEdgeConfigurationInput,
    DescribeEdgeConfigurationOutput, EdgeConfig, ListEdgeAgentConfigurationsEdgeConfig,
    ListEdgeAgentConfigurationsInput, ListEdgeAgentConfigurationsOutput, ScheduleConfig,
    StartEdgeConfigurationUpdateInput, StartEdgeConfigurationUpdateOutput, SyncStatus, op,
};

use self::record::EdgeRecord;
use super::{list, resolve};
use crate::VideoStreams;
use crate::error::ControlError;
use crate::limits;
use crate::service::owner;
use crate::token;

const NOT_SYNCED: &str = "No edge agent acknowledged the configuration within 15 minutes.";

fn invalid(why: impl Into<String>) -> ControlError {
    ControlError::InvalidArgument(why.into())
}

/// Refuses what no agent could carry out.
fn check(config: &EdgeConfig, context: &RequestContext) -> Result<(), ControlError> {
    let account = config.hub_device_arn.split(':').nth(4).unwrap_or_default();
    if account != context.caller.account.to_string() {
        return Err(invalid("HubDeviceArn must be a thing of the caller's account."));
    }
    let upload = config.uploader_config.as_ref().map(|upload| &upload.schedule_config);
    let schedules = [config.recorder_config.schedule_config.as_ref(), upload];
    schedules.into_iter().flatten().try_for_each(check_schedule)
}

/// A Quartz cron expression has seconds, minutes, hours, day of month, month, day of week, and perhaps a year.
fn check_schedule(schedule: &ScheduleConfig) -> Result<(), ControlError> {
    let expression = &schedule.schedule_expression;
    let legal = |c: char| c.is_ascii_alphanumeric() || " \t*?,-/#".contains(c);
    let fields = expression.split_whitespace().count();
    if (6..=7).contains(&fields) && expression.chars().all(legal) {
        return Ok(());
    }
    Err(invalid(format!(
        "The ScheduleExpression {expression:?} is not a cron expression of six or seven fields, e.g. \"0 0 8 ? * MON-FRI\"."
    )))
}

/// How far a configuration has come, and what is wrong with it.
fn status(record: &EdgeRecord, now: Timestamp) -> (SyncStatus, Option<String>) {
    if now.millis() < record.updated_ms.saturating_add(limits::EDGE_SYNC_MS) {
        (SyncStatus::Syncing, None)
    } else {
        (SyncStatus::SyncFailed, Some(NOT_SYNCED.to_owned()))
    }
}

fn to_json(config: &EdgeConfig) -> Result<serde_json::Value, ControlError> {
    serde_json::from_slice(&encode_input(config)).map_err(|error| invalid(format!("EdgeConfig: {error}")))
}

/// The configuration as it was given; none if it cannot be read, which a log line says.
fn from_json(record: &EdgeRecord) -> Option<EdgeConfig> {
    let decoded = decode_output(record.config.to_string().as_bytes());
    let failed = decoded.as_ref().err();
    failed.inspect(|error| tracing::warn!(%error, "an edge configuration in the catalog is unreadable"));
    decoded.ok()
}

impl Handle<op::StartEdgeConfigurationUpdate> for VideoStreams {
    async fn handle(
        &self,
        request: Request<StartEdgeConfigurationUpdateInput>,
    ) -> Result<Reply<StartEdgeConfigurationUpdateOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let config = input.edge_config;
        check(&config, &request.context)?;
        if state.retention_hours() == 0 {
            return Err(ControlError::NoDataRetention.into());
        }
        let (now, stored) = (inner.clock.now(), to_json(&config)?);
        let change = |current: Option<EdgeRecord>| {
            let created_ms = match &current {
                None => now.millis(),
                Some(current) if status(current, now).0 == SyncStatus::Syncing => {
                    return Err(ControlError::InUse(
                        "The stream's edge configuration is still being synchronised.".to_owned(),
                    ));
                }
                Some(current) if current.hub_device_arn != config.hub_device_arn => {
                    let device = &current.hub_device_arn;
                    return Err(invalid(format!(
                        "The edge configuration belongs to {device}. Delete it before you give the stream to another device."
                    )));
                }
                Some(current) => current.created_ms,
            };
            Ok(Some(EdgeRecord {
                stream_created_ms: state.arn.created_ms,
                created_ms,
                updated_ms: now.millis(),
                hub_device_arn: config.hub_device_arn.clone(),
                config: stored.clone(),
            }))
        };
        let record = inner.edges.change(&state.arn, change).await?;
        let record = record.ok_or(ControlError::NoEdgeConfiguration)?;
        Ok(StartEdgeConfigurationUpdateOutput {
            creation_time: Some(Timestamp::from_millis(record.created_ms)),
            edge_config: Some(config),
            failed_status_details: None,
            last_updated_time: Some(now),
            stream_arn: Some(state.arn.to_string()),
            stream_name: Some(state.arn.name.name.clone()),
            sync_status: Some(SyncStatus::Syncing),
        }
        .into())
    }
}

impl Handle<op::DescribeEdgeConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DescribeEdgeConfigurationInput>,
    ) -> Result<Reply<DescribeEdgeConfigurationOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let record = inner.edges.get(&state.arn).await?;
        let record = record.ok_or(ControlError::NoEdgeConfiguration)?;
        let (sync_status, failed_status_details) = status(&record, inner.clock.now());
        Ok(DescribeEdgeConfigurationOutput {
            creation_time: Some(Timestamp::from_millis(record.created_ms)),
            // No agent has reported anything.
            edge_agent_status: None,
            edge_config: from_json(&record),
            failed_status_details,
            last_updated_time: Some(Timestamp::from_millis(record.updated_ms)),
            stream_arn: Some(state.arn.to_string()),
            stream_name: Some(state.arn.name.name.clone()),
            sync_status: Some(sync_status),
        }
        .into())
    }
}

impl Handle<op::DeleteEdgeConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DeleteEdgeConfigurationInput>,
    ) -> Result<Reply<DeleteEdgeConfigurationOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let change = |current: Option<EdgeRecord>| match current {
            Some(_) => Ok(None),
            None => Err(ControlError::NoEdgeConfiguration),
        };
        inner.edges.change(&state.arn, change).await?;
        Ok(DeleteEdgeConfigurationOutput {}.into())
    }
}

impl Handle<op::ListEdgeAgentConfigurations> for VideoStreams {
    async fn handle(
        &self,
        request: Request<ListEdgeAgentConfigurationsInput>,
    ) -> Result<Reply<ListEdgeAgentConfigurationsOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let limit = list::limit(input.max_results, limits::LIST_EDGE_MAX);
        let after = list::after(input.next_token.as_deref())?;
        let (owner, now) = (owner(&request.context), inner.clock.now());
        let page = inner.edges.page(&owner, &input.hub_device_arn, after.as_deref(), limit);
        let (page, more) = page.await?;
        let last = page.last().filter(|_| more);
        let next_token = last.map(|(name, _)| token::encode(&name.name));
        let living = page.into_iter().filter_map(|(name, record)| {
            let state = inner.streams.by_name(&name)?;
            let living = state.arn.created_ms == record.stream_created_ms;
            living.then_some((state.arn.to_string(), name.name, record))
        });
        let edge_configs = living.map(|(arn, name, record)| {
            let (sync_status, failed_status_details) = status(&record, now);
            ListEdgeAgentConfigurationsEdgeConfig {
                creation_time: Some(Timestamp::from_millis(record.created_ms)),
                edge_config: from_json(&record),
                failed_status_details,
                last_updated_time: Some(Timestamp::from_millis(record.updated_ms)),
                stream_arn: Some(arn),
                stream_name: Some(name),
                sync_status: Some(sync_status),
            }
        });
        Ok(ListEdgeAgentConfigurationsOutput {
            edge_configs: Some(edge_configs.collect()),
            next_token,
        }
        .into())
    }
}
