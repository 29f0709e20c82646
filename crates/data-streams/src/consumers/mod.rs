//! Registered consumers of a stream.

mod subscribe;
mod subscriptions;

use std::sync::Arc;

use base::{ApiError, Caller, Handle, Reply, Request, Timestamp};
use serde::{Deserialize, Serialize};
use wire::WireOperation;
use wire::kinesis::{self, ConsumerStatus, op};

pub use subscriptions::Subscriptions;

use crate::arn::{ConsumerName, consumer_arn};
use crate::error::{consumer_not_found, invalid, stream_not_found};
use crate::limits;
use crate::page::{open_page, seal_page};
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::{ConsumerRecord, StreamRecord};
use crate::streams::tags::check_tags;
use crate::target::{Part, consumer_mut, find_consumer};

fn wire_consumer(stream_arn: &str, record: &ConsumerRecord) -> kinesis::Consumer {
    kinesis::Consumer {
        consumer_arn: consumer_arn(stream_arn, &record.name, record.created_s),
        consumer_creation_timestamp: Timestamp::from_millis(record.created_s.saturating_mul(1000)),
        consumer_name: record.name.clone(),
        consumer_status: ConsumerStatus::Active,
    }
}

impl Handle<op::RegisterStreamConsumer> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::RegisterStreamConsumerInput>,
    ) -> Result<Reply<kinesis::RegisterStreamConsumerOutput>, ApiError> {
        let input = request.input;
        let caller = &request.context.caller;
        let stream = self.resolve::<op::RegisterStreamConsumer>(caller, (None, Some(&input.stream_arn)))?;
        let tags = input.tags.unwrap_or_default();
        check_tags(&tags, tags.len())?;
        let (name, account) = (input.consumer_name, stream.name.account);
        let now_s = self.clock.now().millis().div_euclid(1000);
        let made = self.change(&stream, move |record| {
            if record.consumer(&name).is_some() {
                return Err(ApiError::client(
                    "ResourceInUseException",
                    format!("Consumer {name} under account {account} already exists."),
                ));
            }
            refuse_more_readers(record)?;
            record.last_consumer_s = now_s.max(record.last_consumer_s.saturating_add(1));
            let made = ConsumerRecord {
                name,
                created_s: record.last_consumer_s,
                tags,
                policy: None,
            };
            let at = record.consumers.partition_point(|c| c.name < made.name);
            record.consumers.insert(at, made.clone());
            Ok(made)
        });
        Ok(kinesis::RegisterStreamConsumerOutput {
            consumer: wire_consumer(&stream.arn, &made.await?),
        }
        .into())
    }
}

impl DataStreams {
    /// The consumer that a request names by its ARN, or by its name and its stream's ARN, or by all three.
    fn consumer<O: WireOperation>(
        &self,
        caller: &Caller,
        arn: Option<&str>,
        (stream_arn, name): (Option<&str>, Option<&str>),
    ) -> Result<(Arc<StreamState>, ConsumerRecord), ApiError> {
        let by_arn = match arn {
            Some(arn) => {
                let target = self.target::<O>(caller, arn)?;
                let Part::Consumer(named) = &target.part else {
                    return Err(invalid(format!("{arn} is not the ARN of a consumer.")));
                };
                let record = find_consumer(&target.stream.record, named).cloned();
                let record = record.ok_or_else(|| consumer_not_found(&named.name, target.stream.name.account))?;
                Some((target.stream, record))
            }
            None => None,
        };
        let by_name = match (stream_arn, name) {
            (Some(stream_arn), Some(name)) => {
                let stream = self.resolve::<O>(caller, (None, Some(stream_arn)))?;
                let record = stream.record.consumer(name).cloned();
                let record = record.ok_or_else(|| consumer_not_found(name, stream.name.account))?;
                Some((stream, record))
            }
            (None, None) => None,
            _ if by_arn.is_none() => {
                return Err(invalid(
                    "Either ConsumerARN must be given, or both StreamARN and ConsumerName.",
                ));
            }
            (stream_arn, name) => {
                let fits = by_arn.as_ref().is_some_and(|(stream, record)| {
                    stream_arn.is_none_or(|arn| arn == stream.arn) && name.is_none_or(|name| name == record.name)
                });
                if !fits {
                    return Err(conflict());
                }
                None
            }
        };
        match (by_arn, by_name) {
            (Some(one), Some(two)) if one.0.id != two.0.id || one.1.created_s != two.1.created_s => Err(conflict()),
            (Some(found), _) | (None, Some(found)) => Ok(found),
            (None, None) => Err(invalid(
                "Either ConsumerARN must be given, or both StreamARN and ConsumerName.",
            )),
        }
    }
}

