//! What a tail tells of fragments that arrive, are stored, and are refused.

use std::time::Duration;

use base::Timestamp;
use matroska::Tracks;

use super::*;
use crate::consumer::FragmentEnd;

fn tail() -> Tail {
    Tail {
        part_ms: 220,
        asked: AtomicU64::new(0),
        changes: watch::Sender::new(0),
        fragments: Mutex::default(),
        held: Arc::default(),
        commits: watch::Sender::new(5).subscribe(),
        commits_before: 5,
    }
}

fn sound(number: u64) -> Track {
    Track {
        kind: TrackKind::Audio,
        codec_id: "A_AAC".to_owned(),
        codec_private: Bytes::from_static(&[0x14, 0x08]),
        video: None,
        audio: Some(matroska::Audio {
            sampling_hz: 16_000.0,
            channels: 1,
            bit_depth: None,
        }),
        ..crate::testing::track(number)
    }
}

fn start(tail: &Tail, sequence: u64) -> FragmentNumber {
    let number = crate::testing::number(sequence);
    tail.take(Event::FragmentStart(FragmentStart {
        number,
        server_timestamp: Timestamp::from_millis(1_000),
        producer_timestamp: Timestamp::from_millis(2_000),
        tracks: Tracks::from([sound(1)]),
        timecode_scale_ns: 1_000_000,
        live: true,
    }));
    number
}

fn frames(tail: &Tail, fragment: FragmentNumber, times: impl IntoIterator<Item = i64>) {
    for at in times {
        tail.take(Event::Frame(Frame {
            fragment,
            track: 1,
            offset_ms: at as f64 * 64.0,
            key: false,
            laced: false,
            data: Bytes::from(vec![7; 100]),
            arrived: Duration::ZERO,
        }));
    }
}

fn end(tail: &Tail, number: FragmentNumber, outcome: Outcome) {
    tail.take(Event::FragmentEnd(FragmentEnd { number, outcome }));
}

#[test]
fn a_fragment_is_told_in_parts_until_it_is_forgotten() {
    let tail = tail();
    let first = start(&tail, 1);
    frames(&tail, first, 0..10);
    assert!(
        tail.candidate().is_none() && tail.is_cold(),
        "its place is not known yet"
    );
    end(&tail, first, Outcome::Stored { position: 1 });
    assert!(tail.candidate().is_none() && !tail.is_cold(), "it is stored");

    let second = start(&tail, 2);
    frames(&tail, second, 0..3);
    assert!(!tail.candidate().unwrap().in_parts, "no part of it is whole");
    frames(&tail, second, 3..5);
    let candidate = tail.candidate().unwrap();
    assert!(candidate.in_parts && candidate.open.number == second);
    let told = tail.told(second, 1).unwrap();
    assert!(told.more && !told.complete && told.beside.is_none());
    assert_eq!(
        told.parts.iter().map(|part| part.duration_ms).collect::<Vec<_>>(),
        [192]
    );
    assert!(matches!(tail.part(second, 1, 0), PartState::Ready(_)));
    assert_eq!(tail.part(second, 1, 1), PartState::Coming);
    assert_eq!(tail.part(second, 1, 2), PartState::Gone);
    assert_eq!(tail.part(second, 2, 0), PartState::Gone, "it has one track");

    end(&tail, second, Outcome::Stored { position: 2 });
    let told = tail.told(second, 1).unwrap();
    assert!(told.complete && !told.more && told.parts.len() == 2);
    assert_eq!(tail.part(second, 1, 2), PartState::Gone, "it has no more");
    for sequence in 3..3 + limits::TAIL_FRAGMENTS as u64 {
        let number = start(&tail, sequence);
        end(&tail, number, Outcome::Stored { position: sequence });
    }
    assert_eq!(tail.told(second, 1), None);
    tail.end();
    assert_eq!(
        tail.held.load(Ordering::Relaxed),
        0,
        "nothing is held when it has ended"
    );
}

#[test]
fn what_was_shown_of_a_refused_fragment_is_known() {
    let tail = tail();
    let first = start(&tail, 1);
    end(&tail, first, Outcome::Stored { position: 1 });
    let second = start(&tail, 2);
    frames(&tail, second, 0..8);
    assert_eq!(tail.fate(second), Fate::Pending);
    end(&tail, second, Outcome::Rejected);
    assert_eq!(tail.fate(second), Fate::Refused { shown_ms: 384 });
    assert_eq!(tail.fate(crate::testing::number(9)), Fate::Unknown);
    assert!(!tail.told(second, 1).unwrap().complete);
}

#[test]
fn no_parts_are_made_beyond_the_limit_and_of_laced_blocks() {
    let tail = tail();
    let first = start(&tail, 1);
    end(&tail, first, Outcome::Stored { position: 1 });
    let second = start(&tail, 2);
    frames(&tail, second, 0..5);
    tail.held.fetch_add(limits::TAILS_BYTES, Ordering::Relaxed);
    frames(&tail, second, 5..20);
    assert_eq!(tail.told(second, 1).unwrap().parts.len(), 1);
    assert!(!tail.told(second, 1).unwrap().more);
    assert_eq!(tail.part(second, 1, 1), PartState::Gone);
    tail.held.fetch_sub(limits::TAILS_BYTES, Ordering::Relaxed);

    let third = start(&tail, 3);
    tail.take(Event::Frame(Frame {
        fragment: third,
        track: 1,
        offset_ms: 0.0,
        key: true,
        laced: true,
        data: Bytes::from_static(b"two"),
        arrived: Duration::ZERO,
    }));
    frames(&tail, third, 1..20);
    assert!(tail.told(third, 1).unwrap().parts.is_empty());
}
