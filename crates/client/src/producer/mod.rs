//! A producer: sends video to a stream and does not lose it.
//!
//! Media goes into a bounded buffer and from there over a PutMedia connection, at once and without being copied. A
//! fragment stays in the buffer until the server has said PERSISTED. When the connection breaks, the server dies, or the
//! network is away, the producer connects again with growing, randomly shortened waits and sends every unconfirmed
//! fragment once more, whole and in order. What was PERSISTED is never sent again; what was only RECEIVED is.
//!
//! Delivery is at least once: where the server stored a fragment and the PERSISTED was lost with the connection, the
//! fragment is stored twice, under two numbers, with the same producer timestamp. The number in the acknowledgement that
//! the producer reports is listed once.
//!
//! ```no_run
//! # async fn f(client: client::Client, frames: Vec<client::producer::EncodedFrame>, track: matroska::Track) -> Result<(), Box<dyn std::error::Error>> {
//! use client::StreamName;
//! use client::producer::{FrameOptions, Producer, ProducerConfig};
//!
//! let started = client.clock().now();
//! let mut producer = Producer::start(client, ProducerConfig::new(StreamName::Name("door".into())));
//! let mut writer = producer.frames(&[track], FrameOptions::new(started))?;
//! for frame in frames {
//!     writer.send(frame).await?;
//! }
//! producer.finish().await?; // everything is on the server's disk, or the error says what is not
//! # Ok(()) }
//! ```

mod config;
mod cutter;
mod driver;
mod event;
mod feed;
mod frames;
mod outbox;
mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base::Clock;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

pub use config::{Confirm, EventHook, Overflow, ProducerConfig};
pub use event::{FragmentId, LossReason, LostFragment, ProducerError, ProducerEvent, Undelivered, advice};
pub use feed::{Fed, FeedOptions, Pace};
pub use frames::{EncodedFrame, FrameOptions, FrameWriter};
pub use stats::{Latency, ProducerStats};

use crate::call::Client;
use crate::limits::EVENTS_MAX;
use driver::Driver;
use outbox::{Epoch, Outbox, OutboxLimits, Put};

/// What the caller and the driver share.
pub(crate) struct Shared {
    outbox: Mutex<Outbox>,
    /// There is something new to do for the driver.
    changed: Notify,
    /// Counts whatever a waiting caller waits for.
    progress: watch::Sender<u64>,
    finishing: AtomicBool,
    flushes: AtomicUsize,
    stopped: AtomicBool,
    error: Mutex<Option<Arc<ProducerError>>>,
    events: broadcast::Sender<ProducerEvent>,
    hook: Option<EventHook>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    fn finishing(&self) -> bool {
        self.finishing.load(Ordering::Acquire)
    }

    fn flushing(&self) -> bool {
        self.flushes.load(Ordering::Acquire) > 0
    }

    fn progressed(&self) {
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn emit(&self, event: &ProducerEvent) {
        if let Some(hook) = &self.hook {
            hook(event);
        }
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(event.clone());
        }
    }

    /// Tells of losses that happened under the lock.
    fn tell_news(&self) {
        let news = self.outbox.lock().take_news();
        if news.is_empty() {
            return;
        }
        for lost in news {
            tracing::warn!(fragment = lost.fragment.timecode, reason = %lost.reason, "a fragment is lost");
            self.emit(&ProducerEvent::Lost(lost));
        }
        self.progressed();
    }

    fn fail(&self, error: ProducerError) {
        self.error.lock().get_or_insert_with(|| Arc::new(error));
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.progressed();
    }

    fn stopped(&self) -> Option<ProducerError> {
        if !self.stopped.load(Ordering::Acquire) {
            return None;
        }
        let error = self.error.lock().clone();
        Some(error.map_or(ProducerError::Stopped, ProducerError::Failed))
    }
}

/// A producer of one stream. Dropping it gives up what is not confirmed; [`finish`](Producer::finish) waits for it.
pub struct Producer {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Producer {
    /// Starts a producer on the current Tokio runtime. It connects when there is something to send. `client` calls the
    /// control plane; the stream's own endpoint is asked for at every connection.
    #[must_use]
    pub fn start(client: Client, config: ProducerConfig) -> Producer {
        let limits = OutboxLimits {
            bytes_max: config.buffer_bytes_max,
            time_max: config.buffer_time_max,
            overflow: config.overflow,
            fragment_bytes_max: config.fragment_bytes_max,
        };
        let shared = Arc::new(Shared {
            outbox: Mutex::new(Outbox::new(limits)),
            changed: Notify::new(),
            progress: watch::Sender::new(0),
            finishing: AtomicBool::new(false),
            flushes: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            error: Mutex::new(None),
            events: broadcast::Sender::new(EVENTS_MAX),
            hook: config.on_event.clone(),
            clock: Arc::clone(client.clock()),
        });
        let driver = Driver::new(Arc::clone(&shared), client, config);
        Producer {
            driver: tokio::spawn(driver.run()),
            shared,
        }
    }

