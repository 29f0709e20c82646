//! A small signed client for the APIs that Sightglass speaks: one JSON call at a time, a PutMedia connection whose
//! acknowledgements arrive while it sends, and the body of GetMedia. The `put` and `get` commands, the benchmarks and the
//! tests that kill the server use it; it works against AWS as well.
//!
//! It refuses to know the server's crates and the meaning of what it carries.

mod ack;
mod call;
mod endpoint;
mod error;
mod media;
mod transport;

pub use ack::{Ack, AckParser, EventType};
pub use call::{Client, ClientConfig, Service};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use error::{Answer, ClientError};
pub use media::{Acks, MediaBytes, MediaSender, PutMedia, PutMediaOptions, StreamName, TimecodeType};
