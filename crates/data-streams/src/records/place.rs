//! Where reading begins: what GetShardIterator and SubscribeToShard have in common.

use base::{AccountId, ApiError, Timestamp};
use storage::{Position, SequenceNumber, ShardId};
use wire::kinesis::ShardIteratorType;

use crate::arn::shard_id_text;
use crate::error::{invalid, log_failure};
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::ShardRecord;

/// A place as a request describes it.
pub struct Wanted<'a> {
    /// How it is described.
    pub kind: ShardIteratorType,
    /// The number, for those that need one.
    pub sequence_number: Option<&'a str>,
    /// The time, for the one that needs one.
    pub timestamp: Option<Timestamp>,
    /// The operation, for its messages.
    pub operation: &'static str,
}

impl DataStreams {
    /// The place in a shard. LATEST is decided here and now, so that what is written before the first read is not missed.
    pub(crate) async fn position(
        &self,
        stream: &StreamState,
        shard: ShardId,
        account: AccountId,
        wanted: &Wanted<'_>,
    ) -> Result<Position, ApiError> {
        let kind = wanted.kind;
        let by_number = matches!(
            kind,
            ShardIteratorType::AtSequenceNumber | ShardIteratorType::AfterSequenceNumber
        );
        if by_number != wanted.sequence_number.is_some() {
            let article = if by_number { "no" } else { "a" };
            return Err(invalid(format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
                 TRIM_HORIZON, LATEST or AT_TIMESTAMP and no StartingSequenceNumber. Request specified {kind} and {article} \
                 StartingSequenceNumber."
            )));
        }
        if (kind == ShardIteratorType::AtTimestamp) != wanted.timestamp.is_some() {
            return Err(invalid(format!(
                "A Timestamp belongs to AT_TIMESTAMP and to no other type; {kind} was given."
            )));
        }
        let failed = |e| log_failure(e, &stream.name.name, account);
        match (kind, wanted.timestamp) {
            (ShardIteratorType::AtTimestamp, Some(at)) => {
                check_past(at, self.clock.now())?;
                self.records
                    .position_at_time(stream.id, shard, at)
                    .await
                    .map_err(failed)
            }
            (ShardIteratorType::Latest, _) => self.records.tip(stream.id, shard).await.map_err(failed),
            (ShardIteratorType::AtSequenceNumber, _) => {
                starting_number(stream, shard, account, wanted).map(Position::At)
            }
            (ShardIteratorType::AfterSequenceNumber, _) => {
                starting_number(stream, shard, account, wanted).map(Position::After)
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
    account: AccountId,
    wanted: &Wanted<'_>,
) -> Result<SequenceNumber, ApiError> {
    let text = wanted.sequence_number.unwrap_or_default();
    let shard_text = shard_id_text(shard);
    let refused = |why: &str| {
        invalid(format!(
            "StartingSequenceNumber {text} used in {} on shard {shard_text} in stream {} under account {account} is \
             invalid{why}.",
            wanted.operation, stream.name.name
        ))
    };
    let number: SequenceNumber = text.parse().map_err(|_| refused(""))?;
    if number.shard() != shard.0 & 0xffff {
        return Err(invalid(format!(
            "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {shard_text}",
            shard_id_text(ShardId(number.shard()))
        )));
    }
    let first = stream.shard(shard).map(ShardRecord::first_sequence);
    if first.map(SequenceNumber::created) != Some(number.created()) {
        return Err(refused(" because it did not come from this stream"));
    }
    Ok(number)
}
