//! The chain of processors between a buffer and its objects, in AWS's order whatever order it is configured in:
//! aggregates of the KPL are taken apart (where a data stream is read), then Decompression, CloudWatchLogProcessing,
//! RecordDeAggregation, Lambda, MetadataExtraction, AppendDelimiterToRecord. It is checked and compiled once and run on
//! batches; every record that goes in comes out ready, failed, or not at all where a function dropped it. Records are
//! strangers' bytes: what cannot be read fails alone, with AWS's code.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wire::firehose::{ProcessingConfiguration, Processor, ProcessorType};

use crate::ports::Ports;
use crate::prefix::Prefix;
use crate::types::{About, Failed, Processed, Ready, Record, Refused};

mod cost;
mod inflate;
mod item;
mod parameters;
mod query;
mod split;
mod transform;

use inflate::Inflater;
use item::{Item, Why};
use parameters::Parameters;
use query::Query;
use transform::Transform;

pub use query::Query as PartitionQuery;
pub use split::{delimited, json, log_events};
pub use transform::read_answer;

/// Records with fewer bytes than this are worked on where they are; more go to a blocking thread.
const INLINE_BYTES: usize = 64 * 1024;

/// A checked chain. Cheap to share; it keeps nothing between two runs.
#[derive(Debug)]
pub struct Pipeline {
    before: Arc<Before>,
    transform: Option<Transform>,
    after: Arc<After>,
}

/// What is done before the transform.
#[derive(Debug, Default)]
struct Before {
    aggregates: bool,
    inflate: bool,
    log_events: bool,
    split: Option<Split>,
}

#[derive(Debug)]
enum Split {
    Json,
    Delimited(Bytes),
}

/// What is done after the transform.
#[derive(Debug, Default)]
struct After {
    query: Option<Query>,
    delimiter: Option<Bytes>,
}

impl Pipeline {
    /// Checks a configuration. `None`, one that is not enabled and one without processors change nothing.
    pub fn new(processing: Option<&ProcessingConfiguration>, about: &About, ports: &Ports) -> Result<Self, Refused> {
        let mut before = Before {
            aggregates: about.source_arn.is_some(),
            ..Before::default()
        };
        let (mut transform, mut after) = (None, After::default());
        let enabled = processing.filter(|processing| processing.enabled == Some(true));
        let processors = enabled
            .and_then(|processing| processing.processors.as_deref())
            .unwrap_or_default();
        for (place, processor) in processors.iter().enumerate() {
            let kind = processor.r#type;
            if processors.iter().take(place).any(|other| other.r#type == kind) {
                return Err(Refused(format!("There is more than one processor of the type {kind}.")));
            }
            match kind {
                ProcessorType::Decompression => {
                    Parameters::of(processor, &["CompressionFormat"])?.only("CompressionFormat", "GZIP")?;
                    before.inflate = true;
                }
                ProcessorType::CloudWatchLogProcessing => {
                    Parameters::of(processor, &["DataMessageExtraction"])?.only("DataMessageExtraction", "true")?;
                    before.log_events = true;
                }
                ProcessorType::RecordDeAggregation => before.split = Some(split_of(processor)?),
                ProcessorType::Lambda => {
                    const ALLOWED: [&str; 5] = [
                        "LambdaArn",
                        "NumberOfRetries",
                        "RoleArn",
                        "BufferSizeInMBs",
                        "BufferIntervalInSeconds",
                    ];
                    transform = Some(Transform::new(&Parameters::of(processor, &ALLOWED)?, about, ports)?);
                }
                ProcessorType::MetadataExtraction => {
                    let parameters = Parameters::of(processor, &["MetadataExtractionQuery", "JsonParsingEngine"])?;
                    parameters.required("JsonParsingEngine")?;
                    parameters.only("JsonParsingEngine", "JQ-1.6")?;
                    after.query = Some(Query::compile(parameters.required("MetadataExtractionQuery")?)?);
                }
                ProcessorType::AppendDelimiterToRecord => {
                    let parameters = Parameters::of(processor, &["Delimiter"])?;
                    after.delimiter = Some(unescaped(parameters.get("Delimiter").unwrap_or("\\n"))?);
                }
            }
        }
        if before.log_events && !before.inflate {
            return Err(Refused(
                "Processor CloudWatchLogProcessing needs the processor Decompression.".to_owned(),
            ));
        }
        Ok(Pipeline {
            before: Arc::new(before),
            transform,
            after: Arc::new(after),
        })
    }

