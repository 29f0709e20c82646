//! Fragments of streams that keep nothing (retention 0): a ring in memory, so that live readers and processors have
//! something to work on. Numbers come from the durable allocator all the same, so that none is ever given twice.

/// Bounds of a stream's ring.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOptions {
    /// Fragments older than this are dropped.
    pub max_age_ms: i64,
    /// The oldest fragments of a stream are dropped beyond this.
    pub max_bytes_per_stream: u64,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions {
            max_age_ms: 300_000,
            max_bytes_per_stream: 200 << 20,
        }
    }
}
