//! The straight way of a live answer from its service to the socket, past the protocol engine.
//!
//! With hundreds of consumers of one camera the engine's own work for each piece, and the memory that it touches, cost as much
//! as the write. So an answer that is one of a crowd, goes out in chunks (HTTP/1.1) and without TLS is lent to a [`Driver`]
//! once the engine has sent its head and has nothing left to write. The driver takes what is ready from the stream, puts it
//! into one chunk and writes it. Everything else is the engine's: when the stream has ended or broken off, the body gets it
//! back and the engine writes the last chunk or closes the connection. One task polls both, and the engine only when it was
//! woken itself.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;

use crate::body::Outflow;
use crate::limits::{LANE_BYTES, LANE_PIECES, LANE_TURN};
use crate::socket::SecondOut;

/// Where body and driver of a connection hand an answer to each other.
#[derive(Default)]
pub(crate) struct Lane(Mutex<State>);

#[derive(Default)]
struct State {
    offered: Option<Outflow>,
    returned: Option<Outflow>,
    /// The engine, which waits for what is lent.
    waiting: Option<Waker>,
}

impl Lane {
    /// Lends a stream.
    pub(crate) fn offer(&self, outflow: Outflow) {
        let mut state = self.0.lock();
        (state.offered, state.returned) = (Some(outflow), None);
    }

    /// Waits until the stream comes back.
    pub(crate) fn reclaim(&self, cx: &Context<'_>) -> Poll<Outflow> {
        let mut state = self.0.lock();
        match state.returned.take() {
            Some(outflow) => Poll::Ready(outflow),
            None => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn give_back(&self, outflow: Outflow) {
        let mut state = self.0.lock();
        state.returned = Some(outflow);
        if let Some(engine) = state.waiting.take() {
            engine.wake();
        }
    }
}

/// Drives what is lent.
pub(crate) struct Driver {
    lane: Arc<Lane>,
    socket: SecondOut,
    outflow: Option<Outflow>,
    chunk: Chunk,
    /// The stream has nothing now and will wake the task.
    idle: bool,
}

impl Driver {
    pub(crate) fn new(socket: SecondOut) -> Self {
        Driver {
            lane: Arc::default(),
            socket,
            outflow: None,
            chunk: Chunk::default(),
            idle: false,
        }
    }

    pub(crate) fn lane(&self) -> Arc<Lane> {
        Arc::clone(&self.lane)
    }

    /// Sends what is ready; to be polled after the engine. Ready when a stream was given back, and the engine is to be
    /// asked again.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outflow.is_none() {
            // The engine still holds the head, or another answer's end.
            if self.socket.is_blocked() {
                return Poll::Pending;
            }
            self.outflow = self.lane.0.lock().offered.take();
            if self.outflow.is_none() {
                return Poll::Pending;
            }
        }
        self.idle = false;
        for _ in 0..LANE_TURN {
            while !self.chunk.is_empty() {
                let written = {
                    let (slices, count) = self.chunk.slices();
                    let slices = slices.get(..count).unwrap_or_default();
                    ready!(self.socket.out.poll_write_vectored(cx, slices))?
                };
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.chunk.advance(written);
            }
            if self.idle {
                return Poll::Pending;
            }
            if let Some(outcome) = self.fill(cx)
                && let Some(mut outflow) = self.outflow.take()
            {
                // What came before was written: the loop comes here with an empty chunk only.
                outflow.ended(outcome);
                self.lane.give_back(outflow);
                return Poll::Ready(Ok(()));
            }
        }
        // A stream that always has more, to a peer that takes it all, is not to keep others waiting.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Makes the next chunk of what is ready. Gives how the stream ended, when that is the first that comes.
    fn fill(&mut self, cx: &mut Context<'_>) -> Option<Option<base::StreamError>> {
        let outflow = self.outflow.as_mut()?;
        while self.chunk.has_room() {
            match outflow.poll(cx) {
                Poll::Ready(Some(Ok(data))) => self.chunk.push(data),
                // An end that follows bytes is seen again after them.
                Poll::Ready(end) if self.chunk.is_empty() => return Some(end.and_then(Result::err)),
                Poll::Ready(end) => {
                    outflow.ended(end.and_then(Result::err));
                    break;
                }
                Poll::Pending => {
                    self.idle = true;
                    break;
                }
            }
        }
        self.chunk.close();
        None
    }
}

/// Hexadecimal digits of a length, and a line end.
const HEAD_BYTES: usize = 2 * size_of::<usize>() + 2;
const LINE_END: &[u8] = b"\r\n";

/// A chunk of a chunked body on its way out.
#[derive(Default)]
struct Chunk {
    /// The size line: what is left of it stands at the end.
    head: [u8; HEAD_BYTES],
    head_left: usize,
    data: VecDeque<Bytes>,
    len: usize,
    end_left: usize,
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.end_left == 0
    }

