//! What a player must know of a track before its first frame: the codec, its configuration, picture or sampling.

use bytes::Bytes;
use matroska::Track;
use matroska::codec::{
    AnnexB, AudioSpecificConfig, AvcConfig, CODEC_AAC, HevcConfig, LengthPrefixed, NalCodec, ParameterSets,
    PictureSize, picture_size_of,
};

use crate::PackagingError;
use crate::frame::{AdtsHead, is_annex_b, is_annex_b_frame};
use crate::limits::{CHANNELS_MAX, PARAMETER_SET_BYTES_MAX, PARAMETER_SETS_MAX, SAMPLING_HZ_MAX, VIDEO_TIMESCALE};

/// CodecID of everything that Windows names by a number, G.711 among it.
const CODEC_ACM: &str = "A_MS/ACM";
/// wFormatTag of A-law and µ-law.
const WAVE_ALAW: u16 = 6;
const WAVE_MULAW: u16 = 7;

const SUPPORTED: &str = "it takes H.264, H.265, AAC and G.711";

/// A codec that can be packaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264, AVC.
    H264,
    /// H.265, HEVC.
    H265,
    /// AAC, any object type that has an AudioSpecificConfig.
    Aac,
    /// G.711 A-law.
    Alaw,
    /// G.711 µ-law.
    Mulaw,
}

/// Pictures or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// Sampling of an audio track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioParameters {
    /// Samples a second of the coded sound; with implicit SBR the sound played has twice as many.
    pub sampling_hz: u32,
    /// Channels.
    pub channels: u16,
}

/// How the stored frames are framed; anything but `Plain` is converted when a fragment is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As MP4 wants them: units behind lengths, raw AAC, G.711 bytes.
    Plain,
    /// Units behind start codes.
    AnnexB,
    /// AAC with an ADTS head before each frame.
    Adts,
}

/// A track as players need it. Made from a Matroska track, and where that says too little from one of its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackConfig {
    number: u64,
    codec: Codec,
    codecs: String,
    decoder_config: Bytes,
    picture: Option<PictureSize>,
    audio: Option<AudioParameters>,
    framing: Framing,
    derived: bool,
    /// Bytes of the length before each unit; 0 where there are none.
    nal_length_size: usize,
    samples_per_frame: u32,
    default_duration_ns: Option<u64>,
    language: String,
}

impl TrackConfig {
    /// From what the track declares.
    ///
    /// # Errors
    /// `UnsupportedCodec`, `MissingCodecPrivateData` (there may be some in the frames, see
    /// [`from_frame`](Self::from_frame)) and `InvalidCodecPrivateData`.
    pub fn from_matroska(track: &Track) -> Result<Self, PackagingError> {
        if track.encoded {
            return Err(unsupported(
                track,
                "its frames are compressed or encrypted by the container",
            ));
        }
        if let Some(codec) = NalCodec::of_codec_id(&track.codec_id) {
            return match &track.codec_private {
                private if private.is_empty() => Err(missing(track, "the track declares none")),
                private if is_annex_b(private) => {
                    let sets = ParameterSets::of_units(codec, units(AnnexB::new(private)));
                    let config = from_sets(track, codec, &sets);
                    config
                        .ok_or_else(|| invalid(track, "it holds no readable sequence and picture parameter sets"))
                        .map(|config| TrackConfig {
                            framing: Framing::AnnexB,
                            ..config
                        })
                }
                private => nal_config(track, codec, private.clone()),
            };
        }
        match track.codec_id.as_str() {
            CODEC_ACM => acm_config(track),
            id if id == CODEC_AAC || id.starts_with("A_AAC/") => match &track.codec_private {
                private if private.is_empty() => Err(missing(track, "the track declares none")),
                private => aac_config(track, private.clone()),
            },
            _ => Err(unsupported(track, SUPPORTED)),
        }
    }

    /// From what the track declares and one of its frames, a key frame if there is one: what the track does not declare is
    /// taken from the parameter sets or the ADTS head in the frame, and the frame tells how frames are framed.
    ///
    /// # Errors
    /// As [`from_matroska`](Self::from_matroska); `MissingCodecPrivateData` where the frame holds none either.
    pub fn from_frame(track: &Track, frame: &[u8]) -> Result<Self, PackagingError> {
        let framing = framing_of(track, frame);
        match Self::from_matroska(track) {
            Ok(config) => Ok(TrackConfig { framing, ..config }),
            Err(PackagingError::MissingCodecPrivateData { .. }) => {
                let found = derive(track, frame);
                let config = found.ok_or_else(|| {
                    missing(
                        track,
                        "the track declares none, and its first key frame of the fragment carries none",
                    )
                })?;
                Ok(TrackConfig {
                    framing,
                    derived: true,
                    ..config
                })
            }
            Err(other) => Err(other),
        }
    }

