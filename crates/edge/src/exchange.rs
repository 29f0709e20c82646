//! The record of one request from its head to the last byte of its answer: the access log line and the metrics. It is
//! written when it is dropped, so that a request whose client went away in the middle is counted too. It holds no header,
//! no query string and no body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::metrics::{HistogramVec, IntCounter, IntCounterVec, IntGauge, MetricError, Metrics};
use base::{AccountId, Clock};

/// Status logged for a request whose client left before it had an answer; no client ever sees it.
const STATUS_ABANDONED: u16 = 499;

/// The edge's metric families.
pub(crate) struct EdgeMetrics {
    requests: IntCounterVec,
    latency: HistogramVec,
    pub(crate) connections: IntGauge,
    pub(crate) connections_refused: IntCounter,
    pub(crate) bytes_in: IntCounter,
    pub(crate) bytes_out: IntCounter,
    pub(crate) panics: IntCounter,
}

impl EdgeMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, MetricError> {
        let none: &[&str; 0] = &[];
        let bytes = metrics.counter(
            "sightglass_http_bytes_total",
            "Bytes on the wire, heads and TLS included.",
            &["direction"],
        )?;
        Ok(EdgeMetrics {
            requests: metrics.counter(
                "sightglass_http_requests_total",
                "Requests by outcome.",
                &["service", "operation", "status"],
            )?,
            latency: metrics.latency(
                "sightglass_http_answer_seconds",
                "From the request's head to the answer's head.",
                &["service", "operation"],
            )?,
            connections: metrics
                .gauge("sightglass_http_connections", "Open connections.", none)?
                .with_label_values(none),
            connections_refused: metrics
                .counter(
                    "sightglass_http_connections_refused_total",
                    "Connections beyond the limit.",
                    none,
                )?
                .with_label_values(none),
            bytes_in: bytes.with_label_values(&["in"]),
            bytes_out: bytes.with_label_values(&["out"]),
            panics: metrics
                .counter("sightglass_http_panics_total", "Handlers that panicked.", none)?
                .with_label_values(none),
        })
    }
}

/// One request and its answer.
pub(crate) struct Exchange {
    metrics: Arc<EdgeMetrics>,
    clock: Arc<dyn Clock>,
    started: Duration,
    request_id: Arc<str>,
    method: http::Method,
    path: Box<str>,
    service: &'static str,
    operation: &'static str,
    account: Option<AccountId>,
    status: u16,
    error: Option<Box<str>>,
    body_bytes_in: Arc<AtomicU64>,
    body_bytes_out: u64,
}

impl Exchange {
    pub(crate) fn begin(
        metrics: Arc<EdgeMetrics>,
        clock: Arc<dyn Clock>,
        request_id: Arc<str>,
        method: &http::Method,
        path: &str,
    ) -> Self {
        Exchange {
            started: clock.monotonic(),
            metrics,
            clock,
            request_id,
            method: method.clone(),
            path: path.into(),
            service: "-",
            operation: "-",
            account: None,
            status: STATUS_ABANDONED,
            error: None,
            body_bytes_in: Arc::default(),
            body_bytes_out: 0,
        }
    }

    pub(crate) fn request_id(&self) -> &Arc<str> {
        &self.request_id
    }

    pub(crate) fn panicked(&self) {
        self.metrics.panics.inc();
    }

    /// The counter that the request's body adds to.
    pub(crate) fn body_bytes_in(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.body_bytes_in)
    }

    pub(crate) fn name(&mut self, service: &'static str, operation: &'static str) {
        self.service = service;
        self.operation = operation;
    }

    pub(crate) fn account(&mut self, account: AccountId) {
        self.account = Some(account);
    }

    /// What went wrong, for the log.
    pub(crate) fn error(&mut self, error: &base::ApiError) {
        self.error = Some(error.to_string().into());
    }

    /// [`Self::error`] in words.
    pub(crate) fn error_text(&mut self, error: String) {
        self.error = Some(error.into());
    }

    /// The answer's head is ready.
    pub(crate) fn head(&mut self, status: u16) {
        self.status = status;
        let seconds = self.clock.monotonic().saturating_sub(self.started).as_secs_f64();
        self.metrics
            .latency
            .with_label_values(&[self.service, self.operation])
            .observe(seconds);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.body_bytes_out += bytes as u64;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let status = self.status;
        self.metrics
            .requests
            .with_label_values(&[self.service, self.operation, status.to_string().as_str()])
            .inc();
        let duration_ms = self.clock.monotonic().saturating_sub(self.started).as_secs_f64() * 1000.0;
        tracing::info!(
            target: "sightglass::access",
            request_id = %self.request_id,
            method = %self.method,
            path = %self.path,
            service = self.service,
            operation = self.operation,
            account = self.account.map(tracing::field::display),
            status,
            error = self.error.as_deref(),
            bytes_in = self.body_bytes_in.load(Ordering::Relaxed),
            bytes_out = self.body_bytes_out,
            duration_ms,
        );
    }
}
