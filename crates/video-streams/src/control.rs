//! The control plane, one module for each kind of resource: streams (made, described, changed, deleted, tagged, and where
//! their media is served), their storage tier and edge configuration, and signalling channels.

pub(crate) mod channels;
pub(crate) mod edge;
mod endpoint;
mod lifecycle;
mod list;
mod media_storage;
mod storage_tier;
mod tags;

pub(crate) use lifecycle::oldest_kept;

use std::sync::Arc;

use base::RequestContext;
use wire::kinesisvideo::{Status, StreamInfo};

use crate::error::ControlError;
use crate::service::{Inner, Unresolved};
use crate::state::StreamState;

impl From<Unresolved> for ControlError {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::NotFound => ControlError::NotFound,
            Unresolved::Invalid(why) => ControlError::InvalidArgument(why.to_owned()),
        }
    }
}

pub(crate) fn resolve(
    inner: &Inner,
    context: &RequestContext,
    name: Option<&String>,
    arn: Option<&String>,
) -> Result<Arc<StreamState>, ControlError> {
    let found = inner.resolve(context, name.map(String::as_str), arn.map(String::as_str));
    found.map_err(ControlError::from)
}

/// How a stream is described.
fn describe(state: &StreamState) -> StreamInfo {
    let record = state.record();
    let (account, region) = (state.arn.name.account, &state.arn.name.region);
    let default_key = || format!("arn:aws:kms:{region}:{account}:alias/aws/kinesisvideo");
    StreamInfo {
        creation_time: Some(base::Timestamp::from_millis(record.created_ms)),
        data_retention_in_hours: Some(record.retention_hours),
        device_name: record.device_name.clone(),
        kms_key_id: Some(record.kms_key_id.clone().unwrap_or_else(default_key)),
        media_type: record.media_type.clone(),
        status: Some(Status::Active),
        stream_arn: Some(state.arn.to_string()),
        stream_name: Some(state.arn.name.name.clone()),
        version: Some(record.version.clone()),
    }
}

/// Refuses a version that is not the resource's own.
fn check_version(current: &str, given: Option<&String>) -> Result<(), ControlError> {
    match given {
        Some(given) if given != current => Err(ControlError::VersionMismatch { given: given.clone() }),
        _ => Ok(()),
    }
}
