//! Limits and sizes of this room, each with its source.

/// Units of a second of video tracks: 30 to a millisecond, so that Matroska's times are exact, a third of the 90 kHz of
/// MPEG-TS, and 32 bits of it last 39 hours, longer than the longest clip. Ours.
pub const VIDEO_TIMESCALE: u32 = 30_000;

/// Frames shorter than this are copied together into one piece; longer ones are handed on as slices of what was read.
/// Ours: a piece costs a write its bookkeeping, a copy of 16 KiB less than that.
pub const COPIED_BYTES_MAX: usize = 16 << 10;

/// How far, in milliseconds, an audio frame may stand from the end of the one before it and still be taken to follow it
/// without a gap. Ours: Matroska's times are rounded to 1 ms, and clocks of cameras drift within a fragment.
pub const AUDIO_JITTER_MS: i64 = 10;

/// Sampling rates that can be packaged, samples a second. ISO/IEC 14496-3 ends at 96,000; ours gives room.
pub const SAMPLING_HZ_MAX: u32 = 384_000;

/// Audio channels that can be packaged. ISO/IEC 14496-3's channel configurations end at 8 channels; ours gives room.
pub const CHANNELS_MAX: u16 = 24;

/// Parameter sets that are taken from a frame when there is no codec private data. H.264 allows 32 sequence parameter
/// sets; more than that in one frame is an attack.
pub const PARAMETER_SETS_MAX: usize = 32;

/// Bytes of one such parameter set. The length field of avcC and hvcC has 16 bits.
pub const PARAMETER_SET_BYTES_MAX: usize = 65_535;
