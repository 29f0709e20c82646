//! Copies of SQLite files that may be in use, by SQLite's online backup.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};

use super::sqlite::{connect, engine};
use super::{CatalogError, CatalogKey};

/// How long a writer in another process may keep the copy waiting.
const PATIENCE_STEPS: usize = 600;
const STEP_PAUSE: Duration = Duration::from_millis(50);

fn at(path: &Path) -> impl Fn(rusqlite::Error) -> CatalogError + '_ {
    move |error| match engine(&error) {
        CatalogError::Engine(text) => CatalogError::Engine(format!("{}: {text}", path.display())),
        other => other,
    }
}

fn existing(path: &Path) -> Result<Connection, CatalogError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(at(path))
}

/// Copies a database in one consistent state, replacing the target, checks the copy, and leaves it as one file.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), CatalogError> {
    let source = existing(from)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut target = connect(to, flags).map_err(at(to))?;
    {
        let backup = Backup::new(&source, &mut target).map_err(at(from))?;
        let mut tries = 0;
        // All pages in one step: a step of fewer would begin again whenever somebody writes in between.
        while backup.step(-1).map_err(at(from))? != StepResult::Done {
            tries += 1;
            if tries == PATIENCE_STEPS {
                return Err(CatalogError::Engine(format!(
                    "{} is locked by another process",
                    from.display()
                )));
            }
            std::thread::sleep(STEP_PAUSE);
        }
    }
    sound(&target, to)?;
    target.close().map_err(|(_, error)| at(to)(error))
}

/// Reads a database through; an error if it is damaged.
pub(crate) fn check(path: &Path) -> Result<(), CatalogError> {
    sound(&existing(path)?, path)
}

fn sound(connection: &Connection, path: &Path) -> Result<(), CatalogError> {
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(at(path))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(CatalogError::Engine(format!("{}: {verdict}", path.display())))
}

/// Sets every counter of the copy to what it is in the original now.
pub(crate) fn raise_counters(from: &Path, to: &Path) -> Result<(), CatalogError> {
    if !from.exists() {
        return Ok(());
    }
    let (source, target) = (existing(from)?, existing(to)?);
    let prefix = CatalogKey::server().with("counter").below();
    let mut find = source
        .prepare("SELECT k, v FROM entry WHERE substr(k, 1, ?2) = ?1")
        .map_err(at(from))?;
    let length = i64::try_from(prefix.len()).unwrap_or(i64::MAX);
    let rows = find.query_map(params![prefix.as_bytes(), length], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
    });
    let rows: Vec<_> = rows.and_then(Iterator::collect).map_err(at(from))?;
    let write = || {
        let transaction = target.unchecked_transaction()?;
        for (key, value) in &rows {
            transaction.execute("UPDATE last SET version = version + 1", [])?;
            transaction.execute(
                "INSERT INTO entry SELECT ?1, ?2, version FROM last WHERE true
                 ON CONFLICT (k) DO UPDATE SET v = excluded.v, version = excluded.version",
                params![key, value],
            )?;
        }
        transaction.commit()
    };
    write().map_err(at(to))?;
    target.close().map_err(|(_, error)| at(to)(error))
}