    /// What happens from now on. A receiver that falls thousands of events behind loses the oldest and is told
    /// [`ProducerEvent::Missed`]; [`ProducerConfig::on_event`] sees every one.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(self.shared.events.subscribe())
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> ProducerStats {
        self.shared.outbox.lock().stats.clone()
    }

    /// Waits until everything that was handed over is confirmed. Ends the open fragment.
    ///
    /// # Errors
    /// Says which fragments are given up since the last report, and which are not confirmed because the producer has
    /// stopped. With [`ProducerConfig::give_up_after`] unset it waits for a server that is away for as long as it takes.
    pub async fn flush(&mut self) -> Result<(), Undelivered> {
        self.end_open_with_tag();
        let upto = self.shared.outbox.lock().next_sequence();
        self.shared.flushes.fetch_add(1, Ordering::AcqRel);
        let flushing = Flushing(&self.shared);
        self.shared.changed.notify_one();
        let mut progress = self.shared.progress.subscribe();
        while self.shared.outbox.lock().holds_before(upto) && self.shared.stopped().is_none() {
            let _ = progress.changed().await;
        }
        drop(flushing);
        self.report()
    }

    /// Ends the last fragment and the connection, and waits until everything is confirmed.
    ///
    /// # Errors
    /// As [`flush`](Producer::flush).
    pub async fn finish(mut self) -> Result<ProducerStats, Undelivered> {
        self.end_open_with_tag();
        self.shared.finishing.store(true, Ordering::Release);
        self.shared.changed.notify_one();
        let mut progress = self.shared.progress.subscribe();
        while !self.shared.stopped.load(Ordering::Acquire) {
            let _ = progress.changed().await;
        }
        self.report()?;
        Ok(self.stats())
    }

    /// As [`finish`](Producer::finish), but for at most so long.
    ///
    /// # Errors
    /// As [`flush`](Producer::flush); what is not confirmed in time is named.
    pub async fn finish_within(self, time: Duration) -> Result<ProducerStats, Undelivered> {
        let shared = Arc::clone(&self.shared);
        match tokio::time::timeout(time, self.finish()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(undelivered(&shared)),
        }
    }

    fn report(&mut self) -> Result<(), Undelivered> {
        let report = undelivered(&self.shared);
        if report.lost_count == 0 && report.unconfirmed.is_empty() && report.error.is_none() {
            return Ok(());
        }
        Err(report)
    }

    /// Begins a fragment. Gives its sequence.
    async fn begin(&mut self, epoch: &Arc<Epoch>, timecode: u64, piece: Bytes) -> Result<u64, ProducerError> {
        let mut progress = self.shared.progress.subscribe();
        loop {
            self.check()?;
            let (put, sequence) = {
                let mut outbox = self.shared.outbox.lock();
                let sequence = outbox.next_sequence();
                (
                    outbox.begin(epoch, timecode, piece.clone(), self.shared.now()),
                    sequence,
                )
            };
            self.shared.changed.notify_one();
            if put == Put::Taken {
                return Ok(sequence);
            }
            let _ = progress.changed().await;
        }
    }

    /// Appends to the open fragment.
    async fn append(&mut self, piece: Bytes, key: bool) -> Result<(), ProducerError> {
        let mut progress = self.shared.progress.subscribe();
        loop {
            self.check()?;
            let (put, limit) = {
                let mut outbox = self.shared.outbox.lock();
                (
                    outbox.append(&piece, key, self.shared.now()),
                    outbox.fragment_bytes_max(),
                )
            };
            self.shared.changed.notify_one();
            match put {
                Put::Taken => return Ok(()),
                Put::TooLarge => return Err(ProducerError::FragmentTooLarge(limit)),
                Put::Full => {
                    let _ = progress.changed().await;
                }
            }
        }
    }

    fn check(&self) -> Result<(), ProducerError> {
        self.shared.stopped().map_or(Ok(()), Err)
    }

    fn open_fragment(&self) -> Option<u64> {
        self.shared.outbox.lock().open()
    }

    fn end_open(&mut self) {
        self.shared.outbox.lock().end_open();
        self.shared.changed.notify_one();
    }

    /// Ends the open fragment; by a tag if it is one of ours, so that the connection can go on.
    fn end_open_with_tag(&mut self) {
        let now = self.shared.now();
        let mut outbox = self.shared.outbox.lock();
        if outbox.idle_since().is_some() {
            outbox.end_open_with(matroska::writer::end_of_fragment(), now);
        } else {
            outbox.end_open();
        }
        drop(outbox);
        self.shared.changed.notify_one();
    }
}

fn undelivered(shared: &Shared) -> Undelivered {
    let mut outbox = shared.outbox.lock();
    let (lost, lost_count) = outbox.take_lost();
    Undelivered {
        lost,
        lost_count,
        unconfirmed: outbox.unconfirmed(),
        error: shared.error.lock().clone(),
    }
}

/// Tells the driver that somebody waits.
struct Flushing<'a>(&'a Shared);

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushes.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What happens to a producer.
pub struct Events(broadcast::Receiver<ProducerEvent>);

impl Events {
    /// The next event; `None` when the producer is gone.
    pub async fn next(&mut self) -> Option<ProducerEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(ProducerEvent::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
