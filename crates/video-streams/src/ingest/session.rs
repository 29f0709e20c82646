//! One PutMedia connection: reads the producer's bytes, has the rules judge them, gives each fragment to storage and to
//! the live tail, and answers with acks.
//!
//! Fragments are committed behind the reading, so that a slow fsync does not stop the next fragment; at most
//! [`limits::COMMITS_IN_FLIGHT`] at once, and their PERSISTED acks leave in the order of the fragments. What blocks:
//! reading waits when storage's buffer budget is used up, when too many commits are under way, or when the client does not
//! take its acks; nothing else. When the connection ends in the middle of a fragment, that fragment is discarded;
//! fragments that were whole are committed all the same.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::{ByteStream, Clock, Timestamp};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use matroska::{Limits, Reader};
use storage::{FragmentSink, FragmentSummary, FrameEntry};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::deliver::Triggers;
use crate::ingest::acks::{Ack, AckError, AckedFragment};
use crate::ingest::leniency::{IngestSettings, Leniency, advice};
use crate::ingest::rules::{Begin, Complete, Report, Rules, Step, Timecodes};
use crate::limits;
use crate::live::{NewFragment, Publisher};
use crate::metrics::{Measured, VideoMetrics};
use crate::state::{Connection, StreamState};

/// What a connection needs beside its body.
pub struct SessionContext {
    /// The stream, with the connection counted in.
    pub connection: Connection,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where events are counted.
    pub metrics: VideoMetrics,
    /// What timecodes count from.
    pub timecodes: Timecodes,
    /// What the stream's tags say.
    pub settings: IngestSettings,
    /// False when the producer asked for no acks.
    pub acks: bool,
    /// Asks the retention task to look now.
    pub sweep: Arc<Notify>,
    /// For log lines.
    pub request_id: Arc<str>,
}

/// Starts the connection's task; the acks come out of the stream. Dropping it ends the connection.
pub fn start(context: SessionContext, body: ByteStream) -> ByteStream {
    let (lines, received) = mpsc::channel(limits::ACK_QUEUE_LINES);
    let acker = Acker {
        lines,
        wanted: context.acks,
        metrics: context.metrics.clone(),
    };
    tokio::spawn(Session::new(context, acker).run(body));
    Box::pin(futures_util::stream::unfold(received, |mut received| async move {
        received.recv().await.map(|line: Bytes| (Ok(line), received))
    }))
}

/// Sends acks to the client.
#[derive(Clone)]
struct Acker {
    lines: mpsc::Sender<Bytes>,
    wanted: bool,
    metrics: VideoMetrics,
}

impl Acker {
    async fn send(&self, ack: Ack) {
        self.metrics.ack(&ack);
        if self.wanted {
            // A client that is gone is noticed where the body is read.
            let _ = self.lines.send(ack.encode()).await;
        }
    }
}

/// Why a connection ends.
enum End {
    /// The producer ended its body.
    Clean,
    /// The producer is gone, or was silent for too long; nobody reads acks, or none is due.
    Silent(&'static str),
    /// A rule was broken, or the server failed.
    Refused(AckError, Option<AckedFragment>),
    /// A commit failed; the committer knows which.
    CommitFailed,
}

impl From<AckError> for End {
    fn from(error: AckError) -> Self {
        End::Refused(error, None)
    }
}

/// The fragment that is being received.
struct Open {
    acked: AckedFragment,
    sink: Box<dyn FragmentSink>,
    publisher: Publisher,
    server_timestamp: Timestamp,
    producer_timestamp: Timestamp,
    header_len: u32,
    /// When its first bytes arrived, and its last so far.
    began: Duration,
    last_byte: Duration,
    durable: bool,
}

/// A fragment that is whole and waits to be made durable.
struct Commit {
    open: Open,
    summary: FragmentSummary,
    triggers: Triggers,
}

struct Session {
    context: SessionContext,
    acker: Acker,
    reader: Reader,
    rules: Rules,
    started: Duration,
    open: Option<Open>,
    /// The chunk that is being worked on.
    chunk: Bytes,
    /// Media of it that is not handed on yet: the reader cuts at each element, which nobody after it needs.
    gathered: Bytes,
    /// Runs while something waits to be shown to live readers.
    held: Option<Pin<Box<Sleep>>>,
    /// When the chunk arrived that is being worked on.
    arrived: Duration,
    arrived_at: Timestamp,
    /// When the chunk before it arrived.
    arrived_before: Duration,
    last: Option<AckedFragment>,
    /// Changes when a newer connection takes this one's place.
    newest: watch::Receiver<u64>,
    measured: Option<Measured>,
    /// What was said already.
    warned: BTreeSet<Leniency>,
    commits: mpsc::Sender<Commit>,
    committer: JoinHandle<Option<(AckError, AckedFragment)>>,
}

impl Session {
    fn new(context: SessionContext, acker: Acker) -> Self {
        let (commits, whole) = mpsc::channel(1);
        let committer = Committer {
            context: CommitContext {
                clock: context.clock.clone(),
                metrics: context.metrics.clone(),
                stream: context.connection.stream().clone(),
                sweep: context.sweep.clone(),
            },
            acker: acker.clone(),
        };
        let now = context.clock.monotonic();
        Session {
            reader: Reader::new(Limits {
                header_section_bytes_max: limits::HEADER_BYTES as u64,
                header_element_bytes_max: limits::HEADER_BYTES as u64,
                ..Limits::default()
            }),
            rules: Rules::new(context.timecodes, context.settings.rules),
            started: now,
            arrived: now,
            arrived_before: now,
            arrived_at: context.clock.now(),
            chunk: Bytes::new(),
            gathered: Bytes::new(),
            held: None,
            open: None,
            last: None,
            newest: context.connection.stream().watch_newest(),
            measured: context.metrics.measure(&context.connection.stream().arn.name),
            warned: BTreeSet::new(),
            commits,
            committer: tokio::spawn(committer.run(whole)),
            context,
            acker,
        }
    }

