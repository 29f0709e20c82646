//! Low-Latency HLS: parts of what arrives, playlists that wait for them, and what becomes of a fragment that was shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use base::ApiError;
use bytes::{Bytes, BytesMut};
use common::playback::{fetch, header, live_token, playlist};
use common::{Put, Service, absolute};
use matroska::writer;
use wire::kinesisvideo_archived_media as archived;
use wire::kinesisvideo_archived_media::op;

/// Milliseconds from picture to picture.
const STEP: u64 = 40;
/// Pictures of a part: what fits into 200 ms.
const IN_PART: u64 = 5;

/// A camera that sends pictures when it is told to.
struct Camera {
    put: Put,
    at: u64,
    in_fragment: u64,
}

impl Camera {
    async fn connect(service: &Service, first: u64) -> Self {
        let put = service.open_put(absolute("door")).await.unwrap();
        put.send(&header()).await;
        Camera {
            put,
            at: first,
            in_fragment: 0,
        }
    }

    async fn pictures(&mut self, count: u64) {
        for _ in 0..count {
            self.picture(STEP * self.in_fragment).await;
        }
    }

    /// One picture, so many milliseconds behind the start of its fragment.
    async fn picture(&mut self, time: u64) {
        let mut out = BytesMut::new();
        if self.in_fragment == 0 {
            writer::put_cluster_head(&mut out, 1_795_347_220_000 + STEP * self.at);
        }
        let key = self.in_fragment == 0;
        let frame = [0, 0, 0, 5, if key { 0x65 } else { 0x41 }, 1, 2, self.at as u8, 4];
        let time = i16::try_from(time).unwrap();
        writer::put_simple_block_head(&mut out, 1, time, key, frame.len());
        out.extend_from_slice(&frame);
        self.put.send(&out.freeze()).await;
        self.at += 1;
        self.in_fragment += 1;
    }

    async fn end_fragment(&mut self) {
        self.put.send(&writer::end_of_fragment()).await;
        self.in_fragment = 0;
        while let Some(ack) = self.put.ack().await {
            if ack.starts_with("PERSISTED") {
                return;
            }
        }
        panic!("the connection ended before the ack");
    }
}

/// A player of one session.
struct Player<'a> {
    service: &'a Service,
    token: String,
}

impl<'a> Player<'a> {
    async fn open(service: &'a Service) -> Self {
        let token = live_token(service, Some(archived::HLSDiscontinuityMode::OnDiscontinuity)).await;
        let player = Player { service, token };
        let input = archived::GetHLSMasterPlaylistInput {
            session_token: player.token.clone(),
            display_fragment_number: None,
        };
        fetch::<op::GetHLSMasterPlaylist>(service, input).await.unwrap();
        player
    }

    async fn playlist(&self, msn: Option<i64>, part: Option<i64>) -> Result<String, ApiError> {
        playlist(self.service, &self.token, (msn, part)).await
    }

    /// The media that a playlist names.
    async fn media(&self, uri: &str) -> Result<Bytes, ApiError> {
        let value = |name: &str| {
            let found = uri.split(['?', '&']).find_map(|pair| pair.strip_prefix(name));
            found.map(|text| text.trim_start_matches('=').to_owned())
        };
        let input = archived::GetMP4MediaFragmentInput {
            fragment_number: value("FragmentNumber").unwrap(),
            session_token: self.token.clone(),
            track_number: Some(1),
            part_number: value("PartNumber").map(|number| number.parse().unwrap()),
        };
        fetch::<op::GetMP4MediaFragment>(self.service, input).await
    }
}

/// The values of an attribute in the lines with a tag.
fn attribute(text: &str, tag: &str, name: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with(tag));
    let value = |line: &str| {
        Some(
            line.split_once(&format!("{name}="))?
                .1
                .split(',')
                .next()?
                .trim_matches('"')
                .to_owned(),
        )
    };
    lines.filter_map(value).collect()
}

