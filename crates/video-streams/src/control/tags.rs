//! Tags of streams and signalling channels, by the older operations that take a stream and the newer ones that take any
//! resource.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, RequestContext};
use wire::kinesisvideo::{
    ListTagsForResourceInput, ListTagsForResourceOutput, ListTagsForStreamInput, ListTagsForStreamOutput,
    TagResourceInput, TagResourceOutput, TagStreamInput, TagStreamOutput, UntagResourceInput, UntagResourceOutput,
    UntagStreamInput, UntagStreamOutput, op,
};

use super::channels::record::{ChannelArn, ChannelRecord};
use super::{channels, resolve};
use crate::VideoStreams;
use crate::error::ControlError;
use crate::ingest::leniency::IngestSettings;
use crate::ingest::rules::RuleLimits;
use crate::limits;
use crate::records::{ARCHIVE_HOLD_TAG, ARCHIVE_TAG, ARCHIVED_UNTIL_TAG, MAX_BYTES_TAG, StreamRecord};
use crate::retention;
use crate::service::Inner;
use crate::state::StreamState;
use crate::streams::StreamArn;

/// AWS keeps this beginning of a key to itself.
const RESERVED: &str = "aws:";

/// A tag, what its value must fulfil, and that in words.
type Rule = (&'static str, fn(&str) -> bool, &'static str);

/// Refuses tags of a stream that mean a setting and have no legal value, and more of them than a stream may have.
pub(super) fn check(inner: &Inner, tags: &BTreeMap<String, String>) -> Result<(), ControlError> {
    check_channel(tags)?;
    let ingest = IngestSettings::from_tags(tags, RuleLimits::default());
    ingest.map_err(|invalid| ControlError::InvalidArgument(invalid.to_string()))?;
    if let Some(Err(why)) = tags.get(ARCHIVE_TAG).map(|value| (inner.ports.archive_rule)(value)) {
        return Err(ControlError::InvalidArgument(format!(
            "The tag {ARCHIVE_TAG} cannot be kept: {why}."
        )));
    }
    let rules: [Rule; 3] = [
        (
            MAX_BYTES_TAG,
            |v| v.parse::<u64>().is_ok(),
            "a number of bytes, e.g. 50000000000",
        ),
        (ARCHIVE_HOLD_TAG, |v| matches!(v, "true" | "false"), "true or false"),
        (
            ARCHIVED_UNTIL_TAG,
            |v| wire::time::parse_iso8601(v).is_some(),
            "a time such as 2026-11-23T08:00:00Z, which the archive sets",
        ),
    ];
    for (tag, legal, what) in rules {
        if let Some(value) = tags.get(tag).filter(|value| !legal(value)) {
            return Err(ControlError::InvalidArgument(format!(
                "The tag {tag} is {value:?}; it is {what}."
            )));
        }
    }
    Ok(())
}

/// Refuses more tags than a resource may have, and keys that are AWS's.
pub(super) fn check_channel(tags: &BTreeMap<String, String>) -> Result<(), ControlError> {
    if tags.len() > limits::RESOURCE_TAGS {
        return Err(ControlError::TooManyTags);
    }
    match tags.keys().find(|key| key.starts_with(RESERVED)) {
        Some(key) => Err(ControlError::InvalidArgument(format!(
            "The tag {key:?} begins with {RESERVED}, which is reserved."
        ))),
        None => Ok(()),
    }
}

/// The resource whose tags a request means.
enum Target {
    Stream(Arc<StreamState>),
    Channel(ChannelArn, ChannelRecord),
}

impl Target {
    /// What the older operations mean: a stream.
    fn stream(
        inner: &Inner,
        context: &RequestContext,
        name: Option<&String>,
        arn: Option<&String>,
    ) -> Result<Self, ControlError> {
        if arn.is_some_and(|arn| arn.parse::<StreamArn>().is_err()) {
            return Err(ControlError::InvalidResourceFormat);
        }
        resolve(inner, context, name, arn).map(Target::Stream)
    }

    /// What the newer operations mean: a stream or a channel.
    async fn any(inner: &Inner, context: &RequestContext, arn: &String) -> Result<Self, ControlError> {
        if ChannelArn::parse(arn).is_none() {
            return resolve(inner, context, None, Some(arn)).map(Target::Stream);
        }
        let (arn, record) = channels::resolve(inner, context, None, Some(arn)).await?;
        Ok(Target::Channel(arn, record))
    }

