//! Rekognition: collections of faces, faces in images, and stream processors that search the faces of a video stream and
//! write what they find to a data stream.
//!
//! It stands on `faces` (who resembles whom), `vision` (where faces are in a picture), `video-streams` (frames) and
//! `data-streams` (records), each behind a small trait of [`ports`], so that its rules can be tested without a camera or a
//! model. It knows no HTTP, no codec and no storage format.
//!
//! What differs from AWS: objects in buckets have no versions; the attributes that no model here can tell
//! (glasses, beards, occlusion, where the eyes look) are left out; labels are objects alone, and of those of label-detection
//! processors PACKAGE is not told.

mod attributes;
mod collections;
mod compare;
mod error;
mod face_operations;
mod images;
mod labels;
pub mod limits;
pub mod ports;
pub mod processors;
mod publish;
mod quality;
mod service;
mod shapes;
mod stored_video;
mod tags;
mod taxonomy;
mod token;
mod unknown;
mod users;

pub use service::{Parts, Rekognition};
