//! The public face of this room: [`FaceStore`].
//!
//! Reads (describe, list, search) look at memory and never wait for the disk. Mutations go through one thread that owns
//! the connection: it commits with a full sync, then changes memory, then answers. So what a search sees is durable, and
//! what was answered is seen by every later search. Dropping the future of a mutation does not undo it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{AccountId, Clock, Region, ResourceName, Timestamp};
use parking_lot::RwLock;
use storage::catalog::reserve::Reserve;
use tokio::sync::{mpsc, oneshot};

use crate::db::{Database, DatabaseError, NewRow};
use crate::ids::{FaceId, ImageDigest, ImageId};
use crate::index::{CollectionIndex, Entry, normalised};
use crate::limits;

/// Which model made a vector, and how many components its vectors have. Fixed when a collection is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    /// `FaceModelVersion` of the collection.
    pub id: String,
    /// Components of a vector, 1 to [`limits::DIMENSIONS_MAX`].
    pub dimensions: usize,
}

/// A collection as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Never reused, not even by a collection of the same name.
    pub id: i64,
    /// Owner, region and `CollectionId`.
    pub key: ResourceName,
    /// The model whose vectors it holds.
    pub model: ModelVersion,
    /// When it was created.
    pub created: Timestamp,
    /// Faces in it.
    pub face_count: usize,
    /// Grows with each face added or deleted while the server runs; the same version gives the same search results.
    pub version: u64,
}

/// A box as ratios of the image's width and height; may reach over the edges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    /// Left edge over image width.
    pub left: f32,
    /// Top edge over image height.
    pub top: f32,
    /// Width over image width.
    pub width: f32,
    /// Height over image height.
    pub height: f32,
}

/// A face to be added: where it is in the image and what the model made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewFace {
    /// Where in the image.
    pub rect: Rect,
    /// That it is a face, 0 to 100.
    pub confidence: f32,
    /// The model's vector; any length but zero, it is brought to unit length.
    pub vector: Vec<f32>,
}

/// A face in a collection, without its vector.
#[derive(Clone, Debug, PartialEq)]
pub struct FaceRecord {
    /// Its id, unique within the collection.
    pub face_id: FaceId,
    /// The id of the image it came from.
    pub image_id: ImageId,
    /// The caller's name for it.
    pub external_image_id: Option<String>,
    /// Where in the image it was.
    pub rect: Rect,
    /// That it is a face, 0 to 100.
    pub confidence: f32,
    /// When it was added.
    pub created: Timestamp,
}

/// The answer to one face of [`FaceStore::index_faces`].
#[derive(Clone, Debug, PartialEq)]
pub struct IndexedFace {
    /// The record, new or found.
    pub record: Arc<FaceRecord>,
    /// It was there before: the same image under the same external id.
    pub existed: bool,
}

/// A face that resembles the probe.
#[derive(Clone, Debug, PartialEq)]
pub struct FaceMatch {
    /// 0 to 100; see [`crate::similarity`].
    pub similarity: f32,
    /// What the similarity was made from.
    pub cosine: f32,
    /// The face.
    pub face: Arc<FaceRecord>,
}