    async fn run(mut self, mut body: ByteStream) {
        let end = match self.read(&mut body).await {
            Ok(()) => End::Clean,
            Err(end) => end,
        };
        // Discards the fragment that is open: its sink aborts, its readers are told.
        let unfinished = self.open.take();
        let cut = unfinished.map(|open| open.acked);
        drop(self.commits);
        let failed = self.committer.await.unwrap_or_else(|panicked| {
            tracing::error!(error = %panicked, "committing fragments ended unexpectedly");
            self.last.map(|last| (AckError::Internal, last))
        });
        let stream = self.context.connection.stream().arn.to_string();
        let request = &*self.context.request_id;
        match (failed, end) {
            (Some((error, fragment)), _) => {
                tracing::warn!(stream, request, error = error.code(), fragment = %fragment.number, "a fragment was not stored");
                self.acker.send(Ack::Error(error, Some(fragment))).await;
            }
            (None, End::Refused(error, fragment)) => {
                let report = self.rules.report();
                say_refused(&self.context, error, &report);
                if let Some(measured) = &self.measured {
                    measured.refused(error, &report);
                }
                self.acker.send(Ack::Error(error, fragment.or(cut))).await;
            }
            (None, End::Silent(why)) => tracing::debug!(stream, request, why, "PutMedia ends"),
            (None, End::Clean | End::CommitFailed) => tracing::debug!(stream, request, "PutMedia ends"),
        }
        // The body last: a connection whose body is dropped may be closed before the last ack has left.
        drop(body);
    }

    /// Reads until the end of the body.
    async fn read(&mut self, body: &mut ByteStream) -> Result<(), End> {
        let hub = self.context.connection.stream().hub.clone();
        let deleted = hub.closed();
        tokio::pin!(deleted);
        let mut newest = self.newest.clone();
        let mut silence = Duration::ZERO;
        loop {
            let chunk = tokio::select! {
                biased;
                () = &mut deleted => return Err(AckError::StreamNotActive.into()),
                () = self.acker.lines.closed() => return Err(End::Silent("the client is gone")),
                () = self.commits.closed() => return Err(End::CommitFailed),
                Ok(()) = newest.changed() => return Err(End::Silent("a newer connection took its place")),
                () = waited(&mut self.held) => {
                    self.show_now();
                    continue;
                }
                chunk = tokio::time::timeout(limits::IDLE_ACK_EVERY, body.next()) => chunk,
            };
            let Ok(chunk) = chunk else {
                silence += limits::IDLE_ACK_EVERY;
                if silence >= limits::IDLE_CLOSE {
                    return Err(End::Silent("the producer was silent for too long"));
                }
                self.acker.send(Ack::Idle(self.last)).await;
                continue;
            };
            silence = Duration::ZERO;
            self.arrived_before = std::mem::replace(&mut self.arrived, self.context.clock.monotonic());
            self.arrived_at = self.context.clock.now();
            match chunk {
                Some(Ok(chunk)) => {
                    self.context.metrics.received(chunk.len());
                    self.chunk = chunk.clone();
                    self.reader.push(chunk);
                    self.drain().await?;
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "reading the body failed");
                    return Err(AckError::StreamRead.into());
                }
                None => {
                    self.reader.finish();
                    self.drain().await?;
                    if let Some(step) = self.rules.finish()? {
                        self.step(step).await?;
                    }
                    return Ok(());
                }
            }
            if self.age() > limits::CONNECTION_DURATION + self.grace() {
                return Err(AckError::ConnectionDuration.into());
            }
        }
    }

