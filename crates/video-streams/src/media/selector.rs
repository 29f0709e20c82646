//! Where a GetMedia starts: the six start selectors of the model.

use storage::{FragmentNumber, TimeAxis};
use wire::kinesisvideo_media::{StartSelector, StartSelectorType};

use crate::error::MediaError;
use crate::follow::StartAt;

/// What the selector means. A member that its type needs must be there; the others are ignored, as AWS ignores them.
pub fn start_at(selector: &StartSelector) -> Result<StartAt, MediaError> {
    let kind = selector.start_selector_type;
    let missing = |member: &str| MediaError::InvalidArgument(format!("StartSelectorType {kind} needs {member}."));
    let time = || selector.start_timestamp.ok_or_else(|| missing("StartTimestamp"));
    let number = |text: &Option<String>, member: &str| -> Result<FragmentNumber, MediaError> {
        let text = text.as_deref().ok_or_else(|| missing(member))?;
        text.parse()
            .map_err(|_| MediaError::InvalidArgument(format!("{member} {text:?} is not one that this service gave.")))
    };
    match kind {
        StartSelectorType::Now => Ok(StartAt::Now),
        StartSelectorType::Earliest => Ok(StartAt::Earliest),
        StartSelectorType::FragmentNumber => {
            let number = number(&selector.after_fragment_number, "AfterFragmentNumber")?;
            Ok(StartAt::AfterFragment(number))
        }
        StartSelectorType::ContinuationToken => {
            let number = number(&selector.continuation_token, "ContinuationToken")?;
            Ok(StartAt::AfterFragment(number))
        }
        StartSelectorType::ServerTimestamp => Ok(StartAt::Time(TimeAxis::Server, time()?)),
        StartSelectorType::ProducerTimestamp => Ok(StartAt::Time(TimeAxis::Producer, time()?)),
    }
}

#[cfg(test)]
mod tests {
    use base::Timestamp;

    use super::*;

    fn selector(kind: StartSelectorType) -> StartSelector {
        StartSelector {
            after_fragment_number: None,
            continuation_token: None,
            start_selector_type: kind,
            start_timestamp: None,
        }
    }

    #[test]
    fn each_selector_asks_for_its_member_and_for_no_other() {
        let number = crate::testing::number(5);
        let at = Timestamp::from_millis(1000);
        let full = |kind| StartSelector {
            after_fragment_number: Some(number.to_string()),
            continuation_token: Some(number.to_string()),
            start_timestamp: Some(at),
            ..selector(kind)
        };
        let wanted = |kind| match kind {
            StartSelectorType::Now => StartAt::Now,
            StartSelectorType::Earliest => StartAt::Earliest,
            StartSelectorType::FragmentNumber | StartSelectorType::ContinuationToken => StartAt::AfterFragment(number),
            StartSelectorType::ServerTimestamp => StartAt::Time(TimeAxis::Server, at),
            StartSelectorType::ProducerTimestamp => StartAt::Time(TimeAxis::Producer, at),
        };
        for kind in StartSelectorType::ALL.iter().copied() {
            assert_eq!(start_at(&full(kind)).unwrap(), wanted(kind));
            let free = matches!(kind, StartSelectorType::Now | StartSelectorType::Earliest);
            assert_eq!(start_at(&selector(kind)).is_ok(), free, "{kind}");
        }
    }

    #[test]
    fn a_token_of_another_making_is_an_invalid_argument() {
        for bad in ["", "7", "token", &"1".repeat(47)] {
            let selector = StartSelector {
                continuation_token: Some(bad.to_owned()),
                ..selector(StartSelectorType::ContinuationToken)
            };
            assert!(
                matches!(start_at(&selector), Err(MediaError::InvalidArgument(_))),
                "{bad}"
            );
        }
    }
}
