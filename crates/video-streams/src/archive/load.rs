//! Loads one fragment. Memory: its payload once, and once more where it must be rewritten.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use matroska::codec::LengthPrefixed;
use matroska::{Event, Lacing, Limits, Reader, Track, TrackKind, Tracks, lacing};
use packaging::frame::{AdtsHead, put_annex_b_as_lengths};
use packaging::{Frame, Framing, MediaKind, PackagingError, Sample, TrackConfig, timeline};
use storage::{FragmentInfo, FrameEntry, MediaStore, StreamId};

use crate::error::MediaError;
use crate::ingest::leniency::IngestSettings;
use crate::limits;
use crate::state::StreamState;

/// A stored fragment, ready to be packaged.
#[derive(Clone, Debug)]
pub struct ArchivedFragment {
    /// What a listing says of it.
    pub info: FragmentInfo,
    /// What its header declares.
    pub header: Header,
    /// Its video and audio tracks in the order in which they are declared.
    pub tracks: Vec<ArchivedTrack>,
    /// What the samples' ranges mean.
    pub payload: Bytes,
}

/// One track of a fragment.
#[derive(Clone, Debug)]
pub struct ArchivedTrack {
    /// What a player must know.
    pub config: Arc<TrackConfig>,
    /// Its frames; empty where the fragment has none of this track.
    pub samples: Vec<Sample>,
}

impl ArchivedFragment {
    /// The track of that number.
    pub fn track(&self, number: u64) -> Option<&ArchivedTrack> {
        self.tracks.iter().find(|track| track.config.number() == number)
    }

    /// The first track with pictures.
    pub fn video(&self) -> Option<&ArchivedTrack> {
        self.of_kind(MediaKind::Video)
    }

    /// The first track with sound.
    pub fn audio(&self) -> Option<&ArchivedTrack> {
        self.of_kind(MediaKind::Audio)
    }

    fn of_kind(&self, kind: MediaKind) -> Option<&ArchivedTrack> {
        self.tracks.iter().find(|track| track.config.kind() == kind)
    }
}

/// What a fragment's Matroska header declares.
#[derive(Clone, Debug)]
pub struct Header {
    /// All tracks.
    pub tracks: Tracks,
    /// Nanoseconds of one unit of time.
    pub scale_ns: u64,
}

/// Reads and parses a fragment's header alone.
///
/// # Errors
/// Storage's; `UnsupportedCodec` where no track can be read.
pub async fn header(store: &dyn MediaStore, stream: StreamId, info: &FragmentInfo) -> Result<Header, MediaError> {
    parse_header(store.read(stream, info.number, 0..info.header_len).await?)
}

/// Refuses a fragment whose header lacks codec private data, where the stream's tag says that none is to be taken from
/// frames. Else it reads nothing.
///
/// # Errors
/// Storage's, and those of [`TrackConfig::from_matroska`].
pub async fn check_declared(
    store: &dyn MediaStore,
    state: &StreamState,
    info: &FragmentInfo,
) -> Result<(), MediaError> {
    if IngestSettings::derives_codec_private(&state.record().tags) {
        return Ok(());
    }
    let header = header(store, state.id, info).await?;
    for track in header.tracks.iter().filter(|track| is_playable(track)) {
        TrackConfig::from_matroska(track)?;
    }
    Ok(())
}

/// Reads a fragment and its index, and makes samples of its frames. What the header does not say of a track is taken from
/// its first key frame.
///
/// # Errors
/// Storage's (`NotFound` where it was trimmed), and the four of [`PackagingError`].
pub async fn load(
    store: &dyn MediaStore,
    stream: StreamId,
    info: &FragmentInfo,
) -> Result<ArchivedFragment, MediaError> {
    let index = store.frames(stream, info.number);
    let media = store.read(stream, info.number, 0..info.size);
    let (index, media) = futures_util::future::try_join(index, media).await?;
    assemble(*info, media, &index)
}

/// The same out of what was read already.
///
/// # Errors
/// The four of [`PackagingError`].
pub(crate) fn assemble(
    info: FragmentInfo,
    payload: Bytes,
    index: &[FrameEntry],
) -> Result<ArchivedFragment, MediaError> {
    let head = payload.len().min(info.header_len as usize);
    let header = parse_header(payload.slice(..head))?;
    let mut parts = Vec::with_capacity(header.tracks.len());
    for track in header.tracks.iter().filter(|track| is_playable(track)) {
        parts.push(part(track, &payload, index)?);
    }
    let rewrite = parts.iter().any(|(config, _)| config.framing() == Framing::AnnexB);
    let payload = if rewrite {
        rewritten(&payload, &mut parts)?
    } else {
        payload
    };
    let ends_at_ms = (parts.len() == 1).then_some(i64::from(info.length_ms));
    let tracks = parts.into_iter().map(|(config, frames)| ArchivedTrack {
        samples: timeline::samples(&config, &frames, ends_at_ms),
        config: Arc::new(config),
    });
    Ok(ArchivedFragment {
        info,
        tracks: tracks.collect(),
        header,
        payload,
    })
}

fn is_playable(track: &Track) -> bool {
    matches!(track.kind, TrackKind::Video | TrackKind::Audio)
}

