//! What can go wrong between this client and a server, and what to do about it.

use crate::credentials::CredentialsError;

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
    /// The answer ended before what was asked for was there.
    #[error("the answer ended early")]
    Truncated,
    /// The request could not be written as HTTP.
    #[error("the request is not legal HTTP: {0}")]
    Request(#[from] http::Error),
    /// The answer is not what the operation answers.
    #[error("the answer cannot be understood: {0}")]
    Protocol(String),
    /// The answer took too long.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The server ended a PutMedia connection by an acknowledgement.
    #[error("the server ended the connection: {id} {code}")]
    Acknowledged {
        /// The `ErrorId`.
        id: i64,
        /// The `ErrorCode`.
        code: String,
    },
    /// There is nothing to sign with.
    #[error("no credentials: {0}")]
    Credentials(#[source] CredentialsError),
}

impl ClientError {
    /// The error name that the server gave.
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Refused(answer) => Some(&answer.code),
            _ => None,
        }
    }

    /// Whether the same request may succeed a little later: the server was away, busy, or failed. What it refuses for a
    /// reason of the caller's stays refused.
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Refused(answer) => answer.is_transient(),
            ClientError::Connect { .. }
            | ClientError::Broken(_)
            | ClientError::Truncated
            | ClientError::Timeout(_)
            | ClientError::Acknowledged { .. }
            | ClientError::Credentials(_) => true,
            ClientError::Request(_) | ClientError::Protocol(_) => false,
        }
    }

    /// Whether the credentials, not the request, were refused: new ones may help.
    pub fn is_expired_credentials(&self) -> bool {
        matches!(
            self.code(),
            Some(
                "ExpiredTokenException"
                    | "ExpiredToken"
                    | "InvalidClientTokenId"
                    | "UnrecognizedClientException"
                    | "InvalidSignatureException"
            )
        )
    }

    /// What the person at the keyboard can do, in a sentence; `None` where the message says it.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            ClientError::Refused(answer) => answer.advice(),
            ClientError::Connect { .. } | ClientError::Timeout(_) => {
                Some("is the server running, and is the endpoint (AWS_ENDPOINT_URL) its address?")
            }
            _ => None,
        }
    }
}

impl Answer {
    fn is_transient(&self) -> bool {
        self.status >= 500
            || matches!(self.status, 408 | 429)
            || matches!(
                self.code.as_str(),
                "ClientLimitExceededException"
                    | "ConnectionLimitExceededException"
                    | "ProvisionedThroughputExceededException"
                    | "ThrottlingException"
                    | "Throttling"
                    | "RequestTimeout"
            )
    }

    fn advice(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            "ResourceNotFoundException" => "make the stream first, or check its name, the region and the account",
            "NotAuthorizedException" | "AccessDeniedException" | "AccessDenied" => {
                "the key's policy does not allow this; use another key"
            }
            "ExpiredTokenException" | "ExpiredToken" => "get new temporary credentials",
            "InvalidClientTokenId" | "UnrecognizedClientException" | "MissingAuthenticationToken" => {
                "the server does not know the access key; `sightglass env` prints one that it knows"
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" => {
                "check the secret key, and that this machine's clock is right"
            }
            "ConnectionLimitExceededException" => "another producer or reader holds the stream's connections",
            _ => return None,
        })
    }
}
