//! Buckets in memory: what the others are compared with, and what tests of other rooms put their objects into.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, Clock};
use bytes::Bytes;
use md5::{Digest, Md5};
use parking_lot::Mutex;

use crate::digest::hex;
use crate::limits::LIST_MAX;
use crate::names::check_key;
use crate::{Bucket, Buckets, ByteRange, ObjectError, ObjectInfo, ObjectPage, ObjectStream, PutOptions, Upload};

type Objects = BTreeMap<String, (ObjectInfo, Bytes)>;

/// See the module's text. Nothing of it is durable.
pub struct MemoryBuckets {
    clock: Arc<dyn Clock>,
    buckets: Mutex<BTreeMap<(AccountId, String), Arc<MemoryBucket>>>,
}

impl MemoryBuckets {
    /// No bucket yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        MemoryBuckets {
            clock,
            buckets: Mutex::default(),
        }
    }

    /// Makes a bucket; well if it is there.
    pub fn create(&self, account: AccountId, name: &str) {
        let mut buckets = self.buckets.lock();
        let bucket = || {
            Arc::new(MemoryBucket {
                name: name.to_owned(),
                clock: Arc::clone(&self.clock),
                objects: Arc::default(),
            })
        };
        buckets.entry((account, name.to_owned())).or_insert_with(bucket);
    }
}

#[async_trait]
impl Buckets for MemoryBuckets {
    async fn open(&self, account: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError> {
        let found = self.buckets.lock().get(&(account, name.to_owned())).cloned();
        let missing = || ObjectError::NoSuchBucket(name.to_owned());
        found.map(|bucket| bucket as Arc<dyn Bucket>).ok_or_else(missing)
    }
}

struct MemoryBucket {
    name: String,
    clock: Arc<dyn Clock>,
    objects: Arc<Mutex<Objects>>,
}

fn put(
    objects: &Mutex<Objects>,
    clock: &dyn Clock,
    key: &str,
    options: PutOptions,
    body: Bytes,
) -> Result<ObjectInfo, ObjectError> {
    let mut objects = objects.lock();
    if options.if_none_match && objects.contains_key(key) {
        return Err(ObjectError::PreconditionFailed("If-None-Match"));
    }
    let info = ObjectInfo {
        key: key.to_owned(),
        size: body.len() as u64,
        etag: hex(&Md5::digest(&body)),
        modified: clock.now(),
        content_type: options.content_type,
        content_encoding: options.content_encoding,
        metadata: options.metadata,
    };
    objects.insert(key.to_owned(), (info.clone(), body));
    Ok(info)
}

#[async_trait]
impl Bucket for MemoryBucket {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put(&self, key: &str, options: PutOptions, body: Bytes) -> Result<ObjectInfo, ObjectError> {
        check_key(key)?;
        put(&self.objects, &*self.clock, key, options, body)
    }

    async fn begin(&self, key: &str, options: PutOptions) -> Result<Box<dyn Upload>, ObjectError> {
        check_key(key)?;
        Ok(Box::new(MemoryUpload {
            key: key.to_owned(),
            options,
            clock: Arc::clone(&self.clock),
            objects: Arc::clone(&self.objects),
            bytes: Vec::new(),
        }))
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<(ObjectInfo, ObjectStream), ObjectError> {
        let found = self.objects.lock().get(key).cloned();
        let (info, body) = found.ok_or_else(|| ObjectError::NoSuchKey(key.to_owned()))?;
        let body = match range.map(|range| range.within(info.size)).transpose()? {
            Some((first, len)) => {
                let first = usize::try_from(first).unwrap_or(usize::MAX);
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                body.slice(first..first.saturating_add(len))
            }
            None => body,
        };
        Ok((info, Box::pin(futures_util::stream::iter([Ok(body)]))))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        let found = self.objects.lock().get(key).map(|(info, _)| info.clone());
        found.ok_or_else(|| ObjectError::NoSuchKey(key.to_owned()))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ObjectPage, ObjectError> {
        let limit = limit.clamp(1, LIST_MAX);
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let objects = self.objects.lock();
        let range = objects.range::<str, _>((from, Bound::Unbounded));
        let mut page = ObjectPage::default();
        for (key, (info, _)) in range.take_while(|(key, _)| key.starts_with(prefix)) {
            if page.objects.len() == limit {
                page.next = page.objects.last().map(|last| last.key.clone());
                break;
            }
            page.objects.push(ObjectInfo {
                key: key.clone(),
                size: info.size,
                etag: info.etag.clone(),
                modified: info.modified,
                content_type: None,
                content_encoding: None,
                metadata: BTreeMap::new(),
            });
        }
        Ok(page)
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.objects.lock().remove(key);
        Ok(())
    }
}

struct MemoryUpload {
    key: String,
    options: PutOptions,
    clock: Arc<dyn Clock>,
    objects: Arc<Mutex<Objects>>,
    bytes: Vec<u8>,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<ObjectInfo, ObjectError> {
        put(&self.objects, &*self.clock, &self.key, self.options, self.bytes.into())
    }

    async fn abort(self: Box<Self>) -> Result<(), ObjectError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base::SystemClock;
    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn an_object_is_listed_read_in_part_and_not_replaced_where_that_was_forbidden() {
        let buckets = MemoryBuckets::new(Arc::new(SystemClock::new()));
        buckets.create(AccountId::DEFAULT, "door");
        assert!(buckets.open("123456789012".parse().unwrap(), "door").await.is_err());
        let bucket = buckets.open(AccountId::DEFAULT, "door").await.unwrap();
        let once = PutOptions {
            if_none_match: true,
            ..PutOptions::default()
        };
        for key in ["a/1", "a/2", "b"] {
            let mut upload = bucket.begin(key, once.clone()).await.unwrap();
            upload.write(Bytes::from_static(b"hello ")).await.unwrap();
            upload.write(Bytes::from_static(b"world")).await.unwrap();
            upload.finish().await.unwrap();
        }
        let again = bucket.put("b", once, Bytes::new()).await;
        assert_eq!(again, Err(ObjectError::PreconditionFailed("If-None-Match")));
        let page = bucket.list("a/", None, 1).await.unwrap();
        assert_eq!(
            (page.objects[0].key.as_str(), page.next.as_deref()),
            ("a/1", Some("a/1"))
        );
        let page = bucket.list("a/", Some("a/1"), 5).await.unwrap();
        assert_eq!((page.objects.len(), page.next), (1, None));
        let (info, stream) = bucket.get("b", Some(ByteRange::Last(5))).await.unwrap();
        let parts: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!((info.size, parts.concat().as_slice()), (11, &b"world"[..]));
        assert_eq!(info.etag, "5eb63bbbe01eeed093cb22bb8f5acdc3");
        let behind = bucket.get("b", Some(ByteRange::From(11))).await.err();
        assert_eq!(behind, Some(ObjectError::RangeNotSatisfiable(11)));
        bucket.delete("b").await.unwrap();
        assert_eq!(bucket.head("b").await, Err(ObjectError::NoSuchKey("b".to_owned())));
    }
}
