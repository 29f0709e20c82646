//! One run of a processor, as six tasks that end together: the feeder (frames to vision), the recorder (outcomes to
//! records), the writer (records to the data stream), the saver (the position), the keeper (unknown faces, where wanted) and
//! the watcher (is everything still there).
//! Between recorder and writer is a short queue, so that one slow sync of the output is shared by the records that wait.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock, ResourceName, Timestamp};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{FragmentNumber, StreamId};
use tokio::sync::{mpsc, watch};
use video_streams::consumer::{ConsumerError, FragmentEnd, Outcome};
use vision::{Codec, FrameOutcome, Mode, OpenError, SessionConfig};

use super::Processors;
use super::control::Tuning;
use super::metrics::RunMetrics;
use super::record::{self, FramePlace, Seen};
use super::resume::{Position, Resume};
use super::search::{SearchError, Searcher, Target};
use super::session::{Feeder, Outcomes};
use super::unknown::{Keeper, Sight};
use crate::limits;
use crate::ports::{Feed, SinkError, VisionSession};

/// Why a run ended.
#[derive(Debug)]
pub(crate) enum End {
    /// For good: the processor becomes FAILED with this message.
    Failed(String),
    /// For now: it is begun again. In words for the log.
    Retry(String),
}

/// What a run reads, searches and writes; found once when the processor starts.
#[derive(Clone, Debug)]
pub(crate) struct Resources {
    pub(crate) stream_arn: String,
    pub(crate) stream_name: String,
    pub(crate) target: Target,
    pub(crate) output: ResourceName,
    pub(crate) output_id: StreamId,
}

/// What the tasks of a run share.
pub(crate) struct Pipeline {
    pub(crate) processors: Arc<Processors>,
    pub(crate) key: ResourceName,
    pub(crate) arn: String,
    pub(crate) resources: Resources,
    pub(crate) tuning: Tuning,
    pub(crate) resume: Option<Resume>,
    pub(crate) position: watch::Sender<Option<Position>>,
    pub(crate) metrics: RunMetrics,
    pub(crate) fragments: Fragments,
    pub(crate) unknown: Arc<Keeper>,
}

/// A record on its way to the output.
struct Pending {
    bytes: Bytes,
    fragment: FragmentNumber,
    offset_ms: f64,
    arrived: Option<Duration>,
}

/// How many records each fragment has whose end is not known.
#[derive(Default)]
pub(crate) struct Fragments(Mutex<BTreeMap<FragmentNumber, Tally>>);

#[derive(Default)]
struct Tally {
    records: u64,
    rejected: bool,
}

impl Fragments {
    /// Counts a record; true if its fragment is known to be rejected.
    fn written(&self, fragment: FragmentNumber) -> bool {
        let mut open = self.0.lock();
        let tally = open.entry(fragment).or_default();
        tally.records += 1;
        let rejected = tally.rejected;
        while open.len() > limits::OPEN_FRAGMENTS_MAX {
            open.pop_first();
        }
        rejected
    }

    /// Notes what became of a fragment; gives the number of its records if it was rejected.
    fn settle(&self, end: FragmentEnd) -> u64 {
        let mut open = self.0.lock();
        if end.outcome != Outcome::Rejected {
            open.remove(&end.number);
            return 0;
        }
        let tally = open.entry(end.number).or_default();
        tally.rejected = true;
        let records = tally.records;
        while open.len() > limits::OPEN_FRAGMENTS_MAX {
            open.pop_first();
        }
        records
    }
}

/// Runs until something ends it.
pub(crate) async fn run(pipeline: Arc<Pipeline>, feed: Box<dyn Feed>) -> End {
    let (sessions, opened) = mpsc::channel(2);
    let (records, written) = mpsc::channel(limits::QUEUED_RECORDS_MAX);
    let feeder = Feeder::new(pipeline.clone(), sessions);
    let ended: Result<(Infallible, Infallible, Infallible, Infallible, Infallible, Infallible), End> = tokio::try_join!(
        feeder.run(feed),
        pipeline.record(opened, records),
        pipeline.write(written),
        pipeline.save_positions(),
        pipeline.keep_unknown(),
        pipeline.watch_resources(),
    );
    match ended {
        Ok((never, ..)) => match never {},
        Err(end) => end,
    }
}

impl Pipeline {
    /// The wall clock's time of a monotonic one in the past.
    fn wall(&self, monotonic: Duration) -> Timestamp {
        let ago = self.clock().monotonic().saturating_sub(monotonic);
        self.clock()
            .now()
            .plus_millis(-i64::try_from(ago.as_millis()).unwrap_or(0))
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.processors.clock
    }

