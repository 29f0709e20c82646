//! What this room counts. Labels are few and fixed: no stream names, since a server may have ten thousand.

use std::time::Duration;

use base::metrics::{Histogram, IntCounter, IntCounterVec, IntGaugeVec, MetricError, Metrics};

use crate::ingest::acks::{Ack, AckError};
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
        };
        // A series that exists from the start can be alerted on.
        for error in AckError::ALL {
            made.errors.with_label_values(&[error.code()]);
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
        };
        self.connections.with_label_values(&[operation]).add(change);
    }

    pub(crate) fn consumer_lag(&self, millis: u64) {
        self.lag.observe(millis as f64 / 1000.0);
    }

    pub(crate) fn dropped_behind(&self) {
        self.dropped_behind.inc();
    }

    pub(crate) fn trimmed(&self, fragments: u64) {
        self.trimmed.inc_by(fragments);
    }
}
