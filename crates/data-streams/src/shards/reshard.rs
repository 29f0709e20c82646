//! SplitShard, MergeShards and UpdateShardCount, and how a change of shards is carried through.
//!
//! The change is written to the catalog before anything of it happens, so that a server that was killed in the middle
//! finishes it when it starts. Then the new shards are made, the old ones closed behind their last record, and the catalog
//! says that it is done: only then do new records go to the new shards. A record that meets a closed shard waits for that.

use base::{ApiError, Handle, Reply, Request};
use futures_util::future::try_join_all;
use storage::{SequenceNumber, ShardId};
use wire::kinesis::{self, op};

use crate::arn::{parse_shard_id, shard_id_text};
use crate::error::{invalid, log_failure, not_active, shard_limit, validation};
use crate::hash::HashKey;
use crate::limits;
use crate::service::DataStreams;
use crate::shards::plan::{Open, Plan};
use crate::state::StreamState;
use crate::stored::{ShardRecord, StreamRecord};

/// The shards that go on where one ended.
pub fn child_shards(record: &StreamRecord, parent: u32) -> Vec<kinesis::ChildShard> {
    let id = |number: u32| shard_id_text(ShardId(number));
    let child = |shard: &ShardRecord| kinesis::ChildShard {
        hash_key_range: kinesis::HashKeyRange {
            ending_hash_key: shard.last_key.to_string(),
            starting_hash_key: shard.first_key.to_string(),
        },
        parent_shards: [shard.parent, shard.adjacent_parent]
            .into_iter()
            .flatten()
            .map(id)
            .collect(),
        shard_id: id(shard.number),
    };
    record.children(parent).map(child).collect()
}

