//! A protocol of its own on the same port: S3's. The edge hands a request on whose head a [`Mount`] claims, as it came, and
//! sends what the mount answers; who asks and what they may do is the mount's affair then, errors and all.

use std::pin::Pin;
use std::sync::Arc;

use base::{AccountId, ByteStream};
use bytes::Bytes;
use http::request::Parts;

/// A future that ends with an answer.
pub type MountFuture<'a> = Pin<Box<dyn Future<Output = MountAnswer> + Send + 'a>>;

/// See the module's text.
pub trait Mount: Send + Sync + 'static {
    /// True if the request is the mount's, by its head alone. Asked for every request: it must be quick.
    fn claims(&self, head: &Parts) -> bool;

    /// Answers a request. It must not let anything in that is not signed by a key of the server.
    fn answer(&self, request: MountRequest) -> MountFuture<'_>;
}

/// A request that a mount claimed.
pub struct MountRequest {
    /// Its head.
    pub head: Parts,
    /// Its body as it arrives. A client that expects `100 Continue` is told so when it is first asked for.
    pub body: ByteStream,
    /// Bytes of the body, where the head says; 0 where there is none.
    pub body_len: Option<u64>,
    /// Returned in the headers of the answer and written in the log.
    pub request_id: Arc<str>,
    /// The port that the request arrived at.
    pub local_port: u16,
}

/// The body of an answer.
pub enum MountBody {
    /// All of it.
    Bytes(Bytes),
    /// As it comes; the head of the answer says how long it is, if that is known.
    Stream(ByteStream),
}

/// What a mount answers.
pub struct MountAnswer {
    /// Status, headers and body. The edge adds date and request ids.
    pub response: http::Response<MountBody>,
    /// The service and the operation, for log and metrics.
    pub name: (&'static str, &'static str),
    /// Whose key signed the request.
    pub account: Option<AccountId>,
    /// What went wrong, for the log.
    pub error: Option<String>,
}
