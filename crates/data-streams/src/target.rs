//! What a resource ARN stands for: a stream, a consumer of one, or a queue on one.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::ResourcePolicy;
use base::{AccountId, ApiError, Caller};
use wire::WireOperation;

use crate::arn::{ConsumerName, consumer_arn, parse_arn, parse_queue_arn, queue_arn};
use crate::error::{consumer_not_found, invalid, queue_not_found, stream_not_found};
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::{ConsumerRecord, QueueRecord, StreamRecord};

type Tags = BTreeMap<String, String>;

/// A stream, or a part of one, that is there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The stream.
    pub stream: Arc<StreamState>,
    /// What of it.
    pub part: Part,
}

/// What of a stream an ARN names.
#[derive(Clone, Debug)]
pub enum Part {
    /// The stream itself.
    Whole,
    /// A registered consumer.
    Consumer(ConsumerName),
    /// A queue, by what its ARN ends with.
    Queue(String),
}

impl Target {
    /// The tags.
    pub fn tags(&self) -> &Tags {
        const NONE: &Tags = &Tags::new();
        let record = &self.stream.record;
        match &self.part {
            Part::Whole => &record.tags,
            Part::Consumer(consumer) => find_consumer(record, consumer).map_or(NONE, |c| &c.tags),
            Part::Queue(key) => record.queue(key).map_or(NONE, |q| &q.tags),
        }
    }

    /// The tags, to be changed in the stream's newest record.
    pub fn tags_mut<'a>(&self, record: &'a mut StreamRecord) -> Result<&'a mut Tags, ApiError> {
        let account = self.stream.name.account;
        match &self.part {
            Part::Whole => Ok(&mut record.tags),
            Part::Consumer(consumer) => consumer_mut(record, consumer, account).map(|c| &mut c.tags),
            Part::Queue(key) => queue_mut(record, key, account).map(|q| &mut q.tags),
        }
    }

    /// The policy.
    pub fn policy(&self) -> Option<&str> {
        let record = &self.stream.record;
        match &self.part {
            Part::Whole => record.policy.as_deref(),
            Part::Consumer(consumer) => find_consumer(record, consumer)?.policy.as_deref(),
            Part::Queue(key) => record.queue(key)?.policy.as_deref(),
        }
    }

    /// The policy, to be changed in the stream's newest record.
    pub fn policy_mut<'a>(&self, record: &'a mut StreamRecord) -> Result<&'a mut Option<String>, ApiError> {
        let account = self.stream.name.account;
        match &self.part {
            Part::Whole => Ok(&mut record.policy),
            Part::Consumer(consumer) => consumer_mut(record, consumer, account).map(|c| &mut c.policy),
            Part::Queue(key) => queue_mut(record, key, account).map(|q| &mut q.policy),
        }
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

/// A queue, to be changed.
pub fn queue_mut<'a>(
    record: &'a mut StreamRecord,
    key: &str,
    account: AccountId,
) -> Result<&'a mut QueueRecord, ApiError> {
    let found = record.queues.iter_mut().find(|q| q.key == key);
    found.ok_or_else(|| queue_not_found(key, account))
}

fn parsed(policy: Option<&str>) -> Option<ResourcePolicy> {
    // It was parsed when it was put.
    policy.and_then(|text| ResourcePolicy::parse(text).ok())
}

impl DataStreams {
    /// What an ARN names, if the caller may do with it what the request is for. The own policy of a consumer or a queue
    /// counts for it, not that of its stream.
    pub(crate) fn target<O: WireOperation>(&self, caller: &Caller, arn: &str) -> Result<Target, ApiError> {
        if parse_queue_arn(arn).is_some() {
            let (stream, queue) = self.queue::<O>(caller, arn)?;
            let part = Part::Queue(queue.key);
            return Ok(Target { stream, part });
        }
        let named = parse_arn(arn)
            .ok_or_else(|| invalid(format!("{arn} is not the ARN of a stream, a consumer or a queue.")))?;
        let stream = self.state(&named.stream);
        let stream = stream.ok_or_else(|| match &named.consumer {
            Some(consumer) => consumer_not_found(&consumer.name, named.stream.account),
            None => stream_not_found(&named.stream.name, named.stream.account),
        })?;
        let Some(consumer) = named.consumer else {
            self.admit::<O>(caller, &stream, stream.policy.as_ref(), &stream.arn)?;
            let part = Part::Whole;
            return Ok(Target { stream, part });
        };
        let missing = || consumer_not_found(&consumer.name, named.stream.account);
        let record = find_consumer(&stream.record, &consumer).ok_or_else(missing)?;
        let arn = consumer_arn(&stream.arn, &consumer.name, consumer.created_s);
        self.admit::<O>(caller, &stream, parsed(record.policy.as_deref()).as_ref(), &arn)
            .map_err(|error| match &*error.code {
                "ResourceNotFoundException" => missing(),
                _ => error,
            })?;
        let part = Part::Consumer(consumer);
        Ok(Target { stream, part })
    }

    /// The queue that an ARN names, with its stream, if the caller may do with it what the request is for.
    pub(crate) fn queue<O: WireOperation>(
        &self,
        caller: &Caller,
        arn: &str,
    ) -> Result<(Arc<StreamState>, QueueRecord), ApiError> {
        let named = parse_queue_arn(arn).ok_or_else(|| invalid(format!("{arn} is not the ARN of a queue.")))?;
        let missing = || queue_not_found(&named.name, named.account);
        let stream = self.queues.stream_of(&named.name).and_then(|name| self.state(&name));
        let of_account = |s: &Arc<StreamState>| s.name.account == named.account && s.name.region == named.region;
        let stream = stream.filter(of_account).ok_or_else(missing)?;
        let record = stream.record.queue(&named.name).cloned().ok_or_else(missing)?;
        let arn = queue_arn(&stream.name, &record.key);
        self.admit::<O>(caller, &stream, parsed(record.policy.as_deref()).as_ref(), &arn)
            .map_err(|error| match &*error.code {
                "ResourceNotFoundException" => missing(),
                _ => error,
            })?;
        Ok((stream, record))
    }
}
