//! Notifications: a message to the stream's topic for each stored fragment that the producer tagged for it.
//!
//! It refuses to know how a topic is reached ([`Topics`]).

pub(crate) mod config;
pub(crate) mod message;

use std::sync::Arc;

use async_trait::async_trait;
use matroska::Tag;
use storage::FragmentInfo;

use crate::deliver::{Deliver, Kind};
use crate::ports::{DeliveryError, Topics};
use crate::state::StreamState;

/// Sends notifications.
pub(crate) struct Notifier {
    topics: Arc<dyn Topics>,
}

impl Notifier {
    /// One that sends to these topics.
    pub fn new(topics: Arc<dyn Topics>) -> Self {
        Notifier { topics }
    }
}

#[async_trait]
impl Deliver for Notifier {
    fn kind(&self) -> Kind {
        Kind::Notifications
    }

    async fn deliver(&self, state: &StreamState, info: &FragmentInfo, tags: &[Tag]) -> Result<(), DeliveryError> {
        let record = state.record();
        let Some(wanted) = record.notification.as_ref().filter(|wanted| wanted.enabled) else {
            return Ok(());
        };
        let message = message::persisted(&wanted.topic_arn, &state.arn, info, tags);
        self.topics.publish(&message).await
    }
}
