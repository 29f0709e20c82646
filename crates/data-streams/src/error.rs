//! What goes wrong, and how each is told to a caller.

use base::{AccountId, ApiError, ResourceName};
use storage::{CatalogError, ShardId};

use crate::arn::shard_id_text;
use crate::limits;
use crate::stored::StreamRecord;

/// Why [`DataStreams::put`](crate::DataStreams::put) stored nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// There is no such stream, or it was deleted, or it was made anew after it was found.
    #[error("the data stream does not exist")]
    StreamNotFound,
    /// A record is bigger than the stream takes.
    #[error("a record of {bytes} bytes; the stream takes {max}")]
    RecordTooLarge {
        /// Its data and key.
        bytes: usize,
        /// The stream's limit.
        max: usize,
    },
    /// No space on the device; it may be tried again when space has returned.
    #[error("the disk is full")]
    DiskFull,
    /// The log failed, in words for the server's log.
    #[error("{0}")]
    Failed(String),
}

impl From<storage::Error> for PutError {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::NotFound => PutError::StreamNotFound,
            storage::Error::DiskFull => PutError::DiskFull,
            other => PutError::Failed(other.to_string()),
        }
    }
}

/// A caller's mistake in an argument.
pub fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidArgumentException", message)
}

/// The same for a stream that never was, one that was deleted, and one of somebody else.
pub fn stream_not_found(name: &str, account: AccountId) -> ApiError {
    ApiError::client(
        "ResourceNotFoundException",
        format!("Stream {name} under account {account} not found."),
    )
}

/// A shard that the stream does not have.
pub fn shard_not_found(shard: &str, name: &str, account: AccountId) -> ApiError {
    ApiError::client(
        "ResourceNotFoundException",
        format!("Shard {shard} in stream {name} under account {account} does not exist"),
    )
}

/// A failure of the record log while it served `name`.
pub fn log_failure(error: storage::Error, name: &str, account: AccountId) -> ApiError {
    match error {
        storage::Error::NotFound => stream_not_found(name, account),
        storage::Error::DiskFull => full(),
        other => ApiError::server("InternalFailureException", "The records could not be reached.", other),
    }
}

/// A failure of the catalog.
pub fn catalog_failure(error: CatalogError) -> ApiError {
    match error {
        CatalogError::Full => full(),
        other => ApiError::server("InternalFailure", "The request could not be carried out.", other),
    }
}

fn full() -> ApiError {
    ApiError::server(
        "InternalFailureException",
        "The disk of the server is full; try again when space has returned.",
        "disk full",
    )
    .with_status(500)
}

/// The model's rules were kept, but what was asked is not possible with this stream.
pub fn validation(message: impl Into<String>) -> ApiError {
    ApiError::client("ValidationException", message)
}

/// Refuses what needs a stream that is not being changed.
pub fn not_active(record: &StreamRecord, name: &ResourceName) -> Result<(), ApiError> {
    if record.reshard.is_none() {
        return Ok(());
    }
    Err(ApiError::client(
        "ResourceInUseException",
        format!(
            "Stream {} under account {} not ACTIVE, instead in state UPDATING",
            name.name, name.account
        ),
    ))
}

/// More shards than there may be.
pub fn shard_limit(name: &ResourceName, there: usize, more: usize) -> ApiError {
    ApiError::client(
        "LimitExceededException",
        format!(
            "This request would exceed the shard limit for the account {} in {}. Current shard count for the account: {there}. \
             Limit: {}; {} for one stream. Number of additional shards that would have resulted from this request: {more}.",
            name.account,
            name.region,
            limits::SHARDS_PER_ACCOUNT_MAX,
            limits::SHARDS_PER_STREAM_MAX
        ),
    )
}

/// A consumer that is not there.
pub fn consumer_not_found(name: &str, account: AccountId) -> ApiError {
    ApiError::client(
        "ResourceNotFoundException",
        format!("Consumer {name}, account {account} not found."),
    )
}

/// A queue that is not there, or is somebody else's.
pub fn queue_not_found(key: &str, account: AccountId) -> ApiError {
    ApiError::client(
        "ResourceNotFoundException",
        format!("Queue {key} under account {account} not found."),
    )
}

/// Refuses what cannot be while a stream has queues.
pub fn has_queues(record: &StreamRecord, name: &ResourceName) -> Result<(), ApiError> {
    if record.queues.is_empty() {
        return Ok(());
    }
    Err(ApiError::client(
        "ResourceInUseException",
        format!(
            "Stream {} under account {} has {} queues; delete them first.",
            name.name,
            name.account,
            record.queues.len()
        ),
    ))
}

/// Refuses what cannot be while a stream has channels.
pub fn has_channels(channels: usize, name: &ResourceName) -> Result<(), ApiError> {
    if channels == 0 {
        return Ok(());
    }
    Err(ApiError::client(
        "ResourceInUseException",
        format!(
            "Stream {} under account {} has {channels} channels; delete them first.",
            name.name, name.account
        ),
    ))
}

/// AWS's words for a shard that has too much to do.
pub fn rate_exceeded(shard: ShardId, name: &ResourceName) -> String {
    format!(
        "Rate exceeded for shard {} in stream {} under account {}.",
        shard_id_text(shard),
        name.name,
        name.account
    )
}
