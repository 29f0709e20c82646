//! Whose face is whose: tracks of one job become persons. A track that has not been seen for a while has ended; its vector
//! then tells whether it is a person who was there before. Pure; what is kept is bounded.

use std::collections::{HashMap, VecDeque};

use faces::similarity::Scale;

use crate::limits::{STORED_PERSONS_REMEMBERED, STORED_TRACK_END_MS};

/// Two tracks of at least this similarity are one person: one impostor pair in a million is as similar
/// (`docs/reference/accuracy.md`), and a video has many pairs.
const SAME_PERSON: f32 = 99.0;

/// Stretches of time in which a person was seen that are remembered.
const STRETCHES: usize = 16;

/// A track that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    /// Its number within the job, from 0 in the order of first appearance.
    pub(crate) track: u32,
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    /// Unit length; `None` where every face was too poor.
    pub(crate) vector: Option<Vec<f32>>,
}

/// Tracks that go on.
#[derive(Debug, Default)]
pub(crate) struct Tracks {
    open: HashMap<u64, Ended>,
    next: u32,
}

impl Tracks {
    /// How many there were.
    pub(crate) fn count(&self) -> u32 {
        self.next
    }

    /// A face without a track was seen: it is one of its own, which has ended.
    pub(crate) fn alone(&mut self, time_ms: i64, vector: Option<&[f32]>) -> Ended {
        let track = self.next;
        self.next += 1;
        Ended {
            track,
            first_ms: time_ms,
            last_ms: time_ms,
            vector: vector.map(<[f32]>::to_vec),
        }
    }

    /// A face of a session's track was seen; gives the track's number within the job.
    pub(crate) fn seen(&mut self, id: u64, time_ms: i64, vector: Option<&[f32]>) -> u32 {
        let next = self.next;
        let track = self.open.entry(id).or_insert_with(|| Ended {
            track: next,
            first_ms: time_ms,
            last_ms: time_ms,
            vector: None,
        });
        self.next += u32::from(track.track == next);
        track.last_ms = track.last_ms.max(time_ms);
        if let Some(vector) = vector {
            track.vector = Some(vector.to_vec());
        }
        track.track
    }

    /// Takes out the tracks that have ended by this time, in the order of their numbers.
    pub(crate) fn ended(&mut self, now_ms: i64) -> Vec<Ended> {
        self.take(|track| now_ms.saturating_sub(track.last_ms) > STORED_TRACK_END_MS)
    }

    /// Takes out all: their ids start anew.
    pub(crate) fn all(&mut self) -> Vec<Ended> {
        self.take(|_| true)
    }

    fn take(&mut self, wanted: impl Fn(&Ended) -> bool) -> Vec<Ended> {
        let mut taken: Vec<Ended> = self
            .open
            .extract_if(|_, track| wanted(track))
            .map(|(_, track)| track)
            .collect();
        taken.sort_by_key(|track| track.track);
        taken
    }
}

struct Person {
    number: u32,
    /// The sum of the vectors of its tracks.
    sum: Vec<f32>,
    stretches: VecDeque<(i64, i64)>,
}

/// Who was there.
pub(crate) struct Persons {
    /// The least cosine of two tracks of one person.
    cosine_min: f32,
    remembered: VecDeque<Person>,
    next: u32,
}

impl Persons {
    /// `scale` is that of the model that makes the vectors.
    pub(crate) fn new(scale: &Scale) -> Self {
        Persons {
            cosine_min: scale.cosine(SAME_PERSON),
            remembered: VecDeque::new(),
            next: 0,
        }
    }

