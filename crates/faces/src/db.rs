//! `faces.db`: the one file that holds face vectors.
//!
//! A deleted vector must be gone from the file, not merely unreachable. SQLite's `secure_delete` zeroes what it frees,
//! but when a b-tree page is rebuilt, cells that moved to a neighbour stay behind as stale copies in the page's gap, and
//! nothing zeroes those when the row is deleted later. So no vector is ever inside a b-tree cell. Vectors live in slots of
//! large blobs (`data` of [`Blocks`]), behind a head of one page length; SQLite keeps at most the first page length of a value in
//! the cell and the rest on overflow pages, which are written in place and never copied. Deleting a face overwrites its
//! slot with zeros in the transaction that deletes its row; deleting a collection makes it unknown and then frees its
//! blocks, which `secure_delete` zeroes page by page.
//!
//! For the same reason the journal mode is DELETE (a write-ahead log would keep old pages), locking is not exclusive
//! (SQLite would then keep the journal file, with old pages in it), auto-vacuum is off (it copies pages) and temporary
//! tables stay in memory.

use std::path::Path;
use std::time::Duration;

use base::{AccountId, Region, ResourceName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use crate::ids::{FaceId, ImageId};
use crate::limits;
use crate::store::{CollectionInfo, FaceRecord, ModelVersion, Rect};
use crate::unknown::UnknownFace;

/// Vectors in one block.
const SLOTS_PER_BLOCK: u32 = 128;

/// The part of a block that may lie inside a b-tree cell, and so holds no vector: one page.
const BLOCK_HEAD_BYTES: usize = PAGE_BYTES;

const PAGE_BYTES: usize = 4096;

/// How long a commit waits for another process that reads the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Rows of faces that one step of a purge deletes.
const PURGED_ROWS: usize = 500;

/// Tokens that one step of a purge forgets: an answer to one may have some kilobytes.
const PURGED_TOKENS: usize = 50;

/// `PRAGMA user_version` of this layout.
const LAYOUT_VERSION: i32 = 3;

const FACES_SCHEMA: &str = "
    CREATE TABLE collections (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
        model TEXT NOT NULL, dimensions INTEGER NOT NULL, created_ms INTEGER NOT NULL,
        UNIQUE (account, region, name)
    ) STRICT;
    CREATE TABLE faces (
        collection INTEGER NOT NULL, slot INTEGER NOT NULL,
        face_id BLOB NOT NULL, image_id BLOB NOT NULL, external_image_id TEXT,
        box_left REAL NOT NULL, box_top REAL NOT NULL, box_width REAL NOT NULL, box_height REAL NOT NULL,
        confidence REAL NOT NULL, created_ms INTEGER NOT NULL,
        PRIMARY KEY (collection, slot)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE blocks (
        id INTEGER PRIMARY KEY,
        collection INTEGER NOT NULL, first_slot INTEGER NOT NULL, data BLOB NOT NULL,
        UNIQUE (collection, first_slot)
    ) STRICT;
";

/// What layout 2 added. A user has no vector in the file: it follows from those of its faces.
const USERS_SCHEMA: &str = "
    ALTER TABLE faces ADD COLUMN user INTEGER;
    CREATE TABLE users (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection INTEGER NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
        UNIQUE (collection, name)
    ) STRICT;
    CREATE TABLE tokens (
        account TEXT NOT NULL, region TEXT NOT NULL, operation TEXT NOT NULL, token TEXT NOT NULL,
        collection INTEGER NOT NULL, request BLOB NOT NULL, answer TEXT NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (account, region, operation, token)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tokens_by_time ON tokens (at_ms);
    CREATE INDEX tokens_by_collection ON tokens (collection);
";

/// What layout 3 added: faces that nobody in the collection resembled.
const UNKNOWN_SCHEMA: &str = "
    CREATE TABLE unknown_faces (
        collection INTEGER NOT NULL, slot INTEGER NOT NULL,
        face_id BLOB NOT NULL, source TEXT NOT NULL, about TEXT NOT NULL,
        first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
        box_left REAL NOT NULL, box_top REAL NOT NULL, box_width REAL NOT NULL, box_height REAL NOT NULL,
        confidence REAL NOT NULL,
        PRIMARY KEY (collection, slot)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE unknown_blocks (
        id INTEGER PRIMARY KEY,
        collection INTEGER NOT NULL, first_slot INTEGER NOT NULL, data BLOB NOT NULL,
        UNIQUE (collection, first_slot)
    ) STRICT;
";

/// Which vectors: those of the collections' faces, or those of unknown ones.
#[derive(Clone, Copy)]
enum Blocks {
    Faces,
    Unknown,
}

impl Blocks {
    fn table(self) -> &'static str {
        match self {
            Blocks::Faces => "blocks",
            Blocks::Unknown => "unknown_blocks",
        }
    }
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the file has layout {0}; this program knows layouts up to {LAYOUT_VERSION}")]
    NewerLayout(i32),
    #[error("the file is damaged: {0}")]
    Damaged(String),
}

/// The connection. It has one owner, the thread of the store.
pub(crate) struct Database {
    connection: Connection,
}

/// What is written of a change of a user.
pub(crate) enum UserRows<'a> {
    /// A new user.
    Create { name: &'a str, created: Timestamp },
    /// The user goes, and the faces in these slots are nobody's.
    Delete { user: i64, slots: &'a [u32] },
    /// The faces in these slots get this user, or none.
    Faces { user: Option<i64>, slots: &'a [u32] },
}

/// A token that a call came with, and the answer that it gets again.
pub(crate) struct TokenRow<'a> {
    pub(crate) key: TokenKey<'a>,
    pub(crate) request: [u8; 32],
    pub(crate) answer: String,
    pub(crate) at: Timestamp,
}

/// Where a token counts: in one account and region, for one operation.
#[derive(Clone, Copy)]
pub(crate) struct TokenKey<'a> {
    pub(crate) owner: &'a ResourceName,
    pub(crate) operation: &'static str,
    pub(crate) token: &'a str,
}

/// A face to be written.
pub(crate) struct NewRow<'a> {
    pub(crate) record: &'a FaceRecord,
    pub(crate) slot: u32,
    pub(crate) vector: &'a [f32],
}

/// An unknown face to be written, over the one that is in the slot.
pub(crate) struct UnknownRow<'a> {
    pub(crate) record: &'a UnknownFace,
    pub(crate) slot: u32,
    pub(crate) vector: &'a [f32],
}

impl DatabaseError {
    /// No space on the device; nothing was changed.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, DatabaseError::Sqlite(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::DiskFull)
    }
}

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let connection = Connection::open(path)?;
        // A backup that another process takes holds off commits while it copies.
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
        connection.pragma_update(None, "auto_vacuum", "NONE")?;
        connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => migrate(&connection, &[FACES_SCHEMA, USERS_SCHEMA, UNKNOWN_SCHEMA])?,
            1 => migrate(&connection, &[USERS_SCHEMA, UNKNOWN_SCHEMA])?,
            2 => migrate(&connection, &[UNKNOWN_SCHEMA])?,
            LAYOUT_VERSION => {}
            newer => return Err(DatabaseError::NewerLayout(newer)),
        }
        Ok(Database { connection })
    }

    /// Every collection, without its faces.
    pub(crate) fn collections(&self) -> Result<Vec<CollectionInfo>, DatabaseError> {
        let mut statement = self
            .connection
            .prepare("SELECT id, account, region, name, model, dimensions, created_ms FROM collections ORDER BY id")?;
        let rows = statement.query_map([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                (
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                ),
                (row.get::<_, String>(4)?, row.get::<_, u32>(5)?, row.get::<_, i64>(6)?),
            ))
        })?;
        let mut collections = Vec::new();
        for row in rows {
            let (id, (account, region, name), (model, dimensions, created_ms)) = row?;
            let damaged = |what: &str| DatabaseError::Damaged(format!("collection {id}: {what}"));
            let account: AccountId = account.parse().map_err(|_| damaged("bad account"))?;
            let region: Region = region.parse().map_err(|_| damaged("bad region"))?;
            collections.push(CollectionInfo {
                id,
                key: ResourceName { account, region, name },
                model: ModelVersion {
                    id: model,
                    dimensions: dimensions as usize,
                },
                created: Timestamp::from_millis(created_ms),
                face_count: 0,
                user_count: 0,
                unknown_count: 0,
                version: 0,
            });
        }
        Ok(collections)
    }

    /// Gives each face of a collection with its slot, its vector and its user.
    pub(crate) fn load_faces(
        &self,
        collection: &CollectionInfo,
        mut each: impl FnMut(FaceRecord, u32, &[f32], Option<i64>),
    ) -> Result<(), DatabaseError> {
        let select = "SELECT slot, face_id, image_id, external_image_id, box_left, box_top, box_width, box_height,
                    confidence, created_ms, user FROM faces WHERE collection = ? ORDER BY slot";
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(FaceRecord, Option<i64>)> {
            Ok((read_face(row)?, row.get(10)?))
        };
        self.load(
            collection,
            Blocks::Faces,
            select,
            read,
            |slot, (record, user), vector| {
                each(record, slot, vector, user);
            },
        )
    }

    /// Gives each unknown face of a collection with its slot and its vector.
    pub(crate) fn load_unknown(
        &self,
        collection: &CollectionInfo,
        mut each: impl FnMut(UnknownFace, u32, &[f32]),
    ) -> Result<(), DatabaseError> {
        let select = "SELECT slot, face_id, source, about, first_ms, last_ms, expires_ms, box_left, box_top, box_width,
                    box_height, confidence FROM unknown_faces WHERE collection = ? ORDER BY slot";
        self.load(
            collection,
            Blocks::Unknown,
            select,
            read_unknown,
            |slot, record, vector| {
                each(record, slot, vector);
            },
        )
    }

    /// Gives what `select` finds, whose first column is a slot, with the vector in that slot.
    fn load<T>(
        &self,
        collection: &CollectionInfo,
        blocks: Blocks,
        select: &str,
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
        mut each: impl FnMut(u32, T, &[f32]),
    ) -> Result<(), DatabaseError> {
        let mut rows_query = self.connection.prepare(select)?;
        let mut blocks_query = self.connection.prepare(&format!(
            "SELECT first_slot, data FROM {} WHERE collection = ? ORDER BY first_slot",
            blocks.table()
        ))?;
        let mut blocks = blocks_query.query(params![collection.id])?;
        let mut block: Option<(u32, Vec<u8>)> = None;
        let mut vector = vec![0.0f32; collection.model.dimensions];
        let mut rows = rows_query.query(params![collection.id])?;
        while let Some(row) = rows.next()? {
            let slot: u32 = row.get(0)?;
            let missing =
                || DatabaseError::Damaged(format!("collection {}, slot {slot}: no usable vector", collection.id));
            while block.as_ref().is_none_or(|(first, _)| slot >= first + SLOTS_PER_BLOCK) {
                let next = blocks.next()?.ok_or_else(missing)?;
                block = Some((next.get(0)?, next.get(1)?));
            }
            let (first, data) = block.as_ref().ok_or_else(missing)?;
            let start = slot_offset(
                slot.checked_sub(*first).ok_or_else(missing)?,
                collection.model.dimensions,
            );
            let end = start + collection.model.dimensions * 4;
            decode(data.get(start..end).ok_or_else(missing)?, &mut vector);
            let norm: f32 = vector.iter().map(|x| x * x).sum();
            if !(0.99..=1.01).contains(&norm) {
                return Err(missing());
            }
            each(slot, read(row)?, &vector);
        }
        Ok(())
    }

    /// Gives each user of a collection, in the order of their numbers.
    pub(crate) fn load_users(
        &self,
        collection: &CollectionInfo,
        mut each: impl FnMut(i64, String),
    ) -> Result<(), DatabaseError> {
        let mut query = self
            .connection
            .prepare("SELECT id, name FROM users WHERE collection = ? ORDER BY id")?;
        let mut rows = query.query(params![collection.id])?;
        while let Some(row) = rows.next()? {
            each(row.get(0)?, row.get(1)?);
        }
        Ok(())
    }

    /// Adds a collection and gives its never-reused id.
    pub(crate) fn create_collection(
        &mut self,
        key: &ResourceName,
        model: &ModelVersion,
        created: Timestamp,
    ) -> Result<i64, DatabaseError> {
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "INSERT INTO collections (account, region, name, model, dimensions, created_ms) VALUES (?, ?, ?, ?, ?, ?)",
            params![
                key.account.to_string(),
                key.region.as_str(),
                key.name,
                model.id,
                model.dimensions as i64,
                created.millis()
            ],
        )?;
        let id = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(id)
    }

    /// Makes a collection unknown. Its vectors are still in the file, until [`Database::purge`].
    pub(crate) fn forget_collection(&mut self, id: i64) -> Result<(), DatabaseError> {
        self.connection
            .execute("DELETE FROM collections WHERE id = ?", params![id])?;
        Ok(())
    }

    /// Erases what an unknown collection has left, in small steps: a transaction keeps the old content of every page it
    /// changes in its journal, so that one for a large collection would need as much space as the collection, and on a
    /// full disk could not be carried out.
    pub(crate) fn purge(&mut self, id: i64) -> Result<(), DatabaseError> {
        let steps = [
            (
                "DELETE FROM blocks WHERE id IN (SELECT id FROM blocks WHERE collection = ?1 LIMIT ?2)",
                1,
            ),
            (
                "DELETE FROM unknown_blocks WHERE id IN (SELECT id FROM unknown_blocks WHERE collection = ?1 LIMIT ?2)",
                1,
            ),
            (
                "DELETE FROM faces WHERE collection = ?1 AND slot IN
                     (SELECT slot FROM faces WHERE collection = ?1 LIMIT ?2)",
                PURGED_ROWS,
            ),
            (
                "DELETE FROM unknown_faces WHERE collection = ?1 AND slot IN
                     (SELECT slot FROM unknown_faces WHERE collection = ?1 LIMIT ?2)",
                PURGED_ROWS,
            ),
            (
                "DELETE FROM users WHERE id IN (SELECT id FROM users WHERE collection = ?1 LIMIT ?2)",
                PURGED_ROWS,
            ),
            (
                "DELETE FROM tokens WHERE (account, region, operation, token) IN
                     (SELECT account, region, operation, token FROM tokens WHERE collection = ?1 LIMIT ?2)",
                PURGED_TOKENS,
            ),
        ];
        for (step, rows) in steps {
            while self
                .connection
                .prepare_cached(step)?
                .execute(params![id, rows as i64])?
                > 0
            {}
        }
        Ok(())
    }

    /// Erases what collections left whose deletion was cut off.
    pub(crate) fn purge_unknown(&mut self) -> Result<(), DatabaseError> {
        let unknown: Vec<i64> = {
            let mut statement = self.connection.prepare(
                "SELECT collection FROM blocks UNION SELECT collection FROM faces UNION SELECT collection FROM users
                     UNION SELECT collection FROM tokens UNION SELECT collection FROM unknown_blocks
                     UNION SELECT collection FROM unknown_faces EXCEPT SELECT id FROM collections",
            )?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        unknown.into_iter().try_for_each(|id| self.purge(id))
    }

    /// Changes a user, or the user of faces, and remembers the call's token. Gives the number of a user that it made.
    pub(crate) fn change_user(
        &mut self,
        collection: i64,
        rows: &UserRows<'_>,
        token: Option<&TokenRow<'_>>,
    ) -> Result<i64, DatabaseError> {
        let transaction = self.connection.transaction()?;
        let (number, slots) = match rows {
            UserRows::Create { name, created } => {
                transaction
                    .prepare_cached("INSERT INTO users (collection, name, created_ms) VALUES (?, ?, ?)")?
                    .execute(params![collection, name, created.millis()])?;
                (Some(transaction.last_insert_rowid()), &[][..])
            }
            UserRows::Delete { user, slots } => {
                let delete = "DELETE FROM users WHERE id = ?";
                transaction.prepare_cached(delete)?.execute(params![user])?;
                (None, *slots)
            }
            UserRows::Faces { user, slots } => (*user, *slots),
        };
        for slot in slots {
            transaction
                .prepare_cached("UPDATE faces SET user = ? WHERE collection = ? AND slot = ?")?
                .execute(params![number, collection, slot])?;
        }
        if let Some(token) = token {
            remember(&transaction, collection, token)?;
        }
        transaction.commit()?;
        Ok(number.unwrap_or_default())
    }

    /// The digest of the request that a token came with, and its answer, if that was not before `since`.
    pub(crate) fn answered(
        &self,
        key: TokenKey<'_>,
        since: Timestamp,
    ) -> Result<Option<([u8; 32], String)>, DatabaseError> {
        let (account, region) = (key.owner.account.to_string(), key.owner.region.as_str());
        let found = self
            .connection
            .prepare_cached(
                "SELECT request, answer FROM tokens
                     WHERE account = ? AND region = ? AND operation = ? AND token = ? AND at_ms >= ?",
            )?
            .query_row(
                params![account, region, key.operation, key.token, since.millis()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        Ok(found)
    }

    pub(crate) fn insert_faces(
        &mut self,
        collection: i64,
        dimensions: usize,
        rows: &[NewRow<'_>],
    ) -> Result<(), DatabaseError> {
        let transaction = self.connection.transaction()?;
        insert_faces(&transaction, collection, dimensions, rows)?;
        transaction.commit()?;
        Ok(())
    }

    pub(crate) fn delete_faces(
        &mut self,
        collection: i64,
        dimensions: usize,
        slots: &[u32],
    ) -> Result<(), DatabaseError> {
        let transaction = self.connection.transaction()?;
        erase(&transaction, collection, dimensions, Blocks::Faces, slots)?;
        transaction.commit()?;
        Ok(())
    }

    /// Writes unknown faces, over those that are in their slots.
    pub(crate) fn put_unknown(
        &mut self,
        collection: i64,
        dimensions: usize,
        rows: &[UnknownRow<'_>],
    ) -> Result<(), DatabaseError> {
        let transaction = self.connection.transaction()?;
        for row in rows {
            let (face, rect) = (row.record, &row.record.rect);
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO unknown_faces (collection, slot, face_id, source, about, first_ms, last_ms,
                         expires_ms, box_left, box_top, box_width, box_height, confidence)
                         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    collection,
                    row.slot,
                    face.face_id.0.as_bytes(),
                    face.source,
                    face.about,
                    face.first_seen.millis(),
                    face.last_seen.millis(),
                    face.expires.millis(),
                    rect.left,
                    rect.top,
                    rect.width,
                    rect.height,
                    face.confidence,
                ])?;
            let place = Place {
                collection,
                dimensions,
                blocks: Blocks::Unknown,
                slot: row.slot,
            };
            write_slot(&transaction, place, &bytes_of(row.vector))?;
        }
        transaction.commit()?;
        Ok(())
    }

    pub(crate) fn delete_unknown(
        &mut self,
        collection: i64,
        dimensions: usize,
        slots: &[u32],
    ) -> Result<(), DatabaseError> {
        let transaction = self.connection.transaction()?;
        erase(&transaction, collection, dimensions, Blocks::Unknown, slots)?;
        transaction.commit()?;
        Ok(())
    }

    /// Writes faces and erases the unknown ones in these slots, both or neither.
    pub(crate) fn enrol_unknown(
        &mut self,
        collection: i64,
        dimensions: usize,
        rows: &[NewRow<'_>],
        slots: &[u32],
    ) -> Result<(), DatabaseError> {
        let transaction = self.connection.transaction()?;
        insert_faces(&transaction, collection, dimensions, rows)?;
        erase(&transaction, collection, dimensions, Blocks::Unknown, slots)?;
        transaction.commit()?;
        Ok(())
    }
}

/// Brings a file to [`LAYOUT_VERSION`], by the steps that it lacks, all or none.
fn migrate(connection: &Connection, steps: &[&str]) -> Result<(), DatabaseError> {
    let steps = steps.concat();
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {steps} PRAGMA user_version = {LAYOUT_VERSION}; COMMIT;"
    ))?;
    Ok(())
}

fn insert_faces(
    transaction: &Transaction<'_>,
    collection: i64,
    dimensions: usize,
    rows: &[NewRow<'_>],
) -> Result<(), DatabaseError> {
    for row in rows {
        let (face, rect) = (row.record, &row.record.rect);
        transaction
            .prepare_cached(
                "INSERT INTO faces (collection, slot, face_id, image_id, external_image_id, box_left, box_top,
                     box_width, box_height, confidence, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                collection,
                row.slot,
                face.face_id.0.as_bytes(),
                face.image_id.0.as_bytes(),
                face.external_image_id,
                rect.left,
                rect.top,
                rect.width,
                rect.height,
                face.confidence,
                face.created.millis()
            ])?;
        let place = Place {
            collection,
            dimensions,
            blocks: Blocks::Faces,
            slot: row.slot,
        };
        write_slot(transaction, place, &bytes_of(row.vector))?;
    }
    Ok(())
}

/// Deletes the rows of slots, and overwrites their vectors with zeros.
fn erase(
    transaction: &Transaction<'_>,
    collection: i64,
    dimensions: usize,
    blocks: Blocks,
    slots: &[u32],
) -> Result<(), DatabaseError> {
    let delete = match blocks {
        Blocks::Faces => "DELETE FROM faces WHERE collection = ? AND slot = ?",
        Blocks::Unknown => "DELETE FROM unknown_faces WHERE collection = ? AND slot = ?",
    };
    let zeros = vec![0u8; dimensions * 4];
    for &slot in slots {
        transaction.prepare_cached(delete)?.execute(params![collection, slot])?;
        let place = Place {
            collection,
            dimensions,
            blocks,
            slot,
        };
        write_slot(transaction, place, &zeros)?;
    }
    Ok(())
}

fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn read_face(row: &rusqlite::Row<'_>) -> rusqlite::Result<FaceRecord> {
    Ok(FaceRecord {
        face_id: FaceId(Uuid::from_bytes(row.get(1)?)),
        image_id: ImageId(Uuid::from_bytes(row.get(2)?)),
        external_image_id: row.get(3)?,
        rect: Rect {
            left: row.get(4)?,
            top: row.get(5)?,
            width: row.get(6)?,
            height: row.get(7)?,
        },
        confidence: row.get(8)?,
        created: Timestamp::from_millis(row.get(9)?),
        user: None,
    })
}

fn read_unknown(row: &rusqlite::Row<'_>) -> rusqlite::Result<UnknownFace> {
    let time = |column: usize| Ok::<_, rusqlite::Error>(Timestamp::from_millis(row.get(column)?));
    Ok(UnknownFace {
        face_id: FaceId(Uuid::from_bytes(row.get(1)?)),
        source: row.get::<_, String>(2)?.into(),
        about: row.get::<_, String>(3)?.into(),
        first_seen: time(4)?,
        last_seen: time(5)?,
        expires: time(6)?,
        rect: Rect {
            left: row.get(7)?,
            top: row.get(8)?,
            width: row.get(9)?,
            height: row.get(10)?,
        },
        confidence: row.get(11)?,
    })
}

fn decode(bytes: &[u8], vector: &mut [f32]) {
    let words = bytes.chunks_exact(4).filter_map(|chunk| chunk.try_into().ok());
    vector
        .iter_mut()
        .zip(words)
        .for_each(|(x, word)| *x = f32::from_le_bytes(word));
}

/// Keeps the answer to a token, and forgets some that are too old.
fn remember(transaction: &Transaction<'_>, collection: i64, token: &TokenRow<'_>) -> Result<(), DatabaseError> {
    let kept = i64::try_from(limits::TOKEN_KEPT.as_millis()).unwrap_or(i64::MAX);
    transaction
        .prepare_cached(
            "DELETE FROM tokens WHERE (account, region, operation, token) IN
                 (SELECT account, region, operation, token FROM tokens WHERE at_ms < ? LIMIT ?)",
        )?
        .execute(params![
            token.at.plus_millis(-kept).millis(),
            limits::TOKENS_FORGOTTEN_PER_CALL as i64
        ])?;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO tokens (account, region, operation, token, collection, request, answer, at_ms)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            token.key.owner.account.to_string(),
            token.key.owner.region.as_str(),
            token.key.operation,
            token.key.token,
            collection,
            token.request,
            token.answer,
            token.at.millis()
        ])?;
    Ok(())
}

