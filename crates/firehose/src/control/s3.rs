//! Destinations in S3: their descriptions with every default filled in, what an update leaves of them, and what is refused.

use base::ApiError;
use wire::firehose::{
    BufferingHints, CloudWatchLoggingOptions, CompressionFormat, DataFormatConversionConfiguration,
    EncryptionConfiguration, ExtendedS3DestinationConfiguration, ExtendedS3DestinationDescription,
    ExtendedS3DestinationUpdate, NoEncryptionConfig, S3BackupMode, S3DestinationConfiguration,
    S3DestinationDescription, S3DestinationUpdate,
};

use crate::error::invalid;
use crate::limits;
use crate::types::Buffering;

/// When a buffer with these hints is full.
pub fn buffering(hints: &BufferingHints) -> Buffering {
    let mib = hints.size_in_m_bs.unwrap_or(limits::BUFFER_MIB_DEFAULT);
    let seconds = hints.interval_in_seconds.unwrap_or(limits::BUFFER_SECONDS_DEFAULT);
    Buffering {
        bytes: usize::try_from(mib).unwrap_or(1).max(1) << 20,
        interval_ms: i64::from(seconds) * 1000,
    }
}

/// Hints with what is missing; who says one says both.
fn hints(given: Option<BufferingHints>, mib: i32) -> Result<BufferingHints, ApiError> {
    match given {
        Some(BufferingHints {
            size_in_m_bs: None,
            interval_in_seconds: Some(_),
        }) => Err(invalid(
            "BufferingHints with IntervalInSeconds must have SizeInMBs too.",
        )),
        Some(BufferingHints {
            size_in_m_bs: Some(_),
            interval_in_seconds: None,
        }) => Err(invalid(
            "BufferingHints with SizeInMBs must have IntervalInSeconds too.",
        )),
        given => {
            let given = given.unwrap_or_default();
            Ok(BufferingHints {
                size_in_m_bs: Some(given.size_in_m_bs.unwrap_or(mib)),
                interval_in_seconds: Some(given.interval_in_seconds.unwrap_or(limits::BUFFER_SECONDS_DEFAULT)),
            })
        }
    }
}

fn encryption(given: Option<EncryptionConfiguration>) -> EncryptionConfiguration {
    given.unwrap_or(EncryptionConfiguration {
        kms_encryption_config: None,
        no_encryption_config: Some(NoEncryptionConfig::NoEncryption),
    })
}

/// Logging as it is described: off unless it was asked for.
pub fn logging(given: Option<CloudWatchLoggingOptions>) -> Option<CloudWatchLoggingOptions> {
    Some(given.unwrap_or(CloudWatchLoggingOptions {
        enabled: Some(false),
        ..CloudWatchLoggingOptions::default()
    }))
}

/// The description of the S3 that a destination has beside it, or of a simple destination.
pub fn describe_s3(given: S3DestinationConfiguration) -> Result<S3DestinationDescription, ApiError> {
    Ok(S3DestinationDescription {
        bucket_arn: given.bucket_arn,
        buffering_hints: hints(given.buffering_hints, limits::BUFFER_MIB_DEFAULT)?,
        cloud_watch_logging_options: logging(given.cloud_watch_logging_options),
        compression_format: given.compression_format.unwrap_or(CompressionFormat::Uncompressed),
        encryption_configuration: encryption(given.encryption_configuration),
        error_output_prefix: given.error_output_prefix,
        prefix: given.prefix,
        role_arn: given.role_arn,
    })
}

/// What an update leaves of it: what is not named stays.
pub fn update_s3(
    old: S3DestinationDescription,
    given: S3DestinationUpdate,
) -> Result<S3DestinationDescription, ApiError> {
    let hints = match given.buffering_hints {
        Some(given) => hints(Some(given), limits::BUFFER_MIB_DEFAULT)?,
        None => old.buffering_hints,
    };
    Ok(S3DestinationDescription {
        bucket_arn: given.bucket_arn.unwrap_or(old.bucket_arn),
        buffering_hints: hints,
        cloud_watch_logging_options: given.cloud_watch_logging_options.or(old.cloud_watch_logging_options),
        compression_format: given.compression_format.unwrap_or(old.compression_format),
        encryption_configuration: given.encryption_configuration.unwrap_or(old.encryption_configuration),
        error_output_prefix: given.error_output_prefix.or(old.error_output_prefix),
        prefix: given.prefix.or(old.prefix),
        role_arn: given.role_arn.unwrap_or(old.role_arn),
    })
}

/// A simple destination as the other one that it is told as.
pub fn extended(given: S3DestinationConfiguration) -> ExtendedS3DestinationConfiguration {
    ExtendedS3DestinationConfiguration {
        bucket_arn: given.bucket_arn,
        buffering_hints: given.buffering_hints,
        cloud_watch_logging_options: given.cloud_watch_logging_options,
        compression_format: given.compression_format,
        custom_time_zone: None,
        data_format_conversion_configuration: None,
        dynamic_partitioning_configuration: None,
        encryption_configuration: given.encryption_configuration,
        error_output_prefix: given.error_output_prefix,
        file_extension: None,
        prefix: given.prefix,
        processing_configuration: None,
        role_arn: given.role_arn,
        s3_backup_configuration: None,
        s3_backup_mode: None,
    }
}

