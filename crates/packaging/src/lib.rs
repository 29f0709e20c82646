//! Frames of a stored fragment become what players read: fragmented MP4 ([`fmp4`]), plain MP4 ([`mp4`]) and MPEG-TS
//! ([`ts`]), and the playlists ([`hls`]) and manifests ([`dash`]) that name them. Sans-I/O: it is given codec private
//! data, frames' places and times, and answers with bytes.
//!
//! It refuses to know streams, storage, HTTP, and what is in a picture: a frame is copied or referred to, never decoded.
//!
//! Time. Matroska gives presentation times in milliseconds and frames in decoding order. [`timeline`] makes of them decode
//! times, durations and composition offsets in units of the track's timescale; its rules stand there.

mod boxes;
pub mod dash;
mod error;
pub mod fmp4;
pub mod frame;
pub mod hls;
pub mod limits;
pub mod mp4;
pub mod text;
pub mod timeline;
mod track;
pub mod ts;

pub use error::PackagingError;
pub use timeline::{Frame, Sample};
pub use track::{AudioParameters, Codec, Framing, MediaKind, TrackConfig};
