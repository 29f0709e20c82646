//! What is packaged is read by ffprobe and decoded by ffmpeg: frames are counted, times and durations compared, and no
//! complaint is heard. The media is generated here or captured from producers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{Folder, Fragment, data, decodes, fragments, fragments_with, generated, packets, probe};
use packaging::mp4::Movie;
use packaging::{MediaKind, TrackConfig, fmp4, ts};

const H264: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-g",
    "50",
    "-pix_fmt",
    "yuv420p",
];
const H264_B: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "fast",
    "-bf",
    "3",
    "-g",
    "50",
    "-sc_threshold",
    "0",
    "-pix_fmt",
    "yuv420p",
];
const H265_B: &[&str] = &[
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-x265-params",
    "log-level=error:keyint=50:bframes=3:open-gop=0",
    "-pix_fmt",
    "yuv420p",
];
const AAC: &[&str] = &["-c:a", "aac", "-ar", "48000", "-ac", "2"];
const ALAW: &[&str] = &["-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1"];
const MULAW: &[&str] = &["-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1"];

fn fragmented(fragments: &[Fragment], base_ms: i64, only: Option<MediaKind>) -> Vec<u8> {
    let wanted = |kind| only.is_none_or(|only| only == kind);
    let configs: Vec<&TrackConfig> = fragments[0]
        .parts
        .iter()
        .map(|part| &part.config)
        .filter(|config| wanted(config.kind()))
        .collect();
    let mut file = fmp4::init_segment(&configs).to_vec();
    for (fragment, sequence) in fragments.iter().zip(1..) {
        let tracks: Vec<_> = fragment
            .tracks()
            .into_iter()
            .filter(|track| wanted(track.config.kind()))
            .collect();
        let segment = fmp4::media_segment(sequence, base_ms + fragment.timecode, &tracks, &fragment.payload).unwrap();
        assert_eq!(segment.len() as usize, segment.to_bytes().len());
        segment
            .into_pieces()
            .iter()
            .for_each(|piece| file.extend_from_slice(piece));
    }
    file
}

fn plain(fragments: &[Fragment]) -> Vec<u8> {
    let configs: Vec<&TrackConfig> = fragments[0].parts.iter().map(|part| &part.config).collect();
    let mut movie = Movie::new(&configs);
    for fragment in fragments {
        movie
            .push(fragment.timecode, &fragment.tracks(), fragment.span())
            .unwrap();
    }
    let mut file = movie.head().to_vec();
    let head = file.len();
    fragments
        .iter()
        .for_each(|fragment| file.extend_from_slice(&fragment.payload[fragment.span()]));
    assert_eq!((file.len() - head) as u64, movie.media_len());
    file
}

fn transport(fragments: &[Fragment], base_ms: i64) -> Vec<u8> {
    let segments = fragments.iter().zip(7..);
    segments
        .flat_map(|(fragment, sequence)| {
            ts::segment(
                sequence,
                base_ms + fragment.timecode,
                &fragment.tracks(),
                &fragment.payload,
            )
            .unwrap()
        })
        .collect()
}

fn counts(fragments: &[Fragment]) -> Vec<usize> {
    let tracks = 0..fragments[0].parts.len();
    tracks
        .map(|n| fragments.iter().map(|fragment| fragment.parts[n].samples.len()).sum())
        .collect()
}

/// Checks times of a file against those of the file that the frames came from: equal steps, increasing decode times.
fn same_times(of: &std::path::Path, source: &std::path::Path, stream: &str, tolerance: f64) {
    let (got, want) = (packets(of, stream), packets(source, stream));
    assert_eq!(got.len(), want.len(), "{}", of.display());
    let mut shown: Vec<(f64, bool)> = got.iter().map(|packet| (packet.0, packet.2)).collect();
    let mut sent: Vec<(f64, bool)> = want.iter().map(|packet| (packet.0, packet.2)).collect();
    shown.sort_by(|a, b| a.0.total_cmp(&b.0));
    sent.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (first, origin) = (shown[0].0, sent[0].0);
    for (shown, sent) in shown.iter().zip(&sent) {
        let apart = (shown.0 - first) - (sent.0 - origin);
        assert!(apart.abs() <= tolerance, "{}: {shown:?} for {sent:?}", of.display());
        assert_eq!(shown.1, sent.1, "{}: the key flag at {}", of.display(), shown.0);
    }
    assert!(
        got.windows(2).all(|pair| pair[0].1 < pair[1].1),
        "{}: decode times do not increase",
        of.display()
    );
}

