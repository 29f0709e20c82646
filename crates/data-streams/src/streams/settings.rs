//! What can be set of a stream that is there: retention, metrics, encryption, capacity mode, size of records, warm
//! throughput and distribution.

use base::{ApiError, Caller, Handle, Reply, Request};
use wire::WireOperation;
use wire::kinesis::{self, EncryptionType, MetricsName, RecordDistributionStrategy, StreamMode, op};

use crate::error::{has_queues, invalid, not_active, validation};
use crate::limits;
use crate::records::cipher::DataKey;
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::{EncryptionRecord, StreamRecord};
use crate::streams::describe::monitored;

fn check_retention(hours: i32) -> Result<(), ApiError> {
    let (least, most) = (*limits::RETENTION_HOURS.start(), *limits::RETENTION_HOURS.end());
    if hours < least {
        return Err(invalid(format!(
            "Minimum allowed retention period is {least} hours. Requested retention period ({hours} hours) is too short."
        )));
    }
    if hours > most {
        return Err(invalid(format!(
            "Maximum allowed retention period is {most} hours. Requested retention period ({hours} hours) is too long."
        )));
    }
    Ok(())
}

impl Handle<op::IncreaseStreamRetentionPeriod> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::IncreaseStreamRetentionPeriodInput>,
    ) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::IncreaseStreamRetentionPeriod>(&request.context.caller, named)?;
        let hours = input.retention_period_hours;
        check_retention(hours)?;
        // What is beyond the old retention stays so.
        self.trim(&stream, stream.record.horizon(self.clock.now())).await;
        let name = stream.name.clone();
        self.change(&stream, move |record| {
            let there = record.retention_hours;
            if hours < there {
                return Err(invalid(format!(
                    "Requested retention period ({hours} hours) for stream {} can not be shorter than existing retention \
                     period ({there} hours). Use DecreaseRetentionPeriod API.",
                    name.name
                )));
            }
            not_active(record, &name)?;
            record.retention_hours = hours;
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::DecreaseStreamRetentionPeriod> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DecreaseStreamRetentionPeriodInput>,
    ) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::DecreaseStreamRetentionPeriod>(&request.context.caller, named)?;
        let hours = input.retention_period_hours;
        check_retention(hours)?;
        let name = stream.name.clone();
        self.change(&stream, move |record| {
            let there = record.retention_hours;
            if hours > there {
                return Err(invalid(format!(
                    "Requested retention period ({hours} hours) for stream {} can not be longer than existing retention \
                     period ({there} hours). Use IncreaseRetentionPeriod API.",
                    name.name
                )));
            }
            not_active(record, &name)?;
            record.retention_hours = hours;
            Ok(())
        })
        .await?;
        let now_kept = self.clock.now().plus_millis(-i64::from(hours) * 3_600_000);
        self.trim(&stream, now_kept).await;
        Ok(().into())
    }
}

/// The names of metrics that a request means.
fn meant(names: &[MetricsName]) -> Vec<MetricsName> {
    if names.contains(&MetricsName::All) {
        let every = MetricsName::ALL.iter().copied();
        return every.filter(|name| *name != MetricsName::All).collect();
    }
    names.to_vec()
}

impl DataStreams {
    async fn change_monitoring(
        &self,
        stream: &StreamState,
        change: impl FnOnce(&mut StreamRecord) + Send + 'static,
    ) -> Result<Reply<kinesis::EnhancedMonitoringOutput>, ApiError> {
        let changed = self.change(stream, move |record| {
            let before = monitored(record);
            change(record);
            Ok((before, monitored(record)))
        });
        let (before, after) = changed.await?;
        Ok(kinesis::EnhancedMonitoringOutput {
            current_shard_level_metrics: Some(before),
            desired_shard_level_metrics: Some(after),
            stream_arn: Some(stream.arn.clone()),
            stream_name: Some(stream.name.name.clone()),
        }
        .into())
    }
}

impl Handle<op::EnableEnhancedMonitoring> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::EnableEnhancedMonitoringInput>,
    ) -> Result<Reply<kinesis::EnhancedMonitoringOutput>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::EnableEnhancedMonitoring>(&request.context.caller, named)?;
        self.change_monitoring(&stream, move |record| {
            let names = meant(&input.shard_level_metrics);
            record
                .monitoring
                .extend(names.iter().map(|name| name.as_str().to_owned()));
        })
        .await
    }
}

impl Handle<op::DisableEnhancedMonitoring> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DisableEnhancedMonitoringInput>,
    ) -> Result<Reply<kinesis::EnhancedMonitoringOutput>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::DisableEnhancedMonitoring>(&request.context.caller, named)?;
        self.change_monitoring(&stream, move |record| {
            for name in meant(&input.shard_level_metrics) {
                record.monitoring.remove(name.as_str());
            }
        })
        .await
    }
}

fn kms(encryption: EncryptionType) -> Result<(), ApiError> {
    match encryption {
        EncryptionType::Kms => Ok(()),
        EncryptionType::None => Err(invalid("The only valid EncryptionType is KMS.")),
    }
}

