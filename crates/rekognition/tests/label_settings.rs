//! What can be said of a label-detection processor and of its sessions, what is refused, and what UpdateStreamProcessor
//! changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::atomic::Ordering;

use common::World;
use common::labels::*;
use wire::rekognition::{
    self as w, StreamProcessorParameterToDelete as Parameter, StreamProcessorStatus as Status, op,
};

#[tokio::test]
async fn a_start_that_says_too_little_or_nonsense_is_refused() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    type Change = fn(&mut w::StartStreamProcessorRequest);
    let changes: [(&str, Change); 10] = [
        ("no StartSelector", |request| request.start_selector = None),
        ("an empty StartSelector", |request| {
            request.start_selector = Some(w::StreamProcessingStartSelector::default());
        }),
        ("an empty KVSStreamStartSelector", |request| {
            let empty = w::KinesisVideoStreamStartSelector::default();
            request.start_selector.as_mut().unwrap().kvs_stream_start_selector = Some(empty);
        }),
        ("two beginnings", |request| {
            let both = w::KinesisVideoStreamStartSelector {
                producer_timestamp: Some(0),
                ..at_fragment("91343852333181432392682062607743920146264094318")
            };
            request.start_selector.as_mut().unwrap().kvs_stream_start_selector = Some(both);
        }),
        ("a short number", |request| {
            request.start_selector.as_mut().unwrap().kvs_stream_start_selector = Some(at_fragment("17"));
        }),
        ("a huge number", |request| {
            let digits = "9".repeat(128);
            request.start_selector.as_mut().unwrap().kvs_stream_start_selector = Some(at_fragment(&digits));
        }),
        ("no StopSelector", |request| request.stop_selector = None),
        ("no time", |request| {
            request.stop_selector.as_mut().unwrap().max_duration_in_seconds = Some(0);
        }),
        ("more than two minutes", |request| {
            request.stop_selector.as_mut().unwrap().max_duration_in_seconds = Some(121);
        }),
        ("less than no time", |request| {
            request.stop_selector.as_mut().unwrap().max_duration_in_seconds = Some(i64::MIN);
        }),
    ];
    for (what, change) in changes {
        let mut request = start_request(at_time(0), Some(10));
        change(&mut request);
        let refused = server.call::<op::StartStreamProcessor>(request).await;
        assert_eq!(code(refused), "InvalidParameterException", "{what}");
    }
    let request = w::StartStreamProcessorRequest {
        name: "nobody".to_owned(),
        ..start_request(at_time(0), Some(10))
    };
    assert_eq!(
        code(server.call::<op::StartStreamProcessor>(request).await),
        "ResourceNotFoundException"
    );
    world.vision.no_labels.store(true, Ordering::Release);
    let refused = server
        .call::<op::StartStreamProcessor>(start_request(at_time(0), Some(10)))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, "InvalidParameterException");
    assert!(
        refused.message.contains("label detection is not available"),
        "{}",
        refused.message
    );
    assert_eq!(describe(&server).await.status, Some(Status::Stopped));
    assert!(told(&world).is_empty());
}

