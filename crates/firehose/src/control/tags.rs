//! TagDeliveryStream, UntagDeliveryStream and ListTagsForDeliveryStream.

use std::collections::BTreeMap;

use base::{ApiError, Handle, Reply, Request};
use wire::firehose::{self, Tag, op};

use crate::error::{invalid, limit};
use crate::limits;
use crate::service::Firehose;

type Tags = BTreeMap<String, String>;

/// Tags of a request.
pub fn as_map(tags: Vec<Tag>) -> Tags {
    tags.into_iter()
        .map(|tag| (tag.key, tag.value.unwrap_or_default()))
        .collect()
}

/// Refuses tags that nobody may set, and more than a delivery stream may have.
pub fn check_tags(tags: &Tags, all: usize) -> Result<(), ApiError> {
    if let Some(key) = tags.keys().find(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(invalid(format!(
            "Tag key {key} begins with \"aws:\", which is reserved."
        )));
    }
    if all > limits::TAGS_MAX {
        return Err(limit(format!(
            "A delivery stream cannot have more than {} tags; it would have {all}.",
            limits::TAGS_MAX
        )));
    }
    Ok(())
}

impl Handle<op::TagDeliveryStream> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::TagDeliveryStreamInput>,
    ) -> Result<Reply<firehose::TagDeliveryStreamOutput>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.delivery_stream_name)?;
        let more = as_map(input.tags);
        self.change(&state, move |_, record| {
            let new = more.keys().filter(|key| !record.tags.contains_key(*key)).count();
            check_tags(&more, record.tags.len() + new)?;
            record.tags.extend(more);
            Ok(())
        })
        .await?;
        Ok(firehose::TagDeliveryStreamOutput {}.into())
    }
}

impl Handle<op::UntagDeliveryStream> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::UntagDeliveryStreamInput>,
    ) -> Result<Reply<firehose::UntagDeliveryStreamOutput>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.delivery_stream_name)?;
        self.change(&state, move |_, record| {
            record.tags.retain(|key, _| !input.tag_keys.contains(key));
            Ok(())
        })
        .await?;
        Ok(firehose::UntagDeliveryStreamOutput {}.into())
    }
}

impl Handle<op::ListTagsForDeliveryStream> for Firehose {
    async fn handle(
        &self,
        request: Request<firehose::ListTagsForDeliveryStreamInput>,
    ) -> Result<Reply<firehose::ListTagsForDeliveryStreamOutput>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.delivery_stream_name)?;
        let limit = input.limit.and_then(|l| usize::try_from(l).ok());
        let after = input.exclusive_start_tag_key;
        let behind = |key: &String| after.as_ref().is_none_or(|after| key > after);
        let mut rest = state.record.tags.iter().filter(|(key, _)| behind(key));
        let tag = |(key, value): (&String, &String)| Tag {
            key: key.clone(),
            value: Some(value.clone()),
        };
        let tags = rest.by_ref().take(limit.unwrap_or(limits::TAGS_MAX)).map(tag).collect();
        Ok(firehose::ListTagsForDeliveryStreamOutput {
            has_more_tags: rest.next().is_some(),
            tags,
        }
        .into())
    }
}
