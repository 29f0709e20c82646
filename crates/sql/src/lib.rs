//! Columns without an engine in the server: the protocol that is spoken with `sql-worker` over pipes, the supervision of
//! those processes, the types of Hive that schemas are written in, and what is said with a process that runs a streaming
//! SQL application. It links no engine and knows no service; what is converted and why is its callers' business.

pub mod application;
pub mod hive;
pub mod job;
pub mod joda;
pub mod limits;
mod pool;
mod process;
pub mod protocol;
pub mod running;

pub use hive::{HiveType, InvalidType};
pub use job::{
    Column, Compression, Input, Job, OrcOptions, Output, ParquetOptions, Reason, Rejected, Unsupported, check,
};
pub use pool::{ConvertError, Converted, SqlConfig, SqlPool, StartError};