    fn has_room(&self) -> bool {
        self.len < LANE_BYTES && self.data.len() < LANE_PIECES
    }

    fn push(&mut self, data: Bytes) {
        self.len += data.len();
        self.data.push_back(data);
    }

    /// Writes the size line; nothing where there is no data.
    fn close(&mut self) {
        if self.data.is_empty() {
            return;
        }
        let mut line = [0; HEAD_BYTES];
        let mut rest = line.as_mut_slice();
        // The line has room for any length.
        let _ = write!(rest, "{:x}\r\n", self.len);
        self.head_left = HEAD_BYTES - rest.len();
        let at = HEAD_BYTES - self.head_left;
        if let (Some(to), Some(from)) = (self.head.get_mut(at..), line.get(..self.head_left)) {
            to.copy_from_slice(from);
        }
        (self.len, self.end_left) = (0, LINE_END.len());
    }

    /// What is left, and how many of the slices that is.
    fn slices(&self) -> ([IoSlice<'_>; LANE_PIECES + 2], usize) {
        let mut slices = [IoSlice::new(&[]); LANE_PIECES + 2];
        let head = self.head.get(HEAD_BYTES - self.head_left..).unwrap_or_default();
        let end = LINE_END.get(LINE_END.len() - self.end_left..).unwrap_or_default();
        let pieces = [head]
            .into_iter()
            .chain(self.data.iter().map(Bytes::as_ref))
            .chain([end])
            .filter(|piece| !piece.is_empty());
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        (slices, count)
    }

    /// Forgets what was written.
    fn advance(&mut self, mut written: usize) {
        let of_head = written.min(self.head_left);
        self.head_left -= of_head;
        written -= of_head;
        while let Some(first) = self.data.front_mut().filter(|_| written > 0) {
            let of_first = written.min(first.len());
            written -= of_first;
            if of_first == first.len() {
                self.data.pop_front();
            } else {
                first.advance(of_first);
            }
        }
        self.end_left -= written.min(self.end_left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(chunk: &mut Chunk, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !chunk.is_empty() {
            let (slices, count) = chunk.slices();
            let left: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            let now = step.min(left.len());
            all.extend_from_slice(&left[..now]);
            chunk.advance(now);
        }
        all
    }

    #[test]
    fn a_chunk_is_the_same_however_little_the_socket_takes() {
        for step in [1, 2, 3, 5, 7, 100, 10_000] {
            let mut chunk = Chunk::default();
            for round in 0..3 {
                let pieces = [vec![b'a'; 3], vec![b'b'; 300 + round], vec![b'c'; 1]];
                for piece in &pieces {
                    chunk.push(Bytes::from(piece.clone()));
                }
                chunk.close();
                let body = pieces.concat();
                let wanted = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n"].concat();
                assert_eq!(written(&mut chunk, step), wanted);
                assert!(chunk.is_empty());
            }
        }
    }

    #[test]
    fn a_chunk_without_data_would_be_the_end_of_the_body_and_is_not_made() {
        let mut chunk = Chunk::default();
        chunk.close();
        assert!(chunk.is_empty());
        assert_eq!(chunk.slices().1, 0);
    }

    #[test]
    fn a_chunk_is_full_at_its_bounds() {
        let mut chunk = Chunk::default();
        for _ in 0..LANE_PIECES {
            assert!(chunk.has_room());
            chunk.push(Bytes::from_static(b"x"));
        }
        assert!(!chunk.has_room());
        chunk.close();
        assert_eq!(written(&mut chunk, 4), b"10\r\nxxxxxxxxxxxxxxxx\r\n");
        chunk.push(Bytes::from(vec![0; LANE_BYTES]));
        assert!(!chunk.has_room());
    }
}
