//! The service as one object: what it stands on, and the public Rust API for other services of this server.

use std::sync::Arc;

use base::Clock;

use crate::consumer::{Consumer, ConsumerError, StartAt, StreamRef};
use crate::streams::Streams;

/// Kinesis Video Streams. Cheap to clone.
#[derive(Clone)]
pub struct VideoStreams {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    streams: Streams,
}

impl VideoStreams {
    /// Starts to consume a stream's frames.
    pub async fn open_consumer(&self, stream: &StreamRef, start: StartAt) -> Result<Consumer, ConsumerError> {
        let state = self.inner.streams.find(stream);
        let state = state.ok_or_else(|| ConsumerError::NotFound(stream.stream.clone()))?;
        Consumer::open(state, self.inner.clock.clone(), start).await
    }

    /// The ARN of a stream, if the stream exists.
    pub fn stream_arn(&self, stream: &StreamRef) -> Option<String> {
        Some(self.inner.streams.find(stream)?.arn.to_string())
    }
}
