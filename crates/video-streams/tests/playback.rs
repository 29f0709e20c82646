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

use base::{ApiError, Handle, Operation, Request};
use bytes::{Bytes, BytesMut};
use common::{Service, context};
use futures_util::StreamExt;
use matroska::{Track, TrackKind, Video, writer};
use video_streams::playback::PlaybackSettings;
use video_streams::{Settings, VideoStreams};
use wire::kinesisvideo_archived_media as archived;
use wire::kinesisvideo_archived_media::op;

/// What x264 declares for 64x48.
const AVCC: &[u8] = &[
    1, 0x42, 0xC0, 0x0A, 0xFF, 0xE1, 0, 0x17, 0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0,
    3, 3, 0x20, 0xF1, 0x22, 0x64, 0x80, 1, 0, 5, 0x68, 0xCB, 0x83, 0xCB, 0x20,
];

/// One-frame fragments, 40 ms each.
fn body(range: std::ops::Range<u64>) -> Bytes {
    let track = Track {
        number: 1,
        uid: 1,
        kind: TrackKind::Video,
        codec_id: "V_MPEG4/ISO/AVC".to_owned(),
        codec_private: Bytes::from_static(AVCC),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: Some(40_000_000),
        encoded: false,
        video: Some(Video { width: 64, height: 48 }),
        audio: None,
    };
    let mut out = BytesMut::from(&writer::header(&writer::StreamInfo::default(), &[track])[..]);
    for n in range {
        writer::put_cluster_head(&mut out, 1_795_347_220_000 + 40 * n);
        let frame = [0, 0, 0, 5, 0x65, 1, 2, 3, 4];
        writer::put_simple_block_head(&mut out, 1, 0, true, frame.len());
        out.extend_from_slice(&frame);
        out.extend_from_slice(&writer::end_of_fragment());
    }
    out.freeze()
}

async fn live_token(service: &Service) -> String {
    let input = archived::GetHLSStreamingSessionURLInput {
        stream_name: Some("door".to_owned()),
        ..Default::default()
    };
    let answer = service.call::<op::GetHLSStreamingSessionURL>(input).await.unwrap();
    let url = answer.hls_streaming_session_url.unwrap();
    url.split_once("SessionToken=").unwrap().1.to_owned()
}

async fn fetch<O: Operation>(service: &Service, input: O::Input) -> Result<Bytes, ApiError>
where
    VideoStreams: Handle<O>,
{
    let request = Request {
        context: context(),
        input,
        body: None,
    };
    let reply = Handle::<O>::handle(&service.video, request).await?;
    let mut whole = BytesMut::new();
    let mut stream = reply.stream.unwrap();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(reply.stream_len, Some(whole.len() as u64));
    Ok(whole.freeze())
}

async fn playlist(service: &Service, token: &str) -> Result<String, ApiError> {
    let input = archived::GetHLSMediaPlaylistInput {
        session_token: token.to_owned(),
        track_number: Some(1),
        display_fragment_number: None,
        hls_msn: None,
        hls_part: None,
    };
    let bytes = fetch::<op::GetHLSMediaPlaylist>(service, input).await?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
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
        let token = live_token(&service).await;
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
    let token = live_token(&service).await;
    let before = playlist(&service, &token).await.unwrap();
    let service = service.restart().await;
    assert_eq!(playlist(&service, &token).await.unwrap(), before);
    service.clock.advance(Duration::from_secs(300));
    assert_eq!(
        playlist(&service, &token).await.unwrap_err().code,
        "NotAuthorizedException"
    );
    service.put("door", &body(9..10), &[1000]).await;
    let token = live_token(&service).await;
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
    let token = live_token(&service).await;
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
