//! Faces that nobody in the collection resembled, kept for a time so that they can be looked for: one entry for each
//! track of a face, with the vector that was fused over it.
//!
//! They stand beside the collection's faces and are compared with the same model's vectors, but are found by searches of
//! their own alone. Each entry says until when it may be kept; one that is older is not told of, whether or not it has
//! been erased yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::Timestamp;

use crate::ids::FaceId;
use crate::index::Query;
use crate::shelf::{Entry, Record, Shelf};
use crate::similarity::Scale;
use crate::store::Rect;

/// A track of a face that nobody in the collection resembled, without its vector.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownFace {
    /// Its id, unique within the collection, also among the faces.
    pub face_id: FaceId,
    /// Who saw it: what [`UnknownFilter::source`] picks by.
    pub source: Arc<str>,
    /// The first time it was seen.
    pub first_seen: Timestamp,
    /// The last time it was seen.
    pub last_seen: Timestamp,
    /// It is kept until then.
    pub expires: Timestamp,
    /// Where in its best picture.
    pub rect: Rect,
    /// That it is a face, 0 to 100, in its best picture.
    pub confidence: f32,
    /// What else its source says of it; no business of this room.
    pub about: Arc<str>,
}

/// An unknown face that resembles the probe.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownMatch {
    /// 0 to 100; see [`crate::similarity`].
    pub similarity: f32,
    /// What the similarity was made from.
    pub cosine: f32,
    /// The face.
    pub face: Arc<UnknownFace>,
}

/// What is written of an unknown face.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownSighting {
    /// The face as it is now.
    pub face: UnknownFace,
    /// The model's vector; any length but zero, it is brought to unit length.
    pub vector: Vec<f32>,
    /// It was written before: if it is not there any more, because it was deleted, enrolled or grew too old, it is not
    /// written again.
    pub seen_before: bool,
}

/// Which unknown faces are meant; all without.
#[derive(Clone, Debug, Default)]
pub struct UnknownFilter {
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those last seen at this time or later.
    pub seen_after: Option<Timestamp>,
    /// Only those first seen before this time.
    pub seen_before: Option<Timestamp>,
}

impl UnknownFilter {
    fn takes(&self, face: &UnknownFace) -> bool {
        self.source.as_deref().is_none_or(|source| *source == *face.source)
            && self.seen_after.is_none_or(|time| face.last_seen >= time)
            && self.seen_before.is_none_or(|time| face.first_seen < time)
    }
}

impl Record for UnknownFace {
    fn id(&self) -> FaceId {
        self.face_id
    }
}

/// The unknown faces of one collection in memory.
#[derive(Debug)]
pub(crate) struct Unknowns {
    scale: Scale,
    shelf: Shelf<UnknownFace>,
    by_time: BTreeSet<(Timestamp, FaceId)>,
    by_expiry: BTreeSet<(Timestamp, FaceId)>,
}

impl Unknowns {
    pub(crate) fn new(dimensions: usize, scale: Scale) -> Self {
        Unknowns {
            scale,
            shelf: Shelf::new(dimensions),
            by_time: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shelf.len()
    }

    pub(crate) fn get(&self, id: FaceId) -> Option<&Entry<UnknownFace>> {
        self.shelf.get(id)
    }

    pub(crate) fn vector(&self, id: FaceId) -> Option<&[f32]> {
        self.shelf.vector(id)
    }

    pub(crate) fn free_slots(&self, count: usize) -> Vec<u32> {
        self.shelf.free_slots(count)
    }

    /// Adds an entry, as [`Shelf::insert`] says, or describes one anew that is there, in the same slot.
    pub(crate) fn put(&mut self, entry: Entry<UnknownFace>, vector: &[f32]) {
        let face = entry.record.clone();
        if let Some(old) = self.shelf.get(face.face_id).map(|old| old.record.clone()) {
            self.forget_times(&old);
            self.shelf.describe(face.clone());
            self.shelf.set_vector(face.face_id, vector);
        } else {
            self.shelf.insert(entry, vector);
        }
        self.by_time.insert((face.last_seen, face.face_id));
        self.by_expiry.insert((face.expires, face.face_id));
    }

    pub(crate) fn remove(&mut self, id: FaceId) -> Option<Entry<UnknownFace>> {
        let removed = self.shelf.remove(id)?;
        self.forget_times(&removed.record);
        Some(removed)
    }

    fn forget_times(&mut self, face: &UnknownFace) {
        self.by_time.remove(&(face.last_seen, face.face_id));
        self.by_expiry.remove(&(face.expires, face.face_id));
    }

    /// Those whose time is over, at most `limit`.
    pub(crate) fn expired(&self, now: Timestamp, limit: usize) -> Vec<FaceId> {
        let over = self.by_expiry.iter().take_while(|(expires, _)| *expires <= now);
        over.map(|(_, id)| *id).take(limit).collect()
    }

    /// The `count` that were last seen the longest ago.
    pub(crate) fn oldest(&self, count: usize) -> Vec<FaceId> {
        self.by_time.iter().map(|(_, id)| *id).take(count).collect()
    }

    /// The last seen first, beginning after `after`.
    pub(crate) fn page<'a>(
        &'a self,
        after: Option<(Timestamp, FaceId)>,
        filter: &'a UnknownFilter,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Arc<UnknownFace>> + 'a {
        let below = after.unwrap_or((Timestamp::from_millis(i64::MAX), FaceId::LAST));
        let newest_first = self.by_time.range(..below).rev();
        newest_first
            .filter_map(|(_, id)| self.shelf.get(*id).map(|entry| &entry.record))
            .filter(move |face| face.expires > now && filter.takes(face))
    }

    /// The best matches that the filter takes, best first.
    pub(crate) fn search(
        &self,
        query: Query<'_>,
        filter: &UnknownFilter,
        except: Option<FaceId>,
        now: Timestamp,
    ) -> Vec<UnknownMatch> {
        let admits = |face: &UnknownFace, cosine| {
            query.admits(&self.scale, cosine)
                && Some(face.face_id) != except
                && face.expires > now
                && filter.takes(face)
        };
        let to_match = |(face, cosine): (&Arc<UnknownFace>, f32)| UnknownMatch {
            similarity: self.scale.similarity(cosine),
            cosine,
            face: face.clone(),
        };
        let found = self.shelf.nearest(query.probe(&self.scale), admits);
        found.into_iter().map(to_match).collect()
    }
}
