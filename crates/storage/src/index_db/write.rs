//! Changes of the rows: each call is one transaction.

use std::collections::{BTreeSet, HashMap};

use base::Timestamp;
use rusqlite::{Transaction, TransactionBehavior, params};

use super::row::{COLUMNS, entry, rest_of};
use super::{IndexDb, engine};
use crate::control::RangeSet;
use crate::index::Entry;
use crate::media::{TimeAxis, Usage};
use crate::state::Place;
use crate::{Error, FragmentInfo, StreamId};

/// What rows lie in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    /// Rows whose commit frame is in it.
    pub commits: u64,
    /// Commit frames and extents of rows in it.
    pub refs: u64,
    /// Slot, salt and end of a settled segment: all its commits that are needed have rows, and a checkpoint in a later
    /// segment holds its control state, so that an open need not read it.
    pub seat: Option<(u32, u32, u64)>,
    /// It may hold dead extents that were not punched out.
    pub unpunched: bool,
}

/// What is known of a stream's rows. All but the sums only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRow {
    pub fragments: u64,
    pub bytes: u64,
    /// The highest.
    pub sequence: u64,
    /// The highest.
    pub position: u64,
    pub longest_ms: u32,
    /// The latest starts, by server and by producer time.
    pub starts: [Timestamp; 2],
    /// The latest ends.
    pub ends: [Timestamp; 2],
}

impl StreamRow {
    pub const AXES: [TimeAxis; 2] = [TimeAxis::Server, TimeAxis::Producer];

    pub fn empty() -> Self {
        let never = Timestamp::from_millis(i64::MIN);
        StreamRow {
            fragments: 0,
            bytes: 0,
            sequence: 0,
            position: 0,
            longest_ms: 0,
            starts: [never; 2],
            ends: [never; 2],
        }
    }

    /// Counts a fragment in.
    pub fn add(&mut self, info: &FragmentInfo) {
        self.fragments += 1;
        self.bytes += u64::from(info.size);
        self.sequence = self.sequence.max(info.number.sequence());
        self.position = self.position.max(info.position);
        self.longest_ms = self.longest_ms.max(info.length_ms);
        for (axis, (start, end)) in Self::AXES.into_iter().zip(self.starts.iter_mut().zip(&mut self.ends)) {
            *start = info.start(axis).max(*start);
            *end = info.end(axis).max(*end);
        }
    }

    /// Counts a fragment out.
    pub fn remove(&mut self, info: &FragmentInfo) {
        self.fragments = self.fragments.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(info.size));
    }

    pub fn usage(&self) -> Usage {
        Usage {
            fragments: self.fragments,
            bytes: self.bytes,
        }
    }
}

/// What is written together.
#[derive(Default)]
pub(crate) struct Batch {
    pub entries: Vec<(StreamId, Entry<Place>)>,
    /// Segment, slot, salt and end.
    pub settled: Vec<(u64, u32, u32, u64)>,
    /// Segments whose dead extents are punched out.
    pub punched: Vec<u64>,
    /// Segments that hold dead extents again.
    pub unpunched: Vec<u64>,
    /// Segments that are no more.
    pub retired: Vec<u64>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.settled.is_empty()
            && self.punched.is_empty()
            && self.unpunched.is_empty()
            && self.retired.is_empty()
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// How a transaction changes what is known of segments: commits and refs.
#[derive(Default)]
struct Deltas(HashMap<u64, (i64, i64)>);

impl Deltas {
    fn count(&mut self, place: &Place, by: i64) {
        let commit = self.0.entry(place.commit.segment).or_default();
        commit.0 += by;
        commit.1 += by;
        for extent in &place.extents {
            self.0.entry(extent.segment).or_default().1 += by;
        }
    }

    fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut statement = tx.prepare_cached(
            "INSERT INTO segment (segment, commits, refs) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET commits = commits + excluded.commits, refs = refs + excluded.refs",
        )?;
        for (segment, (commits, refs)) in &self.0 {
            statement.execute(params![signed(*segment), commits, refs])?;
        }
        Ok(())
    }
}

