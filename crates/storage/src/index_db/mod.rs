//! The part of the fragment index that is not in memory: one SQLite file, one row per fragment. It is never the truth: it
//! is written behind the acks, believed only as far as the log proves it, and built again from the log when it is
//! missing, damaged, of another version or does not fit. `docs/design/log.md`, "The index", has the rules.

mod read;
mod row;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Disk, SystemDisk};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags};

use crate::{Error, StreamId};

pub(crate) use read::Piece;
pub(crate) use write::{Batch, SegmentRow, StreamRow};

/// Marks the file as ours ("SGix").
const APPLICATION_ID: i32 = 0x5347_6978;
/// The schema that this program writes. A file of another one is thrown away: the log has everything.
const SCHEMA: i32 = 1;
/// How long a connection waits for another one's lock.
const BUSY: Duration = Duration::from_secs(10);
/// Page cache of the writing connection, KiB.
const WRITER_CACHE_KIB: u32 = 16 << 10;
/// Page cache of a reading connection, KiB.
const READER_CACHE_KIB: u32 = 8 << 10;
/// Connections kept for readers; with the writer's, 64 MiB of cache at most.
const READERS_MAX: usize = 6;
/// Pages in the write-ahead log before they are moved into the file, with two syncs: about 32 MiB.
const CHECKPOINT_PAGES: u32 = 8192;

/// Rows that one transaction deletes.
pub(crate) const PURGE_ROWS: usize = 5000;

/// The covering indexes hold all that coverage and the search for a time need.
const TABLES: &str = "
CREATE TABLE fragment (
    stream INTEGER NOT NULL, sequence INTEGER NOT NULL, position INTEGER NOT NULL,
    server_ms INTEGER NOT NULL, producer_ms INTEGER NOT NULL, length_ms INTEGER NOT NULL, size INTEGER NOT NULL,
    rest BLOB NOT NULL,
    PRIMARY KEY (stream, sequence)) WITHOUT ROWID;
CREATE UNIQUE INDEX by_position ON fragment (stream, position);
CREATE INDEX by_server ON fragment (stream, server_ms, sequence, length_ms, size, position);
CREATE INDEX by_producer ON fragment (stream, producer_ms, sequence, length_ms, size, position);
CREATE TABLE stream (
    stream INTEGER PRIMARY KEY, fragments INTEGER NOT NULL, bytes INTEGER NOT NULL,
    sequence INTEGER NOT NULL, position INTEGER NOT NULL, longest_ms INTEGER NOT NULL,
    server_start INTEGER NOT NULL, server_end INTEGER NOT NULL,
    producer_start INTEGER NOT NULL, producer_end INTEGER NOT NULL);
CREATE TABLE segment (
    segment INTEGER PRIMARY KEY, commits INTEGER NOT NULL, refs INTEGER NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0, slot INTEGER, salt INTEGER, log_end INTEGER, unpunched INTEGER NOT NULL DEFAULT 0);
";

/// Where the index on disk lives.
#[derive(Clone, Default)]
pub struct IndexHome(Kind);

#[derive(Clone, Default)]
enum Kind {
    /// Nowhere: it is built from the log at each open and takes memory. For tests and tools.
    #[default]
    Memory,
    File(PathBuf),
    /// Outlives the process of the simulation.
    #[cfg(test)]
    Held(Arc<Mutex<Connection>>),
}

impl IndexHome {
    /// A file, which is made if missing.
    pub fn file(path: &Path) -> Self {
        IndexHome(Kind::File(path.to_owned()))
    }

    /// Memory: the whole index is built at each open and gone with the log.
    pub fn memory() -> Self {
        IndexHome(Kind::Memory)
    }

    #[cfg(test)]
    pub(crate) fn held(connection: Arc<Mutex<Connection>>) -> Self {
        IndexHome(Kind::Held(connection))
    }

