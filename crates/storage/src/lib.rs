//! The logs, the catalog and fsck: what is kept, and the promise when it is durable. It knows no service and no protocol;
//! a stream is a number to it. `docs/design/log.md` describes the log's format and its rules.

pub mod catalog;
pub mod datadir;
mod error;
mod media;
mod memory;
mod number;
mod options;
mod records;
mod store;

pub use catalog::{
    Catalog, CatalogError, CatalogKey, Change, Entry, Expect, KeyRows, MemoryCatalog, Page, SqliteCatalog,
    SqliteOptions, Versioned,
};
pub use datadir::{DataDir, DataDirError, Holder};
pub use error::{Corruption, Error, IoFailure, LimitExceeded};
pub use media::{
    Cursor, FragmentInfo, FragmentQuery, FragmentRange, FragmentSink, FragmentSummary, FrameEntry, MediaStore,
    TimeAxis, Usage,
};
pub use memory::MemoryOptions;
pub use number::{FragmentNumber, InvalidFragmentNumber, InvalidSequenceNumber, SequenceNumber, StreamId};
pub use options::{LogOptions, OnFatal};
pub use records::{NewRecord, Position, ReadBatch, RecordLog, ShardId, StoredRecord};
pub use store::{DamagedRange, LogStore, RecoveryReport};
