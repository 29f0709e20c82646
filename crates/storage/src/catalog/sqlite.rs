//! The catalog in one SQLite file: WAL with `synchronous=FULL`, so that a commit is on stable storage when it is
//! answered. One thread writes and gathers what waits into one transaction; two threads read. Other processes may open the
//! same file (the CLI does); versions come from the file, so that they never meet.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::limits::{CATALOG_GROUP_MAX, CATALOG_PAGE_BYTES_MAX, CATALOG_QUEUE_MAX};
use super::reserve::{Reserve, frees};
use super::{Catalog, CatalogError, Change, Expect, Page, Versioned, check_commit, check_key, check_page};

/// Marks the file as ours ("SGct").
const APPLICATION_ID: i32 = 0x5347_6374;
/// The newest schema that this program knows.
const SCHEMA: i32 = 1;
/// How long a writer waits for another process.
const BUSY: Duration = Duration::from_secs(10);

/// How the catalog is opened.
#[derive(Clone)]
pub struct SqliteOptions {
    /// Called once when the device failed: the server then ends the process (invariant 1).
    pub on_fatal: Arc<dyn Fn(&CatalogError) + Send + Sync>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions {
            on_fatal: Arc::new(|error| tracing::error!(%error, "the catalog has stopped")),
        }
    }
}

type Answer<T> = oneshot::Sender<Result<T, CatalogError>>;

struct Write {
    changes: Vec<Change>,
    answer: Answer<u64>,
}

enum Read {
    Get(String, Answer<Option<Versioned>>),
    Page {
        prefix: String,
        after: Option<String>,
        limit: usize,
        answer: Answer<Page>,
    },
}

/// See the module's text. Dropping it finishes what was queued and closes the file.
pub struct SqliteCatalog {
    path: PathBuf,
    writes: Option<mpsc::Sender<Write>>,
    reads: Option<mpsc::Sender<Read>>,
    transactions: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

pub(super) fn engine(error: &rusqlite::Error) -> CatalogError {
    if is_full(error) {
        return CatalogError::Full;
    }
    CatalogError::Engine(error.to_string())
}

/// No space; growing the index of the write-ahead log says so in a code of its own.
fn is_full(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|e| e.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || code == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// True when the device failed, so that nobody knows what it holds.
fn is_fatal(error: &rusqlite::Error) -> bool {
    let failed = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    );
    failed && !is_full(error)
}

pub(super) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

impl SqliteCatalog {
    /// Opens the file, or makes it. A file of a newer schema is refused, an older one is brought up to date.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, CatalogError> {
        let mut reserve = Reserve::of(path);
        let mut writer = match open_writer(path) {
            Err(CatalogError::Full) => {
                reserve.give_up();
                open_writer(path)?
            }
            other => other?,
        };
        if reserve.take() {
            match make_room(&mut writer) {
                Err(error) if is_full(&error) => {
                    reserve.give_up();
                    checkpoint(&writer);
                    reserve.take();
                }
                other => other.map_err(|e| engine(&e))?,
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let readers = [(); 2].map(|()| connect(path, flags).map_err(|e| engine(&e)));
        let (writes, write_queue) = mpsc::channel(CATALOG_QUEUE_MAX);
        let (reads, read_queue) = mpsc::channel(CATALOG_QUEUE_MAX);
        let read_queue = Arc::new(Mutex::new(read_queue));
        let transactions = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&transactions);
        let mut threads = vec![spawn("catalog-write", move || {
            write_loop(writer, write_queue, reserve, &options, &counter);
        })?];
        for reader in readers {
            let (reader, queue) = (reader?, Arc::clone(&read_queue));
            threads.push(spawn("catalog-read", move || read_loop(&reader, &queue))?);
        }
        Ok(SqliteCatalog {
            path: path.to_owned(),
            writes: Some(writes),
            reads: Some(reads),
            transactions,
            threads,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many transactions, and so syncs, the commits of this handle took so far; commits that wait together share one.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    async fn read<T>(&self, make: impl FnOnce(Answer<T>) -> Read) -> Result<T, CatalogError> {
        let (answer, wait) = oneshot::channel();
        let queue = self.reads.as_ref().ok_or_else(closed)?;
        queue.send(make(answer)).await.map_err(|_| closed())?;
        wait.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Drop for SqliteCatalog {
    fn drop(&mut self) {
        drop((self.writes.take(), self.reads.take()));
        for thread in self.threads.drain(..) {
            // A thread that panicked has already said so.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, CatalogError> {
        check_key(key)?;
        self.read(|answer| Read::Get(key.to_owned(), answer)).await
    }

    async fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, CatalogError> {
        check_page(prefix, limit)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.read(|answer| Read::Page {
            prefix,
            after,
            limit,
            answer,
        })
        .await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<u64, CatalogError> {
        check_commit(&changes)?;
        let (answer, wait) = oneshot::channel();
        let queue = self.writes.as_ref().ok_or_else(closed)?;
        queue.send(Write { changes, answer }).await.map_err(|_| closed())?;
        wait.await.unwrap_or_else(|_| Err(closed()))
    }
}

fn closed() -> CatalogError {
    CatalogError::Closed("its threads have ended".to_owned())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, CatalogError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|e| CatalogError::Engine(format!("thread {name}: {e}")))
}

fn open_writer(path: &Path) -> Result<Connection, CatalogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = connect(path, flags).map_err(|e| engine(&e))?;
    let ready = prepare(&mut connection).map_err(|e| match e {
        CatalogError::Engine(text) => CatalogError::Engine(format!("{}: {text}", path.display())),
        other => other,
    });
    ready?;
    sync_parent(path).map_err(|e| CatalogError::Engine(format!("sync {}: {e}", path.display())))?;
    Ok(connection)
}

/// The name of a new file is durable only when its directory is.
fn sync_parent(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, rustix::fs::Mode::empty())?;
    Ok(rustix::fs::fsync(folder)?)
}

fn prepare(connection: &mut Connection) -> Result<(), CatalogError> {
    let read = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let (application, schema) = (
        read("application_id").map_err(|e| engine(&e))?,
        read("user_version").map_err(|e| engine(&e))?,
    );
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| engine(&e))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(CatalogError::Engine(
            "it is an SQLite file of another program".to_owned(),
        ));
    }
    if schema > SCHEMA {
        let text = format!("it has schema {schema}; this program knows up to {SCHEMA}, use a newer one");
        return Err(CatalogError::Engine(text));
    }
    let mode: String = connection
        .query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))
        .map_err(|e| engine(&e))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(CatalogError::Engine(format!(
            "its journal mode is {mode}, WAL was refused"
        )));
    }
    connection
        .execute_batch("PRAGMA synchronous=FULL")
        .map_err(|e| engine(&e))?;
    if schema == 0 {
        create(connection).map_err(|e| engine(&e))?;
    }
    Ok(())
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!(
        "CREATE TABLE entry (k BLOB PRIMARY KEY, v BLOB NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID, STRICT;
         CREATE TABLE last (version INTEGER NOT NULL) STRICT;
         INSERT INTO last VALUES (0);
         PRAGMA application_id={APPLICATION_ID};
         PRAGMA user_version={SCHEMA};"
    ))?;
    transaction.commit()
}

