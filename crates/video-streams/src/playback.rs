//! Playback: sessions for HLS and DASH players, and the operations that players call with a session's token.
//!
//! A session is its token ([`session`]); what the server keeps beside it are forgettable copies: timelines that can be
//! listed anew ([`timeline`]) and, while somebody watches with low latency, the newest fragments in parts ([`tail`]).
//! The text of playlists is `packaging`'s; this decides what stands in them.

mod create;
mod dash;
mod hls;
mod media;
mod parts;
pub mod session;
mod tail;
pub mod timeline;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use auth::KeyRing;
use base::{ApiError, Clock, Reply, Timestamp};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{Cursor, FragmentInfo, FragmentQuery, FragmentRange, MediaStore, TimeAxis};
use wire::kinesisvideo_archived_media::PlayerOutput;

use crate::error::MediaError;
use crate::limits;
use crate::service::Inner;
use crate::state::StreamState;
use session::{Mode, Session};
use tail::Tails;
use timeline::{Timeline, TooManyChanges};

/// What the operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaybackSettings {
    /// A live session of a stream that is silent for 30 seconds is refused, as AWS does it.
    pub strict: bool,
    /// Live sessions with fragmented MP4 are told the parts of the fragment that is arriving (Low-Latency HLS).
    pub low_latency: bool,
}

impl Default for PlaybackSettings {
    fn default() -> Self {
        PlaybackSettings {
            strict: false,
            low_latency: true,
        }
    }
}

/// What playback keeps.
pub(crate) struct Playback {
    ring: Arc<KeyRing>,
    timelines: Mutex<HashMap<Session, Arc<Kept>>>,
    uses: AtomicU64,
    tails: Arc<Tails>,
}

/// A timeline that is remembered while there is room.
struct Kept {
    timeline: tokio::sync::Mutex<Timeline>,
    used: AtomicU64,
    entries: AtomicUsize,
}

impl From<TooManyChanges> for MediaError {
    fn from(_: TooManyChanges) -> Self {
        MediaError::ClientLimit("The codec changed more than 500 times in this session. Ask for a new one.")
    }
}

/// A request of a player: whose it is and where its media lies.
pub(crate) struct Player {
    session: Session,
    state: Arc<StreamState>,
    store: Arc<dyn MediaStore>,
    token: String,
}

impl Playback {
    pub fn new(ring: Arc<KeyRing>, clock: Arc<dyn Clock>) -> Self {
        Playback {
            tails: Arc::new(Tails::new(clock)),
            ring,
            timelines: Mutex::new(HashMap::new()),
            uses: AtomicU64::new(0),
        }
    }

    /// The timeline of a session, to be brought up to date.
    fn timeline(&self, session: &Session) -> Arc<Kept> {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut timelines = self.timelines.lock();
        if let Some(kept) = timelines.get(session) {
            kept.used.store(now, Ordering::Relaxed);
            return kept.clone();
        }
        loop {
            let entries: usize = timelines
                .values()
                .map(|kept| kept.entries.load(Ordering::Relaxed))
                .sum();
            if timelines.len() < limits::SESSIONS_KEPT && entries < limits::SESSION_ENTRIES_KEPT {
                break;
            }
            let oldest = timelines
                .iter()
                .min_by_key(|(_, kept)| kept.used.load(Ordering::Relaxed));
            let Some(oldest) = oldest.map(|(session, _)| *session) else {
                break;
            };
            timelines.remove(&oldest);
        }
        let kept = Arc::new(Kept {
            timeline: tokio::sync::Mutex::new(Timeline::new(*session)),
            used: AtomicU64::new(now),
            entries: AtomicUsize::new(0),
        });
        timelines.insert(*session, kept.clone());
        kept
    }
}

impl Inner {
    /// Opens a token and finds what it names.
    fn player(&self, token: &str) -> Result<Player, MediaError> {
        let session = Session::open(&self.playback.ring, self.clock.now(), token)?;
        let state = self.streams.by_id(session.stream).ok_or(MediaError::NotFound)?;
        let store = state.stores().durable.clone();
        Ok(Player {
            session,
            state,
            store,
            token: token.to_owned(),
        })
    }

