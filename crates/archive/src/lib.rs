//! Writes a video stream's fragments to S3, as films by the hour or by event: a consumer built on the public [`client`]
//! crate alone, for the command `sightglass archive`, for the server's own archives, and as the worked example of a custom
//! consumer (a small one is `crates/client/examples/archive_live.rs`).
//!
//! - [`Archiver`] goes through a stream and makes objects: resumable, each fragment in exactly one of them.
//! - [`Source`] is where fragments come from, [`Store`] where objects go; [`ClientSource`] and [`S3Store`] reach servers.
//! - [`index`] is the file beside each object that says what is where in it.
//! - [`verify`] reads an archive back.
//!
//! It refuses to know HTTP, the server's crates, and what is in a picture.

pub mod archiver;
pub mod film;
mod held;
pub mod index;
pub mod limits;
pub mod name;
pub mod plan;
mod s3;
pub mod settings;
pub mod source;
pub mod store;
pub mod verify;
mod writer;

pub use archiver::{ArchiveError, Archiver, Event, Range, Summary};
pub use name::Folder;
pub use s3::{S3Config, S3Store};
pub use settings::{Archive, Cut, Destination, Format, Settings};
pub use source::{ClientSource, Source, Tell};
pub use store::{Store, StoreError};
