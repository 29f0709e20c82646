//! HTTP endpoints: the request and the answer that AWS specifies for custom endpoints, version 1.0.
//!
//! A delivery is one request, or several where it has more records or bytes than a request may carry. A request has the
//! same id over every attempt, also after a restart of the server.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, Timestamp};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use uuid::Uuid;

use super::limits;
use super::parts::{id_of_part, parts};
use super::retry::{Attempts, Trouble};
use super::{Delivered, Delivery, Endpoint};
use crate::ports::{Answer, Call, CallError, HttpCaller};
use crate::types::{ErrorOutputType, Failed, Ready};

/// An HTTP endpoint.
pub struct HttpEndpoint {
    /// Makes the calls.
    pub http: Arc<dyn HttpCaller>,
    /// The time that requests are stamped with.
    pub clock: Arc<dyn Clock>,
    /// Where it is.
    pub url: String,
    /// The headers that are the same for every request.
    pub headers: Vec<(String, String)>,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// How long it is tried again.
    pub retry: Duration,
}

/// The headers of every request to the endpoint of a delivery stream.
pub fn headers(
    stream_arn: &str,
    access_key: Option<&str>,
    attributes: &[(&str, &str)],
    gzip: bool,
) -> Vec<(String, String)> {
    let mut headers = vec![
        ("x-amz-firehose-protocol-version", "1.0".to_owned()),
        ("content-type", "application/json".to_owned()),
        ("x-amz-firehose-source-arn", stream_arn.to_owned()),
    ];
    if let Some(key) = access_key.filter(|key| !key.is_empty()) {
        headers.push(("x-amz-firehose-access-key", key.to_owned()));
    }
    if !attributes.is_empty() {
        let object: serde_json::Map<_, _> = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let text = serde_json::json!({ "commonAttributes": object }).to_string();
        headers.push(("x-amz-firehose-common-attributes", ascii(&text)));
    }
    if gzip {
        headers.push(("content-encoding", "gzip".to_owned()));
    }
    headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// JSON text whose characters can all stand in a header.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        match character {
            ' '..='~' => text.push(character),
            _ => {
                for unit in character.encode_utf16(&mut units) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    text
}

#[async_trait]
impl Endpoint for HttpEndpoint {
    async fn deliver(&self, delivery: Delivery) -> Delivered {
        let mut delivered = Delivered::default();
        // Of a record: its base64, and the JSON around it.
        let size = |record: &Ready| record.data.len().div_ceil(3) * 4 + r#"{"data":""},"#.len();
        let parts = parts(
            &delivery.records,
            limits::HTTP_RECORDS_MAX,
            limits::HTTP_BODY_BYTES_MAX,
            size,
        );
        let mut before = 0;
        for (number, records) in parts.into_iter().enumerate() {
            let id = id_of_part(delivery.id, number);
            let mut attempts = Attempts::new(self.retry);
            if let Err(trouble) = self.insist(id, records, &mut attempts).await {
                delivered
                    .failed
                    .extend(failed(records, (&delivery.id, before), &trouble, attempts.made()));
            }
            before += records.len();
        }
        delivered
    }
}

/// The error records of a request that was not taken.
fn failed<'a>(
    records: &'a [Ready],
    (delivery, before): (&'a Uuid, usize),
    trouble: &'a Trouble,
    attempts: u32,
) -> impl Iterator<Item = Failed> + 'a {
    records.iter().enumerate().map(move |(index, record)| Failed {
        raw: record.data.clone(),
        arrival: record.arrival,
        code: trouble.code.clone(),
        message: trouble.message.clone(),
        attempts,
        kind: ErrorOutputType::HttpEndpoint,
        sequence: None,
        more: vec![
            ("subsequenceNumber", "0".to_owned()),
            ("dataId", format!("\"{delivery}.{}\"", before + index)),
        ],
    })
}

