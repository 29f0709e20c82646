//! What a user of stream processors relies on: the status machine, the records, and that nothing stored is missed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use base::ApiError;
use bytes::Bytes;
use common::{Server, World, picture};
use serde_json::{Value, json};
use video_streams::consumer::Outcome;
use wire::rekognition::{self as w, StreamProcessorStatus as Status, op};

const CAMERA: &str = "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1551533115453";
const OUTPUT: &str = "arn:aws:kinesis:us-west-2:000000000000:stream/AmazonRekognition-door";
const OUTPUT_NAME: &str = "AmazonRekognition-door";
const PROCESSOR: &str = "arn:aws:rekognition:us-west-2:000000000000:streamprocessor/door";

fn create_request(name: &str) -> w::CreateStreamProcessorRequest {
    w::CreateStreamProcessorRequest {
        name: name.to_owned(),
        role_arn: "arn:aws:iam::000000000000:role/Rekognition".to_owned(),
        input: w::StreamProcessorInput {
            kinesis_video_stream: Some(w::KinesisVideoStream {
                arn: Some(CAMERA.to_owned()),
            }),
        },
        output: w::StreamProcessorOutput {
            kinesis_data_stream: Some(w::KinesisDataStream {
                arn: Some(OUTPUT.to_owned()),
            }),
            s3_destination: None,
        },
        settings: w::StreamProcessorSettings {
            connected_home: None,
            face_search: Some(w::FaceSearchSettings {
                collection_id: Some("staff".to_owned()),
                face_match_threshold: Some(0.08),
            }),
        },
        ..w::CreateStreamProcessorRequest::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    result.unwrap_err().code.into_owned()
}

async fn start(server: &Server) -> Result<w::StartStreamProcessorResponse, ApiError> {
    let request = w::StartStreamProcessorRequest {
        name: "door".to_owned(),
        start_selector: None,
        stop_selector: None,
    };
    server.call::<op::StartStreamProcessor>(request).await
}

async fn stop(server: &Server) -> Result<w::StopStreamProcessorResponse, ApiError> {
    let request = w::StopStreamProcessorRequest {
        name: "door".to_owned(),
    };
    server.call::<op::StopStreamProcessor>(request).await
}

async fn delete(server: &Server) -> Result<w::DeleteStreamProcessorResponse, ApiError> {
    let request = w::DeleteStreamProcessorRequest {
        name: "door".to_owned(),
    };
    server.call::<op::DeleteStreamProcessor>(request).await
}

async fn describe(server: &Server) -> Result<w::DescribeStreamProcessorResponse, ApiError> {
    let request = w::DescribeStreamProcessorRequest {
        name: "door".to_owned(),
    };
    server.call::<op::DescribeStreamProcessor>(request).await
}

/// Waits until the processor has failed and gives its message.
async fn failure(server: &Server) -> String {
    let failed = async {
        loop {
            let described = describe(server).await.unwrap();
            if described.status == Some(Status::Failed) {
                return described.status_message.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failed)
        .await
        .expect("the processor must fail")
}

/// A camera, an output, a collection with Ann (person 1), and a processor.
async fn set_up(world: &World) -> Server {
    world.video.create(CAMERA);
    world.records.create(OUTPUT_NAME);
    let server = world.server();
    let collection = w::CreateCollectionRequest {
        collection_id: "staff".to_owned(),
        tags: None,
    };
    server.call::<op::CreateCollection>(collection).await.unwrap();
    let ann = w::IndexFacesRequest {
        collection_id: "staff".to_owned(),
        external_image_id: Some("Ann-Trusted".to_owned()),
        image: w::Image {
            bytes: Some(picture(&[(1, 0.25, 0.5)])),
            s3_object: None,
        },
        ..w::IndexFacesRequest::default()
    };
    server.call::<op::IndexFaces>(ann).await.unwrap();
    server
        .call::<op::CreateStreamProcessor>(create_request("door"))
        .await
        .unwrap();
    server
}

fn place(record: &Value) -> (String, f64) {
    let video = &record["InputInformation"]["KinesisVideo"];
    let number = video["FragmentNumber"].as_str().unwrap().to_owned();
    (number, video["FrameOffsetInSeconds"].as_f64().unwrap())
}

/// The members of a JSON value as paths, arrays by their first element.
fn paths(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                paths(member, &format!("{at}.{name}"), out);
            }
        }
        Value::Array(items) => match items.first() {
            Some(first) => paths(first, &format!("{at}[]"), out),
            None => out.push(format!("{at}[]")),
        },
        Value::Number(_) => out.push(format!("{at}:number")),
        _ => out.push(format!("{at}:string")),
    }
}

