//! Requests and answers as bytes, without an HTTP library.

use std::borrow::Cow;
use std::fmt;

use base::ByteStream;
use bytes::Bytes;

/// A body.
pub enum RawBody {
    /// All of it.
    Bytes(Bytes),
    /// As it comes or goes.
    Stream(ByteStream),
}

impl fmt::Debug for RawBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RawBody::Bytes(bytes) => write!(f, "<{} bytes>", bytes.len()),
            RawBody::Stream(_) => f.write_str("<stream>"),
        }
    }
}

/// A request whose operation is known.
pub struct RawRequest<'h> {
    /// Looks a header up by its name in lower case.
    pub headers: &'h dyn Fn(&str) -> Option<String>,
    /// The body: a stream exactly where `OperationInfo::request_stream` says so. For the query protocol a form; the query
    /// string where the request had no body.
    pub body: RawBody,
}

/// An answer.
#[derive(Debug)]
pub struct RawReply {
    /// HTTP status.
    pub status: u16,
    /// Value of the `Content-Type` header.
    pub content_type: Cow<'static, str>,
    /// Further headers.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body; the head goes out before the first bytes of a stream.
    pub body: RawBody,
    /// See [`base::Reply::crowd`].
    pub crowd: Option<base::Crowd>,
}