    fn account(&self) -> AccountId {
        self.key.account
    }

    pub(crate) fn stream_gone(&self) -> End {
        End::Failed(stream_gone(&self.resources.stream_name))
    }

    /// What the failure of the feed means.
    pub(crate) fn feed_ended(&self, error: ConsumerError) -> End {
        match error {
            ConsumerError::NotFound(_) => self.stream_gone(),
            other => End::Retry(other.to_string()),
        }
    }

    /// How fast a session has to take frames.
    pub(crate) fn mode(&self, live: bool) -> Mode {
        if live && !self.tuning.every_frame {
            Mode::Live
        } else {
            Mode::CatchUp
        }
    }

    /// True for a frame that the run before recorded.
    pub(crate) fn is_recorded(&self, place: &FramePlace) -> bool {
        self.resume
            .is_some_and(|resume| resume.is_recorded(place.fragment, place.offset_ms))
    }

    pub(crate) fn open_session(
        &self,
        codec: Codec,
        codec_private: &Bytes,
        mode: Mode,
    ) -> Result<VisionSession, OpenError> {
        let config = SessionConfig {
            mode,
            max_rate: self.tuning.max_rate,
            key_frames_only: self.tuning.key_frames_only,
            ..SessionConfig::new(self.account(), codec, codec_private.clone())
        };
        self.processors.vision.open_session(config)
    }

    pub(crate) fn settle_fragment(&self, end: FragmentEnd) {
        let records = self.fragments.settle(end);
        if records > 0 {
            self.metrics.rejected(records);
        }
    }

    /// Takes the outcomes of one session after the other and makes a record of each analysed frame.
    async fn record(
        &self,
        mut sessions: mpsc::Receiver<Outcomes>,
        records: mpsc::Sender<Pending>,
    ) -> Result<Infallible, End> {
        let mut searcher = Searcher::new(self.processors.faces.clone(), self.resources.target.clone());
        while let Some(mut session) = sessions.recv().await {
            searcher.forget_tracks();
            self.unknown.forget_tracks();
            while let Some(outcome) = session.source.next().await {
                match outcome {
                    FrameOutcome::Skipped { id, reason } => {
                        session.frames.lock().remove(&id);
                        self.metrics.skipped(reason);
                    }
                    FrameOutcome::WorkerRestarted => {
                        searcher.forget_tracks();
                        self.unknown.forget_tracks();
                    }
                    FrameOutcome::Analysed {
                        id,
                        width,
                        height,
                        faces,
                        ..
                    } => {
                        let sent = session.frames.lock().remove(&id);
                        let Some(sent) = sent.filter(|sent| !sent.recorded) else {
                            continue;
                        };
                        let found = searcher.search(faces).await.map_err(|error| match error {
                            SearchError::CollectionGone => End::Failed(COLLECTION_GONE.to_owned()),
                            SearchError::Failed(detail) => End::Retry(detail),
                        })?;
                        self.metrics.analysed();
                        found
                            .iter()
                            .for_each(|(_, matches)| self.metrics.face(!matches.is_empty()));
                        let unknown = self.unknown.see(&Sight {
                            place: &sent.place,
                            width,
                            height,
                            faces: &found,
                        });
                        let seen = Seen {
                            stream_arn: &self.resources.stream_arn,
                            place: &sent.place,
                            model: &self.resources.target.model,
                            width,
                            height,
                            arrived: sent.arrived.map(|arrived| self.wall(arrived)),
                            faces: &found,
                            unknown: &unknown,
                        };
                        let bytes = record::encode(&seen).map_err(|error| End::Retry(error.to_string()))?;
                        let pending = Pending {
                            bytes: bytes.into(),
                            fragment: sent.place.fragment,
                            offset_ms: sent.place.offset_ms,
                            arrived: sent.arrived,
                        };
                        let gone = |_| End::Retry("the writer has ended".to_owned());
                        records.send(pending).await.map_err(gone)?;
                    }
                }
            }
        }
        Err(End::Retry("the feeder has ended".to_owned()))
    }

