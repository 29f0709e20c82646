//! The public face of this room: [`FaceStore`].
//!
//! Reads (describe, list, search) look at memory and never wait for the disk. Mutations go through one thread that owns
//! the connection: it commits with a full sync, then changes memory, then answers. So what a search sees is durable, and
//! what was answered is seen by every later search. Dropping the future of a mutation does not undo it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use base::{AccountId, Clock, Region, ResourceName, Timestamp};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::db::{Database, DatabaseError};
use crate::ids::{FaceId, ImageDigest, ImageId};
use crate::index::{CollectionIndex, Query, describe};
use crate::limits;
use crate::shelf::Entry;
use crate::similarity::{Scale, Scales};
use crate::vectors::normalised;
use crate::writer::{self, Job, Writer};

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
    /// Users in it.
    pub user_count: usize,
    /// Unknown faces kept beside it, including those whose time is over and that are about to be erased.
    pub unknown_count: usize,
    /// Grows with each face added or deleted and each change of a user while the server runs; the same version gives the same search results.
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
    /// The user whose it is.
    pub user: Option<Arc<str>>,
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
    /// These are still there, because they are a user's; with its name.
    pub of_users: Vec<(FaceId, Arc<str>)>,
}

/// Which faces a listing is about; all without.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaceFilter<'a> {
    /// Only these, unless it is empty.
    pub only: &'a [FaceId],
    /// Only those of this user.
    pub user: Option<&'a str>,
}

/// A user as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserInfo {
    /// Never reused, not even by a user of the same name; users are listed in its order.
    pub number: i64,
    /// `UserId`, unique within the collection.
    pub name: Arc<str>,
    /// Faces associated with it.
    pub faces: usize,
    /// Whether it can be found.
    pub status: UserStatus,
}

/// What state a user is in. A change is complete when it is answered, so there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserStatus {
    /// It has no faces yet.
    Created,
    /// Its vector is made of all its faces.
    Active,
}

/// A user who resembles the probe.
#[derive(Clone, Debug, PartialEq)]
pub struct UserMatch {
    /// 0 to 100; see [`crate::similarity`].
    pub similarity: f32,
    /// What the similarity was made from.
    pub cosine: f32,
    /// The user.
    pub user: UserInfo,
}

/// What is done to a user.
#[derive(Clone, Debug, PartialEq)]
pub enum UserChange {
    /// It is made, without faces.
    Create,
    /// It is deleted; its faces stay and are nobody's.
    Delete,
    /// Faces become the user's, at most [`limits::FACES_PER_USER_MAX`] in one call and in all.
    Associate {
        /// Which.
        faces: Vec<FaceId>,
        /// The least similarity to the user as it was before the call, where it had faces.
        threshold: f32,
    },
    /// Faces become nobody's, at most [`limits::FACES_PER_USER_MAX`] in one call.
    Disassociate {
        /// Which.
        faces: Vec<FaceId>,
    },
}

/// The answer to a [`UserChange`].
#[derive(Clone, Debug, PartialEq)]
pub struct UserChanged {
    /// Faces that were associated or disassociated, in the order of the request. A face that was the user's already, or
    /// nobody's already, is in neither list.
    pub changed: Vec<FaceId>,
    /// Faces that were not, in the order of the request.
    pub refused: Vec<(FaceId, Refusal)>,
    /// The user after it.
    pub status: UserStatus,
}

/// Why a face was not associated or disassociated.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It is not in the collection.
    NotFound,
    /// It is this other user's.
    OtherUser(Arc<str>),
    /// So similar is it to the user, and that is less than the threshold.
    NotSimilar(f32),
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
    /// The user is not in the collection.
    #[error("user {0} is not in the collection")]
    UserNotFound(String),
    /// The collection has a user of that name.
    #[error("user {0} already exists")]
    UserExists(String),
    /// The token came with another call before.
    #[error("the token was used for a call with other arguments")]
    TokenReused,
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
    pub(crate) shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

pub(crate) struct Shared {
    pub(crate) collections: RwLock<HashMap<ResourceName, Arc<Collection>>>,
    /// Faces and users of all collections.
    pub(crate) faces: AtomicUsize,
    pub(crate) users: AtomicUsize,
    /// Unknown faces of all collections.
    pub(crate) unknown: AtomicUsize,
    pub(crate) scales: Scales,
    pub(crate) clock: Arc<dyn Clock>,
}

