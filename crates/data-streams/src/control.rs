//! CreateStream, DeleteStream, DescribeStream, DescribeStreamSummary and ListStreams.

use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, ResourceName};
use serde::{Deserialize, Serialize};
use wire::kinesis::{self, StreamMode, StreamModeDetails, StreamStatus, op};

use crate::error::invalid;
use crate::limits;
use crate::records::StreamRecord;
use crate::service::DataStreams;
use crate::shards::wire_shard;
use crate::state::StreamState;
use crate::token::{open_page, seal_page};

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
        let wanted = self.wanted(&input)?;
        let (streams, shards) = self.usage(caller.account, &caller.region);
        let too_many =
            streams >= limits::STREAMS_PER_ACCOUNT_MAX || shards + wanted.shards.len() > limits::SHARDS_PER_ACCOUNT_MAX;
        if too_many || wanted.shards.len() > limits::SHARDS_PER_STREAM_MAX {
            return Err(limit_exceeded(wanted.shards.len(), shards));
        }
        match self.create(name.clone(), wanted).await? {
            Some(()) => Ok(().into()),
            None => Err(taken()),
        }
    }
}

fn limit_exceeded(wanted: usize, there: usize) -> ApiError {
    ApiError::client(
        "LimitExceededException",
        format!(
            "{wanted} shards were asked for and {there} are there; a stream may have {}, an account {} in a region, and {} \
             streams.",
            limits::SHARDS_PER_STREAM_MAX,
            limits::SHARDS_PER_ACCOUNT_MAX,
            limits::STREAMS_PER_ACCOUNT_MAX
        ),
    )
}

impl DataStreams {
    /// The record of the stream that a request describes.
    fn wanted(&self, input: &kinesis::CreateStreamInput) -> Result<StreamRecord, ApiError> {
        let mode = input
            .stream_mode_details
            .as_ref()
            .map_or(StreamMode::Provisioned, |m| m.stream_mode);
        let shards = match (mode, input.shard_count) {
            (StreamMode::Provisioned, Some(count)) => usize::try_from(count).unwrap_or(0),
            (StreamMode::Provisioned, None) => {
                return Err(invalid("ShardCount must be given for a PROVISIONED stream."));
            }
            (StreamMode::OnDemand, None) => limits::ON_DEMAND_SHARDS,
            (StreamMode::OnDemand, Some(_)) => {
                return Err(invalid("ShardCount must not be given for an ON_DEMAND stream."));
            }
        };
        // Before the list of shards is made: the count is the caller's.
        if shards > limits::SHARDS_PER_STREAM_MAX {
            return Err(limit_exceeded(shards, 0));
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
        if tags.len() > limits::TAGS_MAX {
            return Err(invalid(format!("A stream has at most {} tags.", limits::TAGS_MAX)));
        }
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
        let stream = self.resolve(caller, input.stream_name.as_deref(), input.stream_arn.as_deref())?;
        self.delete(stream).await?;
        Ok(().into())
    }
}

fn mode(stream: &StreamState) -> Option<StreamModeDetails> {
    let on_demand = stream.record.on_demand;
    Some(StreamModeDetails {
        stream_mode: if on_demand {
            StreamMode::OnDemand
        } else {
            StreamMode::Provisioned
        },
    })
}

fn no_monitoring() -> Vec<kinesis::EnhancedMetrics> {
    vec![kinesis::EnhancedMetrics {
        shard_level_metrics: Some(Vec::new()),
    }]
}

impl Handle<op::DescribeStream> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DescribeStreamInput>,
    ) -> Result<Reply<kinesis::DescribeStreamOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let stream = self.resolve(caller, input.stream_name.as_deref(), input.stream_arn.as_deref())?;
        let limit = input
            .limit
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(limits::DESCRIBE_SHARDS_DEFAULT);
        let behind = |shard: &&crate::records::ShardRecord| {
            let start = input.exclusive_start_shard_id.as_deref();
            start.is_none_or(|start| crate::arn::shard_id_text(storage::ShardId(shard.number)).as_str() > start)
        };
        let mut rest = stream.record.shards.iter().filter(behind);
        let shards: Vec<_> = rest.by_ref().take(limit).map(wire_shard).collect();
        let description = kinesis::StreamDescription {
            encryption_type: Some(kinesis::EncryptionType::None),
            enhanced_monitoring: no_monitoring(),
            has_more_shards: rest.next().is_some(),
            key_id: None,
            retention_period_hours: stream.record.retention_hours,
            shards,
            stream_arn: stream.arn.clone(),
            stream_creation_timestamp: stream.record.created(),
            stream_mode_details: mode(&stream),
            stream_name: stream.name.name.clone(),
            stream_status: StreamStatus::Active,
        };
        Ok(kinesis::DescribeStreamOutput {
            stream_description: description,
        }
        .into())
    }
}

