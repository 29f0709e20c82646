//! The list of a backup's files, and the copying and checking of them.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use base::{Disk, DiskFile, SystemDisk};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BackupError, io_at};
use crate::Finding;
use crate::datadir::{self, HOLD_FILE, LOCK_FILE, LOG_FOLDER, MANIFEST_FILE, OBJECTS_FOLDER};

/// Largest list that is read. Ours: a million files.
pub(super) const BYTES_MAX: usize = 256 << 20;
/// Bytes read at a time.
const STEP: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the data directory.
    pub format: u32,
    /// Version of the program that made it.
    pub program: String,
    /// When it was begun: everything acknowledged before is in it. Milliseconds since the epoch.
    pub started_ms: i64,
    /// When it was complete.
    pub finished_ms: i64,
    /// Its files.
    pub files: Vec<FileEntry>,
    /// Damage that the original has in its log and the copy therefore too.
    #[serde(default)]
    pub damaged: Vec<Finding>,
}

impl Manifest {
    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, with `log/` or `objects/..` before it if it lies there.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Hex SHA-256 of its content.
    pub sha256: String,
}

/// The folders that an entry of a list may name: the log, and those of the objects, two hex digits each.
fn is_folder(name: &str) -> bool {
    let objects = name
        .strip_prefix(OBJECTS_FOLDER)
        .and_then(|rest| rest.strip_prefix('/'));
    name == LOG_FOLDER || objects.is_some_and(|two| two.len() == 2 && two.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A folder of the backup and a plain name in it. Nothing in a list can lead out of the directory.
fn place<'a>(root: &Path, name: &'a str) -> Result<(Arc<dyn Disk>, &'a str), BackupError> {
    let Some((folder, plain)) = name.rsplit_once('/') else {
        return Ok((Arc::new(SystemDisk::open(root).map_err(io_at(root))?), name));
    };
    if !is_folder(folder) {
        return Err(BackupError::Damaged {
            file: name.to_owned(),
            why: "it lies in a folder that is none of a data directory".to_owned(),
        });
    }
    let mut disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(root).map_err(io_at(root))?);
    for one in folder.split('/') {
        disk = disk.folder(one).map_err(io_at(name))?;
    }
    Ok((disk, plain))
}

/// The names of the files of objects that are whole, with their folders.
fn object_files(root: &Path) -> Result<Vec<String>, BackupError> {
    let (folder, mut out) = (root.join(OBJECTS_FOLDER), Vec::new());
    if !folder.is_dir() {
        return Ok(out);
    }
    for two in datadir::names(&folder)? {
        let below = format!("{OBJECTS_FOLDER}/{two}");
        if two == HOLD_FILE || !is_folder(&below) {
            continue;
        }
        let names = datadir::names(&folder.join(&two))?;
        // What is still being written has a dot in its name, and no row names it.
        out.extend(
            names
                .into_iter()
                .filter(|name| !name.contains('.'))
                .map(|name| format!("{below}/{name}")),
        );
    }
    Ok(out)
}

/// Copies the files of all objects. They never change, and none is removed meanwhile.
pub(super) fn copy_objects(from: &Path, to: &Path) -> Result<(), BackupError> {
    for name in object_files(from)? {
        let (source, plain) = place(from, &name)?;
        let (target, _) = place(to, &name)?;
        let source = source.open(plain).map_err(io_at(&name))?;
        let target = target.create(plain).map_err(io_at(&name))?;
        copy_backwards(&*source, &*target).map_err(io_at(&name))?;
    }
    Ok(())
}

/// Lists and hashes everything in a directory that is to be part of a backup.
pub(super) fn list(root: &Path) -> Result<Vec<FileEntry>, BackupError> {
    let mut names: Vec<String> = datadir::names(root)?;
    names.retain(|name| ![LOCK_FILE, MANIFEST_FILE, LOG_FOLDER, OBJECTS_FOLDER, "lost+found"].contains(&name.as_str()));
    let folder = root.join(LOG_FOLDER);
    if folder.exists() {
        names.extend(
            datadir::names(&folder)?
                .into_iter()
                .map(|name| format!("{LOG_FOLDER}/{name}")),
        );
    }
    names.extend(object_files(root)?);
    names.sort();
    let entry = |name: String| {
        let (disk, plain) = place(root, &name)?;
        let file = disk.open(plain).map_err(io_at(&name))?;
        let (bytes, sha256) = hash(&*file).map_err(io_at(&name))?;
        Ok(FileEntry { name, bytes, sha256 })
    };
    names.into_iter().map(entry).collect()
}

fn hash(file: &dyn DiskFile) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; STEP];
    let mut offset = 0;
    loop {
        let got = file.read_at(&mut buffer, offset)?;
        hasher.update(buffer.get(..got).unwrap_or_default());
        offset += got as u64;
        if got < STEP {
            break;
        }
    }
    let hex = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((offset, hex))
}

/// Compares a directory with a list.
pub(super) fn check(root: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    for entry in &manifest.files {
        let damaged = |why: String| BackupError::Damaged {
            file: entry.name.clone(),
            why,
        };
        let (disk, plain) = place(root, &entry.name)?;
        let file = match disk.open(plain) {
            Ok(file) => file,
            Err(error) => return Err(damaged(error.to_string())),
        };
        let (bytes, sha256) = hash(&*file).map_err(io_at(&entry.name))?;
        if bytes != entry.bytes {
            return Err(damaged(format!("it has {bytes} bytes, not {}", entry.bytes)));
        }
        if sha256 != entry.sha256 {
            return Err(damaged("its content is not what was written".to_owned()));
        }
    }
    Ok(())
}

/// Makes every file and every name of a list durable.
pub(super) fn sync(root: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    for entry in &manifest.files {
        let (disk, plain) = place(root, &entry.name)?;
        let file = disk.open(plain).map_err(io_at(&entry.name))?;
        file.sync_data().map_err(io_at(&entry.name))?;
        disk.sync_dir().map_err(io_at(&entry.name))?;
    }
    SystemDisk::open(root)
        .and_then(|disk| disk.sync_dir())
        .map_err(io_at(root))
}

/// Copies one file of a backup to the same place below another directory.
pub(super) fn copy(from: &Path, to: &Path, entry: &FileEntry) -> Result<(), BackupError> {
    let (source, plain) = place(from, &entry.name)?;
    let (target, _) = place(to, &entry.name)?;
    let fail = io_at(&entry.name);
    let source = source.open(plain).map_err(&fail)?;
    let target = target.create(plain).map_err(&fail)?;
    copy_backwards(&*source, &*target).map_err(fail)
}

/// Copies a file from its end to its beginning, leaving holes where there are only zeros. The order matters for files that
/// grow: what a frame says of the bytes before it is true when those are read later than it.
pub(super) fn copy_backwards(source: &dyn DiskFile, target: &dyn DiskFile) -> io::Result<()> {
    let len = source.len()?;
    target.set_len(0)?;
    target.set_len(len)?;
    let step = STEP as u64;
    let mut buffer = vec![0; STEP];
    for block in (0..len.div_ceil(step)).rev() {
        let offset = block * step;
        let wanted = usize::try_from((len - offset).min(step)).unwrap_or(STEP);
        let Some(room) = buffer.get_mut(..wanted) else { continue };
        let got = source.read_at(room, offset)?;
        let read = buffer.get(..got).unwrap_or_default();
        if read.iter().any(|byte| *byte != 0) {
            target.write_at(&[IoSlice::new(read)], offset)?;
        }
    }
    Ok(())
}
