//! What every media store promises of its listings, compared with a plain list of the fragments that were stored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

use std::path::Path;
use std::sync::Arc;

use base::metrics::Metrics;
use base::{ManualClock, SystemDisk, Timestamp};
use bytes::Bytes;
use storage::{
    Coverage, CoverageQuery, Cursor, FragmentInfo, FragmentQuery, FragmentRange, FragmentSummary, IndexHome,
    LogOptions, LogStore, MediaStore, MemoryMediaStore, MemoryOptions, Span, StreamId, TimeAxis,
};

const CAMERA: StreamId = StreamId(7);
const NOW: i64 = 1_700_000_000_000;
const AXES: [TimeAxis; 2] = [TimeAxis::Server, TimeAxis::Producer];

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// With an index on disk that holds nearly everything.
fn open(folder: &Path, clock: &Arc<ManualClock>) -> LogStore {
    let options = LogOptions {
        index: IndexHome::file(&folder.join("index.db")),
        index_window: 10,
        media_segment_bytes: 1 << 20,
        reserve_bytes: 64 << 10,
        ..LogOptions::default()
    };
    let disk = Arc::new(SystemDisk::open(&folder.join("log")).unwrap());
    LogStore::open(disk, Arc::clone(clock) as _, options, &Metrics::new()).unwrap()
}

/// Fragments with gaps and overlaps, some sent late: their producer's times lie before those of earlier numbers.
async fn fill(media: &dyn MediaStore, random: &mut fastrand::Rng, stored: &mut Vec<FragmentInfo>, count: usize) {
    let last = stored
        .last()
        .map(|i| (i.server_timestamp.millis(), i.producer_timestamp.millis()));
    let (mut server, mut producer) = last.unwrap_or((NOW, NOW - 10_000_000));
    let before = stored.iter().map(|i| i.position).max();
    for n in 0..count {
        server += random.i64(0..40);
        producer += if random.u8(..) < 30 { -5000 } else { random.i64(0..2000) };
        let number = media.allocate_number(CAMERA, at(server)).await.unwrap();
        let mut sink = media.begin(CAMERA, number).await.unwrap();
        sink.write(Bytes::from(vec![n as u8; random.usize(1..300)]))
            .await
            .unwrap();
        let summary = FragmentSummary {
            server_timestamp: at(server),
            producer_timestamp: at(producer),
            length_ms: random.u32(0..1500),
            header_len: 0,
            tracks_hash: random.u64(..),
            frames: Vec::new(),
        };
        let info = sink.commit(summary.clone()).await.unwrap();
        assert_eq!(info.tracks_hash, summary.tracks_hash);
        if let Some(before) = before {
            assert_eq!(info.position, before + n as u64 + 1);
        }
        stored.push(info);
    }
}

/// What a listing must give, page by page.
fn expected(stored: &[FragmentInfo], query: &FragmentQuery) -> Vec<FragmentInfo> {
    let mut all: Vec<FragmentInfo> = match query.range {
        FragmentRange::All => stored.to_vec(),
        FragmentRange::Number(from, to) => stored
            .iter()
            .filter(|i| from <= i.number && i.number <= to)
            .copied()
            .collect(),
        FragmentRange::Time(axis, from, to) => {
            let mut all: Vec<_> = stored
                .iter()
                .filter(|i| from <= i.start(axis) && i.start(axis) <= to)
                .copied()
                .collect();
            all.sort_by_key(|i| (i.start(axis), i.number));
            all
        }
    };
    if query.newest_first {
        all.reverse();
    }
    all
}

async fn pages(media: &dyn MediaStore, mut query: FragmentQuery) -> Vec<FragmentInfo> {
    let mut all = Vec::new();
    loop {
        let page = media.list(CAMERA, &query).await.unwrap();
        assert!(page.len() <= query.limit);
        let Some(last) = page.last() else { return all };
        query.after = Some(query.range.place_of(last));
        all.extend(page);
    }
}

