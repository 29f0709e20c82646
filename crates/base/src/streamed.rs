//! A file whose whole blocks go straight to the device (O_DIRECT). Through the page cache each byte is copied into pages that
//! nobody reads again soon, which costs more than the device does; what is no whole block goes there still.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::disk::{DiskFile, SystemFile};

/// What direct writes are aligned to, in memory and in the file.
const BLOCK: usize = 4096;
/// Bytes of one direct write at most.
const STRETCH: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct StreamedFile {
    plain: SystemFile,
    direct: File,
    /// The file system takes direct writes, as far as is known.
    takes_direct: AtomicBool,
    /// One stretch, aligned; made at the first write.
    stretch: Mutex<Option<Stretch>>,
}

/// Aligned memory.
struct Stretch {
    memory: Box<[u8]>,
    start: usize,
}

impl std::fmt::Debug for Stretch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stretch").finish_non_exhaustive()
    }
}

impl Stretch {
    fn new() -> Self {
        let memory = vec![0; STRETCH + BLOCK].into_boxed_slice();
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        Stretch { memory, start }
    }

    /// Fills the memory from the pieces as far as both go, and takes what it took off them.
    fn fill<'a>(&mut self, pieces: &mut &mut [IoSlice<'a>], most: usize) -> &[u8] {
        let end = self.start + most.min(STRETCH);
        let mut at = self.start;
        while let Some(piece) = pieces.first()
            && at < end
        {
            let take = piece.len().min(end - at);
            if let (Some(to), Some(from)) = (self.memory.get_mut(at..at + take), piece.get(..take)) {
                to.copy_from_slice(from);
            }
            at += take;
            IoSlice::advance_slices(pieces, take);
        }
        self.memory.get(self.start..at).unwrap_or_default()
    }
}

impl StreamedFile {
    pub(crate) fn new(file: File, direct: File) -> Self {
        StreamedFile {
            plain: SystemFile { file },
            direct,
            takes_direct: AtomicBool::new(true),
            stretch: Mutex::new(None),
        }
    }

    /// Writes whole blocks; through the page cache from now on where the file system refuses them after all.
    fn write_blocks(&self, mut block: &[u8], mut offset: u64) -> io::Result<()> {
        while !block.is_empty() {
            match rustix::io::pwrite(&self.direct, block, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    block = block.get(n..).unwrap_or_default();
                    offset += n as u64;
                    // What is left after a short write is no whole block any more.
                    if !n.is_multiple_of(BLOCK) {
                        return self.plain.write_at(&[IoSlice::new(block)], offset);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => {
                    self.takes_direct.store(false, Ordering::Relaxed);
                    return self.plain.write_at(&[IoSlice::new(block)], offset);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl DiskFile for StreamedFile {
    fn len(&self) -> io::Result<u64> {
        self.plain.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plain.set_len(len)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.plain.read_at(buffer, offset)
    }

    fn read_without_waiting(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.plain.read_without_waiting(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.plain.next_data(offset)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut owned: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = owned.as_mut_slice();
        let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
        IoSlice::advance_slices(&mut rest, 0);
        let mut stretch = self.stretch.lock();
        while left >= BLOCK && offset.is_multiple_of(BLOCK as u64) && self.takes_direct.load(Ordering::Relaxed) {
            let block = stretch
                .get_or_insert_with(Stretch::new)
                .fill(&mut rest, left - left % BLOCK);
            let len = block.len();
            self.write_blocks(block, offset)?;
            left -= len;
            offset += len as u64;
        }
        drop(stretch);
        self.plain.write_at(rest, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.plain.sync_data()
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.plain.punch_hole(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Disk, SystemDisk};

    #[test]
    fn what_is_written_in_any_stretches_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::open(folder.path()).unwrap();
        let bytes: Vec<u8> = (0..3 * STRETCH + 777).map(|n| (n % 251) as u8).collect();
        for (number, sizes) in [
            vec![bytes.len()],
            vec![STRETCH, 2 * STRETCH, 777],
            vec![BLOCK, 1, BLOCK - 1, 100, 2 * STRETCH],
            vec![10; 50],
        ]
        .into_iter()
        .enumerate()
        {
            let file: Arc<dyn DiskFile> = disk.create_streamed(&number.to_string()).unwrap();
            let mut at = 0;
            for size in sizes {
                let part = &bytes[at..(at + size).min(bytes.len())];
                let (left, right) = part.split_at(part.len() / 3);
                file.write_at(&[IoSlice::new(left), IoSlice::new(&[]), IoSlice::new(right)], at as u64)
                    .unwrap();
                at += part.len();
            }
            file.sync_data().unwrap();
            drop(file);
            let mut read = vec![0; at + 1];
            let file = disk.open(&number.to_string()).unwrap();
            assert_eq!(file.read_at(&mut read, 0).unwrap(), at);
            assert!(read[..at] == bytes[..at], "{number}");
        }
    }
}
