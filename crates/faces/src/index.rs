//! One collection in memory: its faces, its users, and the searches over both. It changes after the file has, and is what
//! every read looks at.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::FaceId;
use crate::similarity;
use crate::store::{FaceMatch, FaceRecord, UserInfo, UserMatch, UserStatus};
use crate::users::{User, UserNumber, Users};
use crate::vectors::{Found, Probe, Vectors, normalised, wipe};

/// One collection's faces and users.
#[derive(Debug)]
pub(crate) struct CollectionIndex {
    dimensions: usize,
    vectors: Vectors,
    /// In the order of `vectors`.
    entries: Vec<Entry>,
    by_id: BTreeMap<FaceId, usize>,
    /// Slots below `slots_end` that no entry has; the next one to use is last.
    free: Vec<u32>,
    slots_end: u32,
    users: Users,
    version: u64,
}

/// What belongs to one vector. `slot` is its place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: Arc<FaceRecord>,
    pub(crate) slot: u32,
}

/// A search of faces or users, as the callers of this room say it.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    /// Of unit length.
    pub(crate) probe: &'a [f32],
    /// The least similarity, 0 to 100.
    pub(crate) threshold: f32,
    pub(crate) limit: usize,
}

impl Query<'_> {
    fn probe(&self) -> Probe<'_> {
        Probe {
            vector: self.probe,
            // The inverse of the scale is rounded; the exact test is on the similarity itself.
            cosine_min: similarity::to_cosine(self.threshold) - 1e-5,
            limit: self.limit,
        }
    }

    fn admits(&self, cosine: f32) -> bool {
        similarity::from_cosine(cosine) >= self.threshold
    }
}

