//! What callers are told when something is wrong: one enum for the operations on streams and one for those on media, both
//! turned into AWS's errors here and nowhere else. A stream of another account gives the very words of one that does not
//! exist.

use base::ApiError;
use packaging::PackagingError;
use storage::CatalogError;

use crate::limits;
use crate::ports::StillsError;

/// Why an operation on streams was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such stream for this caller.
    #[error("The requested stream is not found or not active.")]
    NotFound,
    /// There is a stream of that name.
    #[error("The stream {0} already exists.")]
    NameTaken(String),
    /// There is no such channel for this caller.
    #[error("The requested channel is not found or not active.")]
    ChannelNotFound,
    /// There is a channel of that name.
    #[error("The channel {0} already exists.")]
    ChannelNameTaken(String),
    /// The account has too many channels in this region.
    #[error("The account has {max} signaling channels in this region, which is the limit.", max = limits::CHANNELS_PER_ACCOUNT)]
    TooManyChannels,
    /// The resource is taken by something else, which the text names.
    #[error("{0}")]
    InUse(String),
    /// The stream keeps nothing.
    #[error("The stream's data retention is 0 hours; this needs a stream that keeps its media.")]
    NoDataRetention,
    /// The stream has no edge configuration.
    #[error("The stream has no edge configuration.")]
    NoEdgeConfiguration,
    /// The text is not the ARN of a stream.
    #[error("The format of the StreamARN is invalid.")]
    InvalidResourceFormat,
    /// The caller's version is not the resource's.
    #[error(
        "The version {given} is not the current version of the resource. Describe it for the current one, and try again."
    )]
    VersionMismatch {
        /// What the caller sent.
        given: String,
    },
    /// A value is wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// The resource would have too many tags.
    #[error("A resource has at most {max} tags.", max = limits::RESOURCE_TAGS)]
    TooManyTags,
    /// The account has too many streams in this region.
    #[error("The account has {max} streams in this region, which is the limit.", max = limits::STREAMS_PER_ACCOUNT)]
    TooManyStreams,
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// Why an operation on media was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// There is no such stream for this caller.
    #[error("The requested stream is not found or not active.")]
    NotFound,
    /// A value is wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// The stream has as many connections of this kind as are allowed.
    #[error("The stream has {limit} open connections of this kind, which is the limit. Close one, and try again.")]
    ConnectionLimit {
        /// How many are allowed.
        limit: usize,
    },
    /// The server is ending.
    #[error("The server is ending. Try again.")]
    Closed,
    /// Nothing is stored in the range.
    #[error("No fragments are stored in the selected range of the stream.")]
    NoFragments,
    /// The bearer of a session token may not have what it asks for.
    #[error("{0}")]
    NotAuthorized(&'static str),
    /// There is nothing stored of what is asked for.
    #[error("{0}")]
    Missing(&'static str),
    /// The caller has had as much as is allowed.
    #[error("{0}")]
    ClientLimit(&'static str),
    /// The stream keeps nothing.
    #[error("The stream keeps no media: its data retention is 0 hours.")]
    NoDataRetention,
    /// The stored media is none that players can be given.
    #[error(transparent)]
    Packaging(#[from] PackagingError),
    /// Images cannot be made.
    #[error(transparent)]
    Stills(#[from] StillsError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// The message of every error whose cause is not the caller's affair.
const INTERNAL: &str = "The server failed to carry out the request. Its log says why.";

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        match error {
            ControlError::NotFound | ControlError::ChannelNotFound => {
                ApiError::client("ResourceNotFoundException", message)
            }
            ControlError::NameTaken(_) | ControlError::ChannelNameTaken(_) | ControlError::InUse(_) => {
                ApiError::client("ResourceInUseException", message)
            }
            ControlError::TooManyChannels => ApiError::client("AccountChannelLimitExceededException", message),
            ControlError::NoDataRetention => ApiError::client("NoDataRetentionException", message),
            ControlError::NoEdgeConfiguration => ApiError::client("StreamEdgeConfigurationNotFoundException", message),
            ControlError::InvalidResourceFormat => ApiError::client("InvalidResourceFormatException", message),
            ControlError::VersionMismatch { .. } => ApiError::client("VersionMismatchException", message),
            ControlError::InvalidArgument(_) => ApiError::client("InvalidArgumentException", message),
            ControlError::TooManyTags => ApiError::client("TagsPerResourceExceededLimitException", message),
            ControlError::TooManyStreams => ApiError::client("AccountStreamLimitExceededException", message),
            ControlError::Catalog(CatalogError::Invalid(_)) => {
                ApiError::client("InvalidArgumentException", "A value is too large to be kept.").with_detail(message)
            }
            ControlError::Catalog(_) | ControlError::Storage(_) => {
                ApiError::server("InternalFailure", INTERNAL, message)
            }
        }
    }
}

impl From<MediaError> for ApiError {
    fn from(error: MediaError) -> Self {
        let message = error.to_string();
        match error {
            MediaError::NotFound | MediaError::Storage(storage::Error::NotFound) => {
                ApiError::client("ResourceNotFoundException", MediaError::NotFound.to_string())
            }
            MediaError::InvalidArgument(_) => ApiError::client("InvalidArgumentException", message),
            MediaError::Stills(StillsError::Absent(_)) => ApiError::client("InvalidArgumentException", message),
            MediaError::Stills(StillsError::Busy) => ApiError::client("ClientLimitExceededException", message),
            MediaError::Stills(StillsError::Failed(_)) => ApiError::server("InternalFailure", INTERNAL, message),
            MediaError::ConnectionLimit { .. } => ApiError::client("ConnectionLimitExceededException", message),
            MediaError::Closed => {
                ApiError::server("ServiceUnavailable", message, "the store is closed").with_status(503)
            }
            MediaError::NoFragments => ApiError::client("ResourceNotFoundException", message),
            MediaError::NotAuthorized(_) => ApiError::client("NotAuthorizedException", message),
            MediaError::Missing(_) => ApiError::client("ResourceNotFoundException", message),
            MediaError::ClientLimit(_) => ApiError::client("ClientLimitExceededException", message),
            MediaError::NoDataRetention => ApiError::client("NoDataRetentionException", message),
            MediaError::Packaging(PackagingError::UnsupportedCodec { .. }) => {
                ApiError::client("UnsupportedStreamMediaTypeException", message)
            }
            MediaError::Packaging(PackagingError::MissingCodecPrivateData { .. }) => {
                ApiError::client("MissingCodecPrivateDataException", message)
            }
            MediaError::Packaging(PackagingError::InvalidCodecPrivateData { .. }) => {
                ApiError::client("InvalidCodecPrivateDataException", message)
            }
            MediaError::Packaging(PackagingError::InvalidFrame { .. }) => {
                ApiError::client("InvalidMediaFrameException", message)
            }
            MediaError::Storage(_) => ApiError::server("InternalFailure", INTERNAL, message),
        }
    }
}
