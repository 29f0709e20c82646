//! Buckets, and what is in them.

use base::Region;
use objects::ObjectInfo;
use objects::local::{BucketInfo, ListQuery, Listing};
use s3s::dto::{
    self, Bucket, BucketLocationConstraint, CommonPrefix, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, DeleteBucketTaggingInput, DeleteBucketTaggingOutput, EncodingType, GetBucketAclInput,
    GetBucketAclOutput, GetBucketLocationInput, GetBucketLocationOutput, GetBucketTaggingInput, GetBucketTaggingOutput,
    GetBucketVersioningInput, GetBucketVersioningOutput, Grant, Grantee, HeadBucketInput, HeadBucketOutput,
    ListBucketsInput, ListBucketsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
    ObjectStorageClass, Owner, Permission, PutBucketTaggingInput, PutBucketTaggingOutput, Type,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use crate::convert::{count, etag, tag_set, tags, timestamp, url_encoded};
use crate::errors::s3_of;
use crate::service::{Service, begin};

const PAGE: usize = objects::limits::LIST_MAX;

pub(crate) fn owner(account: base::AccountId) -> Owner {
    Owner {
        display_name: None,
        id: Some(account.to_string()),
    }
}

/// What AWS answers for a bucket without ACLs: its owner may do all.
pub(crate) fn owners_grant(account: base::AccountId) -> Grant {
    Grant {
        grantee: Some(Grantee {
            display_name: None,
            email_address: None,
            id: Some(account.to_string()),
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        }),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    }
}

pub(crate) async fn buckets(s3: &Service, req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
    let caller = begin(&req, "ListBuckets")?;
    let input = req.input;
    let most = count(input.max_buckets, usize::MAX, "MaxBuckets")?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let (mut found, mut after) = (Vec::new(), input.continuation_token);
    loop {
        let limit = most.saturating_sub(found.len()).clamp(1, PAGE);
        let page = s3.store.buckets(caller.account, &prefix, after.as_deref(), limit).await;
        let (page, next) = page.map_err(s3_of)?;
        let here = |bucket: &BucketInfo| {
            input
                .bucket_region
                .as_ref()
                .is_none_or(|region| *region == bucket.region)
        };
        found.extend(page.into_iter().filter(here));
        after = next;
        if after.is_none() || found.len() >= most {
            break;
        }
    }
    let bucket = |info: BucketInfo| Bucket {
        bucket_region: Some(info.region),
        creation_date: Some(timestamp(info.created)),
        name: Some(info.name),
    };
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(found.into_iter().map(bucket).collect()),
        continuation_token: after,
        owner: Some(owner(caller.account)),
        prefix: input.prefix,
    }))
}

pub(crate) async fn create_bucket(
    s3: &Service,
    req: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let caller = begin(&req, "CreateBucket")?;
    let CreateBucketInput {
        bucket: name,
        create_bucket_configuration: configuration,
        ..
    } = req.input;
    s3.check_here(&caller, &name)?;
    let wanted = configuration.and_then(|configuration| configuration.location_constraint);
    let region: Region = match &wanted {
        // The name that it had at first.
        Some(region) if region.as_str() == "EU" => "eu-west-1".parse(),
        Some(region) => region.as_str().parse(),
        None => Ok(caller.region.clone()),
    }
    .map_err(|_| {
        s3_error!(
            InvalidLocationConstraint,
            "The specified location-constraint is not valid"
        )
    })?;
    let made = s3
        .store
        .create_bucket(caller.account, &name, &region, std::collections::BTreeMap::new())
        .await;
    match made {
        Ok(()) => {}
        // In us-east-1 AWS takes the second call for the first.
        Err(objects::ObjectError::BucketExists(_)) if region.as_str() == "us-east-1" => {}
        Err(objects::ObjectError::Invalid(_)) => {
            return Err(s3_error!(InvalidBucketName, "The specified bucket is not valid."));
        }
        Err(error) => return Err(s3_of(error)),
    }
    Ok(S3Response::new(CreateBucketOutput {
        location: Some(format!("/{name}")),
    }))
}

