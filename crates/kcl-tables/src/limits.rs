//! Limits, each with its source.

/// Tables of one account and region (service quotas: 2500).
pub const TABLES_PER_ACCOUNT_MAX: usize = 2500;

/// Largest item, names of attributes and values together (service quotas: 400 KB).
pub const ITEM_BYTES_MAX: usize = 400 * 1024;

/// Bytes of items that one page of Query or Scan looks at (service quotas: 1 MB).
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of items that one BatchGetItem answers (API reference: 16 MB).
pub const BATCH_GET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Items of one BatchGetItem (API reference).
pub const BATCH_GET_ITEMS_MAX: usize = 100;

/// Requests of one BatchWriteItem (API reference).
pub const BATCH_WRITE_ITEMS_MAX: usize = 25;

/// Bytes of items in one transaction (API reference: 4 MB). Ours is the same in the size that items have when they are stored, so that a
/// transaction stays within one commit of the catalog.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1000 * 1000;

/// Bytes of all items of one table. Ours: tables are held in memory, for leases and small tables.
pub const TABLE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes that a row is reckoned to take beside its item, so that many small items count as what they cost.
pub const ROW_OVERHEAD_BYTES: u64 = 256;

/// Bytes of all items of all tables of the server. Ours: tables are held in memory.
pub const SERVER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Longest partition key in bytes (service quotas).
pub const HASH_KEY_BYTES_MAX: usize = 2048;

/// Longest sort key in bytes (service quotas).
pub const RANGE_KEY_BYTES_MAX: usize = 1024;

/// Nesting of lists and maps in an item (service quotas).
pub const NESTING_MAX: usize = 32;

/// Global secondary indexes of one table (service quotas).
pub const GLOBAL_INDEXES_MAX: usize = 20;

/// Local secondary indexes of one table (service quotas).
pub const LOCAL_INDEXES_MAX: usize = 5;

/// Attributes projected into all indexes of a table (service quotas).
pub const PROJECTED_ATTRIBUTES_MAX: usize = 100;

/// Longest expression in bytes (service quotas: 4 KB).
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Operators and functions of one expression (service quotas: 300).
pub const EXPRESSION_OPERATORS_MAX: usize = 300;

/// Operands of IN (service quotas).
pub const IN_OPERANDS_MAX: usize = 100;

/// Depth of brackets and of NOT in an expression. Ours: it bounds the stack; AWS's limit of operators is the same bound.
pub const EXPRESSION_DEPTH_MAX: usize = 100;

/// Bytes of all ExpressionAttributeValues together (service quotas: 2 MB).
pub const EXPRESSION_VALUES_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Tags of one table (service quotas).
pub const TAGS_MAX: usize = 50;

/// Tables in one answer of ListTables (API reference).
pub const LIST_TABLES_MAX: usize = 100;

/// How long a ClientRequestToken of TransactWriteItems names one transaction (API reference: 10 minutes).
pub const REQUEST_TOKEN_LIFE_MS: u64 = 600_000;

/// Such tokens that are remembered. Ours.
pub const REQUEST_TOKENS_MAX: usize = 10_000;

/// Locks that writers of one item take; items share them. Ours: a writer waits for another of its lock, not of its table.
pub const WRITE_LOCKS: usize = 1024;

/// Rows that a deletion removes from the catalog in one commit, below its limit of 256 changes.
pub const PURGE_ROWS: usize = 200;

/// How often items beyond their time to live are looked for. AWS deletes them within days; ours within a minute.
pub const EXPIRY_INTERVAL_MS: u64 = 60_000;

/// Series that PutMetricData may make. Ours: each takes memory and a few lines at /metrics.
pub const METRIC_SERIES_MAX: usize = 10_000;

/// How long a metric that nobody sends is kept when there are too many. Ours.
pub const METRIC_IDLE: std::time::Duration = std::time::Duration::from_secs(900);

/// Largest absolute value of a metric: 2 to the power of 360 (API reference).
pub const METRIC_VALUE_MAX: f64 = 2.348_542_582_773_833e108;

/// Metrics of one PutMetricData (API reference).
pub const METRICS_PER_CALL_MAX: usize = 1000;
