//! What callers of the pool say and hear: faces, pictures, frames and their outcomes.

use std::path::PathBuf;
use std::time::Duration;

use base::AccountId;
use bytes::Bytes;

/// How the pool runs its workers.
#[derive(Clone, Debug)]
pub struct VisionConfig {
    /// The `vision-worker` executable.
    pub worker: PathBuf,
    /// The folder of prepared models, with its `manifest.json`.
    pub models: PathBuf,
    /// The embedder, by its id in the manifest; `None`: the manifest's first.
    pub embedder: Option<String>,
    /// Worker processes that one account's video sessions are spread over; at least 1. One process uses one core.
    pub video_workers_per_account: usize,
    /// Worker processes of all accounts together, but for those of films; beyond it [`OpenError::NoCapacity`] and [`ImageError::Busy`].
    pub max_workers: usize,
    /// A worker without session or request for this long is ended.
    pub idle_retire: Duration,
}

impl VisionConfig {
    /// One video worker per core for each account, 64 workers at most, retired after five idle minutes.
    pub fn new(worker: impl Into<PathBuf>, models: impl Into<PathBuf>) -> Self {
        VisionConfig {
            worker: worker.into(),
            models: models.into(),
            embedder: None,
            video_workers_per_account: std::thread::available_parallelism().map_or(1, usize::from),
            max_workers: crate::limits::MAX_WORKERS,
            idle_retire: crate::limits::IDLE_RETIRE,
        }
    }
}

/// A point as ratios of the picture's width and height. May lie outside 0..1 for a face cut by the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// From the left edge, as a ratio of the width.
    pub x: f32,
    /// From the top edge, as a ratio of the height.
    pub y: f32,
}

/// A box as ratios of the picture's width and height. May reach outside 0..1 for a face cut by the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BoundingBox {
    /// Left edge.
    pub left: f32,
    /// Top edge.
    pub top: f32,
    /// Width; not negative.
    pub width: f32,
    /// Height; not negative.
    pub height: f32,
}

impl BoundingBox {
    /// Intersection over union, 0 to 1.
    pub fn iou(&self, other: &BoundingBox) -> f32 {
        let w = (self.left + self.width).min(other.left + other.width) - self.left.max(other.left);
        let h = (self.top + self.height).min(other.top + other.height) - self.top.max(other.top);
        let both = w.max(0.0) * h.max(0.0);
        let either = self.width * self.height + other.width * other.height - both;
        if either > 0.0 { both / either } else { 0.0 }
    }
}

/// The five landmarks of the detector. `eye_left` is the eye on the left of the picture when the face is upright
/// (the person's right eye), as in Rekognition's `eyeLeft`; likewise the mouth corners.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Landmarks {
    /// `eyeLeft`.
    pub eye_left: Point,
    /// `eyeRight`.
    pub eye_right: Point,
    /// `nose`.
    pub nose: Point,
    /// `mouthLeft`.
    pub mouth_left: Point,
    /// `mouthRight`.
    pub mouth_right: Point,
}

impl Landmarks {
    /// The five points with their names in Rekognition's `Landmark.Type`.
    pub fn named(&self) -> [(&'static str, Point); 5] {
        [
            ("eyeLeft", self.eye_left),
            ("eyeRight", self.eye_right),
            ("nose", self.nose),
            ("mouthLeft", self.mouth_left),
            ("mouthRight", self.mouth_right),
        ]
    }
}

/// Degrees, estimated from the five landmarks and a mean face: good to some 10 degrees, enough to tell frontal from
/// profile. Positive pitch looks up, positive yaw turns to the right of the picture, positive roll leans clockwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pose {
    /// Up and down, -180 to 180.
    pub pitch: f32,
    /// In the picture's plane, -180 to 180.
    pub roll: f32,
    /// To the sides, -180 to 180.
    pub yaw: f32,
}

/// How well a face can be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Mean luma of the face, 0 to 100.
    pub brightness: f32,
    /// From the variance of the luma's Laplacian, 0 to 100.
    pub sharpness: f32,
}

