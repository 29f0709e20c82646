//! Splunk: its description, and what delivers to it.

use std::sync::Arc;
use std::time::Duration;

use base::ApiError;
use uuid::Uuid;
use wire::firehose::{
    SplunkBufferingHints, SplunkDestinationConfiguration, SplunkDestinationDescription, SplunkDestinationUpdate,
    SplunkRetryOptions, SplunkS3BackupMode,
};

use super::super::limits::{RETRY_SECONDS, SPLUNK_ACK_SECONDS};
use super::super::splunk::Splunk;
use super::super::{Opened, Secrets};
use super::{beside, buffering, hints, https, invalid, no_secrets_manager};
use crate::control::s3;
use crate::ports::Ports;
use crate::types::{About, Refused};

/// Megabytes and seconds of a buffer where nothing is said (the model's documentation).
const BUFFER: (i32, i32) = (5, 60);

const HEC_TOKEN: &str = "HECToken";

/// The description of what is asked for.
pub fn described(asked: &SplunkDestinationConfiguration) -> Result<(SplunkDestinationDescription, Secrets), ApiError> {
    no_secrets_manager(asked.secrets_manager_configuration.as_ref())?;
    https("HECEndpoint", &asked.hec_endpoint)?;
    let token = asked.hec_token.as_deref().unwrap_or_default();
    let secrets = Secrets::from([(HEC_TOKEN.to_owned(), checked(token)?)]);
    let timeout = asked.hec_acknowledgment_timeout_in_seconds;
    let description = SplunkDestinationDescription {
        buffering_hints: Some(buffering_hints(asked.buffering_hints.as_ref())?),
        cloud_watch_logging_options: s3::logging(asked.cloud_watch_logging_options.clone()),
        hec_acknowledgment_timeout_in_seconds: Some(timeout.unwrap_or(SPLUNK_ACK_SECONDS)),
        hec_endpoint: Some(asked.hec_endpoint.clone()),
        hec_endpoint_type: Some(asked.hec_endpoint_type),
        hec_token: None,
        processing_configuration: asked.processing_configuration.clone(),
        retry_options: Some(retry(asked.retry_options.as_ref())),
        s3_backup_mode: Some(asked.s3_backup_mode.unwrap_or(SplunkS3BackupMode::FailedEventsOnly)),
        s3_destination_description: Some(s3::describe_s3(asked.s3_configuration.clone())?),
        secrets_manager_configuration: asked.secrets_manager_configuration.clone(),
    };
    Ok((description, secrets))
}

/// The description after an update.
pub fn updated(
    (old, secrets): (&SplunkDestinationDescription, &Secrets),
    asked: &SplunkDestinationUpdate,
) -> Result<(SplunkDestinationDescription, Secrets), ApiError> {
    no_secrets_manager(asked.secrets_manager_configuration.as_ref())?;
    let (mut new, mut secrets) = (old.clone(), secrets.clone());
    if let Some(url) = &asked.hec_endpoint {
        https("HECEndpoint", url)?;
        new.hec_endpoint = Some(url.clone());
    }
    if let Some(token) = &asked.hec_token {
        secrets.insert(HEC_TOKEN.to_owned(), checked(token)?);
    }
    if let Some(asked) = &asked.buffering_hints {
        new.buffering_hints = Some(buffering_hints(Some(asked))?);
    }
    if let Some(asked) = &asked.retry_options {
        new.retry_options = Some(retry(Some(asked)));
    }
    if let Some(mode) = asked.s3_backup_mode {
        // The model's documentation: this mode can be chosen later, and not left again.
        if old.s3_backup_mode == Some(SplunkS3BackupMode::AllEvents) && mode == SplunkS3BackupMode::FailedEventsOnly {
            return Err(invalid(
                "S3BackupMode cannot be changed from AllEvents to FailedEventsOnly.",
            ));
        }
        new.s3_backup_mode = Some(mode);
    }
    new.hec_endpoint_type = asked.hec_endpoint_type.or(new.hec_endpoint_type);
    new.hec_acknowledgment_timeout_in_seconds = asked
        .hec_acknowledgment_timeout_in_seconds
        .or(new.hec_acknowledgment_timeout_in_seconds);
    new.cloud_watch_logging_options = asked
        .cloud_watch_logging_options
        .clone()
        .or(new.cloud_watch_logging_options);
    new.processing_configuration = asked.processing_configuration.clone().or(new.processing_configuration);
    new.secrets_manager_configuration = asked
        .secrets_manager_configuration
        .clone()
        .or(new.secrets_manager_configuration);
    new.s3_destination_description = beside(old.s3_destination_description.as_ref(), asked.s3_update.as_ref())?;
    Ok((new, secrets))
}

/// The description as it is shown: AWS tells the token.
pub fn shown(description: &mut SplunkDestinationDescription, secrets: &Secrets) {
    description.hec_token = secrets.get(HEC_TOKEN).cloned();
}

/// What delivers.
pub fn open(
    description: &SplunkDestinationDescription,
    secrets: &Secrets,
    about: &About,
    ports: &Ports,
) -> Result<Opened, Refused> {
    let missing = |what: &str| Refused(format!("Splunk has no {what}."));
    let url = description
        .hec_endpoint
        .as_deref()
        .ok_or_else(|| missing("HECEndpoint"))?;
    let url = https("HECEndpoint", url).map_err(|error| Refused(error.message))?;
    let token = secrets.get(HEC_TOKEN).cloned().ok_or_else(|| missing("HECToken"))?;
    let seconds = |given: Option<i32>, default: i32| {
        Duration::from_secs(u64::try_from(given.unwrap_or(default)).unwrap_or_default())
    };
    let retry = description
        .retry_options
        .as_ref()
        .and_then(|retry| retry.duration_in_seconds);
    let hints = description.buffering_hints.clone().unwrap_or_default();
    Ok(Opened {
        endpoint: Arc::new(Splunk {
            http: Arc::clone(&ports.http),
            url: url.to_owned(),
            kind: description
                .hec_endpoint_type
                .ok_or_else(|| missing("HECEndpointType"))?,
            token,
            channel: Uuid::new_v5(&Uuid::NAMESPACE_URL, about.arn.as_bytes()),
            ack_within: seconds(description.hec_acknowledgment_timeout_in_seconds, SPLUNK_ACK_SECONDS),
            retry: seconds(retry, RETRY_SECONDS),
        }),
        buffering: buffering(hints.size_in_m_bs, hints.interval_in_seconds, BUFFER),
        processing: description.processing_configuration.clone(),
        backup: description
            .s3_destination_description
            .clone()
            .ok_or_else(|| missing("S3 configuration"))?,
        backup_all: description.s3_backup_mode == Some(SplunkS3BackupMode::AllEvents),
    })
}

fn checked(token: &str) -> Result<String, ApiError> {
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(invalid(
            "HECToken must be given, of printable ASCII characters without spaces.",
        )),
    }
}

fn buffering_hints(asked: Option<&SplunkBufferingHints>) -> Result<SplunkBufferingHints, ApiError> {
    let asked = asked.cloned().unwrap_or_default();
    let (size, interval) = hints(asked.size_in_m_bs, asked.interval_in_seconds, BUFFER)?;
    Ok(SplunkBufferingHints {
        size_in_m_bs: Some(size),
        interval_in_seconds: Some(interval),
    })
}

fn retry(asked: Option<&SplunkRetryOptions>) -> SplunkRetryOptions {
    let seconds = asked.and_then(|asked| asked.duration_in_seconds);
    SplunkRetryOptions {
        duration_in_seconds: Some(seconds.unwrap_or(RETRY_SECONDS)),
    }
}
