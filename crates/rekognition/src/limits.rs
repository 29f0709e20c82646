//! What this service refuses to exceed, each with its source.

use std::time::Duration;

/// Bytes of an image sent in a request (service model: `ImageBlob` ends at 5,242,880).
pub const IMAGE_BYTES_MAX: usize = 5_242_880;

/// Bytes of an image in a bucket (AWS: 15 MB).
pub const OBJECT_BYTES_MAX: usize = 15 * 1024 * 1024;

/// Faces that one image operation reports or indexes (AWS: the 100 largest).
pub const FACES_PER_IMAGE_MAX: usize = 100;

/// Matches that one search returns (service model: `MaxFaces` ends at 4096).
pub const MATCHES_MAX: usize = 4096;

/// Users that one search or one page of a listing returns (service model: `MaxUserResults` ends at 500).
pub const USERS_PER_CALL_MAX: usize = 500;

/// The least similarity of a face to the user it is associated with, where a request names none (service model).
pub const ASSOCIATION_THRESHOLD_DEFAULT: f32 = 75.0;

/// The least confidence of labels where DetectLabels names none (service model).
pub const LABEL_CONFIDENCE_DEFAULT: f32 = 55.0;

/// Labels of one answer where DetectLabels names no number (service model).
pub const LABELS_MAX: usize = 1000;

/// The threshold that holds where a request names none (service model).
pub const FACE_MATCH_THRESHOLD_DEFAULT: f32 = 80.0;

/// A stream processor raises a lower threshold to this (service model).
pub const PROCESSOR_THRESHOLD_MIN: f32 = 80.0;

/// Items of one page of a listing (service model: `PageSize` ends at 4096) and the number where a request names none.
pub const PAGE_MAX: usize = 4096;
/// See [`PAGE_MAX`].
pub const PAGE_DEFAULT: usize = 1000;

/// Tags of one resource (service model: `TagMap` ends at 200).
pub const TAGS_MAX: usize = 200;

/// Stream processors of one account and region. AWS allows 10 for face search; here only memory is at stake, some
/// kilobytes each while stopped.
pub const PROCESSORS_MAX: usize = 1000;

/// Matches that a processor writes for each face, best first. A hundred faces with ten matches each stay well below the
/// 1 MiB of a data record.
pub const MATCHES_PER_RECORDED_FACE_MAX: usize = 10;

/// Collections larger than this are searched on a blocking thread: beyond it a search takes more than some two milliseconds (10 ms for 100,000 faces).
pub const INLINE_SEARCH_FACES_MAX: usize = 20_000;

/// Tracks whose search result a processor keeps.
pub const CACHED_TRACKS_MAX: usize = 256;

/// Hours that `sightglass:keep_unknown` may ask for: up to a year.
pub const KEEP_UNKNOWN_HOURS: std::ops::RangeInclusive<u32> = 1..=8760;

/// Faces that a processor follows at once while it keeps unknown ones; beyond it the one seen the longest ago is let go.
pub const OPEN_UNKNOWN_TRACKS_MAX: usize = 1024;

/// Frames that must show a face before it is kept as unknown: what is seen once is too often no face.
pub const UNKNOWN_FRAMES_MIN: u64 = 2;

/// An unknown face that was not seen for this long is written.
pub const UNKNOWN_TRACK_END: Duration = Duration::from_secs(1);

/// One that is still there is written this often.
pub const UNKNOWN_WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a processor looks which unknown faces are to be written.
pub const UNKNOWN_WRITE_CHECK: Duration = Duration::from_millis(500);

/// A track that was not seen for this long is not seen again (the worker takes one up again for five seconds).
pub const UNKNOWN_TRACK_FORGOTTEN: Duration = Duration::from_secs(10);

/// How often unknown faces are erased whose time is over. Until then no call tells of them.
pub const UNKNOWN_EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Records that wait for the data stream; recording waits beyond it.
pub const QUEUED_RECORDS_MAX: usize = 64;

/// Fragments whose records are remembered until it is known whether the fragment was stored.
pub const OPEN_FRAGMENTS_MAX: usize = 128;

/// How often a processor's position is saved at most. After a crash at most this much is analysed twice.
pub const POSITION_SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// How often a processor looks whether its collection and its output are still there.
pub const RESOURCE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The pause before something that failed for a moment (a worker, a disk) is tried again.
pub const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Analysed frames a second that `sightglass:max_rate` may ask for.
pub const MAX_RATE_RANGE: std::ops::RangeInclusive<f32> = 0.01..=1000.0;

/// Bytes of a video (AWS: 10 GB).
pub const STORED_VIDEO_BYTES_MAX: u64 = 10_000_000_000;

/// Milliseconds of a stream that one job analyses: a day, which takes hours on one core.
pub const STORED_STRETCH_MS_MAX: i64 = 24 * 3600 * 1000;

