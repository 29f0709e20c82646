//! Bodies in both directions. A request's body is either buffered under a limit or handed on as it arrives; an answer's
//! body is bytes or a stream. Nothing here knows what the bytes mean.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use base::{ByteStream, StreamError};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::aside::Aside;
use crate::convoy::Seated;
use crate::exchange::Exchange;
use crate::lane::Lane;
use crate::limits::{DISCARD_BYTES_MAX, DISCARD_TIMEOUT, Limits};

const SHUTTING_DOWN: &str = "the server is shutting down";

/// Why a body could not be buffered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body took too long")]
    TooSlow,
    #[error("all requests together hold too many bytes")]
    Busy,
    #[error("the body broke off: {0}")]
    Broken(StreamError),
}

/// What a transport error of a body means to a service.
fn stream_error(error: &hyper::Error) -> StreamError {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return StreamError::Disconnected;
    }
    let mut source: Option<&dyn std::error::Error> = Some(error);
    let mut text = String::new();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() != std::io::ErrorKind::InvalidData
            && io.kind() != std::io::ErrorKind::InvalidInput
        {
            return StreamError::Disconnected;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        source = error.source();
    }
    StreamError::Other(text)
}

impl Buffered {
    /// The body as it was before the client packed it, of at most `bytes_max` bytes, which count like received ones.
    pub(crate) fn unpacked(mut self, bytes_max: usize, budget: &Arc<Semaphore>) -> Result<Self, BodyError> {
        use std::io::Read;
        let packed = std::mem::take(&mut self.bytes);
        let mut plain = Vec::new();
        let limit = bytes_max as u64 + 1;
        let mut reader = flate2::read::GzDecoder::new(packed.as_ref()).take(limit);
        reader
            .read_to_end(&mut plain)
            .map_err(|error| BodyError::Broken(StreamError::Other(format!("gzip: {error}"))))?;
        if plain.len() > bytes_max {
            return Err(BodyError::TooLarge(bytes_max));
        }
        take_share(&mut self._share, budget, plain.len())?;
        self.bytes = plain.into();
        Ok(self)
    }
}

