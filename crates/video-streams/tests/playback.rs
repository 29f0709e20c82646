//! A playback session from its URL to its media, with a clock that moves only when told to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use base::ApiError;
use bytes::{Bytes, BytesMut};
use common::Service;
use common::playback::{fetch, header, live_token};
use matroska::writer;
use video_streams::Settings;
use video_streams::playback::PlaybackSettings;
use wire::kinesisvideo_archived_media as archived;
use wire::kinesisvideo_archived_media::op;

/// One-frame fragments, 40 ms each.
fn body(range: std::ops::Range<u64>) -> Bytes {
    let mut out = BytesMut::from(&header()[..]);
    for n in range {
        writer::put_cluster_head(&mut out, 1_795_347_220_000 + 40 * n);
        let frame = [0, 0, 0, 5, 0x65, 1, 2, 3, 4];
        writer::put_simple_block_head(&mut out, 1, 0, true, frame.len());
        out.extend_from_slice(&frame);
        out.extend_from_slice(&writer::end_of_fragment());
    }
    out.freeze()
}

async fn playlist(service: &Service, token: &str) -> Result<String, ApiError> {
    common::playback::playlist(service, token, (None, None)).await
}

#[tokio::test]
async fn a_live_session_waits_for_a_silent_camera_and_a_strict_one_does_not() {
    for strict in [false, true] {
        let settings = Settings {
            playback: PlaybackSettings {
                strict,
                low_latency: !strict,
            },
            ..Settings::default()
        };
        let service = Service::with(settings, |store| store).await;
        service.create("door", 1).await;
        service.put("door", &body(0..3), &[1000]).await;
        let token = live_token(&service, None).await;
        let before = playlist(&service, &token).await.unwrap();
        assert_eq!(before.matches("#EXTINF:0.040,").count(), 3);
        service.clock.advance(Duration::from_secs(31));
        match playlist(&service, &token).await {
            Ok(after) => assert!(!strict && after == before, "it just stops growing"),
            Err(error) => assert!(strict && error.code == "ResourceNotFoundException", "{error}"),
        }
        service.put("door", &body(3..4), &[1000]).await;
        let after = playlist(&service, &token).await.unwrap();
        assert_eq!(
            after.matches("#EXTINF:0.040,").count(),
            4,
            "and goes on with the camera"
        );
    }
}

#[tokio::test]
async fn a_session_ends_when_its_token_expires_and_not_with_the_server() {
    let service = Service::start().await;
    let arn = service.create("door", 1).await;
    service.put("door", &body(0..9), &[1000]).await;
    let token = live_token(&service, None).await;
    let before = playlist(&service, &token).await.unwrap();
    let service = service.restart().await;
    assert_eq!(playlist(&service, &token).await.unwrap(), before);
    service.clock.advance(Duration::from_secs(300));
    assert_eq!(
        playlist(&service, &token).await.unwrap_err().code,
        "NotAuthorizedException"
    );
    service.put("door", &body(9..10), &[1000]).await;
    let token = live_token(&service, None).await;
    service.delete(&arn).await;
    assert_eq!(
        playlist(&service, &token).await.unwrap_err().code,
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn the_media_of_a_playlist_is_an_initialisation_segment_and_fragments() {
    let service = Service::start().await;
    service.create("door", 1).await;
    service.put("door", &body(0..2), &[1000]).await;
    let token = live_token(&service, None).await;
    let init = archived::GetMP4InitFragmentInput {
        session_token: token.clone(),
        sequence_number: Some(0),
        track_number: Some(1),
    };
    let init = fetch::<op::GetMP4InitFragment>(&service, init).await.unwrap();
    assert_eq!(
        (&init[4..8], init.windows(4).any(|four| four == b"avcC")),
        (&b"ftyp"[..], true)
    );
    for fragment in service.list("door").await {
        let input = archived::GetMP4MediaFragmentInput {
            fragment_number: fragment.fragment_number.unwrap(),
            session_token: token.clone(),
            track_number: Some(1),
            part_number: None,
        };
        let segment = fetch::<op::GetMP4MediaFragment>(&service, input.clone()).await.unwrap();
        assert!(segment.windows(9).any(|bytes| bytes == [0, 0, 0, 5, 0x65, 1, 2, 3, 4]));
        let sound = archived::GetMP4MediaFragmentInput {
            track_number: Some(2),
            ..input
        };
        let error = fetch::<op::GetMP4MediaFragment>(&service, sound).await.unwrap_err();
        assert_eq!(error.code, "ResourceNotFoundException", "there is no sound");
    }
}
