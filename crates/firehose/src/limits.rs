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