#[tokio::test]
async fn a_processor_goes_through_its_states_and_says_what_it_is() {
    let world = World::new();
    let server = set_up(&world).await;
    assert_eq!(
        code(server.call::<op::CreateStreamProcessor>(create_request("door")).await),
        "ResourceInUseException"
    );
    let described = describe(&server).await.unwrap();
    assert_eq!(described.status, Some(Status::Stopped));
    assert_eq!(described.stream_processor_arn.as_deref(), Some(PROCESSOR));
    assert_eq!(described.input, Some(create_request("door").input));
    assert_eq!(described.output, Some(create_request("door").output));
    let settings = described.settings.unwrap().face_search.unwrap();
    assert_eq!(settings.collection_id.as_deref(), Some("staff"));
    assert_eq!(settings.face_match_threshold, Some(80.0), "a lower threshold is raised");
    assert_eq!(code(stop(&server).await), "ResourceInUseException");
    assert_eq!(start(&server).await.unwrap().session_id, None);
    assert_eq!(describe(&server).await.unwrap().status, Some(Status::Running));
    assert_eq!(code(start(&server).await), "ResourceInUseException");
    assert_eq!(code(delete(&server).await), "ResourceInUseException");
    stop(&server).await.unwrap();
    assert_eq!(describe(&server).await.unwrap().status, Some(Status::Stopped));
    start(&server).await.unwrap();
    stop(&server).await.unwrap();
    delete(&server).await.unwrap();
    for refused in [
        code(describe(&server).await),
        code(start(&server).await),
        code(stop(&server).await),
    ] {
        assert_eq!(refused, "ResourceNotFoundException");
    }
    server
        .call::<op::CreateStreamProcessor>(create_request("door"))
        .await
        .unwrap();
}

#[tokio::test]
async fn processors_are_listed_in_pages_and_by_owner() {
    let world = World::new();
    let server = set_up(&world).await;
    for name in ["attic", "cellar", "garden"] {
        server
            .call::<op::CreateStreamProcessor>(create_request(name))
            .await
            .unwrap();
    }
    let (mut token, mut names) = (None, Vec::new());
    loop {
        let request = w::ListStreamProcessorsRequest {
            max_results: Some(3),
            next_token: token,
        };
        let page = server.call::<op::ListStreamProcessors>(request).await.unwrap();
        names.push(
            page.stream_processors
                .unwrap()
                .into_iter()
                .map(|one| one.name.unwrap())
                .collect::<Vec<_>>(),
        );
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names, [vec!["attic", "cellar", "door"], vec!["garden"]]);
    let request = || w::ListStreamProcessorsRequest::default();
    let theirs = server
        .call_as::<op::ListStreamProcessors>("111111111111", request())
        .await
        .unwrap();
    assert_eq!(theirs.stream_processors, Some(Vec::new()));
    let describe = w::DescribeStreamProcessorRequest {
        name: "door".to_owned(),
    };
    let theirs = server
        .call_as::<op::DescribeStreamProcessor>("111111111111", describe)
        .await;
    assert_eq!(code(theirs), "ResourceNotFoundException");
}

