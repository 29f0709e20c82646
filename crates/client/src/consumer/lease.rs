//! A lease: who reads a shard, how far it has come, and where it lies among the others. The names of the fields in the
//! table are in [`table`](super::table).

use std::collections::BTreeSet;
use std::fmt;

use crate::records::{HashRange, SequenceNumber};

/// A place in a shard: a record, or one of the user records packed into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The record's number.
    pub sequence_number: SequenceNumber,
    /// The user record's place in it; 0 where it is not packed.
    pub sub_sequence_number: u64,
}

/// How far a shard is done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checkpoint {
    /// Nothing is done, begin with the oldest record.
    TrimHorizon,
    /// Nothing is done, begin with what comes.
    Latest,
    /// Nothing is done, begin at the time that the consumers are configured with.
    AtTimestamp,
    /// Everything up to and with this is done.
    At(Position),
    /// All of it is done, and the shard is closed.
    ShardEnd,
}

impl Checkpoint {
    /// Whether reading has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        matches!(self, Checkpoint::At(_) | Checkpoint::ShardEnd)
    }

    /// Whether a record is behind it.
    #[must_use]
    pub fn covers(&self, position: &Position) -> bool {
        match self {
            Checkpoint::At(done) => position <= done,
            Checkpoint::ShardEnd => true,
            _ => false,
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Checkpoint::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Checkpoint::Latest => f.write_str("LATEST"),
            Checkpoint::AtTimestamp => f.write_str("AT_TIMESTAMP"),
            Checkpoint::At(position) => write!(f, "{}", position.sequence_number),
            Checkpoint::ShardEnd => f.write_str("SHARD_END"),
        }
    }
}

/// The first phase of a checkpoint in two: what its owner is about to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// How far.
    pub checkpoint: Checkpoint,
    /// What the owner wanted to be told when it, or the next owner, goes on from here.
    pub state: Vec<u8>,
}

/// A row of the lease table.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// The shard's id.
    pub key: String,
    /// Who reads it, or who is to read it once `checkpoint_owner` has let it go.
    pub owner: Option<String>,
    /// Grows with every write of an owner; whoever last saw it grow knows that the owner lives.
    pub counter: u64,
    /// How far it is done.
    pub checkpoint: Checkpoint,
    /// A checkpoint that was prepared and not committed.
    pub pending: Option<Pending>,
    /// Changes of owner since the last checkpoint.
    pub owner_switches: u64,
    /// The shards it came from.
    pub parents: BTreeSet<String>,
    /// The shards that came from it; known when it ended.
    pub children: BTreeSet<String>,
    /// Its part of the hash keys.
    pub range: Option<HashRange>,
    /// Who reads it until it has made its last checkpoint and lets it go to `owner`.
    pub checkpoint_owner: Option<String>,
    /// What flows through it, in KiB a second.
    pub throughput_kbps: Option<f64>,
}

impl Lease {
    /// A lease that nobody has.
    #[must_use]
    pub fn new(key: impl Into<String>, checkpoint: Checkpoint) -> Self {
        Lease {
            key: key.into(),
            owner: None,
            counter: 0,
            checkpoint,
            pending: None,
            owner_switches: 0,
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            range: None,
            checkpoint_owner: None,
            throughput_kbps: None,
        }
    }

    /// Who reads it now.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.checkpoint_owner.as_deref().or(self.owner.as_deref())
    }

    /// Whether everything in it is done.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.checkpoint == Checkpoint::ShardEnd
    }
}
