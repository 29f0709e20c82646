//! The program behind the locked door that makes files of columns: records of JSON in, Parquet or ORC out. It reads jobs
//! from its standard input and answers on its standard output ([`sql::protocol`]); it opens no file and no socket, and once
//! it is ready it cannot. The only crate that links Arrow.
//!
//! [`decode`] turns records into columns, one record at a time so that one that does not fit is left out alone; [`write`]
//! turns columns into bytes; [`serve`] is the loop.

pub mod column;
pub mod decode;
pub mod serve;
pub mod value;
pub mod write;

/// Memory for data: the columns of one piece of a job, and the pages of a row group of 256 MiB.
pub const MEMORY_MAX: u64 = 1024 * 1024 * 1024;