/// Grows the write-ahead log, which is made anew at every start, and leaves free pages in the file: while the disk is full
/// these blocks are written over.
fn make_room(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A start that was killed here leaves the table behind.
    transaction.execute_batch(
        "DROP TABLE IF EXISTS room; CREATE TABLE room (bytes BLOB) STRICT; INSERT INTO room VALUES (zeroblob(524288));",
    )?;
    transaction.commit()?;
    connection.execute_batch("DROP TABLE room")?;
    checkpoint(connection);
    Ok(())
}

/// Moves what the write-ahead log holds into the file, so that the log's blocks can be written over. Failing is no harm:
/// what is in the log is durable.
fn checkpoint(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
}

fn write_loop(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Write>,
    mut reserve: Reserve,
    options: &SqliteOptions,
    transactions: &AtomicU64,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < CATALOG_GROUP_MAX {
            let Ok(next) = queue.try_recv() else { break };
            group.push(next);
        }
        transactions.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = write_group(&mut connection, &mut reserve, group) {
            (options.on_fatal)(&error);
            // Whoever waits or comes later finds the queue closed; recovery at the next start decides what happened.
            return;
        }
    }
}

/// Writes a group in one transaction and answers it. An error means that the device failed.
fn write_group(connection: &mut Connection, reserve: &mut Reserve, mut group: Vec<Write>) -> Result<(), CatalogError> {
    if !reserve.take() {
        let (rest, additions) = set_additions_apart(group);
        refuse(additions, &CatalogError::Full);
        group = rest;
    }
    let error = match transact(connection, &group) {
        Ok(results) => {
            answer(group, results);
            return Ok(());
        }
        Err(error) => error,
    };
    let (rest, additions) = if is_full(&error) {
        reserve.give_up();
        // What the write-ahead log holds moves into the file, so that the log's own space can be used again.
        checkpoint(connection);
        set_additions_apart(group)
    } else {
        (group, Vec::new())
    };
    let results = if is_fatal(&error) {
        Err(error)
    } else {
        one_by_one(connection, &rest)
    };
    // Before anybody is answered: who hears that the disk is full may be about to fill what is left of it.
    reserve.take();
    refuse(additions, &CatalogError::Full);
    match results {
        Ok(results) => {
            answer(rest, results);
            Ok(())
        }
        Err(error) => {
            let closed = CatalogError::Closed(error.to_string());
            refuse(rest, &closed);
            Err(closed)
        }
    }
}

fn answer(group: Vec<Write>, results: Vec<Result<u64, CatalogError>>) {
    for (write, result) in group.into_iter().zip(results) {
        let _ = write.answer.send(result);
    }
}

fn refuse(group: Vec<Write>, why: &CatalogError) {
    for write in group {
        let _ = write.answer.send(Err(why.clone()));
    }
}

