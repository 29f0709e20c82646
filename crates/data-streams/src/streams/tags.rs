//! Tags of streams, consumers and queues: the old operations for streams, and the new ones for ARNs.

use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request};
use wire::kinesis::{self, op};

use crate::error::invalid;
use crate::limits;
use crate::ports::{Channels, Tags, is_channel};
use crate::service::DataStreams;

/// Refuses tags that nobody may set, and more than a resource may have.
pub fn check_tags(tags: &Tags, all: usize) -> Result<(), ApiError> {
    let reserved = |text: &&String| text.to_ascii_lowercase().starts_with(limits::TAG_PREFIX_RESERVED);
    if let Some(key) = tags.keys().find(reserved) {
        return Err(invalid(format!(
            "Tag key {key} begins with \"aws:\", which is reserved."
        )));
    }
    let legal = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    let texts = tags.iter().flat_map(|(key, value)| [key, value]);
    if let Some(text) = texts.into_iter().find(|text| !text.chars().all(legal)) {
        return Err(invalid(format!(
            "{text:?} in a tag contains invalid characters. Letters, digits, white space and _ . : / = + - @ are allowed."
        )));
    }
    if all > limits::TAGS_MAX {
        return Err(invalid(format!(
            "A resource cannot have more than {} tags associated with it; it would have {all}.",
            limits::TAGS_MAX
        )));
    }
    Ok(())
}

fn add(tags: &mut Tags, more: Tags) -> Result<(), ApiError> {
    let new = more.keys().filter(|key| !tags.contains_key(*key)).count();
    check_tags(&more, tags.len() + new)?;
    tags.extend(more);
    Ok(())
}

fn remove(tags: &mut Tags, keys: &[String]) {
    tags.retain(|key, _| !keys.contains(key));
}

fn wire_tags<'a>(tags: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<kinesis::Tag> {
    tags.map(|(key, value)| kinesis::Tag {
        key: key.clone(),
        value: Some(value.clone()),
    })
    .collect()
}

impl DataStreams {
    /// Who keeps the channel that an ARN names; `None` if it names none.
    fn channels_of(&self, arn: &str) -> Option<Arc<dyn Channels>> {
        self.channels().filter(|_| is_channel(arn))
    }
}

impl Handle<op::AddTagsToStream> for DataStreams {
    async fn handle(&self, request: Request<kinesis::AddTagsToStreamInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::AddTagsToStream>(&request.context.caller, named)?;
        self.change(&stream, move |record| add(&mut record.tags, input.tags))
            .await?;
        Ok(().into())
    }
}

impl Handle<op::RemoveTagsFromStream> for DataStreams {
    async fn handle(&self, request: Request<kinesis::RemoveTagsFromStreamInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::RemoveTagsFromStream>(&request.context.caller, named)?;
        self.change(&stream, move |record| {
            remove(&mut record.tags, &input.tag_keys);
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::ListTagsForStream> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::ListTagsForStreamInput>,
    ) -> Result<Reply<kinesis::ListTagsForStreamOutput>, ApiError> {
        let input = &request.input;
        let named = (input.stream_name.as_deref(), input.stream_arn.as_deref());
        let stream = self.resolve::<op::ListTagsForStream>(&request.context.caller, named)?;
        let limit = input
            .limit
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(limits::TAGS_MAX);
        let behind = |key: &String| input.exclusive_start_tag_key.as_ref().is_none_or(|start| key > start);
        let mut rest = stream.record.tags.iter().filter(|(key, _)| behind(key));
        let tags = wire_tags(rest.by_ref().take(limit));
        Ok(kinesis::ListTagsForStreamOutput {
            has_more_tags: rest.next().is_some(),
            tags,
        }
        .into())
    }
}

impl Handle<op::TagResource> for DataStreams {
    async fn handle(&self, request: Request<kinesis::TagResourceInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        if let Some(channels) = self.channels_of(&input.resource_arn) {
            let arn = input.resource_arn.clone();
            let change = Box::new(move |tags: &mut Tags| add(tags, input.tags));
            channels.change_tags(&request.context.caller, &arn, change).await?;
            return Ok(().into());
        }
        let target = self.target::<op::TagResource>(&request.context.caller, &input.resource_arn)?;
        let stream = target.stream.clone();
        self.change(&stream, move |record| add(target.tags_mut(record)?, input.tags))
            .await?;
        Ok(().into())
    }
}

impl Handle<op::UntagResource> for DataStreams {
    async fn handle(&self, request: Request<kinesis::UntagResourceInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        if let Some(channels) = self.channels_of(&input.resource_arn) {
            let arn = input.resource_arn.clone();
            let change = Box::new(move |tags: &mut Tags| {
                remove(tags, &input.tag_keys);
                Ok(())
            });
            channels.change_tags(&request.context.caller, &arn, change).await?;
            return Ok(().into());
        }
        let target = self.target::<op::UntagResource>(&request.context.caller, &input.resource_arn)?;
        let stream = target.stream.clone();
        self.change(&stream, move |record| {
            remove(target.tags_mut(record)?, &input.tag_keys);
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::ListTagsForResource> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::ListTagsForResourceInput>,
    ) -> Result<Reply<kinesis::ListTagsForResourceOutput>, ApiError> {
        let arn = &request.input.resource_arn;
        if let Some(channels) = self.channels_of(arn) {
            let tags = channels.tags(&request.context.caller, arn)?;
            return Ok(kinesis::ListTagsForResourceOutput {
                tags: Some(wire_tags(tags.iter())),
            }
            .into());
        }
        let target = self.target::<op::ListTagsForResource>(&request.context.caller, arn)?;
        Ok(kinesis::ListTagsForResourceOutput {
            tags: Some(wire_tags(target.tags().iter())),
        }
        .into())
    }
}
