//! What can go wrong with a bucket.

/// An error of a bucket, local or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The account has no bucket of this name (another account's is not told from a missing one).
    #[error("the bucket {0:?} does not exist")]
    NoSuchBucket(String),
    /// The bucket has no object of this key.
    #[error("there is no object {0:?}")]
    NoSuchKey(String),
    /// A condition of the call did not hold, e.g. [`PutOptions::if_none_match`](crate::PutOptions::if_none_match).
    #[error("a condition of the request did not hold: {0}")]
    PreconditionFailed(&'static str),
    /// The range begins behind the end of the object, which has this many bytes.
    #[error("the range is not within the object of {0} bytes")]
    RangeNotSatisfiable(u64),
    /// The object, or what describes it, is larger than a limit.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The call makes no sense, in words for the caller.
    #[error("{0}")]
    Invalid(String),
    /// The bucket's keeper refuses: bad credentials, or a policy. Trying again does not help.
    #[error("access to the bucket was denied: {0}")]
    Denied(String),
    /// The bucket's keeper cannot be reached or has trouble; try again later.
    #[error("the bucket cannot be reached: {0}")]
    Unreachable(String),
    /// No space on the device; nothing of the call was kept.
    #[error("the disk is full")]
    Full,
    /// The device or the catalog failed, in words for the log.
    #[error("storage: {0}")]
    Storage(String),
}

impl ObjectError {
    /// True if the same call may succeed later without anybody mending the request or the configuration.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            ObjectError::Unreachable(_) | ObjectError::Full | ObjectError::Storage(_)
        )
    }
}