impl HttpEndpoint {
    async fn insist(&self, id: Uuid, records: &[Ready], attempts: &mut Attempts) -> Result<(), Trouble> {
        let data: Vec<Bytes> = records.iter().map(|record| record.data.clone()).collect();
        let (now, gzip) = (self.clock.now(), self.gzip);
        let body = tokio::task::spawn_blocking(move || body(id, now, &data, gzip));
        let unmade = |why: &dyn std::fmt::Display| Trouble::lasting("InternalError", format!("no request: {why}"));
        let body = Bytes::from(body.await.map_err(|why| unmade(&why))?.map_err(|why| unmade(&why))?);
        loop {
            let trouble = match self.attempt(id, body.clone()).await {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            tracing::debug!(url = self.host(), %id, code = trouble.code, why = trouble.message, "an HTTP endpoint took nothing");
            if !attempts.another(trouble.again).await {
                return Err(trouble);
            }
        }
    }

    /// The URL without what may be secret.
    fn host(&self) -> &str {
        let end = self.url.match_indices('/').nth(2).map_or(self.url.len(), |(at, _)| at);
        self.url.get(..end).unwrap_or_default()
    }

    async fn attempt(&self, id: Uuid, body: Bytes) -> Result<(), Trouble> {
        let mut headers = self.headers.clone();
        headers.push(("x-amz-firehose-request-id".to_owned(), id.to_string()));
        let call = Call {
            url: self.url.clone(),
            headers,
            body,
            within: limits::HTTP_ANSWER_WITHIN,
            answer_bytes_max: limits::HTTP_ANSWER_BYTES_MAX,
        };
        taken(id, &self.http.post(call).await.map_err(|error| no_answer(&error))?)
    }
}

/// What AWS calls the ways in which no answer comes.
fn no_answer(error: &CallError) -> Trouble {
    let code = match error {
        CallError::Refused(why) => return Trouble::lasting("HttpEndpoint.ConnectionFailed", why),
        CallError::Unreachable(_) => "HttpEndpoint.ConnectionFailed",
        CallError::Untrusted(_) => "HttpEndpoint.SSLHandshakeFailure",
        CallError::Broken(_) => "HttpEndpoint.ConnectionReset",
        CallError::TimedOut(_) => "HttpEndpoint.RequestTimeout",
        CallError::TooLarge(_) => "HttpEndpoint.ResponseTooLarge",
    };
    Trouble::passing(code, error.to_string())
}

/// What an endpoint must answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    request_id: String,
    timestamp: Stamp,
    error_message: Option<String>,
}

/// Milliseconds; AWS's own example has them as text too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stamp {
    Number(#[allow(dead_code, reason = "it must be there; nothing depends on it")] u64),
    Text(String),
}

/// Whether the answer says that the records were taken.
fn taken(id: Uuid, answer: &Answer) -> Result<(), Trouble> {
    let text = String::from_utf8_lossy(&answer.body);
    let exception = || {
        format!(
            "The following response was received from the endpoint destination. {}: {text}",
            answer.status
        )
    };
    match answer.status {
        200 => {}
        // Permanent, by the specification: the same bytes are never small enough.
        413 => return Err(Trouble::lasting("HttpEndpoint.DestinationException", exception())),
        _ => return Err(Trouble::passing("HttpEndpoint.DestinationException", exception())),
    }
    let invalid = |why: &str| {
        let message = format!("The response received from the specified endpoint is invalid: {why}");
        Trouble::passing("HttpEndpoint.InvalidResponseFromDestination", message)
    };
    let media = answer
        .header("content-type")
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !media.trim().eq_ignore_ascii_case("application/json") {
        return Err(invalid("its Content-Type is not application/json"));
    }
    if answer.header("content-encoding").is_some() {
        return Err(invalid("it has a Content-Encoding"));
    }
    let receipt: Receipt = serde_json::from_slice(&answer.body)
        .map_err(|why| invalid(&format!("it is not a JSON object of requestId and timestamp ({why})")))?;
    if let Stamp::Text(stamp) = &receipt.timestamp
        && stamp.parse::<u64>().is_err()
    {
        return Err(invalid("its timestamp is no number"));
    }
    if receipt.request_id != id.to_string() {
        return Err(invalid("its requestId is not the request's"));
    }
    match receipt.error_message {
        Some(message) if !message.is_empty() => {
            // The status says taken and the message says not: to believe the status would be to lose the records.
            Err(Trouble::passing("HttpEndpoint.DestinationException", exception()))
        }
        _ => Ok(()),
    }
}

/// The body of a request.
fn body(id: Uuid, now: Timestamp, records: &[Bytes], gzip: bool) -> std::io::Result<Vec<u8>> {
    let encoded: usize = records.iter().map(|data| data.len().div_ceil(3) * 4 + 12).sum();
    let mut body = Vec::with_capacity(encoded + 100);
    write!(body, r#"{{"requestId":"{id}","timestamp":{},"records":["#, now.millis())?;
    for (index, data) in records.iter().enumerate() {
        body.extend_from_slice(if index == 0 { br#"{"data":""# } else { br#",{"data":""# });
        base64_simd::STANDARD.encode_append(data, &mut body);
        body.extend_from_slice(br#""}"#);
    }
    body.extend_from_slice(b"]}");
    if !gzip {
        return Ok(body);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::fast());
    encoder.write_all(&body)?;
    encoder.finish()
}
