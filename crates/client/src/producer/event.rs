//! What a producer tells, and how it fails.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

use crate::ack::Ack;
use crate::error::ClientError;

/// A fragment, as its producer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentId {
    /// The how manieth fragment of this producer, from 0.
    pub sequence: u64,
    /// The timecode of its cluster as sent, in units of the timecode scale.
    pub timecode: u64,
    /// The time of its cluster by the producer's clock.
    pub producer_timestamp: Timestamp,
}

/// Why a fragment was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The buffer was full, and [`Overflow::DropOldest`](super::Overflow::DropOldest) was asked for.
    BufferFull,
    /// It follows a lost fragment and holds no key frame, so that nobody could decode it.
    NoKeyFrame,
    /// The server refused it; sent again it would be refused again.
    Refused {
        /// The `ErrorId` of the acknowledgement, e.g. 4002.
        id: i64,
        /// The `ErrorCode`, e.g. `MAX_FRAGMENT_DURATION_REACHED`.
        code: String,
    },
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LossReason::BufferFull => f.write_str("the buffer was full"),
            LossReason::NoKeyFrame => f.write_str("it follows a lost fragment and holds no key frame"),
            LossReason::Refused { id, code } => write!(f, "the server refused it: {}", named(*id, code)),
        }
    }
}

/// What to do about an error of an acknowledgement.
#[must_use]
pub fn advice(error_id: i64) -> Option<&'static str> {
    Some(match error_id {
        4001 => "fragments are too large: begin them more often, or lower the bit rate",
        4002 => "fragments are too long: let the encoder make a key frame at least every few seconds",
        4003 => "the connection was old",
        4004 => "times go backwards: begin a new recording with its own start",
        4006 => "the media is not Matroska that the service reads",
        4007 => "the producer's start time is impossible",
        4008 => "the stream was deleted",
        4009 => "too many metadata tags in a fragment, or too long ones",
        4010 => "a frame names a track that was not declared",
        4011 => "a declared track has no frame in the fragment: send all tracks or declare fewer",
        4012 => "too many tracks; the service takes three",
        4500..=4506 => "the stream's encryption key cannot be used",
        5001 => "the server could not store it; is its disk full?",
        _ => return None,
    })
}

/// Whether the error is about the fragment's content, so that sending it again is of no use.
pub(crate) fn refuses_content(error_id: i64) -> bool {
    matches!(error_id, 4001 | 4002 | 4004..=4007 | 4009..=4012)
}

/// A fragment that will not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostFragment {
    /// Which.
    pub fragment: FragmentId,
    /// Why.
    pub reason: LossReason,
}

/// What happens to a producer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProducerEvent {
    /// A connection is open.
    Connected {
        /// Counts from 1.
        connection: u64,
    },
    /// A connection ended, or could not be opened. Fragments that were not confirmed are sent again.
    Disconnected {
        /// The connection, `None` where it was never opened.
        connection: Option<u64>,
        /// Why; `None` where it ended as planned.
        error: Option<Arc<ClientError>>,
        /// When the next attempt is made, if something waits.
        retry_in: Option<Duration>,
    },
    /// The server acknowledged.
    Ack {
        /// The connection.
        connection: u64,
        /// The fragment; `None` for acknowledgements that are about none (IDLE, some errors).
        fragment: Option<FragmentId>,
        /// What it said.
        ack: Ack,
        /// Time since the fragment's last byte was handed to the connection, where it was.
        after: Option<Duration>,
    },
    /// A fragment will not be delivered.
    Lost(LostFragment),
    /// So many events were dropped because the receiver was slow.
    Missed(u64),
}

/// Why a producer stopped, or would not take media.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// The server refuses this producer; trying again is of no use.
    #[error("{}", with_advice(.0))]
    Refused(#[source] Arc<ClientError>),
    /// The server refused the media before any fragment of it: the header is wrong.
    #[error("the server refuses the media: {}", named(*.id, .code))]
    Media {
        /// The `ErrorId`.
        id: i64,
        /// The `ErrorCode`.
        code: String,
    },
    /// Nothing was confirmed for as long as [`give_up_after`](super::ProducerConfig::give_up_after).
    #[error("{}", gave_up(.0, .1.as_deref()))]
    GaveUp(Duration, Option<Arc<ClientError>>),
    /// A fragment grew beyond the limit.
    #[error("a fragment is larger than {0} bytes: let the encoder make key frames more often")]
    FragmentTooLarge(usize),
    /// A frame does not fit those before it.
    #[error("{0}")]
    Frame(String),
    /// The source could not be read.
    #[error("reading the source failed: {0}")]
    Read(#[from] std::io::Error),
    /// The source is not Matroska.
    #[error("the source is not Matroska: {0}")]
    NotMatroska(#[from] matroska::Error),
    /// The source has a cluster before any header.
    #[error("the source is not Matroska: a cluster comes before the header")]
    NoHeader,
    /// The producer has stopped before.
    #[error("the producer has stopped: {0}")]
    Failed(Arc<ProducerError>),
    /// The producer's task ended.
    #[error("the producer has stopped")]
    Stopped,
}

fn named(id: i64, code: &str) -> String {
    match advice(id) {
        Some(advice) => format!("{id} {code} ({advice})"),
        None => format!("{id} {code}"),
    }
}

fn gave_up(after: &Duration, error: Option<&ClientError>) -> String {
    let last = error
        .map(|error| format!("; last: {}", with_advice(error)))
        .unwrap_or_default();
    format!("nothing was confirmed for {after:?}{last}")
}

fn with_advice(error: &ClientError) -> String {
    match error.advice() {
        Some(advice) => format!("{error} ({advice})"),
        None => error.to_string(),
    }
}

/// What was delivered and what was not, since the last report.
#[derive(Debug)]
pub struct Undelivered {
    /// Fragments that are given up, the first few hundred of them.
    pub lost: Vec<LostFragment>,
    /// How many are given up.
    pub lost_count: u64,
    /// Fragments that are sent or wait to be sent, and are not confirmed.
    pub unconfirmed: Vec<FragmentId>,
    /// Why the producer stopped, if it did.
    pub error: Option<Arc<ProducerError>>,
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} fragments lost, {} not confirmed",
            self.lost_count,
            self.unconfirmed.len()
        )?;
        if let Some(first) = self.lost.first() {
            write!(
                f,
                "; the first lost one, at {}: {}",
                first.fragment.timecode, first.reason
            )?;
        }
        match &self.error {
            Some(error) => write!(f, "; {error}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Undelivered {}
