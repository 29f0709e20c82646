//! The transform: records are posted to a function in the shape of Lambda's event, and what it answers takes their place.
//!
//! A function is a stranger: it may fail, hang, and answer too much, nonsense, records twice, or records that it was never
//! given. Each record ends once: transformed, dropped, or failed with AWS's code for the reason. Calls that failed are made
//! again; an answer that came is final, however malformed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use uuid::Uuid;

use crate::limits::{
    FUNCTION_BUFFER_BYTES, FUNCTION_BYTES_MAX, FUNCTION_CALLS_AT_ONCE, FUNCTION_RETRIES, FUNCTION_RETRIES_MAX,
    PARTITION_KEYS_MAX,
};
use crate::ports::{Call, CallError, HttpCaller, Ports};
use crate::process::item::{Item, Why};
use crate::process::parameters::Parameters;
use crate::types::{About, Failed, Keys, Refused};

/// Between two calls for the same records, doubled each time.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Bytes of a record's entry in the event beside its data, ids and partition key: names, quotes, numbers.
const ENTRY_BYTES: usize = 512;

/// A function and how it is called.
pub struct Transform {
    arn: String,
    url: String,
    within: Duration,
    batch_bytes: usize,
    retries: u32,
    http: Arc<dyn HttpCaller>,
    about: About,
}

