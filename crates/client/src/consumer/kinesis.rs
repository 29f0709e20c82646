//! A stream of a server: ListShards, GetShardIterator, GetRecords, the registration of consumers and SubscribeToShard.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use base::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use super::events::Events;
use super::source::{ChildShard, Page, Shard, ShardSource, StartAt, StreamRecord, Subscription};
use crate::backoff::Backoff;
use crate::call::{Client, Service};
use crate::error::ClientError;
use crate::records::HashRange;
use crate::transport::StreamSender;

/// A server says something at least every five seconds on a subscription.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A consumer that was registered is looked at so often, and so long, until it can be used.
const REGISTERED_EVERY: Duration = Duration::from_millis(500);
const REGISTERED_LOOKS: usize = 120;

/// Attempts at a ListShards that is called too often.
const LISTINGS: u32 = 6;

/// A stream, by its name or its ARN.
#[derive(Debug)]
pub struct KinesisSource {
    client: Client,
    stream: String,
    arn: OnceCell<String>,
}

impl KinesisSource {
    /// The stream of this name or ARN.
    pub fn new(client: Client, stream: impl Into<String>) -> Self {
        KinesisSource {
            client,
            stream: stream.into(),
            arn: OnceCell::new(),
        }
    }

    fn named(&self) -> Map<String, Value> {
        let field = if self.stream.starts_with("arn:") {
            "StreamARN"
        } else {
            "StreamName"
        };
        Map::from_iter([(field.to_owned(), Value::from(self.stream.as_str()))])
    }

    async fn call(&self, operation: &str, input: &Value) -> Result<Value, ClientError> {
        self.client.call(Service::Kinesis, operation, input).await
    }

    async fn arn(&self) -> Result<&str, ClientError> {
        let arn = self.arn.get_or_try_init(async || {
            if self.stream.starts_with("arn:") {
                return Ok(self.stream.clone());
            }
            let answer = self.call("DescribeStreamSummary", &Value::Object(self.named())).await?;
            let arn = answer
                .pointer("/StreamDescriptionSummary/StreamARN")
                .and_then(Value::as_str);
            arn.map(str::to_owned)
                .ok_or_else(|| ClientError::Protocol("DescribeStreamSummary: no StreamARN".to_owned()))
        });
        arn.await.map(String::as_str)
    }

