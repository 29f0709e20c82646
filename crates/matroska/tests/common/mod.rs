#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod generate;

use bytes::Bytes;
use matroska::{Error, Event, Limits, Reader};
use std::path::{Path, PathBuf};

/// The folder with captured streams, where this machine has one.
pub fn data_dir() -> Option<PathBuf> {
    if let Ok(dir) = std::env::var("SIGHTGLASS_TEST_DATA") {
        return Some(PathBuf::from(dir));
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .map(|dir| dir.join("shared/data"))
        .find(|dir| dir.is_dir())
}

/// A captured stream; says so where there is none.
#[allow(clippy::disallowed_methods)]
pub fn data(name: &str) -> Option<Bytes> {
    let Some(dir) = data_dir() else {
        println!("skipped: no test data");
        return None;
    };
    Some(
        std::fs::read(dir.join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .into(),
    )
}

pub const FILES: [&str; 13] = [
    "mkv/bezos_vogels.mkv",
    "mkv/clusters.mkv",
    "mkv/empty-mkv-with-tags.mkv",
    "mkv/output-get-media-equal-timecode.mkv",
    "mkv/output_get_media.mkv",
    "mkv/output_get_media_sparse_fragments.mkv",
    "mkv/output_get_media_sparse_fragments_merged.mkv",
    "mkv/test_mixed_tags.mkv",
    "mkv/test_tags_empty_cluster.mkv",
    "mkv/vogels_330.mkv",
    "putmedia/c-sample-video-metadata3.mkv",
    "putmedia/kvssink-aborted-after-4002.mkv",
    "putmedia/kvssink-h264-noEOFRack.mkv",
];

/// What a run of the reader yielded.
pub struct Run {
    pub events: Vec<Event>,
    pub data: Vec<u8>,
    pub error: Option<Error>,
    pub buffered_max: usize,
}

/// Feeds a stream in pieces, checking after every drain what the reader still holds.
pub fn run(limits: Limits, chunks: impl IntoIterator<Item = Bytes>) -> Run {
    let mut reader = Reader::new(limits);
    let mut run = Run {
        events: Vec::new(),
        data: Vec::new(),
        error: None,
        buffered_max: 0,
    };
    for chunk in chunks {
        reader.push(chunk);
        drain(&mut reader, &mut run);
        run.buffered_max = run.buffered_max.max(reader.buffered());
        if run.error.is_some() {
            return run;
        }
    }
    reader.finish();
    drain(&mut reader, &mut run);
    assert!(
        run.error.is_some() || reader.buffered() == 0,
        "bytes kept back at the end"
    );
    run
}

fn drain(reader: &mut Reader, run: &mut Run) {
    loop {
        match reader.next() {
            Ok(Some(Event::Data(data))) => {
                assert!(!data.is_empty());
                run.data.extend_from_slice(&data);
                assert_eq!(reader.position(), run.data.len() as u64);
            }
            Ok(Some(event)) => run.events.push(event),
            Ok(None) => return,
            Err(error) => {
                assert_eq!(reader.next(), Err(error.clone()), "an error is final");
                run.error = Some(error);
                return;
            }
        }
    }
}

pub fn whole(bytes: &Bytes) -> Run {
    run(Limits::default(), [bytes.clone()])
}

pub fn in_chunks(bytes: &Bytes, len: usize) -> impl Iterator<Item = Bytes> {
    let bytes = bytes.clone();
    (0..bytes.len())
        .step_by(len)
        .map(move |at| bytes.slice(at..bytes.len().min(at + len)))
}

pub fn in_random_chunks(bytes: &Bytes, seed: u64) -> Vec<Bytes> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rest = bytes.clone();
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let max = if rng.bool() { 40 } else { 70_000 };
        chunks.push(rest.split_to(rng.usize(1..=max).min(rest.len())));
    }
    chunks
}
