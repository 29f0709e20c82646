//! The segment log as one object: opened on a disk, it gives both stores.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use base::metrics::Metrics;
use base::{Clock, Disk};
use parking_lot::Mutex;
use serde::Serialize;

use crate::index_writer::{self, IndexCore};
use crate::lane::LaneCore;
use crate::media_log::LogMediaStore;
use crate::payload::Log;
use crate::plan::Request;
use crate::queue::{Queue, spawn};
use crate::record_log::LogRecordLog;
use crate::recover::{Tail, recover};
use crate::state::Shared;
use crate::{Error, LogOptions, MediaStore, RecordLog};

/// What recovery found at open.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RecoveryReport {
    /// Segments found.
    pub segments: u64,
    /// Those of them that had to be read: all of records, and of media those that the index on disk does not vouch for.
    pub segments_read: u64,
    /// The index on disk did not fit the log and was built anew.
    pub index_rebuilt: bool,
    /// Fragments that can be read.
    pub fragments: u64,
    /// Torn tails that were saved aside and cut: writes that nobody had been told were durable.
    pub torn: Vec<DamagedRange>,
    /// Damage to durable data. It stays where it is and its segment is kept out of reuse.
    pub quarantined: Vec<DamagedRange>,
}

/// A stretch of a segment that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedRange {
    /// Name of the file.
    pub file: String,
    /// Segment id.
    pub segment: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// A lane and the queue that leads to it.
pub(crate) type LaneAndQueue = (LaneCore, Arc<Queue>);

/// An open log without threads: who holds the lanes drives them.
pub(crate) struct Parts {
    pub media: Arc<LogMediaStore>,
    pub records: Arc<LogRecordLog>,
    pub report: RecoveryReport,
    pub lanes: Vec<LaneAndQueue>,
    pub index: IndexCore,
    pub shared: Arc<Shared>,
}

/// Recovers the log on `disk` and makes its lanes ready.
pub(crate) fn open_parts(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: LogOptions,
    metrics: &Metrics,
) -> Result<Parts, Error> {
    let (media_lanes, record_lanes) = (options.media_lanes.max(1), options.record_lanes.max(1));
    let options = LogOptions {
        media_lanes,
        record_lanes,
        ..options
    };
    let shared = Shared::new(disk, clock, options, metrics)?;
    let recovered = recover(&shared)?;
    let mut tails: HashMap<(Log, u16), Tail> = recovered.tails;
    let mut lanes: Vec<LaneAndQueue> = Vec::new();
    for (log, count) in [(Log::Media, media_lanes), (Log::Records, record_lanes)] {
        for lane in 0..count {
            let tail = tails.remove(&(log, lane)).unwrap_or_default();
            let mut core = LaneCore::new(Arc::clone(&shared), log, lane, tail.active, tail.previous);
            core.start()?;
            core.tick();
            lanes.push((core, Arc::new(Queue::default())));
        }
    }
    let queues = |log: Log| {
        let of_log = lanes.iter().filter(|(core, _)| core.log == log);
        of_log.map(|(_, queue)| Arc::clone(queue)).collect::<Vec<_>>()
    };
    Ok(Parts {
        media: Arc::new(LogMediaStore::new(Arc::clone(&shared), queues(Log::Media))),
        records: Arc::new(LogRecordLog::new(Arc::clone(&shared), queues(Log::Records))),
        report: recovered.report,
        lanes,
        index: IndexCore::new(Arc::clone(&shared), recovered.unpunched),
        shared,
    })
}

/// An open log. Dropping it closes it.
pub struct LogStore {
    media: Arc<LogMediaStore>,
    records: Arc<LogRecordLog>,
    report: RecoveryReport,
    shared: Arc<Shared>,
    lanes: Mutex<Vec<(Arc<Queue>, JoinHandle<()>)>>,
    index: Mutex<Option<JoinHandle<()>>>,
}

impl LogStore {
    /// Recovers the log on `disk` and starts its lanes. Blocks until recovery has ended.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let parts = open_parts(disk, clock, options, metrics)?;
        let started =
            |thread: std::io::Result<JoinHandle<()>>| thread.map_err(|e| Error::io("start a thread of", "the log", e));
        let mut lanes = Vec::new();
        for (core, queue) in parts.lanes {
            let thread = started(spawn(core, Arc::clone(&queue)))?;
            lanes.push((queue, thread));
        }
        let index = started(index_writer::spawn(parts.index))?;
        Ok(LogStore {
            media: parts.media,
            records: parts.records,
            report: parts.report,
            shared: parts.shared,
            lanes: Mutex::new(lanes),
            index: Mutex::new(Some(index)),
        })
    }

    /// The fragments.
    pub fn media(&self) -> Arc<dyn MediaStore> {
        Arc::clone(&self.media) as Arc<dyn MediaStore>
    }

    /// The records.
    pub fn records(&self) -> Arc<dyn RecordLog> {
        Arc::clone(&self.records) as Arc<dyn RecordLog>
    }

    /// What recovery found.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Does what was asked before, writes a proof that all of it is durable, and ends the lanes. Blocks. Later calls to
    /// the stores get [`Error::Closed`].
    pub fn close(&self) {
        self.shared.close();
        for (queue, thread) in self.lanes.lock().drain(..) {
            let (reply, _) = tokio::sync::oneshot::channel();
            let _ = queue.push(Request::Close { reply });
            queue.close();
            if thread.join().is_err() {
                tracing::error!("a lane of the log died");
            }
        }
        self.shared.bell.close();
        if let Some(thread) = self.index.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the fragment index died");
        }
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.close();
    }
}
