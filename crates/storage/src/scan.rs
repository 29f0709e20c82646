//! Reads one segment from end to end and tells frames from damage. It draws no conclusion about streams; recovery and
//! fsck do. It never trusts a length that it has not checked, and takes no more memory than one frame.

use std::io;
use std::sync::Arc;

use base::DiskFile;
use bytes::Bytes;

use crate::FragmentNumber;
use crate::frame::{ALIGN, BLOCK, HEADER, Header, Kind};
use crate::index::Entry;
use crate::lane::entry_of;
use crate::payload::{Commit, Extent, SegmentStart};
use crate::state::Place;

/// A frame that was found where it says it belongs.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub header: Header,
    /// Verified payload of a control frame.
    pub payload: Option<Bytes>,
    /// What a commit frame says, without its frame index.
    pub commit: Option<Box<Entry<Place>>>,
    /// False if the payload was looked at and does not fit its checksum.
    pub sound: bool,
}

/// A stretch without believable frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub from: u64,
    pub to: u64,
}

/// What a segment's file holds.
#[derive(Debug)]
pub(crate) struct Scan {
    pub id: u64,
    pub salt: u32,
    pub start: Option<SegmentStart>,
    pub frames: Vec<Frame>,
    /// Damage between frames.
    pub gaps: Vec<Gap>,
    /// End of the last believable frame.
    pub end: u64,
    /// The highest offset that any frame states as durable.
    pub proven: u64,
}

/// Reads a file in large steps, since frames are small and many.
pub(crate) struct Window<'a> {
    file: &'a Arc<dyn DiskFile>,
    len: u64,
    from: u64,
    bytes: Vec<u8>,
}

/// Bytes read ahead: a header and most control payloads at first, more where damage is searched.
pub(crate) const STEP: usize = 16 << 10;
const SEARCH_STEP: usize = 1 << 20;

impl<'a> Window<'a> {
    pub fn new(file: &'a Arc<dyn DiskFile>, len: u64) -> Self {
        Window {
            file,
            len,
            from: 0,
            bytes: Vec::new(),
        }
    }

    /// `len` bytes at `offset`, or fewer at the end of the file.
    pub fn get(&mut self, offset: u64, len: usize, ahead: usize) -> io::Result<&[u8]> {
        let end = (offset + len as u64).min(self.len);
        let held = self.from <= offset && end <= self.from + self.bytes.len() as u64;
        if !held {
            let wanted = len
                .max(ahead)
                .min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(0));
            self.bytes.resize(wanted, 0);
            let got = self.file.read_at(&mut self.bytes, offset)?;
            self.bytes.truncate(got);
            self.from = offset;
        }
        let at = usize::try_from(offset.saturating_sub(self.from)).unwrap_or(0);
        let rest = self.bytes.get(at..).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }
}

/// What makes a header belong to this segment.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub id: u64,
    pub salt: u32,
}

pub(crate) fn belongs(header: &Header, who: Identity, offset: u64, file_len: u64) -> bool {
    header.segment == who.id && header.salt == who.salt && header.offset == offset && header.end() <= file_len
}

/// Which payloads are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Those of control frames and commits.
    Control,
    /// All.
    Everything,
}

/// Finds out which segment a file holds, by its first frame.
fn identify(window: &mut Window<'_>) -> io::Result<Option<(Identity, Option<SegmentStart>)>> {
    let block = window.get(0, BLOCK as usize, STEP)?;
    let header = Header::decode(block).filter(|h| h.kind == Kind::Segment && h.offset == 0);
    if let Some(header) = header {
        let payload = block.get(HEADER..HEADER + header.payload_len as usize);
        let sound = payload
            .filter(|p| crc32c::crc32c(p) == header.payload_crc)
            .and_then(SegmentStart::decode);
        let who = Identity {
            id: header.segment,
            salt: header.salt,
        };
        return Ok(Some((who, sound)));
    }
    // The first frame is damaged, or was never written: the newest segment with frames in the file is it.
    let mut best: Option<Identity> = None;
    let mut offset = 0;
    while let Some(header) = search(window, offset, &|h, at| h.offset == at)? {
        offset = header.offset + ALIGN;
        if best.is_none_or(|b| header.segment > b.id) {
            best = Some(Identity {
                id: header.segment,
                salt: header.salt,
            });
        }
    }
    Ok(best.map(|who| (who, None)))
}

/// The frame that opens a segment, if it is good.
pub(crate) fn head(file: &Arc<dyn DiskFile>) -> io::Result<Option<(Header, SegmentStart)>> {
    let mut window = Window::new(file, file.len()?);
    let block = window.get(0, BLOCK as usize, BLOCK as usize)?;
    let header = Header::decode(block).filter(|h| h.kind == Kind::Segment && h.offset == 0);
    Ok(header.and_then(|header| {
        let payload = block.get(HEADER..HEADER + header.payload_len as usize)?;
        let start = Some(payload).filter(|p| crc32c::crc32c(p) == header.payload_crc);
        Some((header, SegmentStart::decode(start?)?))
    }))
}

