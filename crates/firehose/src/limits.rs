//! Limits, each with its source.

/// Characters of a prefix after it is evaluated. AWS: 512.
pub const PREFIX_CHARACTERS_MAX: usize = 512;

/// Parts of a timestamp's pattern. Ours; a prefix has 1,024 characters at most.
pub const PATTERN_PARTS_MAX: usize = 256;

/// Bytes that one record may become when it is decompressed. Ours: the largest record of a data stream is 10 MiB, and logs
/// become ten times as large as they came.
pub const DECOMPRESSED_RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes that the records of one buffer may become when they are decompressed. Ours: twice the largest buffer.
pub const DECOMPRESSED_BUFFER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Records that one record is taken apart into, by JSON or by a delimiter. AWS: 500.
pub const SUB_RECORDS_MAX: usize = 500;

/// How deep a record's JSON may be nested. Readers of JSON recurse; 128 is `serde_json`'s limit, jq's is 256.
pub const JSON_DEPTH_MAX: usize = 128;

/// Bytes of a call to a function and of its answer. AWS Lambda: 6 MB for each.
pub const FUNCTION_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Records are gathered up to this many bytes for one call of a function. AWS: 1 MB by default, 0.2 to 3 MB.
pub const FUNCTION_BUFFER_BYTES: usize = 1024 * 1024;

/// How often a call of a function is made again after it failed. AWS: 3 by default.
pub const FUNCTION_RETRIES: u32 = 3;

/// The most that NumberOfRetries may say. AWS: 300.
pub const FUNCTION_RETRIES_MAX: u32 = 300;

/// Calls of one delivery stream's function at once.
pub const FUNCTION_CALLS_AT_ONCE: usize = 4;

/// For one call of a function, unless the configuration says otherwise. AWS: a function may take five minutes.
pub const FUNCTION_WITHIN: std::time::Duration = std::time::Duration::from_secs(300);

/// Keys that a query or a function may give a record. AWS's prefix has room for no more.
pub const PARTITION_KEYS_MAX: usize = 50;

/// Characters of a query. AWS's model: a processor's parameter has at most 5,120.
pub const QUERY_CHARACTERS_MAX: usize = 5_120;

/// How deep a query may be nested; a chain of pipes counts as nested.
pub const QUERY_DEPTH_MAX: usize = 100;

/// Bytes that a query may make out of one record, by the bound that is worked out beforehand.
pub const QUERY_COST_MAX: f64 = 64.0 * 1024.0 * 1024.0;

/// Records up to this size must be within that bound, or the query is refused when the delivery stream is made.
pub const QUERY_RECORD_BYTES: usize = 4 * 1024;

/// Delivery streams of one account and region (quotas: 5,000 in the largest regions).
pub const STREAMS_PER_ACCOUNT_MAX: usize = 5000;

/// Names in one answer of ListDeliveryStreams unless the caller says otherwise (service model).
pub const LIST_STREAMS_DEFAULT: usize = 10;

/// Tags of one delivery stream (service model).
pub const TAGS_MAX: usize = 50;

/// Bytes of the records of one PutRecordBatch: 4 MiB (API reference).
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long records that were put directly are kept when they cannot be delivered: 24 hours (developer guide).
pub const RETENTION_MS: i64 = 86_400_000;

/// Bytes of records of one delivery stream that wait; more are refused with ServiceUnavailableException. Ours: AWS limits
/// the rate instead.
pub const BACKLOG_BYTES_MAX: u64 = 16 << 30;

/// Mebibytes of a buffer unless the caller says otherwise (service model of BufferingHints).
pub const BUFFER_MIB_DEFAULT: i32 = 5;

/// The same where records are converted to columns (service model of DataFormatConversionConfiguration).
pub const BUFFER_MIB_CONVERTING: i32 = 128;

/// The least where records are converted or dynamically partitioned (developer guide).
pub const BUFFER_MIB_MIN_LARGE: i32 = 64;

/// Seconds that a buffer waits unless the caller says otherwise (service model of BufferingHints).
pub const BUFFER_SECONDS_DEFAULT: i32 = 300;

/// Seconds for which dynamic partitioning is tried again, unless the caller says otherwise (service model of RetryOptions).
pub const PARTITIONING_RETRY_SECONDS_DEFAULT: i32 = 300;

/// Partitions that are filled at once; records of more go to the error output (quotas).
pub const ACTIVE_PARTITIONS_MAX: usize = 500;

/// Bytes of records that all delivery streams together hold in memory, unless the configuration says otherwise. Ours.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;

/// The least that the configuration may say: one buffer of the largest size fits into it.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Records and bytes that one read of the source gives. Ours: long enough that a read costs nothing beside its records.
pub const READ_RECORDS: usize = 10_000;
/// See [`READ_RECORDS`].
pub const READ_BYTES: usize = 4 << 20;

/// Buffers of one delivery stream that are on their way at once. Ours: one is compressed while another is stored.
pub const JOBS_MAX: usize = 4;

/// Time until a delivery that failed is tried again: the first, doubled each time, and the longest. Ours.
pub const RETRY_MS: u64 = 500;
/// See [`RETRY_MS`].
pub const RETRY_MS_MAX: u64 = 30_000;

/// How long deliveries that are under way may take to end when their delivery stream is changed, deleted, or the server
/// ends; what is left is done again. Ours.
pub const STOP_WITHIN_MS: u64 = 10_000;

/// Time between two sweeps: delivered records are forgotten, and what is beyond its retention. Ours.
pub const SWEEP_INTERVAL_MS: u64 = 10_000;

/// Objects up to this size are put in one piece. Ours: it is the least of a part of S3's uploads in parts.
pub const PUT_BYTES: usize = 8 << 20;

/// Bytes that are handed to an upload at once. Ours.
pub const PIECE_BYTES: usize = 1 << 20;
