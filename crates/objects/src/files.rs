//! The files that the bytes of objects and parts lie in. A file is written once, under a name that ends in `.new`; when it
//! is on stable storage it gets its own name, and only then a row of the catalog names it. What no row names is an orphan.
//! All calls block.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::sync::Arc;

use base::{Disk, DiskFile};
use parking_lot::Mutex;

use crate::ObjectError;
use crate::row::Id;

/// What a file is called until it is whole and durable.
const NEW: &str = ".new";

/// Called once when a file could not be made durable; the server then ends the process.
pub type OnFatal = Arc<dyn Fn(&dyn Display) + Send + Sync>;

/// Asked before files are removed: a permission that is held meanwhile, or `None` while files that nobody needs must stay,
/// because a copy of the data directory is being made.
pub type Permit = Arc<dyn Fn() -> io::Result<Option<Box<dyn Send>>> + Send + Sync>;

pub(crate) struct Files {
    root: Arc<dyn Disk>,
    folders: Mutex<HashMap<u8, Arc<dyn Disk>>>,
    /// Files that are being made, whose row is still to come.
    making: Mutex<HashSet<Id>>,
    /// Files that could not be removed yet.
    doomed: Mutex<Vec<Id>>,
    permit: Permit,
    on_fatal: OnFatal,
}

/// A file that no row names yet. Dropping it removes the file.
pub(crate) struct NewFile {
    files: Arc<Files>,
    id: Id,
    pub file: Arc<dyn DiskFile>,
    /// False once a row names it, or may name it.
    orphan: bool,
}

impl Files {
    pub fn new(root: Arc<dyn Disk>, permit: Permit, on_fatal: OnFatal) -> Arc<Self> {
        Arc::new(Files {
            root,
            folders: Mutex::default(),
            making: Mutex::default(),
            doomed: Mutex::default(),
            permit,
            on_fatal,
        })
    }

    fn folder(&self, byte: u8) -> io::Result<Arc<dyn Disk>> {
        if let Some(folder) = self.folders.lock().get(&byte) {
            return Ok(Arc::clone(folder));
        }
        let folder = self.root.folder(&format!("{byte:02x}"))?;
        self.folders.lock().insert(byte, Arc::clone(&folder));
        Ok(folder)
    }

    /// Makes an empty file for a body that is written at once.
    pub fn create(self: &Arc<Self>) -> Result<NewFile, ObjectError> {
        self.create_by(|folder, name| folder.create(name))
    }

    /// Makes an empty file for a body of many chunks.
    pub fn create_streamed(self: &Arc<Self>) -> Result<NewFile, ObjectError> {
        self.create_by(|folder, name| folder.create_streamed(name))
    }

    fn create_by(
        self: &Arc<Self>,
        create: impl FnOnce(&dyn Disk, &str) -> io::Result<Arc<dyn DiskFile>>,
    ) -> Result<NewFile, ObjectError> {
        let id = Id::random();
        let fail = |error: io::Error| ObjectError::io("create a file", &error);
        let folder = self.folder(id.first_byte()).map_err(fail)?;
        self.making.lock().insert(id);
        match create(&*folder, &format!("{id}{NEW}")) {
            Ok(file) => Ok(NewFile {
                files: Arc::clone(self),
                id,
                file,
                orphan: true,
            }),
            Err(error) => {
                self.making.lock().remove(&id);
                Err(fail(error))
            }
        }
    }

    /// Opens a file; `None` if it is gone.
    pub fn open(&self, id: Id) -> Result<Option<Arc<dyn DiskFile>>, ObjectError> {
        match self
            .folder(id.first_byte())
            .and_then(|folder| folder.open(&id.to_string()))
        {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ObjectError::io("open a file", &error)),
        }
    }

    /// Removes files that no row names any more. What cannot be removed now is tried again by [`Self::retry`], and at the
    /// latest at the next start.
    pub fn remove(&self, ids: &[Id]) {
        let permit = (self.permit)();
        for id in ids {
            let removed = match &permit {
                Ok(Some(_)) => self.unlink(*id),
                Ok(None) => {
                    self.doomed.lock().push(*id);
                    continue;
                }
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%id, %error, "a file of a deleted object could not be removed; it is tried again");
                self.doomed.lock().push(*id);
            }
        }
    }

    fn unlink(&self, id: Id) -> io::Result<()> {
        self.folder(id.first_byte())?.remove(&id.to_string())
    }

    /// Tries again to remove what could not be removed.
    pub fn retry(&self) {
        let doomed = std::mem::take(&mut *self.doomed.lock());
        if !doomed.is_empty() {
            self.remove(&doomed);
        }
    }

    /// Removes what was being written when the process ended, and gives the names of all other files of a folder but those
    /// that are being made.
    pub fn list(&self, byte: u8) -> Result<Vec<Id>, ObjectError> {
        let fail = |error: io::Error| ObjectError::io("list a folder", &error);
        let folder = self.folder(byte).map_err(fail)?;
        let names = folder.list().map_err(fail)?;
        // Asked after the listing: a file that is not being made any more has its row, or will be removed.
        let making = self.making.lock().clone();
        let mut ids = Vec::new();
        for name in names {
            let (id, unfinished) = match name.strip_suffix(NEW) {
                Some(id) => (id.parse::<Id>(), true),
                None => (name.parse(), false),
            };
            match id {
                Ok(id) if making.contains(&id) => {}
                Ok(_) if unfinished => match folder.remove(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
                    _ => {}
                },
                Ok(id) => ids.push(id),
                Err(()) => tracing::warn!(name, "a file that is none of ours lies among the objects"),
            }
        }
        Ok(ids)
    }

    /// A file could not be made durable.
    pub fn fatal(&self, error: &ObjectError) {
        (self.on_fatal)(error);
    }
}

impl NewFile {
    pub fn id(&self) -> Id {
        self.id
    }

    /// Makes what was written durable under the file's own name.
    pub fn publish(&self) -> Result<(), ObjectError> {
        let done = self.file.sync_data().and_then(|()| {
            let folder = self.files.folder(self.id.first_byte())?;
            let id = self.id.to_string();
            folder.rename(&format!("{id}{NEW}"), &id)?;
            folder.sync_dir()
        });
        done.map_err(|error| {
            let error = ObjectError::io("make a file durable", &error);
            self.files.fatal(&error);
            error
        })
    }

    /// A row names it from now on, or it is not known whether one does.
    pub fn keep(mut self) {
        self.orphan = false;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.orphan {
            let (files, id) = (Arc::clone(&self.files), self.id);
            let remove = move || {
                if let Ok(folder) = files.folder(id.first_byte()) {
                    // Under which of its names it lies is not known here. What stays is removed at the next start.
                    let _ = folder.remove(&format!("{id}{NEW}"));
                    let _ = folder.remove(&id.to_string());
                }
                files.making.lock().remove(&id);
            };
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(remove)),
                Err(_) => remove(),
            }
        } else {
            self.files.making.lock().remove(&self.id);
        }
    }
}