    async fn list_page(&self, input: &Value) -> Result<Value, ClientError> {
        let mut failures = 0;
        loop {
            match self.call("ListShards", input).await {
                Err(error) if error.code() == Some("LimitExceededException") && failures < LISTINGS => {
                    failures += 1;
                    sleep(Backoff::default().draw(failures)).await;
                }
                done => return done,
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RangeJson<'a> {
    #[serde(borrow)]
    starting_hash_key: Cow<'a, str>,
    #[serde(borrow)]
    ending_hash_key: Cow<'a, str>,
}

impl RangeJson<'_> {
    fn parse(&self) -> Result<HashRange, ClientError> {
        let key = |text: &str| {
            text.parse()
                .map_err(|error| ClientError::Protocol(format!("a hash key: {error}")))
        };
        Ok(HashRange {
            first: key(&self.starting_hash_key)?,
            last: key(&self.ending_hash_key)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChildJson<'a> {
    shard_id: String,
    #[serde(default)]
    parent_shards: Vec<String>,
    #[serde(borrow)]
    hash_key_range: RangeJson<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RecordJson<'a> {
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    partition_key: String,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(default)]
    approximate_arrival_timestamp: f64,
}

/// An answer of GetRecords, or an event of SubscribeToShard.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PageJson<'a> {
    #[serde(borrow, default)]
    records: Vec<RecordJson<'a>>,
    #[serde(default)]
    next_shard_iterator: Option<String>,
    #[serde(default)]
    continuation_sequence_number: Option<String>,
    #[serde(default)]
    millis_behind_latest: Option<u64>,
    #[serde(borrow, default)]
    child_shards: Option<Vec<ChildJson<'a>>>,
}

fn page(document: &[u8]) -> Result<Page, ClientError> {
    let wrong = |what: &dyn std::fmt::Display| ClientError::Protocol(format!("records: {what}"));
    let page: PageJson<'_> = serde_json::from_slice(document).map_err(|error| wrong(&error))?;
    let record = |record: RecordJson<'_>| -> Result<StreamRecord, ClientError> {
        Ok(StreamRecord {
            sequence_number: record.sequence_number.parse().map_err(|error| wrong(&error))?,
            partition_key: record.partition_key,
            data: STANDARD
                .decode(record.data.as_bytes())
                .map_err(|error| wrong(&error))?
                .into(),
            arrived: Timestamp::from_seconds(record.approximate_arrival_timestamp).unwrap_or_default(),
        })
    };
    let child = |child: ChildJson<'_>| -> Result<ChildShard, ClientError> {
        Ok(ChildShard {
            range: child.hash_key_range.parse()?,
            id: child.shard_id,
            parents: child.parent_shards,
        })
    };
    Ok(Page {
        records: page.records.into_iter().map(record).collect::<Result<_, _>>()?,
        next: page.next_shard_iterator.or(page.continuation_sequence_number),
        millis_behind: page.millis_behind_latest.unwrap_or(0),
        children: page
            .child_shards
            .unwrap_or_default()
            .into_iter()
            .map(child)
            .collect::<Result<_, _>>()?,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NumbersJson {
    #[serde(default)]
    ending_sequence_number: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ShardJson<'a> {
    shard_id: String,
    #[serde(default)]
    parent_shard_id: Option<String>,
    #[serde(default)]
    adjacent_parent_shard_id: Option<String>,
    #[serde(borrow)]
    hash_key_range: RangeJson<'a>,
    sequence_number_range: NumbersJson,
}

fn shard(json: &Value) -> Result<Shard, ClientError> {
    let shard = ShardJson::deserialize(json).map_err(|error| ClientError::Protocol(format!("ListShards: {error}")))?;
    Ok(Shard {
        range: shard.hash_key_range.parse()?,
        id: shard.shard_id,
        parents: shard
            .parent_shard_id
            .into_iter()
            .chain(shard.adjacent_parent_shard_id)
            .collect(),
        open: shard.sequence_number_range.ending_sequence_number.is_none(),
    })
}

/// The names of the two fields differ between the operations: the type's, and the sequence number's.
fn start(from: &StartAt, kind: &str, number: &str) -> Map<String, Value> {
    let mut start = Map::new();
    let (name, field) = match from {
        StartAt::TrimHorizon => ("TRIM_HORIZON", None),
        StartAt::Latest => ("LATEST", None),
        StartAt::Timestamp(time) => ("AT_TIMESTAMP", Some(("Timestamp", Value::from(time.seconds())))),
        StartAt::At(at) => ("AT_SEQUENCE_NUMBER", Some((number, Value::from(at.as_str())))),
        StartAt::After(at) => ("AFTER_SEQUENCE_NUMBER", Some((number, Value::from(at.as_str())))),
    };
    start.insert(kind.to_owned(), Value::from(name));
    start.extend(field.map(|(name, value)| (name.to_owned(), value)));
    start
}

#[async_trait]
impl ShardSource for KinesisSource {
    async fn shards(&self) -> Result<Vec<Shard>, ClientError> {
        let mut input = Value::Object(self.named());
        let mut shards = Vec::new();
        loop {
            let answer = self.list_page(&input).await?;
            let listed = answer.get("Shards").and_then(Value::as_array);
            for json in listed.into_iter().flatten() {
                shards.push(shard(json)?);
            }
            match answer.get("NextToken").and_then(Value::as_str) {
                Some(token) => input = json!({ "NextToken": token }),
                None => return Ok(shards),
            }
        }
    }

    async fn iterator(&self, shard: &str, from: &StartAt) -> Result<String, ClientError> {
        let mut input = self.named();
        input.insert("ShardId".to_owned(), Value::from(shard));
        input.extend(start(from, "ShardIteratorType", "StartingSequenceNumber"));
        let answer = self.call("GetShardIterator", &Value::Object(input)).await?;
        let iterator = answer.get("ShardIterator").and_then(Value::as_str);
        iterator
            .map(str::to_owned)
            .ok_or_else(|| ClientError::Protocol("GetShardIterator: no ShardIterator".to_owned()))
    }

    async fn records(&self, iterator: &str, limit: u32) -> Result<Page, ClientError> {
        let input = json!({ "ShardIterator": iterator, "Limit": limit });
        page(&self.client.call_raw(Service::Kinesis, "GetRecords", &input).await?)
    }

    async fn registered(&self, name: &str) -> Result<String, ClientError> {
        let input = json!({ "StreamARN": self.arn().await?, "ConsumerName": name });
        let text = |answer: &Value, pointer: &str| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        for _ in 0..REGISTERED_LOOKS {
            let answer = match self.call("DescribeStreamConsumer", &input).await {
                Ok(answer) => answer,
                Err(error) if error.code() == Some("ResourceNotFoundException") => {
                    match self.call("RegisterStreamConsumer", &input).await {
                        Ok(_) => {}
                        // Another worker of the fleet was first.
                        Err(error) if error.code() == Some("ResourceInUseException") => sleep(REGISTERED_EVERY).await,
                        Err(error) => return Err(error),
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if text(&answer, "/ConsumerDescription/ConsumerStatus").as_deref() == Some("ACTIVE") {
                let arn = text(&answer, "/ConsumerDescription/ConsumerARN");
                return arn.ok_or_else(|| ClientError::Protocol("DescribeStreamConsumer: no ConsumerARN".to_owned()));
            }
            sleep(REGISTERED_EVERY).await;
        }
        Err(ClientError::Timeout(REGISTERED_EVERY * 120))
    }

    async fn subscribe(
        &self,
        consumer: &str,
        shard: &str,
        from: &StartAt,
    ) -> Result<Box<dyn Subscription>, ClientError> {
        let position = start(from, "Type", "SequenceNumber");
        let input = json!({ "ConsumerARN": consumer, "ShardId": shard, "StartingPosition": position });
        let sent = self
            .client
            .send_for_stream(Service::Kinesis, "SubscribeToShard", &input);
        let sent = timeout(self.client.timeout, sent).await;
        let (response, sender) = sent.map_err(|_| ClientError::Timeout(self.client.timeout))??;
        Ok(Box::new(Subscribed {
            body: response.into_body(),
            events: Events::default(),
            _sender: sender,
        }))
    }
}

struct Subscribed {
    body: Incoming,
    events: Events,
    /// Dropping it would cut the connection.
    _sender: StreamSender,
}

#[async_trait]
impl Subscription for Subscribed {
    async fn next(&mut self) -> Result<Option<Page>, ClientError> {
        loop {
            while let Some(event) = self.events.next()? {
                if event.name == "SubscribeToShardEvent" {
                    return page(&event.payload).map(Some);
                }
            }
            let frame = timeout(SILENCE_MAX, self.body.frame()).await;
            match frame.map_err(|_| ClientError::Timeout(SILENCE_MAX))? {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.events.push(&data);
                    }
                }
                None if self.events.is_partial() => return Err(ClientError::Truncated),
                None => return Ok(None),
            }
        }
    }
}