impl Handle<op::DescribeStreamSummary> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DescribeStreamSummaryInput>,
    ) -> Result<Reply<kinesis::DescribeStreamSummaryOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let stream = self.resolve(caller, input.stream_name.as_deref(), input.stream_arn.as_deref())?;
        let record = &stream.record;
        let strategy = match record.spread {
            true => kinesis::RecordDistributionStrategy::Auto,
            false => kinesis::RecordDistributionStrategy::UserPartitionKey,
        };
        let summary = kinesis::StreamDescriptionSummary {
            channel_count: None,
            consumer_count: Some(0),
            encryption_type: Some(kinesis::EncryptionType::None),
            enhanced_monitoring: no_monitoring(),
            key_id: None,
            max_record_size_in_ki_b: Some(record.max_record_kib),
            open_shard_count: i32::try_from(stream.open_shards()).unwrap_or(i32::MAX),
            queue_count: None,
            record_distribution_strategy: record.on_demand.then_some(strategy),
            retention_period_hours: record.retention_hours,
            stream_arn: stream.arn.clone(),
            stream_creation_timestamp: record.created(),
            stream_id: None,
            stream_mode_details: mode(&stream),
            stream_name: stream.name.name.clone(),
            stream_status: StreamStatus::Active,
            warm_throughput: record.warm_mib.map(|mib| kinesis::WarmThroughputObject {
                current_mi_bps: Some(mib),
                target_mi_bps: Some(mib),
            }),
        };
        Ok(kinesis::DescribeStreamSummaryOutput {
            stream_description_summary: summary,
        }
        .into())
    }
}

/// Where a listing goes on.
#[derive(Serialize, Deserialize)]
struct ListPage {
    after: String,
}

impl Handle<op::ListStreams> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::ListStreamsInput>,
    ) -> Result<Reply<kinesis::ListStreamsOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let (ring, now) = (&self.key_ring, self.clock.now());
        let after = match (&input.next_token, &input.exclusive_start_stream_name) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "NextToken and ExclusiveStartStreamName cannot be given together.",
                ));
            }
            (Some(token), None) => Some(open_page::<ListPage>("list-streams", token, ring, caller, now)?.after),
            (None, start) => start.clone(),
        };
        let limit = input
            .limit
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(limits::LIST_STREAMS_DEFAULT);
        let (streams, more) = self.list(caller, after.as_deref(), limit);
        let next = streams.last().filter(|_| more).map(|last| ListPage {
            after: last.name.name.clone(),
        });
        let summary = |stream: &Arc<StreamState>| kinesis::StreamSummary {
            stream_arn: stream.arn.clone(),
            stream_creation_timestamp: Some(stream.record.created()),
            stream_mode_details: mode(stream),
            stream_name: stream.name.name.clone(),
            stream_status: StreamStatus::Active,
        };
        Ok(kinesis::ListStreamsOutput {
            has_more_streams: more,
            next_token: next
                .map(|page| seal_page("list-streams", &page, ring, caller, now))
                .transpose()?,
            stream_names: streams.iter().map(|s| s.name.name.clone()).collect(),
            stream_summaries: Some(streams.iter().map(summary).collect()),
        }
        .into())
    }
}
