//! A server with a small service of its own, and a client that writes the bytes itself.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth::{Authenticator, Credentials, KeyRing, KeyStore, MemoryKeyTable, RequestHead, Scope, Secret};
use base::metrics::Metrics;
use base::{AccountId, ApiError, Crowd, Handle, ManualClock, Reply, Request, Timestamp};
use bytes::Bytes;
use edge::{EdgeConfig, EdgeParts, HealthCheck, Running, Server};
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use wire::{kinesis, kinesisvideo, kinesisvideo_archived_media, kinesisvideo_media};

/// 2026-11-22T11:33:43Z
pub const NOW: Timestamp = Timestamp::from_millis(1_795_347_223_000);
pub const REGION: &str = "us-west-2";

pub fn credentials() -> Credentials {
    Credentials {
        access_key_id: "AKIAEXAMPLE".to_owned(),
        secret: Secret::new("not-a-secret"),
        session_token: None,
    }
}

/// What the test sees of the service's inside.
pub struct Service {
    /// DescribeStream of `slow` waits for a permit.
    pub go: Semaphore,
    /// Says when a stream of GetMedia was dropped, a slow call begun, or an upload broken off.
    pub events: mpsc::UnboundedSender<String>,
}

impl Handle<kinesisvideo::op::DescribeStream> for Service {
    async fn handle(
        &self,
        request: Request<kinesisvideo::DescribeStreamInput>,
    ) -> Result<Reply<kinesisvideo::DescribeStreamOutput>, ApiError> {
        let name = request.input.stream_name.unwrap_or_default();
        match name.as_str() {
            "missing" => Err(not_found(&name)),
            "broken" => Err(ApiError::server(
                "InternalFailure",
                "Something went wrong.",
                "disk on fire",
            )),
            "panics" => panic!("a handler that panics"),
            "slow" => {
                self.events.send("slow begun".to_owned()).unwrap();
                self.go.acquire().await.unwrap().forget();
                Ok(described(name, &request.context).into())
            }
            _ => Ok(described(name, &request.context).into()),
        }
    }
}

fn not_found(name: &str) -> ApiError {
    ApiError::client(
        "ResourceNotFoundException",
        format!("The stream {name} does not exist."),
    )
}

fn described(name: String, context: &base::RequestContext) -> kinesisvideo::DescribeStreamOutput {
    kinesisvideo::DescribeStreamOutput {
        stream_info: Some(kinesisvideo::StreamInfo {
            stream_name: Some(name),
            device_name: Some(context.base_url.to_string()),
            ..Default::default()
        }),
    }
}

impl Handle<kinesisvideo_media::op::PutMedia> for Service {
    async fn handle(
        &self,
        request: Request<kinesisvideo_media::PutMediaInput>,
    ) -> Result<Reply<kinesisvideo_media::PutMediaOutput>, ApiError> {
        let name = request.input.stream_name.unwrap_or_default();
        if name == "missing" {
            return Err(not_found(&name));
        }
        let body = request.body.expect("PutMedia has a body");
        let events = self.events.clone();
        // Tells what arrived, line by line, while it arrives.
        let acks = stream::unfold(Some((body, 0_usize)), move |state| {
            let events = events.clone();
            async move {
                let (mut body, total) = state?;
                let (line, next) = match futures_util::StreamExt::next(&mut body).await {
                    Some(Ok(piece)) => {
                        let total = total + piece.len();
                        (format!("got {total}\n"), Some((body, total)))
                    }
                    Some(Err(error)) => {
                        events.send(format!("upload broke: {error}")).unwrap();
                        (format!("broke {total}\n"), None)
                    }
                    None => (format!("end {total}\n"), None),
                };
                Some((Ok(Bytes::from(line)), next))
            }
        });
        Ok(Reply {
            output: kinesisvideo_media::PutMediaOutput::default(),
            stream: Some(Box::pin(acks)),
            stream_len: None,
            crowd: None,
        })
    }
}

/// Reports its own end.
struct DropReport(mpsc::UnboundedSender<String>);

impl Drop for DropReport {
    fn drop(&mut self) {
        let _ = self.0.send("GetMedia dropped".to_owned());
    }
}

impl Handle<kinesisvideo_media::op::GetMedia> for Service {
    async fn handle(
        &self,
        request: Request<kinesisvideo_media::GetMediaInput>,
    ) -> Result<Reply<kinesisvideo_media::GetMediaOutput>, ApiError> {
        let report = DropReport(self.events.clone());
        let floods = request.input.stream_name.as_deref() == Some("flood");
        let panics = request.input.stream_name.as_deref() == Some("panics");
        let ends = request.input.stream_name.as_deref() == Some("ends");
        let media = stream::unfold(0_u32, move |count| {
            let _ = &report;
            async move {
                match count {
                    0 => {}
                    1 if panics => panic!("a stream that panics"),
                    1 if ends => return None,
                    _ if floods => {}
                    _ => std::future::pending().await,
                }
                let piece = if floods { vec![7; 65_536] } else { b"media".to_vec() };
                Some((Ok(Bytes::from(piece)), count + 1))
            }
        });
        Ok(Reply {
            output: kinesisvideo_media::GetMediaOutput {
                content_type: Some("video/webm".to_owned()),
            },
            stream: Some(Box::pin(media)),
            stream_len: None,
            crowd: Some(Crowd(u64::MAX)),
        })
    }
}

