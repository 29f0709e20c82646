//! Bytes on their way into a file: gathered into chunks, and each chunk hashed and written on blocking threads while the
//! next one arrives. What an upload holds in memory is two chunks (or a few parts) and what its file writes at once, whatever
//! its size.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use base::DiskFile;
use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::ObjectError;
use crate::digest::{Algorithm, Digested, Digests, TagOf, crc64_joined, etag_of_parts, hex};
use crate::files::{Files, NewFile};
use crate::limits::{CHUNK_BYTES, ROOM_PART_BYTES, ROOM_PARTS_AT_ONCE, SYNC_BYTES};
use crate::row::Id;

type Job<T> = JoinHandle<Result<T, ObjectError>>;

/// How the bytes are hashed.
enum Hashing {
    /// All of them one after the other: what a client expects of its own upload.
    Whole {
        idle: Option<Box<Digests>>,
        job: Option<JoinHandle<Box<Digests>>>,
    },
    /// Chunk by chunk and beside each other, as if each were a part.
    Chunks {
        done: Vec<Digested>,
        jobs: VecDeque<JoinHandle<Digested>>,
    },
}

/// A body that is being written. Dropping it removes what was written.
pub(crate) struct BodyWriter {
    files: Arc<Files>,
    file: Option<NewFile>,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    chunk_bytes: usize,
    /// Bytes handed to the file.
    written: u64,
    bytes_max: u64,
    synced: u64,
    writing: Option<Job<()>>,
    syncing: Option<Job<()>>,
    hashing: Hashing,
}

/// A body that is whole and durable.
pub(crate) struct Written {
    /// None if it is empty.
    pub file: Option<NewFile>,
    pub etag: String,
    pub digested: Digested,
}

impl Written {
    pub fn id(&self) -> Option<Id> {
        self.file.as_ref().map(NewFile::id)
    }

