//! CompareFaces.

use base::{ApiError, Handle, Reply, Request};
use faces::similarity::Scale;
use vision::Face;
use wire::rekognition::{self as w, QualityFilter, op};

use crate::face_operations::{select, threshold_of};
use crate::service::Rekognition;
use crate::{error, limits, shapes};

fn compared(face: &Face) -> w::ComparedFace {
    let detail = shapes::face_detail(face);
    w::ComparedFace {
        bounding_box: detail.bounding_box,
        confidence: detail.confidence,
        landmarks: detail.landmarks,
        pose: detail.pose,
        quality: detail.quality,
        ..w::ComparedFace::default()
    }
}

/// How similar two faces are, 0 to 100; `None` where one is too poor for the model to read.
fn similarity_of(scale: &Scale, source: &Face, target: &Face) -> Option<f32> {
    scale.between(source.embedding.as_deref()?, target.embedding.as_deref()?)
}

impl Handle<op::CompareFaces> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::CompareFacesRequest>,
    ) -> Result<Reply<w::CompareFacesResponse>, ApiError> {
        let input = request.input;
        let source = self.bytes_of(&request.context, input.source_image).await?;
        let target = self.bytes_of(&request.context, input.target_image).await?;
        let filter = input.quality_filter.unwrap_or(QualityFilter::None);
        let source = self.embedded(&request.context, source).await?;
        let source = select(source, filter, limits::FACES_PER_IMAGE_MAX).chosen;
        let source = source.into_iter().next().ok_or_else(error::no_face)?;
        let target = self.embedded(&request.context, target).await?;
        if target.faces.is_empty() {
            return Err(error::no_face());
        }
        // A face that the filter leaves out is not compared, so it is neither alike nor not.
        let readable = |face: &Face| face.embedding.is_some();
        let unread: Vec<Face> = match filter {
            QualityFilter::None => target.faces.iter().filter(|face| !readable(face)).cloned().collect(),
            _ => Vec::new(),
        };
        let target = select(target, filter, limits::FACES_PER_IMAGE_MAX).chosen;
        let threshold = threshold_of(input.similarity_threshold);
        let scale = self.faces.scale(&self.vision.model().id);
        let (mut alike, mut unlike) = (Vec::new(), Vec::new());
        for face in target.iter().chain(&unread) {
            match similarity_of(&scale, &source, face) {
                Some(similarity) if similarity >= threshold => alike.push((similarity, face)),
                _ => unlike.push(compared(face)),
            }
        }
        alike.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let to_match = |(similarity, face): (f32, &Face)| w::CompareFacesMatch {
            face: Some(compared(face)),
            similarity: Some(similarity),
        };
        let answer = w::CompareFacesResponse {
            face_matches: Some(alike.into_iter().map(to_match).collect()),
            source_image_face: Some(w::ComparedSourceImageFace {
                bounding_box: Some(shapes::bounding_box(&source.bounding_box)),
                confidence: Some(source.confidence),
            }),
            unmatched_faces: Some(unlike),
            ..w::CompareFacesResponse::default()
        };
        Ok(answer.into())
    }
}
