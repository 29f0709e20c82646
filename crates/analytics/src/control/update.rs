//! UpdateApplication.

use base::{ApiError, Caller, Handle, Reply, Request};
use wire::kinesisanalyticsv2::{
    self as model, ApplicationCodeConfiguration, ApplicationCodeConfigurationUpdate, ApplicationConfigurationUpdate,
    ApplicationEncryptionConfiguration, ApplicationSnapshotConfigurationDescription,
    ApplicationSystemRollbackConfigurationDescription, CodeContent, CodeContentType, RuntimeEnvironment,
    S3ContentLocation, op,
};

use super::code::{Code, check_runtime};
use super::create::{check_role, encryption, property_groups};
use super::{Change, Effect, Look, Seen, describe, flink, inputs, logging, outputs, references, vpc};
use crate::error::{invalid, unsupported};
use crate::service::{Analytics, AppState};
use crate::stored::VersionRecord;

impl Handle<op::UpdateApplication> for Analytics {
    async fn handle(
        &self,
        request: Request<model::UpdateApplicationRequest>,
    ) -> Result<Reply<model::UpdateApplicationResponse>, ApiError> {
        let caller = request.context.caller;
        let input = request.input;
        let state = self.find(&caller, &input.application_name)?;
        let runtime = input.runtime_environment_update;
        let runtime = runtime.filter(|runtime| *runtime != state.current.runtime());
        if let Some(runtime) = runtime {
            check_runtime(runtime, self.ports.flink.is_some())?;
            if [runtime, state.current.runtime()].contains(&RuntimeEnvironment::Sql10) {
                return Err(unsupported(
                    "An application of SQL cannot become one of Flink, nor the other way round.",
                ));
            }
        }
        if let Some(role) = &input.service_execution_role_update {
            check_role(&caller, role)?;
        }
        let run = input.run_configuration_update.unwrap_or_default();
        if run.application_restore_configuration.is_some() {
            return Err(invalid(
                "An update goes on with what was computed so far; give ApplicationRestoreConfiguration to StartApplication.",
            ));
        }
        let update = input.application_configuration_update.unwrap_or_default();
        let code = match &update.application_code_configuration_update {
            Some(given) => Some(self.code_update(&caller, &state, given).await?),
            None => None,
        };
        let change = Change {
            seen: Seen::either(input.current_application_version_id, input.conditional_token),
            effect: match concerns_the_job(&update) || runtime.is_some() {
                true => Effect::Job,
                false => Effect::None,
            },
            look: Look::Script,
            operation: Some("UpdateApplication"),
            allow_non_restored: run
                .flink_run_configuration
                .and_then(|flink| flink.allow_non_restored_state)
                != Some(false),
        };
        let (own, logging_updates) = (caller.clone(), input.cloud_watch_logging_option_updates);
        let role = input.service_execution_role_update;
        let changed = self
            .configure(&caller, &input.application_name, change, move |draft| {
                let version = &mut draft.version;
                if let Some(code) = code {
                    version.configuration.application_code_configuration_description = Some(code.described);
                    version.code = code.statements;
                }
                if let Some(runtime) = runtime {
                    version.runtime = runtime.to_string();
                }
                if let Some(role) = role {
                    version.role = role;
                }
                for update in logging_updates.unwrap_or_default() {
                    logging::update(version, update)?;
                }
                put(&own, version, update)
            })
            .await?;
        Ok(model::UpdateApplicationResponse {
            application_detail: describe::detail(&changed.state),
            operation_id: changed.operation,
        }
        .into())
    }
}

/// Whether a running application must begin anew for it.
fn concerns_the_job(update: &ApplicationConfigurationUpdate) -> bool {
    update.application_code_configuration_update.is_some()
        || update.flink_application_configuration_update.is_some()
        || update.sql_application_configuration_update.is_some()
        || update.environment_property_updates.is_some()
}

