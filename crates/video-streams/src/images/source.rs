//! A stored fragment as a source of pictures: its video track, its frames, and the bytes of those that are to be decoded.

use base::Timestamp;
use bytes::Bytes;
use matroska::TrackKind;
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
    pub codec_private: Bytes,
    number: u64,
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
struct Frame {
    fragment: FragmentNumber,
    entry: FrameEntry,
    coded: Coded,
}

impl Source {
    /// Reads the head and the index of a fragment.
    pub async fn load(
        store: &dyn MediaStore,
        stream: StreamId,
        info: FragmentInfo,
        axis: TimeAxis,
    ) -> Result<Source, storage::Error> {
        let track = video_track(store, stream, &info).await?;
        let mut source = Source {
            info,
            track,
            frames: Vec::new(),
        };
        source.frames = source.frames_of(store, stream, &info, axis).await?;
        Ok(source)
    }

    async fn frames_of(
        &self,
        store: &dyn MediaStore,
        stream: StreamId,
        info: &FragmentInfo,
        axis: TimeAxis,
    ) -> Result<Vec<Frame>, storage::Error> {
        let Some(track) = &self.track else {
            return Ok(Vec::new());
        };
        let (start, number) = (info.start(axis).millis(), track.number);
        let entries = store.frames(stream, info.number).await?;
        let own = entries.into_iter().filter(|entry| u64::from(entry.track) == number);
        Ok(own
            .map(|entry| Frame {
                fragment: info.number,
                entry,
                coded: Coded {
                    time_ms: start.saturating_add(i64::from(entry.time_ms)),
                    key: entry.key,
                },
            })
            .collect())
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
        if video_track(store, stream, &info).await? != self.track {
            return Ok(None);
        }
        let mut frames = self.frames_of(store, stream, &info, axis).await?;
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
                    data: bytes.slice(at..end),
                    fresh: planned.fresh,
                    wanted: planned.wanted,
                });
            }
        }
        Ok(Some(packets))
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

/// The first video track of a fragment, if its frames can be decoded.
async fn video_track(
    store: &dyn MediaStore,
    stream: StreamId,
    info: &FragmentInfo,
) -> Result<Option<VideoTrack>, storage::Error> {
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
        Some(VideoTrack {
            codec,
            codec_private: track.codec_private.clone(),
            number: track.number,
        })
    }))
}
