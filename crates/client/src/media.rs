//! PutMedia, sent and acknowledged at the same time, and the body of GetMedia.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use base::Timestamp;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;

use crate::ack::{Ack, AckParser};
use crate::call::{Client, Service, succeeded};
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::limits::{IDLE_CONNECTIONS_MAX, QUEUED_PIECES_MAX};
use crate::transport::{Aborted, Sender, connect};

/// What cluster timecodes count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimecodeType {
    /// The epoch.
    Absolute,
    /// The producer's start.
    Relative,
}

/// A video stream by name or by ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamName {
    /// By name.
    Name(String),
    /// By ARN.
    Arn(String),
}

impl StreamName {
    pub(crate) fn put_into(&self, input: &mut Value) {
        let (key, value) = match self {
            StreamName::Name(name) => ("StreamName", name),
            StreamName::Arn(arn) => ("StreamARN", arn),
        };
        if let Some(members) = input.as_object_mut() {
            members.insert(key.to_owned(), json!(value));
        }
    }
}

/// How a PutMedia connection is opened.
#[derive(Clone, Debug)]
pub struct PutMediaOptions {
    /// Where the video goes.
    pub stream: StreamName,
    /// What the timecodes count from.
    pub timecodes: TimecodeType,
    /// The producer's start; [`TimecodeType::Relative`] counts from it.
    pub started: Timestamp,
}

/// The body of a PutMedia request, fed through a queue.
struct QueuedBody {
    pieces: mpsc::Receiver<Bytes>,
    aborted: Arc<AtomicBool>,
}

impl Body for QueuedBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let piece = ready!(self.pieces.poll_recv(cx));
        if self.aborted.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(Aborted)));
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// An open PutMedia connection.
pub struct PutMedia {
    /// Sends media.
    pub media: MediaSender,
    /// Receives acknowledgements.
    pub acks: Acks,
}

/// Sends media. Dropping it ends the body properly: the server takes what it has for whole.
pub struct MediaSender {
    pieces: mpsc::Sender<Bytes>,
    aborted: Arc<AtomicBool>,
}

impl MediaSender {
    /// Queues one piece; waits while the network is slower. False when the server takes no more: the acknowledgements
    /// say why.
    pub async fn send(&self, piece: Bytes) -> bool {
        piece.is_empty() || self.pieces.send(piece).await.is_ok()
    }

    /// Queues one piece if there is room; gives it back otherwise.
    pub fn try_send(&self, piece: Bytes) -> Result<(), Bytes> {
        if piece.is_empty() {
            return Ok(());
        }
        self.pieces.try_send(piece).map_err(|error| match error {
            TrySendError::Full(piece) | TrySendError::Closed(piece) => piece,
        })
    }

    /// Waits until there is room. False when the server takes no more.
    pub async fn ready(&self) -> bool {
        self.pieces.reserve().await.is_ok()
    }

    /// Breaks the connection off, so that the server discards the fragment that is under way.
    pub fn abort(self) {
        self.aborted.store(true, Ordering::Release);
    }
}

/// Receives acknowledgements in order.
pub struct Acks {
    body: Incoming,
    parser: AckParser,
    ready: VecDeque<Ack>,
    ended: bool,
    /// Dropping it would cut the connection.
    _sender: Sender,
}

impl Acks {
    /// The next acknowledgement; `None` when the server has ended the answer.
    pub async fn next(&mut self) -> Result<Option<Ack>, ClientError> {
        loop {
            if let Some(ack) = self.ready.pop_front() {
                return Ok(Some(ack));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.ready
                            .extend(self.parser.push(&data).map_err(ClientError::Protocol)?);
                    }
                }
                None => {
                    self.ended = true;
                    self.ready.extend(self.parser.finish().map_err(ClientError::Protocol)?);
                }
            }
        }
    }
}

/// Media as GetMedia sends it, in whatever pieces arrive.
pub struct MediaBytes {
    body: Incoming,
    /// Dropping it would cut the connection.
    sender: Option<Sender>,
    /// Where a connection goes whose answer was read to its end.
    idle: Arc<Mutex<Vec<Sender>>>,
}