/// One face of one picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Face {
    /// Where.
    pub bounding_box: BoundingBox,
    /// How sure the detector is, 0 to 100.
    pub confidence: f32,
    /// Eyes, nose, mouth.
    pub landmarks: Landmarks,
    /// Which way it looks.
    pub pose: Pose,
    /// How well it can be seen.
    pub quality: Quality,
    /// The track within the session, starting at 1; `None` without tracking. Never reused within a session; track ids
    /// start anew after [`FrameOutcome::WorkerRestarted`].
    pub track_id: Option<u64>,
    /// With tracking, how often the track's vector has changed; a search result may be kept until it does. Else 0.
    pub embedding_revision: u32,
    /// Unit length, [`crate::VisionPool::embedding_len`] numbers. For a tracked face the fused vector of its track so
    /// far. `None` when not asked for, and for a track whose faces have all been too poor to be embedded.
    pub embedding: Option<Vec<f32>>,
    /// What else can be told of it; `None` when not asked for, and where no model for it was prepared.
    pub attributes: Option<Box<FaceAttributes>>,
}

/// What the models of attributes say of a face.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaceAttributes {
    /// Years, calibrated (docs/reference/accuracy.md).
    pub age: f32,
    /// 0, surely a woman, to 1, surely a man.
    pub male: f32,
    /// Shares of the expressions in the order of [`EMOTIONS`]; their sum is 1.
    pub emotions: [f32; 7],
    /// What takes the face's mesh; `None` where it does not fit: profiles, and faces that are mostly hidden.
    pub mesh: Option<FaceMesh>,
}

/// Expressions, by Rekognition's `EmotionName`, in the order of the model.
pub const EMOTIONS: [&str; 7] = ["ANGRY", "DISGUSTED", "FEAR", "HAPPY", "SAD", "SURPRISED", "CALM"];

/// What the mesh of a face tells.
#[derive(Clone, Debug, PartialEq)]
pub struct FaceMesh {
    /// In the order of [`MESH_LANDMARKS`].
    pub points: [Point; MESH_LANDMARKS.len()],
    /// How surely both eyes are open, 0 to 1.
    pub eyes_open: f32,
    /// How surely the lips are apart, 0 to 1.
    pub mouth_open: f32,
}

/// The landmarks beyond the detector's five, by Rekognition's `LandmarkType`. Left is the picture's left.
pub const MESH_LANDMARKS: [&str; 25] = [
    "leftEyeBrowLeft",
    "leftEyeBrowRight",
    "leftEyeBrowUp",
    "rightEyeBrowLeft",
    "rightEyeBrowRight",
    "rightEyeBrowUp",
    "leftEyeLeft",
    "leftEyeRight",
    "leftEyeUp",
    "leftEyeDown",
    "rightEyeLeft",
    "rightEyeRight",
    "rightEyeUp",
    "rightEyeDown",
    "noseLeft",
    "noseRight",
    "mouthUp",
    "mouthDown",
    "leftPupil",
    "rightPupil",
    "upperJawlineLeft",
    "midJawlineLeft",
    "chinBottom",
    "midJawlineRight",
    "upperJawlineRight",
];

/// Which models beyond those of faces a folder has, or a worker has loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// [`Face::attributes`].
    pub attributes: bool,
    /// Objects.
    pub labels: bool,
}

impl Abilities {
    /// Both ones' together.
    #[must_use]
    pub fn and(self, other: Abilities) -> Abilities {
        Abilities {
            attributes: self.attributes || other.attributes,
            labels: self.labels || other.labels,
        }
    }
}

/// What an image request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// Also compute each face's vector.
    pub embed: bool,
    /// Also tell each face's attributes, where their models were prepared.
    pub attributes: bool,
    /// Refuse pictures of more pixels than this before decoding them.
    pub max_pixels: u32,
}

impl Default for ImageOptions {
    fn default() -> Self {
        ImageOptions {
            embed: true,
            attributes: false,
            max_pixels: crate::limits::MAX_IMAGE_PIXELS,
        }
    }
}

/// The faces of an image, largest box first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageAnalysis {
    /// Pixels, after EXIF rotation.
    pub width: u32,
    /// Pixels, after EXIF rotation.
    pub height: u32,
    /// At most [`crate::limits::MAX_FACES`].
    pub faces: Vec<Face>,
}

