//! One JSON call at a time, over connections that are kept.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use auth::sign::payload_hash;
use auth::{Credentials, RequestHead, Scope};
use base::{Clock, Region};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::timeout;

use crate::credentials::{CredentialsCache, ProvideCredentials};
use crate::endpoint::Endpoint;
use crate::error::{Answer, ClientError};
use crate::limits::{ANSWER_BYTES_MAX, IDLE_CONNECTIONS_MAX};
use crate::transport::{RequestBody, Sender, StreamSender, Tls, Trust, connect, connect_stream};

/// A service whose operations are called by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Kinesis Video Streams, all of its models.
    KinesisVideo,
    /// Kinesis Data Streams.
    Kinesis,
    /// Rekognition.
    Rekognition,
    /// DynamoDB, or what speaks its language.
    DynamoDb,
    /// Firehose.
    Firehose,
}

impl Service {
    pub(crate) fn signing_name(self) -> &'static str {
        match self {
            Service::KinesisVideo => "kinesisvideo",
            Service::Kinesis => "kinesis",
            Service::Rekognition => "rekognition",
            Service::DynamoDb => "dynamodb",
            Service::Firehose => "firehose",
        }
    }

    /// Path, content type and `X-Amz-Target` of an operation.
    fn address(self, operation: &str) -> (String, &'static str, Option<String>) {
        const JSON_1_1: &str = "application/x-amz-json-1.1";
        match self {
            Service::KinesisVideo => (kinesis_video_path(operation), "application/json", None),
            Service::Kinesis => ("/".to_owned(), JSON_1_1, Some(format!("Kinesis_20131202.{operation}"))),
            Service::Rekognition => (
                "/".to_owned(),
                JSON_1_1,
                Some(format!("RekognitionService.{operation}")),
            ),
            Service::Firehose => ("/".to_owned(), JSON_1_1, Some(format!("Firehose_20150804.{operation}"))),
            Service::DynamoDb => (
                "/".to_owned(),
                "application/x-amz-json-1.0",
                Some(format!("DynamoDB_20120810.{operation}")),
            ),
        }
    }
}

/// The name with a small first letter, but for three operations whose path keeps the capital.
fn kinesis_video_path(operation: &str) -> String {
    if matches!(operation, "TagResource" | "UntagResource" | "ListTagsForResource") {
        return format!("/{operation}");
    }
    let (first, rest) = operation.split_at_checked(1).unwrap_or((operation, ""));
    format!("/{}{rest}", first.to_ascii_lowercase())
}

/// What a request asks for.
pub(crate) struct Target<'a> {
    pub method: Method,
    /// The name in the signature's scope.
    pub service: &'static str,
    /// With `%` where it needs it.
    pub path: &'a str,
    /// Behind the question mark, in the order of names.
    pub query: &'a str,
}

/// Where to call, and as whom.
#[derive(Clone)]
pub struct ClientConfig {
    /// The server.
    pub endpoint: Endpoint,
    /// The region of the signature's scope.
    pub region: Region,
    /// Whose key signs: [`Credentials`], or what provides them.
    pub credentials: Arc<dyn ProvideCredentials>,
    /// Which certificates an `https` server may show.
    pub trust: Trust,
    /// How long one call may take.
    pub timeout: Duration,
}

