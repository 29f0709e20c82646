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
    /// Whether a frame has 960 samples instead of 1024 (frameLengthFlag).
    pub short_frames: bool,
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
        // With explicit SBR or parametric stereo the extension's rate and the core's object type stand in between.
        let mut core = object_type;
        if matches!(object_type, 5 | 29) {
            if bits.bits(4)? == 15 {
                bits.skip(24)?;
            }
            core = bits.bits(5)?;
        }
        let general = matches!(core, 1..=4 | 6 | 7 | 17 | 19..=23);
        let short_frames = general && bits.bit().unwrap_or(false);
        Some(AudioSpecificConfig {
            object_type: u8::try_from(object_type).ok()?,
            sampling_hz,
            channel_configuration,
            short_frames,
        })
    }

    /// Samples of one frame at [`sampling_hz`](Self::sampling_hz).
    #[must_use]
    pub fn samples_per_frame(&self) -> u32 {
        match (self.object_type, self.short_frames) {
            (23 | 39, true) => 480,
            (23 | 39, false) => 512,
            (_, true) => 960,
            (_, false) => 1024,
        }
    }

    /// The `codecs` parameter of RFC 6381, e.g. `mp4a.40.2`.
    #[must_use]
    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }
}
