//! What the reader tells.

use std::sync::Arc;

use bytes::Bytes;

/// Name of the tag by which a producer says that its fragment is whole, so that nobody waits for the next cluster.
pub const END_OF_FRAGMENT: &str = "AWS_KINESISVIDEO_END_OF_FRAGMENT";

/// One step through the stream.
///
/// A stream is cut into *sections*: the header of a document (from its EBML header to the first Cluster), then one
/// section per cluster, which holds the cluster and everything after it up to the next Cluster or EBML header. A section
/// opens with [`DocumentStart`](Event::DocumentStart) or [`ClusterStart`](Event::ClusterStart), *before* its first byte;
/// every other event comes *after* the [`Data`](Event::Data) that holds the last byte it was read from. Joined together,
/// the `Data` of a stream are the stream.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Verbatim bytes of the current section, a slice of a pushed chunk (copied only where a header element was spread
    /// over many tiny chunks). Never empty.
    Data(Bytes),
    /// An EBML header begins: the header section of a new document. A second one in a stream is legal here.
    DocumentStart {
        /// Offset of its first byte in the stream.
        offset: u64,
    },
    /// The EBML header was read.
    EbmlHeader(EbmlHeader),
    /// The head of the Segment was read.
    SegmentStart {
        /// Offset of its id in the stream.
        offset: u64,
        /// Length of its id and size field, 5 to 12 bytes.
        head_len: u8,
        /// Its declared size, `None` where it is open.
        size: Option<u64>,
    },
    /// The Info element was read.
    Info(Info),
    /// The Tracks element was read.
    Tracks(Tracks),
    /// A Cluster begins, and with it a new section. Ends the section before it.
    ClusterStart {
        /// Offset of its id in the stream.
        offset: u64,
        /// Its declared size, `None` where it is open.
        size: Option<u64>,
    },
    /// The cluster's time, in units of the segment's timecode scale, as sent.
    ClusterTimecode(u64),
    /// The head of a block is known; its payload follows. For a block in a BlockGroup, `key` and `duration` are known
    /// only at its end.
    BlockStart(Block),
    /// The block is whole: all of its payload was handed on.
    BlockEnd(Block),
    /// A SimpleTag was read, nested ones after the one that holds them.
    Tag(Tag),
    /// A Tags element ended. What is acted upon because of a tag is best done here, when its bytes are whole.
    TagsEnd,
    /// The cluster ended; what follows up to the next section still belongs to this one.
    ClusterEnd,
}

/// The EBML header of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EbmlHeader {
    /// `matroska` or `webm`, without trailing NUL.
    pub doc_type: String,
    /// DocTypeVersion, 1 where it is absent.
    pub doc_type_version: u64,
    /// DocTypeReadVersion, 1 where it is absent.
    pub doc_type_read_version: u64,
}

/// What Info says about its segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Nanoseconds of one unit of time; never 0, 1,000,000 where it is absent.
    pub timecode_scale_ns: u64,
    /// Duration in units of the timecode scale.
    pub duration: Option<f64>,
    /// Title, without trailing NUL; empty where absent.
    pub title: String,
    /// Name of the library that wrote the stream.
    pub muxing_app: String,
    /// Name of the program that wrote the stream.
    pub writing_app: String,
    /// The segment's uid, empty where absent.
    pub segment_uid: Bytes,
}

/// The tracks of a segment, in the order in which they were declared.
pub type Tracks = Arc<[Track]>;

/// One TrackEntry.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Number by which blocks name the track; never 0.
    pub number: u64,
    /// TrackUID, 0 where absent.
    pub uid: u64,
    /// TrackType.
    pub kind: TrackKind,
    /// CodecID without trailing NUL, e.g. `V_MPEG4/ISO/AVC`.
    pub codec_id: String,
    /// CodecPrivate, empty where absent: avcC, hvcC, AudioSpecificConfig...
    pub codec_private: Bytes,
    /// Name without trailing NUL.
    pub name: String,
    /// Language; `eng` where absent.
    pub language: String,
    /// Nanoseconds from frame to frame.
    pub default_duration_ns: Option<u64>,
    /// Whether payloads are compressed or encrypted by the container (ContentEncodings), so that they are not plain frames.
    pub encoded: bool,
    /// Of a video track.
    pub video: Option<Video>,
    /// Of an audio track.
    pub audio: Option<Audio>,
}

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackKind {
    /// TrackType 1.
    Video,
    /// TrackType 2.
    Audio,
    /// TrackType 17.
    Subtitle,
    /// Any other TrackType.
    Other(u64),
}

/// Picture size of a video track, in pixels; 0 where absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Video {
    /// PixelWidth.
    pub width: u64,
    /// PixelHeight.
    pub height: u64,
}

/// Sampling of an audio track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audio {
    /// Samples per second; 8000 where absent.
    pub sampling_hz: f64,
    /// Channels; 1 where absent.
    pub channels: u64,
    /// Bits per sample, where given.
    pub bit_depth: Option<u64>,
}

/// A SimpleBlock, or the Block of a BlockGroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of the track.
    pub track: u64,
    /// Time relative to the cluster, in units of the timecode scale.
    pub relative_time: i16,
    /// Cluster timecode plus relative time.
    pub time: i64,
    /// Whether the frame can be decoded alone, as the producer flags it. Producers do not flag audio.
    pub key: bool,
    /// Whether the payload holds several frames; see [`lacing`](crate::lacing).
    pub lacing: Lacing,
    /// Offset of the payload from the first byte of the section.
    pub payload_offset: u64,
    /// Length of the payload in bytes.
    pub payload_len: u64,
    /// BlockDuration, in units of the timecode scale.
    pub duration: Option<u64>,
}

/// How the payload of a block is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacing {
    /// One frame.
    None,
    /// Sizes in bytes of 255 and a rest.
    Xiph,
    /// Equal sizes.
    Fixed,
    /// Sizes as differences.
    Ebml,
}

/// One SimpleTag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// TagName without trailing NUL.
    pub name: String,
    /// TagString or TagBinary.
    pub value: TagValue,
    /// The first TagTrackUID of its Targets; `None` (or 0) where it speaks of the whole segment.
    pub track_uid: Option<u64>,
    /// Whether it stands within another SimpleTag.
    pub nested: bool,
}

/// Value of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagValue {
    /// A TagString, verbatim: UTF-8 is not checked and trailing NULs are kept.
    String(Bytes),
    /// A TagBinary.
    Binary(Bytes),
    /// Neither.
    None,
}

impl Tag {
    /// Whether this is the tag that ends a fragment.
    #[must_use]
    pub fn is_end_of_fragment(&self) -> bool {
        self.name == END_OF_FRAGMENT
    }

    /// The string value without trailing NULs; `None` where it is binary, absent or not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            TagValue::String(bytes) => std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0')),
            TagValue::Binary(_) | TagValue::None => None,
        }
    }
}

impl TagValue {
    /// Length in bytes as sent.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            TagValue::String(bytes) | TagValue::Binary(bytes) => bytes.len(),
            TagValue::None => 0,
        }
    }

    /// Whether there is no value or an empty one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
