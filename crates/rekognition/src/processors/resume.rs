//! How far a processor has come: the last frame whose record is durable in the output.
//!
//! It is saved about once a second, after the record was written, and again when a run ends. So a restart analyses again
//! what was recorded since, and leaves out nothing that is stored: at least once.

use serde::{Deserialize, Serialize};
use storage::FragmentNumber;
use video_streams::consumer::StartAt;

/// The last recorded frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Decimal digits of the fragment's number.
    pub(crate) fragment: String,
    /// The frame's time minus the cluster's timecode, in milliseconds.
    pub(crate) offset_ms: f64,
}

/// Which frames a run has to record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Resume {
    fragment: FragmentNumber,
    offset_ms: f64,
}

impl Position {
    pub(crate) fn new(fragment: FragmentNumber, offset_ms: f64) -> Self {
        Position {
            fragment: fragment.to_string(),
            offset_ms,
        }
    }

    /// Before the first frame of a fragment.
    pub(crate) fn before(fragment: FragmentNumber) -> Self {
        Position::new(fragment, f64::MIN)
    }

    /// How to go on after it; `None` if it cannot be read.
    pub(crate) fn resume(&self) -> Option<Resume> {
        let fragment = self.fragment.parse().ok()?;
        Some(Resume {
            fragment,
            offset_ms: self.offset_ms,
        })
    }
}

impl Resume {
    /// The frames of the fragment are needed from its start, for the decoder; it may be gone meanwhile.
    pub(crate) fn start(self) -> StartAt {
        StartAt::Fragment(self.fragment)
    }

    /// True for a frame that was recorded by the run before. Records leave in the order of presentation.
    pub(crate) fn is_recorded(self, fragment: FragmentNumber, offset_ms: f64) -> bool {
        fragment == self.fragment && offset_ms <= self.offset_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_up_to_the_position_in_its_own_fragment_are_left_out() {
        let (saved, later) = (FragmentNumber::new(7, 1_000, 1), FragmentNumber::new(8, 2_000, 1));
        let kept = serde_json::to_string(&Position::new(saved, 66.0)).unwrap();
        let position: Position = serde_json::from_str(&kept).unwrap();
        let resume = position.resume().unwrap();
        assert_eq!(resume.start(), StartAt::Fragment(saved));
        assert!(resume.is_recorded(saved, 0.0) && resume.is_recorded(saved, 66.0));
        assert!(!resume.is_recorded(saved, 100.0) && !resume.is_recorded(later, 0.0));
        let before = serde_json::to_string(&Position::before(saved)).unwrap();
        let before: Position = serde_json::from_str(&before).unwrap();
        assert!(!before.resume().unwrap().is_recorded(saved, -100.0));
        let broken = Position {
            fragment: "x".to_owned(),
            offset_ms: 0.0,
        };
        assert_eq!(broken.resume(), None);
    }
}
