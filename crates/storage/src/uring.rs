//! The fast way to write a segment: its space set aside or already there, direct I/O through io_uring, many writes under
//! way at once, one fdatasync behind them. Everything else (files that grow, reads, odd offsets) goes the plain way; where
//! the kernel refuses io_uring or the file system refuses direct I/O, all of it does. It knows nothing of segments.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use base::{Disk, DiskFile, SystemDisk};
use io_uring::{IoUring, opcode, squeue, types};
use parking_lot::Mutex;

/// Direct I/O wants memory, offset and length to be multiples of the device's block; 4 KiB suits all of them.
const BLOCK: usize = 4096;
/// Space is set aside only where so many times as much is free.
const ROOMY: u64 = 16;
/// Writes under way at once.
const DEPTH: u32 = 64;
/// Pieces and bytes gathered into one write.
const GATHER_PIECES: usize = 16;
const GATHER_BYTES: usize = 1 << 20;

/// The fastest disk that this machine allows.
pub fn best_disk(plain: SystemDisk) -> Arc<dyn Disk> {
    match IoUring::new(DEPTH * 2) {
        Ok(ring) => Arc::new(UringDisk {
            plain,
            rings: Arc::new(Mutex::new(vec![ring])),
        }),
        Err(error) => {
            tracing::info!(%error, "io_uring is refused; the log writes the plain way");
            Arc::new(plain)
        }
    }
}

type Rings = Arc<Mutex<Vec<IoUring>>>;

struct UringDisk {
    plain: SystemDisk,
    /// Idle rings; there are never more than lanes that write at once.
    rings: Rings,
}

impl std::fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringDisk")
            .field("plain", &self.plain)
            .finish_non_exhaustive()
    }
}

impl UringDisk {
    fn wrap(&self, name: &str, plain: Arc<dyn DiskFile>) -> io::Result<Arc<dyn DiskFile>> {
        let whole = plain.len()?;
        // A new file grows, and growing past the page cache is slow.
        if whole == 0 {
            return Ok(plain);
        }
        match self.plain.open_direct(name) {
            Ok(direct) => Ok(Arc::new(UringFile {
                plain,
                direct,
                whole,
                rings: Arc::clone(&self.rings),
            })),
            Err(_) => Ok(plain),
        }
    }
}

impl Disk for UringDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.wrap(name, self.plain.open(name)?)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.plain.create(name)
    }

    fn create_sized(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let plain = self.plain.create(name)?;
        // A nearly full disk is not to be filled with promises.
        if self.plain.free_bytes()? < bytes.saturating_mul(ROOMY) {
            return Ok(plain);
        }
        let Ok(direct) = self.plain.open_direct(name) else {
            return Ok(plain);
        };
        if rustix::fs::fallocate(&direct, rustix::fs::FallocateFlags::empty(), 0, bytes).is_err() {
            plain.set_len(0)?;
            return Ok(plain);
        }
        Ok(Arc::new(UringFile {
            plain,
            direct,
            whole: bytes,
            rings: Arc::clone(&self.rings),
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.plain.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.plain.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.plain.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.plain.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.plain.free_bytes()
    }
}

struct UringFile {
    plain: Arc<dyn DiskFile>,
    direct: File,
    /// The file's length when it was opened: up to here writes change no metadata.
    whole: u64,
    rings: Rings,
}

impl std::fmt::Debug for UringFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringFile")
            .field("plain", &self.plain)
            .finish_non_exhaustive()
    }
}

