//! CreateUser, DeleteUser, ListUsers, AssociateFaces, DisassociateFaces, SearchUsers, SearchUsersByImage.

use base::{ApiError, Handle, Reply, Request};
use faces::{FaceId, FaceStore, Refusal, UserChange, UserStatus};
use vision::Face;
use wire::rekognition::{self as w, QualityFilter, Reason, UnsearchedFaceReason, op};

use crate::face_operations::{Selection, count_of, face_id, face_ids, select, threshold_of};
use crate::service::{Rekognition, owned};
use crate::token::Listing;
use crate::{error, limits, shapes};

fn status(status: UserStatus) -> w::UserStatus {
    match status {
        UserStatus::Created => w::UserStatus::Created,
        UserStatus::Active => w::UserStatus::Active,
    }
}

fn matches(found: &[faces::UserMatch]) -> Option<Vec<w::UserMatch>> {
    let user_match = |found: &faces::UserMatch| w::UserMatch {
        similarity: Some(found.similarity),
        user: Some(w::MatchedUser {
            user_id: Some(found.user.name.to_string()),
            user_status: Some(status(found.user.status)),
        }),
    };
    Some(found.iter().map(user_match).collect())
}

/// Why a face that could be enrolled is not searched for.
fn unsearched_reason(reason: &Reason) -> UnsearchedFaceReason {
    match reason {
        Reason::ExceedsMaxFaces => UnsearchedFaceReason::ExceedsMaxFaces,
        Reason::ExtremePose => UnsearchedFaceReason::ExtremePose,
        Reason::LowBrightness => UnsearchedFaceReason::LowBrightness,
        Reason::LowSharpness => UnsearchedFaceReason::LowSharpness,
        Reason::LowConfidence => UnsearchedFaceReason::LowConfidence,
        Reason::SmallBoundingBox => UnsearchedFaceReason::SmallBoundingBox,
        Reason::LowFaceQuality => UnsearchedFaceReason::LowFaceQuality,
    }
}

impl Handle<op::CreateUser> for Rekognition {
    async fn handle(&self, request: Request<w::CreateUserRequest>) -> Result<Reply<w::CreateUserResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let changed = self
            .faces
            .change_user(key, input.user_id, UserChange::Create, input.client_request_token);
        changed.await.map_err(error::from_faces)?;
        Ok(w::CreateUserResponse {}.into())
    }
}

impl Handle<op::DeleteUser> for Rekognition {
    async fn handle(&self, request: Request<w::DeleteUserRequest>) -> Result<Reply<w::DeleteUserResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let changed = self
            .faces
            .change_user(key, input.user_id, UserChange::Delete, input.client_request_token);
        changed.await.map_err(error::from_faces)?;
        Ok(w::DeleteUserResponse {}.into())
    }
}

impl Handle<op::ListUsers> for Rekognition {
    async fn handle(&self, request: Request<w::ListUsersRequest>) -> Result<Reply<w::ListUsersResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let after = Listing::Users.read(input.next_token.as_deref(), |text| text.parse().ok())?;
        let limit = count_of(input.max_results, limits::USERS_PER_CALL_MAX);
        let page = self.faces.list_users(&key, after, limit + 1);
        let mut page = page.map_err(error::from_faces)?;
        let more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| more);
        let next_token = last.map(|user| Listing::Users.token(&user.number.to_string()));
        let user = |user: &faces::UserInfo| w::User {
            user_id: Some(user.name.to_string()),
            user_status: Some(status(user.status)),
        };
        let answer = w::ListUsersResponse {
            next_token,
            users: Some(page.iter().map(user).collect()),
        };
        Ok(answer.into())
    }
}

impl Handle<op::AssociateFaces> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::AssociateFacesRequest>,
    ) -> Result<Reply<w::AssociateFacesResponse>, ApiError> {
        use w::UnsuccessfulFaceAssociationReason::{AssociatedToADifferentUser, FaceNotFound, LowMatchConfidence};
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let change = UserChange::Associate {
            faces: face_ids(&input.face_ids)?,
            threshold: input
                .user_match_threshold
                .unwrap_or(limits::ASSOCIATION_THRESHOLD_DEFAULT),
        };
        let changed = self
            .faces
            .change_user(key, input.user_id, change, input.client_request_token);
        let changed = changed.await.map_err(error::from_faces)?;
        let associated = |face: &FaceId| w::AssociatedFace {
            face_id: Some(face.to_string()),
        };
        let refused = |(face, refusal): (FaceId, Refusal)| {
            let (reason, user_id, confidence) = match refusal {
                Refusal::NotFound => (FaceNotFound, None, None),
                Refusal::OtherUser(user) => (AssociatedToADifferentUser, Some(user.to_string()), None),
                Refusal::NotSimilar(similarity) => (LowMatchConfidence, None, Some(similarity)),
            };
            w::UnsuccessfulFaceAssociation {
                confidence,
                face_id: Some(face.to_string()),
                reasons: Some(vec![reason]),
                user_id,
            }
        };
        let answer = w::AssociateFacesResponse {
            associated_faces: Some(changed.changed.iter().map(associated).collect()),
            unsuccessful_face_associations: Some(changed.refused.into_iter().map(refused).collect()),
            user_status: Some(status(changed.status)),
        };
        Ok(answer.into())
    }
}

