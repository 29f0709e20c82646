//! PutMedia: a producer's bytes become fragments, and acks say how far each has come.

pub mod acks;
pub mod rules;
