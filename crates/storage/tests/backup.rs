//! Backup and restore: what was acknowledged before a backup began is in it, byte for byte, also while producers write and
//! retention deletes; ids are not given out twice after a restore; nothing is restored over something or from something
//! that decayed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![allow(clippy::disallowed_methods, reason = "tests look at the files themselves")]

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::metrics::Metrics;
use base::{Clock, SystemClock, Timestamp};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::backup::{BackupError, backup, restore, verify};
use storage::catalog::next_id;
use storage::datadir::FORMAT;
use storage::{
    Catalog, Change, DataDir, DataDirError, Expect, FragmentInfo, FragmentNumber, FragmentQuery, FragmentRange,
    FragmentSummary, FrameEntry, LogOptions, LogStore, MediaStore, NewRecord, Position, RecordLog, ShardId,
    SqliteCatalog, SqliteOptions, StreamId,
};

fn options() -> LogOptions {
    LogOptions {
        media_segment_bytes: 4 << 20,
        record_segment_bytes: 1 << 20,
        extent_bytes: 64 << 10,
        reserve_bytes: 64 << 10,
        ..LogOptions::default()
    }
}

struct House {
    data: DataDir,
    catalog: Arc<SqliteCatalog>,
    log: LogStore,
    media: Arc<dyn MediaStore>,
    records: Arc<dyn RecordLog>,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn open(path: &Path) -> House {
    let data = DataDir::lock(path, &*clock()).unwrap();
    let catalog = Arc::new(data.open_catalog(SqliteOptions::default()).unwrap());
    let log = LogStore::open(data.log_disk().unwrap(), clock(), options(), &Metrics::new()).unwrap();
    let (media, records) = (log.media(), log.records());
    House {
        data,
        catalog,
        log,
        media,
        records,
    }
}

fn payload(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let len = random.usize(1_000..150_000);
    (0..len).map(|_| random.u8(..)).collect()
}

async fn store(media: &dyn MediaStore, stream: StreamId, bytes: &[u8]) -> FragmentInfo {
    let server = SystemClock::new().now();
    let number = media.allocate_number(stream, server).await.unwrap();
    let mut sink = media.begin(stream, number).await.unwrap();
    for piece in bytes.chunks(20_000) {
        sink.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let summary = FragmentSummary {
        server_timestamp: server,
        producer_timestamp: server,
        length_ms: 1000,
        header_len: 100,
        tracks_hash: bytes.len() as u64,
        frames: vec![FrameEntry {
            offset: 100,
            len: 50,
            time_ms: 0,
            track: 1,
            key: true,
        }],
    };
    sink.commit(summary).await.unwrap()
}

async fn all(media: &dyn MediaStore, stream: StreamId) -> Vec<FragmentInfo> {
    let (mut out, mut after) = (Vec::new(), None);
    loop {
        let range = FragmentRange::All;
        let query = FragmentQuery {
            after,
            ..FragmentQuery::first(range, 500)
        };
        let page = media.list(stream, &query).await.unwrap();
        let Some(last) = page.last() else { return out };
        after = Some(range.place_of(last));
        out.extend(page);
    }
}

/// Fragments by stream and number, with the seed of their payload.
type Ledger = Arc<Mutex<HashMap<(StreamId, FragmentNumber), u64>>>;

async fn produce(media: Arc<dyn MediaStore>, stream: StreamId, ledger: Ledger, stop: Arc<AtomicBool>) {
    let mut pace = tokio::time::interval(Duration::from_millis(4));
    let mut seed = stream.0 * 1_000_000;
    while !stop.load(Ordering::SeqCst) {
        pace.tick().await;
        seed += 1;
        let info = store(&*media, stream, &payload(seed)).await;
        ledger.lock().insert((stream, info.number), seed);
        if seed.is_multiple_of(40) {
            media.trim_to_size(stream, 6 << 20).await.unwrap();
        }
    }
}

async fn rename(catalog: Arc<SqliteCatalog>, stop: Arc<AtomicBool>) {
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    while !stop.load(Ordering::SeqCst) {
        pace.tick().await;
        let id = next_id(&*catalog, "stream").await.unwrap();
        let pair = |key: &str| Change::Put {
            key: key.to_owned(),
            value: id.to_string().into(),
            expect: Expect::Any,
        };
        catalog.commit(vec![pair("pair/a"), pair("pair/b")]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_backup_of_a_busy_server_holds_everything_acknowledged_before_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let house = open(&dir.path().join("data"));
    let key = house.data.root_key(None).unwrap();
    house.data.open_keyring().unwrap();
    let (ledger, stop) = (Ledger::default(), Arc::new(AtomicBool::new(false)));
    let streams = [StreamId(1), StreamId(2), StreamId(3)];
    let mut tasks = Vec::new();
    for stream in streams {
        tasks.push(tokio::spawn(produce(
            Arc::clone(&house.media),
            stream,
            Arc::clone(&ledger),
            Arc::clone(&stop),
        )));
    }
    tasks.push(tokio::spawn(rename(Arc::clone(&house.catalog), Arc::clone(&stop))));
    while ledger.lock().len() < 300 {
        tokio::task::yield_now().await;
    }
    let (from, to) = (dir.path().join("data"), dir.path().join("backup"));
    let before = ledger.lock().clone();
    let manifest = tokio::task::spawn_blocking(move || backup(&from, &to, &clock()))
        .await
        .unwrap()
        .unwrap();
    assert!(ledger.lock().len() > before.len() + 10, "producers went on meanwhile");
    assert_eq!(manifest.damaged, []);
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let mut live = HashMap::new();
    for stream in streams {
        live.insert(stream, all(&*house.media, stream).await);
    }
    let last_id = next_id(&*house.catalog, "stream").await.unwrap();

    let back = dir.path().join("restored");
    restore(&dir.path().join("backup"), &back).unwrap();
    let again = open(&back);
    assert_eq!(again.log.report().quarantined, []);
    assert_eq!(again.data.root_key(None).unwrap(), key);
    let (mut found, mut kept) = (0, 0);
    for stream in streams {
        let listed = all(&*again.media, stream).await;
        for info in &listed {
            let seed = ledger.lock()[&(stream, info.number)];
            let bytes = again.media.read(stream, info.number, 0..u32::MAX).await.unwrap();
            assert_eq!(bytes, payload(seed), "{stream:?} {}", info.number);
            found += 1;
        }
        for info in live[&stream]
            .iter()
            .filter(|info| before.contains_key(&(stream, info.number)))
        {
            assert!(
                listed.iter().any(|have| have.number == info.number),
                "{stream:?} lost {}",
                info.number
            );
            kept += 1;
        }
    }
    assert!(
        found > 20 && kept > 0,
        "{found} in the copy, {kept} of them from before and still live"
    );
    let pair = again.catalog.page("pair/", None, 2).await.unwrap().entries;
    assert_eq!(pair[0].1, pair[1].1, "a commit is in the copy as a whole");
    let id = next_id(&*again.catalog, "stream").await.unwrap();
    let named: u64 = std::str::from_utf8(&pair[0].1.value).unwrap().parse().unwrap();
    assert!(id > named && id <= last_id);
    let number = again
        .media
        .allocate_number(streams[0], Timestamp::default())
        .await
        .unwrap();
    let newest = before
        .keys()
        .filter(|(s, _)| *s == streams[0])
        .map(|(_, n)| n.sequence())
        .max()
        .unwrap();
    assert!(number.sequence() > newest, "numbers go on above");
}

#[tokio::test]
async fn records_faces_and_secrets_come_back_from_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("data"), dir.path().join("backup"));
    let house = open(&from);
    let (stream, shard) = (StreamId(9), ShardId(0));
    let created = Timestamp::from_millis(1_700_000_000_000);
    house.records.create_shard(stream, shard, created).await.unwrap();
    let record = |n: u8| NewRecord {
        stream,
        shard,
        partition_key: "p".into(),
        sealed: false,
        explicit_hash_key: None,
        data: Bytes::from(vec![n; 100]),
        arrival: created,
    };
    let numbers = house.records.append((0..20).map(record).collect()).await.unwrap();
    let ring = house.data.open_keyring().unwrap();
    let sealed = ring.seal_bytes("page", "c", None, b"after").unwrap();
    let faces = rusqlite::Connection::open(house.data.faces_file()).unwrap();
    faces
        .execute_batch("CREATE TABLE face (v BLOB); INSERT INTO face VALUES (x'0102');")
        .unwrap();
    let manifest = backup(&from, &to, &clock()).unwrap();
    let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    for name in ["catalog.db", "faces.db", "keyring"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(
        names
            .iter()
            .all(|name| !name.contains("reserve") && !name.ends_with("-wal") && !name.contains("lock"))
    );
    assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(
        to.join("keyring").metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(verify(&to).unwrap(), manifest);
    drop((house, faces));

    let back = dir.path().join("restored");
    assert_eq!(restore(&to, &back).unwrap(), manifest);
    let again = open(&back);
    let batch = again
        .records
        .read(stream, shard, Position::Trim, 100, 1 << 20)
        .await
        .unwrap();
    assert_eq!(batch.records.iter().map(|r| r.sequence).collect::<Vec<_>>(), numbers);
    let ring = again.data.open_keyring().unwrap();
    assert_eq!(ring.open_bytes("page", "c", created, &sealed).unwrap(), b"after");
    let faces = rusqlite::Connection::open(again.data.faces_file()).unwrap();
    let vector: Vec<u8> = faces.query_row("SELECT v FROM face", [], |row| row.get(0)).unwrap();
    assert_eq!(vector, [1, 2]);
}

#[test]
fn nothing_is_overwritten_and_nothing_incomplete_or_decayed_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    assert!(matches!(
        backup(&path("data"), &path("b"), &clock()),
        Err(BackupError::DataDir(DataDirError::Missing(_)))
    ));
    drop(open(&path("data")));
    backup(&path("data"), &path("b"), &clock()).unwrap();
    assert!(matches!(
        backup(&path("data"), &path("b"), &clock()),
        Err(BackupError::NotEmpty(_))
    ));
    assert!(matches!(
        restore(&path("b"), &path("data")),
        Err(BackupError::NotEmpty(_))
    ));
    assert!(matches!(
        restore(&path("data"), &path("new")),
        Err(BackupError::NotABackup(_))
    ));
    assert!(matches!(
        restore(&path("nowhere"), &path("new")),
        Err(BackupError::NotABackup(_))
    ));
    let served = DataDir::lock(&path("b"), &*clock()).unwrap_err();
    assert!(matches!(served, DataDirError::Backup(_)), "{served}");

    let manifest = verify(&path("b")).unwrap();
    assert!(manifest.files.iter().any(|file| file.name.starts_with("log/segment-")));
    for file in manifest.files.iter().filter(|file| file.bytes > 0) {
        let place = path("b").join(&file.name);
        let good = std::fs::read(&place).unwrap();
        let mut bad = good.clone();
        let at = bad.len() / 2;
        bad[at] ^= 1;
        std::fs::write(&place, &bad).unwrap();
        assert!(
            matches!(restore(&path("b"), &path("new")), Err(BackupError::Damaged { .. })),
            "{}",
            file.name
        );
        std::fs::write(&place, &good[1..]).unwrap();
        assert!(matches!(verify(&path("b")), Err(BackupError::Damaged { .. })));
        std::fs::remove_file(&place).unwrap();
        assert!(matches!(verify(&path("b")), Err(BackupError::Damaged { .. })));
        std::fs::write(&place, &good).unwrap();
    }
    assert!(!path("new").exists(), "what is refused leaves nothing");
    let text = std::fs::read_to_string(path("b").join("backup.json")).unwrap();
    let evil = text.replace("\"catalog.db\"", "\"../../etc/passwd\"");
    assert_ne!(evil, text);
    std::fs::write(path("b").join("backup.json"), evil).unwrap();
    assert!(verify(&path("b")).is_err(), "a list does not lead out of its directory");
    let format = |format: u32| format!("\"format\": {format}");
    let newer = text.replace(&format(FORMAT), &format(FORMAT + 1));
    std::fs::write(path("b").join("backup.json"), newer).unwrap();
    assert!(matches!(
        verify(&path("b")),
        Err(BackupError::DataDir(DataDirError::Newer { .. }))
    ));
    std::fs::write(path("b").join("backup.json"), text).unwrap();
    restore(&path("b"), &path("new")).unwrap();
    drop(open(&path("new")));
    // A restore that was cut off before its end.
    std::fs::remove_file(path("new").join("format")).unwrap();
    assert!(matches!(
        DataDir::lock(&path("new"), &*clock()),
        Err(DataDirError::Foreign(_))
    ));
}
