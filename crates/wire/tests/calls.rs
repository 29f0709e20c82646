//! A request through the registry: decoded, checked, authorised, carried out, answered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::sync::{Arc, Mutex};

use base::{ApiError, Authorizer, Caller, Handle, Reply, Request, RequestContext, Timestamp};
use wire::{Address, RawBody, RawReply, RawRequest, Registry, Route, kinesis, kinesisvideo_media, rekognition, sts};

/// Allows nothing, and remembers what it was asked.
#[derive(Debug, Default)]
struct Nothing(Mutex<Vec<String>>);

impl Authorizer for Nothing {
    fn allows(&self, action: &str, resource: &str) -> bool {
        self.0.lock().unwrap().push(format!("{action} {resource}"));
        false
    }
}

#[derive(Debug)]
struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

fn context(authorizer: Arc<dyn Authorizer>) -> RequestContext {
    RequestContext {
        caller: Caller {
            account: "123456789012".parse().unwrap(),
            region: "eu-west-1".parse().unwrap(),
            access_key_id: "AKIA".into(),
            principal_arn: "arn:aws:iam::123456789012:user/u".into(),
            authorizer,
        },
        request_id: "request-1".into(),
        base_url: "http://127.0.0.1:4577".into(),
        received_at: Timestamp::default(),
    }
}

struct Service;

impl Handle<kinesis::op::PutRecord> for Service {
    async fn handle(
        &self,
        request: Request<kinesis::PutRecordInput>,
    ) -> Result<Reply<kinesis::PutRecordOutput>, ApiError> {
        if request.input.data.is_empty() {
            return Err(ApiError::client(
                "ResourceNotFoundException",
                "Stream faces under account 1 not found.",
            ));
        }
        let output = kinesis::PutRecordOutput {
            sequence_number: request.input.data.len().to_string(),
            shard_id: "shardId-000000000000".to_owned(),
            ..kinesis::PutRecordOutput::default()
        };
        Ok(output.into())
    }
}

impl Handle<kinesisvideo_media::op::PutMedia> for Service {
    async fn handle(
        &self,
        request: Request<kinesisvideo_media::PutMediaInput>,
    ) -> Result<Reply<kinesisvideo_media::PutMediaOutput>, ApiError> {
        // What comes in goes out.
        Ok(Reply {
            output: kinesisvideo_media::PutMediaOutput::default(),
            stream: request.body,
            stream_len: None,
            crowd: None,
        })
    }
}

impl Handle<sts::op::GetCallerIdentity> for Service {
    async fn handle(
        &self,
        request: Request<sts::GetCallerIdentityRequest>,
    ) -> Result<Reply<sts::GetCallerIdentityResponse>, ApiError> {
        let output = sts::GetCallerIdentityResponse {
            account: Some(request.context.caller.account.to_string()),
            ..sts::GetCallerIdentityResponse::default()
        };
        Ok(output.into())
    }
}

fn registry() -> Registry {
    let service = Arc::new(Service);
    let mut registry = Registry::new();
    registry
        .register::<kinesis::op::PutRecord, _>(&service)
        .register::<kinesisvideo_media::op::PutMedia, _>(&service)
        .register::<sts::op::GetCallerIdentity, _>(&service);
    registry
}

fn json_route(registry: &Registry, scope: &str, target: &str) -> Route {
    let address = Address {
        method: "POST",
        path: "/",
        scope_service: Some(scope),
        target: Some(target),
        action: None,
        content_type: None,
    };
    registry.resolve(&address).unwrap()
}

async fn call(route: &Route, authorizer: Arc<dyn Authorizer>, body: &str) -> RawReply {
    let request = RawRequest {
        headers: &|_| None,
        body: RawBody::Bytes(body.to_owned().into()),
    };
    match route.call(context(authorizer), request).await {
        Ok(reply) => reply,
        Err(error) => route.render_error(&error, "request-1"),
    }
}

fn text(reply: RawReply) -> String {
    match reply.body {
        RawBody::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        RawBody::Stream(_) => panic!("a stream"),
    }
}

