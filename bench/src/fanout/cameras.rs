//! Cameras without pictures: 30 frames a second at 3 Mb/s, a key frame each second that begins a fragment. A frame's payload
//! ends with the time of its sending, by the system's monotonic clock, which all processes share.

use std::io::Write;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use matroska::writer;

use crate::fragment;

/// Frames a second of a camera; a fragment has as many.
pub const FRAMES_PER_SECOND: u64 = 30;
/// Bytes of a key frame.
const KEY_BYTES: usize = 60_000;
/// Bytes of the other frames at their mean, so that a camera sends 3 Mb/s; they differ by up to half of it.
const DELTA_BYTES: usize = (375_000 - KEY_BYTES) / (FRAMES_PER_SECOND as usize - 1);
/// Bytes at a frame's end that hold the time of its sending.
pub const STAMP_BYTES: usize = 8;
/// A number of the length that fragment numbers have, for the peer's tags.
const PEER_FRAGMENT: &str = "91343852333181432392682062607743920146159169392";

/// Nanoseconds of the monotonic clock.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since = Duration::try_from(now).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// To whom frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// To a server, by PutMedia: one header, then clusters.
    PutMedia,
    /// To a consumer of GetMedia: one document a fragment, with the service's tags around it.
    GetMedia,
}

/// Makes the frames of all cameras.
pub struct Cameras {
    dialect: Dialect,
    noise: Bytes,
    header: Bytes,
}

impl Cameras {
    pub fn new(dialect: Dialect) -> Self {
        Cameras {
            dialect,
            noise: fragment::noise(KEY_BYTES, 1),
            header: fragment::header(),
        }
    }

    /// A frame as the chunk of an HTTP body in which it is sent now.
    pub fn chunk(&self, camera: usize, frame: u64) -> Bytes {
        let first = frame.is_multiple_of(FRAMES_PER_SECOND);
        let mut body = BytesMut::with_capacity(KEY_BYTES + 2048);
        if first && self.dialect == Dialect::GetMedia && frame > 0 {
            body.extend_from_slice(&writer::continuation_tags(0, PEER_FRAGMENT));
        }
        if frame == 0 || (first && self.dialect == Dialect::GetMedia) {
            body.extend_from_slice(&self.header);
        }
        if first && self.dialect == Dialect::GetMedia {
            body.extend_from_slice(&writer::fragment_tags(PEER_FRAGMENT, frame, frame));
        }
        if first {
            writer::put_cluster_head(&mut body, frame / FRAMES_PER_SECOND * 1000);
        }
        let time = (frame % FRAMES_PER_SECOND * 1000 / FRAMES_PER_SECOND) as i16;
        let len = payload_len(camera, frame);
        writer::put_simple_block_head(&mut body, 1, time, first, len);
        body.extend_from_slice(self.noise.get(..len - STAMP_BYTES).unwrap_or_default());
        body.extend_from_slice(&now_ns().to_le_bytes());
        let mut chunk = Vec::with_capacity(body.len() + 16);
        // Writing to a vector does not fail.
        let _ = write!(chunk, "{:x}\r\n", body.len());
        chunk.extend_from_slice(&body);
        chunk.extend_from_slice(b"\r\n");
        Bytes::from(chunk)
    }
}

/// Bytes of a frame; the same for everybody who asks.
fn payload_len(camera: usize, frame: u64) -> usize {
    if frame.is_multiple_of(FRAMES_PER_SECOND) {
        return KEY_BYTES;
    }
    let mut random = fastrand::Rng::with_seed(frame << 16 | camera as u64);
    DELTA_BYTES / 2 + random.usize(..DELTA_BYTES)
}