/// Why an image was not analysed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The bytes begin like no image, or break off, or cannot be decoded.
    #[error("the bytes are not a readable JPEG or PNG image")]
    NotAnImage,
    /// An image, but neither JPEG nor PNG.
    #[error("the image is neither JPEG nor PNG")]
    UnsupportedFormat,
    /// More bytes, pixels, or pixels a side than allowed.
    #[error("the image of {width} x {height} pixels is too large")]
    TooLarge {
        /// As its header declares it; 0 when there are too many bytes to look.
        width: u32,
        /// As its header declares it.
        height: u32,
    },
    /// Less than 80 pixels on a side.
    #[error("the image of {width} x {height} pixels is too small")]
    TooSmall {
        /// As its header declares it.
        width: u32,
        /// As its header declares it.
        height: u32,
    },
    /// Every worker that may be started is at work for other accounts; worth another try.
    #[error("no worker is free")]
    Busy,
    /// The worker could not be started, or died twice over this image. In words for the log.
    #[error("the vision worker failed: {0}")]
    Worker(String),
}

/// The codec of a video track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// `V_MPEG4/ISO/AVC`.
    H264,
    /// `V_MPEGH/ISO/HEVC`.
    H265,
}

impl Codec {
    /// From Matroska's CodecID.
    pub fn from_matroska(codec_id: &str) -> Option<Codec> {
        match codec_id {
            "V_MPEG4/ISO/AVC" => Some(Codec::H264),
            "V_MPEGH/ISO/HEVC" => Some(Codec::H265),
            _ => None,
        }
    }
}

/// What happens when frames come faster than they can be analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// [`crate::FrameSender::send`] never waits. Every packet is decoded, the newest decoded picture is analysed and those
    /// it overtook are skipped; where even decoding falls behind, it goes on at the newest key frame.
    Live,
    /// [`crate::FrameSender::send`] waits until the worker has room; nothing is skipped for lack of time.
    CatchUp,
}

/// One camera's video, decoded once.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Whose video it is: a worker process serves one account alone.
    pub account: AccountId,
    /// The codec.
    pub codec: Codec,
    /// Matroska's CodecPrivate: avcC or hvcC for length-prefixed frames; empty or Annex B for frames with start codes.
    /// When it changes, open another session.
    pub codec_private: Bytes,
    /// The mode at the start.
    pub mode: Mode,
    /// Analyse at most so many pictures per second of video time; `None`: all. The others are still decoded.
    pub max_rate: Option<f32>,
    /// Decode and analyse key frames alone.
    pub key_frames_only: bool,
    /// Link faces into tracks and embed a track only when it is new or shows a better face. Otherwise every face of
    /// every analysed picture is embedded.
    pub track_faces: bool,
    /// The longer side of the detector's input, in pixels, 128 to 1920. 640 finds faces from some 20 pixels in 720p.
    pub detector_side: u16,
    /// How pictures are turned before they are analysed, as EXIF's orientation 1 (not at all), 3, 6 or 8. Outcomes tell of
    /// the turned picture.
    pub orientation: u8,
    /// A recording: it is analysed in another process than cameras are, which leaves most of a busy processor to them;
    /// where no other may be started, in theirs.
    pub background: bool,
    /// Also tell each face's attributes, where their models were prepared. Of recordings alone: the workers of cameras load
    /// no models for it.
    pub attributes: bool,
}

impl SessionConfig {
    /// Live, every frame, with tracking, at detector side 640.
    pub fn new(account: AccountId, codec: Codec, codec_private: Bytes) -> Self {
        SessionConfig {
            account,
            codec,
            codec_private,
            mode: Mode::Live,
            max_rate: None,
            key_frames_only: false,
            track_faces: true,
            detector_side: crate::limits::DETECTOR_SIDE,
            orientation: 1,
            background: false,
            attributes: false,
        }
    }
}

/// One encoded frame, as it stood in its SimpleBlock.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The caller's number; strictly increasing within a session.
    pub id: u64,
    /// Presentation time in milliseconds.
    pub time_ms: i64,
    /// Whether decoding can begin here.
    pub key: bool,
    /// The frame.
    pub data: Bytes,
}

/// What became of a frame. Each frame sent has exactly one [`FrameOutcome::Analysed`] or [`FrameOutcome::Skipped`].
#[derive(Clone, Debug, PartialEq)]
pub enum FrameOutcome {
    /// Its picture was analysed. These come in the order of presentation.
    Analysed {
        /// The frame's number.
        id: u64,
        /// The frame's time.
        time_ms: i64,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Every face, at most [`crate::limits::MAX_FACES`]; empty when there is none.
        faces: Vec<Face>,
    },
    /// It was not analysed.
    Skipped {
        /// The frame's number.
        id: u64,
        /// Why.
        reason: SkipReason,
    },
    /// The worker died and another has taken over, with new tracks.
    WorkerRestarted,
}

