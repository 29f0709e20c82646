//! The pool with the program itself: processes that end, hang, and are not shared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test; it looks for its children in /proc"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base::AccountId;
use bytes::Bytes;
use sql::job::{Column, Compression, Input, Job, Output, ParquetOptions, Reason};
use sql::{ConvertError, SqlConfig, SqlPool};

fn pool(job_timeout: Duration) -> SqlPool {
    let mut config = SqlConfig::new(PathBuf::from(env!("CARGO_BIN_EXE_sql-worker")));
    config.job_timeout = job_timeout;
    SqlPool::start(config).unwrap()
}

fn job(columns: impl IntoIterator<Item = (String, &'static str)>) -> Job {
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

fn account(number: u64) -> AccountId {
    format!("{number:012}").parse().unwrap()
}

/// The processes that this one started.
fn workers() -> BTreeSet<u32> {
    let own = std::process::id().to_string();
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        (fields[0] != "Z").then(|| fields[1].to_owned())
    };
    let all = std::fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent(*pid).is_some_and(|parent| parent == own))
        .collect()
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Rows without fields are cheap to send and dear to keep: the last record needs more memory than a worker has.
#[tokio::test]
async fn a_record_on_which_workers_end_is_left_out_alone() {
    let pool = pool(Duration::from_secs(60));
    let job = job((0..1000).map(|n| (format!("c{n}"), "decimal(38,10)")));
    let mut records: Vec<Bytes> = ["{\"c7\":1}", "no json", "{\"c8\":2}"]
        .map(|text| Bytes::from_static(text.as_bytes()))
        .to_vec();
    records.push(Bytes::from("{}".repeat(100_000)));
    let converted = pool.convert(account(1), &job, &records).await.unwrap();
    assert_eq!(converted.rows, 2);
    assert!(converted.file.starts_with(b"PAR1") && converted.file.ends_with(b"PAR1"));
    let rejected: Vec<usize> = converted.rejected.iter().map(|rejected| rejected.index).collect();
    assert_eq!(rejected, [1, 3]);
    assert!(matches!(&converted.rejected[0].reason, Reason::Malformed(_)));
    assert!(matches!(&converted.rejected[1].reason, Reason::Fatal(why) if why.contains("sql-worker")));
}

#[tokio::test]
async fn workers_are_not_shared_by_accounts_and_those_that_end_or_hang_are_replaced() {
    let pool = pool(Duration::from_secs(3));
    let job = job([("id".to_owned(), "bigint")]);
    let records = [Bytes::from_static(b"{\"id\":7}")];
    let convert = async |number| pool.convert(account(number), &job, &records).await.unwrap().rows;
    assert_eq!(convert(1).await, 1);
    let first = workers();
    assert_eq!((first.len(), convert(1).await), (1, 1));
    assert_eq!((workers(), convert(2).await), (first.clone(), 1));
    let both = workers();
    assert_eq!(both.len(), 2, "the other account has a process of its own");
    let second: BTreeSet<u32> = both.difference(&first).copied().collect();
    signal("-KILL", *second.first().unwrap());
    assert_eq!(convert(2).await, 1);
    signal("-STOP", *first.first().unwrap());
    assert_eq!(convert(1).await, 1);
    let replaced = workers();
    assert!(
        replaced.is_disjoint(&both) && replaced.len() == 2,
        "{replaced:?} {both:?}"
    );
}

#[tokio::test]
async fn a_program_that_is_no_worker_keeps_all_records() {
    let mut config = SqlConfig::new(PathBuf::from("/bin/true"));
    config.job_timeout = Duration::from_secs(3);
    let pool = SqlPool::start(config).unwrap();
    let job = job([("id".to_owned(), "bigint")]);
    let converted = pool.convert(account(1), &job, &[Bytes::from_static(b"{}")]).await;
    assert!(matches!(converted, Err(ConvertError::Worker(why)) if why.contains("does not start")));
}
