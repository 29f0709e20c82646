//! Tags of streams, by the older operations that take a stream and the newer ones that take any resource.

use std::collections::BTreeMap;

use base::{ApiError, Handle, Reply, Request, RequestContext};
use wire::kinesisvideo::{
    ListTagsForResourceInput, ListTagsForResourceOutput, ListTagsForStreamInput, ListTagsForStreamOutput,
    TagResourceInput, TagResourceOutput, TagStreamInput, TagStreamOutput, UntagResourceInput, UntagResourceOutput,
    UntagStreamInput, UntagStreamOutput, op,
};

use super::resolve;
use crate::VideoStreams;
use crate::error::ControlError;
use crate::limits;
use crate::records::MAX_BYTES_TAG;
use crate::retention;

/// Refuses tags that mean a setting and have no legal value, and more of them than a stream may have.
pub(super) fn check(tags: &BTreeMap<String, String>) -> Result<(), ControlError> {
    if tags.len() > limits::STREAM_TAGS {
        return Err(ControlError::TooManyTags);
    }
    match tags.get(MAX_BYTES_TAG) {
        Some(value) if value.parse::<u64>().is_err() => Err(ControlError::InvalidArgument(format!(
            "The tag {MAX_BYTES_TAG} is {value:?}; it is a number of bytes, e.g. 50000000000."
        ))),
        _ => Ok(()),
    }
}

/// The stream that a request names, in its three ways.
struct Target<'a> {
    name: Option<&'a String>,
    arn: Option<&'a String>,
}

impl VideoStreams {
    async fn add_tags(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        tags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ControlError> {
        let state = resolve(&self.inner, context, target.name, target.arn)?;
        let added: BTreeMap<String, String> = tags.into_iter().collect();
        self.inner
            .change(&state, |record| {
                record.tags.extend(added.clone());
                check(&record.tags)
            })
            .await?;
        if added.contains_key(MAX_BYTES_TAG) {
            retention::sweep_stream(&self.inner, &state).await?;
        }
        Ok(())
    }

    async fn remove_tags(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        keys: Vec<String>,
    ) -> Result<(), ControlError> {
        let state = resolve(&self.inner, context, target.name, target.arn)?;
        self.inner
            .change(&state, |record| {
                record.tags.retain(|key, _| !keys.contains(key));
                Ok(())
            })
            .await
    }

    fn tags(&self, context: &RequestContext, target: &Target<'_>) -> Result<BTreeMap<String, String>, ControlError> {
        Ok(resolve(&self.inner, context, target.name, target.arn)?
            .record()
            .tags
            .clone())
    }
}

impl Handle<op::TagStream> for VideoStreams {
    async fn handle(&self, request: Request<TagStreamInput>) -> Result<Reply<TagStreamOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        self.add_tags(&request.context, Target { name, arn }, input.tags)
            .await?;
        Ok(TagStreamOutput {}.into())
    }
}

impl Handle<op::UntagStream> for VideoStreams {
    async fn handle(&self, request: Request<UntagStreamInput>) -> Result<Reply<UntagStreamOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        self.remove_tags(&request.context, Target { name, arn }, input.tag_key_list)
            .await?;
        Ok(UntagStreamOutput {}.into())
    }
}

impl Handle<op::ListTagsForStream> for VideoStreams {
    async fn handle(
        &self,
        request: Request<ListTagsForStreamInput>,
    ) -> Result<Reply<ListTagsForStreamOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let tags = Some(self.tags(&request.context, &Target { name, arn })?);
        // All tags of a stream fit one page.
        let next_token = None;
        Ok(ListTagsForStreamOutput { next_token, tags }.into())
    }
}

impl Handle<op::TagResource> for VideoStreams {
    async fn handle(&self, request: Request<TagResourceInput>) -> Result<Reply<TagResourceOutput>, ApiError> {
        let input = request.input;
        let arn = Some(&input.resource_arn);
        let tags = input.tags.into_iter().map(|tag| (tag.key, tag.value));
        self.add_tags(&request.context, Target { name: None, arn }, tags)
            .await?;
        Ok(TagResourceOutput {}.into())
    }
}

impl Handle<op::UntagResource> for VideoStreams {
    async fn handle(&self, request: Request<UntagResourceInput>) -> Result<Reply<UntagResourceOutput>, ApiError> {
        let input = request.input;
        let arn = Some(&input.resource_arn);
        self.remove_tags(&request.context, Target { name: None, arn }, input.tag_key_list)
            .await?;
        Ok(UntagResourceOutput {}.into())
    }
}

impl Handle<op::ListTagsForResource> for VideoStreams {
    async fn handle(
        &self,
        request: Request<ListTagsForResourceInput>,
    ) -> Result<Reply<ListTagsForResourceOutput>, ApiError> {
        let input = request.input;
        let arn = Some(&input.resource_arn);
        let tags = Some(self.tags(&request.context, &Target { name: None, arn })?);
        let next_token = None;
        Ok(ListTagsForResourceOutput { next_token, tags }.into())
    }
}
