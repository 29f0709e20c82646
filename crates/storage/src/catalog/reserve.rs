//! Space that the catalog keeps for itself, so that a full disk can be emptied: a deletion is written before it frees
//! anything. The reserve is given up when the disk is full and taken back as soon as there is room.

use std::path::PathBuf;

use rustix::fs::{FallocateFlags, Mode, OFlags};

use super::limits::CATALOG_RESERVE_BYTES;
use super::{Change, Expect};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// The reserve of a database file, taken if there is room.
    pub(super) fn of(database: &std::path::Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push("-reserve");
        let mut reserve = Reserve {
            path: name.into(),
            held: false,
        };
        reserve.take();
        reserve
    }

    /// True when the space is set aside, or was just now. A file system that cannot set space aside counts as holding it:
    /// then a full disk may refuse deletions too.
    pub(super) fn take(&mut self) -> bool {
        if !self.held {
            self.held = self.allocate().is_ok();
            if !self.held {
                self.give_up();
            }
        }
        self.held
    }

    /// Gives the space back to the file system.
    pub(super) fn give_up(&mut self) {
        self.held = false;
        let _ = rustix::fs::unlink(&self.path);
    }

    fn allocate(&self) -> rustix::io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&self.path, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, CATALOG_RESERVE_BYTES) {
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
