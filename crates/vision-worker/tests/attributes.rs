//! Attributes of real faces by the real models: landmarks lie where a face has them, and a mirrored picture gives mirrored
//! ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod support;

use std::path::Path;

use base::AccountId;
use bytes::Bytes;
use support::*;
use vision::{Face, ImageOptions, MESH_LANDMARKS, Point, VisionPool};

/// Frames of the video in which a face is seen from the front or half from the side.
const FRAMES: [u32; 4] = [0, 60, 120, 400];

fn frame(number: u32, filter: &str, folder: &Path) -> Option<Bytes> {
    let video = data()?.join("mkv/bezos_vogels.mkv");
    let file = folder.join(format!("{number}{filter}.png"));
    let made = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i", video.to_str().unwrap(), "-vf"])
        .arg(format!("select=eq(n\\,{number}){filter}"))
        .args(["-frames:v", "1", file.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(made.success());
    Some(std::fs::read(file).unwrap().into())
}

async fn largest(pool: &VisionPool, image: Bytes, attributes: bool) -> Face {
    let options = ImageOptions {
        embed: false,
        attributes,
        ..ImageOptions::default()
    };
    let found = pool.analyze_image(AccountId::DEFAULT, image, options).await.unwrap();
    found.faces.into_iter().next().unwrap()
}

fn prepared() -> Option<std::path::PathBuf> {
    let models = models()?;
    if pool(&models).abilities().attributes {
        return Some(models);
    }
    println!("skipped: models prepared without attributes");
    None
}

fn point(face: &Face, name: &str) -> Point {
    let five = face.landmarks.named().into_iter().find(|(known, _)| *known == name);
    five.map_or_else(
        || {
            let mesh = face.attributes.as_ref().unwrap().mesh.as_ref().unwrap();
            mesh.points[MESH_LANDMARKS.iter().position(|known| *known == name).unwrap()]
        },
        |(_, point)| point,
    )
}

fn assert_laid_out_like_a_face(face: &Face) {
    let x = |name: &str| point(face, name).x;
    let y = |name: &str| point(face, name).y;
    for rising in [
        &[
            "leftEyeLeft",
            "leftPupil",
            "leftEyeRight",
            "rightEyeLeft",
            "rightPupil",
            "rightEyeRight",
        ][..],
        &[
            "leftEyeBrowLeft",
            "leftEyeBrowRight",
            "rightEyeBrowLeft",
            "rightEyeBrowRight",
        ],
        &["leftEyeLeft", "noseLeft", "noseRight", "rightEyeRight"],
        // The jaw's far side is hidden in a face half from the side.
        &["mouthLeft", "mouthUp", "mouthRight"],
        &["upperJawlineLeft", "nose", "upperJawlineRight"],
    ] {
        assert!(rising.is_sorted_by(|a, b| x(a) < x(b)), "{rising:?}: {face:?}");
    }
    for falling in [
        &[
            "leftEyeBrowUp",
            "leftEyeUp",
            "leftEyeDown",
            "noseLeft",
            "mouthUp",
            "mouthDown",
            "chinBottom",
        ][..],
        &[
            "rightEyeBrowUp",
            "rightEyeUp",
            "rightEyeDown",
            "noseRight",
            "mouthUp",
            "mouthDown",
            "chinBottom",
        ],
        &["upperJawlineLeft", "midJawlineLeft", "chinBottom"],
    ] {
        assert!(falling.is_sorted_by(|a, b| y(a) < y(b)), "{falling:?}: {face:?}");
    }
    // The detector's box may end a little before chin and ears.
    let b = face.bounding_box;
    for (name, point) in MESH_LANDMARKS.iter().map(|name| (name, point(face, name))) {
        let across = (point.x - b.left) / b.width;
        let down = (point.y - b.top) / b.height;
        assert!(
            (-0.15..1.15).contains(&across) && (-0.1..1.15).contains(&down),
            "{name} at {across} {down}"
        );
    }
    // Two networks that know nothing of each other agree where the eyes are.
    let eyes = x("eyeRight") - x("eyeLeft");
    for (five, mesh) in [("eyeLeft", "leftPupil"), ("eyeRight", "rightPupil")] {
        // The picture is 16 wide and 9 high.
        let off = (x(five) - x(mesh)).hypot((y(five) - y(mesh)) * 9.0 / 16.0);
        assert!(off < 0.2 * eyes, "{five}: {off} of {eyes}");
    }
}

#[tokio::test]
async fn landmarks_lie_where_a_face_has_them_and_a_mirrored_picture_mirrors_them() {
    let Some(models) = prepared() else { return };
    let (pool, folder) = (pool(&models), tempfile::tempdir().unwrap());
    for number in FRAMES {
        let Some(image) = frame(number, "", folder.path()) else {
            return;
        };
        let mirrored = frame(number, ",hflip", folder.path()).unwrap();
        let (face, mirrored) = (largest(&pool, image, true).await, largest(&pool, mirrored, true).await);
        assert_laid_out_like_a_face(&face);
        assert_laid_out_like_a_face(&mirrored);
        let eyes = point(&face, "rightPupil").x - point(&face, "leftPupil").x;
        for name in MESH_LANDMARKS {
            let swapped = other_side(name);
            let (here, there) = (point(&face, name), point(&mirrored, &swapped));
            let off = ((1.0 - there.x - here.x).hypot((there.y - here.y) * 9.0 / 16.0)) / eyes;
            assert!(
                off < 0.2,
                "{number}: {name} is {off:.3} of the eyes' distance from {swapped}"
            );
        }
        let (a, b) = (face.attributes.unwrap(), mirrored.attributes.unwrap());
        assert!(
            (a.male - b.male).abs() < 0.2 && (a.age - b.age).abs() < 15.0,
            "{a:?} {b:?}"
        );
        assert!(a.male > 0.8 && b.male > 0.8);
        assert!((a.emotions.iter().sum::<f32>() - 1.0).abs() < 1e-3);
        // In the last one they are nearly closed.
        assert!(a.mesh.unwrap().eyes_open > 0.5 || number == 400, "{number}");
    }
}

fn other_side(name: &str) -> String {
    let swap = |name: &str| {
        if name.contains("Left") {
            name.replace("Left", "Right")
        } else {
            name.replace("Right", "Left")
        }
    };
    match (name.strip_prefix("left"), name.strip_prefix("right")) {
        (Some(rest), _) => format!("right{}", swap(rest)),
        (_, Some(rest)) => format!("left{}", swap(rest)),
        _ => swap(name),
    }
}

#[tokio::test]
async fn attributes_come_when_asked_for_and_the_worker_that_has_them_serves_on() {
    let Some(models) = prepared() else { return };
    let (pool, folder) = (pool(&models), tempfile::tempdir().unwrap());
    let Some(image) = frame(0, "", folder.path()) else {
        return;
    };
    for asked in [false, true, false, true] {
        let face = largest(&pool, image.clone(), asked).await;
        assert_eq!(face.attributes.is_some(), asked);
    }
}
