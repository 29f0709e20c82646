//! What is kept of a table beside its items, and what its indexes hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::key::{KeyAttr, Keys};
use crate::value::Item;

/// What an index keeps of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Projection {
    /// Everything.
    All,
    /// The keys of index and table.
    KeysOnly,
    /// The keys and these attributes.
    Include(BTreeSet<String>),
}

/// Units of capacity; told back, never enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throughput {
    /// Reads.
    pub read: i64,
    /// Writes.
    pub write: i64,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Its name.
    pub name: String,
    /// Its key.
    pub keys: Keys,
    /// What it keeps.
    pub projection: Projection,
    /// A local index shares the partitions of its table.
    pub local: bool,
    /// Of a global index of a provisioned table.
    #[serde(default)]
    pub throughput: Throughput,
}

/// Time to live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtlRecord {
    /// The attribute that holds the second after which an item goes.
    pub attribute: String,
}

/// Continuous backups, as far as they are told back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitrRecord {
    /// Since when they are on.
    pub since_ms: i64,
    /// How long they reach back.
    pub days: i32,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Its number in the catalog, never used again.
    pub id: u64,
    /// Its id on the wire.
    pub uuid: String,
    /// When it was made.
    pub created_ms: i64,
    /// Its key.
    pub keys: Keys,
    /// The attributes that were defined for keys.
    pub attributes: Vec<KeyAttr>,
    /// Its indexes, in the order of their names.
    pub indexes: Vec<IndexRecord>,
    /// Since when it is paid per request; `None` for a provisioned table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand_since_ms: Option<i64>,
    /// Of a provisioned table.
    #[serde(default)]
    pub throughput: Throughput,
    /// It cannot be deleted.
    #[serde(default)]
    pub protected: bool,
    /// Its class, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Continuous backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pitr: Option<PitrRecord>,
    /// Time to live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TtlRecord>,
}

impl TableRecord {
    /// An index.
    pub fn index(&self, name: &str) -> Option<&IndexRecord> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// What an index has of an item.
    pub fn projected(&self, index: &IndexRecord, item: &Item) -> Item {
        let keep = |name: &String| match &index.projection {
            Projection::All => true,
            Projection::KeysOnly => index.keys.has(name) || self.keys.has(name),
            Projection::Include(names) => index.keys.has(name) || self.keys.has(name) || names.contains(name),
        };
        let kept = item.iter().filter(|(name, _)| keep(name));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// True when an index has the attribute of every item.
    pub fn is_projected(&self, index: &IndexRecord, name: &str) -> bool {
        match &index.projection {
            Projection::All => true,
            Projection::KeysOnly => index.keys.has(name) || self.keys.has(name),
            Projection::Include(names) => index.keys.has(name) || self.keys.has(name) || names.contains(name),
        }
    }
}