fn expected_spans(stored: &[FragmentInfo], query: &CoverageQuery) -> Vec<Span> {
    let axis = query.axis;
    let mut touching: Vec<_> = stored.to_vec();
    touching.retain(|i| i.start(axis) <= query.to && (i.start(axis) >= query.from || i.end(axis) > query.from));
    touching.sort_by_key(|i| (i.start(axis), i.number));
    let mut spans: Vec<Span> = Vec::new();
    for info in touching {
        let gap = i64::from(query.gap_ms);
        match spans
            .last_mut()
            .filter(|s| info.start(axis).millis() - s.end.millis() <= gap)
        {
            Some(span) => {
                span.end = span.end.max(info.end(axis));
                span.fragments += 1;
                span.bytes += u64::from(info.size);
            }
            None => spans.push(Span {
                start: info.start(axis),
                end: info.end(axis),
                fragments: 1,
                bytes: u64::from(info.size),
            }),
        }
    }
    spans
}

async fn all_spans(media: &dyn MediaStore, mut query: CoverageQuery) -> Vec<Span> {
    let mut whole = Coverage::default();
    loop {
        let part = media.coverage(CAMERA, &query).await.unwrap();
        assert!(part.spans.len() <= query.limit);
        query.after = part.next;
        whole.extend(part, query.gap_ms);
        if query.after.is_none() {
            return whole.spans;
        }
    }
}

/// The fragment that holds a time or follows it.
fn expected_at(stored: &[FragmentInfo], axis: TimeAxis, at: Timestamp) -> Option<FragmentInfo> {
    let holds = stored
        .iter()
        .filter(|i| i.start(axis) <= at && at < i.end(axis))
        .min_by_key(|i| i.number);
    let follows = stored
        .iter()
        .filter(|i| i.start(axis) >= at)
        .min_by_key(|i| (i.start(axis), i.number));
    holds.or(follows).copied()
}

