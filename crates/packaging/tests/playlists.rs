//! Playlists and manifests, byte for byte, and what an independent parser reads in them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use m3u8_rs::{MediaPlaylistType, Playlist, parse_playlist_res};
use packaging::dash::{self, Manifest, Representation};
use packaging::hls::{FragmentRange, Kind, LowLatency, Master, Media, Part, RenditionReport, Segment};

const FIRST_MS: i64 = 1_643_353_235_931;

fn segment(n: u32) -> Segment {
    Segment {
        uri: format!("getMP4MediaFragment.mp4?FragmentNumber={n}&SessionToken=T~&TrackNumber=1"),
        duration_ms: 1857 + n,
        map: Some("getMP4InitFragment.mp4?SessionToken=T~&TrackNumber=1&SequenceNumber=0".to_owned()),
        ..Segment::default()
    }
}

fn media(kind: Kind, segments: Vec<Segment>) -> Media {
    Media {
        version: 7,
        kind,
        target_duration_s: 2,
        media_sequence: 1,
        discontinuity_sequence: 0,
        low_latency: None,
        segments,
        open: None,
        preload_hint: None,
        rendition: None,
    }
}

fn parsed(text: &str) -> m3u8_rs::MediaPlaylist {
    match parse_playlist_res(text.as_bytes()) {
        Ok(Playlist::MediaPlaylist(playlist)) => playlist,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_range_reads_as_a_complete_playlist() {
    let dated = |n: u32| Segment {
        program_date_time_ms: Some(FIRST_MS + i64::from(n) * 1857),
        ..segment(n)
    };
    let text = media(Kind::Vod, vec![dated(0), dated(1)]).text();
    let golden = "#EXTM3U
#EXT-X-VERSION:7
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:1
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI=\"getMP4InitFragment.mp4?SessionToken=T~&TrackNumber=1&SequenceNumber=0\"
#EXT-X-PROGRAM-DATE-TIME:2022-01-28T07:00:35.931Z
#EXTINF:1.857,
getMP4MediaFragment.mp4?FragmentNumber=0&SessionToken=T~&TrackNumber=1
#EXT-X-PROGRAM-DATE-TIME:2022-01-28T07:00:37.788Z
#EXTINF:1.858,
getMP4MediaFragment.mp4?FragmentNumber=1&SessionToken=T~&TrackNumber=1
#EXT-X-ENDLIST
";
    assert_eq!(text, golden);
    let playlist = parsed(&text);
    assert_eq!(playlist.playlist_type, Some(MediaPlaylistType::Vod));
    assert!(playlist.end_list && playlist.independent_segments);
    assert_eq!(
        (playlist.version, playlist.target_duration, playlist.media_sequence),
        (Some(7), 2, 1)
    );
    let first = &playlist.segments[0];
    assert_eq!((first.uri.as_str(), first.duration), (segment(0).uri.as_str(), 1.857));
    assert_eq!(first.map.as_ref().map(|map| map.uri.clone()), segment(0).map);
    assert_eq!(first.program_date_time.unwrap().timestamp_millis(), FIRST_MS);
    assert!(playlist.segments[1].map.is_none(), "told once while it stays the same");
}

#[test]
fn a_live_playlist_tells_discontinuities_gaps_and_fragments() {
    let changed = Segment {
        discontinuity: true,
        map: Some("getMP4InitFragment.mp4?SessionToken=T~&TrackNumber=1&SequenceNumber=1".to_owned()),
        program_date_time_ms: Some(FIRST_MS),
        fragment: Some(FragmentRange {
            number: "91343852333181432392682062607743920146159169392".to_owned(),
            server_ms: FIRST_MS + 70,
        }),
        ..segment(5)
    };
    let gap = Segment {
        gap: true,
        ..segment(6)
    };
    let mut playlist = media(Kind::Live { ended: false }, vec![segment(4), changed, gap]);
    (playlist.media_sequence, playlist.discontinuity_sequence) = (4, 3);
    let text = playlist.text();
    assert!(!text.contains("ENDLIST") && !text.contains("PLAYLIST-TYPE"));
    assert!(text.contains("#EXT-X-GAP\n"));
    let read = parsed(&text);
    assert_eq!(
        (read.media_sequence, read.discontinuity_sequence, read.end_list),
        (4, 3, false)
    );
    let flags: Vec<_> = read
        .segments
        .iter()
        .map(|segment| (segment.discontinuity, segment.map.is_some()))
        .collect();
    // The gap's own map is the first one again.
    assert_eq!(flags, [(false, true), (true, true), (false, true)]);
    let range = read.segments[1].daterange.as_ref().unwrap();
    assert_eq!(range.id, "91343852333181432392682062607743920146159169392");
    assert_eq!(
        (range.start_date.timestamp_millis(), range.duration),
        (FIRST_MS, Some(1.862))
    );
    playlist.kind = Kind::Live { ended: true };
    assert!(parsed(&playlist.text()).end_list);
}

#[test]
fn a_low_latency_playlist_tells_the_parts_of_what_is_arriving() {
    let part = |n: u32| Part {
        uri: format!("part{n}"),
        duration_ms: 333,
        independent: n == 0,
    };
    let mut playlist = media(Kind::Live { ended: false }, vec![segment(0)]);
    playlist.low_latency = Some(LowLatency {
        part_target_ms: 350,
        hold_back_ms: 1050,
    });
    playlist.open = Some(Segment {
        parts: vec![part(0), part(1)],
        ..segment(1)
    });
    playlist.preload_hint = Some("part2".to_owned());
    playlist.rendition = Some(RenditionReport {
        uri: "sound".to_owned(),
        last_msn: 2,
        last_part: Some(1),
    });
    let text = playlist.text();
    let told: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("PART") || line.contains("HINT"))
        .collect();
    assert_eq!(
        told,
        [
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.050",
            "#EXT-X-PART-INF:PART-TARGET=0.350",
            "#EXT-X-PART:DURATION=0.333,URI=\"part0\",INDEPENDENT=YES",
            "#EXT-X-PART:DURATION=0.333,URI=\"part1\"",
            "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part2\"",
            "#EXT-X-RENDITION-REPORT:URI=\"sound\",LAST-MSN=2,LAST-PART=1",
        ]
    );
    assert_eq!(parsed(&text).segments.len(), 1, "a segment that is not whole is none");
}

#[test]
fn a_master_playlist_names_codecs_size_and_sound() {
    let master = Master {
        codecs: vec!["avc1.4d4029", "mp4a.40.2"],
        resolution: Some((1280, 720)),
        frame_rate: Some(15.0),
        bandwidth: 1_953_544,
        average_bandwidth: 1_800_000,
        uri: "getHLSMediaPlaylist.m3u8?SessionToken=T~&TrackNumber=1".to_owned(),
        audio_uri: Some("getHLSMediaPlaylist.m3u8?SessionToken=T~&TrackNumber=2".to_owned()),
        version: 7,
    };
    let text = master.text();
    assert!(text.contains(
        "#EXT-X-STREAM-INF:CODECS=\"avc1.4d4029,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=15.0,BANDWIDTH=1953544,"
    ));
    let Ok(Playlist::MasterPlaylist(read)) = parse_playlist_res(text.as_bytes()) else {
        panic!("{text}")
    };
    let variant = &read.variants[0];
    assert_eq!(
        (variant.bandwidth, variant.average_bandwidth),
        (1_953_544, Some(1_800_000))
    );
    assert_eq!(
        (variant.codecs.as_deref(), variant.audio.as_deref()),
        (Some("avc1.4d4029,mp4a.40.2"), Some("audio"))
    );
    assert_eq!(
        (variant.frame_rate, variant.uri.clone()),
        (Some(15.0), master.uri.clone())
    );
    assert_eq!(read.alternatives[0].uri, master.audio_uri);
}

#[test]
fn a_manifest_tells_one_time_line_for_picture_and_sound() {
    let manifest = Manifest {
        kind: dash::Kind::Static,
        offset_ms: 0,
        longest_ms: 2000,
        start_number: 3,
        segments: vec![dash::Segment {
            start_ms: 0,
            duration_ms: 1857,
            timestamp_ms: Some(FIRST_MS),
            fragment_number: Some("91".to_owned()),
        }],
        representations: vec![Representation {
            content: "video",
            track: 1,
            codecs: "avc1.4d4029",
            bandwidth: 1_000_000,
            resolution: Some((1280, 720)),
            sampling_hz: None,
            initialization: "init?SessionToken=T~&TrackNumber=1".to_owned(),
            media: "media?FragmentNumber=$Number$&SessionToken=T~&TrackNumber=1".to_owned(),
        }],
    };
    let golden = r#"<?xml version="1.0" encoding="UTF-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" xmlns:kvs="urn:amazon:kinesisvideo" profiles="urn:mpeg:dash:profile:isoff-live:2011" type="static" mediaPresentationDuration="PT1.857S" maxSegmentDuration="PT2.000S" minBufferTime="PT2.000S">
  <Period id="0" start="PT0S">
    <AdaptationSet id="0" contentType="video" mimeType="video/mp4" segmentAlignment="true" startWithSAP="1">
      <SegmentTemplate timescale="1000" presentationTimeOffset="0" startNumber="3" initialization="init?SessionToken=T~&amp;TrackNumber=1" media="media?FragmentNumber=$Number$&amp;SessionToken=T~&amp;TrackNumber=1">
        <SegmentTimeline>
          <S t="0" d="1857" kvs:ts="2022-01-28T07:00:35.931Z" kvs:fn="91"/>
        </SegmentTimeline>
      </SegmentTemplate>
      <Representation id="1" codecs="avc1.4d4029" bandwidth="1000000" width="1280" height="720"/>
    </AdaptationSet>
  </Period>
</MPD>
"#;
    assert_eq!(manifest.text(), golden);
    let live = Manifest {
        kind: dash::Kind::Dynamic {
            availability_start_ms: FIRST_MS - 1857,
            now_ms: FIRST_MS,
            update_ms: 1000,
        },
        ..manifest
    };
    let text = live.text();
    assert!(text.contains(r#"type="dynamic" availabilityStartTime="2022-01-28T07:00:34.074Z" publishTime="2022-01-28T07:00:35.931Z" minimumUpdatePeriod="PT1.000S""#), "{text}");
    assert!(text.contains("<UTCTiming"));
}
