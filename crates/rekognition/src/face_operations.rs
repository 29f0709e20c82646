//! IndexFaces, ListFaces, DeleteFaces, SearchFaces, SearchFacesByImage.

use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, RequestContext, ResourceName};
use bytes::Bytes;
use faces::{CollectionInfo, FaceFilter, FaceId, FaceMatch, ImageDigest, NewFace};
use vision::{Face, ImageAnalysis};
use wire::rekognition::{self as w, QualityFilter, Reason, op};

use crate::attributes::Wanted;
use crate::quality::{area, rank, shortcomings};
use crate::service::{Rekognition, owned, page_size};
use crate::token::Listing;
use crate::{error, limits, shapes};

/// The faces of an image, parted into those to enrol and those left out, both largest first.
pub(crate) struct Selection {
    pub(crate) chosen: Vec<Face>,
    pub(crate) left_out: Vec<(Face, Vec<Reason>)>,
}

/// Applies the quality filter, then `max_faces`: beyond it the poorest are dropped first, and of two alike the smaller.
pub(crate) fn select(mut analysis: ImageAnalysis, filter: QualityFilter, max_faces: usize) -> Selection {
    let found = std::mem::take(&mut analysis.faces);
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for face in found {
        let mut reasons = shortcomings(&face, &analysis, filter);
        if reasons.is_empty() && face.embedding.is_none() {
            reasons.push(Reason::LowFaceQuality);
        }
        if reasons.is_empty() {
            chosen.push(face);
        } else {
            left_out.push((face, reasons));
        }
    }
    if chosen.len() > max_faces {
        chosen.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then(area(b).total_cmp(&area(a))));
        let beyond = chosen.split_off(max_faces);
        left_out.extend(beyond.into_iter().map(|face| (face, vec![Reason::ExceedsMaxFaces])));
    }
    chosen.sort_by(|a, b| area(b).total_cmp(&area(a)));
    left_out.sort_by(|(a, _), (b, _)| area(b).total_cmp(&area(a)));
    Selection { chosen, left_out }
}

impl Rekognition {
    /// The collection, if its vectors can be compared with those of the model in use.
    pub(crate) fn usable_collection(&self, key: &ResourceName) -> Result<CollectionInfo, ApiError> {
        let info = self.faces.describe(key).map_err(error::from_faces)?;
        let model = self.vision.model();
        if info.model != model {
            return Err(error::from_faces(faces::FacesError::ModelMismatch {
                collection: info.model.id,
                given: model.id,
            }));
        }
        Ok(info)
    }

    /// The faces of an image with their vectors and default attributes, largest first.
    pub(crate) async fn embedded(&self, context: &RequestContext, image: Bytes) -> Result<ImageAnalysis, ApiError> {
        self.analyze(context, image, true, Wanted::default()).await
    }

    /// Runs a search where it does not hold up other requests: large collections on a blocking thread.
    pub(crate) async fn off_thread<T: Send + 'static>(
        &self,
        collection: &CollectionInfo,
        search: impl FnOnce(&faces::FaceStore) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if collection.face_count.max(collection.unknown_count) <= limits::INLINE_SEARCH_FACES_MAX {
            return Ok(search(&self.faces));
        }
        let faces = Arc::clone(&self.faces);
        let searched = tokio::task::spawn_blocking(move || search(&faces)).await;
        searched.map_err(error::internal)
    }
}

pub(crate) fn threshold_of(requested: Option<f32>) -> f32 {
    requested.unwrap_or(limits::FACE_MATCH_THRESHOLD_DEFAULT)
}

pub(crate) fn count_of(requested: Option<i32>, most: usize) -> usize {
    requested
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(most)
        .clamp(1, most)
}

pub(crate) fn face_id(text: &str) -> Result<FaceId, ApiError> {
    FaceId::parse(text).ok_or_else(|| error::invalid_parameter(format!("{text:?} is not a face id")))
}

pub(crate) fn face_ids(texts: &[String]) -> Result<Vec<FaceId>, ApiError> {
    texts.iter().map(|text| face_id(text)).collect()
}

fn matches(found: &[FaceMatch], model: &str) -> Option<Vec<w::FaceMatch>> {
    Some(found.iter().map(|found| shapes::face_match(found, model)).collect())
}

impl Handle<op::IndexFaces> for Rekognition {
    async fn handle(&self, request: Request<w::IndexFacesRequest>) -> Result<Reply<w::IndexFacesResponse>, ApiError> {
        let input = request.input;
        let wanted = Wanted::of(input.detection_attributes.as_deref(), self.vision.abilities())?;
        let key = owned(&request.context, input.collection_id);
        let model = self.usable_collection(&key)?.model.id;
        let image = self.bytes_of(&request.context, input.image).await?;
        let digest = ImageDigest::of(&image);
        let analysis = self.analyze(&request.context, image, true, wanted).await?;
        let filter = input.quality_filter.unwrap_or(QualityFilter::Auto);
        let selection = select(analysis, filter, count_of(input.max_faces, limits::FACES_PER_IMAGE_MAX));
        let new = selection.chosen.iter().map(|face| NewFace {
            rect: shapes::rect(&face.bounding_box),
            confidence: face.confidence,
            vector: face.embedding.clone().unwrap_or_default(),
        });
        let (new, external) = (new.collect(), input.external_image_id);
        let indexed = self.faces.index_faces(key, model.clone(), digest, external, new).await;
        let indexed = indexed.map_err(error::from_faces)?;
        let record = |(face, indexed): (&Face, &faces::IndexedFace)| w::FaceRecord {
            face: Some(shapes::stored_face(&indexed.record, &model)),
            face_detail: Some(wanted.detail(face)),
        };
        let unindexed = |(face, reasons): (Face, Vec<Reason>)| w::UnindexedFace {
            face_detail: Some(wanted.detail(&face)),
            reasons: Some(reasons),
        };
        let answer = w::IndexFacesResponse {
            face_records: Some(selection.chosen.iter().zip(&indexed).map(record).collect()),
            unindexed_faces: Some(selection.left_out.into_iter().map(unindexed).collect()),
            face_model_version: Some(model),
            orientation_correction: None,
        };
        Ok(answer.into())
    }
}

