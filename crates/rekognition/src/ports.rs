//! What this service needs of the rooms below, as small traits: [`Vision`] for pictures, [`VideoSource`] for frames,
//! [`RecordSink`] for records, [`ObjectSource`] for objects in buckets. Each is implemented by the room's own service, or
//! where the rooms are put together, and by a deterministic fake in the tests.

use std::ops::Range;

use async_trait::async_trait;
use base::{AccountId, ResourceName, Timestamp};
use bytes::Bytes;
use data_streams::{DataStreams, PutError};
use faces::ModelVersion;
use storage::StreamId;
use video_streams::VideoStreams;
use video_streams::consumer::{Consumer, ConsumerError, Event, StartAt, StreamRef};
use video_streams::stored::{StoredFragment, StoredFrames, TimeAxis};
use vision::{
    Abilities, BoundingBox, FilmError, FilmFrame, FilmInfo, FilmReader, FilmSource, Frame, FrameOutcome, FrameSender,
    FramesRequest, ImageAnalysis, ImageError, ImageOptions, LabelAnalysis, Mode, OpenError, ResultReceiver, SendReport,
    SessionClosed, SessionConfig, StillError, StillsError, VisionPool,
};

/// Finds and reads faces.
#[async_trait]
pub trait Vision: Send + Sync + 'static {
    /// The embedding model in use and the length of its vectors.
    fn model(&self) -> ModelVersion;

    /// Which models beyond those of faces there are.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Finds the faces of a JPEG or PNG image.
    async fn analyze_image(
        &self,
        account: AccountId,
        image: Bytes,
        options: ImageOptions,
    ) -> Result<ImageAnalysis, ImageError>;

    /// The id of the model of objects.
    fn label_model(&self) -> Option<String> {
        None
    }

    /// Finds the objects of a JPEG or PNG image; needs [`Abilities::labels`].
    async fn label_image(&self, _account: AccountId, _image: Bytes) -> Result<LabelAnalysis, ImageError> {
        Err(ImageError::Worker("there is no model of objects".to_owned()))
    }

    /// The objects of the wanted frames of stored video, in their order; needs [`Abilities::labels`].
    async fn frame_objects(
        &self,
        _request: FramesRequest,
    ) -> Result<Vec<Result<LabelAnalysis, StillError>>, StillsError> {
        Err(StillsError::Worker("there is no model of objects".to_owned()))
    }

    /// JPEGs of a part of the wanted frames of stored video, in their order; needs [`Abilities::labels`].
    async fn frame_parts(
        &self,
        _request: FramesRequest,
        _area: BoundingBox,
        _quality: u8,
    ) -> Result<Vec<Result<Bytes, StillError>>, StillsError> {
        Err(StillsError::Worker("there is no model of objects".to_owned()))
    }

    /// Opens a session for one camera's frames.
    fn open_session(&self, config: SessionConfig) -> Result<VisionSession, OpenError>;

    /// Takes a film of `size` bytes apart.
    async fn open_film(
        &self,
        account: AccountId,
        size: u64,
        source: Box<dyn FilmSource>,
    ) -> Result<Box<dyn Film>, FilmError>;
}

/// See [`vision::FilmReader`].
#[async_trait]
pub trait Film: Send {
    /// What its container says.
    fn info(&self) -> &FilmInfo;

    /// The next frame in decoding order; `None` at the end. Not cancel safe.
    async fn next(&mut self) -> Result<Option<FilmFrame>, FilmError>;
}

/// The two ends of a session.
pub type VisionSession = (Box<dyn FrameSink>, Box<dyn OutcomeSource>);

/// See [`vision::FrameSender`].
#[async_trait]
pub trait FrameSink: Send {
    /// Hands a frame over.
    async fn send(&mut self, frame: Frame) -> Result<SendReport, SessionClosed>;

    /// Switches between catching up and live.
    fn set_mode(&mut self, mode: Mode);

    /// Frames were lost before the next one.
    fn mark_gap(&mut self);
}

/// See [`vision::ResultReceiver`].
#[async_trait]
pub trait OutcomeSource: Send {
    /// The next outcome; `None` when the sender was dropped and every frame has had its outcome. Cancel safe.
    async fn next(&mut self) -> Option<FrameOutcome>;
}

#[async_trait]
impl Vision for VisionPool {
    fn model(&self) -> ModelVersion {
        ModelVersion {
            id: self.model_version(),
            dimensions: self.embedding_len(),
        }
    }

    fn abilities(&self) -> Abilities {
        VisionPool::abilities(self)
    }

    async fn analyze_image(
        &self,
        account: AccountId,
        image: Bytes,
        options: ImageOptions,
    ) -> Result<ImageAnalysis, ImageError> {
        VisionPool::analyze_image(self, account, image, options).await
    }

    fn label_model(&self) -> Option<String> {
        VisionPool::label_model(self)
    }

    async fn label_image(&self, account: AccountId, image: Bytes) -> Result<LabelAnalysis, ImageError> {
        VisionPool::label_image(self, account, image).await
    }

    async fn frame_objects(
        &self,
        request: FramesRequest,
    ) -> Result<Vec<Result<LabelAnalysis, StillError>>, StillsError> {
        VisionPool::frame_objects(self, request).await
    }

    async fn frame_parts(
        &self,
        request: FramesRequest,
        area: BoundingBox,
        quality: u8,
    ) -> Result<Vec<Result<Bytes, StillError>>, StillsError> {
        VisionPool::frame_parts(self, request, area, quality).await
    }

    fn open_session(&self, config: SessionConfig) -> Result<VisionSession, OpenError> {
        let (sender, receiver) = VisionPool::open_session(self, config)?;
        Ok((Box::new(sender), Box::new(receiver)))
    }

