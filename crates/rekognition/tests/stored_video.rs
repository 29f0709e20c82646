//! Jobs over stored video: the rules, over fakes of vision, buckets and streams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{AccountId, ApiError};
use bytes::Bytes;
use common::{Server, TOPIC, World, film, picture};
use objects::{Buckets, PutOptions};
use wire::rekognition::{self as w, op};

const ROLE: &str = "arn:aws:iam::000000000000:role/topic";
const STREAM: &str = "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1";

async fn put(world: &World, name: &str, body: Bytes) {
    let bucket = world.buckets.open(AccountId::DEFAULT, "films").await.unwrap();
    bucket.put(name, PutOptions::default(), body).await.unwrap();
}

/// A world with a bucket of films.
async fn world() -> World {
    let world = World::new();
    world.buckets.create(AccountId::DEFAULT, "films");
    let person = |time, who, left| (time, picture(&[(who, left, 0.2)]));
    let both = (400, picture(&[(1, 0.1, 0.2), (2, 0.6, 0.2)]));
    put(
        &world,
        "door.mp4",
        film(&[person(0, 1, 0.1), both, (800, picture(&[]))]),
    )
    .await;
    world
}

fn object(name: &str) -> w::Video {
    w::Video {
        s3_object: Some(w::S3Object {
            bucket: Some("films".to_owned()),
            name: Some(name.to_owned()),
            version: None,
        }),
    }
}

fn detection(name: &str) -> w::StartFaceDetectionRequest {
    w::StartFaceDetectionRequest {
        video: object(name),
        client_request_token: None,
        face_attributes: None,
        job_tag: None,
        notification_channel: None,
    }
}

fn search(name: &str) -> w::StartFaceSearchRequest {
    w::StartFaceSearchRequest {
        video: object(name),
        collection_id: "people".to_owned(),
        face_match_threshold: None,
        client_request_token: None,
        job_tag: None,
        notification_channel: None,
    }
}

async fn start(server: &Server, request: w::StartFaceDetectionRequest) -> Result<String, ApiError> {
    Ok(server.call::<op::StartFaceDetection>(request).await?.job_id.unwrap())
}

async fn faces(server: &Server, job_id: &str) -> Result<w::GetFaceDetectionResponse, ApiError> {
    let request = w::GetFaceDetectionRequest {
        job_id: job_id.to_owned(),
        max_results: None,
        next_token: None,
    };
    server.call::<op::GetFaceDetection>(request).await
}

