//! Splunk by its HTTP Event Collector, with acknowledgement by the indexers: records were taken when Splunk says that they
//! are indexed, not when it has received them. The bytes of the records are sent one behind the other, as AWS sends them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use uuid::Uuid;
use wire::firehose::HECEndpointType;

use super::limits;
use super::parts::parts;
use super::retry::{Attempts, Trouble};
use super::{Delivered, Delivery, Endpoint};
use crate::ports::{Answer, Call, CallError, HttpCaller};
use crate::types::{ErrorOutputType, Failed, Ready};

/// An event collector.
pub struct Splunk {
    /// Makes the calls.
    pub http: Arc<dyn HttpCaller>,
    /// The collector's base URL, without a slash at its end.
    pub url: String,
    /// Which of its two ends takes the records.
    pub kind: HECEndpointType,
    /// The collector's token.
    pub token: String,
    /// The channel in which requests are numbered; Splunk wants one for each sender.
    pub channel: Uuid,
    /// How long an acknowledgement may take.
    pub ack_within: Duration,
    /// How long it is tried again.
    pub retry: Duration,
}

#[async_trait]
impl Endpoint for Splunk {
    async fn deliver(&self, delivery: Delivery) -> Delivered {
        let mut delivered = Delivered::default();
        let size = |record: &Ready| record.data.len();
        let parts = parts(&delivery.records, usize::MAX, limits::SPLUNK_BODY_BYTES_MAX, size);
        let mut before = 0;
        for records in parts {
            let mut attempts = Attempts::new(self.retry);
            if let Err(trouble) = self.insist(records, &mut attempts).await {
                let failed = records.iter().enumerate().map(|(index, record)| Failed {
                    raw: record.data.clone(),
                    arrival: record.arrival,
                    code: trouble.code.clone(),
                    message: trouble.message.clone(),
                    attempts: attempts.made(),
                    kind: ErrorOutputType::Splunk,
                    sequence: None,
                    more: vec![("EventId", format!("\"{}.{}\"", delivery.id, before + index))],
                });
                delivered.failed.extend(failed);
            }
            before += records.len();
        }
        delivered
    }
}

/// What the collector answers to records.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    code: i64,
    ack_id: Option<u64>,
}

/// What it answers when it is asked about them.
#[derive(Deserialize)]
struct Acks {
    acks: BTreeMap<String, bool>,
}

impl Splunk {
    async fn insist(&self, records: &[Ready], attempts: &mut Attempts) -> Result<(), Trouble> {
        let mut body = BytesMut::with_capacity(records.iter().map(|record| record.data.len()).sum());
        for record in records {
            body.extend_from_slice(&record.data);
        }
        let body = body.freeze();
        loop {
            let trouble = match self.attempt(body.clone()).await {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            tracing::debug!(code = trouble.code, why = trouble.message, "Splunk took nothing");
            if !attempts.another(trouble.again).await {
                return Err(trouble);
            }
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<(), Trouble> {
        let path = match self.kind {
            HECEndpointType::Raw => "/services/collector/raw",
            HECEndpointType::Event => "/services/collector/event",
        };
        let answer = self.post(path, body).await.map_err(|error| no_answer(&error))?;
        let receipt = received(&answer)?;
        let Some(ack) = receipt.ack_id else {
            // It has the records, so that sending them again would double them.
            let why =
                "Indexer acknowledgement is disabled for the HEC token. Enable indexer acknowledgement and try again.";
            return Err(Trouble::lasting("Splunk.DisabledAck", why));
        };
        match tokio::time::timeout(self.ack_within, self.indexed(ack)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Trouble::passing(
                "Splunk.AckTimeout",
                "Did not receive an acknowledgement from HEC before the HEC acknowledgement timeout expired. Despite the \
                 acknowledgement timeout, it's possible the data was indexed successfully in Splunk.",
            )),
        }
    }

    /// Returns when a request is indexed.
    async fn indexed(&self, ack: u64) {
        let mut pause = limits::SPLUNK_ACK_POLL_FIRST;
        loop {
            let asked = Bytes::from(format!("{{\"acks\":[{ack}]}}"));
            // A question that is not answered is asked again while there is time.
            if let Ok(answer) = self.post("/services/collector/ack", asked).await
                && answer.status == 200
                && let Ok(told) = serde_json::from_slice::<Acks>(&answer.body)
                && told.acks.get(&ack.to_string()) == Some(&true)
            {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::SPLUNK_ACK_POLL_MAX);
        }
    }

    async fn post(&self, path: &str, body: Bytes) -> Result<Answer, CallError> {
        let channel = self.channel;
        let headers = [
            ("authorization", format!("Splunk {}", self.token)),
            ("x-splunk-request-channel", channel.to_string()),
            ("content-type", "application/json".to_owned()),
        ];
        let call = Call {
            url: format!("{}{path}?channel={channel}", self.url),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            body,
            within: limits::SPLUNK_ANSWER_WITHIN,
            answer_bytes_max: limits::SPLUNK_ANSWER_BYTES_MAX,
        };
        self.http.post(call).await
    }
}

fn no_answer(error: &CallError) -> Trouble {
    let code = match error {
        CallError::Refused(why) => return Trouble::lasting("Splunk.InvalidEndpoint", why),
        CallError::Unreachable(_) => "Splunk.InvalidEndpoint",
        CallError::Untrusted(_) => "Splunk.SSLHandshake",
        CallError::Broken(_) => "Splunk.ConnectionClosed",
        CallError::TimedOut(_) => "Splunk.ConnectionTimeout",
        CallError::TooLarge(_) => "Splunk.ServerError",
    };
    Trouble::passing(code, error.to_string())
}

/// The receipt, if the collector has the records. Its codes stand in Splunk's "HTTP Event Collector" troubleshooting.
fn received(answer: &Answer) -> Result<Receipt, Trouble> {
    let text = String::from_utf8_lossy(&answer.body);
    let receipt: Option<Receipt> = serde_json::from_slice(&answer.body).ok();
    let message = format!("HEC answered {}: {text}", answer.status);
    let code = match (answer.status, receipt) {
        (200, Some(receipt)) if receipt.code == 0 => return Ok(receipt),
        (_, Some(receipt)) => match receipt.code {
            1 => "Splunk.DisabledToken",
            2..=4 => "Splunk.InvalidToken",
            // The same bytes have the same form however often they are sent.
            5 | 6 | 12 | 13 => return Err(Trouble::lasting("Splunk.InvalidDataFormat", message)),
            7 => "Splunk.InvalidIndex",
            9 => "Splunk.IndexerBusy",
            14 => return Err(Trouble::lasting("Splunk.DisabledAck", message)),
            _ => "Splunk.ServerError",
        },
        (401 | 403, None) => "Splunk.InvalidToken",
        (404, None) => "Splunk.InvalidEndpoint",
        (_, None) => "Splunk.ServerError",
    };
    Err(Trouble::passing(code, message))
}
