//! The pushed chunks that were not handed on yet, as one run of bytes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::limits::CHUNKS_KEPT_APART_MAX;

/// Merged neighbours grow up to this size, so that a chunk is copied a logarithmic number of times at most.
const MERGED_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Chunks {
    queue: VecDeque<Bytes>,
    len: usize,
}

impl Chunks {
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.len += chunk.len();
        self.queue.push_back(chunk);
        if self.queue.len() > CHUNKS_KEPT_APART_MAX {
            self.merge_small();
        }
    }

    /// Joins the newest chunks from the back while the one before is not much larger: a binary counter, so that bytes
    /// are copied a logarithmic number of times.
    fn merge_small(&mut self) {
        let mut take = 1;
        let mut sum = self.queue.back().map_or(0, Bytes::len);
        for chunk in self.queue.iter().rev().skip(1) {
            if chunk.len() > sum.saturating_mul(2) || sum + chunk.len() > MERGED_BYTES_MAX {
                break;
            }
            sum += chunk.len();
            take += 1;
        }
        if take > 1 {
            let mut merged = BytesMut::with_capacity(sum);
            for chunk in self.queue.drain(self.queue.len() - take..) {
                merged.extend_from_slice(&chunk);
            }
            self.queue.push_back(merged.freeze());
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies bytes from `offset` on into `into`, as many as there are; returns how many.
    pub fn peek(&self, mut offset: usize, into: &mut [u8]) -> usize {
        let mut filled = 0;
        for chunk in &self.queue {
            if offset >= chunk.len() {
                offset -= chunk.len();
                continue;
            }
            let from = chunk.get(offset..).unwrap_or_default();
            let room = into.get_mut(filled..).unwrap_or_default();
            let count = from.len().min(room.len());
            if let (Some(room), Some(from)) = (room.get_mut(..count), from.get(..count)) {
                room.copy_from_slice(from);
            }
            filled += count;
            offset = 0;
            if filled == into.len() {
                break;
            }
        }
        filled
    }

    /// The `len` bytes from `offset` on in one piece: a slice where one chunk holds them all. The caller has checked
    /// that they are there.
    pub fn gather(&self, mut offset: usize, len: usize) -> Bytes {
        if len == 0 {
            return Bytes::new();
        }
        let mut gathered = BytesMut::new();
        for chunk in &self.queue {
            if offset >= chunk.len() {
                offset -= chunk.len();
                continue;
            }
            let end = chunk.len().min(offset + len - gathered.len());
            if gathered.is_empty() {
                if end - offset == len {
                    return chunk.slice(offset..end);
                }
                gathered.reserve(len);
            }
            gathered.extend_from_slice(chunk.get(offset..end).unwrap_or_default());
            offset = 0;
            if gathered.len() == len {
                break;
            }
        }
        gathered.freeze()
    }

    /// Takes up to `max` bytes from the front, from one chunk.
    pub fn take(&mut self, max: usize) -> Option<Bytes> {
        let front = self.queue.front_mut()?;
        let taken = if front.len() <= max {
            self.queue.pop_front()?
        } else {
            front.split_to(max)
        };
        self.len -= taken.len();
        Some(taken)
    }
}
