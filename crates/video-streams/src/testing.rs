//! What the unit tests of this crate share.

use bytes::{BufMut, Bytes, BytesMut};
use matroska::{Track, TrackKind, Video, writer};
use storage::FragmentNumber;

/// A fragment number like the server's, with the given sequence.
pub fn number(sequence: u64) -> FragmentNumber {
    FragmentNumber::new(sequence, 1_795_347_223_436, 77)
}

/// A video track.
pub fn track(number: u64) -> Track {
    Track {
        number,
        uid: number,
        kind: TrackKind::Video,
        codec_id: "V_MPEG4/ISO/AVC".to_owned(),
        codec_private: Bytes::from_static(b"\x01avcC"),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: Some(Video { width: 64, height: 48 }),
        audio: None,
    }
}

/// A producer's body under construction.
pub struct Body(pub BytesMut);

impl Body {
    /// A header with the given tracks.
    pub fn new(tracks: &[u64]) -> Self {
        let tracks: Vec<Track> = tracks.iter().copied().map(track).collect();
        let header = writer::header(&writer::StreamInfo::default(), &tracks);
        Body(BytesMut::from(&header[..]))
    }

    /// A cluster of unknown size.
    pub fn cluster(mut self, timecode: u64) -> Self {
        writer::put_cluster_head(&mut self.0, timecode);
        self
    }

    /// A frame whose bytes say its track and time.
    pub fn frame(mut self, track: u64, time: i16) -> Self {
        let payload = format!("frame {track} {time}");
        writer::put_simple_block_head(&mut self.0, track, time, time == 0, payload.len());
        self.0.put_slice(payload.as_bytes());
        self
    }

    /// A frame of a given size.
    pub fn big_frame(mut self, track: u64, time: i16, size: usize) -> Self {
        writer::put_simple_block_head(&mut self.0, track, time, time == 0, size);
        self.0.put_bytes(7, size);
        self
    }

    /// One `Tags` element.
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.0.put_slice(&writer::tags(&[(name, value)]));
        self
    }

    /// The end-of-fragment tag.
    pub fn end_of_fragment(mut self) -> Self {
        self.0.put_slice(&writer::end_of_fragment());
        self
    }

    /// Any bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.put_slice(bytes);
        self
    }

    /// What was built.
    pub fn bytes(self) -> Bytes {
        self.0.freeze()
    }
}
