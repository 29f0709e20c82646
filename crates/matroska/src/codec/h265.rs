//! H.265: the decoder configuration record (ISO/IEC 14496-15 §8.3.3) and the sequence parameter set (H.265 §7.3.2.2).

use super::bits::Bits;
use super::h264::take_units;
use super::{PictureSize, picture_size};

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;

/// An hvcC record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HevcConfig<'a> {
    /// general_profile_space, 0 to 3.
    pub profile_space: u8,
    /// Whether the high tier is meant.
    pub high_tier: bool,
    /// general_profile_idc, e.g. 1 for Main.
    pub profile: u8,
    /// general_profile_compatibility_flags.
    pub compatibility: u32,
    /// The six bytes of constraint flags.
    pub constraints: [u8; 6],
    /// general_level_idc: thirty times the level.
    pub level: u8,
    /// Bytes of the length before each NAL unit: 1, 2 or 4.
    pub nal_length_size: usize,
    /// Video parameter sets, without framing.
    pub vps: Vec<&'a [u8]>,
    /// Sequence parameter sets, without framing.
    pub sps: Vec<&'a [u8]>,
    /// Picture parameter sets, without framing.
    pub pps: Vec<&'a [u8]>,
}

impl<'a> HevcConfig<'a> {
    /// Parses an hvcC; `None` where it is none.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head: &[u8; 23] = bytes.first_chunk()?;
        let &[
            version,
            profile,
            c0,
            c1,
            c2,
            c3,
            k0,
            k1,
            k2,
            k3,
            k4,
            k5,
            level,
            ..,
            lengths,
            arrays,
        ] = head;
        // Version 0 is written by encoders that predate the final standard; the layout is the same.
        if version > 1 {
            return None;
        }
        let nal_length_size = usize::from(lengths & 3) + 1;
        if nal_length_size == 3 {
            return None;
        }
        let mut config = HevcConfig {
            profile_space: profile >> 6,
            high_tier: profile & 0x20 != 0,
            profile: profile & 0x1F,
            compatibility: u32::from_be_bytes([c0, c1, c2, c3]),
            constraints: [k0, k1, k2, k3, k4, k5],
            level,
            nal_length_size,
            vps: Vec::new(),
            sps: Vec::new(),
            pps: Vec::new(),
        };
        let mut rest = bytes.get(23..)?;
        for _ in 0..arrays {
            let &[kind, high, low] = rest.get(..3)? else {
                return None;
            };
            rest = rest.get(3..)?;
            let units = take_units(&mut rest, usize::from(u16::from_be_bytes([high, low])))?;
            match kind & 0x3F {
                VPS => config.vps.extend(units),
                SPS => config.sps.extend(units),
                PPS => config.pps.extend(units),
                _ => {}
            }
        }
        Some(config)
    }

    /// All parameter sets in the order in which a decoder wants them.
    pub fn parameter_sets(&self) -> impl Iterator<Item = &'a [u8]> {
        self.vps.iter().chain(&self.sps).chain(&self.pps).copied()
    }

    /// The `codecs` parameter of RFC 6381 (ISO/IEC 14496-15 annex E), e.g. `hvc1.1.6.L93.90`.
    #[must_use]
    pub fn codec_string(&self) -> String {
        let space = ["", "A", "B", "C"]
            .get(usize::from(self.profile_space))
            .copied()
            .unwrap_or_default();
        let tier = if self.high_tier { 'H' } else { 'L' };
        let flags = self.compatibility.reverse_bits();
        let mut text = format!("hvc1.{space}{}.{flags:x}.{tier}{}", self.profile, self.level);
        let used = self
            .constraints
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        for byte in self.constraints.iter().take(used) {
            text.push_str(&format!(".{byte:x}"));
        }
        text
    }
}

/// The picture's size by a sequence parameter set (with its NAL header); `None` where it is another unit or broken.
#[must_use]
pub fn h265_picture_size(sps: &[u8]) -> Option<PictureSize> {
    SequenceParameters::parse(sps)?.size
}

/// What a sequence parameter set says, as far as it matters to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SequenceParameters {
    /// The general profile, tier and level: 12 bytes as hvcC wants them.
    pub profile_tier_level: [u8; 12],
    /// sps_max_sub_layers_minus1.
    pub sub_layers: u8,
    /// sps_temporal_id_nesting_flag.
    pub nested: bool,
    pub chroma_format: u8,
    pub luma_depth_minus8: u8,
    pub chroma_depth_minus8: u8,
    /// `None` where the size is out of range.
    pub size: Option<PictureSize>,
    /// sps_max_num_reorder_pics of the highest sub-layer; `None` where what comes before it is broken.
    pub reordered_frames: Option<u32>,
}

impl SequenceParameters {
    /// Reads a unit; `None` where it is another one or broken.
    pub fn parse(sps: &[u8]) -> Option<Self> {
        if sps.first()? >> 1 & 0x3F != SPS {
            return None;
        }
        let mut bits = Bits::new(sps.get(2..)?);
        bits.skip(4)?; // sps_video_parameter_set_id
        let sub_layers = bits.bits(3)?;
        let nested = bits.bit()?;
        let mut profile_tier_level = [0; 12];
        for byte in &mut profile_tier_level {
            *byte = u8::try_from(bits.bits(8)?).ok()?;
        }
        skip_sub_layers(&mut bits, sub_layers)?;
        bits.ue()?; // sps_seq_parameter_set_id
        let small = |value: u32, max: u32| u8::try_from(value).ok().filter(|_| value <= max);
        let chroma_format = small(bits.ue()?, 3)?;
        let separate_planes = chroma_format == 3 && bits.bit()?;
        let (mut width, mut height) = (u64::from(bits.ue()?), u64::from(bits.ue()?));
        if bits.bit()? {
            let (crop_x, crop_y) = match (chroma_format, separate_planes) {
                (1, _) => (2, 2),
                (2, _) => (2, 1),
                _ => (1, 1),
            };
            let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?].map(u64::from);
            width = width.checked_sub((left + right) * crop_x)?;
            height = height.checked_sub((top + bottom) * crop_y)?;
        }
        let luma_depth_minus8 = small(bits.ue()?, 8)?;
        let chroma_depth_minus8 = small(bits.ue()?, 8)?;
        Some(SequenceParameters {
            profile_tier_level,
            sub_layers: u8::try_from(sub_layers).ok()?,
            nested,
            chroma_format,
            luma_depth_minus8,
            chroma_depth_minus8,
            size: picture_size(width, height),
            reordered_frames: reordered(&mut bits, sub_layers),
        })
    }
}

/// The last sps_max_num_reorder_pics.
fn reordered(bits: &mut Bits<'_>, sub_layers: u32) -> Option<u32> {
    bits.ue()?; // log2_max_pic_order_cnt_lsb_minus4
    let first = if bits.bit()? { 0 } else { sub_layers };
    let mut last = None;
    for _ in first..=sub_layers {
        bits.ue()?; // sps_max_dec_pic_buffering_minus1
        last = bits.ue();
        bits.ue()?; // sps_max_latency_increase_plus1
    }
    last.filter(|frames| *frames <= 16)
}

/// H.265 §7.3.3 behind the general profile and level.
fn skip_sub_layers(bits: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    let mut present = Vec::with_capacity(8);
    for _ in 0..sub_layers {
        present.push((bits.bit()?, bits.bit()?));
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(())
}
