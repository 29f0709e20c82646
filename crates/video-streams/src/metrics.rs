//! What this room counts. Labels are few and fixed: a server may have ten thousand streams, so that only what was measured
//! of a stream names it, and only for [`limits::MEASURED_STREAMS`] of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::ResourceName;
use base::metrics::{Histogram, IntCounter, IntCounterVec, IntGaugeVec, MetricError, Metrics};

use parking_lot::Mutex;

use crate::deliver::Kind;
use crate::ingest::acks::{Ack, AckError};
use crate::ingest::leniency::Leniency;
use crate::ingest::rules::Report;
use crate::limits;
use crate::state::ConnectionKind;

/// The metrics of the room. Cheap to clone.
#[derive(Clone)]
pub struct VideoMetrics {
    received: IntCounter,
    sent: IntCounter,
    fragments: IntCounterVec,
    stored_bytes: IntCounter,
    acks: IntCounterVec,
    errors: IntCounterVec,
    connections: IntGaugeVec,
    persisted: Histogram,
    lag: Histogram,
    dropped_behind: IntCounter,
    trimmed: IntCounter,
    trimmed_unarchived: IntCounter,
    lenient: IntCounterVec,
    fragment_ms: IntGaugeVec,
    key_interval_ms: IntGaugeVec,
    /// Streams with series of their own, and the connections that measure them.
    measured: Arc<Mutex<BTreeMap<ResourceName, usize>>>,
    deliveries: IntCounterVec,
}

impl VideoMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricError> {
        let counter = |name: &str, help: &str| Ok(metrics.counter(name, help, &[])?.with_label_values::<&str>(&[]));
        let made = VideoMetrics {
            received: counter("sightglass_video_received_bytes_total", "Bytes of PutMedia bodies.")?,
            sent: counter(
                "sightglass_video_sent_bytes_total",
                "Bytes of GetMedia and GetMediaForFragmentList answers.",
            )?,
            fragments: metrics.counter(
                "sightglass_video_fragments_total",
                "Fragments stored: durable, or in the live buffer of a stream without retention.",
                &["kept"],
            )?,
            stored_bytes: counter("sightglass_video_stored_bytes_total", "Bytes of stored fragments.")?,
            acks: metrics.counter("sightglass_video_acks_total", "Acks by event type.", &["type"])?,
            errors: metrics.counter(
                "sightglass_video_ack_errors_total",
                "ERROR acks by their code.",
                &["code"],
            )?,
            connections: metrics.gauge(
                "sightglass_video_connections",
                "Open connections by operation.",
                &["operation"],
            )?,
            persisted: metrics
                .latency(
                    "sightglass_video_persisted_seconds",
                    "From a fragment's last byte until it is durable.",
                    &[],
                )?
                .with_label_values::<&str>(&[]),
            lag: metrics
                .latency(
                    "sightglass_video_consumer_lag_seconds",
                    "Age of the newest frame when a consumer comes to a fragment's end.",
                    &[],
                )?
                .with_label_values::<&str>(&[]),
            dropped_behind: counter(
                "sightglass_video_dropped_behind_total",
                "How often a live reader was too slow and had to go on from storage.",
            )?,
            trimmed: counter(
                "sightglass_video_trimmed_fragments_total",
                "Fragments deleted by retention.",
            )?,
            trimmed_unarchived: counter(
                "sightglass_video_trimmed_unarchived_total",
                "How often a limit of bytes took fragments of a stream that were not archived yet.",
            )?,
            lenient: metrics.counter(
                "sightglass_video_lenient_total",
                "Fragments, clusters and tracks that were taken because a stream's tags relax a rule.",
                &["kind"],
            )?,
            fragment_ms: metrics.gauge(
                "sightglass_video_fragment_duration_milliseconds",
                "Length of a stream's last fragment; of one that was refused as too long, how far it came.",
                &["account", "region", "stream"],
            )?,
            key_interval_ms: metrics.gauge(
                "sightglass_video_key_frame_interval_milliseconds",
                "Between the last two key frames of a stream's first video track; at least so much when a fragment was refused as too long.",
                &["account", "region", "stream"],
            )?,
            measured: Arc::default(),
            deliveries: metrics.counter(
                "sightglass_video_deliveries_total",
                "Notifications and sets of generated images of tagged fragments, by what became of them.",
                &["kind", "result"],
            )?,
        };
        // A series that exists from the start can be alerted on.
        for error in AckError::ALL {
            made.errors.with_label_values(&[error.code()]);
        }
        for leniency in Leniency::ALL {
            made.lenient.with_label_values(&[leniency.name()]);
        }
        Ok(made)
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.inc_by(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }

