//! Objects: put, found, read and deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use storage::catalog::{get_json, page_json, put_json};
use storage::{CatalogError, Change, Entry, Expect};
use tokio::task::spawn_blocking;

use super::LocalBucket;
use super::remove::Pin;
use crate::digest::{Algorithm, Checksum, ChecksumKind, TagOf};
use crate::limits::{DELETES_AT_ONCE, OBJECT_TAGS_MAX, RETRIES_MAX};
use crate::names::{check_headers, check_key, check_metadata, check_tags};
use crate::read::{Segment, stream};
use crate::row::{self, Body, Facts, GoneRow, Object, ObjectRow, PartRow};
use crate::write::{BodyWriter, Written};
use crate::{ObjectError, ObjectStream};

/// What must hold of the object that is there before another takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// There is one, and it has one of these ETags; an empty list: any.
    pub if_match: Option<Vec<String>>,
    /// There is none, or it has none of these ETags; an empty list: any.
    pub if_none_match: Option<Vec<String>>,
}

impl Conditions {
    /// Holds only if there is no object.
    pub fn absent() -> Self {
        Conditions {
            if_none_match: Some(Vec::new()),
            ..Conditions::default()
        }
    }

    pub(crate) fn check(&self, key: &str, old: Option<&ObjectRow>) -> Result<(), ObjectError> {
        let has = |tags: &[String], row: &ObjectRow| tags.is_empty() || tags.contains(&row.etag);
        match (&self.if_match, old) {
            (Some(_), None) => return Err(ObjectError::NoSuchKey(key.to_owned())),
            (Some(tags), Some(row)) if !has(tags, row) => return Err(ObjectError::PreconditionFailed("If-Match")),
            _ => {}
        }
        match (&self.if_none_match, old) {
            (Some(tags), Some(row)) if has(tags, row) => Err(ObjectError::PreconditionFailed("If-None-Match")),
            _ => Ok(()),
        }
    }
}

/// An object that is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewObject {
    /// What is said of it.
    pub facts: Facts,
    /// What must hold when it becomes visible.
    pub conditions: Conditions,
    /// A checksum that is computed, kept and given back.
    pub checksum: Option<Algorithm>,
}

/// What the bytes must turn out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Their MD5.
    pub md5: Option<Vec<u8>>,
    /// Their checksum of the algorithm that was asked for.
    pub checksum: Option<Vec<u8>>,
    /// Their number.
    pub bytes: Option<u64>,
}

impl Expected {
    /// Compares what arrived; `algorithm` is the one that was asked for.
    pub(crate) fn check(&self, written: &Written, algorithm: Option<Algorithm>) -> Result<(), ObjectError> {
        let digested = &written.digested;
        if self.bytes.is_some_and(|bytes| bytes != digested.bytes) {
            let text = format!("{} bytes arrived", digested.bytes);
            return Err(ObjectError::Incomplete(text));
        }
        if self
            .md5
            .as_ref()
            .is_some_and(|md5| Some(md5.as_slice()) != digested.md5.as_ref().map(<[u8; 16]>::as_slice))
        {
            return Err(ObjectError::BadDigest("Content-MD5"));
        }
        if let (Some(sent), Some(algorithm)) = (&self.checksum, algorithm)
            && digested.value(algorithm).as_ref() != Some(sent)
        {
            return Err(ObjectError::BadDigest(algorithm.name()));
        }
        Ok(())
    }
}

/// The checksum that is kept: the one asked for, else CRC64NVME, as AWS does.
pub(crate) fn kept(written: &Written, asked: Option<Algorithm>) -> Result<Checksum, ObjectError> {
    let algorithm = asked.unwrap_or(Algorithm::Crc64Nvme);
    let value = written.digested.value(algorithm);
    Ok(Checksum {
        algorithm,
        kind: ChecksumKind::FullObject,
        value: value.ok_or_else(|| ObjectError::Storage("a checksum was not computed".to_owned()))?,
    })
}

