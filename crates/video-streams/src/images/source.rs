//! A stored fragment as a source of pictures: its video track, its frames, and the bytes of those that are to be decoded.

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use matroska::{Track, TrackKind};
use packaging::frame::put_annex_b_as_lengths;
use packaging::{Framing, TrackConfig};
use storage::{
    FragmentInfo, FragmentNumber, FragmentQuery, FragmentRange, FrameEntry, ListPlace, MediaStore, StreamId, TimeAxis,
};

use super::plan::{Coded, Planned, plan};
use crate::archive;
use crate::error::MediaError;
use crate::limits;
use crate::ports::{StillCodec, StillPacket};

/// The track that pictures come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VideoTrack {
    pub codec: StillCodec,
    /// What the track declares; where that is missing or no avcC or hvcC, what can be made of it and of a key frame.
    pub codec_private: Bytes,
    number: u64,
    /// Whether frames are framed by start codes, which the decoder does not expect after avcC and hvcC.
    annex_b: bool,
}

impl VideoTrack {
    /// A stored frame as the decoder takes it.
    pub fn as_decoded(&self, data: Bytes) -> Bytes {
        if !self.annex_b {
            return data;
        }
        let mut lengths = BytesMut::with_capacity(data.len() + 16);
        match put_annex_b_as_lengths(&mut lengths, &data) {
            Some(_) => lengths.freeze(),
            None => data,
        }
    }
}

/// One fragment, and those before it that its frames refer to.
#[derive(Debug)]
pub(crate) struct Source {
    /// The fragment.
    pub info: FragmentInfo,
    /// `None`: there is no video, or none that can be decoded.
    pub track: Option<VideoTrack>,
    frames: Vec<Frame>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    fragment: FragmentNumber,
    entry: FrameEntry,
    coded: Coded,
}

impl Frame {
    /// Where its bytes lie.
    pub fn entry(&self) -> FrameEntry {
        self.entry
    }
}

impl Source {
    /// Reads the head and the index of a fragment.
    pub async fn load(
        store: &dyn MediaStore,
        stream: StreamId,
        info: FragmentInfo,
        axis: TimeAxis,
    ) -> Result<Source, storage::Error> {
        let (track, frames) = video(store, stream, &info, axis).await?;
        Ok(Source { info, track, frames })
    }

    /// The frame of this fragment that is shown first at or after `at_ms`: its index and its time.
    pub fn first_at(&self, at_ms: i64) -> Option<(usize, i64)> {
        let own = |(_, frame): &(usize, &Frame)| frame.fragment == self.info.number && frame.coded.time_ms >= at_ms;
        let frames = self.frames.iter().enumerate().filter(own);
        let first = frames.min_by_key(|(_, frame)| frame.coded.time_ms);
        first.map(|(index, frame)| (index, frame.coded.time_ms))
    }

    /// The packets that the decoder needs for pictures of these frames (indexes of [`Source::first_at`], ascending). `None`
    /// where that is more than is decoded for one request, or where no key frame can be found.
    pub async fn packets(
        &mut self,
        store: &dyn MediaStore,
        stream: StreamId,
        axis: TimeAxis,
        wanted: &[usize],
    ) -> Result<Option<Vec<StillPacket>>, storage::Error> {
        let mut wanted = wanted.to_vec();
        for _ in 0..=limits::IMAGE_LOOK_BACK_FRAGMENTS {
            let coded: Vec<Coded> = self.frames.iter().map(|frame| frame.coded).collect();
            match plan(&coded, &wanted) {
                Ok(planned) => return self.read(store, stream, &planned).await,
                Err(_) => {
                    let Some(added) = self.look_back(store, stream, axis).await? else {
                        return Ok(None);
                    };
                    wanted.iter_mut().for_each(|index| *index += added);
                }
            }
        }
        Ok(None)
    }

