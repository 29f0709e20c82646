//! Every limit of this room, each with its source ("AWS" is the quota page or the API reference of Kinesis Video
//! Streams; "ours" is a choice that keeps memory bounded).

use std::time::Duration;

/// Largest fragment, in bytes from its cluster to the next. AWS: 50 MB; ack error 4001.
pub const FRAGMENT_BYTES: u64 = 50_000_000;

/// Frames of one fragment; the index of a fragment is kept in memory until it is whole. Ours: 20 s of three tracks with a
/// thousand frames a second each; ack error 4001.
pub const FRAGMENT_FRAMES: usize = 60_000;

/// Longest fragment in media time, from the cluster's timecode to its last frame. AWS: 20 s (older ack texts say 10 s);
/// ack error 4002.
pub const FRAGMENT_DURATION_MS: i64 = 20_000;

/// Shortest and longest that a stream's tag may set [`FRAGMENT_DURATION_MS`] to. Ours: AWS asks for fragments of a second or
/// more; two minutes hold any camera's longest interval between key frames. With a timecode scale of a millisecond
/// Matroska itself ends a cluster after 32.767 s.
pub const FRAGMENT_DURATION_MS_MIN: i64 = 1_000;
/// See [`FRAGMENT_DURATION_MS_MIN`].
pub const FRAGMENT_DURATION_MS_MAX: i64 = 120_000;

/// First bytes of a fragment that are looked into for codec private data which the header lacks. Ours.
pub const IN_BAND_BYTES: usize = 256 * 1024;

/// Fragments of a connection whose first frames are looked into for that. Ours.
pub const IN_BAND_FRAGMENTS: u32 = 3;

/// Characters of a codec's name in a log line. AWS: producers send 32 at most.
pub const LOGGED_CHARS: usize = 32;

/// Streams of which the metrics page shows what was measured; those that produce come before those that do not. Ours.
pub const MEASURED_STREAMS: usize = 500;

/// Tracks of one request. AWS: 3; ack error 4012.
pub const TRACKS: usize = 3;

/// Metadata tags of one fragment, the end-of-fragment tag included. AWS: 10; ack error 4009.
pub const FRAGMENT_TAGS: usize = 10;

/// Bytes of a metadata tag's name. AWS: 128; ack error 4009.
pub const TAG_NAME_BYTES: usize = 128;

/// Bytes of a metadata tag's value. AWS: 256; ack error 4009.
pub const TAG_VALUE_BYTES: usize = 256;

/// How long one PutMedia connection may go on. AWS: 45 min; ack error 4003 at the first fragment that starts after it.
pub const CONNECTION_DURATION: Duration = Duration::from_secs(45 * 60);

/// A connection that is past [`CONNECTION_DURATION`] and has not reached a fragment's end after this is cut in the middle
/// of it; more where the stream takes longer fragments. Ours: twice the longest fragment.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(40);

/// PutMedia connections of one stream unless configured. AWS says 1 and, on an older page, 5 "to allow for streaming token
/// rotation"; producers overlap connections when their token rotates, so 5.
pub const PUT_CONNECTIONS: usize = 5;

/// GetMedia connections of one stream unless configured. AWS: 3; ours is higher, since processors and viewers share it.
pub const GET_CONNECTIONS: usize = 64;

/// GetMediaForFragmentList connections of one stream unless configured. AWS: 5; ours is higher for the same reason.
pub const LIST_CONNECTIONS: usize = 64;

/// Silence after which the first IDLE ack is sent, and between further ones. Ours; AWS says only "periodically".
pub const IDLE_ACK_EVERY: Duration = Duration::from_secs(5);

/// Silence after which the server ends a PutMedia connection. AWS: 30 s.
pub const IDLE_CLOSE: Duration = Duration::from_secs(30);

/// Bytes before the first cluster of a request: EBML header, Info, Tracks, Tags. AWS: 1 MiB of codec private data a track;
/// ours adds room for the rest. Beyond it: ack error 4006.
pub const HEADER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that may lie between an end-of-fragment tag and the next cluster; they are kept in memory until that cluster
/// starts. Ours.
pub const BETWEEN_FRAGMENTS_BYTES: usize = 64 * 1024;

/// Fragments of one connection whose commit is under way at once; reading waits beyond it. Ours.
pub const COMMITS_IN_FLIGHT: usize = 4;

/// Encoded acks that wait for a client that does not read them; reading its media waits beyond it. Ours.
pub const ACK_QUEUE_LINES: usize = 1024;

