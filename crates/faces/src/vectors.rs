//! Vectors of one length side by side in memory, and the searches over them.
//!
//! A vector is of unit length, so a cosine is a dot product. Beside its components each has a sketch of some bits (see
//! [`crate::sketch`]). [`Vectors::exact`] compares every vector. [`Vectors::nearest`] does that up to
//! [`limits::EXACT_SEARCH_MAX`] vectors; beyond it every sketch is compared, and then the vectors whose sketches are
//! closest, exactly. There is nothing to build, to train or to keep on disk: a sketch is made when its vector is added.
//!
//! Vectors lie in chunks, so that adding one never moves the others; what is taken out or moved is overwritten with
//! zeros where it was.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::limits;
use crate::simd;
use crate::sketch::{self, Sketcher};

/// Vectors in a full chunk.
const CHUNK_ROWS: usize = 1024;

/// Vectors that the first chunk of a small collection has room for.
const FIRST_ROWS: usize = 16;

/// How many of the closest sketches have their vectors compared, at least; and for each vector asked for.
const CANDIDATES_MIN: usize = 4096;
const CANDIDATES_PER_MATCH: usize = 2;

/// Candidates lie anywhere in memory: so many are fetched while others are compared.
const FETCHED_AHEAD: usize = 8;

/// Vectors at positions 0 to `len`.
#[derive(Debug)]
pub(crate) struct Vectors {
    dimensions: usize,
    sketcher: Sketcher,
    rows: usize,
    chunks: Vec<Chunk>,
    /// Up to so many vectors [`Vectors::nearest`] is exact.
    exact_max: usize,
    candidates_min: usize,
}

/// Room for `capacity` vectors: `dimensions` components for each, and the words of the sketches, all first words before
/// all second words.
#[derive(Debug, Default)]
struct Chunk {
    capacity: usize,
    components: Box<[f32]>,
    sketches: Box<[u64]>,
}

/// What is searched for.
#[derive(Clone, Copy)]
pub(crate) struct Probe<'a> {
    /// Of unit length.
    pub(crate) vector: &'a [f32],
    /// The least cosine that counts.
    pub(crate) cosine_min: f32,
    /// How many are wanted at most.
    pub(crate) limit: usize,
}

/// A vector that is close enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) cosine: f32,
    pub(crate) position: usize,
}

/// Gives the key by which the vectors at two positions are ordered where their cosines are equal; `None` leaves it out.
pub(crate) type KeyAt<'a, K> = &'a dyn Fn(usize, f32) -> Option<K>;

