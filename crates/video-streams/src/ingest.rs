//! PutMedia: a producer's bytes become fragments, and acks say how far each has come.

pub mod acks;
pub(crate) mod fingerprint;
pub mod in_band;
pub mod leniency;
mod put_media;
pub mod rules;
pub mod session;
