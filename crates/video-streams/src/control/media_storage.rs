//! In which stream the media of a signalling channel is stored: one stream for a channel and one channel for a stream.
//! A mapping to a stream that was deleted counts as none.

use base::{ApiError, Handle, Reply, Request, RequestContext};
use wire::kinesisvideo::{
    DescribeMappedResourceConfigurationInput, DescribeMappedResourceConfigurationOutput,
    DescribeMediaStorageConfigurationInput, DescribeMediaStorageConfigurationOutput,
    MappedResourceConfigurationListItem, MediaStorageConfiguration, MediaStorageConfigurationStatus,
    UpdateMediaStorageConfigurationInput, UpdateMediaStorageConfigurationOutput, op,
};

use super::channels::record::{ChannelRecord, Topology};
use super::{channels, resolve};
use crate::VideoStreams;
use crate::error::ControlError;
use crate::service::{Inner, owner};

/// How a channel is called in a stream's mapping: the name of its CloudFormation resource, since the model lists none.
const CHANNEL: &str = "AWS::KinesisVideo::SignalingChannel";

/// The stream in which a channel's media is stored, if that stream still exists.
fn stored_in<'a>(inner: &Inner, context: &RequestContext, record: &'a ChannelRecord) -> Option<&'a String> {
    let arn = record.stored_in.as_ref()?;
    inner.streams.by_arn(&owner(context), arn).map(|_| arn)
}

impl Handle<op::DescribeMediaStorageConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DescribeMediaStorageConfigurationInput>,
    ) -> Result<Reply<DescribeMediaStorageConfigurationOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.channel_name.as_deref(), input.channel_arn.as_deref());
        let (_, record) = channels::resolve(inner, &request.context, name, arn).await?;
        let stream_arn = stored_in(inner, &request.context, &record).cloned();
        let status = match stream_arn {
            Some(_) => MediaStorageConfigurationStatus::Enabled,
            None => MediaStorageConfigurationStatus::Disabled,
        };
        let media_storage_configuration = Some(MediaStorageConfiguration { status, stream_arn });
        Ok(DescribeMediaStorageConfigurationOutput {
            media_storage_configuration,
        }
        .into())
    }
}

impl Handle<op::UpdateMediaStorageConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<UpdateMediaStorageConfigurationInput>,
    ) -> Result<Reply<UpdateMediaStorageConfigurationOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let wanted = input.media_storage_configuration;
        let (arn, _) = channels::resolve(inner, &request.context, None, Some(&input.channel_arn)).await?;
        let stream = match wanted.status {
            MediaStorageConfigurationStatus::Disabled => None,
            MediaStorageConfigurationStatus::Enabled => {
                let stream = wanted.stream_arn.as_ref().ok_or_else(|| {
                    ControlError::InvalidArgument("StreamARN is needed when the status is ENABLED.".to_owned())
                })?;
                let state = resolve(inner, &request.context, None, Some(stream))?;
                if state.retention_hours() == 0 {
                    return Err(ControlError::NoDataRetention.into());
                }
                Some(state.arn.to_string())
            }
        };
        let change = |record: &mut ChannelRecord| {
            if stream.is_some() && record.topology == Topology::FullMesh {
                let why = "Only the media of a channel of type SINGLE_MASTER can be stored.";
                return Err(ControlError::InvalidArgument(why.to_owned()));
            }
            let now = stored_in(inner, &request.context, record);
            if let (Some(now), Some(_)) = (now, &stream)
                && Some(now) != stream.as_ref()
            {
                return Err(ControlError::InUse(format!(
                    "The channel's media is already stored in {now}. Disable that first."
                )));
            }
            record.stored_in = stream.clone();
            Ok(())
        };
        inner.channels.update(&arn, change).await?;
        Ok(UpdateMediaStorageConfigurationOutput {}.into())
    }
}

impl Handle<op::DescribeMappedResourceConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DescribeMappedResourceConfigurationInput>,
    ) -> Result<Reply<DescribeMappedResourceConfigurationOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        if input.next_token.is_some_and(|token| !token.is_empty()) {
            // A stream has one mapping at most, so that there is never a second page.
            return Err(ControlError::InvalidArgument("The NextToken is not one of ours.".to_owned()).into());
        }
        let channel = inner.channels.storing_in(&state.arn).await?;
        let item = channel.map(|arn| MappedResourceConfigurationListItem {
            arn: Some(arn.to_string()),
            r#type: Some(CHANNEL.to_owned()),
        });
        Ok(DescribeMappedResourceConfigurationOutput {
            mapped_resource_configuration_list: Some(item.into_iter().collect()),
            next_token: None,
        }
        .into())
    }
}
