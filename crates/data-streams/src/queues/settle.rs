//! What receivers do with what they have received: acknowledge, hide longer or show again, restore. Each entry of a call
//! succeeds or fails by itself.

use base::{ApiError, Caller, Handle, Reply, Request};
use tokio::sync::oneshot;
use wire::WireOperation;
use wire::kinesis::{self, op};

use crate::queues::engine::{Action, Refusal, Settle, Work};
use crate::queues::failed;
use crate::queues::receipt::Receipt;
use crate::service::DataStreams;

impl Refusal {
    fn code(self) -> &'static str {
        match self {
            Refusal::Gone => "ResourceNotFoundException",
            Refusal::Forged | Refusal::WrongKind | Refusal::Outdated | Refusal::Dead => "InvalidArgumentException",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Refusal::Forged => "The receipt handle is not valid for this queue.",
            Refusal::WrongKind => "The receipt handle belongs to the other one of records and dead-letter records.",
            Refusal::Gone => "The record was acknowledged already, or is beyond the stream's retention period.",
            Refusal::Outdated => "The receipt handle is of an earlier delivery of the record.",
            Refusal::Dead => "The record has become a dead-letter record.",
        }
    }
}

/// An entry of a call: its handle, and what became of it.
type Outcome = (String, Result<(), Refusal>);

impl DataStreams {
    async fn settle<O: WireOperation>(
        &self,
        caller: &Caller,
        arn: &str,
        dead: bool,
        entries: Vec<(String, Action)>,
    ) -> Result<Vec<Outcome>, ApiError> {
        let (stream, queue) = self.queue::<O>(caller, arn)?;
        let now = self.clock.now();
        let open = |handle: &str| Receipt::open(handle, queue.id, &self.key_ring, now);
        let opened: Vec<Option<Receipt>> = entries.iter().map(|(handle, _)| open(handle)).collect();
        let named = opened.iter().zip(&entries);
        let known: Vec<_> = named
            .filter_map(|(receipt, (_, action))| Some(((*receipt)?, *action)))
            .collect();
        let mut results = Vec::new();
        if !known.is_empty() {
            let (reply, answer) = oneshot::channel();
            let settle = Settle {
                dead,
                entries: known,
                reply,
            };
            let engine = self.queues.engine(&stream, &queue);
            engine.submit(&self.shared()?, Work::Settle(settle))?;
            let answered = answer.await;
            results = answered.unwrap_or_else(|error| Err(failed("The request was cut off.", error)))?;
        }
        let mut results = results.into_iter();
        let outcome = |(receipt, (handle, _)): (Option<Receipt>, (String, Action))| match receipt {
            Some(_) => (handle, results.next().unwrap_or(Err(Refusal::Gone))),
            None => (handle, Err(Refusal::Forged)),
        };
        Ok(opened.into_iter().zip(entries).map(outcome).collect())
    }
}

/// The six operations differ in their names and in what they do with a record.
macro_rules! settles {
    ($operation:ident, $dead:literal, $entry:ident => $action:expr, $input:ident, $output:ident, $success:ident, $failure:ident) => {
        impl Handle<op::$operation> for DataStreams {
            async fn handle(&self, request: Request<kinesis::$input>) -> Result<Reply<kinesis::$output>, ApiError> {
                let (input, caller) = (request.input, &request.context.caller);
                let entries = input.entries.into_iter().map(|$entry| {
                    let action = $action;
                    ($entry.receipt_handle, action)
                });
                let entries = entries.collect();
                let outcomes = self.settle::<op::$operation>(caller, &input.queue_arn, $dead, entries);
                let mut output = kinesis::$output::default();
                for (receipt_handle, result) in outcomes.await? {
                    match result {
                        Ok(()) => output.successful.push(kinesis::$success { receipt_handle }),
                        Err(refusal) => output.failed.push(kinesis::$failure {
                            error_code: refusal.code().to_owned(),
                            error_message: Some(refusal.message().to_owned()),
                            receipt_handle,
                        }),
                    }
                }
                Ok(output.into())
            }
        }
    };
}

fn hide(seconds: i32) -> Action {
    Action::Hide(i64::from(seconds) * 1000)
}

settles!(
    AcknowledgeQueueRecords, false, entry => Action::Acknowledge,
    AcknowledgeQueueRecordsInput, AcknowledgeQueueRecordsOutput,
    AcknowledgeQueueRecordsResultEntry, AcknowledgeQueueRecordsErrorEntry
);
settles!(
    AcknowledgeDeadLetterQueueRecords, true, entry => Action::Acknowledge,
    AcknowledgeDeadLetterQueueRecordsInput, AcknowledgeDeadLetterQueueRecordsOutput,
    AcknowledgeDeadLetterQueueRecordsResultEntry, AcknowledgeDeadLetterQueueRecordsErrorEntry
);
settles!(
    RestoreDeadLetterQueueRecords, true, entry => Action::Restore,
    RestoreDeadLetterQueueRecordsInput, RestoreDeadLetterQueueRecordsOutput,
    RestoreDeadLetterQueueRecordsResultEntry, RestoreDeadLetterQueueRecordsErrorEntry
);
settles!(
    UpdateQueueRecordsVisibility, false, entry => hide(entry.visibility_timeout_seconds),
    UpdateQueueRecordsVisibilityInput, UpdateQueueRecordsVisibilityOutput,
    UpdateQueueRecordsVisibilityResultEntry, UpdateQueueRecordsVisibilityErrorEntry
);
settles!(
    UpdateDeadLetterQueueRecordsVisibility, true, entry => hide(entry.visibility_timeout_seconds),
    UpdateDeadLetterQueueRecordsVisibilityInput, UpdateDeadLetterQueueRecordsVisibilityOutput,
    UpdateDeadLetterQueueRecordsVisibilityResultEntry, UpdateDeadLetterQueueRecordsVisibilityErrorEntry
);
