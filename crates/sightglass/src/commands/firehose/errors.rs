//! `firehose tail-errors`: the records that could not be delivered lie as JSON lines in a bucket, and are shown from there.

use std::time::Duration;

use archive::{S3Config, S3Store, Store};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::paint::{Paint, Tint, harmless};
use super::super::{Failure, connect};
use super::{call, set};
use crate::cli::{FirehoseTailErrorsArgs, ServerArgs};

/// Between two looks at the bucket.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Keys of one look.
const KEYS: usize = 1000;
/// Characters of a record that are shown.
const SHOWN_CHARS: usize = 200;
/// AWS's own first part of such keys, where none is configured.
const FAILED: [&str; 5] = [
    "processing-failed",
    "format-conversion-failed",
    "http-endpoint-failed",
    "splunk-failed",
    "AmazonOpenSearchService_failed",
];

/// Where errors lie.
struct Place {
    bucket: String,
    prefixes: Vec<String>,
}

/// Runs the command.
pub async fn tail(
    client: &Client,
    args: &FirehoseTailErrorsArgs,
    server: &ServerArgs,
    as_json: bool,
    paint: Paint,
) -> Result<(), Failure> {
    let answer = call(
        client,
        "DescribeDeliveryStream",
        &json!({ "DeliveryStreamName": args.name }),
    )
    .await?;
    let place = place(&answer).ok_or("the delivery stream has no bucket for what cannot be delivered")?;
    let credentials = connect::credentials(server)?;
    let store = S3Store::new(S3Config {
        bucket: place.bucket,
        endpoint: Some(args.endpoint_url.clone().unwrap_or_else(|| connect::endpoint(server))),
        region: server.region.clone(),
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret.reveal().to_owned(),
        session_token: credentials.session_token,
        certificates: connect::certificates(server)?,
    })?;
    let mut seen: Vec<String> = place.prefixes.clone();
    if !args.all && !args.no_follow {
        for (prefix, seen) in place.prefixes.iter().zip(&mut seen) {
            while let Some(last) = store.list(prefix, seen, KEYS).await?.pop() {
                *seen = last;
            }
        }
    }
    loop {
        for (prefix, seen) in place.prefixes.iter().zip(&mut seen) {
            loop {
                let keys = store.list(prefix, seen, KEYS).await?;
                for key in &keys {
                    if let Some(body) = store.get(key).await? {
                        print(key, &body, as_json, paint);
                    }
                }
                match keys.into_iter().next_back() {
                    Some(last) => *seen = last,
                    None => break,
                }
            }
        }
        if args.no_follow {
            return Ok(());
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// The bucket, and what the keys of errors begin with, up to the first expression.
fn place(answer: &Value) -> Option<Place> {
    let destination = answer.pointer("/DeliveryStreamDescription/Destinations/0")?;
    let inner = |value: &Value| value.get("S3DestinationDescription").cloned();
    let s3 = destination
        .get("ExtendedS3DestinationDescription")
        .cloned()
        .or_else(|| destination.as_object()?.values().find_map(inner))
        .or_else(|| inner(destination))?;
    let text = |member: &str| s3.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    let bucket = text("BucketARN").rsplit(':').next().map(str::to_owned)?;
    let plain = |text: String| text.split("!{").next().unwrap_or_default().to_owned();
    let errors = plain(text("ErrorOutputPrefix"));
    let prefixes = if errors.is_empty() {
        let prefix = plain(text("Prefix"));
        FAILED.iter().map(|failed| format!("{prefix}{failed}/")).collect()
    } else {
        vec![errors]
    };
    Some(Place { bucket, prefixes })
}

/// One object's lines.
fn print(key: &str, body: &[u8], as_json: bool, paint: Paint) {
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(mut error) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        let raw = error.get("rawData").and_then(Value::as_str);
        let data = raw.and_then(|raw| STANDARD.decode(raw).ok());
        let data = data.map(|data| String::from_utf8_lossy(&data).into_owned());
        if as_json {
            set(&mut error, "key", json!(key));
            if let Some(data) = data {
                set(&mut error, "data", json!(data));
            }
            println!("{error}");
            continue;
        }
        let text = |member: &str| error.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut out = String::new();
        paint.put(&mut out, Tint::Alert, harmless(&text("errorCode")));
        out.push_str("  ");
        paint.put(&mut out, Tint::Text, harmless(&text("errorMessage")));
        if let Some(data) = data {
            let short: String = data.chars().take(SHOWN_CHARS).collect();
            out.push_str("\n  ");
            paint.put(&mut out, Tint::Dim, harmless(&short));
        }
        println!("{out}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_looked_for_where_the_destination_puts_them() {
        let of = |destination: Value| {
            let answer = json!({ "DeliveryStreamDescription": { "Destinations": [destination] } });
            place(&answer).map(|place| (place.bucket, place.prefixes))
        };
        let s3 = json!({ "BucketARN": "arn:aws:s3:::b", "ErrorOutputPrefix": "err/!{firehose:error-output-type}/" });
        let found = Some(("b".to_owned(), vec!["err/".to_owned()]));
        assert_eq!(of(json!({ "ExtendedS3DestinationDescription": s3.clone() })), found);
        assert_eq!(
            of(json!({ "HttpEndpointDestinationDescription": { "S3DestinationDescription": s3 } })),
            found
        );
        let (_, prefixes) =
            of(json!({ "S3DestinationDescription": { "BucketARN": "arn:aws:s3:::b", "Prefix": "a/" } })).unwrap();
        assert_eq!((prefixes.len(), prefixes[0].as_str()), (5, "a/processing-failed/"));
        assert_eq!(of(json!({ "DestinationId": "1" })), None);
    }
}