    /// Puts the frames of the fragment before in front; how many they are.
    async fn look_back(
        &mut self,
        store: &dyn MediaStore,
        stream: StreamId,
        axis: TimeAxis,
    ) -> Result<Option<usize>, storage::Error> {
        let first = self.frames.first().map_or(self.info.number, |frame| frame.fragment);
        let Some(info) = before(store, stream, first).await? else {
            return Ok(None);
        };
        let (track, mut frames) = video(store, stream, &info, axis).await?;
        if track != self.track {
            return Ok(None);
        }
        let added = frames.len();
        frames.append(&mut self.frames);
        self.frames = frames;
        Ok((added > 0).then_some(added))
    }

    async fn read(
        &self,
        store: &dyn MediaStore,
        stream: StreamId,
        planned: &[Planned],
    ) -> Result<Option<Vec<StillPacket>>, storage::Error> {
        let Some(track) = &self.track else { return Ok(None) };
        let frames: Vec<(Planned, Frame)> = planned
            .iter()
            .filter_map(|planned| self.frames.get(planned.index).map(|frame| (*planned, *frame)))
            .collect();
        let bytes: u64 = frames.iter().map(|(_, frame)| u64::from(frame.entry.len)).sum();
        if bytes > limits::IMAGE_DECODE_BYTES {
            return Ok(None);
        }
        let mut packets = Vec::with_capacity(frames.len());
        // One read for each run of frames that lie in one fragment and are decoded on end.
        for run in frames.chunk_by(|(_, a), (b_planned, b)| a.fragment == b.fragment && !b_planned.fresh) {
            let Some((_, first)) = run.first() else { continue };
            let from = run.iter().map(|(_, frame)| frame.entry.offset).min().unwrap_or(0);
            let ends = run
                .iter()
                .map(|(_, frame)| frame.entry.offset.saturating_add(frame.entry.len));
            let to = ends.max().unwrap_or(from);
            let bytes = store.read(stream, first.fragment, from..to).await?;
            for (planned, frame) in run {
                let at = frame.entry.offset.saturating_sub(from) as usize;
                let end = at.saturating_add(frame.entry.len as usize);
                if end > bytes.len() {
                    return Ok(None);
                }
                packets.push(StillPacket {
                    data: track.as_decoded(bytes.slice(at..end)),
                    fresh: planned.fresh,
                    wanted: planned.wanted,
                });
            }
        }
        Ok(Some(packets))
    }
}

/// The first video track of a fragment, if its frames can be decoded, and those frames.
pub(crate) async fn video(
    store: &dyn MediaStore,
    stream: StreamId,
    info: &FragmentInfo,
    axis: TimeAxis,
) -> Result<(Option<VideoTrack>, Vec<Frame>), storage::Error> {
    let Some((codec, declared)) = declared(store, stream, info).await? else {
        return Ok((None, Vec::new()));
    };
    let start = info.start(axis).millis();
    let mut entries = store.frames(stream, info.number).await?;
    entries.retain(|entry| u64::from(entry.track) == declared.number);
    let first = entries.iter().find(|entry| entry.key).or(entries.first());
    let first = match first {
        Some(entry) => {
            let range = entry.offset..entry.offset.saturating_add(entry.len).min(info.size);
            store.read(stream, info.number, range).await?
        }
        None => Bytes::new(),
    };
    let frame = |entry: FrameEntry| Frame {
        fragment: info.number,
        entry,
        coded: Coded {
            time_ms: start.saturating_add(i64::from(entry.time_ms)),
            key: entry.key,
        },
    };
    let track = video_track(codec, &declared, &first);
    Ok((Some(track), entries.into_iter().map(frame).collect()))
}

/// What the decoder is told of a track: as players are told, and where they cannot be, as it is declared.
fn video_track(codec: StillCodec, declared: &Track, frame: &[u8]) -> VideoTrack {
    let found = TrackConfig::from_frame(declared, frame).ok();
    VideoTrack {
        codec,
        number: declared.number,
        annex_b: found.as_ref().is_some_and(|config| config.framing() == Framing::AnnexB),
        codec_private: match found {
            Some(config) => config.decoder_config().clone(),
            None => declared.codec_private.clone(),
        },
    }
}

