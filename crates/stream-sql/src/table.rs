//! Tables as statements see them: declared by the caller or by `CREATE TABLE`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A table. The options are those of Flink's `WITH (...)`; only `connector` and `format` mean something to the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name in statements.
    pub name: String,
    /// Its columns, in their order. Of a sink without any the query's are taken.
    pub columns: Vec<Column>,
    /// The time of events.
    pub rowtime: Option<Rowtime>,
    /// `PRIMARY KEY (...) NOT ENFORCED`.
    pub primary_key: Vec<String>,
    /// `PARTITIONED BY (...)`.
    pub partitioned_by: Vec<String>,
    /// `WITH (...)`.
    pub options: BTreeMap<String, String>,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as Flink writes it, e.g. `TIMESTAMP_LTZ(3)`, `ROW<a INT, b ARRAY<STRING>>`.
    pub sql_type: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Where it is in a record, e.g. `$.a.b`; none: the member of its name.
    pub path: Option<String>,
    /// `METADATA FROM '...'`: `timestamp` (arrival), `partition-key`, `sequence-number`, `shard-id`.
    pub metadata: Option<String>,
    /// `AS expression`.
    pub computed: Option<String>,
}

/// `WATERMARK FOR column AS column - INTERVAL ...`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rowtime {
    /// The column with the time.
    pub column: String,
    /// How many milliseconds late events may be.
    pub delay_ms: i64,
}
