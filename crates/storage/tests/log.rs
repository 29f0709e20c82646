//! The log on a real directory, through its public API: what a user would lose if a restart forgot something.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::metrics::Metrics;
use base::{ManualClock, SystemDisk, Timestamp};
use bytes::Bytes;
use storage::{
    Cursor, Error, FragmentInfo, FragmentNumber, FragmentQuery, FragmentRange, FragmentSummary, FrameEntry, LogOptions,
    LogStore, MediaStore, NewRecord, Position, RecordLog, ShardId, StreamId, TimeAxis,
};

const CAMERA: StreamId = StreamId(7);
const RESULTS: StreamId = StreamId(8);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn options() -> LogOptions {
    LogOptions {
        media_segment_bytes: 1 << 20,
        record_segment_bytes: 1 << 20,
        extent_bytes: 64 << 10,
        reserve_bytes: 64 << 10,
        punch_delay_ms: 0,
        spare_segments: 1,
        ..LogOptions::default()
    }
}

fn open(folder: &Path, clock: &Arc<ManualClock>) -> LogStore {
    // Either way of writing must be able to go on in the files of the other.
    let plain = SystemDisk::open(folder).unwrap();
    let disk = if fastrand::bool() {
        storage::best_disk(plain)
    } else {
        Arc::new(plain)
    };
    let clock: Arc<ManualClock> = Arc::clone(clock);
    LogStore::open(disk, clock, options(), &Metrics::new()).unwrap()
}

