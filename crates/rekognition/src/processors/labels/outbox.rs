//! Notifications on their way to their topics. Each is in the catalog before it is sent and until it was taken, so that it
//! arrives at least once, whatever happens to the server; its message id is always the same. Those of one session are sent
//! in their order, those of different sessions beside each other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::ResourceName;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use storage::catalog::{page_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};
use tokio::task::JoinHandle;
use video_streams::ports::{TopicMessage, Topics};

use super::message::SUBJECT;
use crate::limits::RETRY_PAUSE;
use crate::processors::metrics::ProcessorMetrics;
use crate::publish::publish;

/// Rows read at once.
const PAGE: usize = 100;

/// A notification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Notification {
    /// Whose it is, for the metrics.
    pub(crate) processor: String,
    pub(crate) topic_arn: String,
    pub(crate) message_id: String,
    pub(crate) message: String,
}

/// The notifications of all sessions.
pub(crate) struct Outbox {
    catalog: Arc<dyn Catalog>,
    topics: Arc<dyn Topics>,
    metrics: ProcessorMetrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What sends the notifications of a session.
    senders: HashMap<String, JoinHandle<()>>,
    /// Sessions with new notifications since their sender looked.
    again: HashSet<String>,
    ending: bool,
}

fn all() -> CatalogKey {
    CatalogKey::server().with("stream-processor-notification")
}

/// The notifications of one session.
pub(crate) fn queue(key: &ResourceName, session: &str) -> CatalogKey {
    let owner = all().with(&key.account.to_string()).with(key.region.as_str());
    owner.with(session)
}

/// Adds a notification behind `number` earlier ones of its session.
pub(crate) fn added(queue: &CatalogKey, number: usize, notification: &Notification) -> Result<Change, CatalogError> {
    put_json(queue.clone().with(&format!("{number:04}")), notification, Expect::Any)
}

impl Outbox {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, topics: Arc<dyn Topics>, metrics: ProcessorMetrics) -> Arc<Self> {
        Arc::new(Outbox {
            catalog,
            topics,
            metrics,
            state: Mutex::default(),
        })
    }

    /// How many sessions have notifications that were not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().senders.len()
    }

    /// Sends what is in a session's queue.
    pub(crate) fn send(self: &Arc<Self>, queue: &CatalogKey) {
        self.send_from(queue.into());
    }

    fn send_from(self: &Arc<Self>, queue: String) {
        let mut state = self.state.lock();
        if state.ending {
            return;
        }
        if state.senders.contains_key(&queue) {
            state.again.insert(queue);
            return;
        }
        let sender = tokio::spawn(self.clone().empty(queue.clone()));
        state.senders.insert(queue, sender);
    }

    /// Sends everything that was left when the server ended.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<(), CatalogError> {
        let all = all();
        let (mut after, mut queues) = (None, HashSet::new());
        loop {
            let page = self.catalog.page(&all.below(), after.as_deref(), PAGE).await?;
            let keys = page.entries.iter();
            queues.extend(keys.filter_map(|(key, _)| Some(key.rsplit_once('/')?.0.to_owned())));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        queues.into_iter().for_each(|queue| self.send_from(queue));
        Ok(())
    }

    /// Breaks off; what was not taken is sent after the next start.
    pub(crate) async fn shutdown(&self) {
        let senders: Vec<JoinHandle<()>> = {
            let mut state = self.state.lock();
            state.ending = true;
            state.senders.drain().map(|(_, sender)| sender).collect()
        };
        for sender in senders {
            sender.abort();
            // An aborted task ends with an error, which says so.
            let _ = sender.await;
        }
    }

    /// Sends the notifications of a queue until it is empty.
    async fn empty(self: Arc<Self>, queue: String) {
        loop {
            let page = page_json::<Notification>(&*self.catalog, &format!("{queue}/"), None, PAGE).await;
            let rows = match page {
                Ok((rows, _)) => rows,
                Err(error) => {
                    tracing::error!(queue, %error, "notifications cannot be read; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            if rows.is_empty() {
                let mut state = self.state.lock();
                if !state.again.remove(&queue) {
                    state.senders.remove(&queue);
                    return;
                }
            }
            for (key, row) in rows {
                self.deliver(row.value).await;
                self.remove(key).await;
            }
        }
    }

    async fn deliver(&self, notification: Notification) {
        let message = TopicMessage {
            topic_arn: notification.topic_arn,
            message_id: notification.message_id,
            subject: SUBJECT,
            message: notification.message,
        };
        let published = publish(&*self.topics, &message).await;
        self.metrics.notification(&notification.processor, published.as_str());
    }

    async fn remove(&self, key: String) {
        loop {
            let change = Change::Delete {
                key: key.clone(),
                expect: Expect::Any,
            };
            match self.catalog.commit(vec![change]).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(key, %error, "a notification that was sent cannot be removed; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}
