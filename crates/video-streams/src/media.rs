//! GetMedia and its relatives: stored and live fragments become documents.

pub mod document;
mod fragments;
mod get;
mod list;
mod map;
mod selector;

use std::sync::Arc;

use base::RequestContext;

use crate::error::MediaError;
use crate::follow::FollowError;
use crate::service::{Inner, Unresolved};
use crate::state::StreamState;

impl From<FollowError> for MediaError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Closed => MediaError::Closed,
            FollowError::Storage(error) => MediaError::Storage(error),
        }
    }
}

/// The stream that a request on media means.
pub(crate) fn resolve(
    inner: &Inner,
    context: &RequestContext,
    name: Option<&String>,
    arn: Option<&String>,
) -> Result<Arc<StreamState>, MediaError> {
    let found = inner.resolve(context, name.map(String::as_str), arn.map(String::as_str));
    found.map_err(|unresolved| match unresolved {
        Unresolved::NotFound => MediaError::NotFound,
        Unresolved::Invalid(why) => MediaError::InvalidArgument(why.to_owned()),
    })
}
