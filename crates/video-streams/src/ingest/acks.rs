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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_the_lines_that_producers_parse() {
        let number: FragmentNumber = "91343852338176208490308672115616860505404839548".parse().unwrap();
        let fragment = AckedFragment {
            timecode: 1_565_810_137_603,
            number,
        };
        let line = |ack: Ack| String::from_utf8(ack.encode().to_vec()).unwrap();
        // A line of AWS's, as a user reported it.
        assert_eq!(
            line(Ack::Error(AckError::FragmentDuration, Some(fragment))),
            "{\"EventType\":\"ERROR\",\"FragmentTimecode\":1565810137603,\"FragmentNumber\":\
             \"91343852338176208490308672115616860505404839548\",\"ErrorCode\":\"MAX_FRAGMENT_DURATION_REACHED\",\
             \"ErrorId\":4002}\n"
        );
        assert_eq!(
            line(Ack::Buffering(AckedFragment { timecode: 0, number })),
            format!("{{\"EventType\":\"BUFFERING\",\"FragmentTimecode\":0,\"FragmentNumber\":\"{number}\"}}\n")
        );
        assert_eq!(line(Ack::Idle(None)), "{\"EventType\":\"IDLE\"}\n");
        assert_eq!(
            line(Ack::Error(AckError::InvalidMkv, None)),
            "{\"EventType\":\"ERROR\",\"ErrorCode\":\"INVALID_MKV_DATA\",\"ErrorId\":4006}\n"
        );
    }

    #[test]
    fn every_ack_is_json_of_at_most_1024_characters() {
        let fragment = AckedFragment {
            timecode: u64::MAX,
            number: crate::testing::number(u64::MAX),
        };
        let errors = AckError::ALL.map(|error| Ack::Error(error, Some(fragment)));
        let others = [
            Ack::Buffering(fragment),
            Ack::Received(fragment),
            Ack::Persisted(fragment),
            Ack::Idle(None),
        ];
        for ack in errors.into_iter().chain(others) {
            let line = ack.encode();
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(json["EventType"], ack.event_type());
            assert!(line.len() <= 1024, "the C producer's parser takes no more");
        }
    }
}
