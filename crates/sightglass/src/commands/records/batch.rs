//! Batches of PutRecords, sent again for what was not stored.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Backoff, Client, ClientError, Service, StreamName};
use serde_json::{Value, json};

use super::source::Record;
use crate::cli::RecordsPutArgs;
use crate::commands::{Failure, connect};

/// Records of one call. AWS: 500.
pub const RECORDS_MAX: usize = 500;

/// Data and keys of one call. AWS: 10 MiB.
const BYTES_MAX: usize = 10 * 1024 * 1024;

/// Waits between attempts: a shard that takes a thousand records a second has room again soon.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
};

/// Records of one call.
pub struct Batch {
    records: Vec<Record>,
    bytes: usize,
}

fn size(record: &Record) -> usize {
    record.key.len() + record.data.len()
}

impl Batch {
    /// With one record, which may be as large as it is.
    pub fn new(first: Record) -> Self {
        Batch {
            bytes: size(&first),
            records: vec![first],
        }
    }

    /// Whether another record may fit.
    pub fn has_room(&self) -> bool {
        self.records.len() < RECORDS_MAX && self.bytes < BYTES_MAX
    }

    /// Takes a record, or gives it back when it does not fit.
    pub fn push(&mut self, record: Record) -> Option<Record> {
        if !self.has_room() || self.bytes + size(&record) > BYTES_MAX {
            return Some(record);
        }
        self.bytes += size(&record);
        self.records.push(record);
        None
    }
}

/// What one call did.
#[derive(Default)]
pub struct Answered {
    pub stored: u64,
    pub bytes: u64,
    /// Records that are sent again.
    pub again: u64,
    /// The shard of each record that was stored.
    pub shards: Vec<String>,
    /// Why some are sent again, where that is new.
    pub trouble: Option<String>,
}

/// Sends batches, one at a time, so that records of a key keep their order unless a shard refuses some of a batch.
pub struct Sender {
    client: Client,
    stream: StreamName,
    explicit_hash_key: Option<String>,
    give_up_after: Duration,
    waiting: usize,
}

impl Sender {
    pub fn new(client: Client, args: &RecordsPutArgs) -> Self {
        Sender {
            client,
            stream: connect::stream(&args.stream),
            explicit_hash_key: args.explicit_hash_key.clone(),
            give_up_after: Duration::from_secs(args.give_up_after),
            waiting: 0,
        }
    }

    /// Records that were sent and not confirmed.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Sends until every record is stored, the server refuses, or it has stored nothing for too long.
    pub async fn send(&mut self, batch: Batch, mut tell: impl FnMut(Answered)) -> Result<(), Failure> {
        let mut records = batch.records;
        let mut last_stored = self.client.clock().monotonic();
        let mut failures = 0;
        let mut told = String::new();
        loop {
            self.waiting = records.len();
            let mut answered = Answered::default();
            let trouble = match self
                .client
                .call(Service::Kinesis, "PutRecords", &self.input(&records))
                .await
            {
                Ok(answer) => sort(&answer, &mut records, &mut answered)?,
                Err(error) if error.is_transient() => Some(connect::explained(error).to_string()),
                Err(error) => return Err(connect::explained(error)),
            };
            self.waiting = records.len();
            answered.again = records.len() as u64;
            if answered.stored > 0 {
                last_stored = self.client.clock().monotonic();
                failures = 0;
            }
            answered.trouble = trouble.clone().filter(|trouble| *trouble != told);
            tell(answered);
            let Some(trouble) = trouble else { return Ok(()) };
            if self.client.clock().monotonic() >= last_stored + self.give_up_after {
                return Err(format!("{} records were not stored: {trouble}", records.len()).into());
            }
            told = trouble;
            failures += 1;
            tokio::time::sleep(BACKOFF.draw(failures)).await;
        }
    }

    fn input(&self, records: &[Record]) -> Value {
        let entries = records.iter().map(|record| {
            let mut entry = json!({ "PartitionKey": record.key, "Data": STANDARD.encode(&record.data) });
            if let (Some(key), Some(members)) = (&self.explicit_hash_key, entry.as_object_mut()) {
                members.insert("ExplicitHashKey".to_owned(), json!(key));
            }
            entry
        });
        let mut input = json!({ "Records": entries.collect::<Vec<_>>() });
        self.stream.put_into(&mut input);
        input
    }
}

/// Leaves those that were not stored, in their order, and gives why.
fn sort(answer: &Value, records: &mut Vec<Record>, answered: &mut Answered) -> Result<Option<String>, ClientError> {
    let entries = answer.get("Records").and_then(Value::as_array);
    let entries = entries.filter(|entries| entries.len() == records.len());
    let entries = entries.ok_or_else(|| ClientError::Protocol("an answer for other records".to_owned()))?;
    let mut trouble = None;
    let mut entries = entries.iter();
    records.retain(|record| {
        let entry = entries.next();
        let text = |member: &str| entry?.get(member)?.as_str().map(str::to_owned);
        let (shard, code, message) = (text("ShardId"), text("ErrorCode"), text("ErrorMessage"));
        if let Some(code) = code {
            trouble = Some(format!("{code}: {}", message.unwrap_or_default()));
            return true;
        }
        answered.stored += 1;
        answered.bytes += record.data.len() as u64;
        answered.shards.extend(shard);
        false
    });
    Ok(trouble)
}
