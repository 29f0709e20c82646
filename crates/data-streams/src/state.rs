//! What is held in memory of a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use auth::ResourcePolicy;
use base::ResourceName;
use storage::{ShardId, StreamId};
use tokio::sync::Mutex;

use crate::arn::stream_arn;
use crate::hash::HashKey;
use crate::records::cipher::DataKey;
use crate::stored::{ShardRecord, StreamRecord};

/// A stream that exists, as it is between two changes.
#[derive(Debug)]
pub struct StreamState {
    /// Owner, region and name.
    pub name: ResourceName,
    /// Its number in the log.
    pub id: StreamId,
    /// Its ARN.
    pub arn: String,
    /// What the catalog holds of it.
    pub record: StreamRecord,
    /// Its resource policy.
    pub policy: Option<ResourcePolicy>,
    /// What opens its encrypted records, and seals new ones where the record says so.
    pub data_key: Option<DataKey>,
    /// What stays from state to state.
    pub lasting: Arc<Lasting>,
    /// The open shards by the last hash key of their range, ascending.
    open: Vec<(HashKey, ShardId)>,
}

/// What belongs to a stream through all its changes.
#[derive(Debug, Default)]
pub struct Lasting {
    /// Held by whoever changes the stream: one change at a time.
    pub gate: Arc<Mutex<()>>,
    /// What was written to it.
    pub load: Load,
}

/// Counts what is written to a stream, for on-demand streams whose shards follow it.
#[derive(Debug, Default)]
pub struct Load {
    bytes: AtomicU64,
    records: AtomicU64,
    /// When it last had enough to do for all its shards, milliseconds since the epoch.
    pub busy_ms: AtomicI64,
}

impl Load {
    /// Something was written.
    pub fn count(&self, records: usize, bytes: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Records and bytes since it was last asked.
    pub fn take(&self) -> (u64, u64) {
        (
            self.records.swap(0, Ordering::Relaxed),
            self.bytes.swap(0, Ordering::Relaxed),
        )
    }
}

impl StreamState {
    /// The state of a stream.
    pub fn new(name: ResourceName, record: StreamRecord, lasting: Arc<Lasting>, data_key: Option<DataKey>) -> Self {
        let mut open: Vec<_> = record.open_shards().map(|s| (s.last_key, ShardId(s.number))).collect();
        open.sort_unstable();
        // It was parsed when it was put.
        let policy = record
            .policy
            .as_deref()
            .and_then(|text| ResourcePolicy::parse(text).ok());
        StreamState {
            arn: stream_arn(&name),
            id: StreamId(record.id),
            name,
            record,
            policy,
            data_key,
            lasting,
            open,
        }
    }

    /// The open shard whose range holds the key. There always is one: the open shards divide the whole ring.
    pub fn shard_of(&self, key: HashKey) -> ShardId {
        let at = self.open.partition_point(|(last, _)| *last < key);
        self.open
            .get(at)
            .or(self.open.last())
            .map_or(ShardId(0), |(_, shard)| *shard)
    }

    /// A shard of the stream, open or closed.
    pub fn shard(&self, id: ShardId) -> Option<&ShardRecord> {
        self.record.shard(id.0)
    }

    /// Number of open shards.
    pub fn open_shards(&self) -> usize {
        self.open.len()
    }
}
