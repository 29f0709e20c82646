//! Links the faces of successive pictures into tracks, decides which faces are worth embedding, and fuses the vectors of
//! a track. It sees boxes, points and vectors, no pixels and no network.
//!
//! A face belongs to the track whose expected box it overlaps, or whose points it is near. Where that is doubtful (a weak
//! overlap, two candidates, a face that suddenly looks different as after a cut) the face is embedded and the vectors
//! decide. A new face whose vector is that of a track lost a moment ago takes the track up again.

use crate::detect::Detection;
use crate::engine::unit;

/// Below this overlap with the expected box, and beyond [`POINTS_MAX`], a face is another one.
const OVERLAP_MIN: f32 = 0.25;

/// Below this overlap the vectors decide.
const OVERLAP_SURE: f32 = 0.5;

/// Mean distance of the points from the expected ones, as a share of the face's size, up to which a face may be the same.
const POINTS_MAX: f32 = 0.35;

/// A second track this near to the best makes the match doubtful.
const RIVAL_MARGIN: f32 = 0.15;

/// Correlation of the luma patches below which a face looks different: a turn of the head stays above, a cut does not.
const ALIKE_MIN: f32 = 0.6;

/// Cosine below which a face is not the track's person. SFace: unrelated people reach 0.36 once in a thousand pairs;
/// the same person in successive frames, even blurred, rarely falls below.
const SAME_MIN: f32 = 0.3;

/// Cosine from which a new face takes up a track that was lost: one pair of strangers in 100,000 reaches it.
const REVIVE_MIN: f32 = 0.465;

/// A track not seen for this long is lost.
const COAST_MS: i64 = 700;

/// A lost track can be taken up again for this long.
const LOST_MS: i64 = 5_000;

/// A track's vector is checked and refined this often.
const REFRESH_MS: i64 = 1_000;

/// A face this many times better than the best embedded one is embedded at once.
const BETTER: f32 = 1.25;

/// Old faces fade once the weights add up to this.
const WEIGHT_MAX: f32 = 6.0;

/// Tracks kept; the longest unseen go first.
const TRACKS_MAX: usize = 256;

/// A face as the tracker sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where.
    pub detection: Detection,
    /// From [`crate::measure::Patch::signature`].
    pub signature: [f32; 64],
    /// How much its vector is worth, 0 to 1; at 0 it is never embedded.
    pub worth: f32,
}

#[derive(Clone, Debug)]
struct Track {
    id: u64,
    area: [f32; 4],
    points: [(f32, f32); 5],
    velocity: (f32, f32),
    signature: [f32; 64],
    seen_ms: i64,
    embedded_ms: i64,
    best_worth: f32,
    sum: Vec<f32>,
    weight: f32,
    fused: Option<Vec<f32>>,
    revision: u32,
}

/// What [`Tracker::update`] says of a face, in the order of the faces.
#[derive(Clone, Debug, PartialEq)]
pub struct Linked {
    /// Starting at 1, never reused.
    pub id: u64,
    /// How often the vector has changed.
    pub revision: u32,
    /// The track's fused vector.
    pub vector: Option<Vec<f32>>,
}

/// The tracks of one session.
#[derive(Debug, Default)]
pub struct Tracker {
    tracks: Vec<Track>,
    next_id: u64,
    now_ms: i64,
}

impl Tracker {
    /// Links the faces of the picture at `time_ms`. `embed` gives the vector of a face by its index, or `None` if it
    /// cannot; it is called only for the faces that are worth it.
    pub fn update<E>(
        &mut self,
        time_ms: i64,
        seen: &[Seen],
        mut embed: impl FnMut(usize) -> Result<Option<Vec<f32>>, E>,
    ) -> Result<Vec<Linked>, E> {
        self.forget(time_ms);
        let matches = self.match_tracks(seen);
        let mut vectors = Vec::with_capacity(seen.len());
        let mut places = Vec::with_capacity(seen.len());
        for (index, (face, matched)) in seen.iter().zip(matches).enumerate() {
            let wanted = face.worth > 0.0 && self.wants_vector(face, matched);
            let vector = if wanted { embed(index)? } else { None };
            places.push(
                matched
                    .map(|m| m.track)
                    .filter(|track| self.agrees(*track, face, vector.as_deref())),
            );
            vectors.push(vector);
        }
        let mut linked = Vec::with_capacity(seen.len());
        for (index, (face, vector)) in seen.iter().zip(vectors).enumerate() {
            let at = match places.get(index).copied().flatten() {
                Some(track) => track,
                None => self.another_track(face, vector.as_deref(), &places),
            };
            if let Some(place) = places.get_mut(index) {
                *place = Some(at);
            }
            if let Some(track) = self.tracks.get_mut(at) {
                track.see(face, time_ms);
                if let Some(vector) = vector {
                    track.fuse(&vector, face.worth, time_ms);
                }
                linked.push(Linked {
                    id: track.id,
                    revision: track.revision,
                    vector: track.fused.clone(),
                });
            }
        }
        Ok(linked)
    }

