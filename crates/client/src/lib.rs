//! A small signed client for the APIs that Sightglass speaks: one JSON call at a time, a PutMedia connection whose
//! acknowledgements arrive while it sends, the body of GetMedia, and a player that sends a file as a camera would. The `put` and `get` commands, the benchmarks and the
//! tests that kill the server use it; it works against AWS as well.
//!
//! It refuses to know the server's crates and the meaning of what it carries.

mod ack;
mod backoff;
mod call;
mod credentials;
mod endpoint;
mod error;
pub mod limits;
mod media;
mod player;
pub mod producer;
pub mod reader;
mod transport;

pub use ack::{Ack, AckParser, EventType};
pub use auth::{Credentials, Secret};
pub use backoff::Backoff;
pub use call::{Client, ClientConfig, Service};
pub use credentials::{CredentialsError, ProvideCredentials, ProvidedCredentials};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use error::{Answer, ClientError};
pub use media::{Acks, MediaBytes, MediaSender, PutMedia, PutMediaOptions, StreamName, TimecodeType};
pub use player::{Piece, Player};
pub use transport::Trust;