impl IndexDb {
    fn transaction<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, Error> {
        let mut writer = self.writer.lock();
        let run = || {
            let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&tx)?;
            tx.commit()?;
            Ok(done)
        };
        run().map_err(|e| engine(&e))
    }

    /// Writes a batch.
    pub fn write(&self, batch: &Batch) -> Result<(), Error> {
        self.transaction(|tx| {
            insert(tx, &batch.entries)?;
            let mut settle = tx.prepare_cached(
                "INSERT INTO segment (segment, commits, refs, settled, slot, salt, log_end) VALUES (?1, 0, 0, 1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET settled = 1, slot = excluded.slot, salt = excluded.salt, log_end = excluded.log_end",
            )?;
            for (segment, slot, salt, end) in &batch.settled {
                settle.execute(params![signed(*segment), slot, salt, signed(*end)])?;
            }
            let mut flag = tx.prepare_cached("UPDATE segment SET unpunched = ?2 WHERE segment = ?1")?;
            for (segments, value) in [(&batch.punched, 0), (&batch.unpunched, 1)] {
                for segment in segments {
                    flag.execute(params![signed(*segment), value])?;
                }
            }
            let mut retire = tx.prepare_cached("DELETE FROM segment WHERE segment = ?1 AND refs = 0 AND commits = 0")?;
            for segment in &batch.retired {
                retire.execute([signed(*segment)])?;
            }
            Ok(())
        })
    }

    /// Deletes rows of a stream whose positions are in `from..to`, at most `limit`, and returns them.
    pub fn purge(&self, stream: StreamId, from: u64, to: u64, limit: usize) -> Result<Vec<Entry<Place>>, Error> {
        self.transaction(|tx| {
            let mut select = tx.prepare_cached(&select_by_position())?;
            let rows = select.query_map(params![signed(stream.0), signed(from), signed(to), limit as i64], entry)?;
            let removed = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            let (Some(first), Some(last)) = (removed.first(), removed.last()) else {
                return Ok(removed);
            };
            tx.prepare_cached("DELETE FROM fragment WHERE stream = ?1 AND position >= ?2 AND position <= ?3")?
                .execute(params![
                    signed(stream.0),
                    signed(first.info.position),
                    signed(last.info.position)
                ])?;
            let bytes: i64 = removed.iter().map(|entry| i64::from(entry.info.size)).sum();
            tx.prepare_cached("UPDATE stream SET fragments = fragments - ?2, bytes = bytes - ?3 WHERE stream = ?1")?
                .execute(params![signed(stream.0), removed.len() as i64, bytes])?;
            let mut deltas = Deltas::default();
            for entry in &removed {
                deltas.count(&entry.place, -1);
            }
            deltas.write(tx)?;
            let mut flag = tx.prepare_cached("UPDATE segment SET unpunched = 1 WHERE segment = ?1")?;
            let extents = removed.iter().flat_map(|entry| &entry.place.extents);
            let segments: BTreeSet<u64> = extents.map(|extent| extent.segment).collect();
            for segment in segments {
                flag.execute([signed(segment)])?;
            }
            Ok(removed)
        })
    }

    /// Rows of a stream whose positions are in `from..to`, the lowest first, at most `limit`.
    pub fn rows(&self, stream: StreamId, from: u64, to: u64, limit: usize) -> Result<Vec<Entry<Place>>, Error> {
        self.read(|c| {
            let mut select = c.prepare_cached(&select_by_position())?;
            let rows = select.query_map(params![signed(stream.0), signed(from), signed(to), limit as i64], entry)?;
            rows.collect()
        })
    }

    /// Deletes the rows whose positions are gone and shows each.
    pub fn purge_gone(
        &self,
        stream: StreamId,
        gone: &RangeSet,
        see: &mut dyn FnMut(Vec<Entry<Place>>),
    ) -> Result<(), Error> {
        for (from, to) in gone.iter() {
            loop {
                let removed = self.purge(stream, from, to, super::PURGE_ROWS)?;
                let done = removed.len() < super::PURGE_ROWS;
                if !removed.is_empty() {
                    see(removed);
                }
                if done {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Forgets a stream that has no rows any more.
    pub fn forget_stream(&self, stream: StreamId) -> Result<(), Error> {
        self.transaction(|tx| {
            tx.execute("DELETE FROM stream WHERE stream = ?1", [signed(stream.0)])
                .map(drop)
        })
    }
}

fn select_by_position() -> String {
    format!(
        "SELECT {COLUMNS} FROM fragment WHERE stream = ?1 AND position >= ?2 AND position < ?3
         ORDER BY position LIMIT ?4"
    )
}

fn insert(tx: &Transaction<'_>, entries: &[(StreamId, Entry<Place>)]) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached(
        "INSERT OR IGNORE INTO fragment
         (stream, sequence, position, server_ms, producer_ms, length_ms, size, rest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut segments = Deltas::default();
    let mut streams: HashMap<StreamId, StreamRow> = HashMap::new();
    for (stream, entry) in entries {
        let info = &entry.info;
        let inserted = statement.execute(params![
            signed(stream.0),
            signed(info.number.sequence()),
            signed(info.position),
            info.server_timestamp.millis(),
            info.producer_timestamp.millis(),
            info.length_ms,
            info.size,
            rest_of(entry)
        ])?;
        if inserted == 1 {
            segments.count(&entry.place, 1);
            streams.entry(*stream).or_insert_with(StreamRow::empty).add(info);
        }
    }
    segments.write(tx)?;
    let mut statement = tx.prepare_cached(
        "INSERT INTO stream (stream, fragments, bytes, sequence, position, longest_ms,
            server_start, server_end, producer_start, producer_end)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT DO UPDATE SET fragments = fragments + excluded.fragments, bytes = bytes + excluded.bytes,
            sequence = max(sequence, excluded.sequence), position = max(position, excluded.position),
            longest_ms = max(longest_ms, excluded.longest_ms),
            server_start = max(server_start, excluded.server_start), server_end = max(server_end, excluded.server_end),
            producer_start = max(producer_start, excluded.producer_start),
            producer_end = max(producer_end, excluded.producer_end)",
    )?;
    for (stream, row) in &streams {
        let [server_start, producer_start] = row.starts.map(Timestamp::millis);
        let [server_end, producer_end] = row.ends.map(Timestamp::millis);
        statement.execute(params![
            signed(stream.0),
            signed(row.fragments),
            signed(row.bytes),
            signed(row.sequence),
            signed(row.position),
            row.longest_ms,
            server_start,
            server_end,
            producer_start,
            producer_end
        ])?;
    }
    Ok(())
}