    /// Removes the file; the log builds it again.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let Kind::File(path) = &self.0 else { return Ok(()) };
        let fail = |e| Error::io("remove", &path.display().to_string(), e);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
            return Err(fail(std::io::Error::other("not the path of a file")));
        };
        let disk = SystemDisk::open(folder).map_err(fail)?;
        for suffix in ["", "-wal", "-shm"] {
            match disk.remove(&format!("{name}{suffix}")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The open index. Every connection sees whole transactions.
pub(crate) struct IndexDb {
    home: IndexHome,
    writer: Arc<Mutex<Connection>>,
    readers: Mutex<Vec<Connection>>,
}

/// A connection to read with.
enum Reader<'a> {
    Shared(MutexGuard<'a, Connection>),
    Own(&'a IndexDb, Option<Connection>),
}

impl Reader<'_> {
    fn get(&self) -> Option<&Connection> {
        match self {
            Reader::Shared(connection) => Some(connection),
            Reader::Own(_, connection) => connection.as_ref(),
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Reader::Own(db, connection) = self {
            let mut readers = db.readers.lock();
            if readers.len() < READERS_MAX {
                readers.extend(connection.take());
            }
        }
    }
}

/// What a failed statement means for the caller.
pub(crate) fn engine(error: &rusqlite::Error) -> Error {
    let full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        || error.sqlite_error().map(|e| e.extended_code) == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
    if full {
        return Error::DiskFull;
    }
    Error::io("use", "the fragment index", std::io::Error::other(error.to_string()))
}

impl IndexDb {
    /// Opens the index; one that is damaged or of another version is made anew, empty.
    pub fn open(home: &IndexHome) -> Result<Self, Error> {
        let writer = match &home.0 {
            Kind::Memory => {
                let connection = Connection::open_in_memory().map_err(|e| engine(&e))?;
                create(&connection).map_err(|e| engine(&e))?;
                Arc::new(Mutex::new(connection))
            }
            #[cfg(test)]
            Kind::Held(connection) => {
                let held = connection.lock();
                if !is_ours(&held).unwrap_or(false) {
                    create(&held).map_err(|e| engine(&e))?;
                }
                drop(held);
                Arc::clone(connection)
            }
            Kind::File(path) => {
                let connection = match open_file(path) {
                    Ok(connection) => connection,
                    Err(error) if matches!(engine(&error), Error::DiskFull) => return Err(Error::DiskFull),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "the fragment index cannot be used and is made anew");
                        home.remove()?;
                        open_file(path).map_err(|e| engine(&e))?
                    }
                };
                Arc::new(Mutex::new(connection))
            }
        };
        writer.lock().set_prepared_statement_cache_capacity(32);
        Ok(IndexDb {
            home: home.clone(),
            writer,
            readers: Mutex::default(),
        })
    }

    /// Opens the index to look at it, whatever is in it. `None` where there is none.
    pub fn peek(home: &IndexHome) -> Result<Option<Self>, Error> {
        let writer = match &home.0 {
            Kind::Memory => return Ok(None),
            #[cfg(test)]
            Kind::Held(connection) => Arc::clone(connection),
            Kind::File(path) if !path.exists() => return Ok(None),
            Kind::File(path) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(path, flags).map_err(|e| engine(&e))?;
                if !is_ours(&connection).map_err(|e| engine(&e))? {
                    let why = std::io::Error::other("it is of another version");
                    return Err(Error::io("read", &path.display().to_string(), why));
                }
                Arc::new(Mutex::new(connection))
            }
        };
        Ok(Some(IndexDb {
            home: home.clone(),
            writer,
            readers: Mutex::default(),
        }))
    }

    /// Forgets everything.
    pub fn wipe(&self) -> Result<(), Error> {
        self.readers.lock().clear();
        let mut writer = self.writer.lock();
        match &self.home.0 {
            Kind::File(path) => {
                // The file goes, not its rows: it may be damaged, and dropping millions of rows takes long.
                let nothing = Connection::open_in_memory().map_err(|e| engine(&e))?;
                drop(std::mem::replace(&mut *writer, nothing));
                self.home.remove()?;
                *writer = open_file(path).map_err(|e| engine(&e))?;
            }
            _ => {
                let drop_all =
                    "DROP TABLE IF EXISTS fragment; DROP TABLE IF EXISTS stream; DROP TABLE IF EXISTS segment;";
                writer.execute_batch(drop_all).map_err(|e| engine(&e))?;
                create(&writer).map_err(|e| engine(&e))?;
            }
        }
        writer.set_prepared_statement_cache_capacity(32);
        Ok(())
    }

    /// Makes sure that the next open does not believe the file.
    pub fn condemn(&self) {
        if let Err(error) = self.home.remove() {
            tracing::error!(%error, "the damaged fragment index could not be removed; remove it by hand");
        }
    }

    fn reader(&self) -> Result<Reader<'_>, Error> {
        let Kind::File(path) = &self.home.0 else {
            return Ok(Reader::Shared(self.writer.lock()));
        };
        let pooled = self.readers.lock().pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(path, flags).map_err(|e| engine(&e))?;
                connection.busy_timeout(BUSY).map_err(|e| engine(&e))?;
                connection.set_prepared_statement_cache_capacity(32);
                set_cache(&connection, READER_CACHE_KIB).map_err(|e| engine(&e))?;
                connection
            }
        };
        Ok(Reader::Own(self, Some(connection)))
    }

    /// Runs `work` on a connection that reads.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let reader = self.reader()?;
        let connection = reader.get().ok_or(Error::Closed)?;
        work(connection).map_err(|e| engine(&e))
    }

    /// The segments that rows lie in, and those that are settled.
    pub fn segments(&self) -> Result<HashMap<u64, SegmentRow>, Error> {
        self.read(read::segments)
    }

    /// What is stored of each stream.
    pub fn streams(&self) -> Result<HashMap<StreamId, StreamRow>, Error> {
        self.read(read::streams)
    }
}

fn set_cache(connection: &Connection, kib: u32) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("PRAGMA cache_size=-{kib}"))
}

fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    let read = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    Ok(read("application_id")? == APPLICATION_ID && read("user_version")? == SCHEMA)
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN; {TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA}; COMMIT;"
    ))
}

fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // In WAL mode with NORMAL a power cut takes the last transactions, never the file's integrity.
    let _: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES};"
    ))?;
    set_cache(&connection, WRITER_CACHE_KIB)?;
    let empty = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? == 0;
    if empty {
        create(&connection)?;
    } else if !is_ours(&connection)? {
        let other = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
        let why = "it is of another version".to_owned();
        return Err(rusqlite::Error::SqliteFailure(other, Some(why)));
    }
    Ok(connection)
}