impl Handle<op::StartStreamEncryption> for DataStreams {
    async fn handle(&self, request: Request<kinesis::StartStreamEncryptionInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::StartStreamEncryption>(&request.context.caller, named)?;
        kms(input.encryption_type)?;
        let made = DataKey::make(stream.id, &self.key_ring);
        let data_key = made.map_err(|e| ApiError::server("InternalFailure", "No data key could be made.", e))?;
        let name = stream.name.clone();
        self.change(&stream, move |record| {
            not_active(record, &name)?;
            record.encryption = Some(EncryptionRecord { key_id: input.key_id });
            // One key for the life of a stream: what was sealed with it before must open.
            record.data_key.get_or_insert(data_key);
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::StopStreamEncryption> for DataStreams {
    async fn handle(&self, request: Request<kinesis::StopStreamEncryptionInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::StopStreamEncryption>(&request.context.caller, named)?;
        kms(input.encryption_type)?;
        let name = stream.name.clone();
        self.change(&stream, move |record| {
            not_active(record, &name)?;
            match &record.encryption {
                Some(encryption) if encryption.key_id == input.key_id => record.encryption = None,
                Some(_) => return Err(invalid("KeyId is not the key that the stream is encrypted with.")),
                None => return Err(invalid(format!("Stream {} is not encrypted.", name.name))),
            }
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl DataStreams {
    /// A stream that these operations name by its ARN alone.
    fn by_arn<O: WireOperation>(&self, caller: &Caller, arn: &str) -> Result<std::sync::Arc<StreamState>, ApiError> {
        self.resolve::<O>(caller, (None, Some(arn)))
    }

    /// Sets what an on-demand stream keeps ready, and makes the shards for it.
    async fn warm(&self, stream: &StreamState, mib: Option<i32>) -> Result<(), ApiError> {
        self.reshard(stream, move |record, plan| {
            record.warm_mib = mib.or(record.warm_mib);
            let wanted = record.warm_mib.and_then(|mib| usize::try_from(mib).ok()).unwrap_or(0);
            if wanted > limits::SHARDS_PER_STREAM_MAX {
                return Err(ApiError::client(
                    "LimitExceededException",
                    format!(
                        "A warm throughput of {wanted} MiB/s needs as many shards; a stream may have {}.",
                        limits::SHARDS_PER_STREAM_MAX
                    ),
                ));
            }
            if wanted > plan.open() {
                plan.even_out(wanted);
            }
            Ok(())
        })
        .await
    }
}

fn on_demand(record: &StreamRecord, what: &str) -> Result<(), ApiError> {
    match record.on_demand {
        true => Ok(()),
        false => Err(invalid(format!("{what} needs an ON_DEMAND stream."))),
    }
}

impl Handle<op::UpdateStreamMode> for DataStreams {
    async fn handle(&self, request: Request<kinesis::UpdateStreamModeInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let stream = self.by_arn::<op::UpdateStreamMode>(&request.context.caller, &input.stream_arn)?;
        let to_on_demand = input.stream_mode_details.stream_mode == StreamMode::OnDemand;
        if input.warm_throughput_mi_bps.is_some() && !to_on_demand {
            return Err(invalid("WarmThroughputMiBps needs an ON_DEMAND stream."));
        }
        let name = stream.name.clone();
        self.change(&stream, move |record| {
            not_active(record, &name)?;
            if !to_on_demand {
                has_queues(record, &name)?;
            }
            record.on_demand = to_on_demand;
            if !to_on_demand {
                (record.spread, record.warm_mib) = (false, None);
            }
            Ok(())
        })
        .await?;
        if input.warm_throughput_mi_bps.is_some() {
            self.warm(&stream, input.warm_throughput_mi_bps).await?;
        }
        Ok(().into())
    }
}

impl Handle<op::UpdateStreamWarmThroughput> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::UpdateStreamWarmThroughputInput>,
    ) -> Result<Reply<kinesis::UpdateStreamWarmThroughputOutput>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::UpdateStreamWarmThroughput>(&request.context.caller, named)?;
        on_demand(&stream.record, "WarmThroughputMiBps")?;
        let mib = input.warm_throughput_mi_bps;
        self.warm(&stream, Some(mib)).await?;
        Ok(kinesis::UpdateStreamWarmThroughputOutput {
            stream_arn: Some(stream.arn.clone()),
            stream_name: Some(stream.name.name.clone()),
            warm_throughput: Some(kinesis::WarmThroughputObject {
                current_mi_bps: Some(mib),
                target_mi_bps: Some(mib),
            }),
        }
        .into())
    }
}

impl Handle<op::UpdateMaxRecordSize> for DataStreams {
    async fn handle(&self, request: Request<kinesis::UpdateMaxRecordSizeInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let arn = input.stream_arn.as_deref();
        let stream = self.resolve::<op::UpdateMaxRecordSize>(&request.context.caller, (None, arn))?;
        let name = stream.name.clone();
        self.change(&stream, move |record| {
            not_active(record, &name)?;
            record.max_record_kib = input.max_record_size_in_ki_b;
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::UpdateStreamRecordDistributionStrategy> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::UpdateStreamRecordDistributionStrategyInput>,
    ) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let caller = &request.context.caller;
        let stream = self.by_arn::<op::UpdateStreamRecordDistributionStrategy>(caller, &input.stream_arn)?;
        let spread = input.record_distribution_strategy == RecordDistributionStrategy::Auto;
        let name = stream.name.clone();
        self.change(&stream, move |record| {
            if spread {
                on_demand(record, "RecordDistributionStrategy AUTO")?;
            } else if !record.on_demand {
                return Err(validation(
                    "A stream in the PROVISIONED capacity mode has no record distribution strategy.",
                ));
            }
            not_active(record, &name)?;
            record.spread = spread;
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}
