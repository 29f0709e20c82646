//! PutMedia: a producer's bytes become fragments, and acks say how far each has come.

pub mod acks;
mod fingerprint;
mod put_media;
pub mod rules;
pub mod session;