#[tokio::test]
async fn what_cannot_work_is_refused_when_it_is_created() {
    let world = World::new();
    let server = set_up(&world).await;
    type Change = fn(&mut w::CreateStreamProcessorRequest);
    let changes: [(&str, Change); 9] = [
        ("labels", |request| {
            request.settings = w::StreamProcessorSettings {
                connected_home: Some(w::ConnectedHomeSettings::default()),
                face_search: None,
            };
        }),
        ("no settings", |request| {
            request.settings = w::StreamProcessorSettings::default();
        }),
        ("another account's role", |request| {
            request.role_arn = "arn:aws:iam::111111111111:role/Rekognition".to_owned();
        }),
        ("another account's stream", |request| {
            let arn = CAMERA.replace("000000000000", "111111111111");
            request.input.kinesis_video_stream = Some(w::KinesisVideoStream { arn: Some(arn) });
        }),
        ("another region's output", |request| {
            let arn = OUTPUT.replace("us-west-2", "eu-west-1");
            request.output.kinesis_data_stream = Some(w::KinesisDataStream { arn: Some(arn) });
        }),
        ("no output", |request| {
            request.output = w::StreamProcessorOutput::default();
        }),
        ("a key", |request| request.kms_key_id = Some("key".to_owned())),
        ("a region of interest", |request| {
            request.regions_of_interest = Some(vec![w::RegionOfInterest::default()]);
        }),
        ("a wrong setting", |request| {
            request.tags = Some(BTreeMap::from([("sightglass:max_rate".to_owned(), "fast".to_owned())]));
        }),
    ];
    for (what, change) in changes {
        let mut request = create_request("other");
        change(&mut request);
        let refused = server.call::<op::CreateStreamProcessor>(request).await;
        assert_eq!(code(refused), "InvalidParameterException", "{what}");
    }
    let update = w::UpdateStreamProcessorRequest {
        name: "door".to_owned(),
        regions_of_interest_for_update: Some(Vec::new()),
        ..w::UpdateStreamProcessorRequest::default()
    };
    assert_eq!(
        code(server.call::<op::UpdateStreamProcessor>(update).await),
        "InvalidParameterException"
    );
    let update = w::UpdateStreamProcessorRequest {
        name: "door".to_owned(),
        data_sharing_preference_for_update: Some(w::StreamProcessorDataSharingPreference { opt_in: true }),
        ..w::UpdateStreamProcessorRequest::default()
    };
    server.call::<op::UpdateStreamProcessor>(update).await.unwrap();
    let preference = describe(&server).await.unwrap().data_sharing_preference;
    assert_eq!(
        preference,
        Some(w::StreamProcessorDataSharingPreference { opt_in: true })
    );
}

