//! Codec private data, frames and times on their way to a player.

use bytes::{Bytes, BytesMut};
use matroska::{Audio, Track, TrackKind, Video};
use packaging::fmp4::{TrackSamples, init_segment, media_segment};
use packaging::frame::{AdtsHead, put_annex_b_as_lengths};
use packaging::mp4::Movie;
use packaging::{Frame, Framing, PackagingError, TrackConfig, timeline, ts};

const CODECS: [&str; 6] = [
    "V_MPEG4/ISO/AVC",
    "V_MPEGH/ISO/HEVC",
    "A_AAC",
    "A_MS/ACM",
    "V_MPEG/ISO/AVC",
    "V_VP9",
];

/// The first byte chooses the codec, the second one how much of the rest is codec private data, the third one how long
/// frames are; what follows are frames, the first two bytes of each its time. Promises: a configuration that is made can
/// be written in every container; sizes are as declared; decode times increase; an MPEG-TS is whole packets.
pub fn packaging(data: &[u8]) {
    let Some((&[codec, split, step], rest)) = data.split_first_chunk::<3>() else {
        return;
    };
    let (private, media) = rest.split_at(usize::from(split).min(rest.len()));
    let track = track(CODECS[usize::from(codec) % CODECS.len()], private);
    let first = media
        .get(2..media.len().min(usize::from(step).max(3)))
        .unwrap_or_default();
    let declared = TrackConfig::from_matroska(&track);
    let config = match TrackConfig::from_frame(&track, first) {
        Ok(config) => config,
        Err(error) => {
            assert!(declared.is_err(), "a frame took away what the track declares");
            let unknown = matches!(error, PackagingError::UnsupportedCodec { .. });
            assert!(unknown || codec % 6 != 5);
            return;
        }
    };
    assert!(config.timescale() > 0 && !config.codecs().is_empty());
    let mut payload = BytesMut::from(media);
    let mut frames = Vec::new();
    for (chunk, n) in media.chunks(usize::from(step).max(3)).zip(0..) {
        let start = n * usize::from(step).max(3);
        let Some((&[high, low], body)) = chunk.split_first_chunk::<2>() else {
            continue;
        };
        let data = match config.framing() {
            Framing::Plain => Some(start + 2..start + chunk.len()),
            Framing::AnnexB => put_annex_b_as_lengths(&mut payload, body),
            Framing::Adts => AdtsHead::parse(body).map(|head| start + 2 + head.head_len..start + chunk.len()),
        };
        frames.extend(data.map(|data| Frame {
            data,
            time_ms: i64::from(i16::from_be_bytes([high, low])),
            key: n == 0,
        }));
    }
    write(&config, &frames, &payload.freeze());
}

fn write(config: &TrackConfig, frames: &[Frame], payload: &Bytes) {
    let samples = timeline::samples(config, frames, None);
    assert!(samples.windows(2).all(|pair| pair[0].end() == pair[1].decode_time));
    assert!(init_segment(&[config]).starts_with(&[0, 0, 0]));
    let tracks = [TrackSamples {
        config,
        samples: &samples,
    }];
    let segment = media_segment(1, 1_795_347_223_436, &tracks, payload).expect("every frame lies in the payload");
    assert_eq!(segment.len(), segment.to_bytes().len() as u64);
    let mut movie = Movie::new(&[config]);
    movie
        .push(0, &tracks, 0..payload.len())
        .expect("every frame lies in the piece");
    assert!(movie.head().ends_with(b"mdat"));
    if let Ok(stream) = ts::segment(3, 1_795_347_223_436, &tracks, payload) {
        assert_eq!(stream.len() % 188, 0);
        assert!(stream.chunks(188).all(|packet| packet[0] == 0x47));
    }
}

fn track(codec_id: &str, private: &[u8]) -> Track {
    let video = codec_id.starts_with('V');
    Track {
        number: 1,
        uid: 1,
        kind: if video { TrackKind::Video } else { TrackKind::Audio },
        codec_id: codec_id.to_owned(),
        codec_private: Bytes::copy_from_slice(private),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: video.then_some(Video { width: 64, height: 48 }),
        audio: (!video).then_some(Audio {
            sampling_hz: 8000.0,
            channels: 1,
            bit_depth: None,
        }),
    }
}
