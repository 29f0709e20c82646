//! Cuts a Matroska stream into what a producer sends: the header, the beginning of each fragment, and pieces that are due
//! together. The bytes stay as they are and are not copied. Reads nothing and waits for nothing itself.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use matroska::{Event, Limits, Reader, TrackKind};

/// A part of the stream. The parts together are the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Everything from an EBML header up to the first cluster.
    Header { bytes: Bytes, scale_ns: u64 },
    /// A cluster begins.
    Begin { timecode: u64, bytes: Bytes, due: Duration },
    /// The fragment goes on.
    Piece { bytes: Bytes, key: bool, due: Duration },
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Header,
    /// In the head of a cluster whose timecode is not known yet.
    ClusterHead,
    Cluster,
}

pub(crate) struct Cutter {
    reader: Reader,
    /// What was pushed and is not cut off yet.
    chunks: VecDeque<Bytes>,
    /// Bytes at the front of `chunks` that belong to what is being cut.
    pending: usize,
    header: BytesMut,
    scale_ns: u64,
    video: Vec<u64>,
    place: Place,
    /// A key frame is among `pending`.
    key: bool,
    origin: Option<i64>,
    due: Duration,
    /// Distance of the last two different frame times.
    step: Duration,
    /// Whether pieces are cut where their time changes.
    paced: bool,
    ready: VecDeque<Cut>,
}

impl Cutter {
    /// At the start of a stream.
    pub fn new(paced: bool) -> Self {
        Cutter {
            reader: Reader::new(Limits::default()),
            chunks: VecDeque::new(),
            pending: 0,
            header: BytesMut::new(),
            scale_ns: 1_000_000,
            video: Vec::new(),
            place: Place::Header,
            key: false,
            origin: None,
            due: Duration::ZERO,
            step: Duration::ZERO,
            paced,
            ready: VecDeque::new(),
        }
    }

    pub fn push(&mut self, bytes: Bytes) {
        self.reader.push(bytes.clone());
        self.chunks.push_back(bytes);
    }

    pub fn finish(&mut self) {
        self.reader.finish();
    }

    /// How long the stream plays so far, the last frame included.
    pub fn length(&self) -> Duration {
        self.due + self.step
    }

    /// The next part; `None` when more is needed, or at the end.
    pub fn next(&mut self) -> Result<Option<Cut>, matroska::Error> {
        loop {
            if let Some(cut) = self.ready.pop_front() {
                return Ok(Some(cut));
            }
            match self.reader.next()? {
                Some(event) => self.on(event),
                None if self.place == Place::Cluster && self.pending > 0 => self.cut_pieces(),
                None => return Ok(None),
            }
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Data(bytes) => self.pending += bytes.len(),
            Event::DocumentStart { .. } => {
                self.end_section();
                self.place = Place::Header;
            }
            Event::Info(info) => self.scale_ns = info.timecode_scale_ns,
            Event::Tracks(tracks) => {
                let video = tracks.iter().filter(|track| track.kind == TrackKind::Video);
                self.video = video.map(|track| track.number).collect();
            }
            Event::ClusterStart { .. } => {
                self.end_section();
                self.place = Place::ClusterHead;
            }
            Event::ClusterTimecode(timecode) => self.begin(timecode),
            Event::BlockStart(block) => {
                if self.place == Place::ClusterHead {
                    // The service wants the timecode first; it will say so.
                    self.begin(0);
                }
                self.at(block.time);
                self.key |= block.key && (self.video.is_empty() || self.video.contains(&block.track));
            }
            _ => {}
        }
    }

    fn end_section(&mut self) {
        match self.place {
            Place::Header => {
                while let Some(bytes) = self.take() {
                    self.header.extend_from_slice(&bytes);
                }
                if !self.header.is_empty() {
                    let bytes = self.header.split().freeze();
                    let scale_ns = self.scale_ns;
                    self.ready.push_back(Cut::Header { bytes, scale_ns });
                }
            }
            Place::ClusterHead => self.begin(0),
            Place::Cluster => self.cut_pieces(),
        }
    }

