//! Buffers for reading large frames, used again. A fresh megabyte costs its zeroing and 256 page faults, about as much as
//! copying it; a buffer that was read before costs nothing.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller reads take fresh memory.
const POOLED_BYTES_MIN: usize = 64 << 10;

/// Memory that is kept for the next reads.
const KEPT_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Free>>);

/// A buffer on loan, and how much of it is meant.
pub(crate) struct Loan {
    buffer: Vec<u8>,
    len: usize,
    pool: Pool,
}

impl Pool {
    /// A buffer of `len` bytes; they hold anything.
    pub fn take(&self, len: usize) -> Loan {
        let mut kept = None;
        if len >= POOLED_BYTES_MIN {
            let mut free = self.0.lock();
            // The newest that is large enough, and not so large that it is wasted.
            let fits = |buffer: &Vec<u8>| buffer.len() >= len && buffer.len() / 4 <= len;
            if let Some(at) = free.buffers.iter().rposition(fits) {
                let buffer = free.buffers.swap_remove(at);
                free.bytes -= buffer.len();
                kept = Some(buffer);
            }
        }
        Loan {
            buffer: kept.unwrap_or_else(|| vec![0; len]),
            len,
            pool: self.clone(),
        }
    }
}

impl Loan {
    /// The buffer, to be filled.
    pub fn as_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.len).unwrap_or_default()
    }

    /// What was filled. The buffer returns to the pool when the last slice of it is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.len() < POOLED_BYTES_MIN {
            return;
        }
        let mut free = self.pool.0.lock();
        if free.bytes + buffer.len() <= KEPT_BYTES_MAX {
            free.bytes += buffer.len();
            free.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_reads_it() {
        let pool = Pool::default();
        let mut loan = pool.take(1 << 20);
        loan.as_mut().fill(7);
        let place = loan.as_ref().as_ptr();
        let slice = loan.freeze().slice(5..10);
        assert_ne!(pool.take(1 << 20).as_ref().as_ptr(), place);
        assert_eq!(slice, [7; 5][..]);
        drop(slice);
        let again = pool.take((1 << 20) - 100);
        assert_eq!(
            (again.as_ref().as_ptr(), again.as_ref().len()),
            (place, (1 << 20) - 100)
        );
    }

    #[test]
    fn no_more_is_kept_than_allowed_and_small_reads_take_nothing_of_it() {
        let pool = Pool::default();
        let loans: Vec<Loan> = (0..80).map(|_| pool.take(1 << 20)).collect();
        drop(loans);
        assert_eq!(pool.0.lock().bytes, KEPT_BYTES_MAX);
        assert_eq!(pool.take(100).as_ref(), [0; 100]);
        assert_eq!(pool.0.lock().bytes, KEPT_BYTES_MAX);
    }
}
