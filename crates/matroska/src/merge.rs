//! Joins a run of documents, such as GetMedia returns one per fragment, into as few documents as possible.
//!
//! A document goes on the one before it if EBML header and Tracks are the same and its clusters are later: then
//! everything up to the end of its Tracks is left out and the rest (tags, clusters) is appended byte by byte. The rules
//! are those of the parser library that AWS gives to consumers, so that a file saved through either plays alike.

use bytes::{Bytes, BytesMut};

use crate::error::{Error, ErrorKind};
use crate::event::{EbmlHeader, Event, Tracks};
use crate::id;
use crate::limits::Limits;
use crate::number::{VarInt, read_id, read_varint};
use crate::reader::Reader;

/// How to merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Closes the gaps between clusters: each begins where the one before it ended, by the times of its frames.
    pub pack_clusters: bool,
    /// Ends the output at the first document that does not go on the one before it, instead of beginning a new one.
    pub stop_at_first_break: bool,
    /// Limits of the reader.
    pub limits: Limits,
}

/// Merges while the documents arrive. Holds at most one header section and one cluster's head.
pub struct Merger {
    reader: Reader,
    options: Options,
    /// The document being written.
    current: Option<(Option<EbmlHeader>, Option<Tracks>)>,
    /// Timecode, as read, of the last cluster written.
    last_timecode: Option<u64>,
    place: Place,
    /// The header section being read, until it is known whether it is written.
    header: Header,
    /// The cluster being read, until its timecode is known.
    cluster_head: BytesMut,
    pace: Pace,
    stopped: bool,
}

#[derive(Default)]
struct Header {
    ebml: Option<EbmlHeader>,
    tracks: Option<Tracks>,
    bytes: BytesMut,
    /// How many of `bytes` a document that goes on the one before it leaves out.
    repeated: usize,
    settled: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Header,
    ClusterHead,
    Cluster,
}

/// The times of a cluster's frames on its leading track.
#[derive(Default)]
struct Pace {
    leader: Option<u64>,
    earliest: i64,
    latest: i64,
    frames: i64,
    /// Where the packed cluster begins.
    packed_at: Option<u64>,
}

impl Pace {
    /// Where the cluster after this one begins: the last frame is taken to be as long as the others on average.
    fn next_cluster(&self) -> Option<u64> {
        let span = self.latest.saturating_sub(self.earliest);
        let last_frame = if self.frames > 1 { span / (self.frames - 1) } else { 1 };
        self.packed_at?.checked_add_signed(span.saturating_add(last_frame))
    }

    fn frame(&mut self, track: u64, time: i64) {
        if *self.leader.get_or_insert(track) != track {
            return;
        }
        self.earliest = if self.frames == 0 {
            time
        } else {
            self.earliest.min(time)
        };
        self.latest = if self.frames == 0 { time } else { self.latest.max(time) };
        self.frames += 1;
    }
}

