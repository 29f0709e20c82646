//! The inputs of an application: AddApplicationInput, and AddApplicationInputProcessingConfiguration with its opposite. An
//! input is never removed: AWS has no operation for that.

use base::{ApiError, Caller, Handle, Reply, Request};
use data_streams::parse_stream_arn;
use wire::kinesisanalyticsv2::{
    self as model, Input, InputDescription, InputLambdaProcessorDescription, InputParallelism,
    InputProcessingConfiguration, InputProcessingConfigurationDescription, InputUpdate, KinesisStreamsInputDescription,
    RecordFormatType, SourceSchema, SqlApplicationConfigurationDescription, op,
};

use super::{Change, Seen, next_id, twice};
use crate::error::{invalid, missing};
use crate::limits;
use crate::service::Analytics;
use crate::stored::VersionRecord;

/// The part of a version that is SQL's.
pub fn sql_mut(version: &mut VersionRecord) -> &mut SqlApplicationConfigurationDescription {
    let part = &mut version.configuration.sql_application_configuration_description;
    part.get_or_insert_default()
}

fn inputs_mut(version: &mut VersionRecord) -> &mut Vec<InputDescription> {
    sql_mut(version).input_descriptions.get_or_insert_default()
}

/// A data stream of the caller's account and region. Whether it is there is asked when the application is started.
pub fn check_stream(caller: &Caller, arn: &str) -> Result<(), ApiError> {
    let named = parse_stream_arn(arn);
    match named.is_some_and(|name| name.account == caller.account && name.region == caller.region) {
        true => Ok(()),
        false => Err(invalid(format!(
            "{arn} is not the ARN of a data stream of account {} in {}.",
            caller.account, caller.region
        ))),
    }
}

/// Refuses a schema that contradicts itself.
pub fn check_schema(schema: &SourceSchema) -> Result<(), ApiError> {
    if let Some(name) = twice(schema.record_columns.iter().map(|column| &*column.name).collect()) {
        return Err(invalid(format!("Column {name} is there twice.")));
    }
    let format = &schema.record_format;
    let mapping = format.mapping_parameters.as_ref();
    let (json, csv) = mapping.map_or((false, false), |mapping| {
        (
            mapping.json_mapping_parameters.is_some(),
            mapping.csv_mapping_parameters.is_some(),
        )
    });
    match (format.record_format_type, json, csv) {
        (RecordFormatType::Json, _, true) => {
            Err(invalid("CSVMappingParameters do not belong to the record format JSON."))
        }
        (RecordFormatType::Csv, true, _) => {
            Err(invalid("JSONMappingParameters do not belong to the record format CSV."))
        }
        (RecordFormatType::Csv, _, false) => Err(invalid(
            "CSVMappingParameters must be given with the record format CSV.",
        )),
        _ => Ok(()),
    }
}

/// Refuses two tables of one name.
pub fn check_names(version: &VersionRecord) -> Result<(), ApiError> {
    let Some(sql) = &version.configuration.sql_application_configuration_description else {
        return Ok(());
    };
    let inputs = sql.input_descriptions.iter().flatten();
    let inputs = inputs.filter_map(|input| Some(format!("{}_001", input.name_prefix.as_ref()?)));
    let outputs = sql
        .output_descriptions
        .iter()
        .flatten()
        .filter_map(|output| output.name.clone());
    let references = sql.reference_data_source_descriptions.iter().flatten();
    let references = references.map(|reference| reference.table_name.clone());
    match twice(inputs.chain(outputs).chain(references).collect()) {
        Some(name) => Err(invalid(format!(
            "The application has two inputs, outputs or reference tables of the name {name}."
        ))),
        None => Ok(()),
    }
}

fn processor(given: InputProcessingConfiguration) -> InputProcessingConfigurationDescription {
    InputProcessingConfigurationDescription {
        input_lambda_processor_description: Some(InputLambdaProcessorDescription {
            resource_arn: given.input_lambda_processor.resource_arn,
            role_arn: None,
        }),
    }
}

/// Adds an input to a version.
pub fn add(caller: &Caller, version: &mut VersionRecord, given: Input) -> Result<(), ApiError> {
    if given.kinesis_firehose_input.is_some() {
        return Err(invalid(
            "KinesisFirehoseInput is not taken, as AWS takes none any more; let the application read a data stream.",
        ));
    }
    let Some(stream) = given.kinesis_streams_input else {
        return Err(invalid("An input must have a KinesisStreamsInput."));
    };
    check_stream(caller, &stream.resource_arn)?;
    check_schema(&given.input_schema)?;
    let number = version.version;
    let inputs = inputs_mut(version);
    if inputs.len() >= limits::INPUTS_MAX {
        return Err(invalid(format!(
            "An application has at most {} inputs.",
            limits::INPUTS_MAX
        )));
    }
    let count = given.input_parallelism.and_then(|parallelism| parallelism.count);
    let id = next_id(number, inputs.iter().filter_map(|input| input.input_id.as_deref()));
    inputs.push(InputDescription {
        in_app_stream_names: Some(vec![format!("{}_001", given.name_prefix)]),
        input_id: Some(id),
        input_parallelism: Some(InputParallelism {
            count: Some(count.unwrap_or(1)),
        }),
        input_processing_configuration_description: given.input_processing_configuration.map(processor),
        input_schema: Some(given.input_schema),
        input_starting_position_configuration: None,
        kinesis_firehose_input_description: None,
        kinesis_streams_input_description: Some(KinesisStreamsInputDescription {
            resource_arn: stream.resource_arn,
            role_arn: None,
        }),
        name_prefix: Some(given.name_prefix),
    });
    Ok(())
}

