//! The metrics registry: one per server, handed to each room, rendered at `GET /metrics` in Prometheus's text format.
//! Label values come from configuration and resource names, never from free text of a caller; what programs send to be shown here is
//! behind [`Metrics::source`], whose owner bounds it.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
pub use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use prometheus::{HistogramOpts, Opts};

/// Latency buckets in seconds, from half a millisecond to ten seconds.
const LATENCY_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 2.0, 5.0, 10.0,
];

/// A handle to the registry; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Registry,
}

/// Two metrics were registered under one name, or a name is not legal. A programming error, found at start.
#[derive(Debug, thiserror::Error)]
#[error("metric {name}: {source}")]
pub struct MetricError {
    /// The name that was refused.
    pub name: String,
    /// What the registry said.
    #[source]
    pub source: prometheus::Error,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter family with the given label names.
    pub fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricError> {
        self.add(name, IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge family with the given label names.
    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricError> {
        self.add(name, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A latency histogram family in seconds.
    pub fn latency(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, MetricError> {
        let opts = HistogramOpts::new(name, help).buckets(LATENCY_SECONDS.to_vec());
        self.add(name, HistogramVec::new(opts, labels))
    }

    /// Families whose series come and go, each with labels of its own: `families` are their names and help texts, and `series` is asked
    /// for them at each rendering.
    pub fn source(
        &self,
        families: &[(&'static str, &'static str, FamilyKind)],
        series: impl Fn() -> Vec<Series> + Send + Sync + 'static,
    ) -> Result<(), MetricError> {
        let name = families.first().map_or("", |(name, ..)| name);
        let wrap = |source| MetricError {
            name: name.to_owned(),
            source,
        };
        let describe = |(name, help, _): &(&'static str, &'static str, FamilyKind)| {
            Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), HashMap::new())
        };
        let source = Source {
            descriptions: families.iter().map(describe).collect::<Result<_, _>>().map_err(wrap)?,
            families: families.to_vec(),
            series: Box::new(series),
        };
        self.registry.register(Box::new(source)).map_err(wrap)
    }

    fn add<C>(&self, name: &str, made: prometheus::Result<C>) -> Result<C, MetricError>
    where
        C: prometheus::core::Collector + Clone + 'static,
    {
        let wrap = |source| MetricError {
            name: name.to_owned(),
            source,
        };
        let collector = made.map_err(wrap)?;
        self.registry.register(Box::new(collector.clone())).map_err(wrap)?;
        Ok(collector)
    }

    /// Everything in Prometheus's text format.
    pub fn render(&self) -> Result<String, MetricError> {
        Self::text(&self.registry.gather())
    }

    /// The same without the series that name something of an account, which carry the label `account`.
    pub fn render_unnamed(&self) -> Result<String, MetricError> {
        let mut families = self.registry.gather();
        for family in &mut families {
            let mut series = family.take_metric();
            series.retain(|one| !one.get_label().iter().any(|label| label.name() == "account"));
            family.set_metric(series);
        }
        families.retain(|family| !family.get_metric().is_empty());
        Self::text(&families)
    }

    fn text(families: &[MetricFamily]) -> Result<String, MetricError> {
        let wrap = |source| MetricError {
            name: "render".to_owned(),
            source,
        };
        let mut text = Vec::new();
        TextEncoder::new().encode(families, &mut text).map_err(wrap)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Whether a family only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// It does.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One line of a family of [`Metrics::source`].
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The family's name.
    pub family: &'static str,
    /// Names and values of its labels; the names are legal and differ from each other.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

struct Source {
    descriptions: Vec<Desc>,
    families: Vec<(&'static str, &'static str, FamilyKind)>,
    series: Box<dyn Fn() -> Vec<Series> + Send + Sync>,
}

impl Collector for Source {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let series = (self.series)();
        let family = |(name, help, kind): &(&'static str, &'static str, FamilyKind)| {
            let mut family = MetricFamily::default();
            family.set_name((*name).to_owned());
            family.set_help((*help).to_owned());
            family.set_field_type(match kind {
                FamilyKind::Counter => MetricType::COUNTER,
                FamilyKind::Gauge => MetricType::GAUGE,
            });
            let own = series.iter().filter(|one| one.family == *name);
            family.set_metric(own.map(|one| metric(one, *kind)).collect());
            family
        };
        self.families.iter().map(family).collect()
    }
}

fn metric(series: &Series, kind: FamilyKind) -> Metric {
    let label = |(name, value): &(String, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.clone());
        pair.set_value(value.clone());
        pair
    };
    let mut metric = Metric::from_label(series.labels.iter().map(label).collect());
    match kind {
        FamilyKind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(series.value);
            metric.set_counter(counter);
        }
        FamilyKind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(series.value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_shows_up_in_the_text_and_a_second_of_its_name_is_refused() {
        let metrics = Metrics::new();
        metrics
            .counter("frames_total", "Frames.", &["stream"])
            .unwrap()
            .with_label_values(&["door"])
            .inc_by(3);
        assert!(metrics.render().unwrap().contains("frames_total{stream=\"door\"} 3"));
        assert!(metrics.counter("frames_total", "Frames.", &["stream"]).is_err());
    }

    #[test]
    fn what_names_something_of_an_account_is_left_out_for_strangers() {
        let metrics = Metrics::new();
        let named = metrics.gauge("length", "Length.", &["account", "stream"]).unwrap();
        named.with_label_values(&["000000000000", "door"]).set(7);
        let total = metrics.counter("frames_total", "Frames.", &["kind"]).unwrap();
        total.with_label_values(&["door"]).inc();
        assert!(metrics.render().unwrap().contains("stream=\"door\""));
        let text = metrics.render_unnamed().unwrap();
        assert!(
            !text.contains("length") && text.contains("frames_total{kind=\"door\"} 1"),
            "{text}"
        );
    }
}