/// The answer to [`FaceStore::delete_faces`], both lists in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// These are gone.
    pub deleted: Vec<FaceId>,
    /// These were not in the collection.
    pub not_found: Vec<FaceId>,
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FacesError {
    /// No such collection in this account and region.
    #[error("collection {0} does not exist")]
    CollectionNotFound(String),
    /// The name is taken.
    #[error("collection {0} already exists")]
    CollectionExists(String),
    /// The face is not in the collection.
    #[error("face {0} is not in the collection")]
    FaceNotFound(FaceId),
    /// Vectors of two models are never compared.
    #[error("the collection holds vectors of model {collection}, the face was read by model {given}")]
    ModelMismatch {
        /// The collection's model version.
        collection: String,
        /// The probe's model version.
        given: String,
    },
    /// A vector has the wrong number of components, a component that is not finite, or no length.
    #[error("not a vector of {0} finite components of which one is not zero")]
    BadVector(usize),
    /// One of [`limits`] would be exceeded.
    #[error("more than {limit} {what}")]
    LimitExceeded {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// The file failed; nothing was changed, unless the failure was in the answer to a commit.
    #[error("the face database failed: {0}")]
    Storage(String),
}

impl From<DatabaseError> for FacesError {
    fn from(error: DatabaseError) -> Self {
        FacesError::Storage(error.to_string())
    }
}

/// Every collection of this server.
pub struct FaceStore {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

struct Shared {
    collections: RwLock<HashMap<ResourceName, Arc<Collection>>>,
    faces: AtomicUsize,
    clock: Arc<dyn Clock>,
}

struct Collection {
    info: CollectionInfo,
    index: RwLock<CollectionIndex>,
}

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// What the thread owns.
struct Writer {
    database: Database,
    /// Space for deletions on a full disk.
    reserve: Reserve,
    shared: Arc<Shared>,
    /// After a failed sync SQLite and the disk may disagree, so nothing more is written until a restart has recovered.
    broken: Option<String>,
}

impl FaceStore {
    /// Opens or creates the file and reads every vector into memory.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, FacesError> {
        let mut database = Database::open(path)?;
        database.purge_unknown()?;
        let mut collections = HashMap::new();
        let mut faces = 0;
        for loaded in database.load()? {
            let mut index = CollectionIndex::new(loaded.info.model.dimensions);
            faces += loaded.faces.len();
            for (record, slot, vector) in loaded.faces {
                let record = Arc::new(record);
                index.insert(Entry { record, slot }, &vector);
            }
            let key = loaded.info.key.clone();
            let index = RwLock::new(index);
            let info = loaded.info;
            collections.insert(key, Arc::new(Collection { info, index }));
        }
        let shared = Arc::new(Shared {
            collections: RwLock::new(collections),
            faces: AtomicUsize::new(faces),
            clock,
        });
        let (jobs, mut queue) = mpsc::channel::<Job>(limits::QUEUED_MUTATIONS_MAX);
        let mut writer = Writer {
            database,
            reserve: Reserve::of(path),
            shared: shared.clone(),
            broken: None,
        };
        std::thread::Builder::new()
            .name("faces-db".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut writer);
                }
            })
            .map_err(|error| FacesError::Storage(format!("no thread for the database: {error}")))?;
        Ok(FaceStore { shared, jobs })
    }

    /// Creates an empty collection.
    pub async fn create_collection(
        &self,
        key: ResourceName,
        model: ModelVersion,
    ) -> Result<CollectionInfo, FacesError> {
        self.write(move |writer| writer.create_collection(key, model)).await
    }

    /// The collection as it is now.
    pub fn describe(&self, key: &ResourceName) -> Result<CollectionInfo, FacesError> {
        self.shared.find(key).map(|collection| collection.describe())
    }

    /// Collections of one account and region in the order of their ids, which is that of their creation, beginning after
    /// the id `after` (0: at the first), at most `limit`.
    pub fn list_collections(
        &self,
        account: AccountId,
        region: &Region,
        after: i64,
        limit: usize,
    ) -> Vec<CollectionInfo> {
        let collections = self.shared.collections.read();
        let own = collections.values().filter(|collection| {
            let info = &collection.info;
            info.id > after && info.key.account == account && info.key.region == *region
        });
        let mut page: Vec<&Arc<Collection>> = own.collect();
        page.sort_unstable_by_key(|collection| collection.info.id);
        page.into_iter()
            .take(limit)
            .map(|collection| collection.describe())
            .collect()
    }

    /// Deletes a collection and every vector in it.
    pub async fn delete_collection(&self, key: ResourceName) -> Result<(), FacesError> {
        self.write(move |writer| writer.delete_collection(&key)).await
    }

    /// Adds the faces found in one image, at most [`limits::FACES_PER_IMAGE_MAX`]; answers in their order.
    ///
    /// A face that is already there under the same external id is not added again.
    pub async fn index_faces(
        &self,
        key: ResourceName,
        model: String,
        image: ImageDigest,
        external_image_id: Option<String>,
        faces: Vec<NewFace>,
    ) -> Result<Vec<IndexedFace>, FacesError> {
        let job =
            move |writer: &mut Writer| writer.index_faces(&key, &model, &image, external_image_id.as_deref(), &faces);
        self.write(job).await
    }

    /// Deletes faces. When it answers, no live file holds their vectors.
    pub async fn delete_faces(&self, key: ResourceName, faces: Vec<FaceId>) -> Result<Deleted, FacesError> {
        check_limit(faces.len(), "faces in one call", limits::FACES_PER_CALL_MAX)?;
        self.write(move |writer| writer.delete_faces(&key, &faces)).await
    }

    /// Faces in the order of their ids, beginning after `after`, at most `limit`; of those in `only`, unless it is empty.
    pub fn list_faces(
        &self,
        key: &ResourceName,
        after: Option<FaceId>,
        limit: usize,
        only: &[FaceId],
    ) -> Result<Vec<Arc<FaceRecord>>, FacesError> {
        let collection = self.shared.find(key)?;
        let index = collection.index.read();
        if only.is_empty() {
            return Ok(index.page(after).take(limit).cloned().collect());
        }
        let wanted: BTreeSet<FaceId> = only.iter().copied().filter(|id| Some(*id) > after).collect();
        let found = wanted.into_iter().filter_map(|id| index.get(id));
        Ok(found.take(limit).map(|entry| entry.record.clone()).collect())
    }

    /// The `limit` faces most similar to `probe`, at least `threshold` (0 to 100), best first; of two equally similar
    /// ones the smaller id comes first. A large collection takes milliseconds of computing: see [`crate::index`].
    pub fn search(
        &self,
        key: &ResourceName,
        model: &str,
        probe: &[f32],
        threshold: f32,
        limit: usize,
    ) -> Result<Vec<FaceMatch>, FacesError> {
        let collection = self.shared.find(key)?;
        collection.check_model(model)?;
        let probe = collection.unit(probe)?;
        let limit = limit.min(limits::FACES_PER_CALL_MAX);
        Ok(collection.index.read().search(&probe, threshold, limit, None))
    }

    /// Like [`FaceStore::search`], with a face of the collection as the probe, which is left out of the answer.
    pub fn search_by_id(
        &self,
        key: &ResourceName,
        face: FaceId,
        threshold: f32,
        limit: usize,
    ) -> Result<(Arc<FaceRecord>, Vec<FaceMatch>), FacesError> {
        let collection = self.shared.find(key)?;
        let index = collection.index.read();
        let entry = index.get(face).ok_or(FacesError::FaceNotFound(face))?;
        let probe = index.vector(face).ok_or(FacesError::FaceNotFound(face))?;
        let limit = limit.min(limits::FACES_PER_CALL_MAX);
        Ok((entry.record.clone(), index.search(probe, threshold, limit, Some(face))))
    }

    /// Runs a job on the connection's thread and waits for its answer.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, FacesError> + Send + 'static,
    ) -> Result<T, FacesError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            let result = match &writer.broken {
                Some(cause) => Err(FacesError::Storage(format!("closed after a failure: {cause}"))),
                None => work(writer),
            };
            // Whoever asked may have gone; what was done stays done.
            let _ = answer.send(result);
        });
        let gone = || FacesError::Storage("the database's thread has ended".to_owned());
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl std::fmt::Debug for FaceStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let collections = self.shared.collections.read().len();
        f.debug_struct("FaceStore").field("collections", &collections).finish()
    }
}