#[tokio::test]
async fn what_cannot_work_is_refused_when_it_is_created() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    type Change = fn(&mut w::CreateStreamProcessorRequest);
    fn labels(request: &mut w::CreateStreamProcessorRequest, labels: &[&str]) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        request.settings.connected_home.as_mut().unwrap().labels = labels;
    }
    fn region(request: &mut w::CreateStreamProcessorRequest, points: &[(f32, f32)]) {
        let point = |(x, y): &(f32, f32)| w::Point {
            x: Some(*x),
            y: Some(*y),
        };
        let polygon = w::RegionOfInterest {
            bounding_box: None,
            polygon: Some(points.iter().map(point).collect()),
        };
        request.regions_of_interest = Some(vec![polygon]);
    }
    let changes: [(&str, Change); 15] = [
        ("no labels", |request| labels(request, &[])),
        ("an unknown label", |request| labels(request, &["PERSON", "CAR"])),
        ("a label that no model knows", |request| {
            labels(request, &["PERSON", "PACKAGE"]);
        }),
        ("faces too", |request| {
            request.settings.face_search = Some(w::FaceSearchSettings::default());
        }),
        ("a data stream", |request| {
            request.output.kinesis_data_stream = Some(w::KinesisDataStream::default());
        }),
        ("no bucket", |request| request.output.s3_destination = None),
        ("a bucket without a name", |request| {
            request.output.s3_destination.as_mut().unwrap().bucket = None;
        }),
        ("a bucket that is not there", |request| {
            request.output.s3_destination.as_mut().unwrap().bucket = Some("elsewhere".to_owned());
        }),
        ("a prefix that leaves no room", |request| {
            request.output.s3_destination.as_mut().unwrap().key_prefix = Some("p".repeat(1024));
        }),
        ("a topic without an address", |request| {
            request.notification_channel.as_mut().unwrap().sns_topic_arn += "x";
        }),
        ("a bow tie", |request| {
            region(request, &[(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]);
        }),
        ("a line", |request| region(request, &[(0.0, 0.0), (1.0, 1.0)])),
        ("an empty region", |request| {
            request.regions_of_interest = Some(vec![w::RegionOfInterest::default()]);
        }),
        ("another account's role", |request| {
            request.role_arn = "arn:aws:iam::111111111111:role/Rekognition".to_owned();
        }),
        ("another account's stream", |request| {
            let arn = CAMERA.replace("000000000000", "111111111111");
            request.input.kinesis_video_stream = Some(w::KinesisVideoStream { arn: Some(arn) });
        }),
    ];
    for (what, change) in changes {
        let mut request = create_request();
        request.name = "other".to_owned();
        change(&mut request);
        let refused = server.call::<op::CreateStreamProcessor>(request).await;
        assert_eq!(code(refused), "InvalidParameterException", "{what}");
    }
    assert_eq!(
        code(server.call::<op::CreateStreamProcessor>(create_request()).await),
        "ResourceInUseException"
    );
    // What need not be said.
    let mut request = create_request();
    request.name = "plain".to_owned();
    request.notification_channel = None;
    request.output.s3_destination.as_mut().unwrap().key_prefix = None;
    request.kms_key_id = Some("alias/home".to_owned());
    request.data_sharing_preference = Some(w::StreamProcessorDataSharingPreference { opt_in: true });
    server.call::<op::CreateStreamProcessor>(request.clone()).await.unwrap();
    let name = "plain".to_owned();
    let described = server
        .call::<op::DescribeStreamProcessor>(w::DescribeStreamProcessorRequest { name })
        .await
        .unwrap();
    assert_eq!(described.input, Some(request.input));
    assert_eq!(described.output, Some(request.output));
    assert_eq!(
        (described.kms_key_id, described.notification_channel),
        (request.kms_key_id, None)
    );
    assert_eq!(described.data_sharing_preference, request.data_sharing_preference);
    assert_eq!(described.regions_of_interest, None);
    let home = described.settings.unwrap().connected_home.unwrap();
    assert_eq!((home.labels, home.min_confidence), (vec!["ALL".to_owned()], Some(50.0)));
    let listed = server
        .call::<op::ListStreamProcessors>(w::ListStreamProcessorsRequest::default())
        .await
        .unwrap();
    let names: Vec<_> = listed
        .stream_processors
        .unwrap()
        .into_iter()
        .map(|one| (one.name.unwrap(), one.status))
        .collect();
    assert_eq!(
        names,
        ["home", "plain"].map(|name| (name.to_owned(), Some(Status::Stopped)))
    );
}

