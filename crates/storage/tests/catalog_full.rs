//! The catalog on a file system without space: nothing is half done, deletions and reads go on, and writing resumes when
//! space returns. The test mounts a small file system in a namespace of its own; where that is not allowed it is skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![allow(clippy::disallowed_methods, reason = "the test fills the disk itself")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use storage::{Catalog, CatalogError, Change, Expect, SqliteCatalog, SqliteOptions};

const INSIDE: &str = "SIGHTGLASS_SMALL_DISK";

/// Runs one test of this file again, in a namespace where `SIGHTGLASS_SMALL_DISK` names a file system of 24 MiB. Gives that
/// directory when this is already the inner run.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(inside) = std::env::var_os(INSIDE) {
        return Some(inside.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=24m tmpfs \"$SIGHTGLASS_SMALL_DISK\" || exit 77; exec \"$@\"";
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, dir.path())
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) if status.code() == Some(101) => panic!("the test failed on the small disk"),
        other => eprintln!("skipped: no file system can be mounted here ({other:?})"),
    }
    None
}

/// Leaves no byte free.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap();
    for size in [1 << 20, 1 << 16, 1 << 12] {
        let piece = vec![1u8; size];
        while file.write_all(&piece).is_ok() {}
    }
    path
}

fn put(key: &str, value: Vec<u8>) -> Change {
    Change::Put {
        key: key.to_owned(),
        value: value.into(),
        expect: Expect::Any,
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_entries_but_deletes_reads_and_recovers() {
    let Some(dir) = small_disk("a_full_disk_refuses_new_entries_but_deletes_reads_and_recovers") else {
        return;
    };
    let catalog = SqliteCatalog::open(&dir.join("catalog.db"), SqliteOptions::default()).unwrap();
    for i in 0..100 {
        catalog
            .commit(vec![put(&format!("stream/{i:03}"), vec![7; 2000])])
            .await
            .unwrap();
    }
    let ballast = fill(&dir);
    // An addition is refused as a whole once there is no room.
    let mut made = 0;
    let error = loop {
        match catalog
            .commit(vec![put(&format!("more/{made:05}"), vec![8; 50_000])])
            .await
        {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1000, "24 MiB cannot hold this");
    };
    assert_eq!(error, CatalogError::Full);
    assert_eq!(catalog.get(&format!("more/{made:05}")).await.unwrap(), None);
    // Everything can still be read and deleted, one by one and many at a time.
    for i in 0..50 {
        assert_eq!(
            catalog
                .get(&format!("stream/{i:03}"))
                .await
                .unwrap()
                .unwrap()
                .value
                .len(),
            2000
        );
        catalog
            .commit(vec![Change::Delete {
                key: format!("stream/{i:03}"),
                expect: Expect::Any,
            }])
            .await
            .unwrap();
    }
    let rest = (50..90).map(|i| Change::Delete {
        key: format!("stream/{i:03}"),
        expect: Expect::Any,
    });
    catalog.commit(rest.collect()).await.unwrap();
    assert_eq!(catalog.page("stream/", None, 100).await.unwrap().entries.len(), 10);
    // Nor does it matter that the log of media has taken what the catalog gave up.
    fill(&dir);
    for i in 90..98 {
        catalog
            .commit(vec![Change::Delete {
                key: format!("stream/{i:03}"),
                expect: Expect::Any,
            }])
            .await
            .unwrap();
    }
    let more = catalog.get("stream/099").await.unwrap().unwrap().version;
    let smaller = Change::replace("stream/099", &b"replaced"[..], more);
    catalog.commit(vec![smaller]).await.unwrap();
    // Additions may use what was freed; then they are refused again, and deletions still are not.
    let mut again = 0;
    while catalog
        .commit(vec![put(&format!("again/{again}"), vec![9; 50_000])])
        .await
        .is_ok()
    {
        again += 1;
        assert!(again < 1000, "24 MiB cannot hold this");
    }
    fill(&dir);
    drop(catalog);
    let catalog = SqliteCatalog::open(&dir.join("catalog.db"), SqliteOptions::default()).unwrap();
    assert_eq!(
        catalog.commit(vec![put("x", vec![9; 10])]).await,
        Err(CatalogError::Full)
    );
    catalog
        .commit(vec![Change::Delete {
            key: "stream/098".to_owned(),
            expect: Expect::Any,
        }])
        .await
        .unwrap();
    std::fs::remove_file(ballast).unwrap();
    catalog.commit(vec![put("large", vec![9; 500_000])]).await.unwrap();
    drop(catalog);
    let again = SqliteCatalog::open(&dir.join("catalog.db"), SqliteOptions::default()).unwrap();
    assert_eq!(again.get("large").await.unwrap().unwrap().value.len(), 500_000);
    assert_eq!(again.page("more/", None, 1000).await.unwrap().entries.len(), made);
}
