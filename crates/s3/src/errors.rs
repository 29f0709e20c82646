//! Errors of buckets and of authentication in S3's codes.

use auth::AuthError;
use objects::ObjectError;
use s3s::{S3Error, S3ErrorCode, s3_error};

/// [`S3Error`] with a way in from what `objects` says.
#[derive(Debug)]
pub(crate) struct Failure(pub S3Error);

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Self {
        Failure(error)
    }
}

impl From<Failure> for S3Error {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

impl From<ObjectError> for Failure {
    fn from(error: ObjectError) -> Self {
        Failure(s3_of(error))
    }
}

fn code_of(error: &ObjectError) -> S3ErrorCode {
    match error {
        ObjectError::NoSuchBucket(_) => S3ErrorCode::NoSuchBucket,
        ObjectError::BucketExists(_) => S3ErrorCode::BucketAlreadyOwnedByYou,
        ObjectError::BucketNotEmpty(_) => S3ErrorCode::BucketNotEmpty,
        ObjectError::NoSuchKey(_) => S3ErrorCode::NoSuchKey,
        ObjectError::NoSuchUpload(_) => S3ErrorCode::NoSuchUpload,
        ObjectError::InvalidPart(_) => S3ErrorCode::InvalidPart,
        ObjectError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
        ObjectError::PartTooSmall { .. } => S3ErrorCode::EntityTooSmall,
        ObjectError::BadDigest(_) => S3ErrorCode::BadDigest,
        ObjectError::PreconditionFailed(_) => S3ErrorCode::PreconditionFailed,
        ObjectError::Conflict => S3ErrorCode::OperationAborted,
        ObjectError::RangeNotSatisfiable(_) => S3ErrorCode::InvalidRange,
        ObjectError::TooLarge { what: "the key", .. } => S3ErrorCode::KeyTooLongError,
        ObjectError::TooLarge {
            what: "the user metadata" | "the description of the object",
            ..
        } => S3ErrorCode::MetadataTooLarge,
        ObjectError::TooLarge {
            what: "the number of buckets",
            ..
        } => S3ErrorCode::TooManyBuckets,
        ObjectError::TooLarge {
            what: "the source of the copy",
            ..
        } => S3ErrorCode::InvalidRequest,
        ObjectError::TooLarge { .. } => S3ErrorCode::EntityTooLarge,
        ObjectError::Invalid(_) => S3ErrorCode::InvalidArgument,
        ObjectError::Incomplete(_) => S3ErrorCode::IncompleteBody,
        ObjectError::Denied(_) => S3ErrorCode::AccessDenied,
        ObjectError::Unreachable(_) | ObjectError::Full => S3ErrorCode::ServiceUnavailable,
        ObjectError::Storage(_) => S3ErrorCode::InternalError,
    }
}

/// In S3's code; what is for the log alone is not told.
pub(crate) fn s3_of(error: ObjectError) -> S3Error {
    let code = code_of(&error);
    let message = match &error {
        ObjectError::NoSuchBucket(_) => "The specified bucket does not exist".to_owned(),
        ObjectError::NoSuchKey(_) => "The specified key does not exist.".to_owned(),
        ObjectError::NoSuchUpload(_) => {
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or \
             completed."
                .to_owned()
        }
        ObjectError::PreconditionFailed(_) => {
            "At least one of the pre-conditions you specified did not hold".to_owned()
        }
        ObjectError::RangeNotSatisfiable(_) => "The requested range is not satisfiable".to_owned(),
        ObjectError::BucketNotEmpty(_) => "The bucket you tried to delete is not empty".to_owned(),
        ObjectError::BucketExists(_) => {
            "Your previous request to create the named bucket succeeded and you already own it.".to_owned()
        }
        ObjectError::Storage(_) => "We encountered an internal error. Please try again.".to_owned(),
        ObjectError::Full => "The disk of the server is full. Please try again when space has returned.".to_owned(),
        other => other.to_string(),
    };
    let mut out = S3Error::with_message(code, message);
    out.set_source(Box::new(error));
    out
}

/// Why a signature was refused, in S3's codes.
pub(crate) fn of_auth(error: &AuthError, by_query: bool, has_token: bool) -> S3Error {
    let text = error.to_string();
    match error {
        AuthError::MissingToken => s3_error!(AccessDenied, "Access Denied: the request is not signed."),
        AuthError::Incomplete(_) if by_query => {
            S3Error::with_message(S3ErrorCode::AuthorizationQueryParametersError, text)
        }
        AuthError::Incomplete(_) => S3Error::with_message(S3ErrorCode::AuthorizationHeaderMalformed, text),
        AuthError::UnknownKey if has_token => {
            s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid.")
        }
        AuthError::UnknownKey => s3_error!(
            InvalidAccessKeyId,
            "The AWS Access Key Id you provided does not exist in our records."
        ),
        AuthError::ExpiredToken => s3_error!(ExpiredToken, "The provided token has expired."),
        AuthError::BadDate(_) if by_query && text.starts_with("Signature expired") => {
            s3_error!(AccessDenied, "Request has expired")
        }
        AuthError::BadDate(_) => S3Error::with_message(S3ErrorCode::RequestTimeTooSkewed, text),
        AuthError::Mismatch | AuthError::BadPayload(_) => {
            S3Error::with_message(S3ErrorCode::SignatureDoesNotMatch, text)
        }
    }
}
