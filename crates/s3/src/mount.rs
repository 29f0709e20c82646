//! S3 on the port of the edge: which requests are S3's, and their way through `s3s`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use auth::{AuthError, Authenticator, Claim, RequestHead, Secret};
use base::{ByteStream, Caller};
use bytes::Bytes;
use edge::{Mount, MountAnswer, MountBody, MountFuture, MountRequest};
use futures_util::TryStreamExt;
use http::header::{self, HeaderMap};
use http::request::Parts as Head;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, s3_error};

use crate::access::{Access, Claimed, Keys, SEEN, SIGNER, Seen};
use crate::errors::of_auth;
use crate::host::Hosts;
use crate::limits::{ERROR_BYTES_MAX, FORM_FIELDS_BYTES_MAX, FORM_FIELDS_MAX, POST_BYTES_MAX, XML_BYTES_MAX};
use crate::service::{Parts, Service};

/// S3, ready to be mounted.
pub struct S3 {
    service: S3Service,
    authenticator: Arc<Authenticator>,
    hosts: Hosts,
}

/// What the path of a request and its outcome are in log and metrics.
const SERVICE: &str = "s3";

/// The operations that are there, for log and metrics.
pub(crate) const OPERATIONS: [&str; 35] = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CopyObject",
    "CreateBucket",
    "CreateMultipartUpload",
    "DeleteBucket",
    "DeleteBucketTagging",
    "DeleteObject",
    "DeleteObjectTagging",
    "DeleteObjects",
    "GetBucketAcl",
    "GetBucketLocation",
    "GetBucketTagging",
    "GetBucketVersioning",
    "GetObject",
    "GetObjectAcl",
    "GetObjectAttributes",
    "GetObjectTagging",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListMultipartUploads",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
    "PostObject",
    "PutBucketTagging",
    "PutObject",
    "PutObjectTagging",
    "UploadPart",
    "UploadPartCopy",
    // Answered as not implemented, and asked for by common clients all the same.
    "GetBucketPolicy",
    "ListObjectVersions",
    "PutBucketPolicy",
    "PutBucketVersioning",
];

