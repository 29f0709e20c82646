//! Questions to the rows. All are answered by an index look-up and a walk along it; `gone` holds positions whose rows are
//! trimmed and not yet deleted.

use std::collections::HashMap;

use base::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::row::{COLUMNS, entry, time_of, u32_of, u64_of};
use super::{IndexDb, SegmentRow, StreamRow};
use crate::control::RangeSet;
use crate::index::Entry;
use crate::limits::LIST_LIMIT_MAX;
use crate::media::{FragmentInfo, FragmentQuery, FragmentRange, TimeAxis};
use crate::state::Place;
use crate::{Error, StreamId};

/// What coverage needs of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub start: Timestamp,
    pub sequence: u64,
    pub length_ms: u32,
    pub size: u32,
    pub position: u64,
}

impl Piece {
    /// Its place in the order of time.
    pub fn place(&self) -> (Timestamp, u64) {
        (self.start, self.sequence)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn column(axis: TimeAxis) -> &'static str {
    match axis {
        TimeAxis::Server => "server_ms",
        TimeAxis::Producer => "producer_ms",
    }
}

fn index_of(axis: TimeAxis) -> &'static str {
    match axis {
        TimeAxis::Server => "by_server",
        TimeAxis::Producer => "by_producer",
    }
}

fn piece(row: &Row<'_>) -> rusqlite::Result<Piece> {
    Ok(Piece {
        start: time_of(row, 0)?,
        sequence: u64_of(row, 1)?,
        length_ms: u32_of(row, 2)?,
        size: u32_of(row, 3)?,
        position: u64_of(row, 4)?,
    })
}

impl IndexDb {
    /// The fragment of a sequence.
    pub fn get(&self, stream: StreamId, sequence: u64) -> Result<Option<Entry<Place>>, Error> {
        self.read(|c| get(c, stream, sequence))
    }

    /// As [`crate::MediaStore::list`].
    pub fn list(&self, stream: StreamId, query: &FragmentQuery, gone: &RangeSet) -> Result<Vec<FragmentInfo>, Error> {
        self.read(|c| list(c, stream, query, gone))
    }

