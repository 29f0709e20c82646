//! Tags of collections and stream processors. Those of a processor lie in its definition, where `sightglass:` tags are its
//! settings; those of a collection in the catalog, bound to the collection's id, so that a collection made anew under an
//! old name does not inherit them.

use std::collections::BTreeMap;

use base::{ApiError, Caller, Handle, Reply, Request, ResourceName};
use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, put_json, update_json};
use storage::{CatalogError, CatalogKey, Change, Expect};
use wire::rekognition::{self as w, op};

use crate::service::Rekognition;
use crate::{error, limits};

/// Tags by key.
pub(crate) type Tags = BTreeMap<String, String>;

/// The tags of a collection.
#[derive(Debug, Default, Serialize, Deserialize)]
struct CollectionTags {
    /// Tags of another id belong to a collection that is gone.
    collection: i64,
    tags: Tags,
}

/// What a resource's ARN names.
enum Tagged {
    Collection(ResourceName),
    Processor(ResourceName),
}

/// Why a change of a collection's tags was not made.
#[derive(Debug)]
enum Failure {
    Catalog(CatalogError),
    Refused(ApiError),
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        Failure::Catalog(error)
    }
}

fn collection_tags_key(key: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(key.account, &key.region)
        .with("collection-tags")
        .with(&key.name)
}

/// Finds out what the ARN names. The same error for what does not exist and for what is somebody else's.
fn tagged(caller: &Caller, arn: &str) -> Result<Tagged, ApiError> {
    let absent = || error::not_found(format!("The resource {arn} does not exist"));
    let own = format!("arn:aws:rekognition:{}:{}:", caller.region, caller.account);
    let (kind, name) = arn
        .strip_prefix(&own)
        .and_then(|path| path.split_once('/'))
        .ok_or_else(absent)?;
    let key = ResourceName {
        account: caller.account,
        region: caller.region.clone(),
        name: name.to_owned(),
    };
    match kind {
        "collection" => Ok(Tagged::Collection(key)),
        "streamprocessor" => Ok(Tagged::Processor(key)),
        _ => Err(absent()),
    }
}

/// Checks the number of tags a resource would have.
pub(crate) fn check_count(tags: &Tags) -> Result<(), ApiError> {
    if tags.len() > limits::TAGS_MAX {
        let message = format!("a resource has at most {} tags", limits::TAGS_MAX);
        return Err(ApiError::client("ServiceQuotaExceededException", message));
    }
    Ok(())
}

impl Rekognition {
    /// Sets the first tags of a collection that was just created.
    pub(crate) async fn tag_new_collection(&self, key: &ResourceName, id: i64, tags: Tags) -> Result<(), ApiError> {
        let tags = CollectionTags { collection: id, tags };
        let put = put_json(collection_tags_key(key), &tags, Expect::Any).map_err(error::internal)?;
        self.catalog.commit(vec![put]).await.map(drop).map_err(error::internal)
    }

    /// Forgets the tags of a deleted collection. What fails here is harmless: the tags name the id of the deleted one.
    pub(crate) async fn forget_collection_tags(&self, key: &ResourceName) {
        let delete = Change::Delete {
            key: collection_tags_key(key).into(),
            expect: Expect::Any,
        };
        if let Err(error) = self.catalog.commit(vec![delete]).await {
            tracing::warn!(collection = %key.name, %error, "the tags of a deleted collection are still there");
        }
    }

    async fn tags_of(&self, caller: &Caller, arn: &str) -> Result<Tags, ApiError> {
        match tagged(caller, arn)? {
            Tagged::Processor(key) => self.processors.tags(&key).await,
            Tagged::Collection(key) => {
                let id = self.faces.describe(&key).map_err(error::from_faces)?.id;
                let found = get_json::<CollectionTags>(&*self.catalog, collection_tags_key(&key)).await;
                let found = found.map_err(error::internal)?.map(|entry| entry.value);
                Ok(found.filter(|found| found.collection == id).unwrap_or_default().tags)
            }
        }
    }

    async fn change_tags(&self, caller: &Caller, arn: &str, change: impl Fn(&mut Tags) + Send) -> Result<(), ApiError> {
        match tagged(caller, arn)? {
            Tagged::Processor(key) => self.processors.change_tags(&key, change).await,
            Tagged::Collection(key) => {
                let id = self.faces.describe(&key).map_err(error::from_faces)?.id;
                let step = |found: Option<CollectionTags>| {
                    let mut tags = found.filter(|found| found.collection == id).unwrap_or_default().tags;
                    change(&mut tags);
                    check_count(&tags).map_err(Failure::Refused)?;
                    Ok(Some(CollectionTags { collection: id, tags }))
                };
                let updated = update_json(&*self.catalog, collection_tags_key(&key), step).await;
                updated.map(drop).map_err(|failure| match failure {
                    Failure::Catalog(error) => error::internal(error),
                    Failure::Refused(error) => error,
                })
            }
        }
    }
}

impl Handle<op::TagResource> for Rekognition {
    async fn handle(&self, request: Request<w::TagResourceRequest>) -> Result<Reply<w::TagResourceResponse>, ApiError> {
        let (caller, input) = (&request.context.caller, request.input);
        self.change_tags(caller, &input.resource_arn, |tags| tags.extend(input.tags.clone()))
            .await?;
        Ok(w::TagResourceResponse {}.into())
    }
}

impl Handle<op::UntagResource> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::UntagResourceRequest>,
    ) -> Result<Reply<w::UntagResourceResponse>, ApiError> {
        let (caller, input) = (&request.context.caller, request.input);
        let remove = |tags: &mut Tags| tags.retain(|key, _| !input.tag_keys.contains(key));
        self.change_tags(caller, &input.resource_arn, remove).await?;
        Ok(w::UntagResourceResponse {}.into())
    }
}

impl Handle<op::ListTagsForResource> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::ListTagsForResourceRequest>,
    ) -> Result<Reply<w::ListTagsForResourceResponse>, ApiError> {
        let tags = self
            .tags_of(&request.context.caller, &request.input.resource_arn)
            .await?;
        Ok(w::ListTagsForResourceResponse { tags: Some(tags) }.into())
    }
}