    /// Does something with a session's timeline after all that is stored by now was taken into it.
    async fn with_timeline<T>(
        &self,
        player: &Player,
        then: impl FnOnce(&mut Timeline) -> T + Send,
    ) -> Result<T, MediaError> {
        let kept = self.playback.timeline(&player.session);
        let mut timeline = kept.timeline.lock().await;
        let brought = self.bring_up_to_date(player, &mut timeline).await;
        kept.entries.store(timeline.held(), Ordering::Relaxed);
        brought?;
        Ok(then(&mut timeline))
    }

    async fn bring_up_to_date(&self, player: &Player, timeline: &mut Timeline) -> Result<(), MediaError> {
        let (session, stream, store) = (&player.session, player.state.id, &*player.store);
        let now = self.clock.now();
        while let Some(after) = timeline.wants(now) {
            let limit = match session.mode {
                Mode::LiveReplay => limits::REPLAY_PAGE,
                // One more shows whether more follow.
                Mode::Live | Mode::OnDemand => usize::from(session.fragments_max).max(limits::SESSION_PAGE_MIN) + 1,
            };
            let range = FragmentRange::Time(session.axis(), session.start, session.end);
            let query = FragmentQuery {
                after,
                ..FragmentQuery::first(range, limit)
            };
            let page = store.list(stream, &query).await?;
            timeline.take_page(&page, page.len() >= limit)?;
        }
        if !session.grows() || !timeline.is_listed() || self.settle(player, timeline, now).await? {
            return Ok(());
        }
        let committed = *store.subscribe(stream).borrow();
        if committed.saturating_sub(timeline.position()) > limits::COMMITS_ONE_BY_ONE {
            for info in self.commits_since(player, timeline.position()).await? {
                timeline.take_commit(&info)?;
            }
        }
        while let Some(info) = store.next_after(stream, Cursor::Position(timeline.position())).await? {
            timeline.take_commit(&info)?;
        }
        Ok(())
    }

    /// Many commits at once, as after a restart: listed by the time at which they were received, which no commit that came
    /// after the session was made can precede by more than a fragment may last.
    async fn commits_since(&self, player: &Player, position: u64) -> Result<Vec<FragmentInfo>, MediaError> {
        let from = player.session.created.plus_millis(-limits::COMMIT_LAG_MS);
        let range = FragmentRange::Time(TimeAxis::Server, from, Timestamp::from_millis(i64::MAX));
        let limit = storage::limits::LIST_LIMIT_MAX;
        let mut query = FragmentQuery::first(range, limit);
        let mut found: Vec<FragmentInfo> = Vec::new();
        loop {
            let page = player.store.list(player.state.id, &query).await?;
            query.after = page.last().map(|last| range.place_of(last));
            found.extend(page.iter().filter(|info| info.position > position));
            if page.len() < limit {
                break;
            }
        }
        found.sort_unstable_by_key(|info| info.position);
        Ok(found)
    }
}

/// How an answer may be kept by players and caches.
#[derive(Clone, Copy)]
enum Keep {
    /// It changes.
    Never,
    /// It stays what it is.
    Always,
}

/// The answer of a player's operation.
fn answer(content_type: &str, keep: Keep, pieces: Vec<Bytes>) -> Reply<PlayerOutput> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    Reply {
        stream_len: Some(length as u64),
        crowd: None,
        output: PlayerOutput {
            content_type: Some(content_type.to_owned()),
            cache_control: Some(match keep {
                Keep::Never => "no-cache".to_owned(),
                // No longer than a session: the URL holds its token.
                Keep::Always => format!("private, max-age={}, immutable", limits::EXPIRES_SECONDS_MAX),
            }),
        },
        stream: Some(Box::pin(futures_util::stream::iter(pieces.into_iter().map(Ok)))),
    }
}

/// What is told a player whose fragment is not in its session.
fn no_fragment() -> ApiError {
    MediaError::Missing("The session has no such fragment.").into()
}
