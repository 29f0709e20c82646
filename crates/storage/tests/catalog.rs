//! One suite for every back end of the catalog, a comparison of the back ends with each other on random commits, and what
//! is particular to each: power cuts in memory, restarts, foreign files and a full disk in SQLite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::path::Path;
use std::sync::Arc;

use base::{AccountId, ManualClock, Timestamp};
use bytes::Bytes;
use proptest::prelude::*;
use storage::catalog::{get_json, next_id, page_json, put_json, update_json};
use storage::{
    Catalog, CatalogError, CatalogKey, Change, Expect, KeyRows, MemoryCatalog, Page, SqliteCatalog, SqliteOptions,
};

fn sqlite(dir: &Path) -> SqliteCatalog {
    SqliteCatalog::open(&dir.join("catalog.db"), SqliteOptions::default()).unwrap()
}

fn put(key: &str, value: &str, expect: Expect) -> Change {
    Change::Put {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        expect,
    }
}

fn delete(key: &str, expect: Expect) -> Change {
    Change::Delete {
        key: key.to_owned(),
        expect,
    }
}

async fn text(catalog: &dyn Catalog, key: &str) -> Option<String> {
    let found = catalog.get(key).await.unwrap()?;
    Some(String::from_utf8(found.value.to_vec()).unwrap())
}

fn conflict(key: &str) -> Result<u64, CatalogError> {
    Err(CatalogError::Conflict { key: key.to_owned() })
}

fn keys(page: &Page) -> Vec<&str> {
    page.entries.iter().map(|(key, _)| key.as_str()).collect()
}

/// The suite. The catalog is empty at the start.
async fn conforms(catalog: Arc<dyn Catalog>) {
    expectations(&*catalog).await;
    all_or_nothing(&*catalog).await;
    order(&*catalog).await;
    limits(&*catalog).await;
    typed(&*catalog).await;
    races(catalog).await;
}

async fn expectations(c: &dyn Catalog) {
    assert_eq!(c.get("e/a").await.unwrap(), None);
    let v1 = c.commit(vec![put("e/a", "1", Expect::Absent)]).await.unwrap();
    assert_eq!(c.get("e/a").await.unwrap().unwrap().version, v1);
    assert_eq!(c.commit(vec![put("e/a", "x", Expect::Absent)]).await, conflict("e/a"));
    assert_eq!(
        c.commit(vec![put("e/a", "x", Expect::Version(v1 + 1))]).await,
        conflict("e/a")
    );
    assert_eq!(
        c.commit(vec![put("e/b", "x", Expect::Version(v1))]).await,
        conflict("e/b")
    );
    assert_eq!(
        c.commit(vec![delete("e/b", Expect::Version(v1))]).await,
        conflict("e/b")
    );
    let v2 = c.commit(vec![put("e/a", "2", Expect::Version(v1))]).await.unwrap();
    assert!(v2 > v1);
    c.commit(vec![put("e/a", "3", Expect::Any)]).await.unwrap();
    c.commit(vec![delete("e/none", Expect::Any)]).await.unwrap();
    let v = c.get("e/a").await.unwrap().unwrap().version;
    c.commit(vec![delete("e/a", Expect::Version(v))]).await.unwrap();
    assert_eq!(text(c, "e/a").await, None);
    let again = c.commit(vec![put("e/a", "1", Expect::Absent)]).await.unwrap();
    assert!(again > v, "a key made anew has a version of its own");
    assert_eq!(
        c.commit(vec![put("e/a", "x", Expect::Version(v1))]).await,
        conflict("e/a")
    );
}

async fn all_or_nothing(c: &dyn Catalog) {
    c.commit(vec![
        put("t/parent", "p", Expect::Absent),
        put("t/x", "1", Expect::Absent),
    ])
    .await
    .unwrap();
    let mixed = vec![
        put("t/y", "1", Expect::Absent),
        delete("t/x", Expect::Any),
        Change::Check {
            key: "t/parent".into(),
            expect: Expect::Absent,
        },
    ];
    assert_eq!(c.commit(mixed).await, conflict("t/parent"));
    assert_eq!((text(c, "t/y").await, text(c, "t/x").await), (None, Some("1".into())));
    let parent = c.get("t/parent").await.unwrap().unwrap().version;
    let child = vec![
        Change::Check {
            key: "t/parent".into(),
            expect: Expect::Version(parent),
        },
        put("t/y", "1", Expect::Absent),
        delete("t/x", Expect::Any),
    ];
    let version = c.commit(child).await.unwrap();
    assert_eq!(c.get("t/y").await.unwrap().unwrap().version, version);
    assert_eq!(text(c, "t/x").await, None);
    assert_eq!(
        c.get("t/parent").await.unwrap().unwrap().version,
        parent,
        "a check writes nothing"
    );
}