pub(crate) async fn delete_bucket(
    s3: &Service,
    req: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let caller = begin(&req, "DeleteBucket")?;
    s3.check_here(&caller, &req.input.bucket)?;
    s3.store
        .delete_bucket(caller.account, &req.input.bucket)
        .await
        .map_err(s3_of)?;
    Ok(S3Response::with_status(
        DeleteBucketOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

pub(crate) async fn head_bucket(
    s3: &Service,
    req: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    let caller = begin(&req, "HeadBucket")?;
    let bucket = s3.bucket(&caller, &req.input.bucket).await?;
    Ok(S3Response::new(HeadBucketOutput {
        bucket_region: Some(bucket.info().region.clone()),
        ..HeadBucketOutput::default()
    }))
}

pub(crate) async fn location(
    s3: &Service,
    req: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    let caller = begin(&req, "GetBucketLocation")?;
    let bucket = s3.bucket(&caller, &req.input.bucket).await?;
    // AWS says nothing for its first region.
    let region = Some(bucket.info().region.clone()).filter(|region| region != "us-east-1");
    Ok(S3Response::new(GetBucketLocationOutput {
        location_constraint: region.map(BucketLocationConstraint::from),
    }))
}

pub(crate) async fn versioning(
    s3: &Service,
    req: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let caller = begin(&req, "GetBucketVersioning")?;
    s3.bucket(&caller, &req.input.bucket).await?;
    Ok(S3Response::new(GetBucketVersioningOutput::default()))
}

pub(crate) async fn bucket_acl(
    s3: &Service,
    req: S3Request<GetBucketAclInput>,
) -> S3Result<S3Response<GetBucketAclOutput>> {
    let caller = begin(&req, "GetBucketAcl")?;
    s3.bucket(&caller, &req.input.bucket).await?;
    Ok(S3Response::new(GetBucketAclOutput {
        grants: Some(vec![owners_grant(caller.account)]),
        owner: Some(owner(caller.account)),
    }))
}

pub(crate) async fn bucket_tags(
    s3: &Service,
    req: S3Request<GetBucketTaggingInput>,
) -> S3Result<S3Response<GetBucketTaggingOutput>> {
    let caller = begin(&req, "GetBucketTagging")?;
    let bucket = s3.bucket(&caller, &req.input.bucket).await?;
    let tags = bucket.info().tags.clone();
    if tags.is_empty() {
        return Err(s3_error!(NoSuchTagSet, "The TagSet does not exist"));
    }
    Ok(S3Response::new(GetBucketTaggingOutput { tag_set: tag_set(tags) }))
}

pub(crate) async fn tag_bucket(
    s3: &Service,
    req: S3Request<PutBucketTaggingInput>,
) -> S3Result<S3Response<PutBucketTaggingOutput>> {
    let caller = begin(&req, "PutBucketTagging")?;
    s3.check_here(&caller, &req.input.bucket)?;
    let tags = tags(req.input.tagging.tag_set)?;
    s3.store
        .tag_bucket(caller.account, &req.input.bucket, tags)
        .await
        .map_err(s3_of)?;
    Ok(S3Response::with_status(
        PutBucketTaggingOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

pub(crate) async fn untag_bucket(
    s3: &Service,
    req: S3Request<DeleteBucketTaggingInput>,
) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
    let caller = begin(&req, "DeleteBucketTagging")?;
    s3.check_here(&caller, &req.input.bucket)?;
    let none = std::collections::BTreeMap::new();
    s3.store
        .tag_bucket(caller.account, &req.input.bucket, none)
        .await
        .map_err(s3_of)?;
    Ok(S3Response::with_status(
        DeleteBucketTaggingOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

/// How the keys of an answer are written.
struct Shown {
    encoded: bool,
}

impl Shown {
    fn of(sent: Option<&EncodingType>) -> S3Result<Self> {
        match sent.map(EncodingType::as_str) {
            None => Ok(Shown { encoded: false }),
            Some("url") => Ok(Shown { encoded: true }),
            Some(_) => Err(s3_error!(
                InvalidArgument,
                "Invalid Encoding Method specified in Request"
            )),
        }
    }

    fn text(&self, text: String) -> String {
        if self.encoded { url_encoded(&text) } else { text }
    }

    fn object(&self, info: ObjectInfo, owned_by: Option<&Owner>) -> dto::Object {
        dto::Object {
            e_tag: Some(etag(&info.etag)),
            key: Some(self.text(info.key)),
            last_modified: Some(timestamp(info.modified)),
            owner: owned_by.cloned(),
            size: i64::try_from(info.size).ok(),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..dto::Object::default()
        }
    }

    fn prefixes(&self, prefixes: Vec<String>) -> Option<Vec<CommonPrefix>> {
        let one = |prefix| CommonPrefix {
            prefix: Some(self.text(prefix)),
        };
        let all: Vec<CommonPrefix> = prefixes.into_iter().map(one).collect();
        Some(all).filter(|all| !all.is_empty())
    }
}

/// A page, or nothing of it where none was wanted.
async fn page(s3: &Service, caller: &base::Caller, bucket: &str, query: ListQuery, wanted: usize) -> S3Result<Listing> {
    let bucket = s3.bucket(caller, bucket).await?;
    if wanted == 0 {
        return Ok(Listing::default());
    }
    bucket.list_page(&query).await.map_err(s3_of)
}

fn shown_count(count: usize) -> Option<i32> {
    i32::try_from(count).ok()
}

pub(crate) async fn objects_v1(
    s3: &Service,
    req: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let caller = begin(&req, "ListObjects")?;
    let input = req.input;
    let (shown, wanted) = (
        Shown::of(input.encoding_type.as_ref())?,
        count(input.max_keys, PAGE, "max-keys")?,
    );
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        after: input.marker.clone().filter(|marker| !marker.is_empty()),
        delimiter: input.delimiter.clone(),
        limit: wanted.min(PAGE),
    };
    let listing = page(s3, &caller, &input.bucket, query, wanted).await?;
    let owner = owner(caller.account);
    let with_delimiter = input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty());
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(shown.text(input.prefix.unwrap_or_default())),
        marker: Some(shown.text(input.marker.unwrap_or_default())),
        max_keys: shown_count(wanted.min(PAGE)),
        is_truncated: Some(listing.next.is_some()),
        // Said only where there is a delimiter; else the last key is the marker.
        next_marker: listing.next.filter(|_| with_delimiter).map(|next| shown.text(next)),
        contents: Some(
            listing
                .objects
                .into_iter()
                .map(|object| shown.object(object, Some(&owner)))
                .collect(),
        ),
        common_prefixes: shown.prefixes(listing.prefixes),
        delimiter: input.delimiter.map(|delimiter| shown.text(delimiter)),
        encoding_type: input.encoding_type,
        request_charged: None,
    }))
}

pub(crate) async fn objects_v2(
    s3: &Service,
    req: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let caller = begin(&req, "ListObjectsV2")?;
    let input = req.input;
    let (shown, wanted) = (
        Shown::of(input.encoding_type.as_ref())?,
        count(input.max_keys, PAGE, "max-keys")?,
    );
    let token = |text: &String| {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let after = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        after.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
    };
    let after = match &input.continuation_token {
        Some(text) => Some(token(text)?),
        None => input.start_after.clone().filter(|after| !after.is_empty()),
    };
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        after,
        delimiter: input.delimiter.clone(),
        limit: wanted.min(PAGE),
    };
    let listing = page(s3, &caller, &input.bucket, query, wanted).await?;
    let owner = Some(owner(caller.account)).filter(|_| input.fetch_owner == Some(true));
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(shown.text(input.prefix.unwrap_or_default())),
        max_keys: shown_count(wanted.min(PAGE)),
        key_count: shown_count(listing.objects.len() + listing.prefixes.len()),
        continuation_token: input.continuation_token,
        is_truncated: Some(listing.next.is_some()),
        next_continuation_token: listing.next.map(|next| URL_SAFE_NO_PAD.encode(next)),
        contents: Some(
            listing
                .objects
                .into_iter()
                .map(|object| shown.object(object, owner.as_ref()))
                .collect(),
        ),
        common_prefixes: shown.prefixes(listing.prefixes),
        delimiter: input.delimiter.map(|delimiter| shown.text(delimiter)),
        encoding_type: input.encoding_type,
        start_after: input.start_after.map(|after| shown.text(after)),
        request_charged: None,
    }))
}
