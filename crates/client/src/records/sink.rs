//! Where a record producer puts its records.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::aggregate::UserRecord;
use super::number::SequenceNumber;
use crate::call::{Client, Service};
use crate::consumer::{KinesisSource, Shard, ShardSource as _};
use crate::error::ClientError;

/// Where a record was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// In which shard.
    pub shard: String,
    /// Under which number.
    pub sequence_number: SequenceNumber,
}

/// What became of one record of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is stored.
    Stored(Stored),
    /// It is not.
    Failed {
        /// The error's name.
        code: String,
        /// The server's words.
        message: String,
    },
}

/// A stream that takes records.
#[async_trait]
pub trait RecordSink: Send + Sync + 'static {
    /// Puts records with one call: one entry for each, in their order.
    async fn put(&self, records: &[UserRecord]) -> Result<Vec<Entry>, ClientError>;

    /// The stream's shards.
    async fn shards(&self) -> Result<Vec<Shard>, ClientError>;
}

/// A stream of a server, by its name or its ARN.
#[derive(Debug)]
pub struct KinesisSink {
    client: Client,
    stream: String,
    source: KinesisSource,
}

impl KinesisSink {
    /// The stream of this name or ARN.
    pub fn new(client: Client, stream: impl Into<String>) -> Self {
        let stream = stream.into();
        KinesisSink {
            source: KinesisSource::new(client.clone(), stream.clone()),
            client,
            stream,
        }
    }
}

#[async_trait]
impl RecordSink for KinesisSink {
    async fn put(&self, records: &[UserRecord]) -> Result<Vec<Entry>, ClientError> {
        let entries: Vec<Value> = records
            .iter()
            .map(|record| {
                let mut entry = Map::from_iter([
                    ("PartitionKey".to_owned(), Value::from(&*record.partition_key)),
                    ("Data".to_owned(), Value::from(STANDARD.encode(&record.data))),
                ]);
                let key = record.explicit_hash_key.map(|key| Value::from(key.to_string()));
                entry.extend(key.map(|key| ("ExplicitHashKey".to_owned(), key)));
                Value::Object(entry)
            })
            .collect();
        let field = if self.stream.starts_with("arn:") {
            "StreamARN"
        } else {
            "StreamName"
        };
        let input = json!({ field: self.stream, "Records": entries });
        let answer = self.client.call(Service::Kinesis, "PutRecords", &input).await?;
        let wrong = |what: &str| ClientError::Protocol(format!("PutRecords: {what}"));
        let told = answer
            .get("Records")
            .and_then(Value::as_array)
            .ok_or_else(|| wrong("no Records"))?;
        if told.len() != records.len() {
            return Err(wrong("not an entry for each record"));
        }
        let entry = |entry: &Value| {
            let text = |name: &str| entry.get(name).and_then(Value::as_str);
            if let Some(code) = text("ErrorCode") {
                let message = text("ErrorMessage").unwrap_or_default().to_owned();
                return Ok(Entry::Failed {
                    code: code.to_owned(),
                    message,
                });
            }
            let number = text("SequenceNumber").and_then(|number| number.parse().ok());
            Ok(Entry::Stored(Stored {
                shard: text("ShardId").ok_or_else(|| wrong("no ShardId"))?.to_owned(),
                sequence_number: number.ok_or_else(|| wrong("no SequenceNumber"))?,
            }))
        };
        told.iter().map(entry).collect()
    }

    async fn shards(&self) -> Result<Vec<Shard>, ClientError> {
        self.source.shards().await
    }
}
