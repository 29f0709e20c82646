//! Just enough of the codecs to hand frames to a decoder and to say what a track holds: codec private data, parameter
//! sets, picture sizes and NAL unit framing. No picture is decoded here.
//!
//! Everything here reads bytes of producers: it answers `None` or an error for nonsense and never panics.

mod aac;
mod bits;
mod h264;
mod h265;
mod nal;
mod sets;

pub use aac::AudioSpecificConfig;
pub use h264::{AvcConfig, h264_picture_size};
pub use h265::{HevcConfig, h265_picture_size};
pub use nal::{AnnexB, LengthPrefixed, put_annex_b, put_length_prefixed};
pub use sets::{ParameterSets, reordered_frames};

use bytes::BytesMut;

/// CodecID of H.264 in Matroska.
pub const CODEC_AVC: &str = "V_MPEG4/ISO/AVC";
/// CodecID of H.265 in Matroska.
pub const CODEC_HEVC: &str = "V_MPEGH/ISO/HEVC";
/// CodecID of AAC in Matroska.
pub const CODEC_AAC: &str = "A_AAC";

/// A video codec whose frames are NAL units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalCodec {
    /// H.264, AVC.
    H264,
    /// H.265, HEVC.
    H265,
}

impl NalCodec {
    /// The codec of a CodecID. AWS's documentation spells both with `V_MPEG/ISO/`, which is accepted as well.
    #[must_use]
    pub fn of_codec_id(codec_id: &str) -> Option<Self> {
        match codec_id {
            CODEC_AVC | "V_MPEG/ISO/AVC" => Some(NalCodec::H264),
            CODEC_HEVC | "V_MPEG/ISO/HEVC" => Some(NalCodec::H265),
            _ => None,
        }
    }
}

/// A picture's size in pixels, cropping applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSize {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// Largest edge of a picture that a parameter set may declare here: level 6.2 of both codecs ends at 16,888.
pub const PICTURE_EDGE_MAX: u32 = 16_888;

fn picture_size(width: u64, height: u64) -> Option<PictureSize> {
    let edge = |value: u64| {
        u32::try_from(value)
            .ok()
            .filter(|value| (1..=PICTURE_EDGE_MAX).contains(value))
    };
    Some(PictureSize {
        width: edge(width)?,
        height: edge(height)?,
    })
}

/// How the frames of an H.264 or H.265 track become what a decoder reads (Annex B): made once from the track's codec
/// private data, then applied to each frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NalFraming {
    codec: NalCodec,
    /// Bytes of the length before each NAL unit; `None` where frames already are Annex B.
    nal_length_size: Option<usize>,
    parameter_sets: Vec<u8>,
    size: Option<PictureSize>,
}

impl NalFraming {
    /// From a track's CodecPrivate: avcC or hvcC, or Annex B parameter sets as some cameras send them. `None` where it
    /// is none of them. Empty private data means Annex B frames that carry their own parameter sets.
    #[must_use]
    pub fn new(codec: NalCodec, codec_private: &[u8]) -> Option<Self> {
        if codec_private.is_empty() || codec_private.starts_with(&[0, 0, 0, 1]) || codec_private.starts_with(&[0, 0, 1])
        {
            let size = AnnexB::new(codec_private).find_map(|nal| picture_size_of(codec, nal));
            return Some(NalFraming {
                codec,
                nal_length_size: None,
                parameter_sets: codec_private.to_vec(),
                size,
            });
        }
        let mut parameter_sets = BytesMut::new();
        let (nal_length_size, size) = match codec {
            NalCodec::H264 => {
                let config = AvcConfig::parse(codec_private)?;
                config
                    .sps
                    .iter()
                    .chain(&config.pps)
                    .for_each(|nal| put_annex_b(&mut parameter_sets, nal));
                (
                    config.nal_length_size,
                    config.sps.iter().find_map(|sps| h264_picture_size(sps)),
                )
            }
            NalCodec::H265 => {
                let config = HevcConfig::parse(codec_private)?;
                config
                    .parameter_sets()
                    .for_each(|nal| put_annex_b(&mut parameter_sets, nal));
                (
                    config.nal_length_size,
                    config.sps.iter().find_map(|sps| h265_picture_size(sps)),
                )
            }
        };
        let parameter_sets = parameter_sets.to_vec();
        Some(NalFraming {
            codec,
            nal_length_size: Some(nal_length_size),
            parameter_sets,
            size,
        })
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> NalCodec {
        self.codec
    }

    /// The parameter sets in Annex B, to be put before the first frame; may be empty.
    #[must_use]
    pub fn parameter_sets(&self) -> &[u8] {
        &self.parameter_sets
    }

    /// The picture's size by the first readable sequence parameter set.
    #[must_use]
    pub fn picture_size(&self) -> Option<PictureSize> {
        self.size
    }

    /// Appends a frame in Annex B. Returns false, with nothing appended, where its lengths contradict its size.
    pub fn put_frame(&self, out: &mut BytesMut, frame: &[u8]) -> bool {
        let Some(length_size) = self.nal_length_size else {
            out.extend_from_slice(frame);
            return true;
        };
        let before = out.len();
        let mut units = LengthPrefixed::new(frame, length_size);
        for nal in &mut units {
            put_annex_b(out, nal);
        }
        if units.is_broken() {
            // Some producers send Annex B whatever their avcC says.
            out.truncate(before);
            if frame.starts_with(&[0, 0, 0, 1]) || frame.starts_with(&[0, 0, 1]) {
                out.extend_from_slice(frame);
                return true;
            }
            return false;
        }
        true
    }
}

/// The picture's size, if this NAL unit is a sequence parameter set of the codec.
#[must_use]
pub fn picture_size_of(codec: NalCodec, nal: &[u8]) -> Option<PictureSize> {
    match codec {
        NalCodec::H264 => h264_picture_size(nal),
        NalCodec::H265 => h265_picture_size(nal),
    }
}
