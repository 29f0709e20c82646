//! What goes wrong, and how each is told to a caller.

use base::{AccountId, ApiError};
use storage::CatalogError;

/// A caller's mistake in an argument.
pub fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidArgumentException", message)
}

/// The request cannot be carried out on this application.
pub fn invalid_request(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidRequestException", message)
}

/// The configuration cannot run.
pub fn configuration(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidApplicationConfigurationException", message)
}

/// The code cannot run.
pub fn code(message: impl Into<String>) -> ApiError {
    ApiError::client("CodeValidationException", message)
}

/// This server does not do that.
pub fn unsupported(message: impl Into<String>) -> ApiError {
    ApiError::client("UnsupportedOperationException", message)
}

/// The application, or its snapshot, is not in the state for it.
pub fn in_use(message: impl Into<String>) -> ApiError {
    ApiError::client("ResourceInUseException", message)
}

/// Somebody else was first.
pub fn concurrent(message: impl Into<String>) -> ApiError {
    ApiError::client("ConcurrentModificationException", message)
}

/// More than an account or an application may have.
pub fn limit(message: impl Into<String>) -> ApiError {
    ApiError::client("LimitExceededException", message)
}

/// The same for an application that never was, one that was deleted, and one of somebody else.
pub fn not_found(name: &str, account: AccountId) -> ApiError {
    missing(format!("Application {name} under account {account} not found."))
}

/// Something of an application is not there.
pub fn missing(message: impl Into<String>) -> ApiError {
    ApiError::client("ResourceNotFoundException", message)
}

/// The catalog failed.
pub fn catalog_failure(error: CatalogError) -> ApiError {
    match error {
        CatalogError::Full => ApiError::server("ServiceUnavailableException", "The disk is full.", error),
        other => ApiError::server("InternalFailure", "The request could not be carried out.", other),
    }
}
