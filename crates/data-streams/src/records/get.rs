//! GetShardIterator and GetRecords.

use base::{ApiError, Handle, Reply, Request, ResourceName, Timestamp};
use bytes::Bytes;
use storage::{ReadBatch, StoredRecord};
use wire::kinesis::{self, EncryptionType, op};

use crate::arn::parse_shard_id;
use crate::error::{invalid, log_failure, rate_exceeded, shard_not_found, stream_not_found};
use crate::limits;
use crate::records::iterator::Iterator as ShardIterator;
use crate::records::place::Wanted;
use crate::records::refuse_dry_run;
use crate::service::DataStreams;
use crate::shards::child_shards;
use crate::state::StreamState;

impl Handle<op::GetShardIterator> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::GetShardIteratorInput>,
    ) -> Result<Reply<kinesis::GetShardIteratorOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::GetShardIterator>(caller, named)?;
        let shard = parse_shard_id(&input.shard_id).filter(|id| stream.shard(*id).is_some());
        let shard = shard.ok_or_else(|| shard_not_found(&input.shard_id, &stream.name.name, caller.account))?;
        let wanted = Wanted {
            kind: input.shard_iterator_type,
            sequence_number: input.starting_sequence_number.as_deref(),
            timestamp: input.timestamp,
            operation: "GetShardIterator",
        };
        let position = self.position(&stream, shard, caller.account, &wanted).await?;
        refuse_dry_run(input.dry_run)?;
        let iterator = ShardIterator {
            made: self.clock.now(),
            stream: stream.id,
            account: stream.name.account,
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

impl Handle<op::GetRecords> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::GetRecordsInput>,
    ) -> Result<Reply<kinesis::GetRecordsOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let now = self.clock.now();
        let iterator = ShardIterator::open(&input.shard_iterator, &self.key_ring, caller, now)?;
        let not_found = || stream_not_found(&iterator.name, iterator.account);
        let name = ResourceName {
            account: iterator.account,
            region: caller.region.clone(),
            name: iterator.name.clone(),
        };
        // As it is before the read: a shard that is closed by now will never have more than is read.
        let stream = self.state(&name).filter(|s| s.id == iterator.stream);
        let stream = stream.ok_or_else(not_found)?;
        self.permit::<op::GetRecords>(caller, &stream)?;
        if input.stream_arn.as_ref().is_some_and(|arn| *arn != stream.arn) {
            return Err(invalid("StreamARN and ShardIterator name different streams."));
        }
        let record = stream.shard(iterator.shard);
        let record = record.ok_or_else(|| {
            let shard = crate::arn::shard_id_text(iterator.shard);
            shard_not_found(&shard, &stream.name.name, stream.name.account)
        })?;
        refuse_dry_run(input.dry_run)?;
        let place = (stream.id, iterator.shard);
        if let Some(throttle) = &self.throttle
            && !throttle.read(place, self.clock.monotonic())
        {
            let words = rate_exceeded(iterator.shard, &stream.name);
            return Err(ApiError::client("ProvisionedThroughputExceededException", words));
        }
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
        let ended = batch.at_tip && record.closed_ms.is_some();
        let next = ShardIterator {
            made: now,
            position: batch.next,
            ..iterator
        };
        let bytes = batch.records.iter().map(|r| r.data.len()).sum();
        self.counters.count("out", batch.records.len(), bytes);
        if let Some(throttle) = &self.throttle {
            throttle.have_read(place, bytes, self.clock.monotonic());
        }
        let open = |record| wire_record(&stream, record);
        Ok(kinesis::GetRecordsOutput {
            child_shards: ended.then(|| child_shards(&stream.record, shard.0)),
            millis_behind_latest: Some(behind),
            next_shard_iterator: match ended {
                true => None,
                false => Some(next.seal(&self.key_ring, caller)?),
            },
            records: batch.records.into_iter().map(open).collect::<Result<_, _>>()?,
        }
        .into())
    }
}

/// 0 when nothing is left; else the age of the last record returned, or of the newest one where none was.
pub fn millis_behind(batch: &ReadBatch, now: Timestamp) -> i64 {
    if batch.at_tip {
        return 0;
    }
    let reached = batch.records.last().map(|r| r.arrival).or(batch.last_arrival);
    reached.map_or(0, |at| now.millis_since(at).max(1))
}

/// A record as readers get it.
pub fn wire_record(stream: &StreamState, record: StoredRecord) -> Result<kinesis::Record, ApiError> {
    let (partition_key, data) = match record.sealed {
        false => (record.partition_key, record.data),
        true => open_record(stream, &record)?,
    };
    Ok(kinesis::Record {
        approximate_arrival_timestamp: Some(record.arrival),
        data,
        encryption_type: record.sealed.then_some(EncryptionType::Kms),
        partition_key: Some(partition_key).filter(|key| !key.is_empty()),
        sequence_number: record.sequence.to_string(),
    })
}

/// Partition key and data of a sealed record.
pub fn open_record(stream: &StreamState, record: &StoredRecord) -> Result<(String, Bytes), ApiError> {
    match &stream.data_key {
        Some(key) => key.unseal(stream.id, &record.data).map_err(|e| unreadable(stream, &e)),
        None => Err(unreadable(stream, &"there is no data key")),
    }
}

fn unreadable(stream: &StreamState, why: &dyn std::fmt::Display) -> ApiError {
    let key = stream
        .record
        .encryption
        .as_ref()
        .map_or("its key", |e| e.key_id.as_str());
    ApiError::client(
        "KMSInvalidStateException",
        format!("A record of {} cannot be decrypted with {key}.", stream.name.name),
    )
    .with_detail(why)
}
