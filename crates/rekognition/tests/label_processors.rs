//! What a user of label-detection processors relies on: sessions of a stretch of video, each label told once with its
//! pictures, regions and confidences, an end that is told too, and that neither a restart nor a receiver that is away loses
//! or repeats anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use base::Timestamp;
use bytes::Bytes;
use common::World;
use common::labels::*;
use serde_json::{Value, json};
use storage::TimeAxis;
use video_streams::consumer::{Outcome, StartAt};
use vision::StillsError;
use wire::rekognition::{self as w, StreamProcessorStatus as Status, op};

#[tokio::test]
async fn a_session_tells_each_label_once_with_its_pictures_and_then_its_end() {
    let world = World::new();
    let tags = BTreeMap::from([("room".to_owned(), "hall".to_owned())]);
    let server = set_up(&world, |request| request.tags = Some(tags)).await;
    assert_eq!(describe(&server).await.status, Some(Status::Stopped));
    let session = start_at(&server, at_time(0), 3).await;
    assert_eq!(
        describe(&server).await.status,
        Some(Status::Starting),
        "it stays so while it runs"
    );
    world.video.fragment(CAMERA, &second(&[]));
    // At two frames a second those at 0 and 500 ms are looked at.
    let walker = scene(&[("person", 61.5, 0.125), ("person", 88.0, 0.5), ("bird", 99.0, 0.0)]);
    let mut frames = second(&[scene(&NOBODY), walker.clone()]);
    frames[5] = walker.clone();
    let first = world.video.fragment(CAMERA, &frames);
    frames[0] = scene(&[("person", 99.0, 0.0), ("dog", 70.0, 0.25)]);
    let second = world.video.fragment(CAMERA, &frames);
    assert_eq!(until_status(&server, Status::Stopped).await, None);
    let told = until_told(&world, 3).await;
    assert_eq!(shown(&told), ["PERSON 500", "PET 0", "STREAM_PROCESSING_COMPLETE"]);

    let folder = format!("found/home/{session}");
    let (frame, part) = (
        format!("{folder}/{first}_500_FRAME.jpg"),
        format!("{folder}/{first}_500_PERSON.jpg"),
    );
    let begun = i64::try_from(first.server_millis()).unwrap();
    let request = json!({
        "name": "home",
        "startSelector": {"kvsStreamStartSelector": {"producerTimestamp": 0}},
        "stopSelector": {"maxDurationInSeconds": 3},
    });
    let expected = json!({
        "inputInformation": {"kinesisVideo": {"streamArn": CAMERA}},
        "eventNamespace": {"type": "LABEL_DETECTED"},
        "labels": [{
            "id": told[0]["labels"][0]["id"],
            "name": "PERSON",
            "confidence": 88.0,
            "frameImageUri": format!("s3://{BUCKET}/{frame}"),
            "croppedImageUri": format!("s3://{BUCKET}/{part}"),
            "videoMapping": {"kinesisVideoMapping": {
                "fragmentNumber": first.to_string(), "serverTimestamp": begun, "producerTimestamp": begun - 500, "frameOffsetMillis": 500,
            }},
            "boundingBox": {"left": 0.5, "top": 0.25, "height": 0.25, "width": 0.25},
        }],
        "eventId": told[0]["eventId"],
        "tags": {"room": "hall"},
        "sessionId": session,
        "startStreamProcessorRequest": request,
    });
    assert_eq!(told[0], expected);
    let expected = json!({
        "inputInformation": {"kinesisVideo": {"streamArn": CAMERA, "processedVideoDurationMillis": 3000}},
        "eventNamespace": {"type": "STREAM_PROCESSING_COMPLETE"},
        "streamProcessingResults": {"message": "Stream processing has completed."},
        "eventId": told[2]["eventId"],
        "tags": {"room": "hall"},
        "sessionId": session,
        "startStreamProcessorRequest": request,
    });
    assert_eq!(told[2], expected);

    let walker = String::from_utf8(walker.to_vec()).unwrap();
    let jpeg = |text: String| (Some("image/jpeg".to_owned()), Bytes::from(text));
    assert_eq!(object(&world, &frame).await, jpeg(format!("0 0 1 1 of {walker}")));
    assert_eq!(
        object(&world, &part).await,
        jpeg(format!("0.5 0.25 0.25 0.25 of {walker}"))
    );
    let report = format!("{folder}/report.json");
    let (kind, content) = object(&world, &report).await;
    let content: Value = serde_json::from_slice(&content).unwrap();
    let labels = json!([told[0]["labels"][0], told[1]["labels"][0]]);
    assert_eq!(
        (kind.as_deref(), &content["labels"]),
        (Some("application/json"), &labels)
    );
    assert_eq!(content["streamProcessingResults"], told[2]["streamProcessingResults"]);
    let mut all = vec![frame, part, report];
    all.extend(["FRAME", "PET"].map(|name| format!("{folder}/{second}_0_{name}.jpg")));
    all.sort();
    assert_eq!(keys(&world).await, all);

    let processor = "processor=\"arn:aws:rekognition:us-west-2:000000000000:streamprocessor/home\"";
    let metric = |label: &str| {
        server.metric(&format!(
            "sightglass_processor_labels_total{{label=\"{label}\",{processor}}}"
        ))
    };
    assert_eq!((metric("PERSON"), metric("PET")), (Some(1.0), Some(1.0)));
    let taken = format!("sightglass_processor_notifications_total{{outcome=\"taken\",{processor}}}");
    until("the last notification's count", async || {
        (server.metric(&taken) == Some(3.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_frame_may_show_both_and_the_next_session_finds_them_anew() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    let mut sessions = Vec::new();
    for round in 1..=2 {
        sessions.push(start(&world, &server, 1).await);
        let both = scene(&[("cat", 60.0, 0.0), ("person", 60.0, 0.5)]);
        world.video.fragment(CAMERA, &second(&[both]));
        assert_eq!(until_status(&server, Status::Stopped).await, None);
        let told = until_told(&world, round * 3).await;
        assert_eq!(
            shown(&told[(round - 1) * 3..]),
            ["PERSON 0", "PET 0", "STREAM_PROCESSING_COMPLETE"]
        );
        let frames: Vec<&Value> = told[(round - 1) * 3..][..2]
            .iter()
            .map(|message| &message["labels"][0]["frameImageUri"])
            .collect();
        assert_eq!(frames[0], frames[1], "one picture of the frame");
    }
    assert_ne!(sessions[0], sessions[1]);
    let told = told(&world);
    assert_ne!(told[0]["eventId"], told[3]["eventId"]);
    assert_eq!(keys(&world).await.len(), 8, "two sessions of three images and a report");
}

#[tokio::test]
async fn only_what_is_sure_enough_and_in_a_region_counts() {
    let world = World::new();
    let left_half = w::RegionOfInterest {
        bounding_box: Some(w::BoundingBox {
            left: Some(0.0),
            top: Some(0.0),
            width: Some(0.5),
            height: Some(1.0),
        }),
        polygon: None,
    };
    let point = |x, y| w::Point { x: Some(x), y: Some(y) };
    let corner = w::RegionOfInterest {
        bounding_box: None,
        polygon: Some(vec![point(0.7, 0.0), point(1.0, 0.0), point(1.0, 1.0), point(0.7, 1.0)]),
    };
    let server = set_up(&world, |request| {
        request.regions_of_interest = Some(vec![left_half.clone(), corner.clone()]);
        request.settings.connected_home.as_mut().unwrap().min_confidence = Some(60.0);
        request.tags = Some(BTreeMap::from([("sightglass:max_rate".to_owned(), "10".to_owned())]));
    })
    .await;
    assert_eq!(
        describe(&server).await.regions_of_interest,
        Some(vec![left_half, corner])
    );
    start(&world, &server, 1).await;
    let frames = [
        scene(&[("person", 99.0, 0.5)]),
        scene(&[("person", 59.9, 0.0), ("dog", 99.0, 0.4)]),
        scene(&[("person", 60.0, 0.25)]),
        scene(&[("dog", 80.0, 0.75)]),
    ];
    world.video.fragment(CAMERA, &second(&frames));
    until_status(&server, Status::Stopped).await;
    let told = until_told(&world, 3).await;
    assert_eq!(shown(&told), ["PERSON 200", "PET 300", "STREAM_PROCESSING_COMPLETE"]);
}

#[tokio::test]
async fn a_session_begins_where_it_is_told_to_and_takes_as_much_video_as_it_is_told() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    let stored: Vec<_> = (0..15).map(|_| world.video.fragment(CAMERA, &second(&[]))).collect();
    let third = stored[2].to_string();
    let started = server
        .call::<op::StartStreamProcessor>(start_request(at_fragment(&third), None))
        .await;
    assert!(started.unwrap().session_id.is_some());
    until_status(&server, Status::Stopped).await;
    let first = until_told(&world, 1).await.remove(0);
    assert_eq!(
        first["inputInformation"]["kinesisVideo"]["processedVideoDurationMillis"], 10_000,
        "the default"
    );
    let selector = &first["startStreamProcessorRequest"]["startSelector"]["kvsStreamStartSelector"];
    assert_eq!(selector, &json!({"fragmentNumber": third}));
    assert_eq!(world.vision.looks.lock().len(), 10);
    let begun = i64::try_from(stored[12].server_millis()).unwrap() - 500;
    let request = start_request(at_time(begun), Some(2));
    server.call::<op::StartStreamProcessor>(request).await.unwrap();
    until_status(&server, Status::Stopped).await;
    let opened = world.video.opened.lock().clone();
    let by_time = StartAt::Time(TimeAxis::Producer, Timestamp::from_millis(begun));
    assert_eq!(opened, [StartAt::Fragment(stored[2]), by_time]);
    assert_eq!(world.vision.looks.lock().len(), 12);
}

#[tokio::test]
async fn a_session_that_is_stopped_says_how_far_it_came() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    assert_eq!(code(stop(&server).await), "ResourceInUseException");
    let session = start(&world, &server, 120).await;
    world
        .video
        .fragment(CAMERA, &second(&[scene(&[("person", 60.0, 0.5)])]));
    until_told(&world, 1).await;
    stop(&server).await.unwrap();
    assert_eq!(describe(&server).await.status, Some(Status::Stopped));
    let told = until_told(&world, 2).await;
    assert_eq!(
        told[1]["streamProcessingResults"]["message"],
        "Stream processing was stopped."
    );
    assert_eq!(
        told[1]["inputInformation"]["kinesisVideo"]["processedVideoDurationMillis"],
        1000
    );
    let (_, report) = object(&world, &format!("found/home/{session}/report.json")).await;
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["labels"].as_array().unwrap().len(), 1);
    world.video.fragment(CAMERA, &second(&[scene(&[("dog", 60.0, 0.5)])]));
    start(&world, &server, 1).await;
}

#[tokio::test]
async fn what_ends_a_session_early_is_told_in_the_status_and_to_the_topic() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    // Nothing can be looked at.
    world
        .vision
        .look_failures
        .lock()
        .push_back(StillsError::Worker("it died".to_owned()));
    start(&world, &server, 1).await;
    world.video.fragment(CAMERA, &second(&[]));
    let message = until_status(&server, Status::Failed).await.unwrap();
    assert_eq!(
        message,
        "The video could not be analysed because of a failure of the server."
    );
    // One fragment of several: the session goes on. A worker that is busy is asked again.
    let failures = [StillsError::Worker("it died".to_owned()), StillsError::Busy];
    world.vision.look_failures.lock().extend(failures);
    start(&world, &server, 2).await;
    for _ in 0..2 {
        world.video.fragment(CAMERA, &second(&[scene(&[("dog", 60.0, 0.5)])]));
    }
    assert_eq!(until_status(&server, Status::Stopped).await, None);
    // The stream goes.
    start(&world, &server, 120).await;
    world.video.delete(CAMERA);
    assert_eq!(
        until_status(&server, Status::Failed).await.unwrap(),
        "Stream door doesn't exist"
    );
    start(&world, &server, 120).await;
    assert_eq!(
        until_status(&server, Status::Failed).await.unwrap(),
        "Stream door doesn't exist"
    );
    let told = until("four ends", async || {
        let told = told(&world);
        let ends = told.iter().filter(|message| message["labels"].is_null()).count();
        (ends == 4).then_some(told)
    })
    .await;
    let ends: Vec<&str> = told
        .iter()
        .filter_map(|message| message["streamProcessingResults"]["message"].as_str())
        .collect();
    let gone = "Stream processing has failed: Stream door doesn't exist";
    assert_eq!(
        ends,
        [
            "Stream processing has failed: The video could not be analysed because of a failure of the server.",
            "Stream processing has completed.",
            gone,
            gone
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_sends_nothing_ends_the_session() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    start(&world, &server, 120).await;
    world
        .video
        .fragment(CAMERA, &second(&[scene(&[("person", 60.0, 0.5)])]));
    assert_eq!(until_status(&server, Status::Stopped).await, None);
    let told = until_told(&world, 2).await;
    let words = "Stream processing has completed. The stream sent nothing for 20 seconds.";
    assert_eq!(told[1]["streamProcessingResults"]["message"], words);
    assert_eq!(
        told[1]["inputInformation"]["kinesisVideo"]["processedVideoDurationMillis"],
        1000
    );
}

#[tokio::test(start_paused = true)]
async fn a_bucket_and_a_receiver_that_are_away_for_a_while_cost_nothing() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    world.bucket_failures.store(3, Ordering::Release);
    world.topics.failures.store(5, Ordering::Release);
    start(&world, &server, 1).await;
    world
        .video
        .fragment(CAMERA, &second(&[scene(&[("person", 60.0, 0.5)])]));
    assert_eq!(until_status(&server, Status::Stopped).await, None);
    assert_eq!(
        shown(&until_told(&world, 2).await),
        ["PERSON 0", "STREAM_PROCESSING_COMPLETE"]
    );
    assert_eq!(keys(&world).await.len(), 3);
    // One that stays away ends the session: what cannot be shown is not told.
    world.bucket_failures.store(usize::MAX, Ordering::Release);
    start(&world, &server, 1).await;
    world
        .video
        .fragment(CAMERA, &second(&[scene(&[("person", 60.0, 0.5)])]));
    let message = until_status(&server, Status::Failed).await.unwrap();
    assert!(
        message.starts_with("S3 bucket home-images cannot be written: "),
        "{message}"
    );
    let told = until_told(&world, 3).await;
    assert_eq!(shown(&told[2..]), ["STREAM_PROCESSING_COMPLETE"]);
}

#[tokio::test]
async fn fragments_that_are_rejected_or_show_nothing_decodable_find_nothing() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    start(&world, &server, 2).await;
    let doomed = world.video.begin(CAMERA, "avcC");
    world
        .video
        .frame(CAMERA, doomed, 0.0, scene(&[("person", 60.0, 0.5)]), world.now());
    // The next one has begun before it is known what became of it.
    let good = world.video.begin(CAMERA, "avcC");
    world.video.end(CAMERA, doomed, Outcome::Rejected);
    for (index, data) in second(&[Bytes::from_static(b"damaged")]).into_iter().enumerate() {
        world.video.frame(CAMERA, good, index as f64 * 100.0, data, world.now());
    }
    world.video.end(CAMERA, good, Outcome::Stored { position: 1 });
    world.video.fragment(CAMERA, &second(&[scene(&[("dog", 60.0, 0.5)])]));
    until_status(&server, Status::Stopped).await;
    let told = until_told(&world, 2).await;
    assert_eq!(shown(&told), ["PET 0", "STREAM_PROCESSING_COMPLETE"]);
    assert_eq!(
        told[1]["inputInformation"]["kinesisVideo"]["processedVideoDurationMillis"],
        2000
    );
    assert_eq!(world.vision.looks.lock()[0], ["damaged", "OBJECTS "]);
    start(&world, &server, 1).await;
    world.video.fragment(CAMERA, &vec![Bytes::from_static(b"damaged"); 10]);
    let message = until_status(&server, Status::Failed).await;
    assert_eq!(message.as_deref(), Some("No frame of the video can be decoded."));
}

