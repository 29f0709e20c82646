//! Which of the fragments of a range make a clip, and where each stands on its time line.

use std::collections::BTreeMap;

use storage::{FragmentInfo, TimeAxis};

/// Fragments whose producer's times follow each other this closely were recorded in one go, whatever their server times.
/// Ours: longer than any jitter of a camera's clock, shorter than a pause that a viewer would miss.
const CONTINUES_MS: i64 = 1_000;

/// Leaves out what was ingested again: of fragments that cover the same producer time, the one that was ingested first
/// stays (AWS: "only the oldest ingested collection of fragments"). A fragment that begins where another one does, or
/// whose time is covered by more than half, is a duplicate. The answer is in the order of producer time.
pub fn without_duplicates(mut fragments: Vec<FragmentInfo>) -> Vec<FragmentInfo> {
    fragments.sort_by_key(|info| info.number);
    let mut kept: BTreeMap<i64, FragmentInfo> = BTreeMap::new();
    for info in fragments {
        let (start, length) = (info.producer_timestamp.millis(), i64::from(info.length_ms));
        let end = start.saturating_add(length);
        let before = kept.range(..=start).next_back();
        let after = kept.range(start..end.max(start)).map(|(_, other)| other);
        let covered: i64 = before
            .map(|(_, other)| other)
            .into_iter()
            .chain(after)
            .map(|other| {
                let from = other.producer_timestamp.millis().max(start);
                other.producer_end().millis().min(end).saturating_sub(from).max(0)
            })
            .sum();
        if kept.contains_key(&start) || covered.saturating_mul(2) > length {
            continue;
        }
        kept.insert(start, info);
    }
    kept.into_values().collect()
}

/// The time of each fragment's cluster on the clip's time line, in milliseconds; the first is at 0.
///
/// By producer time it is the producer's. By server time, fragments that the producer recorded in one go keep the
/// producer's distances, since their arrival jitters and an upload after a pause comes in faster than it was recorded;
/// others begin when they arrived, but not before the end of the one before.
pub fn times_ms(fragments: &[FragmentInfo], axis: TimeAxis) -> Vec<i64> {
    let mut times = Vec::with_capacity(fragments.len());
    let mut before: Option<(&FragmentInfo, i64)> = None;
    let origin = fragments.first().map_or(0, |info| info.start(axis).millis());
    for info in fragments {
        let told = info.start(axis).millis().saturating_sub(origin);
        let time = match (axis, before) {
            (TimeAxis::Server, Some((last, at))) => {
                let distance = info.producer_timestamp.millis_since(last.producer_timestamp);
                let length = i64::from(last.length_ms);
                if (distance - length).abs() <= CONTINUES_MS && distance > 0 {
                    at.saturating_add(distance)
                } else {
                    told.max(at.saturating_add(length))
                }
            }
            _ => told,
        };
        times.push(time);
        before = Some((info, time));
    }
    times
}

#[cfg(test)]
mod tests {
    use base::Timestamp;

    use super::*;

    fn fragment(sequence: u64, producer_ms: i64, server_ms: i64, length_ms: u32) -> FragmentInfo {
        FragmentInfo {
            number: crate::testing::number(sequence),
            server_timestamp: Timestamp::from_millis(server_ms),
            producer_timestamp: Timestamp::from_millis(producer_ms),
            length_ms,
            size: 100,
            header_len: 10,
            position: sequence,
            frame_count: 1,
            tracks_hash: 1,
        }
    }

    fn sequences(fragments: &[FragmentInfo]) -> Vec<u64> {
        fragments.iter().map(|info| info.number.sequence()).collect()
    }

    #[test]
    fn what_was_ingested_first_stays_and_the_repetition_goes() {
        let first = (0..4).map(|n| fragment(n + 1, n as i64 * 2000, 0, 2002));
        let again = (0..5).map(|n| fragment(n + 10, n as i64 * 2000, 0, 2002));
        let all: Vec<_> = again.chain(first).collect();
        assert_eq!(sequences(&without_duplicates(all)), [1, 2, 3, 4, 14]);
    }

    #[test]
    fn a_repetition_that_is_cut_elsewhere_is_left_out_too_and_a_slight_overlap_is_none() {
        let all = vec![
            fragment(1, 0, 0, 2020),
            fragment(2, 2000, 0, 2000),
            fragment(3, 1000, 0, 2000),
            fragment(4, 3990, 0, 2000),
        ];
        assert_eq!(sequences(&without_duplicates(all)), [1, 2, 4]);
    }

    #[test]
    fn arrival_does_not_stretch_or_squeeze_what_was_recorded_in_one_go() {
        let uploaded_fast = [
            fragment(1, 5000, 100, 2000),
            fragment(2, 7000, 350, 2000),
            fragment(3, 9010, 600, 2000),
        ];
        assert_eq!(times_ms(&uploaded_fast, TimeAxis::Server), [0, 2000, 4010]);
        assert_eq!(times_ms(&uploaded_fast, TimeAxis::Producer), [0, 2000, 4010]);
        let restarted = [
            fragment(1, 0, 1000, 2000),
            fragment(2, 0, 9000, 2000),
            fragment(3, 900_000, 9500, 2000),
        ];
        assert_eq!(times_ms(&restarted, TimeAxis::Server), [0, 8000, 10_000]);
    }
}
