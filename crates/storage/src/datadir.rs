//! The data directory: who may use it, which format it has, and where in it what lies. It knows the names of the files,
//! not their content.
//!
//! | name | holds |
//! |---|---|
//! | `format` | the version of the layout; written last when a directory is made or restored |
//! | `lock` | locked by the server that uses the directory; says who that is |
//! | `catalog.db` | the catalog; `catalog.db-reserve` beside it is space kept for deletions on a full disk |
//! | `faces.db` | collections and face vectors; `faces.db-reserve` likewise |
//! | `log/` | the segment log of media and records |
//! | `index.db` | the index of fragments that is not in memory; may be removed, the next start builds it from the log |
//! | `objects/` | the bytes of objects in buckets, in 256 folders; `objects/hold` is locked while a backup copies them |
//! | `keyring` | master keys, mode 0600 |
//! | `root-key` | the root key made at first start, mode 0600 |

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::{Credentials, KeyRing, KeyRingError, Secret};
use base::{Clock, Disk, SystemDisk, Timestamp, read_small, replace_small};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::IndexHome;
use crate::catalog::{CatalogError, SqliteCatalog, SqliteOptions, sqlite_copy};

/// The newest layout that this program knows.
///
/// 2: commit frames of the log end with a fingerprint of the tracks; those of format 1 are read as ever, but a program
/// that knows format 1 alone would take the new ones for damage.
pub const FORMAT: u32 = 2;

pub(crate) const FORMAT_FILE: &str = "format";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const CATALOG_FILE: &str = "catalog.db";
pub(crate) const FACES_FILE: &str = "faces.db";
pub(crate) const INDEX_FILE: &str = "index.db";
pub(crate) const LOG_FOLDER: &str = "log";
pub(crate) const OBJECTS_FOLDER: &str = "objects";
pub(crate) const HOLD_FILE: &str = "hold";
pub(crate) const KEYRING_FILE: &str = "keyring";
pub(crate) const ROOT_KEY_FILE: &str = "root-key";
/// Present in a backup and not in a data directory.
pub(crate) const MANIFEST_FILE: &str = "backup.json";

/// Largest of the small files of the directory. Ours.
const SMALL_BYTES_MAX: usize = 1 << 20;

/// Brings a directory from one format to the next. It must not mind being run again after a crash in the middle: the
/// format file changes only when it has returned.
pub type Migration = fn(&Path) -> io::Result<()>;

/// `MIGRATIONS[n]` leads from format `n + 1` to `n + 2`.
const MIGRATIONS: [Migration; FORMAT as usize - 1] = [|_| Ok(())];

/// The server that holds a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The name of its machine, which matters on shared file systems.
    pub host: String,
    /// When it took the directory, in milliseconds since the epoch.
    pub started_ms: i64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = auth::date::iso_date(Timestamp::from_millis(self.started_ms));
        write!(f, "process {} on {} since {since}", self.pid, self.host)
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server uses it.
    #[error("{path} is in use by {}", holder.as_ref().map_or("another server".to_owned(), ToString::to_string))]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who it is; `None` in the instant in which that server is just starting.
        holder: Option<Holder>,
    },
    /// A newer version of the program made it.
    #[error(
        "{path} has format {found}; this version of sightglass knows up to {known}. Use the newer version, or restore a backup made before the upgrade."
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// An older version of the program made it, and no server of this version has opened it yet.
    #[error(
        "{path} has format {found}, this version of sightglass uses {known}: start the server once to bring it up to date"
    )]
    Older {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format wanted.
        known: u32,
    },
    /// It holds files of others.
    #[error("{0} is not empty and not a data directory of sightglass")]
    Foreign(PathBuf),
    /// It does not exist, or nothing was ever kept in it.
    #[error("{0} is not a data directory: start a server on it first")]
    Missing(PathBuf),
    /// It is a backup.
    #[error("{0} is a backup: restore it into a directory of its own")]
    Backup(PathBuf),
    /// A file of it is unreadable.
    #[error("{path}: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key ring is unusable.
    #[error(transparent)]
    KeyRing(#[from] KeyRingError),
    /// The catalog is unusable.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// No root key could be made.
    #[error("the root key could not be made: {0}")]
    RootKey(String),
}

#[derive(Serialize, Deserialize)]
struct FormatText {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct RootKeyText {
    access_key_id: String,
    secret_access_key: Secret,
}

/// A data directory of a known format. Dropping it gives up the lock.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    lock: Option<OwnedFd>,
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> DataDirError + '_ {
    move |source| DataDirError::Io {
        path: path.to_owned(),
        source,
    }
}

impl DataDir {
    /// Takes the directory for a server: makes it if missing (its parent must exist), locks it, checks its format and
    /// brings an older one up to date. The lock ends with this value or with the process, however that ends.
    pub fn lock(path: &Path, clock: &dyn Clock) -> Result<Self, DataDirError> {
        Self::lock_with(path, clock, &MIGRATIONS)
    }

