//! Columns without an engine in the server: the protocol that is spoken with `sql-worker` over pipes, the supervision of
//! those processes, and the types of Hive that schemas are written in. It links no engine and knows no service; what is
//! converted and why is its callers' business.

pub mod hive;
pub mod job;
pub mod joda;
pub mod limits;
mod pool;
mod process;
pub mod protocol;

pub use hive::{HiveType, InvalidType};
pub use job::{
    Column, Compression, Input, Job, OrcOptions, Output, ParquetOptions, Reason, Rejected, Unsupported, check,
};
pub use pool::{ConvertError, Converted, SqlConfig, SqlPool, StartError};
