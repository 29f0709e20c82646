//! The operations of S3 on buckets of the data directory, and what is said of buckets that lie elsewhere. Every operation
//! that is not here answers `NotImplemented`, which is what the trait of `s3s` does by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Caller;
use objects::ObjectError;
use objects::local::{LocalBucket, Store};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CopyObjectInput, CopyObjectOutput, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput, DeleteBucketTaggingInput,
    DeleteBucketTaggingOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectTaggingInput,
    DeleteObjectTaggingOutput, DeleteObjectsInput, DeleteObjectsOutput, GetBucketAclInput, GetBucketAclOutput,
    GetBucketLocationInput, GetBucketLocationOutput, GetBucketTaggingInput, GetBucketTaggingOutput,
    GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectAclInput, GetObjectAclOutput,
    GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectInput, GetObjectOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, PutBucketTaggingInput,
    PutBucketTaggingOutput, PutObjectInput, PutObjectOutput, PutObjectTaggingInput, PutObjectTaggingOutput,
    UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::access::{Claimed, SEEN, arn, demand};
use crate::errors::{Failure, s3_of};
use crate::mount::OPERATIONS;

/// What the protocol stands on.
pub struct Parts {
    /// The buckets of the data directory.
    pub store: Store,
    /// Where buckets of an account lie that the configuration names, in words: `name` of `(account, name)`.
    pub elsewhere: BTreeMap<(base::AccountId, String), String>,
}

pub(crate) struct Service {
    pub store: Store,
    elsewhere: BTreeMap<(base::AccountId, String), String>,
}

impl Service {
    pub fn new(parts: Parts) -> Self {
        Service {
            store: parts.store,
            elsewhere: parts.elsewhere,
        }
    }

    /// Refuses a bucket that lies elsewhere.
    pub fn check_here(&self, caller: &Caller, name: &str) -> S3Result<()> {
        match self.elsewhere.get(&(caller.account, name.to_owned())) {
            None => Ok(()),
            Some(place) => Err(s3_error!(
                InvalidRequest,
                "The bucket {name} does not lie in this server but at {place}; address it there."
            )),
        }
    }

    pub async fn bucket(&self, caller: &Caller, name: &str) -> S3Result<Arc<LocalBucket>> {
        self.check_here(caller, name)?;
        self.store.bucket(caller.account, name).await.map_err(s3_of)
    }

    /// What a failed look at an object is to one who may not list the bucket: no word about what exists.
    pub fn hide(caller: &Caller, bucket: &str, failure: Failure) -> s3s::S3Error {
        let missing = *failure.0.code() == s3s::S3ErrorCode::NoSuchKey;
        if missing && !caller.authorizer.allows("s3:ListBucket", &arn(bucket, None)) {
            return s3_error!(AccessDenied, "Access Denied");
        }
        failure.0
    }
}

/// Who asks; notes the operation for log and metrics.
pub(crate) fn begin<T>(req: &S3Request<T>, operation: &str) -> S3Result<Caller> {
    let known = OPERATIONS.iter().find(|known| **known == operation);
    let _ = SEEN.try_with(|seen| seen.lock().operation = known.copied());
    let claimed = req.extensions.get::<Claimed>();
    claimed
        .map(|Claimed(caller)| caller.clone())
        .ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))
}

pub(crate) fn is_no_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(
            NoSuchVersion,
            "The specified version does not exist: buckets are not versioned."
        )),
    }
}

/// One line per operation: the work is in the modules.
macro_rules! operations {
    ($($name:ident: $input:ident -> $output:ident = $work:path;)*) => {
        #[async_trait::async_trait]
        impl S3 for Service {
            $(
                async fn $name(&self, req: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    $work(self, req).await
                }
            )*
        }
    };
}

operations! {
    list_buckets: ListBucketsInput -> ListBucketsOutput = crate::list::buckets;
    create_bucket: CreateBucketInput -> CreateBucketOutput = crate::list::create_bucket;
    delete_bucket: DeleteBucketInput -> DeleteBucketOutput = crate::list::delete_bucket;
    head_bucket: HeadBucketInput -> HeadBucketOutput = crate::list::head_bucket;
    get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput = crate::list::location;
    get_bucket_versioning: GetBucketVersioningInput -> GetBucketVersioningOutput = crate::list::versioning;
    get_bucket_acl: GetBucketAclInput -> GetBucketAclOutput = crate::list::bucket_acl;
    get_bucket_tagging: GetBucketTaggingInput -> GetBucketTaggingOutput = crate::list::bucket_tags;
    put_bucket_tagging: PutBucketTaggingInput -> PutBucketTaggingOutput = crate::list::tag_bucket;
    delete_bucket_tagging: DeleteBucketTaggingInput -> DeleteBucketTaggingOutput = crate::list::untag_bucket;
    list_objects: ListObjectsInput -> ListObjectsOutput = crate::list::objects_v1;
    list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output = crate::list::objects_v2;
    get_object: GetObjectInput -> GetObjectOutput = crate::get::object;
    head_object: HeadObjectInput -> HeadObjectOutput = crate::get::head;
    get_object_attributes: GetObjectAttributesInput -> GetObjectAttributesOutput = crate::get::attributes;
    get_object_tagging: GetObjectTaggingInput -> GetObjectTaggingOutput = crate::get::tags;
    get_object_acl: GetObjectAclInput -> GetObjectAclOutput = crate::get::acl;
    put_object: PutObjectInput -> PutObjectOutput = crate::put::object;
    copy_object: CopyObjectInput -> CopyObjectOutput = crate::put::copy;
    put_object_tagging: PutObjectTaggingInput -> PutObjectTaggingOutput = crate::put::tag;
    delete_object_tagging: DeleteObjectTaggingInput -> DeleteObjectTaggingOutput = crate::put::untag;
    delete_object: DeleteObjectInput -> DeleteObjectOutput = crate::put::delete;
    delete_objects: DeleteObjectsInput -> DeleteObjectsOutput = crate::put::delete_many;
    create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput = crate::multipart::create;
    upload_part: UploadPartInput -> UploadPartOutput = crate::multipart::part;
    upload_part_copy: UploadPartCopyInput -> UploadPartCopyOutput = crate::multipart::copy;
    list_parts: ListPartsInput -> ListPartsOutput = crate::multipart::list;
    list_multipart_uploads: ListMultipartUploadsInput -> ListMultipartUploadsOutput = crate::multipart::uploads;
    complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput
        = crate::multipart::complete;
    abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput = crate::multipart::abort;
}

/// The source of a copy may be read by the caller.
pub(crate) fn demand_source(caller: &Caller, bucket: &str, key: &str) -> S3Result<()> {
    demand(caller, "s3:GetObject", &arn(bucket, Some(key)))
}

impl From<Failure> for ObjectError {
    /// The way back, for the places where `objects` asks in its own words.
    fn from(failure: Failure) -> Self {
        ObjectError::Invalid(failure.0.message().unwrap_or_default().to_owned())
    }
}
