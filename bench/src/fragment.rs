//! Synthetic fragments: the bytes of a camera without its pictures.

use bytes::{Bytes, BytesMut};
use matroska::writer::{self, StreamInfo};
use matroska::{Track, TrackKind, Video};
use sha2::{Digest, Sha256};

/// The header that opens a PutMedia body.
pub fn header() -> Bytes {
    let track = Track {
        number: 1,
        uid: 1,
        kind: TrackKind::Video,
        codec_id: "V_MPEG4/ISO/AVC".to_owned(),
        codec_private: Bytes::from_static(b"\x01\x4d\x40\x1f\xff\xe0\x00"),
        name: "camera".to_owned(),
        language: "eng".to_owned(),
        default_duration_ns: Some(40_000_000),
        encoded: false,
        video: Some(Video {
            width: 1280,
            height: 720,
        }),
        audio: None,
    };
    writer::header(&StreamInfo::default(), &[track])
}

/// Random bytes that no layer can compress or share, used again for every fragment.
pub fn noise(len: usize, seed: u64) -> Bytes {
    let mut noise = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    Bytes::from(noise)
}

/// A fragment as the pieces that a camera sends: the cluster's head with the first frame's, then frames, then the tag that
/// ends it. `noise` is cut into `frames` frames of equal size.
pub fn pieces(timecode_ms: u64, noise: &Bytes, frames: usize, frame_ms: i16) -> Vec<Bytes> {
    let size = noise.len() / frames;
    let mut pieces = Vec::with_capacity(2 * frames + 1);
    for frame in 0..frames {
        let mut head = BytesMut::new();
        if frame == 0 {
            writer::put_cluster_head(&mut head, timecode_ms);
        }
        let time = i16::try_from(frame).unwrap_or(i16::MAX).saturating_mul(frame_ms);
        writer::put_simple_block_head(&mut head, 1, time, frame == 0, size);
        pieces.push(head.freeze());
        pieces.push(noise.slice(frame * size..(frame + 1) * size));
    }
    pieces.push(writer::end_of_fragment());
    pieces
}

/// The same in one piece.
pub fn whole(timecode_ms: u64, noise: &Bytes, frames: usize, frame_ms: i16) -> Bytes {
    let mut whole = BytesMut::with_capacity(noise.len() + 64 * frames);
    for piece in pieces(timecode_ms, noise, frames, frame_ms) {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

/// The same in pieces of 64 KiB, as a producer sends what it is late with.
pub fn chunked(timecode_ms: u64, noise: &Bytes, frames: usize, frame_ms: i16) -> Vec<Bytes> {
    let whole = whole(timecode_ms, noise, frames, frame_ms);
    whole.chunks(64 * 1024).map(|piece| whole.slice_ref(piece)).collect()
}

pub type Sha = [u8; 32];

pub fn sha256(bytes: &[u8]) -> Sha {
    Sha256::digest(bytes).into()
}
