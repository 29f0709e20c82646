//! PutRecord and PutRecords, and the way in for the rooms above.

use std::sync::Arc;
use std::time::Duration;

use base::{ApiError, Caller, Handle, Reply, Request, ResourceName};
use bytes::Bytes;
use storage::{NewRecord, Position, SequenceNumber, ShardId, StreamId};
use wire::kinesis::{self, EncryptionType, op};

use crate::arn::shard_id_text;
use crate::error::{PutError, invalid, log_failure, rate_exceeded};
use crate::hash::HashKey;
use crate::limits;
use crate::service::DataStreams;
use crate::state::StreamState;

/// A record that was checked and may be appended, whichever shard has its key by then.
#[derive(Clone, Debug)]
struct Entry {
    hash_key: HashKey,
    partition_key: String,
    explicit_hash_key: Option<u128>,
    data: Bytes,
    sealed: bool,
}

impl Handle<op::PutRecord> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::PutRecordInput>,
    ) -> Result<Reply<kinesis::PutRecordOutput>, ApiError> {
        let input = request.input;
        let caller = &request.context.caller;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::PutRecord>(caller, named)?;
        let explicit = input.explicit_hash_key.as_deref();
        let (entry, bytes) = checked(&stream, input.data, input.partition_key, explicit)?;
        if let Some(after) = &input.sequence_number_for_ordering {
            self.check_ordering(&stream, caller, after).await?;
        }
        refuse_dry_run(input.dry_run)?;
        if let Some(words) = self.throttled(&stream, &entry, bytes) {
            return Err(ApiError::client("ProvisionedThroughputExceededException", words));
        }
        let appended = self.append(&stream, vec![entry]).await;
        let appended = appended.map_err(|e| log_failure(e, &stream.name.name, caller.account))?;
        self.count_in(&stream, 1, bytes);
        let (number, shard) = appended.into_iter().next().unzip();
        Ok(kinesis::PutRecordOutput {
            encryption_type: encryption(&stream),
            sequence_number: number.map(|n: SequenceNumber| n.to_string()).unwrap_or_default(),
            shard_id: shard_id_text(shard.unwrap_or(ShardId(0))),
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
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::PutRecords>(caller, named)?;
        let check = |entry: kinesis::PutRecordsRequestEntry| {
            let explicit = entry.explicit_hash_key.as_deref();
            checked(&stream, entry.data, entry.partition_key, explicit)
        };
        let entries: Vec<(Entry, usize)> = input.records.into_iter().map(check).collect::<Result<_, _>>()?;
        let bytes: usize = entries.iter().map(|(_, bytes)| bytes).sum();
        if bytes > limits::REQUEST_BYTES_MAX {
            return Err(invalid(format!(
                "Records of {bytes} bytes exceed the limit of {} bytes for one request.",
                limits::REQUEST_BYTES_MAX
            )));
        }
        refuse_dry_run(input.dry_run)?;
        let (mut taken, mut taken_bytes) = (Vec::with_capacity(entries.len()), 0);
        let mut refused: Vec<Option<String>> = Vec::with_capacity(entries.len());
        for (entry, bytes) in entries {
            let words = self.throttled(&stream, &entry, bytes);
            if words.is_none() {
                taken.push(entry);
                taken_bytes += bytes;
            }
            refused.push(words);
        }
        // All or none of those: a call that fails has failed for each of its records, and says so as a whole.
        let appended = self.append(&stream, taken).await;
        let appended = appended.map_err(|e| log_failure(e, &stream.name.name, caller.account))?;
        self.count_in(&stream, appended.len(), taken_bytes);
        let failed = refused.iter().flatten().count();
        let mut appended = appended.into_iter();
        let result = |words: Option<String>| match words {
            Some(words) => kinesis::PutRecordsResultEntry {
                error_code: Some("ProvisionedThroughputExceededException".to_owned()),
                error_message: Some(words),
                ..Default::default()
            },
            None => {
                let (number, shard) = appended.next().unzip();
                kinesis::PutRecordsResultEntry {
                    sequence_number: number.map(|n| n.to_string()),
                    shard_id: shard.map(shard_id_text),
                    ..Default::default()
                }
            }
        };
        Ok(kinesis::PutRecordsOutput {
            encryption_type: encryption(&stream),
            failed_record_count: i32::try_from(failed).ok(),
            records: refused.into_iter().map(result).collect(),
        }
        .into())
    }
}

fn encryption(stream: &StreamState) -> Option<EncryptionType> {
    stream.record.encryption.as_ref().map(|_| EncryptionType::Kms)
}

/// A checked record, and the bytes that count of it.
fn checked(
    stream: &StreamState,
    data: Bytes,
    partition_key: Option<String>,
    explicit: Option<&str>,
) -> Result<(Entry, usize), ApiError> {
    let explicit = explicit.map(parse_explicit).transpose()?;
    if partition_key.is_none() && !stream.record.spread {
        let message = "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: Member must \
                       not be null";
        return Err(ApiError::client("ValidationException", message));
    }
    let hash_key = match (&explicit, &partition_key) {
        // A stream that distributes by itself takes no advice.
        _ if stream.record.spread => HashKey(fastrand::u128(..)),
        (Some(key), _) => *key,
        (None, key) => HashKey::of_partition_key(key.as_deref().unwrap_or_default()),
    };
    let partition_key = partition_key.unwrap_or_default();
    let (bytes, max) = (data.len() + partition_key.len(), stream.record.record_bytes_max());
    if bytes > max {
        return Err(invalid(format!(
            "A record of {bytes} bytes (data and partition key) exceeds the stream's limit of {max} bytes."
        )));
    }
    let entry = Entry {
        hash_key,
        partition_key,
        explicit_hash_key: explicit.map(|key| key.0),
        data,
        sealed: false,
    };
    Ok((sealed(stream, entry)?, bytes))
}

/// The record as it goes into the log.
fn sealed(stream: &StreamState, entry: Entry) -> Result<Entry, ApiError> {
    if stream.record.encryption.is_none() {
        return Ok(entry);
    }
    let failed = |what: &dyn std::fmt::Display| {
        ApiError::server("InternalFailureException", "The record could not be encrypted.", what)
    };
    let key = stream.data_key.as_ref().ok_or_else(|| failed(&"no data key"))?;
    let data = key.seal(stream.id, &entry.partition_key, &entry.data);
    Ok(Entry {
        data: data.map_err(|e| failed(&e))?,
        partition_key: String::new(),
        sealed: true,
        ..entry
    })
}

impl DataStreams {
    /// Writes records under one partition key, in their order, and answers with their numbers when they are durable and
    /// can be read. `id` is what [`DataStreams::find`] gave: a stream made anew under the name is not written to.
    pub async fn put(
        &self,
        name: &ResourceName,
        id: StreamId,
        partition_key: &str,
        data: Vec<Bytes>,
    ) -> Result<Vec<SequenceNumber>, PutError> {
        let stream = self
            .state(name)
            .filter(|s| s.id == id)
            .ok_or(PutError::StreamNotFound)?;
        let max = stream.record.record_bytes_max();
        let too_large = data
            .iter()
            .map(|d| d.len() + partition_key.len())
            .find(|bytes| *bytes > max);
        if let Some(bytes) = too_large {
            return Err(PutError::RecordTooLarge { bytes, max });
        }
        let (records, bytes) = (data.len(), data.iter().map(Bytes::len).sum());
        let hash_key = HashKey::of_partition_key(partition_key);
        let entry = |data| {
            let entry = Entry {
                hash_key,
                partition_key: partition_key.to_owned(),
                explicit_hash_key: None,
                data,
                sealed: false,
            };
            sealed(&stream, entry).map_err(|e| PutError::Failed(e.to_string()))
        };
        let entries = data.into_iter().map(entry).collect::<Result<_, _>>()?;
        let appended = self.append(&stream, entries).await?;
        self.count_in(&stream, records, bytes);
        Ok(appended.into_iter().map(|(number, _)| number).collect())
    }

    fn count_in(&self, stream: &StreamState, records: usize, bytes: usize) {
        self.counters.count("in", records, bytes);
        stream.lasting.load.count(records, bytes);
    }

    /// Why a record is not taken now, in AWS's words.
    fn throttled(&self, stream: &StreamState, entry: &Entry, bytes: usize) -> Option<String> {
        let throttle = self.throttle.as_ref()?;
        let shard = stream.shard_of(entry.hash_key);
        let takes = throttle.write((stream.id, shard), bytes, self.clock.monotonic());
        (!takes).then(|| rate_exceeded(shard, &stream.name))
    }

    /// Appends records to the shards that have their keys. A shard that was closed meanwhile has heirs: as soon as they are
    /// known, the records go to them.
    async fn append(
        &self,
        stream: &Arc<StreamState>,
        entries: Vec<Entry>,
    ) -> Result<Vec<(SequenceNumber, ShardId)>, storage::Error> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let arrival = self.clock.now();
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let current = self.state(&stream.name).filter(|s| s.id == stream.id);
            let current = current.ok_or(storage::Error::NotFound)?;
            let record = |entry: &Entry| NewRecord {
                stream: current.id,
                shard: current.shard_of(entry.hash_key),
                partition_key: entry.partition_key.clone(),
                explicit_hash_key: entry.explicit_hash_key,
                data: entry.data.clone(),
                sealed: entry.sealed,
                arrival,
            };
            let records: Vec<NewRecord> = entries.iter().map(record).collect();
            let shards: Vec<ShardId> = records.iter().map(|r| r.shard).collect();
            match self.records.append(records).await {
                Ok(numbers) => return Ok(numbers.into_iter().zip(shards).collect()),
                Err(storage::Error::ShardClosed) => {
                    let wait = Duration::from_millis(limits::RESHARD_WAIT_MS);
                    match tokio::time::timeout(wait, changes.changed()).await {
                        Ok(Ok(())) => {}
                        _ => return Err(storage::Error::ShardClosed),
                    }
                }
                Err(error) => return Err(error),
            }
        }
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
        let shard = ShardId(number.shard());
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
