//! A running service for tests: the real log in a temporary directory, a catalog in memory, and a clock that moves only
//! when told to.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod playback;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auth::KeyRing;
use base::metrics::Metrics;
use base::{
    AccountId, ApiError, Authorizer, ByteStream, Caller, Handle, ManualClock, Operation, Reply, Request,
    RequestContext, StreamError, SystemDisk, Timestamp,
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use matroska::{Event, Limits, Reader};
use storage::{Catalog, LogOptions, LogStore, MediaStore, MemoryCatalog, MemoryMediaStore, MemoryOptions};
use tokio::sync::mpsc;
use video_streams::ports::Ports;
use video_streams::{Dependencies, Settings, VideoStreams};
use wire::kinesisvideo as kv;
use wire::kinesisvideo_archived_media as archived;
use wire::kinesisvideo_media as media;

/// When the tests' clock starts.
pub const START: Timestamp = Timestamp::from_millis(1_795_347_223_436);

/// The other account.
pub const STRANGER: &str = "111122223333";

#[derive(Debug)]
struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

/// The context of a request from an account.
pub fn context_of(account: &str) -> RequestContext {
    RequestContext {
        caller: Caller {
            account: account.parse().unwrap(),
            region: "us-west-2".parse().unwrap(),
            access_key_id: "AKID".into(),
            principal_arn: "arn:aws:iam::000000000000:root".into(),
            authorizer: Arc::new(Everything),
        },
        request_id: "test".into(),
        base_url: "http://127.0.0.1:4577".into(),
        received_at: START,
    }
}

/// The context of a request.
pub fn context() -> RequestContext {
    context_of(&AccountId::DEFAULT.to_string())
}

pub struct Service {
    pub video: VideoStreams,
    pub clock: Arc<ManualClock>,
    pub catalog: Arc<MemoryCatalog>,
    pub metrics: Metrics,
    pub durable: Arc<dyn MediaStore>,
    pub ports: Ports,
    kept: Kept,
}

/// What must outlive the service: the log, and the directory it is in.
pub struct Kept {
    key_ring: Arc<KeyRing>,
    _log: LogStore,
    _directory: tempfile::TempDir,
}

impl Service {
    pub async fn start() -> Self {
        Self::with(Settings::default(), |store| store).await
    }

    /// A service with these ports.
    pub async fn with_ports(ports: Ports) -> Self {
        let service = Self::start().await;
        Service { ports, ..service }.restart().await
    }

    /// A service with these settings, whose durable store is what `wrap` makes of the log's.
    pub async fn with(settings: Settings, wrap: impl FnOnce(Arc<dyn MediaStore>) -> Arc<dyn MediaStore>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(START);
        let disk = SystemDisk::open(&directory.path().join("log")).unwrap();
        let options = LogOptions {
            media_segment_bytes: 16 << 20,
            ..LogOptions::default()
        };
        let log = LogStore::open(Arc::new(disk), clock.clone(), options, &Metrics::new()).unwrap();
        let catalog = Arc::new(MemoryCatalog::new());
        let media = wrap(log.media());
        let kept = Kept {
            key_ring: Arc::new(KeyRing::ephemeral().unwrap()),
            _log: log,
            _directory: directory,
        };
        Self::on(settings, media, clock, catalog, Ports::default(), kept).await
    }

    /// A service that starts on what another has left.
    pub async fn restart(self) -> Self {
        let Service {
            clock,
            catalog,
            durable,
            ports,
            kept,
            ..
        } = self;
        Self::on(Settings::default(), durable, clock, catalog, ports, kept).await
    }

    async fn on(
        settings: Settings,
        durable: Arc<dyn MediaStore>,
        clock: Arc<ManualClock>,
        catalog: Arc<MemoryCatalog>,
        ports: Ports,
        kept: Kept,
    ) -> Self {
        let memory = MemoryMediaStore::new(durable.clone(), clock.clone(), MemoryOptions::default());
        let metrics = Metrics::new();
        let video = VideoStreams::open(Dependencies {
            catalog: catalog.clone() as Arc<dyn Catalog>,
            durable: durable.clone(),
            memory: Arc::new(memory),
            key_ring: kept.key_ring.clone(),
            clock: clock.clone(),
            metrics: &metrics,
            settings,
            ports: ports.clone(),
        });
        Service {
            video: video.await.unwrap(),
            clock,
            catalog,
            metrics,
            durable,
            ports,
            kept,
        }
    }

    pub async fn call<O: Operation>(&self, input: O::Input) -> Result<O::Output, ApiError>
    where
        VideoStreams: Handle<O>,
    {
        self.call_as::<O>(context(), input).await
    }

    pub async fn call_as<O: Operation>(&self, context: RequestContext, input: O::Input) -> Result<O::Output, ApiError>
    where
        VideoStreams: Handle<O>,
    {
        let request = Request {
            context,
            input,
            body: None,
        };
        self.video
            .handle(request)
            .await
            .map(|reply: Reply<O::Output>| reply.output)
    }

    /// Makes a stream and gives its ARN.
    pub async fn create(&self, name: &str, retention_hours: i32) -> String {
        let input = kv::CreateStreamInput {
            stream_name: name.to_owned(),
            data_retention_in_hours: Some(retention_hours),
            ..Default::default()
        };
        self.call::<kv::op::CreateStream>(input)
            .await
            .unwrap()
            .stream_arn
            .unwrap()
    }

    pub async fn describe(&self, name: &str) -> Result<kv::StreamInfo, ApiError> {
        let input = kv::DescribeStreamInput {
            stream_name: Some(name.to_owned()),
            stream_arn: None,
        };
        Ok(self.call::<kv::op::DescribeStream>(input).await?.stream_info.unwrap())
    }

    pub async fn delete(&self, arn: &str) {
        let input = kv::DeleteStreamInput {
            stream_arn: arn.to_owned(),
            current_version: None,
        };
        self.call::<kv::op::DeleteStream>(input).await.unwrap();
    }

    /// Opens a PutMedia whose body the test sends piece by piece.
    pub async fn open_put(&self, input: media::PutMediaInput) -> Result<Put, ApiError> {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, StreamError>>(1);
        let body: ByteStream = Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        }));
        let request = Request {
            context: context(),
            input,
            body: Some(body),
        };
        let reply = Handle::<media::op::PutMedia>::handle(&self.video, request).await?;
        Ok(Put {
            body: Some(sender),
            acks: reply.stream.unwrap(),
        })
    }

    /// Sends a whole body and gives the acks in short: `BUFFERING 1000`, `ERROR 4002 1000`.
    pub async fn put(&self, name: &str, body: &Bytes, sizes: &[usize]) -> Vec<String> {
        let put = self.open_put(absolute(name)).await.unwrap();
        put.send_all(body, sizes).await
    }

    /// Opens a GetMedia.
    pub async fn open_get(&self, name: &str, selector: media::StartSelector) -> Result<ByteStream, ApiError> {
        let request = Request {
            context: context(),
            input: media::GetMediaInput {
                start_selector: selector,
                stream_arn: None,
                stream_name: Some(name.to_owned()),
            },
            body: None,
        };
        let reply = Handle::<media::op::GetMedia>::handle(&self.video, request).await?;
        assert_eq!(reply.output.content_type.as_deref(), Some("video/webm"));
        Ok(reply.stream.unwrap())
    }

    /// Every fragment that ListFragments names, by server time.
    pub async fn list(&self, name: &str) -> Vec<archived::Fragment> {
        let mut found = Vec::new();
        let mut next_token = None;
        loop {
            let input = archived::ListFragmentsInput {
                fragment_selector: Some(archived::FragmentSelector {
                    fragment_selector_type: archived::FragmentSelectorType::ServerTimestamp,
                    timestamp_range: archived::TimestampRange {
                        start_timestamp: Timestamp::from_millis(0),
                        end_timestamp: Timestamp::from_millis(9_000_000_000_000),
                    },
                }),
                max_results: Some(3),
                next_token,
                stream_arn: None,
                stream_name: Some(name.to_owned()),
            };
            let page = self.call::<archived::op::ListFragments>(input).await.unwrap();
            let fragments = page.fragments.unwrap();
            assert!(fragments.len() <= 3);
            found.extend(fragments);
            next_token = page.next_token;
            if next_token.is_none() {
                return found;
            }
        }
    }
}

