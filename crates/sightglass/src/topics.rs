//! Topics by name: what a service publishes to an SNS topic goes, in SNS's envelope for HTTP endpoints, to the address
//! that `[topics]` gives it. There is no subscription and no signature: the operator names the receiver.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::Clock;
use bytes::Bytes;
use serde::Serialize;
use video_streams::ports::{DeliveryError, TopicMessage, Topics};

use crate::webhook::{Address, Webhook, WebhookError};

/// The configured topics.
pub struct TopicMap {
    addresses: BTreeMap<String, Address>,
    webhook: Webhook,
    clock: Arc<dyn Clock>,
}

impl TopicMap {
    /// Topics with these addresses.
    pub fn new(addresses: BTreeMap<String, Address>, webhook: Webhook, clock: Arc<dyn Clock>) -> Self {
        TopicMap {
            addresses,
            webhook,
            clock,
        }
    }
}

/// What SNS posts for a notification, less what has no meaning here (signature, subscription).
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    r#type: &'a str,
    message_id: &'a str,
    topic_arn: &'a str,
    subject: &'a str,
    message: &'a str,
    timestamp: String,
}

#[async_trait]
impl Topics for TopicMap {
    fn knows(&self, topic_arn: &str) -> bool {
        self.addresses.contains_key(topic_arn)
    }

    async fn publish(&self, message: &TopicMessage) -> Result<(), DeliveryError> {
        let Some(address) = self.addresses.get(&message.topic_arn) else {
            // It had one when it was configured; the operator may give it one again.
            let why = format!("{} has no address in [topics]", message.topic_arn);
            return Err(DeliveryError::Failed(why));
        };
        let envelope = Envelope {
            r#type: "Notification",
            message_id: &message.message_id,
            topic_arn: &message.topic_arn,
            subject: message.subject,
            message: &message.message,
            timestamp: wire::time::to_iso8601(self.clock.now()),
        };
        let body = serde_json::to_vec(&envelope).map_err(|error| DeliveryError::Refused(error.to_string()))?;
        let headers = [
            ("content-type", "text/plain; charset=UTF-8"),
            ("x-amz-sns-message-type", envelope.r#type),
            ("x-amz-sns-message-id", envelope.message_id),
            ("x-amz-sns-topic-arn", envelope.topic_arn),
        ];
        let sent = self.webhook.post(address, &headers, Bytes::from(body)).await;
        sent.map_err(|error| match error {
            WebhookError::Refused(_) => DeliveryError::Refused(error.to_string()),
            WebhookError::Later(_) | WebhookError::Unanswered(_) => DeliveryError::Failed(error.to_string()),
        })
    }
}