#[tokio::test]
async fn a_stopped_processor_is_updated_and_another_is_not() {
    let world = World::new();
    let server = set_up(&world, |_| ()).await;
    let update = |change: &dyn Fn(&mut w::UpdateStreamProcessorRequest)| {
        let mut request = w::UpdateStreamProcessorRequest {
            name: "home".to_owned(),
            ..w::UpdateStreamProcessorRequest::default()
        };
        change(&mut request);
        server.call::<op::UpdateStreamProcessor>(request)
    };
    let home = |labels: &[&str], min_confidence| {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Some(w::StreamProcessorSettingsForUpdate {
            connected_home_for_update: Some(w::ConnectedHomeSettingsForUpdate {
                labels: Some(labels),
                min_confidence,
            }),
        })
    };
    let right_half = || {
        Some(vec![w::RegionOfInterest {
            bounding_box: Some(w::BoundingBox {
                left: Some(0.5),
                top: Some(0.0),
                width: Some(0.5),
                height: Some(1.0),
            }),
            polygon: None,
        }])
    };
    update(&|request| {
        request.settings_for_update = home(&["PET"], Some(75.0));
        request.regions_of_interest_for_update = right_half();
        request.data_sharing_preference_for_update = Some(w::StreamProcessorDataSharingPreference { opt_in: false });
    })
    .await
    .unwrap();
    let described = describe(&server).await;
    let settings = described.settings.unwrap().connected_home.unwrap();
    assert_eq!(
        (settings.labels, settings.min_confidence),
        (vec!["PET".to_owned()], Some(75.0))
    );
    assert_eq!(described.regions_of_interest, right_half());
    assert_eq!(
        described.data_sharing_preference,
        Some(w::StreamProcessorDataSharingPreference { opt_in: false })
    );
    update(&|request| {
        request.parameters_to_delete = Some(vec![
            Parameter::ConnectedHomeMinConfidence,
            Parameter::RegionsOfInterest,
        ]);
    })
    .await
    .unwrap();
    let described = describe(&server).await;
    assert_eq!(described.regions_of_interest, None);
    assert_eq!(
        described.settings.unwrap().connected_home.unwrap().min_confidence,
        Some(50.0)
    );

    type Change<'a> = &'a dyn Fn(&mut w::UpdateStreamProcessorRequest);
    let bad: [(&str, Change<'_>); 6] = [
        ("no labels", &|request| request.settings_for_update = home(&[], None)),
        ("a label that no model knows", &|request| {
            request.settings_for_update = home(&["PACKAGE"], None);
        }),
        ("no settings in the settings", &|request| {
            request.settings_for_update = Some(w::StreamProcessorSettingsForUpdate::default());
        }),
        ("a confidence that is also deleted", &|request| {
            request.settings_for_update = home(&["PET"], Some(75.0));
            request.parameters_to_delete = Some(vec![Parameter::ConnectedHomeMinConfidence]);
        }),
        ("regions that are also deleted", &|request| {
            request.regions_of_interest_for_update = right_half();
            request.parameters_to_delete = Some(vec![Parameter::RegionsOfInterest]);
        }),
        ("a region that is none", &|request| {
            request.regions_of_interest_for_update = Some(vec![w::RegionOfInterest::default()]);
        }),
    ];
    for (what, change) in bad {
        assert_eq!(code(update(change).await), "InvalidParameterException", "{what}");
    }
    start(&world, &server, 1).await;
    let refused = update(&|request| request.settings_for_update = home(&["PERSON"], None)).await;
    assert_eq!(code(refused), "ResourceInUseException");
    let name = "home".to_owned();
    let delete = w::DeleteStreamProcessorRequest { name: name.clone() };
    assert_eq!(
        code(server.call::<op::DeleteStreamProcessor>(delete.clone()).await),
        "ResourceInUseException"
    );
    let again = server
        .call::<op::StartStreamProcessor>(start_request(at_time(0), Some(1)))
        .await;
    assert_eq!(code(again), "ResourceInUseException");
    let both = scene(&[("cat", 60.0, 0.0), ("person", 60.0, 0.5)]);
    world.video.fragment(CAMERA, &second(&[both]));
    until_status(&server, Status::Stopped).await;
    let told = until_told(&world, 2).await;
    assert_eq!(
        shown(&told),
        ["PET 0", "STREAM_PROCESSING_COMPLETE"],
        "nobody asks for people any more"
    );
    server.call::<op::DeleteStreamProcessor>(delete).await.unwrap();
    let described = server
        .call::<op::DescribeStreamProcessor>(w::DescribeStreamProcessorRequest { name })
        .await;
    assert_eq!(code(described), "ResourceNotFoundException");
}