    /// The person of a track: one who looks alike and was not seen at the same time elsewhere, or a new one.
    pub(crate) fn of(&mut self, track: &Ended) -> u32 {
        let found = track.vector.as_ref().and_then(|vector| self.find(track, vector));
        if let (Some(index), Some(vector)) = (found, &track.vector)
            && let Some(person) = self.remembered.get_mut(index)
        {
            person.sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
            person.stretches.push_back((track.first_ms, track.last_ms));
            if person.stretches.len() > STRETCHES {
                person.stretches.pop_front();
            }
            return person.number;
        }
        let number = self.next;
        self.next += 1;
        if let Some(vector) = &track.vector {
            self.remembered.push_back(Person {
                number,
                sum: vector.clone(),
                stretches: VecDeque::from([(track.first_ms, track.last_ms)]),
            });
            if self.remembered.len() > STORED_PERSONS_REMEMBERED {
                self.remembered.pop_front();
            }
        }
        number
    }

    fn find(&self, track: &Ended, vector: &[f32]) -> Option<usize> {
        let apart = |person: &Person| {
            let mut stretches = person.stretches.iter();
            !stretches.any(|(first, last)| track.first_ms <= *last && *first <= track.last_ms)
        };
        let alike = |person: &Person| {
            let length = person.sum.iter().map(|value| value * value).sum::<f32>().sqrt();
            let dot: f32 = person.sum.iter().zip(vector).map(|(a, b)| a * b).sum();
            if length > 0.0 { dot / length } else { 0.0 }
        };
        let candidates = self.remembered.iter().enumerate().filter(|(_, person)| apart(person));
        let scored = candidates.map(|(index, person)| (index, alike(person)));
        let best = scored.max_by(|a, b| a.1.total_cmp(&b.1))?;
        (best.1 >= self.cosine_min).then_some(best.0)
    }
}

/// Numbers persons anew in the order of their first appearance: `persons` has the person of each track.
pub(crate) fn in_order_of_appearance(persons: &mut [u32]) {
    let mut numbers = HashMap::new();
    for person in persons {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *person = *numbers.entry(*person).or_insert(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(angle: f32) -> Vec<f32> {
        vec![angle.cos(), angle.sin()]
    }

    fn ended(track: u32, first_ms: i64, last_ms: i64, angle: Option<f32>) -> Ended {
        Ended {
            track,
            first_ms,
            last_ms,
            vector: angle.map(vector),
        }
    }

    #[test]
    fn who_leaves_and_comes_back_is_the_same_person_and_who_is_there_at_once_is_another() {
        let mut persons = Persons::new(&Scale::default());
        assert_eq!(persons.of(&ended(0, 0, 1000, Some(0.0))), 0);
        assert_eq!(
            persons.of(&ended(1, 500, 1500, Some(0.1))),
            1,
            "a twin at the same time"
        );
        assert_eq!(persons.of(&ended(2, 9000, 9500, Some(0.02))), 0, "came back");
        assert_eq!(persons.of(&ended(3, 9900, 9950, Some(1.5))), 2, "somebody else");
        assert_eq!(persons.of(&ended(4, 20_000, 20_001, None)), 3, "too poor to be known");
    }

    #[test]
    fn tracks_end_when_they_are_not_seen_and_ids_may_start_anew() {
        let mut tracks = Tracks::default();
        assert_eq!((tracks.seen(1, 0, None), tracks.seen(2, 0, Some(&[1.0]))), (0, 1));
        assert_eq!(tracks.seen(1, 9000, Some(&[0.5])), 0);
        let gone = tracks.ended(STORED_TRACK_END_MS + 1);
        assert_eq!(gone.iter().map(|track| track.track).collect::<Vec<_>>(), [1]);
        let rest = tracks.all();
        assert_eq!(
            (rest[0].track, rest[0].last_ms, &rest[0].vector),
            (0, 9000, &Some(vec![0.5]))
        );
        assert_eq!((tracks.seen(1, 10_000, None), tracks.count()), (2, 3));
    }

    #[test]
    fn indexes_count_persons_in_the_order_in_which_they_appear() {
        let mut persons = [5, 2, 5, 9, 2];
        in_order_of_appearance(&mut persons);
        assert_eq!(persons, [0, 1, 0, 2, 1]);
    }
}
