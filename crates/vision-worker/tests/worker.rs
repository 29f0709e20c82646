//! The worker as the server uses it: a real process, real video, hostile bytes, and death in mid-frame.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base::AccountId;
use bytes::Bytes;
use support::*;
use vision::{FrameOutcome, ImageError, ImageOptions, Mode, SkipReason};

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Each of a and b is one of the two people of the video; they are told apart by their vectors.
#[tokio::test]
async fn every_frame_of_a_video_is_analysed_in_order_and_its_two_people_are_told_apart() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let mut config = video.config();
    config.mode = Mode::CatchUp;
    let frames: Vec<_> = video.frames.into_iter().take(330).collect();
    let count = frames.len() as u64;
    let outcomes = play(&pool(&models), config, frames).await;
    assert_eq!(ids(&outcomes), (1..=count).collect::<Vec<_>>());
    let analysed = analysed(&outcomes);
    assert!(analysed.len() as u64 >= count - 2, "{}", analysed.len());
    let mut last = i64::MIN;
    for outcome in &outcomes {
        if let FrameOutcome::Analysed {
            time_ms, width, height, ..
        } = outcome
        {
            assert!(*time_ms > last);
            last = *time_ms;
            assert_eq!((*width, *height), (1280, 720));
        }
    }
    let faces = analysed.iter().map(|(_, faces)| faces.len()).sum::<usize>();
    assert!(faces >= analysed.len(), "{faces}");
    let mut tracks: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
    for face in analysed.iter().flat_map(|(_, faces)| faces.iter()) {
        if let Some(vector) = &face.embedding {
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-3);
            tracks.insert(face.track_id.unwrap(), vector.clone());
        }
    }
    println!("{faces} faces in {} frames, {} tracks", analysed.len(), tracks.len());
    assert!(tracks.len() <= 20, "{}", tracks.len());
    let mut people: Vec<&Vec<f32>> = Vec::new();
    for vector in tracks.values() {
        if people.iter().all(|p| cosine(p, vector) < 0.4) {
            people.push(vector);
        }
    }
    assert!((1..=4).contains(&people.len()), "{} people", people.len());
}

