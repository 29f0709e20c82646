//! What the server holds in memory of a stream while it runs: its live tail, its open connections, and the settings that
//! ingest reads for every fragment. The catalog has the truth; this follows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use storage::{MediaStore, StreamId};

use crate::live::Hub;
use crate::streams::StreamArn;

/// The two places where fragments are kept.
#[derive(Clone)]
pub struct Stores {
    /// For streams with retention.
    pub durable: Arc<dyn MediaStore>,
    /// For streams without: a ring for live readers.
    pub memory: Arc<dyn MediaStore>,
}

/// A stream that exists.
pub struct StreamState {
    /// Its number in the log.
    pub id: StreamId,
    /// Its ARN: owner, region, name and creation.
    pub arn: StreamArn,
    /// Its live tail.
    pub hub: Arc<Hub>,
    stores: Stores,
    retention_hours: AtomicI64,
    max_bytes: AtomicU64,
    puts: AtomicUsize,
    gets: AtomicUsize,
    lists: AtomicUsize,
}

impl std::fmt::Debug for StreamState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamState")
            .field("id", &self.id)
            .field("arn", &self.arn)
            .finish_non_exhaustive()
    }
}

/// The kinds of connection that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// PutMedia.
    Put,
    /// GetMedia.
    Get,
    /// GetMediaForFragmentList.
    List,
}

impl StreamState {
    /// The state of a stream that nobody uses yet.
    pub fn new(
        id: StreamId,
        arn: StreamArn,
        stores: Stores,
        retention_hours: i64,
        max_bytes: Option<u64>,
    ) -> Arc<Self> {
        Arc::new(StreamState {
            id,
            arn,
            hub: Hub::new(),
            stores,
            retention_hours: AtomicI64::new(retention_hours),
            max_bytes: AtomicU64::new(max_bytes.unwrap_or(u64::MAX)),
            puts: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
        })
    }

    /// How long fragments are kept; 0 means not at all.
    pub fn retention_hours(&self) -> i64 {
        self.retention_hours.load(Ordering::Acquire)
    }

    /// How many bytes are kept at most.
    pub fn max_bytes(&self) -> Option<u64> {
        let bytes = self.max_bytes.load(Ordering::Acquire);
        (bytes != u64::MAX).then_some(bytes)
    }

    /// Takes over changed settings.
    pub fn update(&self, retention_hours: i64, max_bytes: Option<u64>) {
        self.retention_hours.store(retention_hours, Ordering::Release);
        self.max_bytes.store(max_bytes.unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Where fragments go and come from now, and whether that place is durable.
    pub fn store(&self) -> (Arc<dyn MediaStore>, bool) {
        match self.retention_hours() {
            0 => (self.stores.memory.clone(), false),
            _ => (self.stores.durable.clone(), true),
        }
    }

    /// Counts a connection in; `None` when there are `limit` of its kind already.
    pub fn connect(self: &Arc<Self>, kind: ConnectionKind, limit: usize) -> Option<Connection> {
        let below = |open: usize| (open < limit).then_some(open + 1);
        let counted = self
            .counter(kind)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, below);
        counted.ok().map(|_| Connection {
            state: self.clone(),
            kind,
        })
    }

    /// Open connections of a kind.
    pub fn connections(&self, kind: ConnectionKind) -> usize {
        self.counter(kind).load(Ordering::Acquire)
    }

    fn counter(&self, kind: ConnectionKind) -> &AtomicUsize {
        match kind {
            ConnectionKind::Put => &self.puts,
            ConnectionKind::Get => &self.gets,
            ConnectionKind::List => &self.lists,
        }
    }
}

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub struct Connection {
    state: Arc<StreamState>,
    kind: ConnectionKind,
}

impl Connection {
    /// The stream that it goes to.
    pub fn stream(&self) -> &Arc<StreamState> {
        &self.state
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.counter(self.kind).fetch_sub(1, Ordering::AcqRel);
    }
}
