//! A directory in memory that keeps what was not synced apart. A power cut drops, tears and reorders it, in units of 512
//! bytes or 4 KiB; directory entries get lost on their own. Any call can be made to fail.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::sync::Arc;

use base::{Disk, DiskFile};
use parking_lot::Mutex;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
    Punch { offset: usize, len: usize },
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    live: Vec<u8>,
    pending: Vec<Change>,
    /// 4 KiB blocks that take up space.
    blocks: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Entry {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

/// What an injected fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Io,
    NoSpace,
    /// The power goes: this call and all later ones fail until [`SimDisk::reboot`].
    Power,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    durable_names: BTreeMap<String, u64>,
    names: BTreeMap<String, u64>,
    entries: Vec<Entry>,
    files: HashMap<u64, Content>,
    next_file: u64,
    calls: u64,
    fault: Option<(u64, Fault)>,
    fired: bool,
    off: bool,
    capacity: usize,
    /// Claims to sync and does not.
    lies: bool,
    /// Handles from before the last reboot or kill are dead.
    boot: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

const BLOCK: usize = 4096;

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn apply(target: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if target.len() < end {
                target.resize(end, 0);
            }
            target[*offset..end].copy_from_slice(bytes);
        }
        Change::SetLen(len) => target.resize(*len, 0),
        Change::Punch { offset, len } => {
            let end = (offset + len).min(target.len());
            if *offset < end {
                target[*offset..end].fill(0);
            }
        }
    }
}

/// Applies a change as a power cut may leave it: some of its units, in any order.
fn apply_torn(target: &mut Vec<u8>, change: &Change, keep: f64, unit: usize, random: &mut fastrand::Rng) {
    match change {
        Change::Write { offset, bytes } => {
            let mut at = 0;
            while at < bytes.len() {
                let len = (unit - (offset + at) % unit).min(bytes.len() - at);
                if random.f64() < keep {
                    let part = Change::Write {
                        offset: offset + at,
                        bytes: bytes[at..at + len].to_vec(),
                    };
                    apply(target, &part);
                }
                at += len;
            }
        }
        other => {
            if random.f64() < keep {
                apply(target, other);
            }
        }
    }
}

impl State {
    fn call(&mut self, boot: u64, write: bool) -> io::Result<()> {
        if self.off || boot != self.boot {
            return Err(power_is_off());
        }
        self.calls += 1;
        match self.fault {
            Some((at, fault)) if at == self.calls => {
                let applies = fault != Fault::NoSpace || write;
                self.fired |= applies;
                match fault {
                    Fault::Io => Err(io::Error::from_raw_os_error(5)),
                    Fault::NoSpace if write => Err(io::Error::from_raw_os_error(28)),
                    Fault::NoSpace => Ok(()),
                    Fault::Power => {
                        self.off = true;
                        Err(power_is_off())
                    }
                }
            }
            _ => Ok(()),
        }
    }

    fn used(&self) -> usize {
        self.names.values().map(|id| self.files[id].blocks.len() * BLOCK).sum()
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        SimDisk {
            state: Arc::new(Mutex::new(State {
                random: fastrand::Rng::with_seed(seed),
                durable_names: BTreeMap::new(),
                names: BTreeMap::new(),
                entries: Vec::new(),
                files: HashMap::new(),
                next_file: 1,
                calls: 0,
                fault: None,
                fired: false,
                off: false,
                capacity: usize::MAX,
                lies: false,
                boot: 0,
            })),
        }
    }

    /// The n-th call from now on fails.
    pub fn inject(&self, nth: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some((state.calls + nth, fault));
        state.fired = false;
    }

    /// No call fails any more.
    pub fn clear_fault(&self) {
        self.state.lock().fault = None;
    }

    /// True if the injected fault has struck.
    pub fn fired(&self) -> bool {
        self.state.lock().fired
    }

    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    pub fn is_off(&self) -> bool {
        self.state.lock().off
    }

