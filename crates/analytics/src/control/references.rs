//! The reference tables of an application: AddApplicationReferenceDataSource and DeleteApplicationReferenceDataSource.

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisanalyticsv2::{
    self as model, ReferenceDataSource, ReferenceDataSourceDescription, ReferenceDataSourceUpdate,
    S3ReferenceDataSourceDescription, op,
};

use super::code::bucket_name;
use super::inputs::{check_schema, sql_mut};
use super::{Change, Seen, next_id};
use crate::error::{invalid, missing};
use crate::limits;
use crate::service::Analytics;
use crate::stored::VersionRecord;

fn references_mut(version: &mut VersionRecord) -> &mut Vec<ReferenceDataSourceDescription> {
    sql_mut(version)
        .reference_data_source_descriptions
        .get_or_insert_default()
}

/// Adds a reference table to a version. Whether the object is there is asked when the application is started.
pub fn add(version: &mut VersionRecord, given: ReferenceDataSource) -> Result<(), ApiError> {
    let place = given.s3_reference_data_source.unwrap_or_default();
    let (Some(bucket_arn), Some(file_key)) = (place.bucket_arn, place.file_key) else {
        return Err(invalid("S3ReferenceDataSource must have BucketARN and FileKey."));
    };
    bucket_name(&bucket_arn)?;
    check_schema(&given.reference_schema)?;
    let number = version.version;
    let references = references_mut(version);
    if references.len() >= limits::REFERENCES_MAX {
        return Err(invalid(format!(
            "An application has at most {} reference data sources.",
            limits::REFERENCES_MAX
        )));
    }
    let id = next_id(number, references.iter().map(|reference| &*reference.reference_id));
    references.push(ReferenceDataSourceDescription {
        reference_id: id,
        reference_schema: Some(given.reference_schema),
        s3_reference_data_source_description: S3ReferenceDataSourceDescription {
            bucket_arn,
            file_key,
            reference_role_arn: None,
        },
        table_name: given.table_name,
    });
    Ok(())
}

/// Changes what an update names.
pub fn update(version: &mut VersionRecord, given: ReferenceDataSourceUpdate) -> Result<(), ApiError> {
    let id = &given.reference_id;
    let found = references_mut(version)
        .iter_mut()
        .find(|reference| reference.reference_id == *id);
    let reference = found.ok_or_else(|| missing(format!("The application has no reference data source {id}.")))?;
    if let Some(name) = given.table_name_update {
        reference.table_name = name;
    }
    if let Some(place) = given.s3_reference_data_source_update {
        let described = &mut reference.s3_reference_data_source_description;
        if let Some(bucket) = place.bucket_arn_update {
            bucket_name(&bucket)?;
            described.bucket_arn = bucket;
        }
        if let Some(key) = place.file_key_update {
            described.file_key = key;
        }
    }
    if let Some(schema) = given.reference_schema_update {
        check_schema(&schema)?;
        reference.reference_schema = Some(schema);
    }
    Ok(())
}

impl Handle<op::AddApplicationReferenceDataSource> for Analytics {
    async fn handle(
        &self,
        request: Request<model::AddApplicationReferenceDataSourceRequest>,
    ) -> Result<Reply<model::AddApplicationReferenceDataSourceResponse>, ApiError> {
        let input = request.input;
        let change = Change::of_job(Seen::version(input.current_application_version_id));
        let given = input.reference_data_source;
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                add(&mut draft.version, given)?;
                Ok(references_mut(&mut draft.version).clone())
            })
            .await?;
        Ok(model::AddApplicationReferenceDataSourceResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
            reference_data_source_descriptions: Some(changed.answer),
        }
        .into())
    }
}

impl Handle<op::DeleteApplicationReferenceDataSource> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DeleteApplicationReferenceDataSourceRequest>,
    ) -> Result<Reply<model::DeleteApplicationReferenceDataSourceResponse>, ApiError> {
        let input = request.input;
        let change = Change::of_job(Seen::version(input.current_application_version_id));
        let id = input.reference_id;
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                let references = references_mut(&mut draft.version);
                let before = references.len();
                references.retain(|reference| reference.reference_id != id);
                match references.len() < before {
                    true => Ok(()),
                    false => Err(missing(format!("The application has no reference data source {id}."))),
                }
            })
            .await?;
        Ok(model::DeleteApplicationReferenceDataSourceResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
        }
        .into())
    }
}
