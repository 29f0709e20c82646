//! The frames of a stream, in order, for services on this machine that look at them (stream processors): stored fragments
//! first, then the live tail, each frame as soon as its last byte is here.
//!
//! A consumer never slows ingest. One that is too slow is dropped behind: it goes on from storage and its
//! [`lag`](Consumer::lag) grows. Frames of a fragment may be seen before the fragment is durable, and of one that is
//! refused later; [`FragmentEnd::outcome`] tells.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock, Region, Timestamp};
use bytes::Bytes;
use storage::FragmentNumber;

pub use crate::follow::StartAt;
use crate::follow::{FollowError, Followed, Follower, Started};
use crate::live::LiveFragment;
pub use crate::live::Outcome;
use crate::metrics::VideoMetrics;
use crate::state::StreamState;

mod frames;

/// What a consumer comes to. Within a fragment the order is start, frames, end; the end of one fragment may follow the
/// start of the next, since it waits until the fragment is durable.
#[derive(Clone, Debug)]
pub enum Event {
    /// A fragment starts.
    FragmentStart(FragmentStart),
    /// A frame is whole.
    Frame(Frame),
    /// It is known what became of a fragment.
    FragmentEnd(FragmentEnd),
    /// The stream was deleted; nothing follows.
    StreamDeleted,
}

/// A fragment starts.
#[derive(Clone, Debug)]
pub struct FragmentStart {
    /// Its number.
    pub number: FragmentNumber,
    /// When its first byte arrived.
    pub server_timestamp: Timestamp,
    /// When it was made, as the producer says.
    pub producer_timestamp: Timestamp,
    /// Its tracks: codec, private data, picture size. The same `Arc` as long as the producer's header does not change.
    pub tracks: matroska::Tracks,
    /// Nanoseconds of one unit of its timecodes.
    pub timecode_scale_ns: u64,
    /// True when its frames come as they arrive, false when they come from storage.
    pub live: bool,
}

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its fragment.
    pub fragment: FragmentNumber,
    /// Number of its track.
    pub track: u64,
    /// Its time minus the cluster's timecode, in milliseconds.
    pub offset_ms: f64,
    /// Flagged by the producer as decodable alone.
    pub key: bool,
    /// Whether its bytes are several frames, laced into one block.
    pub laced: bool,
    /// Its bytes as the producer sent them (H.264: length-prefixed).
    pub data: Bytes,
    /// When its last byte arrived, by [`Clock::monotonic`]; for stored frames, when it was read.
    pub arrived: Duration,
}

/// It is known what became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentEnd {
    /// Which.
    pub number: FragmentNumber,
    /// What.
    pub outcome: Outcome,
}

/// How far a consumer is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Stored fragments that it has not come to.
    pub fragments: u64,
    /// Age of the newest frame that it has got, in milliseconds: now minus the fragment's server timestamp and the frame's
    /// offset. 0 before the first frame.
    pub millis: u64,
}

/// Who asks for which stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRef {
    /// The account in which it is looked up.
    pub account: AccountId,
    /// The region in which it is looked up.
    pub region: Region,
    /// Its ARN or its name.
    pub stream: String,
}

/// Why there is no consumer, or no next event.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsumerError {
    /// There is no such stream in the account and region.
    #[error("the stream {0} does not exist")]
    NotFound(String),
    /// The server is ending.
    #[error("the server is ending")]
    Closed,
    /// Storage failed.
    #[error("reading from storage failed: {0}")]
    Storage(#[from] storage::Error),
    /// The catalog failed.
    #[error("reading the catalog failed: {0}")]
    Catalog(String),
}

impl From<FollowError> for ConsumerError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Closed => ConsumerError::Closed,
            FollowError::Storage(error) => ConsumerError::Storage(error),
        }
    }
}

/// A reader of one stream's frames. Made by [`crate::VideoStreams::open_consumer`].
pub struct Consumer {
    follower: Follower,
    clock: Arc<dyn Clock>,
    metrics: VideoMetrics,
    current: Option<Current>,
    header: Option<(Bytes, frames::Header)>,
    ready: VecDeque<Event>,
    /// Fragments that ended live and whose outcome is not told yet, oldest first.
    ended: VecDeque<Arc<LiveFragment>>,
    newest: Option<Timestamp>,
}

/// The fragment that a consumer is in.
struct Current {
    number: FragmentNumber,
    server_timestamp: Timestamp,
    /// `None` when its bytes could not be read: it has no frames then.
    cutter: Option<frames::Cutter>,
}

