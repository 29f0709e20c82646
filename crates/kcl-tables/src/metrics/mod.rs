//! CloudWatch's PutMetricData: what programs measure goes to `/metrics`, where the operator's own monitoring takes it from. Nothing is
//! kept: a metric is what its program sent since this server started. It knows nothing of what the metrics mean.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::metrics::{FamilyKind, IntCounter, MetricError, Metrics, Series};
use base::{ApiError, Caller, Clock, Handle, Reply, Request};
use parking_lot::Mutex;
use wire::Registry;
use wire::cloudwatch::{Dimension, MetricDatum, PutMetricDataInput, op};

use crate::limits::{METRIC_IDLE, METRIC_SERIES_MAX, METRIC_VALUE_MAX, METRICS_PER_CALL_MAX};

const SAMPLES: &str = "client_metric_samples_total";
const SUM: &str = "client_metric_sum";
const MINIMUM: &str = "client_metric_minimum";
const MAXIMUM: &str = "client_metric_maximum";
const LAST: &str = "client_metric_last";

const FAMILIES: [(&str, &str, FamilyKind); 5] = [
    (
        SAMPLES,
        "Samples of a metric that a program sent with PutMetricData.",
        FamilyKind::Counter,
    ),
    (SUM, "Sum of these samples.", FamilyKind::Gauge),
    (MINIMUM, "Smallest of these samples.", FamilyKind::Gauge),
    (MAXIMUM, "Largest of these samples.", FamilyKind::Gauge),
    (LAST, "Mean of the samples that were sent last.", FamilyKind::Gauge),
];

/// What a metric is known by, as labels: account, region, namespace, metric, unit, and its dimensions.
type Labels = Vec<(String, String)>;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Samples {
    count: f64,
    sum: f64,
    minimum: f64,
    maximum: f64,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    all: Samples,
    last: f64,
    at: Duration,
}

type Kepts = Arc<Mutex<HashMap<Labels, Kept>>>;

/// The metrics of programs.
pub struct ClientMetrics {
    clock: Arc<dyn Clock>,
    kept: Kepts,
    refused: IntCounter,
}

impl std::fmt::Debug for ClientMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientMetrics")
    }
}

impl ClientMetrics {
    /// Shows at `metrics` what programs send.
    pub fn new(metrics: &Metrics, clock: Arc<dyn Clock>) -> Result<Arc<Self>, MetricError> {
        let refused = metrics.counter(
            "client_metrics_refused_total",
            "Metrics of programs that were left out because there were too many.",
            &[],
        )?;
        let kept = Kepts::default();
        let shown = Arc::clone(&kept);
        metrics.source(&FAMILIES, move || series(&shown))?;
        Ok(Arc::new(ClientMetrics {
            clock,
            kept,
            refused: refused.with_label_values(&[] as &[&str]),
        }))
    }

    /// Lets the registry call this service.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register::<op::PutMetricData, _>(self);
    }

    fn keep(&self, found: Vec<(Labels, Samples)>) {
        let now = self.clock.monotonic();
        let mut kept = self.kept.lock();
        let mut tidied = false;
        for (labels, samples) in found {
            let last = if samples.count > 0.0 {
                samples.sum / samples.count
            } else {
                0.0
            };
            if let Some(known) = kept.get_mut(&labels) {
                known.all = Samples {
                    count: known.all.count + samples.count,
                    sum: known.all.sum + samples.sum,
                    minimum: known.all.minimum.min(samples.minimum),
                    maximum: known.all.maximum.max(samples.maximum),
                };
                (known.last, known.at) = (last, now);
                continue;
            }
            if kept.len() >= METRIC_SERIES_MAX && !std::mem::replace(&mut tidied, true) {
                kept.retain(|_, known| now.saturating_sub(known.at) < METRIC_IDLE);
            }
            if kept.len() >= METRIC_SERIES_MAX {
                self.refused.inc();
                continue;
            }
            let all = samples;
            kept.insert(labels, Kept { all, last, at: now });
        }
    }
}

fn series(kept: &Kepts) -> Vec<Series> {
    let kept = kept.lock();
    let of = |(labels, kept): (&Labels, &Kept)| {
        let values = [
            (SAMPLES, kept.all.count),
            (SUM, kept.all.sum),
            (MINIMUM, kept.all.minimum),
            (MAXIMUM, kept.all.maximum),
            (LAST, kept.last),
        ];
        let labels = labels.clone();
        values.map(|(family, value)| Series {
            family,
            labels: labels.clone(),
            value,
        })
    };
    kept.iter().flat_map(of).collect()
}

