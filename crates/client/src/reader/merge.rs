//! Many fragments as one playable file. Sans-I/O: fragments in, bytes out.
//!
//! The file's clock runs with the producer's from the first fragment on, whatever each connection's timecodes counted
//! from: a stream that was sent over ten connections, or played in a loop, becomes one film. Frames are not copied and not
//! changed; codec private data and everything else about the tracks is the producer's, byte for byte. A finished file has
//! a seek index (Cues, RFC 9559 section 22) behind its last cluster.

use bytes::{BufMut, Bytes, BytesMut};
use matroska::{Tracks, id, writer};

use crate::reader::cues::{Cue, CueList, seek_head, seek_head_space};
use crate::reader::fragment::{Fragment, Frame};

/// A longer time without pictures is a gap; a shorter one is jitter, as a playlist's discontinuities are counted.
const GAP_NS: u64 = 50_000_000;

/// Pictures of two fragments that lie over each other for longer belong to different recordings.
const OVERLAP_NS: u64 = 500_000_000;

/// How fragments are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeOptions {
    /// Leaves out the time in which nothing was recorded, instead of showing the last picture for so long.
    pub close_gaps: bool,
}

/// Joins fragments.
#[derive(Debug, Default)]
pub struct Merge {
    options: MergeOptions,
    document: Option<Document>,
    written: u64,
    fragments: u64,
}

#[derive(Debug)]
struct Document {
    tracks: Tracks,
    placement: Placement,
    places: Places,
    cues: CueList,
}

/// Where in a film each fragment goes: there, where the producer's clock says, as long as its pictures follow those
/// before it.
#[derive(Clone, Debug)]
pub struct Placement {
    scale_ns: u64,
    /// The producer's time, in nanoseconds, that is the film's time zero.
    origin_ns: i128,
    /// What was left out of the producer's time, in units of the timecode scale.
    left_out: i128,
    /// Of the fragment before, in the film.
    last: Option<Span>,
    /// Where the film ends.
    end: i128,
}

/// When a fragment's pictures (its frames, where it has none) begin and end, in units of the timecode scale.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: i128,
    /// The last one is taken to be as long as those before it on average.
    end: i128,
    /// Everything ends: sound may be sent ahead of the pictures.
    all: i128,
}

/// Offsets in the output of what is known only at the end, or is pointed to.
#[derive(Debug)]
struct Places {
    /// The Segment's data; positions in the file count from here. Its size stands in the 8 bytes before.
    segment: u64,
    /// The space for the SeekHead.
    seek_head: u64,
    info: u64,
    tracks: u64,
    /// The duration's value.
    duration: u64,
}

/// Bytes that a finished file should have in place of what was written: a value that is known only at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: Bytes,
}

/// What makes a file that can be written to in its midst whole. Without it players find the end by reading, and seek by
/// guessing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// To be appended: the seek index.
    pub tail: Bytes,
    /// To be put in place: the file's length in time and in bytes, and where its seek index lies.
    pub patches: Vec<Patch>,
}

/// Nothing is joined: the fragment's tracks are others than those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tracks change here; what follows needs a file of its own")]
pub struct TracksChanged;

impl Merge {
    /// At the start of a file.
    #[must_use]
    pub fn new(options: MergeOptions) -> Self {
        Merge {
            options,
            ..Merge::default()
        }
    }

    /// Fragments that were joined.
    #[must_use]
    pub fn fragments(&self) -> u64 {
        self.fragments
    }

    /// Bytes that were given.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends a fragment; gives the bytes to append to the file.
    ///
    /// # Errors
    /// Its tracks are not those of the file. Begin another [`Merge`] with it.
    pub fn push(&mut self, fragment: &Fragment) -> Result<Vec<Bytes>, TracksChanged> {
        let mut out = Vec::with_capacity(2 * fragment.frames.len() + 1);
        let start = &fragment.start;
        match &self.document {
            Some(document)
                if document.tracks != start.tracks || document.placement.scale_ns != start.timecode_scale_ns =>
            {
                return Err(TracksChanged);
            }
            Some(_) => {}
            None => {
                let (head, places) = file_head(fragment);
                self.document = Some(Document {
                    tracks: start.tracks.clone(),
                    placement: Placement::new(fragment),
                    places,
                    cues: CueList::default(),
                });
                out.push(head);
            }
        }
        if let Some(document) = &mut self.document {
            let at = document.placement.place(fragment, self.options.close_gaps);
            let cluster_at = self.written + length(&out) - document.places.segment;
            let timecode = u64::try_from(at).unwrap_or(0);
            put_cluster(fragment, timecode, &mut out);
            document.cues.add(cue(fragment, timecode, cluster_at));
        }
        self.fragments += 1;
        self.written += length(&out);
        Ok(out)
    }

