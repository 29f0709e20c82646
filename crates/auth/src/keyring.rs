//! The key ring: the master keys under which secrets, session tokens, page tokens and playback tokens are sealed. It is
//! one file of mode 0600 in the data directory; losing it makes every stored secret unreadable, so `backup` copies it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::limits::RING_KEYS_MAX;

/// The newest format of the file that this program writes.
const FORMAT: u32 = 1;

/// The key ring could not be read, written or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The file could not be read or written.
    #[error("key ring {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not a key ring.
    #[error("key ring {path} is damaged: {why}; restore it from a backup, secrets sealed under it are lost without it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version of the program wrote it.
    #[error("key ring {path} has format {found}; this program knows up to {FORMAT}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    keys: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: u32,
    key: String,
}

/// One master key.
#[derive(Clone, Copy)]
pub(crate) struct MasterKey {
    pub(crate) id: u32,
    pub(crate) bytes: [u8; 32],
}

/// The master keys, newest last: the newest seals, all of them open.
pub struct KeyRing {
    path: Option<PathBuf>,
    keys: RwLock<Vec<MasterKey>>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn fresh(id: u32) -> Result<MasterKey, KeyRingError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(KeyRingError::Random)?;
    Ok(MasterKey { id, bytes })
}

impl KeyRing {
    /// A ring of one fresh key that is kept nowhere: for tests and the simulation.
    pub fn ephemeral() -> Result<Self, KeyRingError> {
        Ok(KeyRing {
            path: None,
            keys: RwLock::new(vec![fresh(1)?]),
        })
    }

    /// Reads the ring, or makes one of a fresh key when the file does not exist. The file is on stable storage when this
    /// returns.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyRingError> {
        if let Some(text) = read(path)? {
            let keys = parse(path, &text)?;
            return Ok(KeyRing {
                path: Some(path.to_owned()),
                keys: RwLock::new(keys),
            });
        }
        let keys = vec![fresh(1)?];
        store(path, &keys)?;
        Ok(KeyRing {
            path: Some(path.to_owned()),
            keys: RwLock::new(keys),
        })
    }

    /// Adds a fresh key that seals from now on. What older keys sealed still opens, until more than 64 rotations later.
    pub fn rotate(&self) -> Result<(), KeyRingError> {
        let mut keys = self.keys.write();
        let next = keys.last().map_or(1, |last| last.id.saturating_add(1));
        let mut rotated = keys.clone();
        rotated.push(fresh(next)?);
        let excess = rotated.len().saturating_sub(RING_KEYS_MAX);
        rotated.drain(..excess);
        if let Some(path) = &self.path {
            store(path, &rotated)?;
        }
        *keys = rotated;
        Ok(())
    }

    /// Forgets every key but the newest: tokens sealed under the others are dead at once. Stored secrets must have been
    /// sealed anew before.
    pub fn forget_old(&self) -> Result<(), KeyRingError> {
        let mut keys = self.keys.write();
        let newest: Vec<MasterKey> = keys.last().copied().into_iter().collect();
        if let Some(path) = &self.path {
            store(path, &newest)?;
        }
        *keys = newest;
        Ok(())
    }

    pub(crate) fn newest(&self) -> Option<MasterKey> {
        self.keys.read().last().copied()
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<MasterKey> {
        self.keys.read().iter().find(|key| key.id == id).copied()
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<MasterKey>, KeyRingError> {
    let damaged = |why: String| KeyRingError::Damaged {
        path: path.to_owned(),
        why,
    };
    let file: File = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
    if file.format > FORMAT {
        return Err(KeyRingError::Newer {
            path: path.to_owned(),
            found: file.format,
        });
    }
    let keys: Option<Vec<MasterKey>> = file.keys.iter().map(decode).collect();
    keys.filter(|keys| !keys.is_empty())
        .ok_or_else(|| damaged("it holds no usable key".to_owned()))
}

fn decode(entry: &Entry) -> Option<MasterKey> {
    let bytes = STANDARD.decode(&entry.key).ok()?.try_into().ok()?;
    Some(MasterKey { id: entry.id, bytes })
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyRingError + '_ {
    move |source| KeyRingError::Io {
        path: path.to_owned(),
        source,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a secret file of its own mode, read once at start; not part of the logs that Disk simulates"
)]
fn read(path: &Path) -> Result<Option<Vec<u8>>, KeyRingError> {
    let mut text = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(1 << 20).read_to_end(&mut text).map_err(io_error(path))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(path)(e)),
    };
    Ok(Some(text))
}

/// Writes beside, syncs, renames over, syncs the directory: the ring is the old one or the new one, never half of one.
#[allow(
    clippy::disallowed_methods,
    reason = "a secret file of its own mode, written at first start and at rotation"
)]
fn store(path: &Path, keys: &[MasterKey]) -> Result<(), KeyRingError> {
    let file = File {
        format: FORMAT,
        keys: keys
            .iter()
            .map(|key| Entry {
                id: key.id,
                key: STANDARD.encode(key.bytes),
            })
            .collect(),
    };
    let text = serde_json::to_vec(&file).map_err(|e| io_error(path)(io::Error::other(e)))?;
    let beside = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&beside);
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        out.write_all(&text)?;
        out.sync_all()?;
        fs::rename(&beside, path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(io_error(path))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at the file itself")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_ring_survives_a_restart_and_is_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let ring = KeyRing::load_or_create(&path).unwrap();
        ring.rotate().unwrap();
        let newest = ring.newest().unwrap();
        assert_eq!(newest.id, 2);
        let again = KeyRing::load_or_create(&path).unwrap();
        assert_eq!(again.newest().unwrap().bytes, newest.bytes);
        assert!(again.by_id(1).is_some());
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        again.forget_old().unwrap();
        assert!(KeyRing::load_or_create(&path).unwrap().by_id(1).is_none());
    }

    #[test]
    fn a_damaged_or_newer_ring_is_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        for (text, newer) in [
            ("", false),
            ("{\"format\":1,\"keys\":[]}", false),
            ("{\"format\":1,\"keys\":[{\"id\":1,\"key\":\"AA==\"}]}", false),
            ("{\"format\":2,\"keys\":[]}", true),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = KeyRing::load_or_create(&path).unwrap_err();
            assert_eq!(matches!(error, KeyRingError::Newer { .. }), newer, "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
