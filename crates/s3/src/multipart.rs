//! Uploads in parts.

use objects::digest::{Algorithm, ChecksumKind};
use objects::local::{CompletedPart, Expected, PartInfo, UploadStart};
use objects::{ByteRange, Facts, Id, Object, ObjectError};
use s3s::dto::{
    self, AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumType, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyPartResult, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part,
    Range, StorageClass, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use crate::convert::{
    Demands, SentHeaders, Sums, algorithm, algorithm_name, bare, checksum_value, conditions, count, etag, header_tags,
    kind_name, metadata, source, timestamp, upload_id, url_encoded,
};
use crate::errors::{Failure, s3_of};
use crate::list::owner;
use crate::put::{Announced, check_source, next};
use crate::service::{Service, begin, demand_source};

const PAGE: usize = objects::limits::LIST_MAX;

/// The checksum of an upload, by what its client named; without a type it is AWS's default for the algorithm.
fn chosen(
    named: Option<&dto::ChecksumAlgorithm>,
    kind: Option<&ChecksumType>,
) -> S3Result<Option<(Algorithm, ChecksumKind)>> {
    let kind = match kind.map(ChecksumType::as_str) {
        None => None,
        Some("FULL_OBJECT") => Some(ChecksumKind::FullObject),
        Some("COMPOSITE") => Some(ChecksumKind::Composite),
        Some(_) => {
            return Err(s3_error!(
                InvalidRequest,
                "Value for x-amz-checksum-type header is invalid."
            ));
        }
    };
    let Some(algorithm) = algorithm(named)? else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(s3_error!(
                InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            )),
        };
    };
    let default = match algorithm {
        Algorithm::Crc64Nvme => ChecksumKind::FullObject,
        _ => ChecksumKind::Composite,
    };
    Ok(Some((algorithm, kind.unwrap_or(default))))
}

pub(crate) async fn create(
    s3: &Service,
    req: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let caller = begin(&req, "CreateMultipartUpload")?;
    let input = req.input;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let checksum = chosen(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let sent = SentHeaders {
        content_type: input.content_type.as_deref(),
        content_encoding: input.content_encoding.as_deref(),
        content_language: input.content_language.as_deref(),
        content_disposition: input.content_disposition.as_deref(),
        cache_control: input.cache_control.as_deref(),
        expires: input.expires.as_ref(),
    };
    let facts = Facts {
        headers: sent.kept(),
        metadata: metadata(input.metadata),
        tags: header_tags(input.tagging.as_deref())?,
    };
    let id = bucket
        .begin_parts(&input.key, UploadStart { facts, checksum })
        .await
        .map_err(s3_of)?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        checksum_algorithm: checksum.map(|(algorithm, _)| algorithm_name(algorithm)),
        checksum_type: checksum.map(|(_, kind)| kind_name(kind)),
        key: Some(input.key),
        upload_id: Some(id.to_string()),
        ..CreateMultipartUploadOutput::default()
    }))
}

/// A number that no upload has is refused by `objects` in AWS's words.
fn number(sent: i32) -> u16 {
    u16::try_from(sent).unwrap_or(0)
}

fn part_sums(part: &PartInfo) -> Sums {
    match &part.checksum {
        Some((algorithm, value)) => Sums::of(*algorithm, value),
        None => Sums::default(),
    }
}

pub(crate) async fn part(s3: &Service, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
    let caller = begin(&req, "UploadPart")?;
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
    let id = upload_id(&input.upload_id)?;
    let writer = bucket
        .write_part(
            &input.key,
            id,
            number(input.part_number),
            announced.algorithm,
            announced.tag_of(),
        )
        .await;
    let mut writer = writer.map_err(s3_of)?;
    if let Some(mut body) = input.body {
        while let Some(bytes) = next(&mut body).await? {
            writer.write(bytes).await.map_err(s3_of)?;
        }
    }
    let part = writer.finish(&announced.expected()?).await.map_err(s3_of)?;
    let sums = part_sums(&part);
    Ok(S3Response::new(UploadPartOutput {
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        e_tag: Some(etag(&part.etag)),
        ..UploadPartOutput::default()
    }))
}

