//! What travels on the wire, and nothing that moves it: the shapes and operation tables of every service, generated from
//! the service models; the protocols that carry them (rest-json, aws-json in JSON and CBOR, rpc-v2-cbor, query); the checks that the models demand; and
//! the [`Registry`] that turns bytes into a call of a typed handler and back. It knows no HTTP library, no socket and no
//! service.
//!
//! A service implements `base::Handle<wire::kinesis::op::PutRecord>` and is registered once; the edge asks
//! [`Registry::resolve`] which operation a request means, authenticates it, and hands its body to [`Route::call`].

pub mod cbor;
pub mod codec;
pub mod conform;
pub mod error;
pub mod event_stream;
pub mod json;
pub mod limits;
pub mod operation;
pub mod patterns;
pub mod query;
pub mod registry;
pub mod reply;
pub mod schema;
pub mod shape;
pub mod time;
pub mod value;

#[allow(
    missing_docs,
    non_upper_case_globals,
    clippy::indexing_slicing,
    reason = "generated from the models, which have the documentation"
)]
mod generated;

pub use error::{denied, render_error, render_unrouted_error};
pub use generated::*;
pub use operation::{Access, OperationInfo, Protocol, Resource, ServiceInfo, WireOperation};
pub use registry::{Address, Call, Registry, Route, Unresolved, all_operations, generated_services};
pub use reply::{RawBody, RawReply, RawRequest};
pub use shape::{Shape, Structure};
pub use value::Value;

/// The operations that the server carries out, as `MODEL OPERATION` a line; a test of the server compares it with what
/// is registered.
pub const IMPLEMENTED: &str = include_str!("../implemented.txt");