fn payload(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

async fn store(media: &Arc<dyn MediaStore>, stream: StreamId, server: i64, payload: &[u8]) -> FragmentInfo {
    let number = media.allocate_number(stream, at(server)).await.unwrap();
    let mut sink = media.begin(stream, number).await.unwrap();
    for piece in payload.chunks(10_000) {
        sink.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    sink.commit(summary(server, payload.len())).await.unwrap()
}

fn summary(server: i64, len: usize) -> FragmentSummary {
    let frames = (0..3).map(|n| FrameEntry {
        offset: 100 + n,
        len: 50,
        time_ms: n as i32 * 40,
        track: 1,
        key: n == 0,
    });
    FragmentSummary {
        server_timestamp: at(server),
        producer_timestamp: at(server - 5000),
        length_ms: 1000,
        header_len: (len / 10) as u32,
        tracks_hash: server.unsigned_abs(),
        frames: frames.collect(),
    }
}

async fn all(media: &Arc<dyn MediaStore>, stream: StreamId) -> Vec<FragmentInfo> {
    let query = FragmentQuery::first(FragmentRange::All, 1000);
    media.list(stream, &query).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_survive_a_restart_byte_for_byte_and_numbers_go_on_above() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(1_700_000_000_000));
    let log = open(folder.path(), &clock);
    let media = log.media();
    let mut stored = Vec::new();
    for n in 0..40u64 {
        // From empty to several extents; more than one segment in all.
        let bytes = payload(n, (n * n * 150) as usize);
        let info = store(&media, CAMERA, 1_700_000_000_000 + n as i64 * 1000, &bytes).await;
        assert_eq!((info.position, info.number.sequence()), (n + 1, n + 1));
        stored.push((info, bytes));
    }
    drop((media, log));

    let log = open(folder.path(), &clock);
    assert!(
        log.report().quarantined.is_empty() && log.report().torn.is_empty(),
        "{:?}",
        log.report()
    );
    let media = log.media();
    assert_eq!(
        all(&media, CAMERA).await,
        stored.iter().map(|(i, _)| *i).collect::<Vec<_>>()
    );
    for (info, bytes) in &stored {
        assert_eq!(media.read(CAMERA, info.number, 0..u32::MAX).await.unwrap(), bytes);
        assert_eq!(media.frames(CAMERA, info.number).await.unwrap(), summary(0, 0).frames);
    }
    let (info, bytes) = &stored[39];
    assert_eq!(
        media.read(CAMERA, info.number, 60_000..140_000).await.unwrap(),
        bytes[60_000..140_000]
    );
    let next = store(&media, CAMERA, 1_700_000_100_000, b"x").await;
    assert_eq!((next.position, next.number.sequence()), (41, 1001));
    let found = media
        .find_containing(CAMERA, TimeAxis::Server, at(1_700_000_004_500))
        .await
        .unwrap();
    assert_eq!(found.map(|f| f.position), Some(5));
    assert_eq!(
        media.next_after(CAMERA, Cursor::Position(40)).await.unwrap(),
        Some(next)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_fragment_is_never_seen_and_its_number_never_reused() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let log = open(folder.path(), &clock);
    let media = log.media();
    let number = media.allocate_number(CAMERA, at(0)).await.unwrap();
    let mut sink = media.begin(CAMERA, number).await.unwrap();
    assert!(matches!(
        media.begin(CAMERA, number).await,
        Err(Error::LimitExceeded(_))
    ));
    sink.write(payload(1, 200_000).into()).await.unwrap();
    drop(sink);
    let info = store(&media, CAMERA, 5, b"next").await;
    assert_eq!((info.number.sequence(), info.position), (2, 1));
    assert!(matches!(media.get(CAMERA, number).await, Err(Error::NotFound)));
    assert!(matches!(media.read(CAMERA, number, 0..9).await, Err(Error::NotFound)));
    assert_eq!(all(&media, CAMERA).await, [info]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimmed_and_deleted_fragments_stay_gone_and_their_space_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let log = open(folder.path(), &clock);
    let media = log.media();
    let other = StreamId(9);
    let kept = store(&media, other, 200_000, b"kept").await;
    for n in 0..100 {
        store(&media, CAMERA, n * 1000, &payload(n as u64, 100_000)).await;
    }
    let commits = media.subscribe(CAMERA);
    assert_eq!(*commits.borrow(), 100);
    assert_eq!(media.trim(CAMERA, at(90_000)).await.unwrap(), 90);
    assert_eq!(media.trim_to_size(CAMERA, 500_000).await.unwrap(), 5);
    assert_eq!(media.usage(CAMERA).await.unwrap().bytes, 500_000);
    assert_eq!(media.trim_all_to_size(300_004).await.unwrap(), 2);
    clock.advance(Duration::from_secs(60));
    drop((media, log));

    let log = open(folder.path(), &clock);
    let media = log.media();
    let left = all(&media, CAMERA).await;
    assert_eq!(left.iter().map(|i| i.position).collect::<Vec<_>>(), [98, 99, 100]);
    media.delete_stream(CAMERA).await.unwrap();
    assert!(all(&media, CAMERA).await.is_empty());
    assert!(matches!(
        media.allocate_number(CAMERA, at(0)).await,
        Err(Error::NotFound)
    ));
    drop((media, log));

    let log = open(folder.path(), &clock);
    let media = log.media();
    assert!(all(&media, CAMERA).await.is_empty());
    assert!(matches!(
        media.begin(CAMERA, FragmentNumber::new(5000, 0, 0)).await,
        Err(Error::NotFound)
    ));
    assert_eq!(media.read(other, kept.number, 0..4).await.unwrap(), "kept");
    drop((media, log));
    let used: u64 = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| std::os::unix::fs::MetadataExt::blocks(&e.unwrap().metadata().unwrap()) * 512)
        .sum();
    assert!(used < 6 << 20, "{used} bytes are still taken up");
}

fn record(shard: u32, key: &str, data: &[u8], arrival: i64) -> NewRecord {
    NewRecord {
        stream: RESULTS,
        shard: ShardId(shard),
        partition_key: key.to_owned(),
        sealed: false,
        explicit_hash_key: (arrival % 2 == 0).then_some(u128::MAX - arrival as u128),
        data: Bytes::copy_from_slice(data),
        arrival: at(arrival),
    }
}

async fn read_all(log: &Arc<dyn RecordLog>, shard: u32, page: usize) -> Vec<storage::StoredRecord> {
    let mut from = Position::Trim;
    let mut found = Vec::new();
    loop {
        let batch = log.read(RESULTS, ShardId(shard), from, page, 1 << 20).await.unwrap();
        assert!(batch.records.len() <= page);
        found.extend(batch.records);
        from = batch.next;
        if batch.at_tip {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_two_shards_come_back_in_order_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let log = open(folder.path(), &clock);
    let records = log.records();
    for shard in 0..2 {
        records.create_shard(RESULTS, ShardId(shard), at(77)).await.unwrap();
        records.create_shard(RESULTS, ShardId(shard), at(77)).await.unwrap();
    }
    let mut put = Vec::new();
    for n in 0..60i64 {
        let batch: Vec<NewRecord> = (0..10)
            .map(|i| {
                record(
                    (i % 2) as u32,
                    &format!("k{n}"),
                    &payload(n as u64, (n * 100) as usize),
                    n * 10 + i,
                )
            })
            .collect();
        let numbers = records.append(batch.clone()).await.unwrap();
        put.extend(batch.into_iter().zip(numbers));
    }
    let unknown = records
        .append(vec![record(0, "a", b"", 1), record(5, "b", b"", 1)])
        .await;
    assert!(matches!(unknown, Err(Error::NotFound)));
    let behind = records.close_shard(RESULTS, ShardId(1)).await.unwrap();
    assert_eq!(records.close_shard(RESULTS, ShardId(1)).await.unwrap(), behind);
    assert!(behind > put.iter().filter(|(r, _)| r.shard.0 == 1).last().unwrap().1);
    let closed = records
        .append(vec![record(0, "a", b"", 1), record(1, "b", b"", 1)])
        .await;
    assert!(matches!(closed, Err(Error::ShardClosed)), "all or nothing");
    let none = records.close_shard(RESULTS, ShardId(5)).await;
    assert!(matches!(none, Err(Error::NotFound)));
    records.reopen_shard(RESULTS, ShardId(1)).await.unwrap();
    let check = async |records: &Arc<dyn RecordLog>| {
        for shard in 0..2 {
            let want: Vec<_> = put.iter().filter(|(r, _)| r.shard.0 == shard).collect();
            let got = read_all(records, shard, 17).await;
            assert_eq!(got.len(), want.len());
            for (got, (record, number)) in got.iter().zip(want) {
                assert_eq!(
                    (got.sequence, &got.data, got.arrival),
                    (*number, &record.data, record.arrival)
                );
                assert_eq!(
                    (&got.partition_key, got.explicit_hash_key),
                    (&record.partition_key, record.explicit_hash_key)
                );
            }
            assert!(got.windows(2).all(|w| w[0].sequence < w[1].sequence));
        }
    };
    check(&records).await;
    let mut watch = records.watch(RESULTS, ShardId(0)).unwrap();
    watch.mark_unchanged();
    drop((records, log));

    let log = open(folder.path(), &clock);
    let records = log.records();
    check(&records).await;
    let from = records.position_at_time(RESULTS, ShardId(0), at(305)).await.unwrap();
    let batch = records.read(RESULTS, ShardId(0), from, 1, 1000).await.unwrap();
    assert_eq!(batch.records[0].arrival, at(306));
    assert_eq!(batch.last_arrival, Some(at(598)));
    let tip = records.tip(RESULTS, ShardId(1)).await.unwrap();
    let number = records.append(vec![record(1, "last", b"!", 9999)]).await.unwrap()[0];
    assert!(number > put.last().unwrap().1);
    let batch = records.read(RESULTS, ShardId(1), tip, 10, 1000).await.unwrap();
    assert_eq!((batch.records.len(), batch.at_tip), (1, true));
    let after = records
        .read(RESULTS, ShardId(1), Position::After(number), 10, 1000)
        .await
        .unwrap();
    assert!(after.records.is_empty() && after.at_tip);

    records.trim_before(RESULTS, ShardId(0), at(300)).await.unwrap();
    assert_eq!(read_all(&records, 0, 1000).await[0].arrival, at(300));
    drop((records, log));
    let log = open(folder.path(), &clock);
    assert_eq!(read_all(&log.records(), 0, 1000).await[0].arrival, at(300));
    log.records().delete_stream(RESULTS).await.unwrap();
    let gone = log.records().read(RESULTS, ShardId(0), Position::Trim, 1, 1).await;
    assert!(matches!(gone, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_with_a_tiny_buffer_budget_all_get_through() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let disk = Arc::new(SystemDisk::open(folder.path()).unwrap());
    let options = LogOptions {
        buffer_bytes: 128 << 10,
        extent_bytes: 1 << 20,
        media_segment_bytes: 4 << 20,
        ..options()
    };
    let log = LogStore::open(disk, clock, options, &Metrics::new()).unwrap();
    let media = log.media();
    let tasks: Vec<_> = (0..20u64)
        .map(|n| {
            let media = Arc::clone(&media);
            tokio::spawn(async move {
                let bytes = payload(n, 700_000);
                let info = store(&media, StreamId(n), 0, &bytes).await;
                assert_eq!(media.read(StreamId(n), info.number, 0..u32::MAX).await.unwrap(), bytes);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    log.close();
    assert!(matches!(media.allocate_number(CAMERA, at(0)).await, Err(Error::Closed)));
}
