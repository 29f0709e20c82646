//! How much there may be of everything.

/// Bytes of a script: the API's limit of code is a tenth of it.
pub const SCRIPT_BYTES_MAX: usize = 1024 * 1024;
/// Statements of a script.
pub const STATEMENTS_MAX: usize = 1_000;
/// Columns of a table, Flink's tables being rarely wider than a hundred.
pub const COLUMNS_MAX: usize = 2_000;
/// Steps of all statements together.
pub const STEPS_MAX: usize = 10_000;
/// How deep statements and expressions may be nested, so that they fit the stack of a thread.
pub const NESTING_MAX: usize = 60;
/// Windows that one event may be in (HOP and CUMULATE): a day by the second.
pub const WINDOWS_OF_ROW_MAX: i64 = 86_400;
/// How deep records may be nested.
pub const RECORD_NESTING_MAX: usize = 128;
/// Rows that go through the steps at once.
pub const BATCH_ROWS: usize = 8_192;
