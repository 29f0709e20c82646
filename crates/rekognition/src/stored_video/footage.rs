//! What a job looks at, as one flow of encoded frames: a film in a bucket, taken apart by a vision worker, or the fragments
//! that a stream has stored of a time. It decodes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use base::Timestamp;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use objects::{Bucket, Buckets, ByteRange, ObjectError};
use video_streams::consumer::{ConsumerError, StreamRef};
use video_streams::ports::StillCodec;
use video_streams::stored::{StoredFragment, TimeAxis};
use vision::{Codec, ColorRange, FilmError, FilmSource};

use super::job::{Axis, Footage, Job, JobKey, Metadata};
use crate::ports::{Film, StoredFeed, VideoSource, Vision};

/// Why footage cannot be had, or not further.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum FootageError {
    /// Another try would end the same; in words for the caller.
    #[error("{0}")]
    Bad(String),
    /// Every worker is taken; to be tried again, however often.
    #[error("every vision worker is taken")]
    Busy,
    /// It may pass; in words for the log.
    #[error("{0}")]
    Failed(String),
}

/// What decides whether a decoder can go on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FrameFormat {
    pub(crate) codec: Codec,
    pub(crate) codec_private: Bytes,
    /// EXIF's.
    pub(crate) orientation: u8,
}

/// An encoded frame.
pub(crate) struct FootageFrame {
    pub(crate) format: Arc<FrameFormat>,
    /// Milliseconds from the start of the footage.
    pub(crate) time_ms: i64,
    pub(crate) key: bool,
    /// Results are wanted of it.
    pub(crate) shown: bool,
    pub(crate) data: Bytes,
}

/// Frames in decoding order.
pub(crate) enum Flow {
    Film(Box<dyn Film>, Arc<FrameFormat>),
    Stored(Box<StoredFlow>),
}

/// The fragments of a stream.
pub(crate) struct StoredFlow {
    feed: Box<dyn StoredFeed>,
    from_ms: i64,
    to_ms: i64,
    /// Where the fragments that were passed end.
    end_ms: i64,
    format: Option<Arc<FrameFormat>>,
    frames: VecDeque<FootageFrame>,
}

impl Flow {
    /// Opens a job's footage.
    pub(crate) async fn open(
        vision: &dyn Vision,
        video: &dyn VideoSource,
        buckets: &dyn Buckets,
        key: &JobKey,
        job: &Job,
    ) -> Result<Flow, FootageError> {
        match &job.footage {
            Footage::Object {
                bucket,
                name,
                etag,
                size,
            } => {
                let bucket = buckets.open(key.account, bucket).await.map_err(from_object)?;
                let source = Object {
                    bucket,
                    name: name.clone(),
                    etag: etag.clone(),
                };
                let film = vision.open_film(key.account, *size, Box::new(source)).await;
                let film = film.map_err(from_film)?;
                let info = film.info();
                let format = FrameFormat {
                    codec: info.codec,
                    codec_private: info.codec_private.clone(),
                    orientation: info.orientation,
                };
                Ok(Flow::Film(film, Arc::new(format)))
            }
            Footage::Stream {
                arn,
                axis,
                from_ms,
                to_ms,
            } => {
                let stream = StreamRef {
                    account: key.account,
                    region: key.region.clone(),
                    stream: arn.clone(),
                };
                let axis = match axis {
                    Axis::Producer => TimeAxis::Producer,
                    Axis::Server => TimeAxis::Server,
                };
                let range = Timestamp::from_millis(*from_ms)..Timestamp::from_millis(*to_ms);
                let feed = video.stored(&stream, axis, range).await.map_err(from_stream)?;
                Ok(Flow::Stored(Box::new(StoredFlow {
                    feed,
                    from_ms: *from_ms,
                    to_ms: *to_ms,
                    end_ms: i64::MIN,
                    format: None,
                    frames: VecDeque::new(),
                })))
            }
        }
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<FootageFrame>, FootageError> {
        match self {
            Flow::Film(film, format) => {
                let frame = film.next().await.map_err(from_film)?;
                Ok(frame.map(|frame| FootageFrame {
                    format: format.clone(),
                    time_ms: frame.time_ms,
                    key: frame.key,
                    shown: frame.shown && frame.time_ms >= 0,
                    data: frame.data,
                }))
            }
            Flow::Stored(flow) => flow.next().await,
        }
    }

    /// What is known of the video as a whole before a frame was decoded.
    pub(crate) fn metadata(&self) -> Metadata {
        match self {
            Flow::Film(film, _) => {
                let info = film.info();
                Metadata {
                    codec: codec_name(info.codec).to_owned(),
                    format: info.format.clone(),
                    duration_ms: info.duration_ms,
                    frame_rate: info.frame_rate,
                    width: info.width,
                    height: info.height,
                    full_range: info.color_range.map(|range| range == ColorRange::Full),
                }
            }
            Flow::Stored(flow) => Metadata {
                codec: flow
                    .format
                    .as_ref()
                    .map_or("", |format| codec_name(format.codec))
                    .to_owned(),
                format: "Kinesis Video Streams".to_owned(),
                duration_ms: u64::try_from(flow.to_ms.saturating_sub(flow.from_ms)).unwrap_or(0),
                ..Metadata::default()
            },
        }
    }
}

/// FFmpeg's name, as AWS gives it.
fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::H265 => "hevc",
    }
}

