//! Who is this stranger, and has she been here before? What a user of a processor that keeps unknown faces relies on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use base::ApiError;
use common::{Server, World, picture, tracked};
use wire::rekognition::{self as w, op};

const CAMERA: &str = "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1551533115453";
const OUTPUT_NAME: &str = "AmazonRekognition-door";

/// A camera, an output, a collection with Ann (person 1), and a processor that runs.
async fn set_up(world: &World, tags: &[(&str, &str)]) -> Server {
    world.video.create(CAMERA);
    world.records.create(OUTPUT_NAME);
    let server = world.server();
    let collection = w::CreateCollectionRequest {
        collection_id: "staff".to_owned(),
        tags: None,
    };
    server.call::<op::CreateCollection>(collection).await.unwrap();
    enrol(&server, 1, "Ann").await;
    create(&server, tags).await.unwrap();
    let start = w::StartStreamProcessorRequest {
        name: "door".to_owned(),
        ..Default::default()
    };
    server.call::<op::StartStreamProcessor>(start).await.unwrap();
    server
}

async fn create(server: &Server, tags: &[(&str, &str)]) -> Result<w::CreateStreamProcessorResponse, ApiError> {
    let tags: BTreeMap<String, String> = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let processor = w::CreateStreamProcessorRequest {
        name: "door".to_owned(),
        role_arn: "arn:aws:iam::000000000000:role/Rekognition".to_owned(),
        input: w::StreamProcessorInput {
            kinesis_video_stream: Some(w::KinesisVideoStream {
                arn: Some(CAMERA.to_owned()),
            }),
        },
        output: w::StreamProcessorOutput {
            kinesis_data_stream: Some(w::KinesisDataStream {
                arn: Some(format!("arn:aws:kinesis:us-west-2:000000000000:stream/{OUTPUT_NAME}")),
            }),
            s3_destination: None,
        },
        settings: w::StreamProcessorSettings {
            connected_home: None,
            face_search: Some(w::FaceSearchSettings {
                collection_id: Some("staff".to_owned()),
                face_match_threshold: None,
            }),
        },
        tags: Some(tags),
        ..Default::default()
    };
    server.call::<op::CreateStreamProcessor>(processor).await
}

async fn enrol(server: &Server, who: u64, name: &str) {
    let request = w::IndexFacesRequest {
        collection_id: "staff".to_owned(),
        external_image_id: Some(name.to_owned()),
        image: image(who),
        ..Default::default()
    };
    server.call::<op::IndexFaces>(request).await.unwrap();
}

fn image(who: u64) -> w::Image {
    w::Image {
        bytes: Some(picture(&[(who, 0.25, 0.5)])),
        s3_object: None,
    }
}

async fn stop(server: &Server) {
    let request = w::StopStreamProcessorRequest {
        name: "door".to_owned(),
    };
    server.call::<op::StopStreamProcessor>(request).await.unwrap();
}

fn list_request() -> w::ListUnknownFacesRequest {
    w::ListUnknownFacesRequest {
        collection_id: "staff".to_owned(),
        ..Default::default()
    }
}

async fn listed(server: &Server) -> Vec<w::UnknownFace> {
    let answer = server.call::<op::ListUnknownFaces>(list_request()).await.unwrap();
    answer.unknown_faces.unwrap()
}