#[tokio::test]
async fn every_analysed_frame_has_one_record_of_the_documented_shape_in_time_order() {
    let world = World::new();
    let server = set_up(&world).await;
    start(&server).await.unwrap();
    let (video, records) = (&world.video, &world.records);
    let first = video.begin(CAMERA, "avcC");
    // Person 1001 looks like Ann, 500 like nobody.
    let both = picture(&[(1001, 0.25, 0.5), (500, 0.0, 0.125)]);
    video.frame(CAMERA, first, 0.0, both, world.now());
    video.frame(CAMERA, first, 33.0, picture(&[]), world.now());
    // The records are there before the fragment has ended.
    records.wait(OUTPUT_NAME, 2).await;
    video.frame(CAMERA, first, 66.0, picture(&[(500, 0.5, 0.25)]), world.now());
    video.end(CAMERA, first, Outcome::Stored { position: 1 });
    let second = video.fragment(CAMERA, &[picture(&[(1, 0.1, 0.2)])]);
    let all = records.wait(OUTPUT_NAME, 4).await;
    let order: Vec<_> = all.iter().map(place).collect();
    let (first, second) = (first.to_string(), second.to_string());
    let expected = [
        (first.clone(), 0.0),
        (first.clone(), 0.033),
        (first, 0.066),
        (second, 0.0),
    ];
    assert_eq!(order, expected);
    assert!(
        records
            .all(OUTPUT_NAME)
            .iter()
            .all(|(partition_key, _)| partition_key == CAMERA)
    );

    let mut members = Vec::new();
    paths(&all[0], "", &mut members);
    let documented: HashSet<&str> = [
        ".InputInformation.KinesisVideo.StreamArn:string",
        ".InputInformation.KinesisVideo.FragmentNumber:string",
        ".InputInformation.KinesisVideo.ServerTimestamp:number",
        ".InputInformation.KinesisVideo.ProducerTimestamp:number",
        ".InputInformation.KinesisVideo.FrameOffsetInSeconds:number",
        ".StreamProcessorInformation.Status:string",
        ".FaceSearchResponse[].DetectedFace.BoundingBox.Height:number",
        ".FaceSearchResponse[].DetectedFace.BoundingBox.Width:number",
        ".FaceSearchResponse[].DetectedFace.BoundingBox.Left:number",
        ".FaceSearchResponse[].DetectedFace.BoundingBox.Top:number",
        ".FaceSearchResponse[].DetectedFace.Confidence:number",
        ".FaceSearchResponse[].DetectedFace.Landmarks[].X:number",
        ".FaceSearchResponse[].DetectedFace.Landmarks[].Y:number",
        ".FaceSearchResponse[].DetectedFace.Landmarks[].Type:string",
        ".FaceSearchResponse[].DetectedFace.Pose.Pitch:number",
        ".FaceSearchResponse[].DetectedFace.Pose.Roll:number",
        ".FaceSearchResponse[].DetectedFace.Pose.Yaw:number",
        ".FaceSearchResponse[].DetectedFace.Quality.Brightness:number",
        ".FaceSearchResponse[].DetectedFace.Quality.Sharpness:number",
        ".FaceSearchResponse[].MatchedFaces[].Similarity:number",
        ".FaceSearchResponse[].MatchedFaces[].Face.BoundingBox.Height:number",
        ".FaceSearchResponse[].MatchedFaces[].Face.BoundingBox.Width:number",
        ".FaceSearchResponse[].MatchedFaces[].Face.BoundingBox.Left:number",
        ".FaceSearchResponse[].MatchedFaces[].Face.BoundingBox.Top:number",
        ".FaceSearchResponse[].MatchedFaces[].Face.FaceId:string",
        ".FaceSearchResponse[].MatchedFaces[].Face.Confidence:number",
        ".FaceSearchResponse[].MatchedFaces[].Face.ImageId:string",
        ".FaceSearchResponse[].MatchedFaces[].Face.ExternalImageId:string",
    ]
    .into();
    let ours = |member: &&String| !member.contains(".Sightglass.");
    let written: HashSet<&str> = members.iter().filter(ours).map(String::as_str).collect();
    assert_eq!(written, documented);

    let video_of = |record: &Value| record["InputInformation"]["KinesisVideo"].clone();
    assert_eq!(video_of(&all[0])["ServerTimestamp"], json!(1_700_000_001.0));
    assert_eq!(video_of(&all[0])["ProducerTimestamp"], json!(1_700_000_000.5));
    let faces = all[0]["FaceSearchResponse"].as_array().unwrap();
    let name = &faces[0]["MatchedFaces"][0]["Face"]["ExternalImageId"];
    assert_eq!(name, "Ann-Trusted");
    assert_eq!(faces[1]["MatchedFaces"], json!([]));
    assert_eq!(all[1]["FaceSearchResponse"], json!([]));
    assert_eq!(all[2]["FaceSearchResponse"][0]["MatchedFaces"], json!([]));

    let labelled = |name: &str, rest: &str| format!("{name}{{{rest}processor=\"{PROCESSOR}\"}}");
    let analysed = labelled("sightglass_processor_frames_total", "outcome=\"analysed\",");
    assert_eq!(server.metric(&analysed), Some(4.0));
    assert_eq!(
        server.metric(&labelled("sightglass_processor_delay_seconds_count", "")),
        Some(4.0)
    );
    stop(&server).await.unwrap();
}