    /// Whether the keys that a prefix names are made by this chain. Asked when a delivery stream is made.
    pub fn provides(&self, prefix: &Prefix) -> Result<(), Refused> {
        for key in prefix.query_keys() {
            let known = match &self.after.query {
                None => false,
                Some(query) => query.keys().is_none_or(|keys| keys.iter().any(|other| other == key)),
            };
            if !known {
                return Err(Refused(format!(
                    "Prefix names !{{partitionKeyFromQuery:{key}}}, but no MetadataExtraction processor extracts {key:?}."
                )));
            }
        }
        match (prefix.lambda_keys().next(), &self.transform) {
            (Some(key), None) => Err(Refused(format!(
                "Prefix names !{{partitionKeyFromLambda:{key}}}, but there is no Lambda processor."
            ))),
            _ => Ok(()),
        }
    }

    /// True when every record leaves as it came: the caller may then save itself the run.
    pub fn is_plain(&self) -> bool {
        let before = &self.before;
        let touched = before.aggregates || before.inflate || before.split.is_some();
        !touched && self.transform.is_none() && self.after.is_plain()
    }

    /// The records of one buffer, in the order of the source. Calls of functions are tried again inside, so that every
    /// record ends as ready or failed. Long work on the processor is done on blocking threads.
    pub async fn run(&self, records: Vec<Record>) -> Processed {
        let before = Arc::clone(&self.before);
        let bytes = records.iter().map(|record| record.data.len()).sum();
        let (mut items, mut failed) = work(bytes, move || before.run(records)).await;
        if let Some(transform) = &self.transform {
            items = transform.run(items, &mut failed).await;
        }
        let after = Arc::clone(&self.after);
        let bytes = if after.is_plain() {
            0
        } else {
            items.iter().map(|item| item.data.len()).sum()
        };
        work(bytes, move || Processed {
            ready: after.run(items, &mut failed),
            failed,
        })
        .await
    }
}

/// Does work on a thread where it may take its time; little is done at once.
async fn work<T: Send + 'static>(bytes: usize, job: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes < INLINE_BYTES {
        return job();
    }
    match tokio::task::spawn_blocking(job).await {
        Ok(done) => done,
        // The job does not panic and cannot be cancelled; if it did, whoever waits must not go on as if it were done.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

fn split_of(processor: &Processor) -> Result<Split, Refused> {
    let parameters = Parameters::of(processor, &["SubRecordType", "Delimiter"])?;
    match parameters.required("SubRecordType")? {
        "JSON" => Ok(Split::Json),
        "DELIMITED" => {
            let text = parameters.required("Delimiter")?;
            let delimiter = base64_simd::STANDARD.decode_to_vec(text.as_bytes());
            let delimiter = delimiter.ok().filter(|delimiter| !delimiter.is_empty());
            let wrong =
                || Refused("The parameter Delimiter of processor RecordDeAggregation must be in base64.".to_owned());
            delimiter
                .map(|delimiter| Split::Delimited(delimiter.into()))
                .ok_or_else(wrong)
        }
        other => Err(Refused(format!(
            "The parameter SubRecordType of processor RecordDeAggregation must be JSON or DELIMITED, not {other:?}."
        ))),
    }
}

/// A delimiter as it is written in a configuration, where a line feed is a backslash and an n.
fn unescaped(text: &str) -> Result<Bytes, Refused> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('\\') => out.push('\\'),
                other => {
                    out.push('\\');
                    out.extend(other);
                }
            },
            c => out.push(c),
        }
    }
    match out.is_empty() {
        true => Err(Refused(
            "The parameter Delimiter of processor AppendDelimiterToRecord is empty.".to_owned(),
        )),
        false => Ok(Bytes::from(out)),
    }
}

