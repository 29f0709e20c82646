//! What is counted of processors. The label is the processor's ARN.

use base::metrics::{HistogramVec, IntCounterVec, MetricError, Metrics};
use vision::SkipReason;

/// The metric families of all processors.
#[derive(Clone)]
pub(crate) struct ProcessorMetrics {
    frames: IntCounterVec,
    faces: IntCounterVec,
    records: IntCounterVec,
    rejected: IntCounterVec,
    restarts: IntCounterVec,
    delay: HistogramVec,
    labels: IntCounterVec,
    notifications: IntCounterVec,
}

impl ProcessorMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, MetricError> {
        Ok(ProcessorMetrics {
            frames: metrics.counter(
                "sightglass_processor_frames_total",
                "Frames that a stream processor was given, by what became of them.",
                &["processor", "outcome"],
            )?,
            faces: metrics.counter(
                "sightglass_processor_faces_total",
                "Faces in analysed frames.",
                &["processor", "outcome"],
            )?,
            records: metrics.counter(
                "sightglass_processor_records_total",
                "Records written to the output.",
                &["processor"],
            )?,
            rejected: metrics.counter(
                "sightglass_processor_rejected_fragment_records_total",
                "Records of fragments that were refused or cut off afterwards.",
                &["processor"],
            )?,
            restarts: metrics.counter(
                "sightglass_processor_retries_total",
                "How often a run was begun again after a failure that may pass.",
                &["processor"],
            )?,
            delay: metrics.latency(
                "sightglass_processor_delay_seconds",
                "From the arrival of a live frame's last byte until its record can be read.",
                &["processor"],
            )?,
            labels: metrics.counter(
                "sightglass_processor_labels_total",
                "Labels found for the first time in a session.",
                &["processor", "label"],
            )?,
            notifications: metrics.counter(
                "sightglass_processor_notifications_total",
                "Notifications of label detection, by what became of them.",
                &["processor", "outcome"],
            )?,
        })
    }

    /// A notification of a processor needs no further sending.
    pub(crate) fn notification(&self, arn: &str, outcome: &str) {
        self.notifications.with_label_values(&[arn, outcome]).inc();
    }

    pub(crate) fn of(&self, arn: &str) -> RunMetrics {
        RunMetrics {
            families: self.clone(),
            arn: arn.to_owned(),
        }
    }
}

/// The metrics of one processor.
#[derive(Clone)]
pub(crate) struct RunMetrics {
    families: ProcessorMetrics,
    arn: String,
}

impl RunMetrics {
    pub(crate) fn analysed(&self) {
        self.families.frames.with_label_values(&[&self.arn, "analysed"]).inc();
    }

    pub(crate) fn skipped(&self, reason: SkipReason) {
        self.families
            .frames
            .with_label_values(&[self.arn.as_str(), reason.as_str()])
            .inc();
    }

    /// A frame that never reached vision.
    pub(crate) fn dropped(&self, reason: &str) {
        self.families
            .frames
            .with_label_values(&[self.arn.as_str(), reason])
            .inc();
    }

    pub(crate) fn face(&self, matched: bool) {
        let outcome = if matched { "matched" } else { "unknown" };
        self.families
            .faces
            .with_label_values(&[self.arn.as_str(), outcome])
            .inc();
    }

    pub(crate) fn label(&self, label: &str) {
        self.families
            .labels
            .with_label_values(&[self.arn.as_str(), label])
            .inc();
    }

    pub(crate) fn records(&self, count: u64) {
        self.families.records.with_label_values(&[&self.arn]).inc_by(count);
    }

    pub(crate) fn rejected(&self, count: u64) {
        self.families.rejected.with_label_values(&[&self.arn]).inc_by(count);
    }

    pub(crate) fn retried(&self) {
        self.families.restarts.with_label_values(&[&self.arn]).inc();
    }

    pub(crate) fn delay(&self, seconds: f64) {
        self.families.delay.with_label_values(&[&self.arn]).observe(seconds);
    }
}
