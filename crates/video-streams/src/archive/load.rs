//! Loads one fragment. Memory: its payload once, and once more where it must be rewritten.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use matroska::{Event, Lacing, Limits, Reader, Track, TrackKind, Tracks, lacing};
use packaging::frame::{AdtsHead, has_whole_units, put_annex_b_as_lengths};
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

#[cfg(test)]
mod tests {
    use base::Timestamp;
    use bytes::BufMut;
    use matroska::{Audio, writer};

    use super::*;

    /// Parameter sets of 64x48, in Annex B.
    const SETS: &[u8] = &[
        0, 0, 0, 1, 0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 3, 0x20, 0xF1, 0x22,
        0x64, 0x80, 0, 0, 0, 1, 0x68, 0xCB, 0x83, 0xCB, 0x20,
    ];

    fn track(number: u64, codec_id: &str, private: &[u8]) -> Track {
        let audio = codec_id.starts_with('A');
        Track {
            kind: if audio { TrackKind::Audio } else { TrackKind::Video },
            codec_id: codec_id.to_owned(),
            codec_private: Bytes::copy_from_slice(private),
            default_duration_ns: audio.then_some(20_000_000),
            audio: audio.then_some(Audio {
                sampling_hz: 8000.0,
                channels: 1,
                bit_depth: None,
            }),
            ..crate::testing::track(number)
        }
    }

    /// A fragment of these blocks: track, time, flags, bytes.
    fn fragment(tracks: &[Track], blocks: &[(u8, i16, u8, &[u8])]) -> Result<ArchivedFragment, MediaError> {
        let mut payload = BytesMut::from(&writer::header(&writer::StreamInfo::default(), tracks)[..]);
        let header_len = payload.len() as u32;
        writer::put_cluster_head(&mut payload, 1000);
        let mut index = Vec::new();
        for (track, time, flags, bytes) in blocks {
            writer::put_simple_block_head(&mut payload, u64::from(*track), *time, true, bytes.len());
            *payload.last_mut().unwrap() = *flags;
            index.push(FrameEntry {
                offset: payload.len() as u32,
                len: bytes.len() as u32,
                time_ms: i32::from(*time),
                track: *track,
                key: flags & 0x80 != 0,
            });
            payload.put_slice(bytes);
        }
        let info = FragmentInfo {
            number: crate::testing::number(1),
            server_timestamp: Timestamp::from_millis(0),
            producer_timestamp: Timestamp::from_millis(1000),
            length_ms: 80,
            size: payload.len() as u32,
            header_len,
            position: 1,
            frame_count: index.len() as u32,
            tracks_hash: 0,
        };
        assemble(info, payload.freeze(), &index)
    }

    fn bytes_of(fragment: &ArchivedFragment, track: u64) -> Vec<&[u8]> {
        let samples = &fragment.track(track).unwrap().samples;
        samples
            .iter()
            .map(|sample| &fragment.payload[sample.data.clone()])
            .collect()
    }

    const ALAW: &[u8] = &[6, 0, 1, 0, 0x40, 0x1F, 0, 0, 0x40, 0x1F, 0, 0, 1, 0, 8, 0, 0, 0];

    #[test]
    fn laced_sound_comes_apart_into_its_frames() {
        // Three frames of two bytes each.
        let loaded = fragment(
            &[track(2, "A_MS/ACM", ALAW)],
            &[(2, 0, 0x84, b"\x02aabbcc"), (2, 60, 0x80, b"dd")],
        );
        let loaded = loaded.unwrap();
        assert_eq!(bytes_of(&loaded, 2), [b"aa", b"bb", b"cc", b"dd"]);
        let starts: Vec<i64> = loaded.tracks[0]
            .samples
            .iter()
            .map(|sample| sample.decode_time)
            .collect();
        assert_eq!(starts, [0, 160, 320, 480]);
        let torn = fragment(&[track(2, "A_MS/ACM", ALAW)], &[(2, 0, 0x84, b"\x02aabbc")]);
        assert!(matches!(
            torn,
            Err(MediaError::Packaging(PackagingError::InvalidFrame { .. }))
        ));
    }

    #[test]
    fn annex_b_becomes_lengths_and_the_sound_beside_it_stays_as_it_is() {
        let key = [SETS, &[0, 0, 0, 1, 0x65, 1, 2]].concat();
        let tracks = [track(1, "V_MPEG/ISO/AVC", b""), track(2, "A_MS/ACM", ALAW)];
        let blocks = [
            (1, 0, 0x80, &key[..]),
            (2, 0, 0, b"sound"),
            (1, 40, 0, &[0, 0, 1, 0x41, 9]),
        ];
        let loaded = fragment(&tracks, &blocks).unwrap();
        assert!(loaded.video().unwrap().config.is_derived());
        let pictures = bytes_of(&loaded, 1);
        assert!(pictures[0].starts_with(&[0, 0, 0, 23, 0x67]) && pictures[0].ends_with(&[0, 0, 0, 3, 0x65, 1, 2]));
        assert_eq!(pictures[1], [0, 0, 0, 2, 0x41, 9]);
        assert_eq!(bytes_of(&loaded, 2), [b"sound"]);
        // Nothing but frames is left.
        let all: usize = pictures.iter().map(|picture| picture.len()).sum();
        assert_eq!(loaded.payload.len(), all + b"sound".len());
    }

    #[test]
    fn the_last_picture_of_a_fragment_with_one_track_ends_with_the_fragment() {
        let frame = [0, 0, 0, 2, 0x65, 1];
        let avcc: &[u8] = &[
            1, 0x42, 0xC0, 0x0A, 0xFF, 0xE1, 0, 0x17, 0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10,
            0, 0, 3, 3, 0x20, 0xF1, 0x22, 0x64, 0x80, 1, 0, 5, 0x68, 0xCB, 0x83, 0xCB, 0x20,
        ];
        let tracks = [track(1, "V_MPEG4/ISO/AVC", avcc)];
        let loaded = fragment(&tracks, &[(1, 0, 0x80, &frame), (1, 33, 0, &frame)]).unwrap();
        let last = loaded.tracks[0].samples.last().unwrap();
        assert_eq!(last.end(), 80 * 30);
        let torn = fragment(&tracks, &[(1, 0, 0x80, &frame[..5])]);
        assert!(matches!(
            torn,
            Err(MediaError::Packaging(PackagingError::InvalidFrame { .. }))
        ));
    }
}