impl Handle<op::PutMetricData> for ClientMetrics {
    async fn handle(&self, request: Request<PutMetricDataInput>) -> Result<Reply<()>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        if input.namespace.to_ascii_uppercase().starts_with("AWS/") {
            return Err(invalid("The value AWS/ for parameter Namespace is invalid."));
        }
        let of_entities = input.entity_metric_data.unwrap_or_default();
        let of_entities = of_entities
            .into_iter()
            .flat_map(|one| one.metric_data.unwrap_or_default());
        let data: Vec<MetricDatum> = input
            .metric_data
            .unwrap_or_default()
            .into_iter()
            .chain(of_entities)
            .collect();
        if data.is_empty() {
            return Err(ApiError::client(
                "MissingParameter",
                "The parameter MetricData is required.",
            ));
        }
        if data.len() > METRICS_PER_CALL_MAX {
            return Err(invalid(format!(
                "The collection MetricData must not have a size greater than {METRICS_PER_CALL_MAX}."
            )));
        }
        let mut found = Vec::with_capacity(data.len());
        for (index, datum) in data.iter().enumerate() {
            let samples = samples(datum, index + 1)?;
            found.push((labels(caller, &input.namespace, datum), samples));
        }
        self.keep(found);
        Ok(().into())
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterValue", message)
}

fn samples(datum: &MetricDatum, number: usize) -> Result<Samples, ApiError> {
    let at = |name: &str| format!("MetricData.member.{number}.{name}");
    let check = |value: f64, name: &str| match value.abs() <= METRIC_VALUE_MAX {
        true => Ok(value),
        false => Err(invalid(format!(
            "The value {value} for parameter {} is invalid.",
            at(name)
        ))),
    };
    let both = |a: &str, b: &str| {
        Err(ApiError::client(
            "InvalidParameterCombination",
            format!(
                "The parameters {} and {} are mutually exclusive and you have specified both.",
                at(a),
                at(b)
            ),
        ))
    };
    let values = datum.values.as_deref().filter(|values| !values.is_empty());
    match (datum.value, &datum.statistic_values, values) {
        (Some(_), Some(_), _) => both("Value", "StatisticValues"),
        (Some(_), _, Some(_)) => both("Value", "Values"),
        (_, Some(_), Some(_)) => both("StatisticValues", "Values"),
        (Some(value), None, None) => {
            let value = check(value, "Value")?;
            Ok(Samples {
                count: 1.0,
                sum: value,
                minimum: value,
                maximum: value,
            })
        }
        (None, Some(statistics), None) => {
            let count = check(statistics.sample_count, "StatisticValues.SampleCount")?;
            if count < 0.0 {
                return Err(invalid(format!(
                    "The value {count} for parameter {} is invalid.",
                    at("StatisticValues.SampleCount")
                )));
            }
            Ok(Samples {
                count,
                sum: check(statistics.sum, "StatisticValues.Sum")?,
                minimum: check(statistics.minimum, "StatisticValues.Minimum")?,
                maximum: check(statistics.maximum, "StatisticValues.Maximum")?,
            })
        }
        (None, None, Some(values)) => many(values, datum.counts.as_deref(), &at, check),
        (None, None, None) => Err(ApiError::client(
            "InvalidParameterCombination",
            format!(
                "At least one of the parameters {}, {}, or {} must be specified.",
                at("Value"),
                at("Values"),
                at("StatisticValues")
            ),
        )),
    }
}

fn many(
    values: &[f64],
    counts: Option<&[f64]>,
    at: &impl Fn(&str) -> String,
    check: impl Fn(f64, &str) -> Result<f64, ApiError>,
) -> Result<Samples, ApiError> {
    if counts.is_some_and(|counts| counts.len() != values.len()) {
        return Err(invalid(format!(
            "The parameters {} and {} must be of the same length.",
            at("Values"),
            at("Counts")
        )));
    }
    let mut samples = Samples {
        count: 0.0,
        sum: 0.0,
        minimum: f64::INFINITY,
        maximum: f64::NEG_INFINITY,
    };
    for (index, value) in values.iter().enumerate() {
        let value = check(*value, "Values")?;
        let count = counts.and_then(|counts| counts.get(index)).copied().unwrap_or(1.0);
        if check(count, "Counts")? < 0.0 {
            return Err(invalid(format!(
                "The value {count} for parameter {} is invalid.",
                at("Counts")
            )));
        }
        samples.count += count;
        samples.sum += value * count;
        samples.minimum = samples.minimum.min(value);
        samples.maximum = samples.maximum.max(value);
    }
    Ok(samples)
}

