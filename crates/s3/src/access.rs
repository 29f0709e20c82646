//! Whose key signs a request, and what it may do. The head is judged by `auth` before `s3s` sees anything: key, session
//! token, dates, and that everything that matters is signed. `s3s` then proves the signature with the secret.

use std::sync::Arc;

use auth::{AuthError, KeyStore, Secret};
use base::{Caller, Region};
use http::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3Result, s3_error};

use crate::errors::of_auth;

/// Who claims to have signed a request; in the request's extensions.
#[derive(Clone)]
pub(crate) struct Claimed(pub Caller);

/// What the mount learns of a request while `s3s` works on it.
#[derive(Default)]
pub(crate) struct Seen {
    pub operation: Option<&'static str>,
    pub account: Option<base::AccountId>,
}

tokio::task_local! {
    /// The key of the signature in the head of the request that this task answers, and its secret.
    pub(crate) static SIGNER: Option<(String, Secret)>;
    /// What is told to log and metrics.
    pub(crate) static SEEN: parking_lot::Mutex<Seen>;
}

/// Gives `s3s` the secret of the key whose claim was checked, and of no other. A signature in a form has no claim in the
/// head: its key must be a permanent one.
pub(crate) struct Keys(pub Arc<KeyStore>);

fn unknown_region() -> Result<Region, S3Error> {
    "aws-global".parse().map_err(|_| s3_error!(InternalError))
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let unknown = || of_auth(&AuthError::UnknownKey, false, false);
        let signer = SIGNER.try_with(Clone::clone).map_err(|_| s3_error!(InternalError))?;
        match signer {
            Some((id, secret)) if id == access_key => Ok(SecretKey::from(secret.reveal())),
            Some(_) => Err(unknown()),
            None => {
                let (_, secret) = self.0.unproven(access_key, unknown_region()?).map_err(|_| unknown())?;
                Ok(SecretKey::from(secret.reveal()))
            }
        }
    }
}

/// S3's action of an operation, and whether it is one on the bucket or on the object. `None` where the operation itself asks,
/// object by object.
fn action(operation: &str) -> Option<&str> {
    Some(match operation {
        "GetObject" | "HeadObject" => "s3:GetObject",
        "PutObject"
        | "PostObject"
        | "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload" => "s3:PutObject",
        "ListParts" => "s3:ListMultipartUploadParts",
        "ListObjects" | "ListObjectsV2" | "HeadBucket" => "s3:ListBucket",
        "ListObjectVersions" => "s3:ListBucketVersions",
        "ListMultipartUploads" => "s3:ListBucketMultipartUploads",
        "ListBuckets" => "s3:ListAllMyBuckets",
        "DeleteBucketTagging" => "s3:PutBucketTagging",
        "DeleteObjects" => return None,
        _ => return Some(""),
    })
}

/// The ARN of a bucket, or of an object in it.
pub(crate) fn arn(bucket: &str, key: Option<&str>) -> String {
    match key {
        Some(key) => format!("arn:aws:s3:::{bucket}/{key}"),
        None => format!("arn:aws:s3:::{bucket}"),
    }
}

/// Refuses what the caller's policy does not allow.
pub(crate) fn demand(caller: &Caller, action: &str, resource: &str) -> S3Result<()> {
    if caller.authorizer.allows(action, resource) {
        return Ok(());
    }
    let who = &caller.principal_arn;
    Err(s3_error!(
        AccessDenied,
        "User: {who} is not authorized to perform: {action} on resource: \"{resource}\""
    ))
}

pub(crate) struct Access(pub Arc<KeyStore>);

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let denied = || s3_error!(AccessDenied, "Access Denied: the request is not signed.");
        let id = cx.credentials().ok_or_else(denied)?.access_key.clone();
        let claimed = cx.extensions_mut().get::<Claimed>().cloned();
        let caller = match claimed {
            Some(Claimed(caller)) if *caller.access_key_id == *id => caller,
            Some(_) => return Err(denied()),
            None => {
                let found = self.0.unproven(&id, unknown_region()?);
                found.map_err(|error| of_auth(&error, false, false))?.0
            }
        };
        let _ = SEEN.try_with(|seen| seen.lock().account = Some(caller.account));
        let operation = cx.s3_op().name().to_owned();
        let (resource, bucket) = match cx.s3_path() {
            S3Path::Root => ("arn:aws:s3:::*".to_owned(), None),
            S3Path::Bucket { bucket } => (arn(bucket, None), Some(bucket.to_string())),
            S3Path::Object { bucket, key } => (arn(bucket, Some(key)), Some(bucket.to_string())),
        };
        // A form names its key in a field; PostObject asks again when it knows it.
        let resource = match (operation.as_str(), bucket) {
            ("PostObject", Some(bucket)) => arn(&bucket, Some("*")),
            _ => resource,
        };
        match action(&operation) {
            None => {}
            Some(_) if operation == "PostObject" => {}
            Some("") => demand(&caller, &format!("s3:{operation}"), &resource)?,
            Some(action) => demand(&caller, action, &resource)?,
        }
        check_headers(cx.headers(), &caller)?;
        cx.extensions_mut().insert(Claimed(caller));
        Ok(())
    }
}

/// Headers that ask for what is not there: better refused than not heeded.
fn check_headers(headers: &HeaderMap, caller: &Caller) -> S3Result<()> {
    for owner in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
        let sent = headers.get(owner);
        if sent.is_some_and(|sent| sent.as_bytes() != caller.account.to_string().as_bytes()) {
            return Err(s3_error!(
                AccessDenied,
                "The bucket is not owned by the account that {owner} names."
            ));
        }
    }
    const ABSENT: [(&str, &str); 6] = [
        ("x-amz-server-side-encryption", "Server-side encryption"),
        ("x-amz-copy-source-server-side-encryption", "Server-side encryption"),
        ("x-amz-object-lock-", "Object Lock"),
        ("x-amz-bucket-object-lock-enabled", "Object Lock"),
        ("x-amz-website-redirect-location", "Website hosting"),
        ("x-amz-write-offset-bytes", "Appending to objects"),
    ];
    for name in headers.keys() {
        if let Some((_, what)) = ABSENT.iter().find(|(prefix, _)| name.as_str().starts_with(prefix)) {
            return Err(s3_error!(
                NotImplemented,
                "{what} is not implemented: a request with the header {name} is not carried out."
            ));
        }
        if name.as_str().starts_with("x-amz-grant-") {
            return Err(no_acls());
        }
    }
    let is = |name: &str, allowed: &[&str]| {
        let sent = headers.get(name);
        sent.is_none_or(|sent| {
            allowed
                .iter()
                .any(|one| sent.as_bytes().eq_ignore_ascii_case(one.as_bytes()))
        })
    };
    if !is(
        "x-amz-acl",
        &["private", "bucket-owner-full-control", "bucket-owner-read"],
    ) {
        return Err(no_acls());
    }
    if !is("x-amz-storage-class", &["STANDARD"]) {
        return Err(s3_error!(
            InvalidStorageClass,
            "The storage class you specified is not valid: there is STANDARD."
        ));
    }
    Ok(())
}

fn no_acls() -> S3Error {
    s3_error!(AccessControlListNotSupported, "The bucket does not allow ACLs")
}