pub(crate) async fn copy(
    s3: &Service,
    req: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let caller = begin(&req, "UploadPartCopy")?;
    let input = req.input;
    let (from_name, from_key) = source(&input.copy_source)?;
    demand_source(&caller, &from_name, &from_key)?;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let from = s3.bucket(&caller, &from_name).await?;
    let id = upload_id(&input.upload_id)?;
    let wrong = || {
        s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy"
        )
    };
    let range = match input.copy_source_range.as_deref().map(Range::parse) {
        None => None,
        Some(Ok(Range::Int {
            first,
            last: Some(last),
        })) if first <= last => Some((first, last)),
        Some(_) => return Err(wrong()),
    };
    let demands = Demands {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let choose = |source: &Object| {
        check_source(&demands, source)?;
        match range {
            None => Ok((0, source.size)),
            Some((_, last)) if last >= source.size => Err(Failure(s3_error!(
                InvalidArgument,
                "Range specified is not valid for source object of size: {}",
                source.size
            ))),
            Some((first, last)) => Ok(ByteRange::Between(first, last).within(source.size)?),
        }
    };
    let place = (input.key.as_str(), id, number(input.part_number));
    let copied = bucket.copy_part(place, &from, &from_key, choose).await;
    let part = copied.map_err(|failure| Service::hide(&caller, &from_name, failure))?;
    let sums = part_sums(&part);
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(CopyPartResult {
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            e_tag: Some(etag(&part.etag)),
            last_modified: Some(timestamp(part.modified)),
        }),
        ..UploadPartCopyOutput::default()
    }))
}

pub(crate) async fn list(s3: &Service, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
    let caller = begin(&req, "ListParts")?;
    let input = req.input;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let wanted = count(input.max_parts, PAGE, "max-parts")?;
    let after = count(input.part_number_marker, 0, "part-number-marker")?;
    let after_number = u16::try_from(after).unwrap_or(u16::MAX);
    let id = upload_id(&input.upload_id)?;
    let page = bucket
        .list_parts(&input.key, id, after_number, wanted.min(PAGE))
        .await
        .map_err(s3_of)?;
    let shown = if wanted == 0 { Vec::new() } else { page.parts };
    let part = |part: PartInfo| {
        let sums = part_sums(&part);
        Part {
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            e_tag: Some(etag(&part.etag)),
            last_modified: Some(timestamp(part.modified)),
            part_number: Some(i32::from(part.number)),
            size: i64::try_from(part.size).ok(),
        }
    };
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        checksum_algorithm: page.checksum.map(|(algorithm, _)| algorithm_name(algorithm)),
        checksum_type: page.checksum.map(|(_, kind)| kind_name(kind)),
        is_truncated: Some(wanted > 0 && page.next.is_some()),
        key: Some(input.key),
        max_parts: i32::try_from(wanted.min(PAGE)).ok(),
        next_part_number_marker: page.next.filter(|_| wanted > 0).map(i32::from),
        owner: Some(owner(caller.account)),
        part_number_marker: i32::try_from(after).ok(),
        parts: Some(shown.into_iter().map(part).collect()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        upload_id: Some(input.upload_id),
        ..ListPartsOutput::default()
    }))
}

pub(crate) async fn uploads(
    s3: &Service,
    req: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let caller = begin(&req, "ListMultipartUploads")?;
    let input = req.input;
    if input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty()) {
        return Err(s3_error!(NotImplemented, "ListMultipartUploads takes no delimiter."));
    }
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let wanted = count(input.max_uploads, PAGE, "max-uploads")?;
    let marker = input.upload_id_marker.as_deref().filter(|marker| !marker.is_empty());
    let marker: Option<Id> = marker.map(upload_id).transpose()?;
    let key_marker = input.key_marker.as_deref().filter(|marker| !marker.is_empty());
    let after = key_marker.map(|key| (key, marker));
    let prefix = input.prefix.clone().unwrap_or_default();
    let page = bucket
        .list_uploads(&prefix, after, wanted.min(PAGE))
        .await
        .map_err(s3_of)?;
    let encoded = input.encoding_type.is_some();
    let text = |text: String| if encoded { url_encoded(&text) } else { text };
    let (next_key, next_id) = page.next.filter(|_| wanted > 0).unzip();
    let upload = |info: objects::local::UploadInfo| MultipartUpload {
        checksum_algorithm: info.checksum.map(|(algorithm, _)| algorithm_name(algorithm)),
        checksum_type: info.checksum.map(|(_, kind)| kind_name(kind)),
        initiated: Some(timestamp(info.begun)),
        initiator: None,
        key: Some(text(info.key)),
        owner: Some(owner(caller.account)),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        upload_id: Some(info.id.to_string()),
    };
    let shown = if wanted == 0 { Vec::new() } else { page.uploads };
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        encoding_type: input.encoding_type,
        is_truncated: Some(next_key.is_some()),
        key_marker: input.key_marker,
        max_uploads: i32::try_from(wanted.min(PAGE)).ok(),
        next_key_marker: next_key.map(text),
        next_upload_id_marker: next_id.map(|id| id.to_string()),
        prefix: input.prefix.map(text),
        upload_id_marker: input.upload_id_marker,
        uploads: Some(shown.into_iter().map(upload).collect()),
        ..ListMultipartUploadsOutput::default()
    }))
}

