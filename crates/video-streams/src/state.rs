//! What the server holds in memory of a stream while it runs: its live tail, its open connections, and the settings that
//! ingest reads for every fragment. The catalog has the truth; this follows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use storage::{MediaStore, StreamId};
use tokio::sync::watch;

use crate::deliver::{Cursors, RecentTriggers};
use crate::live::Hub;
use crate::metrics::VideoMetrics;
use crate::records::StreamRecord;
use crate::streams::StreamArn;

/// The two places where fragments are kept.
#[derive(Clone)]
pub struct Stores {
    /// For streams with retention.
    pub durable: Arc<dyn MediaStore>,
    /// For streams without: a ring for live readers.
    pub memory: Arc<dyn MediaStore>,
}

impl Stores {
    /// Deletes all fragments of a stream, for ever.
    pub async fn delete(&self, id: StreamId) -> Result<(), storage::Error> {
        for store in [&self.durable, &self.memory] {
            match store.delete_stream(id).await {
                Ok(()) | Err(storage::Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A stream that exists.
pub struct StreamState {
    /// Its number in the log.
    pub id: StreamId,
    /// Its ARN: owner, region, name and creation.
    pub arn: StreamArn,
    /// Its live tail.
    pub hub: Arc<Hub>,
    /// How far its deliveries have come.
    pub(crate) cursors: Cursors,
    /// What its fragments stored last ask for.
    pub(crate) recent_triggers: RecentTriggers,
    stores: Stores,
    record: RwLock<Arc<StreamRecord>>,
    unswept: AtomicU64,
    puts: AtomicUsize,
    gets: AtomicUsize,
    lists: AtomicUsize,
    clips: AtomicUsize,
    /// Counts the connections that ended those before them.
    newest: watch::Sender<u64>,
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
    /// GetClip.
    Clip,
}

impl StreamState {
    /// The state of a stream that nobody uses yet.
    pub fn new(arn: StreamArn, record: StreamRecord, stores: Stores) -> Arc<Self> {
        Arc::new(StreamState {
            id: StreamId(record.id),
            arn,
            hub: Hub::new(),
            cursors: Cursors::default(),
            recent_triggers: RecentTriggers::default(),
            stores,
            record: RwLock::new(Arc::new(record)),
            unswept: AtomicU64::new(0),
            puts: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            clips: AtomicUsize::new(0),
            newest: watch::Sender::new(0),
        })
    }

    /// The stream's record as the catalog has it.
    pub fn record(&self) -> Arc<StreamRecord> {
        self.record.read().clone()
    }

    /// Takes over a changed record.
    pub fn set_record(&self, record: StreamRecord) {
        *self.record.write() = Arc::new(record);
    }

    /// How long fragments are kept; 0 means not at all.
    pub fn retention_hours(&self) -> i64 {
        i64::from(self.record.read().retention_hours)
    }

    /// Counts bytes that were stored since the last sweep, and gives their sum.
    pub fn count_unswept(&self, bytes: u64) -> u64 {
        self.unswept.fetch_add(bytes, Ordering::AcqRel).saturating_add(bytes)
    }

    /// Bytes that were stored since the last sweep.
    pub fn unswept(&self) -> u64 {
        self.unswept.load(Ordering::Acquire)
    }

    /// Begins a sweep.
    pub fn reset_unswept(&self) {
        self.unswept.store(0, Ordering::Release);
    }

    /// Both places where fragments can be.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Where fragments go and come from now, and whether that place is durable.
    pub fn store(&self) -> (Arc<dyn MediaStore>, bool) {
        match self.retention_hours() {
            0 => (self.stores.memory.clone(), false),
            _ => (self.stores.durable.clone(), true),
        }
    }

    /// Counts a connection in; `None` when there are `limit` of its kind already.
    pub fn connect(self: &Arc<Self>, kind: ConnectionKind, limit: usize, metrics: &VideoMetrics) -> Option<Connection> {
        let below = |open: usize| (open < limit).then_some(open + 1);
        let counted = self
            .counter(kind)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, below);
        counted.ok().map(|_| {
            metrics.connected(kind, 1);
            Connection {
                state: self.clone(),
                kind,
                metrics: metrics.clone(),
            }
        })
    }

    /// Ends the PutMedia connections that [watch](StreamState::watch_newest) for it.
    pub fn supersede(&self) {
        self.newest.send_modify(|count| *count += 1);
    }

    /// Changes when a connection that comes after this call ends those before it.
    pub fn watch_newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
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
            ConnectionKind::Clip => &self.clips,
        }
    }
}

/// A connection that is counted until it is dropped.
pub struct Connection {
    state: Arc<StreamState>,
    kind: ConnectionKind,
    metrics: VideoMetrics,
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
        self.metrics.connected(self.kind, -1);
    }
}
