//! Sliding windows over every kind of session: what one reload says of a segment, no other contradicts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use storage::{FragmentRange, TimeAxis};

use super::super::session::Protocol;
use super::super::session::tests::session;
use super::*;

const T0: i64 = 1_000_000_000;

/// A store of fragments in the order of their commits.
#[derive(Default)]
struct Store {
    committed: Vec<FragmentInfo>,
}

impl Store {
    /// Commits a fragment that began to arrive at `server_ms`.
    fn commit(&mut self, sequence: u64, server_ms: i64, producer_ms: i64, length_ms: u32, tracks_hash: u64) {
        self.committed.push(FragmentInfo {
            number: crate::testing::number(sequence),
            server_timestamp: Timestamp::from_millis(T0 + server_ms),
            producer_timestamp: Timestamp::from_millis(T0 + producer_ms),
            length_ms,
            size: 1000,
            header_len: 100,
            position: self.committed.len() as u64 + 1,
            frame_count: 1,
            tracks_hash,
        });
    }

    fn list(&self, session: &Session, after: Option<ListPlace>, limit: usize) -> Vec<FragmentInfo> {
        let range = FragmentRange::Time(session.axis(), session.start, session.end);
        let within = |info: &&FragmentInfo| (session.start..=session.end).contains(&info.start(session.axis()));
        let mut found: Vec<_> = self.committed.iter().filter(within).copied().collect();
        found.sort_by_key(|info| range.place_of(info));
        found.retain(|info| after.is_none_or(|after| range.place_of(info) > after));
        found.truncate(limit);
        found
    }

    /// What the service does before each answer.
    fn bring(&self, timeline: &mut Timeline, now: Timestamp, page: usize) {
        while let Some(after) = timeline.wants(now) {
            let found = self.list(timeline.session(), after, page);
            timeline.take_page(&found, found.len() >= page).unwrap();
        }
        if timeline.session().grows() && timeline.is_listed() {
            for info in &self.committed {
                if info.position > timeline.position() {
                    timeline.take_commit(info).unwrap();
                }
            }
        }
    }
}

/// What reloads have said so far.
#[derive(Default)]
struct Told {
    segments: BTreeMap<u64, (FragmentNumber, u64, u16, i64)>,
    first: u64,
    end: u64,
}

