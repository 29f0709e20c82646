//! Collections of known faces, and who among them a face resembles.
//!
//! A [`FaceStore`] keeps face vectors in one SQLite file and searches them in memory: exactly up to a hundred thousand
//! faces in a collection, so that a search returns what a naive evaluator would, and beyond that by sketches with exact
//! comparison of the closest (the module `vectors` says how). Several faces may be made one user, who has a vector of its
//! own, and faces that nobody resembled may be kept beside a collection for a time (the module `unknown`). A mutation answers only after it is
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
mod shelf;
mod simd;
mod sketch;
mod store;
mod unknown;
mod unknown_writer;
mod user_writer;
mod users;
mod vectors;
mod writer;

pub use ids::{FaceId, ImageDigest, ImageId};
pub use store::{
    CollectionInfo, Deleted, FaceFilter, FaceMatch, FaceRecord, FaceStore, FacesError, IndexedFace, ModelVersion,
    NewFace, Rect, Refusal, UserChange, UserChanged, UserInfo, UserMatch, UserStatus,
};
pub use unknown::{UnknownFace, UnknownFilter, UnknownMatch, UnknownSighting};
