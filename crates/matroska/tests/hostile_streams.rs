//! Streams that are cut, flipped and lied about: a declared error or a clean end, every byte before it handed on, and
//! never more held back than the limits say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{FILES, Run, data, generate, in_chunks, in_random_chunks, run, whole};
use fastrand::Rng;
use matroska::writer::{EBML_HEADER, SEGMENT_HEAD_UNKNOWN_SIZE, put_element, put_id, put_size, put_size_in};
use matroska::{ErrorKind, Event, Limits, id};
use proptest::prelude::*;

fn small() -> Limits {
    Limits {
        header_element_bytes_max: 16 << 10,
        simple_tag_bytes_max: 4 << 10,
        header_section_bytes_max: 64 << 10,
        tracks_max: 8,
    }
}

/// The largest element that is gathered, and the head of the next.
fn held_max(limits: &Limits) -> usize {
    usize::try_from(limits.header_element_bytes_max.max(limits.simple_tag_bytes_max)).unwrap() + 12
}

fn check(what: &str, bytes: &Bytes, chunks: Vec<Bytes>, limits: &Limits) -> Run {
    let run = run(limits.clone(), chunks);
    match &run.error {
        None => assert_eq!(&run.data, bytes, "{what}"),
        Some(error) => {
            assert!(bytes.starts_with(&run.data), "{what}: bytes were changed");
            assert!(error.offset <= bytes.len() as u64, "{what}: {error}");
            if error.kind == ErrorKind::Truncated {
                assert_eq!(&run.data, bytes, "{what}: bytes of a truncated stream were kept back");
            }
        }
    }
    assert!(
        run.buffered_max <= held_max(limits),
        "{what}: {} bytes held back",
        run.buffered_max
    );
    run
}

fn mutated(bytes: &Bytes, rng: &mut Rng) -> Bytes {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.usize(1..6) {
        // Structure is dense at the head and around element heads; anywhere else is mostly payload.
        let near = if rng.bool() { 1200.min(bytes.len()) } else { bytes.len() };
        if near == 0 {
            break;
        }
        let at = rng.usize(0..near);
        match rng.u8(0..7) {
            0 => bytes[at] ^= 1 << rng.u8(0..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + rng.usize(1..2000)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + rng.usize(1..2000)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => {
                // A size of eight bytes, of any value or unknown, where one may have stood.
                let size = [1, rng.u8(..), rng.u8(..), rng.u8(..), rng.u8(..), 255, 255, 255];
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&size[..end - at]);
            }
            _ => {
                let ids: [&[u8]; 6] = [
                    &[0x1A, 0x45, 0xDF, 0xA3],
                    &[0x1F, 0x43, 0xB6, 0x75],
                    &[0x12, 0x54, 0xC3, 0x67],
                    &[0x18, 0x53, 0x80, 0x67],
                    &[0xA3],
                    &[0xA0],
                ];
                let id = ids[rng.usize(0..ids.len())];
                let end = (at + id.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&id[..end - at]);
            }
        }
    }
    bytes.into()
}

#[test]
fn mutations_of_captured_streams_never_panic_nor_hold_back_more_than_allowed() {
    for (n, name) in FILES.into_iter().enumerate() {
        let Some(bytes) = data(name) else { return };
        let bytes = bytes.slice(..bytes.len().min(200_000));
        for seed in 0..150 {
            let seed = n as u64 * 10_000 + seed;
            let mut rng = Rng::with_seed(seed);
            let bytes = mutated(&bytes, &mut rng);
            let what = format!("{name}, seed {seed}");
            let limits = if rng.bool() { Limits::default() } else { small() };
            let got = check(&what, &bytes, in_random_chunks(&bytes, seed), &limits);
            let at_once = check(&what, &bytes, in_chunks(&bytes, 65_536).collect(), &limits);
            assert_eq!(got.events, at_once.events, "{what}");
            assert_eq!(got.error, at_once.error, "{what}");
        }
    }
}

#[test]
fn mutations_of_generated_streams_never_panic_nor_hold_back_more_than_allowed() {
    for seed in 0..1500 {
        let mut rng = Rng::with_seed(seed);
        let bytes = mutated(&generate::stream(seed), &mut rng);
        let what = format!("generated, seed {seed}");
        let got = check(&what, &bytes, in_random_chunks(&bytes, seed), &small());
        let by_threes = check(&what, &bytes, in_chunks(&bytes, 3).collect(), &small());
        assert_eq!((got.events, got.error), (by_threes.events, by_threes.error), "{what}");
    }
}

