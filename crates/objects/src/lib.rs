//! Buckets and the objects in them: what S3 keeps, without its protocol.
//!
//! Every other room reaches a bucket through [`Buckets`] and cannot tell whether it lies in the data directory
//! ([`local::Store`]) or on another machine. This crate knows no HTTP (but what `object_store` does inside), no service,
//! and nobody's rights: a bucket belongs to an account, and who asks for that account's bucket has been asked already.
//! `docs/design/objects.md` says what is durable when.

mod bucket;
pub mod digest;
mod error;
mod external;
mod files;
mod fsck;
pub mod limits;
pub mod local;
mod memory;
mod names;
mod read;
mod row;
mod write;

pub use bucket::{Bucket, Buckets, ByteRange, ObjectInfo, ObjectPage, ObjectStream, PutOptions, Upload};
pub use error::ObjectError;
pub use external::{Everywhere, External, ExternalBucket};
pub use files::{OnFatal, Permit};
pub use fsck::{FsckReport, fsck};
pub use memory::MemoryBuckets;
pub use names::is_bucket_name;
pub use row::{Facts, Headers, Id, Object};
