//! Making, describing, changing and deleting streams. A stream is usable when CreateStream answers, and its fragments are
//! gone when DeleteStream does.

use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, Timestamp};
use wire::kinesisvideo::{
    CreateStreamInput, CreateStreamOutput, DeleteStreamInput, DeleteStreamOutput, DescribeStreamInput,
    DescribeStreamOutput, UpdateDataRetentionInput, UpdateDataRetentionOperation, UpdateDataRetentionOutput,
    UpdateStreamInput, UpdateStreamOutput, op,
};

use super::{check_version, describe, resolve, tags};
use crate::VideoStreams;
use crate::error::ControlError;
use crate::limits;
use crate::records::StreamRecord;
use crate::retention;
use crate::service::{Inner, owner};
use crate::state::StreamState;

impl Handle<op::CreateStream> for VideoStreams {
    async fn handle(&self, request: Request<CreateStreamInput>) -> Result<Reply<CreateStreamOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let retention_hours = input.data_retention_in_hours.unwrap_or(0);
        check_retention(i64::from(retention_hours))?;
        let new_tags = input.tags.unwrap_or_default();
        tags::check(inner, &new_tags)?;
        let owner = owner(&request.context);
        let name = owner.named(&input.stream_name);
        let wanted = StreamRecord {
            id: 0,
            created_ms: 0,
            version: String::new(),
            retention_hours,
            device_name: input.device_name,
            media_type: input.media_type,
            kms_key_id: input.kms_key_id,
            storage_tier: input
                .stream_storage_configuration
                .map(|storage| storage.default_storage_tier.to_string()),
            tags: new_tags,
            image_generation: None,
            notification: None,
        };
        let _changing = inner.changes.lock().await;
        if inner.streams.by_name(&name).is_some() {
            return Err(ControlError::NameTaken(name.name).into());
        }
        if inner.streams.count(&owner) >= limits::STREAMS_PER_ACCOUNT {
            return Err(ControlError::TooManyStreams.into());
        }
        let (arn, record) = inner.records.create(&name, &wanted, inner.clock.now()).await?;
        let stream_arn = Some(arn.to_string());
        inner
            .streams
            .insert(StreamState::new(arn, record, inner.stores.clone()));
        Ok(CreateStreamOutput { stream_arn }.into())
    }
}

impl Handle<op::DescribeStream> for VideoStreams {
    async fn handle(&self, request: Request<DescribeStreamInput>) -> Result<Reply<DescribeStreamOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        let stream_info = Some(describe(&state));
        Ok(DescribeStreamOutput { stream_info }.into())
    }
}

impl Handle<op::UpdateStream> for VideoStreams {
    async fn handle(&self, request: Request<UpdateStreamInput>) -> Result<Reply<UpdateStreamOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        self.inner
            .change(&state, |record| {
                check_version(&record.version, Some(&input.current_version))?;
                if let Some(device_name) = &input.device_name {
                    record.device_name = Some(device_name.clone());
                }
                if let Some(media_type) = &input.media_type {
                    record.media_type = Some(media_type.clone());
                }
                Ok(())
            })
            .await?;
        Ok(UpdateStreamOutput {}.into())
    }
}

impl Handle<op::UpdateDataRetention> for VideoStreams {
    async fn handle(
        &self,
        request: Request<UpdateDataRetentionInput>,
    ) -> Result<Reply<UpdateDataRetentionOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        let change = i64::from(input.data_retention_change_in_hours);
        let change = match input.operation {
            UpdateDataRetentionOperation::IncreaseDataRetention => change,
            UpdateDataRetentionOperation::DecreaseDataRetention => -change,
        };
        self.inner
            .change(&state, |record| {
                check_version(&record.version, Some(&input.current_version))?;
                record.retention_hours = check_retention(i64::from(record.retention_hours) + change)?;
                Ok(())
            })
            .await?;
        if change < 0 {
            let swept = retention::sweep_stream(&self.inner, &state).await;
            swept.map_err(ControlError::from)?;
        }
        Ok(UpdateDataRetentionOutput {}.into())
    }
}

impl Handle<op::DeleteStream> for VideoStreams {
    async fn handle(&self, request: Request<DeleteStreamInput>) -> Result<Reply<DeleteStreamOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let state = resolve(inner, &request.context, None, Some(&input.stream_arn))?;
        {
            let _changing = inner.changes.lock().await;
            let version = input.current_version.as_ref();
            inner
                .records
                .delete(&state.arn, |record| check_version(&record.version, version))
                .await?;
            inner.streams.remove(&state.arn);
        }
        inner.metrics.forget(&state.arn.name);
        // What a crash leaves of these counts as none.
        inner.edges.change(&state.arn, |_| Ok(None)).await?;
        // Producers get 4008 and readers see the end before the fragments go.
        state.hub.close();
        inner.stores.delete(state.id).await.map_err(ControlError::from)?;
        inner.records.deleted(state.id).await.map_err(ControlError::from)?;
        Ok(DeleteStreamOutput {}.into())
    }
}

impl Inner {
    /// Changes a stream's record, in the catalog and then in memory.
    pub(crate) async fn change(
        &self,
        state: &Arc<StreamState>,
        change: impl FnMut(&mut StreamRecord) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let _changing = self.changes.lock().await;
        let record = self.records.update(&state.arn, change).await?;
        state.set_record(record);
        Ok(())
    }
}

/// A retention in hours, if it is a legal one.
fn check_retention(hours: i64) -> Result<i32, ControlError> {
    let legal = (0..=limits::RETENTION_HOURS_MAX).contains(&hours);
    i32::try_from(hours).ok().filter(|_| legal).ok_or_else(|| {
        let max = limits::RETENTION_HOURS_MAX;
        ControlError::InvalidArgument(format!("The retention would be {hours} hours; it is 0 to {max}."))
    })
}

/// The moment before which fragments are out of retention.
pub(crate) fn oldest_kept(now: Timestamp, hours: i64) -> Timestamp {
    now.plus_millis(hours.saturating_mul(-3_600_000))
}