/// Waits until so many are kept.
async fn kept(server: &Server, count: usize) -> Vec<w::UnknownFace> {
    let enough = async {
        loop {
            let all = listed(server).await;
            if all.len() == count {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), enough)
        .await
        .expect("unknown faces must be kept")
}

fn ids(matches: Option<Vec<w::UnknownFaceMatch>>) -> Vec<String> {
    matches
        .unwrap()
        .into_iter()
        .map(|found| found.unknown_face.unwrap().face_id.unwrap())
        .collect()
}

async fn like(server: &Server, face: &str) -> Vec<String> {
    let request = w::SearchUnknownFacesRequest {
        collection_id: "staff".to_owned(),
        face_id: face.to_owned(),
        ..Default::default()
    };
    ids(server
        .call::<op::SearchUnknownFaces>(request)
        .await
        .unwrap()
        .unknown_face_matches)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_found_by_her_record_by_a_photograph_and_by_earlier_visits_and_is_enrolled_from_them() {
    let world = World::new();
    let server = set_up(&world, &[("sightglass:keep_unknown", "2")]).await;
    // Ann and a stranger (5), who comes again later (1005 is another picture of her).
    world
        .video
        .fragment(CAMERA, &[tracked(1, 1), tracked(5, 2), tracked(5, 2), tracked(5, 2)]);
    let second = world.video.fragment(CAMERA, &[tracked(1005, 3), tracked(1005, 3)]);
    let records = world.records.wait(OUTPUT_NAME, 6).await;
    let told = |index: usize| records[index]["FaceSearchResponse"][0]["Sightglass"]["UnknownFaceId"].as_str();
    assert_eq!(told(0), None, "Ann is known");
    let (monday, tuesday) = (told(1).unwrap().to_owned(), told(4).unwrap().to_owned());
    assert!(told(3) == Some(&*monday) && told(5) == Some(&*tuesday) && monday != tuesday);
    let all = kept(&server, 2).await;
    assert_eq!(
        all.iter().map(|face| face.face_id.clone().unwrap()).collect::<Vec<_>>(),
        [tuesday.clone(), monday.clone()]
    );
    let frame = all[0].best_frame.clone().unwrap();
    assert_eq!(
        (frame.fragment_number, frame.frame_offset_in_seconds),
        (Some(second.to_string()), Some(0.0))
    );
    assert_eq!(
        (all[0].stream_arn.as_deref(), all[0].stream_processor_name.as_deref()),
        (Some(CAMERA), Some("door"))
    );
    assert_eq!(
        (
            all[1].frame_count,
            all[1].last_seen.unwrap().millis_since(all[1].first_seen.unwrap())
        ),
        (Some(3), 200)
    );
    // Has she been here before?
    assert_eq!(like(&server, &tuesday).await, std::slice::from_ref(&monday));
    let request = w::SearchUnknownFacesByImageRequest {
        collection_id: "staff".to_owned(),
        image: image(2005),
        seen_before: all[0].first_seen,
        ..Default::default()
    };
    let by_image = server.call::<op::SearchUnknownFacesByImage>(request).await.unwrap();
    assert_eq!(
        ids(by_image.unknown_face_matches),
        std::slice::from_ref(&monday),
        "before the second visit"
    );
    // She is Bea, and both visits make her known.
    let request = w::IndexUnknownFacesRequest {
        collection_id: "staff".to_owned(),
        external_image_id: Some("Bea".to_owned()),
        face_ids: vec![monday.clone(), tuesday],
    };
    let enrolled = server
        .call::<op::IndexUnknownFaces>(request)
        .await
        .unwrap()
        .faces
        .unwrap();
    assert_eq!(
        enrolled
            .iter()
            .map(|face| face.external_image_id.as_deref())
            .collect::<Vec<_>>(),
        [Some("Bea"); 2]
    );
    assert_eq!(listed(&server).await, []);
    world.video.fragment(CAMERA, &[tracked(2005, 4)]);
    let records = world.records.wait(OUTPUT_NAME, 7).await;
    assert_eq!(
        records[6]["FaceSearchResponse"][0]["MatchedFaces"][0]["Face"]["ExternalImageId"],
        "Bea"
    );
    stop(&server).await;
    assert_eq!(listed(&server).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_and_a_restart_lose_no_stranger_and_a_deletion_does_not_come_back() {
    let world = World::new();
    let server = set_up(&world, &[("sightglass:keep_unknown", "2")]).await;
    world.video.fragment(CAMERA, &[tracked(5, 1), tracked(5, 1)]);
    world.records.wait(OUTPUT_NAME, 2).await;
    stop(&server).await;
    let all = listed(&server).await;
    assert_eq!(all.len(), 1, "written at the stop, not seconds later");
    drop(server);
    let server = world.server();
    assert_eq!(listed(&server).await, all);
    let id = all[0].face_id.clone().unwrap();
    let nobody = "00000000-0000-0000-0000-000000000000".to_owned();
    let request = w::DeleteUnknownFacesRequest {
        collection_id: "staff".to_owned(),
        face_ids: vec![id.clone(), nobody.clone()],
    };
    let deleted = server.call::<op::DeleteUnknownFaces>(request).await.unwrap();
    assert_eq!(deleted.deleted_faces.unwrap(), std::slice::from_ref(&id));
    assert_eq!(deleted.unsuccessful_face_deletions.unwrap()[0].face_id, Some(nobody));
    assert_eq!(listed(&server).await, []);
    let gone = w::SearchUnknownFacesRequest {
        collection_id: "staff".to_owned(),
        face_id: id,
        ..Default::default()
    };
    let gone = server.call::<op::SearchUnknownFaces>(gone).await.unwrap_err();
    assert_eq!(gone.code, "InvalidParameterException");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_of_strangers_unless_the_processor_says_so() {
    let world = World::new();
    let server = set_up(&world, &[]).await;
    world.video.fragment(CAMERA, &[tracked(5, 1), tracked(5, 1)]);
    let records = world.records.wait(OUTPUT_NAME, 2).await;
    stop(&server).await;
    assert_eq!(listed(&server).await, []);
    let extras = &records[0]["FaceSearchResponse"][0]["Sightglass"];
    assert_eq!(extras, &serde_json::json!({ "TrackId": 1 }));
    for wrong in ["0", "8761", "yes", ""] {
        let refused = create(&server, &[("sightglass:keep_unknown", wrong)])
            .await
            .unwrap_err();
        assert_eq!(refused.code, "InvalidParameterException", "{wrong}");
    }
}

#[tokio::test]
async fn what_is_not_there_or_is_somebody_elses_is_refused() {
    let world = World::new();
    let server = set_up(&world, &[]).await;
    let missing = w::ListUnknownFacesRequest {
        collection_id: "nobody".to_owned(),
        ..Default::default()
    };
    let code = |refused: ApiError| refused.code.into_owned();
    assert_eq!(
        code(server.call::<op::ListUnknownFaces>(missing).await.unwrap_err()),
        "ResourceNotFoundException"
    );
    let theirs = server
        .call_as::<op::ListUnknownFaces>("111111111111", list_request())
        .await
        .unwrap_err();
    assert_eq!(code(theirs), "ResourceNotFoundException");
    let forged = w::ListUnknownFacesRequest {
        next_token: Some("forged".to_owned()),
        ..list_request()
    };
    let forged = server.call::<op::ListUnknownFaces>(forged).await.unwrap_err();
    assert_eq!(code(forged), "InvalidPaginationTokenException");
    let enrol = w::IndexUnknownFacesRequest {
        collection_id: "staff".to_owned(),
        external_image_id: None,
        face_ids: vec!["00000000-0000-0000-0000-000000000000".to_owned()],
    };
    assert_eq!(
        code(server.call::<op::IndexUnknownFaces>(enrol).await.unwrap_err()),
        "InvalidParameterException"
    );
}
