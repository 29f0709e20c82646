//! Films as strangers send them, through a real worker: what a user of stored video would lose if one of these failed is
//! said by each name. Skipped where there is no test data or no ffmpeg.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests read and make files"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use base::metrics::Metrics;
use base::{AccountId, SystemClock};
use bytes::Bytes;
use support::{data, models, pool};
use vision::limits::MAX_FILM_READ_BYTES;
use vision::{
    Codec, FilmError, FilmFault, FilmFrame, FilmInfo, FilmSource, FrameOutcome, Mode, SessionConfig, VisionConfig,
    VisionPool,
};

/// A film in memory; how much was asked for is counted.
struct Memory(Bytes);

#[async_trait]
impl FilmSource for Memory {
    async fn read(&mut self, offset: u64, bytes: usize) -> Result<Bytes, String> {
        assert!((1..=MAX_FILM_READ_BYTES).contains(&bytes));
        let start = usize::try_from(offset).unwrap();
        Ok(self.0.slice(start..(start + bytes).min(self.0.len())))
    }
}

/// A file of bezos_vogels.mkv's first seconds, made by ffmpeg with these arguments; `None` without ffmpeg or data.
fn made(folder: &Path, name: &str, arguments: &[&str]) -> Option<PathBuf> {
    let original = data()?.join("mkv/bezos_vogels.mkv");
    if !original.is_file() {
        println!("skipped: no test data");
        return None;
    }
    let file = folder.join(name);
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-t", "4", "-i"])
        .arg(&original)
        .args(arguments)
        .arg(&file)
        .status();
    match made {
        Ok(status) => assert!(status.success(), "ffmpeg {arguments:?}"),
        Err(_) => {
            println!("skipped: no ffmpeg");
            return None;
        }
    }
    Some(file)
}

async fn film(pool: &VisionPool, bytes: Vec<u8>) -> Result<(FilmInfo, Vec<FilmFrame>), FilmError> {
    let source = Box::new(Memory(bytes.clone().into()));
    let mut reader = pool.open_film(AccountId::DEFAULT, bytes.len() as u64, source).await?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().await? {
        frames.push(frame);
    }
    Ok((reader.info().clone(), frames))
}

fn numbered(id: u64, frame: FilmFrame) -> vision::Frame {
    let (time_ms, key, data) = (frame.time_ms, frame.key, frame.data);
    vision::Frame { id, time_ms, key, data }
}

fn fault(result: Result<(FilmInfo, Vec<FilmFrame>), FilmError>) -> FilmFault {
    match result {
        Err(FilmError::Fault(fault)) => fault,
        other => panic!("{:?}", other.map(|(info, frames)| (info, frames.len()))),
    }
}

#[tokio::test]
async fn every_container_gives_the_same_frames() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(&models);
    let copied = ["-an", "-c", "copy"];
    let fragmented = ["-an", "-c", "copy", "-movflags", "frag_keyframe+empty_moov"];
    let index_first = ["-an", "-c", "copy", "-movflags", "faststart"];
    let mut all = Vec::new();
    for (name, arguments) in [
        ("a.mkv", &copied[..]),
        ("b.mp4", &copied),
        ("c.mov", &copied),
        ("d.mp4", &fragmented),
        ("e.mp4", &index_first),
    ] {
        let Some(file) = made(folder.path(), name, arguments) else {
            return;
        };
        let (info, frames) = film(&pool, std::fs::read(file).unwrap()).await.unwrap();
        let format = if name.ends_with("mkv") {
            "Matroska / WebM"
        } else {
            "QuickTime / MOV"
        };
        assert_eq!(
            (info.format.as_str(), info.codec, info.orientation),
            (format, Codec::H264, 1),
            "{name}"
        );
        assert!(info.duration_ms.abs_diff(4_000) < 200, "{name}: {}", info.duration_ms);
        assert!(
            info.frame_rate > 10.0 && info.width > 100 && !info.codec_private.is_empty(),
            "{name}: {info:?}"
        );
        assert!(
            frames[0].key && frames[0].time_ms.abs() < 100,
            "{name}: {}",
            frames[0].time_ms
        );
        all.push((name, frames));
    }
    let (_, first) = all.remove(0);
    for (name, frames) in all {
        assert_eq!(frames.len(), first.len(), "{name}");
        for (frame, other) in frames.iter().zip(&first) {
            assert_eq!((&frame.data, frame.key), (&other.data, other.key), "{name}");
            assert!(
                frame.time_ms.abs_diff(other.time_ms) <= 40,
                "{name}: {} {}",
                frame.time_ms,
                other.time_ms
            );
        }
    }
}

#[tokio::test]
async fn a_film_and_a_camera_are_seen_where_one_worker_is_all_there_may_be() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = made(folder.path(), "a.mp4", &["-an", "-c", "copy", "-frames:v", "20"]) else {
        return;
    };
    let bytes = std::fs::read(file).unwrap();
    for recording_first in [true, false] {
        let mut config = VisionConfig::new(support::worker(), &models);
        config.max_workers = 1;
        let pool = VisionPool::start(config, &Metrics::new(), Arc::new(SystemClock::new())).unwrap();
        let (info, frames) = film(&pool, bytes.clone()).await.unwrap();
        let frames: Vec<_> = (1..).zip(frames).map(|(id, frame)| numbered(id, frame)).collect();
        let of = |background| SessionConfig {
            mode: Mode::CatchUp,
            background,
            ..SessionConfig::new(AccountId::DEFAULT, info.codec, info.codec_private.clone())
        };
        let (one, other) = tokio::join!(
            support::play(&pool, of(recording_first), frames.clone()),
            support::play(&pool, of(!recording_first), frames.clone())
        );
        for outcomes in [one, other] {
            assert_eq!(support::analysed(&outcomes).len(), frames.len());
        }
    }
}

