//! Sends pieces of stored fragments, one after the other, reading a little ahead: what is sent was read and verified extent
//! by extent, and is never copied. Memory: [`limits::READ_AHEAD`] extents, whatever the size of the fragments.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use base::{ByteStream, StreamError};
use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};
use storage::{FragmentInfo, FragmentNumber, MediaStore, StreamId};

use super::load::load;
use crate::limits;
use crate::metrics::VideoMetrics;
use crate::state::Connection;

/// A part of a fragment that is sent.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Of which fragment.
    pub info: FragmentInfo,
    /// Which bytes of its payload, or of what it becomes.
    pub range: Range<usize>,
    /// Whether the fragment must be loaded and rewritten, since players cannot take it as it is stored.
    pub rewritten: bool,
}

type Read = Pin<Box<dyn Future<Output = Result<Bytes, StreamError>> + Send>>;

/// See the module.
pub struct Outflow {
    store: Arc<dyn MediaStore>,
    /// Counted as long as this lives.
    connection: Connection,
    metrics: VideoMetrics,
    head: Option<Bytes>,
    pieces: VecDeque<Piece>,
    /// What is left of the piece under way.
    ranges: VecDeque<(FragmentNumber, Range<u32>)>,
    under_way: FuturesOrdered<Read>,
}

impl Outflow {
    /// `head`, then the pieces.
    pub fn new(
        store: Arc<dyn MediaStore>,
        connection: Connection,
        metrics: VideoMetrics,
        head: Bytes,
        pieces: Vec<Piece>,
    ) -> Self {
        Outflow {
            store,
            connection,
            metrics,
            head: Some(head),
            pieces: pieces.into(),
            ranges: VecDeque::new(),
            under_way: FuturesOrdered::new(),
        }
    }

    /// The bytes. A fragment that is gone when its turn comes ends them with an error, so that nobody takes the answer for
    /// whole.
    pub fn into_stream(self) -> ByteStream {
        Box::pin(futures_util::stream::unfold(self, |mut outflow| async move {
            let next = outflow.next().await?;
            if let Ok(bytes) = &next {
                outflow.metrics.sent(bytes.len());
            }
            Some((next, outflow))
        }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        if let Some(head) = self.head.take() {
            return Some(Ok(head));
        }
        if let Err(error) = self.read_ahead().await {
            return Some(Err(error));
        }
        self.under_way.next().await
    }

    async fn read_ahead(&mut self) -> Result<(), StreamError> {
        while self.under_way.len() < limits::READ_AHEAD {
            if let Some((number, range)) = self.ranges.pop_front() {
                let (store, stream) = (self.store.clone(), self.connection.stream().id);
                self.start(async move { exactly(&*store, stream, number, range).await });
                continue;
            }
            // What must be rewritten takes memory for a whole fragment, so nothing is read beside it.
            if self.pieces.front().is_some_and(|piece| piece.rewritten) && !self.under_way.is_empty() {
                break;
            }
            let Some(piece) = self.pieces.pop_front() else { break };
            if piece.rewritten {
                let (store, stream) = (self.store.clone(), self.connection.stream().id);
                self.start(async move { rewritten(&*store, stream, piece).await });
                break;
            }
            self.ranges = along_extents(&*self.store, self.connection.stream().id, &piece).await?;
        }
        Ok(())
    }

    fn start(&mut self, read: impl Future<Output = Result<Bytes, StreamError>> + Send + 'static) {
        self.under_way.push_back(Box::pin(read));
    }
}

/// The piece, cut where the stored fragment is, so that nothing is read twice.
async fn along_extents(
    store: &dyn MediaStore,
    stream: StreamId,
    piece: &Piece,
) -> Result<VecDeque<(FragmentNumber, Range<u32>)>, StreamError> {
    let number = piece.info.number;
    let lens = store.extents(stream, number).await.map_err(|error| failed(&error))?;
    let wanted = narrow(piece.range.start)..narrow(piece.range.end);
    let mut start = 0_u32;
    let mut ranges = VecDeque::with_capacity(lens.len());
    for len in lens {
        let end = start.saturating_add(len);
        let cut = start.max(wanted.start)..end.min(wanted.end);
        if cut.start < cut.end {
            ranges.push_back((number, cut));
        }
        start = end;
    }
    if start < wanted.end {
        return Err(shorter());
    }
    Ok(ranges)
}

async fn exactly(
    store: &dyn MediaStore,
    stream: StreamId,
    number: FragmentNumber,
    range: Range<u32>,
) -> Result<Bytes, StreamError> {
    let bytes = store
        .read(stream, number, range.clone())
        .await
        .map_err(|error| failed(&error))?;
    match bytes.len() == range.len() {
        true => Ok(bytes),
        false => Err(shorter()),
    }
}

async fn rewritten(store: &dyn MediaStore, stream: StreamId, piece: Piece) -> Result<Bytes, StreamError> {
    let loaded = load(store, stream, &piece.info).await;
    let loaded = loaded.map_err(|error| StreamError::Other(error.to_string()))?;
    match piece.range.end <= loaded.payload.len() {
        true => Ok(loaded.payload.slice(piece.range)),
        false => Err(shorter()),
    }
}

fn failed(error: &storage::Error) -> StreamError {
    StreamError::Other(format!("reading from storage failed: {error}"))
}

fn shorter() -> StreamError {
    StreamError::Other("a fragment is shorter than its index says".to_owned())
}

fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