impl Chunk {
    /// Moves to a place with more room. The old one is overwritten.
    fn grow(&mut self, capacity: usize, dimensions: usize, words: usize) {
        let mut components = vec![0.0; capacity * dimensions].into_boxed_slice();
        let mut sketches = vec![0; capacity * words].into_boxed_slice();
        if self.capacity > 0 {
            for (to, from) in components.iter_mut().zip(&self.components) {
                *to = *from;
            }
            let columns = sketches
                .chunks_exact_mut(capacity)
                .zip(self.sketches.chunks_exact(self.capacity));
            for (to, from) in columns {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        }
        self.wipe();
        *self = Chunk {
            capacity,
            components,
            sketches,
        };
    }

    /// Overwrites everything, so that freed memory holds no vector.
    fn wipe(&mut self) {
        self.components.fill(0.0);
        self.sketches.fill(0);
        // The memory is freed next, and a store to it that nobody reads would be left out.
        std::hint::black_box((&self.components, &self.sketches));
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Vectors {
    pub(crate) fn new(dimensions: usize) -> Self {
        Vectors {
            dimensions,
            sketcher: Sketcher::new(dimensions),
            rows: 0,
            chunks: Vec::new(),
            exact_max: limits::EXACT_SEARCH_MAX,
            candidates_min: CANDIDATES_MIN,
        }
    }

    /// The same with other bounds, so that a test needs no hundred thousand vectors.
    #[cfg(test)]
    pub(crate) fn with_bounds(dimensions: usize, exact_max: usize, candidates_min: usize) -> Self {
        Vectors {
            exact_max,
            candidates_min,
            ..Vectors::new(dimensions)
        }
    }

    /// The vector at a position.
    pub(crate) fn get(&self, position: usize) -> Option<&[f32]> {
        if position >= self.rows {
            return None;
        }
        let start = position % CHUNK_ROWS * self.dimensions;
        let chunk = self.chunks.get(position / CHUNK_ROWS)?;
        chunk.components.get(start..start + self.dimensions)
    }

    /// Adds a vector behind the last and gives its position.
    pub(crate) fn push(&mut self, vector: &[f32]) -> usize {
        debug_assert_eq!(vector.len(), self.dimensions);
        let (position, words) = (self.rows, self.sketcher.words());
        let (chunk, row) = (position / CHUNK_ROWS, position % CHUNK_ROWS);
        if chunk == self.chunks.len() {
            self.chunks.push(Chunk::default());
        }
        if let Some(place) = self.chunks.get_mut(chunk)
            && row >= place.capacity
        {
            let first = if chunk == 0 { FIRST_ROWS } else { CHUNK_ROWS };
            let capacity = (place.capacity * 4).clamp(first, CHUNK_ROWS);
            place.grow(capacity, self.dimensions, words);
        }
        self.rows += 1;
        self.set(position, vector);
        position
    }

    /// Overwrites the vector at a position.
    pub(crate) fn set(&mut self, position: usize, vector: &[f32]) {
        let sketch = self.sketcher.sketch(vector);
        self.write(position, vector.iter().copied(), &sketch);
    }

    /// Takes a vector out; the last one moves to its position.
    pub(crate) fn swap_remove(&mut self, position: usize) {
        let Some(last) = self.rows.checked_sub(1) else {
            return;
        };
        debug_assert!(position <= last);
        if position != last
            && let Some(moved) = self.get(last).map(<[f32]>::to_vec)
        {
            self.set(position, &moved);
            wipe(moved);
        }
        let nothing = [0; sketch::WORDS_MAX];
        self.write(last, std::iter::repeat(0.0), &nothing);
        self.rows = last;
        if last.is_multiple_of(CHUNK_ROWS) {
            self.chunks.truncate(last / CHUNK_ROWS);
        }
    }

    fn write(&mut self, position: usize, vector: impl Iterator<Item = f32>, sketch: &[u64; sketch::WORDS_MAX]) {
        let row = position % CHUNK_ROWS;
        let Some(chunk) = self.chunks.get_mut(position / CHUNK_ROWS) else {
            return;
        };
        let start = row * self.dimensions;
        if let Some(place) = chunk.components.get_mut(start..start + self.dimensions) {
            place.iter_mut().zip(vector).for_each(|(to, from)| *to = from);
        }
        let columns = chunk.sketches.chunks_exact_mut(chunk.capacity.max(1));
        for (column, word) in columns.zip(sketch) {
            if let Some(place) = column.get_mut(row) {
                *place = *word;
            }
        }
    }

    /// The best vectors, compared exactly; best first.
    pub(crate) fn exact<K: Ord + Copy>(&self, probe: Probe<'_>, key: KeyAt<'_, K>) -> Vec<Found> {
        let mut best = Best::new(probe, key);
        let mut cosines = [0.0f32; CHUNK_ROWS];
        let mut first = 0;
        for chunk in &self.chunks {
            let rows = (self.rows - first).min(CHUNK_ROWS);
            let cosines = cosines.get_mut(..rows).unwrap_or_default();
            simd::dots(probe.vector, &chunk.components, cosines);
            for (row, &cosine) in cosines.iter().enumerate() {
                best.offer(cosine, first + row);
            }
            first += CHUNK_ROWS;
        }
        best.sorted()
    }

    /// The best vectors, best first. Exact up to [`limits::EXACT_SEARCH_MAX`] vectors; beyond it a vector can be missed
    /// whose sketch is not among the closest, which is the less likely the closer the vector is.
    pub(crate) fn nearest<K: Ord + Copy>(&self, probe: Probe<'_>, key: KeyAt<'_, K>) -> Vec<Found> {
        if self.rows <= self.exact_max {
            return self.exact(probe, key);
        }
        let wanted = self.candidates_min.max(probe.limit * CANDIDATES_PER_MATCH);
        let planes = self.sketcher.planes(probe.vector);
        let mut closest = sketch::Closest::new(wanted);
        for (number, chunk) in self.chunks.iter().enumerate() {
            let first = number * CHUNK_ROWS;
            let rows = (self.rows - first).min(CHUNK_ROWS);
            closest.scan(&planes, &chunk.sketches, chunk.capacity, rows, first);
        }
        let mut best = Best::new(probe, key);
        let positions = closest.positions();
        let ahead = positions.iter().skip(FETCHED_AHEAD).map(Some);
        for (&position, ahead) in positions.iter().zip(ahead.chain(std::iter::repeat(None))) {
            if let Some(later) = ahead.and_then(|&position| self.get(position)) {
                simd::fetch(later);
            }
            if let Some(vector) = self.get(position) {
                best.offer(cosine(probe.vector, vector), position);
            }
        }
        best.sorted()
    }
}

/// Overwrites a vector that is no longer needed.
pub(crate) fn wipe(mut vector: Vec<f32>) {
    vector.fill(0.0);
    std::hint::black_box(&vector);
}

/// The best of what was offered.
struct Best<'a, K> {
    probe: Probe<'a>,
    key: KeyAt<'a, K>,
    heap: BinaryHeap<Candidate<K>>,
}

/// Ordered best first: the "greatest" candidate is the one to drop first.
struct Candidate<K> {
    cosine: f32,
    key: K,
    position: usize,
}

impl<'a, K: Ord + Copy> Best<'a, K> {
    fn new(probe: Probe<'a>, key: KeyAt<'a, K>) -> Self {
        let heap = BinaryHeap::new();
        Best { probe, key, heap }
    }

    fn offer(&mut self, cosine: f32, position: usize) {
        let full = self.heap.len() >= self.probe.limit;
        let bar = self
            .heap
            .peek()
            .filter(|_| full)
            .map_or(-f32::INFINITY, |worst| worst.cosine);
        if cosine < self.probe.cosine_min || cosine < bar {
            return;
        }
        let Some(key) = (self.key)(position, cosine) else {
            return;
        };
        let candidate = Candidate { cosine, key, position };
        if !full {
            self.heap.push(candidate);
        } else if self.heap.peek().is_some_and(|worst| candidate < *worst) {
            self.heap.pop();
            self.heap.push(candidate);
        }
    }

    fn sorted(self) -> Vec<Found> {
        let found = |Candidate { cosine, position, .. }| Found { cosine, position };
        self.heap.into_sorted_vec().into_iter().map(found).collect()
    }
}

impl<K: Ord> Ord for Candidate<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.cosine.total_cmp(&self.cosine)).then_with(|| self.key.cmp(&other.key))
    }
}