/// The update of a simple destination as that of the other one.
pub fn extended_update(given: S3DestinationUpdate) -> ExtendedS3DestinationUpdate {
    ExtendedS3DestinationUpdate {
        bucket_arn: given.bucket_arn,
        buffering_hints: given.buffering_hints,
        cloud_watch_logging_options: given.cloud_watch_logging_options,
        compression_format: given.compression_format,
        encryption_configuration: given.encryption_configuration,
        error_output_prefix: given.error_output_prefix,
        prefix: given.prefix,
        role_arn: given.role_arn,
        ..ExtendedS3DestinationUpdate::default()
    }
}

/// What a destination is told as where only a simple one is asked for.
pub fn simple(description: &ExtendedS3DestinationDescription) -> S3DestinationDescription {
    S3DestinationDescription {
        bucket_arn: description.bucket_arn.clone(),
        buffering_hints: description.buffering_hints.clone(),
        cloud_watch_logging_options: description.cloud_watch_logging_options.clone(),
        compression_format: description.compression_format,
        encryption_configuration: description.encryption_configuration.clone(),
        error_output_prefix: description.error_output_prefix.clone(),
        prefix: description.prefix.clone(),
        role_arn: description.role_arn.clone(),
    }
}

fn converts(conversion: Option<&DataFormatConversionConfiguration>) -> bool {
    conversion.is_some_and(|c| c.enabled != Some(false))
}

/// True if records are divided by keys in them.
pub fn is_partitioned(description: &ExtendedS3DestinationDescription) -> bool {
    let partitioning = description.dynamic_partitioning_configuration.as_ref();
    partitioning.is_some_and(|p| p.enabled == Some(true))
}

/// The description of a destination.
pub fn describe_extended(
    given: ExtendedS3DestinationConfiguration,
) -> Result<ExtendedS3DestinationDescription, ApiError> {
    let mib = match converts(given.data_format_conversion_configuration.as_ref()) {
        true => limits::BUFFER_MIB_CONVERTING,
        false => limits::BUFFER_MIB_DEFAULT,
    };
    let partitioned = given.dynamic_partitioning_configuration.as_ref();
    let mib = match partitioned.is_some_and(|p| p.enabled == Some(true)) {
        true => mib.max(limits::BUFFER_MIB_MIN_LARGE),
        false => mib,
    };
    checked(ExtendedS3DestinationDescription {
        bucket_arn: given.bucket_arn,
        buffering_hints: hints(given.buffering_hints, mib)?,
        cloud_watch_logging_options: logging(given.cloud_watch_logging_options),
        compression_format: given.compression_format.unwrap_or(CompressionFormat::Uncompressed),
        custom_time_zone: given.custom_time_zone,
        data_format_conversion_configuration: given.data_format_conversion_configuration,
        dynamic_partitioning_configuration: given.dynamic_partitioning_configuration,
        encryption_configuration: encryption(given.encryption_configuration),
        error_output_prefix: given.error_output_prefix,
        file_extension: given.file_extension,
        prefix: given.prefix,
        processing_configuration: given.processing_configuration,
        role_arn: given.role_arn,
        s3_backup_description: given.s3_backup_configuration.map(describe_s3).transpose()?,
        s3_backup_mode: Some(given.s3_backup_mode.unwrap_or(S3BackupMode::Disabled)),
    })
}

/// What an update leaves of it: what is not named stays.
pub fn update_extended(
    old: ExtendedS3DestinationDescription,
    given: ExtendedS3DestinationUpdate,
) -> Result<ExtendedS3DestinationDescription, ApiError> {
    let is_on = |p: Option<&wire::firehose::DynamicPartitioningConfiguration>| p.and_then(|p| p.enabled) == Some(true);
    let named = given.dynamic_partitioning_configuration.as_ref();
    if named.is_some() && is_on(named) != is_on(old.dynamic_partitioning_configuration.as_ref()) {
        return Err(invalid(
            "Dynamic partitioning is enabled or not when a delivery stream is created, and cannot be changed.",
        ));
    }
    let backup = match (old.s3_backup_description, given.s3_backup_update) {
        (Some(old), Some(update)) => Some(update_s3(old, update)?),
        (None, Some(update)) => Some(describe_s3(whole(update)?)?),
        (old, None) => old,
    };
    let hints = match given.buffering_hints {
        Some(given) => hints(Some(given), limits::BUFFER_MIB_DEFAULT)?,
        None => old.buffering_hints,
    };
    checked(ExtendedS3DestinationDescription {
        bucket_arn: given.bucket_arn.unwrap_or(old.bucket_arn),
        buffering_hints: hints,
        cloud_watch_logging_options: given.cloud_watch_logging_options.or(old.cloud_watch_logging_options),
        compression_format: given.compression_format.unwrap_or(old.compression_format),
        custom_time_zone: given.custom_time_zone.or(old.custom_time_zone),
        data_format_conversion_configuration: given
            .data_format_conversion_configuration
            .or(old.data_format_conversion_configuration),
        dynamic_partitioning_configuration: given
            .dynamic_partitioning_configuration
            .or(old.dynamic_partitioning_configuration),
        encryption_configuration: given.encryption_configuration.unwrap_or(old.encryption_configuration),
        error_output_prefix: given.error_output_prefix.or(old.error_output_prefix),
        file_extension: given.file_extension.or(old.file_extension),
        prefix: given.prefix.or(old.prefix),
        processing_configuration: given.processing_configuration.or(old.processing_configuration),
        role_arn: given.role_arn.unwrap_or(old.role_arn),
        s3_backup_description: backup,
        s3_backup_mode: given.s3_backup_mode.or(old.s3_backup_mode),
    })
}

