//! The storage tier of a stream. It is kept and answered as AWS does; both tiers are the same disk here. (That WARM media
//! is charged for thirty days is a price, not a rule: any retention is taken.)

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisvideo::{
    DefaultStorageTier, DescribeStreamStorageConfigurationInput, DescribeStreamStorageConfigurationOutput,
    StreamStorageConfiguration, UpdateStreamStorageConfigurationInput, UpdateStreamStorageConfigurationOutput, op,
};

use super::{check_version, resolve};
use crate::VideoStreams;
use crate::records::StreamRecord;

fn tier(record: &StreamRecord) -> DefaultStorageTier {
    match record.storage_tier.as_deref() {
        Some("WARM") => DefaultStorageTier::Warm,
        _ => DefaultStorageTier::Hot,
    }
}

impl Handle<op::DescribeStreamStorageConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DescribeStreamStorageConfigurationInput>,
    ) -> Result<Reply<DescribeStreamStorageConfigurationOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        let default_storage_tier = tier(&state.record());
        Ok(DescribeStreamStorageConfigurationOutput {
            stream_arn: Some(state.arn.to_string()),
            stream_name: Some(state.arn.name.name.clone()),
            stream_storage_configuration: Some(StreamStorageConfiguration { default_storage_tier }),
        }
        .into())
    }
}

impl Handle<op::UpdateStreamStorageConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<UpdateStreamStorageConfigurationInput>,
    ) -> Result<Reply<UpdateStreamStorageConfigurationOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        let wanted = input.stream_storage_configuration.default_storage_tier.to_string();
        let change = |record: &mut StreamRecord| {
            check_version(&record.version, Some(&input.current_version))?;
            record.storage_tier = Some(wanted.clone());
            Ok(())
        };
        self.inner.change(&state, change).await?;
        Ok(UpdateStreamStorageConfigurationOutput {}.into())
    }
}