/// A worker that writes down its process id.
fn traceable_worker(folder: &Path) -> std::path::PathBuf {
    let script = folder.join("worker");
    let pid = folder.join("pid");
    let text = format!(
        "#!/bin/sh\necho $$ > {}\nexec {} \"$@\"\n",
        pid.display(),
        worker().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn pid_of(folder: &Path) -> i32 {
    std::fs::read_to_string(folder.join("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[allow(unsafe_code)]
fn kill(pid: i32) {
    // SAFETY: a plain system call; the process is a child of ours.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

#[tokio::test]
async fn a_worker_killed_in_mid_frame_costs_no_frame_that_can_be_decoded_again() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool_with(&traceable_worker(folder.path()), &models);
    let mut config = video.config();
    config.mode = Mode::CatchUp;
    let (mut sender, mut receiver) = pool.open_session(config).unwrap();
    let frames: Vec<_> = video.frames.into_iter().take(60).collect();
    let feeding = tokio::spawn(async move {
        for frame in frames {
            sender.send(frame).await.unwrap();
        }
    });
    let mut outcomes = Vec::new();
    let mut killed = 0;
    while let Some(outcome) = receiver.next().await {
        outcomes.push(outcome);
        if outcomes.len() == 10 || outcomes.len() == 40 {
            kill(pid_of(folder.path()));
            killed += 1;
        }
    }
    feeding.await.unwrap();
    let restarts = outcomes.iter().filter(|o| **o == FrameOutcome::WorkerRestarted).count();
    assert_eq!((killed, restarts), (2, 2));
    assert_eq!(ids(&outcomes), (1..=60).collect::<Vec<_>>());
    assert!(analysed(&outcomes).len() >= 58, "{}", analysed(&outcomes).len());
    let order: Vec<u64> = analysed(&outcomes).iter().map(|(id, _)| *id).collect();
    assert!(order.is_sorted());
}

#[tokio::test]
async fn a_ready_worker_is_locked_down() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool_with(&traceable_worker(folder.path()), &models);
    let image = pool.analyze_image(
        AccountId::DEFAULT,
        Bytes::from_static(b"no image"),
        ImageOptions::default(),
    );
    assert_eq!(image.await, Err(ImageError::NotAnImage));
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid_of(folder.path()))).unwrap();
    for thread in threads {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(
            (field("NoNewPrivs:"), field("Seccomp:")),
            ("1".to_owned(), "2".to_owned())
        );
        assert_ne!(field("Uid:"), "0");
        assert_eq!(field("CapEff:").trim_start_matches('0'), "");
    }
}

#[tokio::test]
async fn a_camera_faster_than_the_detector_loses_pictures_not_time() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let pool = pool(&models);
    let (mut sender, mut receiver) = pool.open_session(video.config()).unwrap();
    let frames: Vec<_> = video.frames.into_iter().take(120).collect();
    // All at once: far faster than any detector.
    for frame in frames {
        sender.send(frame).await.unwrap();
    }
    drop(sender);
    let mut outcomes = Vec::new();
    while let Some(outcome) = receiver.next().await {
        outcomes.push(outcome);
    }
    assert_eq!(ids(&outcomes), (1..=120).collect::<Vec<_>>());
    let skipped = |wanted| {
        let is = |o: &&FrameOutcome| matches!(o, FrameOutcome::Skipped { reason, .. } if *reason == wanted);
        outcomes.iter().filter(is).count()
    };
    assert!(skipped(SkipReason::Overtaken) > 60, "{outcomes:?}");
    assert!(!analysed(&outcomes).is_empty());
}

#[tokio::test]
async fn key_frames_only_and_a_rate_are_kept() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let pool = pool(&models);
    let keys: Vec<u64> = video.frames.iter().filter(|f| f.key).map(|f| f.id).collect();
    let mut config = video.config();
    config.mode = Mode::CatchUp;
    config.key_frames_only = true;
    let outcomes = play(&pool, config.clone(), video.frames.clone()).await;
    assert_eq!(analysed(&outcomes).iter().map(|(id, _)| *id).collect::<Vec<_>>(), keys);
    assert_eq!(ids(&outcomes).len(), video.frames.len());

    config.key_frames_only = false;
    config.max_rate = Some(2.0);
    let some: Vec<_> = video.frames.iter().take(181).cloned().collect();
    let seconds = (some[180].time_ms - some[0].time_ms) as f32 / 1000.0;
    let outcomes = play(&pool, config, some).await;
    let rate = analysed(&outcomes).len() as f32 / seconds;
    assert!((1.7..=2.4).contains(&rate), "{rate}");
}

#[tokio::test]
async fn pictures_that_refer_to_a_lost_frame_are_not_analysed_until_the_next_key_frame() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let keys: Vec<u64> = video.frames.iter().filter(|f| f.key).map(|f| f.id).collect();
    let (lost, next_key) = (keys[0] + 20, keys[1]);
    let frames: Vec<_> = video
        .frames
        .iter()
        .filter(|f| f.id != lost && f.id < next_key + 20)
        .cloned()
        .collect();
    let mut config = video.config();
    config.mode = Mode::CatchUp;
    config.track_faces = true;
    let outcomes = play(&pool(&models), config, frames).await;
    let analysed: BTreeSet<u64> = analysed(&outcomes).iter().map(|(id, _)| *id).collect();
    assert!(analysed.range(..lost).count() > 10);
    let between: Vec<_> = analysed.range(lost + 1..next_key).collect();
    assert!(between.is_empty(), "{between:?}");
    assert!(analysed.range(next_key..).count() > 10);
}

