//! What a worker told last, and what is counted of all workers.

use base::ResourceName;
use base::metrics::{IntCounterVec, IntGaugeVec, MetricError, Metrics};
use parking_lot::Mutex;
use serde::Serialize;
use sql::application::Event;

/// What is known of an application's worker; forgotten when the server ends.
#[derive(Debug, Default)]
pub struct Live(Mutex<Told>);

/// What a worker told.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Told {
    /// Records read since the worker began.
    pub records_in: u64,
    /// Rows written.
    pub records_out: u64,
    /// Rows that came too late for their window.
    pub late: u64,
    /// Records that do not fit.
    pub errors: u64,
    /// The least watermark.
    pub watermark: Option<i64>,
    /// How far the slowest shard is behind.
    pub millis_behind_latest: Option<u64>,
    /// Bytes of state in memory and on disk.
    pub state_bytes: u64,
    /// The last checkpoint.
    pub checkpoint: Option<u64>,
    /// Its bytes.
    pub checkpoint_bytes: u64,
    /// How often a worker was started in this life of the server.
    pub starts: u64,
    /// Why the last worker ended, if it was not told to.
    pub last_failure: Option<String>,
}

impl Live {
    /// What was told last.
    pub fn told(&self) -> Told {
        self.0.lock().clone()
    }

    /// A worker is started.
    pub fn started(&self) {
        let mut told = self.0.lock();
        let before = std::mem::take(&mut *told);
        told.starts = before.starts + 1;
        told.last_failure = before.last_failure;
        (told.checkpoint, told.checkpoint_bytes) = (before.checkpoint, before.checkpoint_bytes);
    }

    /// Why a worker ended.
    pub fn failed(&self, why: &str) {
        self.0.lock().last_failure = Some(why.to_owned());
    }

    /// Takes over what an event tells, and counts it.
    pub fn note(&self, event: &Event, name: &ResourceName, meters: &Meters) {
        let mut told = self.0.lock();
        match event {
            Event::Running => told.last_failure = None,
            Event::Checkpoint { id, bytes, .. } => {
                (told.checkpoint, told.checkpoint_bytes) = (Some(*id), *bytes);
                meters.checkpoints.with_label_values(&labels(name)).inc();
            }
            Event::Progress {
                records_in,
                records_out,
                late,
                errors,
                watermark,
                millis_behind_latest,
                state_bytes,
            } => {
                let labels = labels(name);
                let more = |counter: &IntCounterVec, new: u64, old: u64| {
                    counter.with_label_values(&labels).inc_by(new.saturating_sub(old));
                };
                more(&meters.records_in, *records_in, told.records_in);
                more(&meters.records_out, *records_out, told.records_out);
                more(&meters.late, *late, told.late);
                more(&meters.errors, *errors, told.errors);
                let gauge = |gauge: &IntGaugeVec, value: u64| {
                    let value = i64::try_from(value).unwrap_or(i64::MAX);
                    gauge.with_label_values(&labels).set(value);
                };
                gauge(&meters.behind, millis_behind_latest.unwrap_or(0));
                gauge(&meters.state, *state_bytes);
                (told.records_in, told.records_out) = (*records_in, *records_out);
                (told.late, told.errors) = (*late, *errors);
                (told.watermark, told.millis_behind_latest) = (*watermark, *millis_behind_latest);
                told.state_bytes = *state_bytes;
            }
            _ => {}
        }
    }
}

/// What applications count.
#[derive(Clone)]
pub struct Meters {
    records_in: IntCounterVec,
    records_out: IntCounterVec,
    late: IntCounterVec,
    errors: IntCounterVec,
    checkpoints: IntCounterVec,
    restarts: IntCounterVec,
    behind: IntGaugeVec,
    state: IntGaugeVec,
}

/// The labels of an application.
const LABELS: &[&str] = &["account", "region", "application"];

fn labels(name: &ResourceName) -> [String; 3] {
    [name.account.to_string(), name.region.to_string(), name.name.clone()]
}

impl Meters {
    /// Registers the counters.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricError> {
        let counter = |name: &str, help: &str| metrics.counter(name, help, LABELS);
        let gauge = |name: &str, help: &str| metrics.gauge(name, help, LABELS);
        Ok(Meters {
            records_in: counter(
                "sightglass_analytics_records_in_total",
                "Records that applications read.",
            )?,
            records_out: counter(
                "sightglass_analytics_records_out_total",
                "Rows that applications wrote.",
            )?,
            late: counter(
                "sightglass_analytics_late_total",
                "Rows that came too late for their window.",
            )?,
            errors: counter(
                "sightglass_analytics_errors_total",
                "Records that do not fit the columns of their input.",
            )?,
            checkpoints: counter(
                "sightglass_analytics_checkpoints_total",
                "Checkpoints that are durable.",
            )?,
            restarts: counter(
                "sightglass_analytics_restarts_total",
                "Workers that ended without being told to.",
            )?,
            behind: gauge(
                "sightglass_analytics_millis_behind_latest",
                "How far the slowest shard of an application is behind.",
            )?,
            state: gauge(
                "sightglass_analytics_state_bytes",
                "Bytes of state in memory and on disk.",
            )?,
        })
    }

    /// A worker ended without being told to.
    pub fn restarted(&self, name: &ResourceName) {
        self.restarts.with_label_values(&labels(name)).inc();
    }

    /// Forgets an application that is gone.
    pub fn forget(&self, name: &ResourceName) {
        let labels = labels(name);
        let counters = [
            &self.records_in,
            &self.records_out,
            &self.late,
            &self.errors,
            &self.checkpoints,
            &self.restarts,
        ];
        for counter in counters {
            let _ = counter.remove_label_values(&labels);
        }
        for gauge in [&self.behind, &self.state] {
            let _ = gauge.remove_label_values(&labels);
        }
    }
}
