//! An archive that dies at any of its steps goes on without a gap and without a double.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use archive::index::{Index, State};
use archive::name::INDEX;
use archive::settings::Settings;
use archive::verify::verify;
use archive::{Archiver, Cut, Folder, Format, Range, Summary};
use base::Timestamp;
use bytes::Bytes;
use client::reader::{FragmentEvent, FragmentParser};
use support::{FakeSource, FakeStore, Fault, Stored, camera, stored, track};
use tokio::sync::Semaphore;

const MINUTE: Cut = Cut::Every(Duration::from_secs(60));
const START_MS: i64 = 1_795_420_800_000;

fn settings(cut: Cut, format: Format) -> Settings {
    Settings { format, cut }
}

fn archiver(source: &Arc<FakeSource>, store: &Arc<FakeStore>, settings: Settings) -> Archiver {
    let turns = Arc::new(Semaphore::new(1));
    Archiver::new(source.clone(), store.clone(), "door", "films/", settings, turns)
}

async fn run(source: &Arc<FakeSource>, store: &Arc<FakeStore>, settings: Settings) -> Result<Summary, String> {
    let made = archiver(source, store, settings)
        .run(&Range::default(), &mut |_| {})
        .await;
    made.map_err(|error| error.to_string())
}

/// The indexes in a bucket, in order.
fn indexes(store: &FakeStore) -> Vec<Index> {
    let objects = store.objects.lock();
    let found = objects.iter().filter(|(key, _)| key.ends_with(INDEX));
    found.map(|(key, text)| Index::parse(key, text).unwrap()).collect()
}

/// The frames of a Matroska film, in order.
fn frames(film: &Bytes) -> Vec<Bytes> {
    let mut parser = FragmentParser::default();
    parser.push(film.clone());
    let mut frames = Vec::new();
    while let Some(event) = parser.next().unwrap() {
        if let FragmentEvent::Frame(frame) = event {
            frames.push(frame.data);
        }
    }
    frames
}

/// Every frame of the stream is in the bucket once, in order, and every index tells the truth.
fn assert_whole(source: &FakeSource, store: &FakeStore) {
    let mut archived: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    let objects = store.objects.lock().clone();
    for index in indexes(store) {
        assert_eq!(index.head.state, State::Done, "{}", index.head.key);
        let film = &objects[&index.head.key];
        assert_eq!(film.len() as u64, index.head.bytes);
        let mut found = frames(film).into_iter();
        for row in &index.rows {
            let (at, len) = row.at.unwrap();
            assert!(at + len <= index.head.bytes);
            let of_row: Vec<Bytes> = found.by_ref().take(usize::try_from(row.frames).unwrap()).collect();
            assert!(
                archived.insert(row.number.clone(), of_row).is_none(),
                "{} is there twice",
                row.number
            );
        }
        assert_eq!(found.next(), None);
    }
    let films = objects.keys().filter(|key| !key.ends_with(INDEX)).count();
    assert_eq!(films, indexes(store).len(), "no object without an index");
    let stored = source.stored.lock();
    assert_eq!(archived.len(), stored.len(), "no gap");
    for fragment in stored.iter() {
        assert!(archived[fragment.info.number.as_str()] == fragment.frames);
    }
    assert!(store.uploads.lock().is_empty(), "no upload is left over");
}

/// A minute and a half, of which the first minute needs three parts.
fn footage() -> Vec<Stored> {
    footage_of(30)
}

/// The same with so many large fragments; 15 make two parts.
fn footage_of(large: u64) -> Vec<Stored> {
    let tracks = camera();
    let minute = |n: u64| if n < large { 200_000 } else { 1000 };
    (0..45_u64)
        .map(|n| {
            let ms = START_MS + 30_000 + 1000 * n as i64;
            stored(n, ms, ms - 50, &tracks, minute(n))
        })
        .collect()
}

