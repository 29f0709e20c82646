//! H.264: the decoder configuration record (ISO/IEC 14496-15 §5.3.3) and the sequence parameter set (H.264 §7.3.2.1).

use super::bits::Bits;
use super::{PictureSize, picture_size};

/// An avcC record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvcConfig<'a> {
    /// profile_idc, e.g. 100 for High.
    pub profile: u8,
    /// The constraint flags as one byte.
    pub constraints: u8,
    /// level_idc, e.g. 31 for 3.1.
    pub level: u8,
    /// Bytes of the length before each NAL unit: 1, 2 or 4.
    pub nal_length_size: usize,
    /// Sequence parameter sets, without framing.
    pub sps: Vec<&'a [u8]>,
    /// Picture parameter sets, without framing.
    pub pps: Vec<&'a [u8]>,
}

impl<'a> AvcConfig<'a> {
    /// Parses an avcC; `None` where it is none. Extensions after the picture parameter sets are ignored.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let &[1, profile, constraints, level, lengths, sps_count] = bytes.get(..6)? else {
            return None;
        };
        let nal_length_size = usize::from(lengths & 3) + 1;
        if nal_length_size == 3 {
            return None;
        }
        let mut rest = bytes.get(6..)?;
        let sps = take_units(&mut rest, usize::from(sps_count & 0x1F))?;
        let (&pps_count, after) = rest.split_first()?;
        rest = after;
        let pps = take_units(&mut rest, usize::from(pps_count))?;
        Some(AvcConfig {
            profile,
            constraints,
            level,
            nal_length_size,
            sps,
            pps,
        })
    }

    /// The `codecs` parameter of RFC 6381, e.g. `avc1.4d4029`.
    #[must_use]
    pub fn codec_string(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.constraints, self.level)
    }
}

/// Takes `count` units, each behind a 16-bit length.
pub(super) fn take_units<'a>(rest: &mut &'a [u8], count: usize) -> Option<Vec<&'a [u8]>> {
    let mut units = Vec::with_capacity(count.min(32));
    for _ in 0..count {
        let &[high, low] = rest.get(..2)? else { return None };
        let len = usize::from(u16::from_be_bytes([high, low]));
        units.push(rest.get(2..2 + len)?);
        *rest = rest.get(2 + len..)?;
    }
    Some(units)
}

/// The picture's size by a sequence parameter set (with its NAL header); `None` where it is another unit or broken.
#[must_use]
pub fn h264_picture_size(sps: &[u8]) -> Option<PictureSize> {
    SequenceParameters::parse(sps)?.size
}

/// What a sequence parameter set says, as far as it matters to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SequenceParameters {
    pub chroma_format: u8,
    pub luma_depth_minus8: u8,
    pub chroma_depth_minus8: u8,
    /// `None` where the size is out of range.
    pub size: Option<PictureSize>,
    /// max_num_reorder_frames; `None` where neither the order of display nor the VUI says it.
    pub reordered_frames: Option<u32>,
}

/// chroma_format_idc, separate_colour_plane_flag and the bit depths minus 8.
struct ChromaFormat {
    format: u8,
    separate_planes: bool,
    luma_depth_minus8: u8,
    chroma_depth_minus8: u8,
}

impl SequenceParameters {
    /// Reads a unit; `None` where it is another one or broken.
    pub fn parse(sps: &[u8]) -> Option<Self> {
        let (&header, payload) = sps.split_first()?;
        if header & 0x9F != 7 {
            return None;
        }
        let mut bits = Bits::new(payload);
        let profile = bits.bits(8)?;
        bits.skip(16)?;
        bits.ue()?; // seq_parameter_set_id
        let chroma = chroma_format(&mut bits, profile)?;
        bits.ue()?; // log2_max_frame_num_minus4
        let order = bits.ue()?;
        skip_picture_order(&mut bits, order)?;
        bits.ue()?; // max_num_ref_frames
        bits.bit()?; // gaps_in_frame_num_value_allowed_flag
        let size = frame_size(&mut bits, &chroma)?;
        // Baseline has no B slices, and with picture order count type 2 pictures are shown as they are decoded.
        let ordered = profile == 66 || order == 2;
        let reordered_frames = if ordered {
            Some(0)
        } else {
            vui_reordered_frames(&mut bits)
        };
        Some(SequenceParameters {
            chroma_format: chroma.format,
            luma_depth_minus8: chroma.luma_depth_minus8,
            chroma_depth_minus8: chroma.chroma_depth_minus8,
            size,
            reordered_frames,
        })
    }
}

