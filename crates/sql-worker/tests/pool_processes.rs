//! The pool with the program itself: processes that end, hang, and are not shared. One test alone, since it counts the
//! children of its process.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test; it looks for its children in /proc"
)]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use common::{account, job, pool};

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
