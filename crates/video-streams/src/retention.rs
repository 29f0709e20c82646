//! Deletes what is out of retention, and what is beyond the bytes that a stream or the server may hold, oldest first; the
//! space goes back to the disk.
//!
//! Where a stream is archived, what is not in the archive yet outlives its retention. The limits of bytes do not wait: a disk
//! that is full would end the ingest of every camera. What they take unarchived is said in the log and counted.

use std::sync::Arc;

use base::Timestamp;
use storage::{FragmentQuery, FragmentRange, TimeAxis};
use tokio::time::MissedTickBehavior;

use crate::VideoStreams;
use crate::control::oldest_kept;
use crate::limits;
use crate::records::MAX_BYTES_TAG;
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
                Ok(0) => {}
                Ok(fragments) => {
                    self.inner.metrics.trimmed(fragments);
                    for state in self.inner.streams.all() {
                        if let Some(held_from) = state.record().held_from() {
                            warn_of_loss(&self.inner, &state, held_from, "max_bytes of the server").await;
                        }
                    }
                }
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
    let held_from = state.record().held_from();
    let oldest = match hours {
        // The stream had retention once and has none now.
        0 => Timestamp::from_millis(i64::MAX),
        hours => oldest_kept(inner.clock.now(), hours),
    };
    let oldest = held_from.map_or(oldest, |held_from| oldest.min(held_from));
    let mut fragments = store.trim(state.id, oldest).await?;
    if let Some(max_bytes) = state.record().max_bytes() {
        let beyond = store.trim_to_size(state.id, max_bytes).await?;
        fragments += beyond;
        if let Some(held_from) = held_from.filter(|_| beyond > 0) {
            warn_of_loss(inner, state, held_from, MAX_BYTES_TAG).await;
        }
    }
    inner.metrics.trimmed(fragments);
    Ok(())
}

/// After a limit of bytes took fragments: says so, where what is left begins behind what is archived.
async fn warn_of_loss(inner: &Inner, state: &StreamState, held_from: Timestamp, limit: &str) {
    let range = FragmentRange::Time(
        TimeAxis::Server,
        Timestamp::from_millis(i64::MIN),
        Timestamp::from_millis(i64::MAX),
    );
    let left = state
        .stores()
        .durable
        .list(state.id, &FragmentQuery::first(range, 1))
        .await;
    let oldest = left
        .ok()
        .and_then(|left| left.first().map(|info| info.server_timestamp));
    if oldest.is_some_and(|oldest| oldest > held_from) {
        inner.metrics.trimmed_unarchived();
        tracing::warn!(stream = %state.arn, limit, archived_until = %held_from,
            "a limit of bytes took fragments that were not archived yet");
    }
}
