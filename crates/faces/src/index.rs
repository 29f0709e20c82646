//! One collection in memory: its faces, its users, and the searches over both. It changes after the file has, and is what
//! every read looks at.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::FaceId;
use crate::shelf::{Entry, Record, Shelf};
use crate::similarity::Scale;
use crate::store::{FaceMatch, FaceRecord, UserInfo, UserMatch, UserStatus};
use crate::unknown::Unknowns;
use crate::users::{User, UserNumber, Users};
use crate::vectors::{Probe, normalised, wipe};

/// One collection's faces and users, and the unknown faces that were kept beside them.
#[derive(Debug)]
pub(crate) struct CollectionIndex {
    dimensions: usize,
    scale: Scale,
    faces: Shelf<FaceRecord>,
    users: Users,
    unknown: Unknowns,
    version: u64,
}

impl Record for FaceRecord {
    fn id(&self) -> FaceId {
        self.face_id
    }
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
    pub(crate) fn probe(&self, scale: &Scale) -> Probe<'_> {
        Probe {
            vector: self.probe,
            // The inverse of the scale is rounded; the exact test is on the similarity itself.
            cosine_min: scale.cosine(self.threshold) - 1e-5,
            limit: self.limit,
        }
    }

    pub(crate) fn admits(&self, scale: &Scale, cosine: f32) -> bool {
        scale.similarity(cosine) >= self.threshold
    }
}

impl CollectionIndex {
    pub(crate) fn new(dimensions: usize, scale: Scale) -> Self {
        CollectionIndex {
            dimensions,
            faces: Shelf::new(dimensions),
            users: Users::new(dimensions),
            unknown: Unknowns::new(dimensions, scale.clone()),
            scale,
            version: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.faces.len()
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn scale(&self) -> &Scale {
        &self.scale
    }

    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    pub(crate) fn unknown(&self) -> &Unknowns {
        &self.unknown
    }

    /// Unknown faces change no search of the collection's own, so its version stays.
    pub(crate) fn unknown_mut(&mut self) -> &mut Unknowns {
        &mut self.unknown
    }

    pub(crate) fn get(&self, id: FaceId) -> Option<&Entry<FaceRecord>> {
        self.faces.get(id)
    }

    pub(crate) fn vector(&self, id: FaceId) -> Option<&[f32]> {
        self.faces.vector(id)
    }

    /// See [`Shelf::free_slots`].
    pub(crate) fn free_slots(&self, count: usize) -> Vec<u32> {
        self.faces.free_slots(count)
    }

    /// See [`Shelf::insert`].
    pub(crate) fn insert(&mut self, entry: Entry<FaceRecord>, vector: &[f32]) {
        self.version = self.version.wrapping_add(1);
        self.faces.insert(entry, vector);
    }

    /// Takes a face out.
    pub(crate) fn remove(&mut self, id: FaceId) -> Option<Entry<FaceRecord>> {
        let removed = self.faces.remove(id)?;
        self.version = self.version.wrapping_add(1);
        Some(removed)
    }

    /// Records in the order of their ids, beginning after `after`.
    pub(crate) fn page(&self, after: Option<FaceId>) -> impl Iterator<Item = &Arc<FaceRecord>> + '_ {
        self.faces.page(after)
    }

    /// The best faces whose similarity is at least the threshold, best first; of two that are equally similar the smaller
    /// id comes first. `except` is left out.
    pub(crate) fn search(&self, query: Query<'_>, except: Option<FaceId>) -> Vec<FaceMatch> {
        let admits = |face: &FaceRecord, cosine| Some(face.face_id) != except && query.admits(&self.scale, cosine);
        self.matches(self.faces.nearest(query.probe(&self.scale), admits))
    }

    /// The same with every vector compared, however many there are.
    pub(crate) fn search_exactly(&self, query: Query<'_>) -> Vec<FaceMatch> {
        let admits = |_: &FaceRecord, cosine| query.admits(&self.scale, cosine);
        self.matches(self.faces.exact(query.probe(&self.scale), admits))
    }

    fn matches(&self, found: Vec<(&Arc<FaceRecord>, f32)>) -> Vec<FaceMatch> {
        let to_match = |(face, cosine): (&Arc<FaceRecord>, f32)| FaceMatch {
            similarity: self.scale.similarity(cosine),
            cosine,
            face: face.clone(),
        };
        found.into_iter().map(to_match).collect()
    }

    /// The best users, likewise; of two that are equally similar the older one comes first.
    pub(crate) fn search_users(&self, query: Query<'_>, except: Option<UserNumber>) -> Vec<UserMatch> {
        let admits = |cosine| query.admits(&self.scale, cosine);
        let found = self.users.search(query.probe(&self.scale), admits, except).into_iter();
        let to_match = |(user, cosine): (&User, f32)| UserMatch {
            similarity: self.scale.similarity(cosine),
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
        if let Some(entry) = self.faces.get(face) {
            let record = FaceRecord {
                user: name.cloned(),
                ..FaceRecord::clone(&entry.record)
            };
            self.faces.describe(Arc::new(record));
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