    /// Number by which the producer's blocks name the track.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// track_ID in MP4: the number, where it fits.
    #[must_use]
    pub fn id(&self) -> u32 {
        u32::try_from(self.number).unwrap_or(u32::MAX - 1).max(1)
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Pictures or sound.
    #[must_use]
    pub fn kind(&self) -> MediaKind {
        match self.codec {
            Codec::H264 | Codec::H265 => MediaKind::Video,
            Codec::Aac | Codec::Alaw | Codec::Mulaw => MediaKind::Audio,
        }
    }

    /// The `codecs` parameter of RFC 6381, e.g. `avc1.4d4029`, `hvc1.1.6.L93.90`, `mp4a.40.2`, `alaw`.
    #[must_use]
    pub fn codecs(&self) -> &str {
        &self.codecs
    }

    /// avcC, hvcC or AudioSpecificConfig; empty for G.711.
    #[must_use]
    pub fn decoder_config(&self) -> &Bytes {
        &self.decoder_config
    }

    /// Size of the pictures.
    #[must_use]
    pub fn picture(&self) -> Option<PictureSize> {
        self.picture
    }

    /// Sampling of the sound.
    #[must_use]
    pub fn audio(&self) -> Option<AudioParameters> {
        self.audio
    }

    /// How stored frames are framed.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the configuration was taken from a frame, because the track declared none.
    #[must_use]
    pub fn is_derived(&self) -> bool {
        self.derived
    }

    /// Bytes of the length before each unit of a frame, once it is `Plain`; 0 for sound.
    #[must_use]
    pub fn nal_length_size(&self) -> usize {
        match (self.framing, self.nal_length_size) {
            (Framing::AnnexB, 1..) => 4,
            (_, size) => size,
        }
    }

    /// Units of a second in which this track's times are given: [`VIDEO_TIMESCALE`], or the sampling rate.
    #[must_use]
    pub fn timescale(&self) -> u32 {
        self.audio.map_or(VIDEO_TIMESCALE, |audio| audio.sampling_hz)
    }

    /// Duration of a frame as the track declares it, in nanoseconds.
    #[must_use]
    pub fn default_duration_ns(&self) -> Option<u64> {
        self.default_duration_ns
    }

    /// Frames a second as the track declares them.
    #[must_use]
    pub fn frame_rate(&self) -> Option<f64> {
        let nanos = self.default_duration_ns.filter(|nanos| *nanos > 0)?;
        Some(1e9 / nanos as f64).filter(|_| self.kind() == MediaKind::Video)
    }

    /// Language, ISO 639-2.
    #[must_use]
    pub fn language(&self) -> &str {
        &self.language
    }

    /// Duration of an audio frame of `bytes` bytes in units of the timescale; `None` for video.
    #[must_use]
    pub fn audio_frame_duration(&self, bytes: usize) -> Option<u32> {
        match self.codec {
            Codec::Aac => Some(self.samples_per_frame),
            Codec::Alaw | Codec::Mulaw => {
                let channels = usize::from(self.audio?.channels.max(1));
                u32::try_from(bytes / channels).ok()
            }
            Codec::H264 | Codec::H265 => None,
        }
    }
}

fn unsupported(track: &Track, why: &'static str) -> PackagingError {
    PackagingError::UnsupportedCodec {
        track: track.number,
        codec: track.codec_id.chars().take(64).collect(),
        why,
    }
}

fn missing(track: &Track, why: &'static str) -> PackagingError {
    PackagingError::MissingCodecPrivateData {
        track: track.number,
        codec: track.codec_id.clone(),
        why,
    }
}

fn invalid(track: &Track, why: &'static str) -> PackagingError {
    PackagingError::InvalidCodecPrivateData {
        track: track.number,
        codec: track.codec_id.clone(),
        why,
    }
}

/// At most so many units that avcC and hvcC can hold.
fn units<'a>(all: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    // A frame may hold many slices before or after its parameter sets; those are not kept.
    all.filter(|unit| unit.len() <= PARAMETER_SET_BYTES_MAX)
        .take(64 * PARAMETER_SETS_MAX)
        .collect()
}

