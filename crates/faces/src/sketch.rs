//! Sketches: some bits that stand for a vector, so that a million of them can be compared in a millisecond.
//!
//! A vector, with as many zeros behind it, is turned by a fixed rotation that spreads whatever structure its components
//! have (signs changed and mixed by a Walsh-Hadamard transform, three times), and each component of the result leaves one
//! bit: is it positive. A probe is
//! turned alike and keeps four bits a component, as four planes of bits. The sum of the probe's components where the
//! sketch has a one ranks vectors as their cosine does, with an error of about 0.05 at 256 bits; what ranks highest is
//! then compared exactly. The method is known as RaBitQ (Gao and Long, 2024), here without its factor for each vector.
//!
//! A sketch is as personal as the vector it stands for: it is in memory alone and overwritten with it.

use crate::simd;

/// Bits that a component of a probe keeps.
pub(crate) const PLANES: usize = 4;

/// Words of 64 bits that a sketch has at most. A longer vector is sketched by the first components of its rotation.
pub(crate) const WORDS_MAX: usize = 4;

const WORD: usize = 64;

/// How often signs are changed and components mixed.
const ROUNDS: usize = 3;

/// Makes sketches of vectors of one length.
#[derive(Debug)]
pub(crate) struct Sketcher {
    words: usize,
    /// For each round the factor of each component, 1 or -1; as many as the power of two to which vectors are filled up.
    signs: [Vec<f32>; ROUNDS],
}

impl Sketcher {
    pub(crate) fn new(dimensions: usize) -> Self {
        // Twice as many bits as components: of 128, the most that a sketch may have.
        let padded = (2 * dimensions).next_power_of_two().max(WORD);
        // Any sequence will do, as long as every sketch of the process is made with the same (xorshift64*).
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut sign = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let positive = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 0;
            if positive { 1.0 } else { -1.0 }
        };
        Sketcher {
            words: (padded / WORD).min(WORDS_MAX),
            signs: std::array::from_fn(|_| (0..padded).map(|_| sign()).collect()),
        }
    }

    /// Words of a sketch.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    fn rotated(&self, vector: &[f32]) -> Vec<f32> {
        let padded = self.signs.first().map_or(0, Vec::len);
        let mut turned = Vec::with_capacity(padded);
        turned.extend_from_slice(vector);
        turned.resize(padded, 0.0);
        for signs in &self.signs {
            turned.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
            let mut half = 1;
            while half < padded {
                for pair in turned.chunks_exact_mut(half * 2) {
                    let (low, high) = pair.split_at_mut(half);
                    for (a, b) in low.iter_mut().zip(high) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                }
                half *= 2;
            }
        }
        turned
    }

    /// The sketch of a vector; words beyond [`Sketcher::words`] are zero.
    pub(crate) fn sketch(&self, vector: &[f32]) -> [u64; WORDS_MAX] {
        let mut sketch = [0; WORDS_MAX];
        let turned = self.rotated(vector);
        for (word, components) in sketch.iter_mut().zip(turned.chunks_exact(WORD)).take(self.words) {
            for (bit, &x) in components.iter().enumerate() {
                *word |= u64::from(x > 0.0) << bit;
            }
        }
        crate::vectors::wipe(turned);
        sketch
    }

    /// The planes of a probe, for each word of a sketch: the components, from -8 to 7, in two's complement.
    pub(crate) fn planes(&self, probe: &[f32]) -> Vec<[u64; PLANES]> {
        let turned = self.rotated(probe);
        let largest = turned.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
        let to_planes = |components: &[f32]| {
            let mut planes = [0u64; PLANES];
            for (bit, &x) in components.iter().enumerate() {
                let level = (x / largest * 7.5).round().clamp(-8.0, 7.0) as i8;
                for (number, plane) in planes.iter_mut().enumerate() {
                    *plane |= u64::from(level as u8 >> number & 1) << bit;
                }
            }
            planes
        };
        turned.chunks_exact(WORD).take(self.words).map(to_planes).collect()
    }
}

