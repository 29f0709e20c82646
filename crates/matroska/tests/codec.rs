//! Codec private data as real encoders write it (made with x264, x265 and FFmpeg's test picture), and nonsense.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::BytesMut;
use matroska::codec::{
    AnnexB, AudioSpecificConfig, AvcConfig, HevcConfig, LengthPrefixed, NalCodec, NalFraming, PictureSize,
    h264_picture_size, h265_picture_size, put_annex_b, put_length_prefixed,
};
use matroska::{Event, TrackKind};
use proptest::prelude::*;

const AVC_1080: &str =
    "01640028ffe1001b67640028acd940780227e5c044000003000400000300503c60c65801000668ebe3cb22c0fdf8f800";
const AVC_1080_INTERLACED: &str =
    "01640028ffe1001b67640028acd94078044fde022000000300200000030283e2c5b2c001000668fba3cb22c0fdf8f800";
const AVC_444: &str = "01f4000cffe1001a67f4000c919b282a10f1f1f80880000003008000000a078a14cb01000668ebe3c44844fff8f800";
const AVC_422: &str =
    "017a000cffe1001b677a000cbcd9415087888fc044000003000400000300503c50a65801000668ebe3cb22c0fef8f800";
const HEVC_360: &str = "0101600000009000000000003ff000fcfdf8f800000f03200001001840010c01ffff01600000030090000003000003003f959809210001002a42010101600000030090000003000003003fa00502016965959a4932bc05a0200000030020000003014122000100074401c172b46240";
const HEVC_90_SPS: &str = "42010102200000030090000003000003001ea0142061f2365959a4932bc05a020000030002000003001410";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn size(width: u32, height: u32) -> Option<PictureSize> {
    Some(PictureSize { width, height })
}

#[test]
fn picture_sizes_are_cropped_in_every_chroma_format_and_interlaced() {
    for (record, want) in [
        (AVC_1080, size(1920, 1080)),
        (AVC_1080_INTERLACED, size(1920, 1080)),
        (AVC_444, size(322, 242)),
        (AVC_422, size(322, 242)),
    ] {
        let record = hex(record);
        let config = AvcConfig::parse(&record).unwrap();
        assert_eq!((config.sps.len(), config.pps.len(), config.nal_length_size), (1, 1, 4));
        assert_eq!(h264_picture_size(config.sps[0]), want);
        assert_eq!(NalFraming::new(NalCodec::H264, &record).unwrap().picture_size(), want);
    }
    assert_eq!(AvcConfig::parse(&hex(AVC_1080)).unwrap().codec_string(), "avc1.640028");
}

#[test]
fn an_hvcc_yields_its_parameter_sets_and_name() {
    let record = hex(HEVC_360);
    let config = HevcConfig::parse(&record).unwrap();
    assert_eq!(
        (
            config.vps.len(),
            config.sps.len(),
            config.pps.len(),
            config.nal_length_size
        ),
        (1, 1, 1, 4)
    );
    assert_eq!(config.codec_string(), "hvc1.1.6.L63.90");
    assert_eq!(h265_picture_size(config.sps[0]), size(640, 360));
    assert_eq!(h265_picture_size(&hex(HEVC_90_SPS)), size(160, 90));
    let framing = NalFraming::new(NalCodec::H265, &record).unwrap();
    let kinds: Vec<u8> = AnnexB::new(framing.parameter_sets()).map(|nal| nal[0] >> 1).collect();
    assert_eq!(kinds, [32, 33, 34]);
}

#[test]
fn an_audio_specific_config_of_two_or_five_bytes_is_read() {
    let lc = AudioSpecificConfig {
        object_type: 2,
        sampling_hz: 48_000,
        channel_configuration: 2,
        short_frames: false,
    };
    assert_eq!(AudioSpecificConfig::parse(&[0x11, 0x90]), Some(lc));
    assert_eq!(AudioSpecificConfig::parse(&[0x11, 0x90, 0x56, 0xE5, 0x00]), Some(lc));
    assert_eq!(lc.codec_string(), "mp4a.40.2");
    let explicit = AudioSpecificConfig::parse(&[0x17, 0x80, 0x00, 0x01, 0x90]).unwrap();
    assert_eq!((explicit.sampling_hz, explicit.channel_configuration), (3, 2));
    assert_eq!(AudioSpecificConfig::parse(&[0x11]), None);
    assert_eq!(AudioSpecificConfig::parse(&[]), None);
}

