//! Images on their way to a bucket, wherever the bucket lies, and from one.

use std::sync::Arc;

use async_trait::async_trait;
use base::AccountId;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use objects::{Buckets, ObjectError, PutOptions};
use rekognition::ports::{ObjectFailure, ObjectSource};
use video_streams::ports::{DeliveryError, ImageObject, ImageSink};

/// The buckets as a place for images.
pub struct BucketImages(pub Arc<dyn Buckets>);

fn failure(error: &ObjectError) -> DeliveryError {
    let said = error.to_string();
    match error {
        // A right may be granted and a full disk be cleared while an image waits; a bucket that is gone stays so.
        ObjectError::NoSuchBucket(_) | ObjectError::Invalid(_) | ObjectError::TooLarge { .. } => {
            DeliveryError::Refused(said)
        }
        _ => DeliveryError::Failed(said),
    }
}

/// The name of a tag as the name of an object's metadata: S3 takes what HTTP headers can be called.
fn metadata_name(tag: &str) -> String {
    let legal = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    tag.chars().map(legal).collect()
}

#[async_trait]
impl ImageSink for BucketImages {
    async fn reachable(&self, account: AccountId, bucket: &str) -> Result<(), String> {
        let opened = self.0.open(account, bucket).await;
        opened.map(drop).map_err(|error| error.to_string())
    }

    async fn put(&self, object: ImageObject) -> Result<(), DeliveryError> {
        let bucket = self
            .0
            .open(object.account, &object.bucket)
            .await
            .map_err(|error| failure(&error))?;
        let options = PutOptions {
            content_type: Some(object.content_type.to_owned()),
            metadata: object
                .metadata
                .iter()
                .map(|(tag, value)| (metadata_name(tag), value.clone()))
                .collect(),
            ..PutOptions::default()
        };
        let put = bucket.put(&object.key, options, object.content).await;
        put.map(drop).map_err(|error| failure(&error))
    }
}

fn unreadable(error: &ObjectError) -> ObjectFailure {
    match error {
        ObjectError::NoSuchBucket(_) | ObjectError::NoSuchKey(_) | ObjectError::Invalid(_) => ObjectFailure::Absent,
        _ => ObjectFailure::Failed(error.to_string()),
    }
}

#[async_trait]
impl ObjectSource for BucketImages {
    async fn read(
        &self,
        account: AccountId,
        bucket: &str,
        key: &str,
        bytes_max: usize,
    ) -> Result<Bytes, ObjectFailure> {
        let unreadable = |error: ObjectError| unreadable(&error);
        let bucket = self.0.open(account, bucket).await.map_err(unreadable)?;
        let (info, mut bytes) = bucket.get(key, None).await.map_err(unreadable)?;
        let mut read = BytesMut::new();
        // What a bucket elsewhere says of an object need not be so.
        while info.size <= bytes_max as u64
            && let Some(part) = bytes.try_next().await.map_err(unreadable)?
        {
            read.extend_from_slice(&part);
            if read.len() > bytes_max {
                return Err(ObjectFailure::TooLarge(read.len() as u64));
            }
        }
        if info.size > bytes_max as u64 {
            return Err(ObjectFailure::TooLarge(info.size));
        }
        Ok(read.freeze())
    }
}

#[cfg(test)]
mod tests {
    use objects::MemoryBuckets;

    use super::*;

    #[tokio::test]
    async fn an_image_arrives_with_its_type_and_the_producers_tags() {
        let buckets = Arc::new(MemoryBuckets::new(base::ManualClock::at(base::Timestamp::from_millis(
            0,
        ))));
        buckets.create(AccountId::DEFAULT, "images");
        let sink = BucketImages(buckets.clone());
        assert_eq!(sink.reachable(AccountId::DEFAULT, "images").await, Ok(()));
        assert!(
            sink.reachable(AccountId::DEFAULT, "elsewhere")
                .await
                .unwrap_err()
                .contains("elsewhere")
        );
        let object = ImageObject {
            account: AccountId::DEFAULT,
            bucket: "images".to_owned(),
            key: "a/b.jpg".to_owned(),
            content_type: "image/jpeg",
            metadata: [("Who is it".to_owned(), "Ann".to_owned())].into(),
            content: Bytes::from_static(b"picture"),
        };
        sink.put(object.clone()).await.unwrap();
        sink.put(object.clone()).await.unwrap();
        let bucket = buckets.open(AccountId::DEFAULT, "images").await.unwrap();
        let (info, bytes) = bucket.get("a/b.jpg", None).await.unwrap();
        assert_eq!(info.content_type.as_deref(), Some("image/jpeg"));
        assert_eq!(info.metadata.get("who-is-it").map(String::as_str), Some("Ann"));
        let bytes: Vec<Bytes> = bytes.try_collect().await.unwrap();
        assert_eq!(bytes.concat(), b"picture");
        let nowhere = ImageObject {
            bucket: "elsewhere".to_owned(),
            ..object
        };
        assert!(matches!(sink.put(nowhere).await, Err(DeliveryError::Refused(_))));
        let read = |bucket: &'static str, key: &'static str, max| sink.read(AccountId::DEFAULT, bucket, key, max);
        assert_eq!(read("images", "a/b.jpg", 7).await.unwrap(), "picture");
        assert_eq!(read("images", "a/b.jpg", 6).await, Err(ObjectFailure::TooLarge(7)));
        for (bucket, key) in [("images", "missing"), ("elsewhere", "a/b.jpg")] {
            assert_eq!(read(bucket, key, 7).await, Err(ObjectFailure::Absent));
        }
    }
}
