//! GetShardIterator and GetRecords.

use base::{ApiError, Caller, Handle, Reply, Request, Timestamp};
use storage::{Position, ReadBatch, SequenceNumber, ShardId, StoredRecord};
use wire::WireOperation;
use wire::kinesis::{self, ShardIteratorType, op};

use crate::arn::{parse_shard_id, shard_id_text};
use crate::error::{invalid, log_failure, shard_not_found, stream_not_found};
use crate::limits;
use crate::produce::refuse_dry_run;
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::token::Iterator as ShardIterator;

impl Handle<op::GetShardIterator> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::GetShardIteratorInput>,
    ) -> Result<Reply<kinesis::GetShardIteratorOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let stream = self.resolve(caller, input.stream_name.as_deref(), input.stream_arn.as_deref())?;
        let shard = parse_shard_id(&input.shard_id).filter(|id| stream.shard(*id).is_some());
        let shard = shard.ok_or_else(|| shard_not_found(&input.shard_id, &stream.name.name, caller.account))?;
        let position = self.position(&stream, shard, caller, input).await?;
        refuse_dry_run(input.dry_run)?;
        let iterator = ShardIterator {
            made: self.clock.now(),
            stream: stream.id,
            name: stream.name.name.clone(),
            shard,
            position,
        };
        Ok(kinesis::GetShardIteratorOutput {
            shard_iterator: Some(iterator.seal(&self.key_ring, caller)?),
        }
        .into())
    }
}

impl DataStreams {
    /// The place that an iterator begins at. LATEST is decided here and now, so that what is written before the first
    /// GetRecords is not missed.
    async fn position(
        &self,
        stream: &StreamState,
        shard: ShardId,
        caller: &Caller,
        input: &kinesis::GetShardIteratorInput,
    ) -> Result<Position, ApiError> {
        let kind = input.shard_iterator_type;
        let by_number = matches!(
            kind,
            ShardIteratorType::AtSequenceNumber | ShardIteratorType::AfterSequenceNumber
        );
        if by_number != input.starting_sequence_number.is_some() {
            let article = if by_number { "no" } else { "a" };
            return Err(invalid(format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
                 TRIM_HORIZON, LATEST or AT_TIMESTAMP and no StartingSequenceNumber. Request specified {kind} and {article} \
                 StartingSequenceNumber."
            )));
        }
        if (kind == ShardIteratorType::AtTimestamp) != input.timestamp.is_some() {
            return Err(invalid(format!(
                "A Timestamp belongs to AT_TIMESTAMP and to no other type; {kind} was given."
            )));
        }
        let failed = |e| log_failure(e, &stream.name.name, caller.account);
        match (kind, input.timestamp) {
            (ShardIteratorType::AtTimestamp, Some(at)) => {
                check_past(at, self.clock.now())?;
                self.records
                    .position_at_time(stream.id, shard, at)
                    .await
                    .map_err(failed)
            }
            (ShardIteratorType::Latest, _) => self.records.tip(stream.id, shard).await.map_err(failed),
            (ShardIteratorType::AtSequenceNumber, _) => starting_number(stream, shard, caller, input).map(Position::At),
            (ShardIteratorType::AfterSequenceNumber, _) => {
                starting_number(stream, shard, caller, input).map(Position::After)
            }
            (ShardIteratorType::TrimHorizon | ShardIteratorType::AtTimestamp, _) => Ok(Position::Trim),
        }
    }
}

fn check_past(at: Timestamp, now: Timestamp) -> Result<(), ApiError> {
    if at <= now {
        return Ok(());
    }
    Err(invalid(format!(
        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: {}, \
         currentTimestampInMillis: {}",
        at.millis(),
        now.millis()
    )))
}

/// The number to begin at or behind. It must be one that this shard could have given.
fn starting_number(
    stream: &StreamState,
    shard: ShardId,
    caller: &Caller,
    input: &kinesis::GetShardIteratorInput,
) -> Result<SequenceNumber, ApiError> {
    let text = input.starting_sequence_number.as_deref().unwrap_or_default();
    let shard_text = shard_id_text(shard);
    let number: SequenceNumber = text.parse().map_err(|_| {
        invalid(format!(
            "StartingSequenceNumber {text} used in GetShardIterator on shard {shard_text} in stream {} under account {} is \
             invalid.",
            stream.name.name, caller.account
        ))
    })?;
    let first = stream.shard(shard).map(crate::records::ShardRecord::first_sequence);
    // What is not the index of the record: the time of the shard's creation and the shard's number.
    let origin = |n: SequenceNumber| (n.get() >> 80, n.get() & 0xffff);
    if first.map(origin) != Some(origin(number)) {
        return Err(invalid(format!(
            "Invalid StartingSequenceNumber. {text} was not given by {shard_text}, with which it was used."
        )));
    }
    Ok(number)
}

impl Handle<op::GetRecords> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::GetRecordsInput>,
    ) -> Result<Reply<kinesis::GetRecordsOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let now = self.clock.now();
        let iterator = ShardIterator::open(&input.shard_iterator, &self.key_ring, caller, now)?;
        let not_found = || stream_not_found(&iterator.name, caller.account);
        let stream = self
            .resolve(caller, Some(&iterator.name), None)
            .ok()
            .filter(|s| s.id == iterator.stream);
        let stream = stream.ok_or_else(not_found)?;
        if !caller.authorizer.allows(op::GetRecords::INFO.action, &stream.arn) {
            return Err(wire::denied(op::GetRecords::INFO, caller, &stream.arn));
        }
        if input.stream_arn.as_ref().is_some_and(|arn| *arn != stream.arn) {
            return Err(invalid("StreamARN and ShardIterator name different streams."));
        }
        refuse_dry_run(input.dry_run)?;
        let limit = input
            .limit
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(limits::READ_RECORDS_MAX);
        let (shard, from) = (iterator.shard, iterator.position);
        let read = self
            .records
            .read(stream.id, shard, from, limit, limits::READ_BYTES_MAX)
            .await;
        let batch = read.map_err(|e| log_failure(e, &iterator.name, caller.account))?;
        let behind = millis_behind(&batch, now);
        let next = ShardIterator {
            made: now,
            position: batch.next,
            ..iterator
        };
        let bytes = batch.records.iter().map(|r| r.data.len()).sum();
        self.counters.count("out", batch.records.len(), bytes);
        Ok(kinesis::GetRecordsOutput {
            child_shards: None,
            millis_behind_latest: Some(behind),
            next_shard_iterator: Some(next.seal(&self.key_ring, caller)?),
            records: batch.records.into_iter().map(wire_record).collect(),
        }
        .into())
    }
}

/// 0 when nothing is left; else the age of the last record returned, or of the newest one where none was.
fn millis_behind(batch: &ReadBatch, now: Timestamp) -> i64 {
    if batch.at_tip {
        return 0;
    }
    let reached = batch.records.last().map(|r| r.arrival).or(batch.last_arrival);
    reached.map_or(0, |at| now.millis_since(at).max(1))
}

fn wire_record(record: StoredRecord) -> kinesis::Record {
    kinesis::Record {
        approximate_arrival_timestamp: Some(record.arrival),
        data: record.data,
        encryption_type: None,
        partition_key: Some(record.partition_key).filter(|key| !key.is_empty()),
        sequence_number: record.sequence.to_string(),
    }
}
