//! Where fragments begin and end in a producer's bytes, and which rule they break: a state machine over the events of
//! [`matroska::Reader`], without I/O. Everything from one cluster up to the next belongs to one fragment; an
//! end-of-fragment tag closes it at once. It hands every byte on verbatim and never looks into a frame.
//!
//! Decisions, where AWS's documents disagree or are silent:
//! - A second EBML header in one body completes the fragment before it and is then refused (4006: "more than one segment").
//! - A cluster whose timecode equals its predecessor's is refused (4004), like one that goes backwards.
//! - Tags before the first cluster are not counted as metadata of a fragment; the end-of-fragment tag is.
//! - Bytes between an end-of-fragment tag and the next cluster are stored in front of that cluster.
//! - `Tags` that stand before `Tracks` are repeated with the first fragment alone, as in AWS's captured answers.
//! - The end of the body completes the open fragment, unless it comes in the middle of an element (4006).

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use matroska::{Block, Event, Track, Tracks};

use crate::ingest::acks::AckError;
use crate::ingest::fingerprint::fingerprint;
use crate::limits;
use crate::media::document;

/// What the timecodes of clusters count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timecodes {
    /// The epoch.
    Absolute,
    /// The moment at which the producer started, which it sends in a header.
    Relative(Timestamp),
}

/// The last millisecond of the year 9999; producer timestamps beyond it are refused.
const LAST_TIMESTAMP_MS: i128 = 253_402_300_799_999;

impl Timecodes {
    /// When a fragment was made, from its cluster's timecode in units of `scale_ns` nanoseconds.
    pub fn producer_timestamp(self, timecode: u64, scale_ns: u64) -> Result<Timestamp, AckError> {
        let start = match self {
            Timecodes::Absolute => 0,
            Timecodes::Relative(start) => i128::from(start.millis()),
        };
        let millis = start + i128::from(timecode) * i128::from(scale_ns) / 1_000_000;
        i64::try_from(millis)
            .ok()
            .filter(|_| (0..=LAST_TIMESTAMP_MS).contains(&millis))
            .map(Timestamp::from_millis)
            .ok_or(AckError::InvalidProducerTimestamp)
    }
}

/// Limits that the operator may set; the others are constants of [`crate::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleLimits {
    /// See [`limits::FRAGMENT_BYTES`].
    pub fragment_bytes: u64,
    /// See [`limits::FRAGMENT_DURATION_MS`].
    pub fragment_duration_ms: i64,
}

impl Default for RuleLimits {
    fn default() -> Self {
        RuleLimits {
            fragment_bytes: limits::FRAGMENT_BYTES,
            fragment_duration_ms: limits::FRAGMENT_DURATION_MS,
        }
    }
}

/// One frame of a fragment, for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Offset of the payload in the fragment's stored bytes.
    pub offset: u64,
    /// Length of the payload.
    pub length: u64,
    /// Time from the cluster's timecode, in units of the timecode scale.
    pub time: i16,
    /// Number of its track.
    pub track: u64,
    /// Flagged as decodable alone.
    pub key: bool,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// A fragment begins.
    Begin(Begin),
    /// The next bytes of the fragment.
    Media(Bytes),
    /// The fragment is whole.
    Complete(Complete),
}

/// A fragment begins.
#[derive(Debug)]
pub struct Begin {
    /// The cluster's timecode as sent.
    pub timecode: u64,
    /// When it was made.
    pub producer_timestamp: Timestamp,
    /// What stands before it in its document, as sent.
    pub header: Bytes,
    /// The first bytes of the fragment.
    pub first: Vec<Bytes>,
}

/// The fragment is whole.
#[derive(Debug)]
pub struct Complete {
    /// Its frames in the order in which they came.
    pub frames: Vec<FrameEntry>,
    /// From the cluster's timecode to the end of the last frame, in milliseconds.
    pub length_ms: u64,
    /// Nanoseconds of one unit of the frames' times.
    pub scale_ns: u64,
    /// Bytes that were handed on.
    pub bytes: u64,
    /// See [`fingerprint`].
    pub tracks_hash: u64,
}

