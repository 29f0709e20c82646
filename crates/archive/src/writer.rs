//! An object on its way into the bucket, in constant memory: whole parts go out while the next one fills, and the first one
//! waits for the end, since a film's head is finished last.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use client::reader::Patch;
use crc_fast::CrcAlgorithm;
use tokio::task::JoinSet;

use crate::limits::{PART_BYTES, PARTS_IN_FLIGHT};
use crate::store::{Kind, Store, StoreError};

/// The checksum of objects: S3's own choice, which stores compute and compare too.
const CRC: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;

/// What was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes of the object.
    pub bytes: u64,
    /// Its CRC-64/NVME.
    pub crc64nvme: u64,
}

/// See the module. Dropping it stops the parts that are under way; an upload that was begun stays, to be given up by
/// whoever knows its name.
pub struct Writer {
    store: Arc<dyn Store>,
    key: String,
    kind: Kind,
    upload: Option<String>,
    /// The first part, once it is full.
    head: Option<BytesMut>,
    filling: BytesMut,
    /// Of each part but the first.
    sums: Vec<(u64, u64)>,
    under_way: JoinSet<Result<(usize, String), StoreError>>,
    answers: Vec<(usize, String)>,
}

impl Writer {
    /// An object of this key. `upload` was begun for it, where it will surely have several parts.
    pub fn new(store: Arc<dyn Store>, key: String, kind: Kind, upload: Option<String>) -> Self {
        Writer {
            store,
            key,
            kind,
            upload,
            head: None,
            filling: BytesMut::new(),
            sums: Vec::new(),
            under_way: JoinSet::new(),
            answers: Vec::new(),
        }
    }

    /// Takes bytes; waits while as many parts are under way as may be.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.filling.capacity() == 0 {
                self.filling.reserve(PART_BYTES);
            }
            let room = PART_BYTES - self.filling.len();
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() == PART_BYTES {
                let part = std::mem::take(&mut self.filling);
                match self.head {
                    None => self.head = Some(part),
                    Some(_) => self.send(part.freeze()).await?,
                }
            }
        }
        Ok(())
    }

    /// Sends a part that is not the first.
    async fn send(&mut self, part: Bytes) -> Result<(), StoreError> {
        let number = self.sums.len() + 1;
        self.sums.push((crc_fast::checksum(CRC, &part), part.len() as u64));
        self.spawn(number, part).await
    }

    async fn spawn(&mut self, number: usize, part: Bytes) -> Result<(), StoreError> {
        let upload = match &self.upload {
            Some(upload) => upload.clone(),
            None => {
                let upload = self.store.begin(&self.key, &self.kind).await?;
                self.upload.insert(upload).clone()
            }
        };
        while self.under_way.len() >= PARTS_IN_FLIGHT {
            self.answer().await?;
        }
        let (store, key) = (Arc::clone(&self.store), self.key.clone());
        self.under_way.spawn(async move {
            let tag = store.part(&key, &upload, number, part).await?;
            Ok((number, tag))
        });
        Ok(())
    }

    async fn answer(&mut self) -> Result<(), StoreError> {
        match self.under_way.join_next().await {
            Some(Ok(answer)) => self.answers.push(answer?),
            Some(Err(failed)) => return Err(StoreError::Failed(failed.to_string())),
            None => {}
        }
        Ok(())
    }

    /// Puts `patches`, which lie within the first part, in place, and makes the object of all that was written.
    pub async fn finish(mut self, patches: &[Patch]) -> Result<Stored, StoreError> {
        let last = std::mem::take(&mut self.filling);
        let (mut head, rest) = match self.head.take() {
            Some(head) => (head, last),
            None => (last, BytesMut::new()),
        };
        for patch in patches {
            let from = usize::try_from(patch.offset).unwrap_or(usize::MAX);
            let place = from
                .checked_add(patch.bytes.len())
                .and_then(|to| head.get_mut(from..to));
            let place = place.ok_or_else(|| {
                StoreError::Refused("the film's head is larger than the first part of an upload".to_owned())
            })?;
            place.copy_from_slice(&patch.bytes);
        }
        let head = head.freeze();
        let mut stored = Stored {
            bytes: head.len() as u64,
            crc64nvme: crc_fast::checksum(CRC, &head),
        };
        if self.upload.is_none() && self.sums.is_empty() && rest.is_empty() {
            self.store.put(&self.key, &self.kind, head, false).await?;
            return Ok(stored);
        }
        if !rest.is_empty() {
            self.send(rest.freeze()).await?;
        }
        self.spawn(0, head).await?;
        while !self.under_way.is_empty() {
            self.answer().await?;
        }
        for (sum, len) in &self.sums {
            stored.crc64nvme = crc_fast::checksum_combine(CRC, stored.crc64nvme, *sum, *len);
            stored.bytes += len;
        }
        self.answers.sort_unstable();
        let tags = std::mem::take(&mut self.answers)
            .into_iter()
            .map(|(_, tag)| tag)
            .collect();
        let upload = self.upload.take().unwrap_or_default();
        self.store.complete(&self.key, &upload, tags).await?;
        Ok(stored)
    }
}

/// The CRC-64/NVME of bytes that come little by little.
pub struct Sum(crc_fast::Digest);

impl Default for Sum {
    fn default() -> Self {
        Sum(crc_fast::Digest::new(CRC))
    }
}

impl Sum {
    /// Takes bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}
