//! What goes wrong, and how each is told to a caller.

use base::{AccountId, ApiError};
use storage::CatalogError;

/// A caller's mistake in an argument.
pub fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidArgumentException", message)
}

/// The same for a delivery stream that never was, one that was deleted, and one of somebody else.
pub fn not_found(name: &str, account: AccountId) -> ApiError {
    ApiError::client(
        "ResourceNotFoundException",
        format!("Firehose {name} under account {account} not found."),
    )
}

/// The name is taken.
pub fn in_use(name: &str, account: AccountId) -> ApiError {
    ApiError::client(
        "ResourceInUseException",
        format!("Firehose {name} under accountId {account} already exists"),
    )
}

/// More than an account or a delivery stream may have.
pub fn limit(message: impl Into<String>) -> ApiError {
    ApiError::client("LimitExceededException", message)
}

/// The producer is to slow down.
pub fn unavailable() -> ApiError {
    ApiError::client("ServiceUnavailableException", "Slow down.").with_status(503)
}

/// The catalog failed.
pub fn catalog_failure(error: CatalogError) -> ApiError {
    match error {
        CatalogError::Full => ApiError::server("ServiceUnavailableException", "The disk is full.", error),
        other => ApiError::server("InternalFailure", "The request could not be carried out.", other),
    }
}

/// The log failed.
pub fn log_failure(error: storage::Error) -> ApiError {
    match error {
        storage::Error::DiskFull => ApiError::server("ServiceUnavailableException", "The disk is full.", "the log"),
        other => ApiError::server("InternalFailure", "The records could not be stored.", other),
    }
}
