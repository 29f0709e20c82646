//! Following a stream with GetMedia, over as many connections as it takes.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::call::Client;
use crate::error::ClientError;
use crate::limits::FRAGMENT_BYTES_MAX;
use crate::media::{MediaBytes, StreamName};
use crate::reader::error::ReaderError;
use crate::reader::fragment::{Fragment, FragmentNumber, FragmentStart};
use crate::reader::parser::{FragmentAssembler, FragmentEvent, FragmentParser};
use crate::reader::visit::FragmentVisitor;

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With what arrives from now on.
    Now,
    /// With the oldest fragment that is kept.
    Earliest,
    /// After this fragment; its number is a continuation token too.
    After(FragmentNumber),
    /// With the fragment that holds this time of arrival.
    ServerTime(Timestamp),
    /// With the fragment that holds this time of the producer.
    ProducerTime(Timestamp),
}

impl StartAt {
    /// The StartSelector of GetMedia.
    #[must_use]
    pub fn selector(&self) -> Value {
        match self {
            StartAt::Now => json!({ "StartSelectorType": "NOW" }),
            StartAt::Earliest => json!({ "StartSelectorType": "EARLIEST" }),
            StartAt::After(number) => {
                json!({ "StartSelectorType": "CONTINUATION_TOKEN", "ContinuationToken": number.as_str() })
            }
            StartAt::ServerTime(time) => {
                json!({ "StartSelectorType": "SERVER_TIMESTAMP", "StartTimestamp": time.seconds() })
            }
            StartAt::ProducerTime(time) => {
                json!({ "StartSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": time.seconds() })
            }
        }
    }
}

/// How a [`LiveReader`] behaves.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// What is read.
    pub stream: StreamName,
    /// Where it begins.
    pub start: StartAt,
    /// Waits between attempts to connect.
    pub backoff: Backoff,
    /// Gives up after failing for so long. `None`, the default, tries for ever.
    pub give_up_after: Option<Duration>,
    /// Largest fragment that is held. Default 50 MB and a header of 8 MiB.
    pub fragment_bytes_max: usize,
}

impl ReaderConfig {
    /// The defaults, for a stream and a start.
    pub fn new(stream: StreamName, start: StartAt) -> Self {
        ReaderConfig {
            stream,
            start,
            backoff: Backoff::default(),
            give_up_after: None,
            fragment_bytes_max: FRAGMENT_BYTES_MAX + (8 << 20),
        }
    }
}

/// Reads a stream from a start on, for ever: what is stored, then what arrives. A broken connection is opened again at the
/// continuation token of the last whole fragment, so that none is lost or told twice.
pub struct LiveReader {
    client: Client,
    config: ReaderConfig,
    media: Option<MediaBytes>,
    parser: FragmentParser,
    assembler: FragmentAssembler,
    /// The last fragment that was told whole.
    last: Option<FragmentNumber>,
    partial: Option<Partial>,
    /// A fragment that was told before goes by.
    skipping: bool,
    /// Frames and tags of the fragment under way that were told before.
    again: (usize, usize),
    failures: u32,
    failing_since: Option<Instant>,
    /// The server ended the last answer properly.
    ended_well: bool,
    over: bool,
    connections: u64,
}

/// The fragment under way.
struct Partial {
    start: Arc<FragmentStart>,
    frames: usize,
    tags: usize,
}

/// What comes out of a connection.
enum Step {
    Event(FragmentEvent),
    /// The connection broke; the fragment under way comes again.
    Broken,
    /// The stream is gone.
    Over,
}

impl LiveReader {
    /// A reader. Connects when it is asked for something.
    #[must_use]
    pub fn new(client: Client, config: ReaderConfig) -> Self {
        LiveReader {
            client,
            config,
            media: None,
            parser: FragmentParser::default(),
            assembler: FragmentAssembler::default(),
            last: None,
            partial: None,
            skipping: false,
            again: (0, 0),
            failures: 0,
            failing_since: None,
            ended_well: false,
            over: false,
            connections: 0,
        }
    }

    /// Number of the last fragment that was given whole: what to go on from in another process
    /// ([`StartAt::After`]).
    #[must_use]
    pub fn continuation_token(&self) -> Option<&FragmentNumber> {
        self.last.as_ref()
    }

    /// Connections that were opened so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// The next whole fragment; `None` when the stream was deleted. What the server refused in the end is left out.
    ///
    /// # Errors
    /// The server refuses the reader, or it gave up. Dropping the future loses nothing.
    pub async fn next_fragment(&mut self) -> Result<Option<Fragment>, ReaderError> {
        loop {
            match self.step().await? {
                Step::Over => return Ok(None),
                Step::Broken => self.assembler = FragmentAssembler::default(),
                Step::Event(event) => {
                    let told = self.note(&event);
                    let whole = self.assembler.take(event);
                    if self.assembler.held() > self.config.fragment_bytes_max {
                        return Err(ReaderError::FragmentTooLarge(self.config.fragment_bytes_max));
                    }
                    match whole {
                        Some(Ok(fragment)) if told && fragment.is_complete() => return Ok(Some(fragment)),
                        Some(Err(error)) => return Err(error.into()),
                        _ => {}
                    }
                }
            }
        }
    }

