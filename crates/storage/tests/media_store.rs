//! What every media store promises of its listings, compared with a plain list of the fragments that were stored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::path::Path;
use std::sync::Arc;

use base::metrics::Metrics;
use base::{ManualClock, SystemDisk, Timestamp};
use bytes::Bytes;
use storage::{
    Coverage, CoverageQuery, FragmentInfo, FragmentQuery, FragmentRange, FragmentSummary, LogOptions, LogStore,
    MediaStore, MemoryMediaStore, MemoryOptions, Span, StreamId, TimeAxis,
};

const CAMERA: StreamId = StreamId(7);
const NOW: i64 = 1_700_000_000_000;
const AXES: [TimeAxis; 2] = [TimeAxis::Server, TimeAxis::Producer];

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn open(folder: &Path, clock: &Arc<ManualClock>) -> LogStore {
    let options = LogOptions {
        media_segment_bytes: 1 << 20,
        reserve_bytes: 64 << 10,
        ..LogOptions::default()
    };
    let disk = Arc::new(SystemDisk::open(folder).unwrap());
    LogStore::open(disk, Arc::clone(clock) as _, options, &Metrics::new()).unwrap()
}

/// Fragments with gaps and overlaps, some sent late: their producer's times lie before those of earlier numbers.
async fn fill(media: &dyn MediaStore, random: &mut fastrand::Rng, count: usize) -> Vec<FragmentInfo> {
    let mut stored = Vec::new();
    let (mut server, mut producer) = (NOW, NOW - 10_000_000);
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
        assert_eq!((info.tracks_hash, info.position), (summary.tracks_hash, n as u64 + 1));
        stored.push(info);
    }
    stored
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

async fn agrees_with(media: &dyn MediaStore, stored: &[FragmentInfo], random: &mut fastrand::Rng) {
    for _ in 0..60 {
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

#[tokio::test]
async fn the_log_lists_what_was_stored_in_either_order_before_and_after_a_restart() {
    let mut random = fastrand::Rng::with_seed(7);
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(NOW));
    let log = open(folder.path(), &clock);
    let stored = fill(&*log.media(), &mut random, 200).await;
    agrees_with(&*log.media(), &stored, &mut random).await;
    drop(log);
    let log = open(folder.path(), &clock);
    agrees_with(&*log.media(), &stored, &mut random).await;
}

#[tokio::test]
async fn memory_lists_what_was_stored_in_either_order() {
    let mut random = fastrand::Rng::with_seed(8);
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(NOW));
    let log = open(folder.path(), &clock);
    let media = MemoryMediaStore::new(log.media(), clock, MemoryOptions::default());
    let stored = fill(&media, &mut random, 200).await;
    agrees_with(&media, &stored, &mut random).await;
}
