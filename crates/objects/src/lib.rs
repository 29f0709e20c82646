//! Buckets and the objects in them: what S3 keeps, without its protocol.
//!
//! Every other room reaches a bucket through [`Buckets`] and cannot tell whether it lies in the data directory or on
//! another machine. This crate knows no HTTP (but what `object_store` does inside), no service, and nobody's rights: a
//! bucket belongs to an account, and who asks for that account's bucket has been asked already.

mod bucket;
mod error;
pub mod limits;
mod memory;

pub use bucket::{Bucket, Buckets, ByteRange, ObjectInfo, ObjectPage, ObjectStream, PutOptions, Upload};
pub use error::ObjectError;
pub use memory::MemoryBuckets;
