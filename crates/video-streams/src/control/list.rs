//! ListStreams: in the order of names, in pages; the token is the last name of the page before, in base64.

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisvideo::{ListStreamsInput, ListStreamsOutput, op};

use super::describe;
use crate::VideoStreams;
use crate::error::ControlError;
use crate::limits;
use crate::service::owner;
use crate::token;

impl Handle<op::ListStreams> for VideoStreams {
    async fn handle(&self, request: Request<ListStreamsInput>) -> Result<Reply<ListStreamsOutput>, ApiError> {
        let input = request.input;
        let limit = input.max_results.and_then(|max| usize::try_from(max).ok());
        let limit = limit
            .unwrap_or(limits::LIST_STREAMS_MAX)
            .clamp(1, limits::LIST_STREAMS_MAX);
        let prefix = input
            .stream_name_condition
            .and_then(|condition| condition.comparison_value);
        let after = match &input.next_token {
            Some(text) => {
                let decoded: Option<String> = token::decode(text);
                Some(decoded.ok_or_else(|| ControlError::InvalidArgument("The NextToken is not one of ours.".into()))?)
            }
            None => None,
        };
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
