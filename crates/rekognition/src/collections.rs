//! CreateCollection, DescribeCollection, ListCollections, DeleteCollection.

use base::{ApiError, Handle, Reply, Request, ResourceName};
use wire::rekognition::{self as w, op};

use crate::error;
use crate::service::{Rekognition, owned, page_size};
use crate::tags;
use crate::token::Listing;

/// The ARN of a collection.
fn arn(key: &ResourceName) -> String {
    format!(
        "arn:aws:rekognition:{}:{}:collection/{}",
        key.region, key.account, key.name
    )
}

impl Handle<op::CreateCollection> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::CreateCollectionRequest>,
    ) -> Result<Reply<w::CreateCollectionResponse>, ApiError> {
        let tags = request.input.tags.unwrap_or_default();
        tags::check_count(&tags)?;
        let key = owned(&request.context, request.input.collection_id);
        let created = self.faces.create_collection(key, self.vision.model()).await;
        let info = created.map_err(error::from_faces)?;
        if !tags.is_empty() {
            self.tag_new_collection(&info.key, info.id, tags).await?;
        }
        let answer = w::CreateCollectionResponse {
            collection_arn: Some(arn(&info.key)),
            face_model_version: Some(info.model.id),
            status_code: Some(200),
        };
        Ok(answer.into())
    }
}

impl Handle<op::DescribeCollection> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::DescribeCollectionRequest>,
    ) -> Result<Reply<w::DescribeCollectionResponse>, ApiError> {
        let key = owned(&request.context, request.input.collection_id);
        let info = self.faces.describe(&key).map_err(error::from_faces)?;
        let answer = w::DescribeCollectionResponse {
            collection_arn: Some(arn(&info.key)),
            creation_timestamp: Some(info.created),
            face_count: Some(i64::try_from(info.face_count).unwrap_or(i64::MAX)),
            face_model_version: Some(info.model.id),
            user_count: Some(i64::try_from(info.user_count).unwrap_or(i64::MAX)),
        };
        Ok(answer.into())
    }
}

impl Handle<op::ListCollections> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::ListCollectionsRequest>,
    ) -> Result<Reply<w::ListCollectionsResponse>, ApiError> {
        let (caller, input) = (&request.context.caller, &request.input);
        let after = Listing::Collections.read(input.next_token.as_deref(), |text| text.parse().ok())?;
        let limit = page_size(input.max_results);
        let mut page = self
            .faces
            .list_collections(caller.account, &caller.region, after.unwrap_or(0), limit + 1);
        let more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| more);
        let next_token = last.map(|info| Listing::Collections.token(&info.id.to_string()));
        let (collection_ids, face_model_versions) = page.into_iter().map(|info| (info.key.name, info.model.id)).unzip();
        let answer = w::ListCollectionsResponse {
            collection_ids: Some(collection_ids),
            face_model_versions: Some(face_model_versions),
            next_token,
        };
        Ok(answer.into())
    }
}

impl Handle<op::DeleteCollection> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::DeleteCollectionRequest>,
    ) -> Result<Reply<w::DeleteCollectionResponse>, ApiError> {
        let key = owned(&request.context, request.input.collection_id);
        self.faces
            .delete_collection(key.clone())
            .await
            .map_err(error::from_faces)?;
        self.forget_collection_tags(&key).await;
        let answer = w::DeleteCollectionResponse { status_code: Some(200) };
        Ok(answer.into())
    }
}
