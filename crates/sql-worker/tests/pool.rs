//! The pool with the program itself: records on which it ends, and a program that is none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use common::{account, job, pool};
use sql::job::Reason;
use sql::{ConvertError, SqlConfig, SqlPool};

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
async fn a_program_that_is_no_worker_keeps_all_records() {
    let mut config = SqlConfig::new(PathBuf::from("/bin/true"));
    config.job_timeout = Duration::from_secs(3);
    let pool = SqlPool::start(config).unwrap();
    let job = job([("id".to_owned(), "bigint")]);
    let converted = pool.convert(account(1), &job, &[Bytes::from_static(b"{}")]).await;
    assert!(matches!(converted, Err(ConvertError::Worker(why)) if why.contains("does not start")));
}
