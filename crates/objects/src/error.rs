//! What can go wrong with a bucket.

use storage::CatalogError;

/// An error of a bucket, local or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The account has no bucket of this name (another account's is not told from a missing one).
    #[error("the bucket {0:?} does not exist")]
    NoSuchBucket(String),
    /// The account has a bucket of this name.
    #[error("the bucket {0:?} exists")]
    BucketExists(String),
    /// A bucket that holds objects or unfinished uploads is not deleted.
    #[error("the bucket {0:?} is not empty")]
    BucketNotEmpty(String),
    /// The bucket has no object of this key.
    #[error("there is no object {0:?}")]
    NoSuchKey(String),
    /// There is no such upload in parts; it was completed or aborted, or never was.
    #[error("there is no upload {0:?}")]
    NoSuchUpload(String),
    /// A part that the call names was not uploaded, or is not the one that is meant.
    #[error("part {0} was not uploaded, or its ETag or checksum is another")]
    InvalidPart(u16),
    /// The parts are not named in ascending order.
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    /// A part, and not the last, is smaller than 5 MiB.
    #[error("part {number} of {bytes} bytes is smaller than the least size of a part")]
    PartTooSmall {
        /// Its number.
        number: u16,
        /// Its size.
        bytes: u64,
    },
    /// The bytes do not have the digest that was sent with them.
    #[error("the {0} that was sent is not that of the bytes that arrived")]
    BadDigest(&'static str),
    /// A condition of the call did not hold, e.g. [`PutOptions::if_none_match`](crate::PutOptions::if_none_match).
    #[error("a condition of the request did not hold: {0}")]
    PreconditionFailed(&'static str),
    /// Another change of the same object came between again and again.
    #[error("another change of the same object is under way")]
    Conflict,
    /// The range begins behind the end of the object, which has this many bytes.
    #[error("the range is not within the object of {0} bytes")]
    RangeNotSatisfiable(u64),
    /// The object, or what describes it, is larger than a limit.
    #[error("{what} is larger than the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The call makes no sense, in words for the caller.
    #[error("{0}")]
    Invalid(String),
    /// The body broke off before its end; nothing of it was kept.
    #[error("the body broke off: {0}")]
    Incomplete(String),
    /// The bucket's keeper refuses: bad credentials, or a policy. Trying again does not help.
    #[error("access to the bucket was denied: {0}")]
    Denied(String),
    /// The bucket's keeper cannot be reached or has trouble; try again later.
    #[error("the bucket cannot be reached: {0}")]
    Unreachable(String),
    /// No space on the device; nothing of the call was kept.
    #[error("the disk is full")]
    Full,
    /// The device or the catalog failed, or stored bytes are not what was written; in words for the log.
    #[error("storage: {0}")]
    Storage(String),
}

impl ObjectError {
    /// True if the same call may succeed later without anybody mending the request or the configuration.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            ObjectError::Unreachable(_) | ObjectError::Full | ObjectError::Conflict | ObjectError::Storage(_)
        )
    }

    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded) {
            return ObjectError::Full;
        }
        ObjectError::Storage(format!("{what}: {error}"))
    }
}

impl From<CatalogError> for ObjectError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Conflict { .. } => ObjectError::Conflict,
            CatalogError::Full => ObjectError::Full,
            other => ObjectError::Storage(other.to_string()),
        }
    }
}
