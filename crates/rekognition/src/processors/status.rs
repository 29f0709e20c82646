//! Which state of a processor may follow which.
//!
//! CreateStreamProcessor makes it STOPPED. StartStreamProcessor takes STOPPED or FAILED to STARTING, and its run takes it
//! to RUNNING when stream, collection and output were found; the session of a label-detection processor stays in STARTING
//! until it has come to its end, and then makes it STOPPED (guide). StopStreamProcessor takes STARTING or RUNNING through STOPPING
//! to STOPPED. A run that cannot go on makes it FAILED, with a StatusMessage. UPDATING does not occur: what
//! UpdateStreamProcessor may change takes no time.

use serde::{Deserialize, Serialize};
use wire::rekognition::StreamProcessorStatus;

/// A processor's state, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    Stopped,
    Starting,
    Running,
    Failed,
    Stopping,
}

impl Status {
    #[cfg(test)]
    pub(crate) const ALL: [Status; 5] = [
        Status::Stopped,
        Status::Starting,
        Status::Running,
        Status::Failed,
        Status::Stopping,
    ];

    /// True when `next` may follow at once.
    pub(crate) fn may_become(self, next: Status) -> bool {
        use Status::{Failed, Running, Starting, Stopped, Stopping};
        matches!(
            (self, next),
            (Stopped | Failed, Starting)
                | (Starting, Running | Failed | Stopping | Stopped)
                | (Running, Failed | Stopping)
                | (Stopping, Stopped)
        )
    }

    /// True when a run belongs to it.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, Status::Starting | Status::Running | Status::Stopping)
    }

    /// As the service model has it.
    pub(crate) fn to_wire(self) -> StreamProcessorStatus {
        match self {
            Status::Stopped => StreamProcessorStatus::Stopped,
            Status::Starting => StreamProcessorStatus::Starting,
            Status::Running => StreamProcessorStatus::Running,
            Status::Failed => StreamProcessorStatus::Failed,
            Status::Stopping => StreamProcessorStatus::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_left_and_only_by_the_documented_ways() {
        let next =
            |from: Status| -> Vec<Status> { Status::ALL.into_iter().filter(|to| from.may_become(*to)).collect() };
        assert_eq!(next(Status::Stopped), [Status::Starting]);
        assert_eq!(
            next(Status::Starting),
            [Status::Stopped, Status::Running, Status::Failed, Status::Stopping]
        );
        assert_eq!(next(Status::Running), [Status::Failed, Status::Stopping]);
        assert_eq!(next(Status::Failed), [Status::Starting]);
        assert_eq!(next(Status::Stopping), [Status::Stopped]);
    }

    #[test]
    fn the_kept_names_are_those_of_the_model() {
        for status in Status::ALL {
            let kept = serde_json::to_string(&status).unwrap();
            assert_eq!(kept, format!("\"{}\"", status.to_wire().as_str()));
        }
    }
}