/// An update of what was not there must say everything that a configuration must.
fn whole(update: S3DestinationUpdate) -> Result<S3DestinationConfiguration, ApiError> {
    let missing = |what: &str| {
        invalid(format!(
            "{what} of the backup must be given, for there was none before."
        ))
    };
    Ok(S3DestinationConfiguration {
        bucket_arn: update.bucket_arn.ok_or_else(|| missing("BucketARN"))?,
        role_arn: update.role_arn.ok_or_else(|| missing("RoleARN"))?,
        buffering_hints: update.buffering_hints,
        cloud_watch_logging_options: update.cloud_watch_logging_options,
        compression_format: update.compression_format,
        encryption_configuration: update.encryption_configuration,
        error_output_prefix: update.error_output_prefix,
        prefix: update.prefix,
    })
}

/// Refuses what does not go together.
fn checked(description: ExtendedS3DestinationDescription) -> Result<ExtendedS3DestinationDescription, ApiError> {
    let mib = description.buffering_hints.size_in_m_bs.unwrap_or_default();
    let least = limits::BUFFER_MIB_MIN_LARGE;
    let converts = converts(description.data_format_conversion_configuration.as_ref());
    if converts && mib < least {
        return Err(invalid(format!(
            "BufferingHints.SizeInMBs must be at least {least} when data format conversion is enabled."
        )));
    }
    if converts && description.compression_format != CompressionFormat::Uncompressed {
        return Err(invalid(
            "CompressionFormat must be UNCOMPRESSED when data format conversion is enabled.",
        ));
    }
    if is_partitioned(&description) && mib < least {
        return Err(invalid(format!(
            "BufferingHints.SizeInMBs must be at least {least} when dynamic partitioning is enabled."
        )));
    }
    let backup = description.s3_backup_mode == Some(S3BackupMode::Enabled);
    if backup && description.s3_backup_description.is_none() {
        return Err(invalid(
            "S3BackupConfiguration must be given when S3BackupMode is Enabled.",
        ));
    }
    if let Some(extension) = description.file_extension.as_deref().filter(|e| !e.is_empty())
        && !extension.starts_with('.')
    {
        return Err(invalid("FileExtension must begin with a period."));
    }
    Ok(description)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> ExtendedS3DestinationConfiguration {
        extended(S3DestinationConfiguration {
            bucket_arn: "arn:aws:s3:::b".to_owned(),
            role_arn: "arn:aws:iam::000000000000:role/r".to_owned(),
            buffering_hints: None,
            cloud_watch_logging_options: None,
            compression_format: None,
            encryption_configuration: None,
            error_output_prefix: None,
            prefix: None,
        })
    }

    #[test]
    fn a_description_has_the_defaults_and_an_update_changes_what_it_names_alone() {
        let described = describe_extended(given()).unwrap();
        assert_eq!(buffering(&described.buffering_hints).bytes, 5 << 20);
        assert_eq!(described.buffering_hints.interval_in_seconds, Some(300));
        assert_eq!(described.compression_format, CompressionFormat::Uncompressed);
        let update = ExtendedS3DestinationUpdate {
            prefix: Some("p/".to_owned()),
            ..Default::default()
        };
        let updated = update_extended(described.clone(), update).unwrap();
        assert_eq!(updated.prefix.as_deref(), Some("p/"));
        assert_eq!(updated.bucket_arn, described.bucket_arn);
    }

    #[test]
    fn half_of_the_hints_and_small_buffers_of_large_formats_are_refused() {
        let half = BufferingHints {
            size_in_m_bs: Some(1),
            interval_in_seconds: None,
        };
        let refused = describe_extended(ExtendedS3DestinationConfiguration {
            buffering_hints: Some(half),
            ..given()
        });
        assert!(refused.unwrap_err().message.contains("IntervalInSeconds"));
        let small = describe_extended(ExtendedS3DestinationConfiguration {
            buffering_hints: Some(BufferingHints {
                size_in_m_bs: Some(1),
                interval_in_seconds: Some(0),
            }),
            data_format_conversion_configuration: Some(DataFormatConversionConfiguration::default()),
            ..given()
        });
        assert!(small.unwrap_err().message.contains("at least 64"));
    }
}