/// A buffered body and its share of the budget for all buffered bodies.
pub(crate) struct Buffered {
    pub(crate) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Reads a whole body of at most `bytes_max`, never holding more than that. On an error the rest of the body is left in
/// `incoming`.
pub(crate) async fn buffer(
    incoming: &mut Incoming,
    bytes_max: usize,
    limits: &Limits,
    budget: &Arc<Semaphore>,
    counted: &AtomicU64,
) -> Result<Buffered, BodyError> {
    match tokio::time::timeout(limits.body_timeout, async {
        let mut whole = BytesMut::new();
        let mut only: Option<Bytes> = None;
        let mut share: Option<OwnedSemaphorePermit> = None;
        loop {
            let frame = match tokio::time::timeout(limits.body_idle_timeout, incoming.frame()).await {
                Err(_) => return Err(BodyError::TooSlow),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(BodyError::Broken(stream_error(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            counted.fetch_add(data.len() as u64, Ordering::Relaxed);
            let held = whole.len() + only.as_ref().map_or(0, Bytes::len);
            if held + data.len() > bytes_max {
                return Err(BodyError::TooLarge(bytes_max));
            }
            take_share(&mut share, budget, data.len())?;
            match only.take() {
                None if whole.is_empty() => only = Some(data),
                None => whole.extend_from_slice(&data),
                Some(first) => {
                    whole.reserve(first.len() + data.len());
                    whole.extend_from_slice(&first);
                    whole.extend_from_slice(&data);
                }
            }
        }
        Ok(Buffered {
            bytes: only.unwrap_or_else(|| whole.freeze()),
            _share: share,
        })
    })
    .await
    {
        Ok(outcome) => outcome,
        Err(_) => Err(BodyError::TooSlow),
    }
}

fn take_share(
    share: &mut Option<OwnedSemaphorePermit>,
    budget: &Arc<Semaphore>,
    bytes: usize,
) -> Result<(), BodyError> {
    let permits = u32::try_from(bytes).map_err(|_| BodyError::Busy)?;
    let more = Arc::clone(budget)
        .try_acquire_many_owned(permits)
        .map_err(|_| BodyError::Busy)?;
    match share {
        Some(share) => share.merge(more),
        None => *share = Some(more),
    }
    Ok(())
}

/// Reads the rest of an unwanted body in the background and throws it away, within limits, so that a client that is
/// still sending gets to see the answer. Not called for a client that waits for `100 Continue`: it sends nothing.
pub(crate) fn discard(mut incoming: Incoming) {
    if incoming.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(DISCARD_TIMEOUT, async move {
        let mut seen = 0;
        while let Some(Ok(frame)) = incoming.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > DISCARD_BYTES_MAX {
                break;
            }
        }
    }));
}

struct UploadState {
    /// `None` once it was thrown away.
    incoming: Option<Incoming>,
    /// What [`Flow::prompt`] got before the service asked for anything.
    first: Option<Option<Result<Frame<Bytes>, hyper::Error>>>,
    asked: bool,
}

/// A request's body as it arrives. Ends with an error when the server drains.
pub(crate) struct Upload {
    state: Arc<Mutex<UploadState>>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    counted: Arc<AtomicU64>,
    ended: bool,
}

/// The edge's own hold on a body that it has handed to a service.
pub(crate) struct Flow(Arc<Mutex<UploadState>>);

impl Upload {
    pub(crate) fn new(incoming: Incoming, draining: CancellationToken, counted: Arc<AtomicU64>) -> (Self, Flow) {
        let state = Arc::new(Mutex::new(UploadState {
            incoming: Some(incoming),
            first: None,
            asked: false,
        }));
        let upload = Upload {
            state: Arc::clone(&state),
            draining: Box::pin(draining.cancelled_owned()),
            counted,
            ended: false,
        };
        (upload, Flow(state))
    }
}

impl Flow {
    /// Asks for the body unless the service already has, then lets the connection run: the engine sends the interim
    /// answer only when it is polled between the first demand for the body and the final answer's head.
    pub(crate) async fn prompt(self) {
        {
            let mut state = self.0.lock();
            let mut unwaked = Context::from_waker(Waker::noop());
            if !state.asked
                && let Some(incoming) = &mut state.incoming
                && let Poll::Ready(frame) = Pin::new(incoming).poll_frame(&mut unwaked)
            {
                state.first = Some(frame);
            }
        }
        tokio::task::yield_now().await;
    }

    /// Whether the service has asked for the body: a client that waits for `100 Continue` sends it from then on.
    pub(crate) fn was_asked(&self) -> bool {
        self.0.lock().asked
    }

    /// Takes the body back from a service that did not want it, and throws it away.
    pub(crate) fn discard(self) {
        if let Some(incoming) = self.0.lock().incoming.take() {
            discard(incoming);
        }
    }
}

impl Stream for Upload {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let state = Arc::clone(&self.state);
        let mut state = state.lock();
        state.asked = true;
        loop {
            let polled = match state.first.take() {
                Some(first) => Poll::Ready(first),
                None => match &mut state.incoming {
                    Some(incoming) => Pin::new(incoming).poll_frame(cx),
                    None => Poll::Ready(None),
                },
            };
            let item = match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => Some(Ok(data)),
                    Err(_trailers) => continue,
                },
                Poll::Ready(Some(Err(error))) => Some(Err(stream_error(&error))),
                Poll::Ready(None) => None,
                Poll::Pending => match self.draining.as_mut().poll(cx) {
                    Poll::Ready(()) => Some(Err(StreamError::Other(SHUTTING_DOWN.to_owned()))),
                    Poll::Pending => return Poll::Pending,
                },
            };
            match &item {
                Some(Ok(data)) => {
                    self.counted.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                _ => self.ended = true,
            }
            return Poll::Ready(item);
        }
    }
}

/// Completes when a streaming answer has nobody left to read it, or must end. The answer is broken off then, so that its
/// reader cannot take it for whole.
pub(crate) type StopSignal = Aside<StreamError>;

enum Kind {
    Bytes(Option<Bytes>, Exchange),
    Stream(Outflow),
    /// It goes out by the lane.
    Lent(Arc<Lane>),
}

/// A stream on its way out. Closes its [`Exchange`] when it is dropped.
pub(crate) struct Outflow {
    /// `None` once it has ended.
    stream: Option<ByteStream>,
    stop: Option<StopSignal>,
    /// Why it breaks off, as soon as what came before has gone out.
    broken: Option<StreamError>,
    exchange: Exchange,
}

/// The body of an answer. Closes its [`Exchange`] when it is sent or dropped.
pub(crate) struct AnswerBody {
    kind: Kind,
    /// Held while this body makes its connection one of a crowd.
    seated: Option<Seated>,
}

impl AnswerBody {
    pub(crate) fn bytes(bytes: Bytes, exchange: Exchange) -> Self {
        AnswerBody {
            kind: Kind::Bytes(Some(bytes).filter(|bytes| !bytes.is_empty()), exchange),
            seated: None,
        }
    }