fn nal_config(track: &Track, codec: NalCodec, private: Bytes) -> Result<TrackConfig, PackagingError> {
    let (codecs, nal_length_size, sps) = match codec {
        NalCodec::H264 => {
            let config = AvcConfig::parse(&private).ok_or_else(|| invalid(track, "it is no avcC record"))?;
            let sps = config.sps.first().map(|sps| picture_size_of(codec, sps));
            (config.codec_string(), config.nal_length_size, sps)
        }
        NalCodec::H265 => {
            let config = HevcConfig::parse(&private).ok_or_else(|| invalid(track, "it is no hvcC record"))?;
            let sps = config.sps.first().map(|sps| picture_size_of(codec, sps));
            (config.codec_string(), config.nal_length_size, sps)
        }
    };
    let size = sps.ok_or_else(|| missing(track, "its record holds no sequence parameter set"))?;
    let picture = size.ok_or_else(|| invalid(track, "its sequence parameter set cannot be read"))?;
    Ok(TrackConfig {
        number: track.number,
        codec: match codec {
            NalCodec::H264 => Codec::H264,
            NalCodec::H265 => Codec::H265,
        },
        codecs,
        decoder_config: private,
        picture: Some(picture),
        audio: None,
        framing: Framing::Plain,
        derived: false,
        nal_length_size,
        samples_per_frame: 0,
        default_duration_ns: track.default_duration_ns.filter(|nanos| *nanos > 0),
        language: track.language.clone(),
    })
}

fn from_sets(track: &Track, codec: NalCodec, sets: &ParameterSets<'_>) -> Option<TrackConfig> {
    let record = sets.decoder_configuration()?;
    nal_config(track, codec, record.into()).ok()
}

fn aac_config(track: &Track, private: Bytes) -> Result<TrackConfig, PackagingError> {
    let config = AudioSpecificConfig::parse(&private).ok_or_else(|| invalid(track, "it is no AudioSpecificConfig"))?;
    let declared = track.audio.map_or(0, |audio| audio.channels);
    let channels = match config.channel_configuration {
        0 => u16::try_from(declared).unwrap_or(0),
        7 => 8,
        channels @ 1..=6 => u16::from(channels),
        _ => return Err(invalid(track, "its channel configuration is reserved")),
    };
    let audio = sampling(track, config.sampling_hz, channels)?;
    Ok(TrackConfig {
        codecs: config.codec_string(),
        decoder_config: private,
        samples_per_frame: config.samples_per_frame(),
        ..sound(track, Codec::Aac, audio)
    })
}

fn sampling(track: &Track, sampling_hz: u32, channels: u16) -> Result<AudioParameters, PackagingError> {
    if !(1..=SAMPLING_HZ_MAX).contains(&sampling_hz) || !(1..=CHANNELS_MAX).contains(&channels) {
        return Err(invalid(
            track,
            "its sampling rate or its number of channels is out of range",
        ));
    }
    Ok(AudioParameters { sampling_hz, channels })
}

fn sound(track: &Track, codec: Codec, audio: AudioParameters) -> TrackConfig {
    TrackConfig {
        number: track.number,
        codec,
        codecs: String::new(),
        decoder_config: Bytes::new(),
        picture: None,
        audio: Some(audio),
        framing: Framing::Plain,
        derived: false,
        nal_length_size: 0,
        samples_per_frame: 0,
        default_duration_ns: track.default_duration_ns.filter(|nanos| *nanos > 0),
        language: track.language.clone(),
    }
}

/// WAVEFORMATEX: format tag, channels, samples a second, each little-endian, and more that G.711 fixes.
fn acm_config(track: &Track) -> Result<TrackConfig, PackagingError> {
    if track.codec_private.is_empty() {
        return Err(missing(track, "a track of this codec names its format there"));
    }
    let Some(&[t0, t1, c0, c1, r0, r1, r2, r3]) = track.codec_private.first_chunk::<8>() else {
        return Err(invalid(track, "it is no WAVEFORMATEX"));
    };
    let (codec, codecs) = match u16::from_le_bytes([t0, t1]) {
        WAVE_ALAW => (Codec::Alaw, "alaw"),
        WAVE_MULAW => (Codec::Mulaw, "ulaw"),
        _ => return Err(unsupported(track, "of this family only A-law and µ-law can be")),
    };
    let audio = sampling(
        track,
        u32::from_le_bytes([r0, r1, r2, r3]),
        u16::from_le_bytes([c0, c1]),
    )?;
    Ok(TrackConfig {
        codecs: codecs.to_owned(),
        ..sound(track, codec, audio)
    })
}

/// Bytes of the length before each unit where no private data says it.
const DERIVED_LENGTH_SIZE: usize = 4;

fn framing_of(track: &Track, frame: &[u8]) -> Framing {
    if let Some(codec) = NalCodec::of_codec_id(&track.codec_id) {
        let declared = match codec {
            NalCodec::H264 => AvcConfig::parse(&track.codec_private).map(|config| config.nal_length_size),
            NalCodec::H265 => HevcConfig::parse(&track.codec_private).map(|config| config.nal_length_size),
        };
        return if is_annex_b_frame(frame, declared.unwrap_or(DERIVED_LENGTH_SIZE)) {
            Framing::AnnexB
        } else {
            Framing::Plain
        };
    }
    let aac = track.codec_id.starts_with(CODEC_AAC);
    match AdtsHead::parse(frame).filter(|_| aac) {
        Some(_) => Framing::Adts,
        None => Framing::Plain,
    }
}

