//! The way in: takes the events of a video stream, opens a vision session for its track and hands the frames over. A
//! session ends when the codec's parameters change or the producer's clock is set back, and the next one begins.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use bytes::Bytes;
use matroska::{Track, TrackKind};
use parking_lot::Mutex;
use storage::FragmentNumber;
use tokio::sync::mpsc;
use video_streams::consumer::{Event, FragmentEnd, FragmentStart, Frame, Outcome};
use vision::{Codec, Mode, OpenError};

use super::pipeline::{End, Pipeline};
use super::record::FramePlace;
use crate::limits::RETRY_PAUSE;
use crate::ports::{Feed, FrameSink, OutcomeSource};

/// A producer's clock that goes back further than this begins a new session. Frames in decoding order go back less.
const CLOCK_SET_BACK_MS: i64 = 5_000;

/// Frames that vision has and has not answered.
pub(crate) type InFlight = Arc<Mutex<HashMap<u64, SentFrame>>>;

/// What is remembered of a frame while vision has it.
pub(crate) struct SentFrame {
    pub(crate) place: FramePlace,
    /// When its last byte arrived; `None` for one from storage.
    pub(crate) arrived: Option<Duration>,
    /// An earlier run recorded it; it was sent for the decoder's sake.
    pub(crate) recorded: bool,
}

/// The outcomes of one session, for the recorder.
pub(crate) struct Outcomes {
    pub(crate) source: Box<dyn OutcomeSource>,
    pub(crate) frames: InFlight,
}

/// What decides whether a session can go on.
#[derive(Clone, PartialEq)]
pub(crate) struct TrackFormat {
    pub(crate) codec: Codec,
    pub(crate) codec_private: Bytes,
}

struct OpenSession {
    sink: Box<dyn FrameSink>,
    frames: InFlight,
    format: TrackFormat,
    mode: Mode,
    newest_ms: i64,
}

struct CurrentFragment {
    number: FragmentNumber,
    server_timestamp: Timestamp,
    producer_timestamp: Timestamp,
    live: bool,
    /// Number and format of the first video track that can be decoded.
    track: Option<(u64, TrackFormat)>,
}

pub(crate) struct Feeder {
    pipeline: Arc<Pipeline>,
    sessions: mpsc::Sender<Outcomes>,
    session: Option<OpenSession>,
    fragment: Option<CurrentFragment>,
    next_id: u64,
    /// A fragment broke off: what refers to it cannot be decoded.
    broken: bool,
    /// Before this time no session is opened, since the last try failed.
    retry_at: Duration,
}

/// Number and format of the first video track that can be decoded.
pub(crate) fn video_track(tracks: &[Track]) -> Option<(u64, TrackFormat)> {
    let mut videos = tracks
        .iter()
        .filter(|track| track.kind == TrackKind::Video && !track.encoded);
    videos.find_map(|track| {
        let format = TrackFormat {
            codec: Codec::from_matroska(&track.codec_id)?,
            codec_private: track.codec_private.clone(),
        };
        Some((track.number, format))
    })
}

impl Feeder {
    pub(crate) fn new(pipeline: Arc<Pipeline>, sessions: mpsc::Sender<Outcomes>) -> Self {
        Feeder {
            pipeline,
            sessions,
            session: None,
            fragment: None,
            next_id: 0,
            broken: false,
            retry_at: Duration::ZERO,
        }
    }

    /// Runs until the stream or the run ends.
    pub(crate) async fn run(mut self, mut feed: Box<dyn Feed>) -> Result<Infallible, End> {
        loop {
            let event = feed.next().await.map_err(|error| self.pipeline.feed_ended(error))?;
            match event {
                Event::FragmentStart(start) => self.start_fragment(&start),
                Event::Frame(frame) => self.take_frame(frame).await?,
                Event::FragmentEnd(end) => self.end_fragment(end),
                Event::StreamDeleted => return Err(self.pipeline.stream_gone()),
            }
        }
    }

    fn start_fragment(&mut self, start: &FragmentStart) {
        self.pipeline.note_first(start.number);
        let track = video_track(&start.tracks);
        if track.is_none() {
            tracing::debug!(fragment = %start.number, "no H.264 or H.265 track in a fragment");
        }
        self.fragment = Some(CurrentFragment {
            number: start.number,
            server_timestamp: start.server_timestamp,
            producer_timestamp: start.producer_timestamp,
            live: start.live,
            track,
        });
    }

