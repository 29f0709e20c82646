//! What the log has promised, and the check that it holds.

use std::collections::{BTreeMap, BTreeSet};

use base::Timestamp;
use bytes::Bytes;

use crate::records::{NewRecord, StoredRecord};
use crate::{FragmentInfo, FragmentNumber, FrameEntry, SequenceNumber, ShardId, StreamId};

/// A fragment that someone tried to store.
#[derive(Clone, Debug)]
pub(crate) struct Fragment {
    pub bytes: Bytes,
    pub frames: Vec<FrameEntry>,
    pub server: Timestamp,
    /// Set once it was acknowledged or seen: from then on it must stay as it is.
    pub info: Option<FragmentInfo>,
    /// A trim that covers it was asked for.
    pub may_be_gone: bool,
    /// A trim that covers it was acknowledged.
    pub is_gone: bool,
}

/// One video stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub fragments: BTreeMap<FragmentNumber, Fragment>,
    pub highest: Option<FragmentNumber>,
    pub may_be_deleted: bool,
    pub is_deleted: bool,
}

/// One shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    /// Acknowledged or seen.
    pub known: BTreeMap<SequenceNumber, NewRecord>,
    /// Asked for, not acknowledged.
    pub tried: Vec<NewRecord>,
    pub highest: Option<SequenceNumber>,
    /// Arrival below which a trim was asked for.
    pub may_be_gone: Option<Timestamp>,
    /// Records that an acknowledged trim covers.
    pub gone: BTreeSet<SequenceNumber>,
    /// Its creation was acknowledged.
    pub created: bool,
    pub may_be_deleted: bool,
    pub is_deleted: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub streams: BTreeMap<StreamId, Stream>,
    pub shards: BTreeMap<(StreamId, ShardId), Shard>,
    /// Broken promises.
    pub broken: Vec<String>,
}

pub(crate) type Found = (FragmentInfo, Bytes, Vec<FrameEntry>);

impl Stream {
    /// Compares what the log shows with what was promised. What it shows beyond that becomes a promise.
    pub fn check(&mut self, found: &[Found]) -> Result<(), String> {
        let mut positions = BTreeSet::new();
        for (info, bytes, frames) in found {
            if self.is_deleted {
                return Err(format!("{} of a deleted stream is back", info.number));
            }
            if !positions.insert(info.position) {
                return Err(format!("position {} twice", info.position));
            }
            let Some(fragment) = self.fragments.get_mut(&info.number) else {
                return Err(format!("ghost {}: nobody stored that", info.number));
            };
            if fragment.bytes != *bytes || fragment.frames != *frames {
                return Err(format!("{} has other bytes than were stored", info.number));
            }
            if fragment.is_gone {
                return Err(format!("trimmed {} is back", info.number));
            }
            if fragment.info.is_some_and(|known| known != *info) {
                return Err(format!("{:?} has changed to {info:?}", fragment.info));
            }
            fragment.info = Some(*info);
        }
        let deleted = self.may_be_deleted && found.is_empty();
        let shown: BTreeSet<FragmentNumber> = found.iter().map(|(i, ..)| i.number).collect();
        for (number, fragment) in &mut self.fragments {
            if fragment.info.is_some() && !shown.contains(number) && !fragment.is_gone {
                if !fragment.may_be_gone && !deleted {
                    return Err(format!("acknowledged {number} is lost"));
                }
                fragment.is_gone = true;
            }
            // A trim that was not acknowledged has either happened by now or never will.
            fragment.may_be_gone = false;
        }
        if self.may_be_deleted && !found.is_empty() {
            self.may_be_deleted = false;
        }
        Ok(())
    }
}

impl Shard {
    /// As [`Stream::check`].
    pub fn check(&mut self, found: &[StoredRecord]) -> Result<(), String> {
        if !found.windows(2).all(|w| w[0].sequence < w[1].sequence) {
            return Err("records out of order".into());
        }
        if let Some(back) = found.iter().find(|r| self.gone.contains(&r.sequence)) {
            return Err(format!("trimmed record {} is back", back.sequence));
        }
        let first = found.first().map(|r| r.sequence);
        for record in found {
            let same = |r: &NewRecord| {
                r.data == record.data
                    && r.partition_key == record.partition_key
                    && r.explicit_hash_key == record.explicit_hash_key
                    && r.arrival == record.arrival
            };
            match self.known.get(&record.sequence) {
                Some(known) if same(known) => {}
                Some(_) => return Err(format!("{} names other bytes", record.sequence)),
                None => {
                    let Some(at) = self.tried.iter().position(same) else {
                        return Err(format!("ghost record {}", record.sequence));
                    };
                    let record_new = self.tried.swap_remove(at);
                    self.known.insert(record.sequence, record_new);
                }
            }
            self.highest = self.highest.max(Some(record.sequence));
        }
        let shown: BTreeSet<SequenceNumber> = found.iter().map(|r| r.sequence).collect();
        for (sequence, record) in &self.known {
            let trimmed = self.may_be_gone.is_some_and(|t| record.arrival < t) && first.is_none_or(|f| f > *sequence);
            if !shown.contains(sequence) && !trimmed {
                return Err(format!("acknowledged record {sequence} is lost"));
            }
        }
        self.known.retain(|sequence, _| shown.contains(sequence));
        Ok(())
    }
}