impl ClientConfig {
    /// Half a minute for a call, and the certificates that this machine trusts.
    pub fn new(endpoint: Endpoint, region: Region, credentials: impl ProvideCredentials) -> Self {
        ClientConfig {
            endpoint,
            region,
            credentials: Arc::new(credentials),
            trust: Trust::Platform,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A client; cheap to clone, and clones share connections and credentials.
#[derive(Clone)]
pub struct Client {
    pub(crate) endpoint: Endpoint,
    region: Region,
    pub(crate) timeout: Duration,
    pub(crate) credentials: Arc<CredentialsCache>,
    pub(crate) tls: Arc<Tls>,
    clock: Arc<dyn Clock>,
    pub(crate) idle: Arc<Mutex<Vec<Sender>>>,
    /// Stays where it is, whatever GetDataEndpoint would name.
    pub(crate) stays: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client. Opens no connection yet. Fails when the certificates cannot be read.
    pub fn new(config: ClientConfig, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Ok(Client {
            endpoint: config.endpoint,
            region: config.region,
            timeout: config.timeout,
            credentials: Arc::new(CredentialsCache::new(config.credentials)),
            tls: Arc::new(Tls::new(config.trust)?),
            clock,
            idle: Arc::default(),
            stays: false,
        })
    }

    /// The same client for another server: the one that GetDataEndpoint named.
    #[must_use]
    pub fn at(&self, endpoint: Endpoint) -> Self {
        if endpoint == self.endpoint {
            return self.clone();
        }
        Client {
            endpoint,
            idle: Arc::default(),
            ..self.clone()
        }
    }

    /// The same client, whose calls may take so long.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Client {
            timeout,
            ..self.clone()
        }
    }

    /// The same client, which calls every operation where it is and asks for no data endpoint: for one that is there
    /// already, or that reaches the server on a way of its own.
    #[must_use]
    pub fn staying(&self) -> Self {
        Client {
            stays: true,
            ..self.clone()
        }
    }

    /// Where it calls.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Calls one operation, e.g. `CreateStream`, with its input as JSON.
    pub async fn call(&self, service: Service, operation: &str, input: &Value) -> Result<Value, ClientError> {
        self.call_as(service, operation, input).await
    }

    /// As [`call`](Self::call), with the members of the answer that `T` has: for large answers.
    pub async fn call_as<T: serde::de::DeserializeOwned>(
        &self,
        service: Service,
        operation: &str,
        input: &Value,
    ) -> Result<T, ClientError> {
        let answer = self.call_raw(service, operation, input).await?;
        let answer: &[u8] = if answer.is_empty() { b"{}" } else { &answer };
        serde_json::from_slice(answer).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// One of the pages that need no signature, e.g. `/metrics` or `/health`, as text.
    pub async fn page(&self, path: &str) -> Result<String, ClientError> {
        timeout(self.timeout, async {
            let request = Request::get(path).header(header::HOST, &self.endpoint.authority);
            let body: RequestBody = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
            let mut sender = connect(&self.endpoint, &self.tls).await?;
            let response = sender.send_request(request.body(body)?).await?;
            let text = whole(succeeded(response).await?).await?;
            Ok::<_, ClientError>(String::from_utf8_lossy(&text).into_owned())
        })
        .await
        .map_err(|_| ClientError::Timeout(self.timeout))?
    }

    /// As [`call`](Self::call); the answer as it came.
    pub(crate) async fn call_raw(
        &self,
        service: Service,
        operation: &str,
        input: &Value,
    ) -> Result<Bytes, ClientError> {
        self.answered(self.send(service, operation, input)).await
    }

    /// Sends a buffered request and gives the head of a successful answer, with the connection that carries it.
    pub(crate) async fn send(
        &self,
        service: Service,
        operation: &str,
        input: &Value,
    ) -> Result<(Response<Incoming>, Sender), ClientError> {
        let (path, content_type, target) = service.address(operation);
        let body = Bytes::from(input.to_string());
        let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
        headers.extend(target.map(|target| ("x-amz-target".to_owned(), target)));
        let head = self.signed(service, &path, headers, &payload_hash(&body)).await?;
        self.send_signed(head, body).await
    }

    /// Calls an operation with a body of another content type; the answer as it came.
    pub(crate) async fn call_bytes(
        &self,
        service: Service,
        operation: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let (path, _, target) = service.address(operation);
        let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
        headers.extend(target.map(|target| ("x-amz-target".to_owned(), target)));
        self.answered(async {
            let head = self.signed(service, &path, headers, &payload_hash(&body)).await?;
            self.send_signed(head, body.clone()).await
        })
        .await
    }

    /// The whole answer to what is sent, within the time that a call may take; the connection is kept.
    pub(crate) async fn answered(
        &self,
        sent: impl Future<Output = Result<(Response<Incoming>, Sender), ClientError>>,
    ) -> Result<Bytes, ClientError> {
        timeout(self.timeout, async {
            let (response, sender) = sent.await?;
            let answer = whole(response).await?;
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_CONNECTIONS_MAX {
                idle.push(sender);
            }
            Ok::<_, ClientError>(answer)
        })
        .await
        .map_err(|_| ClientError::Timeout(self.timeout))?
    }

    /// Sends a signed request over a kept connection or a new one.
    pub(crate) async fn send_signed(
        &self,
        head: Request<()>,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Sender), ClientError> {
        let request = |body: &Bytes| -> Request<RequestBody> {
            let (parts, ()) = head.clone().into_parts();
            Request::from_parts(
                parts,
                Full::new(body.clone()).map_err(|never| match never {}).boxed_unsync(),
            )
        };
        loop {
            let kept = self.idle.lock().pop();
            let reused = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(&self.endpoint, &self.tls).await?,
            };
            if sender.ready().await.is_err() && reused {
                continue;
            }
            match sender.try_send_request(request(&body)).await {
                Ok(response) => return Ok((succeeded(response).await?, sender)),
                Err(mut error) => {
                    // A kept connection that the server had closed meanwhile: nothing was sent.
                    let unsent = error.take_message().is_some();
                    if !(reused && unsent) {
                        return Err(ClientError::Broken(error.into_error()));
                    }
                }
            }
        }
    }

    /// As [`send`](Self::send), for an answer that goes on for long: over a connection of its own, in HTTP/2 where it can be
    /// had.
    pub(crate) async fn send_for_stream(
        &self,
        service: Service,
        operation: &str,
        input: &Value,
    ) -> Result<(Response<Incoming>, StreamSender), ClientError> {
        let (path, content_type, target) = service.address(operation);
        let body = Bytes::from(input.to_string());
        let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
        headers.extend(target.map(|target| ("x-amz-target".to_owned(), target)));
        let (mut parts, ()) = self
            .signed(service, &path, headers, &payload_hash(&body))
            .await?
            .into_parts();
        let body: RequestBody = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        let mut sender = connect_stream(&self.endpoint, &self.tls).await?;
        let response = match &mut sender {
            StreamSender::One(sender) => sender.send_request(Request::from_parts(parts, body)).await?,
            StreamSender::Two(sender) => {
                // HTTP/2 has the host in the address.
                parts.headers.remove(header::HOST);
                parts.uri = format!("https://{}{path}", self.endpoint.authority)
                    .parse()
                    .map_err(http::Error::from)?;
                sender.send_request(Request::from_parts(parts, body)).await?
            }
        };
        Ok((succeeded(response).await?, sender))
    }

    /// A signed request head for the endpoint.
    pub(crate) async fn signed(
        &self,
        service: Service,
        path: &str,
        headers: Vec<(String, String)>,
        payload_hash: &str,
    ) -> Result<Request<()>, ClientError> {
        let target = Target {
            method: Method::POST,
            service: service.signing_name(),
            path,
            query: "",
        };
        self.signed_for(&target, headers, payload_hash).await
    }

    /// A signed request head.
    pub(crate) async fn signed_for(
        &self,
        target: &Target<'_>,
        mut headers: Vec<(String, String)>,
        payload_hash: &str,
    ) -> Result<Request<()>, ClientError> {
        headers.push(("host".to_owned(), self.endpoint.authority.clone()));
        let credentials = self.credentials.get(self.clock.now()).await?;
        let extra = self.signature(&credentials, target, &headers, payload_hash);
        let uri = match target.query {
            "" => target.path.to_owned(),
            query => format!("{}?{query}", target.path),
        };
        let mut request = Request::builder().method(target.method.clone()).uri(uri);
        for (name, value) in headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .chain(extra.iter().map(|(n, v)| (n.as_str(), v.as_str())))
        {
            let name = HeaderName::try_from(name).map_err(http::Error::from)?;
            let value = HeaderValue::try_from(value).map_err(http::Error::from)?;
            request = request.header(name, value);
        }
        Ok(request.body(())?)
    }
}

impl Client {
    /// The headers that sign a request.
    fn signature(
        &self,
        credentials: &Credentials,
        target: &Target<'_>,
        headers: &[(String, String)],
        payload_hash: &str,
    ) -> Vec<(String, String)> {
        let pairs: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let head = RequestHead {
            method: target.method.as_str(),
            path: target.path,
            query: target.query,
            headers: &pairs,
            local_port: None,
            also_hosts: &[],
        };
        let scope = Scope {
            region: self.region.as_str(),
            service: target.service,
        };
        auth::sign(&head, credentials, scope, self.clock.now(), payload_hash)
    }
}

/// Lets a 200 through and reads what any other answer says.
pub(crate) async fn succeeded(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let named = response
        .headers()
        .get("x-amzn-errortype")
        .or_else(|| response.headers().get("x-amz-errortype"))
        .and_then(|name| name.to_str().ok())
        .map(str::to_owned);
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let cbor = content_type.is_some_and(|kind| kind.as_bytes().starts_with(crate::bulk::CBOR.as_bytes()));
    let body = whole(response).await?;
    if cbor {
        let (code, message) = crate::bulk::error(&body)?;
        return Err(ClientError::Refused(Answer { status, code, message }));
    }
    let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let text = |keys: [&str; 3]| keys.iter().find_map(|key| json.get(key)?.as_str()).map(str::to_owned);
    let code = named.or_else(|| text(["__type", "code", "Code"])).unwrap_or_default();
    let code = code.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().to_owned();
    let message = text(["message", "Message", "errorMessage"])
        .unwrap_or_else(|| String::from_utf8_lossy(body.get(..body.len().min(500)).unwrap_or_default()).into_owned());
    Err(ClientError::Refused(Answer { status, code, message }))
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let length = response.headers().get(header::CONTENT_LENGTH).cloned();
    Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => ClientError::Broken(*error),
            Err(error) => ClientError::Protocol(format!("{error} (Content-Length {length:?})")),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_models_case_traps() {
        assert_eq!(kinesis_video_path("CreateStream"), "/createStream");
        assert_eq!(
            kinesis_video_path("GetMediaForFragmentList"),
            "/getMediaForFragmentList"
        );
        assert_eq!(kinesis_video_path("TagStream"), "/tagStream");
        assert_eq!(kinesis_video_path("TagResource"), "/TagResource");
    }
}