fn chroma_format(bits: &mut Bits<'_>, profile: u32) -> Option<ChromaFormat> {
    let mut chroma = ChromaFormat {
        format: 1,
        separate_planes: false,
        luma_depth_minus8: 0,
        chroma_depth_minus8: 0,
    };
    if !matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        return Some(chroma);
    }
    let small = |value: u32, max: u32| u8::try_from(value).ok().filter(|_| value <= max);
    chroma.format = small(bits.ue()?, 3)?;
    if chroma.format == 3 {
        chroma.separate_planes = bits.bit()?;
    }
    chroma.luma_depth_minus8 = small(bits.ue()?, 6)?;
    chroma.chroma_depth_minus8 = small(bits.ue()?, 6)?;
    bits.bit()?; // qpprime_y_zero_transform_bypass_flag
    if bits.bit()? {
        for list in 0..if chroma.format == 3 { 12 } else { 8 } {
            if bits.bit()? {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Some(chroma)
}

fn skip_picture_order(bits: &mut Bits<'_>, order: u32) -> Option<()> {
    match order {
        0 => {
            bits.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            bits.bit()?; // delta_pic_order_always_zero_flag
            bits.se()?; // offset_for_non_ref_pic
            bits.se()?; // offset_for_top_to_bottom_field
            let count = bits.ue()?;
            if count > 255 {
                return None;
            }
            for _ in 0..count {
                bits.se()?;
            }
        }
        _ => {}
    }
    Some(())
}

/// From the width up to the cropping; the inner `None` is a size out of range.
fn frame_size(bits: &mut Bits<'_>, chroma: &ChromaFormat) -> Option<Option<PictureSize>> {
    let width_in_mbs = u64::from(bits.ue()?) + 1;
    let height_in_map_units = u64::from(bits.ue()?) + 1;
    let frame_mbs_only = bits.bit()?;
    if !frame_mbs_only {
        bits.bit()?; // mb_adaptive_frame_field_flag
    }
    bits.bit()?; // direct_8x8_inference_flag
    let field_factor = if frame_mbs_only { 1 } else { 2 };
    let (mut width, mut height) = (width_in_mbs * 16, height_in_map_units * 16 * field_factor);
    if bits.bit()? {
        let (crop_x, crop_y) = match (chroma.format, chroma.separate_planes) {
            (1, _) => (2, 2 * field_factor),
            (2, _) => (2, field_factor),
            _ => (1, field_factor),
        };
        let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?].map(u64::from);
        width = width.checked_sub((left + right) * crop_x)?;
        height = height.checked_sub((top + bottom) * crop_y)?;
    }
    Some(picture_size(width, height))
}

/// H.264 §E.1.1: max_num_reorder_frames, where the VUI has bitstream restrictions.
fn vui_reordered_frames(bits: &mut Bits<'_>) -> Option<u32> {
    if !bits.bit()? {
        return None;
    }
    if bits.bit()? && bits.bits(8)? == 255 {
        bits.skip(32)?; // sar_width, sar_height
    }
    if bits.bit()? {
        bits.skip(1)?; // overscan_appropriate_flag
    }
    if bits.bit()? {
        bits.skip(4)?; // video_format, video_full_range_flag
        if bits.bit()? {
            bits.skip(24)?; // colour description
        }
    }
    if bits.bit()? {
        bits.ue()?; // chroma sample locations
        bits.ue()?;
    }
    if bits.bit()? {
        bits.skip(65)?; // timing
    }
    let nal_hrd = bits.bit()?;
    if nal_hrd {
        skip_hrd(bits)?;
    }
    let vcl_hrd = bits.bit()?;
    if vcl_hrd {
        skip_hrd(bits)?;
    }
    if nal_hrd || vcl_hrd {
        bits.skip(1)?; // low_delay_hrd_flag
    }
    bits.skip(1)?; // pic_struct_present_flag
    if !bits.bit()? {
        return None;
    }
    bits.skip(1)?; // motion_vectors_over_pic_boundaries_flag
    for _ in 0..4 {
        bits.ue()?;
    }
    bits.ue().filter(|frames| *frames <= 16)
}

/// H.264 §E.1.2.
fn skip_hrd(bits: &mut Bits<'_>) -> Option<()> {
    let count = bits.ue()?;
    if count > 31 {
        return None;
    }
    bits.skip(8)?;
    for _ in 0..=count {
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    bits.skip(20)
}

fn skip_scaling_list(bits: &mut Bits<'_>, len: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..len {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}
