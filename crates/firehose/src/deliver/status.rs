//! How work goes: what DescribeDeliveryStream tells of it, and what is counted. Labels are the delivery stream's ARN.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::metrics::{IntCounterVec, IntGaugeVec, MetricError, Metrics};
use parking_lot::Mutex;

/// The metric families of all work.
#[derive(Clone)]
pub struct Meters {
    incoming_records: IntCounterVec,
    incoming_bytes: IntCounterVec,
    read_records: IntCounterVec,
    read_bytes: IntCounterVec,
    delivered_records: IntCounterVec,
    delivered_bytes: IntCounterVec,
    failed_records: IntCounterVec,
    attempts: IntCounterVec,
    freshness: IntGaugeVec,
    backlog: IntGaugeVec,
}

const STREAM: &[&str] = &["delivery_stream"];
const DESTINATION: &[&str] = &["delivery_stream", "destination"];

impl Meters {
    /// Registers the families.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricError> {
        Ok(Meters {
            incoming_records: metrics.counter(
                "firehose_incoming_records_total",
                "Records put into a delivery stream.",
                STREAM,
            )?,
            incoming_bytes: metrics.counter("firehose_incoming_bytes_total", "Bytes of records put.", STREAM)?,
            read_records: metrics.counter(
                "firehose_read_from_stream_records_total",
                "Records read from the source.",
                STREAM,
            )?,
            read_bytes: metrics.counter(
                "firehose_read_from_stream_bytes_total",
                "Bytes of records read from the source.",
                STREAM,
            )?,
            delivered_records: metrics.counter(
                "firehose_delivered_records_total",
                "Records delivered, by destination.",
                DESTINATION,
            )?,
            delivered_bytes: metrics.counter(
                "firehose_delivered_bytes_total",
                "Bytes of objects and bodies delivered, by destination.",
                DESTINATION,
            )?,
            failed_records: metrics.counter(
                "firehose_failed_records_total",
                "Records that went to the error output, by what failed.",
                &["delivery_stream", "error_output_type"],
            )?,
            attempts: metrics.counter(
                "firehose_delivery_attempts_total",
                "Buffers that were delivered, and attempts that failed.",
                &["delivery_stream", "outcome"],
            )?,
            freshness: metrics.gauge(
                "firehose_data_freshness_seconds",
                "Age of the oldest record of the buffer that was delivered last, when it was.",
                STREAM,
            )?,
            backlog: metrics.gauge(
                "firehose_backlog_bytes",
                "Bytes of records that were put and are not delivered.",
                STREAM,
            )?,
        })
    }
}

/// How one piece of work goes.
pub struct Status {
    meters: Meters,
    arn: String,
    /// Why parts of it fail: the source, the destination's settings, or buffers by their numbers.
    failing: Mutex<BTreeMap<Part, String>>,
    /// The second labels that were used.
    destinations: Mutex<BTreeSet<String>>,
}

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The runner cannot go on.
    Runner,
    /// The source cannot be read.
    Source,
    /// A buffer cannot be delivered.
    Buffer(u64),
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Status({:?})", self.failing.lock())
    }
}

impl Status {
    /// Nothing has failed yet.
    pub fn new(meters: &Meters, arn: &str) -> Arc<Self> {
        Arc::new(Status {
            meters: meters.clone(),
            arn: arn.to_owned(),
            failing: Mutex::default(),
            destinations: Mutex::new(BTreeSet::from(["succeeded".to_owned(), "failed".to_owned()])),
        })
    }

    /// Why nothing is delivered now, if that is so.
    pub fn failure(&self) -> Option<String> {
        self.failing.lock().values().next().cloned()
    }

    /// Nothing can be delivered until the configuration or the destination is changed.
    pub(crate) fn cannot(&self, why: &str) {
        self.fails(Part::Runner, why);
    }

    /// True while a buffer cannot be delivered.
    pub(crate) fn buffers_fail(&self) -> bool {
        self.failing.lock().keys().any(|part| matches!(part, Part::Buffer(_)))
    }

    /// A part fails; said once in the log for each reason.
    pub(crate) fn fails(&self, part: Part, why: &str) {
        let before = self.failing.lock().insert(part, why.to_owned());
        if before.as_deref() != Some(why) {
            tracing::warn!(delivery_stream = self.arn, "delivery fails and is tried again: {why}");
        }
        self.meters.attempts.with_label_values(&[&self.arn, "failed"]).inc();
    }

    /// A part does what it should.
    pub(crate) fn works(&self, part: Part) {
        if self.failing.lock().remove(&part).is_some() {
            tracing::info!(delivery_stream = self.arn, "delivery goes on");
        }
    }

    /// Nothing is known any more of anything.
    pub(crate) fn reset(&self) {
        self.failing.lock().clear();
    }

    pub(crate) fn incoming(&self, records: usize, bytes: usize) {
        let labels = [self.arn.as_str()];
        self.meters
            .incoming_records
            .with_label_values(&labels)
            .inc_by(records as u64);
        self.meters
            .incoming_bytes
            .with_label_values(&labels)
            .inc_by(bytes as u64);
    }

    pub(crate) fn read(&self, records: usize, bytes: usize) {
        let labels = [self.arn.as_str()];
        self.meters
            .read_records
            .with_label_values(&labels)
            .inc_by(records as u64);
        self.meters.read_bytes.with_label_values(&labels).inc_by(bytes as u64);
    }

    pub(crate) fn delivered(&self, destination: &str, records: usize, bytes: usize) {
        let labels = [self.arn.as_str(), destination];
        self.destinations.lock().insert(destination.to_owned());
        self.meters
            .delivered_records
            .with_label_values(&labels)
            .inc_by(records as u64);
        self.meters
            .delivered_bytes
            .with_label_values(&labels)
            .inc_by(bytes as u64);
    }

    pub(crate) fn failed_records(&self, kind: &str, records: usize) {
        let labels = [self.arn.as_str(), kind];
        self.destinations.lock().insert(kind.to_owned());
        self.meters
            .failed_records
            .with_label_values(&labels)
            .inc_by(records as u64);
    }

    pub(crate) fn succeeded(&self, age_s: i64) {
        self.meters.attempts.with_label_values(&[&self.arn, "succeeded"]).inc();
        self.meters.freshness.with_label_values(&[&self.arn]).set(age_s);
    }

    pub(crate) fn backlog(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.meters.backlog.with_label_values(&[&self.arn]).set(bytes);
    }

    /// Its series end.
    pub(crate) fn forget(&self) {
        let labels = [self.arn.as_str()];
        let meters = &self.meters;
        for family in [
            &meters.incoming_records,
            &meters.incoming_bytes,
            &meters.read_records,
            &meters.read_bytes,
        ] {
            // There is none where nothing was counted.
            let _ = family.remove_label_values(&labels);
        }
        for family in [&meters.freshness, &meters.backlog] {
            let _ = family.remove_label_values(&labels);
        }
        for destination in self.destinations.lock().iter() {
            let labels = [self.arn.as_str(), destination.as_str()];
            for family in [
                &meters.delivered_records,
                &meters.delivered_bytes,
                &meters.failed_records,
                &meters.attempts,
            ] {
                let _ = family.remove_label_values(&labels);
            }
        }
    }
}
