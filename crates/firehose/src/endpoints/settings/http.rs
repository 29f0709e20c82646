//! HTTP endpoints: their description, and what delivers to them.

use std::sync::Arc;
use std::time::Duration;

use base::ApiError;
use wire::firehose::{
    ContentEncoding, HttpEndpointBufferingHints, HttpEndpointConfiguration, HttpEndpointDescription,
    HttpEndpointDestinationConfiguration, HttpEndpointDestinationDescription, HttpEndpointDestinationUpdate,
    HttpEndpointRequestConfiguration, HttpEndpointRetryOptions, HttpEndpointS3BackupMode,
};

use super::super::http::{HttpEndpoint, headers};
use super::super::limits::RETRY_SECONDS;
use super::super::{Opened, Secrets};
use super::{beside, buffering, hints, https, invalid, no_secrets_manager};
use crate::control::s3;
use crate::ports::Ports;
use crate::types::{About, Refused};

/// Megabytes and seconds of a buffer where nothing is said (the model's documentation).
const BUFFER: (i32, i32) = (5, 300);

const ACCESS_KEY: &str = "AccessKey";

/// The description of what is asked for.
pub fn described(
    asked: &HttpEndpointDestinationConfiguration,
) -> Result<(HttpEndpointDestinationDescription, Secrets), ApiError> {
    no_secrets_manager(asked.secrets_manager_configuration.as_ref())?;
    let (endpoint, secrets) = endpoint(&asked.endpoint_configuration)?;
    let description = HttpEndpointDestinationDescription {
        buffering_hints: Some(buffering_hints(asked.buffering_hints.as_ref())?),
        cloud_watch_logging_options: s3::logging(asked.cloud_watch_logging_options.clone()),
        endpoint_configuration: Some(endpoint),
        processing_configuration: asked.processing_configuration.clone(),
        request_configuration: Some(request(asked.request_configuration.as_ref())?),
        retry_options: Some(retry(asked.retry_options.as_ref())),
        role_arn: asked.role_arn.clone(),
        s3_backup_mode: Some(asked.s3_backup_mode.unwrap_or(HttpEndpointS3BackupMode::FailedDataOnly)),
        s3_destination_description: Some(s3::describe_s3(asked.s3_configuration.clone())?),
        secrets_manager_configuration: asked.secrets_manager_configuration.clone(),
    };
    Ok((description, secrets))
}

/// The description after an update.
pub fn updated(
    (old, secrets): (&HttpEndpointDestinationDescription, &Secrets),
    asked: &HttpEndpointDestinationUpdate,
) -> Result<(HttpEndpointDestinationDescription, Secrets), ApiError> {
    no_secrets_manager(asked.secrets_manager_configuration.as_ref())?;
    let (mut new, mut secrets) = (old.clone(), secrets.clone());
    if let Some(asked) = &asked.endpoint_configuration {
        let (endpoint, key) = endpoint(asked)?;
        new.endpoint_configuration = Some(endpoint);
        secrets = key;
    }
    if let Some(asked) = &asked.buffering_hints {
        new.buffering_hints = Some(buffering_hints(Some(asked))?);
    }
    if let Some(asked) = &asked.request_configuration {
        new.request_configuration = Some(request(Some(asked))?);
    }
    if let Some(asked) = &asked.retry_options {
        new.retry_options = Some(retry(Some(asked)));
    }
    new.cloud_watch_logging_options = asked
        .cloud_watch_logging_options
        .clone()
        .or(new.cloud_watch_logging_options);
    new.processing_configuration = asked.processing_configuration.clone().or(new.processing_configuration);
    new.role_arn = asked.role_arn.clone().or(new.role_arn);
    new.s3_backup_mode = asked.s3_backup_mode.or(new.s3_backup_mode);
    new.secrets_manager_configuration = asked
        .secrets_manager_configuration
        .clone()
        .or(new.secrets_manager_configuration);
    new.s3_destination_description = beside(old.s3_destination_description.as_ref(), asked.s3_update.as_ref())?;
    Ok((new, secrets))
}