#[derive(Debug)]
enum Section {
    /// Before the EBML header.
    Nothing,
    /// From the EBML header to the first cluster.
    Header(BytesMut),
    /// In a cluster whose timecode is not known yet.
    Pending { held: Vec<Bytes>, bytes: usize },
    /// In a fragment.
    Open(Box<Open>),
    /// After an end-of-fragment tag.
    Between,
    /// In a second document.
    Over,
}

#[derive(Debug)]
struct Open {
    bytes: u64,
    /// Bytes that were put in front of the cluster.
    prefix: u64,
    frames: Vec<FrameEntry>,
    spans: Vec<Span>,
    tags: usize,
    ends: bool,
}

/// The frames of one track in a fragment.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    frames: u64,
    first: i64,
    last: i64,
    last_duration: Option<u64>,
}

/// The machine for one request.
#[derive(Debug)]
pub struct Rules {
    limits: RuleLimits,
    timecodes: Timecodes,
    scale_ns: u64,
    tracks: Option<Tracks>,
    tracks_hash: u64,
    /// The header for the next fragment.
    header: Bytes,
    /// The header for all fragments after it, when that is another.
    repeated: Option<Bytes>,
    previous: Option<u64>,
    section: Section,
    between: Vec<Bytes>,
    between_bytes: usize,
    between_tags: usize,
    /// Of the bytes that the pending cluster holds, those in front of it.
    prefix_bytes: u64,
    refused_timecode: Option<u64>,
}

impl Rules {
    /// A machine at the start of a request's body.
    pub fn new(timecodes: Timecodes, limits: RuleLimits) -> Self {
        Rules {
            limits,
            timecodes,
            scale_ns: 1_000_000,
            tracks: None,
            tracks_hash: 0,
            header: Bytes::new(),
            repeated: None,
            previous: None,
            section: Section::Nothing,
            between: Vec::new(),
            between_bytes: 0,
            between_tags: 0,
            prefix_bytes: 0,
            refused_timecode: None,
        }
    }

    /// True while a fragment is open.
    pub fn in_fragment(&self) -> bool {
        matches!(self.section, Section::Open(_))
    }

    /// The timecode of a cluster that was refused before its fragment began.
    pub fn refused_timecode(&self) -> Option<u64> {
        self.refused_timecode
    }

    /// Takes the next event. After an error the machine must not be used again.
    pub fn on(&mut self, event: Event) -> Result<Option<Step>, AckError> {
        match event {
            Event::Data(bytes) => self.data(bytes),
            Event::DocumentStart { .. } => self.document_start(),
            Event::Info(info) => {
                self.scale_ns = info.timecode_scale_ns;
                Ok(None)
            }
            Event::Tracks(tracks) => self.declare(tracks).map(|()| None),
            Event::ClusterStart { .. } => self.cluster_start(),
            Event::ClusterTimecode(timecode) => self.cluster_timecode(timecode).map(Some),
            Event::BlockStart(block) => self.block_start(&block).map(|()| None),
            Event::BlockEnd(block) => self.block_end(&block).map(|()| None),
            Event::Tag(tag) => self.tag(&tag).map(|()| None),
            Event::TagsEnd => self.tags_end(),
            _ => Ok(None),
        }
    }

    /// The body ended where an element ended.
    pub fn finish(&mut self) -> Result<Option<Step>, AckError> {
        self.close(Section::Over)
    }

