//! What a caller of the user operations gets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use base::ApiError;
use common::{MODEL, Server, World, picture};
use wire::rekognition::{self as w, UnsearchedFaceReason, UserStatus, op};

const COLLECTION: &str = "staff";

fn image(faces: &[(u64, f32, f32)]) -> w::Image {
    w::Image {
        bytes: Some(picture(faces)),
        s3_object: None,
    }
}

async fn server_with_collection() -> Server {
    let server = World::new().server();
    let request = w::CreateCollectionRequest {
        collection_id: COLLECTION.to_owned(),
        tags: None,
    };
    server.call::<op::CreateCollection>(request).await.unwrap();
    server
}

/// Indexes a picture of person `who` and gives the face's id.
async fn enrol(server: &Server, who: u64) -> String {
    let request = w::IndexFacesRequest {
        collection_id: COLLECTION.to_owned(),
        image: image(&[(who, 0.1, 0.2)]),
        ..w::IndexFacesRequest::default()
    };
    let answer = server.call::<op::IndexFaces>(request).await.unwrap();
    let face = answer.face_records.unwrap().remove(0).face.unwrap();
    assert_eq!(face.user_id, None);
    face.face_id.unwrap()
}

async fn create(server: &Server, user: &str, token: Option<&str>) -> Result<w::CreateUserResponse, ApiError> {
    let request = w::CreateUserRequest {
        client_request_token: token.map(str::to_owned),
        collection_id: COLLECTION.to_owned(),
        user_id: user.to_owned(),
    };
    server.call::<op::CreateUser>(request).await
}

async fn associate(server: &Server, user: &str, faces: &[&str]) -> Result<w::AssociateFacesResponse, ApiError> {
    let request = w::AssociateFacesRequest {
        collection_id: COLLECTION.to_owned(),
        face_ids: faces.iter().map(|face| (*face).to_owned()).collect(),
        user_id: user.to_owned(),
        ..w::AssociateFacesRequest::default()
    };
    server.call::<op::AssociateFaces>(request).await
}

fn search(face: Option<&str>, user: Option<&str>) -> w::SearchUsersRequest {
    w::SearchUsersRequest {
        collection_id: COLLECTION.to_owned(),
        face_id: face.map(str::to_owned),
        user_id: user.map(str::to_owned),
        ..w::SearchUsersRequest::default()
    }
}

fn by_image(faces: &[(u64, f32, f32)]) -> w::SearchUsersByImageRequest {
    w::SearchUsersByImageRequest {
        collection_id: COLLECTION.to_owned(),
        image: image(faces),
        ..w::SearchUsersByImageRequest::default()
    }
}

fn names(matches: Option<Vec<w::UserMatch>>) -> Vec<String> {
    let name = |found: w::UserMatch| found.user.unwrap().user_id.unwrap();
    matches.unwrap().into_iter().map(name).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    result.unwrap_err().code.into_owned()
}

#[tokio::test]
async fn a_user_is_made_of_faces_found_by_face_user_and_image_and_deleted() {
    let server = server_with_collection().await;
    let (first, second, other) = (
        enrol(&server, 7).await,
        enrol(&server, 1007).await,
        enrol(&server, 8).await,
    );
    create(&server, "ada", None).await.unwrap();
    create(&server, "grace", None).await.unwrap();
    let answer = associate(&server, "ada", &[&first, &second]).await.unwrap();
    assert_eq!(answer.associated_faces.unwrap().len(), 2);
    assert_eq!(answer.user_status, Some(UserStatus::Active));
    associate(&server, "grace", &[&other]).await.unwrap();

    let found = server
        .call::<op::SearchUsers>(search(Some(&second), None))
        .await
        .unwrap();
    assert_eq!(found.searched_face.unwrap().face_id, Some(second.clone()));
    assert_eq!(
        (found.face_model_version.as_deref(), found.searched_user),
        (Some(MODEL), None)
    );
    assert_eq!(names(found.user_matches), ["ada"]);
    let found = server.call::<op::SearchUsers>(search(None, Some("ada"))).await.unwrap();
    assert!(names(found.user_matches).is_empty(), "a user is not like itself");
    for bad in [search(None, None), search(Some(&first), Some("ada"))] {
        assert_eq!(
            code(server.call::<op::SearchUsers>(bad).await),
            "InvalidParameterException"
        );
    }
    let found = server
        .call::<op::SearchUsersByImage>(by_image(&[(8, 0.1, 0.1), (2007, 0.4, 0.3)]))
        .await
        .unwrap();
    assert_eq!(names(found.user_matches), ["ada"], "the largest face is searched");
    assert!(found.searched_face.is_some());
    let unsearched = found.unsearched_faces.unwrap();
    assert_eq!(unsearched.len(), 1);
    assert_eq!(unsearched[0].reasons, Some(vec![UnsearchedFaceReason::FaceNotLargest]));
    let nobody = server.call::<op::SearchUsersByImage>(by_image(&[])).await.unwrap();
    assert!(
        names(nobody.user_matches).is_empty() && nobody.searched_face.is_none(),
        "no error"
    );

    let listed = w::ListFacesRequest {
        collection_id: COLLECTION.to_owned(),
        user_id: Some("ada".to_owned()),
        ..w::ListFacesRequest::default()
    };
    let listed = server.call::<op::ListFaces>(listed).await.unwrap().faces.unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|face| face.user_id.as_deref() == Some("ada")));
    let describe = w::DescribeCollectionRequest {
        collection_id: COLLECTION.to_owned(),
    };
    let described = server.call::<op::DescribeCollection>(describe).await.unwrap();
    assert_eq!((described.face_count, described.user_count), (Some(3), Some(2)));
    let delete = w::DeleteFacesRequest {
        collection_id: COLLECTION.to_owned(),
        face_ids: vec![first.clone()],
    };
    let refused = server.call::<op::DeleteFaces>(delete).await.unwrap();
    assert_eq!(refused.deleted_faces, Some(vec![]));
    let refused = refused.unsuccessful_face_deletions.unwrap();
    assert_eq!(refused[0].user_id.as_deref(), Some("ada"));
    let reason = w::UnsuccessfulFaceDeletionReason::AssociatedToAnExistingUser;
    assert_eq!(refused[0].reasons, Some(vec![reason]));
    let delete = || w::DeleteUserRequest {
        collection_id: COLLECTION.to_owned(),
        user_id: "ada".to_owned(),
        client_request_token: None,
    };
    server.call::<op::DeleteUser>(delete()).await.unwrap();
    assert_eq!(
        code(server.call::<op::DeleteUser>(delete()).await),
        "ResourceNotFoundException"
    );
    let found = server
        .call::<op::SearchUsers>(search(Some(&first), None))
        .await
        .unwrap();
    assert!(names(found.user_matches).is_empty());
}