#[tokio::test]
async fn video_with_flipped_bits_gives_each_frame_an_outcome_and_the_next_camera_is_served() {
    let (Some(models), Some(video)) = (models(), video("vogels_330.mkv")) else {
        return;
    };
    let pool = pool(&models);
    let mut rng = fastrand::Rng::with_seed(11);
    for round in 0..3 {
        let frames: Vec<_> = video
            .frames
            .iter()
            .take(80)
            .cloned()
            .map(|mut frame| {
                let mut data = frame.data.to_vec();
                match rng.u8(..4) {
                    0 => (0..rng.usize(1..20)).for_each(|_| {
                        let at = rng.usize(..data.len());
                        data[at] ^= 1 << rng.u8(..8);
                    }),
                    1 if round > 0 => data.truncate(rng.usize(..data.len())),
                    2 if round > 1 => data = (0..rng.usize(..2000)).map(|_| rng.u8(..)).collect(),
                    _ => {}
                }
                frame.data = data.into();
                frame
            })
            .collect();
        let count = frames.len() as u64;
        let mut config = video.config();
        config.mode = Mode::CatchUp;
        let outcomes = play(&pool, config, frames).await;
        assert_eq!(ids(&outcomes), (1..=count).collect::<Vec<_>>());
    }
    let mut config = video.config();
    config.codec_private = Bytes::from_static(b"\x01garbage");
    let outcomes = play(&pool, config, video.frames.iter().take(5).cloned().collect()).await;
    assert_eq!(ids(&outcomes).len(), 5);
    let outcomes = play(&pool, video.config(), video.frames.iter().take(5).cloned().collect()).await;
    assert!(!analysed(&outcomes).is_empty());
}

/// A PNG of one grey, its data stored uncompressed.
fn grey_png(width: u32, height: u32) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| {
                if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 }
            })
        })
    };
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], body: &[u8]| {
        file.extend((body.len() as u32).to_be_bytes());
        let start = file.len();
        file.extend(kind);
        file.extend(body);
        let sum = crc(&file[start..]);
        file.extend(sum.to_be_bytes());
    };
    let mut head = [width.to_be_bytes(), height.to_be_bytes()].concat();
    head.extend([8, 0, 0, 0, 0]);
    chunk(b"IHDR", &head);
    let raw = [vec![0], vec![128; width as usize]].concat().repeat(height as usize);
    let mut packed = vec![0x78, 1];
    for (index, block) in raw.chunks(65_535).enumerate() {
        packed.push(u8::from((index + 1) * 65_535 >= raw.len()));
        packed.extend((block.len() as u16).to_le_bytes());
        packed.extend((!(block.len() as u16)).to_le_bytes());
        packed.extend(block);
    }
    let (a, b) = raw.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (a + b) % 65_521)
    });
    packed.extend((b << 16 | a).to_be_bytes());
    chunk(b"IDAT", &packed);
    chunk(b"IEND", b"");
    file
}

#[tokio::test]
async fn images_that_are_none_are_refused_and_the_worker_lives_on() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool_with(&traceable_worker(folder.path()), &models);
    let ask = |image: Vec<u8>| pool.analyze_image(AccountId::DEFAULT, image.into(), ImageOptions::default());
    let found = ask(grey_png(300, 200)).await.unwrap();
    assert_eq!((found.width, found.height, found.faces.len()), (300, 200, 0));
    let first = pid_of(folder.path());
    for (width, height) in [(1, 1), (79, 300)] {
        assert_eq!(
            ask(grey_png(width, height)).await,
            Err(ImageError::TooSmall { width, height })
        );
    }
    assert_eq!(
        ask(grey_png(10_000, 80)).await,
        Err(ImageError::TooLarge {
            width: 10_000,
            height: 80
        })
    );
    assert_eq!(ask(b"GIF89a".to_vec()).await, Err(ImageError::UnsupportedFormat));
    assert_eq!(
        ask(vec![0; 16 * 1024 * 1024]).await,
        Err(ImageError::TooLarge { width: 0, height: 0 })
    );
    let whole = grey_png(120, 120);
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..60 {
        let mut broken = whole.clone();
        for _ in 0..4 {
            let at = rng.usize(8..broken.len());
            broken[at] = rng.u8(..);
        }
        broken.truncate(rng.usize(20..=broken.len()));
        match ask(broken).await {
            Ok(_) | Err(ImageError::NotAnImage | ImageError::TooLarge { .. } | ImageError::TooSmall { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pid_of(folder.path()), first, "the worker was replaced");
}

#[tokio::test]
async fn an_image_worker_that_dies_is_replaced_for_the_request_that_saw_it() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool_with(&traceable_worker(folder.path()), &models);
    let ask = || pool.analyze_image(AccountId::DEFAULT, grey_png(100, 100).into(), ImageOptions::default());
    assert!(ask().await.is_ok());
    kill(pid_of(folder.path()));
    assert!(ask().await.is_ok());
}

#[tokio::test]
async fn two_accounts_never_share_a_process() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool_with(&traceable_worker(folder.path()), &models);
    let mut pids = BTreeSet::new();
    for account in ["000000000001", "000000000002"] {
        let image = grey_png(100, 100).into();
        let asked = pool.analyze_image(account.parse().unwrap(), image, ImageOptions::default());
        assert!(asked.await.is_ok());
        pids.insert(pid_of(folder.path()));
    }
    assert_eq!(pids.len(), 2);
}

