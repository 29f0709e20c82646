//! The record of one analysed frame: JSON with exactly the members that AWS documents for the output of a face-search
//! processor, in its order, plus members named `Sightglass`, which AWS's own consumer code ignores.
//!
//! `FaceSearchResponse` and `MatchedFaces` are always there, empty when there is nothing in them: AWS's example code
//! iterates over both without looking.

use base::Timestamp;
use faces::{FaceId, FaceMatch};
use serde::Serialize;
use storage::FragmentNumber;
use vision::{BoundingBox, Face, Point};

/// Which frame a record is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FramePlace {
    pub(crate) fragment: FragmentNumber,
    pub(crate) server_timestamp: Timestamp,
    pub(crate) producer_timestamp: Timestamp,
    /// The frame's time minus the cluster's timecode.
    pub(crate) offset_ms: f64,
}

impl FramePlace {
    /// When the frame was filmed, by the producer's clock.
    pub(crate) fn time(&self) -> Timestamp {
        self.producer_timestamp.plus_millis(self.offset_ms.round() as i64)
    }
}

/// What was seen.
pub(crate) struct Seen<'a> {
    pub(crate) stream_arn: &'a str,
    pub(crate) place: &'a FramePlace,
    pub(crate) model: &'a str,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// When the frame's last byte arrived; `None` for one from storage.
    pub(crate) arrived: Option<Timestamp>,
    /// Each face with its matches, best first.
    pub(crate) faces: &'a [(Face, std::sync::Arc<[FaceMatch]>)],
    /// The id of each face as an unknown one, where such are kept; else nothing at all.
    pub(crate) unknown: &'a [Option<FaceId>],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Record<'a> {
    input_information: InputInformation<'a>,
    stream_processor_information: StreamProcessorInformation,
    face_search_response: Vec<FaceSearchResponse<'a>>,
    sightglass: FrameExtras<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InputInformation<'a> {
    kinesis_video: KinesisVideo<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KinesisVideo<'a> {
    stream_arn: &'a str,
    fragment_number: String,
    server_timestamp: f64,
    producer_timestamp: f64,
    frame_offset_in_seconds: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamProcessorInformation {
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FaceSearchResponse<'a> {
    detected_face: DetectedFace,
    matched_faces: Vec<MatchedFace<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sightglass: Option<FaceExtras>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DetectedFace {
    bounding_box: Rectangle,
    confidence: f32,
    landmarks: [Landmark; 5],
    pose: Pose,
    quality: Quality,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rectangle {
    height: f32,
    width: f32,
    left: f32,
    top: f32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Landmark {
    x: f32,
    y: f32,
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pose {
    pitch: f32,
    roll: f32,
    yaw: f32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Quality {
    brightness: f32,
    sharpness: f32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MatchedFace<'a> {
    similarity: f32,
    face: KnownFace<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KnownFace<'a> {
    bounding_box: Rectangle,
    face_id: String,
    confidence: f32,
    image_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_image_id: Option<&'a str>,
}

/// Ours: what a reader may want beside AWS's members.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FrameExtras<'a> {
    face_model_version: &'a str,
    frame_width: u32,
    frame_height: u32,
    /// Seconds since the epoch, the arrival of the frame's last byte; only for live frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_arrival_timestamp: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FaceExtras {
    track_id: u64,
    /// Only of a face that nobody resembles, where such are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_face_id: Option<String>,
}

/// JSON has no NaN and no infinity.
fn finite(x: f32) -> f32 {
    if x.is_finite() { x } else { 0.0 }
}

fn rectangle(bounding_box: &BoundingBox) -> Rectangle {
    Rectangle {
        height: finite(bounding_box.height),
        width: finite(bounding_box.width),
        left: finite(bounding_box.left),
        top: finite(bounding_box.top),
    }
}

fn detected_face(face: &Face) -> DetectedFace {
    let landmark = |(name, point): (&'static str, Point)| Landmark {
        x: finite(point.x),
        y: finite(point.y),
        r#type: name,
    };
    DetectedFace {
        bounding_box: rectangle(&face.bounding_box),
        confidence: finite(face.confidence),
        landmarks: face.landmarks.named().map(landmark),
        pose: Pose {
            pitch: finite(face.pose.pitch),
            roll: finite(face.pose.roll),
            yaw: finite(face.pose.yaw),
        },
        quality: Quality {
            brightness: finite(face.quality.brightness),
            sharpness: finite(face.quality.sharpness),
        },
    }
}

fn matched_face(found: &FaceMatch) -> MatchedFace<'_> {
    let (face, rect) = (&found.face, &found.face.rect);
    MatchedFace {
        similarity: finite(found.similarity),
        face: KnownFace {
            bounding_box: Rectangle {
                height: rect.height,
                width: rect.width,
                left: rect.left,
                top: rect.top,
            },
            face_id: face.face_id.to_string(),
            confidence: face.confidence,
            image_id: face.image_id.to_string(),
            external_image_id: face.external_image_id.as_deref(),
        },
    }
}

/// The record's bytes.
pub(crate) fn encode(seen: &Seen<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let unknown = seen.unknown.iter().copied().chain(std::iter::repeat(None));
    let response =
        |((face, matches), unknown): (&(Face, std::sync::Arc<[FaceMatch]>), Option<FaceId>)| FaceSearchResponse {
            detected_face: detected_face(face),
            matched_faces: Vec::with_capacity(matches.len()),
            sightglass: face.track_id.map(|track_id| FaceExtras {
                track_id,
                unknown_face_id: unknown.map(|id| id.to_string()),
            }),
        };
    let mut responses: Vec<FaceSearchResponse<'_>> = seen.faces.iter().zip(unknown).map(response).collect();
    for (response, (_, matches)) in responses.iter_mut().zip(seen.faces) {
        response.matched_faces.extend(matches.iter().map(matched_face));
    }
    let record = Record {
        input_information: InputInformation {
            kinesis_video: KinesisVideo {
                stream_arn: seen.stream_arn,
                fragment_number: seen.place.fragment.to_string(),
                server_timestamp: seen.place.server_timestamp.seconds(),
                producer_timestamp: seen.place.producer_timestamp.seconds(),
                frame_offset_in_seconds: seen.place.offset_ms / 1000.0,
            },
        },
        stream_processor_information: StreamProcessorInformation { status: "RUNNING" },
        face_search_response: responses,
        sightglass: FrameExtras {
            face_model_version: seen.model,
            frame_width: seen.width,
            frame_height: seen.height,
            frame_arrival_timestamp: seen.arrived.map(Timestamp::seconds),
        },
    };
    serde_json::to_vec(&record)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::AccountId;
    use faces::{FaceId, FaceRecord, ImageDigest, ImageId, Rect};
    use vision::Landmarks;

    use super::*;

    fn place() -> FramePlace {
        FramePlace {
            fragment: FragmentNumber::new(5, 1_551_533_115_453, 9),
            server_timestamp: Timestamp::from_millis(1_551_533_115_453),
            producer_timestamp: Timestamp::from_millis(1_551_533_114_000),
            offset_ms: 66.0,
        }
    }

    fn encoded(faces: &[(Face, Arc<[FaceMatch]>)]) -> String {
        encoded_with(faces, &[])
    }

    fn encoded_with(faces: &[(Face, Arc<[FaceMatch]>)], unknown: &[Option<FaceId>]) -> String {
        let seen = Seen {
            stream_arn: "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1551533000000",
            place: &place(),
            model: "sface-2021dec",
            width: 1280,
            height: 720,
            arrived: Some(Timestamp::from_millis(1_551_533_115_907)),
            faces,
            unknown,
        };
        String::from_utf8(encode(&seen).unwrap()).unwrap()
    }

    fn face() -> Face {
        let point = |x, y| Point { x, y };
        Face {
            bounding_box: BoundingBox {
                left: 0.25,
                top: 0.5,
                width: 0.125,
                height: 0.375,
            },
            confidence: 99.5,
            landmarks: Landmarks {
                eye_left: point(0.1, 0.2),
                eye_right: point(0.3, 0.2),
                nose: point(0.2, 0.3),
                mouth_left: point(0.125, 0.4),
                mouth_right: point(0.25, 0.4),
            },
            pose: vision::Pose {
                pitch: 1.5,
                roll: -2.5,
                yaw: f32::NAN,
            },
            quality: vision::Quality {
                brightness: 50.0,
                sharpness: 75.5,
            },
            track_id: Some(4),
            embedding_revision: 1,
            embedding: None,
            attributes: None,
        }
    }

    fn known(similarity: f32, external: Option<&str>) -> FaceMatch {
        let image = ImageDigest::of(b"image");
        FaceMatch {
            similarity,
            cosine: 0.6,
            face: Arc::new(FaceRecord {
                face_id: FaceId::parse("6a6f7c5e-37a1-5d0c-8f5e-2b1d9c407e11").unwrap(),
                image_id: ImageId::derive(AccountId::DEFAULT, &image),
                external_image_id: external.map(str::to_owned),
                rect: Rect {
                    left: 0.5,
                    top: 0.25,
                    width: 0.5,
                    height: 0.75,
                },
                confidence: 100.0,
                created: Timestamp::default(),
                user: None,
            }),
        }
    }

    #[test]
    fn a_record_has_the_documented_members_and_numbers_that_are_numbers() {
        let image_id = ImageId::derive(AccountId::DEFAULT, &ImageDigest::of(b"image"));
        let golden = format!(
            concat!(
                r#"{{"InputInformation":{{"KinesisVideo":{{"#,
                r#""StreamArn":"arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1551533000000","#,
                r#""FragmentNumber":"{number}","ServerTimestamp":1551533115.453,"ProducerTimestamp":1551533114.0,"#,
                r#""FrameOffsetInSeconds":0.066}}}},"StreamProcessorInformation":{{"Status":"RUNNING"}},"#,
                r#""FaceSearchResponse":[{{"DetectedFace":{{"#,
                r#""BoundingBox":{{"Height":0.375,"Width":0.125,"Left":0.25,"Top":0.5}},"Confidence":99.5,"#,
                r#""Landmarks":[{{"X":0.1,"Y":0.2,"Type":"eyeLeft"}},{{"X":0.3,"Y":0.2,"Type":"eyeRight"}},"#,
                r#"{{"X":0.2,"Y":0.3,"Type":"nose"}},{{"X":0.125,"Y":0.4,"Type":"mouthLeft"}},"#,
                r#"{{"X":0.25,"Y":0.4,"Type":"mouthRight"}}],"#,
                r#""Pose":{{"Pitch":1.5,"Roll":-2.5,"Yaw":0.0}},"Quality":{{"Brightness":50.0,"Sharpness":75.5}}}},"#,
                r#""MatchedFaces":[{{"Similarity":99.25,"Face":{{"#,
                r#""BoundingBox":{{"Height":0.75,"Width":0.5,"Left":0.5,"Top":0.25}},"#,
                r#""FaceId":"6a6f7c5e-37a1-5d0c-8f5e-2b1d9c407e11","Confidence":100.0,"ImageId":"{image}","#,
                r#""ExternalImageId":"Ann-Trusted"}}}},{{"Similarity":81.5,"Face":{{"#,
                r#""BoundingBox":{{"Height":0.75,"Width":0.5,"Left":0.5,"Top":0.25}},"#,
                r#""FaceId":"6a6f7c5e-37a1-5d0c-8f5e-2b1d9c407e11","Confidence":100.0,"ImageId":"{image}"}}}}],"#,
                r#""Sightglass":{{"TrackId":4}}}}],"#,
                r#""Sightglass":{{"FaceModelVersion":"sface-2021dec","FrameWidth":1280,"FrameHeight":720,"#,
                r#""FrameArrivalTimestamp":1551533115.907}}}}"#
            ),
            number = place().fragment,
            image = image_id,
        );
        let matches = Arc::from([known(99.25, Some("Ann-Trusted")), known(81.5, None)]);
        assert_eq!(encoded(&[(face(), matches)]), golden);
    }

    #[test]
    fn a_frame_without_faces_and_a_face_without_matches_have_empty_arrays() {
        let empty: serde_json::Value = serde_json::from_str(&encoded(&[])).unwrap();
        assert_eq!(empty["FaceSearchResponse"], serde_json::json!([]));
        let untracked = Face {
            track_id: None,
            ..face()
        };
        let unknown: serde_json::Value = serde_json::from_str(&encoded(&[(untracked, Arc::from([]))])).unwrap();
        let face = &unknown["FaceSearchResponse"][0];
        assert_eq!(face["MatchedFaces"], serde_json::json!([]));
        assert_eq!(face.as_object().unwrap().len(), 2, "no member of ours without a track");
    }

    #[test]
    fn a_face_that_is_kept_as_unknown_is_told_by_its_id() {
        let id = FaceId::of_sighting(AccountId::DEFAULT, "track");
        let faces = [(face(), Arc::from([known(99.25, None)])), (face(), Arc::from([]))];
        let record: serde_json::Value = serde_json::from_str(&encoded_with(&faces, &[None, Some(id)])).unwrap();
        let extras = |index: usize| record["FaceSearchResponse"][index]["Sightglass"].clone();
        assert_eq!(extras(0), serde_json::json!({ "TrackId": 4 }));
        assert_eq!(
            extras(1),
            serde_json::json!({ "TrackId": 4, "UnknownFaceId": id.to_string() })
        );
    }
}