#[tokio::test]
async fn a_new_face_in_the_collection_is_recognised_in_the_next_frame_and_a_deleted_one_no_more() {
    let world = World::new();
    let server = set_up(&world).await;
    start(&server).await.unwrap();
    let matched = |record: &Value| {
        record["FaceSearchResponse"][0]["MatchedFaces"]
            .as_array()
            .unwrap()
            .len()
    };
    let bob = || [picture(&[(2, 0.1, 0.2)])];
    world.video.fragment(CAMERA, &bob());
    assert_eq!(matched(&world.records.wait(OUTPUT_NAME, 1).await[0]), 0);
    let index = w::IndexFacesRequest {
        collection_id: "staff".to_owned(),
        image: w::Image {
            bytes: Some(picture(&[(1002, 0.25, 0.5)])),
            s3_object: None,
        },
        ..w::IndexFacesRequest::default()
    };
    let indexed = server.call::<op::IndexFaces>(index).await.unwrap();
    world.video.fragment(CAMERA, &bob());
    assert_eq!(matched(&world.records.wait(OUTPUT_NAME, 2).await[1]), 1);
    let face = indexed.face_records.unwrap()[0].face.clone().unwrap();
    let delete = w::DeleteFacesRequest {
        collection_id: "staff".to_owned(),
        face_ids: vec![face.face_id.unwrap()],
    };
    server.call::<op::DeleteFaces>(delete).await.unwrap();
    world.video.fragment(CAMERA, &bob());
    assert_eq!(matched(&world.records.wait(OUTPUT_NAME, 3).await[2]), 0);
}

#[tokio::test]
async fn deleting_what_it_stands_on_fails_the_processor_with_the_documented_message() {
    for (lost, message) in [
        ("stream", "Stream door doesn't exist"),
        ("collection", "Collection not found"),
        (
            "output",
            "Stream AmazonRekognition-door under account 000000000000 not found",
        ),
    ] {
        for running in [true, false] {
            let world = World::new();
            let server = set_up(&world).await;
            if running {
                start(&server).await.unwrap();
                assert_eq!(describe(&server).await.unwrap().status, Some(Status::Running));
            }
            match lost {
                "stream" => world.video.delete(CAMERA),
                "output" => {
                    world.records.delete(OUTPUT_NAME);
                    if running {
                        // Another of the same name is not the one it was started with.
                        world.records.create(OUTPUT_NAME);
                    }
                }
                _ => {
                    let delete = w::DeleteCollectionRequest {
                        collection_id: "staff".to_owned(),
                    };
                    server.call::<op::DeleteCollection>(delete).await.unwrap();
                }
            }
            if !running {
                start(&server).await.unwrap();
            }
            assert_eq!(failure(&server).await, message);
            // What has failed can be started again once its cause is gone.
            if lost == "stream" {
                world.video.create(CAMERA);
                start(&server).await.unwrap();
                let described = describe(&server).await.unwrap();
                assert_eq!(
                    (described.status, described.status_message),
                    (Some(Status::Running), None)
                );
            } else {
                delete(&server).await.unwrap();
            }
        }
    }
}

