//! Writes elements: the header of a stream, clusters and blocks as a producer sends them, and the tags that a service
//! sets around each fragment it returns.
//!
//! Everything is written in one pass with sizes known beforehand; Segment and Cluster keep their size open, as a live
//! stream must.

use bytes::{BufMut, Bytes, BytesMut};

use crate::event::{END_OF_FRAGMENT, Track, TrackKind};
use crate::id::{self, ElementId};

/// The EBML header of a Matroska stream, as producers write it: DocTypeVersion 4, DocTypeReadVersion 2.
pub const EBML_HEADER: &[u8] =
    b"\x1A\x45\xDF\xA3\xA3\x42\x86\x81\x01\x42\xF7\x81\x01\x42\xF2\x81\x04\x42\xF3\x81\x08\x42\x82\x88matroska\x42\x87\x81\x04\x42\x85\x81\x02";

/// The head of a Segment whose size is open, coded in 8 bytes. It replaces whatever head the producer sent wherever
/// elements are added to its Segment.
pub const SEGMENT_HEAD_UNKNOWN_SIZE: &[u8] = b"\x18\x53\x80\x67\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF";

/// Appends an element's id.
pub fn put_id(out: &mut impl BufMut, id: ElementId) {
    let len = (4 - id.0.leading_zeros() as usize / 8).max(1);
    put_be(out, u64::from(id.0), len);
}

/// Appends the low `len` (up to 8) bytes of a value, the highest first.
fn put_be(out: &mut impl BufMut, value: u64, len: usize) {
    out.put_uint(value, len);
}

/// Bytes that the shortest form of a size takes. Sizes end at 2^56 - 2.
#[must_use]
pub fn size_len(size: u64) -> usize {
    (1..8).find(|len| size < (1u64 << (7 * len)) - 1).unwrap_or(8)
}

/// Appends a size in its shortest form.
pub fn put_size(out: &mut impl BufMut, size: u64) {
    put_size_in(out, size, size_len(size));
}

/// Appends a size in `len` bytes (1 to 8), or in more if it needs them.
pub fn put_size_in(out: &mut impl BufMut, size: u64, len: usize) {
    let len = len.clamp(size_len(size), 8);
    put_be(out, size | 1u64 << (7 * len), len);
}

/// Appends a whole element, its size in the shortest form.
pub fn put_element(out: &mut impl BufMut, id: ElementId, data: &[u8]) {
    put_id(out, id);
    put_size(out, data.len() as u64);
    out.put_slice(data);
}

/// Appends an unsigned integer element in as few bytes as it needs, at least one.
pub fn put_unsigned(out: &mut impl BufMut, id: ElementId, value: u64) {
    let len = (8 - value.leading_zeros() as usize / 8).max(1);
    put_id(out, id);
    put_size(out, len as u64);
    put_be(out, value, len);
}

/// What a stream's header says beside its tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo<'a> {
    /// Nanoseconds of a unit of time.
    pub timecode_scale_ns: u64,
    /// Title; left out where empty.
    pub title: &'a str,
    /// MuxingApp and WritingApp.
    pub app: &'a str,
}

impl Default for StreamInfo<'_> {
    fn default() -> Self {
        StreamInfo {
            timecode_scale_ns: 1_000_000,
            title: "",
            app: "sightglass",
        }
    }
}

/// The header section of a live stream: EBML header, Segment of open size, Info, Tracks.
#[must_use]
pub fn header(info: &StreamInfo<'_>, tracks: &[Track]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(EBML_HEADER);
    out.put_slice(SEGMENT_HEAD_UNKNOWN_SIZE);
    let mut body = BytesMut::new();
    put_unsigned(&mut body, id::TIMECODE_SCALE, info.timecode_scale_ns);
    if !info.title.is_empty() {
        put_element(&mut body, id::TITLE, info.title.as_bytes());
    }
    put_element(&mut body, id::MUXING_APP, info.app.as_bytes());
    put_element(&mut body, id::WRITING_APP, info.app.as_bytes());
    put_element(&mut out, id::INFO, &body);
    let mut entries = BytesMut::new();
    for track in tracks {
        put_element(&mut entries, id::TRACK_ENTRY, &track_entry(track));
    }
    put_element(&mut out, id::TRACKS, &entries);
    out.freeze()
}