impl Told {
    /// Compares a reload with all earlier ones, by Apple's rules: a media sequence number names one segment for ever, a
    /// segment's discontinuity sequence number never changes, and playlists only lose segments at their beginning and gain
    /// them at their end.
    fn reload(&mut self, window: &Window) {
        let mut discontinuity = window.discontinuities;
        for (entry, sequence) in window.entries.iter().zip(window.first..) {
            discontinuity += u64::from(entry.discontinuity);
            let said = (entry.number, discontinuity, entry.map, entry.media_ms);
            let before = self.segments.entry(sequence).or_insert(said);
            assert_eq!(*before, said, "segment {sequence} is another one than before");
        }
        let end = window.first + window.entries.len() as u64;
        assert!(window.first >= self.first, "the media sequence went back");
        assert!(end >= self.end, "a segment was taken back");
        (self.first, self.end) = (window.first, end);
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(T0 + ms)
}

fn live(producer_time: bool, discontinuities: Discontinuities, fragments_max: u16, stored: u64) -> Session {
    Session {
        producer_time,
        discontinuities,
        fragments_max,
        created: at(0),
        start: at(-1_000_000),
        position: stored,
        first_position: 1,
        initial: u16::try_from(stored).unwrap(),
        ..session(Mode::Live)
    }
}

fn numbers(window: &Window) -> Vec<u64> {
    window.entries.iter().map(|entry| entry.number.sequence()).collect()
}

#[test]
fn a_live_window_slides_and_counts_what_leaves_it() {
    let mut store = Store::default();
    for n in 0..3 {
        store.commit(n, n as i64 * 1000 - 3000, n as i64 * 1000, 1000, 7);
    }
    let session = live(false, Discontinuities::OnDiscontinuity, 3, 3);
    let mut timeline = Timeline::new(session);
    store.bring(&mut timeline, at(0), 10);
    let window = timeline.window(at(0));
    assert_eq!(
        (window.first, window.discontinuities, numbers(&window)),
        (0, 0, vec![0, 1, 2])
    );
    // The producer's time jumps by more than 50 ms, then the codec changes.
    store.commit(3, 0, 3060, 1000, 7);
    store.commit(4, 1000, 4060, 1000, 8);
    store.commit(5, 2000, 5100, 1000, 8);
    store.bring(&mut timeline, at(3000), 10);
    let window = timeline.window(at(3000));
    assert_eq!(
        (window.first, window.discontinuities, numbers(&window)),
        (3, 0, vec![3, 4, 5])
    );
    let flags: Vec<_> = window
        .entries
        .iter()
        .map(|entry| (entry.discontinuity, entry.map))
        .collect();
    assert_eq!(flags, [(true, 0), (true, 1), (false, 1)]);
    store.commit(6, 3000, 6100, 1000, 8);
    store.bring(&mut timeline, at(4000), 10);
    let window = timeline.window(at(4000));
    assert_eq!((window.first, window.discontinuities), (4, 1));
    assert_eq!(timeline.of_map(0).map(|info| info.number.sequence()), Some(3));
    assert_eq!(timeline.of_map(1).map(|info| info.number.sequence()), Some(6));
    assert!(timeline.of_map(2).is_none());
}

#[test]
fn of_equal_producer_times_the_largest_number_is_played() {
    let mut store = Store::default();
    store.commit(0, 0, 0, 1000, 7);
    store.commit(1, 10, 1000, 1000, 7);
    store.commit(2, 20, 1000, 1000, 7);
    store.commit(3, 30, 500, 1000, 7);
    let session = Session {
        producer_time: true,
        position: 4,
        start: at(0),
        end: at(5000),
        fragments_max: 100,
        ..session(Mode::OnDemand)
    };
    for page in [2, 3, 10] {
        let mut timeline = Timeline::new(session);
        store.bring(&mut timeline, at(0), page);
        assert_eq!(numbers(&timeline.window(at(0))), [0, 3, 2], "pages of {page}");
    }
}

#[test]
fn a_replay_is_paced_by_what_its_fragments_last() {
    let mut store = Store::default();
    for n in 0..10 {
        store.commit(n, n as i64 * 2000, n as i64 * 2000, 2000, 7);
    }
    let session = Session {
        created: at(100_000),
        start: at(2000),
        end: at(16_000),
        position: 10,
        first_position: 2,
        ..session(Mode::LiveReplay)
    };
    let mut timeline = Timeline::new(session);
    let mut seen = Told::default();
    for (ms, shown) in [
        (0, 1..=3),
        (1999, 1..=3),
        (2000, 1..=4),
        (4000, 1..=5),
        (6000, 2..=6),
        (30_000, 4..=8),
    ] {
        let now = at(100_000 + ms);
        store.bring(&mut timeline, now, 4);
        let window = timeline.window(now);
        assert_eq!(numbers(&window), shown.collect::<Vec<u64>>(), "{ms} ms after the start");
        assert!(window.ended == (ms == 30_000), "{ms}");
        seen.reload(&window);
    }
}

#[test]
fn a_refused_fragment_that_was_shown_in_parts_leaves_a_gap_with_its_number() {
    let mut store = Store::default();
    store.commit(0, 0, 0, 1000, 7);
    let mut timeline = Timeline::new(live(false, Discontinuities::OnDiscontinuity, 5, 1));
    store.bring(&mut timeline, at(0), 10);
    let open = |n: u64, ms| Open {
        number: crate::testing::number(n),
        server: at(ms),
        producer: at(ms),
    };
    timeline.show(open(1, 1000));
    assert_eq!(timeline.next_sequence(), 1);
    timeline.settle_refused(400);
    timeline.show(open(2, 1400));
    assert_eq!(timeline.next_sequence(), 2);
    store.commit(3, 1300, 3000, 1000, 7);
    store.commit(2, 1400, 1400, 1000, 7);
    timeline.settle_stored(&store.committed[2]).unwrap();
    store.bring(&mut timeline, at(3000), 10);
    let window = timeline.window(at(3000));
    assert_eq!(numbers(&window), [0, 1, 2, 3]);
    let gaps: Vec<_> = window
        .entries
        .iter()
        .map(|entry| (entry.gap, entry.discontinuity))
        .collect();
    assert_eq!(gaps, [(false, false), (true, false), (false, true), (false, true)]);
}

fn commits() -> impl Strategy<Value = Vec<(i64, u32, u64, bool)>> {
    // Distance of the producer's time from its predecessor's, length, codec, and whether two commits change places.
    let one = (-1500_i64..4000, 1_u32..4000, 1_u64..3, prop::bool::weighted(0.1));
    prop::collection::vec(one, 1..160)
}

proptest! {
    #[test]
    fn no_reload_contradicts_another_whatever_is_committed_when(
        commits in commits(),
        stored in 1_usize..30,
        producer_time: bool,
        mode in prop_oneof![Just(Mode::Live), Just(Mode::LiveReplay), Just(Mode::OnDemand)],
        discontinuities in prop_oneof![
            Just(Discontinuities::Always), Just(Discontinuities::Never), Just(Discontinuities::OnDiscontinuity)
        ],
        fragments_max in 1_u16..12,
        page in 2_usize..40,
        restarts in prop::collection::vec(prop::bool::weighted(0.1), 160),
    ) {
        let stored = stored.min(commits.len());
        let mut sequences: Vec<u64> = (0..commits.len() as u64).collect();
        for (at, (.., swap)) in commits.iter().enumerate() {
            if *swap && at > 0 {
                sequences.swap(at - 1, at);
            }
        }
        let mut store = Store::default();
        let (mut producer_ms, mut told) = (0, Told::default());
        let mut timeline: Option<Timeline> = None;
        for (at_commit, (&(step, length_ms, hash, _), sequence)) in commits.iter().zip(sequences).enumerate() {
            producer_ms += step;
            let server_ms = sequence as i64 * 1000;
            store.commit(sequence, server_ms, producer_ms, length_ms, hash);
            let count = at_commit + 1;
            if count < stored {
                continue;
            }
            let now = at(count as i64 * 1000);
            let made = timeline.get_or_insert_with(|| {
                let axis = if producer_time { TimeAxis::Producer } else { TimeAxis::Server };
                let mut starts: Vec<_> = store.committed.iter().map(|info| (info.start(axis), info.number, info.position)).collect();
                starts.sort_unstable();
                if producer_time {
                    let mut last_of_each: Vec<(Timestamp, FragmentNumber, u64)> = Vec::new();
                    for start in starts {
                        if last_of_each.last().is_some_and(|last| last.0 == start.0) {
                            last_of_each.pop();
                        }
                        last_of_each.push(start);
                    }
                    starts = last_of_each;
                }
                let most = usize::from(fragments_max);
                let newest = if mode == Mode::Live { &starts[starts.len().saturating_sub(most)..] } else { &starts[..] };
                Timeline::new(Session {
                    protocol: Protocol::HlsMp4,
                    producer_time,
                    discontinuities,
                    fragments_max,
                    created: now,
                    start: newest[0].0,
                    end: Timestamp::from_millis(i64::MAX),
                    position: count as u64,
                    first_position: newest[0].2,
                    initial: u16::try_from(newest.len()).unwrap(),
                    ..session(mode)
                })
            });
            store.bring(made, now, page);
            let window = made.window(now);
            prop_assert!(!window.entries.is_empty());
            prop_assert!(window.entries.len() <= usize::from(fragments_max));
            told.reload(&window);
            if restarts[at_commit] {
                let mut anew = Timeline::new(*made.session());
                store.bring(&mut anew, now, page);
                prop_assert_eq!(anew.window(now), window, "a session outlives a restart");
                *made = anew;
            }
        }
    }
}

#[test]
fn sound_that_runs_ahead_of_its_pictures_makes_no_gap_in_the_media_and_a_real_jump_is_left_out() {
    let mut store = Store::default();
    // The first two end after the next begins; then a second is missing; then the clock is set back.
    for (n, (producer_ms, length_ms)) in
        (0_u32..).zip([(0, 2000), (1900, 2050), (3800, 2000), (6800, 2000), (1000, 2000)])
    {
        store.commit(u64::from(n), i64::from(n) * 2000, producer_ms, length_ms, 7);
    }
    let mut timeline = Timeline::new(live(false, Discontinuities::Never, 5, 5));
    store.bring(&mut timeline, at(0), 10);
    let window = timeline.window(at(0));
    let starts: Vec<_> = window.entries.iter().map(|entry| entry.media_ms).collect();
    assert_eq!(starts, [0, 1900, 3800, 5800, 7800]);
}
