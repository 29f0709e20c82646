//! UpdateDestination. What was read and not delivered is read again and goes to the new destination.

use base::{ApiError, Handle, Reply, Request};
use wire::firehose::{self, UpdateDestinationInput, op};

use super::create::{DESTINATION_ID, check_role, empty};
use super::s3;
use crate::deliver::Target;
use crate::endpoints::{self, Secrets};
use crate::error::invalid;
use crate::service::Firehose;
use crate::stored::StreamRecord;

impl Handle<op::UpdateDestination> for Firehose {
    async fn handle(
        &self,
        request: Request<UpdateDestinationInput>,
    ) -> Result<Reply<firehose::UpdateDestinationOutput>, ApiError> {
        let input = request.input;
        let caller = &request.context.caller;
        let state = self.find(caller, &input.delivery_stream_name)?;
        let s3_role = input.s3_destination_update.as_ref().and_then(|u| u.role_arn.as_deref());
        let extended = input.extended_s3_destination_update.as_ref();
        if let Some(role) = extended.and_then(|u| u.role_arn.as_deref()).or(s3_role) {
            check_role(caller, role)?;
        }
        let name = state.name.clone();
        self.change(&state, move |this, record| {
            check_version(&input, record)?;
            let old = this.open_secrets(record);
            let (mut description, secrets) = updated(record, &old, input)?;
            DESTINATION_ID.clone_into(&mut description.destination_id);
            let about = Firehose::about(&name, record.source.as_ref().map(|s| s.stream_arn.as_str()));
            record.version += 1;
            Target::open(&description, &secrets, &about, record.version, &this.ports)?;
            record.updated_ms = Some(this.clock.now().millis());
            record.destination = description;
            if secrets != old {
                record.secrets = this.seal_secrets(record.id, &secrets)?;
            }
            Ok(())
        })
        .await?;
        Ok(firehose::UpdateDestinationOutput {}.into())
    }
}

fn check_version(input: &UpdateDestinationInput, record: &StreamRecord) -> Result<(), ApiError> {
    let (given, current) = (&input.current_delivery_stream_version_id, record.version.to_string());
    if *given != current {
        return Err(ApiError::client(
            "ConcurrentModificationException",
            format!(
                "Cannot update firehose: {} since the current version id: {current} and specified version id: {given} do \
                 not match",
                input.delivery_stream_name
            ),
        ));
    }
    match input.destination_id == DESTINATION_ID {
        true => Ok(()),
        false => Err(invalid(format!(
            "Destination Id {} not found for firehose {}.",
            input.destination_id, input.delivery_stream_name
        ))),
    }
}

/// The destination after the update.
fn updated(
    record: &StreamRecord,
    secrets: &Secrets,
    mut input: UpdateDestinationInput,
) -> Result<(firehose::DestinationDescription, Secrets), ApiError> {
    let asked = [
        input.amazon_open_search_serverless_destination_update.is_some(),
        input.amazonopensearchservice_destination_update.is_some(),
        input.elasticsearch_destination_update.is_some(),
        input.extended_s3_destination_update.is_some(),
        input.http_endpoint_destination_update.is_some(),
        input.iceberg_destination_update.is_some(),
        input.redshift_destination_update.is_some(),
        input.s3_destination_update.is_some(),
        input.snowflake_destination_update.is_some(),
        input.splunk_destination_update.is_some(),
    ];
    if asked.iter().filter(|asked| **asked).count() != 1 {
        return Err(invalid("Exactly one destination update must be given."));
    }
    let simple = input.s3_destination_update.take().map(s3::extended_update);
    let given = input.extended_s3_destination_update.take().or(simple);
    let Some(given) = given else {
        let updated = endpoints::update((&record.destination, secrets), &input)?;
        return updated.ok_or_else(|| invalid("The update is not one of this delivery stream's destination."));
    };
    let old = record.destination.extended_s3_destination_description.clone();
    let old = old.ok_or_else(|| invalid("The destination of this delivery stream is not S3 and cannot become it."))?;
    let description = s3::update_extended(old, given)?;
    Ok((empty(Some(description)), Secrets::new()))
}
