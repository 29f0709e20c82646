//! What a caller of the image and collection operations gets.
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
use common::{MODEL, Server, World, picture};
use wire::rekognition::{self as w, QualityFilter, Reason, op};

fn image(bytes: impl Into<Bytes>) -> w::Image {
    w::Image {
        bytes: Some(bytes.into()),
        s3_object: None,
    }
}

async fn create(server: &Server, id: &str) {
    let request = w::CreateCollectionRequest {
        collection_id: id.to_owned(),
        tags: None,
    };
    server.call::<op::CreateCollection>(request).await.unwrap();
}

fn index(id: &str, bytes: impl Into<Bytes>, external: &str) -> w::IndexFacesRequest {
    w::IndexFacesRequest {
        collection_id: id.to_owned(),
        image: image(bytes),
        external_image_id: Some(external.to_owned()),
        ..w::IndexFacesRequest::default()
    }
}

fn by_image(id: &str, bytes: impl Into<Bytes>) -> w::SearchFacesByImageRequest {
    w::SearchFacesByImageRequest {
        collection_id: id.to_owned(),
        image: image(bytes),
        ..w::SearchFacesByImageRequest::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    result.unwrap_err().code.into_owned()
}

#[tokio::test]
async fn a_collection_is_created_described_listed_and_deleted() {
    let server = World::new().server();
    let request = || w::CreateCollectionRequest {
        collection_id: "staff".to_owned(),
        tags: None,
    };
    let created = server.call::<op::CreateCollection>(request()).await.unwrap();
    assert_eq!(created.status_code, Some(200));
    assert_eq!(created.face_model_version.as_deref(), Some(MODEL));
    let arn = "arn:aws:rekognition:us-west-2:000000000000:collection/staff";
    assert_eq!(created.collection_arn.as_deref(), Some(arn));
    assert_eq!(
        code(server.call::<op::CreateCollection>(request()).await),
        "ResourceAlreadyExistsException"
    );

    server
        .call::<op::IndexFaces>(index("staff", picture(&[(1, 0.1, 0.2)]), "ann"))
        .await
        .unwrap();
    let describe = || w::DescribeCollectionRequest {
        collection_id: "staff".to_owned(),
    };
    let described = server.call::<op::DescribeCollection>(describe()).await.unwrap();
    assert_eq!((described.face_count, described.user_count), (Some(1), Some(0)));
    assert_eq!(described.collection_arn.as_deref(), Some(arn));
    assert!(described.creation_timestamp.is_some());

    let other = server
        .call_as::<op::DescribeCollection>("111111111111", describe())
        .await;
    assert_eq!(
        code(other),
        "ResourceNotFoundException",
        "another account's cannot be told from none"
    );

    let delete = || w::DeleteCollectionRequest {
        collection_id: "staff".to_owned(),
    };
    let theirs = server.call_as::<op::DeleteCollection>("111111111111", delete()).await;
    assert_eq!(code(theirs), "ResourceNotFoundException");
    assert_eq!(
        server.call::<op::DeleteCollection>(delete()).await.unwrap().status_code,
        Some(200)
    );
    assert_eq!(
        code(server.call::<op::DeleteCollection>(delete()).await),
        "ResourceNotFoundException"
    );
    assert_eq!(
        code(server.call::<op::DescribeCollection>(describe()).await),
        "ResourceNotFoundException"
    );
    create(&server, "staff").await;
    let again = server.call::<op::DescribeCollection>(describe()).await.unwrap();
    assert_eq!(again.face_count, Some(0), "a name can be used again at once");
}

#[tokio::test]
async fn collections_are_listed_in_pages() {
    let server = World::new().server();
    for number in 0..5 {
        create(&server, &format!("c{number}")).await;
    }
    let mut token = None;
    let mut seen = Vec::new();
    loop {
        let request = w::ListCollectionsRequest {
            max_results: Some(2),
            next_token: token.clone(),
        };
        let page = server.call::<op::ListCollections>(request).await.unwrap();
        let ids = page.collection_ids.unwrap();
        assert_eq!(page.face_model_versions.unwrap().len(), ids.len());
        seen.push(ids);
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, [vec!["c0", "c1"], vec!["c2", "c3"], vec!["c4"]]);
    let bad = w::ListCollectionsRequest {
        max_results: None,
        next_token: Some("nonsense".to_owned()),
    };
    assert_eq!(
        code(server.call::<op::ListCollections>(bad).await),
        "InvalidPaginationTokenException"
    );
}

#[tokio::test]
async fn faces_are_indexed_listed_searched_and_deleted() {
    let server = World::new().server();
    create(&server, "staff").await;
    let small_then_large = picture(&[(1, 0.1, 0.2), (2, 0.5, 0.4)]);
    let indexed = server
        .call::<op::IndexFaces>(index("staff", small_then_large.clone(), "pair"))
        .await
        .unwrap();
    let records = indexed.face_records.unwrap();
    let widths: Vec<f32> = records
        .iter()
        .map(|record| {
            record
                .face
                .as_ref()
                .unwrap()
                .bounding_box
                .as_ref()
                .unwrap()
                .width
                .unwrap()
        })
        .collect();
    assert_eq!(widths, [0.4, 0.2], "largest first");
    let first = records[0].face.clone().unwrap();
    assert_eq!(first.external_image_id.as_deref(), Some("pair"));
    assert_eq!(first.index_faces_model_version.as_deref(), Some(MODEL));
    assert_eq!(first.image_id, records[1].face.as_ref().unwrap().image_id);
    let detail = records[0].face_detail.as_ref().unwrap();
    assert_eq!(detail.landmarks.as_ref().unwrap().len(), 5);
    assert!(detail.pose.is_some() && detail.quality.is_some() && detail.age_range.is_none());
    assert_eq!(indexed.unindexed_faces, Some(Vec::new()));

    let again = server
        .call::<op::IndexFaces>(index("staff", small_then_large, "pair"))
        .await
        .unwrap();
    assert_eq!(again.face_records.unwrap()[0].face, Some(first.clone()), "no duplicate");

    // Person 1002 looks like person 2.
    server
        .call::<op::IndexFaces>(index("staff", picture(&[(1002, 0.1, 0.2)]), "two-again"))
        .await
        .unwrap();
    let search = w::SearchFacesRequest {
        collection_id: "staff".to_owned(),
        face_id: first.face_id.clone().unwrap(),
        ..w::SearchFacesRequest::default()
    };
    let found = server.call::<op::SearchFaces>(search.clone()).await.unwrap();
    assert_eq!(found.searched_face_id, first.face_id);
    let matches = found.face_matches.unwrap();
    assert_eq!(matches.len(), 1, "neither itself nor a stranger");
    assert_eq!(
        matches[0].face.as_ref().unwrap().external_image_id.as_deref(),
        Some("two-again")
    );
    assert!(matches[0].similarity.unwrap() > 99.0);

    let found = server
        .call::<op::SearchFacesByImage>(by_image("staff", picture(&[(1, 0.0, 0.1), (2002, 0.3, 0.3)])))
        .await;
    let found = found.unwrap();
    assert_eq!(
        found.searched_face_bounding_box.unwrap().width,
        Some(0.3),
        "the largest face"
    );
    let similarities: Vec<f32> = found
        .face_matches
        .unwrap()
        .iter()
        .map(|found| found.similarity.unwrap())
        .collect();
    assert_eq!(similarities.len(), 2);
    assert!(similarities[0] >= similarities[1], "best first");
    let one = w::SearchFacesByImageRequest {
        max_faces: Some(1),
        ..by_image("staff", picture(&[(2002, 0.3, 0.3)]))
    };
    assert_eq!(
        server
            .call::<op::SearchFacesByImage>(one)
            .await
            .unwrap()
            .face_matches
            .unwrap()
            .len(),
        1
    );
    let stranger = server
        .call::<op::SearchFacesByImage>(by_image("staff", picture(&[(500, 0.3, 0.3)])))
        .await;
    assert_eq!(stranger.unwrap().face_matches, Some(Vec::new()));

    let unknown = "6a6f7c5e-37a1-5d0c-8f5e-2b1d9c407e11".to_owned();
    let delete = w::DeleteFacesRequest {
        collection_id: "staff".to_owned(),
        face_ids: vec![first.face_id.clone().unwrap(), unknown.clone()],
    };
    let deleted = server.call::<op::DeleteFaces>(delete).await.unwrap();
    assert_eq!(deleted.deleted_faces, Some(vec![first.face_id.unwrap()]));
    let failed = &deleted.unsuccessful_face_deletions.unwrap()[0];
    assert_eq!(failed.face_id, Some(unknown));
    assert_eq!(
        failed.reasons,
        Some(vec![w::UnsuccessfulFaceDeletionReason::FaceNotFound])
    );
    assert_eq!(
        code(server.call::<op::SearchFaces>(search).await),
        "InvalidParameterException"
    );
}

#[tokio::test]
async fn faces_are_listed_in_pages_and_by_id() {
    let server = World::new().server();
    create(&server, "staff").await;
    for who in 0..5u64 {
        server
            .call::<op::IndexFaces>(index("staff", picture(&[(who, 0.1, 0.2)]), &format!("p{who}")))
            .await
            .unwrap();
    }
    let list = |token: Option<String>, ids: Option<Vec<String>>| w::ListFacesRequest {
        collection_id: "staff".to_owned(),
        max_results: Some(2),
        next_token: token,
        face_ids: ids,
        user_id: None,
    };
    let (mut token, mut ids) = (None, Vec::new());
    loop {
        let page = server.call::<op::ListFaces>(list(token, None)).await.unwrap();
        assert_eq!(page.face_model_version.as_deref(), Some(MODEL));
        ids.extend(page.faces.unwrap().into_iter().map(|face| face.face_id.unwrap()));
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(ids.len(), 5);
    let mut distinct = ids.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 5);
    let wanted = vec![ids[3].clone(), ids[1].clone()];
    let page = server.call::<op::ListFaces>(list(None, Some(wanted))).await.unwrap();
    assert_eq!((page.faces.unwrap().len(), page.next_token), (2, None));
    let user = w::ListFacesRequest {
        user_id: Some("ann".to_owned()),
        ..list(None, None)
    };
    assert_eq!(
        code(server.call::<op::ListFaces>(user).await),
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn faces_that_are_left_out_come_with_their_reasons() {
    let server = World::new().server();
    create(&server, "staff").await;
    let faces = picture(&[(1, 0.1, 0.3), (2, 0.5, 0.2), (3, 0.8, 0.01)]);
    let request = w::IndexFacesRequest {
        max_faces: Some(1),
        ..index("staff", faces.clone(), "crowd")
    };
    let answer = server.call::<op::IndexFaces>(request).await.unwrap();
    assert_eq!(answer.face_records.unwrap().len(), 1);
    let reasons: Vec<_> = answer
        .unindexed_faces
        .unwrap()
        .into_iter()
        .map(|face| face.reasons.unwrap())
        .collect();
    assert_eq!(reasons, [vec![Reason::ExceedsMaxFaces], vec![Reason::SmallBoundingBox]]);
    let everyone = w::IndexFacesRequest {
        quality_filter: Some(QualityFilter::None),
        ..index("staff", faces, "everyone")
    };
    assert_eq!(
        server
            .call::<op::IndexFaces>(everyone)
            .await
            .unwrap()
            .face_records
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn a_bad_image_gets_a_declared_error() {
    let server = World::new().server();
    create(&server, "staff").await;
    let detect = |image| w::DetectFacesRequest {
        image,
        attributes: None,
    };
    for (bytes, expected) in [
        (&b"GIF"[..], "InvalidImageFormatException"),
        (b"no image", "InvalidImageFormatException"),
        (b"HUGE", "ImageTooLargeException"),
        (b"TINY", "InvalidParameterException"),
    ] {
        let bytes = Bytes::from_static(bytes);
        assert_eq!(
            code(server.call::<op::DetectFaces>(detect(image(bytes.clone()))).await),
            expected
        );
        assert_eq!(
            code(server.call::<op::IndexFaces>(index("staff", bytes.clone(), "x")).await),
            expected
        );
        assert_eq!(
            code(server.call::<op::SearchFacesByImage>(by_image("staff", bytes)).await),
            expected
        );
    }
    let too_many_bytes = image(vec![0u8; 5_242_881]);
    assert_eq!(
        code(server.call::<op::DetectFaces>(detect(too_many_bytes)).await),
        "ImageTooLargeException"
    );
    let s3 = w::Image {
        bytes: None,
        s3_object: Some(w::S3Object::default()),
    };
    assert_eq!(
        code(server.call::<op::DetectFaces>(detect(s3)).await),
        "InvalidParameterException"
    );
    assert_eq!(
        code(server.call::<op::DetectFaces>(detect(w::Image::default())).await),
        "InvalidParameterException"
    );
    let nobody = server
        .call::<op::SearchFacesByImage>(by_image("staff", picture(&[])))
        .await;
    assert_eq!(code(nobody), "InvalidParameterException", "no face in the image");
    let missing = server
        .call::<op::SearchFacesByImage>(by_image("nobody", picture(&[(1, 0.1, 0.2)])))
        .await;
    assert_eq!(code(missing), "ResourceNotFoundException");
    let empty = server
        .call::<op::IndexFaces>(index("staff", picture(&[]), "x"))
        .await
        .unwrap();
    assert_eq!(empty.face_records, Some(Vec::new()));
}

#[tokio::test]
async fn detect_faces_gives_the_default_attributes_largest_face_first() {
    let server = World::new().server();
    let request = |attributes| w::DetectFacesRequest {
        image: image(picture(&[(1, 0.1, 0.2), (2, 0.5, 0.4)])),
        attributes,
    };
    let answer = server.call::<op::DetectFaces>(request(None)).await.unwrap();
    let faces = answer.face_details.unwrap();
    assert_eq!(faces[0].bounding_box.as_ref().unwrap().width, Some(0.4));
    assert_eq!((faces.len(), faces[1].confidence), (2, Some(99.0)));
    assert!(
        server
            .call::<op::DetectFaces>(request(Some(vec![w::Attribute::All])))
            .await
            .is_ok()
    );
    let age = server
        .call::<op::DetectFaces>(request(Some(vec![w::Attribute::AgeRange])))
        .await;
    assert_eq!(code(age), "InvalidParameterException");
}
