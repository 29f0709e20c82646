//! Buckets that lie elsewhere: any S3, through `object_store`.
//!
//! What differs from a bucket of the data directory: keys are those that `object_store` takes (no empty segment between
//! slashes, no `.` or `..`), and [`PutOptions::if_none_match`] of an object larger than one part is compared when it begins
//! and when it ends, but not in one step with becoming visible. An upload that was cut off leaves no object; its parts stay
//! at the keeper until the keeper's own rule for unfinished uploads removes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, Timestamp};
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutPayload, PutResult, RetryConfig,
};

use crate::limits::LIST_MAX;
use crate::names::{check_key, check_metadata};
use crate::{Bucket, Buckets, ByteRange, ObjectError, ObjectInfo, ObjectPage, ObjectStream, PutOptions, Upload};

/// Bytes of a part of an upload; S3 takes no smaller ones than 5 MiB. Ours.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at a time. Ours: an upload holds two parts, sent and gathering.
const PARTS_AT_ONCE: usize = 1;
/// A keeper that does not take a connection for this long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request: a part of 8 MiB at 1 Mb/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// How often and how long `object_store` tries by itself; whoever calls tries again as it sees fit.
const TRIES_MAX: usize = 2;
const TRY_WITHIN: Duration = Duration::from_secs(20);

/// Where a bucket lies and how it is reached.
#[derive(Clone)]
pub struct External {
    /// The name of the bucket there.
    pub bucket: String,
    /// Base URL of the S3, e.g. `https://s3.eu-central-1.amazonaws.com`.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// What requests are signed with.
    pub access_key_id: String,
    /// See [`Self::access_key_id`].
    pub secret_access_key: String,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
    /// The bucket stands in the path of a request, not in its host.
    pub path_style: bool,
    /// PEM of more certificates that the keeper is trusted by.
    pub certificates: Option<Vec<u8>>,
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("External");
        out.field("bucket", &self.bucket).field("endpoint", &self.endpoint);
        out.finish_non_exhaustive()
    }
}

/// A bucket elsewhere.
#[derive(Clone)]
pub struct ExternalBucket {
    name: Arc<str>,
    store: Arc<AmazonS3>,
}

impl ExternalBucket {
    /// The bucket that this server calls `name`. Nothing is sent yet.
    pub fn new(name: &str, place: &External) -> Result<Self, ObjectError> {
        // `object_store` takes what the process has; a second installation is refused and does no harm.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let wrong = |error: object_store::Error| ObjectError::Invalid(format!("bucket {name}: {error}"));
        let plain = place.endpoint.starts_with("http://");
        let mut client = ClientOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT)
            .with_allow_http(plain);
        if let Some(pem) = &place.certificates {
            for certificate in object_store::Certificate::from_pem_bundle(pem).map_err(wrong)? {
                client = client.with_root_certificate(certificate);
            }
        }
        let retry = RetryConfig {
            max_retries: TRIES_MAX,
            retry_timeout: TRY_WITHIN,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_endpoint(&place.endpoint)
            .with_region(&place.region)
            .with_bucket_name(&place.bucket)
            .with_access_key_id(&place.access_key_id)
            .with_secret_access_key(&place.secret_access_key)
            .with_virtual_hosted_style_request(!place.path_style)
            .with_allow_http(plain)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(token) = &place.session_token {
            builder = builder.with_token(token);
        }
        Ok(ExternalBucket {
            name: name.into(),
            store: Arc::new(builder.build().map_err(wrong)?),
        })
    }

    fn error(&self, key: &str, error: &object_store::Error) -> ObjectError {
        use object_store::Error as E;
        let text = chain(error);
        match error {
            E::NotFound { .. } if text.contains("NoSuchBucket") => ObjectError::NoSuchBucket(self.name.to_string()),
            E::NotFound { .. } => ObjectError::NoSuchKey(key.to_owned()),
            E::AlreadyExists { .. } | E::Precondition { .. } => ObjectError::PreconditionFailed("If-None-Match"),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => ObjectError::Denied(text),
            E::InvalidPath { .. } => ObjectError::Invalid(text),
            E::NotSupported { .. } | E::NotImplemented { .. } => ObjectError::Invalid(text),
            _ => ObjectError::Unreachable(text),
        }
    }

