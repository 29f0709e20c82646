//! What changes collections: one thread that owns the file. A job commits with a full sync, then changes memory, then
//! answers. What it does to users is in [`crate::user_writer`].

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::ResourceName;
use parking_lot::RwLock;
use storage::catalog::reserve::Reserve;

use crate::db::{Database, DatabaseError, NewRow};
use crate::ids::{FaceId, ImageDigest, ImageId};
use crate::index::CollectionIndex;
use crate::limits;
use crate::shelf::Entry;
use crate::store::{
    Collection, CollectionInfo, Deleted, FaceRecord, FacesError, IndexedFace, ModelVersion, NewFace, Rect, Shared,
};

/// Something to be done on the thread.
pub(crate) type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// What the thread owns.
pub(crate) struct Writer {
    pub(crate) database: Database,
    /// Space for deletions on a full disk.
    reserve: Reserve,
    pub(crate) shared: Arc<Shared>,
    /// After a failed sync SQLite and the disk may disagree, so nothing more is written until a restart has recovered.
    pub(crate) broken: Option<String>,
}

impl Writer {
    pub(crate) fn new(database: Database, path: &Path, shared: Arc<Shared>) -> Self {
        Writer {
            database,
            reserve: Reserve::of(path),
            shared,
            broken: None,
        }
    }

    /// Notes a failure of the disk, so that nothing more is written on top of it.
    pub(crate) fn checked<T>(&mut self, result: Result<T, DatabaseError>) -> Result<T, FacesError> {
        if let Err(DatabaseError::Sqlite(rusqlite::Error::SqliteFailure(error, _))) = &result {
            use rusqlite::ErrorCode::{DatabaseCorrupt, SystemIoFailure};
            if matches!(error.code, SystemIoFailure | DatabaseCorrupt) {
                tracing::error!(%error, "the face database takes no more writes until the server is restarted");
                self.broken = Some(error.to_string());
            }
        }
        Ok(result?)
    }

    /// Deletes, with the space that is kept for it where the disk is full.
    pub(crate) fn deleting<T>(
        &mut self,
        delete: impl Fn(&mut Database) -> Result<T, DatabaseError>,
    ) -> Result<T, FacesError> {
        let mut done = delete(&mut self.database);
        if done.as_ref().is_err_and(DatabaseError::is_full) {
            self.reserve.give_up();
            done = delete(&mut self.database);
        }
        self.reserve.take();
        self.checked(done)
    }

    /// Nothing is added while the space for deletions is not there.
    pub(crate) fn check_space(&mut self) -> Result<(), FacesError> {
        if self.reserve.take() {
            return Ok(());
        }
        Err(FacesError::Storage("the disk is full".to_owned()))
    }

    pub(crate) fn create_collection(
        &mut self,
        key: ResourceName,
        model: ModelVersion,
    ) -> Result<CollectionInfo, FacesError> {
        if !(1..=limits::DIMENSIONS_MAX).contains(&model.dimensions) {
            return Err(FacesError::BadVector(model.dimensions));
        }
        let count = {
            let collections = self.shared.collections.read();
            if collections.contains_key(&key) {
                return Err(FacesError::CollectionExists(key.name));
            }
            collections.len()
        };
        check_limit(count + 1, "collections", limits::COLLECTIONS_MAX)?;
        self.check_space()?;
        let created = self.shared.clock.now();
        let made = self.database.create_collection(&key, &model, created);
        let info = CollectionInfo {
            id: self.checked(made)?,
            key: key.clone(),
            created,
            face_count: 0,
            user_count: 0,
            unknown_count: 0,
            version: 0,
            model,
        };
        let scale = self.shared.scales.of(&info.model.id);
        let index = RwLock::new(CollectionIndex::new(info.model.dimensions, scale));
        let collection = Collection {
            info: info.clone(),
            index,
        };
        self.shared.collections.write().insert(key, Arc::new(collection));
        Ok(info)
    }

    pub(crate) fn delete_collection(&mut self, key: &ResourceName) -> Result<(), FacesError> {
        let collection = self.shared.find(key)?;
        let id = collection.info.id;
        self.deleting(|database| database.forget_collection(id))?;
        self.shared.collections.write().remove(key);
        {
            let index = collection.index.read();
            self.shared.faces.fetch_sub(index.len(), Ordering::Relaxed);
            self.shared.users.fetch_sub(index.users().len(), Ordering::Relaxed);
            self.shared.unknown.fetch_sub(index.unknown().len(), Ordering::Relaxed);
        }
        // If this fails the caller hears of it, and the next start finishes it.
        self.deleting(|database| database.purge(id))
    }

