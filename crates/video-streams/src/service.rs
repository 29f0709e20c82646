//! The service as one object: what it stands on, how it starts, and the public Rust API for other services of this server.

use std::sync::Arc;

use auth::KeyRing;
use base::metrics::Metrics;
use base::{Clock, RequestContext};
use storage::{Catalog, MediaStore};
use tokio::sync::{Mutex, Notify, Semaphore};
use wire::Registry;

use crate::consumer::{Consumer, ConsumerError, StartAt, StreamRef};
use crate::control::channels::record::Channels;
use crate::control::edge::record::EdgeConfigs;
use crate::deliver::Kind;
use crate::ingest::rules::RuleLimits;
use crate::limits;
use crate::metrics::VideoMetrics;
use crate::playback::{Playback, PlaybackSettings};
use crate::ports::Ports;
use crate::records::{ARCHIVE_TAG, Records};
use crate::state::{Stores, StreamState};
use crate::streams::{Owner, StreamArn, Streams};

/// What the operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// PutMedia connections of one stream; one more gets ConnectionLimitExceededException.
    pub put_connections: usize,
    /// GetMedia connections of one stream.
    pub get_connections: usize,
    /// GetMediaForFragmentList connections of one stream.
    pub list_connections: usize,
    /// Most bytes and longest duration of a fragment.
    pub rules: RuleLimits,
    /// Bytes of media that the server keeps at most, all streams together; beyond it the oldest go first.
    pub max_bytes: Option<u64>,
    /// How much one clip may hold.
    pub clip: crate::archive::ClipLimits,
    /// How players are served.
    pub playback: PlaybackSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            put_connections: limits::PUT_CONNECTIONS,
            get_connections: limits::GET_CONNECTIONS,
            list_connections: limits::LIST_CONNECTIONS,
            rules: RuleLimits::default(),
            max_bytes: None,
            clip: crate::archive::ClipLimits::default(),
            playback: PlaybackSettings::default(),
        }
    }
}