#[tokio::test]
async fn a_registered_operation_is_carried_out() {
    let registry = registry();
    assert_eq!(
        registry.operations().collect::<Vec<_>>(),
        [
            "kinesis PutRecord",
            "kinesis-video-media PutMedia",
            "sts GetCallerIdentity"
        ]
    );
    let route = json_route(&registry, "kinesis", "Kinesis_20131202.PutRecord");
    let body = r#"{"StreamName":"faces","Data":"aGVsbG8=","PartitionKey":"k"}"#;
    let reply = call(&route, Arc::new(Everything), body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        text(reply),
        r#"{"SequenceNumber":"5","ShardId":"shardId-000000000000"}"#
    );
}

#[tokio::test]
async fn an_error_of_a_handler_has_the_shape_of_its_protocol() {
    let registry = registry();
    let route = json_route(&registry, "kinesis", "Kinesis_20131202.PutRecord");
    let body = r#"{"StreamName":"faces","Data":"","PartitionKey":"k"}"#;
    let reply = call(&route, Arc::new(Everything), body).await;
    assert_eq!(
        (reply.status, reply.content_type.as_ref()),
        (400, "application/x-amz-json-1.1")
    );
    assert!(
        reply
            .headers
            .contains(&("x-amzn-ErrorType".into(), "ResourceNotFoundException".to_owned()))
    );
    assert!(
        reply
            .headers
            .contains(&("x-amz-ErrorType".into(), "ResourceNotFoundException".to_owned()))
    );
    assert_eq!(
        text(reply),
        r#"{"__type":"ResourceNotFoundException","message":"Stream faces under account 1 not found.","Message":"Stream faces under account 1 not found."}"#
    );
    let face = json_route(&registry, "rekognition", "RekognitionService.DetectFaces");
    let error = ApiError::client("InvalidParameterException", "no");
    assert_eq!(
        text(face.render_error(&error, "id")),
        r#"{"__type":"InvalidParameterException","Code":"InvalidParameterException","Logref":"id","Message":"no"}"#
    );
}

#[tokio::test]
async fn a_request_in_cbor_is_answered_in_cbor_errors_included() {
    let address = Address {
        method: "POST",
        path: "/",
        scope_service: Some("kinesis"),
        target: Some("Kinesis_20131202.PutRecord"),
        content_type: Some("application/x-amz-cbor-1.1"),
        action: None,
    };
    let route = registry().resolve(&address).unwrap();
    let call = async |body: &'static [u8]| {
        let request = RawRequest {
            headers: &|_| None,
            body: RawBody::Bytes(body.into()),
        };
        match route.call(context(Arc::new(Everything)), request).await {
            Ok(reply) => reply,
            Err(error) => route.render_error(&error, "request-1"),
        }
    };
    let bytes = |reply: RawReply| match reply.body {
        RawBody::Bytes(bytes) => bytes,
        RawBody::Stream(_) => panic!("a stream"),
    };
    // A map of unknown length, as the Java SDK writes it.
    let reply = call(b"\xbf\x6aStreamName\x65faces\x64Data\x45hello\x6cPartitionKey\x61k\xff").await;
    assert_eq!(reply.content_type, "application/x-amz-cbor-1.1");
    assert_eq!(
        bytes(reply),
        &b"\xa2\x6eSequenceNumber\x615\x67ShardId\x74shardId-000000000000"[..]
    );
    let reply = call(b"\xbf\x6aStreamName\x65faces\x64Data\x40\x6cPartitionKey\x61k\xff").await;
    assert_eq!(
        (reply.status, reply.content_type.as_ref()),
        (400, "application/x-amz-cbor-1.1")
    );
    assert!(bytes(reply).starts_with(b"\xa2\x66__type\x78\x19ResourceNotFoundException\x67message\x78"));
    let reply = call(b"\x9f").await;
    assert_eq!(reply.status, 400);
    // Text is not bytes in CBOR, even if it looks like base64.
    let reply = call(b"\xa3\x6aStreamName\x65faces\x64Data\x64aGVs\x6cPartitionKey\x61k").await;
    assert!(bytes(reply).starts_with(b"\xa2\x66__type\x76SerializationException"));
}