    fn data(&mut self, bytes: Bytes) -> Result<Option<Step>, AckError> {
        match &mut self.section {
            Section::Header(header) => {
                if header.len() + bytes.len() > limits::HEADER_BYTES {
                    return Err(AckError::InvalidMkv);
                }
                header.extend_from_slice(&bytes);
                Ok(None)
            }
            Section::Pending { held, bytes: size } => {
                *size += bytes.len();
                if *size > limits::BETWEEN_FRAGMENTS_BYTES {
                    return Err(AckError::InvalidMkv);
                }
                held.push(bytes);
                Ok(None)
            }
            Section::Open(open) => {
                open.bytes += bytes.len() as u64;
                if open.bytes > self.limits.fragment_bytes {
                    return Err(AckError::FragmentSize);
                }
                Ok(Some(Step::Media(bytes)))
            }
            Section::Between => {
                self.between_bytes += bytes.len();
                if self.between_bytes > limits::BETWEEN_FRAGMENTS_BYTES {
                    return Err(AckError::InvalidMkv);
                }
                self.between.push(bytes);
                Ok(None)
            }
            Section::Nothing | Section::Over => Err(AckError::InvalidMkv),
        }
    }

    fn document_start(&mut self) -> Result<Option<Step>, AckError> {
        if matches!(self.section, Section::Nothing) {
            self.section = Section::Header(BytesMut::new());
            return Ok(None);
        }
        match self.close(Section::Over)? {
            Some(step) => Ok(Some(step)),
            None => Err(AckError::InvalidMkv),
        }
    }

    fn declare(&mut self, tracks: Tracks) -> Result<(), AckError> {
        if tracks.len() > limits::TRACKS {
            return Err(AckError::TooManyTracks);
        }
        if tracks.is_empty() || !matches!(self.section, Section::Header(_)) {
            return Err(AckError::InvalidMkv);
        }
        self.tracks_hash = fingerprint(&tracks);
        self.tracks = Some(tracks);
        Ok(())
    }

    fn cluster_start(&mut self) -> Result<Option<Step>, AckError> {
        if matches!(self.section, Section::Over) {
            return Err(AckError::InvalidMkv);
        }
        let pending = Section::Pending {
            held: std::mem::take(&mut self.between),
            bytes: std::mem::take(&mut self.between_bytes),
        };
        if let Section::Header(header) = &mut self.section {
            let header = std::mem::take(header).freeze();
            if self.tracks.is_none() {
                return Err(AckError::InvalidMkv);
            }
            self.repeated = document::repeated_header(&header);
            self.header = header;
        }
        self.close(pending)
    }

    fn cluster_timecode(&mut self, timecode: u64) -> Result<Step, AckError> {
        let Section::Pending { held, bytes } = &mut self.section else {
            return Err(AckError::InvalidMkv);
        };
        let (first, bytes) = (std::mem::take(held), *bytes as u64);
        self.refused_timecode = Some(timecode);
        if self.previous.is_some_and(|previous| timecode <= previous) {
            return Err(AckError::TimecodeNotGreater);
        }
        let producer_timestamp = self.timecodes.producer_timestamp(timecode, self.scale_ns)?;
        self.refused_timecode = None;
        self.previous = Some(timecode);
        self.section = Section::Open(Box::new(Open {
            bytes,
            prefix: std::mem::take(&mut self.prefix_bytes),
            frames: Vec::new(),
            spans: vec![Span::default(); self.tracks.as_ref().map_or(0, |tracks| tracks.len())],
            tags: std::mem::take(&mut self.between_tags),
            ends: false,
        }));
        let header = self.header.clone();
        if let Some(repeated) = self.repeated.take() {
            self.header = repeated;
        }
        Ok(Step::Begin(Begin {
            timecode,
            producer_timestamp,
            header,
            first,
        }))
    }

    fn block_start(&mut self, block: &Block) -> Result<(), AckError> {
        let Section::Open(open) = &self.section else {
            return Err(AckError::InvalidMkv);
        };
        if self.track(block.track).is_none() {
            return Err(AckError::TrackNumberMismatch);
        }
        if self.millis(i64::from(block.relative_time)) > self.limits.fragment_duration_ms {
            return Err(AckError::FragmentDuration);
        }
        if open.frames.len() >= limits::FRAGMENT_FRAMES {
            return Err(AckError::FragmentSize);
        }
        Ok(())
    }