async fn agrees_with(media: &dyn MediaStore, stored: &[FragmentInfo], random: &mut fastrand::Rng) {
    let by_number = stored.iter().max_by_key(|i| i.number);
    assert_eq!(media.latest(CAMERA).await.unwrap(), by_number.copied());
    assert_eq!(
        media.earliest(CAMERA).await.unwrap(),
        stored.iter().min_by_key(|i| i.number).copied()
    );
    let usage = media.usage(CAMERA).await.unwrap();
    let bytes: u64 = stored.iter().map(|i| u64::from(i.size)).sum();
    assert_eq!((usage.fragments, usage.bytes), (stored.len() as u64, bytes));
    for _ in 0..40 {
        let Some(a) = random.choice(stored) else { return };
        let axis = *random.choice(&AXES).unwrap();
        let at = a.start(axis).plus_millis(random.i64(-2000..2000));
        let found = media.find_containing(CAMERA, axis, at).await.unwrap();
        assert_eq!(found, expected_at(stored, axis, at), "{axis:?} {at:?}");
        assert_eq!(media.get(CAMERA, a.number).await.unwrap(), *a);
        let next = media.next_after(CAMERA, Cursor::Number(a.number)).await.unwrap();
        assert_eq!(
            next,
            stored
                .iter()
                .filter(|i| i.number > a.number)
                .min_by_key(|i| i.number)
                .copied()
        );
        let next = media.next_after(CAMERA, Cursor::Position(a.position)).await.unwrap();
        assert_eq!(
            next,
            stored
                .iter()
                .filter(|i| i.position > a.position)
                .min_by_key(|i| i.position)
                .copied()
        );
    }
    for _ in 0..40 {
        let (a, b) = (random.choice(stored).unwrap(), random.choice(stored).unwrap());
        let axis = *random.choice(&AXES).unwrap();
        let slack = random.i64(-700..700);
        let range = match random.u8(0..5) {
            0 => FragmentRange::All,
            1 => FragmentRange::Number(a.number.min(b.number), a.number.max(b.number)),
            _ => FragmentRange::Time(axis, a.start(axis).plus_millis(slack), b.start(axis).plus_millis(slack)),
        };
        let query = FragmentQuery {
            newest_first: random.bool(),
            ..FragmentQuery::first(range, random.usize(1..50))
        };
        assert_eq!(pages(media, query).await, expected(stored, &query), "{query:?}");
        let query = CoverageQuery {
            axis,
            from: a.start(axis).plus_millis(slack),
            to: b.start(axis).plus_millis(slack),
            gap_ms: random.u32(0..2000),
            after: None,
            limit: random.usize(1..20),
        };
        assert_eq!(
            all_spans(media, query).await,
            expected_spans(stored, &query),
            "{query:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_lists_what_was_stored_before_and_after_restarts_and_trims() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(at(NOW));
        let mut stored: Vec<FragmentInfo> = Vec::new();
        for life in 0..5 {
            let log = open(folder.path(), &clock);
            assert!(!log.report().index_rebuilt);
            let media = log.media();
            agrees_with(&*media, &stored, &mut random).await;
            fill(&*media, &mut random, &mut stored, 150).await;
            agrees_with(&*media, &stored, &mut random).await;
            match random.u8(0..3) {
                0 => {
                    let older = random.choice(&stored).unwrap().server_timestamp;
                    let gone = stored.iter().filter(|i| i.server_timestamp < older).count();
                    assert_eq!(media.trim(CAMERA, older).await.unwrap(), gone as u64);
                    stored.retain(|i| i.server_timestamp >= older);
                }
                1 => {
                    let max = random.u64(0..40_000);
                    let gone = media.trim_to_size(CAMERA, max).await.unwrap();
                    stored.sort_by_key(|i| i.number);
                    stored.drain(..gone as usize);
                    let left: u64 = stored.iter().map(|i| u64::from(i.size)).sum();
                    assert!(left <= max || stored.is_empty());
                }
                _ => {}
            }
            agrees_with(&*media, &stored, &mut random).await;
            drop((media, log));
            let disk: Arc<dyn base::Disk> = Arc::new(SystemDisk::open(&folder.path().join("log")).unwrap());
            let home = IndexHome::file(&folder.path().join("index.db"));
            let report = storage::fsck_with_index(&disk, &home).unwrap();
            assert_eq!(report.findings, [], "seed {seed} life {life}");
            assert_eq!(report.index_rows, stored.len() as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_missing_damaged_old_or_of_another_log_is_built_again_from_the_log() {
    let mut random = fastrand::Rng::with_seed(3);
    let folder = tempfile::tempdir().unwrap();
    let (clock, file) = (ManualClock::at(at(NOW)), folder.path().join("index.db"));
    let mut stored = Vec::new();
    // Big enough for several segments.
    for _ in 0..3 {
        let log = open(folder.path(), &clock);
        fill(&*log.media(), &mut random, &mut stored, 500).await;
    }
    let log = open(folder.path(), &clock);
    let report = log.report().clone();
    assert!(
        !report.index_rebuilt && report.segments_read + 1 < report.segments,
        "settled segments are not read: {report:?}"
    );
    drop(log);
    let other = tempfile::tempdir().unwrap();
    let log = open(other.path(), &clock);
    fill(&*log.media(), &mut random, &mut Vec::new(), 700).await;
    drop(log);
    let foreign = std::fs::read(other.path().join("index.db")).unwrap();
    let good = std::fs::read(&file).unwrap();
    let half = good[..good.len() / 2].to_vec();
    for (what, bytes) in [
        ("missing", None),
        ("not a database", Some(vec![7; 5000])),
        ("cut off", Some(half)),
        ("foreign", Some(foreign)),
    ] {
        match bytes {
            None => std::fs::remove_file(&file).unwrap(),
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
        }
        let log = open(folder.path(), &clock);
        agrees_with(&*log.media(), &stored, &mut random).await;
        assert_eq!(log.report().fragments, stored.len() as u64, "{what}");
    }
    let raw = rusqlite::Connection::open(&file).unwrap();
    raw.execute_batch("PRAGMA user_version=77").unwrap();
    drop(raw);
    agrees_with(&*open(folder.path(), &clock).media(), &stored, &mut random).await;
}

#[tokio::test]
async fn memory_lists_what_was_stored_in_either_order() {
    let mut random = fastrand::Rng::with_seed(8);
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(NOW));
    let log = open(folder.path(), &clock);
    let media = MemoryMediaStore::new(log.media(), clock, MemoryOptions::default());
    let mut stored = Vec::new();
    fill(&media, &mut random, &mut stored, 200).await;
    agrees_with(&media, &stored, &mut random).await;
}