#[tokio::test]
async fn a_policy_is_asked_about_the_resource_and_a_refusal_says_so() {
    let registry = registry();
    let nothing = Arc::new(Nothing::default());
    let route = json_route(&registry, "kinesis", "Kinesis_20131202.PutRecord");
    let body = r#"{"StreamName":"faces","Data":"aGVsbG8=","PartitionKey":"k"}"#;
    let reply = call(&route, nothing.clone(), body).await;
    assert_eq!(reply.status, 400);
    let resource = "arn:aws:kinesis:eu-west-1:123456789012:stream/faces";
    assert_eq!(*nothing.0.lock().unwrap(), [format!("kinesis:PutRecord {resource}")]);
    assert_eq!(
        text(reply),
        format!(
            r#"{{"__type":"AccessDeniedException","message":"{0}","Message":"{0}"}}"#,
            format_args!(
                "User: arn:aws:iam::123456789012:user/u is not authorized to perform: kinesis:PutRecord on resource: \
                 {resource} because no identity-based policy allows the kinesis:PutRecord action"
            )
        )
    );
}

#[tokio::test]
async fn everyone_may_ask_who_he_is() {
    let address = Address {
        method: "POST",
        path: "/",
        scope_service: Some("sts"),
        action: Some("GetCallerIdentity"),
        target: None,
        content_type: None,
    };
    let route = registry().resolve(&address).unwrap();
    let reply = call(&route, Arc::new(Nothing::default()), "Action=GetCallerIdentity").await;
    assert_eq!((reply.status, reply.content_type.as_ref()), (200, "text/xml"));
    assert!(text(reply).contains("<Account>123456789012</Account>"));
}

#[tokio::test]
async fn an_operation_without_a_handler_says_so_but_only_to_who_may_call_it() {
    let registry = registry();
    let route = json_route(&registry, "rekognition", "RekognitionService.DetectText");
    assert_eq!(route.info().name, "DetectText");
    let reply = call(&route, Arc::new(Everything), "{}").await;
    assert_eq!(reply.status, 400);
    let said = "DetectText is not implemented by this server: there is no model for text in pictures; see docs/reference/coverage.md";
    assert!(text(reply).contains(said));
    let denied = call(&route, Arc::new(Nothing::default()), "{}").await;
    assert!(text(denied).contains("AccessDeniedException"));
    // Every operation of the tables can be refused without a panic.
    for info in wire::all_operations() {
        let reply = wire::render_error(&ApiError::client("X", "y"), info, "id");
        assert_eq!(reply.status, 400);
    }
    let _ = rekognition::op::DetectLabels;
}

#[tokio::test]
async fn the_body_of_put_media_reaches_the_handler_as_a_stream() {
    use futures_util::StreamExt;
    let address = Address {
        method: "POST",
        path: "/putMedia",
        scope_service: Some("kinesisvideo"),
        ..Address::default()
    };
    let route = registry().resolve(&address).unwrap();
    assert!(route.info().request_stream && route.info().reply_stream);
    let chunks = [
        Ok(bytes::Bytes::from_static(b"ab")),
        Ok(bytes::Bytes::from_static(b"c")),
    ];
    let headers = |name: &str| match name {
        "x-amzn-stream-name" => Some("door".to_owned()),
        "x-amzn-fragment-timecode-type" => Some("ABSOLUTE".to_owned()),
        _ => None,
    };
    let request = RawRequest {
        headers: &headers,
        body: RawBody::Stream(Box::pin(futures_util::stream::iter(chunks))),
    };
    let reply = route.call(context(Arc::new(Everything)), request).await.unwrap();
    let RawBody::Stream(stream) = reply.body else {
        panic!("no stream")
    };
    let echoed: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!(echoed.concat(), b"abc");

    let denied = RawRequest {
        headers: &headers,
        body: RawBody::Stream(Box::pin(futures_util::stream::empty())),
    };
    let error = route
        .call(context(Arc::new(Nothing::default())), denied)
        .await
        .unwrap_err();
    assert_eq!(error.code, "NotAuthorizedException");
    assert_eq!(route.render_error(&error, "id").status, 401);
}
