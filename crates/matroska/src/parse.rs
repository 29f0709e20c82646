//! Reads elements that were gathered whole: the EBML header, Info, Tracks, Targets and SimpleTag.
//!
//! Knows nothing of chunks; offsets in its errors are made absolute by the `base` that each walk starts with.

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::event::{Audio, EbmlHeader, Info, Tag, TagValue, Track, TrackKind, Tracks, Video};
use crate::id::{self, ElementId};
use crate::limits::Limits;
use crate::number::{VarInt, read_float, read_id, read_unsigned, read_varint};

/// An element within gathered bytes.
pub(crate) struct Child {
    pub id: ElementId,
    /// Offset of its id in the stream.
    pub offset: u64,
    /// Offset of its data in the stream.
    pub data_offset: u64,
    pub data: Bytes,
}

impl Child {
    fn fail(&self, kind: ErrorKind) -> Error {
        Error {
            offset: self.offset,
            element: self.id,
            kind,
        }
    }

    fn unsigned(&self) -> Result<u64, Error> {
        read_unsigned(&self.data).ok_or_else(|| self.fail(ErrorKind::InvalidNumber(self.data.len() as u64)))
    }

    fn float(&self) -> Result<f64, Error> {
        read_float(&self.data).ok_or_else(|| self.fail(ErrorKind::InvalidNumber(self.data.len() as u64)))
    }

    fn text(&self) -> String {
        text(&self.data)
    }

    fn children(&self) -> Children {
        Children::new(self.data.clone(), self.data_offset)
    }
}

/// A string as EBML holds it: ended by NULs, which producers do send.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// The elements of a gathered master, one after the other.
pub(crate) struct Children {
    rest: Bytes,
    at: u64,
}

impl Children {
    pub fn new(data: Bytes, base: u64) -> Self {
        Children { rest: data, at: base }
    }

    fn next(&mut self) -> Result<Option<Child>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let offset = self.at;
        let (id, id_len) = match read_id(&self.rest) {
            VarInt::Read(id, len) => (id, len),
            VarInt::Need(_) => return Err(cut_short(offset, ElementId::NONE)),
            VarInt::Invalid(byte) => {
                return Err(Error {
                    offset,
                    element: ElementId::NONE,
                    kind: ErrorKind::InvalidId(byte),
                });
            }
        };
        let (size, size_len) = match read_varint(self.rest.get(id_len..).unwrap_or_default()) {
            VarInt::Read(Some(size), len) => (size, len),
            VarInt::Read(None, _) => {
                return Err(Error {
                    offset,
                    element: id,
                    kind: ErrorKind::UnknownSize,
                });
            }
            VarInt::Need(_) => return Err(cut_short(offset, id)),
            VarInt::Invalid(_) => {
                return Err(Error {
                    offset,
                    element: id,
                    kind: ErrorKind::InvalidSize,
                });
            }
        };
        let head = id_len + size_len;
        let available = (self.rest.len() - head) as u64;
        let data_offset = offset + head as u64;
        let size = match usize::try_from(size) {
            Ok(len) if size <= available => len,
            _ => {
                let kind = ErrorKind::BeyondParent {
                    end: data_offset.saturating_add(size),
                    parent_end: data_offset + available,
                };
                return Err(Error {
                    offset,
                    element: id,
                    kind,
                });
            }
        };
        let data = self.rest.slice(head..head + size);
        self.rest = self.rest.slice(head + size..);
        self.at = data_offset + size as u64;
        Ok(Some(Child {
            id,
            offset,
            data_offset,
            data,
        }))
    }
}

fn cut_short(offset: u64, element: ElementId) -> Error {
    Error {
        offset,
        element,
        kind: ErrorKind::Malformed("its head reaches beyond the end of its parent"),
    }
}

pub(crate) fn ebml_header(master: &Child) -> Result<EbmlHeader, Error> {
    let mut header = EbmlHeader {
        doc_type: "matroska".to_owned(),
        doc_type_version: 1,
        doc_type_read_version: 1,
    };
    let mut children = master.children();
    while let Some(child) = children.next()? {
        match child.id {
            id::DOC_TYPE => header.doc_type = child.text(),
            id::DOC_TYPE_VERSION => header.doc_type_version = child.unsigned()?,
            id::DOC_TYPE_READ_VERSION => header.doc_type_read_version = child.unsigned()?,
            id::EBML_READ_VERSION if child.unsigned()? > 1 => {
                return Err(child.fail(ErrorKind::Malformed("only EBML version 1 can be read")));
            }
            id::EBML_MAX_ID_LENGTH if child.unsigned()? > 4 => {
                return Err(child.fail(ErrorKind::Malformed("ids of more than 4 bytes cannot be read")));
            }
            id::EBML_MAX_SIZE_LENGTH if child.unsigned()? > 8 => {
                return Err(child.fail(ErrorKind::Malformed("sizes of more than 8 bytes cannot be read")));
            }
            _ => {}
        }
    }
    Ok(header)
}

pub(crate) fn info(master: &Child) -> Result<Info, Error> {
    let mut info = Info {
        timecode_scale_ns: 1_000_000,
        duration: None,
        title: String::new(),
        muxing_app: String::new(),
        writing_app: String::new(),
        segment_uid: Bytes::new(),
    };
    let mut children = master.children();
    while let Some(child) = children.next()? {
        match child.id {
            id::TIMECODE_SCALE => {
                info.timecode_scale_ns = child.unsigned()?;
                if info.timecode_scale_ns == 0 {
                    return Err(child.fail(ErrorKind::Malformed("a timecode scale of 0")));
                }
            }
            id::DURATION => info.duration = Some(child.float()?),
            id::TITLE => info.title = child.text(),
            id::MUXING_APP => info.muxing_app = child.text(),
            id::WRITING_APP => info.writing_app = child.text(),
            id::SEGMENT_UID => info.segment_uid = child.data,
            _ => {}
        }
    }
    Ok(info)
}

