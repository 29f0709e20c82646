//! The S3 beside a destination.

use base::ApiError;
use wire::firehose::{
    BufferingHints, CompressionFormat, EncryptionConfiguration, NoEncryptionConfig, S3DestinationConfiguration,
    S3DestinationDescription, S3DestinationUpdate,
};

use super::{hints, logging};

/// Megabytes and seconds of a buffer for S3, where nothing is said (the model's documentation).
const BUFFER: (i32, i32) = (5, 300);

/// The description of what is asked for, with every default filled in.
pub fn described(asked: &S3DestinationConfiguration) -> Result<S3DestinationDescription, ApiError> {
    Ok(S3DestinationDescription {
        bucket_arn: asked.bucket_arn.clone(),
        buffering_hints: buffering_hints(asked.buffering_hints.as_ref())?,
        cloud_watch_logging_options: logging(asked.cloud_watch_logging_options.as_ref()),
        compression_format: asked.compression_format.unwrap_or(CompressionFormat::Uncompressed),
        encryption_configuration: encryption(asked.encryption_configuration.as_ref()),
        error_output_prefix: asked.error_output_prefix.clone(),
        prefix: asked.prefix.clone(),
        role_arn: asked.role_arn.clone(),
    })
}

/// The description after an update: what it does not name stays.
pub fn updated(
    old: Option<&S3DestinationDescription>,
    asked: Option<&S3DestinationUpdate>,
) -> Result<Option<S3DestinationDescription>, ApiError> {
    let (Some(old), Some(asked)) = (old, asked) else {
        return Ok(old.cloned());
    };
    let mut new = old.clone();
    if asked.buffering_hints.is_some() {
        new.buffering_hints = buffering_hints(asked.buffering_hints.as_ref())?;
    }
    if let Some(asked) = &asked.encryption_configuration {
        new.encryption_configuration = encryption(Some(asked));
    }
    new.bucket_arn = asked.bucket_arn.clone().unwrap_or(new.bucket_arn);
    new.role_arn = asked.role_arn.clone().unwrap_or(new.role_arn);
    new.compression_format = asked.compression_format.unwrap_or(new.compression_format);
    new.cloud_watch_logging_options = asked
        .cloud_watch_logging_options
        .clone()
        .or(new.cloud_watch_logging_options);
    new.error_output_prefix = asked.error_output_prefix.clone().or(new.error_output_prefix);
    new.prefix = asked.prefix.clone().or(new.prefix);
    Ok(Some(new))
}

fn buffering_hints(asked: Option<&BufferingHints>) -> Result<BufferingHints, ApiError> {
    let asked = asked.cloned().unwrap_or_default();
    let (size, interval) = hints(asked.size_in_m_bs, asked.interval_in_seconds, BUFFER)?;
    Ok(BufferingHints {
        size_in_m_bs: Some(size),
        interval_in_seconds: Some(interval),
    })
}

fn encryption(asked: Option<&EncryptionConfiguration>) -> EncryptionConfiguration {
    let none = || EncryptionConfiguration {
        no_encryption_config: Some(NoEncryptionConfig::NoEncryption),
        ..EncryptionConfiguration::default()
    };
    asked
        .filter(|asked| **asked != EncryptionConfiguration::default())
        .cloned()
        .unwrap_or_else(none)
}
