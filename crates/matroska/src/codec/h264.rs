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
    let (&header, payload) = sps.split_first()?;
    if header & 0x9F != 7 {
        return None;
    }
    let mut bits = Bits::new(payload);
    let profile = bits.bits(8)?;
    bits.skip(16)?;
    bits.ue()?; // seq_parameter_set_id
    let mut chroma_format = 1;
    let mut separate_planes = false;
    if matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        chroma_format = bits.ue()?;
        if chroma_format == 3 {
            separate_planes = bits.bit()?;
        }
        bits.ue()?; // bit_depth_luma_minus8
        bits.ue()?; // bit_depth_chroma_minus8
        bits.bit()?; // qpprime_y_zero_transform_bypass_flag
        if bits.bit()? {
            for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?; // log2_max_frame_num_minus4
    match bits.ue()? {
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
    bits.ue()?; // max_num_ref_frames
    bits.bit()?; // gaps_in_frame_num_value_allowed_flag
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
        let (crop_x, crop_y) = match (chroma_format, separate_planes) {
            (1, _) => (2, 2 * field_factor),
            (2, _) => (2, field_factor),
            _ => (1, field_factor),
        };
        let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?].map(u64::from);
        width = width.checked_sub((left + right) * crop_x)?;
        height = height.checked_sub((top + bottom) * crop_y)?;
    }
    picture_size(width, height)
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
