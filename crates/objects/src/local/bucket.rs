//! One bucket of the data directory, and what other rooms see of it.

use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, Timestamp};
use bytes::Bytes;
use storage::catalog::get_json;
use storage::{Change, Entry, Expect};

use super::list::ListQuery;
use super::object::{Conditions, Expected, NewObject, ObjectWriter};
use super::{BucketInfo, Shared};
use crate::limits::OBJECT_BYTES_MAX;
use crate::row::{self, BucketRow, Facts, Headers, Id};
use crate::write::BodyWriter;
use crate::{Bucket, ByteRange, ObjectError, ObjectInfo, ObjectPage, ObjectStream, PutOptions, Upload};

/// A bucket as it was when it was opened.
#[derive(Clone)]
pub struct LocalBucket {
    pub(crate) shared: Arc<Shared>,
    pub(crate) account: AccountId,
    pub(crate) id: Id,
    info: BucketInfo,
}

impl LocalBucket {
    pub(crate) fn new(shared: Arc<Shared>, account: AccountId, name: &str, row: &Entry<BucketRow>) -> Self {
        LocalBucket {
            shared,
            account,
            id: row.value.id,
            info: BucketInfo {
                name: name.to_owned(),
                region: row.value.region.clone(),
                created: Timestamp::from_millis(row.value.created_ms),
                tags: row.value.tags.clone(),
            },
        }
    }

    /// What is known of the bucket.
    pub fn info(&self) -> &BucketInfo {
        &self.info
    }

    pub(crate) fn object_key(&self, key: &str) -> String {
        format!("{}{key}", row::objects(self.account, self.id))
    }

    /// The bucket is still there: an error if not, else what a commit may take for granted.
    pub(crate) async fn check_row(&self) -> Result<Change, ObjectError> {
        let key = row::bucket(self.account, &self.info.name);
        let found = get_json::<BucketRow>(&*self.shared.catalog, &key).await?;
        match found.filter(|found| found.value.id == self.id) {
            Some(found) => Ok(Change::Check {
                key,
                expect: Expect::Version(found.version),
            }),
            None => Err(ObjectError::NoSuchBucket(self.info.name.clone())),
        }
    }

    fn room_writer(&self, key: &str, options: PutOptions) -> Result<ObjectWriter, ObjectError> {
        let conditions = match options.if_none_match {
            true => Conditions::absent(),
            false => Conditions::default(),
        };
        let new = NewObject {
            facts: Facts {
                headers: Headers {
                    content_type: options.content_type,
                    content_encoding: options.content_encoding,
                    ..Headers::default()
                },
                metadata: options.metadata,
                ..Facts::default()
            },
            conditions,
            checksum: None,
        };
        let body = BodyWriter::in_parts(&self.shared.files, OBJECT_BYTES_MAX);
        Arc::new(self.clone()).writer(key, new, body)
    }
}

#[async_trait]
impl Bucket for LocalBucket {
    fn name(&self) -> &str {
        &self.info.name
    }

    async fn put(&self, key: &str, options: PutOptions, body: Bytes) -> Result<ObjectInfo, ObjectError> {
        let mut writer = self.room_writer(key, options)?;
        writer.write(body).await?;
        Ok(writer.finish(&Expected::default()).await?.into())
    }

    async fn begin(&self, key: &str, options: PutOptions) -> Result<Box<dyn Upload>, ObjectError> {
        let writer = self.room_writer(key, options)?;
        // Said before the bytes are sent rather than after.
        self.check_row().await?;
        Ok(Box::new(RoomUpload(writer)))
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<(ObjectInfo, ObjectStream), ObjectError> {
        let (object, stream) = self
            .read(key, |object| match range {
                Some(range) => range.within(object.size),
                None => Ok((0, object.size)),
            })
            .await?;
        Ok((object.into(), stream))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        Ok(self.find(key).await?.into())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ObjectPage, ObjectError> {
        let listing = self
            .list_page(&ListQuery {
                prefix: prefix.to_owned(),
                after: after.map(str::to_owned),
                delimiter: None,
                limit,
            })
            .await?;
        Ok(ObjectPage {
            objects: listing.objects,
            next: listing.next,
        })
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.remove(key, &Conditions::default()).await
    }
}

struct RoomUpload(ObjectWriter);

#[async_trait]
impl Upload for RoomUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.0.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<ObjectInfo, ObjectError> {
        Ok(self.0.finish(&Expected::default()).await?.into())
    }

    async fn abort(self: Box<Self>) -> Result<(), ObjectError> {
        Ok(())
    }
}
