//! Kinesis Analytics (v2): applications of streaming SQL, their versions, snapshots and runs. It knows the rules of the
//! API and which process is to run; it knows nothing of HTTP, of SQL, or of how rows are computed: the worker process
//! `sql-worker application` does that, and is reached through [`ports`].
//!
//! [`control`] has the operations, [`tables`] what an application's inputs and outputs are to a worker, [`engine`] the
//! supervision of workers, [`discover`] the schema of records that nobody described.

pub mod control;
pub mod discover;
pub mod engine;
mod error;
pub mod limits;
pub mod ports;
mod service;
pub mod stored;
pub mod tables;

pub use service::{Analytics, Parts, Settings, StartError, application_arn};