impl UringFile {
    /// True when the pieces can go past the page cache.
    fn suits(&self, pieces: &[IoSlice<'_>], offset: u64) -> bool {
        let len: usize = pieces.iter().map(|p| p.len()).sum();
        let whole_blocks = pieces.iter().all(|p| p.len().is_multiple_of(BLOCK));
        whole_blocks && offset.is_multiple_of(BLOCK as u64) && offset + len as u64 <= self.whole
    }

    /// Writes and, if asked, syncs. The outer error is that of the writes.
    fn submit(&self, pieces: &[IoSlice<'_>], offset: u64, sync: bool) -> io::Result<io::Result<()>> {
        let pooled = self.rings.lock().pop();
        let mut ring = match pooled {
            Some(ring) => ring,
            None => IoUring::new(DEPTH * 2)?,
        };
        let aligned = Aligned::of(pieces);
        let answer = run(&mut ring, &self.direct, &aligned.writes(pieces), offset, sync);
        self.rings.lock().push(ring);
        answer
    }
}

/// Copies of the pieces whose memory is not aligned.
struct Aligned {
    /// For each piece its copy and where in it the bytes begin.
    copies: Vec<Option<(Vec<u8>, usize)>>,
}

impl Aligned {
    fn of(pieces: &[IoSlice<'_>]) -> Aligned {
        let copy = |piece: &IoSlice<'_>| {
            if piece.as_ptr().align_offset(BLOCK) == 0 {
                return None;
            }
            let mut bytes = vec![0; piece.len() + BLOCK];
            let start = bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
            if let Some(place) = bytes.get_mut(start..start + piece.len()) {
                place.copy_from_slice(piece);
            }
            Some((bytes, start))
        };
        Aligned {
            copies: pieces.iter().map(copy).collect(),
        }
    }

    /// The pieces in groups, each of which becomes one write.
    fn writes<'a>(&'a self, pieces: &'a [IoSlice<'a>]) -> Vec<Vec<libc::iovec>> {
        let mut writes: Vec<Vec<libc::iovec>> = Vec::new();
        let mut gathered = usize::MAX;
        for (piece, copy) in pieces.iter().zip(&self.copies) {
            let bytes: &[u8] = match copy {
                Some((bytes, start)) => bytes.get(*start..*start + piece.len()).unwrap_or_default(),
                None => piece,
            };
            let full = writes.last().is_none_or(|w| w.len() >= GATHER_PIECES);
            if full || gathered.saturating_add(bytes.len()) > GATHER_BYTES {
                writes.push(Vec::new());
                gathered = 0;
            }
            gathered += bytes.len();
            if let Some(write) = writes.last_mut() {
                write.push(libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                });
            }
        }
        writes
    }
}

const SYNC: u64 = u64::MAX;

/// Has the kernel do the writes, in waves of [`DEPTH`], and the sync behind the last wave. Returns only when nothing is
/// under way any more.
fn run(
    ring: &mut IoUring,
    file: &File,
    writes: &[Vec<libc::iovec>],
    offset: u64,
    sync: bool,
) -> io::Result<io::Result<()>> {
    let fd = types::Fd(file.as_raw_fd());
    let mut failed: io::Result<()> = Ok(());
    let mut synced: io::Result<()> = Ok(());
    let mut at = offset;
    let waves = writes.len().div_ceil(DEPTH as usize);
    for (wave, group) in writes.chunks(DEPTH as usize).enumerate() {
        let mut entries: Vec<squeue::Entry> = Vec::with_capacity(group.len() + 1);
        let mut lengths = Vec::with_capacity(group.len());
        for write in group {
            let len: usize = write.iter().map(|v| v.iov_len).sum();
            let count = u32::try_from(write.len()).unwrap_or(0);
            let entry = opcode::Writev::new(fd, write.as_ptr(), count).offset(at).build();
            entries.push(entry.user_data(lengths.len() as u64));
            lengths.push(len);
            at += len as u64;
        }
        if sync && wave + 1 == waves {
            let fsync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            // Drained: it begins when all writes before it have ended.
            entries.push(fsync.flags(squeue::Flags::IO_DRAIN).user_data(SYNC));
        }
        for (what, result) in complete(ring, &entries)? {
            let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
            match (what, error) {
                (SYNC, Some(error)) => synced = Err(error),
                (SYNC, None) => {}
                (_, Some(error)) => failed = Err(error),
                (n, None) => {
                    let wanted = usize::try_from(n).ok().and_then(|n| lengths.get(n)).copied();
                    if wanted != usize::try_from(result).ok() {
                        failed = Err(io::Error::from(io::ErrorKind::WriteZero));
                    }
                }
            }
        }
        // The writes of this wave have all ended; a later one would only pile up behind the gap.
        if failed.is_err() {
            return failed.map(Ok);
        }
    }
    Ok(synced)
}

