//! DescribeStream, DescribeStreamSummary and ListStreams.

use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request};
use serde::{Deserialize, Serialize};
use storage::ShardId;
use wire::kinesis::{self, EncryptionType, MetricsName, StreamMode, StreamModeDetails, StreamStatus, op};

use crate::arn::shard_id_text;
use crate::error::invalid;
use crate::limits;
use crate::page::{open_page, seal_page};
use crate::service::DataStreams;
use crate::shards::wire_shard;
use crate::state::StreamState;
use crate::stored::{ShardRecord, StreamRecord};

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

fn status(stream: &StreamState) -> StreamStatus {
    match stream.record.reshard {
        Some(_) => StreamStatus::Updating,
        None => StreamStatus::Active,
    }
}

/// The shard-level metrics that were asked for, in the model's order.
pub fn monitored(record: &StreamRecord) -> Vec<MetricsName> {
    let wanted = |name: &&MetricsName| record.monitoring.contains(name.as_str());
    MetricsName::ALL.iter().filter(wanted).copied().collect()
}

fn monitoring(record: &StreamRecord) -> Vec<kinesis::EnhancedMetrics> {
    vec![kinesis::EnhancedMetrics {
        shard_level_metrics: Some(monitored(record)),
    }]
}

fn encryption(record: &StreamRecord) -> (Option<EncryptionType>, Option<String>) {
    match &record.encryption {
        Some(encryption) => (Some(EncryptionType::Kms), Some(encryption.key_id.clone())),
        None => (Some(EncryptionType::None), None),
    }
}

impl Handle<op::DescribeStream> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DescribeStreamInput>,
    ) -> Result<Reply<kinesis::DescribeStreamOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::DescribeStream>(caller, named)?;
        let limit = input
            .limit
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(limits::DESCRIBE_SHARDS_DEFAULT);
        let behind = |shard: &&ShardRecord| {
            let start = input.exclusive_start_shard_id.as_deref();
            start.is_none_or(|start| shard_id_text(ShardId(shard.number)).as_str() > start)
        };
        let (encryption_type, key_id) = encryption(&stream.record);
        let mut rest = stream.record.shards.iter().filter(behind);
        let shards: Vec<_> = rest.by_ref().take(limit).map(wire_shard).collect();
        let description = kinesis::StreamDescription {
            encryption_type,
            enhanced_monitoring: monitoring(&stream.record),
            has_more_shards: rest.next().is_some(),
            key_id,
            retention_period_hours: stream.record.retention_hours,
            shards,
            stream_arn: stream.arn.clone(),
            stream_creation_timestamp: stream.record.created(),
            stream_mode_details: mode(&stream),
            stream_name: stream.name.name.clone(),
            stream_status: status(&stream),
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
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::DescribeStreamSummary>(caller, named)?;
        let record = &stream.record;
        let strategy = match record.spread {
            true => kinesis::RecordDistributionStrategy::Auto,
            false => kinesis::RecordDistributionStrategy::UserPartitionKey,
        };
        let (encryption_type, key_id) = encryption(record);
        let summary = kinesis::StreamDescriptionSummary {
            channel_count: self
                .channels()
                .and_then(|channels| i32::try_from(channels.of_stream(&stream.name)).ok()),
            consumer_count: i32::try_from(record.consumers.len()).ok(),
            encryption_type,
            enhanced_monitoring: monitoring(record),
            key_id,
            max_record_size_in_ki_b: Some(record.max_record_kib),
            open_shard_count: i32::try_from(stream.open_shards()).unwrap_or(i32::MAX),
            queue_count: i32::try_from(record.queues.len()).ok(),
            record_distribution_strategy: record.on_demand.then_some(strategy),
            retention_period_hours: record.retention_hours,
            stream_arn: stream.arn.clone(),
            stream_creation_timestamp: record.created(),
            stream_id: None,
            stream_mode_details: mode(&stream),
            stream_name: stream.name.name.clone(),
            stream_status: status(&stream),
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
            stream_status: status(stream),
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
