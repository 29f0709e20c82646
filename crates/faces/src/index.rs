//! The vectors of one collection in memory, side by side, and the exact search over them.
//!
//! Every vector is compared: 128 components are 512 bytes, so a million faces are half a gigabyte read once per search,
//! which memory bandwidth bounds: measured, 10 ms for 100,000 faces on one core, 1.4 times one pass over the same memory
//! (`examples/search.rs`); the collections this server is made for take far less than a millisecond. Vectors are of unit
//! length, so the cosine is a dot product.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::FaceId;
use crate::similarity;
use crate::store::{FaceMatch, FaceRecord};

/// Sums kept apart in a dot product, so that the compiler can use the widest vector unit of the target.
const LANES: usize = 16;

/// One collection's vectors and records.
#[derive(Debug)]
pub(crate) struct CollectionIndex {
    dimensions: usize,
    /// `dimensions` components for each entry, in the order of `entries`.
    vectors: Vec<f32>,
    entries: Vec<Entry>,
    by_id: BTreeMap<FaceId, usize>,
    /// Slots below `slots_end` that no entry has; the next one to use is last.
    free: Vec<u32>,
    slots_end: u32,
    version: u64,
}

/// What belongs to one vector. `slot` is its place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: Arc<FaceRecord>,
    pub(crate) slot: u32,
}

/// A vector that is close enough, ordered best first: the "greatest" candidate is the one to drop first.
struct Candidate {
    cosine: f32,
    face_id: FaceId,
    position: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.cosine.total_cmp(&self.cosine)).then_with(|| self.face_id.cmp(&other.face_id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl CollectionIndex {
    pub(crate) fn new(dimensions: usize) -> Self {
        CollectionIndex {
            dimensions,
            vectors: Vec::new(),
            entries: Vec::new(),
            by_id: BTreeMap::new(),
            free: Vec::new(),
            slots_end: 0,
            version: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, id: FaceId) -> Option<&Entry> {
        self.by_id.get(&id).and_then(|&position| self.entries.get(position))
    }

    pub(crate) fn vector(&self, id: FaceId) -> Option<&[f32]> {
        let start = self.by_id.get(&id)?.checked_mul(self.dimensions)?;
        self.vectors.get(start..start.checked_add(self.dimensions)?)
    }

    /// The slots that the next `count` entries take, in this order.
    pub(crate) fn free_slots(&self, count: usize) -> Vec<u32> {
        self.free
            .iter()
            .rev()
            .copied()
            .chain(self.slots_end..)
            .take(count)
            .collect()
    }

    /// Adds a vector of unit length. The caller has made sure that its id is not taken, that its length is right, and
    /// that its slot is the next free one, or beyond all slots.
    pub(crate) fn insert(&mut self, entry: Entry, vector: &[f32]) {
        debug_assert_eq!(vector.len(), self.dimensions);
        debug_assert!(!self.by_id.contains_key(&entry.record.face_id));
        if self.free.last() == Some(&entry.slot) {
            self.free.pop();
        } else {
            debug_assert!(entry.slot >= self.slots_end);
            self.free.extend(self.slots_end..entry.slot);
            self.slots_end = entry.slot.saturating_add(1);
        }
        self.version = self.version.wrapping_add(1);
        self.by_id.insert(entry.record.face_id, self.entries.len());
        self.entries.push(entry);
        self.vectors.extend_from_slice(vector);
    }

    /// Takes a vector out; the last one moves into its place.
    pub(crate) fn remove(&mut self, id: FaceId) -> Option<Entry> {
        let position = self.by_id.remove(&id)?;
        let removed = self.entries.swap_remove(position);
        self.version = self.version.wrapping_add(1);
        let last = self.entries.len() * self.dimensions;
        let start = position * self.dimensions;
        if start != last {
            self.vectors.copy_within(last..last + self.dimensions, start);
            if let Some(moved) = self.entries.get(position) {
                self.by_id.insert(moved.record.face_id, position);
            }
        }
        // Truncation alone would leave the components in the spare capacity.
        if let Some(tail) = self.vectors.get_mut(last..) {
            tail.fill(0.0);
        }
        self.vectors.truncate(last);
        self.free.push(removed.slot);
        Some(removed)
    }

    /// Records in the order of their ids, beginning after `after`.
    pub(crate) fn page(&self, after: Option<FaceId>) -> impl Iterator<Item = &Arc<FaceRecord>> + '_ {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id
            .range((start, Bound::Unbounded))
            .filter_map(|(_, &position)| self.entries.get(position).map(|entry| &entry.record))
    }

    /// The `limit` best faces whose similarity to `probe` (unit length) is at least `threshold`, best first; of two that
    /// are equally similar the smaller id comes first. `except` is left out.
    pub(crate) fn search(&self, probe: &[f32], threshold: f32, limit: usize, except: Option<FaceId>) -> Vec<FaceMatch> {
        // The inverse of the scale is rounded; the exact test is on the similarity itself.
        let cosine_min = similarity::to_cosine(threshold) - 1e-5;
        let mut best: BinaryHeap<Candidate> = BinaryHeap::new();
        let rows = self.vectors.chunks_exact(self.dimensions.max(1));
        for ((position, vector), entry) in rows.enumerate().zip(&self.entries) {
            let cosine = dot(probe, vector);
            if cosine < cosine_min || similarity::from_cosine(cosine) < threshold {
                continue;
            }
            let candidate = Candidate {
                cosine,
                face_id: entry.record.face_id,
                position,
            };
            if except == Some(candidate.face_id) {
                continue;
            }
            if best.len() < limit {
                best.push(candidate);
            } else if best.peek().is_some_and(|worst| candidate < *worst) {
                best.pop();
                best.push(candidate);
            }
        }
        let sorted = best.into_sorted_vec();
        let to_match = |candidate: Candidate| {
            self.entries.get(candidate.position).map(|entry| FaceMatch {
                similarity: similarity::from_cosine(candidate.cosine),
                cosine: candidate.cosine,
                face: entry.record.clone(),
            })
        };
        sorted.into_iter().filter_map(to_match).collect()
    }
}

/// The dot product of two vectors of one length.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = (a_chunks.remainder().iter().zip(b_chunks.remainder()))
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    rest + sums.iter().sum::<f32>()
}

/// The vector at unit length; `None` if a component is not finite or all are zero.
pub(crate) fn normalised(vector: &[f32]) -> Option<Vec<f32>> {
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if !norm.is_finite() || norm < 1e-12 {
        return None;
    }
    Some(vector.iter().map(|&x| (f64::from(x) / norm) as f32).collect())
}
