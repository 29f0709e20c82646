//! What callers do with unknown faces: they are kept, described anew, found, listed, enrolled and erased. The rules are
//! those of the faces of a collection: a mutation is durable before it is answered, and an erased vector is in no live
//! file by then.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{ResourceName, Timestamp};

use crate::db::{NewRow, UnknownRow};
use crate::ids::{FaceId, ImageDigest, ImageId};
use crate::limits;
use crate::shelf::Entry;
use crate::store::{Collection, Deleted, FaceRecord, FaceStore, FacesError, query};
use crate::unknown::{UnknownFace, UnknownFilter, UnknownMatch, UnknownSighting};
use crate::writer::{Writer, check_limit};

impl FaceStore {
    /// Keeps unknown faces beside the collection of this id, or describes anew those that are kept already. Gives the ids
    /// of those that were not written: the collection has a face of that id, or they were [`UnknownSighting::seen_before`]
    /// and are not there any more.
    ///
    /// Beyond [`limits::UNKNOWN_PER_COLLECTION_MAX`] those that were last seen the longest ago are erased.
    pub async fn keep_unknown(
        &self,
        key: ResourceName,
        collection_id: i64,
        model: String,
        sightings: Vec<UnknownSighting>,
    ) -> Result<Vec<FaceId>, FacesError> {
        check_limit(sightings.len(), "faces in one call", limits::FACES_PER_CALL_MAX)?;
        self.write(move |writer| writer.keep_unknown(&key, collection_id, &model, &sightings))
            .await
    }

    /// Erases unknown faces. When it answers, no live file holds their vectors.
    pub async fn delete_unknown(&self, key: ResourceName, faces: Vec<FaceId>) -> Result<Deleted, FacesError> {
        check_limit(faces.len(), "faces in one call", limits::FACES_PER_CALL_MAX)?;
        self.write(move |writer| writer.delete_unknown(&key, &faces)).await
    }

    /// Erases every unknown face whose time is over; gives their number.
    pub async fn expire_unknown(&self) -> Result<usize, FacesError> {
        self.write(Writer::expire_unknown).await
    }

    /// Makes unknown faces faces of the collection, all or none: they keep their ids and vectors, and are unknown no more.
    pub async fn enrol_unknown(
        &self,
        key: ResourceName,
        faces: Vec<FaceId>,
        external_image_id: Option<String>,
    ) -> Result<Vec<Arc<FaceRecord>>, FacesError> {
        check_limit(faces.len(), "faces in one call", limits::FACES_PER_IMAGE_MAX)?;
        self.write(move |writer| writer.enrol_unknown(&key, &faces, external_image_id.as_deref()))
            .await
    }

    /// Unknown faces, the last seen first, beginning after the one that was last seen then and has that id, at most
    /// `limit`.
    pub fn list_unknown(
        &self,
        key: &ResourceName,
        filter: &UnknownFilter,
        after: Option<(Timestamp, FaceId)>,
        limit: usize,
    ) -> Result<Vec<Arc<UnknownFace>>, FacesError> {
        let collection = self.shared.find(key)?;
        let index = collection.index.read();
        let page = index.unknown().page(after, filter, self.shared.clock.now());
        Ok(page.take(limit).cloned().collect())
    }

    /// The `limit` unknown faces most similar to `probe`, at least `threshold`, best first; of two equally similar ones
    /// the smaller id comes first. Every one is compared.
    pub fn search_unknown(
        &self,
        key: &ResourceName,
        model: &str,
        probe: &[f32],
        threshold: f32,
        limit: usize,
        filter: &UnknownFilter,
    ) -> Result<Vec<UnknownMatch>, FacesError> {
        let collection = self.shared.find(key)?;
        collection.check_model(model)?;
        let probe = collection.unit(probe)?;
        let index = collection.index.read();
        let query = query(&probe, threshold, limit);
        Ok(index.unknown().search(query, filter, None, self.shared.clock.now()))
    }