#[tokio::test]
async fn faces_that_are_not_associated_come_with_their_reasons() {
    let server = server_with_collection().await;
    let (mine, theirs, stranger) = (
        enrol(&server, 7).await,
        enrol(&server, 8).await,
        enrol(&server, 9).await,
    );
    create(&server, "ada", Some("once")).await.unwrap();
    create(&server, "ada", Some("once")).await.unwrap();
    assert_eq!(code(create(&server, "ada", None).await), "ConflictException");
    assert_eq!(
        code(create(&server, "grace", Some("once")).await),
        "IdempotentParameterMismatchException"
    );
    create(&server, "grace", None).await.unwrap();
    assert_eq!(
        code(associate(&server, "nobody", &[&mine]).await),
        "ResourceNotFoundException"
    );
    assert_eq!(
        code(associate(&server, "ada", &["no-id"]).await),
        "InvalidParameterException"
    );
    associate(&server, "ada", &[&mine]).await.unwrap();
    associate(&server, "grace", &[&theirs]).await.unwrap();
    let unknown = "11111111-2222-3333-4444-555555555555";
    let answer = associate(&server, "ada", &[&mine, &theirs, &stranger, unknown])
        .await
        .unwrap();
    assert_eq!(answer.associated_faces, Some(vec![]));
    let refused = answer.unsuccessful_face_associations.unwrap();
    use w::UnsuccessfulFaceAssociationReason::{AssociatedToADifferentUser, FaceNotFound, LowMatchConfidence};
    let reasons: Vec<_> = refused.iter().map(|face| face.reasons.clone().unwrap()[0]).collect();
    assert_eq!(reasons, [AssociatedToADifferentUser, LowMatchConfidence, FaceNotFound]);
    assert_eq!(refused[0].user_id.as_deref(), Some("grace"));
    assert!(refused[1].confidence.unwrap() < 75.0);
    let request = w::DisassociateFacesRequest {
        collection_id: COLLECTION.to_owned(),
        user_id: "ada".to_owned(),
        face_ids: vec![mine.clone(), theirs, unknown.to_owned(), stranger],
        client_request_token: None,
    };
    let answer = server.call::<op::DisassociateFaces>(request).await.unwrap();
    assert_eq!(answer.disassociated_faces.unwrap()[0].face_id, Some(mine));
    assert_eq!(answer.unsuccessful_face_disassociations.unwrap().len(), 2);
    assert_eq!(answer.user_status, Some(UserStatus::Created));
}

#[tokio::test]
async fn users_are_listed_in_pages_in_the_order_of_their_creation() {
    let server = server_with_collection().await;
    for user in ["c", "a", "b"] {
        create(&server, user, None).await.unwrap();
    }
    let page = |token: Option<String>| w::ListUsersRequest {
        collection_id: COLLECTION.to_owned(),
        max_results: Some(2),
        next_token: token,
    };
    let first = server.call::<op::ListUsers>(page(None)).await.unwrap();
    let second = server
        .call::<op::ListUsers>(page(first.next_token.clone()))
        .await
        .unwrap();
    let listed = [first.users.unwrap(), second.users.unwrap()].concat();
    let ids: Vec<_> = listed.iter().map(|user| user.user_id.clone().unwrap()).collect();
    assert_eq!(
        (ids, second.next_token),
        (["c", "a", "b"].map(str::to_owned).to_vec(), None)
    );
    assert_eq!(listed[0].user_status, Some(UserStatus::Created));
    let bad = server.call::<op::ListUsers>(page(Some("nonsense".to_owned()))).await;
    assert_eq!(code(bad), "InvalidPaginationTokenException");
    let theirs = server.call_as::<op::ListUsers>("111111111111", page(None)).await;
    assert_eq!(code(theirs), "ResourceNotFoundException");
}