fn all_containers(name: &str, seconds: u32, video: &[&str], audio: &[&str], codecs: &[&str]) {
    let folder = Folder::new(name);
    let file = generated(&folder, seconds, video, audio);
    let cut = fragments(&file);
    assert!(cut.len() >= seconds as usize / 2, "{} clusters", cut.len());
    let wanted: Vec<String> = codecs
        .iter()
        .zip(counts(&cut))
        .map(|(codec, count)| format!("{codec},{count}"))
        .collect();
    let of_all = |path: &std::path::Path| {
        assert_eq!(probe(path, "codec_name,nb_read_packets"), wanted, "{}", path.display());
        decodes(path);
        for (stream, kind) in [("v:0", MediaKind::Video), ("a:0", MediaKind::Audio)] {
            if cut[0].parts.iter().any(|part| part.config.kind() == kind) {
                same_times(path, &folder.path("made.mkv"), stream, 0.0021);
            }
        }
    };
    of_all(&folder.write("fragmented.mp4", &fragmented(&cut, 0, None)));
    of_all(&folder.write("clip.mp4", &plain(&cut)));
    let duration = |path: &std::path::Path, stream: usize| -> f64 { probe(path, "duration")[stream].parse().unwrap() };
    for stream in 0..codecs.len() {
        let lasts = duration(&folder.path("clip.mp4"), stream);
        assert!(
            (lasts - f64::from(seconds)).abs() < 0.07,
            "{name}: stream {stream} lasts {lasts}"
        );
    }
}

#[test]
fn h264_and_aac_play_in_mp4_with_the_frames_and_times_that_were_sent() {
    all_containers("avc-aac", 6, H264, AAC, &["h264", "aac"]);
}

#[test]
fn reordered_h264_pictures_keep_their_times() {
    all_containers("avc-b", 6, H264_B, &[], &["h264"]);
}

#[test]
fn h265_with_reordered_pictures_plays_in_mp4() {
    all_containers("hevc-b", 4, H265_B, AAC, &["hevc", "aac"]);
}

#[test]
fn g711_of_both_laws_plays_in_mp4() {
    all_containers("alaw", 4, H264, ALAW, &["h264", "pcm_alaw"]);
    all_containers("mulaw", 4, H264, MULAW, &["h264", "pcm_mulaw"]);
}

#[test]
fn sound_alone_is_a_stream_too() {
    all_containers("aac-alone", 4, &[], AAC, &["aac"]);
}

#[test]
fn transport_streams_play_with_counters_and_clock_in_order() {
    for (name, video, audio, codecs) in [
        ("ts-avc", H264_B, AAC, &["h264", "aac"][..]),
        ("ts-hevc", H265_B, AAC, &["hevc", "aac"]),
        ("ts-plain", H264, &[][..], &["h264"]),
        ("ts-sound", &[], AAC, &["aac"]),
    ] {
        let folder = Folder::new(name);
        let cut = fragments(&generated(&folder, 6, video, audio));
        let file = transport(&cut, 95_000_000);
        check_packets(&file);
        let path = folder.write("made.ts", &file);
        let wanted: Vec<String> = codecs
            .iter()
            .zip(counts(&cut))
            .map(|(codec, count)| format!("{codec},{count}"))
            .collect();
        assert_eq!(probe(&path, "codec_name,nb_read_packets"), wanted, "{name}");
        decodes(&path);
        for (stream, kind) in [("v:0", MediaKind::Video), ("a:0", MediaKind::Audio)] {
            if cut[0].parts.iter().any(|part| part.config.kind() == kind) {
                same_times(&path, &folder.path("made.mkv"), stream, 0.0021);
            }
        }
    }
}

/// Every packet begins with the sync byte, each stream's counter goes up by one at each packet with payload, the clock
/// never goes back and comes at least every 100 ms.
fn check_packets(file: &[u8]) {
    assert_eq!(file.len() % 188, 0);
    let mut counters = std::collections::BTreeMap::new();
    let mut clock: Option<u64> = None;
    for packet in file.chunks(188) {
        assert_eq!(packet[0], 0x47);
        let pid = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
        let (has_field, has_payload) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        let counter = packet[3] & 0xF;
        if let Some(before) = counters.insert(pid, counter) {
            let step = u8::from(has_payload);
            assert_eq!(counter, (before + step) & 0xF, "continuity of {pid:#x}");
        }
        if has_field && packet[4] > 0 && packet[5] & 0x10 != 0 {
            let bytes = [packet[6], packet[7], packet[8], packet[9], packet[10]];
            let now = bytes.iter().fold(0_u64, |time, byte| time << 8 | u64::from(*byte)) >> 7;
            if let Some(before) = clock.replace(now) {
                assert!(now >= before && now - before <= 9000, "clock from {before} to {now}");
            }
        }
    }
    assert!(clock.is_some(), "there is no clock");
}

