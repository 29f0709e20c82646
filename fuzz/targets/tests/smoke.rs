//! A short fuzzing run for every target with the stable compiler: the corpus, then mutations of it.
//!
//! `FUZZ_SECONDS` (default 2 a target) and `FUZZ_SEED` choose how long and which inputs; the seed is printed. An input
//! that breaks a promise is written to `target/fuzz-failures` and its bytes are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs
)]

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use fuzz_targets::{TARGETS, mutate::mutate};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no seeds", folder.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn try_input(name: &str, target: fn(&[u8]), input: &[u8], seed: u64) {
    if catch_unwind(|| target(input)).is_ok() {
        return;
    }
    let folder = root().join("target/fuzz-failures");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}-{seed}"));
    std::fs::write(&path, input).unwrap();
    panic!(
        "{name} broke a promise (seed {seed}); input in {}: {}",
        path.display(),
        input.escape_ascii()
    );
}

fn fuzz(name: &str) {
    let setting = |key: &str| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = setting("FUZZ_SECONDS").unwrap_or(2);
    let seed = setting("FUZZ_SEED").unwrap_or(20_261_122);
    let (_, target) = TARGETS.iter().find(|(have, _)| *have == name).unwrap();
    let corpus = corpus(name);
    for seeded in &corpus {
        try_input(name, *target, seeded, 0);
    }
    let mut rng = Rng::with_seed(seed);
    let (until, mut runs) = (Instant::now() + Duration::from_secs(seconds), 0u64);
    while Instant::now() < until {
        for _ in 0..50 {
            let input = mutate(&corpus, &mut rng);
            try_input(name, *target, &input, seed);
            runs += 1;
        }
    }
    println!(
        "{name}: {} seeds and {runs} mutations by FUZZ_SEED={seed} in {seconds} s",
        corpus.len()
    );
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test] fn $name() { fuzz(stringify!($name)); })*

        #[test]
        fn no_target_is_left_out() {
            let here = [$(stringify!($name)),*];
            let all: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(here.as_slice(), all);
        }
    };
}

targets!(
    mkv_reader,
    mkv_codec,
    packaging,
    ingest_rules,
    sigv4,
    policy,
    wire_kinesis,
    wire_kinesisvideo,
    wire_rekognition,
    wire_sts,
    wire_dynamodb,
    wire_cloudwatch,
    wire_firehose,
    wire_kinesisanalytics,
    firehose_prefix,
    firehose_records,
    firehose_query,
    sql_messages,
    vision_messages,
    tables,
    log_recovery
);

#[test]
fn no_operation_of_the_services_is_left_out() {
    let fuzzed: Vec<String> = fuzz_targets::registered().collect();
    for info in wire::all_operations() {
        let carried_out =
            ["kinesis", "kinesisanalytics", "kinesisvideo", "rekognition", "sts"].contains(&info.service.signing_name);
        // Players' requests have no body: a token in the query is all.
        if carried_out && info.access != wire::Access::SessionToken {
            let name = format!("{} {}", info.service.name, info.name);
            assert!(fuzzed.contains(&name), "{name} has no target");
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_inputs() {
    let corpus = vec![b"first".to_vec(), b"second".to_vec()];
    let run = || {
        let mut rng = Rng::with_seed(1);
        (0..100).map(|_| mutate(&corpus, &mut rng)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
