//! TagResource, UntagResource and ListTagsForResource.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ApiError, Caller, Handle, Reply, Request};
use wire::kinesisanalyticsv2::{self as model, Tag, op};

use crate::error::{invalid, not_found};
use crate::limits;
use crate::service::{Analytics, AppState};

type Tags = BTreeMap<String, String>;

/// Tags of a request.
pub fn as_map(tags: Vec<Tag>) -> Tags {
    tags.into_iter()
        .map(|tag| (tag.key, tag.value.unwrap_or_default()))
        .collect()
}

/// Refuses tags that nobody may set, and more than an application may have.
pub fn check_tags(tags: &Tags, all: usize) -> Result<(), ApiError> {
    if let Some(key) = tags.keys().find(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(invalid(format!(
            "Tag key {key} begins with \"aws:\", which is reserved."
        )));
    }
    match all <= limits::TAGS_MAX {
        true => Ok(()),
        false => Err(ApiError::client(
            "TooManyTagsException",
            format!(
                "An application cannot have more than {} tags; it would have {all}.",
                limits::TAGS_MAX
            ),
        )),
    }
}

impl Analytics {
    /// The caller's application of that ARN.
    fn by_arn(&self, caller: &Caller, arn: &str) -> Result<Arc<AppState>, ApiError> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let &["arn", "aws", "kinesisanalytics", region, account, resource] = parts.as_slice() else {
            return Err(invalid(format!("{arn} is not the ARN of an application.")));
        };
        let Some(name) = resource.strip_prefix("application/").filter(|name| !name.is_empty()) else {
            return Err(invalid(format!("{arn} is not the ARN of an application.")));
        };
        let own = region == caller.region.to_string() && account == caller.account.to_string();
        match own {
            true => self.find(caller, name),
            false => Err(not_found(name, caller.account)),
        }
    }
}

impl Handle<op::TagResource> for Analytics {
    async fn handle(
        &self,
        request: Request<model::TagResourceRequest>,
    ) -> Result<Reply<model::TagResourceResponse>, ApiError> {
        let input = request.input;
        let state = self.by_arn(&request.context.caller, &input.resource_arn)?;
        let more = as_map(input.tags);
        self.change(&state, move |_, draft| {
            let tags = &mut draft.record.tags;
            let new = more.keys().filter(|key| !tags.contains_key(*key)).count();
            check_tags(&more, tags.len() + new)?;
            tags.extend(more);
            Ok(())
        })
        .await?;
        Ok(model::TagResourceResponse {}.into())
    }
}

impl Handle<op::UntagResource> for Analytics {
    async fn handle(
        &self,
        request: Request<model::UntagResourceRequest>,
    ) -> Result<Reply<model::UntagResourceResponse>, ApiError> {
        let input = request.input;
        let state = self.by_arn(&request.context.caller, &input.resource_arn)?;
        self.change(&state, move |_, draft| {
            draft.record.tags.retain(|key, _| !input.tag_keys.contains(key));
            Ok(())
        })
        .await?;
        Ok(model::UntagResourceResponse {}.into())
    }
}

impl Handle<op::ListTagsForResource> for Analytics {
    async fn handle(
        &self,
        request: Request<model::ListTagsForResourceRequest>,
    ) -> Result<Reply<model::ListTagsForResourceResponse>, ApiError> {
        let state = self.by_arn(&request.context.caller, &request.input.resource_arn)?;
        let tag = |(key, value): (&String, &String)| Tag {
            key: key.clone(),
            value: Some(value.clone()),
        };
        Ok(model::ListTagsForResourceResponse {
            tags: Some(state.record.tags.iter().map(tag).collect()),
        }
        .into())
    }
}