#[test]
fn a_stream_cut_at_any_byte_ends_cleanly_or_says_that_it_was_cut() {
    let bytes = generate::stream(3);
    let complete = whole(&bytes);
    assert_eq!(complete.error, None);
    for cut in 0..bytes.len().min(6000) {
        let run = check(
            &format!("cut at {cut}"),
            &bytes.slice(..cut),
            vec![bytes.slice(..cut)],
            &Limits::default(),
        );
        if let Some(error) = run.error {
            assert_eq!(error.kind, ErrorKind::Truncated, "cut at {cut}");
        }
        // What was told of the part is what was told of the whole; only what was left open is closed early.
        let told = run
            .events
            .iter()
            .zip(&complete.events)
            .take_while(|(part, all)| part == all)
            .count();
        assert!(
            run.events[told..]
                .iter()
                .all(|event| matches!(event, Event::ClusterEnd | Event::TagsEnd | Event::BlockEnd(_))),
            "cut at {cut}: {:?}",
            &run.events[told..]
        );
    }
}

fn stream(parts: &[&[u8]]) -> Bytes {
    [&[EBML_HEADER, SEGMENT_HEAD_UNKNOWN_SIZE], parts]
        .concat()
        .concat()
        .into()
}

fn error_of(bytes: &Bytes) -> ErrorKind {
    check("crafted", bytes, in_chunks(bytes, 5).collect(), &small())
        .error
        .expect("an error")
        .kind
}

#[test]
fn elements_that_would_have_to_be_held_are_refused_by_their_declared_size() {
    for (id, limit) in [(id::TRACKS, 16 << 10), (id::INFO, 16 << 10)] {
        let mut part = Vec::new();
        put_id(&mut part, id);
        put_size(&mut part, 1 << 15);
        // Not a byte of it was sent yet.
        assert_eq!(
            error_of(&stream(&[&part])),
            ErrorKind::TooLarge { size: 1 << 15, limit }
        );
    }
    let mut part = Vec::new();
    put_id(&mut part, id::VOID);
    put_size(&mut part, 1 << 40);
    assert!(matches!(
        error_of(&stream(&[&part])),
        ErrorKind::TooLarge { limit: 65_536, .. }
    ));
    let (mut tag, mut tags) = (Vec::new(), Vec::new());
    put_element(&mut tag, id::SIMPLE_TAG, &[0; 5000]);
    put_element(&mut tags, id::TAG, &tag);
    let mut part = Vec::new();
    put_element(&mut part, id::TAGS, &tags);
    assert_eq!(
        error_of(&stream(&[&part])),
        ErrorKind::TooLarge {
            size: 5000,
            limit: 4096
        }
    );
    let mut tracks = Vec::new();
    for number in 1..=9 {
        put_element(&mut tracks, id::TRACK_ENTRY, &[0xD7, 0x81, number]);
    }
    let mut part = Vec::new();
    put_element(&mut part, id::TRACKS, &tracks);
    assert_eq!(error_of(&stream(&[&part])), ErrorKind::TooLarge { size: 9, limit: 8 });
}