fn track_entry(track: &Track) -> BytesMut {
    let mut out = BytesMut::new();
    put_unsigned(&mut out, id::TRACK_NUMBER, track.number);
    put_unsigned(&mut out, id::TRACK_UID, track.uid);
    let kind = match track.kind {
        TrackKind::Video => 1,
        TrackKind::Audio => 2,
        TrackKind::Subtitle => 17,
        TrackKind::Other(kind) => kind,
    };
    put_unsigned(&mut out, id::TRACK_TYPE, kind);
    if !track.name.is_empty() {
        put_element(&mut out, id::TRACK_NAME, track.name.as_bytes());
    }
    put_element(&mut out, id::CODEC_ID, track.codec_id.as_bytes());
    if let Some(duration_ns) = track.default_duration_ns {
        put_unsigned(&mut out, id::DEFAULT_DURATION, duration_ns);
    }
    let mut part = BytesMut::new();
    if let Some(video) = track.video {
        put_unsigned(&mut part, id::PIXEL_WIDTH, video.width);
        put_unsigned(&mut part, id::PIXEL_HEIGHT, video.height);
        put_element(&mut out, id::VIDEO, &part);
    }
    if let Some(audio) = track.audio {
        part.clear();
        put_element(&mut part, id::SAMPLING_FREQUENCY, &audio.sampling_hz.to_be_bytes());
        put_unsigned(&mut part, id::CHANNELS, audio.channels);
        if let Some(bits) = audio.bit_depth {
            put_unsigned(&mut part, id::BIT_DEPTH, bits);
        }
        put_element(&mut out, id::AUDIO, &part);
    }
    if !track.codec_private.is_empty() {
        put_element(&mut out, id::CODEC_PRIVATE, &track.codec_private);
    }
    out
}

/// Appends the head of a Cluster of open size and its timecode.
pub fn put_cluster_head(out: &mut impl BufMut, timecode: u64) {
    put_id(out, id::CLUSTER);
    out.put_u8(0xFF);
    put_id(out, id::TIMECODE);
    put_size(out, 8);
    out.put_u64(timecode);
}

/// Appends the head of a SimpleBlock whose payload of `payload_len` bytes follows.
pub fn put_simple_block_head(out: &mut impl BufMut, track: u64, relative_time: i16, key: bool, payload_len: usize) {
    put_id(out, id::SIMPLE_BLOCK);
    put_size(out, (size_len(track) + 3 + payload_len) as u64);
    put_size(out, track);
    out.put_i16(relative_time);
    out.put_u8(if key { 0x80 } else { 0 });
}

/// A Tags element that sets string tags for the whole segment, in the way of the service: one Tag, no Targets, every
/// size coded in 4 bytes.
#[must_use]
pub fn tags(pairs: &[(&str, &str)]) -> Bytes {
    /// Bytes of a two-byte id and a size coded in four.
    const HEAD: usize = 6;
    let inside = |name: &str, value: &str| HEAD + name.len() + HEAD + value.len();
    let tag_len: usize = pairs.iter().map(|(name, value)| HEAD + inside(name, value)).sum();
    let mut out = BytesMut::with_capacity(8 + HEAD + tag_len);
    let head = |out: &mut BytesMut, id, len: usize| {
        put_id(out, id);
        put_size_in(out, len as u64, 4);
    };
    head(&mut out, id::TAGS, HEAD + tag_len);
    head(&mut out, id::TAG, tag_len);
    for (name, value) in pairs {
        head(&mut out, id::SIMPLE_TAG, inside(name, value));
        head(&mut out, id::TAG_NAME, name.len());
        out.put_slice(name.as_bytes());
        head(&mut out, id::TAG_STRING, value.len());
        out.put_slice(value.as_bytes());
    }
    out.freeze()
}