/// Runs a part of a test on a runtime of its own whose end is the server's sudden death.
fn until_killed<T: Send>(part: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let result = runtime.block_on(part);
        runtime.shutdown_background();
        result
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn numbered(count: usize) -> Vec<Bytes> {
    (0..count as u64).map(|who| picture(&[(100 + who, 0.1, 0.2)])).collect()
}

#[test]
fn a_processor_that_ran_runs_again_after_the_server_was_killed_and_misses_no_stored_frame() {
    let world = World::new();
    let mut sent = Vec::new();
    let put = |world: &World, sent: &mut Vec<(String, f64)>| {
        let number = world.video.fragment(CAMERA, &numbered(10)).to_string();
        sent.extend((0..10).map(|frame| (number.clone(), f64::from(frame) / 10.0)));
    };
    until_killed(async {
        let server = set_up(&world).await;
        start(&server).await.unwrap();
        put(&world, &mut sent);
        world.records.wait(OUTPUT_NAME, 10).await;
    });
    for round in 0..3 {
        put(&world, &mut sent); // While the server is down.
        until_killed(async {
            let server = world.server();
            server.service.resume().await.unwrap();
            assert_eq!(
                describe(&server).await.unwrap().status,
                Some(Status::Running),
                "round {round}"
            );
            put(&world, &mut sent);
            let complete = async {
                loop {
                    let all: HashSet<String> = world
                        .records
                        .all(OUTPUT_NAME)
                        .iter()
                        .map(|(_, record)| format!("{:?}", place(record)))
                        .collect();
                    if sent.iter().all(|frame| all.contains(&format!("{frame:?}"))) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), complete)
                .await
                .expect("every stored frame has its record");
        });
    }
}

#[test]
fn an_orderly_end_records_no_frame_twice() {
    let world = World::new();
    until_killed(async {
        let server = set_up(&world).await;
        start(&server).await.unwrap();
        world.video.fragment(CAMERA, &numbered(7));
        world.records.wait(OUTPUT_NAME, 7).await;
        server.service.shutdown().await;
    });
    world.video.fragment(CAMERA, &numbered(3));
    until_killed(async {
        let server = world.server();
        server.service.resume().await.unwrap();
        world.video.fragment(CAMERA, &numbered(2));
        let all = world.records.wait(OUTPUT_NAME, 12).await;
        let places: HashSet<String> = all.iter().map(|record| format!("{:?}", place(record))).collect();
        assert_eq!((all.len(), places.len()), (12, 12));
        assert!(
            world.vision.modes.lock().contains(&vision::Mode::CatchUp),
            "stored video is not skipped"
        );
        stop(&server).await.unwrap();
        server.service.shutdown().await;
    });
    until_killed(async {
        let server = world.server();
        server.service.resume().await.unwrap();
        assert_eq!(
            describe(&server).await.unwrap().status,
            Some(Status::Stopped),
            "a stopped one stays stopped"
        );
    });
}

#[tokio::test]
async fn records_of_a_fragment_that_is_rejected_afterwards_are_counted() {
    let world = World::new();
    let server = set_up(&world).await;
    start(&server).await.unwrap();
    let doomed = world.video.begin(CAMERA, "avcC");
    for frame in 0..3 {
        world
            .video
            .frame(CAMERA, doomed, f64::from(frame) * 40.0, picture(&[]), world.now());
    }
    world.records.wait(OUTPUT_NAME, 3).await;
    world.video.end(CAMERA, doomed, Outcome::Rejected);
    world.video.fragment(CAMERA, &[picture(&[])]);
    world.records.wait(OUTPUT_NAME, 4).await;
    let metric = format!("sightglass_processor_rejected_fragment_records_total{{processor=\"{PROCESSOR}\"}}");
    assert_eq!(server.metric(&metric), Some(3.0));
}

#[tokio::test]
async fn an_output_that_fails_for_a_moment_loses_no_record_and_no_order() {
    let world = World::new();
    let server = set_up(&world).await;
    start(&server).await.unwrap();
    *world.records.failures.lock() = 2;
    world.video.fragment(CAMERA, &numbered(20));
    let all = world.records.wait(OUTPUT_NAME, 20).await;
    let offsets: Vec<f64> = all.iter().map(|record| place(record).1).collect();
    assert_eq!(
        offsets,
        (0..20).map(|frame| f64::from(frame) / 10.0).collect::<Vec<_>>()
    );
    assert_eq!(describe(&server).await.unwrap().status, Some(Status::Running));
}

#[tokio::test]
async fn a_record_that_the_output_will_never_take_costs_itself_alone() {
    let world = World::new();
    let server = set_up(&world).await;
    start(&server).await.unwrap();
    world
        .records
        .record_bytes_max
        .store(2_000, std::sync::atomic::Ordering::Relaxed);
    let crowd: Vec<_> = (0..10u64).map(|who| (200 + who, 0.1, 0.2)).collect();
    let mut frames = numbered(9);
    frames.insert(4, picture(&crowd));
    world.video.fragment(CAMERA, &frames);
    let all = world.records.wait(OUTPUT_NAME, 9).await;
    let offsets: Vec<f64> = all.iter().map(|record| place(record).1).collect();
    let others = (0..10).filter(|frame| *frame != 4);
    assert_eq!(offsets, others.map(|frame| f64::from(frame) / 10.0).collect::<Vec<_>>());
    assert_eq!(describe(&server).await.unwrap().status, Some(Status::Running));
}

#[tokio::test]
async fn tags_belong_to_one_resource_of_one_owner_and_wrong_settings_are_refused() {
    let world = World::new();
    let server = set_up(&world).await;
    let collection = "arn:aws:rekognition:us-west-2:000000000000:collection/staff";
    let tag = |arn: &str, key: &str, value: &str| w::TagResourceRequest {
        resource_arn: arn.to_owned(),
        tags: BTreeMap::from([(key.to_owned(), value.to_owned())]),
    };
    let list = |arn: &str| w::ListTagsForResourceRequest {
        resource_arn: arn.to_owned(),
    };
    for arn in [PROCESSOR, collection] {
        server.call::<op::TagResource>(tag(arn, "owner", "me")).await.unwrap();
        server.call::<op::TagResource>(tag(arn, "room", "hall")).await.unwrap();
        let untag = w::UntagResourceRequest {
            resource_arn: arn.to_owned(),
            tag_keys: vec!["room".to_owned(), "nothing".to_owned()],
        };
        server.call::<op::UntagResource>(untag).await.unwrap();
        let tags = server
            .call::<op::ListTagsForResource>(list(arn))
            .await
            .unwrap()
            .tags
            .unwrap();
        assert_eq!(
            tags.into_iter().collect::<Vec<_>>(),
            [("owner".to_owned(), "me".to_owned())]
        );
        let theirs = server
            .call_as::<op::ListTagsForResource>("111111111111", list(arn))
            .await;
        assert_eq!(code(theirs), "ResourceNotFoundException");
        let absent = server
            .call::<op::TagResource>(tag(&format!("{arn}x"), "owner", "me"))
            .await;
        assert_eq!(code(absent), "ResourceNotFoundException");
        let many = w::TagResourceRequest {
            resource_arn: arn.to_owned(),
            tags: (0..200).map(|number| (format!("k{number}"), String::new())).collect(),
        };
        assert_eq!(
            code(server.call::<op::TagResource>(many).await),
            "ServiceQuotaExceededException"
        );
    }
    let wrong = server
        .call::<op::TagResource>(tag(PROCESSOR, "sightglass:mode", "fast"))
        .await;
    assert_eq!(code(wrong), "InvalidParameterException");
    server
        .call::<op::TagResource>(tag(PROCESSOR, "sightglass:mode", "every-frame"))
        .await
        .unwrap();

    let staff = || "staff".to_owned();
    let delete = w::DeleteCollectionRequest { collection_id: staff() };
    server.call::<op::DeleteCollection>(delete).await.unwrap();
    assert_eq!(
        code(server.call::<op::ListTagsForResource>(list(collection)).await),
        "ResourceNotFoundException"
    );
    let create = w::CreateCollectionRequest {
        collection_id: staff(),
        tags: Some(BTreeMap::from([("new".to_owned(), "yes".to_owned())])),
    };
    server.call::<op::CreateCollection>(create).await.unwrap();
    let tags = server
        .call::<op::ListTagsForResource>(list(collection))
        .await
        .unwrap()
        .tags
        .unwrap();
    assert_eq!(tags.into_keys().collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn a_camera_that_changes_its_codec_parameters_gets_a_new_session_and_settings_reach_it() {
    let world = World::new();
    let server = set_up(&world).await;
    delete(&server).await.unwrap();
    let tags = [
        ("sightglass:max_rate", "5"),
        ("sightglass:key_frames_only", "true"),
        ("sightglass:mode", "every-frame"),
    ];
    let request = w::CreateStreamProcessorRequest {
        tags: Some(
            tags.into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        ),
        ..create_request("door")
    };
    server.call::<op::CreateStreamProcessor>(request).await.unwrap();
    start(&server).await.unwrap();
    for codec_private in ["one", "one", "two"] {
        let number = world.video.begin(CAMERA, codec_private);
        world.video.frame(CAMERA, number, 0.0, picture(&[]), world.now());
        world.video.end(CAMERA, number, Outcome::Stored { position: 1 });
    }
    world.records.wait(OUTPUT_NAME, 3).await;
    let sessions = world.vision.sessions.lock();
    let privates: Vec<&[u8]> = sessions.iter().map(|config| &config.codec_private[..]).collect();
    assert_eq!(privates, [b"one", b"two"]);
    let config = &sessions[0];
    assert_eq!(
        (config.max_rate, config.key_frames_only, config.mode),
        (Some(5.0), true, vision::Mode::CatchUp)
    );
}