pub(crate) struct Collection {
    pub(crate) info: CollectionInfo,
    pub(crate) index: RwLock<CollectionIndex>,
}

impl FaceStore {
    /// Opens or creates the file and reads every vector into memory. Similarities are on the default scale.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, FacesError> {
        Self::open_with(path, clock, Scales::default())
    }

    /// As [`FaceStore::open`], with the scales of the models that collections may have.
    pub fn open_with(path: &Path, clock: Arc<dyn Clock>, scales: Scales) -> Result<Self, FacesError> {
        let mut database = Database::open(path)?;
        database.purge_unknown()?;
        let mut collections = HashMap::new();
        let (mut faces, mut users, mut unknown) = (0, 0, 0);
        for info in database.collections()? {
            let mut index = CollectionIndex::new(info.model.dimensions, scales.of(&info.model.id));
            let mut members = Vec::new();
            database.load_users(&info, |number, name| index.add_user(number, name.into()))?;
            database.load_faces(&info, |record, slot, vector, user| {
                members.extend(user.map(|number| (number, record.face_id)));
                let record = Arc::new(record);
                index.insert(Entry { record, slot }, vector);
            })?;
            index.restore_users(&members);
            database.load_unknown(&info, |record, slot, vector| {
                let record = Arc::new(record);
                index.unknown_mut().put(Entry { record, slot }, vector);
            })?;
            faces += index.len();
            users += index.users().len();
            unknown += index.unknown().len();
            let key = info.key.clone();
            let index = RwLock::new(index);
            collections.insert(key, Arc::new(Collection { info, index }));
        }
        let shared = Arc::new(Shared {
            collections: RwLock::new(collections),
            faces: AtomicUsize::new(faces),
            users: AtomicUsize::new(users),
            unknown: AtomicUsize::new(unknown),
            scales,
            clock,
        });
        let (jobs, mut queue) = mpsc::channel::<Job>(limits::QUEUED_MUTATIONS_MAX);
        let mut writer = Writer::new(database, path, shared.clone());
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
        writer::check_limit(faces.len(), "faces in one call", limits::FACES_PER_CALL_MAX)?;
        self.write(move |writer| writer.delete_faces(&key, &faces)).await
    }

    /// Faces in the order of their ids, beginning after `after`, at most `limit`; of those that the filter names.
    pub fn list_faces(
        &self,
        key: &ResourceName,
        after: Option<FaceId>,
        limit: usize,
        filter: FaceFilter<'_>,
    ) -> Result<Vec<Arc<FaceRecord>>, FacesError> {
        let collection = self.shared.find(key)?;
        let index = collection.index.read();
        let only = || filter.only.iter().copied().collect::<BTreeSet<FaceId>>();
        let wanted = match filter.user {
            None if filter.only.is_empty() => return Ok(index.page(after).take(limit).cloned().collect()),
            None => only(),
            Some(name) => {
                let user = index.users().find(name);
                let user = user.ok_or_else(|| FacesError::UserNotFound(name.to_owned()))?;
                let only = only();
                let listed = |face: &FaceId| only.is_empty() || only.contains(face);
                user.faces.iter().copied().filter(listed).collect()
            }
        };
        let wanted = wanted.into_iter().filter(|id| Some(*id) > after);
        let found = wanted.filter_map(|id| index.get(id));
        Ok(found.take(limit).map(|entry| entry.record.clone()).collect())
    }

    /// The `limit` faces most similar to `probe`, at least `threshold` (0 to 100), best first; of two equally similar
    /// ones the smaller id comes first. Exact up to [`limits::EXACT_SEARCH_MAX`] faces. A large collection takes
    /// milliseconds of computing.
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
        let query = query(&probe, threshold, limit);
        Ok(collection.index.read().search(query, None))
    }

    /// Like [`FaceStore::search`], with every vector compared, however many there are: what an answer is measured against.
    pub fn search_exactly(
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
        Ok(collection.index.read().search_exactly(query(&probe, threshold, limit)))
    }

    /// Like [`FaceStore::search`], with a face of the collection as the probe, which is left out of the answer.
    pub fn search_by_id(
        &self,
        key: &ResourceName,
        face: FaceId,
        threshold: f32,
        limit: usize,
    ) -> Result<Vec<FaceMatch>, FacesError> {
        let collection = self.shared.find(key)?;
        let index = collection.index.read();
        let probe = index.vector(face).ok_or(FacesError::FaceNotFound(face))?;
        Ok(index.search(query(probe, threshold, limit), Some(face)))
    }

    /// Makes, deletes or changes a user. A token that came with the same call before, within
    /// [`limits::TOKEN_KEPT`], gives the answer of that time.
    pub async fn change_user(
        &self,
        key: ResourceName,
        user: String,
        change: UserChange,
        token: Option<String>,
    ) -> Result<UserChanged, FacesError> {
        self.write(move |writer| writer.change_user(&key, &user, &change, token.as_deref()))
            .await
    }

    /// Users in the order of their numbers, which is that of their creation, beginning after `after`, at most `limit`.
    pub fn list_users(
        &self,
        key: &ResourceName,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UserInfo>, FacesError> {
        let collection = self.shared.find(key)?;
        let index = collection.index.read();
        Ok(index.users().page(after).take(limit).map(describe).collect())
    }

    /// The `limit` users most similar to `probe`, at least `threshold`, best first; of two equally similar ones the older
    /// comes first. A user without faces is like nobody.
    pub fn search_users(
        &self,
        key: &ResourceName,
        model: &str,
        probe: &[f32],
        threshold: f32,
        limit: usize,
    ) -> Result<Vec<UserMatch>, FacesError> {
        let collection = self.shared.find(key)?;
        collection.check_model(model)?;
        let probe = collection.unit(probe)?;
        let index = collection.index.read();
        Ok(index.search_users(query(&probe, threshold, limit), None))
    }

    /// Like [`FaceStore::search_users`], with a face of the collection as the probe.
    pub fn search_users_by_face(
        &self,
        key: &ResourceName,
        face: FaceId,
        threshold: f32,
        limit: usize,
    ) -> Result<Vec<UserMatch>, FacesError> {
        let collection = self.shared.find(key)?;
        let index = collection.index.read();
        let probe = index.vector(face).ok_or(FacesError::FaceNotFound(face))?;
        Ok(index.search_users(query(probe, threshold, limit), None))
    }

    /// Like [`FaceStore::search_users`], with a user of the collection as the probe, who is left out of the answer.
    pub fn search_users_by_user(
        &self,
        key: &ResourceName,
        user: &str,
        threshold: f32,
        limit: usize,
    ) -> Result<Vec<UserMatch>, FacesError> {
        let collection = self.shared.find(key)?;
        let index = collection.index.read();
        let found = index.users().find(user);
        let user = found.ok_or_else(|| FacesError::UserNotFound(user.to_owned()))?;
        let Some(probe) = index.users().vector(user) else {
            return Ok(Vec::new());
        };
        Ok(index.search_users(query(probe, threshold, limit), Some(user.number)))
    }

    /// What the cosines of a model mean.
    pub fn scale(&self, model: &str) -> Scale {
        self.shared.scales.of(model)
    }

    /// Runs a job on the connection's thread and waits for its answer.
    pub(crate) async fn write<T: Send + 'static>(
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

pub(crate) fn query(probe: &[f32], threshold: f32, limit: usize) -> Query<'_> {
    Query {
        probe,
        threshold,
        limit: limit.min(limits::FACES_PER_CALL_MAX),
    }
}

impl Shared {
    pub(crate) fn find(&self, key: &ResourceName) -> Result<Arc<Collection>, FacesError> {
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
            user_count: index.users().len(),
            unknown_count: index.unknown().len(),
            version: index.version(),
            ..self.info.clone()
        }
    }

    pub(crate) fn check_model(&self, model: &str) -> Result<(), FacesError> {
        if self.info.model.id == model {
            return Ok(());
        }
        Err(FacesError::ModelMismatch {
            collection: self.info.model.id.clone(),
            given: model.to_owned(),
        })
    }

    pub(crate) fn unit(&self, vector: &[f32]) -> Result<Vec<f32>, FacesError> {
        let dimensions = self.info.model.dimensions;
        let right_length = vector.len() == dimensions;
        let unit = right_length.then(|| normalised(vector)).flatten();
        unit.ok_or(FacesError::BadVector(dimensions))
    }
}
