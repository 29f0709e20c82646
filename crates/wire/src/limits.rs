//! Limits of what a request may ask this crate to hold, each with its source.

/// Nodes of one document. The largest legal request (500 records of PutRecords, 1000 fragment numbers) has a few
/// thousand; beyond this limit a body of `[[],[],...` would take twenty times its size in memory.
pub const DOCUMENT_NODES_MAX: usize = 262_144;

/// Nesting of one document. The deepest request shape of the models has nine levels; a document of DynamoDB may have 32, each of
/// them two here.
pub const DOCUMENT_DEPTH_MAX: usize = 80;

/// Violations listed in one message; AWS's own message lists all, which a caller could make as long as the body.
pub const VIOLATIONS_MAX: usize = 10;

/// Characters of a value that are quoted in a message.
pub const QUOTED_CHARS_MAX: usize = 256;

/// Pairs of a form body. The longest list is that of PutMetricData: 1000 metrics, of which a consumer library sends 200 at once
/// with a dozen pairs each.
pub const FORM_PAIRS_MAX: usize = 32_768;

const MIB: usize = 1024 * 1024;

/// The largest body by signing name: Kinesis takes 10 MiB of records in base64 beside their keys (API reference of
/// PutRecords), Firehose 4 MiB in base64, Rekognition images of 5 MiB in base64 (two for CompareFaces), DynamoDB 16 MB
/// (BatchWriteItem). The others carry names and settings.
pub fn body_bytes_max(signing_name: &str) -> usize {
    match signing_name {
        "kinesis" | "rekognition" | "dynamodb" => 16 * MIB,
        "firehose" => 8 * MIB,
        _ => MIB,
    }
}