pub(crate) async fn complete(
    s3: &Service,
    req: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let caller = begin(&req, "CompleteMultipartUpload")?;
    let input = req.input;
    let bucket = s3.bucket(&caller, &input.bucket).await?;
    let named = input
        .multipart_upload
        .and_then(|upload| upload.parts)
        .unwrap_or_default();
    let parts: Vec<CompletedPart> = named.into_iter().map(completed).collect::<S3Result<_>>()?;
    let id = upload_id(&input.upload_id)?;
    let sums = Sums {
        crc32: input.checksum_crc32,
        crc32c: input.checksum_crc32c,
        crc64nvme: input.checksum_crc64nvme,
        sha1: input.checksum_sha1,
        sha256: input.checksum_sha256,
    };
    let sent = sums.sent()?;
    let upload = bucket.upload(&input.key, id).await.map_err(s3_of)?;
    let (algorithm, kind) = upload
        .checksum
        .unwrap_or((Algorithm::Crc64Nvme, ChecksumKind::FullObject));
    let other_kind = input
        .checksum_type
        .as_ref()
        .is_some_and(|sent| *sent != kind_name(kind));
    if other_kind || sent.as_ref().is_some_and(|(sent, _)| *sent != algorithm) {
        return Err(s3_error!(
            InvalidRequest,
            "The upload was created using another checksum or checksum type."
        ));
    }
    let expected = Expected {
        md5: None,
        checksum: sent.map(|(_, value)| value),
        bytes: input.mpu_object_size.and_then(|size| u64::try_from(size).ok()),
    };
    let conditions = conditions(input.if_match.as_ref(), input.if_none_match.as_ref());
    let done = bucket.complete(&input.key, id, &parts, &conditions, &expected).await;
    let object = done.map_err(|error| match error {
        // No parts at all is not the shape that the document must have.
        ObjectError::Invalid(text) if parts.is_empty() => s3_error!(MalformedXML, "{text}"),
        error => s3_of(error),
    })?;
    let sums = Sums::kept(&object.checksum, object.parts);
    Ok(S3Response::new(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, url_encoded(&input.key))),
        bucket: Some(input.bucket),
        checksum_crc32: sums.crc32,
        checksum_crc32c: sums.crc32c,
        checksum_crc64nvme: sums.crc64nvme,
        checksum_sha1: sums.sha1,
        checksum_sha256: sums.sha256,
        checksum_type: Some(kind_name(object.checksum.kind)),
        e_tag: Some(etag(&object.etag)),
        key: Some(input.key),
        ..CompleteMultipartUploadOutput::default()
    }))
}

fn completed(part: dto::CompletedPart) -> S3Result<CompletedPart> {
    let all = [
        (Algorithm::Crc32, part.checksum_crc32),
        (Algorithm::Crc32c, part.checksum_crc32c),
        (Algorithm::Crc64Nvme, part.checksum_crc64nvme),
        (Algorithm::Sha1, part.checksum_sha1),
        (Algorithm::Sha256, part.checksum_sha256),
    ];
    let sent = all.into_iter().find_map(|(algorithm, text)| Some((algorithm, text?)));
    let value =
        |(algorithm, text): (Algorithm, String)| checksum_value(algorithm, &text).map(|value| (algorithm, value));
    let checksum = sent.map(value).transpose()?;
    let number = part.part_number.map_or(0, number);
    Ok(CompletedPart {
        number,
        etag: part.e_tag.map(|tag| bare(tag.value())),
        checksum,
    })
}

pub(crate) async fn abort(
    s3: &Service,
    req: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let caller = begin(&req, "AbortMultipartUpload")?;
    let bucket = s3.bucket(&caller, &req.input.bucket).await?;
    let id = upload_id(&req.input.upload_id)?;
    bucket.abort_parts(&req.input.key, id).await.map_err(s3_of)?;
    Ok(S3Response::with_status(
        AbortMultipartUploadOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}
