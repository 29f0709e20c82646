//! Vectors with what belongs to each: a record that names it, and its slot in the file. The faces of a collection stand
//! on one shelf, the unknown ones on another.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::FaceId;
use crate::vectors::{Found, Probe, Vectors};

/// What is known of a vector.
pub(crate) trait Record {
    /// Names it on its shelf.
    fn id(&self) -> FaceId;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shelf<R> {
    vectors: Vectors,
    /// In the order of `vectors`.
    entries: Vec<Entry<R>>,
    by_id: BTreeMap<FaceId, usize>,
    /// Slots below `slots_end` that no entry has; the next one to use is last.
    free: Vec<u32>,
    slots_end: u32,
}

/// What belongs to one vector. `slot` is its place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Entry<R> {
    pub(crate) record: Arc<R>,
    pub(crate) slot: u32,
}

impl<R: Record> Shelf<R> {
    pub(crate) fn new(dimensions: usize) -> Self {
        Shelf {
            vectors: Vectors::new(dimensions),
            entries: Vec::new(),
            by_id: BTreeMap::new(),
            free: Vec::new(),
            slots_end: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, id: FaceId) -> Option<&Entry<R>> {
        self.by_id.get(&id).and_then(|&position| self.entries.get(position))
    }

    pub(crate) fn vector(&self, id: FaceId) -> Option<&[f32]> {
        self.by_id.get(&id).and_then(|&position| self.vectors.get(position))
    }

    /// The slots that the next `count` entries take, in this order.
    pub(crate) fn free_slots(&self, count: usize) -> Vec<u32> {
        let freed = self.free.iter().rev().copied();
        freed.chain(self.slots_end..).take(count).collect()
    }

    /// Adds a vector of unit length. The caller has made sure that its id is not taken, that its length is right, and
    /// that its slot is the next free one, or beyond all slots.
    pub(crate) fn insert(&mut self, entry: Entry<R>, vector: &[f32]) {
        debug_assert!(!self.by_id.contains_key(&entry.record.id()));
        if self.free.last() == Some(&entry.slot) {
            self.free.pop();
        } else {
            debug_assert!(entry.slot >= self.slots_end);
            self.free.extend(self.slots_end..entry.slot);
            self.slots_end = entry.slot.saturating_add(1);
        }
        let position = self.vectors.push(vector);
        self.by_id.insert(entry.record.id(), position);
        self.entries.push(entry);
    }

    /// Takes a vector out; the last one moves into its place.
    pub(crate) fn remove(&mut self, id: FaceId) -> Option<Entry<R>> {
        let position = self.by_id.remove(&id)?;
        let removed = self.entries.swap_remove(position);
        self.vectors.swap_remove(position);
        if let Some(moved) = self.entries.get(position) {
            self.by_id.insert(moved.record.id(), position);
        }
        self.free.push(removed.slot);
        Some(removed)
    }

    /// Gives an entry another record of the same id.
    pub(crate) fn describe(&mut self, record: Arc<R>) {
        let position = self.by_id.get(&record.id()).copied();
        if let Some(entry) = position.and_then(|position| self.entries.get_mut(position)) {
            entry.record = record;
        }
    }

    /// Gives an entry another vector of unit length.
    pub(crate) fn set_vector(&mut self, id: FaceId, vector: &[f32]) {
        if let Some(&position) = self.by_id.get(&id) {
            self.vectors.set(position, vector);
        }
    }

    /// Records in the order of their ids, beginning after `after`.
    pub(crate) fn page(&self, after: Option<FaceId>) -> impl Iterator<Item = &Arc<R>> + '_ {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id
            .range((start, Bound::Unbounded))
            .filter_map(|(_, &position)| self.entries.get(position).map(|entry| &entry.record))
    }

    /// The best records for which `admits` holds, with their cosines, best first; of two that are equally close the
    /// smaller id comes first. See [`Vectors::nearest`].
    pub(crate) fn nearest(&self, probe: Probe<'_>, admits: impl Fn(&R, f32) -> bool) -> Vec<(&Arc<R>, f32)> {
        self.records(
            self.vectors
                .nearest(probe, &|position, cosine| self.key(&admits, position, cosine)),
        )
    }

    /// The same with every vector compared, however many there are.
    pub(crate) fn exact(&self, probe: Probe<'_>, admits: impl Fn(&R, f32) -> bool) -> Vec<(&Arc<R>, f32)> {
        self.records(
            self.vectors
                .exact(probe, &|position, cosine| self.key(&admits, position, cosine)),
        )
    }

    fn key(&self, admits: &impl Fn(&R, f32) -> bool, position: usize, cosine: f32) -> Option<FaceId> {
        let entry = self.entries.get(position)?;
        admits(&entry.record, cosine).then(|| entry.record.id())
    }

    fn records(&self, found: Vec<Found>) -> Vec<(&Arc<R>, f32)> {
        let record = |Found { cosine, position }| Some((&self.entries.get(position)?.record, cosine));
        found.into_iter().filter_map(record).collect()
    }
}
