//! Data streams for programs that move much: pages of GetRecords whose records stay where they came in, PutRecords of as
//! many rows as one call takes, both in CBOR, which carries data as bytes. What a reader has done and what a writer must
//! not lose is its caller's to remember.

mod cbor;
mod page;
mod put;

use base::Timestamp;
use serde_json::{Map, Value, json};

pub(crate) use cbor::error;
pub use page::{BulkPage, BulkRecord};
pub use put::{NotPut, PUT_BYTES_MAX, PUT_RECORDS_MAX, PutRow};

use crate::call::{Client, Service};
use crate::consumer::{KinesisSource, Shard, ShardSource as _, StartAt};
use crate::error::ClientError;
use crate::limits::PAGE_RECORDS_MAX;

/// How Kinesis labels CBOR.
pub(crate) const CBOR: &str = "application/x-amz-cbor-1.1";

/// A stream, by its name or its ARN.
#[derive(Debug)]
pub struct BulkStream {
    client: Client,
    stream: String,
    source: KinesisSource,
}

/// What is told of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// Its ARN.
    pub arn: String,
    /// When it was made: a stream of the same name that was made anew is another.
    pub created: Timestamp,
}

impl BulkStream {
    /// The stream of this name or ARN.
    pub fn new(client: Client, stream: impl Into<String>) -> Self {
        let stream = stream.into();
        BulkStream {
            source: KinesisSource::new(client.clone(), stream.clone()),
            client,
            stream,
        }
    }

    /// As it was named.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The member that names the stream in requests.
    fn field(&self) -> &'static str {
        match self.stream.starts_with("arn:") {
            true => "StreamARN",
            false => "StreamName",
        }
    }

    /// All shards that the stream remembers, closed ones too.
    pub async fn shards(&self) -> Result<Vec<Shard>, ClientError> {
        self.source.shards().await
    }

    /// What and since when the stream is.
    pub async fn summary(&self) -> Result<StreamSummary, ClientError> {
        let named = Map::from_iter([(self.field().to_owned(), Value::from(self.stream.as_str()))]);
        let input = Value::Object(named);
        let answer = self
            .client
            .call(Service::Kinesis, "DescribeStreamSummary", &input)
            .await?;
        let wrong =
            || ClientError::Protocol("DescribeStreamSummary: no StreamARN or no StreamCreationTimestamp".into());
        let told = answer.get("StreamDescriptionSummary").ok_or_else(wrong)?;
        let arn = told.get("StreamARN").and_then(Value::as_str);
        let created = told.get("StreamCreationTimestamp").and_then(Value::as_f64);
        Ok(StreamSummary {
            arn: arn.ok_or_else(wrong)?.to_owned(),
            created: created.and_then(Timestamp::from_seconds).ok_or_else(wrong)?,
        })
    }

    /// An iterator for [`records`](Self::records).
    pub async fn iterator(&self, shard: &str, from: &StartAt) -> Result<String, ClientError> {
        self.source.iterator(shard, from).await
    }

    /// The records behind an iterator: as many as one answer holds.
    pub async fn records(&self, iterator: &str) -> Result<BulkPage, ClientError> {
        let input = json!({ "ShardIterator": iterator, "Limit": PAGE_RECORDS_MAX });
        let mut body = Vec::with_capacity(iterator.len() + 48);
        cbor::write_json(&mut body, &input);
        let answer = self
            .client
            .call_bytes(Service::Kinesis, "GetRecords", CBOR, body.into());
        BulkPage::read(&answer.await?)
    }
}
