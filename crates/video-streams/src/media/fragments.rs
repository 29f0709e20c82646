//! GetMediaForFragmentList: the documents of the fragments that the caller names, in the caller's order; a short document
//! with error tags for one that is not there.

use std::sync::Arc;
use std::vec::IntoIter;

use base::{ApiError, ByteStream, Clock, Handle, Reply, Request, StreamError};
use bytes::Bytes;
use futures_util::stream;
use storage::{FragmentInfo, MediaStore};
use wire::kinesisvideo_archived_media::{GetMediaForFragmentListInput, GetMediaForFragmentListOutput, op};

use super::document::{self, FragmentError};
use super::resolve;
use crate::VideoStreams;
use crate::error::MediaError;
use crate::limits;
use crate::metrics::VideoMetrics;
use crate::state::{Connection, ConnectionKind};

impl Handle<op::GetMediaForFragmentList> for VideoStreams {
    async fn handle(
        &self,
        request: Request<GetMediaForFragmentListInput>,
    ) -> Result<Reply<GetMediaForFragmentListOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let (count, max) = (input.fragments.len(), limits::MEDIA_FRAGMENTS_MAX);
        if !(1..=max).contains(&count) {
            let why = format!("Fragments holds {count} numbers; it must hold 1 to {max}.");
            return Err(MediaError::InvalidArgument(why).into());
        }
        let limit = inner.settings.list_connections;
        let connection = state.connect(ConnectionKind::List, limit, &inner.metrics);
        let connection = connection.ok_or(MediaError::ConnectionLimit { limit })?;
        let answer = Answer {
            store: state.store().0,
            clock: inner.clock.clone(),
            metrics: inner.metrics.clone(),
            numbers: input.fragments.into_iter(),
            current: None,
            connection,
        };
        Ok(Reply {
            output: GetMediaForFragmentListOutput {
                content_type: Some("video/webm".to_owned()),
            },
            stream: Some(answer.into_stream()),
            stream_len: None,
            crowd: None,
        })
    }
}

struct Answer {
    store: Arc<dyn MediaStore>,
    clock: Arc<dyn Clock>,
    metrics: VideoMetrics,
    numbers: IntoIter<String>,
    /// The fragment under way and the offset of its next byte.
    current: Option<(FragmentInfo, u32)>,
    connection: Connection,
}

impl Answer {
    fn into_stream(self) -> ByteStream {
        Box::pin(stream::unfold(self, |mut answer| async move {
            let next = answer.next().await?;
            if let Ok(bytes) = &next {
                answer.metrics.sent(bytes.len());
            }
            Some((next, answer))
        }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        match self.current {
            Some((info, at)) => Some(self.go_on(info, at).await),
            None => {
                let number = self.numbers.next()?;
                Some(Ok(self.start(&number).await))
            }
        }
    }

    async fn start(&mut self, text: &str) -> Bytes {
        match self.open(text).await {
            Ok((info, start)) => {
                self.current = Some((info, info.header_len));
                start
            }
            Err(error) => {
                tracing::info!(fragment = text, %error, "a fragment of a list is not returned");
                let error = match error {
                    storage::Error::NotFound => FragmentError::NotFound,
                    _ => FragmentError::Internal,
                };
                document::error_document(text, error)
            }
        }
    }

    async fn open(&self, text: &str) -> Result<(FragmentInfo, Bytes), storage::Error> {
        let stream = self.connection.stream().id;
        let number = text.parse().map_err(|_| storage::Error::NotFound)?;
        let info = self.store.get(stream, number).await?;
        let header = self.store.read(stream, number, 0..info.header_len).await?;
        let start = document::start(&header, number, info.server_timestamp, info.producer_timestamp);
        Ok((info, start))
    }

    async fn go_on(&mut self, info: FragmentInfo, at: u32) -> Result<Bytes, StreamError> {
        if at >= info.size {
            self.current = None;
            let behind = self.clock.now().millis_since(info.server_end());
            return Ok(document::trailing_tags(info.number, behind));
        }
        let end = info.size.min(at.saturating_add(limits::READ_CHUNK_BYTES));
        let stream = self.connection.stream().id;
        // The document has begun, so that an error can only cut the answer short.
        let bytes = self.store.read(stream, info.number, at..end).await;
        let bytes = bytes.map_err(|error| StreamError::Other(format!("reading from storage failed: {error}")))?;
        if bytes.is_empty() {
            return Err(StreamError::Other(
                "a fragment is shorter than its index says".to_owned(),
            ));
        }
        self.current = Some((info, at.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX))));
        Ok(bytes)
    }
}
