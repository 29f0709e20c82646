//! Stored fragments as samples: what HLS, DASH, clips and images are made of. A fragment's frame index says where each
//! frame lies, so that of its Matroska only the header is parsed; the payload is handed on as it was read, and rewritten
//! only where players cannot take it (Annex B, ADTS, laced blocks).
//!
//! It refuses to know sessions, playlists and containers.

mod clip;
mod load;
mod order;
mod outflow;

pub use clip::ClipLimits;
pub use load::{ArchivedFragment, ArchivedTrack, Header, check_declared, header, load};
