//! PutRecord and PutRecordBatch: they answer when the records are durable.

use std::sync::Arc;

use base::{ApiError, Caller, Handle, Reply, Request};
use bytes::Bytes;
use storage::SequenceNumber;
use wire::firehose::{self, op};

use crate::error::invalid;
use crate::intake::Intake;
use crate::limits;
use crate::service::Firehose;

impl Firehose {
    fn intake(&self, caller: &Caller, name: &str) -> Result<Arc<Intake>, ApiError> {
        let state = self.find(caller, name)?;
        state
            .intake
            .clone()
            .ok_or_else(|| invalid("This operation is not permitted on KinesisStreamAsSource delivery stream type."))
    }
}

impl Handle<op::PutRecord> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::PutRecordInput>,
    ) -> Result<Reply<firehose::PutRecordOutput>, ApiError> {
        let input = request.input;
        let intake = self.intake(&request.context.caller, &input.delivery_stream_name)?;
        let (numbers, encrypted) = intake.put(vec![input.record.data], self.clock.now()).await?;
        Ok(firehose::PutRecordOutput {
            encrypted: Some(encrypted),
            record_id: numbers.first().map(SequenceNumber::to_string).unwrap_or_default(),
        }
        .into())
    }
}

impl Handle<op::PutRecordBatch> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::PutRecordBatchInput>,
    ) -> Result<Reply<firehose::PutRecordBatchOutput>, ApiError> {
        let input = request.input;
        let intake = self.intake(&request.context.caller, &input.delivery_stream_name)?;
        let data: Vec<Bytes> = input.records.into_iter().map(|record| record.data).collect();
        let bytes: usize = data.iter().map(Bytes::len).sum();
        if bytes > limits::BATCH_BYTES_MAX {
            return Err(invalid("Records size exceeds 4 MB limit"));
        }
        // All or none: a call that fails has failed for each of its records, and says so as a whole.
        let (numbers, encrypted) = intake.put(data, self.clock.now()).await?;
        let entry = |number: SequenceNumber| firehose::PutRecordBatchResponseEntry {
            record_id: Some(number.to_string()),
            ..Default::default()
        };
        Ok(firehose::PutRecordBatchOutput {
            encrypted: Some(encrypted),
            failed_put_count: 0,
            request_responses: numbers.into_iter().map(entry).collect(),
        }
        .into())
    }
}