    pub(crate) fn stream(stream: ByteStream, stop: Option<StopSignal>, exchange: Exchange) -> Self {
        AnswerBody {
            kind: Kind::Stream(Outflow {
                stream: Some(stream),
                stop,
                broken: None,
                exchange,
            }),
            seated: None,
        }
    }

    /// Makes the connection one of a crowd as long as this body flows.
    pub(crate) fn seat(&mut self, seated: Seated) {
        self.seated = Some(seated);
    }

    /// Lets a stream go out by the lane.
    pub(crate) fn lend(&mut self, lane: &Arc<Lane>) {
        if let Kind::Stream(_) = self.kind
            && let Kind::Stream(outflow) = std::mem::replace(&mut self.kind, Kind::Lent(Arc::clone(lane)))
        {
            lane.offer(outflow);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = self.get_mut();
        if let Kind::Lent(lane) = &this.kind {
            let outflow = ready!(lane.reclaim(cx));
            this.kind = Kind::Stream(outflow);
        }
        let polled = match &mut this.kind {
            Kind::Bytes(bytes, exchange) => {
                let bytes = bytes.take();
                exchange.sent(bytes.as_ref().map_or(0, Bytes::len));
                Poll::Ready(bytes.map(Ok))
            }
            Kind::Stream(outflow) => outflow.poll(cx),
            Kind::Lent(_) => Poll::Pending,
        };
        polled.map(|item| item.map(|outcome| outcome.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Bytes(None, _))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream(_) | Kind::Lent(_) => SizeHint::default(),
        }
    }
}

impl Outflow {
    /// Its next bytes, never empty; the bytes count as sent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(stream) = self.stream.as_mut() else {
            return Poll::Ready(None);
        };
        let error = loop {
            match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll_next(cx))) {
                // An empty chunk would be taken for the end of a chunked body.
                Ok(Poll::Ready(Some(Ok(data)))) if data.is_empty() => {}
                Ok(Poll::Ready(Some(Ok(data)))) => {
                    self.exchange.sent(data.len());
                    return Poll::Ready(Some(Ok(data)));
                }
                Ok(Poll::Ready(Some(Err(error)))) => break error,
                Ok(Poll::Ready(None)) => {
                    self.stream = None;
                    return Poll::Ready(None);
                }
                Ok(Poll::Pending) => match self.stop.as_mut().map(|stop| Pin::new(stop).poll(cx)) {
                    Some(Poll::Ready(reason)) => break reason,
                    Some(Poll::Pending) | None => return Poll::Pending,
                },
                Err(_panic) => {
                    self.exchange.panicked();
                    tracing::error!(request_id = %self.exchange.request_id(), "the stream of an answer panicked");
                    break StreamError::Other("internal failure".to_owned());
                }
            }
        };
        tracing::debug!(request_id = %self.exchange.request_id(), %error, "an answer broke off");
        (self.stream, self.stop) = (None, None);
        // The engine drops what it holds when a body fails; let it write that first.
        self.broken = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Outflow {
    /// The same again where it has ended: what [`Outflow::poll`] gave last is given once more.
    pub(crate) fn ended(&mut self, outcome: Option<StreamError>) {
        (self.stream, self.stop, self.broken) = (None, None, outcome);
    }
}

/// A stop signal out of its parts.
pub(crate) fn stop_signal(
    draining: CancellationToken,
    grace: Duration,
    gone: Option<impl Future<Output = ()> + Send + 'static>,
) -> StopSignal {
    Aside::new(async move {
        let drained = async {
            draining.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let gone = async {
            match gone {
                Some(gone) => gone.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = drained => StreamError::Other(SHUTTING_DOWN.to_owned()),
            () = gone => StreamError::Disconnected,
        }
    })
}