/// The positions whose sketches score highest, gathered chunk by chunk.
pub(crate) struct Closest {
    wanted: usize,
    /// Score and position in one number, so that they are compared at once.
    gathered: Vec<u64>,
    /// What a score must exceed to be gathered.
    bar: i16,
}

/// Scores looked at together: a group without a high one is passed over.
const GROUP: usize = 32;

impl Closest {
    pub(crate) fn new(wanted: usize) -> Self {
        Closest {
            wanted,
            gathered: Vec::with_capacity(2 * wanted + GROUP),
            bar: i16::MIN,
        }
    }

    /// Takes up to 1024 sketches; see [`simd::score`]. `first` is the position of the first one.
    pub(crate) fn scan(
        &mut self,
        planes: &[[u64; PLANES]],
        sketches: &[u64],
        capacity: usize,
        rows: usize,
        first: usize,
    ) {
        let mut scores = [0i16; 1024];
        let scores = scores.get_mut(..rows).unwrap_or_default();
        simd::score(planes, sketches, capacity, scores);
        for (group, scores) in scores.chunks(GROUP).enumerate() {
            if scores.iter().fold(i16::MIN, |most, &score| most.max(score)) <= self.bar {
                continue;
            }
            for (place, &score) in scores.iter().enumerate() {
                if score > self.bar {
                    let position = (first + group * GROUP + place) as u64;
                    let ranked = (i32::from(score) + 0x8000) as u64;
                    self.gathered.push(ranked << 48 | position);
                }
            }
            if self.gathered.len() > 2 * self.wanted {
                self.cut();
            }
        }
    }

    /// Keeps the wanted number of the highest.
    fn cut(&mut self) {
        if self.gathered.len() <= self.wanted {
            return;
        }
        let (_, last, _) = self
            .gathered
            .select_nth_unstable_by(self.wanted.saturating_sub(1), |a, b| b.cmp(a));
        self.bar = ((*last >> 48) as i32 - 0x8000) as i16;
        self.gathered.truncate(self.wanted);
    }

    /// The positions, in ascending order.
    pub(crate) fn positions(mut self) -> Vec<usize> {
        self.cut();
        let mut positions: Vec<usize> = self
            .gathered
            .iter()
            .map(|both| (both & 0xffff_ffff_ffff) as usize)
            .collect();
        positions.sort_unstable();
        positions
    }
}

#[cfg(test)]
mod tests {
    use base::{AccountId, Disk, ResourceName, SystemClock, SystemDisk};

    use super::*;
    use crate::vectors::normalised;
    use crate::{FaceStore, ImageDigest, ModelVersion, NewFace, Rect};

    #[tokio::test]
    async fn no_word_of_a_sketch_is_in_any_file() {
        let directory = tempfile::tempdir().unwrap();
        let clock = std::sync::Arc::new(SystemClock::new());
        let store = FaceStore::open(&directory.path().join("faces.db"), clock).unwrap();
        let key = || ResourceName {
            account: AccountId::DEFAULT,
            region: "us-west-2".parse().unwrap(),
            name: "staff".to_owned(),
        };
        let model = ModelVersion {
            id: "m".to_owned(),
            dimensions: 128,
        };
        store.create_collection(key(), model).await.unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let sketcher = Sketcher::new(128);
        let mut words = std::collections::HashSet::new();
        for number in 0..50u8 {
            let vector: Vec<f32> = (0..128).map(|_| rng.f32() - 0.5).collect();
            words.extend(sketcher.sketch(&normalised(&vector).unwrap()));
            let face = NewFace {
                rect: Rect::default(),
                confidence: 99.0,
                vector,
            };
            let added = store.index_faces(key(), "m".to_owned(), ImageDigest::of(&[number]), None, vec![face]);
            added.await.unwrap();
        }
        assert_eq!(words.len(), 50 * WORDS_MAX);
        let disk = SystemDisk::open(directory.path()).unwrap();
        for name in disk.list().unwrap() {
            let file = disk.open(&name).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            for window in bytes.windows(8) {
                let window: [u8; 8] = window.try_into().unwrap();
                assert!(!words.contains(&u64::from_le_bytes(window)) && !words.contains(&u64::from_be_bytes(window)));
            }
        }
    }
}
