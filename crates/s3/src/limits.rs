//! Limits of the protocol; those of objects are in `objects::limits`.

use std::time::Duration;

/// Bytes of an XML document that is sent to us. CompleteMultipartUpload names up to 10,000 parts in some 300 bytes each,
/// DeleteObjects 1,000 keys of up to 1,024 bytes, escaped.
pub const XML_BYTES_MAX: usize = 8 << 20;

/// Bytes of a file that a browser posts: the form is gathered in memory before its policy is compared. Ours; AWS's is 5 GB.
pub const POST_BYTES_MAX: u64 = 32 << 20;

/// Bytes of the other fields of such a form, together.
pub const FORM_FIELDS_BYTES_MAX: usize = 256 << 10;

/// Fields of such a form.
pub const FORM_FIELDS_MAX: usize = 100;

/// A body may pause this long between two pieces. AWS's RequestTimeout.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an error document that gets its request id written into it.
pub const ERROR_BYTES_MAX: usize = 64 << 10;