    /// Works on what was read so far, and hands it on to storage and the live tail.
    async fn drain(&mut self) -> Result<(), End> {
        let worked = self.work().await;
        self.chunk = Bytes::new();
        let handed_on = self.hand_on().await;
        self.show();
        worked.and(handed_on)
    }

    /// Lets live readers see what arrived: at once when they are few. For a crowd every second frame waits for the next one,
    /// since most of its cost is one write for each reader, whatever that holds. A fragment's first frames do not wait.
    fn show(&mut self) {
        let Some(open) = &self.open else { return };
        let wait = limits::CROWD_WAIT;
        let hold = self.held.is_none()
            && self.context.connection.stream().hub.is_crowded()
            && self.arrived.saturating_sub(self.arrived_before) <= wait
            && self.arrived.saturating_sub(open.began) > wait;
        if hold {
            self.held = Some(Box::pin(tokio::time::sleep(wait)));
        } else {
            self.show_now();
        }
    }

    fn show_now(&mut self) {
        self.held = None;
        if let Some(open) = &mut self.open {
            open.publisher.flush();
        }
    }

    async fn work(&mut self) -> Result<(), End> {
        loop {
            let event = match self.reader.next() {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::info!(request = &*self.context.request_id, %error, "not Matroska");
                    return Err(unreadable(&error).into());
                }
            };
            match self.rules.on(event) {
                Ok(Some(step)) => self.step(step).await?,
                Ok(None) => {}
                Err(error) => {
                    let fragment = match self.rules.refused_timecode() {
                        Some(timecode) => {
                            Some(number(self.context.connection.stream(), self.arrived_at, timecode).await?)
                        }
                        None => None,
                    };
                    return Err(End::Refused(error, fragment));
                }
            }
        }
    }

    async fn step(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::Begin(begin) => {
                self.say_leniencies();
                self.begin(begin).await
            }
            Step::Media(bytes) => self.media(bytes).await,
            Step::Complete(complete) => {
                self.say_leniencies();
                self.complete(complete).await
            }
        }
    }

    /// Counts where a rule was relaxed, and tells the log once for each kind.
    fn say_leniencies(&mut self) {
        let stream = self.context.connection.stream().clone();
        let request = &*self.context.request_id;
        for leniency in self.rules.take_leniencies() {
            self.context.metrics.lenient(leniency);
            if self.warned.insert(leniency) {
                let report = self.rules.report();
                tracing::warn!(
                    stream = %stream.arn,
                    request,
                    kind = leniency.name(),
                    fragment_ms = report.span_ms,
                    key_interval_ms = report.key_interval_ms,
                    frames_per_second = report.frames_per_second,
                    timecode = report.timecodes.0,
                    timecode_before = report.timecodes.1,
                    "taken because of the stream's tag {}, though AWS would refuse it",
                    leniency.tag(),
                );
            }
        }
        for found in self.rules.take_in_band() {
            let (track, codec) = (found.track, &*found.codec_id);
            match found.source.filter(|_| self.context.settings.derive_codec_private) {
                Some(source) => {
                    self.context.metrics.lenient(Leniency::CodecPrivate);
                    tracing::warn!(stream = %stream.arn, request, track, codec, "the track declares no codec private data: players are given what {source} say");
                }
                None => tracing::warn!(
                    stream = %stream.arn,
                    request,
                    track,
                    codec,
                    in_band = found.source.unwrap_or("nothing"),
                    derive = self.context.settings.derive_codec_private,
                    "the track declares no codec private data, and none is taken from its frames: it is stored, but players are refused"
                ),
            }
        }
    }

    async fn begin(&mut self, begin: Begin) -> Result<(), End> {
        let acked = number(self.context.connection.stream(), self.arrived_at, begin.timecode).await?;
        if self.age() > limits::CONNECTION_DURATION {
            return Err(End::Refused(AckError::ConnectionDuration, Some(acked)));
        }
        let stream = self.context.connection.stream().clone();
        let (store, durable) = stream.store();
        let sink = store.begin(stream.id, acked.number).await;
        let sink = sink.map_err(|error| storage_failure(&error, Some(acked)))?;
        self.acker.send(Ack::Buffering(acked)).await;
        self.last = Some(acked);
        let server_timestamp = acked.number.server_timestamp();
        let publisher = stream.hub.start(NewFragment {
            number: acked.number,
            server_timestamp,
            producer_timestamp: begin.producer_timestamp,
            timecode: begin.timecode,
            header: begin.header.clone(),
        });
        let mut open = Open {
            acked,
            sink,
            publisher,
            server_timestamp,
            producer_timestamp: begin.producer_timestamp,
            header_len: narrow(begin.header.len()),
            began: self.arrived,
            last_byte: self.arrived,
            durable,
        };
        let header = open.sink.write(begin.header).await;
        header.map_err(|error| storage_failure(&error, Some(acked)))?;
        self.open = Some(open);
        for bytes in begin.first {
            self.media(bytes).await?;
        }
        Ok(())
    }

    async fn media(&mut self, bytes: Bytes) -> Result<(), End> {
        match joined(&self.chunk, &self.gathered, &bytes) {
            Some(joined) => self.gathered = joined,
            None => {
                self.hand_on().await?;
                self.gathered = bytes;
            }
        }
        Ok(())
    }

    /// Gives what was gathered to storage and to the live tail.
    async fn hand_on(&mut self) -> Result<(), End> {
        let bytes = std::mem::take(&mut self.gathered);
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(open) = &mut self.open else {
            return Err(AckError::Internal.into());
        };
        open.last_byte = self.arrived;
        open.publisher.media(&bytes, self.arrived);
        let written = open.sink.write(bytes).await;
        written.map_err(|error| storage_failure(&error, Some(open.acked)))
    }

    async fn complete(&mut self, complete: Complete) -> Result<(), End> {
        self.hand_on().await?;
        let Some(mut open) = self.open.take() else {
            return Err(AckError::Internal.into());
        };
        if let Some(measured) = &self.measured {
            measured.fragment(complete.length_ms, complete.key_interval_ms);
        }
        open.publisher.end();
        self.acker.send(Ack::Received(open.acked)).await;
        let summary = summary(&open, &complete);
        let triggers = complete.triggers;
        let commit = Commit {
            open,
            summary,
            triggers,
        };
        self.commits.send(commit).await.map_err(|_| End::CommitFailed)
    }

    /// How long a connection that is too old may take to end its fragment.
    fn grace(&self) -> Duration {
        let longest = u64::try_from(self.context.settings.rules.fragment_duration_ms).unwrap_or(0);
        limits::CONNECTION_GRACE.max(Duration::from_millis(longest) * 2)
    }

    fn age(&self) -> Duration {
        self.arrived.saturating_sub(self.started)
    }
}