/// An object whose bytes are arriving. Dropping it gives it up.
pub struct ObjectWriter {
    bucket: Arc<LocalBucket>,
    key: String,
    new: NewObject,
    body: BodyWriter,
}

impl ObjectWriter {
    /// Takes the next bytes; returns when there is room for more.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.body.write(bytes).await
    }

    /// Makes the object durable and visible, if it is what is expected.
    pub async fn finish(self, expected: &Expected) -> Result<Object, ObjectError> {
        let written = self.body.finish().await?;
        expected.check(&written, self.new.checksum)?;
        let body = match written.id() {
            Some(id) => Body::File {
                id,
                crc64: written.digested.crc64,
            },
            None => Body::Empty,
        };
        let row = ObjectRow {
            size: written.digested.bytes,
            etag: written.etag.clone(),
            modified_ms: 0,
            body,
            facts: self.new.facts,
            checksum: kept(&written, self.new.checksum)?,
        };
        let conditions = self.new.conditions;
        let done = self.bucket.place(&self.key, row, &conditions, Vec::new()).await;
        match done {
            Ok(object) => {
                written.keep();
                Ok(object)
            }
            Err(error) => {
                // After these it is not known whether the row is there; the next start finds out.
                if matches!(error, ObjectError::Storage(_)) {
                    written.keep();
                }
                Err(error)
            }
        }
    }
}

/// Refuses what may not be said of an object.
pub(crate) fn check_facts(facts: &Facts) -> Result<(), ObjectError> {
    check_metadata(&facts.metadata)?;
    check_headers(facts.headers.all())?;
    check_tags(&facts.tags, OBJECT_TAGS_MAX)
}

impl LocalBucket {
    /// Begins an object of at most `bytes_max` bytes.
    pub fn write(self: &Arc<Self>, key: &str, new: NewObject, bytes_max: u64) -> Result<ObjectWriter, ObjectError> {
        let body = BodyWriter::whole(&self.shared.files, new.checksum, TagOf::Md5, bytes_max);
        self.writer(key, new, body)
    }

    pub(crate) fn writer(
        self: &Arc<Self>,
        key: &str,
        new: NewObject,
        body: BodyWriter,
    ) -> Result<ObjectWriter, ObjectError> {
        check_key(key)?;
        check_facts(&new.facts)?;
        Ok(ObjectWriter {
            bucket: Arc::clone(self),
            key: key.to_owned(),
            new,
            body,
        })
    }

