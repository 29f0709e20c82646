//! ReceiveQueueRecords and ReceiveDeadLetterQueueRecords.

use std::time::Duration;

use base::{ApiError, Caller, Handle, Reply, Request, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;
use wire::WireOperation;
use wire::kinesis::{self, op};

use crate::limits;
use crate::queues::engine::{Given, Receive, Work};
use crate::queues::failed;
use crate::records::wire_record;
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::QueueRecord;

/// What both operations are told.
struct Wanted<'a> {
    arn: &'a str,
    limit: Option<i32>,
    wait_s: Option<i32>,
    visibility_s: Option<i32>,
}

impl DataStreams {
    async fn receive<O: WireOperation>(
        &self,
        caller: &Caller,
        dead: bool,
        wanted: Wanted<'_>,
    ) -> Result<Vec<kinesis::QueueRecord>, ApiError> {
        let (stream, queue) = self.queue::<O>(caller, wanted.arn)?;
        let wait_s = wanted.wait_s.unwrap_or(limits::QUEUE_WAIT_S_DEFAULT);
        let wait = Duration::from_secs(u64::try_from(wait_s).unwrap_or(0));
        let (reply, answer) = oneshot::channel();
        let limit = wanted.limit.and_then(|l| usize::try_from(l).ok());
        let receive = Receive {
            dead,
            limit: limit.unwrap_or(limits::QUEUE_RECORDS_DEFAULT),
            visibility_ms: i64::from(wanted.visibility_s.unwrap_or(queue.visibility_s)) * 1000,
            until: Instant::now() + wait,
            reply,
        };
        let this = self.shared()?;
        let engine = self.queues.engine(&stream, &queue);
        engine.submit(&this, Work::Receive(receive))?;
        drop(this);
        let answered = answer.await;
        let given = answered.unwrap_or_else(|error| Err(failed("The request was cut off.", error)))?;
        let bytes = given.iter().map(|g| g.record.data.len()).sum();
        self.counters.count("out", given.len(), bytes);
        self.opened(&stream, &queue, dead, given)
    }

    /// The records as the receiver gets them. One that cannot be decrypted is left out, to become a dead letter in time, and
    /// is an error only where it is alone.
    fn opened(
        &self,
        stream: &StreamState,
        queue: &QueueRecord,
        dead: bool,
        given: Vec<Given>,
    ) -> Result<Vec<kinesis::QueueRecord>, ApiError> {
        // Its key may have come after the stream was looked up.
        let current = self.state(&stream.name).filter(|s| s.id == stream.id);
        let stream = current.as_deref().unwrap_or(stream);
        let mut records = Vec::with_capacity(given.len());
        let mut unreadable = None;
        for given in given {
            let receipt_handle = given.receipt(dead).seal(queue.id, &self.key_ring)?;
            let number = given.record.sequence.get();
            let arrival = given.record.arrival;
            match wire_record(stream, given.record) {
                Ok(record) => records.push(kinesis::QueueRecord {
                    approximate_arrival_timestamp: arrival,
                    data: record.data,
                    first_receive_timestamp: Timestamp::from_millis(given.delivery.first_ms),
                    partition_key: record.partition_key,
                    receipt_handle,
                    receive_count: i32::try_from(given.delivery.count).unwrap_or(i32::MAX),
                    record_id: format!("{:016x}{number:032x}", stream.id.0),
                }),
                Err(error) => unreadable = Some(error),
            }
        }
        match unreadable {
            Some(error) if records.is_empty() => Err(error),
            _ => Ok(records),
        }
    }
}

impl Handle<op::ReceiveQueueRecords> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::ReceiveQueueRecordsInput>,
    ) -> Result<Reply<kinesis::ReceiveQueueRecordsOutput>, ApiError> {
        let input = &request.input;
        let wanted = Wanted {
            arn: &input.queue_arn,
            limit: input.limit,
            wait_s: input.wait_time_seconds,
            visibility_s: input.visibility_timeout_seconds,
        };
        let caller = &request.context.caller;
        let queue_records = self.receive::<op::ReceiveQueueRecords>(caller, false, wanted).await?;
        Ok(kinesis::ReceiveQueueRecordsOutput { queue_records }.into())
    }
}

impl Handle<op::ReceiveDeadLetterQueueRecords> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::ReceiveDeadLetterQueueRecordsInput>,
    ) -> Result<Reply<kinesis::ReceiveDeadLetterQueueRecordsOutput>, ApiError> {
        let input = &request.input;
        let wanted = Wanted {
            arn: &input.queue_arn,
            limit: input.limit,
            wait_s: input.wait_time_seconds,
            visibility_s: input.visibility_timeout_seconds,
        };
        let caller = &request.context.caller;
        let queue_records = self.receive::<op::ReceiveDeadLetterQueueRecords>(caller, true, wanted);
        let queue_records = queue_records.await?;
        Ok(kinesis::ReceiveDeadLetterQueueRecordsOutput { queue_records }.into())
    }
}
