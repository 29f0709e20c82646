//! ListUnknownFaces, SearchUnknownFaces, SearchUnknownFacesByImage, IndexUnknownFaces, DeleteUnknownFaces: calls of our
//! own over the unknown faces that stream processors keep beside a collection (`docs/guide/unknown-faces.md`).

use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, Timestamp};
use faces::{FaceId, UnknownFace, UnknownFilter, UnknownMatch};
use serde::{Deserialize, Serialize};
use vision::Face;
use wire::rekognition::{self as w, QualityFilter, op};

use crate::face_operations::{count_of, face_id, face_ids, select, threshold_of};
use crate::processors::record::FramePlace;
use crate::service::{Rekognition, owned, page_size};
use crate::token::Listing;
use crate::{error, limits, shapes};

/// What is kept of an unknown face beside its box and times: where its best picture is, and what it was like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    stream_arn: String,
    fragment_number: String,
    pub(crate) frame_offset_in_seconds: f64,
    time_ms: i64,
    brightness: f32,
    pub(crate) sharpness: f32,
    pitch: f32,
    roll: f32,
    yaw: f32,
    /// Frames that showed the track.
    pub(crate) frames: u64,
}

impl About {
    pub(crate) fn of(face: &Face, place: &FramePlace, stream_arn: &str) -> Self {
        About {
            stream_arn: stream_arn.to_owned(),
            fragment_number: place.fragment.to_string(),
            frame_offset_in_seconds: place.offset_ms / 1000.0,
            time_ms: place.time().millis(),
            brightness: face.quality.brightness,
            sharpness: face.quality.sharpness,
            pitch: face.pose.pitch,
            roll: face.pose.roll,
            yaw: face.pose.yaw,
            frames: 0,
        }
    }

    /// As it is kept, with the number of frames that there are now.
    pub(crate) fn to_text(&self, frames: u64) -> String {
        let about = About { frames, ..self.clone() };
        serde_json::to_string(&about).unwrap_or_default()
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

fn unknown_face(face: &UnknownFace) -> w::UnknownFace {
    let about = About::read(&face.about);
    let frame = |about: &About| w::UnknownFaceFrame {
        fragment_number: Some(about.fragment_number.clone()),
        frame_offset_in_seconds: Some(about.frame_offset_in_seconds as f32),
        producer_timestamp: Some(Timestamp::from_millis(about.time_ms)),
        bounding_box: Some(shapes::stored_box(&face.rect)),
        confidence: Some(face.confidence),
        quality: Some(w::ImageQuality {
            brightness: Some(about.brightness),
            sharpness: Some(about.sharpness),
        }),
        pose: Some(w::Pose {
            pitch: Some(about.pitch),
            roll: Some(about.roll),
            yaw: Some(about.yaw),
        }),
    };
    w::UnknownFace {
        best_frame: about.as_ref().map(frame),
        expires: Some(face.expires),
        face_id: Some(face.face_id.to_string()),
        first_seen: Some(face.first_seen),
        frame_count: about
            .as_ref()
            .map(|about| i64::try_from(about.frames).unwrap_or(i64::MAX)),
        last_seen: Some(face.last_seen),
        stream_arn: about.map(|about| about.stream_arn),
        stream_processor_name: Some(face.source.to_string()),
    }
}

fn matches(found: &[UnknownMatch]) -> Option<Vec<w::UnknownFaceMatch>> {
    let to_match = |found: &UnknownMatch| w::UnknownFaceMatch {
        similarity: Some(found.similarity),
        unknown_face: Some(unknown_face(&found.face)),
    };
    Some(found.iter().map(to_match).collect())
}

fn filter(source: Option<String>, seen_after: Option<Timestamp>, seen_before: Option<Timestamp>) -> UnknownFilter {
    UnknownFilter {
        source,
        seen_after,
        seen_before,
    }
}

/// `MILLISECONDS FACE-ID` of a page's last face.
fn place(text: &str) -> Option<(Timestamp, FaceId)> {
    let (time, face) = text.split_once(' ')?;
    Some((Timestamp::from_millis(time.parse().ok()?), FaceId::parse(face)?))
}

impl Rekognition {
    /// Erases unknown faces whose time is over, now and then, for as long as the server runs.
    pub async fn forget_unknown(self: Arc<Self>) {
        loop {
            match self.faces.expire_unknown().await {
                Ok(0) => {}
                Ok(erased) => tracing::debug!(erased, "unknown faces were forgotten"),
                Err(error) => tracing::error!(%error, "unknown faces whose time is over cannot be erased"),
            }
            tokio::time::sleep(limits::UNKNOWN_EXPIRY_INTERVAL).await;
        }
    }
}

impl Handle<op::ListUnknownFaces> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::ListUnknownFacesRequest>,
    ) -> Result<Reply<w::ListUnknownFacesResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let model = self.faces.describe(&key).map_err(error::from_faces)?.model.id;
        let after = Listing::Unknown.read(input.next_token.as_deref(), place)?;
        let filter = filter(input.stream_processor_name, input.seen_after, input.seen_before);
        let limit = page_size(input.max_results);
        let page = self.faces.list_unknown(&key, &filter, after, limit + 1);
        let mut page = page.map_err(error::from_faces)?;
        let more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| more);
        let token = |face: &Arc<UnknownFace>| {
            let place = format!("{} {}", face.last_seen.millis(), face.face_id);
            Listing::Unknown.token(&place)
        };
        let answer = w::ListUnknownFacesResponse {
            face_model_version: Some(model),
            next_token: last.map(token),
            unknown_faces: Some(page.iter().map(|face| unknown_face(face)).collect()),
        };
        Ok(answer.into())
    }
}

