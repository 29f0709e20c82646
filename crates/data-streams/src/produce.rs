//! PutRecord and PutRecords.

use base::{ApiError, Caller, Handle, Reply, Request};
use bytes::Bytes;
use storage::{NewRecord, Position, SequenceNumber, ShardId};
use wire::kinesis::{self, op};

use crate::arn::shard_id_text;
use crate::error::{invalid, log_failure};
use crate::hash::HashKey;
use crate::limits;
use crate::service::DataStreams;
use crate::state::StreamState;

impl Handle<op::PutRecord> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::PutRecordInput>,
    ) -> Result<Reply<kinesis::PutRecordOutput>, ApiError> {
        let input = request.input;
        let caller = &request.context.caller;
        let stream = self.resolve(caller, input.stream_name.as_deref(), input.stream_arn.as_deref())?;
        let record = self.record(
            &stream,
            input.data,
            input.partition_key,
            input.explicit_hash_key.as_deref(),
        )?;
        if let Some(after) = &input.sequence_number_for_ordering {
            self.check_ordering(&stream, caller, after).await?;
        }
        refuse_dry_run(input.dry_run)?;
        let (shard, bytes) = (record.shard, record.data.len());
        let appended = self.records.append(vec![record]).await;
        let numbers = appended.map_err(|e| log_failure(e, &stream.name.name, caller.account))?;
        self.counters.count("in", 1, bytes);
        Ok(kinesis::PutRecordOutput {
            encryption_type: None,
            sequence_number: numbers.first().map(SequenceNumber::to_string).unwrap_or_default(),
            shard_id: shard_id_text(shard),
        }
        .into())
    }
}

impl Handle<op::PutRecords> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::PutRecordsInput>,
    ) -> Result<Reply<kinesis::PutRecordsOutput>, ApiError> {
        let input = request.input;
        let caller = &request.context.caller;
        let stream = self.resolve(caller, input.stream_name.as_deref(), input.stream_arn.as_deref())?;
        let records: Vec<NewRecord> = input
            .records
            .into_iter()
            .map(|entry| {
                self.record(
                    &stream,
                    entry.data,
                    entry.partition_key,
                    entry.explicit_hash_key.as_deref(),
                )
            })
            .collect::<Result<_, _>>()?;
        let bytes: usize = records.iter().map(|r| r.data.len() + r.partition_key.len()).sum();
        if bytes > limits::REQUEST_BYTES_MAX {
            return Err(invalid(format!(
                "Records of {bytes} bytes exceed the limit of {} bytes for one request.",
                limits::REQUEST_BYTES_MAX
            )));
        }
        refuse_dry_run(input.dry_run)?;
        let shards: Vec<ShardId> = records.iter().map(|r| r.shard).collect();
        // All or none: a call that fails has failed for each of its records, and says so as a whole.
        let appended = self.records.append(records).await;
        let numbers = appended.map_err(|e| log_failure(e, &stream.name.name, caller.account))?;
        self.counters.count("in", numbers.len(), bytes);
        let entry = |(number, shard): (&SequenceNumber, &ShardId)| kinesis::PutRecordsResultEntry {
            error_code: None,
            error_message: None,
            sequence_number: Some(number.to_string()),
            shard_id: Some(shard_id_text(*shard)),
        };
        Ok(kinesis::PutRecordsOutput {
            encryption_type: None,
            failed_record_count: Some(0),
            records: numbers.iter().zip(&shards).map(entry).collect(),
        }
        .into())
    }
}

impl DataStreams {
    /// A checked record with its place.
    fn record(
        &self,
        stream: &StreamState,
        data: Bytes,
        partition_key: Option<String>,
        explicit: Option<&str>,
    ) -> Result<NewRecord, ApiError> {
        let explicit = explicit.map(parse_explicit).transpose()?;
        let key = match (&explicit, &partition_key) {
            (Some(key), _) => *key,
            (None, Some(text)) => HashKey::of_partition_key(text),
            (None, None) => HashKey(fastrand::u128(..)),
        };
        if partition_key.is_none() && !stream.record.spread {
            let message = "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: Member \
                           must not be null";
            return Err(ApiError::client("ValidationException", message));
        }
        let partition_key = partition_key.unwrap_or_default();
        let (bytes, max) = (data.len() + partition_key.len(), stream.record.record_bytes_max());
        if bytes > max {
            return Err(invalid(format!(
                "A record of {bytes} bytes (data and partition key) exceeds the stream's limit of {max} bytes."
            )));
        }
        Ok(NewRecord {
            stream: stream.id,
            shard: stream.shard_of(key),
            partition_key,
            explicit_hash_key: explicit.map(|key| key.0),
            data,
            arrival: self.clock.now(),
        })
    }

    /// Numbers of a shard always rise, so ordering needs nothing of the log; but a number that was not given yet cannot be
    /// followed.
    async fn check_ordering(&self, stream: &StreamState, caller: &Caller, after: &str) -> Result<(), ApiError> {
        let refused = || {
            invalid(format!(
                "ExclusiveMinimumSequenceNumber {after} used in PutRecord on stream {} under account {} is invalid.",
                stream.name.name, caller.account
            ))
        };
        let number: SequenceNumber = after.parse().map_err(|_| refused())?;
        let shard = ShardId((number.get() & 0xffff) as u32);
        if stream.shard(shard).is_none() {
            return Err(refused());
        }
        let tip = self.records.tip(stream.id, shard).await;
        let given = match tip.map_err(|e| log_failure(e, &stream.name.name, caller.account))? {
            Position::Trim => false,
            Position::At(next) => number < next,
            Position::After(last) => number <= last,
        };
        if given { Ok(()) } else { Err(refused()) }
    }
}

fn parse_explicit(text: &str) -> Result<HashKey, ApiError> {
    text.parse().map_err(|_| {
        invalid(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })
}

/// A caller that only wants to know whether its request would do is told by an error.
pub fn refuse_dry_run(dry_run: Option<bool>) -> Result<(), ApiError> {
    match dry_run {
        Some(true) => Err(ApiError::client(
            "DryRunOperationException",
            "The request would have succeeded, but DryRun is set.",
        )),
        _ => Ok(()),
    }
}