#[tokio::test]
async fn what_is_no_film_or_breaks_off_is_said_and_harms_nobody() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(&models);
    assert_eq!(
        fault(film(&pool, b"not a film".repeat(1000)).await),
        FilmFault::NotAFilm
    );
    assert_eq!(fault(film(&pool, vec![0; 3_000_000]).await), FilmFault::NotAFilm);
    assert_eq!(fault(film(&pool, vec![7]).await), FilmFault::NotAFilm);
    let other_codec = ["-an", "-c:v", "mpeg4", "-frames:v", "5"];
    let Some(mpeg4) = made(folder.path(), "mpeg4.mp4", &other_codec) else {
        return;
    };
    let refused = fault(film(&pool, std::fs::read(mpeg4).unwrap()).await);
    assert_eq!(refused, FilmFault::Codec("mpeg4".to_owned()));
    let sound = ["-f", "lavfi", "-i", "sine=d=1", "-map", "1:a"];
    let sound = std::fs::read(made(folder.path(), "sound.mp4", &sound).unwrap()).unwrap();
    assert_eq!(fault(film(&pool, sound).await), FilmFault::NoVideo);
    let avi = std::fs::read(
        made(
            folder.path(),
            "a.avi",
            &["-an", "-c", "copy", "-bsf:v", "h264_mp4toannexb"],
        )
        .unwrap(),
    )
    .unwrap();
    assert_eq!(fault(film(&pool, avi).await), FilmFault::NotAFilm);
    let index_first = ["-an", "-c", "copy", "-movflags", "faststart"];
    let whole = std::fs::read(made(folder.path(), "whole.mp4", &index_first).unwrap()).unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    assert_eq!(fault(film(&pool, cut).await), FilmFault::Damaged);
    let index_last = std::fs::read(made(folder.path(), "last.mp4", &["-an", "-c", "copy"]).unwrap()).unwrap();
    assert_eq!(
        fault(film(&pool, index_last[..index_last.len() / 2].to_vec()).await),
        FilmFault::Damaged
    );
    let mkv = std::fs::read(made(folder.path(), "whole.mkv", &["-an", "-c", "copy"]).unwrap()).unwrap();
    // Matroska has no index of lengths: a recording that was cut off is told as far as it goes.
    match film(&pool, mkv[..mkv.len() / 2].to_vec()).await {
        Ok((_, frames)) => assert!(frames.len() > 10),
        Err(error) => assert_eq!(error, FilmError::Fault(FilmFault::Damaged)),
    }
    // An index that lies: any number of its bytes changed ends in frames or in a fault, and the next film is whole.
    let mut random = fastrand::Rng::with_seed(11);
    let head = whole.windows(4).position(|name| name == b"mdat").unwrap();
    for _ in 0..40 {
        let mut lying = whole.clone();
        for _ in 0..random.usize(1..30) {
            lying[random.usize(..head)] = random.u8(..);
        }
        match film(&pool, lying).await {
            Ok(_) | Err(FilmError::Fault(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!(film(&pool, whole).await.is_ok());
}

#[tokio::test]
async fn a_film_of_a_telephone_is_turned_upright_before_faces_are_looked_for() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(&models);
    // The pictures lie on their side, and the container says so.
    let turned = [
        "-an",
        "-vf",
        "transpose=2",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-frames:v",
        "40",
    ];
    let Some(lying) = made(folder.path(), "lying.mp4", &turned) else {
        return;
    };
    let upright = folder.path().join("upright.mp4");
    // Newer and older versions of ffmpeg are told in different ways.
    let newer: (&[&str], &[&str]) = (&["-display_rotation", "-90"], &[]);
    let older: (&[&str], &[&str]) = (&[], &["-metadata:s:v:0", "rotate=270"]);
    let written = [newer, older].into_iter().any(|(before, after)| {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg
            .args(["-v", "error", "-nostdin", "-y"])
            .args(before)
            .arg("-i")
            .arg(&lying);
        let made = ffmpeg.args(["-c", "copy"]).args(after).arg(&upright).status();
        made.unwrap().success()
    });
    assert!(written, "a film with a display matrix");
    let (info, frames) = film(&pool, std::fs::read(upright).unwrap()).await.unwrap();
    assert_eq!(info.orientation, 6);
    assert!(info.width > info.height, "as it is shown: {info:?}");
    let mut config = SessionConfig::new(AccountId::DEFAULT, info.codec, info.codec_private.clone());
    (config.mode, config.background, config.orientation) = (Mode::CatchUp, true, info.orientation);
    let (mut sender, mut receiver) = pool.open_session(config).unwrap();
    for (id, frame) in (1..).zip(frames) {
        sender.send(numbered(id, frame)).await.unwrap();
    }
    drop(sender);
    let mut faces = 0;
    while let Some(outcome) = receiver.next().await {
        if let FrameOutcome::Analysed {
            width,
            height,
            faces: found,
            ..
        } = outcome
        {
            assert_eq!((width, height), (info.width, info.height));
            faces += found.iter().filter(|face| face.pose.roll.abs() < 45.0).count();
        }
    }
    assert!(faces > 0, "upright faces");
}
