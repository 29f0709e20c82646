//! Limits of the catalog. All are ours: they bound memory and keep a commit short, and are far above what services need.

/// Longest key in bytes. Names of AWS are at most 256 characters, ARNs 1024 with their parts kept apart.
pub const CATALOG_KEY_BYTES_MAX: usize = 2048;

/// Longest value in bytes.
pub const CATALOG_VALUE_BYTES_MAX: usize = 1 << 20;

/// Most changes in one commit.
pub const CATALOG_CHANGES_MAX: usize = 256;

/// Most bytes of keys and values in one commit.
pub const CATALOG_COMMIT_BYTES_MAX: usize = 4 << 20;

/// Most entries of a page.
pub const CATALOG_PAGE_MAX: usize = 1000;

/// A page ends early when it holds this many bytes.
pub const CATALOG_PAGE_BYTES_MAX: usize = 4 << 20;

/// How often a read-change-write is tried again after a conflict.
pub const CATALOG_RETRIES_MAX: usize = 100;

/// Most commits waiting for the writer; more wait for a place.
pub const CATALOG_QUEUE_MAX: usize = 256;

/// Most commits that share one transaction, and so one sync.
pub const CATALOG_GROUP_MAX: usize = 128;

/// Space set aside for deletions on a full disk. Twice what SQLite gathers in its write-ahead log (1000 pages) before it
/// moves it into the file, because both may have to grow.
pub const CATALOG_RESERVE_BYTES: u64 = 8 << 20;
