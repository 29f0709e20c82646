//! A pool of the program itself, and a job for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base::AccountId;
use sql::job::{Column, Compression, Input, Job, Output, ParquetOptions};
use sql::{SqlConfig, SqlPool};

pub fn pool(job_timeout: Duration) -> SqlPool {
    let mut config = SqlConfig::new(PathBuf::from(env!("CARGO_BIN_EXE_sql-worker")));
    config.job_timeout = job_timeout;
    SqlPool::start(config).unwrap()
}

pub fn job(columns: impl IntoIterator<Item = (String, &'static str)>) -> Job {
    let column = |(name, hive): (String, &str)| Column {
        name,
        hive: hive.parse().unwrap(),
    };
    Job {
        columns: columns.into_iter().map(column).collect(),
        input: Input::OpenX {
            case_insensitive: true,
            dots_to_underscores: false,
            mappings: BTreeMap::new(),
        },
        output: Output::Parquet(ParquetOptions {
            compression: Compression::Snappy,
            dictionary: true,
            page_bytes: 1 << 20,
            row_group_bytes: 256 << 20,
            version_2: false,
        }),
    }
}

pub fn account(number: u64) -> AccountId {
    format!("{number:012}").parse().unwrap()
}
