//! One reader's way along a stream: stored fragments first, then the live tail, without a seam. GetMedia and the consumers
//! of [`crate::consumer`] stand on it.
//!
//! Fragments are followed by commit position, so that nothing is missed when several connections commit in another order
//! than they began. A fragment that was shown live is remembered until its position is passed. A reader that is dropped
//! behind in the middle of a fragment reads the rest of it from storage. Knows nothing of Matroska.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::{Clock, Timestamp};
use bytes::Bytes;
use storage::{Cursor, FragmentInfo, FragmentNumber, MediaStore, TimeAxis};
use tokio::sync::watch;

use crate::limits::READ_CHUNK_BYTES;
use crate::live::{LiveFragment, Message, Next, Outcome, Subscription};
use crate::metrics::VideoMetrics;
use crate::state::StreamState;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the fragment that is arriving; where none is, with the next one.
    Now,
    /// With the oldest fragment that is stored.
    Earliest,
    /// With the first fragment that became durable after this commit position.
    AfterPosition(u64),
    /// With the first fragment that became durable after this one; where it is gone, with the next higher number.
    AfterFragment(FragmentNumber),
    /// With this fragment; where it is gone, with the next higher number.
    Fragment(FragmentNumber),
    /// With the fragment that spans this time, or the first one after it.
    Time(TimeAxis, Timestamp),
}

/// A fragment that a reader comes to.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its number.
    pub number: FragmentNumber,
    /// When its first byte arrived.
    pub server_timestamp: Timestamp,
    /// When it was made, as the producer says.
    pub producer_timestamp: Timestamp,
    /// What the producer sent before the cluster.
    pub header: Bytes,
    /// What is known of it because it is stored; `None` while it arrives.
    pub stored: Option<FragmentInfo>,
}

/// What a reader comes to.
#[derive(Debug)]
pub enum Followed {
    /// A fragment.
    Start(Started),
    /// The next bytes of it, from its cluster on. `arrived` is when, by [`Clock::monotonic`]; for stored bytes, when
    /// they were read.
    Media {
        /// The bytes.
        bytes: Bytes,
        /// When.
        arrived: Duration,
    },
    /// The stored fragment ends.
    End(FragmentInfo),
    /// The fragment that was followed live ends; its outcome is known now or soon.
    LiveEnd(Arc<LiveFragment>),
    /// The fragment ends in the middle: it was refused, deleted, or cannot be read.
    Broken(FragmentNumber),
    /// The stream was deleted; nothing follows.
    Deleted,
}

/// Why a reader cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FollowError {
    /// The server is ending.
    #[error("the server is ending")]
    Closed,
    /// Storage failed.
    #[error("reading from storage failed: {0}")]
    Storage(#[from] storage::Error),
}

enum Place {
    /// Between fragments.
    Between,
    /// In a stored one, with the next byte's offset.
    Stored { info: FragmentInfo, at: u32, again: bool },
    /// In a live one, with the bytes seen of its cluster.
    Live { fragment: Arc<LiveFragment>, seen: u32 },
    /// Dropped behind in a live one.
    Behind { fragment: Arc<LiveFragment>, seen: u32 },
}

/// One reader's way.
pub struct Follower {
    state: Arc<StreamState>,
    clock: Arc<dyn Clock>,
    metrics: VideoMetrics,
    live: Subscription,
    store: Arc<dyn MediaStore>,
    durable: bool,
    committed: watch::Receiver<u64>,
    position: u64,
    last: Option<FragmentNumber>,
    /// Shown live, position not passed yet.
    ahead: Vec<Arc<LiveFragment>>,
    /// The newest that were shown from storage. Such a fragment may still wait in the live tail, where it is told a moment
    /// later that it is stored.
    passed: VecDeque<FragmentNumber>,
    place: Place,
    /// What [`Follower::poll_media`] came to that was no media.
    pulled: Option<Next>,
}

/// How many of those are remembered: more than can be in that moment, which are the commits under way of every connection.
const PASSED_MAX: usize = 512;

impl Follower {
    /// Starts to follow.
    pub async fn open(
        state: Arc<StreamState>,
        clock: Arc<dyn Clock>,
        metrics: VideoMetrics,
        start: StartAt,
    ) -> Result<Self, FollowError> {
        // Subscribed before the store is asked, so that nothing falls between the two.
        let live = state.hub.subscribe();
        let (store, durable) = state.store();
        let committed = store.subscribe(state.id);
        let now = *committed.borrow();
        let position = match start {
            StartAt::Now => now,
            StartAt::Earliest => 0,
            // A store that begins anew with each start of the server (a stream without retention) may be below the
            // position that a reader remembers; all it holds is new to the reader then.
            StartAt::AfterPosition(position) if position > now => 0,
            StartAt::AfterPosition(position) => position,
            StartAt::AfterFragment(number) => match store.get(state.id, number).await {
                Ok(info) => info.position,
                Err(storage::Error::NotFound) => after_number(&*store, &state, number, now).await?,
                Err(error) => return Err(error.into()),
            },
            StartAt::Fragment(number) => match store.get(state.id, number).await {
                Ok(info) => info.position.saturating_sub(1),
                Err(storage::Error::NotFound) => after_number(&*store, &state, number, now).await?,
                Err(error) => return Err(error.into()),
            },
            StartAt::Time(axis, at) => {
                let found = store.find_containing(state.id, axis, at).await?;
                found.map_or(now, |info| info.position.saturating_sub(1))
            }
        };
        Ok(Follower {
            state,
            clock,
            metrics,
            live,
            store,
            durable,
            committed,
            position,
            last: None,
            ahead: Vec::new(),
            passed: VecDeque::new(),
            place: Place::Between,
            pulled: None,
        })
    }