/// Media of one stream that stands in memory for all its live readers; one that is further behind re-reads from storage.
/// Ours.
pub const LIVE_QUEUE_BYTES: usize = 1024 * 1024;

/// Messages that stand for the live readers of a stream, whatever their size. Ours.
pub const LIVE_QUEUE_MESSAGES: usize = 4096;

/// Live readers of one stream beyond which frames go out in pairs: one write for two frames. Ours: few readers cost little.
pub const CROWD_READERS: usize = 32;

/// Frames that come further apart are not paired, and no frame waits longer for the next. Ours: frames of 25 a second and
/// more are paired, and the promised delay of a frame is 40 ms at the median.
pub const CROWD_WAIT: Duration = Duration::from_millis(45);

/// Bytes read from storage at a time for one reader. Ours; GetMedia clients want few, large writes.
pub const READ_CHUNK_BYTES: u32 = 256 * 1024;

/// Extents of stored media that are read ahead for one reader of a clip; an extent has 1 MiB at most unless configured.
/// Ours: one that is ready and one that is on its way while a third is sent.
pub const READ_AHEAD: usize = 2;

/// Frame indexes that are read at once when a clip is planned. Ours.
pub const INDEXES_AHEAD: usize = 8;

/// Bytes of media of one clip unless configured. AWS: 100 MB.
pub const CLIP_BYTES: u64 = 100_000_000;

/// Fragments of one clip unless configured. AWS: 200.
pub const CLIP_FRAGMENTS: usize = 200;

/// Clips of one stream that are made and sent at once unless configured. Ours: each holds tables of up to 30 MB.
pub const CLIPS_AT_ONCE: usize = 16;

/// Longest range of a clip. AWS: 24 hours.
pub const CLIP_SPAN_MS: i64 = 24 * 60 * 60 * 1000;

/// Frames of one clip, whatever is configured; its tables take about 30 bytes for each. Ours: nearly ten hours of one
/// track of 30 frames a second.
pub const CLIP_SAMPLES: usize = 1 << 20;

/// How many times over the same producer time may have been ingested before a clip loses its end. Ours.
pub const CLIP_REPETITIONS: usize = 4;

/// Fragments of one ListFragments page. AWS: 1000, and the default 100.
pub const LIST_FRAGMENTS_MAX: usize = 1000;

/// Default page of ListFragments. Model: "The default value is 100".
pub const LIST_FRAGMENTS_DEFAULT: usize = 100;

/// Spans of one GetStoredMediaMap page, which is the default too. Ours: as many as ListFragments has fragments.
pub const MAP_SPANS_MAX: usize = 1000;

/// Time between fragments that GetStoredMediaMap does not call a gap unless told otherwise. Ours: cameras that lose a
/// frame or whose clock jitters are off by less, a camera that was gone by more.
pub const MAP_GAP_MS_DEFAULT: u32 = 1000;

/// Steps of [`storage::limits::COVERAGE_FRAGMENTS_MAX`] fragments that one GetStoredMediaMap looks at: a month of
/// one-second fragments.
pub const MAP_STEPS: usize = 32;

/// Fragments of one GetMediaForFragmentList. AWS: 1000.
pub const MEDIA_FRAGMENTS_MAX: usize = 1000;

/// Streams of one ListStreams page. Model: 1 to 10,000; the default is the maximum.
pub const LIST_STREAMS_MAX: usize = 10_000;

/// Tags of one stream or channel. AWS: 50.
pub const RESOURCE_TAGS: usize = 50;

/// Tags of one ListTags page. Ours: all of them.
pub const LIST_TAGS_PAGE: usize = RESOURCE_TAGS;

/// Streams of one account and region. AWS: 10,000 (a soft quota).
pub const STREAMS_PER_ACCOUNT: usize = 10_000;

/// Signalling channels of one account and region. AWS: 10,000 in its larger regions (a soft quota).
pub const CHANNELS_PER_ACCOUNT: usize = 10_000;

/// Channels of one ListSignalingChannels page. Model: 1 to 10,000; the default is the maximum.
pub const LIST_CHANNELS_MAX: usize = 10_000;

/// How long an undelivered signalling message is kept unless the channel says otherwise. Model: 60 s.
pub const MESSAGE_TTL_SECONDS_DEFAULT: i32 = 60;

/// Configurations of one ListEdgeAgentConfigurations page. Model: 1 to 10.
pub const LIST_EDGE_MAX: usize = 10;

/// How long an edge agent may take to acknowledge a configuration. Model: 15 minutes.
pub const EDGE_SYNC_MS: i64 = 15 * 60 * 1000;

