//! Searches the faces of a frame in the processor's collection.
//!
//! A track's vector changes only when a better face of it was seen, so its matches are kept until the vector or the
//! collection changes.

use std::collections::HashMap;
use std::sync::Arc;

use base::ResourceName;
use faces::{FaceMatch, FaceStore, FacesError};
use vision::Face;

use crate::limits::{CACHED_TRACKS_MAX, INLINE_SEARCH_FACES_MAX, MATCHES_PER_RECORDED_FACE_MAX};

/// A face and whom it resembles, best first.
pub(crate) type Searched = (Face, Arc<[FaceMatch]>);

/// The collection that a run searches; made when the run starts.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) collection: ResourceName,
    /// The collection's never-reused id.
    pub(crate) collection_id: i64,
    pub(crate) model: String,
    pub(crate) threshold: f32,
}

/// Why a search was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    /// The collection was deleted, whether or not there is another of its name.
    #[error("the collection is gone")]
    CollectionGone,
    #[error("{0}")]
    Failed(String),
}

pub(crate) struct Searcher {
    faces: Arc<FaceStore>,
    target: Target,
    tracks: HashMap<u64, Cached>,
}

struct Cached {
    embedding_revision: u32,
    collection_version: u64,
    matches: Arc<[FaceMatch]>,
}

impl Searcher {
    pub(crate) fn new(faces: Arc<FaceStore>, target: Target) -> Self {
        Searcher {
            faces,
            target,
            tracks: HashMap::new(),
        }
    }

    /// Track ids start anew.
    pub(crate) fn forget_tracks(&mut self) {
        self.tracks.clear();
    }

    /// The matches of each face, in the order of the faces.
    pub(crate) async fn search(&mut self, faces: Vec<Face>) -> Result<Vec<Searched>, SearchError> {
        let info = self.faces.describe(&self.target.collection).ok();
        let info = info.filter(|info| info.id == self.target.collection_id);
        let info = info.ok_or(SearchError::CollectionGone)?;
        let mut searched = Vec::with_capacity(faces.len());
        for face in faces {
            let kept = face.track_id.and_then(|track| self.tracks.get(&track)).filter(|kept| {
                kept.embedding_revision == face.embedding_revision && kept.collection_version == info.version
            });
            let matches = match kept {
                Some(kept) => kept.matches.clone(),
                None => self.look_up(&face, info.face_count).await?,
            };
            if let Some(track) = face.track_id {
                if self.tracks.len() >= CACHED_TRACKS_MAX && !self.tracks.contains_key(&track) {
                    self.tracks.clear();
                }
                let cached = Cached {
                    embedding_revision: face.embedding_revision,
                    collection_version: info.version,
                    matches: matches.clone(),
                };
                self.tracks.insert(track, cached);
            }
            searched.push((face, matches));
        }
        Ok(searched)
    }

    async fn look_up(&self, face: &Face, collection_faces: usize) -> Result<Arc<[FaceMatch]>, SearchError> {
        let Some(probe) = face.embedding.clone() else {
            return Ok(Arc::from([])); // Too poor to be compared.
        };
        let (faces, target) = (self.faces.clone(), self.target.clone());
        let search = move || {
            let limit = MATCHES_PER_RECORDED_FACE_MAX;
            faces.search(&target.collection, &target.model, &probe, target.threshold, limit)
        };
        let found = if collection_faces <= INLINE_SEARCH_FACES_MAX {
            search()
        } else {
            let searched = tokio::task::spawn_blocking(search).await;
            searched.map_err(|error| SearchError::Failed(error.to_string()))?
        };
        match found {
            Ok(matches) => Ok(matches.into()),
            Err(FacesError::CollectionNotFound(_)) => Err(SearchError::CollectionGone),
            Err(error) => Err(SearchError::Failed(error.to_string())),
        }
    }
}