/// What the service stands on.
pub struct Dependencies<'a> {
    /// Where streams are recorded.
    pub catalog: Arc<dyn Catalog>,
    /// Where fragments of streams with retention are kept.
    pub durable: Arc<dyn MediaStore>,
    /// Where fragments of streams without retention are kept for live readers: a [`storage::MemoryMediaStore`] with the
    /// bounds [`limits::BUFFER_DURATION`] and [`limits::BUFFER_BYTES`].
    pub memory: Arc<dyn MediaStore>,
    /// What seals the tokens of playback sessions.
    pub key_ring: Arc<KeyRing>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub metrics: &'a Metrics,
    /// What the operator set.
    pub settings: Settings,
    /// Decoder, bucket and topics, where there are any.
    pub ports: Ports,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] storage::CatalogError),
    /// A deletion that was cut off could not be finished.
    #[error("finishing the deletion of a stream: {0}")]
    Storage(#[from] storage::Error),
    /// Two services register the same metric.
    #[error(transparent)]
    Metrics(#[from] base::metrics::MetricError),
}

/// Kinesis Video Streams. Cheap to clone.
#[derive(Clone)]
pub struct VideoStreams {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub clock: Arc<dyn Clock>,
    pub metrics: VideoMetrics,
    pub settings: Settings,
    pub streams: Streams,
    pub records: Records,
    pub channels: Channels,
    pub edges: EdgeConfigs,
    pub stores: Stores,
    pub playback: Playback,
    /// Held while the catalog and then the memory change, so that the two change in the same order.
    pub changes: Mutex<()>,
    /// Asks the retention task to look now.
    pub sweep: Arc<Notify>,
    pub ports: Ports,
    /// Tells the delivering task that a stream wants something else.
    pub deliveries: Notify,
    /// One for each GetImages that may be at work.
    pub image_slots: Semaphore,
}

impl VideoStreams {
    /// Reads the catalog and finishes deletions that were cut off.
    pub async fn open(on: Dependencies<'_>) -> Result<Self, OpenError> {
        let stores = Stores {
            durable: on.durable,
            memory: on.memory,
        };
        let channels = Channels::new(on.catalog.clone());
        let edges = EdgeConfigs::new(on.catalog.clone());
        let records = Records::new(on.catalog);
        let loaded = records.load().await?;
        for id in loaded.deleting {
            stores.delete(id).await?;
            records.deleted(id).await?;
        }
        let streams = Streams::default();
        for (arn, record) in loaded.streams {
            let wanted = Kind::ALL.map(|kind| (kind, kind.wanted(&record)));
            let state = StreamState::new(arn, record, stores.clone());
            for (kind, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
                let kept = records.cursor(state.id, kind).await?;
                let newest = || *stores.durable.subscribe(state.id).borrow();
                state.cursors.of(kind).set(Some(kept.unwrap_or_else(newest)));
            }
            streams.insert(state);
        }
        let clock = on.clock.clone();
        Ok(VideoStreams {
            inner: Arc::new(Inner {
                clock: on.clock,
                metrics: VideoMetrics::new(on.metrics)?,
                settings: on.settings,
                streams,
                records,
                channels,
                edges,
                stores,
                playback: Playback::new(on.key_ring, clock),
                changes: Mutex::new(()),
                sweep: Arc::new(Notify::new()),
                ports: on.ports,
                deliveries: Notify::new(),
                image_slots: Semaphore::new(limits::IMAGES_AT_ONCE),
            }),
        })
    }

    /// The streams that carry the tag [`ARCHIVE_TAG`](crate::records::ARCHIVE_TAG), and its value.
    pub fn archives(&self) -> Vec<(StreamArn, String)> {
        let tagged = self.inner.streams.all().into_iter().filter_map(|state| {
            let value = state.record().tags.get(ARCHIVE_TAG)?.clone();
            Some((state.arn.clone(), value))
        });
        tagged.collect()
    }

    /// Lets the service carry out its operations.
    pub fn register(&self, registry: &mut Registry) {
        use wire::kinesisvideo::op;
        use wire::kinesisvideo_archived_media::op as archived;
        let service = Arc::new(self.clone());
        registry
            .register::<op::CreateStream, _>(&service)
            .register::<op::DescribeStream, _>(&service)
            .register::<op::ListStreams, _>(&service)
            .register::<op::UpdateStream, _>(&service)
            .register::<op::DeleteStream, _>(&service)
            .register::<op::UpdateDataRetention, _>(&service)
            .register::<op::GetDataEndpoint, _>(&service)
            .register::<op::TagStream, _>(&service)
            .register::<op::UntagStream, _>(&service)
            .register::<op::ListTagsForStream, _>(&service)
            .register::<op::TagResource, _>(&service)
            .register::<op::UntagResource, _>(&service)
            .register::<op::ListTagsForResource, _>(&service)
            .register::<op::CreateSignalingChannel, _>(&service)
            .register::<op::DescribeSignalingChannel, _>(&service)
            .register::<op::UpdateSignalingChannel, _>(&service)
            .register::<op::DeleteSignalingChannel, _>(&service)
            .register::<op::ListSignalingChannels, _>(&service)
            .register::<op::GetSignalingChannelEndpoint, _>(&service)
            .register::<op::DescribeMediaStorageConfiguration, _>(&service)
            .register::<op::UpdateMediaStorageConfiguration, _>(&service)
            .register::<op::DescribeMappedResourceConfiguration, _>(&service)
            .register::<op::DescribeStreamStorageConfiguration, _>(&service)
            .register::<op::UpdateStreamStorageConfiguration, _>(&service)
            .register::<op::StartEdgeConfigurationUpdate, _>(&service)
            .register::<op::DescribeEdgeConfiguration, _>(&service)
            .register::<op::DeleteEdgeConfiguration, _>(&service)
            .register::<op::ListEdgeAgentConfigurations, _>(&service)
            .register::<op::DescribeImageGenerationConfiguration, _>(&service)
            .register::<op::UpdateImageGenerationConfiguration, _>(&service)
            .register::<op::DescribeNotificationConfiguration, _>(&service)
            .register::<op::UpdateNotificationConfiguration, _>(&service)
            .register::<wire::kinesisvideo_media::op::PutMedia, _>(&service)
            .register::<wire::kinesisvideo_media::op::GetMedia, _>(&service)
            .register::<archived::GetHLSStreamingSessionURL, _>(&service)
            .register::<archived::GetDASHStreamingSessionURL, _>(&service)
            .register::<archived::GetHLSMasterPlaylist, _>(&service)
            .register::<archived::GetHLSMediaPlaylist, _>(&service)
            .register::<archived::GetDASHManifest, _>(&service)
            .register::<archived::GetMP4InitFragment, _>(&service)
            .register::<archived::GetMP4MediaFragment, _>(&service)
            .register::<archived::GetTSFragment, _>(&service)
            .register::<wire::kinesisvideo_archived_media::op::ListFragments, _>(&service)
            .register::<wire::kinesisvideo_archived_media::op::GetStoredMediaMap, _>(&service)
            .register::<wire::kinesisvideo_archived_media::op::GetClip, _>(&service)
            .register::<wire::kinesisvideo_archived_media::op::GetImages, _>(&service)
            .register::<wire::kinesisvideo_archived_media::op::GetMediaForFragmentList, _>(&service);
    }

    /// Starts to consume a stream's frames.
    pub async fn open_consumer(&self, stream: &StreamRef, start: StartAt) -> Result<Consumer, ConsumerError> {
        let state = self.inner.streams.find(stream);
        let state = state.ok_or_else(|| ConsumerError::NotFound(stream.stream.clone()))?;
        Consumer::open(state, self.inner.clock.clone(), self.inner.metrics.clone(), start).await
    }

    /// The ARN of a stream, if the stream exists.
    pub fn stream_arn(&self, stream: &StreamRef) -> Option<String> {
        Some(self.inner.streams.find(stream)?.arn.to_string())
    }
}

/// A request named no stream, or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// There is no such stream for this caller.
    NotFound,
    /// The request contradicts itself.
    Invalid(&'static str),
}

impl Inner {
    /// The stream that a request means by its name or its ARN.
    pub fn resolve(
        &self,
        context: &RequestContext,
        name: Option<&str>,
        arn: Option<&str>,
    ) -> Result<Arc<StreamState>, Unresolved> {
        let owner = owner(context);
        match (name, arn) {
            (None, None) => Err(Unresolved::Invalid("Either StreamName or StreamARN must be given.")),
            (name, Some(arn)) => {
                let state = self.streams.by_arn(&owner, arn).ok_or(Unresolved::NotFound)?;
                if name.is_some_and(|name| name != state.arn.name.name) {
                    return Err(Unresolved::Invalid("StreamName and StreamARN mean different streams."));
                }
                Ok(state)
            }
            (Some(name), None) => {
                let name = owner.named(name);
                self.streams.by_name(&name).ok_or(Unresolved::NotFound)
            }
        }
    }
}

/// In whose name a request looks up streams.
pub(crate) fn owner(context: &RequestContext) -> Owner {
    Owner {
        account: context.caller.account,
        region: context.caller.region.clone(),
    }
}
