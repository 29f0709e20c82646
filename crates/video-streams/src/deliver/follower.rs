//! Going through a stream's fragments behind the acks, and the task that keeps a follower at every stream that wants one.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use matroska::Tag;
use storage::{FragmentInfo, StreamId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::cursor::{Cursor, Seen};
use super::{Kind, Triggers, tags};
use crate::VideoStreams;
use crate::error::ControlError;
use crate::images::generate::Generator;
use crate::limits;
use crate::metrics::VideoMetrics;
use crate::notify::Notifier;
use crate::ports::DeliveryError;
use crate::records::StreamRecord;
use crate::service::Inner;
use crate::state::StreamState;

/// What is done for a tagged fragment.
#[async_trait]
pub(crate) trait Deliver: Send + Sync + 'static {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// One try. After [`DeliveryError::Failed`] it is tried again.
    async fn deliver(&self, state: &StreamState, info: &FragmentInfo, tags: &[Tag]) -> Result<(), DeliveryError>;
}

impl VideoStreams {
    /// Delivers notifications and generated images, for ever. Run it as one task of the server.
    pub async fn run_deliveries(&self) {
        let inner = &self.inner;
        let deliver: [Arc<dyn Deliver>; 2] = [
            Arc::new(Notifier::new(inner.ports.topics.clone())),
            Arc::new(Generator::new(&inner.ports, inner.stores.durable.clone())),
        ];
        let slots = Arc::new(Semaphore::new(limits::DELIVERIES_AT_ONCE));
        let mut followers = JoinSet::new();
        let mut running: HashMap<(StreamId, Kind), tokio::task::Id> = HashMap::new();
        let every = |period| {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut look, mut save) = (every(limits::DELIVERIES_LOOK_EVERY), every(limits::CURSORS_SAVE_EVERY));
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = inner.deliveries.notified() => {}
                Some(ended) = followers.join_next_with_id(), if !followers.is_empty() => {
                    let id = ended.map_or_else(|failed| failed.id(), |(id, ())| id);
                    running.retain(|_, running| *running != id);
                    continue;
                }
                _ = save.tick() => {
                    self.save_deliveries().await;
                    continue;
                }
            }
            for state in inner.streams.all() {
                for deliver in &deliver {
                    let key = (state.id, deliver.kind());
                    if state.cursors.of(key.1).get().is_some() && !running.contains_key(&key) {
                        let follower = Follower {
                            state: state.clone(),
                            deliver: deliver.clone(),
                            slots: slots.clone(),
                            metrics: inner.metrics.clone(),
                        };
                        running.insert(key, followers.spawn(follower.run()).id());
                    }
                }
            }
        }
    }

    /// Keeps how far the deliveries have come. Called regularly by [`VideoStreams::run_deliveries`], and once more when
    /// the server ends.
    pub async fn save_deliveries(&self) {
        let inner = &self.inner;
        let _changing = inner.changes.lock().await;
        let mut moved = Vec::new();
        for state in inner.streams.all() {
            for kind in Kind::ALL {
                if let Some(position) = state.cursors.of(kind).take_dirty() {
                    moved.push((state.clone(), kind, position));
                }
            }
        }
        for some in moved.chunks(limits::CURSORS_AT_ONCE) {
            let positions = some.iter().map(|(state, kind, at)| (state.id, *kind, *at));
            if let Err(error) = inner.records.save_cursors(positions).await {
                tracing::warn!(%error, "how far deliveries have come is not kept; after a crash some are repeated");
                some.iter()
                    .for_each(|(state, kind, _)| state.cursors.of(*kind).mark_dirty());
            }
        }
    }
}

impl Inner {
    /// Changes what a stream wants delivered, in the catalog and then in memory. What is newly wanted begins with the next
    /// fragment.
    pub(crate) async fn change_delivery(
        &self,
        state: &Arc<StreamState>,
        kind: Kind,
        change: impl FnMut(&mut StreamRecord) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let _changing = self.changes.lock().await;
        let newest = *self.stores.durable.subscribe(state.id).borrow();
        let was_wanted = kind.wanted(&state.record());
        let record = self.records.update_delivery(&state.arn, kind, newest, change).await?;
        let wanted = kind.wanted(&record);
        state.set_record(record);
        match (was_wanted, wanted) {
            (false, true) => state.cursors.of(kind).set(Some(newest)),
            (true, false) => state.cursors.of(kind).set(None),
            _ => {}
        }
        self.deliveries.notify_one();
        Ok(())
    }
}