/// The first acceptable header at or behind `offset`, in steps of the alignment.
pub(crate) fn search(
    window: &mut Window<'_>,
    offset: u64,
    accept: &dyn Fn(&Header, u64) -> bool,
) -> io::Result<Option<Header>> {
    let mut at = offset.next_multiple_of(ALIGN);
    let mut looked_ahead = at;
    while at + HEADER as u64 <= window.len {
        // Space that was set aside and never written need not be read.
        if at >= looked_ahead {
            match window.file.next_data(at)? {
                Some(data) => at = at.max(data / ALIGN * ALIGN),
                None => return Ok(None),
            }
            looked_ahead = at + SEARCH_STEP as u64;
            if at + HEADER as u64 > window.len {
                return Ok(None);
            }
        }
        let bytes = window.get(at, HEADER, SEARCH_STEP)?;
        if bytes.first() == Some(&b'S')
            && let Some(header) = Header::decode(bytes).filter(|h| accept(h, at))
        {
            return Ok(Some(header));
        }
        at += ALIGN;
    }
    Ok(None)
}

/// Scans a file. `None` if it holds no frame at all.
pub(crate) fn scan(file: &Arc<dyn DiskFile>, depth: Depth) -> io::Result<Option<Scan>> {
    let file_len = file.len()?;
    let mut window = Window {
        file,
        len: file_len,
        from: 0,
        bytes: Vec::new(),
    };
    let Some((who, start)) = identify(&mut window)? else {
        return Ok(None);
    };
    let mut scan = Scan {
        id: who.id,
        salt: who.salt,
        start,
        frames: Vec::new(),
        gaps: Vec::new(),
        end: 0,
        proven: 0,
    };
    let mut epoch = 0;
    loop {
        let offset = scan.end;
        let bytes = window.get(offset, HEADER, STEP)?;
        let here = Header::decode(bytes).filter(|h| belongs(h, who, offset, file_len) && h.epoch >= epoch);
        let header = match here {
            Some(header) => header,
            None => {
                let later = |h: &Header, at| belongs(h, who, at, file_len) && h.epoch >= epoch;
                let Some(header) = search(&mut window, offset + ALIGN, &later)? else {
                    break;
                };
                scan.gaps.push(Gap {
                    from: offset,
                    to: header.offset,
                });
                header
            }
        };
        epoch = header.epoch;
        scan.proven = scan.proven.max(header.proven.min(file_len));
        scan.end = header.end();
        let wanted = depth == Depth::Everything || !header.kind.is_bulk();
        let (payload, sound) = if wanted {
            read_payload(&mut window, &header)?
        } else {
            (None, true)
        };
        let mut frame = Frame {
            header,
            payload,
            commit: None,
            sound,
        };
        if header.kind == Kind::Commit && sound {
            frame.commit = frame.payload.take().and_then(|p| commit_of(&header, &p)).map(Box::new);
            frame.sound = frame.commit.is_some();
        }
        scan.frames.push(frame);
        if header.kind == Kind::Seal && sound {
            break;
        }
    }
    Ok(Some(scan))
}

fn commit_of(header: &Header, payload: &[u8]) -> Option<Entry<Place>> {
    let subject = header.subject;
    let number = FragmentNumber::new(subject.a, subject.b, subject.c);
    // Nothing counts so far; the index on disk holds numbers with a sign.
    let counted = |number: u64| i64::try_from(number).is_ok_and(|number| number < i64::MAX);
    let commit = Commit::decode(payload).filter(|commit| counted(commit.position));
    commit
        .filter(|_| counted(subject.a) && counted(header.stream))
        .map(|commit| entry_of(number, &commit, place_of(header)))
}

/// A frame's place.
pub(crate) fn place_of(header: &Header) -> Extent {
    Extent {
        segment: header.segment,
        offset: u32::try_from(header.offset).unwrap_or(u32::MAX),
        len: header.payload_len,
    }
}

fn read_payload(window: &mut Window<'_>, header: &Header) -> io::Result<(Option<Bytes>, bool)> {
    let len = header.payload_len as usize;
    let bytes = window.get(header.offset + HEADER as u64, len, STEP)?;
    if bytes.len() != len || crc32c::crc32c(bytes) != header.payload_crc {
        return Ok((None, false));
    }
    let keep = !header.kind.is_bulk();
    Ok((keep.then(|| Bytes::copy_from_slice(bytes)), true))
}

/// Verifies a bulk frame's payload.
pub(crate) fn verify(file: &Arc<dyn DiskFile>, header: &Header) -> io::Result<bool> {
    let mut payload = vec![0; header.payload_len as usize];
    let got = file.read_at(&mut payload, header.offset + HEADER as u64)?;
    Ok(got == payload.len() && crc32c::crc32c(&payload) == header.payload_crc)
}
