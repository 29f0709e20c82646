//! What a stream has stored of a time, fragment by fragment with its video's frames, for services on this machine that
//! analyse it. It follows nothing: what arrives after it was asked for is not told.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use base::Timestamp;
use bytes::Bytes;
use storage::{FragmentInfo, FragmentQuery, FragmentRange, ListPlace, MediaStore, StreamId};

pub use storage::TimeAxis;

use crate::VideoStreams;
use crate::consumer::{ConsumerError, StreamRef};
use crate::images::source;
use crate::limits::FRAGMENT_DURATION_MS_MAX;
use crate::ports::StillCodec;

/// Fragments that are listed at once.
const PAGE: usize = 500;

/// A stored fragment.
#[derive(Clone, Debug)]
pub struct StoredFragment {
    /// When it begins, on the axis that was asked for.
    pub start: Timestamp,
    /// How long it is.
    pub length_ms: i64,
    /// `None`: it has no video of H.264 or H.265.
    pub video: Option<StoredVideo>,
}

/// The first video track of a fragment.
#[derive(Clone, Debug)]
pub struct StoredVideo {
    /// Its codec.
    pub codec: StillCodec,
    /// avcC or hvcC, out of a key frame where the producer declared none.
    pub codec_private: Bytes,
    /// In decoding order.
    pub frames: Vec<StoredFrame>,
}

/// A frame as its decoder takes it.
#[derive(Clone, Debug)]
pub struct StoredFrame {
    /// When it is shown, from the fragment's start.
    pub time_ms: i64,
    /// Flagged by the producer as decodable alone.
    pub key: bool,
    /// Its bytes, length-prefixed.
    pub data: Bytes,
}

/// Reads the fragments of a time, in the order of their start. Memory: one fragment.
pub struct StoredFrames {
    store: Arc<dyn MediaStore>,
    stream: StreamId,
    axis: TimeAxis,
    range: Range<Timestamp>,
    after: Option<ListPlace>,
    listed: VecDeque<FragmentInfo>,
    ended: bool,
}

impl VideoStreams {
    /// The frames of every stored fragment that has a part in the range.
    pub fn stored_frames(
        &self,
        stream: &StreamRef,
        axis: TimeAxis,
        range: Range<Timestamp>,
    ) -> Result<StoredFrames, ConsumerError> {
        let state = self.inner.streams.find(stream);
        let state = state.ok_or_else(|| ConsumerError::NotFound(stream.stream.clone()))?;
        Ok(StoredFrames {
            store: state.store().0,
            stream: state.id,
            axis,
            range,
            after: None,
            listed: VecDeque::new(),
            ended: false,
        })
    }
}

impl StoredFrames {
    /// The next fragment; `None` at the end. One that retention takes away meanwhile is left out.
    pub async fn next(&mut self) -> Result<Option<StoredFragment>, ConsumerError> {
        loop {
            let Some(info) = self.listed.pop_front() else {
                if self.ended {
                    return Ok(None);
                }
                self.list().await?;
                continue;
            };
            match self.load(&info).await {
                Ok(fragment) => return Ok(Some(fragment)),
                Err(storage::Error::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn list(&mut self) -> Result<(), ConsumerError> {
        // A fragment that began before the range may reach into it.
        let earliest = self.range.start.plus_millis(-FRAGMENT_DURATION_MS_MAX);
        let range = FragmentRange::Time(self.axis, earliest, self.range.end.plus_millis(-1));
        let query = FragmentQuery {
            after: self.after,
            ..FragmentQuery::first(range, PAGE)
        };
        let page = self.store.list(self.stream, &query).await?;
        self.ended = page.len() < PAGE;
        self.after = page.last().map(|info| range.place_of(info)).or(self.after);
        let ends = |info: &FragmentInfo| info.start(self.axis).plus_millis(i64::from(info.length_ms));
        let start = self.range.start;
        self.listed.extend(page.into_iter().filter(|info| ends(info) > start));
        Ok(())
    }

    async fn load(&self, info: &FragmentInfo) -> Result<StoredFragment, storage::Error> {
        let (track, frames) = source::video(&*self.store, self.stream, info, self.axis).await?;
        let video = match track {
            None => None,
            Some(track) => {
                let payload = self.store.read(self.stream, info.number, 0..info.size).await?;
                let frame = |entry: storage::FrameEntry| {
                    let start = entry.offset as usize;
                    let end = start.saturating_add(entry.len as usize);
                    let whole = end <= payload.len();
                    whole.then(|| StoredFrame {
                        time_ms: i64::from(entry.time_ms),
                        key: entry.key,
                        data: track.as_decoded(payload.slice(start..end)),
                    })
                };
                let frames = frames.iter().filter_map(|known| frame(known.entry())).collect();
                Some(StoredVideo {
                    codec: track.codec,
                    codec_private: track.codec_private,
                    frames,
                })
            }
        };
        Ok(StoredFragment {
            start: info.start(self.axis),
            length_ms: i64::from(info.length_ms),
            video,
        })
    }
}
