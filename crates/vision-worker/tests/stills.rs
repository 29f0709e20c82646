//! Still images as the server asks for them: of a real process, of real video, and of bytes that are none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod support;

use base::AccountId;
use base::metrics::Metrics;
use bytes::Bytes;
use support::*;
use vision::{BoundingBox, FramesRequest, StillError, StillFormat, StillPacket, StillsError, StillsRequest};
use vision_worker::codec::Format;
use vision_worker::image::header;

/// The frames of the first group of pictures that are wanted.
fn request(video: &Video, wanted: &[usize], format: StillFormat) -> StillsRequest {
    let last = wanted.iter().max().map_or(0, |last| last + 1);
    let packet = |(index, frame): (usize, &vision::Frame)| StillPacket {
        data: frame.data.clone(),
        fresh: index == 0,
        wanted: wanted.contains(&index),
    };
    StillsRequest {
        account: AccountId::DEFAULT,
        codec: video.codec,
        codec_private: video.codec_private.clone(),
        format,
        width: None,
        height: None,
        packets: video.frames.iter().take(last).enumerate().map(packet).collect(),
    }
}

#[tokio::test]
async fn wanted_frames_become_images_of_the_wanted_form_and_size() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let pool = pool(&models);
    let jpeg = StillFormat::Jpeg { quality: 80 };
    let made = pool.stills(request(&video, &[0, 7, 12], jpeg)).await.unwrap();
    assert_eq!(made.len(), 3);
    for file in &made {
        let head = header(file.as_ref().unwrap()).unwrap();
        assert_eq!((head.format, head.width, head.height), (Format::Jpeg, 1280, 720));
    }
    let mut length = 0;
    for quality in [1, 50, 80, 100] {
        let made = pool
            .stills(request(&video, &[3], StillFormat::Jpeg { quality }))
            .await
            .unwrap();
        let file = made[0].as_ref().unwrap();
        assert!(file.len() > length, "quality {quality}: {} after {length}", file.len());
        length = file.len();
    }
    for (width, height, expected) in [
        (None, Some(90), (160, 90)),
        (Some(100), Some(100), (100, 100)),
        (Some(2000), None, (2000, 1125)),
    ] {
        let mut sized = request(&video, &[2], StillFormat::Png);
        (sized.width, sized.height) = (width, height);
        let made = pool.stills(sized).await.unwrap();
        let head = header(made[0].as_ref().unwrap()).unwrap();
        assert_eq!(
            (head.format, head.width, head.height),
            (Format::Png, expected.0, expected.1)
        );
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_told_and_costs_nothing_else() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let pool = pool(&models);
    let jpeg = StillFormat::Jpeg { quality: 80 };
    let undecodable = Err(StillError::Undecodable);
    // Noise for a frame, then a good key frame.
    let mut mixed = request(&video, &[0], jpeg);
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(5000).collect();
    let good = mixed.packets[0].clone();
    mixed.packets.insert(
        0,
        StillPacket {
            data: Bytes::from(noise),
            ..good.clone()
        },
    );
    let made = pool.stills(mixed).await.unwrap();
    assert_eq!(made[0], undecodable);
    assert!(made[1].is_ok());
    // A frame left out: what follows refers to it.
    let mut gap = request(&video, &[0, 8], jpeg);
    gap.packets.remove(1);
    let made = pool.stills(gap).await.unwrap();
    assert!(made[0].is_ok());
    assert_eq!(made[1], undecodable);
    // A frame too large for a message, and codec private data that is none.
    let mut huge = request(&video, &[0], jpeg);
    huge.packets[0].data = vec![0; vision::limits::MAX_FRAME_BYTES + 1].into();
    assert_eq!(pool.stills(huge).await.unwrap()[0], undecodable);
    let mut private = request(&video, &[0], jpeg);
    private.codec_private = Bytes::from_static(b"\x01nonsense");
    assert_eq!(pool.stills(private).await.unwrap()[0], undecodable);
    // The worker lives on.
    assert!(pool.stills(request(&video, &[1], jpeg)).await.unwrap()[0].is_ok());
}

