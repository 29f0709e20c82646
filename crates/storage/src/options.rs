//! How a log is set up.

use std::fmt;
use std::sync::Arc;

use crate::{Error, IndexHome};

/// Called once when the log has ended itself because the device failed; the server then ends the process, and recovery
/// decides at the next start what was stored (invariant 1).
pub type OnFatal = Arc<dyn Fn(&Error) + Send + Sync>;

/// Settings of a log. The defaults are for a server.
#[derive(Clone)]
pub struct LogOptions {
    /// Writers of media, each with its own segment and thread.
    pub media_lanes: u16,
    /// Writers of records.
    pub record_lanes: u16,
    /// Size at which a media segment is closed.
    pub media_segment_bytes: u64,
    /// Size at which a record segment is closed.
    pub record_segment_bytes: u64,
    /// Age at which a record segment is closed, so that whole segments pass out of retention.
    pub record_segment_ms: i64,
    /// A fragment is written out whenever so much of it has gathered.
    pub extent_bytes: usize,
    /// Memory for fragments that are being received, all together.
    pub buffer_bytes: usize,
    /// How many fragment numbers are reserved at a time.
    pub number_block: u64,
    /// Unused segment files kept for the next segments, per lane; writing over them is faster than growing new ones.
    pub spare_segments: usize,
    /// How long dead space waits for the rest of its segment before a hole is punched.
    pub punch_delay_ms: i64,
    /// Bytes set aside per lane, so that trims and deletions can be logged on a full disk.
    pub reserve_bytes: u64,
    /// Where the index of fragments lives that is not in memory.
    pub index: IndexHome,
    /// Fragments that are kept in memory, all streams together, beside those that the index does not hold yet.
    pub index_window: usize,
    /// Seed of random parts (segment salts, the random bits of fragment numbers).
    pub seed: u64,
    /// See [`OnFatal`].
    pub on_fatal: OnFatal,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            media_lanes: 2,
            record_lanes: 1,
            media_segment_bytes: 128 << 20,
            record_segment_bytes: 32 << 20,
            record_segment_ms: 600_000,
            extent_bytes: 1 << 20,
            buffer_bytes: 256 << 20,
            number_block: 1000,
            spare_segments: 4,
            punch_delay_ms: 10_000,
            reserve_bytes: 1 << 20,
            index: IndexHome::memory(),
            index_window: 20_000,
            seed: fastrand::u64(..),
            on_fatal: Arc::new(|error| tracing::error!(%error, "the log has stopped")),
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("media_lanes", &self.media_lanes)
            .field("record_lanes", &self.record_lanes)
            .field("media_segment_bytes", &self.media_segment_bytes)
            .finish_non_exhaustive()
    }
}
