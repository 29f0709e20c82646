//! How reading fails.

use std::sync::Arc;
use std::time::Duration;

use crate::error::ClientError;
use crate::reader::fragment::FragmentError;

/// Why media could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// The server refuses, or cannot be reached.
    #[error("{}", said(.0))]
    Client(#[from] ClientError),
    /// Attempts failed for as long as the reader was told to try.
    #[error("no media for {:?}; last: {}", .0, said(.1))]
    GaveUp(Duration, Arc<ClientError>),
    /// The media is not Matroska.
    #[error("the media cannot be understood: {0}")]
    Media(#[from] matroska::Error),
    /// A fragment could not be returned.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// A fragment is larger than the reader was told to hold.
    #[error("a fragment is larger than {0} bytes")]
    FragmentTooLarge(usize),
    /// The range names too many fragments to be sorted in memory.
    #[error("the range holds more than {0} fragments; read it in parts")]
    TooManyFragments(usize),
}

fn said(error: &ClientError) -> String {
    match error.advice() {
        Some(advice) => format!("{error} ({advice})"),
        None => error.to_string(),
    }
}