    /// Like [`FaceStore::search_unknown`], with an unknown face as the probe, which is left out of the answer, or with a
    /// face of the collection.
    pub fn search_unknown_by_id(
        &self,
        key: &ResourceName,
        face: FaceId,
        threshold: f32,
        limit: usize,
        filter: &UnknownFilter,
    ) -> Result<Vec<UnknownMatch>, FacesError> {
        let collection = self.shared.find(key)?;
        let (index, now) = (collection.index.read(), self.shared.clock.now());
        let kept = index.unknown().get(face).filter(|entry| entry.record.expires > now);
        let unknown = kept.and_then(|_| index.unknown().vector(face));
        let probe = unknown.or_else(|| index.vector(face));
        let query = query(probe.ok_or(FacesError::FaceNotFound(face))?, threshold, limit);
        Ok(index.unknown().search(query, filter, Some(face), now))
    }
}

/// Unknown faces with their slots.
type Slots = Vec<(FaceId, u32)>;

impl Writer {
    fn keep_unknown(
        &mut self,
        key: &ResourceName,
        collection_id: i64,
        model: &str,
        sightings: &[UnknownSighting],
    ) -> Result<Vec<FaceId>, FacesError> {
        let collection = self.shared.find(key)?;
        if collection.info.id != collection_id {
            return Err(FacesError::CollectionNotFound(key.name.clone()));
        }
        collection.check_model(model)?;
        self.make_room(&collection, sightings.len())?;
        let mut left_out = Vec::new();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        {
            let index = collection.index.read();
            let mut seen = HashSet::new();
            for sighting in sightings {
                let id = sighting.face.face_id;
                check_limit(sighting.face.about.len(), "bytes about a face", limits::ABOUT_BYTES_MAX)?;
                let vector = collection.unit(&sighting.vector)?;
                match index.unknown().get(id) {
                    _ if !seen.insert(id) => {}
                    Some(entry) => old.push((sighting.face.clone(), entry.slot, vector)),
                    None if sighting.seen_before || index.get(id).is_some() => left_out.push(id),
                    None => new.push((sighting.face.clone(), vector)),
                }
            }
        }
        let in_store = self.shared.unknown.load(Ordering::Relaxed) + new.len();
        check_limit(in_store, "unknown faces on this server", limits::UNKNOWN_PER_STORE_MAX)?;
        self.check_space()?;
        let slots = collection.index.read().unknown().free_slots(new.len());
        let added = new.len();
        let placed = new
            .into_iter()
            .zip(slots)
            .map(|((face, vector), slot)| (face, slot, vector));
        let rows: Vec<(UnknownFace, u32, Vec<f32>)> = old.into_iter().chain(placed).collect();
        let written: Vec<UnknownRow<'_>> = (rows.iter())
            .map(|(record, slot, vector)| UnknownRow {
                record,
                slot: *slot,
                vector,
            })
            .collect();
        let (id, dimensions) = (collection.info.id, collection.info.model.dimensions);
        let done = self.database.put_unknown(id, dimensions, &written);
        self.checked(done)?;
        self.shared.unknown.fetch_add(added, Ordering::Relaxed);
        let mut index = collection.index.write();
        for (record, slot, vector) in rows {
            let record = Arc::new(record);
            index.unknown_mut().put(Entry { record, slot }, &vector);
        }
        Ok(left_out)
    }

    /// Erases the oldest unknown faces, so that `wanted` more would have room.
    fn make_room(&mut self, collection: &Collection, wanted: usize) -> Result<(), FacesError> {
        let oldest: Slots = {
            let index = collection.index.read();
            let unknown = index.unknown();
            let beyond = (unknown.len() + wanted).saturating_sub(limits::UNKNOWN_PER_COLLECTION_MAX);
            let slot = |id: FaceId| unknown.get(id).map(|entry| (id, entry.slot));
            unknown.oldest(beyond).into_iter().filter_map(slot).collect()
        };
        self.erase_unknown(collection, &oldest)
    }