/// The body of a request. `s3s` asks how long it is.
struct Sent {
    body: ByteStream,
    left: Option<u64>,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = base::StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, base::StreamError>>> {
        // Not asked for where there is none: a client that waits for `100 Continue` is not to be told to go on.
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        let polled = self.body.as_mut().poll_next(cx);
        if let (Poll::Ready(Some(Ok(bytes))), Some(left)) = (&polled, self.left) {
            self.left = Some(left.saturating_sub(bytes.len() as u64));
        }
        polled.map(|item| item.map(|outcome| outcome.map(http_body::Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.left
            .map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }
}

impl S3 {
    /// Over the parts. `skew_seconds` is how far a signature's date may be from the clock.
    pub fn new(parts: Parts, authenticator: Arc<Authenticator>, public_host: Option<&str>, skew_seconds: u32) -> Self {
        let hosts = Hosts::new(public_host);
        let mut config = S3Config::default();
        config.xml_max_body_size = XML_BYTES_MAX;
        config.post_object_max_file_size = POST_BYTES_MAX;
        config.form_max_field_size = FORM_FIELDS_BYTES_MAX;
        config.form_max_fields_size = FORM_FIELDS_BYTES_MAX;
        config.form_max_parts = FORM_FIELDS_MAX;
        config.presigned_url_max_skew_time_secs = skew_seconds;
        let mut builder = S3ServiceBuilder::new(Service::new(parts));
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder.set_host(hosts.clone());
        builder.set_auth(Keys(Arc::clone(authenticator.keys())));
        builder.set_access(Access(Arc::clone(authenticator.keys())));
        S3 {
            service: builder.build(),
            authenticator,
            hosts,
        }
    }

    /// The claim of a head, if it carries one.
    fn identify(&self, head: &Head, local_port: u16) -> Result<Claim, AuthError> {
        let mut headers: Vec<(&str, &[u8])> = Vec::with_capacity(head.headers.len() + 1);
        if let Some(authority) = head
            .uri
            .authority()
            .filter(|_| !head.headers.contains_key(header::HOST))
        {
            headers.push(("host", authority.as_str().as_bytes()));
        }
        headers.extend(
            head.headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        );
        self.authenticator.identify(&RequestHead {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &headers,
            local_port: Some(local_port),
            also_hosts: &[],
        })
    }

    /// Refuses what must not reach `s3s`: signatures of two kinds at once, and of version 2 in a header.
    fn check_kind(head: &Head) -> Result<(), S3Error> {
        let kinds = [
            head.headers.contains_key(header::AUTHORIZATION),
            has_query(head, "X-Amz-Signature"),
            has_query(head, "Signature"),
        ];
        if kinds.iter().filter(|kind| **kind).count() > 1 {
            return Err(s3_error!(InvalidArgument, "Only one auth mechanism allowed."));
        }
        if head.headers.get(header::AUTHORIZATION).is_some_and(is_version_2) {
            return Err(s3_error!(
                InvalidRequest,
                "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
            ));
        }
        Ok(())
    }

    /// Who claims to have signed the head, and with which secret that is to be proven. `None` for a form, which is signed
    /// in its fields.
    fn signer(&self, head: &Head, local_port: u16) -> Result<Option<(Caller, Secret)>, AuthError> {
        // What SDKs still make of a URL that is signed beforehand, unless they are told otherwise.
        if let Some(id) = query(head, "AWSAccessKeyId").filter(|_| has_query(head, "Signature")) {
            let region = "us-east-1".parse().map_err(|_| AuthError::UnknownKey)?;
            return self.authenticator.keys().unproven(&id, region).map(Some);
        }
        match self.identify(head, local_port) {
            Ok(claim) => {
                let (caller, secret) = claim.unproven();
                Ok(Some((caller.clone(), secret.clone())))
            }
            Err(AuthError::MissingToken) if is_form(head) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn serve(&self, request: MountRequest) -> MountAnswer {
        let MountRequest {
            mut head,
            body,
            request_id,
            local_port,
            body_len,
        } = request;
        let body = Sent { body, left: body_len };
        let path = head.uri.path().to_owned();
        let head_only = head.method == Method::HEAD;
        let mut account = None;
        let refused = Self::check_kind(&head).and_then(|()| {
            let signer = self.signer(&head, local_port).map_err(|error| {
                let by_query = has_query(&head, "X-Amz-Signature");
                let token = head.headers.contains_key("x-amz-security-token");
                of_auth(&error, by_query, token || has_query(&head, "X-Amz-Security-Token"))
            })?;
            Ok(signer.map(|(caller, secret)| {
                account = Some(caller.account);
                let id = caller.access_key_id.to_string();
                head.extensions.insert(Claimed(caller));
                (id, secret)
            }))
        });
        let (answered, seen) = match refused {
            Err(error) => (
                error.to_http_response().map_err(|error| error.to_string()),
                Seen::default(),
            ),
            Ok(signer) => self.call(head, body, signer).await,
        };
        let response = match answered {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(%error, "an answer of S3 could not be made");
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        };
        let (mut response, error) = finish(response, head_only, &path, &request_id).await;
        if seen.operation == Some("GetObjectAttributes") && response.status().is_success() {
            bare_etag(&mut response);
        }
        MountAnswer {
            response,
            name: (SERVICE, seen.operation.unwrap_or("-")),
            account: seen.account.or(account),
            error,
        }
    }

    async fn call(
        &self,
        head: Head,
        body: Sent,
        signer: Option<(String, Secret)>,
    ) -> (Result<Response<Body>, String>, Seen) {
        let request = http::Request::from_parts(head, Body::http_body_unsync(body));
        let work = async {
            let answered = self.service.call(request).await.map_err(|error| format!("{error:?}"));
            let seen = SEEN
                .try_with(|seen| std::mem::take(&mut *seen.lock()))
                .unwrap_or_default();
            (answered, seen)
        };
        SIGNER.scope(signer, SEEN.scope(Mutex::default(), work)).await
    }
}

impl Mount for S3 {
    fn claims(&self, head: &Head) -> bool {
        if let Some(service) = scope_service(head) {
            return service == "s3";
        }
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| head.uri.authority().map(http::uri::Authority::as_str));
        is_form(head)
            || has_query(head, "AWSAccessKeyId")
            || head.headers.get(header::AUTHORIZATION).is_some_and(is_version_2)
            || host.is_some_and(|host| self.hosts.bucket(host).is_some())
    }

    fn answer(&self, request: MountRequest) -> MountFuture<'_> {
        Box::pin(self.serve(request))
    }
}

/// The service in the scope of a signature: `KEY/DAY/REGION/SERVICE/aws4_request`. Nothing is proven by it.
fn scope_service(head: &Head) -> Option<String> {
    let credential = match head.headers.get(header::AUTHORIZATION) {
        Some(value) => {
            let (_, rest) = value.to_str().ok()?.split_once("Credential=")?;
            rest.split([',', ' ']).next()?.to_owned()
        }
        None => query(head, "X-Amz-Credential")?.replace("%2F", "/").replace("%2f", "/"),
    };
    let mut parts = credential.rsplitn(3, '/');
    parts.next()?;
    parts.next().map(str::to_owned)
}

fn query(head: &Head, name: &str) -> Option<String> {
    let pairs = head.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(have, _)| *have == name)
        .map(|(_, value)| value.to_owned())
        .next()
}

fn has_query(head: &Head, name: &str) -> bool {
    query(head, name).is_some()
}

fn is_version_2(authorization: &http::HeaderValue) -> bool {
    authorization.as_bytes().starts_with(b"AWS ")
}

/// A form that a browser posts; it is signed in its fields.
fn is_form(head: &Head) -> bool {
    let content_type = head.headers.get(header::CONTENT_TYPE);
    head.method == Method::POST
        && content_type.is_some_and(|value| {
            value
                .as_bytes()
                .to_ascii_lowercase()
                .starts_with(b"multipart/form-data")
        })
}

/// The answer as the edge takes it; an error document gets request id and resource written into it.
async fn finish(
    response: Response<Body>,
    head_only: bool,
    path: &str,
    request_id: &str,
) -> (Response<MountBody>, Option<String>) {
    let (mut parts, body) = response.into_parts();
    let status = parts.status;
    if status == StatusCode::NOT_MODIFIED {
        parts.headers.remove(header::CONTENT_TYPE);
        return (Response::from_parts(parts, MountBody::Bytes(Bytes::new())), None);
    }
    if status.is_client_error() || status.is_server_error() {
        let text = http_body_util::Limited::new(body, ERROR_BYTES_MAX).collect().await;
        let text = text.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if let Some(denied) = unmet_condition(&text) {
            (parts.status, text) = (StatusCode::FORBIDDEN, denied);
        }
        let error = summary(&text);
        let document = with_request_id(&text, path, request_id);
        parts.headers.remove(header::CONTENT_LENGTH);
        let bytes = if head_only { Bytes::new() } else { Bytes::from(document) };
        return (Response::from_parts(parts, MountBody::Bytes(bytes)), Some(error));
    }
    let length_known = has_length(&parts.headers);
    let small = body.bytes();
    let body = match small {
        Some(bytes) => MountBody::Bytes(bytes),
        None if head_only => MountBody::Bytes(Bytes::new()),
        None => {
            if let (false, Some(len)) = (length_known, http_body::Body::size_hint(&body).exact()) {
                parts.headers.insert(header::CONTENT_LENGTH, len.into());
            }
            let stream = TryStreamExt::map_err(body, |error| base::StreamError::Other(error.to_string()));
            MountBody::Stream(Box::pin(stream))
        }
    };
    (Response::from_parts(parts, body), None)
}

/// AWS puts the ETag into quotes everywhere but in this answer; `s3s` everywhere.
fn bare_etag(response: &mut Response<MountBody>) {
    let MountBody::Bytes(bytes) = response.body_mut() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    let bare = text.replace("<ETag>\"", "<ETag>").replace("\"</ETag>", "</ETag>");
    *bytes = Bytes::from(bare);
    response.headers_mut().remove(header::CONTENT_LENGTH);
}

/// `s3s` calls a form's unmet condition by the name of a policy that cannot be read. AWS denies access.
fn unmet_condition(document: &str) -> Option<String> {
    let unmet = element(document, "Code")? == "InvalidPolicyDocument"
        && element(document, "Message")?.starts_with("Policy condition ");
    unmet.then(|| {
        document
            .replace("<Code>InvalidPolicyDocument</Code>", "<Code>AccessDenied</Code>")
            .replace("<Message>", "<Message>Invalid according to Policy: ")
    })
}

fn has_length(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_LENGTH)
}

fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

fn summary(document: &str) -> String {
    let code = element(document, "Code").unwrap_or_default();
    format!("{code}: {}", element(document, "Message").unwrap_or_default())
}

/// AWS's words for what `s3s` refuses without any.
fn words(code: &str) -> &str {
    match code {
        "InvalidBucketName" => "The specified bucket is not valid.",
        "KeyTooLongError" => "Your key is too long",
        "InvalidURI" => "Couldn't parse the specified URI.",
        "SignatureDoesNotMatch" => {
            "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        }
        "MalformedXML" => "The XML you provided was not well-formed or did not validate against our published schema",
        "MissingContentLength" => "You must provide the Content-Length HTTP header.",
        "MethodNotAllowed" => "The specified method is not allowed against this resource.",
        other => other,
    }
}

fn with_request_id(document: &str, path: &str, request_id: &str) -> String {
    let Some((start, _)) = document
        .rsplit_once("</Error>")
        .filter(|_| element(document, "RequestId").is_none())
    else {
        return document.to_owned();
    };
    let message = match (element(document, "Message"), element(document, "Code")) {
        (None, Some(code)) => format!("<Message>{}</Message>", words(code)),
        _ => String::new(),
    };
    let mut resource = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '&' => resource.push_str("&amp;"),
            '<' => resource.push_str("&lt;"),
            '>' => resource.push_str("&gt;"),
            c => resource.push(c),
        }
    }
    format!(
        "{start}{message}<Resource>{resource}</Resource><RequestId>{request_id}</RequestId><HostId>{request_id}</HostId></Error>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Head {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_scope_of_a_signature_says_which_service_is_meant() {
        let header = |service: &str| {
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIA/x/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=00"
            )
        };
        for service in ["s3", "kinesis"] {
            let found = scope_service(&head("GET", "/", &[("authorization", &header(service))]));
            assert_eq!(found.as_deref(), Some(service));
            let uri = format!("/b/k?X-Amz-Credential=AKIA%2F20260101%2Fus-east-1%2F{service}%2Faws4_request");
            assert_eq!(scope_service(&head("GET", &uri, &[])).as_deref(), Some(service));
        }
        for (uri, authorization) in [("/", "Credential="), ("/", "x"), ("/?X-Amz-Credential=a", "AWS a:b")] {
            assert_eq!(
                scope_service(&head("GET", uri, &[("authorization", authorization)])),
                None
            );
        }
    }

    #[test]
    fn an_error_document_names_the_request_and_the_resource() {
        let document = with_request_id("<Error><Code>A</Code><Message>B</Message></Error>", "/a&b", "id");
        assert_eq!(element(&document, "Resource"), Some("/a&amp;b"));
        assert_eq!(element(&document, "RequestId"), Some("id"));
        assert_eq!(summary(&document), "A: B");
        assert_eq!(with_request_id("", "/", "id"), "");
    }
}
