//! Uploads in parts. A part is a file and a row; completing an upload makes its rows the body of an object in one commit,
//! without touching a byte.

use std::sync::Arc;

use base::Timestamp;
use bytes::Bytes;
use futures_util::TryStreamExt;
use storage::catalog::{get_json, page_json, put_json};
use storage::{CatalogError, Change, Entry, Expect};

use super::LocalBucket;
use super::copy::too_large;
use super::object::{Conditions, Expected, check_facts};
use crate::ObjectError;
use crate::digest::{Algorithm, Checksum, ChecksumKind, TagOf, crc_bytes, crc64_joined, etag_of_parts, of_parts};
use crate::limits::{LIST_MAX, OBJECT_BYTES_MAX, PART_BYTES_MIN, PARTS_MAX, PUT_BYTES_MAX, RETRIES_MAX};
use crate::names::check_key;
use crate::row::{self, Body, Facts, GoneRow, Id, Object, ObjectRow, PartRow, UploadRow};
use crate::write::BodyWriter;

/// How an upload begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadStart {
    /// What is said of the object.
    pub facts: Facts,
    /// What its parts and the object are checked with.
    pub checksum: Option<(Algorithm, ChecksumKind)>,
}

/// An upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    /// The key of the object.
    pub key: String,
    /// Its id.
    pub id: Id,
    /// When it began.
    pub begun: Timestamp,
    /// What it is checked with.
    pub checksum: Option<(Algorithm, ChecksumKind)>,
}

/// A page of uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadsPage {
    /// The uploads.
    pub uploads: Vec<UploadInfo>,
    /// Key and id of the last one, if there are more.
    pub next: Option<(String, Id)>,
}

/// A part that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// Its number, 1 to 10,000.
    pub number: u16,
    /// Its length.
    pub size: u64,
    /// Its ETag without quotes: see [`TagOf`].
    pub etag: String,
    /// When it was there.
    pub modified: Timestamp,
    /// Its checksum, if the upload has one.
    pub checksum: Option<(Algorithm, Vec<u8>)>,
}

/// A page of parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsPage {
    /// The parts.
    pub parts: Vec<PartInfo>,
    /// The number of the last one, if there are more.
    pub next: Option<u16>,
    /// What the upload is checked with.
    pub checksum: Option<(Algorithm, ChecksumKind)>,
}

/// A part that is to be in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedPart {
    /// Its number.
    pub number: u16,
    /// The ETag that was answered for it; without it any does.
    pub etag: Option<String>,
    /// The checksum that was answered for it.
    pub checksum: Option<(Algorithm, Vec<u8>)>,
}

fn part_info(number: u16, row: &PartRow) -> PartInfo {
    PartInfo {
        number,
        size: row.size,
        etag: row.etag(),
        modified: Timestamp::from_millis(row.modified_ms),
        checksum: row.checksum.clone(),
    }
}

/// What the listed parts make up.
struct Assembled {
    size: u64,
    etag: String,
    checksum: Checksum,
    numbers: Vec<u16>,
    unlisted: bool,
}

