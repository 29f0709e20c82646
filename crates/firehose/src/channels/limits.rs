//! Limits of channels, each with its source.

use crate::types::Buffering;

/// Channels of an account in a region; ours, AWS's is a quota that can be raised.
pub const CHANNELS_PER_ACCOUNT_MAX: usize = 1000;
/// Channels of one stream; ours (AWS begins with one to S3 and one to S3 Tables, and raises it).
pub const CHANNELS_PER_STREAM_MAX: usize = 20;
/// Seconds that a record waits where nothing is said (the model's documentation).
pub const FRESHNESS_SECONDS: i32 = 300;
/// The longest (AWS's guide: 300 to 900). The shortest is ours: whoever owns the hardware may have smaller objects sooner.
pub const FRESHNESS_SECONDS_MAX: i32 = 900;
/// See [`FRESHNESS_SECONDS_MAX`].
pub const FRESHNESS_SECONDS_MIN: i32 = 1;
/// Bytes of records in one object; ours.
pub const OBJECT_BYTES: usize = 64 << 20;
/// Channels on a page (the model's documentation).
pub const PAGE: usize = 100;

/// When a channel's buffer is full.
pub fn buffering(freshness_s: i32) -> Buffering {
    Buffering {
        bytes: OBJECT_BYTES,
        interval_ms: i64::from(freshness_s) * 1000,
    }
}
