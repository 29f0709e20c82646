//! What a store of media fragments promises. Back ends: the segment log ([`crate::LogStore`]) and, for streams that keep
//! nothing, memory ([`crate::MemoryMediaStore`]).

use std::ops::Range;

use async_trait::async_trait;
use base::Timestamp;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{Error, FragmentNumber, StreamId};

/// One frame of a fragment, as the producer's cluster holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameEntry {
    /// Where the frame's bytes begin, counted from the start of the fragment's payload.
    pub offset: u32,
    /// Length of the frame's bytes.
    pub len: u32,
    /// Time relative to the cluster's timecode, milliseconds.
    pub time_ms: i32,
    /// MKV track number (the low 8 bits; the parser admits no more than a handful of tracks).
    pub track: u8,
    /// True for a key frame.
    pub key: bool,
}

/// What the producer's side knows of a fragment when it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentSummary {
    /// When the server began to receive it.
    pub server_timestamp: Timestamp,
    /// The producer's time of its cluster.
    pub producer_timestamp: Timestamp,
    /// Duration in milliseconds.
    pub length_ms: u32,
    /// How many bytes of the payload are the producer's MKV header (EBML, Segment, Info, Tracks); the cluster follows.
    pub header_len: u32,
    /// Fingerprint of the tracks that its frames belong to, as its producer's side computes it: two fragments with the
    /// same one can be decoded by the same decoder set-up. 0 where unknown.
    pub tracks_hash: u64,
    /// Its frames, in order.
    pub frames: Vec<FrameEntry>,
}

/// What a listing says of a stored fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Its number.
    pub number: FragmentNumber,
    /// When the server began to receive it.
    pub server_timestamp: Timestamp,
    /// The producer's time of its cluster.
    pub producer_timestamp: Timestamp,
    /// Duration in milliseconds.
    pub length_ms: u32,
    /// Bytes of the payload: header and cluster.
    pub size: u32,
    /// How many bytes of the payload are the producer's MKV header; the cluster follows.
    pub header_len: u32,
    /// Commit position within the stream: 1, 2, 3, … in the order in which fragments became durable. It skips values
    /// only after damage to the log.
    pub position: u64,
    /// How many entries its frame index has.
    pub frame_count: u32,
    /// [`FragmentSummary::tracks_hash`]; 0 too for fragments that were stored before there was one.
    pub tracks_hash: u64,
}

impl FragmentInfo {
    /// Server time at which the fragment ends, exclusive.
    pub fn server_end(&self) -> Timestamp {
        self.server_timestamp.plus_millis(i64::from(self.length_ms))
    }

    /// Producer time at which the fragment ends, exclusive.
    pub fn producer_end(&self) -> Timestamp {
        self.producer_timestamp.plus_millis(i64::from(self.length_ms))
    }

    /// When it begins.
    pub fn start(&self, axis: TimeAxis) -> Timestamp {
        match axis {
            TimeAxis::Server => self.server_timestamp,
            TimeAxis::Producer => self.producer_timestamp,
        }
    }

    /// When it ends, exclusive.
    pub fn end(&self, axis: TimeAxis) -> Timestamp {
        self.start(axis).plus_millis(i64::from(self.length_ms))
    }
}

/// Which of a fragment's two times is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeAxis {
    /// When the server received it.
    Server,
    /// When the producer says it was taken.
    Producer,
}

/// A range of fragments by their start, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentRange {
    /// Everything.
    All,
    /// By number.
    Number(FragmentNumber, FragmentNumber),
    /// By time.
    Time(TimeAxis, Timestamp, Timestamp),
}

impl FragmentRange {
    /// Where a fragment stands in a listing of this range. [`FragmentQuery::after`] takes the place of the last fragment
    /// of the page before.
    pub fn place_of(&self, info: &FragmentInfo) -> ListPlace {
        let time = match self {
            // They have no place in time.
            FragmentRange::All | FragmentRange::Number(..) => Timestamp::from_millis(0),
            FragmentRange::Time(axis, ..) => info.start(*axis),
        };
        ListPlace {
            time,
            number: info.number,
        }
    }

