//! DescribeNotificationConfiguration and UpdateNotificationConfiguration: what is checked and what is kept.

use base::{ApiError, Handle, Reply, Request};
use serde::{Deserialize, Serialize};
use wire::kinesisvideo::{
    ConfigurationStatus, DescribeNotificationConfigurationInput, DescribeNotificationConfigurationOutput,
    NotificationConfiguration, NotificationDestinationConfig, UpdateNotificationConfigurationInput,
    UpdateNotificationConfigurationOutput, op,
};

use crate::VideoStreams;
use crate::control::resolve;
use crate::deliver::Kind;
use crate::error::ControlError;
use crate::records::StreamRecord;

/// The configuration as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Notifications are sent.
    pub enabled: bool,
    /// The ARN of the topic.
    pub topic_arn: String,
}

impl Notification {
    fn to_wire(&self) -> NotificationConfiguration {
        NotificationConfiguration {
            destination_config: NotificationDestinationConfig {
                uri: self.topic_arn.clone(),
            },
            status: match self.enabled {
                true => ConfigurationStatus::Enabled,
                false => ConfigurationStatus::Disabled,
            },
        }
    }
}

/// `arn:aws:sns:REGION:ACCOUNT:NAME`; the name is 1 to 256 of `A-Z a-z 0-9 _ -`. FIFO topics, which end in `.fifo`, are not
/// taken (AWS: "FIFO topics aren't currently supported").
pub(crate) fn is_topic_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let [arn, partition, service, region, account, name] = *parts else {
        return false;
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    arn == "arn"
        && partition.starts_with("aws")
        && service == "sns"
        && !region.is_empty()
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && (1..=256).contains(&name.len())
        && name.bytes().all(legal)
}

impl Handle<op::DescribeNotificationConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DescribeNotificationConfigurationInput>,
    ) -> Result<Reply<DescribeNotificationConfigurationOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        let kept = state.record().notification.as_ref().map(Notification::to_wire);
        Ok(DescribeNotificationConfigurationOutput {
            notification_configuration: kept,
        }
        .into())
    }
}

impl Handle<op::UpdateNotificationConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<UpdateNotificationConfigurationInput>,
    ) -> Result<Reply<UpdateNotificationConfigurationOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let wanted = input.notification_configuration.map(|wire| Notification {
            enabled: wire.status == ConfigurationStatus::Enabled,
            topic_arn: wire.destination_config.uri,
        });
        if let Some(Notification { topic_arn, .. }) = &wanted {
            let wrong = |why: String| Err(ControlError::InvalidArgument(why).into());
            if !is_topic_arn(topic_arn) {
                return wrong(format!(
                    "The destination {topic_arn:?} is not the ARN of a standard SNS topic."
                ));
            }
            if !inner.ports.topics.knows(topic_arn) {
                return wrong(format!(
                    "The topic {topic_arn} has no address. Give it one in the server's configuration: \
                     [topics] \"{topic_arn}\" = \"https://receiver.example/path\"."
                ));
            }
        }
        let change = |record: &mut StreamRecord| {
            if wanted.is_some() && record.retention_hours == 0 {
                return Err(ControlError::NoDataRetention);
            }
            record.notification.clone_from(&wanted);
            Ok(())
        };
        inner.change_delivery(&state, Kind::Notifications, change).await?;
        Ok(UpdateNotificationConfigurationOutput {}.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_standard_topics_are_taken() {
        assert!(is_topic_arn("arn:aws:sns:us-west-2:000000000000:front-door_1"));
        for bad in [
            "",
            "arn:aws:sns:us-west-2:000000000000:orders.fifo",
            "arn:aws:sqs:us-west-2:000000000000:queue",
            "arn:aws:sns:us-west-2:0:topic",
            "arn:aws:sns:us-west-2:000000000000:",
            "arn:aws:sns:us-west-2:000000000000:topic:subscription",
            "https://example.org",
        ] {
            assert!(!is_topic_arn(bad), "{bad}");
        }
    }
}
