//! The one room that knows HTTP: listeners (HTTP/1.1, HTTP/2 and TLS on one port), authentication before anything else,
//! dispatch of bytes to the operations of a [`wire::Registry`], the pages that need no signature, the access log and the
//! drain at the end.
//!
//! It refuses to know any service and what an operation does. Bodies of operations are bytes to it: buffered under a limit,
//! or handed on as they arrive while the answer already flows the other way (PutMedia).

pub mod limits;

mod aside;
mod base_url;
mod body;
mod convoy;
mod dispatch;
mod exchange;
mod lane;
mod mount;
mod pages;
mod server;
mod socket;
mod tls;

pub use base_url::{InvalidNetwork, TrustedProxy};
pub use limits::Limits;
pub use mount::{Mount, MountAnswer, MountBody, MountFuture, MountRequest};
pub use pages::{HealthCheck, HealthSource};
pub use server::{Drained, EdgeConfig, EdgeParts, Running, Server, StartError};
pub use tls::{HttpVersion, TlsError, TlsPem};