impl LocalBucket {
    /// Begins an upload.
    pub async fn begin_parts(&self, key: &str, start: UploadStart) -> Result<Id, ObjectError> {
        check_key(key)?;
        check_facts(&start.facts)?;
        if start.checksum.is_some_and(|(algorithm, kind)| !fits(algorithm, kind)) {
            return Err(ObjectError::Invalid(
                "the checksum type does not go with the checksum algorithm".to_owned(),
            ));
        }
        let id = Id::random();
        let upload = UploadRow {
            begun_ms: self.shared.clock.now().millis(),
            facts: start.facts,
            checksum: start.checksum,
        };
        let place = row::upload(self.account, self.id, key, id);
        for _ in 0..RETRIES_MAX {
            let _open = self.shared.buckets.of(self.id).read().await;
            let changes = vec![self.check_row().await?, put_json(&place, &upload, Expect::Absent)?];
            match self.shared.catalog.commit(changes).await {
                Ok(_) => return Ok(id),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ObjectError::Conflict)
    }

    async fn find_upload(&self, key: &str, id: Id) -> Result<Entry<UploadRow>, ObjectError> {
        check_key(key)?;
        let found = get_json(&*self.shared.catalog, row::upload(self.account, self.id, key, id)).await?;
        match found {
            Some(found) => Ok(found),
            None => {
                self.check_row().await?;
                Err(ObjectError::NoSuchUpload(id.to_string()))
            }
        }
    }

    /// What an upload is, if it is there.
    pub async fn upload(&self, key: &str, id: Id) -> Result<UploadInfo, ObjectError> {
        let found = self.find_upload(key, id).await?.value;
        Ok(UploadInfo {
            key: key.to_owned(),
            id,
            begun: Timestamp::from_millis(found.begun_ms),
            checksum: found.checksum,
        })
    }

    /// Begins a part. Only with [`TagOf::Md5`] can its MD5 be [expected](Expected).
    pub async fn write_part(
        self: &Arc<Self>,
        key: &str,
        id: Id,
        number: u16,
        asked: Option<Algorithm>,
        tag_of: TagOf,
    ) -> Result<PartWriter, ObjectError> {
        if !(1..=PARTS_MAX).contains(&number) {
            return Err(ObjectError::Invalid(format!(
                "Part number must be an integer between 1 and {PARTS_MAX}, inclusive"
            )));
        }
        let upload = self.find_upload(key, id).await?;
        let algorithm = upload.value.checksum.map(|(algorithm, _)| algorithm).or(asked);
        if asked.is_some_and(|asked| Some(asked) != algorithm) {
            return Err(ObjectError::Invalid(format!(
                "the upload was begun with the checksum {}",
                algorithm.map_or("none", Algorithm::name)
            )));
        }
        Ok(PartWriter {
            bucket: Arc::clone(self),
            key: key.to_owned(),
            id,
            number,
            algorithm,
            body: BodyWriter::whole(&self.shared.files, algorithm, tag_of, PUT_BYTES_MAX),
        })
    }

    /// Copies bytes of an object into a part. `choose` is told what the source is and says which bytes (first and number).
    pub async fn copy_part<E: From<ObjectError>>(
        self: &Arc<Self>,
        (key, id, number): (&str, Id, u16),
        from: &LocalBucket,
        from_key: &str,
        choose: impl Fn(&Object) -> Result<(u64, u64), E>,
    ) -> Result<PartInfo, E> {
        let mut writer = self.write_part(key, id, number, None, TagOf::Md5).await?;
        let (_, mut bytes) = from
            .read(from_key, |source| {
                let chosen = choose(source)?;
                match chosen.1 > PUT_BYTES_MAX {
                    true => Err(E::from(too_large())),
                    false => Ok(chosen),
                }
            })
            .await?;
        while let Some(piece) = bytes.try_next().await? {
            writer.write(piece).await?;
        }
        Ok(writer.finish(&Expected::default()).await?)
    }

    /// Parts of an upload above a number, at most `limit`.
    pub async fn list_parts(&self, key: &str, id: Id, after: u16, limit: usize) -> Result<PartsPage, ObjectError> {
        let upload = self.find_upload(key, id).await?;
        let (prefix, limit) = (row::parts(self.account, id), limit.clamp(1, LIST_MAX));
        let mut out = PartsPage {
            checksum: upload.value.checksum,
            ..PartsPage::default()
        };
        let mut from = row::part(self.account, id, after);
        loop {
            let (rows, next) =
                page_json::<PartRow>(&*self.shared.catalog, &prefix, Some(&from), limit - out.parts.len()).await?;
            for (key, entry) in rows {
                let number = key.strip_prefix(&prefix).and_then(|number| number.parse().ok());
                out.parts
                    .push(part_info(number.ok_or_else(|| row::damaged(&key))?, &entry.value));
            }
            match next {
                Some(_) if out.parts.len() >= limit => {
                    out.next = out.parts.last().map(|part| part.number);
                    return Ok(out);
                }
                Some(next) => from = next,
                None => return Ok(out),
            }
        }
    }

    /// Uploads of keys that begin with `prefix`, above a key and an id of that key, at most `limit`.
    pub async fn list_uploads(
        &self,
        prefix: &str,
        after: Option<(&str, Option<Id>)>,
        limit: usize,
    ) -> Result<UploadsPage, ObjectError> {
        let (space, limit) = (row::uploads(self.account, self.id), limit.clamp(1, LIST_MAX));
        let below = format!("{space}{prefix}");
        let mut from = after.map(|(key, id)| match id {
            Some(id) => row::upload(self.account, self.id, key, id),
            // Behind every upload of that key.
            None => format!("{space}{key}\u{1}~"),
        });
        let mut out = UploadsPage::default();
        loop {
            let (rows, next) = page_json::<UploadRow>(
                &*self.shared.catalog,
                &below,
                from.as_deref(),
                limit - out.uploads.len(),
            )
            .await?;
            for (key, entry) in rows {
                let (key, id) = key
                    .strip_prefix(&space)
                    .and_then(row::upload_of)
                    .ok_or_else(|| row::damaged(&key))?;
                out.uploads.push(UploadInfo {
                    key,
                    id,
                    begun: Timestamp::from_millis(entry.value.begun_ms),
                    checksum: entry.value.checksum,
                });
            }
            match next {
                Some(_) if out.uploads.len() >= limit => {
                    out.next = out.uploads.last().map(|upload| (upload.key.clone(), upload.id));
                    return Ok(out);
                }
                Some(next) => from = Some(next),
                None => break,
            }
        }
        if out.uploads.is_empty() {
            self.check_row().await?;
        }
        Ok(out)
    }

    /// Gives an upload up; its parts are removed behind the answer.
    pub async fn abort_parts(&self, key: &str, id: Id) -> Result<(), ObjectError> {
        self.find_upload(key, id).await?;
        let place = row::upload(self.account, self.id, key, id);
        self.shared.drop_upload(self.account, place, id).await
    }

    /// Makes an object of the parts, in the order of their numbers. Parts that are not named are removed.
    pub async fn complete(
        &self,
        key: &str,
        id: Id,
        parts: &[CompletedPart],
        conditions: &Conditions,
        expected: &Expected,
    ) -> Result<Object, ObjectError> {
        let _alone = self.shared.uploads.of(id).write().await;
        let upload = self.find_upload(key, id).await?;
        let made = self.assemble(id, parts, upload.value.checksum).await?;
        if expected.bytes.is_some_and(|bytes| bytes != made.size) {
            return Err(ObjectError::Invalid(format!("the parts have {} bytes", made.size)));
        }
        if expected
            .checksum
            .as_ref()
            .is_some_and(|sum| *sum != made.checksum.value)
        {
            return Err(ObjectError::BadDigest(made.checksum.algorithm.name()));
        }
        let numbers = row::stretches(made.numbers.iter().copied());
        let mut also = vec![Change::remove(
            row::upload(self.account, self.id, key, id),
            upload.version,
        )];
        if made.unlisted {
            let gone = GoneRow {
                account: self.account.to_string(),
                but: numbers.clone(),
            };
            also.push(put_json(row::gone().with(&id.to_string()), &gone, Expect::Any)?);
        }
        let new = ObjectRow {
            size: made.size,
            etag: made.etag,
            modified_ms: 0,
            body: Body::Parts {
                upload: id,
                numbers,
                count: u16::try_from(made.numbers.len()).unwrap_or(PARTS_MAX),
            },
            facts: upload.value.facts,
            checksum: made.checksum,
        };
        let object = self.place(key, new, conditions, also).await?;
        if made.unlisted {
            let _ = self.shared.gone.send((self.account, id));
        }
        Ok(object)
    }

    /// Checks the parts that are named against those that are there.
    async fn assemble(
        &self,
        id: Id,
        parts: &[CompletedPart],
        checksum: Option<(Algorithm, ChecksumKind)>,
    ) -> Result<Assembled, ObjectError> {
        if parts.is_empty() || parts.len() > usize::from(PARTS_MAX) {
            return Err(ObjectError::Invalid("1 to 10,000 parts make an object".to_owned()));
        }
        if !parts.is_sorted_by(|a, b| a.number < b.number) {
            return Err(ObjectError::InvalidPartOrder);
        }
        let (algorithm, kind) = checksum.unwrap_or((Algorithm::Crc64Nvme, ChecksumKind::FullObject));
        let mut wanted = parts.iter().peekable();
        let (mut size, mut unlisted, mut fault) = (0u64, false, None);
        let mut tags = Vec::with_capacity(parts.len());
        let mut sums = Vec::with_capacity(parts.len());
        let mut crc64: Option<u64> = None;
        self.each_part(id, |number, row| {
            let Some(part) = wanted.next_if(|part| part.number == number) else {
                unlisted = true;
                return wanted.peek().is_none_or(|part| part.number > number);
            };
            let sum_of = |algorithm: Algorithm| match (&row.checksum, algorithm) {
                (_, Algorithm::Crc64Nvme) => Some(crc_bytes(algorithm, row.crc64)),
                (Some((computed, value)), _) if *computed == algorithm => Some(value.clone()),
                _ => None,
            };
            let sum = sum_of(algorithm);
            let same_tag = part.etag.as_ref().is_none_or(|etag| *etag == row.etag());
            let sent = part.checksum.as_ref();
            let same_sum = sent.is_none_or(|(algorithm, value)| sum_of(*algorithm).as_ref() == Some(value));
            let Some(sum) = sum.filter(|_| same_tag && same_sum) else {
                fault = Some(ObjectError::InvalidPart(number));
                return false;
            };
            if row.size < PART_BYTES_MIN && wanted.peek().is_some() {
                let bytes = row.size;
                fault = Some(ObjectError::PartTooSmall { number, bytes });
                return false;
            }
            size = size.saturating_add(row.size);
            crc64 = Some(crc64.map_or(row.crc64, |whole| crc64_joined(whole, row.crc64, row.size)));
            tags.push(row.tag);
            sums.push((sum, row.size));
            true
        })
        .await?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        if let Some(missing) = wanted.next() {
            return Err(ObjectError::InvalidPart(missing.number));
        }
        if size > OBJECT_BYTES_MAX {
            return Err(ObjectError::TooLarge {
                what: "the object",
                limit: OBJECT_BYTES_MAX,
            });
        }
        let value = match algorithm {
            Algorithm::Crc64Nvme => crc_bytes(algorithm, crc64.unwrap_or_default()),
            _ => of_parts(algorithm, kind, &sums)?,
        };
        Ok(Assembled {
            size,
            etag: etag_of_parts(tags.into_iter()),
            checksum: Checksum { algorithm, kind, value },
            numbers: parts.iter().map(|part| part.number).collect(),
            unlisted,
        })
    }
}

/// CRC64NVME is one of the full object, the SHAs are composite, the 32-bit CRCs may be either (S3 user guide: "Checking
/// object integrity").
fn fits(algorithm: Algorithm, kind: ChecksumKind) -> bool {
    match algorithm {
        Algorithm::Crc64Nvme => kind == ChecksumKind::FullObject,
        Algorithm::Sha1 | Algorithm::Sha256 => kind == ChecksumKind::Composite,
        Algorithm::Crc32 | Algorithm::Crc32c => true,
    }
}

/// A part whose bytes are arriving. Dropping it gives it up.
pub struct PartWriter {
    bucket: Arc<LocalBucket>,
    key: String,
    id: Id,
    number: u16,
    algorithm: Option<Algorithm>,
    body: BodyWriter,
}

impl PartWriter {
    /// Takes the next bytes; returns when there is room for more.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.body.write(bytes).await
    }