/// Runs a part of a test in a runtime that ends without a goodbye, as a killed server does.
fn until_killed<T: Send>(part: impl AsyncFnOnce() -> T + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let result = runtime.block_on(part());
        runtime.shutdown_background();
        result
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn a_session_goes_on_after_the_server_was_killed_and_repeats_nothing_that_was_taken() {
    let world = World::new();
    let person = || second(&[scene(&[("person", 60.0, 0.5)])]);
    let session = until_killed(async || {
        let server = set_up(&world, |_| ()).await;
        let session = start(&world, &server, 4).await;
        world.video.fragment(CAMERA, &person());
        until_told(&world, 1).await;
        until_acknowledged(&world).await;
        session
    });
    world.video.fragment(CAMERA, &person());
    until_killed(async || {
        // The receiver is away: what is found now has to wait for another life.
        world.topics.failures.store(usize::MAX, Ordering::Release);
        let server = world.server();
        server.service.resume().await.unwrap();
        assert_eq!(describe(&server).await.status, Some(Status::Starting));
        world.video.fragment(CAMERA, &second(&[scene(&[("dog", 60.0, 0.5)])]));
        let pet = format!("found/home/{session}/");
        until("a picture of the dog", async || {
            let keys = keys(&world).await;
            keys.iter()
                .any(|key| key.starts_with(&pet) && key.ends_with("PET.jpg"))
                .then_some(())
        })
        .await;
        // It is in the catalog once it is tried.
        until("a try", async || {
            (world.topics.failures.load(Ordering::Acquire) < usize::MAX).then_some(())
        })
        .await;
    });
    assert_eq!(told(&world).len(), 1);
    until_killed(async || {
        world.topics.failures.store(0, Ordering::Release);
        let server = world.server();
        server.service.resume().await.unwrap();
        world.video.fragment(CAMERA, &person());
        assert_eq!(until_status(&server, Status::Stopped).await, None);
        until_told(&world, 3).await;
        until_acknowledged(&world).await;
        server.service.shutdown().await;
    });
    until_killed(async || {
        let server = world.server();
        server.service.resume().await.unwrap();
        assert_eq!(describe(&server).await.status, Some(Status::Stopped), "it has ended");
        start(&world, &server, 1).await;
        stop(&server).await.unwrap();
        until_told(&world, 4).await;
    });
    let told = told(&world);
    let end = "STREAM_PROCESSING_COMPLETE";
    assert_eq!(shown(&told), ["PERSON 0", "PET 0", end, end]);
    assert_eq!(
        told[2]["inputInformation"]["kinesisVideo"]["processedVideoDurationMillis"],
        4000
    );
    assert!(told[..3].iter().all(|message| message["sessionId"] == session.as_str()));
}
