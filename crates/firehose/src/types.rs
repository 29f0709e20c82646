//! What flows from the source of a delivery stream to its destination. Bytes are shared, never copied, on the way.

use std::fmt;

use base::{AccountId, ApiError, Region, Timestamp};
use bytes::Bytes;
use storage::{SequenceNumber, ShardId};

/// A record as it came out of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its bytes.
    pub data: Bytes,
    /// When it arrived at the delivery stream or at the data stream.
    pub arrival: Timestamp,
    /// Where it came from.
    pub source: Source,
}

/// Where a record came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The shard: of the data stream, or of the delivery stream's own log where records are put directly.
    pub shard: ShardId,
    /// Its number in the shard.
    pub sequence: SequenceNumber,
    /// Its partition key; empty where records are put directly.
    pub partition_key: String,
}

/// What the processors and the endpoints are told of the delivery stream that they work for.
#[derive(Clone, Debug)]
pub struct About {
    /// Whose it is.
    pub account: AccountId,
    /// Where it is.
    pub region: Region,
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The ARN of the data stream that it reads; `None` where records are put directly.
    pub source_arn: Option<String>,
}

/// Keys that a record was given for dynamic partitioning, in the order in which they were found. Empty for most.
pub type Keys = Vec<(String, String)>;

/// A record that may be delivered: one for each record that went in, or more where it was taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// What is delivered.
    pub data: Bytes,
    /// When the record that it comes from arrived.
    pub arrival: Timestamp,
    /// The number of the record that it comes from, and its place in an aggregate of the KPL.
    pub sequence: Option<(SequenceNumber, u64)>,
    /// `!{partitionKeyFromQuery:…}`
    pub query_keys: Keys,
    /// `!{partitionKeyFromLambda:…}`
    pub lambda_keys: Keys,
}

/// A record that cannot be delivered; it goes to the error output with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The record as it was before what failed.
    pub raw: Bytes,
    /// When it arrived.
    pub arrival: Timestamp,
    /// AWS's code, e.g. `Lambda.FunctionError`.
    pub code: String,
    /// What went wrong.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Which part of delivery failed.
    pub kind: ErrorOutputType,
    /// The number of the record that it comes from, where that is known.
    pub sequence: Option<SequenceNumber>,
    /// What else the error record says, e.g. `lambdaArn` or `EsDocumentId`: names and JSON text of values.
    pub more: Vec<(&'static str, String)>,
}

/// What became of the records of one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processed {
    /// What is delivered, in the order of the source.
    pub ready: Vec<Ready>,
    /// What is not.
    pub failed: Vec<Failed>,
}

/// Which part of delivery failed: what `!{firehose:error-output-type}` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorOutputType {
    /// A processor: the transform, de-aggregation, decompression, or the keys of dynamic partitioning.
    Processing,
    /// The decompression of records.
    Decompression,
    /// The conversion to Parquet or ORC.
    FormatConversion,
    /// The HTTP endpoint took it not.
    HttpEndpoint,
    /// Splunk took it not.
    Splunk,
    /// OpenSearch took it not.
    OpenSearch,
    /// OpenSearch Serverless took it not.
    OpenSearchServerless,
    /// Elasticsearch took it not.
    Elasticsearch,
    /// The Iceberg table took it not.
    Iceberg,
}

impl ErrorOutputType {
    /// The text in names of objects.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorOutputType::Processing => "processing-failed",
            ErrorOutputType::Decompression => "decompression-failed",
            ErrorOutputType::FormatConversion => "format-conversion-failed",
            ErrorOutputType::HttpEndpoint => "http-endpoint-failed",
            ErrorOutputType::Splunk => "splunk-failed",
            ErrorOutputType::OpenSearch => "AmazonOpenSearchService_failed",
            ErrorOutputType::OpenSearchServerless => "AmazonOpenSearchServerless_failed",
            ErrorOutputType::Elasticsearch => "elasticsearch-failed",
            ErrorOutputType::Iceberg => "iceberg-failed",
        }
    }
}

impl fmt::Display for ErrorOutputType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much waits, and how long, before it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// Bytes.
    pub bytes: usize,
    /// Milliseconds since the first record of the buffer was read; 0: as soon as there is something.
    pub interval_ms: i64,
}

/// A configuration that cannot be carried out, in words for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        ApiError::client("InvalidArgumentException", refused.0)
    }
}
