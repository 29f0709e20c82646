//! Streams: made, described, set up, tagged, shared and deleted.

mod account;
pub mod describe;
mod lifecycle;
mod policy;
mod settings;
pub mod tags;
