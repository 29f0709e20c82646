//! What is held in memory of a stream.

use base::ResourceName;
use storage::{ShardId, StreamId};

use crate::arn::stream_arn;
use crate::hash::HashKey;
use crate::records::{ShardRecord, StreamRecord};

/// A stream that exists.
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
    /// The open shards by the last hash key of their range, ascending.
    open: Vec<(HashKey, ShardId)>,
}

impl StreamState {
    /// The state of a stream.
    pub fn new(name: ResourceName, record: StreamRecord) -> Self {
        let mut open: Vec<_> = record.open_shards().map(|s| (s.last_key, ShardId(s.number))).collect();
        open.sort_unstable();
        StreamState {
            arn: stream_arn(&name),
            id: StreamId(record.id),
            name,
            record,
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
        self.record.shards.iter().find(|s| s.number == id.0)
    }

    /// Number of open shards.
    pub fn open_shards(&self) -> usize {
        self.open.len()
    }
}
