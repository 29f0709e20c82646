//! A pool over the worker under test, and the frames of a Matroska file.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::metrics::Metrics;
use base::{AccountId, SystemClock};
use bytes::Bytes;
use matroska::{Event, Limits, Reader};
use vision::{Codec, Frame, FrameOutcome, SessionConfig, VisionConfig, VisionPool};

/// The prepared models, from `SIGHTGLASS_MODELS` or the checkout; says so where there are none.
pub fn models() -> Option<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let folder = std::env::var_os("SIGHTGLASS_MODELS").map_or(checkout, PathBuf::from);
    if folder.join("manifest.json").is_file() {
        return Some(folder);
    }
    println!("skipped: models not prepared");
    None
}

/// The folder of test data; says so where there is none.
pub fn data() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SIGHTGLASS_TEST_DATA") {
        return Some(PathBuf::from(named));
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|a| a.join("shared/data")).find(|d| d.is_dir());
    if found.is_none() {
        println!("skipped: no test data");
    }
    found
}

pub fn worker() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vision-worker"))
}

pub fn pool_with(worker: &Path, models: &Path) -> VisionPool {
    let mut config = VisionConfig::new(worker, models);
    config.video_workers_per_account = 1;
    VisionPool::start(config, &Metrics::new(), Arc::new(SystemClock::new())).unwrap()
}

/// A pool that counts where the test can see it.
pub fn measured_pool(models: &Path, metrics: &Metrics) -> VisionPool {
    let config = VisionConfig::new(worker(), models);
    VisionPool::start(config, metrics, Arc::new(SystemClock::new())).unwrap()
}

pub fn pool(models: &Path) -> VisionPool {
    pool_with(worker(), models)
}

/// A file's video: CodecPrivate and frames, their ids from 1.
pub struct Video {
    pub codec: Codec,
    pub codec_private: Bytes,
    pub frames: Vec<Frame>,
}

impl Video {
    pub fn config(&self) -> SessionConfig {
        SessionConfig::new(AccountId::DEFAULT, self.codec, self.codec_private.clone())
    }
}

/// A file of the test data.
pub fn video(name: &str) -> Option<Video> {
    Some(video_at(&data()?.join("mkv").join(name)))
}

pub fn video_at(file: &Path) -> Video {
    let mut reader = Reader::new(Limits::default());
    reader.push(Bytes::from(std::fs::read(file).unwrap()));
    reader.finish();
    let (mut tracks, mut frames, mut section) = (None, Vec::new(), Vec::new());
    while let Some(event) = reader.next().unwrap() {
        match event {
            Event::Tracks(found) => tracks = Some(found),
            Event::DocumentStart { .. } | Event::ClusterStart { .. } => section.clear(),
            Event::Data(bytes) => section.extend_from_slice(&bytes),
            Event::BlockEnd(block) if block.track == 1 => {
                let start = block.payload_offset as usize;
                frames.push(Frame {
                    id: frames.len() as u64 + 1,
                    time_ms: block.time,
                    key: block.key,
                    data: Bytes::copy_from_slice(&section[start..start + block.payload_len as usize]),
                });
            }
            _ => {}
        }
    }
    let track = tracks.unwrap().iter().find(|t| t.number == 1).unwrap().clone();
    Video {
        codec: Codec::from_matroska(&track.codec_id).unwrap(),
        codec_private: track.codec_private,
        frames,
    }
}

/// Plays frames through a session and gathers the outcomes.
pub async fn play(pool: &VisionPool, config: SessionConfig, frames: Vec<Frame>) -> Vec<FrameOutcome> {
    let (mut sender, mut receiver) = pool.open_session(config).unwrap();
    let feeding = tokio::spawn(async move {
        for frame in frames {
            sender.send(frame).await.unwrap();
        }
    });
    let mut outcomes = Vec::new();
    while let Some(outcome) = receiver.next().await {
        outcomes.push(outcome);
    }
    feeding.await.unwrap();
    outcomes
}

/// The ids of all frames that had an outcome, sorted.
pub fn ids(outcomes: &[FrameOutcome]) -> Vec<u64> {
    let mut ids: Vec<u64> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            FrameOutcome::Analysed { id, .. } | FrameOutcome::Skipped { id, .. } => Some(*id),
            FrameOutcome::WorkerRestarted => None,
        })
        .collect();
    ids.sort_unstable();
    ids
}

/// The ids and faces of the analysed frames, as they came.
pub fn analysed(outcomes: &[FrameOutcome]) -> Vec<(u64, &[vision::Face])> {
    let faces = |outcome| match outcome {
        &FrameOutcome::Analysed { id, ref faces, .. } => Some((id, faces.as_slice())),
        _ => None,
    };
    outcomes.iter().filter_map(faces).collect()
}