/// What only reads, for long.
impl Handle<kinesisvideo_archived_media::op::GetImages> for Service {
    async fn handle(
        &self,
        _: Request<kinesisvideo_archived_media::GetImagesInput>,
    ) -> Result<Reply<kinesisvideo_archived_media::GetImagesOutput>, ApiError> {
        let _report = GivenUpReport(self.events.clone());
        self.events.send("GetImages begun".to_owned()).unwrap();
        self.go.acquire().await.unwrap().forget();
        let answer = kinesisvideo_archived_media::GetImagesOutput {
            images: None,
            next_token: None,
        };
        Ok(answer.into())
    }
}

struct GivenUpReport(mpsc::UnboundedSender<String>);

impl Drop for GivenUpReport {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send("GetImages over".to_owned());
    }
}

/// An operation of players; the token `good` lets in.
impl Handle<kinesisvideo_archived_media::op::GetDASHManifest> for Service {
    async fn handle(
        &self,
        request: Request<kinesisvideo_archived_media::GetDASHManifestInput>,
    ) -> Result<Reply<kinesisvideo_archived_media::PlayerOutput>, ApiError> {
        if request.input.session_token != "good" {
            return Err(not_found("behind the token"));
        }
        Ok(Reply {
            output: kinesisvideo_archived_media::PlayerOutput {
                cache_control: None,
                content_type: Some("application/dash+xml".to_owned()),
            },
            stream: Some(Box::pin(stream::iter([Ok(Bytes::from_static(b"<MPD/>"))]))),
            stream_len: Some(6),
            crowd: None,
        })
    }
}

impl Handle<kinesis::op::PutRecord> for Service {
    async fn handle(
        &self,
        request: Request<kinesis::PutRecordInput>,
    ) -> Result<Reply<kinesis::PutRecordOutput>, ApiError> {
        let output = kinesis::PutRecordOutput {
            shard_id: "shardId-000000000000".to_owned(),
            sequence_number: request.input.data.len().to_string(),
            encryption_type: None,
        };
        Ok(output.into())
    }
}

pub struct TestServer {
    pub running: Running,
    pub service: Arc<Service>,
    pub events: mpsc::UnboundedReceiver<String>,
    pub metrics: Metrics,
    pub clock: Arc<ManualClock>,
}

