//! The logs, the catalog and fsck: what is kept, and the promise when it is durable. It knows no service and no protocol;
//! a stream is a number to it. `docs/design/log.md` describes the log's format and its rules.

pub mod backup;
mod buffer;
pub mod catalog;
mod control;
pub mod datadir;
mod error;
mod frame;
mod fsck;
mod index;
mod index_db;
mod index_writer;
mod lane;
mod lane_records;
mod lane_write;
pub mod limits;
mod media;
mod media_log;
mod media_stream;
mod memory;
mod number;
mod options;
mod payload;
mod plan;
mod pool;
mod queue;
mod read;
mod record_log;
mod records;
mod recover;
mod recover_index;
mod scan;
#[cfg(test)]
mod sim;
mod state;
mod store;
mod uring;

pub use catalog::{
    Catalog, CatalogError, CatalogKey, Change, Entry, Expect, KeyRows, MemoryCatalog, Page, SqliteCatalog,
    SqliteOptions, Versioned,
};
pub use datadir::{DataDir, DataDirError, Holder};
pub use error::{Corruption, Error, IoFailure, LimitExceeded};
pub use fsck::{Finding, FsckReport, Severity, fsck, fsck_with_index};
pub use index_db::IndexHome;
pub use media::{
    Coverage, CoverageQuery, Cursor, FragmentInfo, FragmentQuery, FragmentRange, FragmentSink, FragmentSummary,
    FrameEntry, ListPlace, MediaStore, Span, TimeAxis, Usage,
};
pub use memory::{MemoryMediaStore, MemoryOptions};
pub use number::{FragmentNumber, InvalidFragmentNumber, InvalidSequenceNumber, SequenceNumber, StreamId};
pub use options::{LogOptions, OnFatal};
pub use records::{NewRecord, Position, ReadBatch, RecordLog, ShardId, StoredRecord};
pub use store::{DamagedRange, LogStore, RecoveryReport};
pub use uring::best_disk;
