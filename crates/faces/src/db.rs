//! `faces.db`: the one file that holds face vectors.
//!
//! A deleted vector must be gone from the file, not merely unreachable. SQLite's `secure_delete` zeroes what it frees,
//! but when a b-tree page is rebuilt, cells that moved to a neighbour stay behind as stale copies in the page's gap, and
//! nothing zeroes those when the row is deleted later. So no vector is ever inside a b-tree cell. Vectors live in slots of
//! large blobs (`blocks.data`), behind a head of one page length; SQLite keeps at most the first page length of a value in
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
use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use crate::ids::{FaceId, ImageId};
use crate::store::{CollectionInfo, FaceRecord, ModelVersion, Rect};

/// Vectors in one block.
const SLOTS_PER_BLOCK: u32 = 128;

/// The part of a block that may lie inside a b-tree cell, and so holds no vector: one page.
const BLOCK_HEAD_BYTES: usize = PAGE_BYTES;

const PAGE_BYTES: usize = 4096;

/// How long a commit waits for another process that reads the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Rows of faces that one step of a purge deletes.
const PURGED_ROWS: usize = 500;

/// `PRAGMA user_version` of this layout.
const LAYOUT_VERSION: i32 = 1;

const SCHEMA: &str = "
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

/// A collection as read at start: each face with its slot and its vector.
pub(crate) struct LoadedCollection {
    pub(crate) info: CollectionInfo,
    pub(crate) faces: Vec<(FaceRecord, u32, Vec<f32>)>,
}

/// A face to be written.
pub(crate) struct NewRow<'a> {
    pub(crate) record: &'a FaceRecord,
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
            0 => connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {LAYOUT_VERSION}; COMMIT;"
            ))?,
            LAYOUT_VERSION => {}
            newer => return Err(DatabaseError::NewerLayout(newer)),
        }
        Ok(Database { connection })
    }

    pub(crate) fn load(&self) -> Result<Vec<LoadedCollection>, DatabaseError> {
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
            let info = CollectionInfo {
                id,
                key: ResourceName { account, region, name },
                model: ModelVersion {
                    id: model,
                    dimensions: dimensions as usize,
                },
                created: Timestamp::from_millis(created_ms),
                face_count: 0,
                version: 0,
            };
            let faces = self.load_faces(&info)?;
            collections.push(LoadedCollection { info, faces });
        }
        Ok(collections)
    }

    fn load_faces(&self, collection: &CollectionInfo) -> Result<Vec<(FaceRecord, u32, Vec<f32>)>, DatabaseError> {
        let mut faces_query = self.connection.prepare(
            "SELECT slot, face_id, image_id, external_image_id, box_left, box_top, box_width, box_height, confidence,
                    created_ms FROM faces WHERE collection = ? ORDER BY slot",
        )?;
        let mut blocks_query = self
            .connection
            .prepare("SELECT first_slot, data FROM blocks WHERE collection = ? ORDER BY first_slot")?;
        let mut blocks = blocks_query.query(params![collection.id])?;
        let mut block: Option<(u32, Vec<u8>)> = None;
        let mut faces = Vec::new();
        let rows = faces_query.query_map(params![collection.id], read_face)?;
        for row in rows {
            let (slot, record) = row?;
            let missing = || DatabaseError::Damaged(format!("face {}: no usable vector", record.face_id));
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
            let vector = decode(data.get(start..end).ok_or_else(missing)?);
            let norm: f32 = vector.iter().map(|x| x * x).sum();
            if !(0.99..=1.01).contains(&norm) {
                return Err(missing());
            }
            faces.push((record, slot, vector));
        }
        Ok(faces)
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
        loop {
            let blocks = "DELETE FROM blocks WHERE id IN (SELECT id FROM blocks WHERE collection = ? LIMIT 1)";
            if self.connection.prepare_cached(blocks)?.execute(params![id])? == 0 {
                break;
            }
        }
        loop {
            let faces = "DELETE FROM faces WHERE collection = ?1 AND slot IN
                             (SELECT slot FROM faces WHERE collection = ?1 LIMIT ?2)";
            let mut statement = self.connection.prepare_cached(faces)?;
            if statement.execute(params![id, PURGED_ROWS as i64])? == 0 {
                return Ok(());
            }
        }
    }

    /// Erases what collections left whose deletion was cut off.
    pub(crate) fn purge_unknown(&mut self) -> Result<(), DatabaseError> {
        let unknown: Vec<i64> = {
            let mut statement = self.connection.prepare(
                "SELECT collection FROM blocks UNION SELECT collection FROM faces EXCEPT SELECT id FROM collections",
            )?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        unknown.into_iter().try_for_each(|id| self.purge(id))
    }

    pub(crate) fn insert_faces(
        &mut self,
        collection: i64,
        dimensions: usize,
        rows: &[NewRow<'_>],
    ) -> Result<(), DatabaseError> {
        let transaction = self.connection.transaction()?;
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
            let bytes: Vec<u8> = row.vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            write_slot(&transaction, collection, dimensions, row.slot, &bytes)?;
        }
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
        let zeros = vec![0u8; dimensions * 4];
        for &slot in slots {
            transaction
                .prepare_cached("DELETE FROM faces WHERE collection = ? AND slot = ?")?
                .execute(params![collection, slot])?;
            write_slot(&transaction, collection, dimensions, slot, &zeros)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn read_face(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u32, FaceRecord)> {
    let record = FaceRecord {
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
    };
    Ok((row.get(0)?, record))
}

fn decode(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks_exact(4).filter_map(|chunk| chunk.try_into().ok());
    words.map(f32::from_le_bytes).collect()
}

fn slot_offset(slot_in_block: u32, dimensions: usize) -> usize {
    BLOCK_HEAD_BYTES + slot_in_block as usize * dimensions * 4
}

/// Overwrites one slot in place, making its block first if there is none.
fn write_slot(
    transaction: &Transaction<'_>,
    collection: i64,
    dimensions: usize,
    slot: u32,
    bytes: &[u8],
) -> Result<(), DatabaseError> {
    use rusqlite::OptionalExtension;

    let first = slot / SLOTS_PER_BLOCK * SLOTS_PER_BLOCK;
    let found: Option<i64> = transaction
        .prepare_cached("SELECT id FROM blocks WHERE collection = ? AND first_slot = ?")?
        .query_row(params![collection, first], |row| row.get(0))
        .optional()?;
    let id = match found {
        Some(id) => id,
        None => {
            let bytes = slot_offset(SLOTS_PER_BLOCK, dimensions) as i64;
            transaction
                .prepare_cached("INSERT INTO blocks (collection, first_slot, data) VALUES (?, ?, zeroblob(?))")?
                .execute(params![collection, first, bytes])?;
            transaction.last_insert_rowid()
        }
    };
    let mut blob = transaction.blob_open("main", "blocks", "data", id, false)?;
    blob.write_all_at(bytes, slot_offset(slot - first, dimensions))?;
    Ok(())
}