impl Merger {
    /// A merger at the start of its input.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Merger {
            reader: Reader::new(options.limits.clone()),
            options,
            current: None,
            last_timecode: None,
            place: Place::Header,
            header: Header::default(),
            cluster_head: BytesMut::new(),
            pace: Pace::default(),
            stopped: false,
        }
    }

    /// Whether a break ended the output early.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes the next bytes and appends what can be written to `out`.
    ///
    /// # Errors
    /// The input is not Matroska, see [`Error`]. What was appended before stays valid.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), Error> {
        self.reader.push(chunk);
        self.drain(out)
    }

    /// Declares the end of the input and appends the rest to `out`.
    ///
    /// # Errors
    /// The input ends within an element, see [`Error`].
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), Error> {
        self.reader.finish();
        let drained = self.drain(out);
        self.end_section(out);
        drained
    }

    fn drain(&mut self, out: &mut Vec<Bytes>) -> Result<(), Error> {
        while let Some(event) = self.reader.next()? {
            if !self.stopped {
                self.event(event, out)?;
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event, out: &mut Vec<Bytes>) -> Result<(), Error> {
        match event {
            Event::Data(data) => match self.place {
                Place::Header => self.header.bytes.extend_from_slice(&data),
                Place::ClusterHead => self.hold(&data)?,
                Place::Cluster => out.push(data),
            },
            Event::DocumentStart { .. } => {
                self.end_section(out);
                self.header = Header::default();
                self.place = Place::Header;
            }
            Event::EbmlHeader(ebml) => self.header.ebml = Some(ebml),
            Event::SegmentStart { .. } => self.header.repeated = self.header.bytes.len(),
            Event::Tracks(tracks) => {
                self.pace.leader = tracks.first().map(|track| track.number);
                self.header.tracks = Some(tracks);
                self.header.repeated = self.header.bytes.len();
            }
            Event::ClusterStart { .. } => {
                if self.place == Place::ClusterHead {
                    self.end_section(out);
                }
                self.place = Place::ClusterHead;
            }
            Event::ClusterTimecode(timecode) => return self.begin_cluster(timecode, out),
            Event::BlockEnd(block) => self.pace.frame(block.track, block.time),
            _ => {}
        }
        Ok(())
    }

    /// Keeps bytes of a cluster whose timecode is not known yet.
    fn hold(&mut self, data: &[u8]) -> Result<(), Error> {
        let size = (self.cluster_head.len() + data.len()) as u64;
        let limit = self.options.limits.header_section_bytes_max;
        if size > limit {
            let offset = self.reader.position() - size;
            return Err(Error {
                offset,
                element: id::CLUSTER,
                kind: ErrorKind::TooLarge { size, limit },
            });
        }
        self.cluster_head.extend_from_slice(data);
        Ok(())
    }

    /// Writes what is held back when no cluster timecode came.
    fn end_section(&mut self, out: &mut Vec<Bytes>) {
        self.settle_header(None, out);
        if !self.stopped && !self.cluster_head.is_empty() {
            out.push(self.cluster_head.split().freeze());
        }
    }

    /// Decides whether the document goes on the one before it, and writes as much of its header as that needs.
    fn settle_header(&mut self, timecode: Option<u64>, out: &mut Vec<Bytes>) {
        if self.stopped || std::mem::replace(&mut self.header.settled, true) {
            return;
        }
        let mut bytes = self.header.bytes.split();
        if bytes.is_empty() {
            return;
        }
        let header = (self.header.ebml.take(), self.header.tracks.take());
        let later = match (self.last_timecode, timecode) {
            (Some(last), Some(timecode)) => timecode > last,
            _ => true,
        };
        if later && self.current.as_ref() == Some(&header) {
            drop(bytes.split_to(self.header.repeated.min(bytes.len())));
        } else if self.current.is_some() && self.options.stop_at_first_break {
            self.stopped = true;
            return;
        } else {
            self.current = Some(header);
            self.pace.packed_at = None;
        }
        if !bytes.is_empty() {
            out.push(bytes.freeze());
        }
    }

    fn begin_cluster(&mut self, timecode: u64, out: &mut Vec<Bytes>) -> Result<(), Error> {
        self.settle_header(Some(timecode), out);
        if self.stopped {
            return Ok(());
        }
        self.last_timecode = Some(timecode);
        self.place = Place::Cluster;
        let mut head = self.cluster_head.split();
        if self.options.pack_clusters {
            let packed_at = self.pace.next_cluster().unwrap_or(timecode);
            self.pace = Pace {
                leader: self.pace.leader,
                packed_at: Some(packed_at),
                ..Pace::default()
            };
            if !overwrite_timecode(&mut head, packed_at) {
                let offset = self.reader.position() - head.len() as u64;
                let kind = ErrorKind::Malformed("the timestamp has no room for the packed one");
                return Err(Error {
                    offset,
                    element: id::CLUSTER,
                    kind,
                });
            }
        }
        out.push(head.freeze());
        Ok(())
    }
}

/// Replaces the timecode at the end of a cluster's head by another of the same length.
fn overwrite_timecode(head: &mut BytesMut, timecode: u64) -> bool {
    let Some(at) = timecode_value_at(head) else {
        return false;
    };
    let Some(value) = head.get_mut(at..) else { return false };
    let bytes = timecode.to_be_bytes();
    let Some(from) = bytes.len().checked_sub(value.len()) else {
        return false;
    };
    let (above, low) = bytes.split_at(from);
    value.copy_from_slice(low);
    above.iter().all(|byte| *byte == 0)
}

/// Where the value of the timecode begins that ends this cluster's head.
fn timecode_value_at(head: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let VarInt::Read(id, id_len) = read_id(head.get(at..)?) else {
            return None;
        };
        let VarInt::Read(size, size_len) = read_varint(head.get(at + id_len..)?) else {
            return None;
        };
        at += id_len + size_len;
        match id {
            id::CLUSTER => {}
            id::TIMECODE => return Some(at),
            _ => at = at.checked_add(usize::try_from(size?).ok()?)?,
        }
    }
}
