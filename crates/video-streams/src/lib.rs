//! Kinesis Video Streams: the streams of an account, PutMedia with its acks, GetMedia and its relatives, retention, and the
//! live tail on which stream processors stand ([`consumer`]).
//!
//! It refuses to know HTTP (`edge` moves the bytes), how fragments are kept (`storage`), and what is in a picture.

pub mod archive;
pub mod consumer;
mod control;
mod deliver;
pub mod error;
pub mod follow;
pub mod images;
pub mod ingest;
pub mod limits;
pub mod live;
pub mod media;
pub mod metrics;
pub mod notify;
pub mod playback;
pub mod ports;
pub mod records;
mod retention;
pub mod service;
pub mod state;
pub mod stored;
pub mod streams;
mod token;

pub use service::{Dependencies, OpenError, Settings, VideoStreams};

#[cfg(test)]
mod testing;
