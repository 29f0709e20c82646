//! Where fragments begin and end in a producer's bytes, and which rule they break: a state machine over the events of
//! [`matroska::Reader`], without I/O. Everything from one cluster up to the next belongs to one fragment; an
//! end-of-fragment tag closes it at once. It hands every byte on verbatim and never looks into a frame.
//!
//! Decisions, where AWS's documents disagree or are silent:
//! - A second EBML header in one body completes the fragment before it and is then refused (4006: "more than one segment").
//! - A cluster whose timecode equals its predecessor's is refused (4004), like one that goes backwards; see [`Backwards`] for
//!   streams that take it. Numbers of fragments increase all the same.
//! - Tags before the first cluster are not counted as metadata of a fragment; the end-of-fragment tag is.
//! - Bytes between an end-of-fragment tag and the next cluster are stored in front of that cluster.
//! - `Tags` that stand before `Tracks` are repeated with the first fragment alone, as in AWS's captured answers.
//! - The end of the body completes the open fragment, unless it comes in the middle of an element (4006).

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use matroska::{Block, Event, Track, TrackKind, Tracks};

use crate::deliver::Triggers;
use crate::ingest::acks::AckError;
use crate::ingest::fingerprint::fingerprint;
use crate::ingest::in_band::{InBand, LookOut};
use crate::ingest::leniency::Leniency;
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

/// What happens to a cluster whose timecode is not above that of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backwards {
    /// It is refused: 4004.
    #[default]
    Refuse,
    /// It is taken; its producer timestamp is what the timecode says.
    Accept,
    /// It is taken; its producer timestamp is where the fragment before ended, and those after it keep their distance.
    Continue,
}

/// Limits that the operator or a stream's tags may set; the others are constants of [`crate::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleLimits {
    /// See [`limits::FRAGMENT_BYTES`].
    pub fragment_bytes: u64,
    /// See [`limits::FRAGMENT_DURATION_MS`].
    pub fragment_duration_ms: i64,
    /// A fragment may lack frames of some declared tracks, though not of all.
    pub allow_missing_tracks: bool,
    /// What happens to timecodes that do not increase.
    pub backwards: Backwards,
}

impl Default for RuleLimits {
    fn default() -> Self {
        RuleLimits {
            fragment_bytes: limits::FRAGMENT_BYTES,
            fragment_duration_ms: limits::FRAGMENT_DURATION_MS,
            allow_missing_tracks: false,
            backwards: Backwards::Refuse,
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
    /// Milliseconds between the last two key frames of the first video track; they may lie in two fragments.
    pub key_interval_ms: Option<i64>,
    /// See [`fingerprint`].
    pub tracks_hash: u64,
    /// What its tags ask for.
    pub(crate) triggers: Triggers,
}

/// What was measured of the fragment that came last, whole or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// From the cluster's timecode to the latest start of a frame, a refused one included.
    pub span_ms: i64,
    /// How long it might have been.
    pub limit_ms: i64,
    /// Between the last two key frames of the first video track.
    pub key_interval_ms: Option<i64>,
    /// From the last key frame of that track to the end of the span.
    pub since_key_ms: Option<i64>,
    /// Of that track.
    pub frames_per_second: Option<f64>,
    /// The timecode of the last cluster, and of the one before.
    pub timecodes: (Option<u64>, Option<u64>),
    /// The declared tracks.
    pub tracks: Vec<TrackReport>,
}

/// A track of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackReport {
    /// Its number.
    pub number: u64,
    /// Its codec.
    pub codec_id: String,
    /// Its frames in the fragment.
    pub frames: u64,
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
    triggers: Triggers,
    ends: bool,
    producer_timestamp: Timestamp,
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
    between_triggers: Triggers,
    /// Of the bytes that the pending cluster holds, those in front of it.
    prefix_bytes: u64,
    refused_timecode: Option<u64>,
    /// The timecode before `previous`.
    before: Option<u64>,
    /// How much later fragments are taken to be than their timecodes say.
    shift_ms: i64,
    /// Where the fragment before ended, as taken.
    end: Option<Timestamp>,
    /// Milliseconds from the cluster's timecode to the latest frame.
    reached_ms: i64,
    /// The frames of the fragment that was closed last.
    closed: Vec<Span>,
    /// Index of the first video track.
    video: Option<usize>,
    /// The last key frame of that track.
    key_ms: Option<i64>,
    key_interval_ms: Option<i64>,
    taken: Vec<Leniency>,
    look_out: LookOut,
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
            between_triggers: Triggers::default(),
            prefix_bytes: 0,
            refused_timecode: None,
            before: None,
            shift_ms: 0,
            end: None,
            reached_ms: 0,
            closed: Vec::new(),
            video: None,
            key_ms: None,
            key_interval_ms: None,
            taken: Vec::new(),
            look_out: LookOut::default(),
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