/// The input of that id.
fn find<'a>(version: &'a mut VersionRecord, id: &str) -> Result<&'a mut InputDescription, ApiError> {
    let found = inputs_mut(version)
        .iter_mut()
        .find(|input| input.input_id.as_deref() == Some(id));
    found.ok_or_else(|| missing(format!("The application has no input {id}.")))
}

/// Changes what an update names.
pub fn update(caller: &Caller, version: &mut VersionRecord, given: InputUpdate) -> Result<(), ApiError> {
    if given.kinesis_firehose_input_update.is_some() {
        return Err(invalid(
            "KinesisFirehoseInputUpdate is not taken; applications read data streams.",
        ));
    }
    let input = find(version, &given.input_id)?;
    if let Some(prefix) = given.name_prefix_update {
        input.in_app_stream_names = Some(vec![format!("{prefix}_001")]);
        input.name_prefix = Some(prefix);
    }
    if let Some(stream) = given.kinesis_streams_input_update {
        check_stream(caller, &stream.resource_arn_update)?;
        input.kinesis_streams_input_description = Some(KinesisStreamsInputDescription {
            resource_arn: stream.resource_arn_update,
            role_arn: None,
        });
    }
    if let Some(processing) = given.input_processing_configuration_update {
        if input.input_processing_configuration_description.is_none() {
            return Err(invalid(format!(
                "Input {} has no input processor to update.",
                given.input_id
            )));
        }
        input.input_processing_configuration_description = Some(InputProcessingConfigurationDescription {
            input_lambda_processor_description: Some(InputLambdaProcessorDescription {
                resource_arn: processing.input_lambda_processor_update.resource_arn_update,
                role_arn: None,
            }),
        });
    }
    if let Some(parallelism) = given.input_parallelism_update {
        input.input_parallelism = Some(InputParallelism {
            count: Some(parallelism.count_update),
        });
    }
    if let (Some(update), Some(schema)) = (given.input_schema_update, &mut input.input_schema) {
        if let Some(format) = update.record_format_update {
            schema.record_format = format;
        }
        if let Some(encoding) = update.record_encoding_update {
            schema.record_encoding = Some(encoding);
        }
        if let Some(columns) = update.record_column_updates {
            schema.record_columns = columns;
        }
        check_schema(schema)?;
    }
    Ok(())
}

impl Handle<op::AddApplicationInput> for Analytics {
    async fn handle(
        &self,
        request: Request<model::AddApplicationInputRequest>,
    ) -> Result<Reply<model::AddApplicationInputResponse>, ApiError> {
        let caller = request.context.caller;
        let input = request.input;
        let change = Change::of_job(Seen::version(input.current_application_version_id));
        let (own, given) = (caller.clone(), input.input);
        let changed = self
            .configure(&caller, &input.application_name, change, move |draft| {
                add(&own, &mut draft.version, given)?;
                Ok(inputs_mut(&mut draft.version).clone())
            })
            .await?;
        Ok(model::AddApplicationInputResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
            input_descriptions: Some(changed.answer),
        }
        .into())
    }
}

impl Handle<op::AddApplicationInputProcessingConfiguration> for Analytics {
    async fn handle(
        &self,
        request: Request<model::AddApplicationInputProcessingConfigurationRequest>,
    ) -> Result<Reply<model::AddApplicationInputProcessingConfigurationResponse>, ApiError> {
        let input = request.input;
        let change = Change::of_job(Seen::version(input.current_application_version_id));
        let (id, given) = (input.input_id.clone(), input.input_processing_configuration);
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                let input = find(&mut draft.version, &id)?;
                if input.input_processing_configuration_description.is_some() {
                    return Err(invalid(format!("Input {id} has an input processor already.")));
                }
                let described = processor(given);
                input.input_processing_configuration_description = Some(described.clone());
                Ok(described)
            })
            .await?;
        Ok(model::AddApplicationInputProcessingConfigurationResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
            input_id: Some(input.input_id),
            input_processing_configuration_description: Some(changed.answer),
        }
        .into())
    }
}

impl Handle<op::DeleteApplicationInputProcessingConfiguration> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DeleteApplicationInputProcessingConfigurationRequest>,
    ) -> Result<Reply<model::DeleteApplicationInputProcessingConfigurationResponse>, ApiError> {
        let input = request.input;
        let change = Change::of_job(Seen::version(input.current_application_version_id));
        let id = input.input_id;
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                let input = find(&mut draft.version, &id)?;
                match input.input_processing_configuration_description.take() {
                    Some(_) => Ok(()),
                    None => Err(missing(format!("Input {id} has no input processor."))),
                }
            })
            .await?;
        Ok(model::DeleteApplicationInputProcessingConfigurationResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
        }
        .into())
    }
}
