//! Merging GetMedia output into files: what the parser library that AWS gives to consumers expects.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{data, in_random_chunks, whole};
use matroska::merge::{Merger, Options};
use matroska::{Error, Event};

fn merge(input: &Bytes, options: Options) -> (Bytes, bool, Option<Error>) {
    let mut merger = Merger::new(options);
    let mut out = Vec::new();
    for chunk in in_random_chunks(input, 7) {
        if let Err(error) = merger.push(chunk, &mut out) {
            return (out.concat().into(), merger.stopped(), Some(error));
        }
    }
    let error = merger.finish(&mut out).err();
    (out.concat().into(), merger.stopped(), error)
}

/// EBML headers, clusters, blocks, tags.
fn counts(bytes: &Bytes) -> [usize; 4] {
    let events = whole(bytes).events;
    let count = |want: fn(&Event) -> bool| events.iter().filter(|event| want(event)).count();
    [
        count(|event| matches!(event, Event::EbmlHeader(_))),
        count(|event| matches!(event, Event::ClusterStart { .. })),
        count(|event| matches!(event, Event::BlockEnd(_))),
        count(|event| matches!(event, Event::Tag(_))),
    ]
}

fn stopping() -> Options {
    Options {
        stop_at_first_break: true,
        ..Options::default()
    }
}

#[test]
fn a_plain_file_is_copied_byte_by_byte() {
    let Some(input) = data("mkv/clusters.mkv") else { return };
    assert_eq!(merge(&input, Options::default()), (input, false, None));
}

#[test]
fn fragments_of_one_stream_become_one_document() {
    let Some(input) = data("mkv/output_get_media.mkv") else {
        return;
    };
    let (merged, stopped, error) = merge(&input, Options::default());
    assert_eq!((counts(&merged), stopped, error), ([1, 5, 300, 60], false, None));
}

#[test]
fn a_file_played_twice_starts_again_or_stops_as_asked() {
    let Some(input) = data("mkv/output_get_media.mkv") else {
        return;
    };
    let doubled: Bytes = [&input[..], &input[..]].concat().into();
    let (merged, stopped, _) = merge(&doubled, Options::default());
    assert_eq!((counts(&merged), stopped), ([2, 10, 600, 120], false));
    let (once, stopped, error) = merge(&doubled, stopping());
    assert_eq!((counts(&once), stopped, error), ([1, 5, 300, 60], true, None));
    assert_eq!(once, merge(&input, Options::default()).0);
}

#[test]
fn sparse_fragments_are_packed_to_the_byte_as_the_parser_library_packs_them() {
    let Some(input) = data("mkv/output_get_media_sparse_fragments.mkv") else {
        return;
    };
    let Some(want) = data("mkv/output_get_media_sparse_fragments_merged.mkv") else {
        return;
    };
    let (merged, ..) = merge(
        &input,
        Options {
            pack_clusters: true,
            ..Options::default()
        },
    );
    assert!(merged == want);
}

#[test]
fn a_fragment_that_is_not_later_ends_a_file() {
    let Some(input) = data("mkv/output-get-media-equal-timecode.mkv") else {
        return;
    };
    let (merged, stopped, _) = merge(&input, stopping());
    assert_eq!((counts(&merged), stopped), ([1, 1, 120, 12], true));
}

#[test]
fn documents_without_clusters_keep_their_tags() {
    let Some(input) = data("mkv/empty-mkv-with-tags.mkv") else {
        return;
    };
    let doubled: Bytes = [&input[..], &input[..]].concat().into();
    let (merged, ..) = merge(&doubled, Options::default());
    assert_eq!(counts(&merged), [1, 0, 0, 6]);
    let Some(input) = data("mkv/test_mixed_tags.mkv") else {
        return;
    };
    assert_eq!(counts(&merge(&input, Options::default()).0), [1, 10, 100, 105]);
}
