//! The service: what it is made of, and what its operations share.

use std::sync::Arc;

use base::metrics::{MetricError, Metrics};
use base::{Clock, RequestContext, ResourceName};
use faces::FaceStore;
use objects::Buckets;
use storage::Catalog;
use video_streams::ports::Topics;
use wire::Registry;
use wire::rekognition::op;

use crate::limits;
use crate::ports::{ObjectSource, RecordSink, VideoSource, Vision};
use crate::processors::Processors;
use crate::stored_video::StoredVideo;

/// What the service stands on.
pub struct Parts {
    /// Collections.
    pub faces: Arc<FaceStore>,
    /// Pictures.
    pub vision: Arc<dyn Vision>,
    /// Video streams.
    pub video: Arc<dyn VideoSource>,
    /// Data streams.
    pub records: Arc<dyn RecordSink>,
    /// Images in buckets.
    pub objects: Arc<dyn ObjectSource>,
    /// Where videos lie that are analysed.
    pub buckets: Arc<dyn Buckets>,
    /// Who is told of the end of a job.
    pub topics: Arc<dyn Topics>,
    /// Where processors and tags are kept.
    pub catalog: Arc<dyn Catalog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The metrics registry.
    pub metrics: Metrics,
}

/// Implements `base::Handle` for the operations of `wire::rekognition` that this version has.
pub struct Rekognition {
    pub(crate) faces: Arc<FaceStore>,
    pub(crate) vision: Arc<dyn Vision>,
    pub(crate) objects: Arc<dyn ObjectSource>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) processors: Arc<Processors>,
    pub(crate) stored: Arc<StoredVideo>,
}

impl Rekognition {
    /// Makes the service. Call [`Rekognition::resume`] once the video and data streams serve.
    pub fn new(parts: Parts) -> Result<Self, MetricError> {
        Ok(Rekognition {
            faces: parts.faces.clone(),
            vision: parts.vision.clone(),
            objects: parts.objects.clone(),
            catalog: parts.catalog.clone(),
            stored: StoredVideo::new(&parts),
            processors: Processors::new(parts)?,
        })
    }

    /// Lets the registry call this service.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry
            .register::<op::CreateCollection, _>(self)
            .register::<op::DescribeCollection, _>(self)
            .register::<op::ListCollections, _>(self)
            .register::<op::DeleteCollection, _>(self)
            .register::<op::IndexFaces, _>(self)
            .register::<op::ListFaces, _>(self)
            .register::<op::DeleteFaces, _>(self)
            .register::<op::SearchFaces, _>(self)
            .register::<op::SearchFacesByImage, _>(self)
            .register::<op::DetectFaces, _>(self)
            .register::<op::CompareFaces, _>(self)
            .register::<op::CreateUser, _>(self)
            .register::<op::DeleteUser, _>(self)
            .register::<op::ListUsers, _>(self)
            .register::<op::AssociateFaces, _>(self)
            .register::<op::DisassociateFaces, _>(self)
            .register::<op::SearchUsers, _>(self)
            .register::<op::SearchUsersByImage, _>(self)
            .register::<op::DetectLabels, _>(self)
            .register::<op::CreateStreamProcessor, _>(self)
            .register::<op::DescribeStreamProcessor, _>(self)
            .register::<op::ListStreamProcessors, _>(self)
            .register::<op::StartStreamProcessor, _>(self)
            .register::<op::StopStreamProcessor, _>(self)
            .register::<op::UpdateStreamProcessor, _>(self)
            .register::<op::DeleteStreamProcessor, _>(self)
            .register::<op::StartFaceDetection, _>(self)
            .register::<op::StartFaceSearch, _>(self)
            .register::<op::StartStreamFaceDetection, _>(self)
            .register::<op::StartStreamFaceSearch, _>(self)
            .register::<op::GetFaceDetection, _>(self)
            .register::<op::GetFaceSearch, _>(self)
            .register::<op::ListUnknownFaces, _>(self)
            .register::<op::SearchUnknownFaces, _>(self)
            .register::<op::SearchUnknownFacesByImage, _>(self)
            .register::<op::IndexUnknownFaces, _>(self)
            .register::<op::DeleteUnknownFaces, _>(self)
            .register::<op::TagResource, _>(self)
            .register::<op::UntagResource, _>(self)
            .register::<op::ListTagsForResource, _>(self);
    }

    /// Starts the processors again that ran when the server ended, each after its last recorded frame, and the jobs over
    /// stored video that had not ended, from their start. Must be called within a tokio runtime; returns when every one of
    /// them has been started.
    pub async fn resume(&self) -> Result<(), storage::CatalogError> {
        self.processors.resume_all().await?;
        self.stored.resume().await
    }

    /// Ends every run and saves its position; the processors stay RUNNING and go on at the next start.
    pub async fn shutdown(&self) {
        self.processors.shutdown().await;
        self.stored.shutdown().await;
    }
}

/// The resource of this name in the caller's account and region.
pub(crate) fn owned(context: &RequestContext, name: String) -> ResourceName {
    ResourceName {
        account: context.caller.account,
        region: context.caller.region.clone(),
        name,
    }
}

/// How many items a page has at most.
pub(crate) fn page_size(requested: Option<i32>) -> usize {
    let requested = requested.and_then(|size| usize::try_from(size).ok());
    requested.unwrap_or(limits::PAGE_DEFAULT).clamp(1, limits::PAGE_MAX)
}
