//! The data directory: one server at a time, formats old and new, and what a crash leaves behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![allow(clippy::disallowed_methods, reason = "tests look at the files themselves")]

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base::metrics::Metrics;
use base::{ManualClock, Timestamp};
use bytes::Bytes;
use storage::datadir::{FORMAT, Migration, holder};
use storage::{
    Catalog, Change, DataDir, DataDirError, FragmentQuery, FragmentRange, FragmentSummary, FrameEntry, LogOptions,
    LogStore, NewRecord, Position, ShardId, SqliteOptions, StreamId,
};

const NOW: Timestamp = Timestamp::from_millis(1_795_347_223_000);

fn lock(path: &Path) -> Result<DataDir, DataDirError> {
    DataDir::lock(path, &*ManualClock::at(NOW))
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

/// Copies the files of a folder and of the folders in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_second_server_is_told_who_holds_the_directory_and_gets_it_when_that_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    assert!(matches!(DataDir::peek(&path), Err(DataDirError::Missing(_))));
    let first = lock(&path).unwrap();
    assert!(first.is_locked());
    let error = lock(&path).unwrap_err();
    let text = error.to_string();
    let DataDirError::Held { holder: Some(who), .. } = error else {
        panic!("{text}")
    };
    assert_eq!((who.pid, who.started_ms), (std::process::id(), NOW.millis()));
    assert!(!who.host.is_empty());
    assert!(
        text.contains(&format!(
            "process {} on {} since 2026-11-22T11:33:43Z",
            who.pid, who.host
        )),
        "{text}"
    );
    assert_eq!(holder(&path).unwrap(), Some(who));
    assert!(
        !DataDir::peek(&path).unwrap().is_locked(),
        "the CLI may look inside meanwhile"
    );
    drop(first);
    assert_eq!(holder(&path).unwrap(), None);
    lock(&path).unwrap();
}

#[test]
fn the_lock_of_a_killed_process_is_no_obstacle_and_is_not_inherited_by_children() {
    let dir = tempfile::tempdir().unwrap();
    let first = lock(dir.path()).unwrap();
    let mut child = std::process::Command::new("sh")
        .args(["-c", "echo; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Its first byte says that it runs its own program, and so has none of our files.
    io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    drop(first);
    assert!(
        lock(dir.path()).is_ok(),
        "a worker process that outlives the server does not keep the lock"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::write(
        dir.path().join("lock"),
        "{\"pid\":1,\"host\":\"gone\",\"started_ms\":0}",
    )
    .unwrap();
    assert!(lock(dir.path()).is_ok());
}

#[test]
fn a_newer_format_is_refused_and_untouched() {
    let dir = tempfile::tempdir().unwrap();
    drop(lock(dir.path()).unwrap());
    let file = dir.path().join("format");
    let newer = format!("{{\"format\":{}}}", FORMAT + 1);
    std::fs::write(&file, &newer).unwrap();
    for error in [lock(dir.path()).unwrap_err(), DataDir::peek(dir.path()).unwrap_err()] {
        let text = error.to_string();
        assert!(
            text.contains(&format!("has format {}", FORMAT + 1)) && text.contains("newer version"),
            "{text}"
        );
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), newer);
    for bad in ["", "x", "{\"format\":0}", "{\"format\":-1}"] {
        std::fs::write(&file, bad).unwrap();
        assert!(matches!(lock(dir.path()), Err(DataDirError::Damaged { .. })), "{bad}");
    }
}

#[test]
fn a_directory_of_other_things_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
    assert!(matches!(lock(dir.path()), Err(DataDirError::Foreign(_))));
    assert!(matches!(DataDir::peek(dir.path()), Err(DataDirError::Foreign(_))));
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    assert!(
        matches!(lock(dir.path()), Err(DataDirError::Foreign(_))),
        "a log without a format is no fresh directory"
    );
    assert!(matches!(lock(&dir.path().join("a/b")), Err(DataDirError::Io { .. })));
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    let file = path.join("trace");
    let old = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(&file, old + text)
}

#[test]
fn an_older_format_is_brought_up_to_date_step_by_step_and_a_failed_step_is_repeated() {
    let clock = ManualClock::at(NOW);
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::lock_with(dir.path(), &*clock, &[]).unwrap());
    let broken: [Migration; 2] = [|p| append(p, "a"), |_| Err(io::Error::other("the power went"))];
    assert!(DataDir::lock_with(dir.path(), &*clock, &broken).is_err());
    let format = || std::fs::read_to_string(dir.path().join("format")).unwrap();
    assert_eq!(format(), "{\"format\":2}", "what was done is remembered");
    let whole: [Migration; 2] = [|p| append(p, "a"), |p| append(p, "b")];
    drop(DataDir::lock_with(dir.path(), &*clock, &whole).unwrap());
    drop(DataDir::lock_with(dir.path(), &*clock, &whole).unwrap());
    assert_eq!(format(), "{\"format\":3}");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("trace")).unwrap(),
        "ab",
        "each step ran once"
    );
    let fresh = tempfile::tempdir().unwrap();
    drop(DataDir::lock_with(fresh.path(), &*clock, &whole).unwrap());
    assert!(
        !fresh.path().join("trace").exists(),
        "a new directory needs no migration"
    );
    assert!(matches!(lock(dir.path()), Err(DataDirError::Newer { found: 3, .. })));
}

