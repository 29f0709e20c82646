//! CreateApplication and DeleteApplication.

use base::{ApiError, Caller, Handle, Reply, Request, ResourceName};
use wire::kinesisanalyticsv2::{
    self as model, ApplicationConfiguration, ApplicationConfigurationDescription, ApplicationEncryptionConfiguration,
    ApplicationEncryptionConfigurationDescription, ApplicationMode, ApplicationSnapshotConfigurationDescription,
    ApplicationSystemRollbackConfigurationDescription, EnvironmentPropertyDescriptions, KeyType, PropertyGroup,
    RuntimeEnvironment, SqlApplicationConfigurationDescription, op,
};

use super::code::check_runtime;
use super::tags::{as_map, check_tags};
use super::{describe, flink, inputs, logging, outputs, references, twice, vpc};
use crate::error::{invalid, limit, unsupported};
use crate::limits;
use crate::service::{Analytics, check_size, exists};
use crate::stored::{ApplicationRecord, Phase, VersionRecord};

/// A role must be one of the caller's account; it is told back, not assumed.
pub fn check_role(caller: &Caller, role: &str) -> Result<(), ApiError> {
    match role.split(':').nth(4) == Some(caller.account.to_string().as_str()) {
        true => Ok(()),
        false => Err(invalid(format!(
            "ServiceExecutionRole {role} cannot be assumed; it must be a role of account {}.",
            caller.account
        ))),
    }
}

/// A key is told back; what applications keep is encrypted as the disk is.
pub fn encryption(
    given: &ApplicationEncryptionConfiguration,
) -> Result<ApplicationEncryptionConfigurationDescription, ApiError> {
    match (given.key_type, &given.key_id) {
        (KeyType::AwsOwnedKey, Some(_)) => Err(invalid("KeyId must not be given with the key type AWS_OWNED_KEY.")),
        (KeyType::CustomerManagedKey, None) => {
            Err(invalid("KeyId must be given with the key type CUSTOMER_MANAGED_KEY."))
        }
        (key_type, key_id) => Ok(ApplicationEncryptionConfigurationDescription {
            key_id: key_id.clone(),
            key_type,
        }),
    }
}

/// Refuses two groups of one name.
pub fn property_groups(groups: Vec<PropertyGroup>) -> Result<EnvironmentPropertyDescriptions, ApiError> {
    if let Some(name) = twice(groups.iter().map(|group| &*group.property_group_id).collect()) {
        return Err(invalid(format!("PropertyGroupId {name} is given twice.")));
    }
    Ok(EnvironmentPropertyDescriptions {
        property_group_descriptions: Some(groups),
    })
}

impl Handle<op::CreateApplication> for Analytics {
    async fn handle(
        &self,
        request: Request<model::CreateApplicationRequest>,
    ) -> Result<Reply<model::CreateApplicationResponse>, ApiError> {
        let caller = &request.context.caller;
        let input = request.input;
        let name = ResourceName {
            account: caller.account,
            region: caller.region.clone(),
            name: input.application_name.clone(),
        };
        check_runtime(input.runtime_environment, self.ports.flink.is_some())?;
        if input.application_mode == Some(ApplicationMode::Interactive) {
            return Err(unsupported(
                "ApplicationMode INTERACTIVE belongs to notebooks, which are not here.",
            ));
        }
        check_role(caller, &input.service_execution_role)?;
        if self.state(&name).is_some() {
            return Err(exists(&name));
        }
        if self.count(caller.account, &caller.region) >= limits::APPLICATIONS_PER_ACCOUNT_MAX {
            return Err(limit(format!(
                "An account has at most {} applications in a region.",
                limits::APPLICATIONS_PER_ACCOUNT_MAX
            )));
        }
        let tags = as_map(input.tags.clone().unwrap_or_default());
        check_tags(&tags, tags.len())?;
        let now = self.clock.now().millis();
        let mut version = VersionRecord {
            version: 1,
            created_ms: now,
            runtime: input.runtime_environment.to_string(),
            role: input.service_execution_role,
            configuration: ApplicationConfigurationDescription::default(),
            logging: Vec::new(),
            code: None,
            left: None,
            rolled_back: false,
        };
        for option in input.cloud_watch_logging_options.unwrap_or_default() {
            logging::add(&mut version, &option)?;
        }
        self.configuration(
            caller,
            &mut version,
            input.application_configuration.unwrap_or_default(),
        )
        .await?;
        inputs::check_names(&version)?;
        check_size(&version)?;
        self.look_at_script(&name, &version).await?;
        let record = ApplicationRecord {
            id: 0,
            created_ms: now,
            updated_ms: now,
            version: 1,
            phase: Phase::Ready,
            run: None,
            description: input.application_description,
            mode: input.application_mode.map(|mode| mode.to_string()),
            tags,
            maintenance: None,
            updated_from: None,
            rolled_back: None,
            operations: Vec::new(),
            snapshots: Vec::new(),
        };
        let state = self.create(name, record, version).await?;
        Ok(model::CreateApplicationResponse {
            application_detail: describe::detail(&state),
        }
        .into())
    }
}

