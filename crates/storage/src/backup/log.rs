//! Copying a segment log that is being written. The reasons for the order are in `docs/design/backup.md`.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base::{Clock, Disk, SystemDisk};

use super::manifest::copy_backwards;
use super::{BackupError, io_at};
use crate::frame::{HEADER, Header};
use crate::state::slot_of;

/// Passes over the log before giving up.
const PASSES_MAX: usize = 20;
/// A pass must be shorter than the time for which a trimmed extent stays readable (`LogOptions::punch_delay_ms`).
const PASS_MAX: Duration = Duration::from_secs(8);
/// A file that was written less than this before it was read may be written again without its time changing.
const SETTLED_MS: i64 = 2000;

/// The segment that a slot's file holds, by its first header: id and salt. `None` while there is none.
type Identity = Option<(u64, u32)>;

/// A slot as it was when it was copied.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Copied {
    identity: Identity,
    modified_ms: i64,
    len: u64,
    /// It may have been written in the same tick.
    fresh: bool,
}

struct Slot {
    name: String,
    state: Copied,
}

/// Copies every segment of the log. Repeats for what was written meanwhile, until a pass was quick and no segment changed
/// its place during it.
pub(super) fn copy(from: &Path, to: &Path, clock: &dyn Clock) -> Result<(), BackupError> {
    if !from.exists() {
        return Ok(());
    }
    let source = SystemDisk::open(from).map_err(io_at(from))?;
    let target = SystemDisk::open(to).map_err(io_at(to))?;
    let mut copied: HashMap<String, Copied> = HashMap::new();
    for name in target.list().map_err(io_at(to))? {
        // Of an attempt before this one.
        target.remove(&name).map_err(io_at(&name))?;
    }
    for _ in 0..PASSES_MAX {
        let began = clock.monotonic();
        let slots = look(from, &source, clock)?;
        for slot in &slots {
            let known = copied.get(&slot.name);
            if known.is_some_and(|known| *known == slot.state && !known.fresh) {
                continue;
            }
            copy_slot(&source, &target, &slot.name)?;
            copied.insert(slot.name.clone(), slot.state);
        }
        forget_gone(&slots, &mut copied, &target)?;
        let quick = clock.monotonic().saturating_sub(began) <= PASS_MAX;
        if quick && in_place(&look(from, &source, clock)?, &copied) {
            return Ok(());
        }
    }
    Err(BackupError::TooBusy)
}

/// All slots, the newest segment first.
fn look(folder: &Path, disk: &SystemDisk, clock: &dyn Clock) -> Result<Vec<Slot>, BackupError> {
    let mut slots = Vec::new();
    for name in disk.list().map_err(io_at(folder))? {
        if slot_of(&name).is_none() {
            // Reserves and torn tails.
            continue;
        }
        let path = folder.join(&name);
        let facts = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(io_at(&path))?,
        };
        let modified = facts.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified_ms = modified
            .and_then(|since| i64::try_from(since.as_millis()).ok())
            .unwrap_or(i64::MAX);
        let state = Copied {
            identity: identity(disk, &name)?,
            modified_ms,
            len: facts.len(),
            fresh: clock.now().millis().saturating_sub(modified_ms) < SETTLED_MS,
        };
        slots.push(Slot { name, state });
    }
    slots.sort_by_key(|slot| std::cmp::Reverse(slot.state.identity));
    Ok(slots)
}

fn identity(disk: &SystemDisk, name: &str) -> Result<Identity, BackupError> {
    let mut bytes = [0; HEADER];
    let file = match disk.open(name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io_at(name))?,
    };
    file.read_at(&mut bytes, 0).map_err(io_at(name))?;
    Ok(Header::decode(&bytes).map(|header| (header.segment, header.salt)))
}

fn copy_slot(source: &SystemDisk, target: &SystemDisk, name: &str) -> Result<(), BackupError> {
    let file = match source.open(name) {
        // The server removed it; the next pass sees that.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io_at(name))?,
    };
    let copy = target
        .open(name)
        .or_else(|_| target.create(name))
        .map_err(io_at(name))?;
    copy_backwards(&*file, &*copy).map_err(io_at(name))
}

fn forget_gone(slots: &[Slot], copied: &mut HashMap<String, Copied>, target: &SystemDisk) -> Result<(), BackupError> {
    let gone: Vec<String> = copied
        .keys()
        .filter(|name| !slots.iter().any(|slot| slot.name == **name))
        .cloned()
        .collect();
    for name in gone {
        copied.remove(&name);
        match target.remove(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io_at(&name)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Every slot that was copied still holds the segment it held then, and no copied one is gone. Slots made meanwhile do
/// not matter: nothing in the copy knows of them.
fn in_place(now: &[Slot], copied: &HashMap<String, Copied>) -> bool {
    let same = |(name, then): (&String, &Copied)| {
        now.iter()
            .any(|slot| slot.name == *name && slot.state.identity == then.identity)
    };
    copied.iter().all(same)
}