/// The fragment with the next lower number, if it was received shortly before.
async fn before(
    store: &dyn MediaStore,
    stream: StreamId,
    number: FragmentNumber,
) -> Result<Option<FragmentInfo>, storage::Error> {
    let range = FragmentRange::All;
    let time = Timestamp::from_millis(0);
    let query = FragmentQuery {
        after: Some(ListPlace { time, number }),
        newest_first: true,
        ..FragmentQuery::first(range, 1)
    };
    let found = store.list(stream, &query).await?.pop();
    let recent = |info: &FragmentInfo| {
        let apart = number.server_timestamp().millis_since(info.number.server_timestamp());
        apart <= limits::IMAGE_LOOK_BACK_MS
    };
    Ok(found.filter(recent))
}

/// The first video track of a fragment as its header has it, if it is of a codec that is decoded.
async fn declared(
    store: &dyn MediaStore,
    stream: StreamId,
    info: &FragmentInfo,
) -> Result<Option<(StillCodec, Track)>, storage::Error> {
    let header = match archive::header(store, stream, info).await {
        Ok(header) => header,
        Err(MediaError::Storage(error)) => return Err(error),
        Err(_) => return Ok(None),
    };
    let track = header.tracks.iter().find(|track| track.kind == TrackKind::Video);
    Ok(track.filter(|track| !track.encoded).and_then(|track| {
        let codec = match track.codec_id.as_str() {
            // The documentation's spelling is taken too.
            "V_MPEG4/ISO/AVC" | "V_MPEG/ISO/AVC" => StillCodec::H264,
            "V_MPEGH/ISO/HEVC" | "V_MPEG/ISO/HEVC" => StillCodec::H265,
            _ => return None,
        };
        Some((codec, track.clone()))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameter sets of 64x48.
    const SPS: &[u8] = &[
        0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 3, 0x20, 0xF1, 0x22, 0x64, 0x80,
    ];
    const PPS: &[u8] = &[0x68, 0xCB, 0x83, 0xCB, 0x20];

    fn frame(start: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let units = [SPS, PPS, &[0x65, 1, 2]];
        units.map(|unit| [start(unit), unit.to_vec()].concat()).concat()
    }

    fn found(private: &[u8], frame: &[u8]) -> VideoTrack {
        let declared = Track {
            codec_private: Bytes::copy_from_slice(private),
            ..crate::testing::track(1)
        };
        video_track(StillCodec::H264, &declared, frame)
    }

    #[test]
    fn the_decoder_is_told_what_players_are_told() {
        let start_codes = frame(|_| vec![0, 0, 0, 1]);
        let lengths = frame(|unit| (unit.len() as u32).to_be_bytes().to_vec());
        let avcc = found(b"", &lengths).codec_private;
        assert!(avcc.starts_with(&[1, 0x42, 0xC0, 0x0A]) && avcc.windows(SPS.len()).any(|part| part == SPS));
        // Nothing is declared, start codes are: the same record, and frames behind lengths.
        for (private, frame, annex_b) in [
            (&b""[..], &start_codes, true),
            (b"", &lengths, false),
            (&avcc, &start_codes, true),
            (&avcc, &lengths, false),
        ] {
            let track = found(private, frame);
            assert_eq!((track.annex_b, &track.codec_private), (annex_b, &avcc), "{private:?}");
        }
        let decoded = |private, frame: &[u8]| found(private, frame).as_decoded(Bytes::copy_from_slice(frame));
        assert_eq!(decoded(&avcc, &start_codes), lengths);
        assert_eq!(decoded(&avcc, &lengths), lengths);
        // What no player is given is decoded as it was declared, if it can be.
        let strange = found(b"strange", b"frame");
        assert_eq!((&strange.codec_private[..], strange.annex_b), (&b"strange"[..], false));
    }
}