impl CollectionIndex {
    pub(crate) fn new(dimensions: usize) -> Self {
        CollectionIndex {
            dimensions,
            vectors: Vectors::new(dimensions),
            entries: Vec::new(),
            by_id: BTreeMap::new(),
            free: Vec::new(),
            slots_end: 0,
            users: Users::new(dimensions),
            version: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    pub(crate) fn get(&self, id: FaceId) -> Option<&Entry> {
        self.by_id.get(&id).and_then(|&position| self.entries.get(position))
    }

    pub(crate) fn vector(&self, id: FaceId) -> Option<&[f32]> {
        self.by_id.get(&id).and_then(|&position| self.vectors.get(position))
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
        debug_assert!(!self.by_id.contains_key(&entry.record.face_id));
        if self.free.last() == Some(&entry.slot) {
            self.free.pop();
        } else {
            debug_assert!(entry.slot >= self.slots_end);
            self.free.extend(self.slots_end..entry.slot);
            self.slots_end = entry.slot.saturating_add(1);
        }
        self.version = self.version.wrapping_add(1);
        let position = self.vectors.push(vector);
        self.by_id.insert(entry.record.face_id, position);
        self.entries.push(entry);
    }

    /// Takes a vector out; the last one moves into its place.
    pub(crate) fn remove(&mut self, id: FaceId) -> Option<Entry> {
        let position = self.by_id.remove(&id)?;
        let removed = self.entries.swap_remove(position);
        self.version = self.version.wrapping_add(1);
        self.vectors.swap_remove(position);
        if let Some(moved) = self.entries.get(position) {
            self.by_id.insert(moved.record.face_id, position);
        }
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

    /// The best faces whose similarity is at least the threshold, best first; of two that are equally similar the smaller
    /// id comes first. `except` is left out.
    pub(crate) fn search(&self, query: Query<'_>, except: Option<FaceId>) -> Vec<FaceMatch> {
        let key = |position: usize, cosine: f32| self.key(query, position, cosine).filter(|id| Some(*id) != except);
        self.matches(self.vectors.nearest(query.probe(), &key))
    }

    /// The same with every vector compared, however many there are.
    pub(crate) fn search_exactly(&self, query: Query<'_>) -> Vec<FaceMatch> {
        let key = |position: usize, cosine: f32| self.key(query, position, cosine);
        self.matches(self.vectors.exact(query.probe(), &key))
    }

    fn key(&self, query: Query<'_>, position: usize, cosine: f32) -> Option<FaceId> {
        let entry = self.entries.get(position).filter(|_| query.admits(cosine))?;
        Some(entry.record.face_id)
    }

    fn matches(&self, found: Vec<Found>) -> Vec<FaceMatch> {
        let to_match = |Found { cosine, position }| {
            self.entries.get(position).map(|entry| FaceMatch {
                similarity: similarity::from_cosine(cosine),
                cosine,
                face: entry.record.clone(),
            })
        };
        found.into_iter().filter_map(to_match).collect()
    }

    /// The best users, likewise; of two that are equally similar the older one comes first.
    pub(crate) fn search_users(&self, query: Query<'_>, except: Option<UserNumber>) -> Vec<UserMatch> {
        let found = self
            .users
            .search(query.probe(), |cosine| query.admits(cosine), except)
            .into_iter();
        let to_match = |(user, cosine): (&User, f32)| UserMatch {
            similarity: similarity::from_cosine(cosine),
            cosine,
            user: describe(user),
        };
        found.map(to_match).collect()
    }

    /// Adds a user without faces.
    pub(crate) fn add_user(&mut self, number: UserNumber, name: Arc<str>) {
        self.version = self.version.wrapping_add(1);
        self.users.add(number, name);
    }

    /// Takes a user out; its faces stay and are nobody's.
    pub(crate) fn remove_user(&mut self, number: UserNumber) {
        self.version = self.version.wrapping_add(1);
        if let Some(user) = self.users.remove(number) {
            user.faces.into_iter().for_each(|face| self.set_user(face, None));
        }
    }

    /// Gives users their faces, as the file has them, and their vectors.
    pub(crate) fn restore_users(&mut self, members: &[(UserNumber, FaceId)]) {
        let names: BTreeMap<UserNumber, Arc<str>> = (self.users.page(None))
            .map(|user| (user.number, user.name.clone()))
            .collect();
        for (number, face) in members {
            if let Some(name) = names.get(number) {
                self.join(*number, name, *face);
            }
        }
        names.keys().for_each(|number| self.fuse(*number));
    }

    /// Makes the face a user's, without a new vector for the user: [`CollectionIndex::fuse`] makes that.
    pub(crate) fn join(&mut self, number: UserNumber, name: &Arc<str>, face: FaceId) {
        self.set_user(face, Some(name));
        if let Some(faces) = self.users.faces_mut(number) {
            faces.insert(face);
        }
    }

    /// Makes the face nobody's, likewise.
    pub(crate) fn leave(&mut self, number: UserNumber, face: FaceId) {
        self.set_user(face, None);
        if let Some(faces) = self.users.faces_mut(number) {
            faces.remove(&face);
        }
    }

    fn set_user(&mut self, face: FaceId, name: Option<&Arc<str>>) {
        self.version = self.version.wrapping_add(1);
        let position = self.by_id.get(&face).copied();
        if let Some(entry) = position.and_then(|position| self.entries.get_mut(position)) {
            entry.record = Arc::new(FaceRecord {
                user: name.cloned(),
                ..FaceRecord::clone(&entry.record)
            });
        }
    }

    /// Makes the user's vector anew from its faces. Mean and length are of double precision, and faces are added in the
    /// order of their ids, so that the vector after a start is the one before it.
    pub(crate) fn fuse(&mut self, number: UserNumber) {
        let mut sum = vec![0.0f64; self.dimensions];
        let faces = self
            .users
            .faces_mut(number)
            .map(|faces| faces.clone())
            .unwrap_or_default();
        for vector in faces.iter().filter_map(|face| self.vector(*face)) {
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let mean: Vec<f32> = sum.iter().map(|x| (x / faces.len().max(1) as f64) as f32).collect();
        let fused = normalised(&mean);
        self.users.set_vector(number, fused.as_deref());
        fused.into_iter().chain([mean]).for_each(wipe);
    }
}

/// What callers are told of a user.
pub(crate) fn describe(user: &User) -> UserInfo {
    UserInfo {
        number: user.number,
        name: user.name.clone(),
        faces: user.faces.len(),
        status: if user.faces.is_empty() {
            UserStatus::Created
        } else {
            UserStatus::Active
        },
    }
}
