//! Memory for fragments that are being received: blocks aligned for direct I/O, counted against one budget.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::frame::{ALIGN, BLOCK, HEADER, align_up};

/// Bytes of a chunk.
pub(crate) const CHUNK: usize = 64 << 10;
/// Chunks kept for reuse; beyond this they go back to the allocator.
const POOL_MAX: usize = 1024;

/// A piece of memory that begins at a multiple of 4 KiB.
struct Chunk {
    memory: Box<[u8]>,
    start: usize,
    /// What the budget is charged; a sink's own chunk is free.
    _charge: Option<OwnedSemaphorePermit>,
}

/// The pool and its budget.
pub(crate) struct Buffers {
    free: Mutex<Vec<Box<[u8]>>>,
    budget: Arc<Semaphore>,
}

impl Buffers {
    pub fn new(budget_bytes: usize) -> Arc<Self> {
        Arc::new(Buffers {
            free: Mutex::new(Vec::new()),
            budget: Arc::new(Semaphore::new(budget_bytes / CHUNK)),
        })
    }

    fn chunk(&self, charge: Option<OwnedSemaphorePermit>) -> Chunk {
        let pooled = self.free.lock().pop();
        let memory = pooled.unwrap_or_else(|| vec![0; CHUNK + BLOCK as usize].into_boxed_slice());
        let start = memory.as_ptr().align_offset(BLOCK as usize).min(BLOCK as usize);
        Chunk {
            memory,
            start,
            _charge: charge,
        }
    }
}

/// A fragment's payload, or the next piece of it, with room for its frame header in front.
pub(crate) struct ExtentBuffer {
    buffers: Arc<Buffers>,
    chunks: Vec<Chunk>,
    /// Bytes used, the header's room included.
    used: usize,
    crc: u32,
}

impl ExtentBuffer {
    pub fn new(buffers: &Arc<Buffers>) -> Self {
        ExtentBuffer {
            buffers: Arc::clone(buffers),
            chunks: Vec::new(),
            used: HEADER,
            crc: 0,
        }
    }

    /// Bytes of payload gathered.
    pub fn len(&self) -> usize {
        self.used - HEADER
    }

    /// CRC-32C of the payload.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Takes as much of `bytes` as fits into the memory at hand, and says how much that was. 0 asks for [`Self::grow`].
    pub fn fill(&mut self, bytes: &[u8], max_len: usize) -> usize {
        let room = (self.chunks.len() * CHUNK).saturating_sub(self.used);
        let room = room.min(max_len.saturating_sub(self.len()));
        let mut rest = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
        let taken = rest.len();
        self.crc = crc32c::crc32c_append(self.crc, rest);
        while !rest.is_empty() {
            let (index, at) = (self.used / CHUNK, self.used % CHUNK);
            let Some(chunk) = self.chunks.get_mut(index) else { break };
            let (now, later) = rest.split_at(rest.len().min(CHUNK - at));
            let place = chunk.start + at;
            if let Some(target) = chunk.memory.get_mut(place..place + now.len()) {
                target.copy_from_slice(now);
            }
            self.used += now.len();
            rest = later;
        }
        taken
    }

    /// Adds a chunk if the budget allows; the first one is always granted, so that every fragment can make progress.
    pub fn grow(&mut self) -> bool {
        let charge = if self.chunks.is_empty() {
            None
        } else {
            match Arc::clone(&self.buffers.budget).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return false,
            }
        };
        self.chunks.push(self.buffers.chunk(charge));
        true
    }

    /// Bytes that the frame takes on disk.
    pub fn stride(&self) -> u64 {
        align_up(self.used as u64, BLOCK)
    }

    /// Puts the header in front, zeros behind, and returns the pieces to write; each is a multiple of 4 KiB.
    pub fn seal(&mut self, header: &[u8; HEADER]) {
        if let Some(chunk) = self.chunks.first_mut() {
            let start = chunk.start;
            if let Some(place) = chunk.memory.get_mut(start..start + HEADER) {
                place.copy_from_slice(header);
            }
        }
        let (index, at) = (self.used / CHUNK, self.used % CHUNK);
        let pad = (self.stride() as usize).saturating_sub(self.used);
        if let Some(chunk) = self.chunks.get_mut(index)
            && let Some(place) = chunk.memory.get_mut(chunk.start + at..chunk.start + at + pad)
        {
            place.fill(0);
        }
    }

    /// The pieces to write after [`Self::seal`].
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let stride = self.stride() as usize;
        self.chunks.iter().enumerate().map_while(move |(index, chunk)| {
            let len = stride.checked_sub(index * CHUNK)?.min(CHUNK);
            chunk
                .memory
                .get(chunk.start..chunk.start + len)
                .filter(|p| !p.is_empty())
        })
    }
}

impl Drop for ExtentBuffer {
    fn drop(&mut self) {
        let mut free = self.buffers.free.lock();
        for chunk in self.chunks.drain(..) {
            if free.len() < POOL_MAX {
                free.push(chunk.memory);
            }
        }
    }
}

/// Zeros for padding between small frames.
pub(crate) fn pad_to(out: &mut Vec<u8>, to: u64) {
    out.resize(align_up(out.len() as u64, to.max(ALIGN)) as usize, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_aligned_blocks_with_header_payload_and_zeros() {
        let buffers = Buffers::new(4 * CHUNK);
        let payload: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8 + 1).collect();
        let mut buffer = ExtentBuffer::new(&buffers);
        let mut rest = payload.as_slice();
        while !rest.is_empty() {
            let n = buffer.fill(&rest[..rest.len().min(3000)], 1 << 20);
            if n == 0 {
                assert!(buffer.grow());
            }
            rest = &rest[n..];
        }
        assert_eq!((buffer.len(), buffer.crc()), (payload.len(), crc32c::crc32c(&payload)));
        buffer.seal(&[9; HEADER]);
        let mut whole = Vec::new();
        for piece in buffer.pieces() {
            assert_eq!((piece.as_ptr() as usize % 4096, piece.len() % 4096), (0, 0));
            whole.extend_from_slice(piece);
        }
        assert_eq!(whole.len() as u64, buffer.stride());
        assert_eq!(
            (&whole[..HEADER], &whole[HEADER..HEADER + payload.len()]),
            (&[9; HEADER][..], &payload[..])
        );
        assert!(whole[HEADER + payload.len()..].iter().all(|b| *b == 0));
    }

    #[test]
    fn the_budget_is_kept_and_every_buffer_gets_its_first_chunk() {
        let buffers = Buffers::new(2 * CHUNK);
        let mut a = ExtentBuffer::new(&buffers);
        assert!(a.grow() && a.grow() && a.grow() && !a.grow());
        let mut b = ExtentBuffer::new(&buffers);
        assert!(b.grow() && !b.grow());
        drop(a);
        assert!(b.grow());
    }
}
