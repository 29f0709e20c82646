//! Takes the body of GetMedia and GetMediaForFragmentList apart. Sans-I/O: bytes in, events out; it also reads a
//! producer's own file, whose clusters then have neither number nor timestamps.

use std::collections::VecDeque;
use std::sync::Arc;

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use matroska::{Block, Event, Lacing, Limits, Reader, Tag, Tracks, lacing};

use crate::reader::fragment::{Fragment, FragmentEnd, FragmentError, FragmentNumber, FragmentStart, Frame};

const PREFIX: &str = "AWS_KINESISVIDEO_";

/// One step through the media.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FragmentEvent {
    /// Bytes as they came. Joined together, they are the input. Those of a fragment's document come before the event that
    /// was read from them; `starts_document` marks the first of a document.
    Data {
        /// The bytes.
        bytes: Bytes,
        /// Whether a document begins with them.
        starts_document: bool,
        /// Whether they come before the document's cluster.
        header: bool,
    },
    /// A fragment begins.
    Start(Arc<FragmentStart>),
    /// A frame of it is whole.
    Frame(Frame),
    /// The producer set a tag. One that stands before the first cluster comes before the first `Start`.
    Tag(Tag),
    /// The fragment ended.
    End(FragmentEnd),
    /// A fragment could not be returned.
    Failed(FragmentError),
}

/// Where the parser is in a document.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Header,
    Fragment,
    /// The fragment's end was told.
    Ended,
}

/// Tells fragments, frames and tags from the bytes of the media operations. Frames are slices of what was pushed.
pub struct FragmentParser {
    reader: Reader,
    tracks: Tracks,
    scale_ns: u64,
    marks: Marks,
    place: Place,
    /// The fragment that is open, once its timecode is known.
    open: bool,
    document_starts: bool,
    /// Bytes of the section under way that a block's payload may lie in, and the offset of the first of them.
    kept: Vec<Bytes>,
    kept_from: u64,
    in_block: bool,
    ready: VecDeque<FragmentEvent>,
}

/// What the service's tags of a document said.
#[derive(Default)]
struct Marks {
    number: Option<FragmentNumber>,
    server: Option<Timestamp>,
    producer: Option<Timestamp>,
    behind: Option<u64>,
    token: Option<FragmentNumber>,
    error_id: Option<i64>,
    error_code: Option<String>,
}

