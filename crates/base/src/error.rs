//! The one error shape that services hand to the edge: what the caller is told, and apart from it what the log is told.

use std::borrow::Cow;
use std::fmt;

/// Whose mistake it was; decides 4xx or 5xx where the service model gives no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller can mend it.
    Client,
    /// The server or its disk is in trouble.
    Server,
}

/// A declared error of an operation. `code` is the name in the service model, e.g. `ResourceNotFoundException`; the
/// HTTP status is looked up in the operation's error table when it is rendered.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The error's name in the service model or in AWS's list of common errors.
    pub code: Cow<'static, str>,
    /// For the person who gets it: what was wrong, with which value, what to do. Holds no secret and no other account's data.
    pub message: String,
    /// Whose mistake it was.
    pub fault: Fault,
    /// Overrides the status of the error table; `None` almost always.
    pub status: Option<u16>,
    /// More members of the error's shape, as name and JSON text, e.g. `("ProgressToken", "\"abc\"")`.
    pub members: Vec<(&'static str, String)>,
    /// For the log alone.
    pub detail: Option<String>,
}

impl ApiError {
    /// An error that the caller can mend.
    pub fn client(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        ApiError {
            code: code.into(),
            message: message.into(),
            fault: Fault::Client,
            status: None,
            members: Vec::new(),
            detail: None,
        }
    }

    /// An error of the server. The caller gets `message`; `detail` goes to the log.
    pub fn server(code: impl Into<Cow<'static, str>>, message: impl Into<String>, detail: impl fmt::Display) -> Self {
        ApiError {
            fault: Fault::Server,
            detail: Some(detail.to_string()),
            ..ApiError::client(code, message)
        }
    }

    /// The same error with a fixed HTTP status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        ApiError {
            status: Some(status),
            ..self
        }
    }

    /// The same error with a text for the log alone.
    #[must_use]
    pub fn with_detail(self, detail: impl fmt::Display) -> Self {
        ApiError {
            detail: Some(detail.to_string()),
            ..self
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, " [{detail}]"))
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ApiError {}
