//! Element ids of RFC 9559 (Matroska) and RFC 8794 (EBML) that this crate reads or writes.

use std::fmt;

/// An element id with its length marker, as the specifications print it, e.g. `0x1A45DFA3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementId(pub u32);

macro_rules! ids {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        $(#[doc = concat!("`", $text, "`")] pub const $name: ElementId = ElementId($value);)*

        impl ElementId {
            /// The element's name in the specification, where this crate knows it.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some($text),)* _ => None }
            }
        }
    };
}

ids! {
    EBML = 0x1A45_DFA3, "EBML";
    EBML_VERSION = 0x4286, "EBMLVersion";
    EBML_READ_VERSION = 0x42F7, "EBMLReadVersion";
    EBML_MAX_ID_LENGTH = 0x42F2, "EBMLMaxIDLength";
    EBML_MAX_SIZE_LENGTH = 0x42F3, "EBMLMaxSizeLength";
    DOC_TYPE = 0x4282, "DocType";
    DOC_TYPE_VERSION = 0x4287, "DocTypeVersion";
    DOC_TYPE_READ_VERSION = 0x4285, "DocTypeReadVersion";
    VOID = 0xEC, "Void";
    CRC32 = 0xBF, "CRC-32";
    SEGMENT = 0x1853_8067, "Segment";
    SEEK_HEAD = 0x114D_9B74, "SeekHead";
    SEEK = 0x4DBB, "Seek";
    SEEK_ID = 0x53AB, "SeekID";
    SEEK_POSITION = 0x53AC, "SeekPosition";
    INFO = 0x1549_A966, "Info";
    SEGMENT_UID = 0x73A4, "SegmentUID";
    TIMECODE_SCALE = 0x2A_D7B1, "TimecodeScale";
    DURATION = 0x4489, "Duration";
    TITLE = 0x7BA9, "Title";
    MUXING_APP = 0x4D80, "MuxingApp";
    WRITING_APP = 0x5741, "WritingApp";
    TRACKS = 0x1654_AE6B, "Tracks";
    TRACK_ENTRY = 0xAE, "TrackEntry";
    TRACK_NUMBER = 0xD7, "TrackNumber";
    TRACK_UID = 0x73C5, "TrackUID";
    TRACK_TYPE = 0x83, "TrackType";
    TRACK_NAME = 0x536E, "Name";
    LANGUAGE = 0x22_B59C, "Language";
    CODEC_ID = 0x86, "CodecID";
    CODEC_PRIVATE = 0x63A2, "CodecPrivate";
    DEFAULT_DURATION = 0x23_E383, "DefaultDuration";
    CONTENT_ENCODINGS = 0x6D80, "ContentEncodings";
    VIDEO = 0xE0, "Video";
    PIXEL_WIDTH = 0xB0, "PixelWidth";
    PIXEL_HEIGHT = 0xBA, "PixelHeight";
    AUDIO = 0xE1, "Audio";
    SAMPLING_FREQUENCY = 0xB5, "SamplingFrequency";
    OUTPUT_SAMPLING_FREQUENCY = 0x78B5, "OutputSamplingFrequency";
    CHANNELS = 0x9F, "Channels";
    BIT_DEPTH = 0x6264, "BitDepth";
    CLUSTER = 0x1F43_B675, "Cluster";
    TIMECODE = 0xE7, "Timestamp";
    POSITION = 0xA7, "Position";
    PREV_SIZE = 0xAB, "PrevSize";
    SIMPLE_BLOCK = 0xA3, "SimpleBlock";
    BLOCK_GROUP = 0xA0, "BlockGroup";
    BLOCK = 0xA1, "Block";
    BLOCK_DURATION = 0x9B, "BlockDuration";
    REFERENCE_BLOCK = 0xFB, "ReferenceBlock";
    CUES = 0x1C53_BB6B, "Cues";
    CUE_POINT = 0xBB, "CuePoint";
    CUE_TIME = 0xB3, "CueTime";
    CUE_TRACK_POSITIONS = 0xB7, "CueTrackPositions";
    CUE_TRACK = 0xF7, "CueTrack";
    CUE_CLUSTER_POSITION = 0xF1, "CueClusterPosition";
    CHAPTERS = 0x1043_A770, "Chapters";
    ATTACHMENTS = 0x1941_A469, "Attachments";
    TAGS = 0x1254_C367, "Tags";
    TAG = 0x7373, "Tag";
    TARGETS = 0x63C0, "Targets";
    TAG_TRACK_UID = 0x63C5, "TagTrackUID";
    SIMPLE_TAG = 0x67C8, "SimpleTag";
    TAG_NAME = 0x45A3, "TagName";
    TAG_STRING = 0x4487, "TagString";
    TAG_BINARY = 0x4485, "TagBinary";
}

impl ElementId {
    /// Stands for "no element yet": the place where an id was expected.
    pub const NONE: ElementId = ElementId(0);

    /// Whether this id stands at the level of the document or directly in a Segment, so that meeting it ends an open
    /// Cluster (or Tags) of unknown size.
    #[must_use]
    pub fn is_top_level(self) -> bool {
        matches!(
            self,
            EBML | SEGMENT | SEEK_HEAD | INFO | TRACKS | CLUSTER | CUES | CHAPTERS | ATTACHMENTS | TAGS
        )
    }
}

impl fmt::Display for ElementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), *self) {
            (Some(name), _) => f.write_str(name),
            (None, ElementId::NONE) => f.write_str("(start of an element)"),
            (None, ElementId(id)) => write!(f, "{id:#X}"),
        }
    }
}

impl fmt::Debug for ElementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