impl StoredFlow {
    async fn next(&mut self) -> Result<Option<FootageFrame>, FootageError> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            match self.feed.next().await.map_err(from_stream)? {
                Some(fragment) => self.take(fragment),
                None => return Ok(None),
            }
        }
    }

    /// Queues the frames of a fragment, unless most of it was passed already: a producer may send footage again.
    fn take(&mut self, fragment: StoredFragment) {
        let start_ms = fragment.start.millis();
        let end_ms = start_ms.saturating_add(fragment.length_ms);
        let passed = self.end_ms.min(end_ms).saturating_sub(start_ms);
        let (Some(video), false) = (fragment.video, passed.saturating_mul(2) > fragment.length_ms) else {
            return;
        };
        self.end_ms = self.end_ms.max(end_ms);
        let format = FrameFormat {
            codec: match video.codec {
                StillCodec::H264 => Codec::H264,
                StillCodec::H265 => Codec::H265,
            },
            codec_private: video.codec_private,
            orientation: 1,
        };
        let format = match &self.format {
            Some(known) if **known == format => known.clone(),
            _ => self.format.insert(Arc::new(format)).clone(),
        };
        for frame in video.frames {
            let at_ms = start_ms.saturating_add(frame.time_ms);
            self.frames.push_back(FootageFrame {
                format: format.clone(),
                time_ms: at_ms.saturating_sub(self.from_ms),
                key: frame.key,
                shown: (self.from_ms..self.to_ms).contains(&at_ms),
                data: frame.data,
            });
        }
    }
}

/// The bytes of an object, as long as it is the one that the job was started for.
struct Object {
    bucket: Arc<dyn Bucket>,
    name: String,
    etag: String,
}

/// What a film's source says when there is no sense in another try; [`from_film`] knows it again.
const REPLACED: &str = "the object was deleted or replaced while it was analysed";

#[async_trait]
impl FilmSource for Object {
    async fn read(&mut self, offset: u64, bytes: usize) -> Result<Bytes, String> {
        let last = offset.saturating_add(bytes as u64).saturating_sub(1);
        let got = self
            .bucket
            .get(&self.name, Some(ByteRange::Between(offset, last)))
            .await;
        let (info, mut stream) = got.map_err(|error| match error {
            ObjectError::NoSuchKey(_) | ObjectError::NoSuchBucket(_) | ObjectError::RangeNotSatisfiable(_) => {
                REPLACED.to_owned()
            }
            other => other.to_string(),
        })?;
        if info.etag != self.etag {
            return Err(REPLACED.to_owned());
        }
        let mut data = BytesMut::with_capacity(bytes);
        while let Some(piece) = stream.next().await {
            data.extend_from_slice(&piece.map_err(|error| error.to_string())?);
        }
        data.truncate(bytes);
        Ok(data.freeze())
    }
}

/// An object that cannot be had.
fn from_object(error: ObjectError) -> FootageError {
    match error {
        ObjectError::NoSuchBucket(_) | ObjectError::NoSuchKey(_) => FootageError::Bad(REPLACED.to_owned()),
        ObjectError::Denied(_) => FootageError::Bad(error.to_string()),
        other => FootageError::Failed(other.to_string()),
    }
}

fn from_film(error: FilmError) -> FootageError {
    match error {
        FilmError::Fault(fault) => FootageError::Bad(format!("The video cannot be analysed: {fault}.")),
        FilmError::Source(why) if why == REPLACED => FootageError::Bad(why),
        FilmError::Busy => FootageError::Busy,
        FilmError::Source(why) | FilmError::Worker(why) => FootageError::Failed(why),
    }
}

fn from_stream(error: ConsumerError) -> FootageError {
    match error {
        ConsumerError::NotFound(_) => FootageError::Bad("the stream does not exist any more".to_owned()),
        other => FootageError::Failed(other.to_string()),
    }
}