    /// Lets a row take the place of the one that is there, with other changes in the same commit.
    pub(crate) async fn place(
        &self,
        key: &str,
        mut new: ObjectRow,
        conditions: &Conditions,
        also: Vec<Change>,
    ) -> Result<Object, ObjectError> {
        let place = self.object_key(key);
        for _ in 0..RETRIES_MAX {
            let _open = self.shared.buckets.of(self.id).read().await;
            let bucket = self.check_row().await?;
            let old = get_json::<ObjectRow>(&*self.shared.catalog, &place).await?;
            conditions.check(key, old.as_ref().map(|old| &old.value))?;
            new.modified_ms = self.shared.clock.now().millis();
            let expect = old.as_ref().map_or(Expect::Absent, |old| Expect::Version(old.version));
            let mut changes = vec![bucket, put_json(&place, &new, expect)?];
            changes.extend(
                old.iter()
                    .filter_map(|old| self.gone_row(&old.value.body))
                    .collect::<Result<Vec<_>, _>>()?,
            );
            changes.extend(also.iter().cloned());
            match self.shared.catalog.commit(changes).await {
                Ok(_) => {
                    if let Some(old) = old {
                        self.shared.release(self.account, &old.value.body).await;
                    }
                    return Ok(new.object(key));
                }
                Err(CatalogError::Conflict { key }) if also.iter().any(|change| *change.key() == key) => {
                    return Err(ObjectError::Conflict);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ObjectError::Conflict)
    }

    /// What must be remembered in the commit that leaves a body without a row.
    fn gone_row(&self, body: &Body) -> Option<Result<Change, CatalogError>> {
        let Body::Parts { upload, .. } = body else { return None };
        let gone = GoneRow {
            account: self.account.to_string(),
            but: Vec::new(),
        };
        Some(put_json(row::gone().with(&upload.to_string()), &gone, Expect::Any))
    }

    /// The row of an object.
    pub(crate) async fn find_row(&self, key: &str) -> Result<Entry<ObjectRow>, ObjectError> {
        check_key(key)?;
        let found = get_json::<ObjectRow>(&*self.shared.catalog, self.object_key(key)).await?;
        match found {
            Some(found) => Ok(found),
            None => {
                self.check_row().await?;
                Err(ObjectError::NoSuchKey(key.to_owned()))
            }
        }
    }

    /// All that is known of an object.
    pub async fn find(&self, key: &str) -> Result<Object, ObjectError> {
        Ok(self.find_row(key).await?.value.object(key))
    }

    /// Reads an object: `choose` is told what it is and says which bytes are wanted (first byte and number), or gives up
    /// with an error of its own. It may be called again if the object is replaced meanwhile.
    pub async fn read<E: From<ObjectError>>(
        &self,
        key: &str,
        choose: impl Fn(&Object) -> Result<(u64, u64), E>,
    ) -> Result<(Object, ObjectStream), E> {
        for _ in 0..RETRIES_MAX {
            let found = self.find_row(key).await?;
            let object = found.value.object(key);
            let (first, bytes) = choose(&object)?;
            let segments = match &found.value.body {
                Body::Empty => Vec::new(),
                Body::File { id, crc64 } => vec![Segment {
                    id: *id,
                    offset: first,
                    bytes,
                    crc64: (bytes == object.size).then_some(*crc64),
                }],
                Body::Parts { upload, numbers, .. } => {
                    let pin = Pin::new(&self.shared, self.account, *upload);
                    // Its parts stay from here on, if they are still there.
                    if self.find_row(key).await?.version != found.version {
                        continue;
                    }
                    let segments = self.segments(*upload, numbers, first, bytes).await?;
                    let files = Arc::clone(&self.shared.files);
                    return Ok((object, stream(files, segments, None, pin)));
                }
            };
            let files = Arc::clone(&self.shared.files);
            let Some(id) = segments.first().map(|segment| segment.id).filter(|_| bytes > 0) else {
                return Ok((object, stream(files, Vec::new(), None, ())));
            };
            let opening = Arc::clone(&files);
            let file = spawn_blocking(move || opening.open(id)).await;
            let file = file.map_err(|error| ObjectError::Storage(error.to_string()))??;
            if let Some(file) = file {
                return Ok((object, stream(files, segments, Some(file), ())));
            }
            // Replaced or deleted between the two looks, or lost.
            if self.find_row(key).await?.version == found.version {
                return Err(ObjectError::Storage(format!("the file {id} of an object is missing")).into());
            }
        }
        Err(ObjectError::Conflict.into())
    }

    /// The stretches of files that make up some bytes of an object in parts.
    async fn segments(
        &self,
        upload: row::Id,
        numbers: &[(u16, u16)],
        first: u64,
        bytes: u64,
    ) -> Result<Vec<Segment>, ObjectError> {
        let (mut out, mut start) = (Vec::new(), 0u64);
        let end = first.saturating_add(bytes);
        self.each_part(upload, |number, part| {
            if !row::is_within(numbers, number) {
                return true;
            }
            let (from, to) = (first.max(start), end.min(start + part.size));
            if let Some(id) = part.file.filter(|_| from < to) {
                out.push(Segment {
                    id,
                    offset: from - start,
                    bytes: to - from,
                    crc64: (to - from == part.size).then_some(part.crc64),
                });
            }
            start += part.size;
            start < end
        })
        .await?;
        if out.iter().map(|segment| segment.bytes).sum::<u64>() != bytes {
            return Err(row::damaged(format_args!("parts of {upload} are missing")));
        }
        Ok(out)
    }

    /// Tells the parts of an upload in the order of their numbers until `tell` says that it has enough.
    pub(crate) async fn each_part(
        &self,
        upload: row::Id,
        mut tell: impl FnMut(u16, PartRow) -> bool,
    ) -> Result<(), ObjectError> {
        let (prefix, mut after) = (row::parts(self.account, upload), None::<String>);
        loop {
            let (rows, next) = page_json::<PartRow>(&*self.shared.catalog, &prefix, after.as_deref(), 1000).await?;
            for (key, entry) in rows {
                let number = key.strip_prefix(&prefix).and_then(|number| number.parse().ok());
                if !tell(number.ok_or_else(|| row::damaged(&key))?, entry.value) {
                    return Ok(());
                }
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// First byte and size of the part of that number (from 1), and the number of parts. An object that was put in one go
    /// is its own first part.
    pub async fn part_span(&self, key: &str, number: u16) -> Result<(u64, u64, Option<u16>), ObjectError> {
        let row = self.find_row(key).await?.value;
        let (upload, numbers, count) = match row.body {
            Body::Parts { upload, numbers, count } => (upload, numbers, count),
            _ if number == 1 => return Ok((0, row.size, None)),
            _ => return Err(ObjectError::RangeNotSatisfiable(row.size)),
        };
        let (mut at, mut start, mut found) = (0u16, 0u64, None);
        self.each_part(upload, |part, row| {
            if row::is_within(&numbers, part) {
                at += 1;
                if at == number {
                    found = Some((start, row.size, Some(count)));
                }
                start += row.size;
            }
            found.is_none()
        })
        .await?;
        found.ok_or(ObjectError::RangeNotSatisfiable(row.size))
    }

    /// Removes an object if the conditions hold; well if there is none. Its space is free when this returns, that of an
    /// object in parts soon after.
    pub async fn remove(&self, key: &str, conditions: &Conditions) -> Result<(), ObjectError> {
        check_key(key)?;
        let place = self.object_key(key);
        for _ in 0..RETRIES_MAX {
            let old = get_json::<ObjectRow>(&*self.shared.catalog, &place).await?;
            conditions.check(key, old.as_ref().map(|old| &old.value))?;
            let Some(old) = old else {
                self.check_row().await?;
                return Ok(());
            };
            let mut changes = vec![Change::remove(&place, old.version)];
            changes.extend(self.gone_row(&old.value.body).transpose()?);
            match self.shared.catalog.commit(changes).await {
                Ok(_) => {
                    self.shared.release(self.account, &old.value.body).await;
                    return Ok(());
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ObjectError::Conflict)
    }

    /// Removes many objects; an outcome for each key.
    pub async fn remove_all(&self, keys: Vec<(String, Conditions)>) -> Vec<(String, Result<(), ObjectError>)> {
        let one = |(key, conditions): (String, Conditions)| async move {
            let outcome = self.remove(&key, &conditions).await;
            (key, outcome)
        };
        futures_util::stream::iter(keys.into_iter().map(one))
            .buffered(DELETES_AT_ONCE)
            .collect()
            .await
    }

    /// Sets the tags of an object.
    pub async fn tag(&self, key: &str, tags: BTreeMap<String, String>) -> Result<(), ObjectError> {
        check_tags(&tags, OBJECT_TAGS_MAX)?;
        for _ in 0..RETRIES_MAX {
            let mut found = self.find_row(key).await?;
            found.value.facts.tags.clone_from(&tags);
            let change = put_json(self.object_key(key), &found.value, Expect::Version(found.version))?;
            match self.shared.catalog.commit(vec![change]).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ObjectError::Conflict)
    }
}