    /// Drops what is too old; everything, when time jumps back.
    fn forget(&mut self, time_ms: i64) {
        if time_ms < self.now_ms - LOST_MS {
            self.tracks.clear();
        }
        self.now_ms = time_ms;
        self.tracks.retain(|track| time_ms - track.seen_ms <= LOST_MS);
        if self.tracks.len() > TRACKS_MAX {
            self.tracks.sort_by_key(|track| std::cmp::Reverse(track.seen_ms));
            self.tracks.truncate(TRACKS_MAX);
        }
    }

    /// For each face the index of its track and whether that is sure; each track is given away once, best pairs first.
    fn match_tracks(&self, seen: &[Seen]) -> Vec<Option<Match>> {
        let mut pairs = Vec::new();
        for (face, a) in seen.iter().enumerate() {
            for (track, b) in self.tracks.iter().enumerate() {
                if self.now_ms - b.seen_ms <= COAST_MS
                    && let Some(score) = b.likeness(&a.detection, self.now_ms)
                {
                    pairs.push((score, face, track));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut matches: Vec<Option<Match>> = vec![None; seen.len()];
        let mut taken = vec![false; self.tracks.len()];
        for (score, face, track) in &pairs {
            let (Some(slot), Some(used)) = (matches.get_mut(*face), taken.get_mut(*track)) else {
                continue;
            };
            if slot.is_some() || *used {
                continue;
            }
            let rival =
                |(other, f, t): &&(f32, usize, usize)| (f == face) != (t == track) && *other > score - RIVAL_MARGIN;
            *used = true;
            *slot = Some(Match {
                track: *track,
                sure: *score >= OVERLAP_SURE && pairs.iter().find(rival).is_none(),
            });
        }
        matches
    }

    fn wants_vector(&self, face: &Seen, matched: Option<Match>) -> bool {
        let Some((track, sure)) = matched.and_then(|m| Some((self.tracks.get(m.track)?, m.sure))) else {
            return true;
        };
        track.fused.is_none()
            || !sure
            || track.correlation(face) < ALIKE_MIN
            || face.worth > track.best_worth * BETTER
            || self.now_ms - track.embedded_ms >= REFRESH_MS
    }

    /// Whether a matched face is the track's person, as far as can be told.
    fn agrees(&self, track: usize, face: &Seen, vector: Option<&[f32]>) -> bool {
        let Some(track) = self.tracks.get(track) else {
            return false;
        };
        match (vector, track.fused.as_deref()) {
            (Some(vector), Some(fused)) => cosine(vector, fused) >= SAME_MIN,
            // Without a vector a sudden change of looks is taken for another face: two tracks cost less than a mix-up.
            (None, Some(_)) => track.correlation(face) >= ALIKE_MIN,
            _ => true,
        }
    }

    /// The index of a track lost a moment ago that has the face's vector and is not `taken`, or of a new one.
    fn another_track(&mut self, face: &Seen, vector: Option<&[f32]>, taken: &[Option<usize>]) -> usize {
        let free = self
            .tracks
            .iter()
            .enumerate()
            .filter(|(index, _)| !taken.contains(&Some(*index)));
        let likeness = |track: &Track| Some(cosine(vector?, track.fused.as_deref()?));
        let lost = free
            .filter_map(|(index, track)| Some((index, likeness(track)?)))
            .filter(|(_, score)| *score >= REVIVE_MIN)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((index, _)) = lost {
            return index;
        }
        self.next_id += 1;
        self.tracks.push(Track::new(self.next_id, face, self.now_ms));
        self.tracks.len() - 1
    }
}

#[derive(Clone, Copy, Debug)]
struct Match {
    track: usize,
    sure: bool,
}

impl Track {
    fn new(id: u64, face: &Seen, now_ms: i64) -> Track {
        Track {
            id,
            area: face.detection.area,
            points: face.detection.points,
            velocity: (0.0, 0.0),
            signature: face.signature,
            seen_ms: now_ms,
            embedded_ms: now_ms,
            best_worth: 0.0,
            sum: Vec::new(),
            weight: 0.0,
            fused: None,
            revision: 0,
        }
    }

    /// The overlap with the expected box; for a face that moved out of it, a value just above the least by how near its
    /// points are. `None` when it cannot be the same.
    fn likeness(&self, face: &Detection, now_ms: i64) -> Option<f32> {
        let elapsed = (now_ms - self.seen_ms) as f32;
        let (dx, dy) = (self.velocity.0 * elapsed, self.velocity.1 * elapsed);
        let [left, top, width, height] = self.area;
        let expected = Detection {
            area: [left + dx, top + dy, width, height],
            ..Detection::default()
        };
        let ratio = face.area[2] / width.max(1.0);
        if !(0.5..=2.0).contains(&ratio) {
            return None;
        }
        let overlap = expected.overlap(face);
        if overlap >= OVERLAP_MIN {
            return Some(overlap);
        }
        let distances = self.points.iter().zip(&face.points);
        let mean = distances
            .map(|(a, b)| (a.0 + dx - b.0).hypot(a.1 + dy - b.1))
            .sum::<f32>()
            / 5.0;
        let share = mean / width.hypot(height).max(1.0);
        (share <= POINTS_MAX).then_some(OVERLAP_MIN * (1.0 - share))
    }

    fn correlation(&self, face: &Seen) -> f32 {
        self.signature.iter().zip(&face.signature).map(|(a, b)| a * b).sum()
    }

    fn see(&mut self, face: &Seen, now_ms: i64) {
        let elapsed = (now_ms - self.seen_ms) as f32;
        let centre = |[left, top, width, height]: [f32; 4]| (left + width / 2.0, top + height / 2.0);
        let (old, new) = (centre(self.area), centre(face.detection.area));
        if elapsed > 0.0 && elapsed <= COAST_MS as f32 {
            let smooth = |old: f32, measured: f32| old * 0.5 + measured * 0.5;
            self.velocity = (
                smooth(self.velocity.0, (new.0 - old.0) / elapsed),
                smooth(self.velocity.1, (new.1 - old.1) / elapsed),
            );
        } else {
            self.velocity = (0.0, 0.0);
        }
        self.area = face.detection.area;
        self.points = face.detection.points;
        self.signature = face.signature;
        self.seen_ms = now_ms;
    }

    fn fuse(&mut self, vector: &[f32], worth: f32, now_ms: i64) {
        if self.weight + worth > WEIGHT_MAX {
            let fade = (WEIGHT_MAX - worth).max(0.0) / self.weight;
            self.sum.iter_mut().for_each(|v| *v *= fade);
            self.weight *= fade;
        }
        self.sum.resize(vector.len(), 0.0);
        self.sum.iter_mut().zip(vector).for_each(|(s, v)| *s += v * worth);
        self.weight += worth;
        self.best_worth = self.best_worth.max(worth);
        self.embedded_ms = now_ms;
        self.fused = unit(&self.sum);
        self.revision = self.revision.saturating_add(1);
    }
}

/// The cosine of two unit vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn face(left: f32, top: f32) -> Seen {
        let mut signature = [0.0; 64];
        signature[0] = 1.0;
        Seen {
            detection: Detection {
                score: 0.9,
                area: [left, top, 100.0, 120.0],
                points: [(30.0, 40.0), (70.0, 40.0), (50.0, 65.0), (35.0, 90.0), (65.0, 90.0)]
                    .map(|(x, y)| (left + x, top + y)),
            },
            signature,
            worth: 0.5,
        }
    }

    fn looking_different(mut seen: Seen) -> Seen {
        seen.signature.rotate_right(7);
        seen
    }

    /// A unit vector of one of several people, as unlike each other as can be.
    fn person(number: usize) -> Vec<f32> {
        let mut vector = vec![0.0; 8];
        vector[number] = 1.0;
        vector
    }

    /// Runs one picture; `people` says who each face is. Returns the track ids and how many faces were embedded.
    fn run(tracker: &mut Tracker, time_ms: i64, faces: &[Seen], people: &[usize]) -> (Vec<u64>, usize) {
        let mut embedded = 0;
        let linked = tracker.update(time_ms, faces, |index| {
            embedded += 1;
            Ok::<_, Infallible>(Some(person(people[index])))
        });
        (linked.unwrap().iter().map(|l| l.id).collect(), embedded)
    }

    #[test]
    fn a_walking_face_is_one_track_and_embedded_once_a_second() {
        let mut tracker = Tracker::default();
        let mut embedded = 0;
        for frame in 0..60 {
            let (ids, count) = run(&mut tracker, frame * 33, &[face(frame as f32 * 12.0, 50.0)], &[0]);
            assert_eq!(ids, [1], "frame {frame}");
            embedded += count;
        }
        assert!((2..=3).contains(&embedded), "{embedded}");
    }

    #[test]
    fn a_cut_to_another_person_in_the_same_place_is_another_track() {
        let mut tracker = Tracker::default();
        run(&mut tracker, 0, &[face(100.0, 100.0)], &[0]);
        assert_eq!(
            run(&mut tracker, 33, &[looking_different(face(102.0, 101.0))], &[1]),
            (vec![2], 1)
        );
    }

    #[test]
    fn a_head_that_turns_keeps_its_track_because_its_vector_says_so() {
        let mut tracker = Tracker::default();
        run(&mut tracker, 0, &[face(100.0, 100.0)], &[0]);
        assert_eq!(
            run(&mut tracker, 33, &[looking_different(face(102.0, 101.0))], &[0]),
            (vec![1], 1)
        );
    }

    #[test]
    fn two_people_who_cross_keep_their_tracks() {
        let mut tracker = Tracker::default();
        for frame in 0..40 {
            let x = frame as f32 * 10.0;
            let (ids, _) = run(
                &mut tracker,
                frame * 33,
                &[face(x, 100.0), face(400.0 - x, 130.0)],
                &[0, 1],
            );
            assert_eq!(ids, [1, 2], "frame {frame}");
        }
    }

    #[test]
    fn somebody_hidden_for_two_seconds_is_known_again_and_a_newcomer_is_not_taken_for_him() {
        let mut tracker = Tracker::default();
        run(&mut tracker, 0, &[face(100.0, 100.0)], &[0]);
        run(&mut tracker, 1_000, &[], &[]);
        assert_eq!(
            run(&mut tracker, 2_000, &[face(600.0, 100.0), face(100.0, 100.0)], &[0, 1]).0,
            [1, 2]
        );
        run(&mut tracker, 20_000, &[], &[]);
        assert_eq!(run(&mut tracker, 20_033, &[face(100.0, 100.0)], &[0]).0, [3]);
    }

    #[test]
    fn a_better_face_is_embedded_at_once_and_counts_more() {
        let mut tracker = Tracker::default();
        let poor = Seen {
            worth: 0.1,
            ..face(100.0, 100.0)
        };
        let good = Seen {
            worth: 0.9,
            ..face(101.0, 100.0)
        };
        let tilted = unit(&[1.0, 0.8, 0.0]).unwrap();
        let vectors = [vec![1.0, 0.0, 0.0], tilted.clone()];
        let mut step = |time, seen: &Seen, vector: usize| {
            let linked = tracker.update(time, std::slice::from_ref(seen), |_| {
                Ok::<_, Infallible>(Some(vectors[vector].clone()))
            });
            linked.unwrap().remove(0)
        };
        assert_eq!(step(0, &poor, 0).revision, 1);
        assert_eq!(step(33, &poor, 0).revision, 1);
        let after = step(66, &good, 1);
        assert_eq!((after.id, after.revision), (1, 2));
        assert!(cosine(after.vector.as_deref().unwrap(), &tilted) > 0.99);
    }

    #[test]
    fn a_face_too_poor_to_embed_has_a_track_without_a_vector() {
        let mut tracker = Tracker::default();
        let poor = Seen {
            worth: 0.0,
            ..face(0.0, 0.0)
        };
        let linked = tracker.update(0, &[poor], |_| -> Result<_, Infallible> { panic!("not worth it") });
        assert_eq!(
            linked.unwrap(),
            [Linked {
                id: 1,
                revision: 0,
                vector: None
            }]
        );
    }

    #[test]
    fn time_that_jumps_back_starts_new_tracks() {
        let mut tracker = Tracker::default();
        run(&mut tracker, 1_000_000, &[face(0.0, 0.0)], &[0]);
        assert_eq!(run(&mut tracker, 0, &[face(0.0, 0.0)], &[0]).0, [2]);
    }

    #[test]
    fn a_crowd_that_never_stays_does_not_grow_the_tracker() {
        let mut tracker = Tracker::default();
        for frame in 0..60i64 {
            let crowd: Vec<Seen> = (0..20)
                .map(|i| face((frame * 977 % 5_000) as f32 + i as f32 * 5_000.0, 0.0))
                .collect();
            let _ = tracker.update(frame * 10, &crowd, |_| Ok::<_, Infallible>(None));
        }
        assert!(tracker.tracks.len() <= TRACKS_MAX + 20);
    }
}
