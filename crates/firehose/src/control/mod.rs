//! The operations of the API.

mod create;
mod describe;
mod encryption;
mod put;
pub mod s3;
mod tags;
mod update;