#[test]
fn captured_streams_of_producers_play_in_every_container() {
    for name in [
        "mkv/clusters.mkv",
        "mkv/output_get_media.mkv",
        "mkv/vogels_330.mkv",
        "mkv/bezos_vogels.mkv",
        "putmedia/kvssink-h264-noEOFRack.mkv",
        "putmedia/c-sample-video-metadata3.mkv",
    ] {
        let Some(file) = data(name) else { return };
        let cut = fragments(&file);
        let folder = Folder::new(&name.replace('/', "-"));
        let files = [
            ("a.mp4", fragmented(&cut, 0, None)),
            ("b.mp4", plain(&cut)),
            ("c.ts", transport(&cut, 10_000_000)),
        ];
        for (kind, bytes) in files {
            let path = folder.write(kind, &bytes);
            let read: Vec<usize> = probe(&path, "nb_read_packets")
                .iter()
                .map(|line| line.parse().unwrap())
                .collect();
            assert_eq!(read, counts(&cut), "{name} as {kind}");
            // One capture begins in the middle of a group of pictures, of which a decoder rightly complains.
            if name != "mkv/bezos_vogels.mkv" {
                decodes(&path);
            }
        }
    }
}

#[test]
fn frames_in_annex_b_with_and_without_codec_private_data_play() {
    let folder = Folder::new("annex-b");
    let made = generated(&folder, 4, H264_B, &[]);
    // The same frames as a camera that speaks Annex B sends them.
    let annex_b = in_annex_b(&made);
    for keep_private in [true, false] {
        let cut = fragments_with(&annex_b, |track| {
            if !keep_private {
                track.codec_private = Bytes::new();
            }
        });
        assert_eq!(cut[0].parts[0].config.is_derived(), !keep_private);
        let path = folder.write("b.mp4", &plain(&cut));
        assert_eq!(probe(&path, "codec_name,nb_read_packets"), ["h264,100"]);
        decodes(&path);
        let path = folder.write("b.ts", &transport(&cut, 0));
        decodes(&path);
    }
}

/// Rewrites a Matroska file of H.264 so that its frames, key frames with their parameter sets, and its codec private data
/// are in Annex B.
fn in_annex_b(file: &Bytes) -> Bytes {
    use matroska::codec::{NalCodec, NalFraming};
    use matroska::{Event, Limits, Reader, writer};
    let mut reader = Reader::new(Limits::default());
    reader.push(file.clone());
    let mut out = bytes::BytesMut::new();
    let (mut framing, mut section) = (None, bytes::BytesMut::new());
    while let Some(event) = reader.next().unwrap() {
        match event {
            Event::Tracks(tracks) => {
                let mut track = tracks[0].clone();
                let made = NalFraming::new(NalCodec::H264, &track.codec_private).unwrap();
                track.codec_private = Bytes::copy_from_slice(made.parameter_sets());
                framing = Some(made);
                out.extend_from_slice(&writer::header(&writer::StreamInfo::default(), &[track]));
            }
            Event::ClusterStart { .. } => section.clear(),
            Event::ClusterTimecode(timecode) => writer::put_cluster_head(&mut out, timecode),
            Event::Data(bytes) => section.extend_from_slice(&bytes),
            Event::BlockEnd(block) => {
                let start = block.payload_offset as usize;
                let framing = framing.as_ref().unwrap();
                let mut frame = bytes::BytesMut::new();
                if block.key {
                    frame.extend_from_slice(framing.parameter_sets());
                }
                assert!(framing.put_frame(&mut frame, &section[start..start + block.payload_len as usize]));
                writer::put_simple_block_head(&mut out, 1, block.relative_time, block.key, frame.len());
                out.extend_from_slice(&frame);
            }
            _ => {}
        }
    }
    out.freeze()
}

#[test]
fn tracks_fetched_apart_line_up_and_a_track_without_frames_harms_nobody() {
    let folder = Folder::new("apart");
    let mut cut = fragments(&generated(&folder, 6, H264, AAC));
    let base = 1_795_347_223_436;
    let picture = folder.write("v.mp4", &fragmented(&cut, base, Some(MediaKind::Video)));
    let sound = folder.write("a.mp4", &fragmented(&cut, base, Some(MediaKind::Audio)));
    let start = |path, stream| packets(path, stream)[0].0;
    let apart = start(&picture, "v:0") - start(&sound, "a:0");
    assert!(apart.abs() < 0.05, "{apart} s apart");
    assert!((start(&picture, "v:0") - base as f64 / 1000.0).abs() < 0.05);
    // The second fragment loses its sound.
    cut[1].parts[1].samples.clear();
    for (name, file) in [
        ("a.mp4", fragmented(&cut, 0, None)),
        ("b.mp4", plain(&cut)),
        ("c.ts", transport(&cut, 0)),
    ] {
        let path = folder.write(name, &file);
        decodes(&path);
        let read: Vec<usize> = probe(&path, "nb_read_packets")
            .iter()
            .map(|line| line.parse().unwrap())
            .collect();
        assert_eq!(read, counts(&cut), "{name}");
    }
}