impl Handle<op::SplitShard> for DataStreams {
    async fn handle(&self, request: Request<kinesis::SplitShardInput>) -> Result<Reply<()>, ApiError> {
        let caller = &request.context.caller;
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::SplitShard>(caller, named)?;
        let whose = format!("in stream {} under account {}", stream.name.name, stream.name.account);
        self.reshard(&stream, move |record, plan| {
            provisioned(record, "SplitShard")?;
            let shard = open_shard(record, plan, &input.shard_to_split, &whose)?;
            let at: HashKey = input
                .new_starting_hash_key
                .parse()
                .map_err(|_| invalid("NewStartingHashKey must be in the range: [0, 2^128-1]."))?;
            if at.0 <= shard.first_key.0.saturating_add(1) || at >= shard.last_key {
                return Err(invalid(format!(
                    "NewStartingHashKey {at} used in SplitShard() on shard {} {whose} is not both greater than one plus the \
                     shard's StartingHashKey {} and less than the shard's EndingHashKey {}.",
                    input.shard_to_split,
                    shard.first_key,
                    shard.last_key.0.saturating_sub(1)
                )));
            }
            plan.split(shard, at);
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::MergeShards> for DataStreams {
    async fn handle(&self, request: Request<kinesis::MergeShardsInput>) -> Result<Reply<()>, ApiError> {
        let caller = &request.context.caller;
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::MergeShards>(caller, named)?;
        let whose = format!("in stream {} under account {}", stream.name.name, stream.name.account);
        self.reshard(&stream, move |record, plan| {
            provisioned(record, "MergeShards")?;
            let one = open_shard(record, plan, &input.shard_to_merge, &whose)?;
            let two = open_shard(record, plan, &input.adjacent_shard_to_merge, &whose)?;
            let follows = |a: &Open, b: &Open| a.last_key.0.checked_add(1) == Some(b.first_key.0);
            if !follows(&one, &two) && !follows(&two, &one) {
                return Err(invalid(format!(
                    "Shards {} and {} {whose} are not an adjacent pair of shards eligible for merging",
                    input.shard_to_merge, input.adjacent_shard_to_merge
                )));
            }
            plan.merge(one, two);
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::UpdateShardCount> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::UpdateShardCountInput>,
    ) -> Result<Reply<kinesis::UpdateShardCountOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::UpdateShardCount>(caller, named)?;
        let target = usize::try_from(input.target_shard_count).unwrap_or(usize::MAX);
        let (limited, now) = (self.settings.shard_limits, self.clock.now());
        let current = self
            .reshard(&stream, move |record, plan| {
                provisioned(record, "UpdateShardCount")?;
                let current = plan.open();
                if limited {
                    check_scaling(record, current, target, now.millis())?;
                    record.scalings_ms.push(now.millis());
                }
                // Before the list of shards is made: the count is the caller's.
                if target <= limits::SHARDS_PER_STREAM_MAX {
                    plan.even_out(target);
                    return Ok(current);
                }
                Err(too_many(target))
            })
            .await?;
        Ok(kinesis::UpdateShardCountOutput {
            current_shard_count: i32::try_from(current).ok(),
            stream_arn: Some(stream.arn.clone()),
            stream_name: Some(stream.name.name.clone()),
            target_shard_count: Some(input.target_shard_count),
        }
        .into())
    }
}

/// AWS's limits of UpdateShardCount, where the server keeps them.
fn check_scaling(record: &mut StreamRecord, current: usize, target: usize, now_ms: i64) -> Result<(), ApiError> {
    record.scalings_ms.retain(|at| now_ms - at < limits::DAY_MS);
    if record.scalings_ms.len() >= limits::SCALINGS_PER_DAY_MAX {
        return Err(ApiError::client(
            "LimitExceededException",
            format!(
                "The stream was scaled {} times in the last 24 hours, which is the limit.",
                limits::SCALINGS_PER_DAY_MAX
            ),
        ));
    }
    if target > current.saturating_mul(2) || target.saturating_mul(2) < current {
        return Err(invalid(format!(
            "A stream of {current} shards can be scaled to no more than double and no less than half of them; {target} were \
             asked for."
        )));
    }
    Ok(())
}

fn too_many(wanted: usize) -> ApiError {
    ApiError::client(
        "LimitExceededException",
        format!(
            "{wanted} shards were asked for; a stream may have {}.",
            limits::SHARDS_PER_STREAM_MAX
        ),
    )
}

fn provisioned(record: &StreamRecord, operation: &str) -> Result<(), ApiError> {
    if record.on_demand {
        return Err(validation(format!(
            "{operation} is not supported for a stream in the ON_DEMAND capacity mode."
        )));
    }
    Ok(())
}

/// A shard that can be split or merged.
fn open_shard(record: &StreamRecord, plan: &Plan, id: &str, whose: &str) -> Result<Open, ApiError> {
    let number = parse_shard_id(id).map(|id| id.0);
    let known = number.filter(|n| record.shard(*n).is_some());
    let number = known.ok_or_else(|| {
        ApiError::client(
            "ResourceNotFoundException",
            format!("Could not find shard {id} {whose}."),
        )
    })?;
    plan.shard(number).ok_or_else(|| {
        invalid(format!(
            "Shard {id} {whose} has already been merged or split, and thus is not eligible for merging or splitting."
        ))
    })
}

impl DataStreams {
    /// Changes a stream's shards as `change` plans it, and answers when records go to the new ones.
    pub(crate) async fn reshard<T: Send + 'static>(
        &self,
        stream: &StreamState,
        change: impl FnOnce(&mut StreamRecord, &mut Plan) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let now = self.clock.now();
        let (name, id) = (stream.name.clone(), stream.id);
        self.detached(stream, move |this| async move {
            let current = this.current(&name, id)?;
            let mut record = current.record.clone();
            not_active(&record, &name)?;
            let mut plan = Plan::new(&record, now);
            let answer = change(&mut record, &mut plan)?;
            let more = plan.open().saturating_sub(current.open_shards());
            let (reshard, next) = plan.finish();
            if reshard.opening.is_empty() {
                this.write(&current, record).await?;
                return Ok(answer);
            }
            let (_, there) = this.usage(name.account, &name.region);
            let kept = record.shards.len() + reshard.opening.len();
            if there + more > limits::SHARDS_PER_ACCOUNT_MAX
                || current.open_shards() + more > limits::SHARDS_PER_STREAM_MAX
                || kept > limits::SHARDS_KEPT_MAX
                || next > limits::SHARD_NUMBERS_MAX
            {
                return Err(shard_limit(&name, there, more));
            }
            record.next_shard = next;
            record.reshard = Some(reshard);
            let begun = this.write(&current, record).await?;
            this.finish_reshard(&begun).await?;
            Ok(answer)
        })
        .await
    }

    /// Carries through what the record says was begun. Called with the stream's gate held, or before the service serves.
    /// After an error the old shards take records again, and the next sweep tries once more.
    pub(crate) async fn finish_reshard(&self, stream: &StreamState) -> Result<(), ApiError> {
        let Some(reshard) = &stream.record.reshard else {
            return Ok(());
        };
        let failed = |e| log_failure(e, &stream.name.name, stream.name.account);
        self.make_shards(stream.id, &reshard.opening).await.map_err(failed)?;
        let closed = try_join_all(reshard.closing.iter().map(async |(number, _)| {
            let end = self.records.close_shard(stream.id, ShardId(*number)).await?;
            Ok::<(u32, SequenceNumber), storage::Error>((*number, end))
        }));
        let ended = match closed.await {
            Ok(ends) => {
                let mut record = stream.record.clone();
                record.complete_reshard(&ends);
                self.write(stream, record).await.map(drop)
            }
            Err(error) => Err(failed(error)),
        };
        if ended.is_err() {
            for (number, _) in &reshard.closing {
                let _ = self.records.reopen_shard(stream.id, ShardId(*number)).await;
            }
            self.announce();
        }
        ended
    }
}