    /// Everything up to this commit position was passed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many stored fragments lie ahead.
    pub fn fragments_behind(&self) -> u64 {
        let ahead = self.committed.borrow().saturating_sub(self.position);
        ahead.saturating_sub(self.ahead.len() as u64)
    }

    /// True while what is followed arrives live.
    pub fn is_live(&self) -> bool {
        matches!(self.place, Place::Live { .. })
    }

    /// The next thing on the way; waits for it. Cancel-safe.
    pub async fn next(&mut self) -> Result<Followed, FollowError> {
        loop {
            if let Some((bytes, arrived)) = poll_fn(|cx| self.poll_media(cx)).await {
                return Ok(Followed::Media { bytes, arrived });
            }
            if let (Some(next), Place::Live { fragment, seen }) = (self.pulled.take(), &self.place) {
                let (fragment, seen) = (fragment.clone(), *seen);
                match self.live(&next, fragment, seen) {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            }
            if self.state.hub.is_closed() {
                return Ok(Followed::Deleted);
            }
            let step = match &self.place {
                Place::Between | Place::Live { .. } => self.between().await?,
                Place::Stored { info, at, again } => {
                    let (info, at, again) = (*info, *at, *again);
                    self.stored(info, at, again).await?
                }
                Place::Behind { fragment, seen } => {
                    let (fragment, seen) = (fragment.clone(), *seen);
                    self.behind(fragment, seen).await?
                }
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// In a live fragment: its next bytes and when they arrived. Ready with nothing elsewhere, or when something else than
    /// bytes comes: [`Follower::next`] tells what. This is the way of every frame to every reader: it takes what the
    /// reader alone has, and no future is made for it.
    pub fn poll_media(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Bytes, Duration)>> {
        let Place::Live { fragment, seen } = &mut self.place else {
            return Poll::Ready(None);
        };
        while self.pulled.is_none() {
            match ready!(self.live.poll_next(cx)) {
                Next::Message(Message::Media { number, bytes, arrived }) if number == fragment.number => {
                    *seen = seen.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    return Poll::Ready(Some((bytes, arrived)));
                }
                // Fragments of other connections come from storage when they are whole.
                Next::Message(Message::Media { .. }) => {}
                other => self.pulled = Some(other),
            }
        }
        Poll::Ready(None)
    }

    /// Looks for the next fragment: first in storage, then in the live tail.
    async fn between(&mut self) -> Result<Option<Followed>, FollowError> {
        self.follow_retention().await?;
        if *self.committed.borrow_and_update() > self.position
            && let Some(step) = self.next_stored().await?
        {
            return Ok(Some(step));
        }
        let next = tokio::select! {
            next = self.live.next() => next,
            changed = self.committed.changed() => match changed {
                Ok(()) => return Ok(None),
                Err(_) if self.state.hub.is_closed() => return Ok(Some(Followed::Deleted)),
                Err(_) => return Err(FollowError::Closed),
            },
        };
        let Next::Message(Message::Start(fragment)) = next else {
            // The rest of a fragment that was not followed from its start, or the end, which the loop sees.
            return Ok(None);
        };
        match fragment.outcome_now() {
            Some(Outcome::Rejected) => Ok(None),
            Some(Outcome::Stored { position }) if position <= self.position => Ok(None),
            None if self.passed.contains(&fragment.number) => Ok(None),
            _ => {
                self.last = self.last.max(Some(fragment.number));
                let started = Started {
                    number: fragment.number,
                    server_timestamp: fragment.server_timestamp,
                    producer_timestamp: fragment.producer_timestamp,
                    header: fragment.header.clone(),
                    stored: None,
                };
                self.place = Place::Live { fragment, seen: 0 };
                Ok(Some(Followed::Start(started)))
            }
        }
    }

    /// Goes on with the next stored fragment that was not shown live.
    async fn next_stored(&mut self) -> Result<Option<Followed>, FollowError> {
        loop {
            let cursor = Cursor::Position(self.position);
            let Some(info) = self.store.next_after(self.state.id, cursor).await? else {
                // What lay between was trimmed meanwhile.
                return Ok(None);
            };
            if let Some(shown) = self.ahead.iter().position(|fragment| fragment.number == info.number) {
                self.ahead.swap_remove(shown);
                self.position = info.position;
                continue;
            }
            self.ahead
                .retain(|fragment| fragment.outcome_now() != Some(Outcome::Rejected));
            let header = match self.store.read(self.state.id, info.number, 0..info.header_len).await {
                Ok(header) => header,
                Err(error) => {
                    self.position = info.position;
                    self.skip(&info, &error)?;
                    continue;
                }
            };
            self.last = self.last.max(Some(info.number));
            self.place = Place::Stored {
                info,
                at: info.header_len,
                again: false,
            };
            return Ok(Some(Followed::Start(Started {
                number: info.number,
                server_timestamp: info.server_timestamp,
                producer_timestamp: info.producer_timestamp,
                header,
                stored: Some(info),
            })));
        }
    }

    async fn stored(&mut self, info: FragmentInfo, at: u32, again: bool) -> Result<Option<Followed>, FollowError> {
        if at >= info.size {
            self.leave(&info, again);
            return Ok(Some(Followed::End(info)));
        }
        let end = info.size.min(at.saturating_add(READ_CHUNK_BYTES));
        match self.store.read(self.state.id, info.number, at..end).await {
            Ok(bytes) if !bytes.is_empty() => {
                let at = at.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                self.place = Place::Stored { info, at, again };
                let arrived = self.clock.monotonic();
                Ok(Some(Followed::Media { bytes, arrived }))
            }
            Ok(_) => {
                self.leave(&info, again);
                Ok(Some(Followed::Broken(info.number)))
            }
            Err(error) => {
                self.leave(&info, again);
                self.skip(&info, &error)?;
                Ok(Some(Followed::Broken(info.number)))
            }
        }
    }

    /// Leaves a stored fragment. One that was entered live lies possibly ahead of others and is only remembered.
    fn leave(&mut self, info: &FragmentInfo, again: bool) {
        self.place = Place::Between;
        if !again {
            self.position = info.position;
            self.passed.push_back(info.number);
            if self.passed.len() > PASSED_MAX {
                self.passed.pop_front();
            }
        }
    }

    /// Decides whether a reader can go on after a fragment that could not be read.
    fn skip(&self, info: &FragmentInfo, error: &storage::Error) -> Result<(), FollowError> {
        match error {
            storage::Error::NotFound | storage::Error::Corrupt(_) => {
                tracing::warn!(stream = %self.state.arn, fragment = %info.number, %error, "a fragment is skipped");
                Ok(())
            }
            other => Err(other.clone().into()),
        }
    }

    /// In a live fragment: what is not its media.
    fn live(&mut self, next: &Next, fragment: Arc<LiveFragment>, seen: u32) -> Option<Followed> {
        match next {
            Next::Message(Message::End(number)) if *number == fragment.number => {
                self.place = Place::Between;
                self.ahead.push(fragment.clone());
                Some(Followed::LiveEnd(fragment))
            }
            Next::Message(_) => None,
            Next::Lagged => {
                self.metrics.dropped_behind();
                self.place = Place::Behind { fragment, seen };
                None
            }
            Next::Closed => Some(Followed::Deleted),
        }
    }

    /// Waits until the fragment is stored, then reads the rest of it.
    async fn behind(&mut self, fragment: Arc<LiveFragment>, seen: u32) -> Result<Option<Followed>, FollowError> {
        let outcome = tokio::select! {
            outcome = fragment.outcome() => outcome,
            () = self.state.hub.closed() => return Ok(Some(Followed::Deleted)),
        };
        let number = fragment.number;
        let info = match outcome {
            Outcome::Rejected => None,
            Outcome::Stored { .. } => match self.store.get(self.state.id, number).await {
                Ok(info) => Some(info),
                Err(storage::Error::NotFound) => None,
                Err(error) => return Err(error.into()),
            },
        };
        self.place = Place::Between;
        let Some(info) = info else {
            return Ok(Some(Followed::Broken(number)));
        };
        self.ahead.push(fragment);
        self.place = Place::Stored {
            info,
            at: info.header_len.saturating_add(seen),
            again: true,
        };
        Ok(None)
    }

    /// A stream that gets or loses its retention changes its store; the reader goes on in the other one after the last
    /// fragment that it has seen.
    async fn follow_retention(&mut self) -> Result<(), FollowError> {
        let (store, durable) = self.state.store();
        if durable == self.durable {
            return Ok(());
        }
        self.committed = store.subscribe(self.state.id);
        let now = *self.committed.borrow();
        self.position = match self.last {
            Some(last) => after_number(&*store, &self.state, last, now).await?,
            None => now,
        };
        self.store = store;
        self.durable = durable;
        self.ahead.clear();
        Ok(())
    }
}

/// The commit position just before the next higher number, or `now` when there is none.
async fn after_number(
    store: &dyn MediaStore,
    state: &StreamState,
    number: FragmentNumber,
    now: u64,
) -> Result<u64, storage::Error> {
    let next = store.next_after(state.id, Cursor::Number(number)).await?;
    Ok(next.map_or(now, |info| info.position.saturating_sub(1)))
}
