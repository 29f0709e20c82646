//! DescribeDeliveryStream, ListDeliveryStreams and DeleteDeliveryStream.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use wire::firehose::{
    self, DeliveryStreamDescription, DeliveryStreamEncryptionConfiguration, DeliveryStreamEncryptionStatus,
    DeliveryStreamFailureType, DeliveryStreamStatus, DeliveryStreamType, DestinationDescription,
    DirectPutSourceDescription, FailureDescription, KeyType, KinesisStreamSourceDescription, SourceDescription, op,
};

use super::s3;
use crate::endpoints::{self, Secrets};
use crate::limits;
use crate::service::{Firehose, StreamState};

/// The type that a delivery stream was made with.
fn kind(state: &StreamState) -> DeliveryStreamType {
    match state.record.source {
        Some(_) => DeliveryStreamType::KinesisStreamAsSource,
        None => DeliveryStreamType::DirectPut,
    }
}

fn encryption(state: &StreamState) -> DeliveryStreamEncryptionConfiguration {
    let encryption = state.record.encryption.as_ref();
    let key_type = |key: &crate::stored::EncryptionRecord| match key.key_arn {
        Some(_) => KeyType::CustomerManagedCmk,
        None => KeyType::AwsOwnedCmk,
    };
    DeliveryStreamEncryptionConfiguration {
        failure_description: None,
        key_arn: encryption.and_then(|key| key.key_arn.clone()),
        key_type: encryption.map(key_type),
        status: Some(match encryption {
            Some(_) => DeliveryStreamEncryptionStatus::Enabled,
            None => DeliveryStreamEncryptionStatus::Disabled,
        }),
    }
}

fn source(state: &StreamState) -> Option<SourceDescription> {
    let kinesis = state
        .record
        .source
        .as_ref()
        .map(|source| KinesisStreamSourceDescription {
            delivery_start_timestamp: Some(Timestamp::from_millis(source.start_ms)),
            kinesis_stream_arn: Some(source.stream_arn.clone()),
            role_arn: Some(source.role_arn.clone()),
        });
    let direct = state.record.throughput_hint.map(|hint| DirectPutSourceDescription {
        throughput_hint_in_m_bs: Some(hint),
    });
    let described = kinesis.is_some() || direct.is_some();
    described.then_some(SourceDescription {
        database_source_description: None,
        direct_put_source_description: direct,
        kinesis_stream_source_description: kinesis,
        msk_source_description: None,
    })
}

/// The destination as AWS tells it: one in S3 in both forms.
fn destination(state: &StreamState, secrets: &Secrets) -> DestinationDescription {
    let mut description = endpoints::shown(state.record.destination.clone(), secrets);
    description.s3_destination_description = description.extended_s3_destination_description.as_ref().map(s3::simple);
    description
}

impl Handle<op::DescribeDeliveryStream> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::DescribeDeliveryStreamInput>,
    ) -> Result<Reply<firehose::DescribeDeliveryStreamOutput>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.delivery_stream_name)?;
        let destination = destination(&state, &self.open_secrets(&state.record));
        let after = input.exclusive_start_destination_id.as_ref();
        let shown = after.is_none_or(|after| *after < destination.destination_id);
        let failure = state.status.failure().map(|details| FailureDescription {
            details,
            r#type: DeliveryStreamFailureType::UnknownError,
        });
        Ok(firehose::DescribeDeliveryStreamOutput {
            delivery_stream_description: DeliveryStreamDescription {
                create_timestamp: Some(Timestamp::from_millis(state.record.created_ms)),
                delivery_stream_arn: state.arn.clone(),
                delivery_stream_encryption_configuration: Some(encryption(&state)),
                delivery_stream_name: state.name.name.clone(),
                delivery_stream_status: DeliveryStreamStatus::Active,
                delivery_stream_type: kind(&state),
                destinations: shown.then_some(destination).into_iter().collect(),
                failure_description: failure,
                has_more_destinations: false,
                last_update_timestamp: state.record.updated_ms.map(Timestamp::from_millis),
                source: source(&state),
                version_id: state.record.version.to_string(),
            },
        }
        .into())
    }
}

impl Handle<op::ListDeliveryStreams> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::ListDeliveryStreamsInput>,
    ) -> Result<Reply<firehose::ListDeliveryStreamsOutput>, ApiError> {
        let input = request.input;
        let limit = input.limit.and_then(|l| usize::try_from(l).ok());
        let limit = limit.unwrap_or(limits::LIST_STREAMS_DEFAULT);
        let wanted = |state: &StreamState| input.delivery_stream_type.is_none_or(|wanted| wanted == kind(state));
        let after = input.exclusive_start_delivery_stream_name.as_deref();
        let (names, more) = self.list(&request.context.caller, after, limit, wanted);
        Ok(firehose::ListDeliveryStreamsOutput {
            delivery_stream_names: names,
            has_more_delivery_streams: more,
        }
        .into())
    }
}

impl Handle<op::DeleteDeliveryStream> for Firehose {
    // AllowForceDelete overrides trouble with keys of KMS, which this server does not have.
    async fn handle(
        &self,
        request: Request<firehose::DeleteDeliveryStreamInput>,
    ) -> Result<Reply<firehose::DeleteDeliveryStreamOutput>, ApiError> {
        let state = self.find(&request.context.caller, &request.input.delivery_stream_name)?;
        self.delete(&state).await?;
        Ok(firehose::DeleteDeliveryStreamOutput {}.into())
    }
}
