//! CreateQueue, DescribeQueue, UpdateQueue and DeleteQueue.
//!
//! A queue is there when its creation is answered. The answers say CREATING and UPDATING all the same, as AWS's do: a
//! program that waits for ACTIVE by DescribeQueue sees it at its first look.

use std::collections::BTreeMap;

use base::{ApiError, Handle, Reply, Request, Timestamp};
use storage::{Position, ShardId};
use wire::kinesis::{self, QueueStartingPositionType as StartType, QueueStatus, TargetType, op};

use crate::arn::queue_arn;
use crate::consumers::refuse_more_readers;
use crate::error::{catalog_failure, log_failure, not_active, queue_not_found, validation};
use crate::limits;
use crate::queues::rows;
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::{QueueRecord, QueueStart};
use crate::streams::tags::check_tags;
use crate::target::queue_mut;

/// The counter of queue ids.
const QUEUE_IDS: &str = "data-stream-queue";

fn wire_attributes(queue: &QueueRecord) -> kinesis::QueueAttributes {
    let target_type = match queue.max_receives {
        Some(_) => TargetType::BuiltIn,
        None => TargetType::None,
    };
    kinesis::QueueAttributes {
        dead_letter_configuration: Some(kinesis::DeadLetterConfiguration {
            max_receive_count: queue.max_receives,
            target_type,
        }),
        visibility_timeout_seconds: Some(queue.visibility_s),
    }
}

fn wire_start(start: QueueStart) -> StartType {
    match start {
        QueueStart::TrimHorizon => StartType::TrimHorizon,
        QueueStart::Latest => StartType::Latest,
        QueueStart::AtTimestamp => StartType::AtTimestamp,
    }
}

/// `begins`: the time to tell as its beginning.
fn described(
    stream: &StreamState,
    queue: &QueueRecord,
    status: QueueStatus,
    begins: Option<Timestamp>,
) -> kinesis::QueueDescription {
    kinesis::QueueDescription {
        queue_arn: queue_arn(&stream.name, &queue.key),
        queue_attributes: Some(wire_attributes(queue)),
        queue_creation_timestamp: Timestamp::from_millis(queue.created_ms),
        queue_name: queue.name.clone(),
        queue_status: status,
        stream_configuration_list: vec![kinesis::QueueStreamConfiguration {
            starting_position: Some(kinesis::QueueStartingPosition {
                timestamp: begins,
                r#type: wire_start(queue.start),
            }),
            stream_arn: stream.arn.clone(),
        }],
    }
}

fn effective(queue: &QueueRecord) -> Option<Timestamp> {
    Some(Timestamp::from_millis(queue.start_ms))
}

/// What the attributes of a request change.
fn apply(queue: &mut QueueRecord, attributes: &kinesis::QueueAttributes) -> Result<(), ApiError> {
    if let Some(seconds) = attributes.visibility_timeout_seconds {
        queue.visibility_s = seconds;
    }
    let Some(dead) = &attributes.dead_letter_configuration else {
        return Ok(());
    };
    queue.max_receives = match (dead.target_type, dead.max_receive_count) {
        (TargetType::None, _) => None,
        (TargetType::BuiltIn, Some(count)) => Some(count),
        (TargetType::BuiltIn, None) => {
            return Err(validation(
                "MaxReceiveCount must be given with the TargetType BUILT_IN.",
            ));
        }
    };
    Ok(())
}

/// Where a request wants to begin.
fn wanted_start(
    wanted: Option<&kinesis::QueueStartingPosition>,
    now: Timestamp,
) -> Result<(QueueStart, Option<Timestamp>), ApiError> {
    let Some(wanted) = wanted else {
        return Ok((QueueStart::Latest, None));
    };
    match (wanted.r#type, wanted.timestamp) {
        (StartType::AtTimestamp, Some(at)) if at > now => Err(validation(format!(
            "The Timestamp {at} of the StartingPosition is in the future; it is {now} now."
        ))),
        (StartType::AtTimestamp, Some(at)) => Ok((QueueStart::AtTimestamp, Some(at))),
        (StartType::AtTimestamp, None) => Err(validation("A StartingPosition AT_TIMESTAMP needs a Timestamp.")),
        (_, Some(_)) => Err(validation(
            "A Timestamp belongs to a StartingPosition AT_TIMESTAMP and to no other type.",
        )),
        (StartType::TrimHorizon, None) => Ok((QueueStart::TrimHorizon, None)),
        (StartType::Latest, None) => Ok((QueueStart::Latest, None)),
    }
}

impl Handle<op::CreateQueue> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::CreateQueueInput>,
    ) -> Result<Reply<kinesis::CreateQueueOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        let [wanted] = input.stream_configuration_list.as_slice() else {
            return Err(validation(format!(
                "StreamConfigurationList must have exactly one entry; it has {}.",
                input.stream_configuration_list.len()
            )));
        };
        // The stream is inside a list, where the registry does not look for what a policy speaks of.
        if !caller.authorizer.allows("kinesis:CreateQueue", &wanted.stream_arn) {
            return Err(wire::denied(
                <op::CreateQueue as wire::WireOperation>::INFO,
                caller,
                &wanted.stream_arn,
            ));
        }
        let stream = self.resolve::<op::CreateQueue>(caller, (None, Some(&wanted.stream_arn)))?;
        if stream.name.account != caller.account {
            return Err(validation("A queue can only be made on a stream of the own account."));
        }
        let now = self.clock.now();
        let (start, at) = wanted_start(wanted.starting_position.as_ref(), now)?;
        let tags = input.tags.unwrap_or_default();
        check_tags(&tags, tags.len())?;
        let id = self.stored.next_id(QUEUE_IDS).await.map_err(catalog_failure)?;
        let mut queue = QueueRecord {
            id,
            key: format!("{id:012x}{:020x}", fastrand::u128(..1 << 80)),
            name: input.queue_name,
            created_ms: now.millis(),
            start,
            start_ms: at.unwrap_or(now).millis(),
            visibility_s: limits::QUEUE_VISIBILITY_S_DEFAULT,
            max_receives: Some(limits::QUEUE_RECEIVES_DEFAULT),
            tags,
            policy: None,
        };
        apply(&mut queue, &input.queue_attributes.unwrap_or_default())?;
        let made = self.make_queue(&stream, queue).await?;
        Ok(kinesis::CreateQueueOutput {
            queue_description: described(&stream, &made, QueueStatus::Creating, at),
        }
        .into())
    }
}

