//! A fragment as a row and back.

use base::Timestamp;
use rusqlite::Row;

use crate::index::Entry;
use crate::payload::{Extent, Reader, put_u32, put_u64};
use crate::state::Place;
use crate::{FragmentInfo, FragmentNumber};

/// The columns that [`entry`] takes, in its order.
pub(super) const COLUMNS: &str = "sequence, position, server_ms, producer_ms, length_ms, size, rest";

/// What no query looks at.
pub(super) fn rest_of(entry: &Entry<Place>) -> Vec<u8> {
    let Entry { info, place } = entry;
    let mut out = Vec::with_capacity(48 + 16 * place.extents.len());
    put_u64(&mut out, info.number.server_millis());
    put_u32(&mut out, info.number.random());
    put_u32(&mut out, info.header_len);
    put_u32(&mut out, info.frame_count);
    put_u64(&mut out, info.tracks_hash);
    put_u32(&mut out, place.checksum);
    for extent in std::iter::once(&place.commit).chain(&place.extents) {
        put_u64(&mut out, extent.segment);
        put_u32(&mut out, extent.offset);
        put_u32(&mut out, extent.len);
    }
    out
}

fn extent(r: &mut Reader<'_>) -> Option<Extent> {
    Some(Extent {
        segment: r.u64()?,
        offset: r.u32()?,
        len: r.u32()?,
    })
}

fn unsigned<T: TryFrom<i64>>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let value: i64 = row.get(at)?;
    T::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, value))
}

pub(super) fn u64_of(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    unsigned(row, at)
}

pub(super) fn u32_of(row: &Row<'_>, at: usize) -> rusqlite::Result<u32> {
    unsigned(row, at)
}

pub(super) fn time_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    row.get(at).map(Timestamp::from_millis)
}

/// The fragment of a row of [`COLUMNS`].
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry<Place>> {
    let blob = row.get_ref(6)?.as_blob()?;
    let mut r = Reader(blob);
    let wrong = || rusqlite::Error::InvalidColumnName("rest".to_owned());
    let take = |r: &mut Reader<'_>| Some((r.u64()?, r.u32()?, r.u32()?, r.u32()?, r.u64()?, r.u32()?, extent(r)?));
    let (millis, random, header_len, frame_count, tracks_hash, checksum, commit) = take(&mut r).ok_or_else(wrong)?;
    let mut extents = Vec::with_capacity(r.0.len() / 16);
    while !r.0.is_empty() {
        extents.push(extent(&mut r).ok_or_else(wrong)?);
    }
    Ok(Entry {
        info: FragmentInfo {
            number: FragmentNumber::new(u64_of(row, 0)?, millis, random),
            position: u64_of(row, 1)?,
            server_timestamp: time_of(row, 2)?,
            producer_timestamp: time_of(row, 3)?,
            length_ms: u32_of(row, 4)?,
            size: u32_of(row, 5)?,
            header_len,
            frame_count,
            tracks_hash,
        },
        place: Place {
            commit,
            checksum,
            extents: extents.into(),
        },
    })
}
