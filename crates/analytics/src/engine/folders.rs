//! The folders of workers: `FOLDER/ID/{checkpoints,snapshots,state}`. Workers write in them; here they are made and
//! removed.

use std::io;
use std::path::PathBuf;

use sql::application::{CHECKPOINTS, SNAPSHOTS, STATE, snapshot_directory};

/// All applications' folders.
#[derive(Clone, Debug)]
pub struct Folders {
    folder: PathBuf,
}

impl Folders {
    /// The folder need not be there yet.
    pub fn new(folder: PathBuf) -> Self {
        Folders { folder }
    }

    /// Where an application's worker writes.
    pub fn of(&self, id: u64) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Makes an application's folder.
    pub async fn make(&self, id: u64) -> io::Result<PathBuf> {
        let folder = self.of(id);
        for part in [CHECKPOINTS, SNAPSHOTS, STATE] {
            tokio::fs::create_dir_all(folder.join(part)).await?;
        }
        Ok(folder)
    }

    /// Removes everything of an application.
    pub async fn remove(&self, id: u64) -> io::Result<()> {
        remove(self.of(id)).await
    }

    /// Removes a snapshot.
    pub async fn remove_snapshot(&self, id: u64, name: &str) -> io::Result<()> {
        match snapshot_directory(&self.of(id), name) {
            Some(folder) => remove(folder).await,
            None => Ok(()),
        }
    }
}

async fn remove(folder: PathBuf) -> io::Result<()> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