#[tokio::test]
async fn images_that_nobody_waits_for_any_more_do_not_hold_up_the_next() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let metrics = Metrics::new();
    let pool = measured_pool(&models, &metrics);
    // PNG files of the whole group of pictures again and again: many times what is done until it is given up.
    let whole: Vec<usize> = (0..12).collect();
    let mut long = request(&video, &whole, StillFormat::Png);
    long.packets = long.packets.iter().cycle().take(12 * 100).cloned().collect();
    let asked = tokio::spawn({
        let pool = pool.clone();
        async move { pool.stills(long).await }
    });
    let started = || {
        metrics
            .render()
            .unwrap()
            .contains("sightglass_vision_workers{kind=\"stills\"} 1")
    };
    while !started() {
        tokio::task::yield_now().await;
    }
    asked.abort();
    let next = pool
        .stills(request(&video, &[0], StillFormat::Jpeg { quality: 80 }))
        .await;
    assert!(next.unwrap()[0].is_ok());
    // What was given up was not made first.
    let shown = metrics.render().unwrap();
    let made = shown
        .lines()
        .find(|line| line.starts_with("sightglass_vision_stills_total{") && line.contains("made"));
    assert!(made.is_some_and(|line| line.ends_with(" 1")), "{shown}");
    assert!(started(), "one worker, and no other is counted");
}

/// The same frames, to be looked at.
fn frames(video: &Video, wanted: &[usize]) -> FramesRequest {
    let request = request(video, wanted, StillFormat::Png);
    FramesRequest {
        account: request.account,
        codec: request.codec,
        codec_private: request.codec_private,
        packets: request.packets,
    }
}

#[tokio::test]
async fn objects_of_frames_are_those_of_their_images_and_parts_show_them() {
    let (Some(models), Some(video)) = (models(), video("bezos_vogels.mkv")) else {
        return;
    };
    let metrics = Metrics::new();
    let pool = measured_pool(&models, &metrics);
    if !pool.abilities().labels {
        println!("skipped: models prepared without objects");
        let why = pool.frame_objects(frames(&video, &[0])).await.unwrap_err();
        assert!(matches!(why, StillsError::Worker(_)));
        return;
    }
    let found = pool.frame_objects(frames(&video, &[0, 7])).await.unwrap();
    let images = pool.stills(request(&video, &[0, 7], StillFormat::Png)).await.unwrap();
    for (found, image) in found.iter().zip(&images) {
        let found = found.as_ref().unwrap();
        assert_eq!((found.width, found.height), (1280, 720));
        let image = pool
            .label_image(AccountId::DEFAULT, image.clone().unwrap())
            .await
            .unwrap();
        let best = |objects: &[vision::DetectedObject]| *objects.first().unwrap();
        let (of_frame, of_image) = (best(&found.objects), best(&image.objects));
        assert_eq!((of_frame.class_name(), of_image.class_name()), ("person", "person"));
        assert!(of_frame.bounding_box.iou(&of_image.bounding_box) > 0.9);
        assert!((of_frame.confidence - of_image.confidence).abs() < 5.0);
    }
    let area = |left, top, width, height| BoundingBox {
        left,
        top,
        width,
        height,
    };
    for (area, expected) in [
        (area(0.0, 0.0, 1.0, 1.0), (1280, 720)),
        (area(0.25, 0.5, 0.25, 0.25), (320, 180)),
        (area(0.75, 0.75, 2.0, 2.0), (320, 180)),
    ] {
        let made = pool.frame_parts(frames(&video, &[3]), area, 90).await.unwrap();
        let head = header(made[0].as_ref().unwrap()).unwrap();
        assert_eq!(
            (head.format, head.width, head.height),
            (Format::Jpeg, expected.0, expected.1)
        );
    }
    // What lies beyond the picture, a frame that is none, and codec private data that is none.
    let undecodable = Err(StillError::Undecodable);
    let beyond = pool
        .frame_parts(frames(&video, &[0]), area(1.5, 0.0, 1.0, 1.0), 90)
        .await;
    assert_eq!(beyond.unwrap(), [undecodable]);
    let mut noise = frames(&video, &[0]);
    noise.packets[0].data = std::iter::repeat_with(|| fastrand::u8(..)).take(5000).collect();
    assert!(pool.frame_objects(noise).await.unwrap()[0].is_err());
    let mut private = frames(&video, &[0]);
    private.codec_private = Bytes::from_static(b"\x01nonsense");
    assert!(pool.frame_objects(private).await.unwrap()[0].is_err());
    assert!(
        pool.frame_objects(frames(&video, &[0])).await.unwrap()[0].is_ok(),
        "the worker lives on"
    );
    let shown = metrics.render().unwrap();
    for kind in ["labels", "stills"] {
        assert!(
            shown.contains(&format!("sightglass_vision_workers{{kind=\"{kind}\"}} 1")),
            "{kind}"
        );
    }
}
