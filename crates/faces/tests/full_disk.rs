//! Faces on a file system without space: searches and deletions go on, a deleted vector is gone all the same, and adding
//! resumes when space returns. The test mounts a small file system in a namespace of its own; where that is not allowed it
//! is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base::{AccountId, ResourceName, SystemClock};
use faces::{FaceId, FaceStore, FacesError, ImageDigest, ModelVersion, NewFace, Rect};

const INSIDE: &str = "SIGHTGLASS_SMALL_DISK";
const DIMENSIONS: usize = 128;

/// Runs the test again in a namespace where `SIGHTGLASS_SMALL_DISK` names a file system of 24 MiB. Gives that directory when
/// this is already the inner run.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(inside) = std::env::var_os(INSIDE) {
        return Some(inside.into());
    }
    let directory = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=24m tmpfs \"$SIGHTGLASS_SMALL_DISK\" || exit 77; exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, directory.path())
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) if status.code() == Some(101) => panic!("the test failed on the small disk"),
        other => eprintln!("skipped: no file system can be mounted here ({other:?})"),
    }
    None
}

/// Leaves no byte free.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("ballast");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap();
    for size in [1 << 20, 1 << 16, 1 << 12] {
        let piece = vec![1u8; size];
        while file.write_all(&piece).is_ok() {}
    }
    path
}

fn key(name: &str) -> ResourceName {
    ResourceName {
        account: AccountId::DEFAULT,
        region: "us-west-2".parse().unwrap(),
        name: name.to_owned(),
    }
}

async fn add(store: &FaceStore, name: &str, image: usize, vectors: &[Vec<f32>]) -> Result<Vec<FaceId>, FacesError> {
    let new = |(place, vector): (usize, &Vec<f32>)| NewFace {
        rect: Rect {
            left: place as f32 / 100.0,
            ..Rect::default()
        },
        confidence: 99.0,
        vector: vector.clone(),
    };
    let new = vectors.iter().enumerate().map(new).collect();
    let digest = ImageDigest::of(&image.to_le_bytes());
    let added = store.index_faces(key(name), "m".to_owned(), digest, None, new).await?;
    Ok(added.iter().map(|added| added.record.face_id).collect())
}

/// Eight bytes of a vector at unit length, as they lie in the file.
fn trace(vector: &[f32]) -> Vec<u8> {
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    vector[..2]
        .iter()
        .flat_map(|&x| ((f64::from(x) / norm) as f32).to_le_bytes())
        .collect()
}

#[test]
fn on_a_full_disk_faces_are_found_and_erased_and_added_again_when_there_is_space() {
    let name = "on_a_full_disk_faces_are_found_and_erased_and_added_again_when_there_is_space";
    let Some(directory) = small_disk(name) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let path = directory.join("faces.db");
        let store = FaceStore::open(&path, Arc::new(SystemClock::new())).unwrap();
        let model = || ModelVersion {
            id: "m".to_owned(),
            dimensions: DIMENSIONS,
        };
        let mut rng = fastrand::Rng::with_seed(3);
        let mut vectors = |count: usize| -> Vec<Vec<f32>> {
            (0..count)
                .map(|_| (0..DIMENSIONS).map(|_| rng.f32() - 0.5).collect())
                .collect()
        };
        let (mut ids, mut all) = (Vec::new(), Vec::new());
        for name in ["a", "b"] {
            store.create_collection(key(name), model()).await.unwrap();
            for image in 0..20 {
                let new = vectors(100);
                ids.extend(add(&store, name, image, &new).await.unwrap());
                all.extend(new);
            }
        }
        let ballast = fill(&directory);
        let refused = add(&store, "a", 1000, &vectors(100)).await;
        assert!(matches!(refused, Err(FacesError::Storage(_))), "{refused:?}");
        assert!(matches!(
            store.create_collection(key("c"), model()).await,
            Err(FacesError::Storage(_))
        ));
        let found = store.search(&key("a"), "m", &all[7], 99.0, 1).unwrap();
        assert_eq!(found[0].face.face_id, ids[7]);

        let doomed: Vec<FaceId> = ids[..1000].to_vec();
        let outcome = store.delete_faces(key("a"), doomed.clone()).await.unwrap();
        assert_eq!(outcome.deleted, doomed);
        store.delete_collection(key("b")).await.unwrap();
        let file = std::fs::read(&path).unwrap();
        let is_there = |vector: &Vec<f32>| {
            let trace = trace(vector);
            file.windows(trace.len()).any(|window| window == trace)
        };
        for gone in all[..1000].iter().step_by(97).chain(all[2000..].iter().step_by(97)) {
            assert!(!is_there(gone), "a deleted vector is still in the file");
        }
        assert!(is_there(&all[1500]), "the search for traces must be able to find one");

        std::fs::remove_file(ballast).unwrap();
        add(&store, "a", 1001, &vectors(100)).await.unwrap();
        assert_eq!(store.describe(&key("a")).unwrap().face_count, 1100);
    });
}
