//! How requests reach a lane, and the thread that drives it in a server.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::Error;
use crate::lane::LaneCore;
use crate::plan::{Reply, Request};
use crate::state::Shared;

/// How often an idle lane looks after its space.
const TICK: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    closed: bool,
}

/// Requests that wait for a lane. Its length is bounded by its users: each waits for the answer to its last request.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

impl Queue {
    /// Hands a request to the lane.
    pub fn push(&self, request: Request) -> Result<(), Error> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Error::Closed);
        }
        waiting.requests.push(request);
        drop(waiting);
        self.ready.notify_one();
        Ok(())
    }

    /// Asks and waits for the answer.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.push(make(reply))?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Everything that waits; empty after a quiet [`TICK`].
    fn take(&self) -> Vec<Request> {
        let mut waiting = self.waiting.lock();
        if waiting.requests.is_empty() && !waiting.closed {
            self.ready.wait_for(&mut waiting, TICK);
        }
        std::mem::take(&mut waiting.requests)
    }

    /// Everything that waits now.
    pub fn take_now(&self) -> Vec<Request> {
        std::mem::take(&mut self.waiting.lock().requests)
    }

    /// Accepts no more requests.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.ready.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.waiting.lock().closed
    }
}

/// Ends the log if its thread dies by a panic: a lane of which nobody knows the state must not go on.
struct Guard {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.queue.close();
        drop(self.queue.take_now());
        if std::thread::panicking() && self.shared.close() {
            (self.shared.options.on_fatal)(&Error::Closed);
        }
    }
}

/// Starts the thread of a lane. It ends when the queue is closed and empty, or the lane has failed.
pub(crate) fn spawn(mut core: LaneCore, queue: Arc<Queue>) -> std::io::Result<JoinHandle<()>> {
    let name = format!("log-{}-{}", core.log.name(), core.lane);
    std::thread::Builder::new().name(name).spawn(move || {
        let guard = Guard {
            shared: Arc::clone(&core.shared),
            queue: Arc::clone(&queue),
        };
        let mut last_tick = core.shared.clock.monotonic();
        loop {
            let requests = queue.take();
            if requests.is_empty() && queue.is_closed() {
                break;
            }
            if !requests.is_empty() {
                core.process(requests);
            }
            if core.failed.is_some() {
                break;
            }
            let now = core.shared.clock.monotonic();
            if now.saturating_sub(last_tick) >= TICK {
                last_tick = now;
                core.process(vec![Request::Tick]);
            }
        }
        drop(guard);
    })
}
