//! What is delivered for the stored fragments that a producer tagged: notifications and generated images.
//!
//! One follower for each stream that wants something goes through the stream's fragments in the order of their commit
//! positions, behind the ack, and remembers how far it came in the catalog: at least once over a crash, nothing twice but
//! after one. The queue is storage itself, so that a receiver that is away costs neither memory nor the producer's time; a
//! fragment whose retention ends first is lost to it, and counted. It refuses to know what is delivered ([`Deliver`]).

mod cursor;
mod follower;
pub(crate) mod tags;

pub(crate) use cursor::Cursors;
pub(crate) use follower::Deliver;
pub(crate) use tags::{RecentTriggers, Triggers};

use crate::records::StreamRecord;

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A message to a topic.
    Notifications,
    /// Images to a bucket.
    Images,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 2] = [Kind::Notifications, Kind::Images];

    /// Its name in catalog keys and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Notifications => "notifications",
            Kind::Images => "images",
        }
    }

    /// Whether a stream wants it.
    pub fn wanted(self, record: &StreamRecord) -> bool {
        match self {
            Kind::Notifications => record.notification.as_ref().is_some_and(|kept| kept.enabled),
            Kind::Images => record.image_generation.as_ref().is_some_and(|kept| kept.enabled),
        }
    }
}
