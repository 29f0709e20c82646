//! The errors of the rooms below as errors that the service model declares, in one place.

use base::ApiError;
use faces::FacesError;
use vision::ImageError;

/// Something in the request is wrong.
pub(crate) fn invalid_parameter(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterException", message)
}

/// An image without a face, where there must be one.
pub(crate) fn no_face() -> ApiError {
    invalid_parameter("There are no faces in the image. Should be at least 1.")
}

/// There is no such resource in the caller's account and region.
pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
    ApiError::client("ResourceNotFoundException", message)
}

/// The resource is in a state that does not allow it.
pub(crate) fn in_use(message: impl Into<String>) -> ApiError {
    ApiError::client("ResourceInUseException", message)
}

/// The server failed; `detail` is for the log.
pub(crate) fn internal(detail: impl std::fmt::Display) -> ApiError {
    ApiError::server(
        "InternalServerError",
        "the server could not carry out the request",
        detail,
    )
}

/// What a collection operation answers.
pub(crate) fn from_faces(error: FacesError) -> ApiError {
    match error {
        FacesError::CollectionNotFound(id) => not_found(format!("The collection id: {id} does not exist")),
        FacesError::CollectionExists(id) => ApiError::client(
            "ResourceAlreadyExistsException",
            format!("The collection id: {id} already exists"),
        ),
        FacesError::FaceNotFound(_) => invalid_parameter("faceId was not found in the collection."),
        FacesError::UserNotFound(user) => not_found(format!("The user id: {user} does not exist")),
        FacesError::UserExists(user) => {
            ApiError::client("ConflictException", format!("The user id: {user} already exists"))
        }
        FacesError::TokenReused => ApiError::client(
            "IdempotentParameterMismatchException",
            "ClientRequestToken came with other parameters before",
        ),
        FacesError::ModelMismatch { .. } => {
            invalid_parameter(format!("{error}; create a new collection and index the images again"))
        }
        FacesError::LimitExceeded { .. } => ApiError::client("ServiceQuotaExceededException", error.to_string()),
        // The vector came from our own model, so the caller cannot mend it.
        FacesError::BadVector(_) | FacesError::Storage(_) => internal(error),
    }
}

/// What an image operation answers.
pub(crate) fn from_image(error: ImageError) -> ApiError {
    match error {
        ImageError::NotAnImage | ImageError::UnsupportedFormat => ApiError::client(
            "InvalidImageFormatException",
            format!("Request has invalid image format: {error}"),
        ),
        ImageError::TooLarge { .. } => ApiError::client("ImageTooLargeException", error.to_string()),
        ImageError::TooSmall { .. } => invalid_parameter(format!("{error}; each side must have at least 80 pixels")),
        ImageError::Busy => ApiError::client("ThrottlingException", "all vision workers are busy; try again"),
        ImageError::Worker(detail) => internal(detail),
    }
}
