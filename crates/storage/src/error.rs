//! What can go wrong in the stores.

use std::sync::Arc;

use crate::StreamId;

/// An error of a store. Cheap to clone: one failed write answers everyone who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No space on the device. Nothing of the call was acknowledged; it may be tried again when space has returned.
    #[error("the disk is full")]
    DiskFull,
    /// The device failed.
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// Stored bytes are not what was written.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// No such stream, shard or fragment; it may have been trimmed or deleted.
    #[error("not found")]
    NotFound,
    /// The shard was closed by [`RecordLog::close_shard`](crate::RecordLog::close_shard).
    #[error("the shard takes no more records")]
    ShardClosed,
    /// The log was closed, or ended itself after a device failure.
    #[error("the log is closed")]
    Closed,
    /// The call is beyond a limit of `limits.rs`.
    #[error(transparent)]
    LimitExceeded(#[from] LimitExceeded),
}

/// The device failed in `op` on `file`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{op} {file}: {source}")]
pub struct IoFailure {
    /// What was tried, e.g. `write`.
    pub op: &'static str,
    /// Name of the file.
    pub file: String,
    /// What the system said.
    #[source]
    pub source: Arc<std::io::Error>,
}

/// Stored bytes that fail a check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} is damaged at offset {offset}: {what}")]
pub struct Corruption {
    /// The stream whose data it was, where that is known.
    pub stream: Option<StreamId>,
    /// Which check failed.
    pub what: &'static str,
    /// Segment id.
    pub segment: u64,
    /// Offset of the frame in the segment's file.
    pub offset: u64,
}

/// A call beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {got}, the limit is {limit}")]
pub struct LimitExceeded {
    /// What was measured.
    pub what: &'static str,
    /// The value of the call.
    pub got: u64,
    /// The limit.
    pub limit: u64,
}

impl Error {
    /// Wraps a system error; one that says "no space" becomes [`Error::DiskFull`].
    pub(crate) fn io(op: &'static str, file: &str, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            return Error::DiskFull;
        }
        Error::Io(IoFailure {
            op,
            file: file.to_owned(),
            source: Arc::new(source),
        })
    }
}
