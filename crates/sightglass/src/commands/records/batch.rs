//! Batches of PutRecords, sent again for what was not stored.

use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use client::records::{Entry, KinesisSink, RecordSink, UserRecord};
use client::{Backoff, Client};
use tokio::sync::OwnedSemaphorePermit;

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
#[derive(Default)]
pub struct Batch {
    records: Vec<UserRecord>,
    bytes: usize,
    /// The share of what may be held, until all of it is stored.
    rooms: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    /// With one record, which may be as large as it is.
    pub fn new(first: Record) -> Self {
        let mut batch = Batch::default();
        batch.add(first);
        batch
    }

    /// Whether another record may fit.
    pub fn has_room(&self) -> bool {
        self.records.len() < RECORDS_MAX && self.bytes < BYTES_MAX
    }

    /// Takes a record, or gives it back when it does not fit.
    pub fn push(&mut self, record: Record) -> Option<Record> {
        if !self.has_room() || self.bytes + record.size() > BYTES_MAX {
            return Some(record);
        }
        self.add(record);
        None
    }

    fn add(&mut self, record: Record) {
        self.bytes += record.size();
        self.records.push(record.user);
        self.rooms.extend(record.room);
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
    sink: KinesisSink,
    clock: Arc<dyn Clock>,
    give_up_after: Duration,
    waiting: usize,
}

impl Sender {
    pub fn new(client: &Client, args: &RecordsPutArgs) -> Self {
        Sender {
            sink: KinesisSink::new(client.clone(), &args.stream),
            clock: Arc::clone(client.clock()),
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
        let mut last_stored = self.clock.monotonic();
        let mut failures = 0;
        let mut told = String::new();
        loop {
            self.waiting = records.len();
            let mut answered = Answered::default();
            let trouble = match self.sink.put(&records).await {
                Ok(entries) => sort(entries, &mut records, &mut answered),
                Err(error) if error.is_transient() => Some(connect::explained(error).to_string()),
                Err(error) => return Err(connect::explained(error)),
            };
            self.waiting = records.len();
            answered.again = records.len() as u64;
            if answered.stored > 0 {
                last_stored = self.clock.monotonic();
                failures = 0;
            }
            answered.trouble = trouble.clone().filter(|trouble| *trouble != told);
            tell(answered);
            let Some(trouble) = trouble else { return Ok(()) };
            if self.clock.monotonic() >= last_stored + self.give_up_after {
                return Err(format!("{} records were not stored: {trouble}", records.len()).into());
            }
            told = trouble;
            failures += 1;
            tokio::time::sleep(BACKOFF.draw(failures)).await;
        }
    }
}

/// Leaves those that were not stored, in their order, and gives why.
fn sort(entries: Vec<Entry>, records: &mut Vec<UserRecord>, answered: &mut Answered) -> Option<String> {
    let mut trouble = None;
    let mut entries = entries.into_iter();
    records.retain(|record| match entries.next() {
        Some(Entry::Stored(stored)) => {
            answered.stored += 1;
            answered.bytes += record.data.len() as u64;
            answered.shards.push(stored.shard);
            false
        }
        Some(Entry::Failed { code, message }) => {
            trouble = Some(format!("{code}: {message}"));
            true
        }
        None => true,
    });
    trouble
}