fn labels(caller: &Caller, namespace: &str, datum: &MetricDatum) -> Labels {
    let mut labels = vec![
        ("account".to_owned(), caller.account.to_string()),
        ("region".to_owned(), caller.region.to_string()),
        ("namespace".to_owned(), namespace.to_owned()),
        ("metric".to_owned(), datum.metric_name.clone()),
        (
            "unit".to_owned(),
            datum.unit.map_or("None", |unit| unit.as_str()).to_owned(),
        ),
    ];
    let mut dimensions: Vec<&Dimension> = datum.dimensions.iter().flatten().collect();
    dimensions.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    for dimension in dimensions {
        let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let base: String = "dimension_".chars().chain(dimension.name.chars().map(legal)).collect();
        // Names that differ in what a label cannot have are told apart by a number.
        let mut name = base.clone();
        let mut number = 2;
        while labels.iter().any(|(known, _)| *known == name) {
            name = format!("{base}_{number}");
            number += 1;
        }
        labels.push((name, dimension.value.clone()));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ManualClock;
    use wire::cloudwatch::StatisticSet;

    fn datum(name: &str) -> MetricDatum {
        MetricDatum {
            metric_name: name.to_owned(),
            ..MetricDatum::default()
        }
    }

    #[test]
    fn every_way_of_sending_samples_counts_the_same() {
        let one = MetricDatum {
            value: Some(3.0),
            ..datum("m")
        };
        let set = MetricDatum {
            statistic_values: Some(StatisticSet {
                sample_count: 3.0,
                sum: 6.0,
                minimum: 1.0,
                maximum: 3.0,
            }),
            ..datum("m")
        };
        let list = MetricDatum {
            values: Some(vec![1.0, 2.5]),
            counts: Some(vec![1.0, 2.0]),
            ..datum("m")
        };
        let expect = |count, sum, minimum, maximum| Samples {
            count,
            sum,
            minimum,
            maximum,
        };
        assert_eq!(samples(&one, 1), Ok(expect(1.0, 3.0, 3.0, 3.0)));
        assert_eq!(samples(&set, 1), Ok(expect(3.0, 6.0, 1.0, 3.0)));
        assert_eq!(samples(&list, 1), Ok(expect(3.0, 6.0, 1.0, 2.5)));
        let code = |datum: MetricDatum| samples(&datum, 1).unwrap_err().code.into_owned();
        assert_eq!(code(datum("m")), "InvalidParameterCombination");
        let both = MetricDatum {
            value: Some(1.0),
            ..set
        };
        assert_eq!(code(both), "InvalidParameterCombination");
        let huge = MetricDatum {
            value: Some(1e200),
            ..datum("m")
        };
        assert_eq!(code(huge), "InvalidParameterValue");
        let uneven = MetricDatum {
            counts: Some(vec![1.0]),
            ..list
        };
        assert_eq!(code(uneven), "InvalidParameterValue");
    }

    #[test]
    fn a_flood_of_names_is_refused_and_counted_until_old_ones_are_idle() {
        let metrics = Metrics::new();
        let clock = ManualClock::at(base::Timestamp::from_millis(0));
        let client = ClientMetrics::new(&metrics, clock.clone()).unwrap();
        let one = Samples {
            count: 1.0,
            sum: 2.0,
            minimum: 2.0,
            maximum: 2.0,
        };
        let label = |i: usize| {
            vec![
                ("account".to_owned(), "0".to_owned()),
                ("metric".to_owned(), format!("m{i}")),
            ]
        };
        client.keep((0..METRIC_SERIES_MAX + 5).map(|i| (label(i), one)).collect());
        let text = metrics.render().unwrap();
        assert!(text.contains("client_metrics_refused_total 5"), "{}", &text[..200]);
        assert!(text.contains("client_metric_sum{account=\"0\",metric=\"m7\"} 2"));
        assert!(!metrics.render_unnamed().unwrap().contains("m7"));
        clock.advance(METRIC_IDLE);
        client.keep(vec![(label(METRIC_SERIES_MAX), one)]);
        let text = metrics.render().unwrap();
        assert!(text.contains(&format!("metric=\"m{METRIC_SERIES_MAX}\"")) && !text.contains("\"m7\""));
    }
}
