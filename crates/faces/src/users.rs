//! The users of one collection in memory: which faces are theirs, and the vector that stands for each.
//!
//! The vector of a user is the normalised mean of those of its faces. It follows from them, so it is in memory alone and
//! in no file: after a start it is made anew, and a user that is deleted leaves nothing to erase.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::FaceId;
use crate::vectors::{Found, Probe, Vectors};

/// A user's number in the file; never reused.
pub(crate) type UserNumber = i64;

/// Users by number and name.
#[derive(Debug)]
pub(crate) struct Users {
    by_number: BTreeMap<UserNumber, User>,
    by_name: HashMap<Arc<str>, UserNumber>,
    vectors: Vectors,
    /// Whose the vector at each position is.
    owners: Vec<UserNumber>,
}

/// One user.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) number: UserNumber,
    pub(crate) name: Arc<str>,
    pub(crate) faces: BTreeSet<FaceId>,
    /// Where its vector is; it has none while it has no faces.
    position: Option<usize>,
}

impl Users {
    pub(crate) fn new(dimensions: usize) -> Self {
        Users {
            by_number: BTreeMap::new(),
            by_name: HashMap::new(),
            vectors: Vectors::new(dimensions),
            owners: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&User> {
        self.by_name.get(name).and_then(|number| self.by_number.get(number))
    }

    /// Users in the order of their numbers, which is that of their creation, beginning after `after`.
    pub(crate) fn page(&self, after: Option<UserNumber>) -> impl Iterator<Item = &User> + '_ {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_number.range((start, Bound::Unbounded)).map(|(_, user)| user)
    }

    /// Adds a user without faces. The caller has made sure that its name is not taken.
    pub(crate) fn add(&mut self, number: UserNumber, name: Arc<str>) {
        self.by_name.insert(name.clone(), number);
        let user = User {
            number,
            name,
            faces: BTreeSet::new(),
            position: None,
        };
        self.by_number.insert(number, user);
    }

    /// Takes a user out, with its vector.
    pub(crate) fn remove(&mut self, number: UserNumber) -> Option<User> {
        self.set_vector(number, None);
        let user = self.by_number.remove(&number)?;
        self.by_name.remove(&user.name);
        Some(user)
    }

    /// The faces of a user.
    pub(crate) fn faces_mut(&mut self, number: UserNumber) -> Option<&mut BTreeSet<FaceId>> {
        self.by_number.get_mut(&number).map(|user| &mut user.faces)
    }

    /// Gives a user another vector of unit length, or takes it away.
    pub(crate) fn set_vector(&mut self, number: UserNumber, vector: Option<&[f32]>) {
        let Some(user) = self.by_number.get_mut(&number) else {
            return;
        };
        match (user.position, vector) {
            (Some(position), Some(vector)) => self.vectors.set(position, vector),
            (None, Some(vector)) => {
                user.position = Some(self.vectors.push(vector));
                self.owners.push(number);
            }
            (Some(position), None) => {
                user.position = None;
                self.vectors.swap_remove(position);
                self.owners.swap_remove(position);
                let moved = self.owners.get(position);
                if let Some(moved) = moved.and_then(|owner| self.by_number.get_mut(owner)) {
                    moved.position = Some(position);
                }
            }
            (None, None) => {}
        }
    }

    /// The vector of a user; `None` while it has no faces.
    pub(crate) fn vector(&self, user: &User) -> Option<&[f32]> {
        user.position.and_then(|position| self.vectors.get(position))
    }

    /// The best users for which `admits` holds of the cosine, best first; of two that are equally close the older one
    /// comes first. `except` is left out.
    pub(crate) fn search(
        &self,
        probe: Probe<'_>,
        admits: impl Fn(f32) -> bool,
        except: Option<UserNumber>,
    ) -> Vec<(&User, f32)> {
        let key = |position: usize, cosine: f32| {
            let owner = self.owners.get(position).copied();
            owner.filter(|owner| Some(*owner) != except && admits(cosine))
        };
        let found = self.vectors.nearest(probe, &key).into_iter();
        let user = |Found { cosine, position }| {
            let user = self.by_number.get(self.owners.get(position)?)?;
            Some((user, cosine))
        };
        found.filter_map(user).collect()
    }
}
