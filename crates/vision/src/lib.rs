//! Vision, seen from the server: worker processes that decode and analyse, their supervision, and the scheduling of
//! frames. It links no codec and no inference engine (invariant 7): hostile bytes pass through it unread, as messages of
//! [`protocol`] on the pipes of a `vision-worker` process that holds no key and no other account's data.
//!
//! [`VisionPool::analyze_image`] finds the faces of one image, [`VisionPool::label_image`] its objects;
//! [`VisionPool::open_session`] takes a camera's frames and gives an outcome for each; [`VisionPool::stills`] makes still
//! images of frames, [`VisionPool::frame_objects`] and [`VisionPool::frame_parts`] look at them;
//! [`VisionPool::open_film`] takes a recording apart into frames. It knows nothing of collections, streams or records.

pub mod candidate;
mod film;
mod frames;
mod image_host;
pub mod limits;
pub mod manifest;
mod meters;
mod objects;
mod pool;
mod process;
pub mod protocol;
mod schedule;
mod still_host;
mod types;
mod video_host;

pub use film::{ColorRange, FilmError, FilmFault, FilmFrame, FilmInfo, FilmReader, FilmSource};
pub use frames::{FrameLook, FramesRequest};
pub use objects::{DetectedObject, LabelAnalysis, OBJECT_CLASSES};
pub use pool::{FrameSender, ResultReceiver, SendReport, VisionPool};
pub use types::*;