#[tokio::test]
async fn a_worker_that_cannot_start_is_an_error_not_a_hang() {
    let Some(models) = models() else { return };
    let pool = pool_with(Path::new("/bin/true"), &models);
    let asked = pool.analyze_image(AccountId::DEFAULT, grey_png(100, 100).into(), ImageOptions::default());
    let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
    assert!(matches!(answer, Err(ImageError::Worker(_))), "{answer:?}");
}

#[tokio::test]
async fn when_pool_and_sessions_are_gone_the_worker_is_too() {
    let (Some(models), Some(video)) = (models(), video("vogels_330.mkv")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pool = pool_with(&traceable_worker(folder.path()), &models);
    let (mut sender, mut receiver) = pool.open_session(video.config()).unwrap();
    for frame in video.frames.into_iter().take(3) {
        sender.send(frame).await.unwrap();
    }
    assert!(receiver.next().await.is_some());
    drop((pool, sender, receiver));
    let process = format!("/proc/{}", pid_of(folder.path()));
    let gone = async {
        while Path::new(&process).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

/// The first seconds of a file as H.265 with B-frames and a key frame every second, by the ffmpeg program.
fn as_h265(name: &str, folder: &Path) -> Option<Video> {
    let target = folder.join("h265.mkv");
    let converted = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(data()?.join("mkv").join(name))
        .args([
            "-an",
            "-t",
            "3",
            "-vf",
            "scale=640:360",
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
        ])
        .args([
            "-x265-params",
            "log-level=none:keyint=30:min-keyint=30:scenecut=0:bframes=2:open-gop=0",
        ])
        .arg(&target)
        .status();
    if !converted.is_ok_and(|status| status.success()) {
        println!("skipped: no ffmpeg program with libx265");
        return None;
    }
    Some(video_at(&target))
}

#[tokio::test]
async fn h265_is_analysed_and_its_lost_references_are_noticed() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(video) = as_h265("bezos_vogels.mkv", folder.path()) else {
        return;
    };
    let pool = pool(&models);
    let mut config = video.config();
    config.mode = Mode::CatchUp;
    let count = video.frames.len() as u64;
    let outcomes = play(&pool, config.clone(), video.frames.clone()).await;
    assert_eq!(analysed(&outcomes).len() as u64, count);
    assert!(analysed(&outcomes).iter().map(|(_, faces)| faces.len()).sum::<usize>() as u64 >= count / 2);

    // The frame after a key frame is the first that others refer to.
    let keys: Vec<u64> = video.frames.iter().filter(|f| f.key).map(|f| f.id).collect();
    let (lost, next_key) = (keys[1] + 1, keys[2]);
    let frames: Vec<_> = video.frames.iter().filter(|f| f.id != lost).cloned().collect();
    let outcomes = play(&pool, config, frames).await;
    let analysed: BTreeSet<u64> = analysed(&outcomes).iter().map(|(id, _)| *id).collect();
    let between: Vec<_> = analysed.range(lost + 1..next_key).collect();
    assert!(between.is_empty(), "{between:?}");
    assert!(analysed.contains(&next_key));
}
