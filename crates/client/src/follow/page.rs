//! The calls: ListShards, GetShardIterator, GetRecords.

use std::sync::Arc;

use base::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::plan::Shard;
use super::{FollowFrom, StoredRecord};
use crate::call::{Client, Service};
use crate::error::ClientError;
use crate::limits::FOLLOW_RECORDS_MAX;
use crate::media::StreamName;

/// Where in a shard the next records are.
#[derive(Clone, Debug)]
pub enum Position {
    /// At its beginning.
    Oldest,
    /// Behind everything that is there.
    Latest,
    /// What arrived then or later.
    Time(Timestamp),
    /// Behind this sequence number.
    After(String),
    /// Where an iterator stands, and where that is should it expire.
    Iterator(String, Box<Position>),
}

impl From<FollowFrom> for Position {
    fn from(from: FollowFrom) -> Self {
        match from {
            FollowFrom::Now => Position::Latest,
            FollowFrom::Start => Position::Oldest,
            FollowFrom::Time(time) => Position::Time(time),
        }
    }
}

impl Position {
    /// The place that needs no iterator.
    pub fn without_iterator(&self) -> Position {
        match self {
            Position::Iterator(_, place) => place.without_iterator(),
            other => other.clone(),
        }
    }
}

/// What one GetRecords gave.
pub struct Page {
    pub records: Vec<StoredRecord>,
    /// Where to go on; `None` at the end of a closed shard.
    pub position: Option<Position>,
    pub behind_ms: i64,
    /// The shards that follow a closed one.
    pub children: Vec<Shard>,
}

/// Every shard that the filter lets through.
pub async fn list_shards(
    client: &Client,
    stream: &StreamName,
    filter: Option<&Value>,
) -> Result<Vec<Shard>, ClientError> {
    let mut shards = Vec::new();
    let mut input = json!({});
    stream.put_into(&mut input);
    if let (Some(filter), Some(members)) = (filter, input.as_object_mut()) {
        members.insert("ShardFilter".to_owned(), filter.clone());
    }
    loop {
        let answer = client.call(Service::Kinesis, "ListShards", &input).await?;
        for shard in list(&answer, "Shards") {
            let parents = ["ParentShardId", "AdjacentParentShardId"];
            shards.push(Shard {
                id: text(shard, "ShardId")?.into(),
                parents: parents
                    .iter()
                    .filter_map(|member| Some(shard.get(member)?.as_str()?.into()))
                    .collect(),
            });
        }
        match answer.get("NextToken").and_then(Value::as_str) {
            Some(token) => input = json!({ "NextToken": token }),
            None => return Ok(shards),
        }
    }
}

/// An iterator at the position.
pub async fn pin(client: &Client, stream: &StreamName, shard: &str, at: Position) -> Result<Position, ClientError> {
    let mut input = match &at {
        Position::Oldest => json!({ "ShardIteratorType": "TRIM_HORIZON" }),
        Position::Latest => json!({ "ShardIteratorType": "LATEST" }),
        Position::Time(time) => json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": time.seconds() }),
        Position::After(number) => {
            json!({ "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number })
        }
        Position::Iterator(..) => return Ok(at),
    };
    stream.put_into(&mut input);
    if let Some(members) = input.as_object_mut() {
        members.insert("ShardId".to_owned(), json!(shard));
    }
    let asked = client.clock().now();
    let answer = client.call(Service::Kinesis, "GetShardIterator", &input).await?;
    let iterator = text(&answer, "ShardIterator")?.to_owned();
    // Where nothing was read yet there is no number to go back to, only the time.
    let place = if matches!(at, Position::Latest) {
        Position::Time(asked)
    } else {
        at
    };
    Ok(Position::Iterator(iterator, Box::new(place)))
}

/// The next records of a shard.
pub async fn read(client: &Client, stream: &StreamName, shard: &Arc<str>, at: &Position) -> Result<Page, ClientError> {
    let Position::Iterator(iterator, place) = pin(client, stream, shard, at.clone()).await? else {
        return Err(ClientError::Protocol("no iterator".to_owned()));
    };
    let input = json!({ "ShardIterator": iterator, "Limit": FOLLOW_RECORDS_MAX });
    let answer = client.call(Service::Kinesis, "GetRecords", &input).await?;
    let records: Vec<StoredRecord> = list(&answer, "Records")
        .map(|record| stored(shard, record))
        .collect::<Result<_, _>>()?;
    let place = match records.last() {
        Some(last) => Box::new(Position::After(last.sequence_number.clone())),
        None => place,
    };
    let next = answer.get("NextShardIterator").and_then(Value::as_str);
    let children = list(&answer, "ChildShards").map(|child| {
        let parents = list(child, "ParentShards").filter_map(|parent| Some(parent.as_str()?.into()));
        let (id, parents) = (text(child, "ShardId")?.into(), parents.collect());
        Ok(Shard { id, parents })
    });
    Ok(Page {
        children: children.collect::<Result<_, ClientError>>()?,
        position: next.map(|next| Position::Iterator(next.to_owned(), place)),
        behind_ms: answer.get("MillisBehindLatest").and_then(Value::as_i64).unwrap_or(0),
        records,
    })
}

fn stored(shard: &Arc<str>, record: &Value) -> Result<StoredRecord, ClientError> {
    let data = STANDARD
        .decode(text(record, "Data")?)
        .map_err(|error| ClientError::Protocol(format!("Data: {error}")))?;
    let arrived = record.get("ApproximateArrivalTimestamp").and_then(Value::as_f64);
    Ok(StoredRecord {
        shard: Arc::clone(shard),
        sequence_number: text(record, "SequenceNumber")?.to_owned(),
        partition_key: text(record, "PartitionKey")?.to_owned(),
        arrived: arrived
            .and_then(Timestamp::from_seconds)
            .ok_or_else(|| ClientError::Protocol("a record without its time".to_owned()))?,
        data: Bytes::from(data),
    })
}

fn list<'a>(answer: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(member).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(answer: &'a Value, member: &str) -> Result<&'a str, ClientError> {
    let found = answer.get(member).and_then(Value::as_str);
    found.ok_or_else(|| ClientError::Protocol(format!("no {member}")))
}
