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

/// A page of a listing, in the order of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentQuery {
    /// Which fragments.
    pub range: FragmentRange,
    /// Only numbers above this one: the last of the page before.
    pub after: Option<FragmentNumber>,
    /// At most so many.
    pub limit: usize,
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

    /// A page of fragments in the order of numbers. An unknown stream has none.
    async fn list(&self, stream: StreamId, query: &FragmentQuery) -> Result<Vec<FragmentInfo>, Error>;

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