    fn begin(&mut self, timecode: u64) {
        let bytes = self.take().unwrap_or_default();
        let due = self.due;
        self.ready.push_back(Cut::Begin { timecode, bytes, due });
        self.place = Place::Cluster;
        self.cut_pieces();
    }

    fn cut_pieces(&mut self) {
        while let Some(bytes) = self.take() {
            let (key, due) = (std::mem::take(&mut self.key), self.due);
            self.ready.push_back(Cut::Piece { bytes, key, due });
        }
    }

    /// Cuts pending bytes off the first chunk.
    fn take(&mut self) -> Option<Bytes> {
        while self.pending > 0 {
            let chunk = self.chunks.front_mut()?;
            let len = chunk.len().min(self.pending);
            let bytes = chunk.split_to(len);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
            self.pending -= len;
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
        None
    }

    /// A frame of this time follows. Frames of earlier time (B-frames, a second track) follow at once.
    fn at(&mut self, time: i64) {
        let origin = *self.origin.get_or_insert(time);
        let units = u64::try_from(time.saturating_sub(origin)).unwrap_or(0);
        let due = Duration::from_nanos(units.saturating_mul(self.scale_ns));
        if due > self.due {
            if self.paced {
                self.cut_pieces();
            }
            self.step = due - self.due;
            self.due = due;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use matroska::writer;

    use super::*;

    fn file() -> Bytes {
        let mut file = BytesMut::new();
        file.put_slice(writer::EBML_HEADER);
        file.put_slice(writer::SEGMENT_HEAD_UNKNOWN_SIZE);
        for cluster in [1000_u64, 2000] {
            writer::put_cluster_head(&mut file, cluster);
            for (time, key) in [(0_i16, true), (40, false), (20, false)] {
                writer::put_simple_block_head(&mut file, 1, time, key, 5);
                file.put_slice(b"frame");
            }
        }
        file.freeze()
    }

    fn cuts(chunk: usize, paced: bool) -> (Vec<Cut>, Duration) {
        let mut cutter = Cutter::new(paced);
        let mut cuts = Vec::new();
        for chunk in file().chunks(chunk) {
            cutter.push(Bytes::copy_from_slice(chunk));
            while let Some(cut) = cutter.next().unwrap() {
                cuts.push(cut);
            }
        }
        cutter.finish();
        while let Some(cut) = cutter.next().unwrap() {
            cuts.push(cut);
        }
        (cuts, cutter.length())
    }

    #[test]
    fn a_file_is_sent_unchanged_and_each_frame_at_its_time() {
        for chunk in [1, 7, 1000] {
            let (cuts, length) = cuts(chunk, true);
            let (mut bytes, mut dues, mut begun, mut keys) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for cut in cuts {
                match cut {
                    Cut::Header { bytes: header, .. } => bytes.extend_from_slice(&header),
                    Cut::Begin {
                        timecode,
                        bytes: head,
                        due,
                    } => {
                        begun.push(timecode);
                        dues.push(due.as_millis());
                        bytes.extend_from_slice(&head);
                    }
                    Cut::Piece { bytes: piece, key, due } => {
                        dues.push(due.as_millis());
                        keys += u32::from(key);
                        bytes.extend_from_slice(&piece);
                    }
                }
            }
            assert_eq!(bytes, file());
            assert!(dues.is_sorted());
            dues.dedup();
            assert_eq!(
                (dues.as_slice(), begun.as_slice()),
                ([0, 40, 1000, 1040].as_slice(), [1000, 2000].as_slice())
            );
            assert_eq!((keys, length.as_millis()), (2, 1080));
        }
    }

    #[test]
    fn without_a_pace_a_fragment_in_one_chunk_is_two_pieces() {
        let (cuts, _) = cuts(1000, false);
        assert_eq!(cuts.len(), 5);
    }

    #[test]
    fn what_is_no_matroska_is_an_error() {
        let mut cutter = Cutter::new(false);
        cutter.push(Bytes::from_static(b"\0\0\0\x20ftypisom"));
        cutter.finish();
        let mut result = cutter.next();
        while let Ok(Some(_)) = result {
            result = cutter.next();
        }
        assert!(result.is_err());
    }
}