/// What delivers.
pub fn open(
    description: &HttpEndpointDestinationDescription,
    secrets: &Secrets,
    about: &About,
    ports: &Ports,
) -> Result<Opened, Refused> {
    let missing = |what: &str| Refused(format!("The HTTP endpoint has no {what}."));
    let endpoint = description.endpoint_configuration.as_ref();
    let url = endpoint
        .and_then(|endpoint| endpoint.url.clone())
        .ok_or_else(|| missing("URL"))?;
    let request = description.request_configuration.clone().unwrap_or_default();
    let gzip = request.content_encoding == Some(ContentEncoding::Gzip);
    let attributes = request.common_attributes.unwrap_or_default();
    let attributes: Vec<_> = attributes
        .iter()
        .map(|a| (a.attribute_name.as_str(), a.attribute_value.as_str()))
        .collect();
    let seconds = description
        .retry_options
        .as_ref()
        .and_then(|retry| retry.duration_in_seconds);
    let key = secrets.get(ACCESS_KEY).map(String::as_str);
    let hints = description.buffering_hints.clone().unwrap_or_default();
    Ok(Opened {
        endpoint: Arc::new(HttpEndpoint {
            http: Arc::clone(&ports.http),
            clock: Arc::clone(&ports.clock),
            url,
            headers: headers(&about.arn, key, &attributes, gzip),
            gzip,
            retry: Duration::from_secs(u64::try_from(seconds.unwrap_or(RETRY_SECONDS)).unwrap_or(0)),
        }),
        buffering: buffering(hints.size_in_m_bs, hints.interval_in_seconds, BUFFER),
        processing: description.processing_configuration.clone(),
        backup: description
            .s3_destination_description
            .clone()
            .ok_or_else(|| missing("S3 configuration"))?,
        backup_all: description.s3_backup_mode == Some(HttpEndpointS3BackupMode::AllData),
    })
}

fn endpoint(asked: &HttpEndpointConfiguration) -> Result<(HttpEndpointDescription, Secrets), ApiError> {
    https("The Url of the HTTP endpoint", &asked.url)?;
    let described = HttpEndpointDescription {
        name: asked.name.clone(),
        url: Some(asked.url.clone()),
    };
    let key = asked.access_key.iter().map(|key| (ACCESS_KEY.to_owned(), key.clone()));
    Ok((described, key.collect()))
}

fn buffering_hints(asked: Option<&HttpEndpointBufferingHints>) -> Result<HttpEndpointBufferingHints, ApiError> {
    let asked = asked.cloned().unwrap_or_default();
    let (size, interval) = hints(asked.size_in_m_bs, asked.interval_in_seconds, BUFFER)?;
    Ok(HttpEndpointBufferingHints {
        size_in_m_bs: Some(size),
        interval_in_seconds: Some(interval),
    })
}

fn request(asked: Option<&HttpEndpointRequestConfiguration>) -> Result<HttpEndpointRequestConfiguration, ApiError> {
    let asked = asked.cloned().unwrap_or_default();
    let attributes = asked.common_attributes.iter().flatten();
    let names: std::collections::BTreeSet<_> = attributes.clone().map(|a| &a.attribute_name).collect();
    if names.len() != attributes.count() {
        return Err(invalid("CommonAttributes name an attribute twice."));
    }
    Ok(HttpEndpointRequestConfiguration {
        content_encoding: Some(asked.content_encoding.unwrap_or(ContentEncoding::None)),
        common_attributes: asked.common_attributes,
    })
}

fn retry(asked: Option<&HttpEndpointRetryOptions>) -> HttpEndpointRetryOptions {
    let seconds = asked.and_then(|asked| asked.duration_in_seconds);
    HttpEndpointRetryOptions {
        duration_in_seconds: Some(seconds.unwrap_or(RETRY_SECONDS)),
    }
}
