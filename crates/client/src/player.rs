//! Plays a Matroska file as a camera would send it: the file's bytes unchanged, cut so that each frame leaves when a
//! camera would have had it. Reads no file and waits for nothing itself.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use matroska::{Event, Limits, Reader};

/// Bytes and when they are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What to send.
    pub bytes: Bytes,
    /// Time after the first frame's.
    pub due: Duration,
}

/// Cuts a file into due pieces.
pub struct Player {
    reader: Reader,
    timecode_scale_ns: u64,
    /// Time of the first frame.
    origin: Option<i64>,
    due: Duration,
    /// Distance of the last two different frame times.
    step: Duration,
    ready: VecDeque<Piece>,
}

impl Default for Player {
    fn default() -> Self {
        Self::new()
    }
}

impl Player {
    /// At the start of a file.
    pub fn new() -> Self {
        Player {
            reader: Reader::new(Limits::default()),
            timecode_scale_ns: 1_000_000,
            origin: None,
            due: Duration::ZERO,
            step: Duration::ZERO,
            ready: VecDeque::new(),
        }
    }

    /// Appends the next bytes of the file.
    pub fn push(&mut self, bytes: Bytes) {
        self.reader.push(bytes);
    }

    /// Declares the end of the file.
    pub fn finish(&mut self) {
        self.reader.finish();
    }

    /// The next piece; `None` when more of the file is needed, or at its end.
    ///
    /// # Errors
    /// The file is not Matroska.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, matroska::Error> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            match self.reader.next()? {
                None => return Ok(None),
                Some(Event::Data(bytes)) => self.ready.push_back(Piece { bytes, due: self.due }),
                Some(Event::Info(info)) => self.timecode_scale_ns = info.timecode_scale_ns,
                Some(Event::BlockStart(block)) => self.at(block.time),
                Some(_) => {}
            }
        }
    }

    /// How long the file plays so far, the last frame included.
    pub fn length(&self) -> Duration {
        self.due + self.step
    }

    /// A frame of this time follows. Frames of earlier time (B-frames, a second track) follow at once.
    fn at(&mut self, time: i64) {
        let origin = *self.origin.get_or_insert(time);
        let units = u64::try_from(time.saturating_sub(origin)).unwrap_or(0);
        let due = Duration::from_nanos(units.saturating_mul(self.timecode_scale_ns));
        if due > self.due {
            self.step = due - self.due;
            self.due = due;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use matroska::writer;

    use super::*;

    fn file() -> Bytes {
        let mut file = BytesMut::new();
        file.put_slice(writer::EBML_HEADER);
        file.put_slice(writer::SEGMENT_HEAD_UNKNOWN_SIZE);
        for cluster in [1000_u64, 2000] {
            writer::put_cluster_head(&mut file, cluster);
            for time in [0_i16, 40, 20] {
                writer::put_simple_block_head(&mut file, 1, time, true, 5);
                file.put_slice(b"frame");
            }
        }
        file.freeze()
    }

    #[test]
    fn a_file_is_sent_unchanged_and_each_frame_at_its_time() {
        for cut in [1, 7, 1000] {
            let mut player = Player::new();
            let (mut bytes, mut dues) = (Vec::new(), Vec::new());
            for chunk in file().chunks(cut) {
                player.push(Bytes::copy_from_slice(chunk));
                while let Some(piece) = player.next_piece().unwrap() {
                    bytes.extend_from_slice(&piece.bytes);
                    dues.push(piece.due.as_millis());
                }
            }
            player.finish();
            while let Some(piece) = player.next_piece().unwrap() {
                bytes.extend_from_slice(&piece.bytes);
            }
            assert_eq!(bytes, file());
            assert!(dues.is_sorted());
            dues.dedup();
            assert_eq!(dues, [0, 40, 1000, 1040]);
            assert_eq!(player.length().as_millis(), 1080);
        }
    }

    #[test]
    fn what_is_no_matroska_is_an_error() {
        let mut player = Player::new();
        player.push(Bytes::from_static(b"\0\0\0\x20ftypisom"));
        player.finish();
        let mut result = player.next_piece();
        while let Ok(Some(_)) = result {
            result = player.next_piece();
        }
        assert!(result.is_err());
    }
}
