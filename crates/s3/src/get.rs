//! Reading objects: their bytes, and what is known of them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use objects::{ByteRange, Object, ObjectError, ObjectStream};
use parking_lot::Mutex;
use s3s::dto::{
    self, Checksum, GetObjectAclInput, GetObjectAclOutput, GetObjectAttributesInput, GetObjectAttributesOutput,
    GetObjectAttributesParts, GetObjectInput, GetObjectOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    HeadObjectInput, HeadObjectOutput, ObjectAttributes, Range, StorageClass, StreamingBlob,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, StdError, s3_error};

use crate::convert::{
    Demanded, Demands, Sums, content_type, etag, expires, kind_name, sent_metadata, tag_set, timestamp,
};
use crate::errors::{Failure, s3_of};
use crate::list::{owner, owners_grant};
use crate::service::{Service, begin, is_no_version};

/// [`ObjectStream`] as `s3s` takes it: shared between threads, though only one ever reads it.
struct Shared {
    stream: Mutex<ObjectStream>,
    left: usize,
}

impl Stream for Shared {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.get_mut().as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.left = self.left.saturating_sub(bytes.len());
        }
        polled.map(|item| item.map(|outcome| outcome.map_err(|error| Box::new(error) as StdError)))
    }
}

impl s3s::stream::ByteStream for Shared {
    fn remaining_length(&self) -> s3s::stream::RemainingLength {
        s3s::stream::RemainingLength::new_exact(self.left)
    }
}

fn not_modified(object: &Object) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_status_code(http::StatusCode::NOT_MODIFIED);
    let mut headers = http::HeaderMap::new();
    if let Ok(tag) = etag(&object.etag).to_http_header() {
        headers.insert(http::header::ETAG, tag);
    }
    let modified = crate::convert::formatted(&timestamp(object.modified), dto::TimestampFormat::HttpDate);
    if let Some(value) = modified.and_then(|text| text.parse().ok()) {
        headers.insert(http::header::LAST_MODIFIED, value);
    }
    error.set_headers(headers);
    error
}

fn check(demands: &Demands, object: &Object) -> Result<(), Failure> {
    match demands.of(object) {
        Demanded::Met => Ok(()),
        Demanded::NotModified => Err(not_modified(object).into()),
        Demanded::Failed => Err(s3_of(ObjectError::PreconditionFailed("of the request")).into()),
    }
}

fn range_of(range: Range) -> ByteRange {
    match range {
        Range::Int { first, last: None } => ByteRange::From(first),
        Range::Int {
            first,
            last: Some(last),
        } => ByteRange::Between(first, last),
        Range::Suffix { length } => ByteRange::Last(length),
    }
}

/// Which bytes are meant, and what the answer says of them.
#[derive(Clone, Copy, Default)]
struct Chosen {
    first: u64,
    bytes: u64,
    partial: bool,
    parts: Option<u16>,
}

impl Chosen {
    fn content_range(self, object: &Object) -> Option<String> {
        let last = (self.first + self.bytes).saturating_sub(1);
        self.partial
            .then(|| format!("bytes {}-{last}/{}", self.first, object.size))
    }
}