impl Shared {
    fn find(&self, key: &ResourceName) -> Result<Arc<Collection>, FacesError> {
        let collections = self.collections.read();
        let found = collections.get(key).cloned();
        found.ok_or_else(|| FacesError::CollectionNotFound(key.name.clone()))
    }
}

impl Collection {
    fn describe(&self) -> CollectionInfo {
        let index = self.index.read();
        CollectionInfo {
            face_count: index.len(),
            version: index.version(),
            ..self.info.clone()
        }
    }

    fn check_model(&self, model: &str) -> Result<(), FacesError> {
        if self.info.model.id == model {
            return Ok(());
        }
        Err(FacesError::ModelMismatch {
            collection: self.info.model.id.clone(),
            given: model.to_owned(),
        })
    }

    fn unit(&self, vector: &[f32]) -> Result<Vec<f32>, FacesError> {
        let dimensions = self.info.model.dimensions;
        let right_length = vector.len() == dimensions;
        let unit = right_length.then(|| normalised(vector)).flatten();
        unit.ok_or(FacesError::BadVector(dimensions))
    }
}

impl Writer {
    /// Notes a failure of the disk, so that nothing more is written on top of it.
    fn checked<T>(&mut self, result: Result<T, DatabaseError>) -> Result<T, FacesError> {
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
    fn deleting(&mut self, delete: impl Fn(&mut Database) -> Result<(), DatabaseError>) -> Result<(), FacesError> {
        let mut done = delete(&mut self.database);
        if done.as_ref().is_err_and(DatabaseError::is_full) {
            self.reserve.give_up();
            done = delete(&mut self.database);
        }
        self.reserve.take();
        self.checked(done)
    }

    /// Nothing is added while the space for deletions is not there.
    fn check_space(&mut self) -> Result<(), FacesError> {
        if self.reserve.take() {
            return Ok(());
        }
        Err(FacesError::Storage("the disk is full".to_owned()))
    }

    fn create_collection(&mut self, key: ResourceName, model: ModelVersion) -> Result<CollectionInfo, FacesError> {
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
            version: 0,
            model,
        };
        let index = RwLock::new(CollectionIndex::new(info.model.dimensions));
        let collection = Collection {
            info: info.clone(),
            index,
        };
        self.shared.collections.write().insert(key, Arc::new(collection));
        Ok(info)
    }

    fn delete_collection(&mut self, key: &ResourceName) -> Result<(), FacesError> {
        let collection = self.shared.find(key)?;
        let id = collection.info.id;
        self.deleting(|database| database.forget_collection(id))?;
        self.shared.collections.write().remove(key);
        let gone = collection.index.read().len();
        self.shared.faces.fetch_sub(gone, Ordering::Relaxed);
        // If this fails the caller hears of it, and the next start finishes it.
        self.deleting(|database| database.purge(id))
    }

    fn index_faces(
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

    fn delete_faces(&mut self, key: &ResourceName, faces: &[FaceId]) -> Result<Deleted, FacesError> {
        let collection = self.shared.find(key)?;
        let mut outcome = Deleted::default();
        let mut found = Vec::new();
        {
            let index = collection.index.read();
            let mut seen = HashSet::new();
            for &face in faces.iter().filter(|&&face| seen.insert(face)) {
                match index.get(face) {
                    Some(entry) => found.push((face, entry.slot)),
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

fn check_limit(count: usize, what: &'static str, limit: usize) -> Result<(), FacesError> {
    if count > limit {
        return Err(FacesError::LimitExceeded { what, limit });
    }
    Ok(())
}
