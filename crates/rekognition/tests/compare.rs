//! What a caller of CompareFaces gets, and where images come from.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use base::ApiError;
use bytes::Bytes;
use common::{World, picture};
use wire::rekognition::{self as w, op};

fn image(bytes: Bytes) -> w::Image {
    w::Image {
        bytes: Some(bytes),
        s3_object: None,
    }
}

fn stored(key: &str, version: Option<&str>) -> w::Image {
    w::Image {
        bytes: None,
        s3_object: Some(w::S3Object {
            bucket: Some("photos".to_owned()),
            name: Some(key.to_owned()),
            version: version.map(str::to_owned),
        }),
    }
}

fn compare(source: w::Image, target: w::Image, threshold: Option<f32>) -> w::CompareFacesRequest {
    w::CompareFacesRequest {
        similarity_threshold: threshold,
        source_image: source,
        target_image: target,
        ..w::CompareFacesRequest::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    result.unwrap_err().code.into_owned()
}

#[tokio::test]
async fn the_largest_face_of_the_source_is_compared_with_every_face_of_the_target() {
    let server = World::new().server();
    let source = picture(&[(8, 0.1, 0.1), (7, 0.4, 0.3)]);
    let target = picture(&[(9, 0.1, 0.2), (1007, 0.4, 0.1), (2007, 0.7, 0.15)]);
    let request = compare(image(source.clone()), image(target.clone()), None);
    let answer = server.call::<op::CompareFaces>(request).await.unwrap();
    assert_eq!(answer.source_image_face.unwrap().bounding_box.unwrap().left, Some(0.4));
    let found = answer.face_matches.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found[0].similarity >= found[1].similarity && found[1].similarity.unwrap() > 90.0);
    assert!(found[0].face.as_ref().unwrap().landmarks.is_some());
    let left = |face: &w::ComparedFace| face.bounding_box.as_ref().unwrap().left;
    let unmatched = answer.unmatched_faces.unwrap();
    assert_eq!(unmatched.iter().map(left).collect::<Vec<_>>(), [Some(0.1)]);
    let request = compare(image(source.clone()), image(target.clone()), Some(0.0));
    let all = server.call::<op::CompareFaces>(request).await.unwrap();
    assert_eq!(
        (all.face_matches.unwrap().len(), all.unmatched_faces),
        (3, Some(vec![]))
    );
    for (source, target) in [(picture(&[]), target), (source, picture(&[]))] {
        let request = compare(image(source), image(target), None);
        assert_eq!(
            code(server.call::<op::CompareFaces>(request).await),
            "InvalidParameterException"
        );
    }
}

#[tokio::test]
async fn images_come_from_buckets_of_the_callers_account() {
    let world = World::new();
    let server = world.server();
    let put = |key: &str, bytes: Bytes| {
        world
            .objects
            .0
            .lock()
            .insert(("photos".to_owned(), key.to_owned()), bytes);
    };
    put("ann.jpg", picture(&[(7, 0.1, 0.2)]));
    put("bob.jpg", picture(&[(1007, 0.1, 0.2)]));
    put("text", Bytes::from_static(b"no picture"));
    put("huge", Bytes::from(vec![0; 15 * 1024 * 1024 + 1]));
    let request = compare(stored("ann.jpg", None), stored("bob.jpg", None), None);
    let answer = server.call::<op::CompareFaces>(request.clone()).await.unwrap();
    assert_eq!(answer.face_matches.unwrap().len(), 1);
    assert_eq!(
        code(server.call_as::<op::CompareFaces>("111111111111", request).await),
        "InvalidS3ObjectException"
    );
    let detect = |image: w::Image| w::DetectFacesRequest {
        image,
        ..w::DetectFacesRequest::default()
    };
    for (image, expected) in [
        (stored("missing", None), "InvalidS3ObjectException"),
        (stored("ann.jpg", Some("1")), "InvalidS3ObjectException"),
        (stored("text", None), "InvalidImageFormatException"),
        (stored("huge", None), "ImageTooLargeException"),
        (w::Image::default(), "InvalidParameterException"),
        (
            w::Image {
                bytes: Some(picture(&[])),
                ..stored("ann.jpg", None)
            },
            "InvalidParameterException",
        ),
    ] {
        let answer = server.call::<op::DetectFaces>(detect(image)).await;
        assert_eq!(code(answer), expected);
    }
    let found = server
        .call::<op::DetectFaces>(detect(stored("ann.jpg", None)))
        .await
        .unwrap();
    assert_eq!(found.face_details.unwrap().len(), 1);
}