    fn block_end(&mut self, block: &Block) -> Result<(), AckError> {
        let (index, _) = self.track(block.track).ok_or(AckError::TrackNumberMismatch)?;
        let Section::Open(open) = &mut self.section else {
            return Err(AckError::InvalidMkv);
        };
        open.frames.push(FrameEntry {
            offset: open.prefix + block.payload_offset,
            length: block.payload_len,
            time: block.relative_time,
            track: block.track,
            key: block.key,
        });
        if let Some(span) = open.spans.get_mut(index) {
            span.add(i64::from(block.relative_time), block.duration);
        }
        Ok(())
    }

    fn tag(&mut self, tag: &matroska::Tag) -> Result<(), AckError> {
        let count = match &mut self.section {
            Section::Open(open) => {
                open.ends |= tag.is_end_of_fragment();
                &mut open.tags
            }
            Section::Between => &mut self.between_tags,
            _ => return Ok(()),
        };
        *count += 1;
        let legal = *count <= limits::FRAGMENT_TAGS
            && tag.name.len() <= limits::TAG_NAME_BYTES
            && tag.value.len() <= limits::TAG_VALUE_BYTES;
        legal.then_some(()).ok_or(AckError::MetadataLimit)
    }

    fn tags_end(&mut self) -> Result<Option<Step>, AckError> {
        match &self.section {
            Section::Open(open) if open.ends => self.close(Section::Between),
            _ => Ok(None),
        }
    }

    /// Leaves the section, completing the fragment that is open.
    fn close(&mut self, next: Section) -> Result<Option<Step>, AckError> {
        if let Section::Pending { bytes, .. } = &next {
            self.prefix_bytes = *bytes as u64;
        }
        let Section::Open(open) = std::mem::replace(&mut self.section, next) else {
            return Ok(None);
        };
        if open.spans.iter().any(|span| span.frames == 0) {
            return Err(AckError::FramesMissing);
        }
        let tracks = self.tracks.iter().flat_map(|tracks| tracks.iter());
        let ends = tracks
            .zip(&open.spans)
            .map(|(track, span)| span.end_ns(track, self.scale_ns));
        let length_ns = ends.max().unwrap_or(0).max(0);
        Ok(Some(Step::Complete(Complete {
            length_ms: u64::try_from((length_ns + 500_000) / 1_000_000).unwrap_or(u64::MAX),
            scale_ns: self.scale_ns,
            bytes: open.bytes,
            tracks_hash: self.tracks_hash,
            frames: open.frames,
        })))
    }

    fn track(&self, number: u64) -> Option<(usize, &Track)> {
        let tracks = self.tracks.as_ref()?;
        tracks.iter().enumerate().find(|(_, track)| track.number == number)
    }

    fn millis(&self, units: i64) -> i64 {
        let nanos = i128::from(units) * i128::from(self.scale_ns);
        i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
    }
}

impl Span {
    fn add(&mut self, time: i64, duration: Option<u64>) {
        (self.first, self.last) = match self.frames {
            0 => (time, time),
            _ => (self.first.min(time), self.last.max(time)),
        };
        if self.last == time {
            self.last_duration = duration;
        }
        self.frames += 1;
    }

    /// Where the track's last frame ends: its start and its duration, which is the block's, else the track's default,
    /// else the mean distance of the track's frames in this fragment.
    fn end_ns(&self, track: &Track, scale_ns: u64) -> i128 {
        let scale = i128::from(scale_ns);
        let duration = match (self.last_duration, track.default_duration_ns) {
            (Some(units), _) => i128::from(units) * scale,
            (None, Some(nanos)) => i128::from(nanos),
            (None, None) if self.frames > 1 => i128::from(self.last - self.first) * scale / i128::from(self.frames - 1),
            (None, None) => 0,
        };
        i128::from(self.last) * scale + duration
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
