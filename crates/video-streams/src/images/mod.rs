//! Images of stored video: GetImages, and the generation of images for tagged fragments.
//!
//! It chooses frames and cuts them out of stored fragments; what a picture is, only the [`crate::ports::Stills`] behind
//! it knows (invariant 7). Only as many frames are read and decoded as the wanted ones need: from the last key frame
//! before each.

pub(crate) mod config;
pub(crate) mod generate;
mod get;
mod make;
mod plan;
pub(crate) mod source;
mod wants;
