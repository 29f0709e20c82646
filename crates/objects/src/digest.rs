//! The digests of bodies: MD5 for the ETag where a client may compare it, CRC-64/NVME for our own check of what is stored, and
//! what else a client asks for. They are computed on blocking threads while the bytes are written.

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::ObjectError;

/// A checksum that S3 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// CRC-32 of zlib.
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// Its name on the wire, e.g. `CRC32C`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// The algorithm of that name.
    pub fn named(name: &str) -> Option<Self> {
        [
            Algorithm::Crc32,
            Algorithm::Crc32c,
            Algorithm::Crc64Nvme,
            Algorithm::Sha1,
            Algorithm::Sha256,
        ]
        .into_iter()
        .find(|algorithm| algorithm.name() == name)
    }

    /// Bytes of a value.
    pub fn len(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64Nvme => 8,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        }
    }

    /// Never.
    pub fn is_empty(self) -> bool {
        false
    }

    /// The CRC, if it is one: those can be put together from the CRCs of parts.
    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }
}

/// What a checksum of an object in parts is a checksum of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// All bytes one behind the other.
    FullObject,
    /// The checksums of the parts one behind the other.
    Composite,
}

/// A checksum and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: Algorithm,
    /// Of what.
    pub kind: ChecksumKind,
    /// The bytes of the value.
    pub value: Vec<u8>,
}

/// What the ETag of bytes is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagOf {
    /// Their MD5: a client that sent them may compare it.
    Md5,
    /// Their CRC-64/NVME and number, for parts whose sender compares that CRC and for what other rooms write: it takes a
    /// twentieth of the time. S3 promises of the ETag of an object in parts only that it is no MD5 ("Common response headers").
    Crc64,
}

/// Several digests of the same bytes.
pub(crate) struct Digests {
    md5: Option<Md5>,
    crc64: crc_fast::Digest,
    extra: Option<(Algorithm, Extra)>,
    bytes: u64,
}

enum Extra {
    Crc(crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
}

/// The values of [`Digests`].
#[derive(Clone, Debug)]
pub(crate) struct Digested {
    /// Where it was wanted.
    pub md5: Option<[u8; 16]>,
    pub crc64: u64,
    pub extra: Option<(Algorithm, Vec<u8>)>,
    pub bytes: u64,
}

impl Digests {
    pub fn new(extra: Option<Algorithm>, tag_of: TagOf) -> Self {
        // The CRC-64 is computed anyway.
        let extra = extra.filter(|algorithm| *algorithm != Algorithm::Crc64Nvme);
        let hasher = |algorithm: Algorithm| match (algorithm, algorithm.crc()) {
            (_, Some(crc)) => Extra::Crc(crc_fast::Digest::new(crc)),
            (Algorithm::Sha1, None) => Extra::Sha1(Sha1::new()),
            (_, None) => Extra::Sha256(Sha256::default()),
        };
        Digests {
            md5: (tag_of == TagOf::Md5).then(Md5::new),
            crc64: crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme),
            extra: extra.map(|algorithm| (algorithm, hasher(algorithm))),
            bytes: 0,
        }
    }

    pub fn update(&mut self, pieces: &[Bytes]) {
        for piece in pieces {
            self.bytes += piece.len() as u64;
            if let Some(md5) = &mut self.md5 {
                md5::Digest::update(md5, piece);
            }
            self.crc64.update(piece);
            match &mut self.extra {
                None => {}
                Some((_, Extra::Crc(crc))) => crc.update(piece),
                Some((_, Extra::Sha1(sha))) => sha1::Digest::update(sha, piece),
                Some((_, Extra::Sha256(sha))) => sha2::Digest::update(sha, piece),
            }
        }
    }

    pub fn finish(self) -> Digested {
        let extra = self.extra.map(|(algorithm, extra)| {
            let value = match extra {
                Extra::Crc(crc) => crc_bytes(algorithm, crc.finalize()),
                Extra::Sha1(sha) => sha1::Digest::finalize(sha).to_vec(),
                Extra::Sha256(sha) => sha2::Digest::finalize(sha).to_vec(),
            };
            (algorithm, value)
        });
        Digested {
            md5: self.md5.map(|md5| md5::Digest::finalize(md5).into()),
            crc64: self.crc64.finalize(),
            extra,
            bytes: self.bytes,
        }
    }
}

impl Digested {
    /// What the ETag is made of.
    pub fn tag(&self) -> [u8; 16] {
        let summed = u128::from(self.crc64) << 64 | u128::from(self.bytes);
        self.md5.unwrap_or_else(|| summed.to_be_bytes())
    }

