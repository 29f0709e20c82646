//! What goes wrong, in DynamoDB's words.

use base::ApiError;
use storage::CatalogError;

/// A request that its model allows and the service does not.
pub fn validation(message: impl Into<String>) -> ApiError {
    ApiError::client("ValidationException", message)
}

/// The same with the words that begin most of them.
pub fn invalid_value(message: impl std::fmt::Display) -> ApiError {
    validation(format!("One or more parameter values were invalid: {message}"))
}

/// A table that items are asked of.
pub fn no_table() -> ApiError {
    ApiError::client("ResourceNotFoundException", "Requested resource not found")
}

/// A table that is asked for itself.
pub fn table_not_found(name: &str) -> ApiError {
    ApiError::client(
        "ResourceNotFoundException",
        format!("Requested resource not found: Table: {name} not found"),
    )
}

/// A failure of the catalog.
pub fn catalog_failure(error: CatalogError) -> ApiError {
    let message = match error {
        CatalogError::Full => "The disk of the server is full; try again when space has returned.",
        _ => "The request could not be carried out.",
    };
    ApiError::server("InternalServerError", message, error)
}

/// The condition of a single write did not hold.
pub fn condition_failed(item: Option<String>) -> ApiError {
    let mut error = ApiError::client("ConditionalCheckFailedException", "The conditional request failed");
    error.members.extend(item.map(|json| ("Item", json)));
    error
}

/// What this server does not do, and says so.
pub fn unsupported(what: &str) -> ApiError {
    validation(format!(
        "{what} is not supported by this server; see docs/reference/tables.md"
    ))
}
