//! Writing objects: put, posted by a form, copied, tagged and deleted.

use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderMap;
use objects::digest::{Algorithm, TagOf};
use objects::limits::PUT_BYTES_MAX;
use objects::local::{Conditions, Expected, NewObject};
use objects::{Facts, Object, ObjectError};
use s3s::dto::{
    self, CopyObjectInput, CopyObjectOutput, CopyObjectResult, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectTaggingInput, DeleteObjectTaggingOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    MetadataDirective, PutObjectInput, PutObjectOutput, PutObjectTaggingInput, PutObjectTaggingOutput, StreamingBlob,
    TaggingDirective,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, StdError, TrailingHeaders, s3_error};

use crate::access::{arn, demand};
use crate::convert::{
    Demanded, Demands, SentHeaders, Sums, algorithm, checksum_value, conditions, etag, header_tags, kind_name, md5,
    metadata, source, tags, timestamp,
};
use crate::errors::{Failure, s3_of};
use crate::limits::BODY_IDLE_TIMEOUT;
use crate::service::{Service, begin, demand_source, is_no_version};

/// What a client says of the bytes that it sends, in headers before and in trailers behind them.
pub(crate) struct Announced {
    /// The checksum to compute.
    pub algorithm: Option<Algorithm>,
    expected: Expected,
    trailers: Option<TrailingHeaders>,
}

