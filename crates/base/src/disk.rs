//! Bytes on a device as a value. Code that keeps data is handed a [`Disk`], one directory of files; [`SystemDisk`] is the
//! directory of a real file system, and the power-cut simulation brings a lossy one. Calls block: they are for dedicated
//! threads. Nothing here knows what the files hold.
//!
//! What is durable when: written bytes after [`DiskFile::sync_data`] of their file; a file's creation, new name or removal
//! after [`Disk::sync_dir`]. Until then a power cut may lose, tear or reorder it.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::streamed::StreamedFile;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::ReadWriteFlags;

/// One directory of files. Names are plain file names without a separator.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file; an error of kind `AlreadyExists` if there is one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// As [`Self::create`], for a file that will grow to `bytes` and then be written over: an implementation may set the
    /// space aside at once, so that the file reads as zeros up to there.
    fn create_sized(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let _ = bytes;
        self.create(name)
    }

    /// As [`Self::create`], for a file that is written once, from its beginning to its end in large stretches: an
    /// implementation may send them straight to the device, so that they push nothing else out of the page cache.
    fn create_streamed(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.create(name)
    }

    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Open handles stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that can still be written by this process.
    fn free_bytes(&self) -> io::Result<u64>;

    /// The folder of that name in this directory, made if missing; its name is durable when this returns. An error of kind
    /// `Unsupported` where there are none.
    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let _ = name;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// True when the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills the buffer if that takes no waiting for the device; false where it would, or where the file system cannot tell,
    /// and at the end of the file. The buffer then holds anything.
    fn read_without_waiting(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Where the next bytes that may differ from zero lie, at `offset` or behind it; `None` if there are none. A file system
    /// that cannot tell says `offset`.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }

    /// Writes all the pieces, one behind the other, at `offset`. After an error any part of them may have been written.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes everything written to this file so far durable (fdatasync). After an error the state of what was not yet
    /// synced is unknown and stays so: the caller must not go on writing as if nothing happened.
    fn sync_data(&self) -> io::Result<()>;

    /// [`Self::write_at`], then [`Self::sync_data`]; an implementation may do both in one go. The outer error is that of
    /// the write, the inner one that of the sync.
    fn write_and_sync(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<io::Result<()>> {
        self.write_at(pieces, offset)?;
        Ok(self.sync_data())
    }

    /// Returns the space of whole blocks within the range to the file system; they read as zeros afterwards. An error of
    /// kind `Unsupported` where the file system cannot.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// A directory of the machine's file system.
#[derive(Debug)]
pub struct SystemDisk {
    path: PathBuf,
    directory: File,
}

impl SystemDisk {
    /// The directory at `path`, made with mode 0700 if missing. Its parent must exist.
    #[allow(clippy::disallowed_methods, reason = "the one place that opens files")]
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Err(error) = std::fs::create_dir(path)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let directory = File::open(path)?;
        rustix::fs::fchmod(&directory, Mode::RWXU)?;
        if let Some(parent) = path.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(SystemDisk {
            path: path.to_owned(),
            directory,
        })
    }

    /// An existing file opened for writing past the page cache (O_DIRECT). An error where the file system cannot.
    pub fn open_direct(&self, name: &str) -> io::Result<File> {
        self.descriptor(name, OFlags::DIRECT)
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.descriptor(name, flags)?;
        Ok(Arc::new(SystemFile { file }))
    }

    fn descriptor(&self, name: &str, flags: OFlags) -> io::Result<File> {
        check_plain(name)?;
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(File::from(fd))
    }
}

fn check_plain(name: &str) -> io::Result<()> {
    let legal = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if !legal {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
    }
    Ok(())
}

impl Disk for SystemDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_with(name, OFlags::empty())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_with(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn create_streamed(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.descriptor(name, OFlags::CREATE | OFlags::EXCL)?;
        match self.open_direct(name) {
            Ok(direct) => Ok(Arc::new(StreamedFile::new(file, direct))),
            Err(_) => Ok(Arc::new(SystemFile { file })),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(
            &self.directory,
            name,
            rustix::fs::AtFlags::empty(),
        )?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        check_plain(name)?;
        Ok(Arc::new(SystemDisk::open(&self.path.join(name))?))
    }
}

#[derive(Debug)]
pub(crate) struct SystemFile {
    pub(crate) file: File,
}

/// Pieces in one call; Linux's IOV_MAX.
const PIECES_MAX: usize = 1024;

impl DiskFile for SystemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_without_waiting(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        let len = buffer.len();
        let into = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, into, offset, ReadWriteFlags::NOWAIT) {
            Ok(got) => Ok(got == len),
            Err(_) => Ok(false),
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(_) => Ok(Some(offset)),
        }
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut owned: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        let mut rest = owned.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let now = rest.get(..rest.len().min(PIECES_MAX)).unwrap_or_default();
            match rustix::io::pwritev(&self.file, now, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.file, flags, offset, len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_directory_keeps_what_was_written_and_gives_back_holes() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::open(&folder.path().join("log")).unwrap();
        let file = disk.create("a").unwrap();
        assert_eq!(disk.create("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let block = [7u8; 4096];
        let pieces: Vec<IoSlice<'_>> = (0..2000).map(|_| IoSlice::new(&block)).collect();
        file.write_at(&pieces, 100).unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.len().unwrap(), 100 + 2000 * 4096);
        let mut back = [0u8; 8192];
        assert_eq!(file.read_at(&mut back, 100 + 1999 * 4096).unwrap(), 4096);
        assert_eq!(back[..4096], block);
        if file.punch_hole(8192, 4096).is_ok() {
            file.read_at(&mut back, 8192).unwrap();
            assert_eq!((back[0], back[4095], back[4096]), (0, 0, 7));
        }
        file.set_len(1 << 30).unwrap();
        assert_eq!(file.next_data(5000).unwrap(), Some(5000));
        assert!(file.next_data(512 << 20).unwrap().is_none_or(|at| at == 512 << 20));
        file.set_len(10).unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        assert_eq!(disk.open("b").unwrap().len().unwrap(), 10);
        disk.remove("b").unwrap();
        assert!(disk.open("b").is_err());
        disk.folder("f").unwrap().create("b").unwrap();
        assert_eq!(disk.folder("f").unwrap().list().unwrap(), ["b"]);
        assert!(disk.list().unwrap().is_empty(), "a folder is no file");
        assert!(disk.free_bytes().unwrap() > 0);
        for bad in ["", ".", "..", "x/y", "/etc/passwd"] {
            assert_eq!(disk.open(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad}");
            assert_eq!(
                disk.folder(bad).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{bad}"
            );
        }
    }
}
