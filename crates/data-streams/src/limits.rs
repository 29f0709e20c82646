//! Limits, each with its source.

/// Largest record unless the stream says otherwise, data and partition key together: 1 MiB (API reference of PutRecord).
pub const RECORD_BYTES_DEFAULT: usize = 1024 * 1024;

/// Records of one PutRecords are checked by the model (500); their data and keys together: 10 MiB (API reference).
pub const REQUEST_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Records that one GetRecords returns unless it asks for fewer (service model: 1 to 10,000, default 10,000).
pub const READ_RECORDS_MAX: usize = 10_000;

/// Bytes of data and keys that one GetRecords returns: 10 MiB (API reference), unless the first record alone is bigger.
pub const READ_BYTES_MAX: usize = 10 * 1024 * 1024;

/// How long a shard iterator is good: 5 minutes (API reference of GetShardIterator).
pub const ITERATOR_LIFE_MS: i64 = 300_000;

/// How long a token of ListShards or ListStreams is good: 300 seconds (API reference of ListShards).
pub const PAGE_TOKEN_LIFE_MS: i64 = 300_000;

/// Shards of one stream. AWS's quota is 20,000 an account in its largest regions; ours is lower so that a stream's record
/// in the catalog stays within one value.
pub const SHARDS_PER_STREAM_MAX: usize = 1000;

/// Shards of one account and region, as in AWS's largest regions.
pub const SHARDS_PER_ACCOUNT_MAX: usize = 20_000;

/// Streams of one account and region; they are all held in memory. Ours: AWS has none.
pub const STREAMS_PER_ACCOUNT_MAX: usize = 10_000;

/// Shards of a new on-demand stream (developer guide: 4).
pub const ON_DEMAND_SHARDS: usize = 4;

/// Retention of a new stream in hours (service model).
pub const RETENTION_HOURS_DEFAULT: i32 = 24;

/// Tags of one stream (service model of AddTagsToStream and developer guide: 50).
pub const TAGS_MAX: usize = 50;

/// Shards in one answer of DescribeStream unless the caller says otherwise (service model).
pub const DESCRIBE_SHARDS_DEFAULT: usize = 100;

/// Shards in one answer of ListShards unless the caller says otherwise (service model).
pub const LIST_SHARDS_DEFAULT: usize = 1000;

/// Names in one answer of ListStreams unless the caller says otherwise (service model).
pub const LIST_STREAMS_DEFAULT: usize = 100;

/// Time between two sweeps of what is beyond its retention. Ours.
pub const SWEEP_INTERVAL_MS: u64 = 60_000;

/// Deletions that a slow listener may lag behind before it is told that it missed some.
pub const DELETIONS_KEPT: usize = 1024;
