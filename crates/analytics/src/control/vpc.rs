//! VPC configurations: AddApplicationVpcConfiguration and its opposite. They are told back and of no effect: there are no
//! VPCs here, and a worker reaches nothing but this server.

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisanalyticsv2::{
    self as model, VpcConfiguration, VpcConfigurationDescription, VpcConfigurationUpdate, op,
};

use super::{Change, Seen, next_id};
use crate::error::{invalid, missing};
use crate::limits;
use crate::service::Analytics;
use crate::stored::VersionRecord;

/// The VPC that every subnet is said to be in.
const VPC_ID: &str = "vpc-00000000";

fn vpcs_mut(version: &mut VersionRecord) -> &mut Vec<VpcConfigurationDescription> {
    version
        .configuration
        .vpc_configuration_descriptions
        .get_or_insert_default()
}

/// Adds a VPC configuration to a version.
pub fn add(version: &mut VersionRecord, given: VpcConfiguration) -> Result<VpcConfigurationDescription, ApiError> {
    let number = version.version;
    let vpcs = vpcs_mut(version);
    if vpcs.len() >= limits::VPC_CONFIGURATIONS_MAX {
        return Err(invalid(format!(
            "An application has at most {} VPC configuration.",
            limits::VPC_CONFIGURATIONS_MAX
        )));
    }
    let described = VpcConfigurationDescription {
        security_group_ids: given.security_group_ids,
        subnet_ids: given.subnet_ids,
        vpc_configuration_id: next_id(number, vpcs.iter().map(|vpc| &*vpc.vpc_configuration_id)),
        vpc_id: VPC_ID.to_owned(),
    };
    vpcs.push(described.clone());
    Ok(described)
}

/// Changes what an update names.
pub fn update(version: &mut VersionRecord, given: VpcConfigurationUpdate) -> Result<(), ApiError> {
    let id = &given.vpc_configuration_id;
    let found = vpcs_mut(version).iter_mut().find(|vpc| vpc.vpc_configuration_id == *id);
    let vpc = found.ok_or_else(|| missing(format!("The application has no VPC configuration {id}.")))?;
    if let Some(subnets) = given.subnet_id_updates {
        vpc.subnet_ids = subnets;
    }
    if let Some(groups) = given.security_group_id_updates {
        vpc.security_group_ids = groups;
    }
    Ok(())
}

impl Handle<op::AddApplicationVpcConfiguration> for Analytics {
    async fn handle(
        &self,
        request: Request<model::AddApplicationVpcConfigurationRequest>,
    ) -> Result<Reply<model::AddApplicationVpcConfigurationResponse>, ApiError> {
        let input = request.input;
        let seen = Seen::either(input.current_application_version_id, input.conditional_token);
        let change = Change::of_description(seen, "AddApplicationVpcConfiguration");
        let given = input.vpc_configuration;
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                add(&mut draft.version, given)
            })
            .await?;
        Ok(model::AddApplicationVpcConfigurationResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
            operation_id: changed.operation,
            vpc_configuration_description: Some(changed.answer),
        }
        .into())
    }
}

impl Handle<op::DeleteApplicationVpcConfiguration> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DeleteApplicationVpcConfigurationRequest>,
    ) -> Result<Reply<model::DeleteApplicationVpcConfigurationResponse>, ApiError> {
        let input = request.input;
        let seen = Seen::either(input.current_application_version_id, input.conditional_token);
        let change = Change::of_description(seen, "DeleteApplicationVpcConfiguration");
        let id = input.vpc_configuration_id;
        let changed = self
            .configure(&request.context.caller, &input.application_name, change, move |draft| {
                let vpcs = vpcs_mut(&mut draft.version);
                let before = vpcs.len();
                vpcs.retain(|vpc| vpc.vpc_configuration_id != id);
                match vpcs.len() < before {
                    true => Ok(()),
                    false => Err(missing(format!("The application has no VPC configuration {id}."))),
                }
            })
            .await?;
        Ok(model::DeleteApplicationVpcConfigurationResponse {
            application_arn: Some(changed.state.arn.clone()),
            application_version_id: changed.version_id(),
            operation_id: changed.operation,
        }
        .into())
    }
}
