//! Who works for a queue: an inbox, and a task that lives while there is something in it or somebody waits for records.
//!
//! All that changes a queue goes through the inbox, so no record goes to two receivers. What lies in it together shares one
//! commit. The task goes on when a caller has gone; what was delivered to nobody is given back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{ApiError, ResourceName};
use parking_lot::Mutex;
use storage::{Catalog, StoredRecord, StreamId};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::limits;
use crate::queues::book::{Book, Spot};
use crate::queues::receipt::Receipt;
use crate::queues::rows::Delivery;
use crate::queues::work::Worker;
use crate::service::DataStreams;
use crate::state::StreamState;
use crate::stored::QueueRecord;

/// See the module.
pub struct Engine {
    pub queue: u64,
    pub key: String,
    pub stream: ResourceName,
    pub stream_id: StreamId,
    pub catalog: Arc<dyn Catalog>,
    inbox: Mutex<Inbox>,
    bell: Notify,
    used: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    work: VecDeque<Work>,
    /// Receivers that the task has taken out and that wait for records.
    parked: usize,
    running: bool,
    /// What is known of the queue while no task runs.
    book: Option<Book>,
}

/// What can be asked of a queue.
pub enum Work {
    /// Records.
    Receive(Receive),
    /// Something to be done with records that were received.
    Settle(Settle),
    /// Records whose receiver had gone when they came: their delivery does not count.
    GiveBack(Vec<Receipt>),
    /// Records beyond their retention are to be forgotten.
    Tidy,
}

/// A receiver.
pub struct Receive {
    /// It wants dead letters.
    pub dead: bool,
    /// At most so many.
    pub limit: usize,
    /// For so long they are hidden from others.
    pub visibility_ms: i64,
    /// It waits so long.
    pub until: Instant,
    /// Where the records go; empty when its time is over.
    pub reply: oneshot::Sender<Result<Vec<Given>, ApiError>>,
}

/// A record that was given out.
pub struct Given {
    /// Where it is.
    pub spot: Spot,
    /// The record as it is in the log.
    pub record: StoredRecord,
    /// How often it was delivered, this time included.
    pub delivery: Delivery,
}

impl Given {
    /// What its handle stands for.
    pub fn receipt(&self, dead: bool) -> Receipt {
        Receipt {
            spot: self.spot,
            generation: self.delivery.generation,
            dead,
        }
    }
}

/// Something to be done with records that were received.
pub struct Settle {
    /// They were received as dead letters.
    pub dead: bool,
    /// The deliveries, and what is to be done with each.
    pub entries: Vec<(Receipt, Action)>,
    /// What became of each.
    pub reply: oneshot::Sender<Result<Vec<Result<(), Refusal>>, ApiError>>,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is done.
    Acknowledge,
    /// It is hidden from others for so many milliseconds from now on.
    Hide(i64),
    /// A dead letter is delivered again as if for the first time.
    Restore,
}

/// Why nothing was done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The handle is not one of this queue's.
    Forged,
    /// The handle is of dead letters where the others are meant, or the other way round.
    WrongKind,
    /// It was acknowledged, or is beyond its retention.
    Gone,
    /// It was delivered again since, or restored.
    Outdated,
    /// It has become a dead letter since.
    Dead,
}

impl Engine {
    /// For a queue of a stream.
    pub fn new(catalog: Arc<dyn Catalog>, stream: &StreamState, queue: &QueueRecord) -> Self {
        Engine {
            queue: queue.id,
            key: queue.key.clone(),
            stream: stream.name.clone(),
            stream_id: stream.id,
            catalog,
            inbox: Mutex::default(),
            bell: Notify::new(),
            used: AtomicBool::new(true),
        }
    }

    /// Puts something into the inbox, and sees to it that it is worked on.
    pub fn submit(self: &Arc<Self>, service: &Arc<DataStreams>, work: Work) -> Result<(), ApiError> {
        self.used.store(true, Ordering::Relaxed);
        let mut inbox = self.inbox.lock();
        if inbox.work.len() + inbox.parked >= limits::QUEUE_CALLS_MAX {
            return Err(ApiError::client(
                "ThrottlingException",
                format!(
                    "{} calls wait for this queue, which is the limit.",
                    limits::QUEUE_CALLS_MAX
                ),
            ));
        }
        inbox.work.push_back(work);
        self.start(inbox, service);
        Ok(())
    }

    /// Lets a queue that is in memory forget what is beyond its retention.
    pub fn tidy(self: &Arc<Self>, service: &Arc<DataStreams>) {
        let mut inbox = self.inbox.lock();
        if !inbox.running && inbox.book.is_some() {
            inbox.work.push_back(Work::Tidy);
            self.start(inbox, service);
        } else if inbox.running && !inbox.work.iter().any(|w| matches!(w, Work::Tidy)) {
            inbox.work.push_back(Work::Tidy);
            self.bell.notify_one();
        }
    }

    fn start(self: &Arc<Self>, mut inbox: parking_lot::MutexGuard<'_, Inbox>, service: &Arc<DataStreams>) {
        if inbox.running {
            self.bell.notify_one();
            return;
        }
        inbox.running = true;
        let book = inbox.book.take();
        drop(inbox);
        let (engine, ended) = (Arc::clone(self), false);
        let running = Running { engine, ended };
        tokio::spawn(Worker::run(Arc::clone(service), running, book));
    }

    /// Something about the queue has changed.
    pub fn wake(&self) {
        self.bell.notify_one();
    }

    /// Whether it was used since this was asked last.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Waits for the inbox.
    pub async fn called(&self) {
        self.bell.notified().await;
    }

    /// Takes everything out of the inbox.
    pub fn take(&self) -> VecDeque<Work> {
        std::mem::take(&mut self.inbox.lock().work)
    }

    /// So many receivers wait that are in the inbox no more.
    pub fn set_parked(&self, parked: usize) {
        self.inbox.lock().parked = parked;
    }
}

/// A task that works for a queue. When it ends, also by a panic, the next call starts another.
pub struct Running {
    /// The queue's.
    pub engine: Arc<Engine>,
    ended: bool,
}

impl Running {
    /// Ends the task, unless something has come in.
    pub fn end(&mut self, book: &mut Option<Book>) -> bool {
        let mut inbox = self.engine.inbox.lock();
        if !inbox.work.is_empty() {
            return false;
        }
        (inbox.running, inbox.parked) = (false, 0);
        inbox.book = book.take();
        self.ended = true;
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // What is in the inbox is answered as cut off, and the book is read anew.
            *self.engine.inbox.lock() = Inbox::default();
        }
    }
}