#[test]
fn the_root_key_is_made_once_kept_private_and_gives_way_to_the_operators() {
    let dir = tempfile::tempdir().unwrap();
    let data = lock(dir.path()).unwrap();
    assert_eq!(data.stored_root_key().unwrap(), None);
    let given = auth::Credentials::generate().unwrap();
    assert_eq!(data.root_key(Some(given.clone())).unwrap(), given);
    assert_eq!(
        data.stored_root_key().unwrap(),
        None,
        "what the operator gives is not stored"
    );
    let made = data.root_key(None).unwrap();
    assert_eq!(data.root_key(None).unwrap(), made);
    assert_eq!(
        DataDir::peek(dir.path()).unwrap().stored_root_key().unwrap(),
        Some(made.clone())
    );
    assert!(made.access_key_id.starts_with("AKIA") && made.access_key_id.len() == 20);
    assert_eq!(made.secret.reveal().len(), 40);
    data.open_keyring().unwrap();
    for name in ["root-key", "keyring", "lock", "format"] {
        let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(dir.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::write(dir.path().join("root-key"), "{}").unwrap();
    assert!(
        matches!(data.root_key(None), Err(DataDirError::Damaged { .. })),
        "a damaged key is not replaced silently"
    );
}

/// The fixture was written by the first version with format 1: `SIGHTGLASS_WRITE_FIXTURE=1 cargo test -p storage --test
/// datadir`. It is never written again; a later format gets a fixture of its own beside it.
#[tokio::test]
async fn a_directory_of_format_1_is_read_by_this_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    if std::env::var_os("SIGHTGLASS_WRITE_FIXTURE").is_some() && !fixture().exists() {
        write_fixture(&path).await;
        copy(&path, &fixture());
        std::fs::remove_dir_all(&path).unwrap();
    }
    copy(&fixture(), &path);
    let data = lock(&path).unwrap();
    let catalog = data.open_catalog(SqliteOptions::default()).unwrap();
    let found = catalog
        .get("000000000000/us-west-2/stream/door")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.version, &found.value[..]), (2, &br#"{"id":1}"#[..]));
    assert_eq!(storage::catalog::next_id(&catalog, "stream").await.unwrap(), 2);
    let ring = data.open_keyring().unwrap();
    let token = "AQAAAAE";
    assert!(ring.open("page", "ctx", NOW, token, auth::Form::UrlSafe).is_err());
    let sealed = catalog.get("-/-/sealed").await.unwrap().unwrap();
    assert_eq!(
        ring.open_bytes("page", "ctx", NOW, &sealed.value).unwrap(),
        b"sealed by format 1"
    );
    assert_eq!(data.stored_root_key().unwrap().unwrap().access_key_id.len(), 20);
    read_log(&open_log(&data)).await;
    assert_eq!(storage::fsck(&data.log_disk().unwrap()).unwrap().findings, []);
}

const CAMERA: StreamId = StreamId(1);
const RESULTS: StreamId = StreamId(2);
const PICTURE: &[u8] = b"the bytes of a fragment, long enough to be told from others";

fn open_log(data: &DataDir) -> LogStore {
    let options = LogOptions {
        reserve_bytes: 4096,
        ..LogOptions::default()
    };
    LogStore::open(data.log_disk().unwrap(), ManualClock::at(NOW), options, &Metrics::new()).unwrap()
}

async fn write_log(log: &LogStore) {
    let media = log.media();
    for n in 0..3 {
        let at = NOW.plus_millis(n * 1000);
        let number = media.allocate_number(CAMERA, at).await.unwrap();
        let mut sink = media.begin(CAMERA, number).await.unwrap();
        sink.write(Bytes::from_static(PICTURE)).await.unwrap();
        let frame = FrameEntry {
            offset: 0,
            len: 20,
            time_ms: 0,
            track: 1,
            key: true,
        };
        let summary = FragmentSummary {
            server_timestamp: at,
            producer_timestamp: at,
            length_ms: 1000,
            header_len: 4,
            tracks_hash: 0,
            frames: vec![frame],
        };
        sink.commit(summary).await.unwrap();
    }
    media.trim(CAMERA, NOW.plus_millis(1000)).await.unwrap();
    let records = log.records();
    records.create_shard(RESULTS, ShardId(0), NOW).await.unwrap();
    let record = NewRecord {
        stream: RESULTS,
        shard: ShardId(0),
        partition_key: "door".into(),
        sealed: false,
        explicit_hash_key: Some(7),
        data: Bytes::from_static(b"{}"),
        arrival: NOW,
    };
    records.append(vec![record]).await.unwrap();
}

async fn read_log(log: &LogStore) {
    assert_eq!((log.report().quarantined.len(), log.report().torn.len()), (0, 0));
    let query = FragmentQuery::first(FragmentRange::All, 10);
    let listed = log.media().list(CAMERA, &query).await.unwrap();
    assert_eq!(
        listed.iter().map(|info| info.position).collect::<Vec<_>>(),
        [2, 3],
        "the first was trimmed"
    );
    assert_eq!(listed[1].server_timestamp, NOW.plus_millis(2000));
    assert_eq!(listed[1].tracks_hash, 0, "not known then");
    assert_eq!(
        log.media().read(CAMERA, listed[1].number, 0..u32::MAX).await.unwrap(),
        PICTURE
    );
    assert_eq!(log.media().frames(CAMERA, listed[1].number).await.unwrap()[0].len, 20);
    assert!(log.media().allocate_number(CAMERA, NOW).await.unwrap() > listed[1].number);
    let batch = log
        .records()
        .read(RESULTS, ShardId(0), Position::Trim, 10, 1000)
        .await
        .unwrap();
    let record = &batch.records[0];
    assert_eq!(
        (&record.data[..], record.explicit_hash_key, batch.records.len()),
        (&b"{}"[..], Some(7), 1)
    );
}

async fn write_fixture(path: &Path) {
    let data = lock(path).unwrap();
    data.root_key(None).unwrap();
    let catalog = data.open_catalog(SqliteOptions::default()).unwrap();
    storage::catalog::next_id(&catalog, "stream").await.unwrap();
    let key = "000000000000/us-west-2/stream/door";
    catalog
        .commit(vec![Change::create(key, &br#"{"id":1}"#[..])])
        .await
        .unwrap();
    let sealed = data
        .open_keyring()
        .unwrap()
        .seal_bytes("page", "ctx", None, b"sealed by format 1")
        .unwrap();
    catalog
        .commit(vec![Change::create("-/-/sealed", sealed)])
        .await
        .unwrap();
    let log = open_log(&data);
    write_log(&log).await;
    drop((log, catalog, data));
    for entry in std::fs::read_dir(path.join("log")).unwrap() {
        let name = entry.unwrap().path();
        if name.file_name().unwrap().to_str().unwrap().starts_with("reserve-") {
            std::fs::remove_file(name).unwrap();
        }
    }
    let _ = std::fs::remove_file(path.join("catalog.db-reserve"));
    let raw = rusqlite::Connection::open(path.join("catalog.db")).unwrap();
    raw.execute_batch("VACUUM").unwrap();
    drop(raw);
    std::fs::remove_file(path.join("lock")).unwrap();
}