    async fn put_whole(&self, key: &str, options: &PutOptions, body: PutPayload) -> Result<ObjectInfo, ObjectError> {
        let size = body.content_length() as u64;
        let sent = object_store::PutOptions {
            mode: match options.if_none_match {
                true => PutMode::Create,
                false => PutMode::Overwrite,
            },
            attributes: attributes(options),
            ..object_store::PutOptions::default()
        };
        let put = self.store.put_opts(&path(key)?, body, sent).await;
        let put = put.map_err(|error| self.error(key, &error))?;
        self.done(key, options, size, put).await
    }

    async fn check_absent(&self, key: &str, options: &PutOptions) -> Result<(), ObjectError> {
        if !options.if_none_match {
            return Ok(());
        }
        match self.head(key).await {
            Ok(_) => Err(ObjectError::PreconditionFailed("If-None-Match")),
            Err(ObjectError::NoSuchKey(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is known of an object that was just put: the keeper says when.
    async fn done(
        &self,
        key: &str,
        options: &PutOptions,
        size: u64,
        put: PutResult,
    ) -> Result<ObjectInfo, ObjectError> {
        let modified = self.head(key).await.map(|info| info.modified);
        Ok(ObjectInfo {
            key: key.to_owned(),
            size,
            etag: bare(put.e_tag),
            modified: modified.unwrap_or_default(),
            content_type: options.content_type.clone(),
            content_encoding: options.content_encoding.clone(),
            metadata: options.metadata.clone(),
        })
    }
}

/// An error with everything that lies behind it; the inner ones say what the keeper said.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = inner.source();
    }
    text
}

fn path(key: &str) -> Result<Path, ObjectError> {
    check_key(key)?;
    let parsed = Path::parse(key).ok().filter(|path| path.as_ref() == key);
    parsed.ok_or_else(|| ObjectError::Invalid(format!("an external bucket takes no key such as {key:?}")))
}

fn bare(tag: Option<String>) -> String {
    tag.unwrap_or_default().trim_matches('"').to_owned()
}

fn attributes(options: &PutOptions) -> Attributes {
    let mut out = Attributes::new();
    if let Some(value) = &options.content_type {
        out.insert(Attribute::ContentType, AttributeValue::from(value.clone()));
    }
    if let Some(value) = &options.content_encoding {
        out.insert(Attribute::ContentEncoding, AttributeValue::from(value.clone()));
    }
    for (name, value) in &options.metadata {
        out.insert(
            Attribute::Metadata(name.clone().into()),
            AttributeValue::from(value.clone()),
        );
    }
    out
}

fn info(key: &str, meta: &ObjectMeta, attributes: Option<&Attributes>) -> ObjectInfo {
    let text = |attribute: &Attribute| attributes?.get(attribute).map(|value| value.as_ref().to_owned());
    let metadata: BTreeMap<String, String> = attributes
        .into_iter()
        .flat_map(|attributes| attributes.iter())
        .filter_map(|(name, value)| match name {
            Attribute::Metadata(name) => Some((name.to_string(), value.as_ref().to_owned())),
            _ => None,
        })
        .collect();
    ObjectInfo {
        key: key.to_owned(),
        size: meta.size,
        etag: bare(meta.e_tag.clone()),
        modified: Timestamp::from_millis(meta.last_modified.timestamp_millis()),
        content_type: text(&Attribute::ContentType),
        content_encoding: text(&Attribute::ContentEncoding),
        metadata,
    }
}

#[async_trait]
impl Bucket for ExternalBucket {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put(&self, key: &str, options: PutOptions, body: Bytes) -> Result<ObjectInfo, ObjectError> {
        check_metadata(&options.metadata)?;
        if body.len() > PART_BYTES {
            let mut upload = self.begin(key, options).await?;
            upload.write(body).await?;
            return upload.finish().await;
        }
        self.put_whole(key, &options, body.into()).await
    }

    async fn begin(&self, key: &str, options: PutOptions) -> Result<Box<dyn Upload>, ObjectError> {
        path(key)?;
        check_metadata(&options.metadata)?;
        Ok(Box::new(ExternalUpload {
            bucket: self.clone(),
            key: key.to_owned(),
            options,
            gathered: Vec::new(),
            gathered_bytes: 0,
            sent_bytes: 0,
            parts: None,
            sending: tokio::task::JoinSet::new(),
        }))
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<(ObjectInfo, ObjectStream), ObjectError> {
        let place = path(key)?;
        let options = GetOptions {
            range: range.map(|range| match range {
                ByteRange::From(first) => GetRange::Offset(first),
                // Other stores count in 63 bits; no object reaches so far.
                ByteRange::Between(first, last) if last >= i64::MAX.cast_unsigned() => GetRange::Offset(first),
                ByteRange::Between(first, last) => GetRange::Bounded(first..last.saturating_add(1)),
                ByteRange::Last(bytes) => GetRange::Suffix(bytes),
            }),
            ..GetOptions::default()
        };
        let got = match self.store.get_opts(&place, options).await {
            Ok(got) => got,
            Err(error) => {
                // A range that is not there has no error of its own.
                if let Some(range) = range {
                    range.within(self.head(key).await?.size)?;
                }
                return Err(self.error(key, &error));
            }
        };
        let (bucket, name) = (self.clone(), key.to_owned());
        let info = info(key, &got.meta, Some(&got.attributes));
        let stream = got
            .into_stream()
            .map(move |item| item.map_err(|error| bucket.error(&name, &error)));
        Ok((info, Box::pin(stream)))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let got = self.store.get_opts(&path(key)?, options).await;
        let got = got.map_err(|error| self.error(key, &error))?;
        Ok(info(key, &got.meta, Some(&got.attributes)))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ObjectPage, ObjectError> {
        let limit = limit.clamp(1, LIST_MAX);
        // `object_store` lists whole segments; what is behind the last slash of the prefix is compared here.
        let folder = prefix.rsplit_once('/').map(|(folder, _)| path(folder)).transpose()?;
        // No key lies between the largest one without the prefix and the prefix itself.
        let start = after.filter(|after| *after > prefix).map(path).transpose()?;
        let mut found = match &start {
            Some(start) => self.store.list_with_offset(folder.as_ref(), start),
            None => self.store.list(folder.as_ref()),
        };
        let mut page = ObjectPage::default();
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(|error| self.error(prefix, &error))?;
            let key = meta.location.as_ref().to_owned();
            if !key.starts_with(prefix) || after.is_some_and(|after| key.as_str() <= after) {
                if key.as_str() > prefix && !key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after) {
                    break;
                }
                continue;
            }
            if page.objects.len() == limit {
                page.next = page.objects.last().map(|last| last.key.clone());
                break;
            }
            page.objects.push(info(&key, &meta, None));
        }
        Ok(page)
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        match self
            .store
            .delete(&path(key)?)
            .await
            .map_err(|error| self.error(key, &error))
        {
            Ok(()) | Err(ObjectError::NoSuchKey(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// An upload that becomes one in parts when it is larger than one.
struct ExternalUpload {
    bucket: ExternalBucket,
    key: String,
    options: PutOptions,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    sent_bytes: u64,
    parts: Option<Box<dyn MultipartUpload>>,
    sending: tokio::task::JoinSet<object_store::Result<()>>,
}

impl ExternalUpload {
    async fn settle(&mut self, at_most: usize) -> Result<(), ObjectError> {
        while self.sending.len() > at_most {
            match self.sending.join_next().await {
                None | Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return Err(self.bucket.error(&self.key, &error)),
                Some(Err(error)) => return Err(ObjectError::Storage(error.to_string())),
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), ObjectError> {
        self.settle(PARTS_AT_ONCE - 1).await?;
        if self.parts.is_none() {
            self.bucket.check_absent(&self.key, &self.options).await?;
            let options = PutMultipartOptions {
                attributes: attributes(&self.options),
                ..PutMultipartOptions::default()
            };
            let begun = self.bucket.store.put_multipart_opts(&path(&self.key)?, options).await;
            self.parts = Some(begun.map_err(|error| self.bucket.error(&self.key, &error))?);
        }
        let body: PutPayload = std::mem::take(&mut self.gathered).into_iter().collect();
        self.sent_bytes += std::mem::take(&mut self.gathered_bytes) as u64;
        if let Some(parts) = &mut self.parts {
            self.sending.spawn(parts.put_part(body));
        }
        Ok(())
    }
}

#[async_trait]
impl Upload for ExternalUpload {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), ObjectError> {
        while !bytes.is_empty() {
            if self.gathered_bytes >= PART_BYTES {
                self.send().await?;
            }
            let room = PART_BYTES.saturating_sub(self.gathered_bytes);
            let piece = bytes.split_to(room.min(bytes.len()));
            self.gathered_bytes += piece.len();
            self.gathered.push(piece);
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<ObjectInfo, ObjectError> {
        if self.parts.is_none() {
            let body: PutPayload = std::mem::take(&mut self.gathered).into_iter().collect();
            return self.bucket.put_whole(&self.key, &self.options, body).await;
        }
        let ended = async {
            if self.gathered_bytes > 0 {
                self.send().await?;
            }
            self.settle(0).await?;
            self.bucket.check_absent(&self.key, &self.options).await
        };
        if let Err(error) = ended.await {
            self.give_up().await;
            return Err(error);
        }
        let Some(parts) = &mut self.parts else {
            return Err(ObjectError::Storage("an upload was lost".to_owned()));
        };
        let done = parts
            .complete()
            .await
            .map_err(|error| self.bucket.error(&self.key, &error));
        let (bucket, key, options) = (self.bucket.clone(), self.key.clone(), self.options.clone());
        match done {
            Ok(put) => {
                self.parts = None;
                bucket.done(&key, &options, self.sent_bytes, put).await
            }
            Err(error) => Err(error),
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<(), ObjectError> {
        self.give_up().await;
        Ok(())
    }
}

impl ExternalUpload {
    /// Asks the keeper to forget the parts; one that cannot be asked forgets them by its own rule.
    async fn give_up(&mut self) {
        self.sending.shutdown().await;
        if let Some(mut parts) = self.parts.take()
            && let Err(error) = parts.abort().await
        {
            tracing::debug!(bucket = &*self.bucket.name, key = self.key, %error, "an upload could not be aborted");
        }
    }
}

impl Drop for ExternalUpload {
    fn drop(&mut self) {
        if let Some(mut parts) = self.parts.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn(async move { parts.abort().await }));
        }
    }
}

/// The buckets of the data directory, and those that the configuration says lie elsewhere.
pub struct Everywhere<B> {
    here: B,
    elsewhere: BTreeMap<(AccountId, String), ExternalBucket>,
}

impl<B: Buckets> Everywhere<B> {
    /// A name in `elsewhere` stands for the bucket there, whatever there is here.
    pub fn new(here: B, elsewhere: BTreeMap<(AccountId, String), ExternalBucket>) -> Self {
        Everywhere { here, elsewhere }
    }
}

#[async_trait]
impl<B: Buckets> Buckets for Everywhere<B> {
    async fn open(&self, account: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError> {
        match self.elsewhere.get(&(account, name.to_owned())) {
            Some(bucket) => Ok(Arc::new(bucket.clone())),
            None => self.here.open(account, name).await,
        }
    }
}