async fn order(c: &dyn Catalog) {
    let names = [
        "o/",
        "o/a",
        "o/a/b",
        "o/aa",
        "o/b",
        "o/é",
        "o/\u{10ffff}",
        "o0",
        "o.",
        "n",
    ];
    c.commit(names.iter().map(|name| put(name, name, Expect::Absent)).collect())
        .await
        .unwrap();
    let all = ["o/", "o/a", "o/a/b", "o/aa", "o/b", "o/é", "o/\u{10ffff}"];
    let page = c.page("o/", None, 1000).await.unwrap();
    assert_eq!((keys(&page), page.next.clone()), (all.to_vec(), None));
    assert_eq!(page.entries[3].1.value, "o/aa");
    for limit in 1..9 {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = c.page("o/", after.as_deref(), limit).await.unwrap();
            assert!(page.entries.len() <= limit);
            seen.extend(page.entries.into_iter().map(|(key, _)| key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, all, "pages of {limit}");
    }
    assert_eq!(keys(&c.page("o/", Some("o/ab"), 2).await.unwrap()), ["o/b", "o/é"]);
    assert_eq!(
        keys(&c.page("o/", Some("a"), 1).await.unwrap()),
        ["o/"],
        "an `after` before the prefix"
    );
    assert_eq!(keys(&c.page("o/", Some("z"), 5).await.unwrap()), [""; 0]);
    assert_eq!(keys(&c.page("nothing", None, 5).await.unwrap()), [""; 0]);
    assert!(keys(&c.page("", None, 1000).await.unwrap()).contains(&"n"));
    let large = "x".repeat(1 << 20);
    for i in 0..6 {
        c.commit(vec![put(&format!("l/{i}"), &large, Expect::Absent)])
            .await
            .unwrap();
    }
    let page = c.page("l/", None, 1000).await.unwrap();
    assert!(
        page.entries.len() < 6 && page.next.is_some(),
        "a page is bounded in bytes too"
    );
}

async fn limits(c: &dyn Catalog) {
    let refused =
        |result: Result<u64, CatalogError>| assert!(matches!(result, Err(CatalogError::Invalid(_))), "{result:?}");
    refused(c.commit(vec![]).await);
    refused(c.commit(vec![put("", "x", Expect::Any)]).await);
    refused(c.commit(vec![put("a\0b", "x", Expect::Any)]).await);
    refused(c.commit(vec![put(&"k".repeat(2049), "x", Expect::Any)]).await);
    refused(c.commit(vec![put("k", &"x".repeat((1 << 20) + 1), Expect::Any)]).await);
    refused(
        c.commit(vec![put("k", "x", Expect::Any), delete("k", Expect::Any)])
            .await,
    );
    refused(
        c.commit((0..257).map(|i| put(&format!("k{i}"), "x", Expect::Any)).collect())
            .await,
    );
    assert!(matches!(c.page("k", None, 0).await, Err(CatalogError::Invalid(_))));
    assert!(matches!(c.page("k", None, 1001).await, Err(CatalogError::Invalid(_))));
    assert!(matches!(c.get("").await, Err(CatalogError::Invalid(_))));
    assert_eq!(
        keys(&c.page("k", None, 10).await.unwrap()),
        [""; 0],
        "what was refused left nothing"
    );
}

async fn typed(c: &dyn Catalog) {
    let key = CatalogKey::account(AccountId::DEFAULT).with("thing").with("a/b");
    c.commit(vec![put_json(&key, &vec![1, 2], Expect::Absent).unwrap()])
        .await
        .unwrap();
    assert_eq!(get_json::<Vec<i32>>(c, &key).await.unwrap().unwrap().value, [1, 2]);
    assert!(matches!(
        get_json::<String>(c, &key).await,
        Err(CatalogError::Unreadable { .. })
    ));
    let longer = update_json(c, &key, |have: Option<Vec<i32>>| {
        Ok::<_, CatalogError>(have.map(|mut list| {
            list.push(3);
            list
        }))
    });
    assert_eq!(longer.await.unwrap(), Some(vec![1, 2, 3]));
    let prefix = CatalogKey::account(AccountId::DEFAULT).with("thing").below();
    let (page, next) = page_json::<Vec<i32>>(c, &prefix, None, 10).await.unwrap();
    assert_eq!((page.len(), page[0].1.value.len(), next), (1, 3, None));
    assert_eq!(
        update_json(c, &key, |_: Option<Vec<i32>>| Ok::<_, CatalogError>(None))
            .await
            .unwrap(),
        None
    );
    assert_eq!(c.get(key.as_str()).await.unwrap(), None);
}

/// Many writers on few keys: no increment is lost and no number is given twice.
async fn races(c: Arc<dyn Catalog>) {
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let c = Arc::clone(&c);
        tasks.push(tokio::spawn(async move {
            let mut given = Vec::new();
            for _ in 0..12 {
                given.push(next_id(&*c, "stream").await.unwrap());
            }
            given
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (1..=96).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_in_memory_keeps_the_promises_of_a_catalog() {
    conforms(Arc::new(MemoryCatalog::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_in_sqlite_keeps_the_promises_of_a_catalog() {
    let dir = tempfile::tempdir().unwrap();
    conforms(Arc::new(sqlite(dir.path()))).await;
}

#[derive(Clone, Debug)]
enum Guess {
    Absent,
    Any,
    Current,
    Stale,
}

fn step() -> impl Strategy<Value = (u8, u8, Guess, u8)> {
    let guess = prop_oneof![
        Just(Guess::Absent),
        Just(Guess::Any),
        Just(Guess::Current),
        Just(Guess::Stale)
    ];
    (0..3u8, 0..5u8, guess, any::<u8>())
}

async fn replay(catalog: &dyn Catalog, steps: &[Vec<(u8, u8, Guess, u8)>]) -> Vec<String> {
    let mut log = Vec::new();
    for step in steps {
        let mut changes: Vec<Change> = Vec::new();
        for (kind, name, guess, value) in step {
            let key = format!("k/{name}");
            let have = catalog.get(&key).await.unwrap().map_or(0, |found| found.version);
            let expect = match guess {
                Guess::Absent => Expect::Absent,
                Guess::Any => Expect::Any,
                Guess::Current => Expect::Version(have),
                Guess::Stale => Expect::Version(have.saturating_sub(1)),
            };
            changes.push(match kind {
                0 => put(&key, &value.to_string(), expect),
                1 => delete(&key, expect),
                _ => Change::Check { key, expect },
            });
        }
        log.push(format!("{:?}", catalog.commit(changes).await));
        log.push(format!("{:?}", catalog.page("k/", None, 10).await.unwrap()));
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn both_back_ends_answer_every_history_alike(
        steps in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..12)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let disk = sqlite(dir.path());
            let (a, b) = (replay(&MemoryCatalog::new(), &steps).await, replay(&disk, &steps).await);
            assert_eq!(a, b);
        });
    }
}

#[tokio::test]
async fn a_power_cut_keeps_what_was_answered_and_may_keep_what_was_not() {
    let catalog = MemoryCatalog::new();
    catalog.commit(vec![put("a", "1", Expect::Absent)]).await.unwrap();
    catalog.hold();
    let held: Vec<_> = ["b", "c", "d"]
        .map(|key| {
            let catalog = catalog.clone();
            tokio::spawn(async move { catalog.commit(vec![put(key, "2", Expect::Absent)]).await })
        })
        .into_iter()
        .collect();
    while catalog.waiting() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(text(&catalog, "b").await, None, "nothing is read before it is durable");
    let after = catalog.power_cut(2);
    for task in held {
        assert!(
            matches!(task.await.unwrap(), Err(CatalogError::Closed(_))),
            "nobody was told that it was stored"
        );
    }
    assert!(
        matches!(catalog.get("a").await, Err(CatalogError::Closed(_))),
        "the old process is gone"
    );
    assert!(matches!(
        catalog.commit(vec![put("z", "", Expect::Any)]).await,
        Err(CatalogError::Closed(_))
    ));
    let page = after.page("", None, 10).await.unwrap();
    assert_eq!(keys(&page), ["a", "b", "c"]);
    after.hold();
    let waiting = {
        let after = after.clone();
        tokio::spawn(async move { after.commit(vec![delete("a", Expect::Any)]).await })
    };
    while after.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    after.release();
    waiting.await.unwrap().unwrap();
    assert_eq!(text(&after, "a").await, None);
    after.set_full(true);
    assert_eq!(
        after.commit(vec![put("e", "", Expect::Any)]).await,
        Err(CatalogError::Full)
    );
    after.commit(vec![delete("b", Expect::Any)]).await.unwrap();
}

#[tokio::test]
async fn a_start_that_was_killed_while_it_made_room_does_not_keep_the_next_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    drop(sqlite(dir.path()));
    let file = rusqlite::Connection::open(dir.path().join("catalog.db")).unwrap();
    let left = "CREATE TABLE room (bytes BLOB) STRICT; INSERT INTO room VALUES (zeroblob(524288));";
    file.execute_batch(left).unwrap();
    drop(file);
    let catalog = sqlite(dir.path());
    catalog.commit(vec![put("a", "1", Expect::Any)]).await.unwrap();
    assert_eq!(text(&catalog, "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn sqlite_keeps_values_versions_and_counters_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let first = sqlite(dir.path());
    let version = first.commit(vec![put("a", "1", Expect::Absent)]).await.unwrap();
    assert_eq!(next_id(&first, "stream").await.unwrap(), 1);
    first.commit(vec![delete("a", Expect::Any)]).await.unwrap();
    drop(first);
    let second = sqlite(dir.path());
    assert_eq!(next_id(&second, "stream").await.unwrap(), 2);
    assert!(second.commit(vec![put("a", "2", Expect::Absent)]).await.unwrap() > version);
}

#[tokio::test]
async fn two_processes_may_share_the_file_and_never_overwrite_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (server, cli) = (Arc::new(sqlite(dir.path())), sqlite(dir.path()));
    cli.commit(vec![put("key/1", "sealed", Expect::Absent)]).await.unwrap();
    let found = server.get("key/1").await.unwrap().unwrap();
    server
        .commit(vec![put("key/1", "mine", Expect::Version(found.version))])
        .await
        .unwrap();
    assert_eq!(
        cli.commit(vec![put("key/1", "theirs", Expect::Version(found.version))])
            .await,
        conflict("key/1")
    );
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10 {
        assert!(seen.insert(next_id(&*server, "n").await.unwrap()));
        assert!(seen.insert(next_id(&cli, "n").await.unwrap()));
    }
}

#[tokio::test]
async fn commits_that_wait_together_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Arc::new(sqlite(dir.path()));
    let commits = (0..200).map(|i| {
        let catalog = Arc::clone(&catalog);
        async move {
            catalog
                .commit(vec![put(&format!("k/{i}"), "x", Expect::Absent)])
                .await
                .unwrap()
        }
    });
    let mut versions = futures_util::future::join_all(commits).await;
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 200, "every commit has a version of its own");
    assert!(
        catalog.transactions() < 50,
        "{} syncs for 200 commits",
        catalog.transactions()
    );
    assert_eq!(catalog.page("k/", None, 1000).await.unwrap().entries.len(), 200);
}

#[test]
fn a_newer_or_foreign_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(sqlite(dir.path()));
    let path = dir.path().join("catalog.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA user_version=2").unwrap();
    drop(raw);
    let error = |path: &Path| {
        SqliteCatalog::open(path, SqliteOptions::default())
            .err()
            .unwrap()
            .to_string()
    };
    assert!(
        error(&path).contains("schema 2; this program knows up to 1"),
        "{}",
        error(&path)
    );
    let other = dir.path().join("other.db");
    let raw = rusqlite::Connection::open(&other).unwrap();
    raw.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(raw);
    assert!(error(&other).contains("another program"));
    assert!(error(&dir.path().join("missing").join("catalog.db")).contains("unable to open"));
}

#[tokio::test]
async fn access_keys_are_kept_sealed_and_revoked_for_every_process() {
    let dir = tempfile::tempdir().unwrap();
    let rows = || Arc::new(KeyRows::new(Arc::new(sqlite(dir.path()))));
    let disk = Arc::new(base::SystemDisk::open(dir.path()).unwrap());
    let ring = Arc::new(auth::KeyRing::load_or_create(disk, "keyring").unwrap());
    let clock = ManualClock::at(Timestamp::from_millis(1_795_347_223_000));
    let root = auth::Credentials::generate().unwrap();
    let open = || {
        auth::KeyStore::open(
            Arc::clone(&ring),
            rows(),
            clock.clone(),
            root.clone(),
            AccountId::DEFAULT,
        )
    };
    let (server, cli) = (open().await.unwrap(), open().await.unwrap());
    let policy = r#"{"Statement":{"Effect":"Allow","Action":"kinesis:*","Resource":"*"}}"#;
    let made = cli.create("111122223333".parse().unwrap(), Some(policy)).await.unwrap();
    server.refresh().await.unwrap();
    let listed = server.list();
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (listed[1].access_key_id.clone(), listed[1].policy.as_deref()),
        (made.access_key_id.clone(), Some(policy))
    );
    drop((server, cli));
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = rustix::fs::open(&path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(bytes), &mut text).unwrap();
        let secret = made.secret.reveal().as_bytes();
        assert!(
            !text.windows(secret.len()).any(|w| w == secret),
            "the secret lies open in {}",
            path.display()
        );
    }
    ring.rotate().unwrap();
    let after = open().await.unwrap();
    after.reseal().await.unwrap();
    ring.forget_old().unwrap();
    let after = open().await.unwrap();
    after.revoke(&made.access_key_id).await.unwrap();
    assert!(after.revoke(&made.access_key_id).await.is_err());
    assert!(after.revoke(&root.access_key_id).await.is_err(), "the root key stays");
    assert_eq!(open().await.unwrap().list().len(), 1);
}
