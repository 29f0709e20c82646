//! S3's protocol over the buckets of [`objects`]: a [`edge::Mount`] for requests that are signed for `s3`, or that name a
//! bucket in their host.
//!
//! The wire is `s3s`: XML, SigV4 in its S3 forms (header, query, form, signed chunks, trailers). What is ours is here: whose
//! keys count (the key store's, with session tokens), what they may do (the policy of the key, with S3's action names), and
//! what each operation does with an object. It refuses to know where bytes lie.

mod access;
mod convert;
mod errors;
mod get;
mod host;
pub mod limits;
mod list;
mod mount;
mod multipart;
mod put;
mod service;

pub use mount::S3;
pub use service::Parts;