/// Waits for a job's end.
async fn ended(server: &Server, job_id: &str) -> w::GetFaceDetectionResponse {
    loop {
        let answer = faces(server, job_id).await.unwrap();
        if answer.job_status != Some(w::VideoJobStatus::InProgress) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn persons(server: &Server, job_id: &str, by: w::FaceSearchSortBy, most: i32) -> Vec<w::PersonMatch> {
    let (mut all, mut next_token) = (Vec::new(), None);
    loop {
        let request = w::GetFaceSearchRequest {
            job_id: job_id.to_owned(),
            max_results: Some(most),
            next_token,
            sort_by: Some(by),
        };
        let answer = server.call::<op::GetFaceSearch>(request).await.unwrap();
        match answer.job_status {
            Some(w::VideoJobStatus::InProgress) => tokio::time::sleep(Duration::from_millis(5)).await,
            status => assert_eq!(
                status,
                Some(w::VideoJobStatus::Succeeded),
                "{:?}",
                answer.status_message
            ),
        }
        let page = answer.persons.unwrap();
        assert!(page.len() <= most as usize);
        all.extend(page);
        next_token = answer.next_token;
        if next_token.is_none() && answer.job_status == Some(w::VideoJobStatus::Succeeded) {
            return all;
        }
    }
}

/// A collection with a face of person 1.
async fn enrol(server: &Server) -> String {
    let collection = w::CreateCollectionRequest {
        collection_id: "people".to_owned(),
        tags: None,
    };
    server.call::<op::CreateCollection>(collection).await.unwrap();
    let face = w::IndexFacesRequest {
        collection_id: "people".to_owned(),
        image: w::Image {
            bytes: Some(picture(&[(1, 0.1, 0.5)])),
            s3_object: None,
        },
        external_image_id: Some("ann".to_owned()),
        detection_attributes: None,
        max_faces: None,
        quality_filter: Some(w::QualityFilter::None),
    };
    let indexed = server.call::<op::IndexFaces>(face).await.unwrap().face_records.unwrap();
    indexed[0].face.as_ref().unwrap().face_id.clone().unwrap()
}

#[tokio::test]
async fn the_faces_of_an_object_come_in_order_with_the_videos_facts() {
    let world = world().await;
    let server = world.server();
    let job = start(&server, detection("door.mp4")).await.unwrap();
    assert!(job.len() == 64 && job.chars().all(|c| c.is_ascii_hexdigit()));
    let answer = ended(&server, &job).await;
    assert_eq!(
        answer.job_status,
        Some(w::VideoJobStatus::Succeeded),
        "{:?}",
        answer.status_message
    );
    let found = answer.faces.unwrap();
    let times: Vec<i64> = found.iter().map(|face| face.timestamp.unwrap()).collect();
    assert_eq!(times, [0, 400, 400]);
    let left = |n: usize| {
        found[n]
            .face
            .as_ref()
            .unwrap()
            .bounding_box
            .as_ref()
            .unwrap()
            .left
            .unwrap()
    };
    assert_eq!((left(0), left(2)), (0.1, 0.6));
    let facts = answer.video_metadata.unwrap();
    assert_eq!(
        (facts.codec.as_deref(), facts.duration_millis, facts.frame_width),
        (Some("h264"), Some(4000), Some(640))
    );
    assert_eq!(facts.color_range, Some(w::VideoColorRange::Limited));
    assert_eq!(answer.video, Some(object("door.mp4")));
    let config = world.vision.sessions.lock()[0].clone();
    assert!(
        config.background && config.max_rate == Some(5.0),
        "live cameras go first"
    );
}

#[tokio::test]
async fn a_person_is_found_by_the_collection_and_keeps_the_index() {
    let world = world().await;
    let server = world.server();
    let ann = enrol(&server).await;
    let job = server
        .call::<op::StartFaceSearch>(search("door.mp4"))
        .await
        .unwrap()
        .job_id
        .unwrap();
    let found = persons(&server, &job, w::FaceSearchSortBy::Timestamp, 1).await;
    let matched = |found: &w::PersonMatch| {
        let first = found.face_matches.as_ref().unwrap().first()?;
        assert!(first.similarity.unwrap() >= 80.0);
        first.face.as_ref().unwrap().face_id.clone()
    };
    let index = |found: &w::PersonMatch| found.person.as_ref().unwrap().index.unwrap();
    let told: Vec<_> = found
        .iter()
        .map(|found| (found.timestamp.unwrap(), index(found), matched(found)))
        .collect();
    assert_eq!(
        told,
        [(0, 0, Some(ann.clone())), (400, 0, Some(ann.clone())), (400, 1, None)]
    );
    let by_index = persons(&server, &job, w::FaceSearchSortBy::Index, 2).await;
    assert_eq!(by_index, found);
    // What is deleted is told no more, by any answer.
    let delete = w::DeleteFacesRequest {
        collection_id: "people".to_owned(),
        face_ids: vec![ann],
    };
    server.call::<op::DeleteFaces>(delete).await.unwrap();
    let after = persons(&server, &job, w::FaceSearchSortBy::Timestamp, 10).await;
    assert!(after.iter().all(|found| matched(found).is_none()) && after.len() == 3);
    assert_eq!(
        faces(&server, &job).await.unwrap_err().code,
        "ResourceNotFoundException",
        "a job of the other kind"
    );
    let missing = w::StartFaceSearchRequest {
        collection_id: "nobody".to_owned(),
        ..search("door.mp4")
    };
    let refused = server.call::<op::StartFaceSearch>(missing).await.unwrap_err();
    assert_eq!(refused.code, "ResourceNotFoundException");
}

#[tokio::test]
async fn what_a_stream_has_stored_of_a_time_is_searched_like_a_film() {
    let world = world().await;
    let server = world.server();
    enrol(&server).await;
    world.video.create(STREAM);
    for who in [5, 1, 6] {
        world
            .video
            .fragment(STREAM, &[picture(&[(who, 0.1, 0.2)]), picture(&[(who, 0.1, 0.2)])]);
    }
    let starts: Vec<base::Timestamp> = world.video.starts(STREAM);
    let request = |from: base::Timestamp, to: base::Timestamp| w::StartStreamFaceSearchRequest {
        stream_arn: STREAM.to_owned(),
        start_timestamp: from,
        end_timestamp: to,
        timestamp_type: None,
        collection_id: "people".to_owned(),
        face_match_threshold: None,
        client_request_token: None,
        job_tag: None,
        notification_channel: None,
    };
    let second = request(starts[1], starts[1].plus_millis(200));
    let job = server
        .call::<op::StartStreamFaceSearch>(second)
        .await
        .unwrap()
        .job_id
        .unwrap();
    let found = persons(&server, &job, w::FaceSearchSortBy::Timestamp, 1000).await;
    let times: Vec<i64> = found.iter().map(|found| found.timestamp.unwrap()).collect();
    assert_eq!(times, [0, 100], "from StartTimestamp on, and of that fragment alone");
    assert!(
        found
            .iter()
            .all(|found| !found.face_matches.as_ref().unwrap().is_empty())
    );
    let turned = server
        .call::<op::StartStreamFaceSearch>(request(starts[1], starts[1]))
        .await;
    assert_eq!(turned.unwrap_err().code, "InvalidParameterException");
    let long = request(starts[0], starts[0].plus_millis(25 * 3600 * 1000));
    let long = server.call::<op::StartStreamFaceSearch>(long).await;
    assert_eq!(long.unwrap_err().code, "VideoTooLargeException");
    let mut elsewhere = request(starts[0], starts[1]);
    elsewhere.stream_arn = STREAM.replace("door", "nowhere");
    let missing = server.call::<op::StartStreamFaceSearch>(elsewhere).await;
    assert_eq!(missing.unwrap_err().code, "ResourceNotFoundException");
}

#[tokio::test]
async fn a_token_starts_one_job_and_is_refused_for_another() {
    let world = world().await;
    put(&world, "other.mp4", film(&[(0, picture(&[]))])).await;
    let server = world.server();
    let with_token = |name| w::StartFaceDetectionRequest {
        client_request_token: Some("once".to_owned()),
        ..detection(name)
    };
    let first = start(&server, with_token("door.mp4")).await.unwrap();
    assert_eq!(start(&server, with_token("door.mp4")).await.unwrap(), first);
    let other = start(&server, with_token("other.mp4")).await.unwrap_err();
    assert_eq!(other.code, "IdempotentParameterMismatchException");
    ended(&server, &first).await;
    assert_eq!(start(&server, with_token("door.mp4")).await.unwrap(), first);
}

#[tokio::test]
async fn a_job_that_a_crash_breaks_off_begins_again_and_ends_once_with_one_notification() {
    let world = world().await;
    put(&world, "long.mp4", "FILM endless\n0 FACES 1:0.1:0.2\n".into()).await;
    let server = world.server();
    let channel = w::NotificationChannel {
        role_arn: ROLE.to_owned(),
        sns_topic_arn: TOPIC.to_owned(),
    };
    let request = w::StartFaceDetectionRequest {
        notification_channel: Some(channel.clone()),
        job_tag: Some("monday".to_owned()),
        ..detection("long.mp4")
    };
    let job = start(&server, request).await.unwrap();
    while world.vision.films.load(Ordering::Acquire) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let in_progress = faces(&server, &job).await.unwrap();
    assert_eq!(
        (in_progress.faces.unwrap().len(), in_progress.job_tag.as_deref()),
        (0, Some("monday"))
    );
    server.service.shutdown().await;
    drop(server);
    // The film was replaced meanwhile: what the job was started for is no more.
    put(&world, "long.mp4", film(&[(0, picture(&[]))])).await;
    world.topics.failures.store(1, Ordering::Release);
    let again = world.server();
    again.service.resume().await.unwrap();
    let answer = ended(&again, &job).await;
    assert_eq!(answer.job_status, Some(w::VideoJobStatus::Failed));
    assert!(answer.status_message.unwrap().contains("replaced"));
    while world.topics.published.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    again.service.shutdown().await;
    drop(again);
    let third = world.server();
    third.service.resume().await.unwrap();
    let unknown = w::NotificationChannel {
        sns_topic_arn: "arn:aws:sns:us-west-2:000000000000:unknown".to_owned(),
        ..channel
    };
    let request = w::StartFaceDetectionRequest {
        notification_channel: Some(unknown),
        ..detection("door.mp4")
    };
    assert_eq!(
        start(&third, request).await.unwrap_err().code,
        "InvalidParameterException"
    );
    let job = start(&third, detection("door.mp4")).await.unwrap();
    ended(&third, &job).await;
    let published = world.topics.published.lock().clone();
    assert_eq!(published.len(), 1);
    let told: serde_json::Value = serde_json::from_str(&published[0].message).unwrap();
    assert_eq!(
        (told["Status"].as_str(), told["JobTag"].as_str()),
        (Some("FAILED"), Some("monday"))
    );
}

#[tokio::test]
async fn what_is_no_video_fails_with_a_reason_and_a_lost_worker_is_tried_again() {
    let world = world().await;
    put(&world, "text", "plain text".into()).await;
    put(&world, "empty.mp4", "FILM\n".into()).await;
    put(&world, "damaged.mp4", film(&[(0, "no picture".into())])).await;
    let server = world.server();
    for (name, reason) in [
        ("text", "not an MP4"),
        ("empty.mp4", "no frames"),
        ("damaged.mp4", "can be decoded"),
    ] {
        let job = start(&server, detection(name)).await.unwrap();
        let answer = ended(&server, &job).await;
        assert_eq!(answer.job_status, Some(w::VideoJobStatus::Failed), "{name}");
        let message = answer.status_message.unwrap();
        assert!(message.contains(reason), "{name}: {message}");
        assert!(answer.faces.unwrap().is_empty());
    }
    world.vision.broken_films.store(1, Ordering::Release);
    let job = start(&server, detection("door.mp4")).await.unwrap();
    assert_eq!(
        ended(&server, &job).await.job_status,
        Some(w::VideoJobStatus::Succeeded)
    );
    for (request, code) in [
        (detection("missing.mp4"), "InvalidS3ObjectException"),
        (
            w::StartFaceDetectionRequest {
                video: w::Video { s3_object: None },
                ..detection("door.mp4")
            },
            "InvalidParameterException",
        ),
    ] {
        assert_eq!(start(&server, request).await.unwrap_err().code, code);
    }
    let strange = faces(&server, &"0".repeat(64)).await.unwrap_err();
    assert_eq!(strange.code, "ResourceNotFoundException");
    let theirs = w::GetFaceDetectionRequest {
        job_id: job,
        max_results: None,
        next_token: None,
    };
    let theirs = server.call_as::<op::GetFaceDetection>("111111111111", theirs).await;
    assert_eq!(theirs.unwrap_err().code, "ResourceNotFoundException");
}

#[tokio::test]
async fn jobs_wait_for_their_turn_and_no_more_than_twenty_are_taken() {
    let world = world().await;
    put(&world, "long.mp4", "FILM endless\n0 FACES 1:0.1:0.2\n".into()).await;
    let server = world.server();
    for _ in 0..20 {
        start(&server, detection("long.mp4")).await.unwrap();
    }
    let beyond = start(&server, detection("long.mp4")).await.unwrap_err();
    assert_eq!(beyond.code, "LimitExceededException");
    assert!(world.vision.films.load(Ordering::Acquire) <= 2, "the others wait");
    server.service.shutdown().await;
}