impl MediaBytes {
    /// Bytes that are still to come, where the server said how many there are.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => {
                    let sender = self.sender.take();
                    let mut idle = self.idle.lock();
                    if idle.len() < IDLE_CONNECTIONS_MAX {
                        idle.extend(sender);
                    }
                    return Ok(None);
                }
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl Client {
    /// A client at the endpoint that the server names for `api` (`PUT_MEDIA`, `GET_MEDIA`, …) of a stream.
    pub async fn data_endpoint(&self, stream: &StreamName, api: &str) -> Result<Client, ClientError> {
        if self.stays {
            return Ok(self.clone());
        }
        let mut input = json!({ "APIName": api });
        stream.put_into(&mut input);
        let answer = self.call(Service::KinesisVideo, "GetDataEndpoint", &input).await?;
        let endpoint = answer.get("DataEndpoint").and_then(Value::as_str).unwrap_or_default();
        let endpoint: Endpoint = endpoint
            .parse()
            .map_err(|error| ClientError::Protocol(format!("DataEndpoint: {error}")))?;
        Ok(self.at(endpoint))
    }

    /// Opens a PutMedia connection and waits for its 200. The signature covers an empty body, as every producer's does.
    pub async fn put_media(&self, options: &PutMediaOptions) -> Result<PutMedia, ClientError> {
        let (name, value) = match &options.stream {
            StreamName::Name(name) => ("x-amzn-stream-name", name),
            StreamName::Arn(arn) => ("x-amzn-stream-arn", arn),
        };
        let timecodes = match options.timecodes {
            TimecodeType::Absolute => "ABSOLUTE",
            TimecodeType::Relative => "RELATIVE",
        };
        let headers = [
            (name, value.as_str()),
            ("x-amzn-fragment-timecode-type", timecodes),
            ("x-amzn-producer-start-timestamp", &options.started.to_string()),
            ("x-amzn-fragment-acknowledgment-required", "1"),
            ("user-agent", concat!("sightglass/", env!("CARGO_PKG_VERSION"))),
            ("connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
        ];
        let headers = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let nothing = auth::sign::payload_hash(b"");
        let head = self
            .signed(Service::KinesisVideo, "/putMedia", headers, &nothing)
            .await?;
        let (pieces, queue) = mpsc::channel(QUEUED_PIECES_MAX);
        let aborted = Arc::new(AtomicBool::new(false));
        let body = QueuedBody {
            pieces: queue,
            aborted: Arc::clone(&aborted),
        };
        let mut sender = connect(&self.endpoint, &self.tls).await?;
        let (parts, ()) = head.into_parts();
        let request = http::Request::from_parts(parts, body.boxed_unsync());
        let response = timeout(self.timeout, sender.send_request(request))
            .await
            .map_err(|_| ClientError::Timeout(self.timeout))??;
        let response = succeeded(response).await?;
        Ok(PutMedia {
            media: MediaSender { pieces, aborted },
            acks: Acks {
                body: response.into_body(),
                parser: AckParser::default(),
                ready: VecDeque::new(),
                ended: false,
                _sender: sender,
            },
        })
    }

    /// Reads a stream from a start selector, e.g. `{"StartSelectorType":"NOW"}`.
    pub async fn get_media(&self, stream: &StreamName, start_selector: &Value) -> Result<MediaBytes, ClientError> {
        let mut input = json!({ "StartSelector": start_selector });
        stream.put_into(&mut input);
        self.stream_of("GetMedia", &input).await
    }

    /// Reads the body of an operation that answers with a stream.
    pub async fn stream_of(&self, operation: &str, input: &Value) -> Result<MediaBytes, ClientError> {
        let (response, sender) = timeout(self.timeout, self.send(Service::KinesisVideo, operation, input))
            .await
            .map_err(|_| ClientError::Timeout(self.timeout))??;
        Ok(MediaBytes {
            body: response.into_body(),
            sender: Some(sender),
            idle: Arc::clone(&self.idle),
        })
    }
}
