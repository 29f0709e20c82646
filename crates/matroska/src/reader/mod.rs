//! The push reader: a header state machine that never touches a payload.

mod chunks;

use std::collections::VecDeque;

use bytes::Bytes;

use self::chunks::Chunks;
use crate::error::{Error, ErrorKind};
use crate::event::{Block, Event, Lacing};
use crate::id::{self, ElementId};
use crate::limits::{BLOCK_HEAD_BYTES_MAX, ELEMENT_HEAD_BYTES_MAX, Limits};
use crate::number::{VarInt, read_id, read_unsigned, read_varint};
use crate::parse::{self, Child};

/// Reads a Matroska stream in pieces of any size.
///
/// Contract: after every [`push`](Reader::push), call [`next`](Reader::next) until it returns `None`; then the reader
/// holds no more than one incomplete element head or header element ([`buffered`](Reader::buffered)). At the end of the
/// input call [`finish`](Reader::finish) and drain once more. An error is final: every later `next` repeats it. All
/// bytes before the offending element are handed on before the error is.
pub struct Reader {
    limits: Limits,
    chunks: Chunks,
    /// Offset in the stream of the first byte in `chunks`.
    base: u64,
    /// Bytes at the front of `chunks` that were understood and wait to be handed on.
    scanned: usize,
    /// Offset of the first byte of the current section, and whether it is a document's header.
    section: u64,
    in_header_section: bool,
    /// Offset of the section whose start was told last.
    announced: Option<u64>,
    open: Vec<Open>,
    state: State,
    /// Told once `scanned` is handed on.
    after: VecDeque<Event>,
    /// Nothing more can be understood without another push.
    starved: bool,
    ended: bool,
    failed: Option<Error>,
    cluster_timecode: Option<u64>,
    track_uid: Option<u64>,
    group_block: Option<Block>,
}

/// A master element that was entered.
#[derive(Clone, Copy)]
struct Open {
    id: ElementId,
    offset: u64,
    /// Where it ends by its own size.
    end: Option<u64>,
    /// Where it or a parent ends at the latest.
    bound: u64,
}

#[derive(Clone, Copy)]
struct Head {
    id: ElementId,
    offset: u64,
    len: usize,
    size: Option<u64>,
}

impl Head {
    fn fail(&self, kind: ErrorKind) -> Error {
        Error {
            offset: self.offset,
            element: self.id,
            kind,
        }
    }

    fn data_offset(&self) -> u64 {
        self.offset + self.len as u64
    }
}

#[derive(Clone, Copy)]
enum State {
    /// At the first byte of an element.
    Head,
    /// Waiting for all of a header element.
    Gather { head: Head, size: usize },
    /// Waiting for the head of a block of `size` bytes.
    BlockHead { head: Head, size: u64 },
    /// Handing on the rest of an element, then telling that the block is whole.
    Skip {
        head: Head,
        left: u64,
        block: Option<Block>,
    },
}

/// Whether the state machine moved.
enum Step {
    Moved,
    Starved,
}