/// Frames a second of video time in which a job looks for faces: a person who crosses the picture in a second is seen five
/// times, and a job over an ordinary film is faster than the film.
pub const STORED_VIDEO_RATE: f32 = 5.0;

/// Jobs of one account and region that are in progress (AWS's quota of concurrent jobs).
pub const STORED_JOBS_MAX: usize = 20;

/// Jobs that are carried out at once in the whole server; the others wait. One decodes while another reads.
pub const STORED_JOBS_RUNNING: usize = 2;

/// Jobs of one account and region whose results are kept.
pub const STORED_JOBS_KEPT_MAX: usize = 1000;

/// Faces of the kept results of one account and region: some 1.5 GB.
pub const STORED_FACES_KEPT_MAX: u64 = 5_000_000;

/// Faces of one job, one for each frame in which it was seen: six hours with five faces in every analysed frame, 160 MB.
pub const STORED_FACES_MAX: u32 = 500_000;

/// Tracks of one job.
pub const STORED_TRACKS_MAX: u32 = 100_000;

/// A track ends when its face was not seen for so long; what looks alike later is the same person.
pub const STORED_TRACK_END_MS: i64 = 10_000;

/// Persons of a job whose vectors are remembered to know them again: one megabyte with SFace.
pub const STORED_PERSONS_REMEMBERED: usize = 2_000;

/// Footage whose time goes back further begins a new session. Frames in decoding order go back less.
pub const STORED_VIDEO_CLOCK_SET_BACK_MS: i64 = 5_000;

/// Results of stored video are kept for seven days (AWS).
pub const STORED_RESULTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often results that are too old are looked for.
pub const STORED_SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// How often a job is begun before it has failed, where the failure may pass.
pub const STORED_ATTEMPTS_MAX: u32 = 4;

/// Entries of one page of a job's results (AWS).
pub const STORED_PAGE_MAX: usize = 1000;

/// How often a topic is told something before that is given up: some six hours.
pub const NOTIFY_TRIES_MAX: u32 = 48;

/// The pause before a topic is told again; doubled each time up to [`NOTIFY_PAUSE_MAX`].
pub const NOTIFY_PAUSE_MIN: Duration = Duration::from_secs(1);

/// See [`NOTIFY_PAUSE_MIN`].
pub const NOTIFY_PAUSE_MAX: Duration = Duration::from_secs(600);

/// The least confidence of labels where ConnectedHome names none (guide).
pub const CONNECTED_HOME_CONFIDENCE_DEFAULT: f32 = 50.0;

/// Video that a label-detection session does at most, in seconds (service model: `MaxDurationInSecondsULong` ends at 120).
pub const LABEL_SECONDS_MAX: u32 = 120;

/// The same where StopSelector names no number (service model).
pub const LABEL_SECONDS_DEFAULT: u32 = 10;

/// A label-detection session ends when the stream has sent nothing for so long.
pub const LABEL_IDLE: Duration = Duration::from_secs(20);

/// Frames a second of video time in which label detection looks for people and pets, unless `sightglass:max_rate` says
/// otherwise: who walks through a picture is in it for seconds. A 720p camera then takes some quarter of a core (debug build).
pub const LABEL_RATE_DEFAULT: f32 = 2.0;

/// Bytes of a fragment's frames that label detection keeps until the fragment is stored; what follows is not looked at.
/// Fragments end at 50 MB (Kinesis Video Streams' quota), those of cameras with a few.
pub const LABEL_FRAGMENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Fragments of a stream that have begun and are not known to be stored.
pub const LABEL_FRAGMENTS_OPEN_MAX: usize = 4;

/// Frames of a fragment that are looked at, at most: half a minute at the default rate, longer than a fragment is.
pub const LOOK_FRAMES_MAX: usize = 64;

/// Label-detection sessions that run at once in the whole server: with ordinary cameras some hundred megabytes.
pub const LABEL_SESSIONS_MAX: usize = 64;

/// Sessions with notifications that no topic has taken, in the whole server, before no other begins: some kilobytes each.
pub const LABEL_SESSIONS_UNTOLD_MAX: usize = 1000;

/// Bytes of the KeyPrefix of a label-detection processor: S3's keys end at 1,024, and some 290 stand behind it.
pub const LABEL_KEY_PREFIX_BYTES_MAX: usize = 720;

/// The quality of the images of label detection, 1 to 100.
pub const LABEL_JPEG_QUALITY: u8 = 90;

/// How often an image is written again before the session fails: some 50 seconds.
pub const LABEL_PUT_TRIES_MAX: u32 = 12;

/// Points of a region's polygon (service model's text: up to 10).
pub const POLYGON_POINTS_MAX: usize = 10;

/// Fewer have no area.
pub const POLYGON_POINTS_MIN: usize = 3;

/// The least area of a region of interest, as a share of the picture: less than the smallest object that is found.
pub const REGION_AREA_MIN: f64 = 0.0001;