/// Puts what an update names into a version.
fn put(caller: &Caller, version: &mut VersionRecord, update: ApplicationConfigurationUpdate) -> Result<(), ApiError> {
    if update.zeppelin_application_configuration_update.is_some() {
        return Err(invalid(
            "ZeppelinApplicationConfigurationUpdate belongs to notebooks, which are not here.",
        ));
    }
    let of_sql = version.runtime() == RuntimeEnvironment::Sql10;
    if of_sql && update.flink_application_configuration_update.is_some() {
        return Err(invalid(
            "FlinkApplicationConfigurationUpdate is not for a SQL application.",
        ));
    }
    if !of_sql && update.sql_application_configuration_update.is_some() {
        return Err(invalid(
            "SqlApplicationConfigurationUpdate is not for an application of Flink.",
        ));
    }
    let described = &mut version.configuration;
    if let Some(given) = update.flink_application_configuration_update {
        let flink = &mut described.flink_application_configuration_description;
        flink::update(flink.get_or_insert_default(), given);
    }
    if let Some(given) = update.application_encryption_configuration_update {
        described.application_encryption_configuration_description =
            Some(encryption(&ApplicationEncryptionConfiguration {
                key_id: given.key_id_update,
                key_type: given.key_type_update,
            })?);
    }
    if let Some(given) = update.application_snapshot_configuration_update {
        described.application_snapshot_configuration_description = Some(ApplicationSnapshotConfigurationDescription {
            snapshot_mode: given.snapshot_mode_update,
            snapshots_enabled: given.snapshots_enabled_update,
        });
    }
    if let Some(given) = update.application_system_rollback_configuration_update {
        described.application_system_rollback_configuration_description =
            Some(ApplicationSystemRollbackConfigurationDescription {
                rollback_enabled: given.rollback_enabled_update,
            });
    }
    if let Some(given) = update.environment_property_updates {
        described.environment_property_descriptions = Some(property_groups(given.property_groups)?);
    }
    for given in update.vpc_configuration_updates.unwrap_or_default() {
        vpc::update(version, given)?;
    }
    let sql = update.sql_application_configuration_update.unwrap_or_default();
    for given in sql.input_updates.unwrap_or_default() {
        inputs::update(caller, version, given)?;
    }
    for given in sql.output_updates.unwrap_or_default() {
        outputs::update(caller, version, given)?;
    }
    for given in sql.reference_data_source_updates.unwrap_or_default() {
        references::update(version, given)?;
    }
    Ok(())
}

impl Analytics {
    /// The code that an update gives; what it does not name of an object's place stays.
    async fn code_update(
        &self,
        caller: &Caller,
        state: &AppState,
        given: &ApplicationCodeConfigurationUpdate,
    ) -> Result<Code, ApiError> {
        let update = given.code_content_update.clone().unwrap_or_default();
        let described = state
            .current
            .configuration
            .application_code_configuration_description
            .as_ref();
        let described = described.and_then(|code| code.code_content_description.as_ref());
        let was = described.and_then(|content| content.s3_application_code_location_description.as_ref());
        let location = match (update.s3_content_location_update, was) {
            (Some(location), was) => {
                let missing = || invalid("S3ContentLocationUpdate must name BucketARNUpdate and FileKeyUpdate.");
                let bucket = location
                    .bucket_arn_update
                    .or_else(|| was.map(|was| was.bucket_arn.clone()));
                let key = location.file_key_update.or_else(|| was.map(|was| was.file_key.clone()));
                Some(S3ContentLocation {
                    bucket_arn: bucket.ok_or_else(missing)?,
                    file_key: key.ok_or_else(missing)?,
                    object_version: location.object_version_update,
                })
            }
            // Nothing but the wish that the object is read again.
            (None, Some(was)) if update.text_content_update.is_none() && update.zip_file_content_update.is_none() => {
                Some(S3ContentLocation {
                    bucket_arn: was.bucket_arn.clone(),
                    file_key: was.file_key.clone(),
                    object_version: None,
                })
            }
            (None, _) => None,
        };
        // Where nothing is given, the text stays.
        let nothing = location.is_none() && update.zip_file_content_update.is_none();
        let text = described
            .and_then(|content| content.text_content.clone())
            .filter(|_| nothing);
        let content = CodeContent {
            s3_content_location: location,
            text_content: update.text_content_update.or(text),
            zip_file_content: update.zip_file_content_update,
        };
        let configured = ApplicationCodeConfiguration {
            code_content: Some(content),
            code_content_type: given.code_content_type_update.unwrap_or(CodeContentType::Plaintext),
        };
        self.code(caller.account, &configured).await
    }
}
