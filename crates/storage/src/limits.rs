//! What the stores refuse, and why there.

/// Bytes of one fragment. Kinesis Video Streams: "maximum fragment size 50 MB" (quotas page); our own header may come on top.
pub const FRAGMENT_BYTES_MAX: u64 = 52 << 20;

/// Entries of a frame index: 20 s (the longest fragment) of 1,000 frames a second on three tracks, rounded up.
pub const FRAMES_PER_FRAGMENT_MAX: usize = 65_536;

/// Bytes of one record with its partition key. Kinesis Data Streams: 10 MiB since 2025.
pub const RECORD_BYTES_MAX: usize = (10 << 20) + 256;

/// Records in one append: what PutRecords takes.
pub const RECORDS_PER_APPEND_MAX: usize = 500;

/// Bytes of a partition key: 256 characters of up to four bytes.
pub const PARTITION_KEY_BYTES_MAX: usize = 1024;

/// Fragments on one page of a listing: above ListFragments' 1,000, so that internal readers may page wider.
pub const LIST_LIMIT_MAX: usize = 10_000;

/// Fragments that one answer about coverage looks at: a day of one-second fragments, rounded up.
pub const COVERAGE_FRAGMENTS_MAX: usize = 100_000;