    /// The next event, as soon as it is known: a frame comes when its last byte has arrived, long before its fragment ends.
    /// After a broken connection the fragment under way goes on with its next frame. [`FragmentEvent::Data`] is not given.
    /// A fragment that ends without a continuation token was refused in the end, and is stored nowhere. `None` when the
    /// stream was deleted.
    ///
    /// # Errors
    /// As [`next_fragment`](LiveReader::next_fragment).
    pub async fn next_event(&mut self) -> Result<Option<FragmentEvent>, ReaderError> {
        loop {
            match self.step().await? {
                Step::Over => return Ok(None),
                Step::Broken => {
                    self.again = self
                        .partial
                        .as_ref()
                        .map_or((0, 0), |partial| (partial.frames, partial.tags));
                }
                Step::Event(FragmentEvent::Data { .. }) => {}
                Step::Event(event) => {
                    let under_way = self.partial.as_ref().map(|partial| Arc::clone(&partial.start));
                    let told = self.note(&event);
                    if told && self.is_new(&event, under_way.as_deref()) {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// Leads a visitor through everything that comes, until it breaks off or the stream is deleted.
    ///
    /// # Errors
    /// As [`next_fragment`](LiveReader::next_fragment).
    pub async fn visit(&mut self, visitor: &mut impl FragmentVisitor) -> Result<(), ReaderError> {
        let mut start = None;
        while let Some(event) = self.next_event().await? {
            if event.visit(&mut start, visitor).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The whole fragments as a stream; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Fragment, ReaderError>> + Send {
        futures_util::stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            match reader.next_fragment().await {
                Ok(Some(fragment)) => Some((Ok(fragment), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Keeps the place. False for what belongs to a fragment that was told before.
    fn note(&mut self, event: &FragmentEvent) -> bool {
        match event {
            FragmentEvent::Start(start) => {
                let again = |number: &FragmentNumber| self.last.as_ref().is_some_and(|last| number <= last);
                let before = |number: &FragmentNumber| {
                    let partial = self.partial.as_ref().and_then(|partial| partial.start.number.as_ref());
                    partial.is_some_and(|partial| number < partial)
                };
                self.skipping = start
                    .number
                    .as_ref()
                    .is_some_and(|number| again(number) || before(number));
                if !self.skipping {
                    self.failures = 0;
                    self.failing_since = None;
                    self.partial = Some(Partial {
                        start: Arc::clone(start),
                        frames: 0,
                        tags: 0,
                    });
                }
            }
            FragmentEvent::End(end) if !self.skipping => {
                self.partial = None;
                if end.continuation_token.is_some() {
                    self.last.clone_from(&end.continuation_token);
                }
            }
            _ => {}
        }
        !self.skipping
    }

    /// Whether an event of the fragment under way was not told on an earlier connection.
    fn is_new(&mut self, event: &FragmentEvent, under_way: Option<&FragmentStart>) -> bool {
        let (frames, tags) = self.again;
        match event {
            FragmentEvent::Start(start) => {
                let same = under_way.is_some_and(|under_way| under_way.number == start.number);
                if !same {
                    self.again = (0, 0);
                }
                !(same && (frames, tags) != (0, 0))
            }
            FragmentEvent::Frame(_) => {
                let Some(partial) = &mut self.partial else { return true };
                partial.frames += 1;
                partial.frames > frames
            }
            FragmentEvent::Tag(_) => {
                let Some(partial) = &mut self.partial else { return true };
                partial.tags += 1;
                partial.tags > tags
            }
            FragmentEvent::End(_) => {
                self.again = (0, 0);
                true
            }
            _ => true,
        }
    }

    async fn step(&mut self) -> Result<Step, ReaderError> {
        loop {
            if self.over {
                return Ok(Step::Over);
            }
            match self.parser.next() {
                Ok(Some(event)) => return Ok(Step::Event(event)),
                Ok(None) => {}
                Err(error) => {
                    self.media = None;
                    self.parser = FragmentParser::default();
                    return Err(error.into());
                }
            }
            let Some(media) = &mut self.media else {
                self.connect().await?;
                continue;
            };
            let why = match media.next().await {
                Ok(Some(bytes)) => {
                    self.ended_well = false;
                    self.parser.push(bytes);
                    continue;
                }
                Ok(None) => None,
                Err(error) => Some(error),
            };
            self.ended_well = why.is_none();
            self.media = None;
            self.parser = FragmentParser::default();
            tracing::debug!(
                error = why.as_ref().map(tracing::field::display),
                "GetMedia ended; reading goes on"
            );
            return Ok(Step::Broken);
        }
    }

    async fn connect(&mut self) -> Result<(), ReaderError> {
        if self.failures > 0 || self.ended_well {
            sleep(self.config.backoff.draw(self.failures.max(1))).await;
        }
        // Counted before it is tried, so that a dropped future does not try at once again.
        self.failures += 1;
        match self.open().await {
            Ok(media) => {
                self.media = Some(media);
                self.connections += 1;
                Ok(())
            }
            Err(error) if self.ended_well && error.code() == Some("ResourceNotFoundException") => {
                self.over = true;
                Ok(())
            }
            Err(error) if error.is_expired_credentials() && self.failures <= 1 => {
                self.client.credentials.forget().await;
                Ok(())
            }
            Err(error) if error.is_transient() => self.tried(error),
            Err(error) => Err(error.into()),
        }
    }

    fn tried(&mut self, error: ClientError) -> Result<(), ReaderError> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        match self.config.give_up_after {
            Some(limit) if since.elapsed() >= limit => Err(ReaderError::GaveUp(limit, Arc::new(error))),
            _ => Ok(()),
        }
    }

    async fn open(&self) -> Result<MediaBytes, ClientError> {
        let client = self.client.data_endpoint(&self.config.stream, "GET_MEDIA").await?;
        client
            .get_media(&self.config.stream, &self.resume_at().selector())
            .await
    }

    /// Where the next connection begins.
    fn resume_at(&self) -> StartAt {
        if let Some(last) = &self.last {
            return StartAt::After(last.clone());
        }
        // Cut off within its first fragment, which is found again by its time.
        let first = self.partial.as_ref().and_then(|partial| partial.start.server_timestamp);
        first.map_or_else(|| self.config.start.clone(), StartAt::ServerTime)
    }
}