fn parse_header(bytes: Bytes) -> Result<Header, MediaError> {
    let unreadable = PackagingError::UnsupportedCodec {
        track: 0,
        codec: String::new(),
        why: "the fragment's header declares no track",
    };
    let mut reader = Reader::new(Limits {
        header_section_bytes_max: limits::HEADER_BYTES as u64,
        header_element_bytes_max: limits::HEADER_BYTES as u64,
        ..Limits::default()
    });
    reader.push(bytes);
    let mut scale_ns = 1_000_000;
    let mut tracks = None;
    while let Ok(Some(event)) = reader.next() {
        match event {
            Event::Info(info) => scale_ns = info.timecode_scale_ns,
            Event::Tracks(declared) => tracks = Some(declared),
            _ => {}
        }
    }
    match tracks {
        Some(tracks) if tracks.iter().any(is_playable) => Ok(Header { tracks, scale_ns }),
        _ => Err(unreadable.into()),
    }
}

/// One track's configuration and frames.
fn part(track: &Track, payload: &Bytes, index: &[FrameEntry]) -> Result<(TrackConfig, Vec<Frame>), PackagingError> {
    let mut frames = Vec::new();
    for entry in index.iter().filter(|entry| is_of(entry, track.number)) {
        unlace(track, payload, entry, &mut frames)?;
    }
    let first = frames.iter().find(|frame| frame.key).or(frames.first());
    let config = match first.and_then(|frame| payload.get(frame.data.clone())) {
        Some(frame) => TrackConfig::from_frame(track, frame)?,
        None => TrackConfig::from_matroska(track)?,
    };
    for frame in &mut frames {
        let bytes = payload.get(frame.data.clone()).unwrap_or_default();
        let fits = match (config.framing(), config.nal_length_size()) {
            (Framing::Plain, 1..) => has_whole_units(bytes, config.nal_length_size()),
            (Framing::Plain | Framing::AnnexB, _) => true,
            (Framing::Adts, _) => AdtsHead::parse(bytes).is_some_and(|head| {
                frame.data.start += head.head_len;
                true
            }),
        };
        if !fits {
            return Err(invalid(
                &config,
                frame.time_ms,
                "it is not framed as the track's codec asks",
            ));
        }
    }
    Ok((config, frames))
}

/// Whether an entry of the index, which has room for eight bits of it, is of that track.
pub(super) fn is_of(entry: &FrameEntry, track: u64) -> bool {
    u64::from(entry.track) == track & 0xFF
}

fn invalid(config: &TrackConfig, time_ms: i64, why: &'static str) -> PackagingError {
    PackagingError::InvalidFrame {
        track: config.number(),
        time_ms,
        why,
    }
}

fn has_whole_units(frame: &[u8], length_size: usize) -> bool {
    let mut units = LengthPrefixed::new(frame, length_size);
    units.by_ref().for_each(drop);
    !units.is_broken()
}

/// A payload of frames alone, in the order of the old one, those of Annex B behind lengths; the ranges become its.
fn rewritten(payload: &Bytes, parts: &mut [(TrackConfig, Vec<Frame>)]) -> Result<Bytes, PackagingError> {
    let mut out = BytesMut::with_capacity(payload.len() + payload.len() / 64);
    let mut order: Vec<(&TrackConfig, &mut Frame)> = parts
        .iter_mut()
        .flat_map(|(config, frames)| frames.iter_mut().map(|frame| (&*config, frame)))
        .collect();
    order.sort_by_key(|(_, frame)| frame.data.start);
    for (config, frame) in order {
        let bytes = payload.get(frame.data.clone()).unwrap_or_default();
        let start = out.len();
        if config.framing() != Framing::AnnexB {
            out.extend_from_slice(bytes);
        } else if put_annex_b_as_lengths(&mut out, bytes).is_none() {
            return Err(invalid(config, frame.time_ms, "it has no unit behind a start code"));
        }
        frame.data = start..out.len();
    }
    Ok(out.freeze())
}

/// The frames of a block: one, unless it is laced. Laced frames have only one time among them; the others follow by the
/// track's default duration.
fn unlace(track: &Track, payload: &Bytes, entry: &FrameEntry, out: &mut Vec<Frame>) -> Result<(), PackagingError> {
    let time_ms = i64::from(entry.time_ms);
    let invalid = |why| PackagingError::InvalidFrame {
        track: track.number,
        time_ms,
        why,
    };
    let start = entry.offset as usize;
    let whole = start..start.saturating_add(entry.len as usize);
    let block = payload
        .get(whole.clone())
        .ok_or_else(|| invalid("it lies outside of its fragment"))?;
    // The flags of a block are the byte before its payload.
    let flags = start
        .checked_sub(1)
        .and_then(|at| payload.get(at))
        .copied()
        .unwrap_or(0);
    let lace = match flags >> 1 & 3 {
        0 => {
            out.push(Frame {
                data: whole,
                time_ms,
                key: entry.key,
            });
            return Ok(());
        }
        1 => Lacing::Xiph,
        2 => Lacing::Fixed,
        _ => Lacing::Ebml,
    };
    let laced = lacing::frames(block, lace).ok_or_else(|| invalid("its lacing contradicts its length"))?;
    let step_ns = i64::try_from(track.default_duration_ns.unwrap_or(0)).unwrap_or(0);
    for (data, n) in laced.into_iter().zip(0_i64..) {
        out.push(Frame {
            data: start + data.start..start + data.end,
            time_ms: time_ms.saturating_add(n.saturating_mul(step_ns) / 1_000_000),
            key: entry.key,
        });
    }
    Ok(())
}
