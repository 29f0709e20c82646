//! Streaming Matroska reader and writer, sans-I/O.
//!
//! The reader takes a producer's bytes in whatever pieces they arrive, hands every one of them on verbatim and exactly
//! once, and says between them what they mean: where a document, a cluster and a block begin and end, which tracks were
//! declared, which tags were set. Frame payloads are slices of the pushed chunks: nothing is copied or allocated per
//! frame, and nothing but a short header element is ever held back.
//!
//! ```
//! use bytes::Bytes;
//! use matroska::{Event, Limits, Reader};
//!
//! let file = matroska::writer::tags(&[("PLACE", "gate")]); // any piece of a stream
//! let mut reader = Reader::new(Limits::default());
//! reader.push(Bytes::from_static(matroska::writer::EBML_HEADER));
//! reader.push(Bytes::from_static(matroska::writer::SEGMENT_HEAD_UNKNOWN_SIZE));
//! reader.push(file);
//! reader.finish();
//! let mut tags = Vec::new();
//! while let Some(event) = reader.next().unwrap() {
//!     if let Event::Tag(tag) = event {
//!         tags.push(tag.name);
//!     }
//! }
//! assert_eq!(tags, ["PLACE"]);
//! ```
//!
//! What this crate refuses to know: sockets and files, fragments and their numbers, which rules of a service a stream
//! breaks (it reports the facts, the service judges them), and how a picture is decoded.

pub mod codec;
mod error;
mod event;
pub mod id;
pub mod lacing;
pub mod limits;
pub mod merge;
mod number;
mod parse;
mod reader;
pub mod writer;

pub use error::{Error, ErrorKind};
pub use event::{
    Audio, Block, END_OF_FRAGMENT, EbmlHeader, Event, Info, Lacing, Tag, TagValue, Track, TrackKind, Tracks, Video,
};
pub use id::ElementId;
pub use limits::Limits;
pub use number::{VarInt, read_float, read_signed, read_unsigned};
pub use reader::Reader;
