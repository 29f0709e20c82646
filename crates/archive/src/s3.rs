//! A bucket behind S3, AWS's or another, through `object_store`. Each part and each object is sent with its CRC-64/NVME,
//! which the store compares before it answers.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, Error, GetOptions, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, RetryConfig,
};

use crate::limits::INDEX_BYTES_MAX;
use crate::store::{Kind, Put, Store, StoreError};

/// How a bucket is reached.
#[derive(Clone, Debug, Default)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// The URL of the S3; without it AWS's of the region.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: String,
    /// The key that signs.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// The session of temporary credentials.
    pub session_token: Option<String>,
    /// PEM of the certificates to trust, where they are not those that are trusted anyway.
    pub certificates: Option<Vec<u8>>,
}

/// See the module.
pub struct S3Store {
    s3: AmazonS3,
}

/// A call that takes longer is given up and tried again.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Tries of one call, within [`RETRY_WITHIN`]. The archive tries longer by itself.
const RETRIES: usize = 3;
/// See [`RETRIES`].
const RETRY_WITHIN: Duration = Duration::from_secs(20);

impl S3Store {
    /// Reaches nothing yet.
    ///
    /// # Errors
    /// The configuration means nothing.
    pub fn new(config: S3Config) -> Result<Self, StoreError> {
        // The library's TLS takes whichever the program has; another that was there before is as good.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let mut client = ClientOptions::new().with_allow_http(true).with_timeout(TIMEOUT);
        if let Some(pem) = &config.certificates {
            for certificate in object_store::Certificate::from_pem_bundle(pem).map_err(failure)? {
                client = client.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(config.bucket)
            .with_region(config.region)
            .with_access_key_id(config.access_key_id)
            .with_secret_access_key(config.secret_access_key)
            .with_virtual_hosted_style_request(false)
            .with_checksum_algorithm(Checksum::CRC64NVME)
            .with_unsigned_payload(true)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_client_options(client)
            .with_retry(RetryConfig {
                max_retries: RETRIES,
                retry_timeout: RETRY_WITHIN,
                ..RetryConfig::default()
            });
        if let Some(endpoint) = config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(token) = config.session_token {
            builder = builder.with_token(token);
        }
        Ok(S3Store {
            s3: builder.build().map_err(failure)?,
        })
    }
}

fn failure(error: Error) -> StoreError {
    match error {
        Error::NotFound { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::InvalidPath { .. }
        | Error::UnknownConfigurationKey { .. } => StoreError::Refused(error.to_string()),
        other => StoreError::Failed(other.to_string()),
    }
}

fn path(key: &str) -> Result<Path, StoreError> {
    Path::parse(key).map_err(|error| StoreError::Refused(error.to_string()))
}

fn attributes(kind: &Kind) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, kind.content_type.clone().into());
    for (name, value) in &kind.metadata {
        attributes.insert(Attribute::Metadata(name.clone().into()), value.clone().into());
    }
    attributes
}

#[async_trait]
impl Store for S3Store {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let got = match self.s3.get_opts(&path(key)?, GetOptions::default()).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            got => got.map_err(failure)?,
        };
        if got.meta.size > INDEX_BYTES_MAX as u64 {
            return Err(StoreError::Refused(format!("{key} is larger than an index can be")));
        }
        Ok(Some(got.bytes().await.map_err(failure)?))
    }

    async fn read(&self, key: &str) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let got = self
            .s3
            .get_opts(&path(key)?, GetOptions::default())
            .await
            .map_err(failure)?;
        Ok(got.into_stream().map_err(failure).boxed())
    }

    async fn put(&self, key: &str, kind: &Kind, body: Bytes, only_new: bool) -> Result<Put, StoreError> {
        let put = |mode| {
            let options = PutOptions {
                mode,
                attributes: attributes(kind),
                ..PutOptions::default()
            };
            let (path, body) = (path(key), PutPayload::from(body.clone()));
            async move { Ok::<_, StoreError>(self.s3.put_opts(&path?, body, options).await) }
        };
        if only_new {
            match put(PutMode::Create).await? {
                Ok(_) => return Ok(Put::Stored),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(Put::Exists),
                // An S3 without conditions: two archivers at once then overwrite each other's plans, which are the same.
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                    if self.get(key).await?.is_some() {
                        return Ok(Put::Exists);
                    }
                }
                Err(error) => return Err(failure(error)),
            }
        }
        put(PutMode::Overwrite).await?.map_err(failure)?;
        Ok(Put::Stored)
    }

    async fn begin(&self, key: &str, kind: &Kind) -> Result<String, StoreError> {
        let options = PutMultipartOptions {
            attributes: attributes(kind),
            ..PutMultipartOptions::default()
        };
        self.s3
            .create_multipart_opts(&path(key)?, options)
            .await
            .map_err(failure)
    }

    async fn part(&self, key: &str, upload: &str, number: usize, body: Bytes) -> Result<String, StoreError> {
        let upload = upload.to_owned();
        let part = self
            .s3
            .put_part(&path(key)?, &upload, number, PutPayload::from(body))
            .await;
        Ok(part.map_err(failure)?.content_id)
    }

    async fn complete(&self, key: &str, upload: &str, parts: Vec<String>) -> Result<(), StoreError> {
        let parts = parts.into_iter().map(|content_id| PartId { content_id }).collect();
        let upload = upload.to_owned();
        let completed = self.s3.complete_multipart(&path(key)?, &upload, parts).await;
        completed.map(drop).map_err(failure)
    }

    async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreError> {
        match self.s3.abort_multipart(&path(key)?, &upload.to_owned()).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let (prefix, after) = (path(prefix.trim_end_matches('/'))?, path(after.trim_end_matches('/'))?);
        let found = self.s3.list_with_offset(Some(&prefix), &after).take(limit);
        let found = found.map_ok(|object| object.location.to_string()).map_err(failure);
        found.try_collect().await
    }
}
