//! The pages that need no signature: `/health`, `/metrics` and `/console/`.

use std::sync::Arc;

use base::Clock;
use base::metrics::Metrics;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

/// One thing that the health page tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What was looked at, e.g. `storage`.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// More, for a person; empty when there is nothing to say.
    pub detail: String,
}

/// Gives the present state of the server's parts; called at each `GET /health`, so it must be quick.
pub type HealthSource = Arc<dyn Fn() -> Vec<HealthCheck> + Send + Sync>;

/// An unsigned page.
pub(crate) struct Page {
    pub(crate) name: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

/// The pages and what they show.
pub(crate) struct Pages {
    pub(crate) health: HealthSource,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started: std::time::Duration,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Pages {
    /// The page of this path, `None` where the path belongs to the APIs. Who does not ask from this machine is not told the
    /// names of streams, since nobody has signed.
    pub(crate) fn page(&self, method: &Method, path: &str, from_here: bool) -> Option<Page> {
        let name = match path {
            "/health" => "health",
            "/metrics" => "metrics",
            "/console" => "console",
            _ if path.starts_with("/console/") => "console",
            _ => return None,
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Some(Page {
                name,
                status: StatusCode::METHOD_NOT_ALLOWED,
                content_type: TEXT,
                body: Bytes::from_static(b"This page answers GET and HEAD.\n"),
            });
        }
        Some(match name {
            "health" => self.health(),
            "metrics" => self.metrics(from_here),
            _ => Page {
                name,
                status: StatusCode::NOT_FOUND,
                content_type: TEXT,
                body: Bytes::from_static(b"The web console is not part of this build.\n"),
            },
        })
    }

    fn health(&self) -> Page {
        let checks = (self.health)();
        let ok = checks.iter().all(|check| check.ok);
        let uptime = self.clock.monotonic().saturating_sub(self.started);
        let checks: Map<String, Value> = checks
            .into_iter()
            .map(|check| (check.name, json!({ "ok": check.ok, "detail": check.detail })))
            .collect();
        let body = json!({
            "status": if ok { "ok" } else { "degraded" },
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": uptime.as_secs(),
            "checks": checks,
        });
        Page {
            name: "health",
            status: if ok {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            },
            content_type: JSON,
            body: Bytes::from(format!("{body}\n")),
        }
    }

    fn metrics(&self, names: bool) -> Page {
        let rendered = match names {
            true => self.metrics.render(),
            false => self.metrics.render_unnamed(),
        };
        let (status, content_type, body) = match rendered {
            Ok(text) => (StatusCode::OK, PROMETHEUS, Bytes::from(text)),
            Err(error) => {
                tracing::error!(%error, "metrics could not be rendered");
                let text = Bytes::from_static(b"The metrics could not be rendered; the log says why.\n");
                (StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
            }
        };
        Page {
            name: "metrics",
            status,
            content_type,
            body,
        }
    }
}