fn slot_offset(slot_in_block: u32, dimensions: usize) -> usize {
    BLOCK_HEAD_BYTES + slot_in_block as usize * dimensions * 4
}

/// Where one vector is.
#[derive(Clone, Copy)]
struct Place {
    collection: i64,
    dimensions: usize,
    blocks: Blocks,
    slot: u32,
}

/// Overwrites one slot in place, making its block first if there is none.
fn write_slot(transaction: &Transaction<'_>, place: Place, bytes: &[u8]) -> Result<(), DatabaseError> {
    let table = place.blocks.table();
    let first = place.slot / SLOTS_PER_BLOCK * SLOTS_PER_BLOCK;
    let select = format!("SELECT id FROM {table} WHERE collection = ? AND first_slot = ?");
    let found: Option<i64> = transaction
        .prepare_cached(&select)?
        .query_row(params![place.collection, first], |row| row.get(0))
        .optional()?;
    let id = match found {
        Some(id) => id,
        None => {
            let bytes = slot_offset(SLOTS_PER_BLOCK, place.dimensions) as i64;
            let insert = format!("INSERT INTO {table} (collection, first_slot, data) VALUES (?, ?, zeroblob(?))");
            transaction
                .prepare_cached(&insert)?
                .execute(params![place.collection, first, bytes])?;
            transaction.last_insert_rowid()
        }
    };
    let mut blob = transaction.blob_open("main", table, "data", id, false)?;
    blob.write_all_at(bytes, slot_offset(place.slot - first, place.dimensions))?;
    Ok(())
}