    pub(crate) fn index_faces(
        &mut self,
        key: &ResourceName,
        model: &str,
        image: &ImageDigest,
        external: Option<&str>,
        faces: &[NewFace],
    ) -> Result<Vec<IndexedFace>, FacesError> {
        let collection = self.shared.find(key)?;
        collection.check_model(model)?;
        check_limit(faces.len(), "faces in one image", limits::FACES_PER_IMAGE_MAX)?;
        let mut answer = Vec::with_capacity(faces.len());
        let mut added: Vec<(Arc<FaceRecord>, Vec<f32>)> = Vec::new();
        {
            let index = collection.index.read();
            let mut pending: HashMap<FaceId, Arc<FaceRecord>> = HashMap::new();
            for face in faces {
                let vector = collection.unit(&face.vector)?;
                let place = FacePlace {
                    key,
                    model,
                    image,
                    rect: face.rect,
                };
                let face_id = match place.resolve(&index, external) {
                    Resolved::Present(record) => {
                        answer.push(IndexedFace { record, existed: true });
                        continue;
                    }
                    Resolved::New(id) => id,
                };
                // The same box twice in one call is one face.
                if let Some(record) = pending.get(&face_id).cloned() {
                    answer.push(IndexedFace { record, existed: true });
                    continue;
                }
                let record = Arc::new(FaceRecord {
                    face_id,
                    image_id: ImageId::derive(key.account, image),
                    external_image_id: external.map(str::to_owned),
                    rect: face.rect,
                    confidence: face.confidence,
                    created: self.shared.clock.now(),
                    user: None,
                });
                pending.insert(face_id, record.clone());
                answer.push(IndexedFace {
                    record: record.clone(),
                    existed: false,
                });
                added.push((record, vector));
            }
            let in_collection = index.len() + added.len();
            check_limit(in_collection, "faces in a collection", limits::FACES_PER_COLLECTION_MAX)?;
        }
        let in_store = self.shared.faces.load(Ordering::Relaxed) + added.len();
        check_limit(in_store, "faces on this server", limits::FACES_PER_STORE_MAX)?;
        self.add(&collection, added)?;
        Ok(answer)
    }

    fn add(&mut self, collection: &Collection, added: Vec<(Arc<FaceRecord>, Vec<f32>)>) -> Result<(), FacesError> {
        if added.is_empty() {
            return Ok(());
        }
        self.check_space()?;
        let slots = collection.index.read().free_slots(added.len());
        let rows: Vec<NewRow<'_>> = (added.iter().zip(&slots))
            .map(|((record, vector), &slot)| NewRow { record, slot, vector })
            .collect();
        let (id, dimensions) = (collection.info.id, collection.info.model.dimensions);
        let done = self.database.insert_faces(id, dimensions, &rows);
        self.checked(done)?;
        self.shared.faces.fetch_add(added.len(), Ordering::Relaxed);
        let mut index = collection.index.write();
        for ((record, vector), slot) in added.into_iter().zip(slots) {
            index.insert(Entry { record, slot }, &vector);
        }
        Ok(())
    }

    pub(crate) fn delete_faces(&mut self, key: &ResourceName, faces: &[FaceId]) -> Result<Deleted, FacesError> {
        let collection = self.shared.find(key)?;
        let mut outcome = Deleted::default();
        let mut found = Vec::new();
        {
            let index = collection.index.read();
            let mut seen = HashSet::new();
            for &face in faces.iter().filter(|&&face| seen.insert(face)) {
                match index.get(face).map(|entry| (entry.slot, &entry.record.user)) {
                    Some((slot, None)) => found.push((face, slot)),
                    Some((_, Some(user))) => outcome.of_users.push((face, user.clone())),
                    None => outcome.not_found.push(face),
                }
            }
        }
        let (id, dimensions) = (collection.info.id, collection.info.model.dimensions);
        for step in found.chunks(limits::FACES_PER_DELETION_STEP) {
            let slots: Vec<u32> = step.iter().map(|(_, slot)| *slot).collect();
            self.deleting(|database| database.delete_faces(id, dimensions, &slots))?;
            let mut index = collection.index.write();
            for &(face, _) in step {
                index.remove(face);
                outcome.deleted.push(face);
            }
            self.shared.faces.fetch_sub(step.len(), Ordering::Relaxed);
        }
        Ok(outcome)
    }
}

/// A face in an image of an account, as its id is made from it.
struct FacePlace<'a> {
    key: &'a ResourceName,
    model: &'a str,
    image: &'a ImageDigest,
    rect: Rect,
}

enum Resolved {
    Present(Arc<FaceRecord>),
    New(FaceId),
}

impl FacePlace<'_> {
    /// Which id the face has under an external id. The plain id, which identical images share between collections, goes
    /// to the first external id that comes; others get an id of their own, so that one photograph may stand for several.
    fn resolve(&self, index: &CollectionIndex, external: Option<&str>) -> Resolved {
        let id = |discriminator| FaceId::derive(self.key.account, self.model, self.image, &self.rect, discriminator);
        let plain = id(None);
        let own = id(Some(external.unwrap_or_default()));
        for candidate in [plain, own] {
            if let Some(entry) = index.get(candidate)
                && entry.record.external_image_id.as_deref() == external
            {
                return Resolved::Present(entry.record.clone());
            }
        }
        Resolved::New(if index.get(plain).is_some() { own } else { plain })
    }
}

pub(crate) fn check_limit(count: usize, what: &'static str, limit: usize) -> Result<(), FacesError> {
    if count > limit {
        return Err(FacesError::LimitExceeded { what, limit });
    }
    Ok(())
}
