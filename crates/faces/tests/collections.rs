//! What a caller relies on: what was answered is there after a restart, what was deleted is nowhere, and a search finds
//! what comparing every face by hand finds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod traces;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use base::{AccountId, ManualClock, ResourceName, Timestamp};
use faces::{
    CollectionInfo, FaceFilter, FaceId, FaceStore, FacesError, ImageDigest, ModelVersion, NewFace, Rect, UserChange,
    similarity::Scale,
};
use proptest::prelude::*;
use traces::{disguises, found_in_files, traces, unit};

const MODEL: &str = "test-model";

fn open(directory: &Path) -> FaceStore {
    let clock = ManualClock::at(Timestamp::from_millis(1_700_000_000_000));
    FaceStore::open(&directory.join("faces.db"), clock).unwrap()
}

fn key(name: &str) -> ResourceName {
    ResourceName {
        account: AccountId::DEFAULT,
        region: "us-west-2".parse().unwrap(),
        name: name.to_owned(),
    }
}

fn model(dimensions: usize) -> ModelVersion {
    ModelVersion {
        id: MODEL.to_owned(),
        dimensions,
    }
}

fn random_vector(rng: &mut fastrand::Rng, dimensions: usize) -> Vec<f32> {
    (0..dimensions).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

fn face(left: f32, vector: Vec<f32>) -> NewFace {
    NewFace {
        rect: Rect {
            left,
            top: 0.1,
            width: 0.2,
            height: 0.3,
        },
        confidence: 99.5,
        vector,
    }
}

/// Adds one face of its own image and gives its id.
async fn add(store: &FaceStore, name: &str, image: &[u8], external: Option<&str>, vector: Vec<f32>) -> FaceId {
    let (image, external) = (ImageDigest::of(image), external.map(str::to_owned));
    let added = store
        .index_faces(key(name), MODEL.to_owned(), image, external, vec![face(0.1, vector)])
        .await
        .unwrap();
    added[0].record.face_id
}

fn without_version(info: CollectionInfo) -> CollectionInfo {
    CollectionInfo { version: 0, ..info }
}

#[tokio::test]
async fn a_collection_and_its_faces_are_the_same_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let vectors: Vec<_> = (0..300).map(|_| random_vector(&mut rng, 128)).collect();
    let (described, listed, found) = {
        let store = open(directory.path());
        store.create_collection(key("staff"), model(128)).await.unwrap();
        for (number, vector) in vectors.iter().enumerate() {
            let external = (number % 2 == 0).then(|| format!("person-{number}"));
            add(
                &store,
                "staff",
                &number.to_le_bytes(),
                external.as_deref(),
                vector.clone(),
            )
            .await;
        }
        (
            without_version(store.describe(&key("staff")).unwrap()),
            store
                .list_faces(&key("staff"), None, 1000, FaceFilter::default())
                .unwrap(),
            store.search(&key("staff"), MODEL, &vectors[7], 0.0, 50).unwrap(),
        )
    };
    assert_eq!((described.face_count, listed.len(), found.len()), (300, 300, 50));
    let store = open(directory.path());
    assert_eq!(without_version(store.describe(&key("staff")).unwrap()), described);
    assert_eq!(
        store
            .list_faces(&key("staff"), None, 1000, FaceFilter::default())
            .unwrap(),
        listed
    );
    assert_eq!(store.search(&key("staff"), MODEL, &vectors[7], 0.0, 50).unwrap(), found);
}

