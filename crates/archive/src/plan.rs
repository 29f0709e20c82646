//! Which of the listed fragments make the next object. Pure: the same fragments give the same object.

use base::Timestamp;
use client::reader::FragmentInfo;

use crate::limits::{OBJECT_BYTES_MAX, OBJECT_FRAGMENTS_MAX};
use crate::settings::Cut;

/// What is known when the next object is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// All fragments that began to arrive before are listed.
    pub until: Timestamp,
    /// Nothing will follow that belongs to this archive.
    pub ends: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The first so many fragments, and why they end there.
    Object(usize, &'static str),
    /// More has to be known.
    Wait,
}

/// The next object out of `fragments`, which are in the order of their arrival.
#[must_use]
pub fn next(cut: Cut, fragments: &[FragmentInfo], known: Known) -> Next {
    let Some(first) = fragments.first() else {
        return Next::Wait;
    };
    let mut bytes = 0_u64;
    let mut last = first;
    for (count, fragment) in fragments.iter().enumerate() {
        bytes = bytes.saturating_add(fragment.bytes);
        if count > 0 {
            if count >= OBJECT_FRAGMENTS_MAX || bytes > OBJECT_BYTES_MAX {
                return Next::Object(count, "it is as large as an object may be");
            }
            if let Some(why) = ends_between(cut, first, last, fragment) {
                return Next::Object(count, why);
            }
        }
        last = fragment;
    }
    let count = fragments.len();
    let is_over = match cut {
        Cut::Every(every) => known.until.millis() >= (window(first, millis(every)) + 1) * millis(every),
        Cut::Event { gap, at_most } => {
            let quiet = last
                .server_timestamp
                .plus_millis(millis(last.length))
                .plus_millis(millis(gap));
            known.until > quiet || known.until >= first.server_timestamp.plus_millis(millis(at_most))
        }
    };
    match (is_over, known.ends, cut) {
        (true, _, Cut::Every(_)) => Next::Object(count, "its time is over"),
        (true, _, Cut::Event { .. }) => Next::Object(count, "nothing followed"),
        (false, true, _) => Next::Object(count, "the archive ended here"),
        (false, false, _) => Next::Wait,
    }
}

/// Why an object ends between two fragments that follow each other, if it does.
fn ends_between(cut: Cut, first: &FragmentInfo, last: &FragmentInfo, next: &FragmentInfo) -> Option<&'static str> {
    match cut {
        Cut::Every(every) => {
            (window(next, millis(every)) != window(first, millis(every))).then_some("its time is over")
        }
        Cut::Event { gap, at_most } => {
            let ended = last.producer_timestamp.plus_millis(millis(last.length));
            let pause = next.producer_timestamp.millis_since(ended);
            // A clock that was set back, or footage that a camera had kept and sends now.
            let back = last.producer_timestamp.millis_since(next.producer_timestamp);
            if pause > millis(gap) {
                Some("nothing was recorded for a while")
            } else if back > millis(gap) {
                Some("the producer's clock went back")
            } else {
                let played = next.server_timestamp.millis_since(first.server_timestamp);
                (played >= millis(at_most)).then_some("the event goes on in another object")
            }
        }
    }
}

fn window(fragment: &FragmentInfo, every_ms: i64) -> i64 {
    fragment.server_timestamp.millis().div_euclid(every_ms.max(1))
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client::reader::FragmentNumber;

    use super::*;

    fn fragment(server_ms: i64, producer_ms: i64) -> FragmentInfo {
        FragmentInfo {
            number: FragmentNumber::new(&format!("{server_ms}")).unwrap(),
            bytes: 1000,
            server_timestamp: Timestamp::from_millis(server_ms),
            producer_timestamp: Timestamp::from_millis(producer_ms),
            length: Duration::from_secs(1),
        }
    }

    fn known(until: i64, ends: bool) -> Known {
        Known {
            until: Timestamp::from_millis(until),
            ends,
        }
    }

    const MINUTE: Cut = Cut::Every(Duration::from_secs(60));
    const EVENT: Cut = Cut::Event {
        gap: Duration::from_secs(5),
        at_most: Duration::from_secs(60),
    };

    #[test]
    fn objects_by_the_clock_end_at_its_multiples_and_not_before_they_are_over() {
        let all: Vec<_> = (50..70).map(|s| fragment(s * 1000, 0)).collect();
        assert!(matches!(next(MINUTE, &all, known(0, false)), Next::Object(10, _)));
        assert!(matches!(next(MINUTE, &all[..5], known(59_999, false)), Next::Wait));
        assert!(matches!(
            next(MINUTE, &all[..5], known(60_000, false)),
            Next::Object(5, _)
        ));
        assert!(matches!(
            next(MINUTE, &all[..5], known(56_000, true)),
            Next::Object(5, _)
        ));
        assert_eq!(next(MINUTE, &[], known(i64::MAX, true)), Next::Wait);
    }

    #[test]
    fn events_end_at_a_gap_at_a_clock_set_back_at_their_longest_and_in_silence() {
        let at = |times: &[(i64, i64)]| -> Vec<FragmentInfo> {
            times
                .iter()
                .map(|(server, producer)| fragment(server * 1000, producer * 1000))
                .collect()
        };
        let now = known(0, false);
        assert!(matches!(
            next(EVENT, &at(&[(0, 100), (1, 101), (8, 108)]), now),
            Next::Object(2, _)
        ));
        // Sent in one go after the line was down: the producer's clock tells the events apart.
        assert!(matches!(
            next(EVENT, &at(&[(0, 100), (1, 101), (1, 500)]), now),
            Next::Object(2, _)
        ));
        assert!(matches!(
            next(EVENT, &at(&[(0, 100), (1, 90)]), now),
            Next::Object(1, _)
        ));
        let long: Vec<(i64, i64)> = (0..70).map(|s| (s, s)).collect();
        assert!(matches!(next(EVENT, &at(&long), now), Next::Object(60, _)));
        let two = at(&[(0, 100), (1, 101)]);
        assert_eq!(next(EVENT, &two, known(7000, false)), Next::Wait);
        assert!(matches!(next(EVENT, &two, known(7001, false)), Next::Object(2, _)));
    }

    #[test]
    fn an_object_is_never_larger_than_it_may_be() {
        let mut all: Vec<_> = (0..=OBJECT_FRAGMENTS_MAX as i64).map(|n| fragment(n, n)).collect();
        assert!(matches!(
            next(MINUTE, &all, known(0, false)),
            Next::Object(OBJECT_FRAGMENTS_MAX, _)
        ));
        all[7].bytes = OBJECT_BYTES_MAX;
        assert!(matches!(next(MINUTE, &all, known(0, false)), Next::Object(7, _)));
    }
}