impl Handle<op::SearchUnknownFaces> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::SearchUnknownFacesRequest>,
    ) -> Result<Reply<w::SearchUnknownFacesResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let collection = self.faces.describe(&key).map_err(error::from_faces)?;
        let face = face_id(&input.face_id)?;
        let filter = filter(input.stream_processor_name, input.seen_after, input.seen_before);
        let threshold = threshold_of(input.face_match_threshold);
        let limit = count_of(input.max_faces, limits::MATCHES_MAX);
        let search = move |faces: &faces::FaceStore| faces.search_unknown_by_id(&key, face, threshold, limit, &filter);
        let found = self.off_thread(&collection, search).await?;
        let answer = w::SearchUnknownFacesResponse {
            face_model_version: Some(collection.model.id),
            searched_face_id: Some(face.to_string()),
            unknown_face_matches: matches(&found.map_err(error::from_faces)?),
        };
        Ok(answer.into())
    }
}

impl Handle<op::SearchUnknownFacesByImage> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::SearchUnknownFacesByImageRequest>,
    ) -> Result<Reply<w::SearchUnknownFacesByImageResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let collection = self.usable_collection(&key)?;
        let image = self.bytes_of(&request.context, input.image).await?;
        let analysis = self.embedded(&request.context, image).await?;
        let quality = input.quality_filter.unwrap_or(QualityFilter::None);
        let selection = select(analysis, quality, limits::FACES_PER_IMAGE_MAX);
        let largest = selection.chosen.into_iter().next().ok_or_else(error::no_face)?;
        let filter = filter(input.stream_processor_name, input.seen_after, input.seen_before);
        let threshold = threshold_of(input.face_match_threshold);
        let limit = count_of(input.max_faces, limits::MATCHES_MAX);
        let (model, probe) = (collection.model.id.clone(), largest.embedding.unwrap_or_default());
        let search =
            move |faces: &faces::FaceStore| faces.search_unknown(&key, &model, &probe, threshold, limit, &filter);
        let found = self.off_thread(&collection, search).await?;
        let answer = w::SearchUnknownFacesByImageResponse {
            face_model_version: Some(collection.model.id),
            searched_face_bounding_box: Some(shapes::bounding_box(&largest.bounding_box)),
            searched_face_confidence: Some(largest.confidence),
            unknown_face_matches: matches(&found.map_err(error::from_faces)?),
        };
        Ok(answer.into())
    }
}

impl Handle<op::IndexUnknownFaces> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::IndexUnknownFacesRequest>,
    ) -> Result<Reply<w::IndexUnknownFacesResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let model = self.faces.describe(&key).map_err(error::from_faces)?.model.id;
        let enrolled = self
            .faces
            .enrol_unknown(key, face_ids(&input.face_ids)?, input.external_image_id);
        let enrolled = enrolled.await.map_err(error::from_faces)?;
        let answer = w::IndexUnknownFacesResponse {
            faces: Some(
                enrolled
                    .iter()
                    .map(|record| shapes::stored_face(record, &model))
                    .collect(),
            ),
            face_model_version: Some(model),
        };
        Ok(answer.into())
    }
}

impl Handle<op::DeleteUnknownFaces> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::DeleteUnknownFacesRequest>,
    ) -> Result<Reply<w::DeleteUnknownFacesResponse>, ApiError> {
        let key = owned(&request.context, request.input.collection_id);
        let ids = face_ids(&request.input.face_ids)?;
        let outcome = self.faces.delete_unknown(key, ids).await.map_err(error::from_faces)?;
        let unsuccessful = |id: FaceId| w::UnsuccessfulFaceDeletion {
            face_id: Some(id.to_string()),
            reasons: Some(vec![w::UnsuccessfulFaceDeletionReason::FaceNotFound]),
            user_id: None,
        };
        let answer = w::DeleteUnknownFacesResponse {
            deleted_faces: Some(outcome.deleted.iter().map(FaceId::to_string).collect()),
            unsuccessful_face_deletions: Some(outcome.not_found.into_iter().map(unsuccessful).collect()),
        };
        Ok(answer.into())
    }
}
