//! A session as the catalog holds it from its start to its end: what was asked, how far it has come, what was found.

use base::{ApiError, ResourceName, Timestamp};
use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect, FragmentNumber, TimeAxis};
use uuid::Uuid;
use video_streams::consumer::StartAt;
use wire::rekognition as w;

use super::message::FoundLabel;
use super::settings::HomeLabel;
use crate::error::invalid_parameter;

/// Where a session begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Begin {
    /// With this fragment, as the caller wrote its number.
    Fragment(String),
    /// With the fragment of this time in milliseconds.
    ProducerTime(i64),
}

impl Begin {
    /// What a StartSelector says; `None` for nothing.
    pub(crate) fn of(selector: Option<&w::StreamProcessingStartSelector>) -> Result<Option<Begin>, ApiError> {
        let Some(selector) = selector.and_then(|selector| selector.kvs_stream_start_selector.as_ref()) else {
            return Ok(None);
        };
        match (&selector.fragment_number, selector.producer_timestamp) {
            (None, None) => Ok(None),
            (Some(number), None) => {
                let parsed: Result<FragmentNumber, _> = number.parse();
                let parsed = parsed.map_err(|error| invalid_parameter(error.to_string()))?;
                Ok(Some(Begin::Fragment(parsed.to_string())))
            }
            (None, Some(millis)) => Ok(Some(Begin::ProducerTime(millis))),
            (Some(_), Some(_)) => Err(invalid_parameter(
                "StartSelector has both FragmentNumber and ProducerTimestamp; give one",
            )),
        }
    }

    pub(crate) fn start_at(&self) -> StartAt {
        match self {
            // It was a number when it was taken.
            Begin::Fragment(number) => number.parse::<FragmentNumber>().map_or(StartAt::Now, StartAt::Fragment),
            Begin::ProducerTime(millis) => StartAt::Time(TimeAxis::Producer, Timestamp::from_millis(*millis)),
        }
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// What StartStreamProcessor answered.
    pub(crate) id: String,
    pub(crate) begin: Begin,
    /// `MaxDurationInSeconds`.
    pub(crate) max_seconds: u32,
    /// In the order in which they were found, each name once.
    pub(crate) found: Vec<FoundLabel>,
    /// The number of the last fragment that was done.
    pub(crate) last: Option<String>,
    /// When that one began, by the producer's clock.
    pub(crate) last_start_ms: Option<i64>,
    /// How much video was done.
    pub(crate) processed_ms: i64,
    /// Frames that were looked at.
    pub(crate) frames: u64,
    /// Fragments that could not be looked at because of a failure of ours.
    pub(crate) unseen: u64,
}

/// A session and the commit that wrote it.
#[derive(Clone, Debug)]
pub(crate) struct KeptSession {
    pub(crate) session: Session,
    pub(crate) version: u64,
}

fn key_of(key: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(key.account, &key.region)
        .with("stream-processor-session")
        .with(&key.name)
}

impl Session {
    pub(crate) fn new(begin: Begin, max_seconds: u32) -> Self {
        Session {
            id: Uuid::new_v4().to_string(),
            begin,
            max_seconds,
            found: Vec::new(),
            last: None,
            last_start_ms: None,
            processed_ms: 0,
            frames: 0,
            unseen: 0,
        }
    }

    /// Where to read on.
    pub(crate) fn start_at(&self) -> StartAt {
        if let Some(last) = self.last.as_ref().and_then(|last| last.parse().ok()) {
            return StartAt::AfterFragment(last);
        }
        self.begin.start_at()
    }

    /// Those of the wanted labels that were not found yet.
    pub(crate) fn open(&self, wanted: &[HomeLabel]) -> Vec<HomeLabel> {
        let open = |label: &&HomeLabel| !self.found.iter().any(|found| found.name == label.as_str());
        wanted.iter().filter(open).copied().collect()
    }

    /// True when as much video was done as was asked for.
    pub(crate) fn is_done(&self) -> bool {
        self.processed_ms >= i64::from(self.max_seconds) * 1000
    }

    /// A fragment was done that began at this time of the producer's and lasted so long, if that is known.
    pub(crate) fn advance(&mut self, number: FragmentNumber, start_ms: i64, lasted_ms: Option<i64>) {
        // The length of a single frame is its distance from the one before, where that is no gap.
        let since_last = self.last_start_ms.map_or(0, |last| start_ms.saturating_sub(last));
        let lasted_ms = lasted_ms.unwrap_or(if (0..=SINGLE_FRAME_MS_MAX).contains(&since_last) {
            since_last
        } else {
            0
        });
        self.processed_ms = self.processed_ms.saturating_add(lasted_ms.max(0));
        self.last = Some(number.to_string());
        self.last_start_ms = Some(start_ms);
    }
}

/// A fragment of one frame lasts no longer than a fragment may: ten seconds.
const SINGLE_FRAME_MS_MAX: i64 = 10_000;

/// The session of a processor that runs.
pub(crate) async fn read(catalog: &dyn Catalog, key: &ResourceName) -> Result<Option<KeptSession>, CatalogError> {
    let found = get_json(catalog, key_of(key)).await?;
    Ok(found.map(|entry| KeptSession {
        session: entry.value,
        version: entry.version,
    }))
}

/// Begins a session, whatever was left of an earlier one.
pub(crate) fn created(key: &ResourceName, session: &Session) -> Result<Change, CatalogError> {
    put_json(key_of(key), session, Expect::Any)
}

/// Replaces a session that has not changed since.
pub(crate) fn replaced(key: &ResourceName, kept: &KeptSession) -> Result<Change, CatalogError> {
    put_json(key_of(key), &kept.session, Expect::Version(kept.version))
}

/// Ends a session.
pub(crate) fn removed(key: &ResourceName) -> Change {
    Change::Delete {
        key: key_of(key).into(),
        expect: Expect::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_video_and_not_gaps() {
        let mut session = Session::new(Begin::ProducerTime(0), 3);
        let number = |count: u64| FragmentNumber::new(count, count * 1000, 1);
        session.advance(number(1), 1_000, Some(1_000));
        assert_eq!((session.processed_ms, session.is_done()), (1_000, false));
        // A frame a second, after an hour without any.
        session.advance(number(2), 3_600_000, None);
        session.advance(number(3), 3_601_000, None);
        assert_eq!(session.processed_ms, 2_000);
        // The producer's clock was set back.
        session.advance(number(4), 0, None);
        session.advance(number(5), 2_000, Some(1_000));
        assert!(session.is_done());
        assert_eq!(session.start_at(), StartAt::AfterFragment(number(5)));
    }

    #[test]
    fn a_session_begins_where_it_was_told_to() {
        let number = FragmentNumber::new(7, 1_000, 1);
        let begin = Begin::Fragment(number.to_string());
        assert_eq!(Session::new(begin, 10).start_at(), StartAt::Fragment(number));
        let at = StartAt::Time(TimeAxis::Producer, Timestamp::from_millis(5));
        assert_eq!(Session::new(Begin::ProducerTime(5), 10).start_at(), at);
    }
}
