//! What a producer is told when it starts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::limits::{CONNECTION_AGE_MAX, FRAGMENT_BYTES_MAX};
use crate::media::StreamName;
use crate::producer::event::ProducerEvent;

/// What happens when the buffer is full because the server is slower than the source, or away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The caller waits. Right for files and for everything that can be read again later.
    #[default]
    Wait,
    /// The oldest fragments are given up, and [`ProducerEvent::Lost`] says so. Right for a camera.
    DropOldest,
}

/// When a fragment counts as delivered and leaves the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// When it is on stable storage.
    Persisted,
    /// When it has arrived. A stream whose retention is 0 never says more.
    Received,
}

/// Called with every event, on the producer's own task: it must not block.
pub type EventHook = Arc<dyn Fn(&ProducerEvent) + Send + Sync>;

/// How a [`Producer`](crate::producer::Producer) behaves.
#[derive(Clone)]
pub struct ProducerConfig {
    /// Where the video goes.
    pub stream: StreamName,
    /// Most bytes that are kept until they are confirmed. One fragment more than this may be held, since the server
    /// confirms whole fragments only. Default 64 MiB.
    pub buffer_bytes_max: usize,
    /// Longest stretch of video that is kept until it is confirmed. Default three minutes.
    pub buffer_time_max: Duration,
    /// What happens when more comes. Default [`Overflow::Wait`].
    pub overflow: Overflow,
    /// When a fragment is delivered. `None`, the default, asks the stream: `Persisted` if it keeps anything.
    pub confirm: Option<Confirm>,
    /// Waits between attempts to connect.
    pub backoff: Backoff,
    /// Gives up when the server confirmed nothing for so long while there was something to confirm. `None`, the default,
    /// goes on trying for ever: the server may be away for a night.
    pub give_up_after: Option<Duration>,
    /// A connection on which nothing moves for so long is replaced by another. Default 20 s.
    pub stall_timeout: Duration,
    /// A connection older than this is replaced by another, which opens before the old one ends. Default 40 minutes: AWS
    /// ends connections after 45.
    pub connection_age_max: Duration,
    /// A fragment of frames to which nothing was added for so long is ended, so that a camera that falls silent does not
    /// take its last seconds along. Media of a reader is never touched. Default 5 s.
    pub end_idle_after: Duration,
    /// Largest fragment. Default 50 MB, the service's limit.
    pub fragment_bytes_max: usize,
    /// Sees every event.
    pub on_event: Option<EventHook>,
}

impl ProducerConfig {
    /// The defaults, for a stream.
    pub fn new(stream: StreamName) -> Self {
        ProducerConfig {
            stream,
            buffer_bytes_max: 64 << 20,
            buffer_time_max: Duration::from_secs(180),
            overflow: Overflow::Wait,
            confirm: None,
            backoff: Backoff::default(),
            give_up_after: None,
            stall_timeout: Duration::from_secs(20),
            connection_age_max: CONNECTION_AGE_MAX,
            end_idle_after: Duration::from_secs(5),
            fragment_bytes_max: FRAGMENT_BYTES_MAX,
            on_event: None,
        }
    }
}

impl fmt::Debug for ProducerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerConfig")
            .field("stream", &self.stream)
            .field("buffer_bytes_max", &self.buffer_bytes_max)
            .field("overflow", &self.overflow)
            .field("confirm", &self.confirm)
            .finish_non_exhaustive()
    }
}
