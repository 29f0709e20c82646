//! Puts records into a data stream and says of each what became of it.
//!
//! Records wait in a bounded buffer, `linger` at most, until a call is worth making; small ones are packed with others of
//! their shard, as the Kinesis Producer Library does. What a call did not store is tried again, each record by itself, until
//! it is too old. A full buffer makes the sender wait.
//!
//! Delivery is at least once: a call whose answer is lost is made again, and its records may be stored twice. With
//! [`Order::PerKey`] the records of one partition key are stored in the order in which they were sent, also when some are
//! tried again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::Clock;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::aggregate::UserRecord;
use super::driver::{self, Part};
use super::sink::{RecordSink, Stored};
use crate::backoff::Backoff;
use crate::limits::{PUT_KEY_CHARACTERS_MAX, PUT_RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES};
use crate::producer::Latency;

/// What is kept in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Nothing: a record that is tried again comes after later ones.
    #[default]
    None,
    /// Records of one partition key: one call at a time is under way with each.
    PerKey,
}

/// How a [`RecordProducer`] behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordProducerConfig {
    /// Most bytes of an aggregate; `None` packs nothing. Default 51,200, as the Kinesis Producer Library.
    pub aggregate_bytes_max: Option<usize>,
    /// How long a record waits for others. Default 100 ms, as the Kinesis Producer Library.
    pub linger: Duration,
    /// Most bytes of records that wait or are under way; a sender waits where there are more. Default 64 MiB.
    pub buffer_bytes_max: usize,
    /// Most records of one call. Default 500, AWS's limit.
    pub call_records_max: usize,
    /// Most bytes of one call. Default 4 MiB.
    pub call_bytes_max: usize,
    /// Most calls at once. Default 8.
    pub calls_max: usize,
    /// What is kept in order. Default [`Order::None`].
    pub order: Order,
    /// Waits before what failed is tried again.
    pub backoff: Backoff,
    /// A record that could not be stored for so long has failed. Default 30 s, as the Kinesis Producer Library.
    pub give_up_after: Duration,
}

impl Default for RecordProducerConfig {
    fn default() -> Self {
        RecordProducerConfig {
            aggregate_bytes_max: Some(51_200),
            linger: Duration::from_millis(100),
            buffer_bytes_max: 64 << 20,
            call_records_max: 500,
            call_bytes_max: 4 << 20,
            calls_max: 8,
            order: Order::None,
            backoff: Backoff {
                first: Duration::from_millis(50),
                longest: Duration::from_secs(2),
            },
            give_up_after: Duration::from_secs(30),
        }
    }
}

/// What a record producer has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordProducerStats {
    /// Records that were sent to it.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that are stored.
    pub stored: u64,
    /// Records that were given up.
    pub failed: u64,
    /// Stream records that were made of them.
    pub packed: u64,
    /// Stream records that were tried again.
    pub retried: u64,
    /// Records that were sent once more because a change of shards had put them into the wrong one.
    pub misplaced: u64,
    /// Calls.
    pub calls: u64,
    /// Records that wait or are under way.
    pub buffered: u64,
    /// From sent to stored.
    pub stored_after: Latency,
}

/// Why a record was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The record cannot be put at all.
    #[error("the record is too large: data and partition key together have {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The partition key is empty or too long.
    #[error("a partition key has 1 to 256 characters")]
    PartitionKey,
    /// The server refused it, or was away until it was too old.
    #[error("not stored after {attempts} attempts: {why}")]
    Refused {
        /// Calls that were made with it.
        attempts: u32,
        /// What the last of them said.
        why: String,
    },
    /// The producer was dropped.
    #[error("the producer has ended")]
    Ended,
}

/// Becomes what became of a record. Whoever does not want to know drops it.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Stored, PutError>>);

impl Future for Receipt {
    type Output = Result<Stored, PutError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|told| told.unwrap_or(Err(PutError::Ended)))
    }
}