    fn end_fragment(&mut self, end: FragmentEnd) {
        self.pipeline.settle_fragment(end);
        let current = self
            .fragment
            .as_ref()
            .is_some_and(|fragment| fragment.number == end.number);
        if current && end.outcome == Outcome::Rejected {
            self.broken = true;
        }
    }

    async fn take_frame(&mut self, frame: Frame) -> Result<(), End> {
        let Some(fragment) = self
            .fragment
            .as_ref()
            .filter(|fragment| fragment.number == frame.fragment)
        else {
            return Ok(());
        };
        let Some((_, format)) = fragment.track.clone().filter(|(number, _)| *number == frame.track) else {
            if fragment.track.is_none() {
                self.pipeline.metrics.dropped("codec");
            }
            return Ok(()); // Of another track.
        };
        let place = FramePlace {
            fragment: fragment.number,
            server_timestamp: fragment.server_timestamp,
            producer_timestamp: fragment.producer_timestamp,
            offset_ms: frame.offset_ms,
        };
        let live = fragment.live;
        let time_ms = place.time().millis();
        let mode = self.pipeline.mode(live);
        if !self.ready_session(&format, mode, time_ms, frame.key, live).await? {
            self.pipeline.metrics.dropped("no_session");
            return Ok(());
        }
        let id = self.next_id;
        self.next_id += 1;
        let broken = std::mem::take(&mut self.broken) && !frame.key;
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        if broken {
            session.sink.mark_gap();
        }
        session.newest_ms = session.newest_ms.max(time_ms);
        let sent = SentFrame {
            recorded: self.pipeline.is_recorded(&place),
            arrived: live.then_some(frame.arrived),
            place,
        };
        session.frames.lock().insert(id, sent);
        let frame = vision::Frame {
            id,
            time_ms,
            key: frame.key,
            data: frame.data,
        };
        if session.sink.send(frame).await.is_err() {
            tracing::warn!(processor = %self.pipeline.arn, "a vision session was closed");
            self.session = None;
            self.retry_later();
        }
        Ok(())
    }

    /// Makes sure that there is a session for a frame. False when there is none for now and the frame is not to wait.
    async fn ready_session(
        &mut self,
        format: &TrackFormat,
        mode: Mode,
        time_ms: i64,
        key: bool,
        live: bool,
    ) -> Result<bool, End> {
        let fits = |session: &OpenSession| {
            session.format == *format && time_ms > session.newest_ms.saturating_sub(CLOCK_SET_BACK_MS)
        };
        if let Some(session) = self.session.as_mut().filter(|session| fits(session)) {
            if session.mode != mode {
                session.sink.set_mode(mode);
                session.mode = mode;
            }
            return Ok(true);
        }
        // Dropping the old one ends its input; what its decoder still holds comes out.
        self.session = None;
        loop {
            let now = self.pipeline.clock().monotonic();
            // A decoder begins at a key frame, so before one there is nothing to gain from a session.
            if live && (!key || now < self.retry_at) {
                return Ok(false);
            }
            match self.pipeline.open_session(format.codec, &format.codec_private, mode) {
                Ok((sink, source)) => {
                    let frames = InFlight::default();
                    self.session = Some(OpenSession {
                        sink,
                        frames: frames.clone(),
                        format: format.clone(),
                        mode,
                        newest_ms: time_ms,
                    });
                    let outcomes = Outcomes { source, frames };
                    let gone = |_| End::Retry("the recorder has ended".to_owned());
                    self.sessions.send(outcomes).await.map_err(gone)?;
                    return Ok(true);
                }
                Err(OpenError::NoCapacity(workers)) if !live => {
                    tracing::warn!(processor = %self.pipeline.arn, workers, "no vision worker is free; waiting");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(processor = %self.pipeline.arn, %error, "a vision session cannot be opened");
                    self.retry_later();
                    return Ok(false);
                }
            }
        }
    }

    fn retry_later(&mut self) {
        self.retry_at = self.pipeline.clock().monotonic() + RETRY_PAUSE;
    }
}
