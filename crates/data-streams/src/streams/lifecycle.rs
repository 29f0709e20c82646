//! CreateStream and DeleteStream.

use base::{ApiError, Handle, Reply, Request, ResourceName};
use wire::kinesis::{self, StreamMode, op};

use crate::error::{invalid, shard_limit};
use crate::limits;
use crate::service::DataStreams;
use crate::stored::StreamRecord;
use crate::streams::tags::check_tags;

impl Handle<op::CreateStream> for DataStreams {
    async fn handle(&self, request: Request<kinesis::CreateStreamInput>) -> Result<Reply<()>, ApiError> {
        let caller = &request.context.caller;
        let input = request.input;
        let name = ResourceName {
            account: caller.account,
            region: caller.region.clone(),
            name: input.stream_name.clone(),
        };
        let taken = || {
            ApiError::client(
                "ResourceInUseException",
                format!("Stream {} under account {} already exists.", name.name, name.account),
            )
        };
        if self.state(&name).is_some() {
            return Err(taken());
        }
        let wanted = self.wanted(&name, &input)?;
        let (streams, shards) = self.usage(caller.account, &caller.region);
        let beyond =
            streams >= limits::STREAMS_PER_ACCOUNT_MAX || shards + wanted.shards.len() > limits::SHARDS_PER_ACCOUNT_MAX;
        if beyond || wanted.shards.len() > limits::SHARDS_PER_STREAM_MAX {
            return Err(too_many(&name, wanted.shards.len(), shards));
        }
        match self.create(name.clone(), wanted).await? {
            Some(()) => Ok(().into()),
            None => Err(taken()),
        }
    }
}

fn too_many(name: &ResourceName, wanted: usize, there: usize) -> ApiError {
    let error = shard_limit(name, there, wanted);
    let message = format!(
        "{} An account may have {} streams in a region.",
        error.message,
        limits::STREAMS_PER_ACCOUNT_MAX
    );
    ApiError { message, ..error }
}

impl DataStreams {
    /// The record of the stream that a request describes.
    fn wanted(&self, name: &ResourceName, input: &kinesis::CreateStreamInput) -> Result<StreamRecord, ApiError> {
        let mode = input
            .stream_mode_details
            .as_ref()
            .map_or(StreamMode::Provisioned, |m| m.stream_mode);
        let shards = match (mode, input.shard_count) {
            (StreamMode::Provisioned, Some(count)) => usize::try_from(count).unwrap_or(0),
            (StreamMode::Provisioned, None) => {
                return Err(invalid("ShardCount must be given for a PROVISIONED stream."));
            }
            (StreamMode::OnDemand, None) => {
                let warm = input.warm_throughput_mi_bps.and_then(|mib| usize::try_from(mib).ok());
                warm.unwrap_or(0).max(limits::ON_DEMAND_SHARDS)
            }
            (StreamMode::OnDemand, Some(_)) => {
                return Err(invalid("ShardCount must not be given for an ON_DEMAND stream."));
            }
        };
        // Before the list of shards is made: the count is the caller's.
        if shards > limits::SHARDS_PER_STREAM_MAX {
            return Err(too_many(name, shards, 0));
        }
        let on_demand = mode == StreamMode::OnDemand;
        let spread = input.record_distribution_strategy == Some(kinesis::RecordDistributionStrategy::Auto);
        if spread && !on_demand {
            return Err(invalid("RecordDistributionStrategy AUTO needs an ON_DEMAND stream."));
        }
        if input.warm_throughput_mi_bps.is_some() && !on_demand {
            return Err(invalid("WarmThroughputMiBps needs an ON_DEMAND stream."));
        }
        let tags = input.tags.clone().unwrap_or_default();
        check_tags(&tags, tags.len())?;
        let plain = StreamRecord::new(self.clock.now(), shards);
        Ok(StreamRecord {
            on_demand,
            spread,
            tags,
            warm_mib: input.warm_throughput_mi_bps,
            max_record_kib: input.max_record_size_in_ki_b.unwrap_or(plain.max_record_kib),
            ..plain
        })
    }
}

impl Handle<op::DeleteStream> for DataStreams {
    async fn handle(&self, request: Request<kinesis::DeleteStreamInput>) -> Result<Reply<()>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::DeleteStream>(caller, named)?;
        if !stream.record.consumers.is_empty() && input.enforce_consumer_deletion != Some(true) {
            return Err(ApiError::client(
                "ResourceInUseException",
                format!(
                    "Stream {} under account {} has registered consumers; deregister them, or set EnforceConsumerDeletion.",
                    stream.name.name, stream.name.account
                ),
            ));
        }
        self.delete(&stream).await?;
        Ok(().into())
    }
}