/// While the disk is full, what would only take more space is refused.
fn set_additions_apart(group: Vec<Write>) -> (Vec<Write>, Vec<Write>) {
    group.into_iter().partition(|write| frees(&write.changes))
}

/// Each commit in a transaction of its own, so that none fails for the sake of its neighbour. An error means that the
/// device failed.
fn one_by_one(connection: &mut Connection, group: &[Write]) -> rusqlite::Result<Vec<Result<u64, CatalogError>>> {
    let mut results = Vec::with_capacity(group.len());
    for write in group {
        match transact(connection, std::slice::from_ref(write)) {
            Ok(mut result) => results.push(result.pop().unwrap_or_else(|| Err(closed()))),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => results.push(Err(engine(&error))),
        }
    }
    Ok(results)
}

fn transact(connection: &mut Connection, group: &[Write]) -> rusqlite::Result<Vec<Result<u64, CatalogError>>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut version: i64 = transaction.query_row("SELECT version FROM last", [], |row| row.get(0))?;
    let before = version;
    let mut results = Vec::with_capacity(group.len());
    for write in group {
        if let Some(key) = first_conflict(&transaction, &write.changes)? {
            results.push(Err(CatalogError::Conflict { key }));
            continue;
        }
        version += 1;
        for change in &write.changes {
            apply(&transaction, change, version)?;
        }
        results.push(Ok(version.unsigned_abs()));
    }
    if version == before {
        transaction.rollback()?;
        return Ok(results);
    }
    transaction
        .prepare_cached("UPDATE last SET version = ?1")?
        .execute([version])?;
    transaction.commit()?;
    Ok(results)
}

fn first_conflict(connection: &Connection, changes: &[Change]) -> rusqlite::Result<Option<String>> {
    let mut find = connection.prepare_cached("SELECT version FROM entry WHERE k = ?1")?;
    for change in changes.iter().filter(|change| change.expect() != Expect::Any) {
        let have: Option<i64> = find.query_row([change.key().as_bytes()], |row| row.get(0)).optional()?;
        let holds = match change.expect() {
            Expect::Any => true,
            Expect::Absent => have.is_none(),
            Expect::Version(version) => have.map(i64::unsigned_abs) == Some(version),
        };
        if !holds {
            return Ok(Some(change.key().to_owned()));
        }
    }
    Ok(None)
}

fn apply(connection: &Connection, change: &Change, version: i64) -> rusqlite::Result<()> {
    match change {
        Change::Put { key, value, .. } => {
            let text = "INSERT INTO entry VALUES (?1, ?2, ?3)
                        ON CONFLICT (k) DO UPDATE SET v = excluded.v, version = excluded.version";
            let mut put = connection.prepare_cached(text)?;
            put.execute(params![key.as_bytes(), value.as_ref(), version])?;
        }
        Change::Delete { key, .. } => {
            connection
                .prepare_cached("DELETE FROM entry WHERE k = ?1")?
                .execute([key.as_bytes()])?;
        }
        Change::Check { .. } => {}
    }
    Ok(())
}

fn read_loop(connection: &Connection, queue: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        // One thread waits at the queue, the other at this lock.
        let next = queue.lock().blocking_recv();
        match next {
            None => return,
            Some(Read::Get(key, answer)) => {
                let _ = answer.send(get(connection, &key).map_err(|e| engine(&e)));
            }
            Some(Read::Page {
                prefix,
                after,
                limit,
                answer,
            }) => {
                let page = read_page(connection, &prefix, after.as_deref(), limit);
                let _ = answer.send(page.map_err(|e| engine(&e)));
            }
        }
    }
}

fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<Versioned>> {
    let mut find = connection.prepare_cached("SELECT version, v FROM entry WHERE k = ?1")?;
    let row = find.query_row([key.as_bytes()], |row| {
        Ok(Versioned {
            version: row.get::<_, i64>(0)?.unsigned_abs(),
            value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        })
    });
    row.optional()
}

fn read_page(connection: &Connection, prefix: &str, after: Option<&str>, limit: usize) -> rusqlite::Result<Page> {
    // No UTF-8 text holds the byte 0xff, so that adding one to the last byte of a prefix gives what follows all of it.
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0xff),
    }
    let text = "SELECT k, version, v FROM entry WHERE k > ?1 AND k >= ?2 AND k < ?3 ORDER BY k LIMIT ?4";
    let mut find = connection.prepare_cached(text)?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let after = after.unwrap_or_default();
    let mut rows = find.query(params![after.as_bytes(), prefix.as_bytes(), end, most])?;
    let mut page = Page::default();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if page.entries.len() == limit || bytes >= CATALOG_PAGE_BYTES_MAX {
            page.next = page.entries.last().map(|(key, _)| key.clone());
            break;
        }
        let key = String::from_utf8_lossy(row.get_ref(0)?.as_blob()?).into_owned();
        let found = Versioned {
            version: row.get::<_, i64>(1)?.unsigned_abs(),
            value: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        };
        bytes += key.len() + found.value.len();
        page.entries.push((key, found));
    }
    Ok(page)
}