impl DataStreams {
    async fn make_queue(&self, stream: &StreamState, mut queue: QueueRecord) -> Result<QueueRecord, ApiError> {
        let (name, id) = (stream.name.clone(), stream.id);
        self.detached(stream, move |this| async move {
            let current = this.current(&name, id)?;
            let mut record = current.record.clone();
            if !record.on_demand {
                return Err(validation(
                    "Queues are supported only on streams in the ON_DEMAND capacity mode.",
                ));
            }
            not_active(&record, &name)?;
            refuse_more_readers(&record)?;
            if !this.queues.take_name(&name, &queue.name, &queue.key) {
                return Err(ApiError::client(
                    "ResourceInUseException",
                    format!("Queue {} under account {} already exists.", queue.name, name.account),
                ));
            }
            let begun = this.begin(&current, &mut queue).await;
            let written = match begun {
                Ok(start) => {
                    let at = record.queues.partition_point(|q| q.name < queue.name);
                    record.queues.insert(at, queue.clone());
                    let start = rows::start(queue.id, start).map_err(catalog_failure);
                    match start {
                        Ok(start) => this.write_with(&current, record, vec![start]).await.map(drop),
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            };
            written
                .inspect_err(|_| this.queues.forget(&name, &queue))
                .map(|()| queue)
        })
        .await
    }

    /// The places in the shards at which a queue begins. LATEST is decided here and now.
    async fn begin(&self, stream: &StreamState, queue: &mut QueueRecord) -> Result<BTreeMap<u32, u64>, ApiError> {
        let record = &stream.record;
        let oldest = record.horizon(self.clock.now()).millis().max(record.created_ms);
        queue.start_ms = match queue.start {
            QueueStart::TrimHorizon => oldest,
            QueueStart::Latest => queue.created_ms,
            QueueStart::AtTimestamp => queue.start_ms.max(oldest),
        };
        let mut start = BTreeMap::new();
        for shard in &record.shards {
            let id = ShardId(shard.number);
            let place = match queue.start {
                QueueStart::TrimHorizon => continue,
                QueueStart::Latest => self.records.tip(stream.id, id).await,
                QueueStart::AtTimestamp => {
                    let at = Timestamp::from_millis(queue.start_ms);
                    self.records.position_at_time(stream.id, id, at).await
                }
            };
            let place = place.map_err(|e| log_failure(e, &stream.name.name, stream.name.account))?;
            start.insert(shard.number, index(place));
        }
        Ok(start)
    }
}

/// The number of the first record at or behind a place.
pub fn index(place: Position) -> u64 {
    match place {
        Position::Trim => 0,
        Position::At(number) => number.index(),
        Position::After(number) => number.next_index(),
    }
}

impl Handle<op::DescribeQueue> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DescribeQueueInput>,
    ) -> Result<Reply<kinesis::DescribeQueueOutput>, ApiError> {
        let (stream, queue) = self.queue::<op::DescribeQueue>(&request.context.caller, &request.input.queue_arn)?;
        Ok(kinesis::DescribeQueueOutput {
            queue_description: described(&stream, &queue, QueueStatus::Active, effective(&queue)),
        }
        .into())
    }
}

impl Handle<op::UpdateQueue> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::UpdateQueueInput>,
    ) -> Result<Reply<kinesis::UpdateQueueOutput>, ApiError> {
        let input = request.input;
        let (stream, queue) = self.queue::<op::UpdateQueue>(&request.context.caller, &input.queue_arn)?;
        let (key, account) = (queue.key, stream.name.account);
        let changed = self.change(&stream, move |record| {
            let queue = queue_mut(record, &key, account)?;
            apply(queue, &input.queue_attributes)?;
            Ok(queue.clone())
        });
        let queue = changed.await?;
        Ok(kinesis::UpdateQueueOutput {
            queue_description: described(&stream, &queue, QueueStatus::Updating, effective(&queue)),
        }
        .into())
    }
}

impl Handle<op::DeleteQueue> for DataStreams {
    async fn handle(&self, request: Request<kinesis::DeleteQueueInput>) -> Result<Reply<()>, ApiError> {
        let (stream, queue) = self.queue::<op::DeleteQueue>(&request.context.caller, &request.input.queue_arn)?;
        let (name, id) = (stream.name.clone(), stream.id);
        self.detached(&stream, move |this| async move {
            let current = this.current(&name, id)?;
            let mut record = current.record.clone();
            record.queues.retain(|q| q.id != queue.id);
            if record.queues.len() == current.record.queues.len() {
                return Err(queue_not_found(&queue.key, name.account));
            }
            let gone = rows::mark_gone(queue.id).map_err(catalog_failure)?;
            this.write_with(&current, record, vec![gone]).await?;
            this.queues.forget(&name, &queue);
            this.queues.fresh.lock().push(queue.id);
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}
