//! What buckets refuse, and why there. Where AWS has a limit it is AWS's (S3 user guide: "Amazon S3 multipart upload
//! limits", "Naming objects", "Bucket naming rules").

/// Bytes of a key in UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;

/// Objects on one page of a listing.
pub const LIST_MAX: usize = 1000;

/// Bytes of an object that is put in one call.
pub const PUT_BYTES_MAX: u64 = 5 << 30;

/// Bytes of user metadata, names and values together.
pub const METADATA_BYTES_MAX: usize = 2 << 10;
