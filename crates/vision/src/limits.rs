//! Every bound of this room, with its source.

use std::time::Duration;

/// Worker processes of all accounts together: each holds some 120 MiB of models and inference engine.
pub const MAX_WORKERS: usize = 64;

/// Idle workers are ended after this long; starting one takes about a quarter of a second.
pub const IDLE_RETIRE: Duration = Duration::from_secs(300);

/// Rekognition returns the 100 largest faces of an image (DetectFaces, IndexFaces in the service model).
pub const MAX_FACES: usize = 100;

/// Objects of an image that are told, surest first: more than any picture of a camera has been seen to hold.
pub const MAX_OBJECTS: usize = 100;

/// Rekognition's least side of an image in pixels (its guidelines and quotas).
pub const MIN_IMAGE_SIDE: u32 = 80;

/// Rekognition's greatest side for an image is 10,000 pixels exclusive: issue 2 asks for a declared error there.
pub const MAX_IMAGE_SIDE: u32 = 9_999;

/// 40 megapixels: 160 MB decoded with the copies, beyond any camera's or phone's ordinary picture.
pub const MAX_IMAGE_PIXELS: u32 = 40_000_000;

/// Rekognition takes 15 MB from S3 and 5 MB as bytes; the caller enforces the smaller.
pub const MAX_IMAGE_BYTES: usize = 15 * 1024 * 1024;

/// Scans of a JPEG. A progressive one has some ten, and an encoder that searches for the best order some twenty; each costs
/// a walk over the whole picture, so that thousands of empty ones in a small file would take hours.
pub const MAX_JPEG_SCANS: usize = 100;

/// One encoded video frame. A 4K key frame at 50 Mb/s with 2 s groups stays under 4 MB.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// CodecPrivate: parameter sets are some hundred bytes, SEI may make it a few kilobytes.
pub const MAX_CODEC_PRIVATE_BYTES: usize = 64 * 1024;

/// Greatest side of a video picture; FFmpeg is told the same bound in pixels.
pub const MAX_VIDEO_PIXELS: u32 = 8192 * 4320;

/// Default for the longer side of the detector's input.
pub const DETECTOR_SIDE: u16 = 640;

/// Bounds of the longer side of the detector's input: below, YuNet sees nothing; above, a picture takes 50 ms.
pub const DETECTOR_SIDES: std::ops::RangeInclusive<u16> = 128..=1920;

/// Frames that a session may have at the worker and not yet taken by the decoder: the credit granted on opening.
pub const CREDIT_FRAMES: u32 = 16;

/// Frames that wait at the server before a live session goes on at a later key frame: 5 s at 30 frames/s.
pub const QUEUE_FRAMES: usize = 150;

/// Bytes that wait at the server before a live session goes on at a later key frame.
pub const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// Frames kept since the last key frame to be decoded again after the worker's death: a minute at 30 frames/s.
pub const REPLAY_FRAMES: usize = 1_800;

/// Bytes kept since the last key frame to be decoded again after the worker's death.
pub const REPLAY_BYTES: usize = 32 * 1024 * 1024;

/// Outcomes that a session holds for a slow receiver before it stops taking frames.
pub const OUTCOME_QUEUE: usize = 256;

/// Image requests that may wait for one account's worker before [`crate::ImageError::Busy`].
pub const IMAGE_QUEUE: usize = 64;

/// A worker that has not said it is ready by then is killed: a cold disk reads 70 MB of models and libraries first.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// An image that takes longer is given up and its worker killed. 40 megapixels take about two seconds.
pub const IMAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A worker that holds frames and has said nothing for this long is killed: it hangs.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The first pause before a dead worker is replaced; doubled for each further death up to [`MAX_BACKOFF`].
pub const MIN_BACKOFF: Duration = Duration::from_millis(50);

/// The longest pause before a dead worker is replaced.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// A worker that lived this long resets the pause.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Frames that wait at the server while catching up, before the sender must wait.
pub const CATCH_UP_FRAMES: usize = 32;

/// Video time that may wait at the server before a live session goes on at a later key frame.
pub const LAG_MS: i64 = 2_000;

/// Outcomes that nobody fetched before a session is closed: nine minutes of skipped frames at 30 frames/s.
pub const UNREAD_OUTCOMES: usize = 16_384;

/// A worker's lines of complaint that are passed on to the log; the rest is discarded.
pub const STDERR_LINES: usize = 20;

/// The largest still image: as base64 it must fit the 6 MiB of GetImages' ImageContent (service model).
pub const MAX_STILL_BYTES: usize = 6 * 1024 * 1024 / 4 * 3;

/// Widest still image that may be asked for (GetImages: 3840).
pub const MAX_STILL_WIDTH: u32 = 3840;

/// Highest still image that may be asked for (GetImages: 2160).
pub const MAX_STILL_HEIGHT: u32 = 2160;

/// A request for still images that takes longer is given up and its worker killed: 20 s of 4K at 30 frames/s decode in
/// about ten seconds.
pub const STILLS_TIMEOUT: Duration = Duration::from_secs(30);

/// A question about the objects of frames that takes longer is given up and its worker killed: 64 pictures take some five
/// seconds on a core, and ten times as long in the tenth of one that a busy machine leaves it.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(120);

/// Questions about the objects of frames that may wait for one account's worker before [`crate::StillsError::Busy`].
pub const LOOKS_QUEUE: usize = 16;

/// Requests for still images that may wait for one account's worker before [`crate::StillsError::Busy`]. Each may hold a
/// fragment of 50 MB.
pub const STILLS_QUEUE: usize = 8;

/// Bytes of a film that its worker may ask for at once.
pub const MAX_FILM_READ_BYTES: usize = 1024 * 1024;

/// Films that are taken apart at once, beside the workers that [`crate::VisionConfig::max_workers`] counts: their processes
/// hold no models. Counted among those, films could hold the very places that the sessions over them wait for.
pub const MAX_FILMS: usize = 4;

/// When a frame of a film may be shown, before or after its start: some 34 years.
pub const MAX_FILM_TIME_MS: i64 = 1 << 40;

/// Frames of a film: Rekognition takes videos of six hours, here with 240 frames a second.
pub const MAX_FILM_FRAMES: u64 = 6 * 3600 * 240;

/// How often the bytes of a film may be read over, on average: an index that jumps to and fro forever ends here.
pub const MAX_FILM_READS: u64 = 4;

/// A film's worker that has said nothing for this long is killed: it hangs. The greatest index is read in less.
pub const FILM_SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that the pipe to a worker holds. Ours: what Linux lets anybody have (`/proc/sys/fs/pipe-max-size`).
pub(crate) const PIPE_BYTES: usize = 1 << 20;