impl Default for FragmentParser {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl FragmentParser {
    /// At the start of a body.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        FragmentParser {
            reader: Reader::new(limits),
            tracks: Tracks::from([]),
            scale_ns: 1_000_000,
            marks: Marks::default(),
            place: Place::Header,
            open: false,
            document_starts: false,
            kept: Vec::new(),
            kept_from: 0,
            in_block: false,
            ready: VecDeque::new(),
        }
    }

    /// Appends the next bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.reader.push(bytes);
    }

    /// Declares the end of the body.
    pub fn finish(&mut self) {
        self.reader.finish();
    }

    /// The next event; `None` when more bytes are needed, or at the end.
    ///
    /// # Errors
    /// The bytes are not Matroska. Events up to there have been given. A body that ends within an element is such an
    /// error, after [`finish`](FragmentParser::finish).
    #[allow(
        clippy::should_implement_trait,
        reason = "a fallible step, as matroska::Reader has it"
    )]
    pub fn next(&mut self) -> Result<Option<FragmentEvent>, matroska::Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.reader.next() {
                Ok(Some(event)) => self.on(event),
                Ok(None) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// What is told when the body has ended: the end of a fragment that was open.
    pub fn end(&mut self) -> Option<FragmentEvent> {
        self.close();
        self.ready.pop_front()
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::DocumentStart { .. } => {
                self.close();
                self.begin_section();
                self.place = Place::Header;
                self.marks = Marks::default();
                self.document_starts = true;
            }
            Event::Data(bytes) => {
                self.keep(bytes.clone());
                let event = FragmentEvent::Data {
                    bytes,
                    starts_document: std::mem::take(&mut self.document_starts),
                    header: self.place == Place::Header,
                };
                self.ready.push_back(event);
            }
            Event::Info(info) => self.scale_ns = info.timecode_scale_ns,
            Event::Tracks(tracks) => self.tracks = tracks,
            Event::ClusterStart { .. } => {
                let header = std::mem::replace(&mut self.place, Place::Fragment) == Place::Header;
                if !header {
                    self.close();
                }
                self.begin_section();
            }
            Event::ClusterTimecode(timecode) => self.start(timecode),
            Event::BlockStart(_) => self.in_block = true,
            Event::BlockEnd(block) => self.frame(&block),
            Event::Tag(tag) => self.tag(tag),
            Event::TagsEnd => self.tags_end(),
            _ => {}
        }
    }

    fn start(&mut self, timecode: u64) {
        self.open = true;
        // A producer's file has many clusters in a document; only a service's tags name a fragment, and only one.
        let marks = std::mem::take(&mut self.marks);
        let start = FragmentStart {
            number: marks.number,
            server_timestamp: marks.server,
            producer_timestamp: marks.producer,
            tracks: Arc::clone(&self.tracks),
            timecode_scale_ns: self.scale_ns,
            timecode,
        };
        self.ready.push_back(FragmentEvent::Start(Arc::new(start)));
    }

    /// Ends the fragment that is open without the service's last tags.
    fn close(&mut self) {
        if self.place == Place::Header && self.marks.number.is_some() {
            // A fragment without a cluster is one all the same.
            self.start(0);
        }
        if std::mem::take(&mut self.open) {
            self.ready.push_back(FragmentEvent::End(FragmentEnd::default()));
        }
    }

    fn begin_section(&mut self) {
        self.kept.clear();
        self.kept_from = 0;
        self.in_block = false;
    }

    /// Keeps what the payload of a block may lie in: the bytes since its head, or else the last ones.
    fn keep(&mut self, bytes: Bytes) {
        if !self.in_block {
            self.kept_from += self.kept.drain(..).map(|piece| piece.len() as u64).sum::<u64>();
        }
        self.kept.push(bytes);
    }

    fn frame(&mut self, block: &Block) {
        self.in_block = false;
        let before = usize::try_from(block.payload_offset.saturating_sub(self.kept_from)).unwrap_or(usize::MAX);
        let len = usize::try_from(block.payload_len).unwrap_or(usize::MAX);
        let payload = cut_out(&self.kept, before, len);
        let frame = |data: Bytes| {
            FragmentEvent::Frame(Frame {
                track: block.track,
                time: block.time,
                key: block.key,
                data,
            })
        };
        if block.lacing == Lacing::None {
            self.ready.push_back(frame(payload));
            return;
        }
        for range in lacing::frames(&payload, block.lacing).unwrap_or_default() {
            if range.end <= payload.len() {
                self.ready.push_back(frame(payload.slice(range)));
            }
        }
    }

    fn tag(&mut self, tag: Tag) {
        let Some(name) = tag.name.strip_prefix(PREFIX) else {
            self.ready.push_back(FragmentEvent::Tag(tag));
            return;
        };
        let text = tag.as_str().unwrap_or_default().to_owned();
        let marks = &mut self.marks;
        let time = || text.parse().ok().and_then(Timestamp::from_seconds);
        match name {
            "FRAGMENT_NUMBER" => marks.number = FragmentNumber::new(&text),
            "SERVER_TIMESTAMP" | "SERVER_SIDE_TIMESTAMP" => marks.server = time(),
            "PRODUCER_TIMESTAMP" | "PRODUCER_SIDE_TIMESTAMP" => marks.producer = time(),
            "MILLIS_BEHIND_NOW" => marks.behind = text.parse().ok(),
            "CONTINUATION_TOKEN" => marks.token = FragmentNumber::new(&text),
            "ERROR_ID" => marks.error_id = text.parse().ok(),
            "ERROR_CODE" | "EXCEPTION_ERROR_CODE" => marks.error_code = Some(text),
            // The producer's own END_OF_FRAGMENT says nothing to a reader.
            _ => {}
        }
    }

    fn tags_end(&mut self) {
        if self.marks.error_id.is_some() || self.marks.error_code.is_some() {
            let error = FragmentError {
                number: self.marks.number.take(),
                id: self.marks.error_id.take().unwrap_or(0),
                code: self.marks.error_code.take().unwrap_or_default(),
            };
            self.ready.push_back(FragmentEvent::Failed(error));
        }
        if self.open && self.marks.token.is_some() {
            self.open = false;
            self.place = Place::Ended;
            let end = FragmentEnd {
                millis_behind_now: self.marks.behind.take(),
                continuation_token: self.marks.token.take(),
            };
            self.ready.push_back(FragmentEvent::End(end));
        }
    }
}

/// `len` bytes after the first `skip` ones; copied only where they lie in several pieces.
fn cut_out(pieces: &[Bytes], mut skip: usize, len: usize) -> Bytes {
    let mut whole = BytesMut::new();
    for piece in pieces {
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        let end = piece.len().min(skip.saturating_add(len - whole.len()));
        if end - skip == len {
            return piece.slice(skip..end);
        }
        whole.extend_from_slice(piece.get(skip..end).unwrap_or_default());
        skip = 0;
        if whole.len() == len {
            break;
        }
    }
    whole.freeze()
}

/// Gathers events into whole fragments.
#[derive(Default)]
pub struct FragmentAssembler {
    document: Vec<Bytes>,
    header_len: usize,
    start: Option<Arc<FragmentStart>>,
    frames: Vec<Frame>,
    tags: Vec<Tag>,
    bytes: usize,
}

impl FragmentAssembler {
    /// Takes an event. Gives the fragment that it ends, or the error in place of one.
    pub fn take(&mut self, event: FragmentEvent) -> Option<Result<Fragment, FragmentError>> {
        match event {
            FragmentEvent::Data {
                bytes,
                starts_document,
                header,
            } => {
                if starts_document {
                    *self = FragmentAssembler::default();
                }
                self.bytes += bytes.len();
                self.header_len += if header { bytes.len() } else { 0 };
                self.document.push(bytes);
                None
            }
            FragmentEvent::Start(start) => {
                self.start = Some(start);
                None
            }
            FragmentEvent::Frame(frame) => {
                self.frames.push(frame);
                None
            }
            FragmentEvent::Tag(tag) => {
                self.tags.push(tag);
                None
            }
            FragmentEvent::End(end) => {
                let start = self.start.take()?;
                let header_len = std::mem::take(&mut self.header_len);
                self.bytes = 0;
                Some(Ok(Fragment {
                    start,
                    end,
                    frames: std::mem::take(&mut self.frames),
                    tags: std::mem::take(&mut self.tags),
                    document: std::mem::take(&mut self.document),
                    header_len,
                }))
            }
            FragmentEvent::Failed(error) => {
                *self = FragmentAssembler::default();
                Some(Err(error))
            }
        }
    }

    /// Bytes that are held for the fragment under way.
    #[must_use]
    pub fn held(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
