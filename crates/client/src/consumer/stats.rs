//! What a consumer counts.

use std::time::Duration;

/// How far behind its newest record a shard is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLag {
    /// The shard.
    pub shard: String,
    /// `MillisBehindLatest` of the last answer.
    pub millis_behind: u64,
}

/// What a consumer has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Shards that are read now.
    pub shards: usize,
    /// The shards that are farthest behind, the farthest first; at most 100.
    pub lags: Vec<ShardLag>,
    /// Batches handed out.
    pub batches: u64,
    /// Records handed out, packed ones counted each.
    pub records: u64,
    /// Bytes of data handed out.
    pub bytes: u64,
    /// Packed records left out because they belong to other shards.
    pub misplaced: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Leases taken: new ones, those of workers that are gone, and those that were asked for.
    pub taken: u64,
    /// Leases asked for.
    pub asked: u64,
    /// Leases handed over with everything checkpointed.
    pub handed_over: u64,
    /// Leases let go when a program did not finish in time.
    pub cut_off: u64,
    /// Leases that another worker took, or that could not be renewed in time.
    pub lost: u64,
    /// Shards finished.
    pub finished: u64,
    /// Times that the stream's shards were listed.
    pub listings: u64,
    /// Times that a shard was asked for because it could not be subscribed to.
    pub fallbacks: u64,
    /// Free leases that this worker leaves because it has as many as it may.
    pub beyond_max: usize,
    /// Bytes of records in memory.
    pub buffered_bytes: usize,
    /// The most that were.
    pub buffered_bytes_peak: usize,
    /// From the start to the first batch handed out.
    pub first_batch_after: Option<Duration>,
}