/// A PutMedia under way.
pub struct Put {
    pub body: Option<mpsc::Sender<Result<Bytes, StreamError>>>,
    pub acks: ByteStream,
}

impl Put {
    pub fn send(&self, bytes: &Bytes) -> impl Future<Output = ()> + use<> {
        let (sender, bytes) = (self.body.clone().unwrap(), bytes.clone());
        // A connection that was refused takes no more.
        async move { drop(sender.send(Ok(bytes)).await) }
    }

    /// The next ack in short; `None` when the connection has ended.
    pub async fn ack(&mut self) -> Option<String> {
        self.acks.next().await.map(|line| short(&line.unwrap()))
    }

    /// Ends the body and gives the acks that are left.
    pub async fn finish(mut self) -> Vec<String> {
        self.body = None;
        let mut acks = Vec::new();
        while let Some(ack) = self.ack().await {
            acks.push(ack);
        }
        acks
    }

    async fn send_all(self, body: &Bytes, sizes: &[usize]) -> Vec<String> {
        let mut rest = body.clone();
        let mut sizes = sizes.iter().copied().cycle();
        let Put { body, mut acks } = self;
        let sender = body.unwrap();
        let sending = async move {
            while !rest.is_empty() {
                let size = sizes.next().unwrap().clamp(1, rest.len());
                if sender.send(Ok(rest.split_to(size))).await.is_err() {
                    break;
                }
            }
        };
        let receiving = async {
            let mut received = Vec::new();
            while let Some(line) = acks.next().await {
                received.push(short(&line.unwrap()));
            }
            received
        };
        tokio::join!(sending, receiving).1
    }
}