    /// A row names its file from now on, or may.
    pub fn keep(self) {
        if let Some(file) = self.file {
            file.keep();
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err calls")]
fn panicked(error: tokio::task::JoinError) -> ObjectError {
    ObjectError::Storage(format!("a task that writes failed: {error}"))
}

async fn end<T>(job: &mut Option<Job<T>>) -> Result<Option<T>, ObjectError> {
    match job.take() {
        Some(job) => job.await.map_err(panicked)?.map(Some),
        None => Ok(None),
    }
}

fn write_all(file: &dyn DiskFile, pieces: &[Bytes], offset: u64) -> Result<(), ObjectError> {
    let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    file.write_at(&slices, offset)
        .map_err(|error| ObjectError::io("write to a file", &error))
}

impl BodyWriter {
    /// For the body of a client, hashed as a whole, with one more checksum if asked for.
    pub fn whole(files: &Arc<Files>, extra: Option<Algorithm>, tag_of: TagOf, bytes_max: u64) -> Self {
        let hashing = Hashing::Whole {
            idle: Some(Box::new(Digests::new(extra, tag_of))),
            job: None,
        };
        Self::new(files, hashing, CHUNK_BYTES, bytes_max)
    }

    /// For the body of another room of this server, hashed in parts.
    pub fn in_parts(files: &Arc<Files>, bytes_max: u64) -> Self {
        let hashing = Hashing::Chunks {
            done: Vec::new(),
            jobs: VecDeque::new(),
        };
        Self::new(files, hashing, ROOM_PART_BYTES, bytes_max)
    }

    fn new(files: &Arc<Files>, hashing: Hashing, chunk_bytes: usize, bytes_max: u64) -> Self {
        BodyWriter {
            files: Arc::clone(files),
            file: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            chunk_bytes,
            written: 0,
            bytes_max,
            synced: 0,
            writing: None,
            syncing: None,
            hashing,
        }
    }

    /// Takes the next bytes; returns when there is room for more.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), ObjectError> {
        let all = self.written + self.gathered_bytes as u64 + bytes.len() as u64;
        if all > self.bytes_max {
            return Err(ObjectError::TooLarge {
                what: "the object",
                limit: self.bytes_max,
            });
        }
        while !bytes.is_empty() {
            let room = self.chunk_bytes.saturating_sub(self.gathered_bytes);
            let piece = bytes.split_to(room.min(bytes.len()));
            self.gathered_bytes += piece.len();
            self.gathered.push(piece);
            if self.gathered_bytes >= self.chunk_bytes {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Starts to hash and write what has gathered.
    async fn flush(&mut self) -> Result<(), ObjectError> {
        let pieces: Arc<[Bytes]> = std::mem::take(&mut self.gathered).into();
        let bytes = std::mem::take(&mut self.gathered_bytes) as u64;
        self.hash(Arc::clone(&pieces)).await?;
        end(&mut self.writing).await?;
        let file = match &self.file {
            Some(file) => Arc::clone(&file.file),
            None => {
                let files = Arc::clone(&self.files);
                let made = spawn_blocking(move || files.create_streamed())
                    .await
                    .map_err(panicked)??;
                Arc::clone(&self.file.insert(made).file)
            }
        };
        let offset = self.written;
        self.written += bytes;
        self.sync_early(&file, offset).await?;
        self.writing = Some(spawn_blocking(move || write_all(&*file, &pieces, offset)));
        Ok(())
    }

    /// Sends what was written to the device from time to time, so that little is left to wait for at the end.
    async fn sync_early(&mut self, file: &Arc<dyn DiskFile>, written: u64) -> Result<(), ObjectError> {
        if written - self.synced < SYNC_BYTES {
            return Ok(());
        }
        end(&mut self.syncing).await?;
        self.synced = written;
        let (file, files) = (Arc::clone(file), Arc::clone(&self.files));
        self.syncing = Some(spawn_blocking(move || {
            file.sync_data().map_err(|error| {
                let error = ObjectError::io("make a file durable", &error);
                files.fatal(&error);
                error
            })
        }));
        Ok(())
    }

    async fn hash(&mut self, pieces: Arc<[Bytes]>) -> Result<(), ObjectError> {
        match &mut self.hashing {
            Hashing::Whole { idle, job } => {
                let digests = match job.take() {
                    Some(job) => Some(job.await.map_err(panicked)?),
                    None => idle.take(),
                };
                let mut digests = digests.ok_or_else(|| ObjectError::Storage("a digest was lost".to_owned()))?;
                *job = Some(spawn_blocking(move || {
                    digests.update(&pieces);
                    digests
                }));
            }
            Hashing::Chunks { done, jobs } => {
                if jobs.len() >= ROOM_PARTS_AT_ONCE
                    && let Some(first) = jobs.pop_front()
                {
                    done.push(first.await.map_err(panicked)?);
                }
                jobs.push_back(spawn_blocking(move || {
                    let mut digests = Digests::new(None, TagOf::Crc64);
                    digests.update(&pieces);
                    digests.finish()
                }));
            }
        }
        Ok(())
    }

    /// Ends the body and makes it durable.
    pub async fn finish(mut self) -> Result<Written, ObjectError> {
        if self.file.is_none() {
            return self.finish_small().await;
        }
        if self.gathered_bytes > 0 {
            self.flush().await?;
        }
        end(&mut self.writing).await?;
        end(&mut self.syncing).await?;
        let file = self.file.take();
        // Hashing the last chunk and waiting for the device go on beside each other.
        let publishing = spawn_blocking(move || match file {
            Some(file) => file.publish().map(|()| Some(file)),
            None => Ok(None),
        });
        let hashed = self.hashed().await;
        let file = publishing.await.map_err(panicked)??;
        let (etag, digested) = hashed?;
        Ok(Written { file, etag, digested })
    }

    /// A body that fits into one chunk is hashed and written in one go.
    async fn finish_small(mut self) -> Result<Written, ObjectError> {
        let files = Arc::clone(&self.files);
        let pieces = std::mem::take(&mut self.gathered);
        let mut digests = match &mut self.hashing {
            Hashing::Whole { idle, .. } => idle.take().unwrap_or_else(|| Box::new(Digests::new(None, TagOf::Md5))),
            Hashing::Chunks { .. } => Box::new(Digests::new(None, TagOf::Md5)),
        };
        let work = move || {
            digests.update(&pieces);
            let digested = digests.finish();
            let etag = hex(&digested.tag());
            if digested.bytes == 0 {
                let file = None;
                return Ok(Written { file, etag, digested });
            }
            let file = files.create()?;
            write_all(&*file.file, &pieces, 0)?;
            file.publish()?;
            let file = Some(file);
            Ok(Written { file, etag, digested })
        };
        spawn_blocking(work).await.map_err(panicked)?
    }

    async fn hashed(&mut self) -> Result<(String, Digested), ObjectError> {
        let lost = || ObjectError::Storage("a digest was lost".to_owned());
        match &mut self.hashing {
            Hashing::Whole { idle, job } => {
                let digests = match job.take() {
                    Some(job) => job.await.map_err(panicked)?,
                    None => idle.take().ok_or_else(lost)?,
                };
                let digested = digests.finish();
                Ok((hex(&digested.tag()), digested))
            }
            Hashing::Chunks { done, jobs } => {
                for job in jobs.drain(..) {
                    done.push(job.await.map_err(panicked)?);
                }
                let etag = etag_of_parts(done.iter().map(Digested::tag));
                let parts = std::mem::take(done).into_iter();
                let join = |left: Digested, right: Digested| Digested {
                    crc64: crc64_joined(left.crc64, right.crc64, right.bytes),
                    bytes: left.bytes + right.bytes,
                    ..left
                };
                let whole = parts.reduce(join).ok_or_else(lost)?;
                Ok((etag, whole))
            }
        }
    }
}
