//! UpdateApplicationMaintenanceConfiguration, which is told back, and CreateApplicationPresignedUrl, which has nothing to
//! point to.

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisanalyticsv2::{self as model, ApplicationMaintenanceConfigurationDescription, op};

use crate::error::invalid;
use crate::service::{Analytics, busy};
use crate::stored::{ApplicationRecord, Phase};

/// How long a maintenance window is (AWS): eight hours.
const WINDOW_HOURS: u32 = 8;

/// The window that an application was given.
pub fn maintenance(record: &ApplicationRecord) -> Option<ApplicationMaintenanceConfigurationDescription> {
    let start = record.maintenance.as_ref()?;
    let (hour, minute) = start.split_once(':')?;
    let end = (hour.parse::<u32>().ok()? + WINDOW_HOURS) % 24;
    Some(ApplicationMaintenanceConfigurationDescription {
        application_maintenance_window_end_time: format!("{end:02}:{minute}"),
        application_maintenance_window_start_time: start.clone(),
    })
}

impl Handle<op::UpdateApplicationMaintenanceConfiguration> for Analytics {
    async fn handle(
        &self,
        request: Request<model::UpdateApplicationMaintenanceConfigurationRequest>,
    ) -> Result<Reply<model::UpdateApplicationMaintenanceConfigurationResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        if !matches!(state.record.phase, Phase::Ready | Phase::Running) {
            return Err(busy(&state));
        }
        let update = input.application_maintenance_configuration_update;
        let ((), state) = self
            .change(&state, move |_, draft| {
                draft.record.maintenance = Some(update.application_maintenance_window_start_time_update);
                Ok(())
            })
            .await?;
        Ok(model::UpdateApplicationMaintenanceConfigurationResponse {
            application_arn: Some(state.arn.clone()),
            application_maintenance_configuration_description: maintenance(&state.record),
        }
        .into())
    }
}

impl Handle<op::CreateApplicationPresignedUrl> for Analytics {
    async fn handle(
        &self,
        request: Request<model::CreateApplicationPresignedUrlRequest>,
    ) -> Result<Reply<model::CreateApplicationPresignedUrlResponse>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.application_name)?;
        Err(invalid(format!(
            "{} is of runtime {}, which has no {}; DescribeApplication with IncludeAdditionalDetails tells how it runs.",
            state.arn,
            state.current.runtime(),
            input.url_type
        )))
    }
}