impl Consumer {
    /// Starts to consume.
    pub(crate) async fn open(
        state: Arc<StreamState>,
        clock: Arc<dyn Clock>,
        metrics: VideoMetrics,
        start: StartAt,
    ) -> Result<Self, ConsumerError> {
        Ok(Consumer {
            follower: Follower::open(state, clock.clone(), metrics.clone(), start).await?,
            clock,
            metrics,
            current: None,
            header: None,
            ready: VecDeque::new(),
            ended: VecDeque::new(),
            newest: None,
        })
    }

    /// The next event; waits for it. Cancel-safe. After [`Event::StreamDeleted`] it is told again and again.
    pub async fn next(&mut self) -> Result<Event, ConsumerError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let oldest = self.ended.front().cloned();
            let outcome = async {
                match &oldest {
                    Some(fragment) => fragment.outcome().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                outcome = outcome => {
                    if let Some(fragment) = self.ended.pop_front() {
                        return Ok(Event::FragmentEnd(FragmentEnd { number: fragment.number, outcome }));
                    }
                }
                followed = self.follower.next() => self.take(followed?),
            }
        }
    }

    /// How far behind it is, now.
    pub fn lag(&self) -> Lag {
        let millis = self.newest.map_or(0, |newest| self.clock.now().millis_since(newest));
        Lag {
            fragments: self.follower.fragments_behind(),
            millis: u64::try_from(millis).unwrap_or(0),
        }
    }

    /// Every stored fragment up to this commit position was passed; a consumer opened with
    /// [`StartAt::AfterPosition`] goes on after them.
    pub fn position(&self) -> u64 {
        self.follower.position()
    }

    /// True while frames are told as they arrive.
    pub fn is_live(&self) -> bool {
        self.follower.is_live()
    }

    fn take(&mut self, followed: Followed) {
        match followed {
            Followed::Start(started) => self.start(&started),
            Followed::Media { bytes, arrived } => self.media(bytes, arrived),
            Followed::End(info) => self.end(
                info.number,
                Some(Outcome::Stored {
                    position: info.position,
                }),
            ),
            Followed::Broken(number) => self.end(number, Some(Outcome::Rejected)),
            Followed::LiveEnd(fragment) => {
                self.end(fragment.number, None);
                self.ended.push_back(fragment);
            }
            Followed::Deleted => self.ready.push_back(Event::StreamDeleted),
        }
    }

    fn start(&mut self, started: &Started) {
        let cutter = frames::Cutter::new(started.header.clone())
            .inspect_err(|error| tracing::warn!(fragment = %started.number, %error, "a fragment has no frames"))
            .ok();
        let known = self.header.take().filter(|(bytes, _)| *bytes == started.header);
        let (bytes, header) = known.unwrap_or_else(|| {
            let header = cutter
                .as_ref()
                .map_or_else(frames::Header::default, |cutter| cutter.header().clone());
            (started.header.clone(), header)
        });
        self.ready.push_back(Event::FragmentStart(FragmentStart {
            number: started.number,
            server_timestamp: started.server_timestamp,
            producer_timestamp: started.producer_timestamp,
            tracks: header.tracks.clone(),
            timecode_scale_ns: header.scale_ns,
            live: started.stored.is_none(),
        }));
        self.header = Some((bytes, header));
        self.current = Some(Current {
            number: started.number,
            server_timestamp: started.server_timestamp,
            cutter,
        });
    }

    fn media(&mut self, bytes: Bytes, arrived: Duration) {
        let Some(current) = &mut self.current else { return };
        let Some(cutter) = &mut current.cutter else { return };
        let (number, server, ready, newest) = (
            current.number,
            current.server_timestamp,
            &mut self.ready,
            &mut self.newest,
        );
        let cut = cutter.push(bytes, arrived, &mut |frame| {
            *newest = Some(server.plus_millis(frame.offset_ms as i64));
            ready.push_back(Event::Frame(Frame {
                fragment: number,
                track: frame.track,
                offset_ms: frame.offset_ms,
                key: frame.key,
                laced: frame.laced,
                data: frame.data,
                arrived: frame.arrived,
            }));
        });
        if let Err(error) = cut {
            tracing::warn!(fragment = %number, %error, "the rest of a fragment has no frames");
            current.cutter = None;
        }
    }

    /// Leaves the fragment and tells the outcome when it is known.
    fn end(&mut self, number: FragmentNumber, outcome: Option<Outcome>) {
        self.current = None;
        self.metrics.consumer_lag(self.lag().millis);
        if let Some(outcome) = outcome {
            self.ready
                .push_back(Event::FragmentEnd(FragmentEnd { number, outcome }));
        }
    }
}