    /// What a file that can be written to in its midst gets when nothing follows. `None` before the first fragment.
    #[must_use]
    pub fn finish(&self) -> Option<Ending> {
        let Document {
            places,
            placement,
            cues,
            ..
        } = self.document.as_ref()?;
        let tail = cues.element();
        let ends = self.written + tail.len() as u64;
        let mut size = BytesMut::new();
        writer::put_size_in(&mut size, ends - places.segment, 8);
        let cues_at = (!tail.is_empty()).then(|| self.written - places.segment);
        let [info, tracks] = [places.info, places.tracks].map(|at| at - places.segment);
        let patches = [
            (places.segment - 8, size.freeze()),
            (places.seek_head, seek_head(info, tracks, cues_at)),
            (
                places.duration,
                Bytes::copy_from_slice(&(placement.end as f64).to_be_bytes()),
            ),
        ];
        let patches = patches.into_iter().map(|(offset, bytes)| Patch { offset, bytes });
        Some(Ending {
            tail,
            patches: patches.collect(),
        })
    }
}

/// When its producer's clock says that a fragment begins, in nanoseconds.
fn time_ns(fragment: &Fragment) -> i128 {
    let start = &fragment.start;
    match start.producer_timestamp {
        Some(time) => i128::from(time.millis()) * 1_000_000,
        None => i128::from(start.timecode) * i128::from(start.timecode_scale_ns.max(1)),
    }
}

impl Placement {
    /// Of a film that begins with this fragment.
    #[must_use]
    pub fn new(fragment: &Fragment) -> Self {
        let scale_ns = fragment.start.timecode_scale_ns;
        // Sound that begins before the first picture is not before the film.
        let earliest = fragment.frames.iter().map(|frame| relative(fragment, frame)).min();
        Placement {
            scale_ns,
            origin_ns: time_ns(fragment) + earliest.unwrap_or(0).min(0) * i128::from(scale_ns.max(1)),
            left_out: 0,
            last: None,
            end: 0,
        }
    }

    /// The place of the next fragment's cluster, in units of the timecode scale since the film's beginning. A little jitter
    /// between fragments is the camera's and stays, as does what encoders that reorder pictures make of the border between
    /// two fragments.
    pub fn place(&mut self, fragment: &Fragment, close_gaps: bool) -> i128 {
        let span = span(fragment);
        let at = (time_ns(fragment) - self.origin_ns) / i128::from(self.scale_ns.max(1));
        let units = |ns: u64| i128::from(ns / self.scale_ns.max(1));
        let mut placed = at - self.left_out;
        if let Some(last) = self.last {
            let begin = placed + span.begin;
            let goes_back = begin <= last.begin || begin + units(OVERLAP_NS) < last.end;
            let closes = close_gaps && begin > last.end + units(GAP_NS);
            if goes_back || closes {
                placed = last.end - span.begin;
                if close_gaps {
                    self.left_out = at - placed;
                }
            }
        }
        self.last = Some(Span {
            begin: placed + span.begin,
            end: placed + span.end,
            all: placed + span.all,
        });
        self.end = self.end.max(placed + span.all);
        placed
    }
}

/// A frame's time after its fragment's, in units of the timecode scale.
fn relative(fragment: &Fragment, frame: &Frame) -> i128 {
    i128::from(frame.time) - i128::from(fragment.start.timecode)
}

fn length(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|bytes| bytes.len() as u64).sum()
}

/// EBML header, Segment, space for the SeekHead, Info, and the producer's Tracks.
fn file_head(fragment: &Fragment) -> (Bytes, Places) {
    const DURATION: [u8; 3] = [0x44, 0x89, 0x88];
    let mut info = BytesMut::new();
    writer::put_unsigned(&mut info, id::TIMECODE_SCALE, fragment.start.timecode_scale_ns);
    writer::put_element(&mut info, id::MUXING_APP, b"sightglass");
    writer::put_element(&mut info, id::WRITING_APP, b"sightglass");
    info.put_slice(&DURATION);
    info.put_f64(0.0);
    let mut head = BytesMut::new();
    head.put_slice(writer::EBML_HEADER);
    head.put_slice(writer::SEGMENT_HEAD_UNKNOWN_SIZE);
    let segment = head.len() as u64;
    head.put_slice(&seek_head_space());
    let info_at = head.len() as u64;
    writer::put_element(&mut head, id::INFO, &info);
    let tracks = head.len() as u64;
    let places = Places {
        segment,
        seek_head: segment,
        info: info_at,
        tracks,
        duration: tracks - 8,
    };
    let producers = header_of(fragment);
    match tracks_element(&producers) {
        Some(tracks) => head.put_slice(tracks),
        None => {
            let whole = writer::header(&writer::StreamInfo::default(), &fragment.start.tracks);
            head.put_slice(tracks_element(&whole).unwrap_or_default());
        }
    }
    (head.freeze(), places)
}