    pub fn set_capacity(&self, bytes: usize) {
        self.state.lock().capacity = bytes;
    }

    pub fn set_lies(&self) {
        self.state.lock().lies = true;
    }

    /// Cuts the power and turns it on again. Handles from before are dead.
    pub fn reboot(&self) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let keep = [0.0, 0.3, 0.5, 0.9, 0.99, 1.0][state.random.usize(..6)];
        let unit = [512, BLOCK][state.random.usize(..2)];
        for entry in std::mem::take(&mut state.entries) {
            if state.random.f64() < keep {
                apply_entry(&mut state.durable_names, &entry);
            }
        }
        let mut ids: Vec<u64> = state.files.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let content = state.files.get_mut(&id).unwrap();
            for change in std::mem::take(&mut content.pending) {
                apply_torn(&mut content.durable, &change, keep, unit, &mut state.random);
            }
            content.live.clone_from(&content.durable);
            content.blocks = (0..content.live.len().div_ceil(BLOCK)).collect();
        }
        state.names.clone_from(&state.durable_names);
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        state.boot += 1;
        state.off = false;
        state.fault = None;
    }

    /// The process dies; what it wrote stays in the page cache, not durable.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.boot += 1;
        state.off = false;
        state.fault = None;
    }

    /// A second disk that holds what this one shows now.
    pub fn copy(&self) -> SimDisk {
        let state = self.state.lock();
        let copy = SimDisk::new(1);
        {
            let mut other = copy.state.lock();
            other.names.clone_from(&state.names);
            other.durable_names.clone_from(&state.names);
            other.next_file = state.next_file;
            other.files = state.files.clone();
            for content in other.files.values_mut() {
                content.durable.clone_from(&content.live);
                content.pending.clear();
            }
        }
        copy
    }

    /// All files and their bytes.
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.lock();
        state
            .names
            .iter()
            .map(|(name, id)| (name.clone(), state.files[id].live.clone()))
            .collect()
    }

    /// Changes bytes behind everyone's back, durably: rot.
    pub fn rot(&self, name: &str, offset: usize, change: impl FnOnce(&mut u8)) {
        let mut state = self.state.lock();
        let id = state.names[name];
        let content = state.files.get_mut(&id).unwrap();
        change(&mut content.live[offset]);
        content.durable.clone_from(&content.live);
    }

    /// Replaces a file, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let id = state.next_file;
        state.next_file += 1;
        let blocks = (0..bytes.len().div_ceil(BLOCK)).collect();
        state.files.insert(
            id,
            Content {
                durable: bytes.clone(),
                live: bytes,
                pending: Vec::new(),
                blocks,
            },
        );
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    fn file(&self, id: u64, boot: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            id,
            boot,
        })
    }
}

fn apply_entry(names: &mut BTreeMap<String, u64>, entry: &Entry) {
    match entry {
        Entry::Create(name, id) => {
            names.insert(name.clone(), *id);
        }
        Entry::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        Entry::Remove(name) => {
            names.remove(name);
        }
    }
}

/// A disk as one process sees it: dead after the next reboot or kill.
#[derive(Debug)]
pub(crate) struct Mounted {
    disk: SimDisk,
    boot: u64,
}

impl SimDisk {
    pub fn mount(&self) -> Arc<dyn Disk> {
        let boot = self.state.lock().boot;
        Arc::new(Mounted {
            disk: self.clone(),
            boot,
        })
    }
}

impl Disk for Mounted {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, false)?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        drop(state);
        Ok(self.disk.file(id, self.boot))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, true)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, Content::default());
        state.names.insert(name.to_owned(), id);
        state.entries.push(Entry::Create(name.to_owned(), id));
        drop(state);
        Ok(self.disk.file(id, self.boot))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, false)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, true)?;
        let entry = Entry::Rename(from.to_owned(), to.to_owned());
        apply_entry(&mut state.names, &entry);
        state.entries.push(entry);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, false)?;
        if state.names.remove(name).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.entries.push(Entry::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, false)?;
        if !state.lies {
            state.entries.clear();
            state.durable_names = state.names.clone();
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, false)?;
        Ok(state.capacity.saturating_sub(state.used()) as u64)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
    boot: u64,
}

