//! Cuts a fragment's bytes into frames. A frame that lies in one received piece is a slice of it; one that is spread over
//! several is copied together once.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use matroska::{Block, Event, Lacing, Limits, Reader, Tracks};

/// The fragment's bytes are not what its frames were stored from; the log has the details.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fragment cannot be read as Matroska: {0}")]
pub struct Unreadable(#[from] matroska::Error);

/// One frame in its fragment.
#[derive(Clone, Debug, PartialEq)]
pub struct CutFrame {
    /// Number of the track.
    pub track: u64,
    /// Milliseconds from the cluster's timecode.
    pub offset_ms: f64,
    /// Flagged as decodable alone.
    pub key: bool,
    /// Whether its bytes are several frames, laced into one block.
    pub laced: bool,
    /// Its bytes.
    pub data: Bytes,
    /// When its last byte arrived.
    pub arrived: Duration,
}

/// What a header says.
#[derive(Clone, Debug)]
pub struct Header {
    /// Its tracks.
    pub tracks: Tracks,
    /// Nanoseconds of one unit of time.
    pub scale_ns: u64,
}

impl Default for Header {
    fn default() -> Self {
        Header {
            tracks: Tracks::from([]),
            scale_ns: 1_000_000,
        }
    }
}

/// Cuts one fragment.
pub struct Cutter {
    reader: Reader,
    header: Header,
    in_cluster: bool,
    /// Offset from the start of the section of the bytes after the last piece.
    at: u64,
    /// The pieces that a frame may still need, each with its offset from the start of the section.
    pieces: VecDeque<(u64, Bytes)>,
    /// Where the payload begins of the block that is being received.
    needed: Option<u64>,
}

impl Cutter {
    /// Reads the header of a fragment.
    pub fn new(header: Bytes) -> Result<Self, Unreadable> {
        let mut cutter = Cutter {
            reader: Reader::new(Limits::default()),
            header: Header::default(),
            in_cluster: false,
            at: 0,
            pieces: VecDeque::new(),
            needed: None,
        };
        cutter.push(header, Duration::ZERO, &mut |_| {})?;
        Ok(cutter)
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Takes the next bytes of the fragment and hands out the frames that are whole with them.
    pub fn push(&mut self, bytes: Bytes, arrived: Duration, out: &mut impl FnMut(CutFrame)) -> Result<(), Unreadable> {
        self.reader.push(bytes);
        while let Some(event) = self.reader.next()? {
            match event {
                Event::Info(info) => self.header.scale_ns = info.timecode_scale_ns,
                Event::Tracks(tracks) => self.header.tracks = tracks,
                Event::ClusterStart { .. } => {
                    self.in_cluster = true;
                    self.at = 0;
                    self.pieces.clear();
                    self.needed = None;
                }
                Event::Data(piece) if self.in_cluster => self.keep(piece),
                Event::BlockStart(block) => self.needed = Some(block.payload_offset),
                Event::BlockEnd(block) => {
                    let frame = self.cut(&block, arrived);
                    self.needed = None;
                    out(frame);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn keep(&mut self, piece: Bytes) {
        // Outside a block the last piece is enough: a block's head is in one, and its payload begins behind that.
        let needed = self.needed.unwrap_or(self.at);
        while let Some((offset, first)) = self.pieces.front() {
            if offset + first.len() as u64 > needed {
                break;
            }
            self.pieces.pop_front();
        }
        let length = piece.len() as u64;
        self.pieces.push_back((self.at, piece));
        self.at += length;
    }

    fn cut(&self, block: &Block, arrived: Duration) -> CutFrame {
        let (start, end) = (block.payload_offset, block.payload_offset + block.payload_len);
        let mut parts = self.pieces.iter().filter_map(|(offset, piece)| {
            let from = start.max(*offset) - offset;
            let to = end.min(offset + piece.len() as u64).checked_sub(*offset)?;
            let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
            (from < to && to <= piece.len()).then(|| piece.slice(from..to))
        });
        let first = parts.next().unwrap_or_default();
        let mut data = first;
        if let Some(second) = parts.next() {
            let mut joined = BytesMut::with_capacity(usize::try_from(block.payload_len).unwrap_or_default());
            joined.extend_from_slice(&data);
            joined.extend_from_slice(&second);
            parts.for_each(|part| joined.extend_from_slice(&part));
            data = joined.freeze();
        }
        CutFrame {
            track: block.track,
            offset_ms: f64::from(block.relative_time) * self.header.scale_ns as f64 / 1_000_000.0,
            key: block.key,
            laced: block.lacing != Lacing::None,
            data,
            arrived,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Body;

    fn cut(header: &Bytes, cluster: &Bytes, sizes: &[usize]) -> Vec<CutFrame> {
        let mut cutter = Cutter::new(header.clone()).unwrap();
        let (mut frames, mut rest) = (Vec::new(), cluster.clone());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let piece = rest.split_to((*size).clamp(1, rest.len()));
            cutter
                .push(piece, Duration::ZERO, &mut |frame| frames.push(frame))
                .unwrap();
        }
        frames
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_their_bytes_arrive(
            lengths in prop::collection::vec(1..5000_usize, 1..20), sizes in prop::collection::vec(1..3000_usize, 1..6)
        ) {
            let header = Body::new(&[1]).bytes();
            let start = Body(BytesMut::new()).cluster(1000);
            let numbered = lengths.iter().zip(0_i16..);
            let cluster = numbered.fold(start, |body, (length, time)| body.big_frame(1, time, *length)).bytes();
            let whole = cut(&header, &cluster, &[usize::MAX]);
            prop_assert_eq!(whole.iter().map(|frame| frame.data.len()).collect::<Vec<_>>(), lengths);
            prop_assert_eq!(cut(&header, &cluster, &sizes), whole);
        }
    }
}