impl Announced {
    pub fn of(
        headers: &HeaderMap,
        sums: &Sums,
        named: Option<&dto::ChecksumAlgorithm>,
        content_md5: Option<&str>,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<Self> {
        let sent = sums.sent()?;
        let declared = headers
            .get("x-amz-decoded-content-length")
            .or_else(|| headers.get("content-length"));
        let bytes = declared.and_then(|len| len.to_str().ok()?.trim().parse::<u64>().ok());
        if bytes.is_some_and(|bytes| bytes > PUT_BYTES_MAX) {
            return Err(s3_error!(
                EntityTooLarge,
                "Your proposed upload exceeds the maximum allowed size"
            ));
        }
        let chosen = match (&sent, algorithm(named)?) {
            (Some((sent, _)), _) => Some(*sent),
            (None, named) => named.or(sdk_algorithm(headers)),
        };
        Ok(Announced {
            algorithm: chosen,
            expected: Expected {
                md5: md5(content_md5)?,
                checksum: sent.map(|(_, value)| value),
                bytes,
            },
            trailers,
        })
    }

    /// What the ETag of a part is made of: whoever compares the CRC-64 has no use for an MD5, which takes longer than all else
    /// that is done with the bytes.
    pub fn tag_of(&self) -> TagOf {
        match self.algorithm {
            Some(Algorithm::Crc64Nvme) if self.expected.md5.is_none() => TagOf::Crc64,
            _ => TagOf::Md5,
        }
    }

    /// What the bytes must be, now that what stands behind them has arrived too.
    pub fn expected(self) -> S3Result<Expected> {
        let mut expected = self.expected;
        let (Some(trailers), Some(algorithm)) = (self.trailers, self.algorithm) else {
            return Ok(expected);
        };
        let name = format!("x-amz-checksum-{}", algorithm.name().to_ascii_lowercase());
        let sent = trailers.read(|trailers| {
            trailers
                .get(&name)
                .and_then(|value| value.to_str().ok().map(str::to_owned))
        });
        if let Some(text) = sent.flatten() {
            expected.checksum = Some(checksum_value(algorithm, &text)?);
        }
        Ok(expected)
    }
}

/// `x-amz-sdk-checksum-algorithm`, which names what the SDK computes.
fn sdk_algorithm(headers: &HeaderMap) -> Option<Algorithm> {
    let name = headers.get("x-amz-sdk-checksum-algorithm")?.to_str().ok()?;
    Algorithm::named(name)
}

/// Why a body ended before its end, in S3's codes.
fn broken(error: &StdError) -> S3Error {
    let text = error.to_string();
    let has = |word: &str| text.contains(word);
    let code = match () {
        () if has("SignatureMismatch") => S3ErrorCode::SignatureDoesNotMatch,
        () if has("Sha256Mismatch") => {
            S3ErrorCode::from_bytes(b"XAmzContentSHA256Mismatch").unwrap_or(S3ErrorCode::BadDigest)
        }
        () if has("FormatError") || has("TooLarge") || has("TooMany") => S3ErrorCode::InvalidRequest,
        () => S3ErrorCode::IncompleteBody,
    };
    let message = match &code {
        S3ErrorCode::IncompleteBody => {
            "You did not provide the number of bytes specified by the Content-Length HTTP header".to_owned()
        }
        S3ErrorCode::SignatureDoesNotMatch => "The signature of a chunk of the body does not match.".to_owned(),
        S3ErrorCode::InvalidRequest => "The body is not well-formed aws-chunked.".to_owned(),
        _ => "The provided 'x-amz-content-sha256' header does not match what was computed.".to_owned(),
    };
    let mut out = S3Error::with_message(code, message);
    out.set_status_code(match out.code() {
        S3ErrorCode::SignatureDoesNotMatch => http::StatusCode::FORBIDDEN,
        _ => http::StatusCode::BAD_REQUEST,
    });
    out
}

/// The next bytes of a body; `None` at its end.
pub(crate) async fn next(body: &mut StreamingBlob) -> S3Result<Option<Bytes>> {
    match tokio::time::timeout(BODY_IDLE_TIMEOUT, body.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(Some(Err(error))) => Err(broken(&error)),
        Err(_) => Err(s3_error!(
            RequestTimeout,
            "Your socket connection to the server was not read from or written to within the timeout period."
        )),
    }
}

/// PutObject, and PostObject, which `s3s` turns into it.
pub(crate) async fn object(s3: &Service, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
    let caller = begin(&req, "PutObject")?;
    if req.method == http::Method::POST {
        check_form(&caller, &mut req)?;
    }
    let (headers, trailers, input) = (req.headers, req.trailing_headers, req.input);
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let sums = Sums {
        crc32: input.checksum_crc32,
        crc32c: input.checksum_crc32c,
        crc64nvme: input.checksum_crc64nvme,
        sha1: input.checksum_sha1,
        sha256: input.checksum_sha256,
    };
    let md5 = input.content_md5.as_deref();
    let announced = Announced::of(&headers, &sums, input.checksum_algorithm.as_ref(), md5, trailers)?;
    let sent = SentHeaders {
        content_type: input.content_type.as_deref(),
        content_encoding: input.content_encoding.as_deref(),
        content_language: input.content_language.as_deref(),
        content_disposition: input.content_disposition.as_deref(),
        cache_control: input.cache_control.as_deref(),
        expires: input.expires.as_ref(),
    };
    let new = NewObject {
        facts: Facts {
            headers: sent.kept(),
            metadata: metadata(input.metadata),
            tags: header_tags(input.tagging.as_deref())?,
        },
        conditions: conditions(input.if_match.as_ref(), input.if_none_match.as_ref()),
        checksum: announced.algorithm,
    };
    let mut writer = bucket.write(&input.key, new, PUT_BYTES_MAX).map_err(s3_of)?;
    if let Some(mut body) = input.body {
        while let Some(bytes) = next(&mut body).await? {
            writer.write(bytes).await.map_err(s3_of)?;
        }
    }
    let object = writer.finish(&announced.expected()?).await.map_err(s3_of)?;
    let sums = Sums::kept(&object.checksum, None);
    Ok(S3Response::new(PutObjectOutput {
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: Some(kind_name(object.checksum.kind)),
        e_tag: Some(etag(&object.etag)),
        ..PutObjectOutput::default()
    }))
}

/// What a form that a browser posted needs beside its policy, which has been compared with its fields: the key is known only
/// now. Its head speaks of the form, not of the file in it.
fn check_form(caller: &base::Caller, req: &mut S3Request<PutObjectInput>) -> S3Result<()> {
    let _ = crate::access::SEEN.try_with(|seen| seen.lock().operation = Some("PostObject"));
    if req.input.server_side_encryption.is_some() || req.input.sse_customer_algorithm.is_some() {
        return Err(s3_error!(NotImplemented, "Server-side encryption is not implemented."));
    }
    demand(caller, "s3:PutObject", &arn(&req.input.bucket, Some(&req.input.key)))?;
    for name in ["content-length", "x-amz-decoded-content-length"] {
        req.headers.remove(name);
    }
    Ok(())
}

/// What must hold of the source of a copy.
pub(crate) fn check_source(demands: &Demands, source: &Object) -> Result<(), Failure> {
    match demands.of(source) {
        Demanded::Met => Ok(()),
        Demanded::NotModified | Demanded::Failed => Err(s3_of(ObjectError::PreconditionFailed("of the source")).into()),
    }
}

pub(crate) async fn copy(s3: &Service, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
    let caller = begin(&req, "CopyObject")?;
    let headers = req.headers;
    let input = req.input;
    let (from_name, from_key) = source(&input.copy_source)?;
    demand_source(&caller, &from_name, &from_key)?;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let from = s3.bucket(&caller, &from_name).await?;
    let replaces = |directive: Option<&str>| directive == Some("REPLACE");
    let new_facts = replaces(input.metadata_directive.as_ref().map(MetadataDirective::as_str));
    let new_tags = replaces(input.tagging_directive.as_ref().map(TaggingDirective::as_str));
    if from_name == input.bucket && from_key == input.key && !new_facts {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let asked = algorithm(input.checksum_algorithm.as_ref())?;
    let sent = SentHeaders {
        content_type: input.content_type.as_deref(),
        content_encoding: input.content_encoding.as_deref(),
        content_language: input.content_language.as_deref(),
        content_disposition: input.content_disposition.as_deref(),
        cache_control: input.cache_control.as_deref(),
        expires: input.expires.as_ref(),
    };
    let sent = Facts {
        headers: sent.kept(),
        metadata: metadata(input.metadata),
        tags: header_tags(input.tagging.as_deref())?,
    };
    let demands = Demands {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    // Read from the head: the model that the wire was made from does not have them yet.
    let condition = |name: &str| {
        let value = headers.get(name)?;
        dto::ETagCondition::parse_http_header(value.as_bytes()).ok()
    };
    let conditions = conditions(condition("if-match").as_ref(), condition("if-none-match").as_ref());
    let choose = |source: &Object| {
        check_source(&demands, source)?;
        let kept = if new_facts { &sent } else { &source.facts };
        Ok::<_, Failure>(NewObject {
            facts: Facts {
                tags: if new_tags {
                    sent.tags.clone()
                } else {
                    source.facts.tags.clone()
                },
                ..kept.clone()
            },
            conditions: conditions.clone(),
            checksum: asked.or(Some(source.checksum.algorithm)),
        })
    };
    let copied = bucket.copy(&input.key, &from, &from_key, choose).await;
    let (_, copy) = copied.map_err(|failure| Service::hide(&caller, &from_name, failure))?;
    let sums = Sums::kept(&copy.checksum, None);
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(CopyObjectResult {
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: Some(kind_name(copy.checksum.kind)),
            e_tag: Some(etag(&copy.etag)),
            last_modified: Some(timestamp(copy.modified)),
        }),
        ..CopyObjectOutput::default()
    }))
}