    pub(crate) fn stored(&self, bytes: u64, durable: bool) {
        self.fragments
            .with_label_values(&[if durable { "durable" } else { "buffer" }])
            .inc();
        self.stored_bytes.inc_by(bytes);
    }

    pub(crate) fn persisted_after(&self, delay: Duration) {
        self.persisted.observe(delay.as_secs_f64());
    }

    pub(crate) fn ack(&self, ack: &Ack) {
        self.acks.with_label_values(&[ack.event_type()]).inc();
        if let Ack::Error(error, _) = ack {
            self.errors.with_label_values(&[error.code()]).inc();
        }
    }

    pub(crate) fn connected(&self, kind: ConnectionKind, change: i64) {
        let operation = match kind {
            ConnectionKind::Put => "PutMedia",
            ConnectionKind::Get => "GetMedia",
            ConnectionKind::List => "GetMediaForFragmentList",
            ConnectionKind::Clip => "GetClip",
        };
        self.connections.with_label_values(&[operation]).add(change);
    }

    pub(crate) fn consumer_lag(&self, millis: u64) {
        self.lag.observe(millis as f64 / 1000.0);
    }

    pub(crate) fn dropped_behind(&self) {
        self.dropped_behind.inc();
    }

    pub(crate) fn delivery(&self, kind: Kind, result: &str) {
        self.deliveries.with_label_values(&[kind.as_str(), result]).inc();
    }

    pub(crate) fn trimmed(&self, fragments: u64) {
        self.trimmed.inc_by(fragments);
    }

    pub(crate) fn trimmed_unarchived(&self) {
        self.trimmed_unarchived.inc();
    }

    pub(crate) fn lenient(&self, leniency: Leniency) {
        self.lenient.with_label_values(&[leniency.name()]).inc();
    }

    /// Series for what a connection measures of its stream; `None` when as many streams as are shown are producing.
    pub(crate) fn measure(&self, stream: &ResourceName) -> Option<Measured> {
        let mut measured = self.measured.lock();
        if !measured.contains_key(stream) && measured.len() >= limits::MEASURED_STREAMS {
            let idle = measured.iter().find(|(_, connections)| **connections == 0);
            let idle = idle.map(|(name, _)| name.clone())?;
            measured.remove(&idle);
            self.remove_series(&idle);
        }
        *measured.entry(stream.clone()).or_default() += 1;
        Some(Measured {
            metrics: self.clone(),
            stream: stream.clone(),
        })
    }

    /// The stream is gone.
    pub(crate) fn forget(&self, stream: &ResourceName) {
        if self.measured.lock().remove(stream).is_some() {
            self.remove_series(stream);
        }
    }

    fn remove_series(&self, stream: &ResourceName) {
        let account = stream.account.to_string();
        let labels = [&*account, stream.region.as_str(), &*stream.name];
        // There is no series where nothing was measured yet.
        let _ = self.fragment_ms.remove_label_values(&labels);
        let _ = self.key_interval_ms.remove_label_values(&labels);
    }
}

/// The series of a stream while a connection measures it. They stay when it is dropped, until their place is needed.
pub(crate) struct Measured {
    metrics: VideoMetrics,
    stream: ResourceName,
}

impl Measured {
    /// A fragment is refused. One that was too long shows how far it came.
    pub fn refused(&self, error: AckError, report: &Report) {
        if error == AckError::FragmentDuration {
            let span_ms = u64::try_from(report.span_ms).unwrap_or(0);
            self.fragment(span_ms, report.since_key_ms.max(report.key_interval_ms));
        }
    }

    /// A fragment is whole.
    pub fn fragment(&self, length_ms: u64, key_interval_ms: Option<i64>) {
        let measured = self.metrics.measured.lock();
        if !measured.contains_key(&self.stream) {
            return;
        }
        let account = self.stream.account.to_string();
        let labels = [&*account, self.stream.region.as_str(), &*self.stream.name];
        let length_ms = i64::try_from(length_ms).unwrap_or(i64::MAX);
        self.metrics.fragment_ms.with_label_values(&labels).set(length_ms);
        if let Some(interval_ms) = key_interval_ms {
            self.metrics.key_interval_ms.with_label_values(&labels).set(interval_ms);
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some(connections) = self.metrics.measured.lock().get_mut(&self.stream) {
            *connections = connections.saturating_sub(1);
        }
    }
}