    async fn open_film(
        &self,
        account: AccountId,
        size: u64,
        source: Box<dyn FilmSource>,
    ) -> Result<Box<dyn Film>, FilmError> {
        let film = VisionPool::open_film(self, account, size, source).await?;
        Ok(Box::new(film))
    }
}

#[async_trait]
impl Film for FilmReader {
    fn info(&self) -> &FilmInfo {
        FilmReader::info(self)
    }

    async fn next(&mut self) -> Result<Option<FilmFrame>, FilmError> {
        FilmReader::next(self).await
    }
}

#[async_trait]
impl FrameSink for FrameSender {
    async fn send(&mut self, frame: Frame) -> Result<SendReport, SessionClosed> {
        FrameSender::send(self, frame).await
    }

    fn set_mode(&mut self, mode: Mode) {
        FrameSender::set_mode(self, mode);
    }

    fn mark_gap(&mut self) {
        FrameSender::mark_gap(self);
    }
}

#[async_trait]
impl OutcomeSource for ResultReceiver {
    async fn next(&mut self) -> Option<FrameOutcome> {
        ResultReceiver::next(self).await
    }
}

/// An object cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectFailure {
    /// The account has no such bucket, or the bucket no such object.
    #[error("there is no such object")]
    Absent,
    /// It has so many bytes.
    #[error("the object has {0} bytes")]
    TooLarge(u64),
    /// Something that may pass, in words for the log.
    #[error("{0}")]
    Failed(String),
}

/// Buckets to read images from.
#[async_trait]
pub trait ObjectSource: Send + Sync + 'static {
    /// The bytes of an object in a bucket of the account, if they are no more than `bytes_max`.
    async fn read(&self, account: AccountId, bucket: &str, key: &str, bytes_max: usize)
    -> Result<Bytes, ObjectFailure>;
}

/// The frames of video streams.
#[async_trait]
pub trait VideoSource: Send + Sync + 'static {
    /// Follows a stream: first what is stored from `start` on, then each frame as it arrives.
    async fn open(&self, stream: &StreamRef, start: StartAt) -> Result<Box<dyn Feed>, ConsumerError>;

    /// What is stored of a time of a stream.
    async fn stored(
        &self,
        stream: &StreamRef,
        axis: TimeAxis,
        range: Range<Timestamp>,
    ) -> Result<Box<dyn StoredFeed>, ConsumerError>;

    /// The ARN of a stream, if it exists.
    fn arn(&self, stream: &StreamRef) -> Option<String>;
}

/// See [`video_streams::stored::StoredFrames`].
#[async_trait]
pub trait StoredFeed: Send {
    /// The next fragment; `None` at the end.
    async fn next(&mut self) -> Result<Option<StoredFragment>, ConsumerError>;
}

/// See [`video_streams::consumer::Consumer`].
#[async_trait]
pub trait Feed: Send {
    /// The next event. Cancel safe.
    async fn next(&mut self) -> Result<Event, ConsumerError>;
}

#[async_trait]
impl VideoSource for VideoStreams {
    async fn open(&self, stream: &StreamRef, start: StartAt) -> Result<Box<dyn Feed>, ConsumerError> {
        let consumer = self.open_consumer(stream, start).await?;
        Ok(Box::new(consumer))
    }

    async fn stored(
        &self,
        stream: &StreamRef,
        axis: TimeAxis,
        range: Range<Timestamp>,
    ) -> Result<Box<dyn StoredFeed>, ConsumerError> {
        Ok(Box::new(self.stored_frames(stream, axis, range)?))
    }

    fn arn(&self, stream: &StreamRef) -> Option<String> {
        self.stream_arn(stream)
    }
}

#[async_trait]
impl StoredFeed for StoredFrames {
    async fn next(&mut self) -> Result<Option<StoredFragment>, ConsumerError> {
        StoredFrames::next(self).await
    }
}

#[async_trait]
impl Feed for Consumer {
    async fn next(&mut self) -> Result<Event, ConsumerError> {
        Consumer::next(self).await
    }
}

/// A record cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// There is no such data stream, or it was deleted.
    #[error("the data stream does not exist")]
    StreamGone,
    /// A record that the stream will never take, in words for the log. Nothing of the call was written.
    #[error("{0}")]
    Refused(String),
    /// Something that may pass, in words for the log.
    #[error("{0}")]
    Failed(String),
}

/// Data streams to write to.
#[async_trait]
pub trait RecordSink: Send + Sync + 'static {
    /// Finds a stream by name; `None` if there is none. A stream made anew under its name has another id.
    async fn find(&self, stream: &ResourceName) -> Result<Option<StreamId>, SinkError>;

    /// Writes records under one partition key, in their order. Answers when they are durable and can be read.
    async fn put(
        &self,
        stream: &ResourceName,
        id: StreamId,
        partition_key: &str,
        records: Vec<Bytes>,
    ) -> Result<(), SinkError>;
}

#[async_trait]
impl RecordSink for DataStreams {
    async fn find(&self, stream: &ResourceName) -> Result<Option<StreamId>, SinkError> {
        Ok(DataStreams::find(self, stream))
    }

    async fn put(
        &self,
        stream: &ResourceName,
        id: StreamId,
        partition_key: &str,
        records: Vec<Bytes>,
    ) -> Result<(), SinkError> {
        let put = DataStreams::put(self, stream, id, partition_key, records).await;
        put.map(drop).map_err(|error| match error {
            PutError::StreamNotFound => SinkError::StreamGone,
            PutError::RecordTooLarge { .. } => SinkError::Refused(error.to_string()),
            PutError::DiskFull | PutError::Failed(_) => SinkError::Failed(error.to_string()),
        })
    }
}
