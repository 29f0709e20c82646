//! Space that a database keeps for itself beside its file (the catalog, and the faces' database), so that a full disk can be emptied: a deletion is written before it frees
//! anything. The reserve is given up when the disk is full and taken back as soon as there is room.

use std::path::PathBuf;

use rustix::fs::{FallocateFlags, Mode, OFlags};

use super::limits::CATALOG_RESERVE_BYTES;
use super::{Change, Expect};

/// See the module's text.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve of a database file, taken as far as there is room.
    pub fn of(database: &std::path::Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push("-reserve");
        let mut reserve = Reserve {
            path: name.into(),
            bytes: 0,
        };
        reserve.take();
        reserve
    }

    /// Sets aside as much as there is room for, up to all of it. True when that is all of it: then the disk is not full.
    pub fn take(&mut self) -> bool {
        let steps = std::iter::successors(Some(CATALOG_RESERVE_BYTES), |bytes| Some(bytes / 2));
        for bytes in steps.take_while(|bytes| *bytes >= 1 << 16) {
            if bytes <= self.bytes {
                break;
            }
            if self.allocate(bytes).is_ok() {
                self.bytes = bytes;
            }
        }
        self.bytes == CATALOG_RESERVE_BYTES
    }

    /// Gives the space back to the file system. What is left of it after the change that needed it is to be taken again
    /// at once, before another writer has it.
    pub fn give_up(&mut self) {
        self.bytes = 0;
        let _ = rustix::fs::unlink(&self.path);
    }

    /// A file system that cannot set space aside counts as having done so: there a full disk may refuse deletions too.
    fn allocate(&self, bytes: u64) -> rustix::io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&self.path, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }
}

/// May this commit draw on the reserve? It deletes, or replaces what is there; it does not only add.
pub(super) fn frees(changes: &[Change]) -> bool {
    let deletes = changes.iter().any(|change| matches!(change, Change::Delete { .. }));
    let adds = |change: &Change| matches!(change, Change::Put { expect, .. } if !matches!(expect, Expect::Version(_)));
    deletes || !changes.iter().any(adds)
}
