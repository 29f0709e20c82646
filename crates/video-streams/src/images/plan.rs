//! Which frames must be decoded for the wanted ones. Pure.

/// A frame of a video track, in decoding order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coded {
    /// When it is shown, milliseconds since the epoch.
    pub time_ms: i64,
    /// Decoding can begin here.
    pub key: bool,
}

/// A frame that goes to the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Which.
    pub index: usize,
    /// The decoder begins anew.
    pub fresh: bool,
    /// Its picture is wanted.
    pub wanted: bool,
}

/// The frames to decode, in order, so that each wanted one (ascending indexes) comes with everything it may refer to: all
/// from the last key frame before it on. A key frame that is shown after the wanted frame does not count: frames that
/// follow it and are shown before it refer further back (open groups of pictures). `Err` with the first wanted frame
/// that has no such key frame.
pub(crate) fn plan(frames: &[Coded], wanted: &[usize]) -> Result<Vec<Planned>, usize> {
    // Runs from a key frame to the last wanted frame that needs it; those that meet are one.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &want in wanted {
        let Some(frame) = frames.get(want) else { continue };
        let begins = |(_, start): &(usize, &Coded)| start.key && start.time_ms <= frame.time_ms;
        let before = frames.iter().enumerate().take(want + 1).rev();
        let (mut from, _) = before.into_iter().find(begins).ok_or(want)?;
        while let Some((start, _)) = runs.pop_if(|(_, end)| from <= *end + 1) {
            from = from.min(start);
        }
        runs.push((from, want));
    }
    let frames_of = |(from, to): (usize, usize)| {
        (from..=to).map(move |index| Planned {
            index,
            fresh: index == from,
            wanted: wanted.binary_search(&index).is_ok(),
        })
    };
    Ok(runs.into_iter().flat_map(frames_of).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(keys: &str) -> Vec<Coded> {
        let coded = |(i, c): (usize, char)| Coded {
            time_ms: i as i64 * 40,
            key: c == 'K',
        };
        keys.chars().enumerate().map(coded).collect()
    }

    fn short(planned: &[Planned]) -> String {
        let one = |p: &Planned| {
            format!(
                "{}{}{}",
                if p.fresh { "|" } else { "" },
                p.index,
                if p.wanted { "!" } else { "" }
            )
        };
        planned.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_the_wanted_frames_need_is_decoded() {
        let frames = frames("KppppKppppKpppp");
        for (wanted, expected) in [
            (&[0][..], "|0!"),
            (&[2], "|0 1 2!"),
            (&[2, 4], "|0 1 2! 3 4!"),
            (&[1, 12], "|0 1! |10 11 12!"),
            (&[4, 5], "|0 1 2 3 4! 5!"),
            (&[], ""),
        ] {
            assert_eq!(short(&plan(&frames, wanted).unwrap()), expected, "{wanted:?}");
        }
    }

    #[test]
    fn a_frame_without_a_key_frame_before_it_is_told() {
        assert_eq!(plan(&frames("ppKp"), &[1]), Err(1));
        // Shown before the key frame that it follows: it refers to the group before.
        let mut open = frames("KpKp");
        open[3].time_ms = 70;
        assert_eq!(short(&plan(&open, &[3]).unwrap()), "|0 1 2 3!");
        assert_eq!(short(&plan(&open, &[2, 3]).unwrap()), "|0 1 2! 3!");
    }

    proptest! {
        #[test]
        fn every_wanted_frame_comes_once_with_all_from_its_key_frame_on(
            keys in proptest::collection::vec(proptest::bool::weighted(0.2), 1..60),
            wanted in proptest::collection::btree_set(0usize..60, 0..10),
        ) {
            let frames: Vec<Coded> = keys.iter().enumerate()
                .map(|(i, key)| Coded { time_ms: i as i64, key: *key || i == 0 }).collect();
            let wanted: Vec<usize> = wanted.into_iter().filter(|i| *i < frames.len()).collect();
            let planned = plan(&frames, &wanted).unwrap();
            let got: Vec<usize> = planned.iter().filter(|p| p.wanted).map(|p| p.index).collect();
            prop_assert_eq!(&got, &wanted);
            prop_assert!(planned.is_sorted_by(|a, b| a.index < b.index));
            prop_assert!(planned.first().is_none_or(|first| first.fresh));
            for (i, p) in planned.iter().enumerate() {
                prop_assert!(!p.fresh || frames[p.index].key);
                // What is not a new beginning follows on the frame before it.
                prop_assert!(p.fresh || planned[i - 1].index + 1 == p.index);
            }
            // Nothing is decoded that no wanted frame needs: after the last wanted frame of a run comes a new beginning.
            for (i, p) in planned.iter().enumerate() {
                let next_wanted = planned[i..].iter().position(|p| p.wanted).map(|at| i + at);
                prop_assert!(next_wanted.is_some());
                prop_assert!(planned[i + 1..=next_wanted.unwrap().max(i)].iter().all(|p| !p.fresh));
                let _ = p;
            }
        }
    }
}