/// What a program tells the driver.
pub(crate) enum Command {
    Put(Part),
    /// Nothing lingers; told when everything sent before has its answer.
    Flush(oneshot::Sender<()>),
}

/// A producer of one stream. Dropping it gives up what is not stored; [`finish`](Self::finish) waits for it.
pub struct RecordProducer {
    commands: mpsc::UnboundedSender<Command>,
    buffer: Arc<Semaphore>,
    buffer_bytes_max: u32,
    stats: Arc<Mutex<RecordProducerStats>>,
    clock: Arc<dyn Clock>,
    driver: JoinHandle<()>,
}

impl RecordProducer {
    /// Starts a producer on the current Tokio runtime.
    pub fn start(sink: Arc<dyn RecordSink>, clock: Arc<dyn Clock>, config: RecordProducerConfig) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let stats = Arc::new(Mutex::new(RecordProducerStats::default()));
        let buffer_bytes_max = u32::try_from(config.buffer_bytes_max)
            .unwrap_or(u32::MAX)
            .clamp(1, u32::MAX >> 4);
        RecordProducer {
            commands,
            buffer: Arc::new(Semaphore::new(buffer_bytes_max as usize)),
            buffer_bytes_max,
            driver: tokio::spawn(driver::run(sink, Arc::clone(&clock), config, inbox, Arc::clone(&stats))),
            clock,
            stats,
        }
    }

    /// Sends a record; waits while the buffer is full. What becomes of it, the receipt tells.
    pub async fn send(&self, record: UserRecord) -> Result<Receipt, PutError> {
        let bytes = check(&record)?;
        let permits = self.permits(bytes);
        let room = Arc::clone(&self.buffer)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| PutError::Ended)?;
        self.put(record, bytes, room)
    }

    /// Sends a record if the buffer has room; gives it back otherwise.
    pub fn try_send(&self, record: UserRecord) -> Result<Result<Receipt, PutError>, UserRecord> {
        let bytes = match check(&record) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        match Arc::clone(&self.buffer).try_acquire_many_owned(self.permits(bytes)) {
            Ok(room) => Ok(self.put(record, bytes, room)),
            Err(_) => Err(record),
        }
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes + RECORD_OVERHEAD_BYTES)
            .unwrap_or(u32::MAX)
            .min(self.buffer_bytes_max)
    }

    fn put(&self, record: UserRecord, bytes: usize, room: OwnedSemaphorePermit) -> Result<Receipt, PutError> {
        let (reply, receipt) = oneshot::channel();
        {
            let mut stats = self.stats.lock();
            stats.records += 1;
            stats.bytes += bytes as u64;
            stats.buffered += 1;
        }
        let part = Part::new(record, self.clock.monotonic(), reply, room);
        self.commands.send(Command::Put(part)).map_err(|_| PutError::Ended)?;
        Ok(Receipt(receipt))
    }

    /// Waits until everything sent before is stored or given up; nothing lingers meanwhile.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.commands.send(Command::Flush(done)).is_ok() {
            let _ = waiting.await;
        }
    }

    /// Flushes, and says what was done in all.
    pub async fn finish(self) -> RecordProducerStats {
        self.flush().await;
        self.stats()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> RecordProducerStats {
        self.stats.lock().clone()
    }
}

impl std::fmt::Debug for RecordProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordProducer")
            .field("stats", &*self.stats.lock())
            .finish_non_exhaustive()
    }
}

impl Drop for RecordProducer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The bytes that the service counts.
fn check(record: &UserRecord) -> Result<usize, PutError> {
    let characters = record.partition_key.chars().take(PUT_KEY_CHARACTERS_MAX + 1).count();
    if characters == 0 || characters > PUT_KEY_CHARACTERS_MAX {
        return Err(PutError::PartitionKey);
    }
    let bytes = record.data.len() + record.partition_key.len();
    if bytes > PUT_RECORD_BYTES_MAX {
        return Err(PutError::TooLarge {
            bytes,
            max: PUT_RECORD_BYTES_MAX,
        });
    }
    Ok(bytes)
}