pub fn config() -> EdgeConfig {
    EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

pub async fn serve(config: EdgeConfig) -> TestServer {
    try_serve(config).await.unwrap()
}

pub async fn try_serve(config: EdgeConfig) -> Result<TestServer, edge::StartError> {
    let clock = ManualClock::at(NOW);
    let (events, received) = mpsc::unbounded_channel();
    let service = Arc::new(Service {
        go: Semaphore::new(0),
        events,
    });
    let mut registry = wire::Registry::new();
    registry.register::<kinesisvideo::op::DescribeStream, _>(&service);
    registry.register::<kinesisvideo_media::op::PutMedia, _>(&service);
    registry.register::<kinesisvideo_media::op::GetMedia, _>(&service);
    registry.register::<kinesis::op::PutRecord, _>(&service);
    registry.register::<kinesisvideo_archived_media::op::GetImages, _>(&service);
    registry.register::<kinesisvideo_archived_media::op::GetDASHManifest, _>(&service);
    let metrics = Metrics::new();
    let parts = EdgeParts {
        registry: Arc::new(registry),
        authenticator: Arc::new(authenticator(&clock).await),
        metrics: metrics.clone(),
        clock: clock.clone(),
        health: Arc::new(|| {
            vec![HealthCheck {
                name: "storage".to_owned(),
                ok: true,
                detail: String::new(),
            }]
        }),
        mounts: Vec::new(),
    };
    Ok(TestServer {
        running: Server::start(config, parts).await?,
        service,
        events: received,
        metrics,
        clock,
    })
}

async fn authenticator(clock: &Arc<ManualClock>) -> Authenticator {
    let ring = Arc::new(KeyRing::ephemeral().unwrap());
    let table = Arc::new(MemoryKeyTable::default());
    let keys = KeyStore::open(ring, table, clock.clone(), credentials(), AccountId::DEFAULT).await;
    Authenticator::new(Arc::new(keys.unwrap()), clock.clone())
}

/// The head of a request and the body that its signature covers.
#[derive(Clone)]
pub struct Draft {
    pub method: &'static str,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub service: &'static str,
    pub at: Timestamp,
    pub body: Vec<u8>,
}

impl Draft {
    pub fn new(service: &'static str, path: &str, body: &[u8]) -> Self {
        Draft {
            method: "POST",
            path: path.to_owned(),
            query: String::new(),
            headers: vec![("Host".to_owned(), "127.0.0.1".to_owned())],
            service,
            at: NOW,
            body: body.to_vec(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The headers that the signature adds.
    pub fn signature(&self) -> Vec<(String, String)> {
        let pairs: Vec<(&str, &[u8])> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let head = RequestHead {
            method: self.method,
            path: &self.path,
            query: &self.query,
            headers: &pairs,
            local_port: None,
            also_hosts: &[],
        };
        let scope = Scope {
            region: REGION,
            service: self.service,
        };
        auth::sign(
            &head,
            &credentials(),
            scope,
            self.at,
            &auth::sign::payload_hash(&self.body),
        )
    }

    /// Head with the given further lines, unsigned.
    pub fn head_with(&self, more: &[(String, String)]) -> String {
        let target = if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        };
        let mut text = format!("{} {target} HTTP/1.1\r\n", self.method);
        for (name, value) in self.headers.iter().chain(more) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n"
    }

    /// The whole signed request with its length.
    pub fn signed(&self) -> Vec<u8> {
        let mut more = self.signature();
        more.push(("Content-Length".to_owned(), self.body.len().to_string()));
        let mut bytes = self.head_with(&more).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The signed head of a request whose body follows in chunks.
    pub fn signed_chunked(&self, more: &[(&str, &str)]) -> Vec<u8> {
        let mut lines = self.signature();
        lines.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
        lines.extend(more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        self.head_with(&lines).into_bytes()
    }
}

pub fn describe(name: &str) -> Draft {
    let body = format!("{{\"StreamName\":\"{name}\"}}");
    Draft::new("kinesisvideo", "/describeStream", body.as_bytes())
}

pub fn put_media(name: &str) -> Draft {
    Draft::new("kinesisvideo", "/putMedia", b"")
        .header("x-amzn-stream-name", name)
        .header("x-amzn-fragment-timecode-type", "ABSOLUTE")
        .header("x-amzn-producer-start-timestamp", "1795347223.436")
        .header("x-amzn-fragment-acknowledgment-required", "1")
}

pub fn get_media(name: &str) -> Draft {
    let body = format!("{{\"StreamName\":\"{name}\",\"StartSelector\":{{\"StartSelectorType\":\"NOW\"}}}}");
    Draft::new("kinesisvideo", "/getMedia", body.as_bytes())
}

pub fn put_record(data_base64_chars: usize) -> Draft {
    let data = "A".repeat(data_base64_chars);
    let body = format!("{{\"StreamName\":\"s\",\"PartitionKey\":\"p\",\"Data\":\"{data}\"}}");
    Draft::new("kinesis", "/", body.as_bytes())
        .header("Content-Type", "application/x-amz-json-1.1")
        .header("X-Amz-Target", "Kinesis_20131202.PutRecord")
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (have, value) = line.split_once(':')?;
            have.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A client that sees every byte.
pub struct Raw<S> {
    pub stream: S,
    pub unread: Vec<u8>,
}

pub async fn connect(server: &TestServer) -> Raw<TcpStream> {
    let stream = TcpStream::connect(server.running.local_addr()).await.unwrap();
    Raw {
        stream,
        unread: Vec::new(),
    }
}

/// What a test gives the server to do something; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("the server did nothing for 10 s")
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn chunk(&mut self, bytes: &[u8]) {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.send(framed).await;
    }

    /// More bytes; false at the end of the connection.
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        let read = soon(self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..read]);
        read > 0
    }

    async fn until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|window| window == mark) {
                return self.unread.drain(..at + mark.len()).collect();
            }
            assert!(
                self.more().await,
                "closed after {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    /// The next head, an interim one too.
    pub async fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n").await).unwrap()
    }

    /// The next chunk of a chunked body; empty at its end.
    pub async fn read_chunk(&mut self) -> Vec<u8> {
        let size = self.until(b"\r\n").await;
        let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
        while self.unread.len() < size + 2 {
            assert!(self.more().await, "closed in mid-chunk");
        }
        let chunk = self.unread.drain(..size).collect();
        assert_eq!(self.unread.drain(..2).collect::<Vec<_>>(), b"\r\n");
        chunk
    }

    /// A whole answer.
    pub async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let mut answer = Answer { head, body: Vec::new() };
        if answer.status() == 204 {
            return answer;
        }
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.unread.len() < length {
                assert!(self.more().await, "closed in the body of {}", answer.head);
            }
            answer.body = self.unread.drain(..length).collect();
        } else {
            loop {
                let chunk = self.read_chunk().await;
                if chunk.is_empty() {
                    break;
                }
                answer.body.extend(chunk);
            }
        }
        answer
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.unread)
    }
}

/// One request on one connection.
pub async fn ask(server: &TestServer, bytes: impl AsRef<[u8]>) -> Answer {
    let mut client = connect(server).await;
    client.send(bytes).await;
    client.answer().await
}
