//! Firehose: records go in by PutRecord or are read from a data stream, wait in buffers by size and time, pass through the
//! chain of processors, and leave as objects in S3 or to an endpoint. It knows the rules of the API and of delivery; it
//! knows nothing of HTTP (see [`ports`]), of how objects are stored, or of columns (a worker process converts to them).
//!
//! [`types`] has what flows between the modules: [`process`] turns [`types::Record`]s into [`types::Processed`],
//! [`prefix`] names objects, [`format`](mod@format) makes bodies of them, [`endpoints`] delivers to what is not S3.

pub mod channels;
pub mod control;
pub mod deliver;
pub mod endpoints;
mod error;
pub mod format;
mod intake;
pub mod limits;
pub mod ports;
pub mod prefix;
pub mod process;
mod service;
mod stored;
pub mod types;

pub use service::{Firehose, Parts, Settings, StartError, delivery_stream_arn};