/// A configuration out of what a frame carries.
fn derive(track: &Track, frame: &[u8]) -> Option<TrackConfig> {
    if let Some(codec) = NalCodec::of_codec_id(&track.codec_id) {
        let units = match is_annex_b_frame(frame, DERIVED_LENGTH_SIZE) {
            true => units(AnnexB::new(frame)),
            false => units(LengthPrefixed::new(frame, DERIVED_LENGTH_SIZE)),
        };
        return from_sets(track, codec, &ParameterSets::of_units(codec, units));
    }
    let head = AdtsHead::parse(frame).filter(|_| track.codec_id.starts_with(CODEC_AAC))?;
    let private = Bytes::copy_from_slice(&head.audio_specific_config());
    aac_config(track, private).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use matroska::{Audio, TrackKind, Video};

    use super::*;

    /// A track as a producer declares it.
    pub(crate) fn declared(codec_id: &str, private: &[u8]) -> Track {
        let video = codec_id.starts_with('V');
        Track {
            number: if video { 1 } else { 2 },
            uid: 1,
            kind: if video { TrackKind::Video } else { TrackKind::Audio },
            codec_id: codec_id.to_owned(),
            codec_private: Bytes::copy_from_slice(private),
            name: String::new(),
            language: "eng".to_owned(),
            default_duration_ns: None,
            encoded: false,
            video: video.then_some(Video { width: 64, height: 48 }),
            audio: (!video).then_some(Audio {
                sampling_hz: 8000.0,
                channels: 1,
                bit_depth: None,
            }),
        }
    }

    #[test]
    fn aac_s_configuration_says_rate_channels_and_codec() {
        let config = TrackConfig::from_matroska(&declared("A_AAC", &[0x11, 0x90])).unwrap();
        let audio = config.audio().unwrap();
        assert_eq!(
            (audio.sampling_hz, audio.channels, config.codecs()),
            (48_000, 2, "mp4a.40.2")
        );
        assert_eq!(
            (config.timescale(), config.audio_frame_duration(300)),
            (48_000, Some(1024))
        );
        let error = TrackConfig::from_matroska(&declared("A_AAC", &[])).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("Track 2 (A_AAC) has no codec private data"),
            "{error}"
        );
        let error = TrackConfig::from_matroska(&declared("A_AAC", &[0xFF])).unwrap_err();
        assert!(matches!(error, PackagingError::InvalidCodecPrivateData { .. }));
    }

    #[test]
    fn g711_is_told_apart_by_its_format_tag_and_all_else_is_unsupported() {
        let wave = |tag: u8| [tag, 0, 1, 0, 0x40, 0x1F, 0, 0, 0x40, 0x1F, 0, 0, 1, 0, 8, 0, 0, 0];
        for (tag, codec, codecs) in [(6, Codec::Alaw, "alaw"), (7, Codec::Mulaw, "ulaw")] {
            let config = TrackConfig::from_matroska(&declared(CODEC_ACM, &wave(tag))).unwrap();
            assert_eq!(
                (config.codec(), config.codecs(), config.timescale()),
                (codec, codecs, 8000)
            );
            assert_eq!(config.audio_frame_duration(160), Some(160));
        }
        for (codec_id, private) in [
            (CODEC_ACM, &wave(1)[..]),
            ("V_VP9", &[]),
            ("A_OPUS", &[]),
            ("V_MS/VFW/FOURCC", &[]),
        ] {
            let error = TrackConfig::from_matroska(&declared(codec_id, private)).unwrap_err();
            assert!(matches!(error, PackagingError::UnsupportedCodec { .. }), "{codec_id}");
        }
    }

    #[test]
    fn a_frame_with_an_adts_head_says_what_the_track_does_not() {
        let frame = [0xFF, 0xF1, 0x50, 0x80, 0x01, 0x5F, 0xFC, 1, 2, 3];
        let config = TrackConfig::from_frame(&declared("A_AAC", &[]), &frame).unwrap();
        assert_eq!(
            (config.timescale(), config.framing(), config.is_derived()),
            (44_100, Framing::Adts, true)
        );
        let error = TrackConfig::from_frame(&declared("A_AAC", &[]), &[0x21, 0, 0]).unwrap_err();
        assert!(matches!(error, PackagingError::MissingCodecPrivateData { .. }));
    }
}
