//! What a resource ARN stands for: a stream, or a consumer of one.

use std::sync::Arc;

use auth::ResourcePolicy;
use base::{AccountId, ApiError, Caller};
use wire::WireOperation;

use crate::arn::{ConsumerName, consumer_arn, parse_arn};
use crate::error::{consumer_not_found, invalid, stream_not_found};
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::{ConsumerRecord, StreamRecord};

/// A stream, or a consumer of one, that is there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The stream.
    pub stream: Arc<StreamState>,
    /// The consumer.
    pub consumer: Option<ConsumerName>,
}

impl Target {
    /// The record of the consumer, where it is one.
    pub fn consumer_record(&self) -> Option<&ConsumerRecord> {
        let wanted = self.consumer.as_ref()?;
        find_consumer(&self.stream.record, wanted)
    }
}

fn is(consumer: &ConsumerRecord, wanted: &ConsumerName) -> bool {
    consumer.name == wanted.name && consumer.created_s == wanted.created_s
}

/// A consumer by the name in its ARN.
pub fn find_consumer<'a>(record: &'a StreamRecord, wanted: &ConsumerName) -> Option<&'a ConsumerRecord> {
    record.consumers.iter().find(|c| is(c, wanted))
}

/// The same, to be changed.
pub fn consumer_mut<'a>(
    record: &'a mut StreamRecord,
    wanted: &ConsumerName,
    account: AccountId,
) -> Result<&'a mut ConsumerRecord, ApiError> {
    let found = record.consumers.iter_mut().find(|c| is(c, wanted));
    found.ok_or_else(|| consumer_not_found(&wanted.name, account))
}

impl DataStreams {
    /// What an ARN names, if the caller may do with it what the request is for. A consumer's own policy counts for it, not
    /// that of its stream.
    pub(crate) fn target<O: WireOperation>(&self, caller: &Caller, arn: &str) -> Result<Target, ApiError> {
        let named =
            parse_arn(arn).ok_or_else(|| invalid(format!("{arn} is not the ARN of a stream or a consumer.")))?;
        let stream = self.state(&named.stream);
        let stream = stream.ok_or_else(|| match &named.consumer {
            Some(consumer) => consumer_not_found(&consumer.name, named.stream.account),
            None => stream_not_found(&named.stream.name, named.stream.account),
        })?;
        let Some(consumer) = named.consumer else {
            self.admit::<O>(caller, &stream, stream.policy.as_ref(), &stream.arn)?;
            return Ok(Target { stream, consumer: None });
        };
        let missing = || consumer_not_found(&consumer.name, named.stream.account);
        let record = find_consumer(&stream.record, &consumer).ok_or_else(missing)?;
        let policy = record
            .policy
            .as_deref()
            .and_then(|text| ResourcePolicy::parse(text).ok());
        let arn = consumer_arn(&stream.arn, &consumer.name, consumer.created_s);
        self.admit::<O>(caller, &stream, policy.as_ref(), &arn)
            .map_err(|error| match &*error.code {
                "ResourceNotFoundException" => missing(),
                _ => error,
            })?;
        Ok(Target {
            stream,
            consumer: Some(consumer),
        })
    }
}