/// Submits entries and waits for all their results.
#[allow(unsafe_code)]
fn complete(ring: &mut IoUring, entries: &[squeue::Entry]) -> io::Result<Vec<(u64, i32)>> {
    {
        let mut queue = ring.submission();
        // Checked beforehand: an entry left in the queue by an error would outlive what it points at.
        if queue.capacity() - queue.len() < entries.len() {
            return Err(io::Error::other("the submission queue is too short"));
        }
        for entry in entries {
            // SAFETY: an entry points at the iovecs and through them at the memory of the pieces (or their aligned
            // copies), and names an open descriptor. `run` holds borrows of all of them, and this function does not
            // return before the kernel has reported the end of every entry that was submitted; where that cannot be
            // waited for, it aborts the process. The kernel only reads the memory.
            if unsafe { queue.push(entry) }.is_err() {
                tracing::error!("io_uring lost count of its queue");
                std::process::abort();
            }
        }
    }
    let mut results = Vec::with_capacity(entries.len());
    while results.len() < entries.len() {
        match ring.submit_and_wait(entries.len() - results.len()) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ResourceBusy) => {}
            Err(error) => {
                tracing::error!(%error, "io_uring broke down with writes under way");
                std::process::abort();
            }
        }
        results.extend(ring.completion().map(|c| (c.user_data(), c.result())));
    }
    Ok(results)
}

/// True where the file system does not want direct I/O of this shape, or the kernel has no room for it: the plain way
/// writes the same bytes.
fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EAGAIN | libc::ENOMEM | libc::ENOLCK)
    )
}

impl DiskFile for UringFile {
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

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if !self.suits(pieces, offset) {
            return self.plain.write_at(pieces, offset);
        }
        match self.submit(pieces, offset, false) {
            Err(error) if is_refused(&error) => self.plain.write_at(pieces, offset),
            other => other?,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.plain.sync_data()
    }

    fn write_and_sync(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<io::Result<()>> {
        if pieces.is_empty() || !self.suits(pieces, offset) {
            return self.plain.write_and_sync(pieces, offset);
        }
        match self.submit(pieces, offset, true) {
            Err(error) if is_refused(&error) => self.plain.write_and_sync(pieces, offset),
            other => other,
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.plain.punch_hole(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_past_the_page_cache_is_what_is_read() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let disk = best_disk(SystemDisk::open(folder.path()).unwrap());
        let file = disk.create("a").unwrap();
        file.write_at(&[IoSlice::new(&vec![1; 64 << 20])], 0).unwrap();
        file.sync_data().unwrap();
        drop(file);
        // Written over: aligned or not, more writes than the ring holds, with and without a sync.
        let sized = disk.create_sized("b", 1 << 20).unwrap();
        sized
            .write_and_sync(&[IoSlice::new(&[3; 3 * BLOCK])], BLOCK as u64)
            .unwrap()
            .unwrap();
        let mut back = [9; 2 * BLOCK];
        assert_eq!(sized.read_at(&mut back, 0).unwrap(), 2 * BLOCK);
        assert_eq!((back[0], back[BLOCK]), (0, 3));
        let file = disk.open("a").unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let mut expected = vec![1u8; 64 << 20];
        for round in 0..20 {
            let blocks = [1, 3, 16, 256, 2000][random.usize(..5)];
            let mut bytes = vec![0; blocks * BLOCK + 1];
            random.fill(&mut bytes);
            let start = round % 2;
            let whole = &bytes[start..start + blocks * BLOCK];
            let step = [BLOCK, 3 * BLOCK, 64 << 10][random.usize(..3)];
            let pieces: Vec<IoSlice<'_>> = whole.chunks(step).map(IoSlice::new).collect();
            let offset = random.usize(..(64 << 20) / BLOCK - blocks) * BLOCK;
            if random.bool() {
                file.write_and_sync(&pieces, offset as u64).unwrap().unwrap();
            } else {
                file.write_at(&pieces, offset as u64).unwrap();
                file.sync_data().unwrap();
            }
            expected[offset..offset + whole.len()].copy_from_slice(whole);
            let mut back = vec![0; whole.len()];
            file.read_at(&mut back, offset as u64).unwrap();
            assert!(back == whole, "round {round}");
        }
        let mut back = vec![0; 64 << 20];
        disk.open("a").unwrap().read_at(&mut back, 0).unwrap();
        assert!(back == expected);
        file.write_at(&[IoSlice::new(b"odd")], 5).unwrap();
        file.write_at(&[IoSlice::new(&[7; BLOCK])], 64 << 20).unwrap();
        assert_eq!(file.len().unwrap(), (64 << 20) + BLOCK as u64);
    }
}