/// An ack line as `TYPE [ERROR_ID] [TIMECODE]`.
pub fn short(line: &[u8]) -> String {
    assert!(line.ends_with(b"\n"), "an ack is a line");
    let json: serde_json::Value = serde_json::from_slice(line).unwrap();
    let mut text = json["EventType"].as_str().unwrap().to_owned();
    for key in ["ErrorId", "FragmentTimecode"] {
        if let Some(value) = json[key].as_u64() {
            text += &format!(" {value}");
        }
    }
    text
}

/// PutMedia with absolute timecodes.
pub fn absolute(name: &str) -> media::PutMediaInput {
    media::PutMediaInput {
        fragment_acknowledgment_required: None,
        fragment_timecode_type: media::FragmentTimecodeType::Absolute,
        producer_start_timestamp: None,
        stream_arn: None,
        stream_name: Some(name.to_owned()),
    }
}

/// A start selector without members.
pub fn selector(kind: media::StartSelectorType) -> media::StartSelector {
    media::StartSelector {
        after_fragment_number: None,
        continuation_token: None,
        start_selector_type: kind,
        start_timestamp: None,
    }
}

/// A body cut into its sections: the header, then one piece for each cluster with all that follows it.
pub fn sections(body: &Bytes) -> Vec<Bytes> {
    let mut reader = Reader::new(Limits::default());
    reader.push(body.clone());
    reader.finish();
    let mut sections: Vec<BytesMut> = Vec::new();
    while let Ok(Some(event)) = reader.next() {
        match event {
            Event::DocumentStart { .. } | Event::ClusterStart { .. } => sections.push(BytesMut::new()),
            Event::Data(bytes) => sections.last_mut().unwrap().extend_from_slice(&bytes),
            _ => {}
        }
    }
    sections.into_iter().map(BytesMut::freeze).collect()
}

/// Reads from an answer until as many bytes have come.
pub async fn read_exactly(answer: &mut ByteStream, length: usize) -> Bytes {
    let mut read = BytesMut::new();
    while read.len() < length {
        let piece = answer.next().await.expect("the answer ended early").unwrap();
        read.extend_from_slice(&piece);
    }
    assert_eq!(read.len(), length, "no more than asked for");
    read.freeze()
}

/// Reads an answer to its end.
pub async fn read_all(mut answer: ByteStream) -> Bytes {
    let mut read = BytesMut::new();
    while let Some(piece) = answer.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    read.freeze()
}

/// Whether an answer has nothing to say for now.
pub async fn is_silent(answer: &mut ByteStream) -> bool {
    tokio::time::timeout(Duration::from_millis(50), answer.next())
        .await
        .is_err()
}

/// The files of a folder of the shared test data; empty, with a note, where there are none.
pub fn data(folder: &str) -> Vec<(String, Bytes)> {
    let root = std::env::var_os("SIGHTGLASS_TEST_DATA").map(PathBuf::from).or_else(|| {
        let start = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        start
            .ancestors()
            .map(|above| above.join("shared/data"))
            .find(|path| path.is_dir())
    });
    let Some(root) = root else {
        println!("skipped: no test data");
        return Vec::new();
    };
    let mut files: Vec<_> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "mkv"));
    files.sort();
    let read = |path: PathBuf| {
        #[allow(clippy::disallowed_methods, reason = "test data")]
        let bytes = std::fs::read(&path).unwrap();
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            Bytes::from(bytes),
        )
    };
    files.into_iter().map(read).collect()
}

