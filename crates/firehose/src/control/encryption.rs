//! StartDeliveryStreamEncryption and StopDeliveryStreamEncryption: whether records that are put are encrypted in the log.

use base::{ApiError, Handle, Reply, Request};
use wire::firehose::{self, op};

use super::create::encryption_record;
use crate::error::invalid;
use crate::intake;
use crate::service::{Firehose, StreamState};
use crate::stored::EncryptionRecord;

fn direct(state: &StreamState) -> Result<(), ApiError> {
    match state.intake {
        Some(_) => Ok(()),
        None => Err(invalid(
            "Server-side encryption is for delivery streams of type DirectPut; a data stream encrypts its records itself.",
        )),
    }
}

impl Handle<op::StartDeliveryStreamEncryption> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::StartDeliveryStreamEncryptionInput>,
    ) -> Result<Reply<firehose::StartDeliveryStreamEncryptionOutput>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.delivery_stream_name)?;
        direct(&state)?;
        let wanted = match &input.delivery_stream_encryption_configuration_input {
            Some(given) => encryption_record(given)?,
            None => EncryptionRecord { key_arn: None },
        };
        self.change(&state, move |this, record| {
            if record.data_key.is_none() {
                let key = intake::make_key(&this.key_ring, record.id);
                let failed = |e| ApiError::server("InternalFailure", "No key could be made.", e);
                record.data_key = Some(key.map_err(failed)?);
            }
            record.encryption = Some(wanted);
            Ok(())
        })
        .await?;
        Ok(firehose::StartDeliveryStreamEncryptionOutput {}.into())
    }
}

impl Handle<op::StopDeliveryStreamEncryption> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::StopDeliveryStreamEncryptionInput>,
    ) -> Result<Reply<firehose::StopDeliveryStreamEncryptionOutput>, ApiError> {
        let state = self.find(&request.context.caller, &request.input.delivery_stream_name)?;
        direct(&state)?;
        // The key stays: what it encrypted may not be delivered yet.
        self.change(&state, |_, record| {
            record.encryption = None;
            Ok(())
        })
        .await?;
        Ok(firehose::StopDeliveryStreamEncryptionOutput {}.into())
    }
}