#[tokio::test]
async fn an_image_sent_again_is_not_stored_twice_but_may_stand_under_several_names() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.create_collection(key("a"), model(2)).await.unwrap();
    store.create_collection(key("b"), model(2)).await.unwrap();
    let vector = || vec![1.0, 0.5];
    let first = add(&store, "a", b"image", Some("bob"), vector()).await;
    assert_eq!(first, add(&store, "a", b"image", Some("bob"), vector()).await);
    assert_eq!(
        first,
        add(&store, "b", b"image", None, vector()).await,
        "the same in every collection"
    );
    let second = add(&store, "a", b"image", Some("robert"), vector()).await;
    assert_ne!(first, second);
    store.delete_faces(key("a"), vec![first]).await.unwrap();
    assert_eq!(second, add(&store, "a", b"image", Some("robert"), vector()).await);
    assert_eq!(store.describe(&key("a")).unwrap().face_count, 1);
    let twice = vec![face(0.1, vector()), face(0.1, vector()), face(0.7, vector())];
    let added = store
        .index_faces(key("b"), MODEL.to_owned(), ImageDigest::of(b"other"), None, twice)
        .await
        .unwrap();
    assert_eq!(added[0].record.face_id, added[1].record.face_id);
    assert_eq!(
        added.iter().map(|face| face.existed).collect::<Vec<_>>(),
        [false, true, false]
    );
}

#[tokio::test]
async fn names_are_apart_by_account_and_region_and_an_old_collection_never_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mine = store.create_collection(key("x"), model(2)).await.unwrap();
    let taken = store.create_collection(key("x"), model(2)).await;
    assert_eq!(taken, Err(FacesError::CollectionExists("x".to_owned())));
    let theirs = ResourceName {
        account: "111111111111".parse().unwrap(),
        ..key("x")
    };
    assert!(matches!(
        store.describe(&theirs),
        Err(FacesError::CollectionNotFound(_))
    ));
    store.create_collection(theirs.clone(), model(2)).await.unwrap();
    for name in ["w", "y", "z"] {
        store.create_collection(key(name), model(2)).await.unwrap();
    }
    let region = key("x").region;
    let page = |after, limit| -> (Vec<String>, i64) {
        let page = store.list_collections(AccountId::DEFAULT, &region, after, limit);
        let last = page.last().map_or(after, |info| info.id);
        (page.into_iter().map(|info| info.key.name).collect(), last)
    };
    let (first, last) = page(0, 2);
    assert_eq!(first, ["x", "w"]);
    assert_eq!(page(last, 9).0, ["y", "z"]);
    add(&store, "x", b"1", None, vec![1.0, 0.0]).await;
    store.delete_collection(key("x")).await.unwrap();
    assert!(matches!(
        store.delete_collection(key("x")).await,
        Err(FacesError::CollectionNotFound(_))
    ));
    let again = store.create_collection(key("x"), model(2)).await.unwrap();
    assert_ne!(again.id, mine.id);
    assert_eq!(again.face_count, 0);
    assert!(store.describe(&theirs).is_ok());
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.create_collection(key("x"), model(2)).await.unwrap();
    add(&store, "x", b"1", None, vec![3.0, 4.0]).await;
    let search = |model, probe: &[f32]| store.search(&key("x"), model, probe, 0.0, 10);
    assert!(matches!(
        search("other-model", &[1.0, 0.0]),
        Err(FacesError::ModelMismatch { .. })
    ));
    for bad in [&[1.0][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0]] {
        assert_eq!(search(MODEL, bad), Err(FacesError::BadVector(2)), "{bad:?}");
    }
    let face_of = |model: &str, vector| {
        store.index_faces(
            key("x"),
            model.to_owned(),
            ImageDigest::of(b"2"),
            None,
            vec![face(0.1, vector)],
        )
    };
    assert!(matches!(
        face_of("other", vec![1.0, 0.0]).await,
        Err(FacesError::ModelMismatch { .. })
    ));
    assert_eq!(face_of(MODEL, vec![f32::NAN, 0.0]).await, Err(FacesError::BadVector(2)));
    let too_many = vec![face(0.1, vec![1.0, 0.0]); 101];
    let refused = store
        .index_faces(key("x"), MODEL.to_owned(), ImageDigest::of(b"2"), None, too_many)
        .await;
    assert!(matches!(refused, Err(FacesError::LimitExceeded { limit: 100, .. })));
    assert_eq!(store.describe(&key("x")).unwrap().face_count, 1);
}