/// Longest retention. AWS: ten years, 87,600 hours.
pub const RETENTION_HOURS_MAX: i64 = 87_600;

/// How long a stream without retention keeps its media for live readers. AWS: 5 minutes.
pub const BUFFER_DURATION: Duration = Duration::from_secs(5 * 60);

/// How many bytes a stream without retention keeps for live readers. AWS: 200 MB.
pub const BUFFER_BYTES: u64 = 200_000_000;

/// Between two sweeps of the retention task. Ours: space returns within half a minute after it is due.
pub const RETENTION_EVERY: Duration = Duration::from_secs(30);

/// Bytes that a stream may store before a sweep is asked for ahead of its time, so that byte limits are kept while media
/// comes in fast. Ours.
pub const UNSWEPT_BYTES: u64 = 64 << 20;

/// Least distance of the sampling points of images. AWS: 200 ms.
pub const SAMPLING_INTERVAL_MS_MIN: i32 = 200;

/// Quality of JPEG images unless the caller says. AWS: 80.
pub const JPEG_QUALITY_DEFAULT: u8 = 80;

/// Stored fragments whose wishes for deliveries are remembered for each stream that wants any. Ours: a follower that is
/// further behind reads the fragments.
pub const RECENT_TRIGGERS: usize = 256;

/// Deliveries under way at once in the server. Ours.
pub const DELIVERIES_AT_ONCE: usize = 64;

/// The pause after the first failed try of a delivery; it doubles with each further one. Ours.
pub const DELIVERY_PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause between two tries of a delivery. Ours; SNS ends its own retries of an HTTP endpoint with this one.
pub const DELIVERY_PAUSE_MAX: Duration = Duration::from_secs(20);

/// Between two writes of how far deliveries have come; after a crash, what was delivered since is delivered again. Ours.
pub const CURSORS_SAVE_EVERY: Duration = Duration::from_secs(1);

/// Positions written in one commit. Ours, below the catalog's own limit.
pub const CURSORS_AT_ONCE: usize = 128;

/// Between two looks for streams without the follower that they want. Ours: a change of configuration is told at once.
pub const DELIVERIES_LOOK_EVERY: Duration = Duration::from_secs(30);

/// Distance of the sampling points of GetImages unless the caller says. AWS documents none; this was the least that its
/// first version took.
pub const SAMPLING_INTERVAL_MS_DEFAULT: i32 = 3000;

/// Longest range of a GetImages. AWS: 300 s.
pub const IMAGES_RANGE_MS: i64 = 300_000;

/// Images of one GetImages page. AWS: 25, also where MaxResults (up to 100) asks for more.
pub const IMAGES_PAGE: usize = 25;

/// Longest base64 text of an image. AWS: 6 MiB.
pub const IMAGE_CONTENT_BYTES: usize = 6 * 1024 * 1024;

/// Widest image. Model: 3840.
pub const IMAGE_WIDTH_MAX: u32 = 3840;

/// Highest image. Model: 2160.
pub const IMAGE_HEIGHT_MAX: u32 = 2160;

/// Bytes of images after which a GetImages page ends early. Ours: the answer is held in memory.
pub const IMAGES_PAGE_BYTES: usize = 24 * 1024 * 1024;

/// Time after which a GetImages page ends early. Ours: clients wait 60 s for an answer unless told otherwise.
pub const IMAGES_PAGE_TIME: Duration = Duration::from_secs(15);

/// GetImages at work at once in the server. Ours: each may hold [`IMAGE_DECODE_BYTES`] and an answer.
pub const IMAGES_AT_ONCE: usize = 4;

/// How long one more waits for its turn before it gets ClientLimitExceededException. Ours.
pub const IMAGES_WAIT: Duration = Duration::from_secs(10);

/// Bytes of encoded frames that are given to the decoder for one fragment's images. Ours: the largest fragment.
pub const IMAGE_DECODE_BYTES: u64 = FRAGMENT_BYTES;

/// Fragments before the wanted frame's own in which its key frame is looked for. Ours.
pub const IMAGE_LOOK_BACK_FRAGMENTS: usize = 4;

/// How much earlier the server received such a fragment at most. Ours: three of the longest.
pub const IMAGE_LOOK_BACK_MS: i64 = 3 * FRAGMENT_DURATION_MS;

/// How much earlier than a fragment's first frame others of its frames may be shown. Ours: four B-frames at 4 frames a
/// second, or sixteen at 16.
pub const IMAGE_REORDER_MS: i64 = 1000;

