//! Kinesis Data Streams: streams of shards of records, put and read by name or ARN. It knows the rules of the API
//! (hash keys, iterators, limits, who may see what) and nothing of HTTP, of how records are stored, or of what is in them.
//!
//! The catalog holds the truth about streams, the record log the records; [`DataStreams`] follows the catalog in memory,
//! so that no read of it stands in the way of a record. [`DataStreams::put`] is the way in for the rooms above, for
//! example the stream processors.
//!
//! An ARN of a data stream names no creation time: as with AWS, a stream made anew under an old name has the old ARN. What
//! belonged to the old stream (iterators, page tokens, a [`StreamId`]) does not reach the new one.

mod arn;
mod consumers;
mod error;
mod hash;
pub mod limits;
pub mod page;
pub mod ports;
mod queues;
mod reader;
mod records;
mod service;
mod shards;
mod state;
mod stored;
mod streams;
mod target;

pub use arn::{parse_stream_arn, shard_id_text, stream_arn};
pub use error::PutError;
pub use hash::HashKey;
pub use reader::{ReadError, ShardView};
pub use service::{DataStreams, Parts, Pinned, Settings, StartError, StreamDeleted};
pub use storage::{SequenceNumber, StreamId};
pub use streams::tags::check_tags;
