//! From what is asked for to the description of a destination, and from the description to what delivers. What this server
//! cannot carry out is refused when it is asked for, with the reason.

pub mod http;
pub mod search;
pub mod splunk;

use base::ApiError;
use wire::firehose::{S3DestinationDescription, S3DestinationUpdate, SecretsManagerConfiguration, VpcConfiguration};

use crate::control::s3;
use crate::types::Buffering;

pub use crate::error::invalid;

/// The description of the S3 beside a destination after an update.
pub fn beside(
    old: Option<&S3DestinationDescription>,
    asked: Option<&S3DestinationUpdate>,
) -> Result<Option<S3DestinationDescription>, ApiError> {
    match (old, asked) {
        (Some(old), Some(asked)) => s3::update_s3(old.clone(), asked.clone()).map(Some),
        (old, _) => Ok(old.cloned()),
    }
}

/// Buffering hints with their defaults: megabytes and seconds.
pub fn hints(size: Option<i32>, interval: Option<i32>, default: (i32, i32)) -> Result<(i32, i32), ApiError> {
    match (size, interval) {
        (Some(size), Some(interval)) => Ok((size, interval)),
        (None, None) => Ok(default),
        _ => Err(invalid(
            "SizeInMBs and IntervalInSeconds of BufferingHints must be given together.",
        )),
    }
}

/// The same as a buffer's bounds.
pub fn buffering(size: Option<i32>, interval: Option<i32>, default: (i32, i32)) -> Buffering {
    let megabytes = usize::try_from(size.unwrap_or(default.0)).unwrap_or(1);
    Buffering {
        bytes: megabytes << 20,
        interval_ms: i64::from(interval.unwrap_or(default.1)) * 1000,
    }
}

/// Refuses secrets that lie elsewhere.
pub fn no_secrets_manager(asked: Option<&SecretsManagerConfiguration>) -> Result<(), ApiError> {
    match asked {
        Some(asked) if asked.enabled => Err(invalid(
            "SecretsManagerConfiguration cannot be enabled: this server has no Secrets Manager; give the key or the token itself.",
        )),
        _ => Ok(()),
    }
}

/// Refuses a network that is not there.
pub fn no_vpc(asked: Option<&VpcConfiguration>) -> Result<(), ApiError> {
    match asked {
        Some(_) => Err(invalid(
            "VpcConfiguration cannot be carried out: this server has no VPC; it reaches what its own host reaches.",
        )),
        None => Ok(()),
    }
}

/// A base URL of an endpoint, without a slash at its end. Only `https` is taken, as AWS takes it.
pub fn https<'a>(name: &str, url: &'a str) -> Result<&'a str, ApiError> {
    let authority = url
        .strip_prefix("https://")
        .and_then(|rest| rest.split(['/', '?', '#']).next());
    match authority {
        Some(authority) if !authority.is_empty() && !authority.contains(['@', ' ']) => Ok(url.trim_end_matches('/')),
        _ => Err(invalid(format!(
            "{name} is not a URL like https://receiver.example/path."
        ))),
    }
}
