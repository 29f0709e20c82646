//! Looking at frames of stored video without a session: what is asked, and what comes back.

use base::AccountId;
use bytes::Bytes;

use crate::objects::LabelAnalysis;
use crate::types::{BoundingBox, Codec, StillError, StillPacket};

/// Frames of one track, some of which are to be looked at.
#[derive(Clone, Debug)]
pub struct FramesRequest {
    /// Whose video it is: a worker process serves one account alone.
    pub account: AccountId,
    /// The codec.
    pub codec: Codec,
    /// As in [`crate::SessionConfig::codec_private`].
    pub codec_private: Bytes,
    /// In decoding order.
    pub packets: Vec<StillPacket>,
}

/// What is asked of the wanted frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FrameLook {
    /// Their objects.
    Objects,
    /// A JPEG of a part of them.
    Part {
        /// Which part; what of it lies outside of the picture is left out.
        area: BoundingBox,
        /// 1 to 100, on the Independent JPEG Group's scale.
        quality: u8,
    },
}

/// An answer about a wanted frame.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Made {
    /// An image.
    File(Bytes),
    /// What it shows.
    Objects(LabelAnalysis),
}

/// The answers for the wanted packets, in their order.
pub(crate) type Answers = Vec<Result<Made, StillError>>;

/// The images among the answers to a question for images.
pub(crate) fn files(answers: Answers) -> Vec<Result<Bytes, StillError>> {
    let file = |made| match made {
        Made::File(file) => Ok(file),
        Made::Objects(_) => Err(StillError::Undecodable),
    };
    answers.into_iter().map(|answer| answer.and_then(file)).collect()
}

/// The analyses among the answers to a question for objects.
pub(crate) fn analyses(answers: Answers) -> Vec<Result<LabelAnalysis, StillError>> {
    let analysis = |made| match made {
        Made::Objects(analysis) => Ok(analysis),
        Made::File(_) => Err(StillError::Undecodable),
    };
    answers.into_iter().map(|answer| answer.and_then(analysis)).collect()
}
