//! Many fragments as one playable file. Sans-I/O: fragments in, bytes out.
//!
//! The file's clock runs with the producer's from the first fragment on, whatever each connection's timecodes counted
//! from: a stream that was sent over ten connections, or played in a loop, becomes one film. Frames are not copied and not
//! changed; codec private data and everything else about the tracks is the producer's, byte for byte.

use bytes::{BufMut, Bytes, BytesMut};
use matroska::{Tracks, id, writer};

use crate::reader::fragment::Fragment;

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
    scale_ns: u64,
    /// The producer's time, in nanoseconds, that is the file's time zero.
    origin_ns: i128,
    /// Where the last fragment ended in the file, in units of the timecode scale.
    end: i128,
    /// Offset of the duration's value in the output.
    duration_at: u64,
}

/// Bytes that a finished file should have in place of what was written: a value that is known only at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: Bytes,
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
        let scale = i128::from(start.timecode_scale_ns.max(1));
        let time_ns = match start.producer_timestamp {
            Some(time) => i128::from(time.millis()) * 1_000_000,
            None => i128::from(start.timecode) * scale,
        };
        match &self.document {
            Some(document) if document.tracks != start.tracks || document.scale_ns != start.timecode_scale_ns => {
                return Err(TracksChanged);
            }
            Some(_) => {}
            None => {
                let (head, duration_at) = file_head(fragment);
                self.document = Some(Document {
                    tracks: start.tracks.clone(),
                    scale_ns: start.timecode_scale_ns,
                    origin_ns: time_ns,
                    end: 0,
                    duration_at,
                });
                out.push(head);
            }
        }
        if let Some(document) = &mut self.document {
            let mut at = (time_ns - document.origin_ns) / scale;
            if at < document.end || self.options.close_gaps {
                at = document.end;
            }
            document.end = put_cluster(fragment, at, &mut out);
        }
        self.fragments += 1;
        self.written += out.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        Ok(out)
    }

    /// The duration, for a file that can be written to in its midst. Without it players find the end by reading.
    #[must_use]
    pub fn finish(&self) -> Option<Patch> {
        let document = self.document.as_ref()?;
        Some(Patch {
            offset: document.duration_at,
            bytes: Bytes::copy_from_slice(&(document.end as f64).to_be_bytes()),
        })
    }
}

/// EBML header, Segment, Info, and the producer's Tracks; and where the duration's value stands.
fn file_head(fragment: &Fragment) -> (Bytes, u64) {
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
    writer::put_element(&mut head, id::INFO, &info);
    let duration_at = head.len() as u64 - 8;
    let producers = header_of(fragment);
    match tracks_element(&producers) {
        Some(tracks) => head.put_slice(tracks),
        None => head.put_slice(&writer::header(&writer::StreamInfo::default(), &fragment.start.tracks)),
    }
    (head.freeze(), duration_at)
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

/// Appends a fragment's frames as a cluster at this time. Gives where it ends.
fn put_cluster(fragment: &Fragment, at: i128, out: &mut Vec<Bytes>) -> i128 {
    let base = i128::from(fragment.start.timecode);
    let timecode = u64::try_from(at).unwrap_or(0);
    let mut head = BytesMut::with_capacity(32);
    writer::put_cluster_head(&mut head, timecode);
    let (mut earliest, mut latest) = (i128::MAX, i128::MIN);
    let mut times = Vec::with_capacity(fragment.frames.len());
    let leader = fragment
        .start
        .video()
        .or(fragment.start.tracks.first())
        .map(|track| track.number);
    for frame in &fragment.frames {
        let relative = i128::from(frame.time) - base;
        let clamped = relative.clamp(i128::from(i16::MIN), i128::from(i16::MAX));
        let relative_time = i16::try_from(clamped).unwrap_or(0);
        writer::put_simple_block_head(&mut head, frame.track, relative_time, frame.key, frame.data.len());
        out.push(head.split().freeze());
        out.push(frame.data.clone());
        earliest = earliest.min(relative);
        latest = latest.max(relative);
        if leader.is_none_or(|leader| frame.track == leader) {
            times.push(relative);
        }
    }
    if !head.is_empty() {
        out.push(head.freeze());
    }
    // The last frame is taken to be as long as those before it on average.
    let count = i128::try_from(times.len()).unwrap_or(1);
    let (first, last) = (times.iter().min().copied(), times.iter().max().copied());
    let step = match (first, last) {
        (Some(first), Some(last)) if count > 1 => ((last - first) / (count - 1)).max(1),
        _ => 1,
    };
    i128::from(timecode) + latest.max(0) + step
}
