//! Records of data streams: their numbers and hash keys, and many of them packed into one ([`aggregate`]).

pub mod aggregate;
mod number;

pub use number::{HashKey, HashRange, InvalidHashKey, InvalidSequenceNumber, SequenceNumber};