impl Handle<op::ListFaces> for Rekognition {
    async fn handle(&self, request: Request<w::ListFacesRequest>) -> Result<Reply<w::ListFacesResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let model = self.faces.describe(&key).map_err(error::from_faces)?.model.id;
        let after = Listing::Faces.read(input.next_token.as_deref(), FaceId::parse)?;
        let only = face_ids(input.face_ids.as_deref().unwrap_or_default())?;
        let limit = page_size(input.max_results);
        let filter = FaceFilter {
            only: &only,
            user: input.user_id.as_deref(),
        };
        let page = self.faces.list_faces(&key, after, limit + 1, filter);
        let mut page = page.map_err(error::from_faces)?;
        let more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| more);
        let next_token = last.map(|record| Listing::Faces.token(&record.face_id.to_string()));
        let answer = w::ListFacesResponse {
            faces: Some(page.iter().map(|record| shapes::stored_face(record, &model)).collect()),
            face_model_version: Some(model),
            next_token,
        };
        Ok(answer.into())
    }
}

impl Handle<op::DeleteFaces> for Rekognition {
    async fn handle(&self, request: Request<w::DeleteFacesRequest>) -> Result<Reply<w::DeleteFacesResponse>, ApiError> {
        let key = owned(&request.context, request.input.collection_id);
        let ids = face_ids(&request.input.face_ids)?;
        let outcome = self.faces.delete_faces(key, ids).await.map_err(error::from_faces)?;
        use w::UnsuccessfulFaceDeletionReason::{AssociatedToAnExistingUser, FaceNotFound};
        let unsuccessful = |id: FaceId, reason, user: Option<String>| w::UnsuccessfulFaceDeletion {
            face_id: Some(id.to_string()),
            reasons: Some(vec![reason]),
            user_id: user,
        };
        let not_found = outcome.not_found.into_iter();
        let not_found = not_found.map(|id| unsuccessful(id, FaceNotFound, None));
        let of_users = outcome.of_users.into_iter();
        let of_users = of_users.map(|(id, user)| unsuccessful(id, AssociatedToAnExistingUser, Some(user.to_string())));
        let answer = w::DeleteFacesResponse {
            deleted_faces: Some(outcome.deleted.iter().map(FaceId::to_string).collect()),
            unsuccessful_face_deletions: Some(not_found.chain(of_users).collect()),
        };
        Ok(answer.into())
    }
}

impl Handle<op::SearchFaces> for Rekognition {
    async fn handle(&self, request: Request<w::SearchFacesRequest>) -> Result<Reply<w::SearchFacesResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let collection = self.faces.describe(&key).map_err(error::from_faces)?;
        let face = face_id(&input.face_id)?;
        let threshold = threshold_of(input.face_match_threshold);
        let limit = count_of(input.max_faces, limits::MATCHES_MAX);
        let search = move |faces: &faces::FaceStore| faces.search_by_id(&key, face, threshold, limit);
        let found = self.off_thread(&collection, search).await?.map_err(error::from_faces)?;
        let answer = w::SearchFacesResponse {
            face_matches: matches(&found, &collection.model.id),
            searched_face_id: Some(face.to_string()),
            face_model_version: Some(collection.model.id),
        };
        Ok(answer.into())
    }
}

impl Handle<op::SearchFacesByImage> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::SearchFacesByImageRequest>,
    ) -> Result<Reply<w::SearchFacesByImageResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let collection = self.usable_collection(&key)?;
        let image = self.bytes_of(&request.context, input.image).await?;
        let analysis = self.embedded(&request.context, image).await?;
        let filter = input.quality_filter.unwrap_or(QualityFilter::None);
        let selection = select(analysis, filter, limits::FACES_PER_IMAGE_MAX);
        let Some(largest) = selection.chosen.into_iter().next() else {
            return Err(error::no_face());
        };
        let threshold = threshold_of(input.face_match_threshold);
        let limit = count_of(input.max_faces, limits::MATCHES_MAX);
        let (model, probe) = (
            collection.model.id.clone(),
            largest.embedding.clone().unwrap_or_default(),
        );
        let search = move |faces: &faces::FaceStore| faces.search(&key, &model, &probe, threshold, limit);
        let found = self.off_thread(&collection, search).await?.map_err(error::from_faces)?;
        let answer = w::SearchFacesByImageResponse {
            face_matches: matches(&found, &collection.model.id),
            face_model_version: Some(collection.model.id),
            searched_face_bounding_box: Some(shapes::bounding_box(&largest.bounding_box)),
            searched_face_confidence: Some(largest.confidence),
        };
        Ok(answer.into())
    }
}