#[tokio::test]
async fn a_deleted_vector_is_gone_from_every_file_when_the_deletion_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for name in ["a", "b", "c"] {
        store.create_collection(key(name), model(128)).await.unwrap();
    }
    let mut rng = fastrand::Rng::with_seed(2);
    let mut kept = HashSet::new();
    let mut gone = HashSet::new();
    // Rounds of adding and deleting, so that slots and pages are used again and again.
    for round in 0..3u64 {
        for name in ["a", "b", "c"] {
            let mut doomed = Vec::new();
            for image in 0..4u64 {
                let vectors: Vec<_> = (0..50).map(|_| random_vector(&mut rng, 128)).collect();
                let faces = vectors.iter().enumerate();
                let faces = faces
                    .map(|(place, vector)| face(place as f32 / 50.0, vector.clone()))
                    .collect();
                let digest = ImageDigest::of(format!("{round} {name} {image}").as_bytes());
                let added = store
                    .index_faces(key(name), MODEL.to_owned(), digest, None, faces)
                    .await
                    .unwrap();
                for (vector, added) in vectors.iter().zip(&added) {
                    if name == "c" || rng.bool() {
                        gone.extend(traces(vector));
                        doomed.push(added.record.face_id);
                    } else {
                        kept.extend(traces(vector));
                    }
                }
            }
            if name != "c" {
                let before = found_in_files(directory.path(), &gone);
                assert!(before > 0, "the search for traces must be able to find some");
                let outcome = store.delete_faces(key(name), doomed.clone()).await.unwrap();
                assert_eq!(outcome.deleted, doomed);
            }
        }
        store.delete_collection(key("c")).await.unwrap();
        assert_eq!(found_in_files(directory.path(), &gone), 0, "round {round}");
        store.create_collection(key("c"), model(128)).await.unwrap();
    }
    // A page boundary may part two components, so not quite every pair of a kept vector is found.
    assert!(found_in_files(directory.path(), &kept) > kept.len() * 98 / 100);
    let again = store
        .delete_faces(
            key("a"),
            vec![FaceId::parse("6a6f7c5e-37a1-5d0c-8f5e-2b1d9c407e11").unwrap()],
        )
        .await;
    assert_eq!(again.unwrap().not_found.len(), 1);
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("faces.db"), vec![7u8; 8192]).unwrap();
    let clock: Arc<ManualClock> = ManualClock::at(Timestamp::from_millis(0));
    let refused = FaceStore::open(&directory.path().join("faces.db"), clock);
    assert!(matches!(refused, Err(FacesError::Storage(_))));
}

/// Compares with every vector in `f64` and sorts the lot.
fn naive(all: &[(FaceId, Vec<f32>)], probe: &[f32], threshold: f32, except: Option<FaceId>) -> Vec<(FaceId, f32)> {
    let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let mut found: Vec<(FaceId, f32)> = Vec::new();
    for (id, vector) in all.iter().filter(|(id, _)| Some(*id) != except) {
        let product: f64 = vector
            .iter()
            .zip(probe)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum();
        let similarity = Scale::default().similarity((product / norm(vector) / norm(probe)) as f32);
        if similarity >= threshold {
            found.push((*id, similarity));
        }
    }
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found
}