impl<K: Ord> PartialOrd for Candidate<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord> PartialEq for Candidate<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<K: Ord> Eq for Candidate<K> {}

/// The vector at unit length; `None` if a component is not finite or all are zero.
pub(crate) fn normalised(vector: &[f32]) -> Option<Vec<f32>> {
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if !norm.is_finite() || norm < 1e-12 {
        return None;
    }
    Some(vector.iter().map(|&x| (f64::from(x) / norm) as f32).collect())
}

/// The cosine of two vectors of unit length.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let mut product = [0.0];
    simd::dots(a, b, &mut product);
    product.into_iter().sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random_unit(rng: &mut fastrand::Rng, dimensions: usize) -> Vec<f32> {
        // The sum of four even numbers is close enough to a normal one.
        let normal = |rng: &mut fastrand::Rng| (0..4).map(|_| rng.f32()).sum::<f32>() - 2.0;
        let vector: Vec<f32> = (0..dimensions).map(|_| normal(rng)).collect();
        normalised(&vector).unwrap()
    }

    /// A picture of a person: its cosine to the person is `likeness`.
    fn picture(rng: &mut fastrand::Rng, person: &[f32], likeness: f32) -> Vec<f32> {
        let noise = random_unit(rng, person.len());
        let across = cosine(&noise, person);
        let rest: Vec<f32> = noise.iter().zip(person).map(|(x, y)| x - across * y).collect();
        let rest = normalised(&rest).unwrap();
        let far = (1.0 - likeness * likeness).sqrt();
        person.iter().zip(&rest).map(|(x, y)| likeness * x + far * y).collect()
    }

    fn all(probe: &[f32], cosine_min: f32, limit: usize) -> Probe<'_> {
        Probe {
            vector: probe,
            cosine_min,
            limit,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2, ..ProptestConfig::default() })]

        #[test]
        fn whatever_comes_and_goes_the_best_match_of_a_known_person_is_found(
            seed in any::<u64>(),
            dimensions in prop_oneof![Just(100usize), Just(128), Just(512)],
        ) {
            const PEOPLE: usize = 150;
            const PICTURES: usize = 8;
            let mut rng = fastrand::Rng::with_seed(seed);
            let people: Vec<Vec<f32>> = (0..PEOPLE).map(|_| random_unit(&mut rng, dimensions)).collect();
            // One in a hundred is compared exactly, as with a million vectors.
            let mut vectors = Vectors::with_bounds(dimensions, 100, PEOPLE * PICTURES / 100);
            let mut kept: Vec<Vec<f32>> = Vec::new();
            for round in 0..3 {
                for person in people.iter().skip(round).step_by(3) {
                    for _ in 0..PICTURES {
                        let likeness = 0.63 + 0.26 * rng.f32();
                        let vector = picture(&mut rng, person, likeness);
                        vectors.push(&vector);
                        kept.push(vector);
                    }
                }
                for _ in 0..kept.len() / 4 {
                    let position = rng.usize(..kept.len());
                    vectors.swap_remove(position);
                    kept.swap_remove(position);
                }
                let position = rng.usize(..kept.len());
                kept[position] = random_unit(&mut rng, dimensions);
                vectors.set(position, &kept[position]);
            }
            for (position, vector) in kept.iter().enumerate() {
                prop_assert_eq!(vectors.get(position), Some(&vector[..]));
            }
            let mut missed = 0;
            for person in &people {
                let probe = picture(&mut rng, person, 0.75);
                let best = |found: Vec<Found>| found.first().map(|found| found.position);
                let exact = best(vectors.exact(all(&probe, -1.0, 1), &|position, _| Some(position)));
                let naive = (0..kept.len()).max_by(|a, b| cosine(&kept[*a], &probe).total_cmp(&cosine(&kept[*b], &probe)));
                prop_assert_eq!(exact, naive);
                missed += usize::from(best(vectors.nearest(all(&probe, -1.0, 1), &|position, _| Some(position))) != exact);
            }
            // One miss in many thousands is expected.
            prop_assert!(missed <= 2, "{missed} of {PEOPLE} were missed");
        }
    }

    #[test]
    fn a_removed_vector_leaves_nothing_in_memory_that_is_in_use() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut vectors = Vectors::new(8);
        let all: Vec<Vec<f32>> = (0..40).map(|_| random_unit(&mut rng, 8)).collect();
        for vector in &all {
            vectors.push(vector);
        }
        for position in [39, 0, 20, 20] {
            vectors.swap_remove(position);
        }
        let chunk = &vectors.chunks[0];
        assert!(chunk.components[36 * 8..].iter().all(|x| *x == 0.0));
        assert!(chunk.sketches[36..chunk.capacity].iter().all(|word| *word == 0));
        assert!(
            chunk.components[..36 * 8]
                .chunks(8)
                .all(|row| row.iter().any(|x| *x != 0.0))
        );
        for vector in [&all[39], &all[0], &all[20]] {
            assert!(!chunk.components.chunks(8).any(|row| row == &vector[..]));
        }
        (0..36).rev().for_each(|position| vectors.swap_remove(position));
        assert!(vectors.chunks.is_empty());
    }

    #[test]
    fn ties_go_to_the_smaller_key_and_the_limit_holds() {
        let mut vectors = Vectors::new(2);
        for _ in 0..2000 {
            vectors.push(&[1.0, 0.0]);
        }
        vectors.push(&[0.0, 1.0]);
        let key = |position: usize, _| position.is_multiple_of(2).then_some(2000 - position);
        let found = vectors.exact(all(&[1.0, 0.0], 0.5, 3), &key);
        let positions: Vec<usize> = found.iter().map(|found| found.position).collect();
        assert_eq!(positions, [1998, 1996, 1994]);
        assert!(vectors.exact(all(&[1.0, 0.0], 0.5, 0), &key).is_empty());
    }
}
