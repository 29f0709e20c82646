//! The key ring: the master keys under which secrets, session tokens, page tokens and playback tokens are sealed. It is
//! one file of mode 0600 in the data directory; losing it makes every stored secret unreadable, so `backup` copies it.

use std::io;
use std::sync::Arc;

use base::{Disk, read_small, replace_small};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::limits::{RING_BYTES_MAX, RING_KEYS_MAX};

/// The newest format of the file that this program writes.
const FORMAT: u32 = 1;

/// The key ring could not be read, written or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The file could not be read or written.
    #[error("key ring {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not a key ring.
    #[error("key ring {file} is damaged: {why}; restore it from a backup, secrets sealed under it are lost without it")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version of the program wrote it.
    #[error("key ring {file} has format {found}; this program knows up to {FORMAT}")]
    Newer {
        /// The file.
        file: String,
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
    place: Option<(Arc<dyn Disk>, String)>,
    keys: RwLock<Vec<MasterKey>>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").finish_non_exhaustive()
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
            place: None,
            keys: RwLock::new(vec![fresh(1)?]),
        })
    }

    /// Reads the ring from a file, or makes one of a fresh key when there is none. The file is on stable storage when this
    /// returns; a [`base::SystemDisk`] makes it with mode 0600.
    pub fn load_or_create(disk: Arc<dyn Disk>, name: &str) -> Result<Self, KeyRingError> {
        let keys = match read_small(&*disk, name, RING_BYTES_MAX).map_err(io_error(name))? {
            Some(text) => parse(name, &text)?,
            None => {
                let keys = vec![fresh(1)?];
                store(&*disk, name, &keys)?;
                keys
            }
        };
        Ok(KeyRing {
            place: Some((disk, name.to_owned())),
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
        if let Some((disk, name)) = &self.place {
            store(&**disk, name, &rotated)?;
        }
        *keys = rotated;
        Ok(())
    }

    /// Forgets every key but the newest: tokens sealed under the others are dead at once. Stored secrets must have been
    /// sealed anew before.
    pub fn forget_old(&self) -> Result<(), KeyRingError> {
        let mut keys = self.keys.write();
        let newest: Vec<MasterKey> = keys.last().copied().into_iter().collect();
        if let Some((disk, name)) = &self.place {
            store(&**disk, name, &newest)?;
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

fn parse(name: &str, text: &[u8]) -> Result<Vec<MasterKey>, KeyRingError> {
    let damaged = |why: String| KeyRingError::Damaged {
        file: name.to_owned(),
        why,
    };
    let file: File = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
    if file.format > FORMAT {
        return Err(KeyRingError::Newer {
            file: name.to_owned(),
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

fn io_error(name: &str) -> impl Fn(io::Error) -> KeyRingError + '_ {
    move |source| KeyRingError::Io {
        file: name.to_owned(),
        source,
    }
}

fn store(disk: &dyn Disk, name: &str, keys: &[MasterKey]) -> Result<(), KeyRingError> {
    let entry = |key: &MasterKey| Entry {
        id: key.id,
        key: STANDARD.encode(key.bytes),
    };
    let file = File {
        format: FORMAT,
        keys: keys.iter().map(entry).collect(),
    };
    let text = serde_json::to_vec(&file).map_err(|e| io_error(name)(io::Error::other(e)))?;
    replace_small(disk, name, &text).map_err(io_error(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use base::SystemDisk;

    use super::*;

    #[test]
    fn the_ring_survives_a_restart_and_is_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(dir.path()).unwrap());
        let open = || KeyRing::load_or_create(Arc::clone(&disk), "keyring").unwrap();
        let ring = open();
        ring.rotate().unwrap();
        let newest = ring.newest().unwrap();
        assert_eq!(newest.id, 2);
        let again = open();
        assert_eq!(again.newest().unwrap().bytes, newest.bytes);
        assert!(again.by_id(1).is_some());
        let mode = dir.path().join("keyring").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        again.forget_old().unwrap();
        assert!(open().by_id(1).is_none());
    }

    #[test]
    fn a_damaged_or_newer_ring_is_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(dir.path()).unwrap());
        for (text, newer) in [
            ("", false),
            ("{\"format\":1,\"keys\":[]}", false),
            ("{\"format\":1,\"keys\":[{\"id\":1,\"key\":\"AA==\"}]}", false),
            ("{\"format\":2,\"keys\":[]}", true),
        ] {
            replace_small(&*disk, "keyring", text.as_bytes()).unwrap();
            let error = KeyRing::load_or_create(Arc::clone(&disk), "keyring").unwrap_err();
            assert_eq!(matches!(error, KeyRingError::Newer { .. }), newer, "{text}");
            let kept = read_small(&*disk, "keyring", 100).unwrap();
            assert_eq!(kept.as_deref(), Some(text.as_bytes()));
        }
    }
}