    /// Which rules were relaxed since the last call, one entry for each time.
    pub fn take_leniencies(&mut self) -> Vec<Leniency> {
        std::mem::take(&mut self.taken)
    }

    /// Tracks without codec private data that were decided since the last call.
    pub fn take_in_band(&mut self) -> Vec<InBand> {
        self.look_out.take()
    }

    /// What was measured last. May be called after an error.
    pub fn report(&self) -> Report {
        let spans = match &self.section {
            Section::Open(open) => &open.spans,
            _ => &self.closed,
        };
        let tracks = self.tracks.iter().flat_map(|tracks| tracks.iter()).enumerate();
        let tracks = tracks.map(|(index, track)| TrackReport {
            number: track.number,
            codec_id: readable(&track.codec_id),
            frames: spans.get(index).map_or(0, |span| span.frames),
        });
        let video = self.video.and_then(|index| spans.get(index));
        let cluster_ms = self.millis(
            self.previous
                .and_then(|timecode| i64::try_from(timecode).ok())
                .unwrap_or(0),
        );
        let end_ms = cluster_ms.saturating_add(self.reached_ms);
        Report {
            span_ms: self.reached_ms,
            limit_ms: self.limits.fragment_duration_ms,
            key_interval_ms: self.key_interval_ms,
            since_key_ms: self.key_ms.map(|key_ms| end_ms.saturating_sub(key_ms)),
            frames_per_second: video.and_then(|span| span.frames_per_second(self.scale_ns)),
            timecodes: match self.refused_timecode {
                Some(refused) => (Some(refused), self.previous),
                None => (self.previous, self.before),
            },
            tracks: tracks.collect(),
        }
    }