/// The tag by which a producer says that its fragment is whole.
#[must_use]
pub fn end_of_fragment() -> Bytes {
    tags(&[(END_OF_FRAGMENT, "")])
}

/// The tags that GetMedia sets between a fragment's header and its cluster.
#[must_use]
pub fn fragment_tags(fragment_number: &str, server_time_ms: u64, producer_time_ms: u64) -> Bytes {
    tags(&[
        ("AWS_KINESISVIDEO_FRAGMENT_NUMBER", fragment_number),
        ("AWS_KINESISVIDEO_SERVER_TIMESTAMP", &seconds(server_time_ms)),
        ("AWS_KINESISVIDEO_PRODUCER_TIMESTAMP", &seconds(producer_time_ms)),
    ])
}

/// The tags that GetMedia sets after a fragment.
#[must_use]
pub fn continuation_tags(millis_behind_now: u64, continuation_token: &str) -> Bytes {
    tags(&[
        ("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW", &millis_behind_now.to_string()),
        ("AWS_KINESISVIDEO_CONTINUATION_TOKEN", continuation_token),
    ])
}

/// The tags that GetMedia sets in place of a fragment it cannot return, e.g. 4000, fragment not found.
#[must_use]
pub fn error_tags(fragment_number: &str, code: &str, error_id: u32) -> Bytes {
    tags(&[
        ("AWS_KINESISVIDEO_FRAGMENT_NUMBER", fragment_number),
        ("AWS_KINESISVIDEO_ERROR_CODE", code),
        ("AWS_KINESISVIDEO_ERROR_ID", &error_id.to_string()),
    ])
}

/// Seconds with three decimals, as the service prints times in tags.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Muxes frames into a live stream as a producer would: for tests and for sending raw frames.
///
/// A cluster begins at a key frame of the first video track (of the first track where there is none), and wherever a
/// frame's time does not fit the running cluster.
#[derive(Debug)]
pub struct Muxer {
    header: Bytes,
    leader: u64,
    cluster: Option<u64>,
}

/// A frame to be muxed.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Number of its track.
    pub track: u64,
    /// Its time in units of the timecode scale.
    pub time: u64,
    /// Whether it can be decoded alone.
    pub key: bool,
    /// Its bytes.
    pub payload: &'a [u8],
}

impl Muxer {
    /// A stream of these tracks.
    #[must_use]
    pub fn new(info: &StreamInfo<'_>, tracks: &[Track]) -> Self {
        let video = tracks.iter().find(|track| track.kind == TrackKind::Video);
        let leader = video.or(tracks.first()).map_or(0, |track| track.number);
        Muxer {
            header: header(info, tracks),
            leader,
            cluster: None,
        }
    }

    /// The bytes that come before the first frame.
    #[must_use]
    pub fn header(&self) -> Bytes {
        self.header.clone()
    }

    /// Whether this frame would begin a cluster: the moment to end the fragment before it.
    #[must_use]
    pub fn begins_cluster(&self, frame: &Frame<'_>) -> bool {
        let Some(cluster) = self.cluster else { return true };
        (frame.track == self.leader && frame.key) || relative(frame.time, cluster).is_none()
    }

    /// Appends a frame, and the head of a cluster if it begins one.
    pub fn put_frame(&mut self, out: &mut BytesMut, frame: &Frame<'_>) {
        if self.begins_cluster(frame) {
            self.cluster = Some(frame.time);
            put_cluster_head(out, frame.time);
        }
        let relative_time = self
            .cluster
            .and_then(|cluster| relative(frame.time, cluster))
            .unwrap_or_default();
        put_simple_block_head(out, frame.track, relative_time, frame.key, frame.payload.len());
        out.put_slice(frame.payload);
    }
}

/// A frame's time within its cluster, if 16 bits can hold it.
fn relative(time: u64, cluster: u64) -> Option<i16> {
    i16::try_from(i128::from(time) - i128::from(cluster)).ok()
}