/// The part of that number as a range, if one is asked for.
async fn part_range(
    bucket: &objects::local::LocalBucket,
    key: &str,
    number: Option<i32>,
    ranged: bool,
) -> Result<Option<(u64, u64, Option<u16>)>, Failure> {
    let Some(number) = number else { return Ok(None) };
    if ranged {
        return Err(s3_error!(
            InvalidRequest,
            "Cannot specify both Range header and partNumber query parameter"
        )
        .into());
    }
    let number = u16::try_from(number)
        .ok()
        .filter(|number| (1..=objects::limits::PARTS_MAX).contains(number));
    let number = number.ok_or_else(|| {
        s3_error!(
            InvalidArgument,
            "Part number must be an integer between 1 and 10000, inclusive"
        )
    })?;
    match bucket.part_span(key, number).await {
        Ok(span) => Ok(Some(span)),
        Err(ObjectError::RangeNotSatisfiable(_)) => {
            let code = S3ErrorCode::from_bytes(b"InvalidPartNumber").unwrap_or(S3ErrorCode::InvalidRange);
            let mut error = S3Error::with_message(code, "The requested partnumber is not satisfiable");
            error.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn choose(object: &Object, range: Option<Range>, part: Option<(u64, u64, Option<u16>)>) -> Result<Chosen, Failure> {
    let whole = Chosen {
        bytes: object.size,
        ..Chosen::default()
    };
    match (range, part) {
        (_, Some((first, bytes, parts))) => {
            // The object may have been replaced since its parts were looked at.
            let fits = first.checked_add(bytes).is_some_and(|end| end <= object.size);
            let bytes = if fits { bytes } else { 0 };
            Ok(Chosen {
                first,
                bytes,
                partial: bytes > 0,
                parts,
            })
        }
        (None, None) => Ok(whole),
        (Some(range), None) => {
            let (first, bytes) = range_of(range).within(object.size)?;
            Ok(Chosen {
                first,
                bytes,
                partial: true,
                parts: None,
            })
        }
    }
}

pub(crate) async fn object(s3: &Service, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
    let caller = begin(&req, "GetObject")?;
    let input = req.input;
    is_no_version(input.version_id.as_deref())?;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let demands = Demands {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    let read = async {
        let part = part_range(&bucket, &input.key, input.part_number, input.range.is_some()).await?;
        let chosen = |object: &Object| {
            check(&demands, object)?;
            choose(object, input.range, part)
        };
        let read = bucket.read(&input.key, |object| {
            let chosen = chosen(object)?;
            Ok::<_, Failure>((chosen.first, chosen.bytes))
        });
        let (object, stream) = read.await?;
        let chosen = chosen(&object)?;
        Ok::<_, Failure>((object, stream, chosen))
    };
    let outcome = read.await;
    let (object, stream, chosen) = outcome.map_err(|failure| Service::hide(&caller, &input.bucket, failure))?;
    let whole = chosen.bytes == object.size;
    let sums = checksums(&object, input.checksum_mode.as_ref(), whole);
    let left = usize::try_from(chosen.bytes).unwrap_or(usize::MAX);
    let stream = Mutex::new(stream);
    let output = GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(StreamingBlob::new(Shared { stream, left })),
        cache_control: object.facts.headers.cache_control.clone(),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: input
            .checksum_mode
            .filter(|_| whole)
            .map(|_| kind_name(object.checksum.kind)),
        content_disposition: object.facts.headers.content_disposition.clone(),
        content_encoding: object.facts.headers.content_encoding.clone(),
        content_language: object.facts.headers.content_language.clone(),
        content_length: i64::try_from(chosen.bytes).ok(),
        content_range: chosen.content_range(&object),
        content_type: Some(content_type(&object.facts)),
        e_tag: Some(etag(&object.etag)),
        expires: expires(&object.facts),
        last_modified: Some(timestamp(object.modified)),
        metadata: sent_metadata(&object.facts.metadata),
        parts_count: chosen.parts.map(i32::from),
        tag_count: i32::try_from(object.facts.tags.len()).ok().filter(|count| *count > 0),
        ..GetObjectOutput::default()
    };
    Ok(match chosen.partial {
        true => S3Response::with_status(output, http::StatusCode::PARTIAL_CONTENT),
        false => S3Response::new(output),
    })
}

fn checksums(object: &Object, mode: Option<&dto::ChecksumMode>, whole: bool) -> Sums {
    match mode {
        Some(_) if whole => Sums::kept(&object.checksum, object.parts),
        _ => Sums::default(),
    }
}

pub(crate) async fn head(s3: &Service, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
    let caller = begin(&req, "HeadObject")?;
    let input = req.input;
    is_no_version(input.version_id.as_deref())?;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let demands = Demands {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    let look = async {
        let part = part_range(&bucket, &input.key, input.part_number, input.range.is_some()).await?;
        let object = bucket.find(&input.key).await?;
        check(&demands, &object)?;
        let chosen = choose(&object, input.range, part)?;
        Ok::<_, Failure>((object, chosen))
    };
    let outcome = look.await;
    let (object, chosen) = outcome.map_err(|failure| Service::hide(&caller, &input.bucket, failure))?;
    let whole = chosen.bytes == object.size;
    let sums = checksums(&object, input.checksum_mode.as_ref(), whole);
    let output = HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: object.facts.headers.cache_control.clone(),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: input
            .checksum_mode
            .filter(|_| whole)
            .map(|_| kind_name(object.checksum.kind)),
        content_disposition: object.facts.headers.content_disposition.clone(),
        content_encoding: object.facts.headers.content_encoding.clone(),
        content_language: object.facts.headers.content_language.clone(),
        content_length: i64::try_from(chosen.bytes).ok(),
        content_range: chosen.content_range(&object),
        content_type: Some(content_type(&object.facts)),
        e_tag: Some(etag(&object.etag)),
        expires: expires(&object.facts),
        last_modified: Some(timestamp(object.modified)),
        metadata: sent_metadata(&object.facts.metadata),
        parts_count: chosen.parts.map(i32::from),
        ..HeadObjectOutput::default()
    };
    Ok(match chosen.partial {
        true => S3Response::with_status(output, http::StatusCode::PARTIAL_CONTENT),
        false => S3Response::new(output),
    })
}

pub(crate) async fn attributes(
    s3: &Service,
    req: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let caller = begin(&req, "GetObjectAttributes")?;
    let input = req.input;
    is_no_version(input.version_id.as_deref())?;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let object = bucket.find(&input.key).await.map_err(Failure::from);
    let object = object.map_err(|failure| Service::hide(&caller, &input.bucket, failure))?;
    // One header may name several.
    let named = |name: &str, attribute: &ObjectAttributes| attribute.as_str().split(',').any(|one| one.trim() == name);
    let asked = |name: &str| input.object_attributes.iter().any(|attribute| named(name, attribute));
    let sums = Sums::kept(&object.checksum, object.parts);
    let checksum = Checksum {
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: Some(kind_name(object.checksum.kind)),
    };
    let parts = object.parts.map(|parts| GetObjectAttributesParts {
        total_parts_count: Some(i32::from(parts)),
        ..GetObjectAttributesParts::default()
    });
    Ok(S3Response::new(GetObjectAttributesOutput {
        checksum: Some(checksum).filter(|_| asked(ObjectAttributes::CHECKSUM)),
        e_tag: Some(etag(&object.etag)).filter(|_| asked(ObjectAttributes::ETAG)),
        last_modified: Some(timestamp(object.modified)),
        object_parts: parts.filter(|_| asked(ObjectAttributes::OBJECT_PARTS)),
        object_size: i64::try_from(object.size)
            .ok()
            .filter(|_| asked(ObjectAttributes::OBJECT_SIZE)),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD))
            .filter(|_| asked(ObjectAttributes::STORAGE_CLASS)),
        ..GetObjectAttributesOutput::default()
    }))
}

pub(crate) async fn tags(
    s3: &Service,
    req: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let caller = begin(&req, "GetObjectTagging")?;
    is_no_version(req.input.version_id.as_deref())?;
    let bucket = s3.bucket(&caller, &req.input.bucket).await?;
    let object = bucket.find(&req.input.key).await.map_err(s3_of)?;
    Ok(S3Response::new(GetObjectTaggingOutput {
        tag_set: tag_set(object.facts.tags),
        version_id: None,
    }))
}

pub(crate) async fn acl(s3: &Service, req: S3Request<GetObjectAclInput>) -> S3Result<S3Response<GetObjectAclOutput>> {
    let caller = begin(&req, "GetObjectAcl")?;
    is_no_version(req.input.version_id.as_deref())?;
    let bucket = s3.bucket(&caller, &req.input.bucket).await?;
    bucket.find(&req.input.key).await.map_err(s3_of)?;
    Ok(S3Response::new(GetObjectAclOutput {
        grants: Some(vec![owners_grant(caller.account)]),
        owner: Some(owner(caller.account)),
        request_charged: None,
    }))
}