impl std::fmt::Debug for Transform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transform")
            .field("arn", &self.arn)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Transform {
    /// Checks the parameters of a Lambda processor and finds its function.
    pub fn new(parameters: &Parameters<'_>, about: &About, ports: &Ports) -> Result<Self, Refused> {
        let arn = parameters.required("LambdaArn")?;
        let url = ports.functions.url(arn).ok_or_else(|| {
            Refused(format!(
                "The function {arn} is not configured: name its address in [functions] of the configuration."
            ))
        })?;
        let megabytes = parameters.number("BufferSizeInMBs", 0.2..=3.0)?;
        parameters.number("BufferIntervalInSeconds", 0.0..=900.0)?;
        let retries = parameters.number("NumberOfRetries", 0.0..=f64::from(FUNCTION_RETRIES_MAX))?;
        Ok(Transform {
            arn: arn.to_owned(),
            url,
            within: ports.functions.within(),
            batch_bytes: megabytes.map_or(FUNCTION_BUFFER_BYTES, |megabytes| {
                (megabytes * 1024.0 * 1024.0) as usize
            }),
            retries: retries.map_or(FUNCTION_RETRIES, |retries| retries as u32),
            http: Arc::clone(&ports.http),
            about: about.clone(),
        })
    }

    /// Transforms records; what was dropped is in neither list. The order is kept.
    pub async fn run(&self, items: Vec<Item>, failed: &mut Vec<Failed>) -> Vec<Item> {
        let batches = self.batches(items);
        let mut calls = stream::iter(batches)
            .map(|batch| self.batch(batch))
            .buffered(FUNCTION_CALLS_AT_ONCE);
        let mut done = Vec::new();
        while let Some((transformed, refused)) = calls.next().await {
            done.extend(transformed);
            failed.extend(refused);
        }
        done
    }

    /// Splits records by what a call may hold.
    fn batches(&self, items: Vec<Item>) -> Vec<Vec<Item>> {
        let mut batches: Vec<Vec<Item>> = Vec::new();
        let (mut raw, mut encoded) = (0, 0);
        for item in items {
            let entry = item.data.len().div_ceil(3) * 4 + item.partition_key.len() * 2 + ENTRY_BYTES;
            let full =
                raw + item.data.len() > self.batch_bytes || encoded + entry > FUNCTION_BYTES_MAX - ENTRY_BYTES * 8;
            if batches.is_empty() || full {
                (raw, encoded) = (0, 0);
                batches.push(Vec::new());
            }
            raw += item.data.len();
            encoded += entry;
            if let Some(batch) = batches.last_mut() {
                batch.push(item);
            }
        }
        batches
    }

    async fn batch(&self, batch: Vec<Item>) -> (Vec<Item>, Vec<Failed>) {
        let body = self.event(&batch);
        let size = body.len();
        let mut attempts = 0;
        let mut pause = PAUSE;
        let why = loop {
            attempts += 1;
            let answer = match size > FUNCTION_BYTES_MAX {
                true => Err(Problem::last(
                    "Lambda.RequestTooLarge",
                    format!("The records need a request of {size} bytes, more than {FUNCTION_BYTES_MAX}."),
                )),
                false => self.call(body.clone()).await,
            };
            match answer {
                Ok(answer) => {
                    return match parse(&answer) {
                        Ok(answered) => self.settle(batch, answered, attempts),
                        Err(message) => {
                            self.fail_all(batch, &self.why("Lambda.JsonProcessingException", message, attempts))
                        }
                    };
                }
                Err(problem) if problem.again && attempts <= self.retries => {
                    tracing::debug!(
                        function = self.arn,
                        attempts,
                        problem.message,
                        "function is called again"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(problem) => break self.why(problem.code, problem.message, attempts),
            }
        };
        tracing::warn!(function = self.arn, attempts, why.message, "function failed");
        self.fail_all(batch, &why)
    }

    fn fail_all(&self, batch: Vec<Item>, why: &Why) -> (Vec<Item>, Vec<Failed>) {
        (
            Vec::new(),
            batch.into_iter().map(|item| item.failed(why.clone())).collect(),
        )
    }

    fn why(&self, code: &'static str, message: impl Into<String>, attempts: u32) -> Why {
        Why {
            attempts,
            more: vec![("lambdaARN", serde_json::Value::from(self.arn.as_str()).to_string())],
            ..Why::processing(code, message)
        }
    }

    async fn call(&self, body: Bytes) -> Result<Bytes, Problem> {
        let call = Call {
            url: self.url.clone(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body,
            within: self.within,
            answer_bytes_max: FUNCTION_BYTES_MAX,
        };
        match self.http.post(call).await {
            Ok(answer) if answer.status / 100 == 2 && answer.header("x-amz-function-error").is_none() => {
                Ok(answer.body)
            }
            Ok(answer) => Err(match answer.status {
                429 => Problem::again("Lambda.InvokeLimitExceeded", LIMIT_EXCEEDED),
                401 | 403 => Problem::last("Lambda.InvokeAccessDenied", ACCESS_DENIED),
                404 => Problem::last("Lambda.ResourceNotFound", NOT_FOUND),
                status if status / 100 == 2 => Problem::again("Lambda.FunctionError", FUNCTION_ERROR),
                status => Problem::again("Lambda.FunctionError", format!("{FUNCTION_ERROR} (status {status})")),
            }),
            Err(error) => Err(match &error {
                CallError::Refused(_) => Problem::last("Lambda.InvocationFailure", error.to_string()),
                CallError::TimedOut(_) => Problem::again("Lambda.FunctionTimeout", error.to_string()),
                CallError::TooLarge(_) => Problem::last("Lambda.FunctionError", error.to_string()),
                _ => Problem::again("Lambda.InvocationFailure", error.to_string()),
            }),
        }
    }

    /// The event of a batch, as Lambda hands it to a function.
    fn event(&self, batch: &[Item]) -> Bytes {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let data: usize = batch.iter().map(|item| item.data.len() / 3 * 4 + ENTRY_BYTES).sum();
        let mut out = String::with_capacity(data + ENTRY_BYTES);
        out.push_str(&format!(r#"{{"invocationId":"{}","#, Uuid::new_v4()));
        if let Some(source) = &self.about.source_arn {
            out.push_str(&format!(r#""sourceKinesisStreamArn":{},"#, text(source)));
        }
        out.push_str(&format!(
            r#""deliveryStreamArn":{},"region":{},"records":["#,
            text(&self.about.arn),
            text(self.about.region.as_str())
        ));
        for (place, item) in batch.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let arrival = item.arrival.millis();
            out.push_str(&format!(
                r#"{comma}{{"recordId":"{}","approximateArrivalTimestamp":{arrival},"data":""#,
                record_id(place, item)
            ));
            base64_simd::STANDARD.encode_append(&item.data, &mut out);
            out.push('"');
            if self.about.source_arn.is_some() {
                out.push_str(&format!(
                    r#","kinesisRecordMetadata":{{"sequenceNumber":"{}","subsequenceNumber":{},"partitionKey":{},"shardId":"{}","approximateArrivalTimestamp":{arrival}}}"#,
                    item.sequence,
                    item.sub_sequence,
                    text(&item.partition_key),
                    shard_id(item),
                ));
            }
            out.push('}');
        }
        out.push_str("]}");
        Bytes::from(out)
    }

    /// Gives each record of a batch its answer.
    fn settle(&self, batch: Vec<Item>, answered: Vec<Answered>, attempts: u32) -> (Vec<Item>, Vec<Failed>) {
        let mut by_id: HashMap<String, (Answered, bool)> = HashMap::with_capacity(batch.len());
        for answer in answered {
            match by_id.get_mut(&answer.record_id) {
                Some((_, repeated)) => *repeated = true,
                None => {
                    by_id.insert(answer.record_id.clone(), (answer, false));
                }
            }
        }
        let (mut done, mut failed) = (Vec::with_capacity(batch.len()), Vec::new());
        for (place, mut item) in batch.into_iter().enumerate() {
            let outcome = match by_id.remove(&record_id(place, &item)) {
                None => Err(self.why("Lambda.MissingRecordId", MISSING, attempts)),
                Some((_, true)) => Err(self.why("Lambda.DuplicatedRecordId", DUPLICATED, attempts)),
                Some((answer, false)) => self.outcome(answer, attempts),
            };
            match outcome {
                Ok(None) => {}
                Ok(Some((data, keys))) => {
                    item.data = data;
                    item.lambda_keys = keys;
                    done.push(item);
                }
                Err(why) => failed.push(item.failed(why)),
            }
        }
        if !by_id.is_empty() {
            tracing::warn!(
                function = self.arn,
                count = by_id.len(),
                "function answered records that it was not given"
            );
        }
        (done, failed)
    }

    /// What became of one record: nothing when it was dropped.
    fn outcome(&self, answer: Answered, attempts: u32) -> Result<Option<(Bytes, Keys)>, Why> {
        let malformed = |message: &str| self.why("Lambda.JsonProcessingException", message, attempts);
        match answer.result.as_deref() {
            Some("Ok") => {}
            Some("Dropped") => return Ok(None),
            Some("ProcessingFailed") => return Err(self.why("Lambda.ProcessingFailedStatus", FAILED_STATUS, attempts)),
            _ => {
                return Err(malformed(
                    "The result of a record must be Ok, Dropped or ProcessingFailed.",
                ));
            }
        }
        let data = answer
            .data
            .ok_or_else(|| malformed("A record with the result Ok has no data."))?;
        let data = base64_simd::STANDARD.decode_to_vec(data.as_bytes());
        let data = data.map_err(|_| malformed("The data of a record is not in base64."))?;
        let keys = match answer.metadata {
            Some(Metadata {
                partition_keys: Some(keys),
            }) => partition_keys(keys).map_err(|why| malformed(&why))?,
            _ => Keys::new(),
        };
        Ok(Some((Bytes::from(data), keys)))
    }
}

const LIMIT_EXCEEDED: &str =
    "The Lambda concurrent execution limit is exceeded. Increase the concurrent execution limit.";
const ACCESS_DENIED: &str = "Access was denied. Ensure that the access policy allows access to the Lambda function.";
const NOT_FOUND: &str = "The specified Lambda function does not exist. Use a different function that does exist.";
const FUNCTION_ERROR: &str = "The Lambda function was successfully invoked but it returned an error result.";
const MISSING: &str =
    "One or more record IDs were not returned. Ensure that the Lambda function returns all received record IDs.";
const DUPLICATED: &str = "Multiple records were returned with the same record ID. Ensure that the Lambda function \
                          returns unique record IDs for each record.";
const FAILED_STATUS: &str = "ProcessingFailed status set for record";

/// A call without a usable answer.
struct Problem {
    code: &'static str,
    message: String,
    again: bool,
}

impl Problem {
    fn again(code: &'static str, message: impl Into<String>) -> Self {
        Problem {
            code,
            message: message.into(),
            again: true,
        }
    }

    fn last(code: &'static str, message: impl Into<String>) -> Self {
        Problem {
            again: false,
            ..Problem::again(code, message)
        }
    }
}

/// Unique in its call, and the same when the call is made again.
fn record_id(place: usize, item: &Item) -> String {
    format!("{}{place:06}", item.sequence)
}

fn shard_id(item: &Item) -> String {
    format!("shardId-{:012}", item.shard.0)
}

/// An answer of a function; what else it says is nothing to us.
#[derive(Deserialize)]
struct Answer {
    records: Vec<Answered>,
}

/// The answer for a record.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    record_id: String,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    partition_keys: Option<serde_json::Map<String, serde_json::Value>>,
}

fn parse(answer: &[u8]) -> Result<Vec<Answered>, String> {
    let wrong = |error: serde_json::Error| {
        format!(
            "There was an error parsing returned records from the Lambda function. Ensure that the returned records \
             follow the status model required by Amazon Data Firehose: {error}."
        )
    };
    serde_json::from_slice::<Answer>(answer)
        .map(|answer| answer.records)
        .map_err(wrong)
}

fn partition_keys(keys: serde_json::Map<String, serde_json::Value>) -> Result<Keys, String> {
    if keys.len() > PARTITION_KEYS_MAX {
        return Err(format!("A record has more than {PARTITION_KEYS_MAX} partition keys."));
    }
    let text = |value| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(value) => Some(value.to_string()),
        _ => None,
    };
    keys.into_iter()
        .map(|(key, value)| {
            let value = text(value).filter(|value| !value.is_empty());
            value
                .map(|value| (key, value))
                .ok_or_else(|| "partitionKeys values must not be null or empty.".to_owned())
        })
        .collect()
}

/// Reads the answer of a function to one record with the given id, for the fuzz target: what would be delivered.
pub fn read_answer(answer: &[u8], id: &str) -> Option<Bytes> {
    let answered = parse(answer)
        .ok()?
        .into_iter()
        .find(|answered| answered.record_id == id)?;
    let data = base64_simd::STANDARD.decode_to_vec(answered.data?.as_bytes()).ok()?;
    partition_keys(answered.metadata?.partition_keys?).ok()?;
    Some(Bytes::from(data))
}
