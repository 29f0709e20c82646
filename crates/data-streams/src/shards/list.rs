//! ListShards and the form of a shard on the wire.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use serde::{Deserialize, Serialize};
use storage::ShardId;
use wire::kinesis::{self, ShardFilterType, op};

use crate::arn::shard_id_text;
use crate::error::{invalid, stream_not_found};
use crate::limits;
use crate::page::{open_page, seal_page};
use crate::service::DataStreams;
use crate::stored::{ShardRecord, StreamRecord};

/// A shard as callers see it.
pub fn wire_shard(shard: &ShardRecord) -> kinesis::Shard {
    let id = |number: u32| shard_id_text(ShardId(number));
    kinesis::Shard {
        adjacent_parent_shard_id: shard.adjacent_parent.map(id),
        hash_key_range: kinesis::HashKeyRange {
            ending_hash_key: shard.last_key.to_string(),
            starting_hash_key: shard.first_key.to_string(),
        },
        parent_shard_id: shard.parent.map(id),
        sequence_number_range: kinesis::SequenceNumberRange {
            ending_sequence_number: shard.last_sequence.clone(),
            starting_sequence_number: shard.first_sequence().to_string(),
        },
        shard_id: id(shard.number),
    }
}

/// Which shards a listing shows; kept in its page token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Filter {
    All,
    /// Those that are open now.
    Open,
    /// Those open at a time.
    OpenAt(i64),
    /// Those open at a time or later.
    OpenSince(i64),
}

impl Filter {
    fn shows(&self, shard: &ShardRecord) -> bool {
        let open_after = |at: i64| shard.closed_ms.is_none_or(|closed| closed > at);
        match *self {
            Filter::All => true,
            Filter::Open => shard.closed_ms.is_none(),
            Filter::OpenAt(at) => shard.created_ms <= at && open_after(at),
            Filter::OpenSince(at) => open_after(at),
        }
    }
}

/// Where a listing goes on.
#[derive(Serialize, Deserialize)]
struct ShardPage {
    name: String,
    /// Where it is a stream of another account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arn: Option<String>,
    id: u64,
    after: String,
    filter: Filter,
}

impl Handle<op::ListShards> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::ListShardsInput>,
    ) -> Result<Reply<kinesis::ListShardsOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let (ring, now) = (&self.key_ring, self.clock.now());
        let page = match &input.next_token {
            Some(token) => {
                check_alone(input)?;
                Some(open_page::<ShardPage>("list-shards", token, ring, caller, now)?)
            }
            None => None,
        };
        let name = page.as_ref().map(|p| p.name.as_str()).or(input.stream_name.as_deref());
        let named = (
            name,
            input
                .stream_arn
                .as_deref()
                .or(page.as_ref().and_then(|p| p.arn.as_deref())),
        );
        let stream = self.resolve::<op::ListShards>(caller, named)?;
        self.permit::<op::ListShards>(caller, &stream)?;
        let made = input.stream_creation_timestamp;
        let same = made.is_none_or(|made| made.millis() / 1000 == stream.record.created_ms / 1000);
        if !same || page.as_ref().is_some_and(|page| page.id != stream.id.0) {
            return Err(stream_not_found(&stream.name.name, caller.account));
        }
        let (after, filter) = match page {
            Some(page) => (Some(page.after), page.filter),
            None => start(input, &stream.record, now)?,
        };
        let limit = input
            .max_results
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(limits::LIST_SHARDS_DEFAULT);
        let mut rest = stream.record.shards.iter().filter(|shard| {
            let id = shard_id_text(ShardId(shard.number));
            filter.shows(shard) && after.as_ref().is_none_or(|after| id > *after)
        });
        let shards: Vec<_> = rest.by_ref().take(limit).map(wire_shard).collect();
        let next = shards.last().filter(|_| rest.next().is_some()).map(|last| ShardPage {
            name: stream.name.name.clone(),
            arn: (stream.name.account != caller.account).then(|| stream.arn.clone()),
            id: stream.id.0,
            after: last.shard_id.clone(),
            filter: filter.clone(),
        });
        Ok(kinesis::ListShardsOutput {
            next_token: next
                .map(|page| seal_page("list-shards", &page, ring, caller, now))
                .transpose()?,
            shards: Some(shards),
        }
        .into())
    }
}

/// A token says everything that the first call said.
fn check_alone(input: &kinesis::ListShardsInput) -> Result<(), ApiError> {
    let others = [
        ("StreamName", input.stream_name.is_some()),
        ("StreamCreationTimestamp", input.stream_creation_timestamp.is_some()),
        ("ExclusiveStartShardId", input.exclusive_start_shard_id.is_some()),
        ("ShardFilter", input.shard_filter.is_some()),
    ];
    match others.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(invalid(format!("NextToken and {name} cannot be provided together."))),
        None => Ok(()),
    }
}

/// The shard to begin behind, and the filter of a first call.
fn start(
    input: &kinesis::ListShardsInput,
    record: &StreamRecord,
    now: Timestamp,
) -> Result<(Option<String>, Filter), ApiError> {
    let after = input.exclusive_start_shard_id.clone();
    let Some(filter) = &input.shard_filter else {
        return Ok((after, Filter::All));
    };
    let horizon = record.horizon(now).millis().max(record.created_ms);
    let time = || {
        let at = filter
            .timestamp
            .ok_or_else(|| invalid("ShardFilter needs a Timestamp for its type."))?;
        Ok::<_, ApiError>(at.millis().max(horizon))
    };
    if after.is_some() && filter.r#type != ShardFilterType::AfterShardId {
        return Err(invalid(
            "ExclusiveStartShardId and this ShardFilter cannot be provided together.",
        ));
    }
    Ok(match filter.r#type {
        ShardFilterType::AfterShardId => {
            let id = filter
                .shard_id
                .clone()
                .ok_or_else(|| invalid("ShardFilter needs a ShardId for its type."))?;
            (Some(id), Filter::All)
        }
        ShardFilterType::AtTrimHorizon => (None, Filter::OpenAt(horizon)),
        ShardFilterType::FromTrimHorizon => (None, Filter::OpenSince(horizon)),
        ShardFilterType::AtLatest => (None, Filter::Open),
        ShardFilterType::AtTimestamp => (None, Filter::OpenAt(time()?)),
        ShardFilterType::FromTimestamp => (None, Filter::OpenSince(time()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashKey;

    #[test]
    fn a_filter_shows_the_shards_that_were_open_then() {
        let shard = |created_ms, closed_ms| ShardRecord {
            number: 0,
            first_key: HashKey(0),
            last_key: HashKey(u128::MAX),
            created_ms,
            closed_ms,
            last_sequence: None,
            parent: None,
            adjacent_parent: None,
        };
        let (parent, child) = (shard(10, Some(20)), shard(20, None));
        let shown = |filter: Filter| (filter.shows(&parent), filter.shows(&child));
        assert_eq!(shown(Filter::All), (true, true));
        assert_eq!(shown(Filter::Open), (false, true));
        assert_eq!(shown(Filter::OpenAt(15)), (true, false));
        assert_eq!(shown(Filter::OpenAt(20)), (false, true));
        assert_eq!(shown(Filter::OpenSince(15)), (true, true));
        assert_eq!(shown(Filter::OpenSince(25)), (false, true));
    }
}