impl SimFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut guard = self.disk.state.lock();
        let failed = guard.call(self.boot, true);
        if guard.boot != self.boot {
            return failed;
        }
        let state = &mut *guard;
        let (free, used) = (
            state.capacity,
            if state.capacity == usize::MAX { 0 } else { state.used() },
        );
        let Some(content) = state.files.get_mut(&self.id) else {
            return failed;
        };
        let mut change = change;
        let mut answer = failed;
        if let Change::Write { offset, bytes } = &mut change {
            let touched = *offset / BLOCK..(*offset + bytes.len()).div_ceil(BLOCK);
            let new = touched.clone().filter(|b| !content.blocks.contains(b)).count() * BLOCK;
            if answer.is_ok() && used + new > free {
                answer = Err(io::Error::from_raw_os_error(28));
            }
            if answer.is_err() {
                // Any beginning of a failed write may have been done.
                bytes.truncate(state.random.usize(..=bytes.len()));
            }
            content
                .blocks
                .extend(*offset / BLOCK..(*offset + bytes.len()).div_ceil(BLOCK));
        } else if answer.is_err() {
            return answer;
        }
        if let Change::Punch { offset, len } = &change {
            let whole = offset.div_ceil(BLOCK)..(offset + len) / BLOCK;
            content.blocks.retain(|b| !whole.contains(b));
        }
        if let Change::SetLen(len) = &change {
            let blocks = len.div_ceil(BLOCK);
            content.blocks.retain(|b| *b < blocks);
        }
        apply(&mut content.live, &change);
        content.pending.push(change);
        answer
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, false)?;
        Ok(state.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?.live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len as usize))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.call(self.boot, false)?;
        let live = &state.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?.live;
        let from = (offset as usize).min(live.len());
        let n = buffer.len().min(live.len() - from);
        buffer[..n].copy_from_slice(&live[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(pieces.iter().map(|p| p.len()).sum());
        for piece in pieces {
            bytes.extend_from_slice(piece);
        }
        self.change(Change::Write {
            offset: offset as usize,
            bytes,
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut guard = self.disk.state.lock();
        let failed = guard.call(self.boot, false);
        if guard.boot != self.boot {
            return failed;
        }
        let state = &mut *guard;
        let off = state.off;
        let Some(content) = state.files.get_mut(&self.id) else {
            return failed;
        };
        if state.lies || off {
            return failed;
        }
        for change in std::mem::take(&mut content.pending) {
            if failed.is_ok() {
                apply(&mut content.durable, &change);
            } else {
                // As on Linux: the pages count as clean now, and some of them were never written.
                apply_torn(&mut content.durable, &change, 0.5, 512, &mut state.random);
            }
        }
        failed
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Change::Punch {
            offset: offset as usize,
            len: len as usize,
        })
    }
}

#[test]
fn what_was_synced_survives_and_what_was_not_may_be_lost_torn_or_reordered() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let sim = SimDisk::new(seed);
        let disk = sim.mount();
        let file = disk.create("a").unwrap();
        file.write_at(&[IoSlice::new(&[1; 8192])], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(&[IoSlice::new(&[2; 8192])], 4096).unwrap();
        disk.create("b").unwrap();
        sim.reboot();
        assert!(file.len().is_err());
        let files = sim.snapshot();
        assert_eq!(files["a"][..4096], [1; 4096]);
        let sectors: Vec<u8> = files["a"].chunks(512).skip(8).map(|c| c[0]).collect();
        assert!(sectors.iter().all(|s| [0, 1, 2].contains(s)));
        outcomes.insert((sectors, files.contains_key("b")));
    }
    assert!(outcomes.len() > 50, "{}", outcomes.len());
}