fn conflict() -> ApiError {
    invalid("ConsumerARN, StreamARN and ConsumerName name different consumers.")
}

impl Handle<op::DescribeStreamConsumer> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DescribeStreamConsumerInput>,
    ) -> Result<Reply<kinesis::DescribeStreamConsumerOutput>, ApiError> {
        let input = &request.input;
        let named = (input.stream_arn.as_deref(), input.consumer_name.as_deref());
        let caller = &request.context.caller;
        let (stream, record) =
            self.consumer::<op::DescribeStreamConsumer>(caller, input.consumer_arn.as_deref(), named)?;
        let consumer = wire_consumer(&stream.arn, &record);
        Ok(kinesis::DescribeStreamConsumerOutput {
            consumer_description: kinesis::ConsumerDescription {
                consumer_arn: consumer.consumer_arn,
                consumer_creation_timestamp: consumer.consumer_creation_timestamp,
                consumer_name: consumer.consumer_name,
                consumer_status: consumer.consumer_status,
                stream_arn: stream.arn.clone(),
            },
        }
        .into())
    }
}

impl Handle<op::DeregisterStreamConsumer> for DataStreams {
    async fn handle(&self, request: Request<kinesis::DeregisterStreamConsumerInput>) -> Result<Reply<()>, ApiError> {
        let input = &request.input;
        let named = (input.stream_arn.as_deref(), input.consumer_name.as_deref());
        let caller = &request.context.caller;
        let (stream, gone) =
            self.consumer::<op::DeregisterStreamConsumer>(caller, input.consumer_arn.as_deref(), named)?;
        let account = stream.name.account;
        self.change(&stream, move |record| {
            let wanted = ConsumerName {
                name: gone.name,
                created_s: gone.created_s,
            };
            consumer_mut(record, &wanted, account)?;
            record.consumers.retain(|c| c.name != wanted.name);
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

/// Where a listing goes on.
#[derive(Serialize, Deserialize)]
struct ConsumerPage {
    id: u64,
    after: String,
}

impl Handle<op::ListStreamConsumers> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::ListStreamConsumersInput>,
    ) -> Result<Reply<kinesis::ListStreamConsumersOutput>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let (ring, now) = (&self.key_ring, self.clock.now());
        let stream = self.resolve::<op::ListStreamConsumers>(caller, (None, Some(&input.stream_arn)))?;
        let page = match &input.next_token {
            Some(_) if input.stream_creation_timestamp.is_some() => {
                return Err(invalid(
                    "NextToken and StreamCreationTimestamp cannot be provided together.",
                ));
            }
            Some(token) => Some(open_page::<ConsumerPage>("list-consumers", token, ring, caller, now)?),
            None => None,
        };
        let made = input.stream_creation_timestamp;
        let same = made.is_none_or(|made| made.millis() / 1000 == stream.record.created_ms / 1000);
        if !same || page.as_ref().is_some_and(|page| page.id != stream.id.0) {
            return Err(stream_not_found(&stream.name.name, stream.name.account));
        }
        let limit = input
            .max_results
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(limits::LIST_CONSUMERS_DEFAULT);
        let behind = |c: &&ConsumerRecord| page.as_ref().is_none_or(|page| c.name > page.after);
        let mut rest = stream.record.consumers.iter().filter(behind);
        let consumers: Vec<_> = rest
            .by_ref()
            .take(limit)
            .map(|c| wire_consumer(&stream.arn, c))
            .collect();
        let next = consumers
            .last()
            .filter(|_| rest.next().is_some())
            .map(|last| ConsumerPage {
                id: stream.id.0,
                after: last.consumer_name.clone(),
            });
        Ok(kinesis::ListStreamConsumersOutput {
            next_token: next
                .map(|page| seal_page("list-consumers", &page, ring, caller, now))
                .transpose()?,
            consumers: Some(consumers),
        }
        .into())
    }
}

/// A stream that has as many consumers and queues as it may takes no other one.
pub fn refuse_more_readers(record: &StreamRecord) -> Result<(), ApiError> {
    if record.readers() < limits::CONSUMERS_PER_STREAM_MAX {
        return Ok(());
    }
    let most = limits::CONSUMERS_PER_STREAM_MAX;
    let words = format!("A stream has at most {most} consumers and queues.");
    Err(ApiError::client("LimitExceededException", words))
}
