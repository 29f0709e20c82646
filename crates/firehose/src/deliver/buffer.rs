//! Records that wait for their delivery, by shard.

use std::collections::BTreeMap;

use storage::ShardId;

use super::budget::Held;
use super::rows::{Place, Range};
use crate::types::Record;

/// The records of one shard.
#[derive(Debug)]
struct Part {
    from: Place,
    records: Vec<Record>,
}

/// See the module. What is in it is in memory alone: the source keeps it.
#[derive(Debug, Default)]
pub struct Buffer {
    parts: BTreeMap<u32, Part>,
    bytes: usize,
    records: usize,
    held: Option<Held>,
}

/// A buffer that is to be delivered.
#[derive(Debug)]
pub struct Cut {
    /// Which records they are.
    pub ranges: Vec<Range>,
    /// The records, shard by shard.
    pub records: Vec<Record>,
    /// Bytes of them.
    pub bytes: usize,
    /// Their memory.
    pub held: Option<Held>,
}

/// The bytes of a record that count.
pub fn weight(record: &Record) -> usize {
    record.data.len()
}

impl Buffer {
    /// Adds records of a shard that begin at `from` and follow those that were added before.
    pub fn add(&mut self, shard: ShardId, from: Place, records: Vec<Record>, held: Held) {
        self.bytes += records.iter().map(weight).sum::<usize>();
        self.records += records.len();
        match &mut self.held {
            Some(mine) => mine.merge(held),
            None => self.held = Some(held),
        }
        match self.parts.get_mut(&shard.0) {
            Some(part) => part.records.extend(records),
            None => {
                self.parts.insert(shard.0, Part { from, records });
            }
        }
    }

    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes everything.
    pub fn cut(&mut self) -> Cut {
        let Buffer { parts, bytes, held, .. } = std::mem::take(self);
        let mut cut = Cut {
            ranges: Vec::with_capacity(parts.len()),
            records: Vec::new(),
            bytes,
            held,
        };
        for (shard, Part { from, records }) in parts {
            if let Some(last) = records.last() {
                let last = Place::At(last.source.sequence);
                cut.ranges.push(Range { shard, from, last });
            }
            match cut.records.is_empty() {
                true => cut.records = records,
                false => cut.records.extend(records),
            }
        }
        cut
    }
}