    /// [`Self::lock`] with migrations of the caller: for tests of the mechanism.
    #[doc(hidden)]
    pub fn lock_with(path: &Path, clock: &dyn Clock, migrations: &[Migration]) -> Result<Self, DataDirError> {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(path).map_err(io_at(path))?);
        let lock = take_lock(path, &*disk, clock)?;
        bring_up_to_date(path, &*disk, migrations)?;
        Ok(DataDir {
            path: path.to_owned(),
            disk,
            lock: Some(lock),
        })
    }

    /// Looks into a directory that a server may be using: for the CLI. Its format must be the current one.
    pub fn peek(path: &Path) -> Result<Self, DataDirError> {
        if !path.is_dir() {
            return Err(DataDirError::Missing(path.to_owned()));
        }
        let disk = SystemDisk::open(path).map_err(io_at(path))?;
        match read_format(path, &disk)? {
            None => Err(DataDirError::Missing(path.to_owned())),
            Some(found) if found > FORMAT => Err(DataDirError::Newer {
                path: path.to_owned(),
                found,
                known: FORMAT,
            }),
            Some(found) if found < FORMAT => Err(DataDirError::Older {
                path: path.to_owned(),
                found,
                known: FORMAT,
            }),
            Some(_) => Ok(DataDir {
                path: path.to_owned(),
                disk: Arc::new(disk),
                lock: None,
            }),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True when this value holds the lock.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// The file of the face index.
    pub fn faces_file(&self) -> PathBuf {
        self.path.join(FACES_FILE)
    }

    /// The folder of the segment log as a disk, made if missing.
    pub fn log_disk(&self) -> Result<Arc<dyn Disk>, DataDirError> {
        let folder = self.path.join(LOG_FOLDER);
        Ok(crate::best_disk(SystemDisk::open(&folder).map_err(io_at(&folder))?))
    }

    /// The folder of objects as a disk, made if missing.
    pub fn objects_disk(&self) -> Result<Arc<dyn Disk>, DataDirError> {
        let folder = self.path.join(OBJECTS_FOLDER);
        Ok(Arc::new(SystemDisk::open(&folder).map_err(io_at(&folder))?))
    }

    /// A permission to remove files of objects, held while that is done; `None` while a backup needs them all.
    pub fn objects_permit(&self) -> impl Fn() -> io::Result<Option<Box<dyn Send>>> + Send + Sync + use<> {
        let file = self.path.join(OBJECTS_FOLDER).join(HOLD_FILE);
        move || {
            let lock = open_lock(&file)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
                Ok(()) => Ok(Some(Box::new(lock))),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Where the index of fragments is.
    pub fn index_home(&self) -> IndexHome {
        IndexHome::file(&self.path.join(INDEX_FILE))
    }

    /// Reads the databases through and gives what is wrong with them, a line each; nothing is changed.
    pub fn check_databases(&self) -> Vec<String> {
        let files = [self.path.join(CATALOG_FILE), self.faces_file()];
        let check = |file: &PathBuf| sqlite_copy::check(file).err().map(|error| error.to_string());
        files.iter().filter(|file| file.exists()).filter_map(check).collect()
    }

    /// Opens the catalog, or makes it.
    pub fn open_catalog(&self, options: SqliteOptions) -> Result<SqliteCatalog, DataDirError> {
        Ok(SqliteCatalog::open(&self.path.join(CATALOG_FILE), options)?)
    }

    /// Opens the key ring, or makes it.
    pub fn open_keyring(&self) -> Result<KeyRing, DataDirError> {
        Ok(KeyRing::load_or_create(Arc::clone(&self.disk), KEYRING_FILE)?)
    }

    /// The root key made at an earlier start, if one was.
    pub fn stored_root_key(&self) -> Result<Option<Credentials>, DataDirError> {
        let path = self.path.join(ROOT_KEY_FILE);
        let Some(text) = read_small(&*self.disk, ROOT_KEY_FILE, SMALL_BYTES_MAX).map_err(io_at(&path))? else {
            return Ok(None);
        };
        let stored: RootKeyText = serde_json::from_slice(&text).map_err(|e| DataDirError::Damaged {
            path,
            why: format!("not a root key: {e}"),
        })?;
        Ok(Some(Credentials {
            access_key_id: stored.access_key_id,
            secret: stored.secret_access_key,
            session_token: None,
        }))
    }

    /// The root key: the one that the operator gave, which is not stored, else the stored one, else a new one, which is
    /// stored with mode 0600 before this returns.
    pub fn root_key(&self, given: Option<Credentials>) -> Result<Credentials, DataDirError> {
        if let Some(given) = given {
            return Ok(given);
        }
        if let Some(stored) = self.stored_root_key()? {
            return Ok(stored);
        }
        let made = Credentials::generate().map_err(|e| DataDirError::RootKey(e.to_string()))?;
        let text = serde_json::to_vec(&RootKeyText {
            access_key_id: made.access_key_id.clone(),
            secret_access_key: made.secret.clone(),
        });
        let text = text.map_err(|e| DataDirError::RootKey(e.to_string()))?;
        replace_small(&*self.disk, ROOT_KEY_FILE, &text).map_err(io_at(&self.path.join(ROOT_KEY_FILE)))?;
        Ok(made)
    }
}

/// Who uses a directory at this moment; `None` when nobody does.
pub fn holder(path: &Path) -> Result<Option<Holder>, DataDirError> {
    let disk = SystemDisk::open(path).map_err(io_at(path))?;
    let Ok(lock) = rustix::fs::open(path.join(LOCK_FILE), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
        return Ok(None);
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(read_holder(&disk)),
        Err(error) => Err(io_at(path)(error.into())),
    }
}

fn open_lock(file: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(file, flags, Mode::RUSR | Mode::WUSR)?)
}

/// While this lives, no server removes a file of an object; `None` where there are no objects.
pub(crate) fn hold_objects(path: &Path) -> io::Result<Option<OwnedFd>> {
    let folder = path.join(OBJECTS_FOLDER);
    if !folder.is_dir() {
        return Ok(None);
    }
    let lock = open_lock(&folder.join(HOLD_FILE))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    Ok(Some(lock))
}

fn read_holder(disk: &dyn Disk) -> Option<Holder> {
    let text = read_small(disk, LOCK_FILE, SMALL_BYTES_MAX).ok()??;
    serde_json::from_slice(&text).ok()
}

/// The lock is the kernel's (flock), so that none is left behind by a crash; the text in the file is for people.
fn take_lock(path: &Path, disk: &dyn Disk, clock: &dyn Clock) -> Result<OwnedFd, DataDirError> {
    let file = path.join(LOCK_FILE);
    let fail = io_at(&file);
    let lock = open_lock(&file).map_err(&fail)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(DataDirError::Held {
                path: path.to_owned(),
                holder: read_holder(disk),
            });
        }
        Err(error) => return Err(fail(error.into())),
    }
    let me = Holder {
        pid: std::process::id(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        started_ms: clock.now().millis(),
    };
    let text = serde_json::to_vec(&me).map_err(|e| fail(io::Error::other(e)))?;
    // Written in place: a rename would take the lock's file away. Nothing depends on it after a power cut.
    rustix::fs::ftruncate(&lock, 0).map_err(|e| fail(e.into()))?;
    rustix::io::pwrite(&lock, &text, 0).map_err(|e| fail(e.into()))?;
    Ok(lock)
}

/// The format of the directory; `None` when it is empty but for a lock.
fn read_format(path: &Path, disk: &dyn Disk) -> Result<Option<u32>, DataDirError> {
    let names = names(path)?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(MANIFEST_FILE) {
        return Err(DataDirError::Backup(path.to_owned()));
    }
    let file = path.join(FORMAT_FILE);
    let Some(text) = read_small(disk, FORMAT_FILE, SMALL_BYTES_MAX).map_err(io_at(&file))? else {
        let ours = [LOCK_FILE, "format.new", "lost+found"];
        if names.iter().all(|name| ours.contains(&name.as_str())) {
            return Ok(None);
        }
        return Err(DataDirError::Foreign(path.to_owned()));
    };
    let damaged = |why: String| DataDirError::Damaged {
        path: file.clone(),
        why,
    };
    let text: FormatText = serde_json::from_slice(&text).map_err(|e| damaged(format!("not a format file: {e}")))?;
    if text.format == 0 {
        return Err(damaged("format 0 never was".to_owned()));
    }
    Ok(Some(text.format))
}

/// The names of everything in a directory, folders too.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, DataDirError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io_at(path))? {
        let entry = entry.map_err(io_at(path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn bring_up_to_date(path: &Path, disk: &dyn Disk, migrations: &[Migration]) -> Result<(), DataDirError> {
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX).saturating_add(1);
    let Some(mut format) = read_format(path, disk)? else {
        return write_format(path, disk, known);
    };
    if format > known {
        return Err(DataDirError::Newer {
            path: path.to_owned(),
            found: format,
            known,
        });
    }
    for step in migrations.iter().skip(format.saturating_sub(1) as usize) {
        tracing::info!(from = format, to = format + 1, path = %path.display(), "bringing the data directory up to date");
        step(path).map_err(io_at(path))?;
        format += 1;
        write_format(path, disk, format)?;
    }
    Ok(())
}

pub(crate) fn write_format(path: &Path, disk: &dyn Disk, format: u32) -> Result<(), DataDirError> {
    let fail = io_at(path);
    let text = serde_json::to_vec(&FormatText { format }).map_err(|e| fail(io::Error::other(e)))?;
    replace_small(disk, FORMAT_FILE, &text).map_err(fail)
}