pub(crate) fn tracks(master: &Child, limits: &Limits) -> Result<Tracks, Error> {
    let mut tracks: Vec<Track> = Vec::new();
    let mut children = master.children();
    while let Some(child) = children.next()? {
        if child.id != id::TRACK_ENTRY {
            continue;
        }
        if tracks.len() >= limits.tracks_max {
            let kind = ErrorKind::TooLarge {
                size: tracks.len() as u64 + 1,
                limit: limits.tracks_max as u64,
            };
            return Err(Error {
                element: id::TRACKS,
                offset: child.offset,
                kind,
            });
        }
        let track = track(&child)?;
        if tracks.iter().any(|other| other.number == track.number) {
            return Err(child.fail(ErrorKind::Malformed("two tracks have the same number")));
        }
        tracks.push(track);
    }
    Ok(tracks.into())
}

fn track(entry: &Child) -> Result<Track, Error> {
    let mut track = Track {
        number: 0,
        uid: 0,
        kind: TrackKind::Other(0),
        codec_id: String::new(),
        codec_private: Bytes::new(),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: None,
        audio: None,
    };
    let mut children = entry.children();
    while let Some(child) = children.next()? {
        match child.id {
            id::TRACK_NUMBER => track.number = child.unsigned()?,
            id::TRACK_UID => track.uid = child.unsigned()?,
            id::TRACK_TYPE => track.kind = kind(child.unsigned()?),
            id::CODEC_ID => track.codec_id = child.text(),
            id::CODEC_PRIVATE => track.codec_private = child.data,
            id::TRACK_NAME => track.name = child.text(),
            id::LANGUAGE => track.language = child.text(),
            id::DEFAULT_DURATION => track.default_duration_ns = Some(child.unsigned()?).filter(|ns| *ns > 0),
            id::CONTENT_ENCODINGS => track.encoded = !child.data.is_empty(),
            id::VIDEO => track.video = Some(video(&child)?),
            id::AUDIO => track.audio = Some(audio(&child)?),
            _ => {}
        }
    }
    if track.number == 0 {
        return Err(entry.fail(ErrorKind::Missing("TrackNumber")));
    }
    Ok(track)
}

fn kind(value: u64) -> TrackKind {
    match value {
        1 => TrackKind::Video,
        2 => TrackKind::Audio,
        17 => TrackKind::Subtitle,
        other => TrackKind::Other(other),
    }
}

fn video(master: &Child) -> Result<Video, Error> {
    let mut video = Video { width: 0, height: 0 };
    let mut children = master.children();
    while let Some(child) = children.next()? {
        match child.id {
            id::PIXEL_WIDTH => video.width = child.unsigned()?,
            id::PIXEL_HEIGHT => video.height = child.unsigned()?,
            _ => {}
        }
    }
    Ok(video)
}

fn audio(master: &Child) -> Result<Audio, Error> {
    let mut audio = Audio {
        sampling_hz: 8000.0,
        channels: 1,
        bit_depth: None,
    };
    let mut children = master.children();
    while let Some(child) = children.next()? {
        match child.id {
            id::SAMPLING_FREQUENCY => audio.sampling_hz = child.float()?,
            id::CHANNELS => audio.channels = child.unsigned()?,
            id::BIT_DEPTH => audio.bit_depth = Some(child.unsigned()?),
            _ => {}
        }
    }
    Ok(audio)
}

/// The first TagTrackUID of a Targets element.
pub(crate) fn targets(master: &Child) -> Result<Option<u64>, Error> {
    let mut children = master.children();
    while let Some(child) = children.next()? {
        if child.id == id::TAG_TRACK_UID {
            return child.unsigned().map(Some);
        }
    }
    Ok(None)
}

/// Nested SimpleTags are followed this deep; deeper ones are carried in the bytes alone.
const TAG_DEPTH_MAX: usize = 4;

/// Tags told of one SimpleTag with all that is nested in it; more are carried in the bytes alone.
const TAGS_IN_TAG_MAX: usize = 256;

/// Reads a SimpleTag and those within it, the outer one first.
pub(crate) fn simple_tag(master: &Child, track_uid: Option<u64>, found: &mut impl FnMut(Tag)) -> Result<(), Error> {
    let mut left = TAGS_IN_TAG_MAX;
    simple_tag_at(master, track_uid, 0, &mut |tag| {
        if left > 0 {
            left -= 1;
            found(tag);
        }
    })
}

fn simple_tag_at(
    master: &Child,
    track_uid: Option<u64>,
    depth: usize,
    found: &mut dyn FnMut(Tag),
) -> Result<(), Error> {
    let mut tag = Tag {
        name: String::new(),
        value: TagValue::None,
        track_uid,
        nested: depth > 0,
    };
    let mut within = false;
    let mut children = master.children();
    while let Some(child) = children.next()? {
        match child.id {
            id::TAG_NAME => tag.name = child.text(),
            id::TAG_STRING => tag.value = TagValue::String(child.data),
            id::TAG_BINARY => tag.value = TagValue::Binary(child.data),
            id::SIMPLE_TAG => within = true,
            _ => {}
        }
    }
    found(tag);
    if within && depth < TAG_DEPTH_MAX {
        let mut children = master.children();
        while let Some(child) = children.next()? {
            if child.id == id::SIMPLE_TAG {
                simple_tag_at(&child, track_uid, depth + 1, found)?;
            }
        }
    }
    Ok(())
}