    /// The place of a number in a range that is none of times.
    pub(crate) fn place_at(&self, number: FragmentNumber) -> ListPlace {
        ListPlace {
            time: Timestamp::from_millis(0),
            number,
        }
    }
}

/// A place in a listing. It need not be that of a fragment that is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListPlace {
    /// The start on the range's axis; the same for all where the range is none of times.
    pub time: Timestamp,
    /// Number of the fragment.
    pub number: FragmentNumber,
}

/// A page of a listing. Fragments come in the order of their numbers; those of a range of times in the order of their
/// start on its axis, and of their numbers where that is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentQuery {
    /// Which fragments.
    pub range: FragmentRange,
    /// Only those that come behind this place in the listing (before it in the order, with [`Self::newest_first`]).
    pub after: Option<ListPlace>,
    /// Turns the order round: the last ones come first.
    pub newest_first: bool,
    /// At most so many, and at most [`crate::limits::LIST_LIMIT_MAX`].
    pub limit: usize,
}

impl FragmentQuery {
    /// True for a fragment of the range that is behind the page before.
    pub(crate) fn wants(&self, info: &FragmentInfo) -> bool {
        let in_range = match self.range {
            FragmentRange::All => true,
            FragmentRange::Number(from, to) => (from..=to).contains(&info.number),
            FragmentRange::Time(axis, from, to) => (from..=to).contains(&info.start(axis)),
        };
        let place = self.range.place_of(info);
        let behind = match self.after {
            None => true,
            Some(after) if self.newest_first => place < after,
            Some(after) => place > after,
        };
        in_range && behind
    }

    /// The first page of a range.
    pub fn first(range: FragmentRange, limit: usize) -> Self {
        FragmentQuery {
            range,
            after: None,
            newest_first: false,
            limit,
        }
    }
}

/// What is asked of [`MediaStore::coverage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoverageQuery {
    /// By which of the two times.
    pub axis: TimeAxis,
    /// Start of the range.
    pub from: Timestamp,
    /// End of the range, inclusive.
    pub to: Timestamp,
    /// Fragments melt into one span when no more than this lies between the end of what comes before and their start.
    pub gap_ms: u32,
    /// [`Coverage::next`] of the answer before.
    pub after: Option<ListPlace>,
    /// At most so many spans.
    pub limit: usize,
}

/// A stretch of time that fragments fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Start of its first fragment. The first span of a range may begin before it.
    pub start: Timestamp,
    /// End of the fragment that ends last, exclusive. The last span of a range may end behind it.
    pub end: Timestamp,
    /// How many fragments.
    pub fragments: u64,
    /// Their payload bytes.
    pub bytes: u64,
}

/// What a range of time holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// In the order of time; they do not overlap.
    pub spans: Vec<Span>,
    /// Where to go on when the range holds more. The last span may go on there too: [`Coverage::extend`] puts both halves
    /// together.
    pub next: Option<ListPlace>,
}

impl Coverage {
    /// Takes the fragment that comes next in time, and says whether it did: a fragment that would begin a span beyond
    /// `limit` is left.
    pub(crate) fn add(&mut self, fragment: Span, gap_ms: u32, limit: usize) -> bool {
        let room = self.spans.len() < limit;
        match self.spans.last_mut() {
            Some(span) if fragment.start <= span.end.plus_millis(i64::from(gap_ms)) => {
                span.end = span.end.max(fragment.end);
                span.fragments = span.fragments.saturating_add(fragment.fragments);
                span.bytes = span.bytes.saturating_add(fragment.bytes);
            }
            _ if room => self.spans.push(fragment),
            _ => return false,
        }
        true
    }

    /// Adds the answer that follows this one.
    pub fn extend(&mut self, following: Coverage, gap_ms: u32) {
        for span in following.spans {
            self.add(span, gap_ms, usize::MAX);
        }
        self.next = following.next;
    }
}

/// A place in a stream after which to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// The fragment with the next higher number.
    Number(FragmentNumber),
    /// The fragment with the next higher commit position; 0 is before the first. Going on by position misses nothing,
    /// also where fragments of several connections were committed in another order than they began.
    Position(u64),
}

/// What a stream takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fragments that can be read.
    pub fragments: u64,
    /// Their payload bytes.
    pub bytes: u64,
}