impl Before {
    fn run(&self, records: Vec<Record>) -> (Vec<Item>, Vec<Failed>) {
        let (mut items, mut failed) = (Vec::with_capacity(records.len()), Vec::new());
        let mut inflater = Inflater::default();
        for record in records {
            let packed = if self.aggregates {
                kpl::deaggregate(&record.data)
            } else {
                None
            };
            let item = Item::new(record);
            match packed {
                None => self.one(item, &mut inflater, &mut items, &mut failed),
                Some(users) => {
                    for (sub_sequence, user) in (0..).zip(users) {
                        let item = Item {
                            data: user.data,
                            partition_key: user.partition_key,
                            sub_sequence,
                            ..item.clone()
                        };
                        self.one(item, &mut inflater, &mut items, &mut failed);
                    }
                }
            }
        }
        (items, failed)
    }

    fn one(&self, mut item: Item, inflater: &mut Inflater, items: &mut Vec<Item>, failed: &mut Vec<Failed>) {
        if self.inflate {
            match inflater.inflate(&item.data) {
                Ok(data) => item.origin = Some(std::mem::replace(&mut item.data, data)),
                Err(why) => return failed.push(item.failed(why)),
            }
        }
        if !self.log_events {
            return self.split(item, items, failed);
        }
        match split::log_events(&item.data) {
            Ok(events) => {
                for event in events {
                    self.split(item.with(event), items, failed);
                }
            }
            Err(why) => failed.push(item.failed(Why::processing(
                "CloudWatchLogProcessing.InvalidMessage",
                why.to_string(),
            ))),
        }
    }

    fn split(&self, item: Item, items: &mut Vec<Item>, failed: &mut Vec<Failed>) {
        let parts = match &self.split {
            None => return items.push(item),
            Some(Split::Json) => split::json(&item.data),
            Some(Split::Delimited(delimiter)) => split::delimited(&item.data, delimiter),
        };
        match parts {
            Ok(parts) => items.extend(parts.into_iter().map(|part| item.with(part))),
            Err(why) => {
                let why = Why::processing("RecordDeAggregation.ParseError", why.to_string());
                failed.push(item.failed(why));
            }
        }
    }
}

impl After {
    fn is_plain(&self) -> bool {
        self.query.is_none() && self.delimiter.is_none()
    }

    fn run(&self, items: Vec<Item>, failed: &mut Vec<Failed>) -> Vec<Ready> {
        let mut ready = Vec::with_capacity(items.len());
        let mut room = BytesMut::new();
        let mut left: usize = match &self.delimiter {
            None => 0,
            Some(delimiter) => items.iter().map(|item| item.data.len() + delimiter.len()).sum(),
        };
        for mut item in items {
            if let Some(query) = &self.query {
                match query.extract(&item.data) {
                    Ok(keys) => item.query_keys = keys,
                    Err(why) => {
                        failed.push(item.failed(Why::processing("DynamicPartitioning.MetadataExtractionFailed", why)));
                        continue;
                    }
                }
            }
            if let Some(delimiter) = &self.delimiter {
                let length = item.data.len() + delimiter.len();
                if room.capacity() < length {
                    // Many records share one piece of memory, but not so many that one of them keeps a whole buffer.
                    room = BytesMut::with_capacity(left.min(INLINE_BYTES).max(length));
                }
                left = left.saturating_sub(length);
                room.extend_from_slice(&item.data);
                room.extend_from_slice(delimiter);
                item.data = room.split().freeze();
            }
            ready.push(item.ready());
        }
        ready
    }
}

#[cfg(test)]
mod tests;