    /// The value of one of the checksums that were computed.
    pub fn value(&self, algorithm: Algorithm) -> Option<Vec<u8>> {
        match &self.extra {
            _ if algorithm == Algorithm::Crc64Nvme => Some(crc_bytes(algorithm, self.crc64)),
            Some((computed, value)) if *computed == algorithm => Some(value.clone()),
            _ => None,
        }
    }
}

/// A CRC as it goes over the wire: its bytes, the highest first.
pub(crate) fn crc_bytes(algorithm: Algorithm, crc: u64) -> Vec<u8> {
    let bytes = crc.to_be_bytes();
    bytes.get(8 - algorithm.len().min(8)..).unwrap_or_default().to_vec()
}

fn crc_number(value: &[u8]) -> u64 {
    value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The checksum of parts: put together where it is one of the full object, else the checksum of the checksums. An error
/// for a full object's SHA, which nobody can put together.
pub(crate) fn of_parts(
    algorithm: Algorithm,
    kind: ChecksumKind,
    parts: &[(Vec<u8>, u64)],
) -> Result<Vec<u8>, ObjectError> {
    match (kind, algorithm.crc()) {
        (ChecksumKind::FullObject, Some(crc)) => {
            let mut whole: Option<u64> = None;
            for (value, bytes) in parts {
                let part = crc_number(value);
                whole = Some(whole.map_or(part, |whole| crc_fast::checksum_combine(crc, whole, part, *bytes)));
            }
            Ok(crc_bytes(algorithm, whole.unwrap_or_default()))
        }
        (ChecksumKind::FullObject, None) => Err(ObjectError::Invalid(format!(
            "the checksum type FULL_OBJECT cannot be used with {}",
            algorithm.name()
        ))),
        (ChecksumKind::Composite, _) => {
            let mut digests = Digests::new(Some(algorithm), TagOf::Md5);
            let pieces: Vec<Bytes> = parts.iter().map(|(value, _)| Bytes::from(value.clone())).collect();
            digests.update(&pieces);
            let value = digests.finish().value(algorithm);
            value.ok_or_else(|| ObjectError::Storage("a checksum was not computed".to_owned()))
        }
    }
}

/// The CRC-64 of bytes that follow each other.
pub(crate) fn crc64_joined(left: u64, right: u64, right_bytes: u64) -> u64 {
    crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, left, right, right_bytes)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The ETag of an object in parts: the MD5 of their tags, and how many they are.
pub(crate) fn etag_of_parts(parts: impl Iterator<Item = [u8; 16]>) -> String {
    let (mut all, mut count) = (Md5::new(), 0);
    for part in parts {
        md5::Digest::update(&mut all, part);
        count += 1;
    }
    format!("{}-{count}", hex(&md5::Digest::finalize(all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_published_check_values() {
        // "123456789" in the catalogue of parametrised CRC algorithms, and FIPS 180's relatives.
        for (algorithm, value) in [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
            (Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (
                Algorithm::Sha256,
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ),
        ] {
            let mut digests = Digests::new(Some(algorithm), TagOf::Md5);
            digests.update(&[Bytes::from_static(b"1234"), Bytes::from_static(b"56789")]);
            let done = digests.finish();
            assert_eq!(hex(&done.value(algorithm).unwrap()), value, "{algorithm:?}");
            assert_eq!(hex(&done.tag()), "25f9e794323b453885f5181f1b624d0b");
            assert_eq!(done.bytes, 9);
            assert_eq!(algorithm.len() * 2, value.len());
            assert_eq!(Algorithm::named(algorithm.name()), Some(algorithm));
        }
    }

    #[test]
    fn crcs_of_parts_make_up_that_of_the_whole() {
        let pieces: [&[u8]; 3] = [b"a part", b"", b"another part"];
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let value = |bytes: &[u8]| {
                let mut digests = Digests::new(Some(algorithm), TagOf::Md5);
                digests.update(&[Bytes::copy_from_slice(bytes)]);
                digests.finish().value(algorithm).unwrap()
            };
            let parts: Vec<_> = pieces.iter().map(|p| (value(p), p.len() as u64)).collect();
            let whole = of_parts(algorithm, ChecksumKind::FullObject, &parts).unwrap();
            assert_eq!(whole, value(&pieces.concat()), "{algorithm:?}");
        }
        assert!(of_parts(Algorithm::Sha1, ChecksumKind::FullObject, &[]).is_err());
    }
}
