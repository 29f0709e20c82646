//! Why a request was not let in, in AWS's codes and words.

use base::ApiError;

/// The reason for a refusal. The text is AWS's own where clients look at it; it never holds a secret or a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request carries no signature.
    #[error("Missing Authentication Token")]
    MissingToken,
    /// The signature's parts are absent or malformed; the text says which.
    #[error("{0}")]
    Incomplete(String),
    /// No such access key, or it was revoked, or its session token does not belong to it.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The session's time is over.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
    /// The signature is that of another request, body or secret.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    /// The signature is too old, too new, or its dates contradict each other; the text says which, as AWS does.
    #[error("{0}")]
    BadDate(String),
    /// Body and declared body hash differ, or the operation does not take an unsigned body.
    #[error("{0}")]
    BadPayload(String),
}

impl AuthError {
    /// The error's code for JSON and REST services; the query services (STS, CloudWatch) have other names.
    pub fn code(&self, service: &str) -> &'static str {
        let query = matches!(service, "sts" | "iam" | "monitoring" | "sns");
        match self {
            AuthError::MissingToken if query => "MissingAuthenticationToken",
            AuthError::MissingToken => "MissingAuthenticationTokenException",
            AuthError::Incomplete(_) if query => "IncompleteSignature",
            AuthError::Incomplete(_) => "IncompleteSignatureException",
            AuthError::UnknownKey if query => "InvalidClientTokenId",
            AuthError::UnknownKey => "UnrecognizedClientException",
            AuthError::ExpiredToken if query => "ExpiredToken",
            AuthError::ExpiredToken => "ExpiredTokenException",
            AuthError::Mismatch | AuthError::BadDate(_) | AuthError::BadPayload(_) if query => "SignatureDoesNotMatch",
            AuthError::Mismatch | AuthError::BadDate(_) | AuthError::BadPayload(_) => "InvalidSignatureException",
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            AuthError::Incomplete(_) => 400,
            _ => 403,
        }
    }

    /// The error as the service of the given signing name would answer it.
    pub fn to_api_error(&self, service: &str) -> ApiError {
        ApiError::client(self.code(service), self.to_string()).with_status(self.status())
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        error.to_api_error("")
    }
}
