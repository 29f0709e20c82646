//! The catalog: an ordered key-value store with atomic multi-key compare-and-swap, the truth for everything that is not
//! media or records (streams, collections, processors, keys, leases). No SQL crosses it, and it does not know what the
//! values mean. Two back ends, one conformance suite (`tests/catalog.rs`): [`SqliteCatalog`] and [`MemoryCatalog`].
//!
//! Keys begin with account and region; [`CatalogKey`] builds them. Values are bytes, JSON by convention; [`get_json`],
//! [`put_json`] and [`update_json`] are the typed way in.

mod json;
mod key;
mod key_table;
mod limits;
mod memory;
mod owners;
pub mod reserve;
mod sqlite;
pub(crate) mod sqlite_copy;

use async_trait::async_trait;
use bytes::Bytes;

pub use json::{Entry, get_json, next_id, page_json, put_json, update_json};
pub use key::CatalogKey;
pub use key_table::KeyRows;
pub use memory::MemoryCatalog;
pub use owners::{Owned, Owners};
pub use sqlite::{SqliteCatalog, SqliteOptions};

use limits::{
    CATALOG_CHANGES_MAX, CATALOG_COMMIT_BYTES_MAX, CATALOG_KEY_BYTES_MAX, CATALOG_PAGE_MAX, CATALOG_VALUE_BYTES_MAX,
};

/// A value and the number of the commit that wrote it. No two commits of a catalog share a number, so that a key that was
/// deleted and made again has another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The commit that wrote the value; above 0.
    pub version: u64,
    /// The value.
    pub value: Bytes,
}

/// What a change takes for granted of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key is not there.
    Absent,
    /// The key has this version.
    Version(u64),
    /// Nothing.
    Any,
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// What is taken for granted.
        expect: Expect,
    },
    /// Removes a key; with [`Expect::Any`] it may be absent.
    Delete {
        /// The key.
        key: String,
        /// What is taken for granted.
        expect: Expect,
    },
    /// Writes nothing: the commit happens only if this holds (a parent still exists, a name is still free).
    Check {
        /// The key.
        key: String,
        /// What is taken for granted.
        expect: Expect,
    },
}

impl Change {
    /// Makes a key that must not exist.
    pub fn create(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        let (key, value) = (key.into(), value.into());
        let expect = Expect::Absent;
        Change::Put { key, value, expect }
    }

    /// Replaces a value that must have the given version.
    pub fn replace(key: impl Into<String>, value: impl Into<Bytes>, version: u64) -> Self {
        let (key, value) = (key.into(), value.into());
        let expect = Expect::Version(version);
        Change::Put { key, value, expect }
    }

    /// Removes a key that must have the given version.
    pub fn remove(key: impl Into<String>, version: u64) -> Self {
        let expect = Expect::Version(version);
        Change::Delete {
            key: key.into(),
            expect,
        }
    }

    /// The key.
    pub fn key(&self) -> &str {
        let (Change::Put { key, .. } | Change::Delete { key, .. } | Change::Check { key, .. }) = self;
        key
    }

    /// What is taken for granted.
    pub fn expect(&self) -> Expect {
        let (Change::Put { expect, .. } | Change::Delete { expect, .. } | Change::Check { expect, .. }) = self;
        *expect
    }

    fn len(&self) -> usize {
        let value = match self {
            Change::Put { value, .. } => value.len(),
            Change::Delete { .. } | Change::Check { .. } => 0,
        };
        self.key().len() + value
    }
}

/// Entries in the order of their keys, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub entries: Vec<(String, Versioned)>,
    /// `after` of the next page; `None` when this was the last. A page may hold fewer entries than asked for and still
    /// have a next one.
    pub next: Option<String>,
}

/// What the catalog answers beside success. After anything but `Conflict`, `Invalid` and `Full` it is unknown whether the
/// commit happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// An expectation did not hold; nothing of the commit happened.
    #[error("catalog key {key} was changed by another")]
    Conflict {
        /// The first key, in the order of the commit, whose expectation failed.
        key: String,
    },
    /// A key, a value, or the commit is outside the limits; nothing happened.
    #[error("catalog: {0}")]
    Invalid(String),
    /// No space on the device; nothing happened, and it may be tried again when space has returned.
    #[error("the disk is full")]
    Full,
    /// The catalog was closed, or ended itself because the device failed.
    #[error("the catalog is closed: {0}")]
    Closed(String),
    /// A stored value is not what its reader expects; the text is for the log.
    #[error("catalog key {key} holds an unreadable value: {why}")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The engine failed in another way; the text is for the log.
    #[error("catalog: {0}")]
    Engine(String),
}

impl CatalogError {
    /// True when another commit got there first, so that the caller should read again and retry.
    pub fn is_conflict(&self) -> bool {
        matches!(self, CatalogError::Conflict { .. })
    }
}

/// The trait of the back ends. Every answer is of durable state: nothing is read that a power cut could take back.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, CatalogError>;

    /// Entries whose key begins with `prefix` and is above `after`, in bytewise order, at most `limit` (1 to 1000).
    async fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, CatalogError>;

    /// Carries out all changes or none; they are on stable storage when this returns. Gives the version that every `Put`
    /// of the commit got. A key may be named once.
    async fn commit(&self, changes: Vec<Change>) -> Result<u64, CatalogError>;
}

/// Refuses what no back end takes, with one text for all.
fn check_commit(changes: &[Change]) -> Result<(), CatalogError> {
    if changes.is_empty() || changes.len() > CATALOG_CHANGES_MAX {
        let len = changes.len();
        return Err(CatalogError::Invalid(format!(
            "a commit of {len} changes; 1 to {CATALOG_CHANGES_MAX} are taken"
        )));
    }
    let mut keys: Vec<&str> = changes.iter().map(Change::key).collect();
    keys.sort_unstable();
    if let Some(twice) = keys
        .windows(2)
        .find_map(|pair| pair.first().filter(|first| Some(*first) == pair.last()))
    {
        return Err(CatalogError::Invalid(format!(
            "key {twice:?} is named twice in one commit"
        )));
    }
    for change in changes {
        check_key(change.key())?;
        if let Change::Put { key, value, .. } = change
            && value.len() > CATALOG_VALUE_BYTES_MAX
        {
            let len = value.len();
            return Err(CatalogError::Invalid(format!(
                "the value of {key:?} has {len} bytes; the limit is {CATALOG_VALUE_BYTES_MAX}"
            )));
        }
    }
    let all: usize = changes.iter().map(Change::len).sum();
    if all > CATALOG_COMMIT_BYTES_MAX {
        return Err(CatalogError::Invalid(format!(
            "a commit of {all} bytes; the limit is {CATALOG_COMMIT_BYTES_MAX}"
        )));
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), CatalogError> {
    if key.is_empty() || key.len() > CATALOG_KEY_BYTES_MAX || key.contains('\0') {
        let len = key.len();
        return Err(CatalogError::Invalid(format!(
            "a key of {len} bytes; 1 to {CATALOG_KEY_BYTES_MAX} without NUL are taken"
        )));
    }
    Ok(())
}

fn check_page(prefix: &str, limit: usize) -> Result<(), CatalogError> {
    if prefix.len() > CATALOG_KEY_BYTES_MAX || !(1..=CATALOG_PAGE_MAX).contains(&limit) {
        return Err(CatalogError::Invalid(format!(
            "a page of {limit} entries; 1 to {CATALOG_PAGE_MAX} are given"
        )));
    }
    Ok(())
}