#[test]
fn contradictions_are_named() {
    assert_eq!(error_of(&Bytes::from_static(b"RIFF....")), ErrorKind::NotEbml);
    assert_eq!(
        error_of(&Bytes::from_static(&[0x1A, 0x45, 0xDF, 0xA4])),
        ErrorKind::NotEbml
    );
    for resumed in [
        &[0xA3, 0x81, 0][..],
        &[0xA0, 0x81],
        &[0x1F, 0x43, 0xB6, 0x75, 0xFF],
        &[0x12, 0x54, 0xC3, 0x67],
    ] {
        assert_eq!(error_of(&Bytes::copy_from_slice(resumed)), ErrorKind::Headless);
    }
    assert_eq!(error_of(&stream(&[&[0x00]])), ErrorKind::InvalidId(0));
    assert_eq!(error_of(&stream(&[&[0xEC, 0x00]])), ErrorKind::InvalidSize);
    assert_eq!(error_of(&stream(&[&[0xEC, 0xFF]])), ErrorKind::UnknownSize);
    let cluster = [0x1F, 0x43, 0xB6, 0x75];
    let with = |body: &[u8]| stream(&[&cluster, &[0xFF], body]);
    assert!(matches!(
        error_of(&with(&[0xA3, 0x84, 0x81, 0, 0, 0x80])),
        ErrorKind::Missing(_)
    ));
    let timecode = [0xE7, 0x81, 5];
    let after_timecode = |body: &[u8]| with(&[&timecode[..], body].concat());
    assert!(matches!(error_of(&after_timecode(&timecode)), ErrorKind::Malformed(_)));
    assert_eq!(
        error_of(&with(&[0xE7, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ErrorKind::InvalidNumber(9)
    );
    for block in [
        &[0xA3, 0x83, 0x81, 0, 0][..],
        &[0xA3, 0x84, 0x80, 0, 0, 0],
        &[0xA3, 0x84, 0x40, 1, 0, 0, 0],
    ] {
        assert!(
            matches!(error_of(&after_timecode(block)), ErrorKind::Malformed(_)),
            "{block:x?}"
        );
    }
    assert_eq!(
        error_of(&stream(&[&cluster, &[0x83], &[0xE7, 0x82, 0, 5]])),
        ErrorKind::BeyondParent {
            end: 61,
            parent_end: 60
        }
    );
    assert!(matches!(
        error_of(&stream(&[&cluster, &[0x88], &cluster, &[0x80]])),
        ErrorKind::Unexpected(_)
    ));
    let outside: Bytes = [EBML_HEADER, &[0x1F, 0x43, 0xB6, 0x75, 0xFF]].concat().into();
    assert!(matches!(error_of(&outside), ErrorKind::Unexpected(_)));
    let mut info = Vec::new();
    put_element(&mut info, id::TIMECODE_SCALE, &[0]);
    let mut part = Vec::new();
    put_element(&mut part, id::INFO, &info);
    assert!(matches!(error_of(&stream(&[&part])), ErrorKind::Malformed(_)));
}

#[test]
fn one_byte_at_a_time_costs_no_more_memory_than_the_bytes() {
    let mut tracks = Vec::new();
    let mut entry = vec![0xD7, 0x81, 1];
    put_element(&mut entry, id::CODEC_PRIVATE, &vec![7; 1 << 20]);
    put_element(&mut tracks, id::TRACK_ENTRY, &entry);
    let mut part = Vec::new();
    put_element(&mut part, id::TRACKS, &tracks);
    let bytes = stream(&[&part]);
    let run = run(Limits::default(), in_chunks(&bytes, 1));
    assert_eq!(run.error, None);
    assert_eq!(run.data, bytes);
    let Some(Event::Tracks(tracks)) = run.events.last() else {
        panic!("{:?}", run.events.last())
    };
    assert_eq!(tracks[0].codec_private.len(), 1 << 20);
}

#[test]
fn a_thousand_tags_in_a_tag_are_told_up_to_a_limit() {
    let inner: Vec<u8> = [0x67, 0xC8, 0x80].repeat(1000);
    let (mut simple, mut tag, mut tags) = (Vec::new(), Vec::new(), Vec::new());
    put_element(&mut simple, id::SIMPLE_TAG, &inner);
    put_element(&mut tag, id::TAG, &simple);
    put_element(&mut tags, id::TAGS, &tag);
    let run = whole(&stream(&[&tags]));
    assert_eq!(run.error, None);
    assert_eq!(
        run.events.iter().filter(|event| matches!(event, Event::Tag(_))).count(),
        256
    );
}

proptest! {
    #[test]
    fn noise_behind_a_header_is_harmless(noise in proptest::collection::vec(any::<u8>(), 0..600), len in 1usize..40) {
        let bytes = stream(&[&noise]);
        check("noise", &bytes, in_chunks(&bytes, len).collect(), &small());
    }

    #[test]
    fn unknown_elements_are_carried_with_their_bytes(
        id in 0x4001u32..0x7FFE, data in proptest::collection::vec(any::<u8>(), 0..300), width in 1usize..=8,
    ) {
        prop_assume!(matroska::ElementId(id).name().is_none());
        let mut part = Vec::new();
        put_id(&mut part, matroska::ElementId(id));
        put_size_in(&mut part, data.len() as u64, width);
        part.extend_from_slice(&data);
        let bytes = stream(&[&part]);
        let run = check("unknown element", &bytes, in_chunks(&bytes, 7).collect(), &Limits::default());
        prop_assert_eq!(run.error, None);
        prop_assert_eq!(run.data, bytes);
    }
}