/// Tells the log why the producer is refused, with what was measured and what would allow it.
fn say_refused(context: &SessionContext, error: AckError, report: &Report) {
    let tracks: Vec<String> = report
        .tracks
        .iter()
        .map(|track| format!("{} {}: {}", track.number, track.codec_id, track.frames))
        .collect();
    tracing::warn!(
        stream = %context.connection.stream().arn,
        request = &*context.request_id,
        error = error.code(),
        fragment_ms = report.span_ms,
        limit_ms = report.limit_ms,
        key_interval_ms = report.key_interval_ms,
        since_key_frame_ms = report.since_key_ms,
        frames_per_second = report.frames_per_second,
        frames_by_track = tracks.join(", "),
        allowed_by = Leniency::of(error).map(Leniency::tag),
        "PutMedia is refused{}",
        advice(error, report).map(|advice| format!(": {advice}")).unwrap_or_default(),
    );
}

/// Waits until what is held must be shown; for ever while nothing is.
async fn waited(held: &mut Option<Pin<Box<Sleep>>>) {
    match held {
        Some(held) => held.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Two slices of a chunk as one, where the second follows the first in it.
fn joined(chunk: &Bytes, first: &Bytes, second: &Bytes) -> Option<Bytes> {
    let start = first.as_ptr().addr().checked_sub(chunk.as_ptr().addr())?;
    let end = start.checked_add(first.len())?.checked_add(second.len())?;
    let follows = second.as_ptr().addr() == first.as_ptr().addr() + first.len();
    // While the chunk lives nothing else lies within it, so that what begins and ends in it is part of it.
    (!first.is_empty() && follows && end <= chunk.len()).then(|| chunk.slice(start..end))
}

/// Gives a fragment its number.
async fn number(stream: &StreamState, arrived_at: Timestamp, timecode: u64) -> Result<AckedFragment, End> {
    let (store, _) = stream.store();
    let number = store.allocate_number(stream.id, arrived_at).await;
    let number = number.map_err(|error| storage_failure(&error, None))?;
    Ok(AckedFragment { timecode, number })
}

fn summary(open: &Open, complete: &Complete) -> FragmentSummary {
    let frames = complete.frames.iter().map(|frame| FrameEntry {
        offset: open.header_len.saturating_add(narrow(frame.offset)),
        len: narrow(frame.length),
        time_ms: i32::try_from(i128::from(frame.time) * i128::from(complete.scale_ns) / 1_000_000).unwrap_or(i32::MAX),
        track: (frame.track & 0xFF) as u8,
        key: frame.key,
    });
    FragmentSummary {
        server_timestamp: open.server_timestamp,
        producer_timestamp: open.producer_timestamp,
        length_ms: narrow(complete.length_ms),
        header_len: open.header_len,
        tracks_hash: complete.tracks_hash,
        frames: frames.collect(),
    }
}

fn narrow(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// What a producer is told when storage fails.
fn storage_failure(error: &storage::Error, fragment: Option<AckedFragment>) -> End {
    End::Refused(ack_error(error), fragment)
}

/// The ack for what the Matroska reader could not read. After a server was away, the producer SDK's first connection goes
/// on where the last one broke off, without headers. Told INVALID_MKV_DATA, it throws away what it still holds of that time;
/// told that reading failed, it connects again and sends it from a header on.
fn unreadable(error: &matroska::Error) -> AckError {
    match error.kind {
        matroska::ErrorKind::Headless => AckError::StreamRead,
        _ => AckError::InvalidMkv,
    }
}

fn ack_error(error: &storage::Error) -> AckError {
    tracing::warn!(%error, "storage refuses a fragment");
    match error {
        storage::Error::DiskFull | storage::Error::Io(_) => AckError::Archival,
        storage::Error::NotFound => AckError::StreamNotActive,
        storage::Error::LimitExceeded(_) => AckError::FragmentSize,
        storage::Error::Corrupt(_) | storage::Error::Closed | storage::Error::ShardClosed => AckError::Internal,
    }
}

struct Committer {
    context: CommitContext,
    acker: Acker,
}

#[derive(Clone)]
struct CommitContext {
    clock: Arc<dyn Clock>,
    metrics: VideoMetrics,
    stream: Arc<StreamState>,
    sweep: Arc<Notify>,
}

impl Committer {
    /// Makes fragments durable and says so, in order. Ends after the first that fails, when all that were under way have
    /// ended too; its `whole` is closed then, which ends the reading.
    async fn run(self, mut whole: mpsc::Receiver<Commit>) -> Option<(AckError, AckedFragment)> {
        let mut under_way = FuturesOrdered::new();
        let mut failed = None;
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                Some(stored) = under_way.next(), if !under_way.is_empty() => match stored {
                    Ok(Some(acked)) => self.acker.send(Ack::Persisted(acked)).await,
                    Ok(None) => {}
                    Err(error) => {
                        failed.get_or_insert(error);
                        whole.close();
                    }
                },
                commit = whole.recv(), if open && under_way.len() < limits::COMMITS_IN_FLIGHT => match commit {
                    Some(commit) if failed.is_none() => {
                        under_way.push_back(commit.store(self.context.clone()));
                    }
                    Some(_) => {}
                    None => open = false,
                },
                else => return failed,
            }
        }
    }
}

impl Commit {
    /// Makes the fragment durable. Gives the ack when one is due.
    async fn store(self, context: CommitContext) -> Result<Option<AckedFragment>, (AckError, AckedFragment)> {
        let Open {
            acked,
            sink,
            publisher,
            last_byte,
            durable,
            ..
        } = self.open;
        match sink.commit(self.summary).await {
            Ok(info) => {
                publisher.stored(info.position);
                if durable && context.stream.cursors.any() {
                    context.stream.recent_triggers.note(info.position, self.triggers);
                }
                context.metrics.stored(u64::from(info.size), durable);
                if context.stream.count_unswept(u64::from(info.size)) > limits::UNSWEPT_BYTES {
                    context.sweep.notify_one();
                }
                if durable {
                    context
                        .metrics
                        .persisted_after(context.clock.monotonic().saturating_sub(last_byte));
                }
                Ok(durable.then_some(acked))
            }
            Err(error) => {
                publisher.rejected();
                Err((ack_error(&error), acked))
            }
        }
    }
}