/// Where a player may enter the fragment: at its first frame that can be decoded alone. Producers flag no audio, of which
/// every frame can.
fn cue(fragment: &Fragment, timecode: u64, cluster_at: u64) -> Option<Cue> {
    let video = fragment.start.video().map(|track| track.number);
    let entry = |frame: &&Frame| video.is_none_or(|video| frame.track == video && frame.key);
    let frame = fragment.frames.iter().find(entry)?;
    Some(Cue {
        time: u64::try_from(i128::from(timecode) + relative(fragment, frame)).unwrap_or(0),
        track: frame.track,
        cluster_at,
    })
}

fn header_of(fragment: &Fragment) -> BytesMut {
    let mut header = BytesMut::with_capacity(fragment.header_len);
    for piece in &fragment.document {
        let left = fragment.header_len - header.len();
        header.extend_from_slice(piece.get(..left.min(piece.len())).unwrap_or_default());
    }
    header
}

/// The Tracks element of a document's header, whole.
fn tracks_element(header: &[u8]) -> Option<&[u8]> {
    const SEGMENT: u64 = 0x1853_8067;
    const TRACKS: u64 = 0x1654_AE6B;
    let mut at = 0;
    loop {
        let (id, id_len) = vint(header, at, false)?;
        let (size, size_len) = vint(header, at + id_len, true)?;
        let data = at + id_len + size_len;
        if id == SEGMENT {
            at = data;
            continue;
        }
        let end = data.checked_add(usize::try_from(size).ok()?)?;
        if id == TRACKS {
            return header.get(at..end);
        }
        at = end;
    }
}

/// A variable-length integer and its length; `marked` takes the length's mark off.
fn vint(bytes: &[u8], at: usize, marked: bool) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let len = first.leading_zeros() as usize + 1;
    let field = bytes.get(at..at.checked_add(len)?).filter(|_| len <= 8)?;
    let value = field.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    let mask = if marked { (1_u64 << (7 * len)) - 1 } else { u64::MAX };
    Some((value & mask, len))
}

/// When its pictures and its frames begin and end, after the time of its cluster.
fn span(fragment: &Fragment) -> Span {
    let all = || fragment.frames.iter().map(|frame| relative(fragment, frame));
    let leader = fragment.start.video().or(fragment.start.tracks.first());
    let leads = |frame: &&Frame| leader.is_none_or(|leader| frame.track == leader.number);
    let mut times: Vec<i128> = fragment
        .frames
        .iter()
        .filter(leads)
        .map(|frame| relative(fragment, frame))
        .collect();
    if times.is_empty() {
        times.extend(all());
    }
    let begin = times.iter().min().copied().unwrap_or(0);
    let last = times.iter().max().copied().unwrap_or(0);
    let step = i128::try_from(times.len())
        .ok()
        .and_then(|count| (last - begin).checked_div(count - 1))
        .unwrap_or(1)
        .max(1);
    Span {
        begin,
        end: last + step,
        all: all().max().unwrap_or(0).max(last + step),
    }
}

/// Appends a fragment's frames as a cluster at this time.
fn put_cluster(fragment: &Fragment, timecode: u64, out: &mut Vec<Bytes>) {
    let mut body = Vec::with_capacity(2 * fragment.frames.len());
    let mut head = BytesMut::with_capacity(32);
    for frame in &fragment.frames {
        let clamped = relative(fragment, frame).clamp(i128::from(i16::MIN), i128::from(i16::MAX));
        let relative_time = i16::try_from(clamped).unwrap_or(0);
        writer::put_simple_block_head(&mut head, frame.track, relative_time, frame.key, frame.data.len());
        body.push(head.split().freeze());
        body.push(frame.data.clone());
    }
    let mut time = BytesMut::new();
    writer::put_unsigned(&mut time, id::TIMECODE, timecode);
    writer::put_id(&mut head, id::CLUSTER);
    writer::put_size(&mut head, time.len() as u64 + length(&body));
    head.put_slice(&time);
    out.push(head.freeze());
    out.append(&mut body);
}
