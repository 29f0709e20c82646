//! Playback of a session: what its URL leads to.

use base::{ApiError, Handle, Operation, Request};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use matroska::{Track, TrackKind, Video, writer};
use video_streams::VideoStreams;
use wire::kinesisvideo_archived_media as archived;
use wire::kinesisvideo_archived_media::op;

use super::{Service, context};

/// What x264 declares for 64x48.
const AVCC: &[u8] = &[
    1, 0x42, 0xC0, 0x0A, 0xFF, 0xE1, 0, 0x17, 0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0,
    3, 3, 0x20, 0xF1, 0x22, 0x64, 0x80, 1, 0, 5, 0x68, 0xCB, 0x83, 0xCB, 0x20,
];

/// The header of a film that players take: a picture every 40 ms.
pub fn header() -> Bytes {
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
    writer::header(&writer::StreamInfo::default(), &[track])
}

/// The token of a live session of the stream `door`.
pub async fn live_token(service: &Service, mode: Option<archived::HLSDiscontinuityMode>) -> String {
    let input = archived::GetHLSStreamingSessionURLInput {
        stream_name: Some("door".to_owned()),
        discontinuity_mode: mode,
        ..Default::default()
    };
    let answer = service.call::<op::GetHLSStreamingSessionURL>(input).await.unwrap();
    let url = answer.hls_streaming_session_url.unwrap();
    url.split_once("SessionToken=").unwrap().1.to_owned()
}

/// The whole of what an operation of players answers, as long as it says.
pub async fn fetch<O: Operation>(service: &Service, input: O::Input) -> Result<Bytes, ApiError>
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

/// A session's media playlist; with `until`, not before it holds that media sequence number and part.
pub async fn playlist(service: &Service, token: &str, until: (Option<i64>, Option<i64>)) -> Result<String, ApiError> {
    let input = archived::GetHLSMediaPlaylistInput {
        session_token: token.to_owned(),
        track_number: Some(1),
        display_fragment_number: None,
        hls_msn: until.0,
        hls_part: until.1,
    };
    let bytes = fetch::<op::GetHLSMediaPlaylist>(service, input).await?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}
