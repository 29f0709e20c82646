//! Every limit of this room, each with its source ("S3" is its user guide; "ours" keeps memory and work bounded).

use std::time::Duration;

/// Bytes of a part of an upload. S3: 5 MiB at least, but for the last one. Ours: so that the parts in memory stay small.
pub const PART_BYTES: usize = 5 << 20;

/// Parts of an object. S3.
pub const PARTS_MAX: u64 = 10_000;

/// Parts that are under way at once, besides the one that is being filled and the first one, which is kept to the end.
/// Ours.
pub const PARTS_IN_FLIGHT: usize = 2;

/// Bytes of stored fragments that make one object at most; what follows goes on in another. Ours: some parts are left for
/// what the container adds.
pub const OBJECT_BYTES_MAX: u64 = (PARTS_MAX - 500) * PART_BYTES as u64;

/// Fragments of one object. Ours: its index has a line for each, which is held in memory while it is made.
pub const OBJECT_FRAGMENTS_MAX: usize = 10_000;

/// Frames of one MP4 object, whose tables take about 28 bytes for each. Ours: an hour and a quarter of 30 pictures and 47
/// pieces of sound a second.
pub const MP4_SAMPLES_MAX: usize = 350_000;

/// Bytes of an index that is read: [`OBJECT_FRAGMENTS_MAX`] lines with the producer's tags. Ours.
pub const INDEX_BYTES_MAX: usize = 64 << 20;

/// How much earlier than it is listed a fragment can have begun to arrive. Ours, as the server's: the longest fragment that
/// a server can be set to take, with room for its commit. What comes so late is archived in an object of its own.
pub const LATE_MS: i64 = 15 * 60 * 1000;

/// What began to arrive this long ago is taken to be there; of what comes later see [`LATE_MS`]. Ours: a fragment of 20 s
/// and its commit.
pub const SETTLE_MS: i64 = 30_000;

/// The first stretch of time that is listed at once, and the longest. Ours.
pub const LIST_STEP_MS: i64 = 10 * 60 * 1000;
/// See [`LIST_STEP_MS`].
pub const LIST_STEP_MS_MAX: i64 = 30 * 24 * 3_600_000;

/// Fragments of one such listing; a stretch that holds more is halved. Ours.
pub const LIST_FRAGMENTS_MAX: usize = 10_000;

/// Shortest and longest time of an object. Ours.
pub const EVERY_MIN: Duration = Duration::from_secs(1);
/// See [`EVERY_MIN`].
pub const EVERY_MAX: Duration = Duration::from_secs(24 * 3600);

/// Keys of one listing of a bucket. S3: 1000.
pub const LIST_KEYS: usize = 1000;

/// Bytes of fragments that are read ahead, two requests of so many each. Ours.
pub const READ_AHEAD_BYTES: u64 = 2 << 20;

/// Bytes of a prefix in a bucket. Ours: S3's keys have 1024, of which stream, date and name need the rest.
pub const PREFIX_BYTES_MAX: usize = 512;
