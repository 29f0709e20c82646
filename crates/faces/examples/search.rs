//! How long a search takes, beside the physical limit of an exact one: reading every vector once.
//!
//! Fills a collection in a temporary directory, then takes turns: one search, one pass that only sums the same number of
//! bytes. Prints the medians and their ratio. `cargo run --release -p faces --example search [FACES]`
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measuring program"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{AccountId, ResourceName, SystemClock};
use faces::{FaceStore, ImageDigest, ModelVersion, NewFace, Rect};

const DIMENSIONS: usize = 128;
const ROUNDS: usize = 101;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// Sums every number, with as many partial sums as the search has.
fn pass(vectors: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    for chunk in vectors.chunks_exact(16) {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    sums.iter().sum()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let faces: usize = std::env::args().nth(1).map_or(100_000, |count| count.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let store = FaceStore::open(&directory.path().join("faces.db"), Arc::new(SystemClock::new())).unwrap();
    let key = ResourceName {
        account: AccountId::DEFAULT,
        region: "us-west-2".parse().unwrap(),
        name: "bench".to_owned(),
    };
    let model = ModelVersion {
        id: "random".to_owned(),
        dimensions: DIMENSIONS,
    };
    store.create_collection(key.clone(), model).await.unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut vector = || (0..DIMENSIONS).map(|_| rng.f32() - 0.5).collect::<Vec<f32>>();
    for image in 0..faces / 100 {
        let place = |number: u16| NewFace {
            rect: Rect {
                left: f32::from(number) / 100.0,
                ..Rect::default()
            },
            confidence: 99.0,
            vector: vector(),
        };
        let batch = (0..100).map(place).collect();
        let digest = ImageDigest::of(&image.to_le_bytes());
        store
            .index_faces(key.clone(), "random".to_owned(), digest, None, batch)
            .await
            .unwrap();
    }
    let flat: Vec<f32> = (0..faces).flat_map(|_| vector()).collect();
    let (mut searches, mut passes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let probe = vector();
        let start = Instant::now();
        black_box(store.search(&key, "random", &probe, 80.0, 10).unwrap());
        searches.push(start.elapsed());
        let start = Instant::now();
        black_box(pass(black_box(&flat)));
        passes.push(start.elapsed());
    }
    let (search, pass) = (median(searches), median(passes));
    println!(
        "{faces} faces: search {search:.2} ms, one pass over memory {pass:.2} ms, ratio {:.2}",
        search / pass
    );
}