    /// The fragment with the lowest position above `position`.
    pub fn after_position(
        &self,
        stream: StreamId,
        position: u64,
        gone: &RangeSet,
    ) -> Result<Option<FragmentInfo>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM fragment WHERE stream = ?1 AND position > ?2 ORDER BY position");
        self.read(|c| {
            let mut statement = c.prepare_cached(&sql)?;
            let mut rows = statement.query(params![signed(stream.0), signed(position)])?;
            while let Some(row) = rows.next()? {
                if !gone.contains(u64_of(row, 1)?) {
                    return Ok(Some(entry(row)?.info));
                }
            }
            Ok(None)
        })
    }

    /// Of the fragments that hold `at`, the one with the lowest number, and the first one that starts at or after it. No
    /// fragment of the stream is longer than `longest_ms`.
    pub fn around(
        &self,
        stream: StreamId,
        axis: TimeAxis,
        at: Timestamp,
        longest_ms: u32,
        gone: &RangeSet,
    ) -> Result<[Option<FragmentInfo>; 2], Error> {
        let (column, index) = (column(axis), index_of(axis));
        let pieces = format!(
            "SELECT {column}, sequence, length_ms, size, position FROM fragment INDEXED BY {index}
             WHERE stream = ?1 AND {column} >= ?2 AND {column} <= ?3 ORDER BY {column}, sequence"
        );
        let from = at.plus_millis(-i64::from(longest_ms));
        self.read(|c| {
            let mut holds: Option<u64> = None;
            let mut statement = c.prepare_cached(&pieces)?;
            let mut rows = statement.query(params![signed(stream.0), from.millis(), at.millis()])?;
            while let Some(row) = rows.next()? {
                let piece = piece(row)?;
                let ends = piece.start.plus_millis(i64::from(piece.length_ms));
                if at < ends && !gone.contains(piece.position) {
                    holds = Some(holds.map_or(piece.sequence, |known| known.min(piece.sequence)));
                }
            }
            drop(rows);
            let mut follows = None;
            let mut rows = statement.query(params![signed(stream.0), at.millis(), i64::MAX])?;
            while follows.is_none()
                && let Some(row) = rows.next()?
            {
                let piece = piece(row)?;
                follows = (!gone.contains(piece.position)).then_some(piece.sequence);
            }
            let mut found = [None, None];
            for (place, sequence) in found.iter_mut().zip([holds, follows]) {
                if let Some(sequence) = sequence {
                    *place = get(c, stream, sequence)?.map(|entry| entry.info);
                }
            }
            Ok(found)
        })
    }

    /// Walks the fragments that start in `from..=to`, behind `after` (start and sequence), in the order of their start,
    /// until `see` has seen enough.
    pub fn walk(
        &self,
        stream: StreamId,
        axis: TimeAxis,
        range: (Timestamp, Timestamp),
        after: (Timestamp, u64),
        see: &mut dyn FnMut(Piece) -> bool,
    ) -> Result<(), Error> {
        let (column, index) = (column(axis), index_of(axis));
        let pieces = format!(
            "SELECT {column}, sequence, length_ms, size, position FROM fragment INDEXED BY {index}
             WHERE stream = ?1 AND {column} >= ?2 AND {column} <= ?3 ORDER BY {column}, sequence"
        );
        let start = after.max((range.0, 0));
        self.read(|c| {
            let mut statement = c.prepare_cached(&pieces)?;
            let mut rows = statement.query(params![signed(stream.0), start.0.millis(), range.1.millis()])?;
            while let Some(row) = rows.next()? {
                let piece = piece(row)?;
                if piece.place() >= start && !see(piece) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Positions of fragments that the server received before `older_than`, the oldest first, at most `limit`.
    pub fn older(
        &self,
        stream: StreamId,
        older_than: Timestamp,
        limit: usize,
        gone: &RangeSet,
    ) -> Result<Vec<u64>, Error> {
        let mut positions = Vec::new();
        let range = (Timestamp::from_millis(i64::MIN), older_than);
        self.walk(stream, TimeAxis::Server, range, (range.0, 0), &mut |piece| {
            if piece.start < older_than && !gone.contains(piece.position) {
                positions.push(piece.position);
            }
            positions.len() < limit
        })?;
        Ok(positions)
    }

    /// The lowest position that is neither gone nor among `sorted`.
    pub fn lowest_kept(&self, stream: StreamId, sorted: &[u64], gone: &RangeSet) -> Result<Option<u64>, Error> {
        let sql = "SELECT position FROM fragment WHERE stream = ?1 ORDER BY position";
        self.read(|c| {
            let mut statement = c.prepare_cached(sql)?;
            let mut rows = statement.query(params![signed(stream.0)])?;
            while let Some(row) = rows.next()? {
                let position = u64_of(row, 0)?;
                if sorted.binary_search(&position).is_err() && !gone.contains(position) {
                    return Ok(Some(position));
                }
            }
            Ok(None)
        })
    }

    /// Shows every row: for fsck.
    pub fn every(&self, see: &mut dyn FnMut(StreamId, Entry<Place>)) -> Result<(), Error> {
        self.read(|c| {
            let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS}, stream FROM fragment"))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                see(StreamId(u64_of(row, 7)?), entry(row)?);
            }
            Ok(())
        })
    }
}

fn get(c: &Connection, stream: StreamId, sequence: u64) -> rusqlite::Result<Option<Entry<Place>>> {
    let sql = format!("SELECT {COLUMNS} FROM fragment WHERE stream = ?1 AND sequence = ?2");
    let mut statement = c.prepare_cached(&sql)?;
    let found = statement.query_row(params![signed(stream.0), signed(sequence)], entry);
    found.optional()
}

/// Each statement has one lower and one upper bound, so that the walk begins where the page before ended; they are
/// inclusive, and the exact place is compared here.
fn list(
    c: &Connection,
    stream: StreamId,
    query: &FragmentQuery,
    gone: &RangeSet,
) -> rusqlite::Result<Vec<FragmentInfo>> {
    let order = if query.newest_first { "DESC" } else { "ASC" };
    let (mut low, mut high) = match query.range {
        FragmentRange::All => (0, i64::MAX),
        FragmentRange::Number(from, to) => (signed(from.sequence()), signed(to.sequence())),
        FragmentRange::Time(_, from, to) => (from.millis(), to.millis()),
    };
    if let Some(place) = query.after {
        let bound = match query.range {
            FragmentRange::All | FragmentRange::Number(..) => signed(place.number.sequence()),
            FragmentRange::Time(..) => place.time.millis(),
        };
        match query.newest_first {
            true => high = high.min(bound),
            false => low = low.max(bound),
        }
    }
    let sql = match query.range {
        FragmentRange::All | FragmentRange::Number(..) => format!(
            "SELECT {COLUMNS} FROM fragment WHERE stream = ?1 AND sequence >= ?2 AND sequence <= ?3
             ORDER BY sequence {order}"
        ),
        FragmentRange::Time(axis, ..) => {
            let (column, index) = (column(axis), index_of(axis));
            format!(
                "SELECT {COLUMNS} FROM fragment INDEXED BY {index}
                 WHERE stream = ?1 AND {column} >= ?2 AND {column} <= ?3
                 ORDER BY {column} {order}, sequence {order}"
            )
        }
    };
    let limit = query.limit.min(LIST_LIMIT_MAX);
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let mut statement = c.prepare_cached(&sql)?;
    let mut rows = statement.query(params![signed(stream.0), low, high])?;
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let info = entry(row)?.info;
        if query.wants(&info) && !gone.contains(info.position) {
            found.push(info);
        }
    }
    Ok(found)
}

pub(super) fn segments(c: &Connection) -> rusqlite::Result<HashMap<u64, SegmentRow>> {
    let sql = "SELECT segment, commits, refs, settled, slot, salt, log_end, unpunched FROM segment";
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = HashMap::new();
    while let Some(row) = rows.next()? {
        let settled: bool = row.get(3)?;
        let seat = match settled {
            true => Some((u32_of(row, 4)?, u32_of(row, 5)?, u64_of(row, 6)?)),
            false => None,
        };
        let segment = SegmentRow {
            commits: u64_of(row, 1)?,
            refs: u64_of(row, 2)?,
            seat,
            unpunched: row.get(7)?,
        };
        found.insert(u64_of(row, 0)?, segment);
    }
    Ok(found)
}

pub(super) fn streams(c: &Connection) -> rusqlite::Result<HashMap<StreamId, StreamRow>> {
    let sql = "SELECT stream, fragments, bytes, sequence, position, longest_ms,
        server_start, server_end, producer_start, producer_end FROM stream";
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = HashMap::new();
    while let Some(row) = rows.next()? {
        let stream = StreamRow {
            fragments: u64_of(row, 1)?,
            bytes: u64_of(row, 2)?,
            sequence: u64_of(row, 3)?,
            position: u64_of(row, 4)?,
            longest_ms: u32_of(row, 5)?,
            starts: [time_of(row, 6)?, time_of(row, 8)?],
            ends: [time_of(row, 7)?, time_of(row, 9)?],
        };
        found.insert(StreamId(u64_of(row, 0)?), stream);
    }
    Ok(found)
}
