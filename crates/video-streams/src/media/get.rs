//! GetMedia: from the selected start through what is stored into the live tail, one document for each fragment, until the
//! client leaves or the stream is deleted.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::{ApiError, ByteStream, Clock, Crowd, Handle, Reply, Request, StreamError};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use wire::kinesisvideo_media::{GetMediaInput, GetMediaOutput, op};

use super::{document, resolve, selector};
use crate::VideoStreams;
use crate::error::MediaError;
use crate::follow::{FollowError, Followed, Follower};
use crate::live::Outcome;
use crate::metrics::VideoMetrics;
use crate::state::{Connection, ConnectionKind};

impl Handle<op::GetMedia> for VideoStreams {
    async fn handle(&self, request: Request<GetMediaInput>) -> Result<Reply<GetMediaOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let start = selector::start_at(&input.start_selector)?;
        let limit = inner.settings.get_connections;
        let connection = state.connect(ConnectionKind::Get, limit, &inner.metrics);
        let connection = connection.ok_or(MediaError::ConnectionLimit { limit })?;
        let crowd = Some(Crowd(state.id.0));
        let follower = Follower::open(state, inner.clock.clone(), inner.metrics.clone(), start).await;
        let answer = Answer {
            follower: follower.map_err(MediaError::from)?,
            clock: inner.clock.clone(),
            metrics: inner.metrics.clone(),
            ready: VecDeque::new(),
            last_arrived: Duration::ZERO,
            ended: false,
            _connection: connection,
        };
        Ok(Reply {
            output: GetMediaOutput {
                content_type: Some("video/webm".to_owned()),
            },
            stream: Some(answer.into_stream()),
            stream_len: None,
            crowd,
        })
    }
}

/// What [`Answer::next`] gave, with the answer back.
type Step = (Box<Answer>, Option<Result<Bytes, StreamError>>);

/// An answer as a stream. Live media, which is nearly all of it, is passed on by a plain poll; all else by a future.
enum Pieces {
    At(Box<Answer>),
    Waiting(BoxFuture<'static, Step>),
    Ended,
}

impl Stream for Pieces {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Pieces::At(answer) = &mut *self {
            if let Some(bytes) = ready!(answer.poll_media(cx)) {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if let Pieces::At(mut answer) = std::mem::replace(&mut *self, Pieces::Ended) {
                *self = Pieces::Waiting(Box::pin(async move {
                    let item = answer.next().await;
                    (answer, item)
                }));
            }
        }
        let Pieces::Waiting(step) = &mut *self else {
            return Poll::Ready(None);
        };
        let (answer, item) = ready!(step.as_mut().poll(cx));
        *self = match item {
            Some(_) => Pieces::At(answer),
            None => Pieces::Ended,
        };
        Poll::Ready(item)
    }
}

struct Answer {
    follower: Follower,
    clock: Arc<dyn Clock>,
    metrics: VideoMetrics,
    ready: VecDeque<Bytes>,
    last_arrived: Duration,
    ended: bool,
    _connection: Connection,
}

impl Answer {
    fn into_stream(self) -> ByteStream {
        Box::pin(Pieces::At(Box::new(self)))
    }

    /// The next bytes of a live fragment; ready with nothing where [`Answer::next`] is to be asked.
    fn poll_media(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended || !self.ready.is_empty() {
            return Poll::Ready(None);
        }
        let media = ready!(self.follower.poll_media(cx));
        Poll::Ready(media.map(|(bytes, arrived)| {
            self.last_arrived = arrived;
            self.metrics.sent(bytes.len());
            bytes
        }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.metrics.sent(bytes.len());
                return Some(Ok(bytes));
            }
            if self.ended {
                return None;
            }
            match self.follower.next().await {
                Ok(followed) => self.take(followed).await,
                Err(FollowError::Closed) => self.ended = true,
                Err(FollowError::Storage(error)) => {
                    self.ended = true;
                    return Some(Err(StreamError::Other(format!("reading from storage failed: {error}"))));
                }
            }
        }
    }

    async fn take(&mut self, followed: Followed) {
        match followed {
            Followed::Start(started) => {
                let (server, producer) = (started.server_timestamp, started.producer_timestamp);
                let start = document::start(&started.header, started.number, server, producer);
                self.ready.push_back(start);
            }
            Followed::Media { bytes, arrived } => {
                self.last_arrived = arrived;
                self.ready.push_back(bytes);
            }
            Followed::End(info) => {
                let behind = self.clock.now().millis_since(info.server_end());
                self.ready.push_back(document::trailing_tags(info.number, behind));
            }
            Followed::LiveEnd(fragment) => {
                // A token is given only for a fragment that is there to go on from.
                if let Outcome::Stored { .. } = fragment.outcome().await {
                    let behind = self.clock.monotonic().saturating_sub(self.last_arrived);
                    let behind = i64::try_from(behind.as_millis()).unwrap_or(i64::MAX);
                    self.ready.push_back(document::trailing_tags(fragment.number, behind));
                }
            }
            Followed::Broken(_) => {}
            Followed::Deleted => self.ended = true,
        }
    }
}
