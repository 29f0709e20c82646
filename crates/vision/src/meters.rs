//! What the pool counts.

use base::metrics::{HistogramVec, IntCounterVec, IntGaugeVec, MetricError, Metrics};

use crate::types::FrameOutcome;

/// The pool's metrics.
pub(crate) struct Meters {
    pub(crate) frames: IntCounterVec,
    pub(crate) frame_seconds: HistogramVec,
    pub(crate) images: IntCounterVec,
    pub(crate) stills: IntCounterVec,
    pub(crate) workers: IntGaugeVec,
    pub(crate) deaths: IntCounterVec,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Result<Meters, MetricError> {
        Ok(Meters {
            frames: metrics.counter(
                "sightglass_vision_frames_total",
                "Frames by what became of them.",
                &["outcome"],
            )?,
            frame_seconds: metrics.latency(
                "sightglass_vision_frame_seconds",
                "From handing a frame to the worker to its faces.",
                &[],
            )?,
            images: metrics.counter(
                "sightglass_vision_images_total",
                "Image requests by result.",
                &["result"],
            )?,
            stills: metrics.counter(
                "sightglass_vision_stills_total",
                "Still images of video frames by result.",
                &["result"],
            )?,
            workers: metrics.gauge("sightglass_vision_workers", "Worker processes that run.", &["kind"])?,
            deaths: metrics.counter(
                "sightglass_vision_worker_deaths_total",
                "Workers that ended without being told to.",
                &["kind"],
            )?,
        })
    }

    pub(crate) fn count(&self, outcome: &FrameOutcome) {
        let label = match outcome {
            FrameOutcome::Analysed { .. } => "analysed",
            FrameOutcome::Skipped { reason, .. } => reason.as_str(),
            FrameOutcome::WorkerRestarted => return,
        };
        self.frames.with_label_values(&[label]).inc();
    }
}
