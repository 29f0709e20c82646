//! Encryption at rest: where a stream says so, a record's key and data go into the log as one sealed piece.

use auth::{KeyRing, SealError};
use base::Timestamp;
use bytes::Bytes;
use storage::StreamId;

/// Seals and opens the records of one stream.
#[derive(Clone, Debug)]
pub struct DataKey(auth::DataKey);

fn owner(stream: u64) -> String {
    format!("data-stream/{stream}")
}

impl DataKey {
    /// A fresh key in its sealed form.
    pub fn make(stream: StreamId, ring: &KeyRing) -> Result<String, SealError> {
        auth::DataKey::make(ring, &owner(stream.0)).map(|(_, sealed)| sealed)
    }

    /// Opens a sealed key.
    pub fn open(sealed: &str, stream: u64, ring: &KeyRing, now: Timestamp) -> Result<Self, SealError> {
        auth::DataKey::open(ring, &owner(stream), now, sealed).map(DataKey)
    }

    /// One piece of a partition key and data.
    pub fn seal(&self, stream: StreamId, partition_key: &str, data: &[u8]) -> Result<Bytes, SealError> {
        let length = u32::try_from(partition_key.len()).map_err(|_| SealError::Malformed)?;
        let mut plain = Vec::with_capacity(4 + partition_key.len() + data.len());
        plain.extend_from_slice(&length.to_be_bytes());
        plain.extend_from_slice(partition_key.as_bytes());
        plain.extend_from_slice(data);
        self.0.seal(&stream.0.to_be_bytes(), &plain).map(Bytes::from)
    }

    /// The partition key and data of a piece.
    pub fn unseal(&self, stream: StreamId, sealed: &[u8]) -> Result<(String, Bytes), SealError> {
        let plain = Bytes::from(self.0.unseal(&stream.0.to_be_bytes(), sealed)?);
        let (length, rest) = plain.split_first_chunk().ok_or(SealError::Malformed)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| SealError::Malformed)?;
        let (key, data) = rest.split_at_checked(length).ok_or(SealError::Malformed)?;
        let key = std::str::from_utf8(key).map_err(|_| SealError::Malformed)?;
        Ok((key.to_owned(), plain.slice_ref(data)))
    }
}
