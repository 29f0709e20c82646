//! Records of data streams: their numbers and hash keys, many packed into one ([`aggregate`]), and a [`RecordProducer`]
//! that batches, packs, tries again and keeps its memory within bounds. Reading them is
//! [`consumer`](crate::consumer)'s work.

mod driver;
mod map;
mod number;
mod producer;
mod sink;

/// Many user records in one stream record.
pub use kpl as aggregate;
pub use kpl::UserRecord;
pub use number::{HashKey, HashRange, InvalidHashKey, InvalidSequenceNumber, SequenceNumber};
pub use producer::{Order, PutError, Receipt, RecordProducer, RecordProducerConfig, RecordProducerStats};
pub use sink::{Entry, KinesisSink, RecordSink, Stored};
