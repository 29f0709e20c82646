//! The outputs of an application: AddApplicationOutput and DeleteApplicationOutput.

use base::{ApiError, Caller, Handle, Reply, Request};
use wire::kinesisanalyticsv2::{
    self as model, KinesisFirehoseOutputDescription, KinesisStreamsOutputDescription, LambdaOutputDescription, Output,
    OutputDescription, OutputUpdate, op,
};

use super::inputs::{check_stream, sql_mut};
use super::{Change, Seen, next_id};
use crate::error::{invalid, missing};
use crate::limits;
use crate::service::Analytics;
use crate::stored::VersionRecord;

fn outputs_mut(version: &mut VersionRecord) -> &mut Vec<OutputDescription> {
    sql_mut(version).output_descriptions.get_or_insert_default()
}

/// A delivery stream of the caller's account and region.
fn check_delivery_stream(caller: &Caller, arn: &str) -> Result<(), ApiError> {
    let own = format!("arn:aws:firehose:{}:{}:deliverystream/", caller.region, caller.account);
    match arn.strip_prefix(&own).is_some_and(|name| !name.is_empty()) {
        true => Ok(()),
        false => Err(invalid(format!(
            "{arn} is not the ARN of a delivery stream of account {} in {}.",
            caller.account, caller.region
        ))),
    }
}

fn check_function(arn: &str) -> Result<(), ApiError> {
    match arn.contains(":lambda:") {
        true => Ok(()),
        false => Err(invalid(format!("{arn} is not the ARN of a function."))),
    }
}

/// Adds an output to a version.
pub fn add(caller: &Caller, version: &mut VersionRecord, given: Output) -> Result<(), ApiError> {
    let (stream, firehose, lambda) = (
        given.kinesis_streams_output,
        given.kinesis_firehose_output,
        given.lambda_output,
    );
    let count = [stream.is_some(), firehose.is_some(), lambda.is_some()];
    if count.iter().filter(|given| **given).count() != 1 {
        return Err(invalid(
            "An output must have exactly one of KinesisStreamsOutput, KinesisFirehoseOutput and LambdaOutput.",
        ));
    }
    if let Some(stream) = &stream {
        check_stream(caller, &stream.resource_arn)?;
    }
    if let Some(firehose) = &firehose {
        check_delivery_stream(caller, &firehose.resource_arn)?;
    }
    if let Some(lambda) = &lambda {
        check_function(&lambda.resource_arn)?;
    }
    let number = version.version;
    let outputs = outputs_mut(version);
    if outputs.len() >= limits::OUTPUTS_MAX {
        return Err(invalid(format!(
            "An application has at most {} outputs.",
            limits::OUTPUTS_MAX
        )));
    }
    let id = next_id(number, outputs.iter().filter_map(|output| output.output_id.as_deref()));
    outputs.push(OutputDescription {
        destination_schema: Some(given.destination_schema),
        kinesis_firehose_output_description: firehose.map(|firehose| KinesisFirehoseOutputDescription {
            resource_arn: firehose.resource_arn,
            role_arn: None,
        }),
        kinesis_streams_output_description: stream.map(|stream| KinesisStreamsOutputDescription {
            resource_arn: stream.resource_arn,
            role_arn: None,
        }),
        lambda_output_description: lambda.map(|lambda| LambdaOutputDescription {
            resource_arn: lambda.resource_arn,
            role_arn: None,
        }),
        name: Some(given.name),
        output_id: Some(id),
    });
    Ok(())
}

/// Changes what an update names. A destination that is given takes the place of the one that was.
pub fn update(caller: &Caller, version: &mut VersionRecord, given: OutputUpdate) -> Result<(), ApiError> {
    let id = &given.output_id;
    let found = outputs_mut(version)
        .iter_mut()
        .find(|output| output.output_id.as_ref() == Some(id));
    let output = found.ok_or_else(|| missing(format!("The application has no output {id}.")))?;
    let (stream, firehose) = (
        given.kinesis_streams_output_update,
        given.kinesis_firehose_output_update,
    );
    let lambda = given.lambda_output_update;
    if [stream.is_some(), firehose.is_some(), lambda.is_some()]
        .iter()
        .filter(|given| **given)
        .count()
        > 1
    {
        return Err(invalid(format!("Output {id} can have one destination.")));
    }
    if stream.is_some() || firehose.is_some() || lambda.is_some() {
        output.kinesis_streams_output_description = None;
        output.kinesis_firehose_output_description = None;
        output.lambda_output_description = None;
    }
    if let Some(stream) = stream {
        check_stream(caller, &stream.resource_arn_update)?;
        output.kinesis_streams_output_description = Some(KinesisStreamsOutputDescription {
            resource_arn: stream.resource_arn_update,
            role_arn: None,
        });
    }
    if let Some(firehose) = firehose {
        check_delivery_stream(caller, &firehose.resource_arn_update)?;
        output.kinesis_firehose_output_description = Some(KinesisFirehoseOutputDescription {
            resource_arn: firehose.resource_arn_update,
            role_arn: None,
        });
    }
    if let Some(lambda) = lambda {
        check_function(&lambda.resource_arn_update)?;
        output.lambda_output_description = Some(LambdaOutputDescription {
            resource_arn: lambda.resource_arn_update,
            role_arn: None,
        });
    }
    if let Some(name) = given.name_update {
        output.name = Some(name);
    }
    if let Some(schema) = given.destination_schema_update {
        output.destination_schema = Some(schema);
    }
    Ok(())
}

impl Handle<op::AddApplicationOutput> for Analytics {
    async fn handle(
        &self,
        request: Request<model::AddApplicationOutputRequest>,
    ) -> Result<Reply<model::AddApplicationOutputResponse>, ApiError> {
        let caller = request.context.caller;
        let input = request.input;
        let change = Change::of_job(Seen::version(input.current_application_version_id));
        let (own, given) = (caller.clone(), input.output);
        let changed = self
            .configure(&caller, &input.application_name, change, move |draft| {
                add(&own, &mut draft.version, given)?;
                Ok(outputs_mut(&mut draft.version).clone())
            })
            .await?;
        Ok(model::AddApplicationOutputResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
            output_descriptions: Some(changed.answer),
        }
        .into())
    }
}

impl Handle<op::DeleteApplicationOutput> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DeleteApplicationOutputRequest>,
    ) -> Result<Reply<model::DeleteApplicationOutputResponse>, ApiError> {
        let input = request.input;
        let change = Change::of_job(Seen::version(input.current_application_version_id));
        let id = input.output_id;
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                let outputs = outputs_mut(&mut draft.version);
                let before = outputs.len();
                outputs.retain(|output| output.output_id.as_ref() != Some(&id));
                match outputs.len() < before {
                    true => Ok(()),
                    false => Err(missing(format!("The application has no output {id}."))),
                }
            })
            .await?;
        Ok(model::DeleteApplicationOutputResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
        }
        .into())
    }
}