#[tokio::test]
async fn nothing_is_missing_and_nothing_double_wherever_the_archiver_dies() {
    let settings = settings(MINUTE, Format::Mkv);
    let source = FakeSource::new(START_MS + 600_000, footage());
    let whole = Arc::new(FakeStore::default());
    let summary = run(&source, &whole, settings).await.unwrap();
    assert_eq!((summary.objects, summary.fragments, summary.lost), (2, 45, 0));
    assert_whole(&source, &whole);
    let calls = whole.calls.load(std::sync::atomic::Ordering::SeqCst);
    assert!(calls > 12, "{calls}");
    for call in 0..calls {
        for fault in [Fault::DiesBefore(call), Fault::DiesAfter(call)] {
            let store = Arc::new(FakeStore::default());
            *store.fault.lock() = Some(fault);
            let died = run(&source, &store, settings).await;
            let store = store.after_crash();
            run(&source, &store, settings)
                .await
                .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            // What died is noticed, but for the answer to its very last call.
            assert!(died.is_err(), "{fault:?}");
            assert!(*store.objects.lock() == *whole.objects.lock(), "{fault:?}");
            let left = store.uploads.lock().len();
            // Between the begin of an upload and the note of its name, the upload is nobody's; the bucket's own rule for
            // uploads that were never finished takes it.
            assert!(left <= 1, "{fault:?} leaves {left} uploads");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_or_whose_answer_is_lost_is_made_again() {
    let settings = settings(MINUTE, Format::Mkv);
    let source = FakeSource::new(START_MS + 600_000, footage_of(15));
    let whole = Arc::new(FakeStore::default());
    run(&source, &whole, settings).await.unwrap();
    let calls = whole.calls.load(std::sync::atomic::Ordering::SeqCst);
    for call in 0..calls {
        for fault in [Fault::Fails(call), Fault::AnswerLost(call)] {
            let store = Arc::new(FakeStore::default());
            *store.fault.lock() = Some(fault);
            run(&source, &store, settings)
                .await
                .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert!(*store.objects.lock() == *whole.objects.lock(), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_later_run_goes_on_where_the_bucket_says_the_first_one_ended() {
    let all = footage();
    let source = FakeSource::new(START_MS + 50_000, all[..20].to_vec());
    let store = Arc::new(FakeStore::default());
    let settings = settings(MINUTE, Format::Mkv);
    run(&source, &store, settings).await.unwrap();
    assert_eq!(run(&source, &store, settings).await.unwrap(), Summary::default());
    source.stored.lock().extend_from_slice(&all[20..]);
    source.clock.set_wall(Timestamp::from_millis(START_MS + 900_000));
    let summary = run(&source, &store, settings).await.unwrap();
    assert_eq!(summary.fragments, 25);
    assert_whole(&source, &store);
    // A range that is archived already is not archived again.
    let range = Range {
        from: Some(Timestamp::from_millis(START_MS + 40_000)),
        ..Range::default()
    };
    let again = archiver(&source, &store, settings)
        .run(&range, &mut |_| {})
        .await
        .unwrap();
    assert_eq!(again, Summary::default());
}

#[tokio::test]
async fn what_became_visible_late_is_archived_too() {
    let mut all = footage();
    let late = START_MS + 300_000;
    all[10].visible = Timestamp::from_millis(late);
    let source = FakeSource::new(START_MS + 200_000, all);
    let store = Arc::new(FakeStore::default());
    let settings = settings(MINUTE, Format::Mkv);
    assert_eq!(run(&source, &store, settings).await.unwrap().fragments, 44);
    source.clock.set_wall(Timestamp::from_millis(late + 1));
    assert_eq!(run(&source, &store, settings).await.unwrap().fragments, 1);
    assert_whole(&source, &store);
    assert_eq!(indexes(&store).iter().filter(|index| index.head.late).count(), 1);
}

#[tokio::test]
async fn changes_of_codec_gaps_and_what_mp4_cannot_hold_neither_stop_it_nor_are_lost() {
    let (camera, bare) = (camera(), [track(1, "V_MPEG4/ISO/AVC", b"")]);
    let other = [track(1, "V_VP9", b"")];
    let all: Vec<Stored> = (0..40_u64)
        .map(|n| {
            let tracks = match n {
                0..10 => &camera[..],
                10..20 => &bare,
                20..30 => &other,
                _ => &camera,
            };
            let ms = START_MS + 1000 * n as i64 + if n >= 35 { 7000 } else { 0 };
            stored(n, ms, ms, tracks, 100)
        })
        .collect();
    let source = FakeSource::new(START_MS + 600_000, all.clone());
    let store = Arc::new(FakeStore::default());
    let mp4 = settings(MINUTE, Format::Mp4);
    let summary = run(&source, &store, mp4).await.unwrap();
    assert_eq!((summary.fragments, summary.lost), (40, 0));
    let made: Vec<(Format, u64)> = indexes(&store)
        .iter()
        .map(|i| (i.head.format, i.head.fragments))
        .collect();
    assert_eq!(
        made,
        [
            (Format::Mp4, 10),
            (Format::Mkv, 10),
            (Format::Mkv, 10),
            (Format::Mp4, 10)
        ]
    );
    assert!(
        indexes(&store)[1]
            .head
            .notes
            .iter()
            .any(|note| note.contains("Matroska instead of MP4"))
    );
    assert!(
        indexes(&store)[0]
            .head
            .notes
            .iter()
            .any(|note| note.contains("tracks change"))
    );

    let store = Arc::new(FakeStore::default());
    run(&source, &store, settings(MINUTE, Format::Mkv)).await.unwrap();
    assert_whole(&source, &store);
    assert_eq!(indexes(&store).len(), 4);

    // By event, the gap of seven seconds cuts too.
    let store = Arc::new(FakeStore::default());
    let event = Cut::Event {
        gap: Duration::from_secs(5),
        at_most: Duration::from_secs(3600),
    };
    run(&source, &store, settings(event, Format::Mkv)).await.unwrap();
    assert_whole(&source, &store);
    assert_eq!(indexes(&store).len(), 5);
}

#[tokio::test]
async fn a_fragment_that_retention_took_is_named_and_the_rest_is_archived() {
    let all = footage();
    let source = FakeSource::new(START_MS + 600_000, all.clone());
    let store = Arc::new(FakeStore::default());
    *store.fault.lock() = Some(Fault::DiesAfter(4));
    run(&source, &store, settings(MINUTE, Format::Mkv)).await.unwrap_err();
    let store = store.after_crash();
    assert_eq!(indexes(&store)[0].head.state, State::Planned);
    source.stored.lock().drain(..5);
    let summary = run(&source, &store, settings(MINUTE, Format::Mkv)).await.unwrap();
    assert_eq!((summary.fragments, summary.lost), (45, 5));
    let index = &indexes(&store)[0];
    assert_eq!(
        (index.head.lost, index.rows[0].lost.as_deref()),
        (5, Some("FRAGMENT_NOT_FOUND"))
    );
    assert_eq!(index.rows[5].at.map(|(at, _)| at), Some(0));
}

#[tokio::test]
async fn reading_back_finds_a_flipped_bit_a_missing_object_and_an_unfinished_plan() {
    let source = FakeSource::new(START_MS + 600_000, footage());
    let store = Arc::new(FakeStore::default());
    run(&source, &store, settings(MINUTE, Format::Mkv)).await.unwrap();
    let folder = Folder::new("films/", "door");
    let (from, until) = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));
    let report = verify(&*store, &folder, from, until, &mut |_| {}).await.unwrap();
    assert_eq!((report.good, report.fragments, report.damaged.len()), (2, 45, 0));
    let keys: Vec<String> = indexes(&store).into_iter().map(|index| index.head.key).collect();
    let mut film = store.objects.lock()[&keys[0]].to_vec();
    film[1_000_000] ^= 1;
    store.objects.lock().insert(keys[0].clone(), film.into());
    store.objects.lock().remove(&keys[1]);
    let report = verify(&*store, &folder, from, until, &mut |_| {}).await.unwrap();
    assert_eq!((report.good, report.damaged), (0, keys.clone()));
    let mut index = indexes(&store).remove(0);
    index.head.state = State::Planned;
    store
        .objects
        .lock()
        .insert(format!("{}{INDEX}", keys[0]), index.to_lines());
    let report = verify(&*store, &folder, from, until, &mut |_| {}).await.unwrap();
    assert_eq!(report.unfinished, keys[..1]);
}

#[tokio::test]
async fn the_stream_is_told_only_of_what_is_in_the_bucket() {
    let source = FakeSource::new(START_MS + 3_600_000, footage_of(15));
    let store = Arc::new(FakeStore::default());
    *store.fault.lock() = Some(Fault::DiesBefore(7));
    run(&source, &store, settings(MINUTE, Format::Mkv)).await.unwrap_err();
    let first = source.stored.lock()[0].info.server_timestamp;
    assert!(source.archived.lock().iter().all(|until| *until <= first));
    run(&source, &store.after_crash(), settings(MINUTE, Format::Mkv))
        .await
        .unwrap();
    let told = source.archived.lock().last().copied().unwrap();
    assert!(told > first);
}