pub(crate) async fn tag(
    s3: &Service,
    req: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let caller = begin(&req, "PutObjectTagging")?;
    is_no_version(req.input.version_id.as_deref())?;
    let bucket = s3.bucket(&caller, &req.input.bucket).await?;
    let tags = tags(req.input.tagging.tag_set)?;
    bucket.tag(&req.input.key, tags).await.map_err(s3_of)?;
    Ok(S3Response::new(PutObjectTaggingOutput::default()))
}

pub(crate) async fn untag(
    s3: &Service,
    req: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let caller = begin(&req, "DeleteObjectTagging")?;
    is_no_version(req.input.version_id.as_deref())?;
    let bucket = s3.bucket(&caller, &req.input.bucket).await?;
    let none = std::collections::BTreeMap::new();
    bucket.tag(&req.input.key, none).await.map_err(s3_of)?;
    Ok(S3Response::with_status(
        DeleteObjectTaggingOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

pub(crate) async fn delete(
    s3: &Service,
    req: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let caller = begin(&req, "DeleteObject")?;
    let input = req.input;
    is_no_version(input.version_id.as_deref())?;
    if input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
        return Err(s3_error!(NotImplemented, "Deletion takes If-Match with an ETag alone."));
    }
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let conditions = conditions(input.if_match.as_ref(), None);
    bucket.remove(&input.key, &conditions).await.map_err(s3_of)?;
    Ok(S3Response::with_status(
        DeleteObjectOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

pub(crate) async fn delete_many(
    s3: &Service,
    req: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let caller = begin(&req, "DeleteObjects")?;
    let input = req.input;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let asked = input.delete.objects;
    if asked.is_empty() || asked.len() > objects::limits::LIST_MAX {
        return Err(s3_error!(MalformedXML, "1 to 1000 objects are named in one call"));
    }
    let quiet = input.delete.quiet == Some(true);
    let (mut errors, mut allowed) = (Vec::new(), Vec::new());
    for object in asked {
        let may = demand(&caller, "s3:DeleteObject", &arn(&input.bucket, Some(&object.key)));
        let may = may.and_then(|()| is_no_version(object.version_id.as_deref()));
        match may {
            Ok(()) => {
                let if_match = object.e_tag.map(|tag| vec![crate::convert::bare(tag.value())]);
                let conditions = Conditions {
                    if_match,
                    ..Conditions::default()
                };
                allowed.push((object.key, conditions));
            }
            Err(error) => errors.push(told(object.key, &error)),
        }
    }
    let mut deleted = Vec::new();
    for (key, outcome) in bucket.remove_all(allowed).await {
        match outcome {
            Ok(()) if quiet => {}
            Ok(()) => deleted.push(DeletedObject {
                key: Some(key),
                ..DeletedObject::default()
            }),
            Err(error) => errors.push(told(key, &s3_of(error))),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: Some(deleted),
        errors: Some(errors),
        request_charged: None,
    }))
}

fn told(key: String, error: &S3Error) -> dto::Error {
    dto::Error {
        code: Some(error.code().as_str().to_owned()),
        key: Some(key),
        message: error.message().map(str::to_owned),
        version_id: None,
    }
}
