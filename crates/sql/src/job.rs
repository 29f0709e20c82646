//! What a worker is asked to do: records of JSON to become a file of columns.

use std::collections::BTreeMap;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::hive::HiveType;
use crate::joda::TimestampPattern;
use crate::limits::COLUMNS_MAX;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, in lower case as Hive has it.
    pub name: String,
    /// Its type.
    pub hive: HiveType,
}

/// A file that is to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The columns, in their order.
    pub columns: Vec<Column>,
    /// How JSON is read.
    pub input: Input,
    /// What is written.
    pub output: Output,
}

/// How JSON is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// As the OpenX JSON SerDe reads it: texts that are numbers are numbers, whatever is not text becomes text.
    OpenX {
        /// Keys are taken for lower case.
        case_insensitive: bool,
        /// Points in keys are taken for underscores.
        dots_to_underscores: bool,
        /// Columns whose key has another name.
        mappings: BTreeMap<String, String>,
    },
    /// As Hive's own JSON SerDe reads it: types must fit.
    Hive {
        /// Patterns of timestamps in Joda's language, or `millis`; none: `yyyy-MM-dd HH:mm:ss` with a fraction or without.
        timestamp_formats: Vec<String>,
    },
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// Apache Parquet.
    Parquet(ParquetOptions),
    /// Apache ORC.
    Orc(OrcOptions),
}

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Not.
    None,
    /// Snappy.
    Snappy,
    /// GZIP in Parquet, ZLIB in ORC.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// Options of Parquet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParquetOptions {
    /// Of pages.
    pub compression: Compression,
    /// Whether values that come again are written once.
    pub dictionary: bool,
    /// The most uncompressed bytes of a page.
    pub page_bytes: usize,
    /// The most uncompressed bytes of a row group.
    pub row_group_bytes: usize,
    /// Pages of version 2.
    pub version_2: bool,
}

/// Options of ORC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrcOptions {
    /// Of streams.
    pub compression: Compression,
    /// The bytes of a stripe.
    pub stripe_bytes: usize,
}

/// Why a record is not in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is no JSON.
    Malformed(String),
    /// It is JSON that does not fit the columns.
    Mismatch(String),
    /// Workers end on it. Said by the pool; a worker does not live to say it.
    Fatal(String),
}

/// A record that is not in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its place among the records of the job.
    pub index: usize,
    /// Why.
    pub reason: Reason,
}

/// A file that cannot be made, whatever the records are; in words for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// Whether a worker can do it.
pub fn check(job: &Job) -> Result<(), Unsupported> {
    if job.columns.is_empty() {
        return Err(Unsupported("the table has no columns".to_owned()));
    }
    let width: usize = job.columns.iter().map(|column| column.hive.width()).sum();
    if width > COLUMNS_MAX {
        return Err(Unsupported(format!(
            "the table has {width} columns, more than {COLUMNS_MAX}"
        )));
    }
    let mut names = HashSet::new();
    for column in &job.columns {
        if column.name.is_empty() || !names.insert(column.name.to_lowercase()) {
            return Err(Unsupported(format!(
                "there are two columns {:?}, or one without a name",
                column.name
            )));
        }
    }
    if let Input::Hive { timestamp_formats } = &job.input {
        for format in timestamp_formats {
            let parsed = format.parse::<TimestampPattern>();
            parsed.map_err(|error| Unsupported(error.to_string()))?;
        }
        let dotted = job.columns.iter().find(|column| column.name.contains('.'));
        if let Some(column) = dotted {
            return Err(Unsupported(format!(
                "the Hive JSON SerDe allows no period in the name of a column: {:?}",
                column.name
            )));
        }
    }
    match &job.output {
        Output::Parquet(_) => Ok(()),
        Output::Orc(options) => check_orc(job, options),
    }
}

/// The library writes flat tables without decimals, and has no Zstandard for what it writes.
fn check_orc(job: &Job, options: &OrcOptions) -> Result<(), Unsupported> {
    if options.compression == Compression::Zstd {
        return Err(Unsupported(
            "ORC is compressed with SNAPPY or ZLIB, or not at all".to_owned(),
        ));
    }
    let cannot = |column: &&Column| column.hive.is_nested() || matches!(column.hive, HiveType::Decimal(..));
    match job.columns.iter().find(cannot) {
        None => Ok(()),
        Some(column) => Err(Unsupported(format!(
            "ORC is written for columns of simple types alone; column {:?} is {}: use Parquet, or another type",
            column.name, column.hive
        ))),
    }
}
