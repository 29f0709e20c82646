//! Keys for stored data: each belongs to one resource, lives beside it sealed under the key ring, and seals its bytes.

use base::Timestamp;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::KeyRing;
use crate::seal::{Form, SealError};

/// Bytes of a nonce.
const NONCE: usize = 24;

const PURPOSE: &str = "data-key";

/// Seals and opens the bytes of one resource.
#[derive(Clone)]
pub struct DataKey(XChaCha20Poly1305);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey")
    }
}

impl DataKey {
    /// A fresh key and its sealed form, which opens only for the same `owner`.
    pub fn make(ring: &KeyRing, owner: &str) -> Result<(Self, String), SealError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| SealError::Unavailable)?;
        let sealed = ring.seal(PURPOSE, owner, None, &bytes, Form::Base64)?;
        Ok((DataKey(XChaCha20Poly1305::new(&bytes.into())), sealed))
    }

    /// Opens what [`DataKey::make`] sealed.
    pub fn open(ring: &KeyRing, owner: &str, now: Timestamp, sealed: &str) -> Result<Self, SealError> {
        let bytes = ring.open(PURPOSE, owner, now, sealed, Form::Base64)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| SealError::Malformed)?;
        Ok(DataKey(XChaCha20Poly1305::new(&bytes.into())))
    }

    /// Seals bytes; they open only with the same `context`.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Unavailable)?;
        let payload = Payload {
            msg: plain,
            aad: context,
        };
        let cipher = self.0.encrypt(XNonce::from_slice(&nonce), payload);
        let mut out = nonce.to_vec();
        out.append(&mut cipher.map_err(|_| SealError::Unavailable)?);
        Ok(out)
    }

    /// Opens what [`DataKey::seal`] made.
    pub fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, cipher) = sealed.split_at_checked(NONCE).ok_or(SealError::Malformed)?;
        let payload = Payload {
            msg: cipher,
            aad: context,
        };
        let plain = self.0.decrypt(XNonce::from_slice(nonce), payload);
        plain.map_err(|_| SealError::Forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_sealed_opens_with_it_alone_and_only_in_its_place() {
        let ring = KeyRing::ephemeral().unwrap();
        let now = Timestamp::default();
        let (key, sealed) = DataKey::make(&ring, "stream/1").unwrap();
        let again = DataKey::open(&ring, "stream/1", now, &sealed).unwrap();
        assert!(DataKey::open(&ring, "stream/2", now, &sealed).is_err());
        let one = key.seal(b"a", b"a face").unwrap();
        assert_ne!(one, key.seal(b"a", b"a face").unwrap());
        assert_eq!(again.unseal(b"a", &one).unwrap(), b"a face");
        assert!(again.unseal(b"b", &one).is_err());
        let (other, _) = DataKey::make(&ring, "stream/1").unwrap();
        assert!(other.unseal(b"a", &one).is_err() && key.unseal(b"a", b"short").is_err());
    }
}