    /// Takes the next event. After an error the machine must not be used again, except for [`Rules::report`].
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
                self.look_out.data(&bytes);
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
        self.video = tracks.iter().position(|track| track.kind == TrackKind::Video);
        self.look_out = LookOut::new(&tracks);
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
        let producer_timestamp = self.producer_timestamp(timecode)?;
        self.refused_timecode = None;
        self.before = self.previous.replace(timecode);
        self.reached_ms = 0;
        self.look_out.begin();
        first.iter().for_each(|bytes| self.look_out.data(bytes));
        self.section = Section::Open(Box::new(Open {
            bytes,
            prefix: std::mem::take(&mut self.prefix_bytes),
            frames: Vec::new(),
            spans: vec![Span::default(); self.tracks.as_ref().map_or(0, |tracks| tracks.len())],
            tags: std::mem::take(&mut self.between_tags),
            triggers: std::mem::take(&mut self.between_triggers),
            ends: false,
            producer_timestamp,
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

    /// When a fragment of that timecode was made.
    fn producer_timestamp(&mut self, timecode: u64) -> Result<Timestamp, AckError> {
        let sent = self.timecodes.producer_timestamp(timecode, self.scale_ns)?;
        if self.previous.is_some_and(|previous| timecode <= previous) {
            match (self.limits.backwards, self.end) {
                (Backwards::Refuse, _) => return Err(AckError::TimecodeNotGreater),
                (Backwards::Continue, Some(end)) => self.shift_ms = end.millis().saturating_sub(sent.millis()),
                (Backwards::Accept | Backwards::Continue, _) => {}
            }
            self.taken.push(Leniency::Timecodes);
        }
        let shifted = sent.millis().saturating_add(self.shift_ms);
        let legal = (0..=LAST_TIMESTAMP_MS).contains(&i128::from(shifted));
        let timestamp = legal.then_some(Timestamp::from_millis(shifted));
        timestamp.ok_or(AckError::InvalidProducerTimestamp)
    }

    fn block_start(&mut self, block: &Block) -> Result<(), AckError> {
        let Section::Open(open) = &self.section else {
            return Err(AckError::InvalidMkv);
        };
        if self.track(block.track).is_none() {
            return Err(AckError::TrackNumberMismatch);
        }
        if open.frames.len() >= limits::FRAGMENT_FRAMES {
            return Err(AckError::FragmentSize);
        }
        self.reached_ms = self.reached_ms.max(self.millis(i64::from(block.relative_time)));
        if self.reached_ms > self.limits.fragment_duration_ms {
            return Err(AckError::FragmentDuration);
        }
        Ok(())
    }

    fn block_end(&mut self, block: &Block) -> Result<(), AckError> {
        let (index, _) = self.track(block.track).ok_or(AckError::TrackNumberMismatch)?;
        let Section::Open(open) = &mut self.section else {
            return Err(AckError::InvalidMkv);
        };
        let offset = open.prefix + block.payload_offset;
        open.frames.push(FrameEntry {
            offset,
            length: block.payload_len,
            time: block.relative_time,
            track: block.track,
            key: block.key,
        });
        if let Some(span) = open.spans.get_mut(index) {
            span.add(i64::from(block.relative_time), block.duration);
        }
        self.look_out.frame(block, offset);
        if block.key && self.video == Some(index) {
            let time_ms = self.millis(block.time);
            let before = self.key_ms.replace(time_ms);
            let interval = before.map(|before| time_ms.saturating_sub(before));
            self.key_interval_ms = interval.filter(|interval| *interval > 0).or(self.key_interval_ms);
        }
        Ok(())
    }

    fn tag(&mut self, tag: &matroska::Tag) -> Result<(), AckError> {
        let (count, triggers) = match &mut self.section {
            Section::Open(open) => {
                open.ends |= tag.is_end_of_fragment();
                (&mut open.tags, &mut open.triggers)
            }
            Section::Between => (&mut self.between_tags, &mut self.between_triggers),
            _ => return Ok(()),
        };
        triggers.see(&tag.name);
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
        self.closed = open.spans;
        let silent = self.closed.iter().filter(|span| span.frames == 0).count();
        if silent > 0 {
            if !self.limits.allow_missing_tracks || silent == self.closed.len() {
                return Err(AckError::FramesMissing);
            }
            self.taken.push(Leniency::MissingTracks);
        }
        if self.reached_ms > limits::FRAGMENT_DURATION_MS {
            self.taken.push(Leniency::FragmentDuration);
        }
        let tracks = self.tracks.iter().flat_map(|tracks| tracks.iter());
        let ends = tracks
            .zip(&self.closed)
            .filter(|(_, span)| span.frames > 0)
            .map(|(track, span)| span.end_ns(track, self.scale_ns));
        let length_ns = ends.max().unwrap_or(0).max(0);
        let length_ms = u64::try_from((length_ns + 500_000) / 1_000_000).unwrap_or(u64::MAX);
        // Two fragments never begin at one moment because the first has no length.
        let lasts_ms = i64::try_from(length_ms).unwrap_or(i64::MAX).max(1);
        let end = open.producer_timestamp.millis().saturating_add(lasts_ms);
        self.end = Some(Timestamp::from_millis(end));
        Ok(Some(Step::Complete(Complete {
            length_ms,
            scale_ns: self.scale_ns,
            bytes: open.bytes,
            key_interval_ms: self.key_interval_ms,
            tracks_hash: self.tracks_hash,
            triggers: open.triggers,
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

/// A producer's text as it may stand in a log line.
pub(super) fn readable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(limits::LOGGED_CHARS).map(plain).collect()
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

    /// By the distance between its first and its last frame.
    fn frames_per_second(&self, scale_ns: u64) -> Option<f64> {
        let units = u32::try_from(self.last - self.first).ok().filter(|units| *units > 0)?;
        let frames = u32::try_from(self.frames.checked_sub(1)?).ok()?;
        let rate = f64::from(frames) * 1e9 / (f64::from(units) * scale_ns as f64);
        Some((rate * 100.0).round() / 100.0)
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
