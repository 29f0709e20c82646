//! A fragment as a reader gets it.

use std::fmt;
use std::sync::Arc;

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use matroska::{Tag, Track, TrackKind, Tracks};

/// The number of a fragment: decimal digits without leading zeros, 47 of them, rising in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FragmentNumber(Arc<str>);

impl FragmentNumber {
    /// Wraps the digits that a service gave. `None` where the text is no number of 1 to 128 digits.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let digits = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| FragmentNumber(text.into()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn order(&self) -> (usize, &str) {
        let digits = self.0.trim_start_matches('0');
        (digits.len(), digits)
    }
}

impl Ord for FragmentNumber {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for FragmentNumber {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for FragmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a fragment before its first frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FragmentStart {
    /// Its number; `None` in media that no service returned, e.g. a producer's own file.
    pub number: Option<FragmentNumber>,
    /// When its first byte arrived at the server. A service returned the fragment exactly if this is there.
    pub server_timestamp: Option<Timestamp>,
    /// When it was recorded, by the producer's clock.
    pub producer_timestamp: Option<Timestamp>,
    /// Its tracks, with codec id and codec private data.
    pub tracks: Tracks,
    /// Nanoseconds of a unit of time.
    pub timecode_scale_ns: u64,
    /// Timecode of its cluster as sent, in units of the timecode scale.
    pub timecode: u64,
}

impl FragmentStart {
    /// The track of this number.
    #[must_use]
    pub fn track(&self, number: u64) -> Option<&Track> {
        self.tracks.iter().find(|track| track.number == number)
    }

    /// The first video track.
    #[must_use]
    pub fn video(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| track.kind == TrackKind::Video)
    }
}

/// What is known of a fragment after its last byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FragmentEnd {
    /// How far the reader is behind the present.
    pub millis_behind_now: Option<u64>,
    /// What to go on from. Where it is missing, the fragment is not whole: it was cut off, or refused in the end.
    pub continuation_token: Option<FragmentNumber>,
}

/// Why a fragment could not be returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fragment {}: {id} {code}", number.as_ref().map_or("?", FragmentNumber::as_str))]
pub struct FragmentError {
    /// Which.
    pub number: Option<FragmentNumber>,
    /// The error's number, e.g. 4000.
    pub id: i64,
    /// The error's name, e.g. `FRAGMENT_NOT_FOUND`.
    pub code: String,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number of its track.
    pub track: u64,
    /// Cluster timecode plus relative time, in units of the timecode scale.
    pub time: i64,
    /// Whether it can be decoded alone, as the producer flags it. Producers do not flag audio.
    pub key: bool,
    /// Its bytes. Not copied, unless the network cut the frame.
    pub data: Bytes,
}

/// A whole fragment.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// What was known before its first frame.
    pub start: Arc<FragmentStart>,
    /// What was known after its last byte.
    pub end: FragmentEnd,
    /// Its frames in the order in which they were sent.
    pub frames: Vec<Frame>,
    /// The producer's metadata tags, in order, without the one that ends a fragment.
    pub tags: Vec<Tag>,
    /// The document's bytes as they came: the producer's header, the service's tags, the cluster and all after it.
    pub document: Vec<Bytes>,
    /// How many of `document`'s bytes come before the cluster.
    pub header_len: usize,
}

impl Fragment {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> Option<&FragmentNumber> {
        self.start.number.as_ref()
    }

    /// Whether all of it is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.end.continuation_token.is_some()
    }

    /// Bytes of its document.
    #[must_use]
    pub fn len(&self) -> usize {
        self.document.iter().map(Bytes::len).sum()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes from the cluster on, copied into one piece: what the producer sent, followed by the service's last tags.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.len().saturating_sub(self.header_len));
        let mut skip = self.header_len;
        for piece in &self.document {
            let from = skip.min(piece.len());
            skip -= from;
            body.extend_from_slice(piece.get(from..).unwrap_or_default());
        }
        body.freeze()
    }

    /// The time of a frame: the producer's timestamp of the fragment plus its distance from the cluster.
    #[must_use]
    pub fn time_of(&self, frame: &Frame) -> Option<Timestamp> {
        let units = i128::from(frame.time) - i128::from(self.start.timecode);
        let millis = units * i128::from(self.start.timecode_scale_ns) / 1_000_000;
        Some(self.start.producer_timestamp?.plus_millis(i64::try_from(millis).ok()?))
    }
}
