//! Limits, each with its source.

use std::time::Duration;

/// How deep types may be nested. JSON is read 128 deep; Hive itself has no limit.
pub const TYPE_DEPTH_MAX: usize = 32;

/// Characters of a type. AWS Glue: 131,072.
pub const TYPE_CHARACTERS_MAX: usize = 131_072;

/// Columns of a table, all levels counted. Ours: memory for each of them is taken before there is a record.
pub const COLUMNS_MAX: usize = 10_000;

/// One message to a worker: one record of the largest kind (10 MiB of a data stream) and its frame, with room.
pub const TO_WORKER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One message from a worker: a part of a file, or the reasons of rejected records.
pub const FROM_WORKER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Records are sent in messages of about this many bytes, so that the worker begins while more comes.
pub const CHUNK_BYTES: usize = 1024 * 1024;

/// Until a started worker is ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// For a job without records. What its records may take is added.
pub const JOB_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of records that a worker does at least in a second.
pub const JOB_BYTES_PER_SECOND: u32 = 1024 * 1024;

/// Records of one job that are left out one by one because workers end on them; with more of them, what has not been
/// converted is left out as a whole. Ours: each costs as many jobs as a number of records has binary digits.
pub const FATAL_RECORDS_MAX: usize = 8;

/// A worker that has nothing to do is ended after this.
pub const IDLE_RETIRE: Duration = Duration::from_secs(60);

/// How often a job is begun before it is given up: once more after a worker died in it.
pub const JOB_ATTEMPTS: u32 = 2;

/// Lines of a worker's complaints that reach the log.
pub const STDERR_LINES: usize = 20;

/// Bytes of a worker's complaints that reach the log.
pub const STDERR_BYTES: u64 = 16 * 1024;

/// Characters of the reason for which a record is rejected.
pub const REASON_CHARACTERS_MAX: usize = 512;

/// Bytes that the pipe to a worker holds. Ours: what Linux lets anybody have (`/proc/sys/fs/pipe-max-size`).
pub(crate) const PIPE_BYTES: usize = 1 << 20;
