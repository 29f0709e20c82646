//! Backup and restore of a data directory, while a server uses it or not. `docs/design/backup.md` says why the copy of a
//! log that is being written is whole. A backup is a directory of plain files with a list of their SHA-256; it holds every
//! secret and every face vector of the original, and is to be guarded like it.

mod log;
mod manifest;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::KeyRing;
use base::metrics::Metrics;
use base::{Clock, Disk, SystemDisk, read_small, replace_small};

pub use manifest::{FileEntry, Manifest};

use crate::catalog::{CatalogError, sqlite_copy};
use crate::datadir::{
    self, CATALOG_FILE, DataDir, DataDirError, FACES_FILE, FORMAT, INDEX_FILE, KEYRING_FILE, LOCK_FILE, LOG_FOLDER,
    MANIFEST_FILE, ROOT_KEY_FILE,
};
use crate::{Error, Finding, IndexHome, LogOptions, LogStore, Severity, fsck};

/// Largest of the small files. Ours.
const SMALL_BYTES_MAX: usize = 1 << 20;
/// How often the copy is begun anew when the key ring changes or the copy of the log is not whole.
const ATTEMPTS_MAX: usize = 3;

/// Why a backup or a restore did not happen. What had been written of it is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The source or the target is not what it must be.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is something in the way.
    #[error("{0} is not empty")]
    NotEmpty(PathBuf),
    /// The directory holds no complete backup.
    #[error("{0} is not a complete backup: it has no backup.json")]
    NotABackup(PathBuf),
    /// The backup was changed or has decayed.
    #[error("backup file {file}: {why}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// Segments were reused faster than they could be copied.
    #[error("the log turns over faster than it can be copied; try again when fewer producers write")]
    TooBusy,
    /// A file could not be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A database could not be copied.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The copy of the log could not be opened.
    #[error("the copy of the log: {0}")]
    Log(#[from] Error),
    /// The copy of the key ring is unusable.
    #[error(transparent)]
    KeyRing(#[from] auth::KeyRingError),
}

fn io_at(file: impl AsRef<Path>) -> impl Fn(io::Error) -> BackupError {
    let file = file.as_ref().display().to_string();
    move |source| BackupError::Io {
        file: file.clone(),
        source,
    }
}

/// Copies the data directory `from` into `to`, which is missing or empty. A server may go on writing: everything that was
/// acknowledged before this was called is in the copy, things acknowledged meanwhile may be. Blocks. The copy has been
/// opened, recovered and closed when this returns, and is on stable storage.
pub fn backup(from: &Path, to: &Path, clock: &Arc<dyn Clock>) -> Result<Manifest, BackupError> {
    let source = DataDir::peek(from)?;
    let target = empty_target(to)?;
    let started = clock.now();
    // From here on files that the copied catalog names stay, until they are copied too.
    let hold = datadir::hold_objects(from).map_err(io_at(from))?;
    let (mut attempts, mut damage_before) = (0, None);
    let damaged = loop {
        attempts += 1;
        let ring_before = ring_bytes(from)?;
        copy_databases(from, to)?;
        log::copy(&from.join(LOG_FOLDER), &to.join(LOG_FOLDER), &**clock)?;
        // Ids that were given out while the log was copied may be in it; the copy must not give them out again.
        sqlite_copy::raise_counters(&from.join(CATALOG_FILE), &to.join(CATALOG_FILE))?;
        copy_secrets(from, &*target)?;
        let damaged = settle(to, clock)?;
        let same_ring = ring_bytes(from)? == ring_before;
        // Damage that the second copy shows too is in the original.
        let believed = damaged.is_empty() || damage_before.as_ref() == Some(&damaged);
        if same_ring && believed {
            break damaged;
        }
        if attempts == ATTEMPTS_MAX {
            return Err(BackupError::TooBusy);
        }
        damage_before = Some(damaged);
    };
    manifest::copy_objects(from, to)?;
    drop((source, hold));
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: started.millis(),
        finished_ms: clock.now().millis(),
        files: manifest::list(to)?,
        damaged,
    };
    manifest::sync(to, &manifest)?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| io_at(to)(io::Error::other(e)))?;
    replace_small(&*target, MANIFEST_FILE, &text).map_err(io_at(MANIFEST_FILE))?;
    Ok(manifest)
}

/// Compares every file of a backup with the SHA-256 it had. Gives the list.
pub fn verify(backup: &Path) -> Result<Manifest, BackupError> {
    let manifest = read_manifest(backup)?;
    manifest::check(backup, &manifest)?;
    Ok(manifest)
}

