//! What can go wrong between this client and a server.

/// An answer that was not a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The error's name, e.g. `ResourceNotFoundException`; empty when the server named none.
    pub code: String,
    /// The server's words.
    pub message: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no.
    #[error(transparent)]
    Refused(#[from] Answer),
    /// The server could not be reached, or TLS failed.
    #[error("cannot reach {authority}: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// The request could not be written as HTTP.
    #[error("the request is not legal HTTP: {0}")]
    Request(#[from] http::Error),
    /// The answer is not what the operation answers.
    #[error("the answer cannot be understood: {0}")]
    Protocol(String),
    /// The answer took too long.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
}

impl ClientError {
    /// The error name that the server gave.
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Refused(answer) => Some(&answer.code),
            _ => None,
        }
    }
}
