//! `firehose describe`: a table of how delivery streams do. Status and last error are DescribeDeliveryStream's; the lag is
//! read from the server's metrics page, which AWS does not have.

use std::fmt::Write as _;

use client::Client;
use serde_json::{Value, json};

use super::super::Failure;
use super::super::paint::{Paint, Tint, harmless};
use super::super::progress;
use super::{call, names};

/// What is shown of one.
struct Shown {
    name: String,
    status: String,
    source: String,
    destination: String,
    /// Age of the oldest record when the last buffer was delivered, in seconds.
    lag_seconds: Option<i64>,
    backlog_bytes: Option<u64>,
    error: Option<String>,
    described: Value,
}

/// Prints them.
pub async fn describe(client: &Client, wanted: &[String], as_json: bool, paint: Paint) -> Result<(), Failure> {
    let wanted = match wanted {
        [] => names(client).await?,
        some => some.to_vec(),
    };
    let metrics = client.page("/metrics").await.unwrap_or_default();
    let mut shown = Vec::with_capacity(wanted.len());
    for name in &wanted {
        let answer = call(client, "DescribeDeliveryStream", &json!({ "DeliveryStreamName": name })).await?;
        let described = answer.get("DeliveryStreamDescription").cloned().unwrap_or_default();
        shown.push(Shown::of(described, &metrics));
    }
    if as_json {
        for one in &shown {
            println!(
                "{}",
                json!({ "name": one.name, "status": one.status, "source": one.source, "destination": one.destination,
                    "lag_seconds": one.lag_seconds, "backlog_bytes": one.backlog_bytes, "last_error": one.error,
                    "description": one.described })
            );
        }
    } else {
        print!("{}", table(&shown, paint));
    }
    Ok(())
}

impl Shown {
    fn of(described: Value, metrics: &str) -> Self {
        let text = |path: &str| described.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let arn = text("/DeliveryStreamARN").unwrap_or_default();
        let last = |arn: String| arn.rsplit(['/', ':']).next().unwrap_or_default().to_owned();
        let source = text("/Source/KinesisStreamSourceDescription/KinesisStreamARN");
        Shown {
            name: text("/DeliveryStreamName").unwrap_or_default(),
            status: text("/DeliveryStreamStatus").unwrap_or_default(),
            source: source.map_or_else(|| "put".to_owned(), last),
            destination: destination(&described),
            lag_seconds: value_of(metrics, "firehose_data_freshness_seconds", &arn).map(|value| value as i64),
            backlog_bytes: value_of(metrics, "firehose_backlog_bytes", &arn).map(|value| value as u64),
            error: text("/FailureDescription/Details"),
            described,
        }
    }
}

/// Where it delivers to, in a word.
fn destination(described: &Value) -> String {
    let first = described.pointer("/Destinations/0").and_then(Value::as_object);
    let Some(first) = first else { return String::new() };
    if let Some(s3) = first.get("ExtendedS3DestinationDescription") {
        let text = |member: &str| s3.get(member).and_then(Value::as_str).unwrap_or_default();
        let bucket = text("BucketARN").rsplit(':').next().unwrap_or_default();
        return format!("s3://{bucket}/{}", text("Prefix"));
    }
    let other = first.keys().find_map(|key| key.strip_suffix("DestinationDescription"));
    let url = first
        .values()
        .find_map(|of| of.pointer("/EndpointConfiguration/Url")?.as_str());
    url.or(other).unwrap_or_default().to_owned()
}

/// The value of a delivery stream's gauge on a metrics page.
fn value_of(page: &str, family: &str, arn: &str) -> Option<f64> {
    let wanted = format!("{family}{{delivery_stream=\"{arn}\"}} ");
    page.lines()
        .find_map(|line| line.strip_prefix(&wanted)?.trim().parse().ok())
}

fn table(shown: &[Shown], paint: Paint) -> String {
    let head = ["NAME", "STATUS", "FROM", "TO", "LAG", "WAITING"].map(str::to_owned);
    let row = |one: &Shown| {
        [
            harmless(&one.name).into_owned(),
            one.status.clone(),
            harmless(&one.source).into_owned(),
            harmless(&one.destination).into_owned(),
            one.lag_seconds.map_or_else(|| "-".to_owned(), |lag| format!("{lag} s")),
            one.backlog_bytes.map_or_else(|| "-".to_owned(), progress::bytes),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(shown.iter().map(row)).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let tint = match (number, column) {
                (0, _) => Tint::Dim,
                (_, 0) => Tint::Name,
                (_, 4 | 5) => Tint::Number,
                _ => Tint::Text,
            };
            paint.put(&mut line, tint, cell);
            let gap = width - cell.chars().count() + 2;
            let _ = write!(line, "{:gap$}", "");
        }
        let _ = writeln!(out, "{}", line.trim_end());
        let error = number
            .checked_sub(1)
            .and_then(|number| shown.get(number)?.error.as_deref());
        if let Some(error) = error {
            out.push_str("  ");
            paint.put(&mut out, Tint::Alert, format!("last error: {}", harmless(error)));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Color;

    #[test]
    fn a_table_says_lag_and_last_error_beneath_the_stream_that_has_it() {
        let described = json!({
            "DeliveryStreamName": "seen", "DeliveryStreamStatus": "ACTIVE", "DeliveryStreamARN": "arn:x:deliverystream/seen",
            "Source": { "KinesisStreamSourceDescription": { "KinesisStreamARN": "arn:aws:kinesis:r:0:stream/faces" } },
            "FailureDescription": { "Type": "UNKNOWN_ERROR", "Details": "the bucket\u{1b} is gone" },
            "Destinations": [{ "ExtendedS3DestinationDescription": { "BucketARN": "arn:aws:s3:::results", "Prefix": "a/" } }],
        });
        let metrics = "firehose_data_freshness_seconds{delivery_stream=\"arn:x:deliverystream/seen\"} 61\n\
                       firehose_backlog_bytes{delivery_stream=\"arn:x:deliverystream/other\"} 5\n";
        let said = table(&[Shown::of(described, metrics)], Paint::for_stdout(Color::Never));
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "NAME  STATUS  FROM   TO               LAG   WAITING");
        assert_eq!(lines[1], "seen  ACTIVE  faces  s3://results/a/  61 s  -");
        assert_eq!(lines[2], "  last error: the bucket\\u{1b} is gone");
    }

    #[test]
    fn another_destination_is_named() {
        let described = json!({ "Destinations": [{ "DestinationId": "d", "HttpEndpointDestinationDescription":
            { "EndpointConfiguration": { "Url": "https://receiver.example" } } }] });
        assert_eq!(destination(&described), "https://receiver.example");
        let splunk = json!({ "Destinations": [{ "SplunkDestinationDescription": { "HECEndpoint": "x" } }] });
        assert_eq!(destination(&splunk), "Splunk");
    }
}
