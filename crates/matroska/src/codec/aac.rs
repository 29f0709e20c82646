//! AAC: the AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1), the codec private data of `A_AAC`.

use super::bits::Bits;

/// Sampling frequencies by index.
const FREQUENCIES_HZ: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];

/// What an AudioSpecificConfig says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Audio object type, 2 for AAC LC.
    pub object_type: u8,
    /// Samples per second.
    pub sampling_hz: u32,
    /// Channel configuration, 0 where the channels are described elsewhere; 7 means eight channels.
    pub channel_configuration: u8,
}

impl AudioSpecificConfig {
    /// Parses codec private data; `None` where it is too short or reserved values stand in it.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut bits = Bits::plain(bytes);
        let object_type = match bits.bits(5)? {
            0 => return None,
            31 => 32 + bits.bits(6)?,
            object_type => object_type,
        };
        let sampling_hz = match usize::try_from(bits.bits(4)?).ok()? {
            15 => bits.bits(24)?,
            index => *FREQUENCIES_HZ.get(index)?,
        };
        let channel_configuration = u8::try_from(bits.bits(4)?).ok()?;
        if sampling_hz == 0 {
            return None;
        }
        Some(AudioSpecificConfig {
            object_type: u8::try_from(object_type).ok()?,
            sampling_hz,
            channel_configuration,
        })
    }

    /// The `codecs` parameter of RFC 6381, e.g. `mp4a.40.2`.
    #[must_use]
    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }
}
