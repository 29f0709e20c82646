//! The segment log as one object: opened on a disk, it gives both stores.

use std::sync::Arc;

use base::metrics::Metrics;
use base::{Clock, Disk};
use serde::Serialize;

use crate::{Error, LogOptions, MediaStore, RecordLog};

/// What recovery found at open.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RecoveryReport {
    /// Segments found.
    pub segments: u64,
    /// Fragments that can be read.
    pub fragments: u64,
    /// Torn tails that were saved aside and cut: writes that nobody had been told were durable.
    pub torn: Vec<DamagedRange>,
    /// Damage to durable data. It stays where it is and its segment is kept out of reuse.
    pub quarantined: Vec<DamagedRange>,
}

/// A stretch of a segment that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedRange {
    /// Name of the file.
    pub file: String,
    /// Segment id, 0 if its header is lost.
    pub segment: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// An open log.
pub struct LogStore {
    media: Arc<dyn MediaStore>,
    records: Arc<dyn RecordLog>,
    report: RecoveryReport,
}

impl LogStore {
    /// Recovers the log on `disk` and starts its lanes. Blocks until recovery has ended.
    pub fn open(
        _disk: Arc<dyn Disk>,
        _clock: Arc<dyn Clock>,
        _options: LogOptions,
        _metrics: &Metrics,
    ) -> Result<Self, Error> {
        Err(Error::Closed)
    }

    /// The fragments.
    pub fn media(&self) -> Arc<dyn MediaStore> {
        Arc::clone(&self.media)
    }

    /// The records.
    pub fn records(&self) -> Arc<dyn RecordLog> {
        Arc::clone(&self.records)
    }

    /// What recovery found.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }
}
