//! A decoder configuration record out of parameter sets that a producer sends in its frames or in Annex B.

use super::NalCodec;
use super::h264::SequenceParameters as AvcSequence;
use super::h265::SequenceParameters as HevcSequence;

/// The sets of one kind that avcC can hold of the sequence's kind (5 bits); the others could be more.
const SETS_MAX: usize = 31;

/// Parameter sets without framing, in the order in which they came; each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSets<'a> {
    codec: NalCodec,
    vps: Vec<&'a [u8]>,
    sps: Vec<&'a [u8]>,
    pps: Vec<&'a [u8]>,
}

impl<'a> ParameterSets<'a> {
    /// Those among the units; others are ignored, and so is what a record cannot hold.
    #[must_use]
    pub fn of_units(codec: NalCodec, units: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut sets = ParameterSets {
            codec,
            vps: Vec::new(),
            sps: Vec::new(),
            pps: Vec::new(),
        };
        for unit in units {
            let Some(&header) = unit.first() else { continue };
            let kind = match (codec, header & 0x1F, header >> 1 & 0x3F) {
                (NalCodec::H264, 7, _) | (NalCodec::H265, _, 33) => &mut sets.sps,
                (NalCodec::H264, 8, _) | (NalCodec::H265, _, 34) => &mut sets.pps,
                (NalCodec::H265, _, 32) => &mut sets.vps,
                _ => continue,
            };
            if unit.len() <= usize::from(u16::MAX) && kind.len() < SETS_MAX && !kind.contains(&unit) {
                kind.push(unit);
            }
        }
        sets
    }

    /// avcC or hvcC with lengths of four bytes; `None` where a set is missing or the first sequence parameter set cannot be
    /// read.
    #[must_use]
    pub fn decoder_configuration(&self) -> Option<Vec<u8>> {
        match self.codec {
            NalCodec::H264 => self.avc(),
            NalCodec::H265 => self.hevc(),
        }
    }

    fn avc(&self) -> Option<Vec<u8>> {
        let first = *self.sps.first()?;
        let sequence = AvcSequence::parse(first)?;
        if self.pps.is_empty() {
            return None;
        }
        let &[_, profile, constraints, level] = first.first_chunk::<4>()?;
        let mut record = vec![1, profile, constraints, level, 0xFF];
        for (sets, mark) in [(&self.sps, 0xE0), (&self.pps, 0)] {
            record.push(mark | u8::try_from(sets.len()).ok()?);
            sets.iter().try_for_each(|set| put_unit(&mut record, set))?;
        }
        if matches!(profile, 100 | 110 | 122 | 144) {
            record.extend_from_slice(&[
                0xFC | sequence.chroma_format,
                0xF8 | sequence.luma_depth_minus8,
                0xF8 | sequence.chroma_depth_minus8,
                0,
            ]);
        }
        Some(record)
    }

    fn hevc(&self) -> Option<Vec<u8>> {
        let sequence = HevcSequence::parse(self.sps.first()?)?;
        if self.pps.is_empty() || self.vps.is_empty() {
            return None;
        }
        let mut record = vec![1];
        record.extend_from_slice(&sequence.profile_tier_level);
        record.extend_from_slice(&[
            0xF0,
            0,
            0xFC,
            0xFC | sequence.chroma_format,
            0xF8 | sequence.luma_depth_minus8,
            0xF8 | sequence.chroma_depth_minus8,
            0,
            0,
            (sequence.sub_layers + 1) << 3 | u8::from(sequence.nested) << 2 | 3,
            3,
        ]);
        for (kind, sets) in [(32, &self.vps), (33, &self.sps), (34, &self.pps)] {
            record.push(0x80 | kind);
            record.extend_from_slice(&u16::try_from(sets.len()).ok()?.to_be_bytes());
            sets.iter().try_for_each(|set| put_unit(&mut record, set))?;
        }
        Some(record)
    }
}

fn put_unit(record: &mut Vec<u8>, unit: &[u8]) -> Option<()> {
    record.extend_from_slice(&u16::try_from(unit.len()).ok()?.to_be_bytes());
    record.extend_from_slice(unit);
    Some(())
}

/// How many frames may come before one in decoding order and after it in the order of display, by a sequence parameter set
/// (with its NAL header); `None` where it does not say.
#[must_use]
pub fn reordered_frames(codec: NalCodec, sps: &[u8]) -> Option<u32> {
    match codec {
        NalCodec::H264 => AvcSequence::parse(sps)?.reordered_frames,
        NalCodec::H265 => HevcSequence::parse(sps)?.reordered_frames,
    }
}
