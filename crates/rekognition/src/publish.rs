//! Telling a topic something until it has taken it.

use video_streams::ports::{DeliveryError, TopicMessage, Topics};

use crate::limits::{NOTIFY_PAUSE_MAX, NOTIFY_PAUSE_MIN, NOTIFY_TRIES_MAX};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    Taken,
    /// The receiver will never take it.
    Refused,
    /// Nobody took it for hours.
    GivenUp,
}

impl Published {
    /// The value of a metric's `outcome` label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Published::Taken => "taken",
            Published::Refused => "refused",
            Published::GivenUp => "given_up",
        }
    }
}

/// Publishes until the topic has taken it or never will; gives up after some hours. Dropping the future gives it up too.
pub(crate) async fn publish(topics: &dyn Topics, message: &TopicMessage) -> Published {
    let (topic, id) = (&message.topic_arn, &message.message_id);
    let mut pause = NOTIFY_PAUSE_MIN;
    for tried in 1..=NOTIFY_TRIES_MAX {
        match topics.publish(message).await {
            Ok(()) => return Published::Taken,
            Err(DeliveryError::Refused(why)) => {
                tracing::warn!(topic, message = id, %why, "a topic does not take a message");
                return Published::Refused;
            }
            Err(DeliveryError::Failed(why)) => {
                tracing::warn!(topic, message = id, %why, tried, "a topic cannot be told; trying again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(NOTIFY_PAUSE_MAX);
    }
    tracing::error!(topic, message = id, "a message for a topic is given up");
    Published::GivenUp
}