fn segments(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

/// What is behind the last box's head.
fn mdat(segment: &Bytes) -> Bytes {
    let at = segment.windows(4).position(|four| four == b"mdat").unwrap();
    segment.slice(at + 4..)
}

async fn watched() -> Service {
    let service = Service::start().await;
    service.create("door", 1).await;
    let mut camera = Camera::connect(&service, 0).await;
    for _ in 0..3 {
        camera.pictures(10).await;
        camera.end_fragment().await;
    }
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_sees_parts_of_the_fragment_that_arrives_and_then_the_fragment() {
    let service = watched().await;
    let player = Player::open(&service).await;
    let text = player.playlist(None, None).await.unwrap();
    assert!(text.contains("#EXT-X-PART-INF:PART-TARGET=0.220"), "{text}");
    assert_eq!((segments(&text).len(), text.contains("#EXT-X-PART:")), (3, false));

    let mut camera = Camera::connect(&service, 100).await;
    // Nothing is known here of what began before it, so that its own place is not known before it is stored.
    camera.pictures(2).await;
    camera.end_fragment().await;
    let (text, ()) = tokio::join!(player.playlist(Some(4), Some(0)), camera.pictures(IN_PART + 1));
    let text = text.unwrap();
    assert_eq!(segments(&text).len(), 4, "{text}");
    assert_eq!(attribute(&text, "#EXT-X-PART:", "DURATION"), ["0.080", "0.200"]);
    assert!(text.contains("INDEPENDENT=YES"), "it begins with a key frame");
    let first = attribute(&text, "#EXT-X-PART:", "URI").remove(1);
    let hint = attribute(&text, "#EXT-X-PRELOAD-HINT:", "URI").remove(0);
    assert!(first.contains("FragmentNumber=4&") && first.ends_with("PartNumber=0"));
    assert!(hint.contains("FragmentNumber=4&") && hint.ends_with("PartNumber=1"));

    let (second, ()) = tokio::join!(player.media(&hint), camera.pictures(IN_PART));
    let media = [mdat(&player.media(&first).await.unwrap()), mdat(&second.unwrap())].concat();
    let (text, ()) = tokio::join!(player.playlist(Some(4), None), camera.end_fragment());
    let text = text.unwrap();
    assert_eq!(segments(&text).len(), 5, "{text}");
    assert_eq!(
        attribute(&text, "#EXT-X-PART:", "DURATION"),
        ["0.080", "0.200", "0.200", "0.040"]
    );
    let third = attribute(&text, "#EXT-X-PART:", "URI").remove(3);
    let next = attribute(&text, "#EXT-X-PRELOAD-HINT:", "URI").remove(0);
    assert!(
        next.contains("FragmentNumber=5&") && next.ends_with("PartNumber=0"),
        "{next}"
    );
    let whole = player.media(segments(&text)[4]).await.unwrap();
    let media = [media, mdat(&player.media(&third).await.unwrap()).to_vec()].concat();
    assert_eq!(mdat(&whole), media, "the parts are the segment");

    // A part that the fragment turned out not to have means the first of the next one.
    let (text, part, ()) = tokio::join!(
        player.playlist(Some(4), Some(3)),
        player.media(&next),
        camera.pictures(IN_PART + 1)
    );
    assert_eq!(attribute(&text.unwrap(), "#EXT-X-PART:", "URI").len(), 5);
    assert!(part.unwrap().windows(4).any(|four| four == b"moof"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_fragment_that_was_shown_leaves_a_gap_under_its_number() {
    let service = watched().await;
    let player = Player::open(&service).await;
    player.playlist(None, None).await.unwrap();
    let mut camera = Camera::connect(&service, 100).await;
    camera.pictures(2).await;
    camera.end_fragment().await;
    let (text, ()) = tokio::join!(player.playlist(Some(4), Some(0)), camera.pictures(IN_PART + 1));
    let text = text.unwrap();
    assert!(text.contains("#EXT-X-PART:"), "{text}");
    camera.put.send(&Bytes::from_static(&[0; 32])).await;
    camera.put.finish().await;

    let text = player.playlist(Some(4), None).await.unwrap();
    assert!(text.contains("#EXT-X-GAP\n"), "{text}");
    let gone = player.media(segments(&text)[4]).await.unwrap_err();
    assert_eq!(gone.code, "ResourceNotFoundException");

    let mut camera = Camera::connect(&service, 200).await;
    camera.pictures(3).await;
    camera.end_fragment().await;
    let text = player.playlist(Some(5), None).await.unwrap();
    assert_eq!(segments(&text).len(), 5, "the window has five");
    assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:1\n"));
    let gap = text.find("#EXT-X-GAP").unwrap();
    assert!(
        text[gap..].contains("#EXT-X-DISCONTINUITY\n"),
        "nothing continues a gap"
    );
}

/// A camera that was held up sends its pictures in a burst, and stamps some of them alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_of_one_time_cost_a_session_no_parts() {
    let service = Service::start().await;
    service.create("door", 1).await;
    let mut camera = Camera::connect(&service, 0).await;
    for time in [0, 40, 80, 80, 80, 200, 240, 280, 320, 360] {
        camera.picture(time).await;
    }
    camera.end_fragment().await;
    let player = Player::open(&service).await;
    let text = player.playlist(None, None).await.unwrap();
    assert!(text.contains("#EXT-X-PART-INF:PART-TARGET="), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_come_is_not_waited_for() {
    let service = watched().await;
    let player = Player::open(&service).await;
    let far = player.playlist(Some(5), None).await.unwrap_err();
    assert_eq!(far.code, "InvalidArgumentException");
    let without = player.playlist(None, Some(1)).await.unwrap_err();
    assert_eq!(without.code, "InvalidArgumentException");
    let there = player.playlist(Some(1), Some(7)).await.unwrap();
    assert_eq!(segments(&there).len(), 3, "the past is told at once");
    for (fragment, part) in [("0", 0), ("2", 5), ("4", 0), ("3", 1), ("x", 0)] {
        let uri = format!("?FragmentNumber={fragment}&PartNumber={part}");
        let error = player.media(&uri).await.unwrap_err();
        assert_eq!(error.code, "ResourceNotFoundException", "{uri}");
    }
}
