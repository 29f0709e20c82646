//! A client for the video, record and face APIs that Sightglass speaks; it works against AWS as well.
//!
//! - [`producer`] sends video and does not lose it: it reconnects, sends again what was not confirmed, keeps its memory
//!   within bounds, and says when everything is on the server's disk.
//! - [`reader`] gives what is stored or arrives as fragments, tags and frames, goes on after a broken connection without
//!   loss or repetition, reads ranges of time some requests at a time, and joins fragments into one playable file.
//! - [`consumer`] reads a data stream as one of a fleet of workers that share its shards, Java workers of the KCL among them.
//! - [`records`] packs many records into one and unpacks them, as the Kinesis Producer Library does.
//! - [`follow`] reads every shard of a data stream from one place on, through splits and merges.
//! - [`bulk`] reads and writes data streams for programs that move much.
//! - [`buckets`] reads and writes objects of buckets.
//! - [`Client`] makes one signed call, [`PutMedia`] and [`MediaBytes`] are the bare connections beneath [`producer`] and [`reader`].
//!
//! Runnable programs are in `examples/`; `docs/guide/client.md` is the guide. The crate refuses to know the server's
//! crates, and how a picture is decoded.

mod ack;
mod backoff;
pub mod buckets;
pub mod bulk;
mod call;
pub mod consumer;
mod credentials;
mod endpoint;
mod error;
pub mod follow;
pub mod limits;
mod media;
pub mod producer;
pub mod reader;
pub mod records;
mod transport;

pub use ack::{Ack, AckParser, EventType};
pub use auth::{Credentials, Secret};
pub use backoff::Backoff;
pub use call::{Client, ClientConfig, Service};
pub use credentials::{CredentialsError, ProvideCredentials, ProvidedCredentials};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use error::{Answer, ClientError};
pub use media::{Acks, MediaBytes, MediaSender, PutMedia, PutMediaOptions, StreamName, TimecodeType};
pub use transport::Trust;