#[test]
fn private_data_of_captured_streams_agrees_with_their_track_entries() {
    for name in common::FILES {
        let Some(bytes) = common::data(name) else { return };
        for event in common::whole(&bytes).events {
            let Event::Tracks(tracks) = event else { continue };
            for track in tracks.iter() {
                match NalCodec::of_codec_id(&track.codec_id) {
                    Some(codec) => {
                        let video = track.video.unwrap();
                        let framing = NalFraming::new(codec, &track.codec_private).unwrap();
                        let got = framing.picture_size().unwrap();
                        assert_eq!(
                            (u64::from(got.width), u64::from(got.height)),
                            (video.width, video.height),
                            "{name}"
                        );
                    }
                    None if track.kind == TrackKind::Audio => {
                        assert!(AudioSpecificConfig::parse(&track.codec_private).is_some());
                    }
                    None => assert_eq!(track.codec_id, "V_MS/VFW/FOURCC"),
                }
            }
        }
    }
}

#[test]
fn every_frame_of_a_captured_stream_becomes_annex_b() {
    let Some(bytes) = common::data("mkv/vogels_330.mkv") else {
        return;
    };
    let (mut section, mut framing, mut frames) = (0, None, 0);
    for event in common::whole(&bytes).events {
        match event {
            Event::Tracks(tracks) => framing = NalFraming::new(NalCodec::H264, &tracks[0].codec_private),
            Event::ClusterStart { offset, .. } => section = offset,
            Event::BlockEnd(block) if block.track == 1 => {
                let start = usize::try_from(section + block.payload_offset).unwrap();
                let frame = &bytes[start..start + usize::try_from(block.payload_len).unwrap()];
                let mut out = BytesMut::new();
                assert!(framing.as_ref().unwrap().put_frame(&mut out, frame));
                let units: Vec<&[u8]> = LengthPrefixed::new(frame, 4).collect();
                assert!(units.iter().all(|nal| matches!(nal[0] & 0x1F, 1..=12)));
                assert_eq!(AnnexB::new(&out).count(), units.len());
                assert_eq!(units.iter().any(|nal| nal[0] & 0x1F == 5), block.key);
                frames += 1;
            }
            _ => {}
        }
    }
    assert_eq!(frames, 909);
}

#[test]
fn a_frame_whose_lengths_lie_is_refused_and_annex_b_is_let_through() {
    let framing = NalFraming::new(NalCodec::H264, &hex(AVC_1080)).unwrap();
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(!framing.put_frame(&mut out, &[0, 0, 0, 9, 0x65, 1]));
    assert_eq!(&out[..], b"before");
    assert!(framing.put_frame(&mut out, &[0, 0, 0, 1, 0x65, 1]));
    assert_eq!(&out[6..], [0, 0, 0, 1, 0x65, 1]);
    let plain = NalFraming::new(NalCodec::H264, &[]).unwrap();
    assert!(plain.put_frame(&mut out, &[0, 0, 1, 0x65]));
    assert!(plain.parameter_sets().is_empty());
}

proptest! {
    #[test]
    fn nothing_that_claims_to_be_private_data_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = AvcConfig::parse(&bytes);
        let _ = HevcConfig::parse(&bytes);
        let _ = h264_picture_size(&bytes);
        let _ = h265_picture_size(&bytes);
        let _ = AudioSpecificConfig::parse(&bytes);
        for codec in [NalCodec::H264, NalCodec::H265] {
            if let Some(framing) = NalFraming::new(codec, &bytes) {
                framing.put_frame(&mut BytesMut::new(), &bytes);
            }
        }
    }

    #[test]
    fn broken_parameter_sets_do_not_panic(at in 0usize..100, byte: u8, cut in 0usize..111) {
        for record in [AVC_1080, AVC_1080_INTERLACED, AVC_444, HEVC_360] {
            let mut record = hex(record);
            let len = record.len();
            record[at % len] = byte;
            record.truncate(cut);
            for codec in [NalCodec::H264, NalCodec::H265] {
                if let Some(size) = NalFraming::new(codec, &record).and_then(|framing| framing.picture_size()) {
                    prop_assert!(size.width > 0 && size.height > 0);
                }
            }
        }
    }

    #[test]
    fn units_survive_both_framings(units in proptest::collection::vec(proptest::collection::vec(4u8.., 1..50), 1..10)) {
        let (mut prefixed, mut annex_b) = (BytesMut::new(), BytesMut::new());
        for unit in &units {
            prop_assert!(put_length_prefixed(&mut prefixed, unit));
            put_annex_b(&mut annex_b, unit);
        }
        let mut read = LengthPrefixed::new(&prefixed, 4);
        prop_assert!(read.by_ref().eq(units.iter().map(Vec::as_slice)));
        prop_assert!(!read.is_broken());
        prop_assert!(AnnexB::new(&annex_b).eq(units.iter().map(Vec::as_slice)));
    }
}
