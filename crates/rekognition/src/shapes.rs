//! From what `vision` and `faces` say to the shapes of the service model.

use faces::{FaceRecord, Rect};
use vision::Face;
use wire::rekognition as w;

pub(crate) fn bounding_box(bounding_box: &vision::BoundingBox) -> w::BoundingBox {
    w::BoundingBox {
        height: Some(bounding_box.height),
        left: Some(bounding_box.left),
        top: Some(bounding_box.top),
        width: Some(bounding_box.width),
    }
}

pub(crate) fn stored_box(rect: &Rect) -> w::BoundingBox {
    w::BoundingBox {
        height: Some(rect.height),
        left: Some(rect.left),
        top: Some(rect.top),
        width: Some(rect.width),
    }
}

pub(crate) fn rect(bounding_box: &vision::BoundingBox) -> Rect {
    Rect {
        left: bounding_box.left,
        top: bounding_box.top,
        width: bounding_box.width,
        height: bounding_box.height,
    }
}

/// The default attributes of a face that was found.
pub(crate) fn face_detail(face: &Face) -> w::FaceDetail {
    use w::LandmarkType::{EyeLeft, EyeRight, MouthLeft, MouthRight, Nose};
    let points = &face.landmarks;
    let landmarks = [
        (EyeLeft, points.eye_left),
        (EyeRight, points.eye_right),
        (MouthLeft, points.mouth_left),
        (MouthRight, points.mouth_right),
        (Nose, points.nose),
    ];
    let landmark = |(kind, point): (w::LandmarkType, vision::Point)| w::Landmark {
        r#type: Some(kind),
        x: Some(point.x),
        y: Some(point.y),
    };
    w::FaceDetail {
        bounding_box: Some(bounding_box(&face.bounding_box)),
        confidence: Some(face.confidence),
        landmarks: Some(landmarks.into_iter().map(landmark).collect()),
        pose: Some(w::Pose {
            pitch: Some(face.pose.pitch),
            roll: Some(face.pose.roll),
            yaw: Some(face.pose.yaw),
        }),
        quality: Some(w::ImageQuality {
            brightness: Some(face.quality.brightness),
            sharpness: Some(face.quality.sharpness),
        }),
        ..w::FaceDetail::default()
    }
}

/// A face of a collection. `model` is the collection's model version.
pub(crate) fn stored_face(record: &FaceRecord, model: &str) -> w::Face {
    w::Face {
        bounding_box: Some(stored_box(&record.rect)),
        confidence: Some(record.confidence),
        external_image_id: record.external_image_id.clone(),
        face_id: Some(record.face_id.to_string()),
        image_id: Some(record.image_id.to_string()),
        index_faces_model_version: Some(model.to_owned()),
        user_id: record.user.as_deref().map(str::to_owned),
    }
}

pub(crate) fn face_match(found: &faces::FaceMatch, model: &str) -> w::FaceMatch {
    w::FaceMatch {
        face: Some(stored_face(&found.face, model)),
        similarity: Some(found.similarity),
    }
}