    /// Writes what waits, in order, and tries again where the output fails for a moment.
    async fn write(&self, mut records: mpsc::Receiver<Pending>) -> Result<Infallible, End> {
        let mut batch = Vec::with_capacity(limits::QUEUED_RECORDS_MAX);
        while records.recv_many(&mut batch, limits::QUEUED_RECORDS_MAX).await > 0 {
            // Nearly always one round; more where a record has to be parted from the others because it is refused.
            let mut rest = &batch[..];
            let mut next = rest.len();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(next.clamp(1, rest.len()));
                if self.put(now).await? {
                    self.note_written(now);
                    (rest, next) = (later, later.len());
                } else if now.len() == 1 {
                    (rest, next) = (later, later.len());
                } else {
                    next = now.len() / 2;
                }
            }
            batch.clear();
        }
        Err(End::Retry("the recorder has ended".to_owned()))
    }

    /// Writes these records, however long the output fails. False when one of them will never be taken.
    async fn put(&self, batch: &[Pending]) -> Result<bool, End> {
        let (output, id) = (&self.resources.output, self.resources.output_id);
        loop {
            let data = batch.iter().map(|pending| pending.bytes.clone()).collect();
            match self
                .processors
                .records
                .put(output, id, &self.resources.stream_arn, data)
                .await
            {
                Ok(()) => return Ok(true),
                Err(SinkError::StreamGone) => return Err(End::Failed(output_gone(output))),
                Err(SinkError::Refused(detail)) => {
                    tracing::error!(processor = %self.arn, %detail, records = batch.len(), "a record is not taken");
                    return Ok(false);
                }
                Err(SinkError::Failed(detail)) => {
                    tracing::warn!(processor = %self.arn, %detail, "records cannot be written; trying again");
                    self.metrics.retried();
                    tokio::time::sleep(limits::RETRY_PAUSE).await;
                }
            }
        }
    }

    fn note_written(&self, batch: &[Pending]) {
        let now = self.clock().monotonic();
        self.metrics.records(batch.len() as u64);
        for pending in batch {
            if let Some(arrived) = pending.arrived {
                self.metrics.delay(now.saturating_sub(arrived).as_secs_f64());
            }
            if self.fragments.written(pending.fragment) {
                self.metrics.rejected(1);
            }
        }
        if let Some(last) = batch.last() {
            self.position
                .send_replace(Some(Position::new(last.fragment, last.offset_ms)));
        }
    }

    /// Before the first record the position is the start of the first fragment that was seen, so that a restart misses
    /// nothing of it.
    pub(crate) fn note_first(&self, fragment: FragmentNumber) {
        self.position.send_if_modified(|position| {
            let first = position.is_none() && self.resume.is_none();
            if first {
                *position = Some(Position::before(fragment));
            }
            first
        });
    }

    async fn keep_unknown(&self) -> Result<Infallible, End> {
        loop {
            tokio::time::sleep(limits::UNKNOWN_WRITE_CHECK).await;
            self.unknown.write_due(&self.processors.faces).await;
        }
    }

    async fn save_positions(&self) -> Result<Infallible, End> {
        let mut changes = self.position.subscribe();
        loop {
            let gone = |_| End::Retry("the position is gone".to_owned());
            changes.changed().await.map_err(gone)?;
            let position = changes.borrow_and_update().clone();
            if let Some(position) = position {
                self.save(&position).await;
            }
            tokio::time::sleep(limits::POSITION_SAVE_INTERVAL).await;
        }
    }

    /// A position that cannot be saved costs work after a restart, no record; so the run goes on.
    pub(crate) async fn save(&self, position: &Position) {
        if let Err(error) = self.processors.store.save_position(&self.key, position).await {
            tracing::warn!(processor = %self.arn, %error, "the position cannot be saved");
        }
    }

    async fn watch_resources(&self) -> Result<Infallible, End> {
        loop {
            tokio::time::sleep(limits::RESOURCE_CHECK_INTERVAL).await;
            let target = &self.resources.target;
            let collection = self.processors.faces.describe(&target.collection);
            if collection.map(|info| info.id) != Ok(target.collection_id) {
                return Err(End::Failed(COLLECTION_GONE.to_owned()));
            }
            match self.processors.records.find(&self.resources.output).await {
                Ok(Some(id)) if id == self.resources.output_id => {}
                Ok(_) | Err(SinkError::StreamGone) => {
                    return Err(End::Failed(output_gone(&self.resources.output)));
                }
                Err(SinkError::Failed(detail) | SinkError::Refused(detail)) => {
                    tracing::warn!(processor = %self.arn, %detail, "the output cannot be looked up");
                }
            }
        }
    }
}

/// The StatusMessages are those of AWS's guide, so that a user who searches for one finds it.
pub(crate) const COLLECTION_GONE: &str = "Collection not found";

/// See [`COLLECTION_GONE`].
pub(crate) fn stream_gone(name: &str) -> String {
    format!("Stream {name} doesn't exist")
}

/// See [`COLLECTION_GONE`].
pub(crate) fn output_gone(output: &ResourceName) -> String {
    format!("Stream {} under account {} not found", output.name, output.account)
}