impl Analytics {
    /// Puts what is asked for into a new version.
    async fn configuration(
        &self,
        caller: &Caller,
        version: &mut VersionRecord,
        given: ApplicationConfiguration,
    ) -> Result<(), ApiError> {
        let of_sql = version.runtime() == RuntimeEnvironment::Sql10;
        if given.zeppelin_application_configuration.is_some() {
            return Err(invalid(
                "ZeppelinApplicationConfiguration belongs to notebooks, which are not here.",
            ));
        }
        if of_sql && given.flink_application_configuration.is_some() {
            return Err(invalid("FlinkApplicationConfiguration is not for a SQL application."));
        }
        if !of_sql && given.sql_application_configuration.is_some() {
            return Err(invalid(
                "SqlApplicationConfiguration is not for an application of Flink.",
            ));
        }
        if let Some(code) = &given.application_code_configuration {
            let code = self.code(caller.account, code).await?;
            version.configuration.application_code_configuration_description = Some(code.described);
            version.code = code.statements;
        }
        let described = &mut version.configuration;
        if let Some(encryption_wanted) = &given.application_encryption_configuration {
            described.application_encryption_configuration_description = Some(encryption(encryption_wanted)?);
        }
        described.application_snapshot_configuration_description =
            given
                .application_snapshot_configuration
                .map(|snapshots| ApplicationSnapshotConfigurationDescription {
                    snapshot_mode: snapshots.snapshot_mode,
                    snapshots_enabled: snapshots.snapshots_enabled,
                });
        described.application_system_rollback_configuration_description = given
            .application_system_rollback_configuration
            .map(|rollback| ApplicationSystemRollbackConfigurationDescription {
                rollback_enabled: rollback.rollback_enabled,
            });
        if let Some(properties) = given.environment_properties {
            described.environment_property_descriptions = Some(property_groups(properties.property_groups)?);
        }
        match of_sql {
            true => {
                described.sql_application_configuration_description = Some(SqlApplicationConfigurationDescription {
                    input_descriptions: Some(Vec::new()),
                    output_descriptions: Some(Vec::new()),
                    reference_data_source_descriptions: Some(Vec::new()),
                });
            }
            false => {
                let given = given.flink_application_configuration.unwrap_or_default();
                described.flink_application_configuration_description = Some(flink::describe(given));
            }
        }
        for given in given.vpc_configurations.unwrap_or_default() {
            vpc::add(version, given)?;
        }
        let sql = given.sql_application_configuration.unwrap_or_default();
        for given in sql.inputs.unwrap_or_default() {
            inputs::add(caller, version, given)?;
        }
        for given in sql.outputs.unwrap_or_default() {
            outputs::add(caller, version, given)?;
        }
        for given in sql.reference_data_sources.unwrap_or_default() {
            references::add(version, given)?;
        }
        Ok(())
    }
}

impl Handle<op::DeleteApplication> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DeleteApplicationRequest>,
    ) -> Result<Reply<model::DeleteApplicationResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        // Clients write times in whole seconds.
        if input.create_timestamp.millis().div_euclid(1000) != state.record.created_ms.div_euclid(1000) {
            return Err(invalid(
                "CreateTimestamp is not that of the application; DescribeApplication tells it.",
            ));
        }
        self.delete(&state).await?;
        Ok(model::DeleteApplicationResponse {}.into())
    }
}