/// Why a frame was not analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// A newer picture was there when the detector became free.
    Overtaken,
    /// The session's `max_rate`.
    Rate,
    /// The session's `key_frames_only`.
    NotKey,
    /// Decoding fell behind and went on at a later key frame.
    Lagging,
    /// No key frame since the start, since a gap, or since a loss.
    AwaitingKey,
    /// It could not be decoded, or refers to pictures that are missing or damaged.
    Damaged,
    /// Larger than [`crate::limits::MAX_FRAME_BYTES`].
    TooLarge,
    /// The worker died over it twice.
    KilledWorker,
    /// The session ended before its turn.
    Closed,
}

impl SkipReason {
    /// All reasons.
    pub const ALL: [SkipReason; 9] = [
        SkipReason::Overtaken,
        SkipReason::Rate,
        SkipReason::NotKey,
        SkipReason::Lagging,
        SkipReason::AwaitingKey,
        SkipReason::Damaged,
        SkipReason::TooLarge,
        SkipReason::KilledWorker,
        SkipReason::Closed,
    ];

    /// The value of the metric's `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::Overtaken => "overtaken",
            SkipReason::Rate => "rate",
            SkipReason::NotKey => "not_key",
            SkipReason::Lagging => "lagging",
            SkipReason::AwaitingKey => "awaiting_key",
            SkipReason::Damaged => "damaged",
            SkipReason::TooLarge => "too_large",
            SkipReason::KilledWorker => "killed_worker",
            SkipReason::Closed => "closed",
        }
    }
}

/// The pool cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder of models has no usable manifest.
    #[error("{path}: {problem}; prepare the models or set SIGHTGLASS_MODELS")]
    Models {
        /// The manifest that was looked for.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The worker executable is missing.
    #[error("{0}: the vision worker is not there")]
    Worker(PathBuf),
    /// A metric of the pool's is registered already.
    #[error(transparent)]
    Metric(#[from] base::metrics::MetricError),
}

/// A session cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Every worker that may be started is at work for other accounts.
    #[error("all {0} vision workers are taken")]
    NoCapacity(usize),
    /// CodecPrivate is larger than [`crate::limits::MAX_CODEC_PRIVATE_BYTES`].
    #[error("a CodecPrivate of {0} bytes is too large")]
    CodecPrivateTooLarge(usize),
    /// Outside of 128..=1920.
    #[error("a detector side of {0} pixels is not between 128 and 1920")]
    DetectorSide(u16),
    /// None of 1, 3, 6 and 8.
    #[error("pictures cannot be turned as orientation {0} says")]
    Orientation(u8),
}

/// The session is over: the pool was shut down, or the results are no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the vision session is closed")]
pub struct SessionClosed;

/// How a still image is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StillFormat {
    /// JPEG with the quantisation of the Independent JPEG Group's quality scale.
    Jpeg {
        /// 1 to 100.
        quality: u8,
    },
    /// PNG of 24 bits.
    Png,
}

/// One encoded frame of a [`StillsRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StillPacket {
    /// The frame, as it stood in its SimpleBlock.
    pub data: Bytes,
    /// Decoding begins here anew, with a key frame.
    pub fresh: bool,
    /// Its image is wanted; the others are decoded for its sake.
    pub wanted: bool,
}

/// Frames of one track, of which still images are wanted.
#[derive(Clone, Debug)]
pub struct StillsRequest {
    /// Whose video it is: a worker process serves one account alone.
    pub account: AccountId,
    /// The codec.
    pub codec: Codec,
    /// As in [`SessionConfig::codec_private`].
    pub codec_private: Bytes,
    /// How images are encoded.
    pub format: StillFormat,
    /// Pixels. One side alone keeps the picture's proportions; neither, its size.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// In decoding order.
    pub packets: Vec<StillPacket>,
}

/// Why there is no image of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StillError {
    /// It cannot be decoded, or refers to frames that are missing or damaged.
    #[error("the frame cannot be decoded")]
    Undecodable,
    /// The image has more than [`crate::limits::MAX_STILL_BYTES`].
    #[error("the image is too large")]
    TooLarge,
}

/// Why a [`StillsRequest`] was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StillsError {
    /// Every worker that may be started is at work, or enough waits for this account's; worth another try.
    #[error("no worker is free")]
    Busy,
    /// The worker could not be started, or died twice over these frames. In words for the log.
    #[error("the vision worker failed: {0}")]
    Worker(String),
}