    async fn add(&self, inner: &Inner, added: BTreeMap<String, String>) -> Result<(), ControlError> {
        match self {
            Target::Stream(state) => {
                let change = |record: &mut StreamRecord| {
                    record.tags.extend(added.clone());
                    check(inner, &record.tags)
                };
                inner.change(state, change).await?;
                if added.contains_key(MAX_BYTES_TAG) {
                    retention::sweep_stream(inner, state).await?;
                }
                Ok(())
            }
            Target::Channel(arn, _) => {
                let change = |record: &mut ChannelRecord| {
                    record.tags.extend(added.clone());
                    check_channel(&record.tags)
                };
                inner.channels.update(arn, change).await
            }
        }
    }

    async fn remove(&self, inner: &Inner, keys: &[String]) -> Result<(), ControlError> {
        match self {
            Target::Stream(state) => {
                let change = |record: &mut StreamRecord| {
                    record.tags.retain(|key, _| !keys.contains(key));
                    Ok(())
                };
                inner.change(state, change).await
            }
            Target::Channel(arn, _) => {
                let change = |record: &mut ChannelRecord| {
                    record.tags.retain(|key, _| !keys.contains(key));
                    Ok(())
                };
                inner.channels.update(arn, change).await
            }
        }
    }

    fn tags(self) -> BTreeMap<String, String> {
        match self {
            Target::Stream(state) => state.record().tags.clone(),
            Target::Channel(_, record) => record.tags,
        }
    }
}

/// The rest of a list of tags from which a token leads on. All tags of a resource fit one page, so there is none.
fn no_token(token: Option<&str>) -> Result<(), ControlError> {
    match token {
        None | Some("") => Ok(()),
        Some(_) => Err(ControlError::InvalidArgument(
            "The NextToken is not one of ours.".to_owned(),
        )),
    }
}

impl Handle<op::TagStream> for VideoStreams {
    async fn handle(&self, request: Request<TagStreamInput>) -> Result<Reply<TagStreamOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let target = Target::stream(&self.inner, &request.context, name, arn)?;
        target.add(&self.inner, input.tags).await?;
        Ok(TagStreamOutput {}.into())
    }
}

impl Handle<op::UntagStream> for VideoStreams {
    async fn handle(&self, request: Request<UntagStreamInput>) -> Result<Reply<UntagStreamOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let target = Target::stream(&self.inner, &request.context, name, arn)?;
        target.remove(&self.inner, &input.tag_key_list).await?;
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
        let target = Target::stream(&self.inner, &request.context, name, arn)?;
        no_token(input.next_token.as_deref())?;
        let (tags, next_token) = (Some(target.tags()), None);
        Ok(ListTagsForStreamOutput { next_token, tags }.into())
    }
}

impl Handle<op::TagResource> for VideoStreams {
    async fn handle(&self, request: Request<TagResourceInput>) -> Result<Reply<TagResourceOutput>, ApiError> {
        let input = request.input;
        let target = Target::any(&self.inner, &request.context, &input.resource_arn).await?;
        let tags = input.tags.into_iter().map(|tag| (tag.key, tag.value));
        target.add(&self.inner, tags.collect()).await?;
        Ok(TagResourceOutput {}.into())
    }
}

impl Handle<op::UntagResource> for VideoStreams {
    async fn handle(&self, request: Request<UntagResourceInput>) -> Result<Reply<UntagResourceOutput>, ApiError> {
        let input = request.input;
        let target = Target::any(&self.inner, &request.context, &input.resource_arn).await?;
        target.remove(&self.inner, &input.tag_key_list).await?;
        Ok(UntagResourceOutput {}.into())
    }
}

impl Handle<op::ListTagsForResource> for VideoStreams {
    async fn handle(
        &self,
        request: Request<ListTagsForResourceInput>,
    ) -> Result<Reply<ListTagsForResourceOutput>, ApiError> {
        let input = request.input;
        let target = Target::any(&self.inner, &request.context, &input.resource_arn).await?;
        no_token(input.next_token.as_deref())?;
        let (tags, next_token) = (Some(target.tags()), None);
        Ok(ListTagsForResourceOutput { next_token, tags }.into())
    }
}
