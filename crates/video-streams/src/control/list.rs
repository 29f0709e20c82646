//! ListStreams: in the order of names, in pages; the token is the last name of the page before, in base64.

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisvideo::{ListStreamsInput, ListStreamsOutput, op};

use super::describe;
use crate::VideoStreams;
use crate::error::ControlError;
use crate::limits;
use crate::service::owner;
use crate::token;

/// How many a page holds at most; all that it may when the caller does not say.
pub(super) fn limit(max_results: Option<i32>, most: usize) -> usize {
    let wanted = max_results.and_then(|max| usize::try_from(max).ok());
    wanted.unwrap_or(most).clamp(1, most)
}

/// The place of a page's token.
pub(super) fn after(token: Option<&str>) -> Result<Option<String>, ControlError> {
    let decode = |text| {
        let place: Option<String> = token::decode(text);
        place.ok_or_else(|| ControlError::InvalidArgument("The NextToken is not one of ours.".to_owned()))
    };
    token.map(decode).transpose()
}

impl Handle<op::ListStreams> for VideoStreams {
    async fn handle(&self, request: Request<ListStreamsInput>) -> Result<Reply<ListStreamsOutput>, ApiError> {
        let input = request.input;
        let limit = limit(input.max_results, limits::LIST_STREAMS_MAX);
        let prefix = input
            .stream_name_condition
            .and_then(|condition| condition.comparison_value);
        let after = after(input.next_token.as_deref())?;
        let owner = owner(&request.context);
        let prefix = prefix.unwrap_or_default();
        let (page, more) = self.inner.streams.page(&owner, &prefix, after.as_deref(), limit);
        let last = page.last().filter(|_| more);
        Ok(ListStreamsOutput {
            next_token: last.map(|state| token::encode(&state.arn.name.name)),
            stream_info_list: Some(page.iter().map(|state| describe(state)).collect()),
        }
        .into())
    }
}
