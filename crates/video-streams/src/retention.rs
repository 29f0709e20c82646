//! Deletes what is out of retention, and what is beyond the bytes that a stream or the server may hold, oldest first; the
//! space goes back to the disk.

use std::sync::Arc;

use base::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::VideoStreams;
use crate::control::oldest_kept;
use crate::limits;
use crate::service::Inner;
use crate::state::StreamState;

impl VideoStreams {
    /// Sweeps again and again, for ever. Run it as one task of the server.
    pub async fn run_retention(&self) {
        let mut every = tokio::time::interval(limits::RETENTION_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A timer is only a wake-up; what is due is decided by the clock.
            tokio::select! {
                _ = every.tick() => self.sweep().await,
                () = self.inner.sweep.notified() => self.sweep_full().await,
            }
        }
    }

    /// One sweep over all streams. A stream whose sweep fails is tried again by the next sweep.
    pub async fn sweep(&self) {
        self.sweep_those(|_| true).await;
    }

    /// A sweep over the streams that have taken in much since their last one.
    async fn sweep_full(&self) {
        self.sweep_those(|state| state.unswept() > limits::UNSWEPT_BYTES).await;
    }

    async fn sweep_those(&self, choose: impl Fn(&StreamState) -> bool + Send) {
        for state in self.inner.streams.all().into_iter().filter(|state| choose(state)) {
            if let Err(error) = sweep_stream(&self.inner, &state).await {
                tracing::warn!(stream = %state.arn, %error, "retention could not delete");
            }
        }
        if let Some(max_bytes) = self.inner.settings.max_bytes {
            match self.inner.stores.durable.trim_all_to_size(max_bytes).await {
                Ok(fragments) => self.inner.metrics.trimmed(fragments),
                Err(error) => tracing::warn!(%error, "the server's byte limit could not be kept"),
            }
        }
    }
}

/// One sweep over one stream.
pub(crate) async fn sweep_stream(inner: &Inner, state: &Arc<StreamState>) -> Result<(), storage::Error> {
    state.reset_unswept();
    let store = &state.stores().durable;
    let hours = state.retention_hours();
    let oldest = match hours {
        // The stream had retention once and has none now.
        0 => Timestamp::from_millis(i64::MAX),
        hours => oldest_kept(inner.clock.now(), hours),
    };
    let mut fragments = store.trim(state.id, oldest).await?;
    if let Some(max_bytes) = state.record().max_bytes() {
        fragments += store.trim_to_size(state.id, max_bytes).await?;
    }
    inner.metrics.trimmed(fragments);
    Ok(())
}