/// Makes the data directory `to`, which is missing or empty, from a backup that is whole. The format file is written last:
/// a restore that was cut off leaves a directory that no server takes. Blocks.
pub fn restore(from: &Path, to: &Path) -> Result<Manifest, BackupError> {
    let manifest = verify(from)?;
    let target = empty_target(to)?;
    for entry in &manifest.files {
        manifest::copy(from, to, entry)?;
    }
    manifest::sync(to, &manifest)?;
    manifest::check(to, &manifest)?;
    datadir::write_format(to, &*target, manifest.format)?;
    Ok(manifest)
}

fn read_manifest(backup: &Path) -> Result<Manifest, BackupError> {
    if !backup.is_dir() {
        return Err(BackupError::NotABackup(backup.to_owned()));
    }
    let disk = SystemDisk::open(backup).map_err(io_at(backup))?;
    let text = read_small(&disk, MANIFEST_FILE, manifest::BYTES_MAX).map_err(io_at(MANIFEST_FILE))?;
    let text = text.ok_or_else(|| BackupError::NotABackup(backup.to_owned()))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| BackupError::Damaged {
        file: MANIFEST_FILE.to_owned(),
        why: e.to_string(),
    })?;
    if manifest.format > FORMAT {
        return Err(BackupError::DataDir(DataDirError::Newer {
            path: backup.to_owned(),
            found: manifest.format,
            known: FORMAT,
        }));
    }
    Ok(manifest)
}

/// The target as a disk, made if missing; it may hold nothing but a lock.
fn empty_target(to: &Path) -> Result<Arc<dyn Disk>, BackupError> {
    let disk = SystemDisk::open(to).map_err(io_at(to))?;
    if datadir::names(to)?
        .iter()
        .any(|name| name != LOCK_FILE && name != "lost+found")
    {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    Ok(Arc::new(disk))
}

fn ring_bytes(from: &Path) -> Result<Option<Vec<u8>>, BackupError> {
    let disk = SystemDisk::open(from).map_err(io_at(from))?;
    read_small(&disk, KEYRING_FILE, SMALL_BYTES_MAX).map_err(io_at(KEYRING_FILE))
}

/// The catalog is copied before the log: positions that it holds are then never ahead of the log.
fn copy_databases(from: &Path, to: &Path) -> Result<(), BackupError> {
    for name in [CATALOG_FILE, FACES_FILE] {
        if from.join(name).exists() {
            sqlite_copy::copy(&from.join(name), &to.join(name))?;
        }
    }
    Ok(())
}

fn copy_secrets(from: &Path, to: &dyn Disk) -> Result<(), BackupError> {
    let source = SystemDisk::open(from).map_err(io_at(from))?;
    for name in [KEYRING_FILE, ROOT_KEY_FILE] {
        if let Some(bytes) = read_small(&source, name, SMALL_BYTES_MAX).map_err(io_at(name))? {
            replace_small(to, name, &bytes).map_err(io_at(name))?;
        }
    }
    Ok(())
}

/// Opens everything that was copied, which recovers the log, closes it in good order, and reads every byte of it. Gives
/// the damage in the log.
fn settle(to: &Path, clock: &Arc<dyn Clock>) -> Result<Vec<Finding>, BackupError> {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(to).map_err(io_at(to))?);
    if read_small(&*disk, KEYRING_FILE, SMALL_BYTES_MAX)
        .map_err(io_at(KEYRING_FILE))?
        .is_some()
    {
        KeyRing::load_or_create(disk, KEYRING_FILE)?;
    }
    let folder = to.join(LOG_FOLDER);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(&folder).map_err(io_at(&folder))?);
    let index = IndexHome::file(&to.join(INDEX_FILE));
    let options = LogOptions {
        index: index.clone(),
        // An error of the lanes reaches this thread as the result of the call below.
        on_fatal: Arc::new(|error| tracing::warn!(%error, "the copy of the log could not be written")),
        ..LogOptions::default()
    };
    let log = LogStore::open(Arc::clone(&disk), Arc::clone(clock), options, &Metrics::new())?;
    log.close();
    drop(log);
    // A restored server builds its own.
    index.remove()?;
    // Space set aside by the copy's own lanes; a restored server sets aside its own.
    for name in disk
        .list()
        .map_err(io_at(&folder))?
        .iter()
        .filter(|name| name.starts_with("reserve-"))
    {
        disk.remove(name).map_err(io_at(name))?;
    }
    let mut findings = fsck(&disk)?.findings;
    findings.retain(|finding| finding.severity == Severity::Damage);
    Ok(findings)
}