struct Follower {
    state: Arc<StreamState>,
    deliver: Arc<dyn Deliver>,
    slots: Arc<Semaphore>,
    metrics: VideoMetrics,
}

/// What became of a fragment.
enum Outcome {
    /// It asks for nothing.
    Untagged,
    Delivered,
    Refused(String),
    /// Retention took it first.
    Lost,
}

impl Follower {
    /// Until the stream is deleted or storage is closed.
    async fn run(self) {
        let store = self.state.stores().durable.clone();
        let mut newest = store.subscribe(self.state.id);
        let cursor = self.cursor();
        loop {
            let changed = cursor.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            newest.borrow_and_update();
            if let Some(seen) = cursor.get() {
                let after = storage::Cursor::Position(seen.position);
                match store.next_after(self.state.id, after).await {
                    Ok(Some(info)) => {
                        self.fragment(seen, &info).await;
                        continue;
                    }
                    Ok(None) => {}
                    Err(storage::Error::NotFound | storage::Error::Closed) => return,
                    Err(error) => {
                        tracing::warn!(stream = %self.state.arn, %error, "a delivery cannot read what is stored");
                        tokio::time::sleep(limits::DELIVERY_PAUSE_MAX).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                () = &mut changed => {}
                moved = newest.changed() => if moved.is_err() {
                    return;
                },
            }
        }
    }

    fn cursor(&self) -> &Cursor {
        self.state.cursors.of(self.deliver.kind())
    }

    /// Works on one fragment until it is done with, or the stream's wishes change.
    async fn fragment(&self, seen: Seen, info: &FragmentInfo) {
        let (kind, cursor) = (self.deliver.kind(), self.cursor());
        let known = self.state.recent_triggers.get(info.position);
        if known.is_some_and(|asks| !asks.has(kind)) {
            cursor.advance(seen, info.position);
            return;
        }
        let mut pause = limits::DELIVERY_PAUSE_MIN;
        loop {
            let changed = cursor.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !cursor.is(seen) {
                return;
            }
            let (stream, fragment) = (&self.state.arn, info.number);
            let outcome = tokio::select! {
                outcome = self.once(info) => outcome,
                () = &mut changed => return,
                () = self.state.hub.closed() => return,
            };
            match outcome {
                Ok(outcome) => {
                    match &outcome {
                        Outcome::Untagged => {}
                        Outcome::Delivered => self.metrics.delivery(kind, "delivered"),
                        Outcome::Refused(why) => {
                            self.metrics.delivery(kind, "refused");
                            tracing::warn!(%stream, %fragment, why, "{} given up", kind.as_str());
                        }
                        Outcome::Lost => {
                            self.metrics.delivery(kind, "lost");
                            tracing::warn!(%stream, %fragment, "{} not delivered before retention took it", kind.as_str());
                        }
                    }
                    cursor.advance(seen, info.position);
                    return;
                }
                Err(why) => {
                    self.metrics.delivery(kind, "retried");
                    tracing::info!(%stream, %fragment, why, "{} not delivered; tried again", kind.as_str());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())) => {}
                () = &mut changed => return,
                () = self.state.hub.closed() => return,
            }
            pause = (pause * 2).min(limits::DELIVERY_PAUSE_MAX);
        }
    }

    /// One try; the error says in words why another is worth it.
    async fn once(&self, info: &FragmentInfo) -> Result<Outcome, String> {
        let _slot = self.slots.acquire().await.map_err(|closed| closed.to_string())?;
        let store = &self.state.stores().durable;
        let tags = match tags::read(&**store, self.state.id, info).await {
            Ok(tags) => tags,
            Err(storage::Error::NotFound) => return Ok(Outcome::Lost),
            Err(storage::Error::Corrupt(why)) => {
                return Ok(Outcome::Refused(format!("the fragment is damaged: {why}")));
            }
            Err(error) => return Err(error.to_string()),
        };
        let mut asks = Triggers::default();
        tags.iter().for_each(|tag| asks.see(&tag.name));
        if !asks.has(self.deliver.kind()) {
            return Ok(Outcome::Untagged);
        }
        match self.deliver.deliver(&self.state, info, &tags).await {
            Ok(()) => Ok(Outcome::Delivered),
            Err(DeliveryError::Refused(why)) => Ok(Outcome::Refused(why)),
            Err(DeliveryError::Failed(why)) => Err(why),
        }
    }
}