/// Stores fragments. Every method that changes something answers after the change is durable.
#[async_trait]
pub trait MediaStore: Send + Sync + 'static {
    /// The next number of the stream: higher than every number ever handed out for it, also before a crash.
    async fn allocate_number(&self, stream: StreamId, server: Timestamp) -> Result<FragmentNumber, Error>;

    /// Opens a fragment. Nothing is visible before [`FragmentSink::commit`]; dropping the sink aborts it.
    async fn begin(&self, stream: StreamId, number: FragmentNumber) -> Result<Box<dyn FragmentSink>, Error>;

    /// One fragment.
    async fn get(&self, stream: StreamId, number: FragmentNumber) -> Result<FragmentInfo, Error>;

    /// A page of fragments. An unknown stream has none.
    async fn list(&self, stream: StreamId, query: &FragmentQuery) -> Result<Vec<FragmentInfo>, Error>;

    /// Which stretches of a range are filled: by the fragments that hold some of its time. Looks at no more than
    /// [`crate::limits::COVERAGE_FRAGMENTS_MAX`] fragments; [`Coverage::next`] goes on.
    async fn coverage(&self, stream: StreamId, query: &CoverageQuery) -> Result<Coverage, Error>;

    /// The fragment with the highest number.
    async fn latest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error>;

    /// The fragment with the lowest number.
    async fn earliest(&self, stream: StreamId) -> Result<Option<FragmentInfo>, Error>;

    /// The fragment whose time span holds `at`, else the first one that starts after it. Of several, the lowest number.
    async fn find_containing(
        &self,
        stream: StreamId,
        axis: TimeAxis,
        at: Timestamp,
    ) -> Result<Option<FragmentInfo>, Error>;

    /// The fragment that follows.
    async fn next_after(&self, stream: StreamId, cursor: Cursor) -> Result<Option<FragmentInfo>, Error>;

    /// The frame index of a fragment.
    async fn frames(&self, stream: StreamId, number: FragmentNumber) -> Result<Vec<FrameEntry>, Error>;

    /// Bytes of a fragment's payload, verified against their checksum ([`Error::Corrupt`] otherwise). A range beyond the
    /// end is cut to it.
    async fn read(&self, stream: StreamId, number: FragmentNumber, range: Range<u32>) -> Result<Bytes, Error>;

    /// Lengths of the pieces in which a fragment's payload is stored, in order. To verify a checksum a whole piece is read,
    /// so that reading along them reads nothing twice.
    async fn extents(&self, stream: StreamId, number: FragmentNumber) -> Result<Vec<u32>, Error> {
        Ok(vec![self.get(stream, number).await?.size])
    }

    /// Deletes fragments that the server received before `older_than`. Returns how many.
    async fn trim(&self, stream: StreamId, older_than: Timestamp) -> Result<u64, Error>;

    /// Deletes the oldest fragments of a stream until it holds at most `max_bytes`. Returns how many.
    async fn trim_to_size(&self, stream: StreamId, max_bytes: u64) -> Result<u64, Error>;

    /// Deletes the oldest fragments of any stream until all together hold at most `max_bytes`. Returns how many.
    async fn trim_all_to_size(&self, max_bytes: u64) -> Result<u64, Error>;

    /// Deletes a stream's fragments, for ever: its id takes no more.
    async fn delete_stream(&self, stream: StreamId) -> Result<(), Error>;

    /// What the stream takes up.
    async fn usage(&self, stream: StreamId) -> Result<Usage, Error>;

    /// The highest commit position so far (0 before the first), now and at each change. The channel closes when the
    /// stream is deleted or the store is closed.
    fn subscribe(&self, stream: StreamId) -> watch::Receiver<u64>;
}

/// A fragment that is being received.
#[async_trait]
pub trait FragmentSink: Send {
    /// Its number.
    fn number(&self) -> FragmentNumber;

    /// Appends payload. Waits when the store's buffer budget is used up.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Makes the fragment durable, then visible: after this answers, data and commit are on stable storage.
    async fn commit(self: Box<Self>, summary: FragmentSummary) -> Result<FragmentInfo, Error>;
}
