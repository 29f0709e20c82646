//! Reads an archive back: every object against the length and the checksum in its index, and every fragment in one object
//! only.

use std::collections::HashSet;

use base::Timestamp;
use futures_util::StreamExt;

use crate::archiver::ArchiveError;
use crate::held::{Keys, read_index};
use crate::index::{Head, State, crc_text};
use crate::name::Folder;
use crate::store::{Store, StoreError};
use crate::writer::Sum;

/// Fragment numbers that are remembered, to find one that is in two objects. Ours: about 20 MB.
const REMEMBERED_MAX: usize = 100_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects that are as they were written.
    pub good: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Fragments in them.
    pub fragments: u64,
    /// Keys of those that are not, or are not there.
    pub damaged: Vec<String>,
    /// Keys of plans that were not carried out; the next run does it.
    pub unfinished: Vec<String>,
    /// Fragments that are in two objects.
    pub twice: Vec<String>,
}

/// Reads one object back.
///
/// # Errors
/// [`ArchiveError::Damaged`] where its bytes are not those that were written.
pub async fn read_back(store: &dyn Store, head: &Head) -> Result<(), ArchiveError> {
    let Some(expected) = &head.crc64nvme else { return Ok(()) };
    let damaged = || ArchiveError::Damaged(head.key.clone());
    let mut bytes = match store.read(&head.key).await {
        Err(StoreError::Refused(_)) => return Err(damaged()),
        bytes => bytes?,
    };
    let (mut sum, mut len) = (Sum::default(), 0_u64);
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        len += piece.len() as u64;
        sum.add(&piece);
    }
    if len == head.bytes && crc_text(sum.value()) == *expected {
        Ok(())
    } else {
        Err(damaged())
    }
}

/// Reads back what begins from `from` on and before `until`. `on` hears of each object.
///
/// # Errors
/// The bucket cannot be read. Damage is no error but part of the report.
pub async fn verify(
    store: &dyn Store,
    folder: &Folder,
    from: Timestamp,
    until: Timestamp,
    on: &mut (dyn FnMut(&Head) + Send),
) -> Result<Report, ArchiveError> {
    let mut report = Report::default();
    let mut keys = Keys::from(folder, from);
    let mut seen: HashSet<String> = HashSet::new();
    while let Some(key) = keys.next(store, folder).await? {
        if folder.time_of(&key).is_none_or(|time| time >= until) {
            break;
        }
        let Some(index) = read_index(store, &key).await? else {
            continue;
        };
        if index.head.state == State::Planned {
            report.unfinished.push(index.head.key);
            continue;
        }
        on(&index.head);
        if seen.len() + index.rows.len() > REMEMBERED_MAX {
            seen.clear();
        }
        for row in index.rows {
            if !seen.insert(row.number.clone()) {
                report.twice.push(row.number);
            }
        }
        match read_back(store, &index.head).await {
            Ok(()) => {
                report.good += 1;
                report.bytes += index.head.bytes;
                report.fragments += index.head.fragments;
            }
            Err(ArchiveError::Damaged(key)) => report.damaged.push(key),
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}