impl Reader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Reader {
            limits,
            chunks: Chunks::default(),
            base: 0,
            scanned: 0,
            section: 0,
            in_header_section: false,
            announced: None,
            open: Vec::with_capacity(4),
            state: State::Head,
            after: VecDeque::with_capacity(4),
            starved: false,
            ended: false,
            failed: None,
            cluster_timecode: None,
            track_uid: None,
            group_block: None,
        }
    }

    /// Appends the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed.is_none() {
            self.chunks.push(chunk);
        }
    }

    /// Declares that no bytes follow. [`next`](Reader::next) then hands out what is left, and an error
    /// ([`ErrorKind::Truncated`]) if that is in the middle of an element.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// Bytes that were pushed and not handed on yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes that were handed on: the offset in the stream of the next [`Event::Data`].
    #[must_use]
    pub fn position(&self) -> u64 {
        self.base
    }

    /// The next event; `None` when more input is needed, or after [`finish`](Reader::finish) when there is none.
    ///
    /// # Errors
    /// The stream is not Matroska, contradicts itself, or breaks a limit. See [`ErrorKind`].
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results would not say that an error is final"
    )]
    pub fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if self.starved || !self.after.is_empty() {
                if self.scanned > 0
                    && let Some(data) = self.chunks.take(self.scanned)
                {
                    self.scanned -= data.len();
                    self.base += data.len() as u64;
                    return Ok(Some(Event::Data(data)));
                }
                if let Some(event) = self.after.pop_front() {
                    return Ok(Some(event));
                }
                if let Some(error) = &self.failed {
                    self.chunks = Chunks::default();
                    return Err(error.clone());
                }
                if std::mem::take(&mut self.starved) && !self.ended {
                    return Ok(None);
                }
            }
            match self.step() {
                Ok(Step::Moved) => {}
                Ok(Step::Starved) if !self.ended => self.starved = true,
                Ok(Step::Starved) => {
                    if !self.end() {
                        return Ok(None);
                    }
                }
                Err(error) => {
                    self.failed = Some(error);
                    self.starved = true;
                }
            }
        }
    }

    /// At the end of the input: closes what may be left open, or fails. Returns whether there is something to tell.
    fn end(&mut self) -> bool {
        let broken = match self.state {
            State::Head if self.available() == 0 => {
                let bounded = self.open.iter().rev().find(|open| open.end.is_some());
                bounded.map(|open| (open.offset, open.id))
            }
            State::Head => Some((self.at(), ElementId::NONE)),
            State::Gather { head, .. } | State::BlockHead { head, .. } | State::Skip { head, .. } => {
                Some((head.offset, head.id))
            }
        };
        match broken {
            Some((offset, element)) => {
                // What is left is still the stream: it goes out before the error does.
                self.scanned = self.chunks.len();
                self.failed = Some(Error {
                    offset,
                    element,
                    kind: ErrorKind::Truncated,
                });
            }
            None => {
                while let Some(open) = self.open.pop() {
                    self.close(open);
                }
            }
        }
        self.starved = self.scanned > 0 || self.failed.is_some();
        self.starved || !self.after.is_empty()
    }

    /// Offset in the stream of the next byte to be understood.
    fn at(&self) -> u64 {
        self.base + self.scanned as u64
    }

    fn available(&self) -> usize {
        self.chunks.len() - self.scanned
    }

    fn step(&mut self) -> Result<Step, Error> {
        match self.state {
            State::Head => self.step_head(),
            State::Gather { head, size } => {
                if self.available() < size {
                    return Ok(Step::Starved);
                }
                let data = self.chunks.gather(self.scanned, size);
                self.scanned += size;
                self.state = State::Head;
                let element = Child {
                    id: head.id,
                    offset: head.offset,
                    data_offset: head.data_offset(),
                    data,
                };
                self.gathered(&head, &element)?;
                self.close_ended();
                Ok(Step::Moved)
            }
            State::BlockHead { head, size } => self.step_block_head(head, size),
            State::Skip { head, left, block } => {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.available());
                self.scanned += count;
                let left = left - count as u64;
                if left > 0 {
                    self.state = State::Skip { head, left, block };
                    return Ok(Step::Starved);
                }
                self.state = State::Head;
                if let Some(block) = block {
                    self.end_block(block);
                }
                self.close_ended();
                Ok(Step::Moved)
            }
        }
    }

    fn step_head(&mut self) -> Result<Step, Error> {
        let Some(head) = self.read_head()? else {
            return Ok(Step::Starved);
        };
        self.close_unknown_sizes_before(head.id);
        if !self.after.is_empty() {
            return Ok(Step::Moved); // What ended here is told before what begins here; the head is then read again.
        }
        let bound = self.open.last().map_or(u64::MAX, |open| open.bound);
        if head.data_offset() > bound {
            return Err(head.fail(ErrorKind::BeyondParent {
                end: head.data_offset(),
                parent_end: bound,
            }));
        }
        if let Some(size) = head.size {
            let end = head
                .data_offset()
                .checked_add(size)
                .ok_or_else(|| head.fail(ErrorKind::InvalidSize))?;
            if end > bound {
                return Err(head.fail(ErrorKind::BeyondParent { end, parent_end: bound }));
            }
            if self.in_header_section && head.id != id::CLUSTER && head.id != id::SEGMENT && head.id != id::EBML {
                let length = end - self.section;
                let limit = self.limits.header_section_bytes_max;
                if length > limit {
                    return Err(head.fail(ErrorKind::TooLarge { size: length, limit }));
                }
            }
        }
        self.begin(head, bound)?;
        Ok(Step::Moved)
    }

    /// Reads an element's head without consuming it.
    fn read_head(&self) -> Result<Option<Head>, Error> {
        let mut bytes = [0u8; ELEMENT_HEAD_BYTES_MAX];
        let filled = self.chunks.peek(self.scanned, &mut bytes);
        let bytes = bytes.get(..filled).unwrap_or_default();
        let offset = self.at();
        let fail = |element, kind| Err(Error { offset, element, kind });
        let first = read_id(bytes);
        match first {
            VarInt::Read(id::CLUSTER | id::SIMPLE_BLOCK | id::BLOCK_GROUP | id::TAGS, _) if offset == 0 => {
                return fail(ElementId::NONE, ErrorKind::Headless);
            }
            VarInt::Read(id, _) if offset == 0 && id != id::EBML => return fail(ElementId::NONE, ErrorKind::NotEbml),
            VarInt::Invalid(_) if offset == 0 => return fail(ElementId::NONE, ErrorKind::NotEbml),
            _ => {}
        }
        let (id, id_len) = match first {
            VarInt::Read(id, len) => (id, len),
            VarInt::Need(_) => return Ok(None),
            VarInt::Invalid(byte) => return fail(ElementId::NONE, ErrorKind::InvalidId(byte)),
        };
        let (size, size_len) = match read_varint(bytes.get(id_len..).unwrap_or_default()) {
            VarInt::Read(size, len) => (size, len),
            VarInt::Need(_) => return Ok(None),
            VarInt::Invalid(_) => return fail(id, ErrorKind::InvalidSize),
        };
        Ok(Some(Head {
            id,
            offset,
            len: id_len + size_len,
            size,
        }))
    }

    /// Closes Clusters, Tags and Segments of unknown size that cannot hold the element that comes next.
    fn close_unknown_sizes_before(&mut self, next: ElementId) {
        if !next.is_top_level() {
            return;
        }
        while let Some(open) = self.open.last().copied() {
            let ends = match open.id {
                id::SEGMENT => next == id::SEGMENT || next == id::EBML,
                _ => open.end.is_none(),
            };
            if !ends {
                break;
            }
            self.open.pop();
            self.close(open);
        }
    }

    /// Closes the masters whose known size ends here.
    fn close_ended(&mut self) {
        while let Some(open) = self.open.last().copied() {
            if open.bound > self.at() {
                break;
            }
            self.open.pop();
            self.close(open);
        }
    }

    fn close(&mut self, open: Open) {
        match open.id {
            id::CLUSTER => {
                self.cluster_timecode = None;
                self.after.push_back(Event::ClusterEnd);
            }
            id::TAGS => self.after.push_back(Event::TagsEnd),
            id::TAG => self.track_uid = None,
            id::BLOCK_GROUP => {
                if let Some(block) = self.group_block.take() {
                    self.after.push_back(Event::BlockEnd(block));
                }
            }
            _ => {}
        }
    }

    fn parent(&self) -> ElementId {
        self.open.last().map_or(ElementId::NONE, |open| open.id)
    }

    /// Begins an element at its place.
    fn begin(&mut self, head: Head, bound: u64) -> Result<(), Error> {
        let parent = self.parent();
        match (parent, head.id) {
            (ElementId::NONE, id::EBML) => {
                if self.announce_section(head.offset, true, Event::DocumentStart { offset: head.offset }) {
                    return Ok(());
                }
                self.gather(head, self.limits.header_element_bytes_max)
            }
            (ElementId::NONE, id::SEGMENT) => {
                let head_len = u8::try_from(head.len).unwrap_or(u8::MAX);
                self.enter(head, bound);
                self.after.push_back(Event::SegmentStart {
                    offset: head.offset,
                    head_len,
                    size: head.size,
                });
                self.close_ended();
                Ok(())
            }
            (id::SEGMENT, id::INFO | id::TRACKS) => self.gather(head, self.limits.header_element_bytes_max),
            (id::SEGMENT, id::CLUSTER) => {
                let event = Event::ClusterStart {
                    offset: head.offset,
                    size: head.size,
                };
                if self.announce_section(head.offset, false, event) {
                    return Ok(());
                }
                self.enter(head, bound);
                self.close_ended();
                Ok(())
            }
            (id::SEGMENT, id::TAGS) => {
                self.enter(head, bound);
                self.close_ended();
                Ok(())
            }
            (id::TAGS, id::TAG) | (id::CLUSTER, id::BLOCK_GROUP) => {
                if head.size.is_none() {
                    return Err(head.fail(ErrorKind::UnknownSize));
                }
                self.group_block = None;
                self.enter(head, bound);
                self.close_ended();
                Ok(())
            }
            (id::TAG, id::TARGETS | id::SIMPLE_TAG) => self.gather(head, self.limits.simple_tag_bytes_max),
            (id::CLUSTER, id::TIMECODE) | (id::BLOCK_GROUP, id::BLOCK_DURATION) => match head.size {
                Some(size @ 0..=8) => self.gather(head, size),
                Some(size) => Err(head.fail(ErrorKind::InvalidNumber(size))),
                None => Err(head.fail(ErrorKind::UnknownSize)),
            },
            (id::CLUSTER, id::SIMPLE_BLOCK) | (id::BLOCK_GROUP, id::BLOCK) => self.begin_block(head),
            (_, unexpected) if unexpected.is_top_level() && !(parent == id::SEGMENT && is_known_child(unexpected)) => {
                Err(head.fail(ErrorKind::Unexpected(match parent {
                    ElementId::NONE => "outside of any Segment",
                    id::SEGMENT => "inside a Segment",
                    id::CLUSTER => "inside a Cluster that has not reached its size",
                    _ => "inside an element that has not reached its size",
                })))
            }
            _ => {
                if parent == id::BLOCK_GROUP
                    && head.id == id::REFERENCE_BLOCK
                    && let Some(block) = &mut self.group_block
                {
                    block.key = false;
                }
                self.skip(head)
            }
        }
    }

    /// Opens a section the first time it is called for it: its event goes out after the bytes before it and ahead of
    /// its own, so the caller must not consume the head yet and comes here again.
    fn announce_section(&mut self, offset: u64, header: bool, event: Event) -> bool {
        if self.announced.replace(offset) == Some(offset) {
            return false;
        }
        self.section = offset;
        self.in_header_section = header;
        self.after.push_back(event);
        true
    }

    fn enter(&mut self, head: Head, bound: u64) {
        let end = head.size.map(|size| head.data_offset().saturating_add(size));
        self.scanned_head(head);
        self.open.push(Open {
            id: head.id,
            offset: head.offset,
            end,
            bound: end.unwrap_or(bound),
        });
    }

    fn scanned_head(&mut self, head: Head) {
        self.scanned += head.len;
    }

    fn gather(&mut self, head: Head, limit: u64) -> Result<(), Error> {
        let size = head.size.ok_or_else(|| head.fail(ErrorKind::UnknownSize))?;
        let too_large = || head.fail(ErrorKind::TooLarge { size, limit });
        if size > limit {
            return Err(too_large());
        }
        let size = usize::try_from(size).map_err(|_| too_large())?;
        self.scanned_head(head);
        self.state = State::Gather { head, size };
        Ok(())
    }

    fn skip(&mut self, head: Head) -> Result<(), Error> {
        let left = head.size.ok_or_else(|| head.fail(ErrorKind::UnknownSize))?;
        self.scanned_head(head);
        self.state = State::Skip {
            head,
            left,
            block: None,
        };
        Ok(())
    }

    fn gathered(&mut self, head: &Head, element: &Child) -> Result<(), Error> {
        match head.id {
            id::EBML => self.after.push_back(Event::EbmlHeader(parse::ebml_header(element)?)),
            id::INFO => self.after.push_back(Event::Info(parse::info(element)?)),
            id::TRACKS => self
                .after
                .push_back(Event::Tracks(parse::tracks(element, &self.limits)?)),
            id::TARGETS => self.track_uid = parse::targets(element)?,
            id::SIMPLE_TAG => {
                let after = &mut self.after;
                parse::simple_tag(element, self.track_uid, &mut |tag| after.push_back(Event::Tag(tag)))?;
            }
            id::TIMECODE => {
                let timecode = read_unsigned(&element.data).unwrap_or_default();
                if self.cluster_timecode.replace(timecode).is_some() {
                    return Err(head.fail(ErrorKind::Malformed("a second timestamp in one Cluster")));
                }
                self.after.push_back(Event::ClusterTimecode(timecode));
            }
            id::BLOCK_DURATION => {
                if let Some(block) = &mut self.group_block {
                    block.duration = read_unsigned(&element.data);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin_block(&mut self, head: Head) -> Result<(), Error> {
        let size = head.size.ok_or_else(|| head.fail(ErrorKind::UnknownSize))?;
        if self.cluster_timecode.is_none() {
            return Err(head.fail(ErrorKind::Missing("the Cluster's timestamp before its first block")));
        }
        if head.id == id::BLOCK && self.group_block.is_some() {
            return Err(head.fail(ErrorKind::Malformed("a second Block in one BlockGroup")));
        }
        if size < 4 {
            return Err(head.fail(ErrorKind::Malformed("a block of fewer than 4 bytes has no head")));
        }
        self.scanned_head(head);
        self.state = State::BlockHead { head, size };
        Ok(())
    }

    fn step_block_head(&mut self, head: Head, size: u64) -> Result<Step, Error> {
        let mut bytes = [0u8; BLOCK_HEAD_BYTES_MAX];
        let filled = self.chunks.peek(self.scanned, &mut bytes);
        let bytes = bytes.get(..filled).unwrap_or_default();
        let (track, track_len) = match read_varint(bytes) {
            VarInt::Read(Some(track @ 1..), len) => (track, len),
            VarInt::Need(_) => return Ok(Step::Starved),
            _ => return Err(head.fail(ErrorKind::Malformed("a block without a valid track number"))),
        };
        if (track_len as u64) + 3 > size {
            return Err(head.fail(ErrorKind::Malformed("a block shorter than its head")));
        }
        let Some(&[high, low, flags]) = bytes.get(track_len..track_len + 3) else {
            return Ok(Step::Starved);
        };
        let relative_time = i16::from_be_bytes([high, low]);
        let head_len = track_len + 3;
        let payload_len = size - head_len as u64;
        let timecode = self.cluster_timecode.unwrap_or_default();
        let grouped = head.id == id::BLOCK;
        let block = Block {
            track,
            relative_time,
            time: i64::try_from(timecode)
                .unwrap_or(i64::MAX)
                .saturating_add(i64::from(relative_time)),
            key: !grouped && flags & 0x80 != 0,
            lacing: match flags >> 1 & 3 {
                0 => Lacing::None,
                1 => Lacing::Xiph,
                2 => Lacing::Fixed,
                _ => Lacing::Ebml,
            },
            payload_offset: self.at() + head_len as u64 - self.section,
            payload_len,
            duration: None,
        };
        self.scanned += head_len;
        self.after.push_back(Event::BlockStart(block));
        // A frame that lies here whole goes out as one slice, head and all.
        match usize::try_from(payload_len) {
            Ok(len) if len <= self.available() => {
                self.scanned += len;
                self.state = State::Head;
                self.end_block_of(head.id, block);
                self.close_ended();
            }
            _ => {
                self.state = State::Skip {
                    head,
                    left: payload_len,
                    block: Some(block),
                }
            }
        }
        Ok(Step::Moved)
    }

    fn end_block(&mut self, block: Block) {
        let id = if self.parent() == id::BLOCK_GROUP {
            id::BLOCK
        } else {
            id::SIMPLE_BLOCK
        };
        self.end_block_of(id, block);
    }

    fn end_block_of(&mut self, id: ElementId, block: Block) {
        if id == id::BLOCK {
            // A frame of a group is a key frame unless a ReferenceBlock says otherwise, which follows it.
            self.group_block = Some(Block { key: true, ..block });
        } else {
            self.after.push_back(Event::BlockEnd(block));
        }
    }
}

/// Elements of a Segment that are carried in the bytes alone.
fn is_known_child(id: ElementId) -> bool {
    matches!(id, id::SEEK_HEAD | id::CUES | id::CHAPTERS | id::ATTACHMENTS)
}
