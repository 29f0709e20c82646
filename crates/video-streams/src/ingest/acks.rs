//! The lines that a PutMedia answer consists of: one JSON object each, keys and case as the producer libraries parse them.
//! (The API reference spells some keys differently; its spellings are on no wire.) Knows nothing of connections.

use bytes::Bytes;
use storage::FragmentNumber;

/// Why a fragment, and with it the connection, was refused. Numbers and names are AWS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckError {
    /// Reading the request's body failed.
    StreamRead,
    /// The fragment has more than [`crate::limits::FRAGMENT_BYTES`].
    FragmentSize,
    /// The fragment spans more than [`crate::limits::FRAGMENT_DURATION_MS`].
    FragmentDuration,
    /// The connection is older than [`crate::limits::CONNECTION_DURATION`].
    ConnectionDuration,
    /// The cluster's timecode is not greater than that of the previous one.
    TimecodeNotGreater,
    /// The body is no legal Matroska, or starts a second segment.
    InvalidMkv,
    /// The producer timestamp cannot be computed: beyond the range of time.
    InvalidProducerTimestamp,
    /// The stream was deleted meanwhile.
    StreamNotActive,
    /// Too many metadata tags, or one that is too long.
    MetadataLimit,
    /// A frame names a track that the header does not.
    TrackNumberMismatch,
    /// A track of the header has no frame in the fragment.
    FramesMissing,
    /// The header names more than [`crate::limits::TRACKS`] tracks.
    TooManyTracks,
    /// The server failed; the log has the reason.
    Internal,
    /// The fragment could not be made durable: the disk is full or failed.
    Archival,
}

impl AckError {
    /// Every variant, for metrics and tests.
    pub const ALL: [AckError; 14] = [
        AckError::StreamRead,
        AckError::FragmentSize,
        AckError::FragmentDuration,
        AckError::ConnectionDuration,
        AckError::TimecodeNotGreater,
        AckError::InvalidMkv,
        AckError::InvalidProducerTimestamp,
        AckError::StreamNotActive,
        AckError::MetadataLimit,
        AckError::TrackNumberMismatch,
        AckError::FramesMissing,
        AckError::TooManyTracks,
        AckError::Internal,
        AckError::Archival,
    ];

    /// The `ErrorId` of the ack.
    pub const fn id(self) -> u16 {
        match self {
            AckError::StreamRead => 4000,
            AckError::FragmentSize => 4001,
            AckError::FragmentDuration => 4002,
            AckError::ConnectionDuration => 4003,
            AckError::TimecodeNotGreater => 4004,
            AckError::InvalidMkv => 4006,
            AckError::InvalidProducerTimestamp => 4007,
            AckError::StreamNotActive => 4008,
            AckError::MetadataLimit => 4009,
            AckError::TrackNumberMismatch => 4010,
            AckError::FramesMissing => 4011,
            AckError::TooManyTracks => 4012,
            AckError::Internal => 5000,
            AckError::Archival => 5001,
        }
    }

    /// The `ErrorCode` of the ack.
    pub const fn code(self) -> &'static str {
        match self {
            AckError::StreamRead => "STREAM_READ_ERROR",
            AckError::FragmentSize => "MAX_FRAGMENT_SIZE_REACHED",
            AckError::FragmentDuration => "MAX_FRAGMENT_DURATION_REACHED",
            AckError::ConnectionDuration => "MAX_CONNECTION_DURATION_REACHED",
            AckError::TimecodeNotGreater => "FRAGMENT_TIMECODE_LESSER_THAN_PREVIOUS",
            AckError::InvalidMkv => "INVALID_MKV_DATA",
            AckError::InvalidProducerTimestamp => "INVALID_PRODUCER_TIMESTAMP",
            AckError::StreamNotActive => "STREAM_NOT_ACTIVE",
            AckError::MetadataLimit => "FRAGMENT_METADATA_LIMIT_REACHED",
            AckError::TrackNumberMismatch => "TRACK_NUMBER_MISMATCH",
            AckError::FramesMissing => "FRAMES_MISSING_FOR_TRACK",
            AckError::TooManyTracks => "MORE_THAN_ALLOWED_TRACKS_FOUND",
            AckError::Internal => "INTERNAL_ERROR",
            AckError::Archival => "ARCHIVAL_ERROR",
        }
    }
}

/// Which fragment an ack is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckedFragment {
    /// The timecode of the fragment's cluster exactly as it was sent, in units of the producer's timecode scale.
    pub timecode: u64,
    /// The number that the server gave it.
    pub number: FragmentNumber,
}

/// One line of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The first bytes of the fragment are here.
    Buffering(AckedFragment),
    /// The whole fragment is here.
    Received(AckedFragment),
    /// The fragment is on stable storage.
    Persisted(AckedFragment),
    /// The connection ends; the fragment that it was in, if any, is discarded.
    Error(AckError, Option<AckedFragment>),
    /// The connection is alive but nothing comes.
    Idle(Option<AckedFragment>),
}

impl Ack {
    /// The `EventType`.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Ack::Buffering(_) => "BUFFERING",
            Ack::Received(_) => "RECEIVED",
            Ack::Persisted(_) => "PERSISTED",
            Ack::Error(..) => "ERROR",
            Ack::Idle(_) => "IDLE",
        }
    }

    /// The line, with its line feed.
    pub fn encode(&self) -> Bytes {
        let mut line = format!("{{\"EventType\":\"{}\"", self.event_type());
        let fragment = match self {
            Ack::Buffering(f) | Ack::Received(f) | Ack::Persisted(f) => Some(f),
            Ack::Error(_, f) | Ack::Idle(f) => f.as_ref(),
        };
        if let Some(f) = fragment {
            line += &format!(
                ",\"FragmentTimecode\":{},\"FragmentNumber\":\"{}\"",
                f.timecode, f.number
            );
        }
        if let Ack::Error(error, _) = self {
            line += &format!(",\"ErrorCode\":\"{}\",\"ErrorId\":{}", error.code(), error.id());
        }
        line += "}\n";
        Bytes::from(line)
    }
}