/// Fragments that begin within the time of one sampling point and are looked through for its frame. Ours.
pub const IMAGE_FRAGMENTS_SEARCHED: usize = 32;

/// Expires of a playback session unless given, in seconds. Model: 300 to 43,200, default 300.
pub const EXPIRES_SECONDS: i32 = 300;

/// Longest Expires, in seconds. Model.
pub const EXPIRES_SECONDS_MAX: i32 = 43_200;

/// Fragments of a playlist or manifest of a live session unless given. AWS: 5.
pub const LIVE_FRAGMENTS: u16 = 5;

/// Fragments of a playlist or manifest of a range unless given. AWS: 1000.
pub const ON_DEMAND_FRAGMENTS: u16 = 1000;

/// Most fragments of a playlist or manifest. Model: 5000.
pub const PLAYLIST_FRAGMENTS_MAX: u16 = 5000;

/// Longest range of an on-demand session. AWS: 24 hours.
pub const PLAYBACK_RANGE_MS: i64 = 24 * 3_600_000;

/// A live session is made for a stream with a fragment that is no older. AWS: 30 seconds.
pub const LIVE_WITHIN_MS: i64 = 30_000;

/// Fragments that are looked at for the longest one that is to be expected. Ours.
pub const SAMPLE_FRAGMENTS: usize = 30;

/// A gap or overlap between two fragments beyond which they do not continue each other. AWS: 50 milliseconds.
pub const DISCONTINUITY_MS: i64 = 50;

/// Changes of codec in one HLS session. AWS: 500.
pub const CODEC_CHANGES: usize = 500;

/// Fragments that a replay releases ahead of its pace: players begin when they have about three. Ours.
pub const REPLAY_LEAD: u64 = 3;

/// Fragments that are listed at a time for a replay. Ours.
pub const REPLAY_PAGE: usize = 1000;

/// Fewest fragments that are listed at a time for a session: more than are ever sent with one producer time. Ours.
pub const SESSION_PAGE_MIN: usize = 100;

/// Fragments that a timeline remembers before the first of its playlist, for players that are behind. Ours.
pub const TIMELINE_MARGIN: u64 = 64;

/// Timelines that are remembered; the one that was not asked for the longest time goes first, and is listed anew when it
/// is asked for again. Ours.
pub const SESSIONS_KEPT: usize = 1024;

/// Fragments of all remembered timelines together, about 100 bytes each. Ours.
pub const SESSION_ENTRIES_KEPT: usize = 1_000_000;

/// Commits that a timeline takes one by one; more are listed at once. Ours.
pub const COMMITS_ONE_BY_ONE: u64 = 64;

/// How much earlier than its commit a fragment can have begun to arrive: the longest fragment that a server can be set to
/// take, with room for its commit. Ours.
pub const COMMIT_LAG_MS: i64 = 15 * 60 * 1000;

/// Parts of low-latency playlists are as many frames as fit into this, milliseconds. Ours: a player stays three of them
/// behind the camera, and asks for one of them at a time.
pub const PART_MS: i64 = 200;

/// Frames further apart than this, in milliseconds, are not worth parts. Ours.
pub const PART_FRAME_MS_MAX: i64 = 500;

/// Streams that are cut into parts at once; players of others get whole fragments. Ours.
pub const TAILS: usize = 1024;

/// How long a stream is cut into parts after the last player asked. Ours.
pub const TAIL_IDLE: Duration = Duration::from_secs(30);

/// Fragments of a stream whose parts are kept. Ours: more than three target durations of any usual camera.
pub const TAIL_FRAGMENTS: usize = 8;

/// Bytes of all parts together; beyond them fragments are told whole. Ours.
pub const TAILS_BYTES: usize = 256 << 20;

/// Longest that a player waits for a part or a playlist that was promised it. Ours.
pub const PART_WAIT_MAX: Duration = Duration::from_secs(12);

/// Longest that the first playlist of a stream that nobody watched waits for a part. Ours: most cameras begin a fragment
/// every one or two seconds.
pub const PART_COLD: Duration = Duration::from_millis(2500);

/// How long any playlist waits for the parts of a fragment that is stored already. Ours.
pub const PART_SETTLE: Duration = Duration::from_millis(100);

/// A fragment that was shown in parts and of which nothing is known for so long is given up, milliseconds. Ours: as after a
/// restart.
pub const OPEN_FRAGMENT_MS: i64 = 60_000;

/// Most often that a player is told to read a manifest again, milliseconds. Ours.
pub const MANIFEST_UPDATE_MS_MIN: u32 = 500;