#[path = "../../src/testing.rs"]
pub mod testing;

/// A fragment as a client of GetMedia reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its number.
    pub number: String,
    /// The cluster's timecode.
    pub timecode: Option<u64>,
    /// Its frames' bytes as text.
    pub frames: Vec<String>,
    /// The continuation token, if the document has one.
    pub token: Option<String>,
}

/// Reads the answer of a GetMedia as a client does.
pub struct Viewer {
    answer: ByteStream,
    reader: Reader,
    at: u64,
    pieces: Vec<(u64, Bytes)>,
    pub seen: Vec<Seen>,
}

impl Viewer {
    pub fn new(answer: ByteStream) -> Self {
        Viewer {
            answer,
            reader: Reader::new(Limits::default()),
            at: 0,
            pieces: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Takes the next piece of the answer; false at its end.
    pub async fn step(&mut self) -> bool {
        let Some(piece) = self.answer.next().await else {
            return false;
        };
        self.reader.push(piece.unwrap());
        while let Some(event) = self.reader.next().unwrap() {
            match event {
                Event::ClusterStart { .. } => (self.at, self.pieces) = (0, Vec::new()),
                Event::Data(bytes) => {
                    self.pieces.push((self.at, bytes.clone()));
                    self.at += bytes.len() as u64;
                }
                Event::ClusterTimecode(timecode) => self.seen.last_mut().unwrap().timecode = Some(timecode),
                Event::BlockEnd(block) => {
                    let frame = self.cut(block.payload_offset, block.payload_len);
                    self.seen.last_mut().unwrap().frames.push(frame);
                }
                Event::Tag(tag) => self.tag(&tag),
                _ => {}
            }
        }
        true
    }

    fn tag(&mut self, tag: &matroska::Tag) {
        let value = tag.as_str().unwrap_or_default().to_owned();
        match tag.name.as_str() {
            "AWS_KINESISVIDEO_FRAGMENT_NUMBER" => self.seen.push(Seen {
                number: value,
                timecode: None,
                frames: Vec::new(),
                token: None,
            }),
            "AWS_KINESISVIDEO_CONTINUATION_TOKEN" => self.seen.last_mut().unwrap().token = Some(value),
            _ => {}
        }
    }

    fn cut(&self, offset: u64, length: u64) -> String {
        let mut bytes = Vec::new();
        for (at, piece) in &self.pieces {
            let from = offset.max(*at) - at;
            let to = (offset + length).saturating_sub(*at).min(piece.len() as u64);
            if from < to {
                bytes.extend_from_slice(&piece[from as usize..to as usize]);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until `done` says so.
    pub async fn until(&mut self, done: impl Fn(&[Seen]) -> bool) {
        while !done(&self.seen) {
            assert!(self.step().await, "the answer ended: {:?}", self.seen);
        }
    }

    /// Reads until so many documents are complete.
    pub async fn until_complete(&mut self, count: usize) {
        self.until(|seen| seen.iter().filter(|fragment| fragment.token.is_some()).count() >= count)
            .await;
    }

    /// The timecodes of the fragments that were complete.
    pub fn complete(&self) -> Vec<u64> {
        let complete = self.seen.iter().filter(|fragment| fragment.token.is_some());
        complete.map(|fragment| fragment.timecode.unwrap()).collect()
    }
}

impl Service {
    /// A client of GetMedia.
    pub async fn view(&self, name: &str, selector: media::StartSelector) -> Viewer {
        Viewer::new(self.open_get(name, selector).await.unwrap())
    }
}

impl Put {
    /// Waits for this ack; others before it are passed over.
    pub async fn wait_for(&mut self, wanted: &str) {
        while let Some(ack) = self.ack().await {
            if ack == wanted {
                return;
            }
        }
        panic!("the connection ended without {wanted}");
    }
}

/// A fragment of two frames that ends itself.
pub fn fragment(body: testing::Body, timecode: u64) -> testing::Body {
    body.cluster(timecode).frame(1, 0).frame(1, 40).end_of_fragment()
}
