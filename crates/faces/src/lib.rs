//! Collections of known faces, and who among them a face resembles.
//!
//! A [`FaceStore`] keeps face vectors in one SQLite file and searches them in memory, exactly: every vector of a
//! collection is compared, so what a search returns is what a naive evaluator would. A mutation answers only after it is
//! on stable storage (invariant 1), and a deletion only after the vector's bytes are gone from every live file
//! (invariant 8). The module `db` says how.
//!
//! This room knows nothing of images, of video, or of how a vector is made. It knows that vectors carry the version of
//! the model that made them, and never compares vectors of two versions.

pub mod ids;
pub mod limits;
pub mod similarity;

mod db;
mod index;
mod store;

pub use ids::{FaceId, ImageDigest, ImageId};
pub use store::{
    CollectionInfo, Deleted, FaceMatch, FaceRecord, FaceStore, FacesError, IndexedFace, ModelVersion, NewFace, Rect,
};