    /// Makes the part durable, in place of an earlier one of its number, if it is what is expected.
    pub async fn finish(self, expected: &Expected) -> Result<PartInfo, ObjectError> {
        let written = self.body.finish().await?;
        expected.check(&written, self.algorithm)?;
        let bucket = &self.bucket;
        let checksum = self
            .algorithm
            .and_then(|algorithm| Some((algorithm, written.digested.value(algorithm)?)));
        let row = PartRow {
            file: written.id(),
            size: written.digested.bytes,
            tag: written.digested.tag(),
            crc64: written.digested.crc64,
            modified_ms: bucket.shared.clock.now().millis(),
            checksum,
        };
        let _open = bucket.shared.uploads.of(self.id).read().await;
        match place_part(bucket, &self.key, self.id, self.number, &row).await {
            Ok(old) => {
                written.keep();
                if let Some(file) = old {
                    bucket.shared.remove_files(vec![file]).await;
                }
                Ok(part_info(self.number, &row))
            }
            Err(error) => {
                if matches!(error, ObjectError::Storage(_)) {
                    written.keep();
                }
                Err(error)
            }
        }
    }
}

/// Writes the row of a part; gives the file of the one that was there.
async fn place_part(
    bucket: &LocalBucket,
    key: &str,
    id: Id,
    number: u16,
    row: &PartRow,
) -> Result<Option<Id>, ObjectError> {
    let place = row::part(bucket.account, id, number);
    let upload = row::upload(bucket.account, bucket.id, key, id);
    for _ in 0..RETRIES_MAX {
        let found = bucket.find_upload(key, id).await?;
        let old = get_json::<PartRow>(&*bucket.shared.catalog, &place).await?;
        let check = Change::Check {
            key: upload.clone(),
            expect: Expect::Version(found.version),
        };
        let expect = old.as_ref().map_or(Expect::Absent, |old| Expect::Version(old.version));
        match bucket
            .shared
            .catalog
            .commit(vec![check, put_json(&place, row, expect)?])
            .await
        {
            Ok(_) => return Ok(old.and_then(|old| old.value.file)),
            Err(CatalogError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ObjectError::Conflict)
}
