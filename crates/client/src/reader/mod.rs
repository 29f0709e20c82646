//! Reading media: what GetMedia and GetMediaForFragmentList return, as fragments, tags and frames.
//!
//! - [`LiveReader`] follows a stream over as many connections as it takes, whole fragments or frame by frame.
//! - [`Client::list_fragments`](crate::Client::list_fragments) and
//!   [`Client::read_fragments`](crate::Client::read_fragments) read a range of time, some requests at a time.
//! - [`FragmentVisitor`] is what is done with fragments, tags and frames: hand the frames to a decoder of your choice.
//! - [`Merge`] joins fragments into one playable file.
//! - [`FragmentParser`] and [`FragmentAssembler`] do the reading without any I/O.
//!
//! ```no_run
//! # async fn f(client: client::Client) -> Result<(), client::reader::ReaderError> {
//! use client::StreamName;
//! use client::reader::{Counts, LiveReader, ReaderConfig, StartAt};
//!
//! let config = ReaderConfig::new(StreamName::Name("door".into()), StartAt::Earliest);
//! let mut reader = LiveReader::new(client, config);
//! let mut counts = Counts::default();
//! while let Some(fragment) = reader.next_fragment().await? {
//!     let _ = fragment.visit(&mut counts);
//!     println!("{}: {} frames so far", fragment.start.timecode, counts.frames.values().sum::<u64>());
//! }
//! # Ok(()) }
//! ```

mod cues;
mod error;
mod fragment;
mod list;
mod live;
mod merge;
mod parser;
mod visit;

pub use error::ReaderError;
pub use fragment::{Fragment, FragmentEnd, FragmentError, FragmentNumber, FragmentStart, Frame};
pub use list::{BatchOptions, FragmentInfo, TimeAxis, TimeRange};
pub use live::{LiveReader, ReaderConfig, StartAt};
pub use merge::{Ending, Merge, MergeOptions, Patch, Placement, TracksChanged};
pub use parser::{FragmentAssembler, FragmentEvent, FragmentParser};
pub use visit::{Counts, FragmentVisitor};