    /// Erases in small steps, as faces are.
    fn erase_unknown(&mut self, collection: &Collection, faces: &[(FaceId, u32)]) -> Result<(), FacesError> {
        let (id, dimensions) = (collection.info.id, collection.info.model.dimensions);
        for step in faces.chunks(limits::FACES_PER_DELETION_STEP) {
            let slots: Vec<u32> = step.iter().map(|(_, slot)| *slot).collect();
            self.deleting(|database| database.delete_unknown(id, dimensions, &slots))?;
            let mut index = collection.index.write();
            for (face, _) in step {
                index.unknown_mut().remove(*face);
            }
            self.shared.unknown.fetch_sub(step.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn delete_unknown(&mut self, key: &ResourceName, faces: &[FaceId]) -> Result<Deleted, FacesError> {
        let collection = self.shared.find(key)?;
        let (mut outcome, mut found) = (Deleted::default(), Slots::new());
        {
            let index = collection.index.read();
            let mut seen = HashSet::new();
            for &face in faces.iter().filter(|&&face| seen.insert(face)) {
                match index.unknown().get(face) {
                    Some(entry) => found.push((face, entry.slot)),
                    None => outcome.not_found.push(face),
                }
            }
        }
        self.erase_unknown(&collection, &found)?;
        outcome.deleted = found.into_iter().map(|(face, _)| face).collect();
        Ok(outcome)
    }

    fn expire_unknown(&mut self) -> Result<usize, FacesError> {
        let now = self.shared.clock.now();
        let collections: Vec<Arc<Collection>> = self.shared.collections.read().values().cloned().collect();
        let mut erased = 0;
        for collection in collections {
            loop {
                let over: Slots = {
                    let index = collection.index.read();
                    let unknown = index.unknown();
                    let slot = |id: FaceId| unknown.get(id).map(|entry| (id, entry.slot));
                    let over = unknown.expired(now, limits::FACES_PER_DELETION_STEP);
                    over.into_iter().filter_map(slot).collect()
                };
                if over.is_empty() {
                    break;
                }
                self.erase_unknown(&collection, &over)?;
                erased += over.len();
            }
        }
        Ok(erased)
    }

    fn enrol_unknown(
        &mut self,
        key: &ResourceName,
        faces: &[FaceId],
        external: Option<&str>,
    ) -> Result<Vec<Arc<FaceRecord>>, FacesError> {
        let collection = self.shared.find(key)?;
        let now = self.shared.clock.now();
        let (mut records, mut vectors, mut erased) = (Vec::new(), Vec::new(), Slots::new());
        let free = {
            let index = collection.index.read();
            let mut seen = HashSet::new();
            for &face in faces.iter().filter(|&&face| seen.insert(face)) {
                let kept = index.unknown().get(face).filter(|entry| entry.record.expires > now);
                let (Some(entry), Some(vector)) = (kept, index.unknown().vector(face)) else {
                    return Err(FacesError::FaceNotFound(face));
                };
                erased.push((face, entry.slot));
                vectors.push(vector.to_vec());
                records.push(Arc::new(FaceRecord {
                    face_id: face,
                    image_id: ImageId::derive(key.account, &ImageDigest::of(face.0.as_bytes())),
                    external_image_id: external.map(str::to_owned),
                    rect: entry.record.rect,
                    confidence: entry.record.confidence,
                    created: now,
                    user: None,
                }));
            }
            let in_collection = index.len() + records.len();
            check_limit(in_collection, "faces in a collection", limits::FACES_PER_COLLECTION_MAX)?;
            index.free_slots(records.len())
        };
        let in_store = self.shared.faces.load(Ordering::Relaxed) + records.len();
        check_limit(in_store, "faces on this server", limits::FACES_PER_STORE_MAX)?;
        self.check_space()?;
        let rows: Vec<NewRow<'_>> = (records.iter().zip(&vectors).zip(&free))
            .map(|((record, vector), &slot)| NewRow { record, slot, vector })
            .collect();
        let slots: Vec<u32> = erased.iter().map(|(_, slot)| *slot).collect();
        let (id, dimensions) = (collection.info.id, collection.info.model.dimensions);
        let done = self.database.enrol_unknown(id, dimensions, &rows, &slots);
        self.checked(done)?;
        self.shared.faces.fetch_add(records.len(), Ordering::Relaxed);
        self.shared.unknown.fetch_sub(erased.len(), Ordering::Relaxed);
        let mut index = collection.index.write();
        for ((record, vector), slot) in records.iter().zip(vectors).zip(free) {
            index.unknown_mut().remove(record.face_id);
            let record = record.clone();
            index.insert(Entry { record, slot }, &vector);
            crate::vectors::wipe(vector);
        }
        Ok(records)
    }
}