/// Equal up to rounding: near-ties may change places, and what lies at the threshold may be on either side of it.
fn agrees(got: &[(FaceId, f32)], want: &[(FaceId, f32)], limit: usize, threshold: f32) {
    const ROUNDING: f32 = 0.01;
    let clear = want
        .iter()
        .filter(|(_, similarity)| *similarity > threshold + ROUNDING)
        .count();
    assert!(got.len() >= clear.min(limit) && got.len() <= limit);
    assert!(got.windows(2).all(|pair| pair[0].1 >= pair[1].1), "best first");
    for ((_, got), (_, want)) in got.iter().zip(want) {
        assert!((got - want).abs() < ROUNDING, "{got} is not {want}");
    }
    let distinct: HashSet<_> = got.iter().map(|(id, _)| id).collect();
    assert_eq!(distinct.len(), got.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_search_finds_what_comparing_every_face_finds(
        seed in any::<u64>(),
        dimensions in prop_oneof![Just(1usize), Just(3), Just(16), Just(37), Just(128)],
        count in 0usize..60,
        deleted in 0usize..20,
        threshold in prop_oneof![Just(0.0f32), 0.0f32..100.0, Just(80.0)],
        limit in 1usize..60,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            store.create_collection(key("x"), model(dimensions)).await.unwrap();
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut all = Vec::new();
            for image in 0..count {
                let vector = random_vector(&mut rng, dimensions);
                all.push((add(&store, "x", &image.to_le_bytes(), None, vector.clone()).await, vector));
            }
            for _ in 0..deleted.min(count) {
                let (id, _) = all.swap_remove(rng.usize(..all.len()));
                store.delete_faces(key("x"), vec![id]).await.unwrap();
            }
            let pairs = |matches: Vec<faces::FaceMatch>| -> Vec<(FaceId, f32)> {
                matches.into_iter().map(|found| (found.face.face_id, found.similarity)).collect()
            };
            let probe = random_vector(&mut rng, dimensions);
            let got = pairs(store.search(&key("x"), MODEL, &probe, threshold, limit).unwrap());
            agrees(&got, &naive(&all, &probe, threshold, None), limit, threshold);
            if let Some((id, vector)) = all.first() {
                let got = store.search_by_id(&key("x"), *id, threshold, limit).unwrap();
                agrees(&pairs(got), &naive(&all, vector, threshold, Some(*id)), limit, threshold);
            }
        });
    }
}

#[tokio::test]
async fn no_vector_of_a_face_or_a_user_is_in_any_file_in_another_form_nor_at_all_once_it_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.create_collection(key("a"), model(128)).await.unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    let vectors: Vec<Vec<f32>> = (0..3).map(|_| random_vector(&mut rng, 128)).collect();
    let mut ids = Vec::new();
    for (number, vector) in vectors.iter().enumerate() {
        ids.push(add(&store, "a", &[number as u8], None, vector.clone()).await);
    }
    let change = |change| store.change_user(key("a"), "ada".to_owned(), change, Some("token".to_owned()));
    change(UserChange::Create).await.unwrap();
    let faces = ids.clone();
    change(UserChange::Associate { faces, threshold: 0.0 }).await.unwrap();
    let units: Vec<Vec<f32>> = vectors.iter().map(|vector| unit(vector)).collect();
    let mean: Vec<f32> = (0..128)
        .map(|place| units.iter().map(|unit| unit[place]).sum::<f32>() / 3.0)
        .collect();
    let like = store.search_users(&key("a"), MODEL, &mean, 0.0, 1).unwrap();
    assert!(
        like[0].cosine > 0.9999,
        "the user's vector is the one that is looked for"
    );
    let disguised = |vectors: &[Vec<f32>]| {
        let forms = vectors.iter().flat_map(|vector| disguises(vector));
        found_in_files(directory.path(), &forms.collect())
    };
    let plain = |vector: &[f32]| found_in_files(directory.path(), &traces(vector).into_iter().collect());
    assert_eq!(
        disguised(&vectors) + disguised(std::slice::from_ref(&mean)) + plain(&mean),
        0
    );
    assert!(
        vectors.iter().all(|vector| plain(vector) > 100),
        "the search must be able to find some"
    );
    change(UserChange::Delete).await.unwrap();
    store.delete_faces(key("a"), vec![ids[0]]).await.unwrap();
    assert_eq!(
        (plain(&vectors[0]), plain(&mean), plain(&vectors[1]) > 100),
        (0, 0, true)
    );
    store.delete_collection(key("a")).await.unwrap();
    assert!(vectors.iter().all(|vector| plain(vector) == 0));
    assert_eq!(disguised(&vectors), 0);
}