impl Handle<op::DisassociateFaces> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::DisassociateFacesRequest>,
    ) -> Result<Reply<w::DisassociateFacesResponse>, ApiError> {
        use w::UnsuccessfulFaceDisassociationReason::{AssociatedToADifferentUser, FaceNotFound};
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let change = UserChange::Disassociate {
            faces: face_ids(&input.face_ids)?,
        };
        let changed = self
            .faces
            .change_user(key, input.user_id, change, input.client_request_token);
        let changed = changed.await.map_err(error::from_faces)?;
        let disassociated = |face: &FaceId| w::DisassociatedFace {
            face_id: Some(face.to_string()),
        };
        let refused = |(face, refusal): (FaceId, Refusal)| {
            let (reason, user_id) = match refusal {
                Refusal::OtherUser(user) => (AssociatedToADifferentUser, Some(user.to_string())),
                // A face is never refused here for what it looks like.
                Refusal::NotFound | Refusal::NotSimilar(_) => (FaceNotFound, None),
            };
            w::UnsuccessfulFaceDisassociation {
                face_id: Some(face.to_string()),
                reasons: Some(vec![reason]),
                user_id,
            }
        };
        let answer = w::DisassociateFacesResponse {
            disassociated_faces: Some(changed.changed.iter().map(disassociated).collect()),
            unsuccessful_face_disassociations: Some(changed.refused.into_iter().map(refused).collect()),
            user_status: Some(status(changed.status)),
        };
        Ok(answer.into())
    }
}

impl Handle<op::SearchUsers> for Rekognition {
    async fn handle(&self, request: Request<w::SearchUsersRequest>) -> Result<Reply<w::SearchUsersResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let collection = self.faces.describe(&key).map_err(error::from_faces)?;
        let threshold = threshold_of(input.user_match_threshold);
        let limit = count_of(input.max_users, limits::USERS_PER_CALL_MAX);
        let mut answer = w::SearchUsersResponse {
            face_model_version: Some(collection.model.id.clone()),
            ..w::SearchUsersResponse::default()
        };
        let found = match (input.face_id, input.user_id) {
            (Some(id), None) => {
                let face = face_id(&id)?;
                answer.searched_face = Some(w::SearchedFace { face_id: Some(id) });
                let search = move |faces: &FaceStore| faces.search_users_by_face(&key, face, threshold, limit);
                self.off_thread(&collection, search).await?
            }
            (None, Some(user)) => {
                answer.searched_user = Some(w::SearchedUser {
                    user_id: Some(user.clone()),
                });
                let search = move |faces: &FaceStore| faces.search_users_by_user(&key, &user, threshold, limit);
                self.off_thread(&collection, search).await?
            }
            _ => return Err(error::invalid_parameter("send either FaceId or UserId")),
        };
        answer.user_matches = matches(&found.map_err(error::from_faces)?);
        Ok(answer.into())
    }
}

impl Handle<op::SearchUsersByImage> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::SearchUsersByImageRequest>,
    ) -> Result<Reply<w::SearchUsersByImageResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.collection_id);
        let collection = self.usable_collection(&key)?;
        let image = self.bytes_of(&request.context, input.image).await?;
        let analysis = self.embedded(&request.context, image).await?;
        let filter = input.quality_filter.unwrap_or(QualityFilter::None);
        let Selection { chosen, left_out } = select(analysis, filter, limits::FACES_PER_IMAGE_MAX);
        let mut chosen = chosen.into_iter();
        let largest = chosen.next();
        let found = match largest.as_ref().and_then(|face| face.embedding.clone()) {
            // Nobody to search for is no error here.
            None => Vec::new(),
            Some(probe) => {
                let threshold = threshold_of(input.user_match_threshold);
                let limit = count_of(input.max_users, limits::USERS_PER_CALL_MAX);
                let model = collection.model.id.clone();
                let search = move |faces: &FaceStore| faces.search_users(&key, &model, &probe, threshold, limit);
                self.off_thread(&collection, search).await?.map_err(error::from_faces)?
            }
        };
        let unsearched = |face: &Face, reasons: Vec<UnsearchedFaceReason>| w::UnsearchedFace {
            face_details: Some(shapes::face_detail(face)),
            reasons: Some(reasons),
        };
        let smaller = chosen.map(|face| unsearched(&face, vec![UnsearchedFaceReason::FaceNotLargest]));
        let poorer = left_out.into_iter();
        let poorer = poorer.map(|(face, reasons)| unsearched(&face, reasons.iter().map(unsearched_reason).collect()));
        let answer = w::SearchUsersByImageResponse {
            face_model_version: Some(collection.model.id),
            searched_face: largest.map(|face| w::SearchedFaceDetails {
                face_detail: Some(shapes::face_detail(&face)),
            }),
            unsearched_faces: Some(smaller.chain(poorer).collect()),
            user_matches: matches(&found),
        };
        Ok(answer.into())
    }
}
